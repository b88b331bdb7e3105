"""Which questions about images are in a split: where they are read, and how they are cut by image."""

from collections.abc import Mapping, Sequence

from evohydra.files import Plain
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.splits import Slice, slice_of
from evohydra.scoring.benchmarks.visual_data import Columns, Example, Source


def split_source(name: str, split: str, common: Mapping[str, object], at: Plain) -> tuple[Source, Slice]:
    """Where the examples of `split` are, and which of them it has; `common` is what all splits have."""
    own = {key: at[key] for key in at if key in Source.__dataclass_fields__}
    unknown = sorted(set(at) - set(own) - {"start", "stop"})
    if unknown:
        known = sorted({"start", "stop", *Source.__dataclass_fields__})
        raise BenchmarkError(f"benchmark {name!r}, {split} split: unknown options {unknown}; known are {known}")
    if "task" in own:  # another data set: none of the settings for the common one holds
        common = {key: value for key, value in common.items() if key == "hub_split"}
    settings = {**common, **own}
    columns = dict(settings.get("columns") or {})
    if strange := sorted(set(columns) - set(Columns.__dataclass_fields__)):
        raise BenchmarkError(f"benchmark {name!r}: unknown columns {strange}: {sorted(Columns.__dataclass_fields__)}")
    return Source(**{**settings, "columns": Columns(**columns)}), slice_of(
        f"benchmark.{name}.splits.{split}", {key: at[key] for key in ("start", "stop") if key in at}
    )


def cut(examples: Sequence[Example], bounds: Slice, shuffle: int | None, limit: int | None) -> list[Example]:
    """The examples of the images that `bounds` choose."""
    of_image: dict[str, list[Example]] = {}
    for example in examples:
        of_image.setdefault(example.image_id or example.image.key, []).append(example)
    groups = list(of_image.values())
    return [example for index in bounds.indices(len(groups), shuffle, limit) for example in groups[index]]
