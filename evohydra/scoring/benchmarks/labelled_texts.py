"""Texts with labels from a local file: CSV, TSV, JSON, JSON lines or parquet."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evohydra.checks import check_settings, shown
from evohydra.files import read_text
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.splits import Slice, slice_of
from evohydra.scoring.benchmarks.visual_data import rows_of

SEPARATORS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class Columns:
    """Where a row holds what."""

    text: str = "text"
    label: str = "label"


@dataclass(frozen=True)
class Labelled:
    """A text and its label."""

    text: str
    label: str


def labelled_texts(name: str, file: str | None, columns: Mapping[str, str] | None) -> list[Labelled]:
    """The rows of `file`, in its order.

    Raises BenchmarkError, about benchmark `name`, for a file that is not there or not readable, and for a row without
    a text or a label.
    """
    check_settings(f"benchmark.{name}.columns", Columns, columns or {})
    where = Columns(**(columns or {}))
    if file is None:
        raise BenchmarkError(
            f"benchmark {name!r}: no data: expected benchmark.{name}.data_files=/data/FILE.jsonl (.json, .csv, .tsv, "
            f".parquet) with the columns {where.text} and {where.label}"
        )
    path = Path(file)
    if not path.is_file():
        raise BenchmarkError(f"benchmark {name!r}: data_files: no such file: {path}")
    rows = _separated(name, path) if path.suffix in SEPARATORS else rows_of(name, path)
    found = [_labelled(f"benchmark {name!r}: {path}, row {number}", row, where) for number, row in enumerate(rows)]
    if not found:
        raise BenchmarkError(f"benchmark {name!r}: {path} holds no texts")
    return found


def cut(
    name: str, key: str, fields: Mapping[str, object], common: str | None, columns: Mapping[str, str] | None
) -> tuple[Sequence[Labelled], Slice]:
    """All texts of the file that a split names, else of the `common` one, and which of them the split takes."""
    bounds = slice_of(f"benchmark.{name}.{key}", fields)
    if bounds.task is not None:
        raise BenchmarkError(f"benchmark.{name}.{key}.task: expected local data_files, got {bounds.task!r}")
    if isinstance(bounds.data_files, Mapping):
        raise BenchmarkError(f"benchmark.{name}.{key}.data_files: expected one file, got {dict(bounds.data_files)}")
    return labelled_texts(name, bounds.data_files or common, columns), bounds


def _separated(name: str, path: Path) -> list[dict[str, object]]:
    try:
        lines = csv.DictReader(io.StringIO(read_text(path)), delimiter=SEPARATORS[path.suffix], strict=True)
        return [dict(row) for row in lines]
    except (ValueError, OSError, csv.Error) as error:
        raise BenchmarkError(f"benchmark {name!r}: {path} is not readable as {path.suffix}: {error}") from error


def _labelled(where: str, row: Mapping[str, object], columns: Columns) -> Labelled:
    text, label = row.get(columns.text), row.get(columns.label)
    known = sorted(map(str, row))
    if not isinstance(text, str) or not text.strip():
        raise BenchmarkError(
            f"{where}: expected a text in the column {columns.text!r}, got {shown(text)}; it has {known}"
        )
    if not isinstance(label, str | int) or not str(label).strip():
        raise BenchmarkError(
            f"{where}: expected a word or a whole number in the column {columns.label!r}, got {shown(label)}; it has "
            f"{known}"
        )
    return Labelled(text, str(label))
