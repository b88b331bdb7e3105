"""Packages that only some parts of evohydra need."""

import importlib
from typing import Any


def optional(module: str, wanted_by: str, install: str, otherwise: str = "") -> Any:
    """Import `module`, or raise a ValueError that says what to `install`, and what to do `otherwise`."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        quoted = f"'{install}'" if "[" in install else install  # shells read brackets
        raise ValueError(
            f"{wanted_by}: expected the package {install} to be installed, got no module {error.name}; "
            f"run `pip install {quoted}`{otherwise}"
        ) from error
