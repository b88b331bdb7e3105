"""How the sources of a run are read before it begins: whole, or by their headers alone."""

from collections.abc import Callable
from dataclasses import dataclass

from evohydra.families import sources
from evohydra.families.sources import FoundSources, OpenSources
from evohydra.merging.engine import Engine
from evohydra.recipe import Node


@dataclass(frozen=True)
class Reading:
    """How sources are read, and how a little of a merge is tried.

    gathers: whether sources read texts for statistics that are not on file; None: such files are not looked for.
    """

    read: Callable[[FoundSources], OpenSources]
    probe: Callable[[Engine, Node], None]
    gathers: bool | None = True


def _nothing(engine: Engine, recipe: Node) -> None:
    """No merge is tried: there may be no numbers."""


WHOLE = Reading(sources.read_sources, Engine.probe)
AS_RECORDED = Reading(sources.read_sources, Engine.probe, gathers=False)
BY_HEADERS = Reading(sources.sources_by_headers, _nothing, gathers=None)
# Of files that are here, which are read whole later.
BEFORE_OTHERS = Reading(sources.sources_by_headers, Engine.probe, gathers=None)
