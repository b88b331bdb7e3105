"""The spaces that a configuration asks for: of the search, and of the merges that its winner is compared with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from evohydra.assembly.continuing import NOTHING, Nested
from evohydra.assembly.parts import instantiate
from evohydra.assembly.settings import Settings, Spec
from evohydra.families.sources import FoundSources, OpenSources
from evohydra.recipe import Checkpoint, Node, checkpoints
from evohydra.spaces import Space
from evohydra.spaces.grouping import Location
from evohydra.spaces.hybrid import HybridSpace
from evohydra.spaces.nested import NestedSpace, stand_in, with_recipes
from evohydra.spaces.parameter import uniform_merge


@dataclass(frozen=True)
class Located:
    """What spaces of merges are made of: models, base, and where tensors sit.

    nested: the recipes that stand-ins among the models are for.
    """

    models: tuple[Checkpoint, ...]
    base: Checkpoint | None
    locations: Mapping[str, Location | None]
    nested: Nested

    @property
    def recipes(self) -> Mapping[str, Node]:
        """Those that stand-ins among the models are for, by name."""
        return self.nested.recipes

    def merges(self, spec: Spec) -> Space:
        """The space of merges of the models, or stand-ins, that a configuration describes; ValueError for settings."""
        return cast("Space", instantiate(spec)(models=self.models, base=self.base, locations=self.locations))

    def with_recipes(self, space: Space) -> Space:
        """A space over the models with recipes in the places of stand-ins."""
        return NestedSpace(space, self.recipes, self.nested.collapsed) if self.recipes else space

    def average(self) -> Node:
        """The uniform merge of the models."""
        average = uniform_merge(self.models, self.base, self.locations)
        return with_recipes(average, self.recipes, self.nested.collapsed)


def located_in(found: FoundSources, opened: OpenSources | None = None, nested: Nested = NOTHING) -> Located:
    """What spaces are made of, of sources that are found, or read; of recipes that are sources their stand-ins."""
    known = opened or found
    copied = opened.copied if opened else frozenset()
    chosen = [model for model in known.models if not nested.recipes or model.name in nested.beside]
    return Located((*map(stand_in, nested.recipes), *chosen), known.base, found.locations(copied), nested)


def space_of(merge: Spec, located: Located, found: FoundSources) -> Space:
    """The space of merges, of paths, or of both, as far as they are configured."""
    return located.with_recipes(_over_models(merge, located, found))


def _over_models(merge: Spec, located: Located, found: FoundSources) -> Space:
    merges = located.merges(merge["parameter"]) if merge.get("parameter") else None
    if not merge.get("dataflow"):
        if merges is None:
            raise ValueError("nothing to search: choose merge=METHOD, merge=dfs or merge=METHOD+dfs")
        return merges
    aligned = found.aligned
    first = {name: next(checkpoints(recipe)).name for name, recipe in located.recipes.items()}
    paths = instantiate(merge["dataflow"])(
        models=located.models,
        layers=[found.family.depth(found.directories[first.get(model.name, model.name)]) for model in located.models],
        layout=found.family.layout(
            found.directories[aligned.files_from], tuple(aligned.tensors[aligned.files_from].shapes)
        ),
    )
    return HybridSpace(merges, paths) if merges else paths


def baselines_of(settings: Settings, located: Located) -> dict[str, Space]:
    """By name the spaces of merges whose defaults a winner is compared with; ValueError for settings of theirs."""
    made: dict[str, Space] = {}
    for name, spec in (settings.baselines or {}).items():
        try:
            made[name] = located.with_recipes(located.merges(spec))
        except ValueError as error:
            raise ValueError(f"baselines.{name}: {error}") from error
    return made
