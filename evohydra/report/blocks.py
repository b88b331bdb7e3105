"""What a report is made of: sections of figures, tables, pictures and sentences."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from evohydra.report.style import Drawing


@dataclass(frozen=True)
class FigureBlock:
    """A figure; `name` is that of its file, `caption` says how to read it."""

    kind: ClassVar = "figure"  # its macro in templates/report.html
    name: str
    figure: Drawing
    caption: str


@dataclass(frozen=True)
class Link:
    """Another page, beside the report or below it."""

    kind: ClassVar = "link"
    path: str
    text: str


@dataclass(frozen=True)
class Table:
    """Rows of text under heads; the first column is a name, the others are numbers unless `words` says otherwise."""

    kind: ClassVar = "table"  # its macro in templates/report.html
    heads: Sequence[str]
    rows: Sequence[Sequence[str | Link]]
    caption: str
    words: bool = False


@dataclass(frozen=True)
class Picture:
    """A PNG that a run has left."""

    kind: ClassVar = "picture"  # its macro in templates/report.html
    path: Path
    caption: str


Block = FigureBlock | Table | Picture | Link | str


@dataclass(frozen=True)
class Section:
    """Blocks under a title."""

    title: str
    blocks: Sequence[Block]
