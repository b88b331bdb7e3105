"""One command for several searches, of which each begins with recipes that the one before has found (`generations`)."""

import functools
from collections.abc import Sequence
from pathlib import Path

from evohydra.assembly.adapter_genomes import NESTED
from evohydra.assembly.automatic import AUTO, usual_budget
from evohydra.assembly.composition import composed
from evohydra.files import Plain

MOST_COPIES = 1000  # of recipes in the recipe of the last generation
MAY_CHANGE = ("merge", "optimizer")


def room_of(directory: Path, number: int) -> Path:
    """Where generation `number`, from 1, of a run in `directory` has its files; the last one's are the run's own."""
    return directory / f"generation_{number}"


def generation(plain: Plain, number: int, directory: Path, given: Sequence[str]) -> tuple[Plain, list[str]]:
    """The configuration of generation `number`, from 1, of a run: that of an ordinary one; with its overrides.

    It has its share of the budget, the changes of `generations_then`, and what the generation before has kept as
    sources. ValueError for settings that do not fit together.
    """
    count, then = plain["generations"], list(plain["generations_then"])
    copies = plain["generations_sources"] ** (count - 1)
    if copies > MOST_COPIES:
        raise ValueError(
            f"generations={count} with generations_sources={plain['generations_sources']}: expected recipes with at "
            f"most {MOST_COPIES} others in them, got {copies}; take fewer of one of both"
        )
    if len(then) > count - 1:
        raise ValueError(
            f"generations_then: expected at most {count - 1} entries, one for each generation after the first, got "
            f"{len(then)}"
        )
    total = usual_budget(plain["optimizer"]) if plain["budget"] == AUTO else plain["budget"]
    changes = then[min(number - 1, len(then)) - 1].split() if number > 1 and then else []
    made = {**plain, "generations": 1, "generations_then": [], "budget": total // count + (number <= total % count)}
    overrides = list(given)
    if changes:
        overrides, parts = _changed(tuple(given), tuple(changes))
        made |= parts
    if number > 1:
        made["continue"] = [str(room_of(directory, number - 1))]
        # Sources, and what they are matched by, are those of the generation before.
        theirs = ("model=", "model.", "continue=")
        overrides = [text for text in overrides if not text.lstrip("+~").startswith(theirs)]
    if count > 1 and (made.get("backend") or {}).get("genomes") == "adapters":
        raise ValueError(NESTED)
    if ((made["merge"] or {}).get("parameter") or {}).get("statistics"):
        raise ValueError(
            "generations: expected a merge method that goes by weights alone, for the sources of later generations are "
            f"recipes, of which no activations are gathered; got {made['merge']['parameter'].get('method')!r}"
        )
    if number < count and (made["merge"] or {}).get("dataflow"):
        raise ValueError(
            "generations: a path through layers can only be searched in the last one, since its layers are not merged "
            'or visited again: generations_then=["merge=dfs"] with generations=2'
        )
    return made, overrides


@functools.lru_cache(maxsize=64)
def _changed(given: tuple[str, ...], changes: tuple[str, ...]) -> tuple[list[str], dict[str, object]]:
    """The overrides with `changes` in the places of those of the same parts, and the parts of these."""
    for text in changes:
        if text.lstrip("+~").partition("=")[0].split(".")[0] not in MAY_CHANGE:
            raise ValueError(f"generations_then: expected changes of {' and '.join(MAY_CHANGE)} alone, got {text!r}")
    chosen = {text.partition("=")[0] for text in changes} & set(MAY_CHANGE)
    left = [text for text in given if text.lstrip("+~").partition("=")[0].split(".")[0] not in chosen]
    overrides = [*left, *changes]
    try:
        parts = composed(overrides)
    except ValueError as error:
        raise ValueError(f"generations_then: {error}") from error
    return overrides, {key: parts[key] for key in MAY_CHANGE}
