"""What the results of a run depend on, put together: its scores and its search, by content."""

from collections.abc import Mapping

from evohydra.assembly.begun import COLLAPSED, commits_of
from evohydra.assembly.continuing import Nested
from evohydra.assembly.guarding import by_content
from evohydra.assembly.own_code import own_code
from evohydra.assembly.parts import Parts
from evohydra.assembly.settings import Settings
from evohydra.assembly.stack_starts import by_content as by_content_of
from evohydra.assembly.statistics import without_places
from evohydra.assembly.workers import scores_depend_on
from evohydra.searching.identity import Identity, OfSearch, own_keys


def run_identity(
    settings: Settings, parts: Parts, kept: Mapping[str, int], nested: Nested, statistics: Mapping[str, str]
) -> Identity:
    """What the results of a run depend on; `kept` are other choices of `auto`."""
    opened = parts.sources
    search = OfSearch(
        models=[
            *(node.to_dict() for node in opened.models),
            *({"name": name, **node.to_dict()} for name, node in nested.recipes.items()),
        ],
        base=opened.base.to_dict() if opened.base else None,
        merge={k: v for k, v in without_places(settings.merge).items() if k != "compile"},  # changes no bit
        optimizer=settings.optimizer,
        seed=settings.seed,
        fitness=settings.fitness,
        objective=settings.objective,
        start=by_content_of(settings.start or []),
        warm_start=None,
        search=None if settings.search == "generations" else settings.search,
        guard=[*by_content(settings.guard), {"examples": settings.guard_examples}] if settings.guard else None,
        code=own_code(settings.optimizer, settings.fitness, settings.objective),
        own=own_keys(settings.all),
        statistics=dict(statistics) or None,
        linear_merges=COLLAPSED if nested.recipes and nested.collapsed else None,
    )
    return Identity(scores_depend_on(parts), search, kept, commits_of(opened))
