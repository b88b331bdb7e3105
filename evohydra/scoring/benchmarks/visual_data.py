"""Questions about images from local files or the hub: JSON lines, JSON or parquet -> examples."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Image as ImageFeature
from datasets import load_dataset
from datasets.exceptions import DatasetsError

from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.hub_data import as_they_are_now, check_commit, why_unread
from evohydra.scoring.benchmarks.images import ImageSource


@dataclass(frozen=True)
class Columns:
    """Where a row holds what. `questions` names a list of rows of their own (question and answer), else None.

    `image` holds a path (relative to `images`, else to the data file), bytes, or {bytes, path}; `answer` a text or a
    list of right ones; `image_id` may be missing: images are told apart by their pixels as well.
    """

    image: str = "image"
    question: str = "question"
    answer: str = "answer"
    image_id: str = "image_id"
    questions: str | None = None


@dataclass(frozen=True)
class Example:
    """A question about an image, and the answers that are right."""

    question: str
    references: tuple[str, ...]
    image: ImageSource
    image_id: str | None


@dataclass(frozen=True)
class Source:
    """One data set: `data_files`, a local file, or else `task`, a data set of the hub, of which `hub_split` is read.

    `images` is the directory of local images, `first_question` keeps the first question of each row only.
    """

    task: str | None = None
    data_files: str | None = None
    hub_split: str = "test"
    images: str | None = None
    columns: Columns = field(default_factory=Columns)
    first_question: bool = False


def examples(name: str, source: Source) -> list[Example]:
    """All examples of `source`, in its order.

    Raises BenchmarkError, about benchmark `name`, for data that cannot be had, a row without a column, and one without
    an image.
    """
    if source.data_files is None:
        rows, folder, label = _from_hub(name, source), None, str(source.task)
    else:
        file = Path(source.data_files)
        if not file.is_file():
            raise BenchmarkError(f"benchmark {name!r}: data_files: no such file: {file}")
        rows, folder, label = rows_of(name, file), Path(source.images or file.parent), str(file)
    if source.images is not None and not Path(source.images).is_dir():
        raise BenchmarkError(f"benchmark {name!r}: images: no such directory: {source.images}")
    found = []
    for number, row in enumerate(rows):
        found += _of_row(f"benchmark {name!r}: {label}, row {number}", row, source, folder)
    if not found:
        raise BenchmarkError(f"benchmark {name!r}: {label} holds no questions")
    return found


def rows_of(name: str, file: Path, columns: list[str] | None = None) -> list[dict[str, object]]:
    """The rows of a parquet, JSON or JSON-lines file; of parquet those `columns` alone.

    Raises BenchmarkError, about benchmark `name`, for a file that is not readable or no list of objects.
    """
    try:
        if file.suffix == ".parquet":
            import pyarrow.parquet

            rows: list[dict[str, object]] = pyarrow.parquet.read_table(file, columns=columns).to_pylist()
            return rows
        text = file.read_text(encoding="utf-8")
        loaded = json.loads(text) if file.suffix == ".json" else [json.loads(x) for x in text.splitlines() if x.strip()]
    except (ValueError, OSError) as error:
        raise BenchmarkError(
            f"benchmark {name!r}: {file} is not readable as {file.suffix or 'JSON lines'}: {str(error)[:200]}"
        ) from error
    if not isinstance(loaded, list) or not all(isinstance(row, dict) for row in loaded):
        raise BenchmarkError(f"benchmark {name!r}: {file}: expected a list of objects, or one object a line")
    return loaded


def _of_row(where: str, row: Mapping[str, object], source: Source, folder: Path | None) -> list[Example]:
    columns = source.columns
    if columns.image not in row:
        raise BenchmarkError(
            f"{where}: no column {columns.image!r} with an image; it has {sorted(row)} (columns.image names another). "
            "For questions without images use benchmark=lm_eval"
        )
    image = _image(where, row[columns.image], folder)
    identity = row.get(columns.image_id)
    asked: Sequence[Mapping[str, object]] = [row]
    if columns.questions is not None:
        asked = _list_of_rows(row.get(columns.questions))
        if not asked:
            raise BenchmarkError(f"{where}: no questions in the column {columns.questions!r}; it has {sorted(row)}")
    return [
        Example(
            _text(where, each, columns.question),
            _answers(where, each, columns.answer),
            image,
            None if identity is None else str(identity),
        )
        for each in (asked[:1] if source.first_question else asked)
    ]


def _list_of_rows(value: Any) -> list[Mapping[str, object]]:
    """A list of rows, also where it is stored as columns: {question: [...], answer: [...]}."""
    if isinstance(value, Mapping):
        return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
    return list(value or [])


def _text(where: str, row: Mapping[str, object], column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise BenchmarkError(f"{where}: expected a text in the column {column!r}, got {value!r}; it has {sorted(row)}")
    return value


def _answers(where: str, row: Mapping[str, object], column: str) -> tuple[str, ...]:
    value = row.get(column)
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return tuple(value)
    return (_text(where, row, column),)


def _image(where: str, value: Any, folder: Path | None) -> ImageSource:
    if isinstance(value, Mapping):  # as data sets store them
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return ImageSource(where, data=value)
    if isinstance(value, str) and value:
        path = (folder or Path()) / value
        return ImageSource(str(path), path=path)
    raise BenchmarkError(f"{where}: no image: expected a path, or an image's bytes, got {value!r}")


def _from_hub(name: str, source: Source) -> list[dict[str, object]]:
    if source.task is None:
        raise BenchmarkError(
            f"benchmark {name!r}: no data: give local files (benchmark.{name}.data_files=/data/FILE.jsonl, with the "
            f"columns {source.columns.image}, {source.columns.question} and {source.columns.answer}), or a data set of "
            f"the hub (benchmark.{name}.task=OWNER/NAME)"
        )
    try:
        with as_they_are_now(source.task):
            data = load_dataset(source.task, split=source.hub_split)
        if source.columns.image in data.column_names:
            data = data.cast_column(source.columns.image, ImageFeature(decode=False))
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        what = f"the data set {source.task}, split {source.hub_split},"
        local = (
            f"its parquet or JSON-lines file, benchmark.{name}.data_files=/data/FILE.parquet (for one split: "
            f"benchmark.{name}.splits.test.data_files)"
        )
        raise BenchmarkError(f"benchmark {name!r}: {why_unread(what, error, local)}") from error
    check_commit(f"benchmark {name!r}", source.task, None, [data])
    return list(data)
