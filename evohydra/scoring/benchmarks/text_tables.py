"""Tables of texts in local files: CSV, TSV, JSON, JSON lines or parquet, and the rows that splits take of them."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evohydra.checks import shown
from evohydra.files import Plain, read_text
from evohydra.scoring.benchmarks import SPLITS, BenchmarkError
from evohydra.scoring.benchmarks.splits import slice_of
from evohydra.scoring.benchmarks.visual_data import rows_of

SEPARATORS = {".csv": ",", ".tsv": "\t"}
TABLES = (*SEPARATORS, ".json", ".jsonl", ".parquet")
REFERENCES = "references"  # what the rows are called that are known, and in no split


@dataclass(frozen=True)
class Row:
    """A row, and in words where it stands."""

    where: str
    values: Mapping[str, object]

    def text(self, column: str) -> str:
        """The text in a column; BenchmarkError where there is none."""
        value = self.values.get(column)
        if not isinstance(value, str) or not value.strip():
            raise self.lacks("a text", column)
        return value

    def lacks(self, expected: str, column: str) -> BenchmarkError:
        """The error that a column does not hold what is `expected`."""
        known = sorted(map(str, self.values))
        return BenchmarkError(
            f"{self.where}: expected {expected} in the column {column!r}, got {shown(self.values.get(column))}; it has "
            f"{known}"
        )


def cut_tables(
    name: str,
    splits: Mapping[str, Plain | None],
    references: Plain,
    common: str | None,
    columns: Sequence[str],
    shuffle: int | None,
    limit: int | None,
) -> dict[str, list[Row]]:
    """The rows of each split that is not null, and of the references (of these all), by name.

    `splits` and `references` give a `Slice` each, of a file of their own (`data_files`), else of the `common` one.
    Raises BenchmarkError, about benchmark `name` and its `columns`, for other splits and for files that are not there,
    not readable or empty.
    """
    if sorted(splits) != sorted(SPLITS):
        raise BenchmarkError(f"benchmark {name!r}: expected the splits {', '.join(SPLITS)}, got {sorted(splits)}")
    if splits["search"] is None or splits["test"] is None:
        raise BenchmarkError(f"benchmark {name!r}: only the validation split may be null")
    if not isinstance(references, Mapping):
        raise BenchmarkError(f"benchmark.{name}.{REFERENCES}: expected start and stop, got {references!r}")
    wanted = [(split, f"splits.{split}", splits[split], limit) for split in SPLITS]
    found = {}
    for part, key, fields, most in (*wanted, (REFERENCES, REFERENCES, references, None)):
        if fields is None:
            continue
        bounds = slice_of(f"benchmark.{name}.{key}", fields)
        if bounds.task is not None:
            raise BenchmarkError(f"benchmark.{name}.{key}.task: expected local data_files, got {bounds.task!r}")
        if isinstance(bounds.data_files, Mapping):
            raise BenchmarkError(f"benchmark.{name}.{key}.data_files: expected one file, got {dict(bounds.data_files)}")
        rows = table_rows(name, bounds.data_files or common, columns)
        found[part] = [rows[at] for at in bounds.indices(len(rows), shuffle, most)]
    return found


def table_rows(name: str, file: str | None, columns: Sequence[str]) -> list[Row]:
    """The rows of a file; BenchmarkError, about benchmark `name`, where it is not there, not readable or empty."""
    if file is None:
        raise BenchmarkError(
            f"benchmark {name!r}: no data: expected benchmark.{name}.data_files=/data/FILE.jsonl (.json, .csv, .tsv, "
            f".parquet) with the columns {', '.join(columns)}"
        )
    path = Path(file)
    if not path.is_file():
        raise BenchmarkError(f"benchmark {name!r}: data_files: no such file: {path}")
    rows = _separated(name, path) if path.suffix in SEPARATORS else rows_of(name, path)
    if not rows:
        raise BenchmarkError(f"benchmark {name!r}: {path} holds no texts")
    return [Row(f"benchmark {name!r}: {path}, row {number}", row) for number, row in enumerate(rows)]


def _separated(name: str, path: Path) -> list[dict[str, object]]:
    try:
        lines = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter=SEPARATORS[path.suffix], strict=True)
        return [dict(row) for row in lines]
    except (ValueError, OSError, csv.Error) as error:
        raise BenchmarkError(f"benchmark {name!r}: {path} is not readable as {path.suffix}: {error}") from error
