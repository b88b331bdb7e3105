"""The settings of merges inside those of a space: of its candidates (merge=any), or of the parts of a mixture."""

from collections.abc import Callable, Iterator, Mapping

from evohydra.assembly.settings import Spec
from evohydra.files import Plain

OF_A_MIXTURE = ("shared", "experts", "routers")
Change = Callable[[Plain], Plain]


def specs(parameter: object) -> list[Plain]:
    """The settings of a space that has a method, of its candidates, or of the parts of a mixture."""
    return [spec for spec in _below(parameter) if "method" in spec]


def _below(parameter: object) -> Iterator[Plain]:
    if not isinstance(parameter, Mapping):
        return
    yield parameter
    candidates = parameter.get("candidates")
    for inner in (*(candidates.values() if isinstance(candidates, Mapping) else ()), *map(parameter.get, OF_A_MIXTURE)):
        yield from _below(inner)


def with_each(merge: Spec, change: Change) -> Spec:
    """`merge` with each of its `specs` changed."""
    return {**merge, "parameter": _changed(merge["parameter"], change)} if merge.get("parameter") else merge


def _changed(parameter: object, change: Change) -> object:
    if not isinstance(parameter, Mapping):
        return parameter
    found = change(parameter) if "method" in parameter else dict(parameter)
    if isinstance(candidates := parameter.get("candidates"), Mapping):
        found = {**found, "candidates": {name: _changed(each, change) for name, each in candidates.items()}}
    return {**found, **{key: _changed(found[key], change) for key in OF_A_MIXTURE if key in parameter}}
