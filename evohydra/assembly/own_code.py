"""Code of one's own that a configuration names: its source is part of what a run depends on."""

import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping

from evohydra.scoring.benchmarks.contents import code_of, is_own

NAMES = ("_target_", "method", "metric", "family")  # keys whose values may name a function or class by its place
OFTEN_A_LIBRARYS = ("algorithm", "of")  # the same, but what they name is mostly of an installed library


def own_code(*specs: object) -> dict[str, str]:
    """By name a digest of the source of each module outside of evohydra that `specs` name, and of files beside it."""
    return code_of(each for spec in specs for each in _named(spec))


def _named(spec: object, key: object = "") -> Iterator[Callable[..., object]]:
    if isinstance(spec, Mapping):
        for name, value in spec.items():
            yield from _named(value, name)
    elif isinstance(spec, list | tuple):
        for value in spec:
            yield from _named(value, key)
    elif (
        isinstance(spec, str)
        and key in (*NAMES, *OFTEN_A_LIBRARYS)
        and ("." in spec or ":" in spec)
        and not spec.startswith("evohydra.")
    ):
        try:
            found = pkgutil.resolve_name(spec)
        except (ImportError, AttributeError, ValueError):
            return  # a word, or what its own part refuses
        if key in NAMES or is_own(getattr(sys.modules.get(getattr(found, "__module__", "")), "__file__", None)):
            yield found
