"""The spaces that a configuration asks for: of the search, and of the merges that its winner is compared with."""

from typing import cast

from evohydra.assembly.parts import instantiate
from evohydra.assembly.settings import Settings, Spec
from evohydra.families.sources import FoundSources, OpenSources
from evohydra.files import Plain
from evohydra.spaces import Space
from evohydra.spaces.hybrid import HybridSpace


def located_in(found: FoundSources, opened: OpenSources | None = None) -> dict[str, object]:
    """What spaces of merges are made of: models, base, and where tensors sit."""
    known = opened or found
    copied = opened.copied if opened else frozenset()
    return {"models": known.models, "base": known.base, "locations": found.locations(copied)}


def space_of(merge: Spec, located: Plain, found: FoundSources) -> Space:
    """The space of merges, of paths, or of both, as far as they are configured."""
    merges = instantiate(merge["parameter"])(**located) if merge.get("parameter") else None
    if not merge.get("dataflow"):
        if merges is None:
            raise ValueError("nothing to search: choose merge=METHOD, merge=dfs or merge=METHOD+dfs")
        return cast("Space", merges)
    aligned = found.aligned
    paths = instantiate(merge["dataflow"])(
        models=located["models"],
        layers=[found.family.depth(found.directories[model.name]) for model in found.models],
        layout=found.family.layout(
            found.directories[aligned.files_from], tuple(aligned.tensors[aligned.files_from].shapes)
        ),
    )
    return HybridSpace(merges, paths) if merges else paths


def baselines_of(settings: Settings, located: Plain) -> dict[str, Space]:
    """By name the spaces of merges whose defaults a winner is compared with; ValueError for settings of theirs."""
    made: dict[str, Space] = {}
    for name, spec in (settings.baselines or {}).items():
        try:
            made[name] = instantiate(spec)(**located)
        except ValueError as error:
            raise ValueError(f"baselines.{name}: {error}") from error
    return made
