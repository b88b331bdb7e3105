"""Functions of tests in another process with other hashes of strings: what they return must not depend on either.

It parts from the process that commands part from (tests/warm.py): torch and the rest are imported already.
"""

import importlib
import json
import os
import sys
from pathlib import Path

from tests.commands import REPOSITORY, python


def elsewhere(module: str, function: str, *arguments: str | Path) -> object:
    """What `module.function(*arguments)` returns there, which is JSON."""
    seeded = os.environ.get("PYTHONHASHSEED", "random") != "random"  # else Python draws one for each process
    other = {"PYTHONHASHSEED": "77" if os.environ.get("PYTHONHASHSEED") != "77" else "78"} if seeded else {}
    done = python("-m", "tests.elsewhere", module, function, *arguments, cwd=REPOSITORY, **other)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["process"] != os.getpid()
    assert said["hash"] != hash(module), "expected other hashes of strings there"
    found: object = said["found"]
    return found


def main(module: str, function: str, *arguments: str) -> None:
    found = getattr(importlib.import_module(module), function)(*arguments)
    print(json.dumps({"process": os.getpid(), "hash": hash(module), "found": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
