"""A script that says what another Python has; it is run by its path there, and needs nothing but that Python.

    python -P probe.py FOLDER PACKAGE...

prints JSON data: versions (None of packages that are not there), and a digest of evohydra's code as that Python finds
it. FOLDER, unless empty, is looked at first.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path


def code_digest(package: Path) -> str:
    """A SHA-256 of all Python files below `package`."""
    found = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        found.update(f"{file.relative_to(package).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return found.hexdigest()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def seen(packages: Sequence[str]) -> dict[str, object]:
    """What this Python has."""
    spec = importlib.util.find_spec("evohydra")
    return {
        "versions": {"python": platform.python_version(), **{package: _version(package) for package in packages}},
        "evohydra": code_digest(Path(spec.origin).parent) if spec is not None and spec.origin else None,
    }


if __name__ == "__main__":
    if sys.argv[1]:
        sys.path.insert(0, sys.argv[1])
    print(json.dumps(seen(sys.argv[2:])))
