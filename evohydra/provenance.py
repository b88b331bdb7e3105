"""What a result was made with: versions, the commit, and the format of recipe files."""

import platform
import shutil
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FORMAT = 2  # of recipe files; 1 merged in float32 whatever the type of the sources
PACKAGES = ("evohydra", "torch", "transformers", "safetensors", "lm-eval", "hydra-core", "cmaes", "scipy", "numpy")
OF_EXTRAS = ("diffusers", "peft", "pymoo", "ribs")


def versions() -> dict[str, str]:
    """What this run was made with."""
    found = {package: version(package) for package in PACKAGES}
    for package in OF_EXTRAS:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return {"python": platform.python_version(), **found}


def commit() -> str | None:
    """The commit of the checkout that runs; None where there is no checkout, or no git."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    asked = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True)
    return asked.stdout.strip() or None
