"""Other libraries: which versions a result was made with, those that only some parts need, and private parts in use.

Each use of a private part stands in a module that has `PARTS`, a table of names with the version that it was written
against. The upper bounds in pyproject.toml follow these versions; `tests/test_private_parts.py` looks up every name.
"""

import importlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("evohydra", "torch", "transformers", "safetensors", "lm-eval", "hydra-core", "cmaes", "scipy", "numpy")
GIT_SECONDS = 10  # for an answer of git's
OF_EXTRAS = ("diffusers", "peft", "pymoo", "ribs", "optuna")


def versions() -> dict[str, str]:
    """What this run was made with."""
    found = {package: version(package) for package in PACKAGES}
    for package in OF_EXTRAS:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return {"python": platform.python_version(), **found}


def machine() -> str:
    """The processor of the command's own machine, in the words of its maker where they are known, and its cores."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        described = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        name = next((line.partition(":")[2].strip() for line in described.splitlines() if "model name" in line), name)
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"


def commit() -> str | None:
    """The commit of the checkout that runs; None where there is no checkout, or no git."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    asked = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True)
    return asked.stdout.strip() or None


def install_command(package: str) -> str:
    """What to run to install `package`; for an extra, "evohydra[ray]", in a checkout: evohydra is on no index yet."""
    if package.startswith("evohydra["):
        return f"`pip install -c constraints.txt -e '.{package.removeprefix('evohydra')}'` in evohydra's checkout"
    return f"`pip install {package}`"


def git_state(place: Path) -> dict[str, object] | None:
    """The commit, branch and state of the checkout that `place` is in; None where there is none, or no git.

    changed: whether files that git knows differ from the commit. Nothing is told of remote repositories.
    """
    if shutil.which("git") is None:
        return None
    command = ["git", "-C", str(place), "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if asked.returncode != 0:
        return None
    told = dict(line.removeprefix("# branch.").split(" ", 1) for line in asked.stdout.splitlines() if line[:1] == "#")
    changed = any(line[:1] != "#" for line in asked.stdout.splitlines())
    return {"commit": told.get("oid"), "branch": told.get("head"), "changed": changed}


def optional(module: str, wanted_by: str, install: str, otherwise: str = "") -> Any:
    """Import `module`, or raise a ValueError that says what to `install`, and what to do `otherwise`."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{wanted_by}: expected the package {install} to be installed, got no module {error.name}; "
            f"run {install_command(install)}{otherwise}"
        ) from error


@dataclass(frozen=True)
class PrivateParts:
    """The attributes `names` of `owner`, "module" or "module:Class", in the `tested` version of `library`."""

    library: str
    tested: str
    owner: str
    names: tuple[str, ...]

    def missing(self, found: object) -> Iterator[str]:
        """A sentence for each of the names that `found`, the owner as it is installed, does not have."""
        for name in self.names:
            if not hasattr(found, name):
                yield (
                    f"{self.library} {version(self.library)} is installed, evohydra was written against "
                    f"{self.library} {self.tested}: {self.owner} has no {name!r} any more, which evohydra uses"
                )
