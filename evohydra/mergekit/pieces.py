"""What a configuration merges: pieces of the model from bottom to top, each with its sources, base and settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evohydra.files import Plain
from evohydra.mergekit.configuration import parameters_of
from evohydra.mergekit.settings import PASSTHROUGH
from evohydra.mergekit.writer import FIRST, INPUT, METHODS, REQUIRED

Range = tuple[int, int]


@dataclass(frozen=True)
class Piece:
    """Layers of several models that become layers of the merge.

    sources: the models' own settings, in order; ranges: which layers of each, None for all; base: that of the merge
    here; models: what is merged, besides a base that takes no part; parameters: the settings of the piece.
    """

    sources: Mapping[str, Mapping[str, object]]
    ranges: Mapping[str, Range] | None
    base: str | None
    models: tuple[str, ...]
    parameters: Mapping[str, object]

    @property
    def layers(self) -> Range:
        """The layers of the first model."""
        assert self.ranges is not None
        return next(iter(self.ranges.values()))

    @property
    def moved(self) -> bool:
        """Whether layers of one model are merged with layers of other numbers of another one."""
        return self.ranges is not None and len(set(self.ranges.values())) > 1


def pieces(config: Plain) -> list[Piece]:
    """The pieces of a configuration that has been checked.

    ValueError for a method that mergekit has not, or that is not read here, and for models that it does not take.
    """
    method = str(config["merge_method"])
    if method not in METHODS:
        raise ValueError(f"merge_method: {method!r} is none of {sorted(METHODS)}")
    base = config.get("base_model")
    if "models" in config:
        sources = _sources(config["models"])
        models = _merged(tuple(sources), base, method)
        if METHODS[method].base == INPUT and base is not None and base not in sources:
            models = (*models, base)  # mergekit adds a base that is not listed to `models`
        if method == PASSTHROUGH and len(models) != 1:
            raise ValueError(f"passthrough takes exactly 1 model, got {len(models)}; slices may have one each")
        return [Piece(sources, None, base, models, {})]
    found = []
    for entry in config["slices"]:
        sources = _sources(entry["sources"])
        ranges = {source["model"]: tuple(source["layer_range"]) for source in entry["sources"]}
        if len({stop - start for start, stop in ranges.values()}) > 1:
            raise ValueError(f"slices: expected as many layers of every model in a slice, got {ranges}")
        own = entry.get("base_model") or base
        models = _merged(tuple(sources), own, method)
        found.append(Piece(sources, ranges, own, models, parameters_of(entry, "")))
    return found


def _sources(entries: Sequence[Plain]) -> dict[str, Mapping[str, object]]:
    listed = [entry["model"] for entry in entries]
    if twice := sorted({model for model in listed if listed.count(model) > 1}):
        raise ValueError(
            f"{', '.join(twice)}: listed twice beside itself; expected each model once, with all of its parameters"
        )
    return {entry["model"]: parameters_of(entry, "") for entry in entries}


def _merged(listed: tuple[str, ...], base: str | None, method: str) -> tuple[str, ...]:
    """What is merged of the listed models, besides the base where the method has one."""
    role = METHODS[method].base
    if method == PASSTHROUGH and len(listed) > 1:
        return listed
    if base is None and role in (REQUIRED, FIRST):
        raise ValueError(f"base_model: {method} needs one, got none")
    others = tuple(model for model in listed if model != base)
    if role == FIRST:
        assert base is not None
        return (base, *others)
    if role == INPUT:
        return listed
    if not others:
        raise ValueError(f"{method} takes at least 1 model besides the base, got 0")
    return others


def in_place(found: Sequence[Piece], depth: int) -> bool:
    """Whether the pieces are one merge of whole models: every layer where it was, the same models and base in all."""
    if found[0].ranges is None:
        return True
    if any(piece.moved for piece in found):
        return False
    ends = [0, *(piece.layers[1] for piece in found)]
    whole = all(piece.layers[0] == end for piece, end in zip(found, ends, strict=False)) and ends[-1] == depth
    return whole and len({(frozenset(piece.models), piece.base) for piece in found}) == 1
