"""How figures look: colours that most colour-blind readers tell apart, as PNG on white and as SVG in light and dark."""

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, Literal

from matplotlib import rc_context, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evohydra.files import write_whole

WIDTH = 4.4  # inches: on a phone's screen the letters keep their size
COLUMN = 3.35  # inches: a column of a page with two
DPI = 200  # of PNGs
# Light colour: dark colour. The first six after the greys are Okabe and Ito's hues, at a contrast of 3 or more.
PALETTE = {
    "#fdfdfd": "#15181c",  # paper
    "#22272e": "#e6eaef",  # ink
    "#68717b": "#9aa4af",  # muted
    "#d9dee3": "#363c44",  # grid
    "#0b6fb4": "#58b0f0",
    "#d1560a": "#f08b4a",
    "#0a8f6b": "#3fc79e",
    "#b5579a": "#e090c8",
    "#8a6a00": "#d8b44a",
    "#1b9ad0": "#9ad4f5",
}
PAPER, INK, MUTED, GRID, *SERIES = PALETTE
MARKERS = "os^DvPX"
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5)))
SETTINGS = {
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,  # TrueType: letters can be searched and edited, and publishers take it
    "image.composite_image": False,
    "figure.figsize": (WIDTH, 3.0),
}
SMALLER = {
    "font.size": 8.0,
    "axes.titlesize": 8.0,
    "axes.labelsize": 8.0,
    "legend.fontsize": 7.5,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "figure.figsize": (COLUMN, 2.4),
}
Look = Literal["screen", "paper"]
LOOKS: dict[Look, dict[str, Any]] = {"screen": SETTINGS, "paper": {**SETTINGS, **SMALLER}}
_look: ContextVar[Look] = ContextVar("look", default="screen")


class Drawing(Figure):
    """A figure and the numbers that it shows: `heads` are the names of columns, `rows` what stands in them."""

    heads: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()

    def shows(self, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Keep the numbers."""
        self.heads, self.rows = heads, rows


@contextmanager
def looking(look: Look) -> Iterator[None]:
    """Figures that are made and saved within are for a screen, or for a column of a paper that may be printed grey."""
    token = _look.set(look)
    try:
        with rc_context(LOOKS[look]):
            yield
    finally:
        _look.reset(token)


def usual_width() -> float:
    """How wide figures are, in inches."""
    return float(rcParams["figure.figsize"][0])


def new_figure(height: float, width: float | None = None) -> Drawing:
    """An empty figure of `width` x `height` inches; draw inside of `looking`."""
    return Drawing(figsize=(width or usual_width(), height), layout="constrained", facecolor="none")


def colour(index: int) -> str:
    """The colour of series number `index`."""
    return SERIES[index % len(SERIES)]


def line(index: int) -> dict[str, Any]:
    """Colour and dashes of series number `index`, which differ from those of every other of the first 24.

    In a paper the first four differ in their dashes too: it may be printed without colours.
    """
    dashes = index if _look.get() == "paper" else index // len(SERIES)
    return {"color": colour(index), "linestyle": DASHES[dashes % len(DASHES)]}


def marker(index: int) -> str:
    """The marker of series number `index`."""
    return MARKERS[index % len(MARKERS)]


def gridded(axes: Axes, axis: Literal["both", "x", "y"] = "both") -> None:
    """Thin lines behind the data."""
    axes.grid(axis=axis, linewidth=0.6)
    axes.tick_params(length=2.5)


def save(figure: Figure, path: Path, dpi: int = 100) -> Path:
    """Draw the figure on white paper as a PNG at `path`."""
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=dpi, facecolor=PAPER)
    write_whole(path, picture.getvalue())
    return path


def save_for_paper(figure: Drawing, path: Path) -> list[Path]:
    """The figure without a background as `path`.svg, its letters as text, and as `path`.pdf with its fonts within."""
    written = []
    with rc_context({"svg.hashsalt": path.name}):
        for suffix, nothing in (("svg", ("Creator", "Date")), ("pdf", ("Creator", "Producer", "CreationDate"))):
            drawn = BytesIO()
            figure.savefig(drawn, format=suffix, facecolor="none", metadata=dict.fromkeys(nothing))
            written.append(path.with_name(f"{path.name}.{suffix}"))
            write_whole(written[-1], drawn.getvalue())
    return written


def save_data(figure: Drawing, path: Path) -> Path:
    """The numbers that a figure shows as a CSV at `path`; ValueError where it has none, which is our fault."""
    if not figure.heads:
        raise ValueError(f"{path.name}: the figure does not say which numbers it shows")
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(figure.heads)
    table.writerows(figure.rows)
    write_whole(path, text.getvalue().encode())
    return path


def svg(figure: Figure, name: str) -> str:
    """The figure to be set into an HTML page: its colours are the page's variables, its letters those of the page."""
    picture = BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(picture, format="svg", facecolor="none", metadata=nothing)
    text = picture.getvalue().decode()
    text = re.sub(r"<(style|metadata).*?</\1>|<defs>\s*</defs>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"(<svg[^>]*?) (?:width|height)=\"[^\"]*\"", r"\1", text)
    text = re.sub(r"(<svg[^>]*?) height=\"[^\"]*\"", r"\1", text)
    text = re.sub(r" xmlns(:xlink)?=\"[^\"]*\"", "", text)
    text = re.sub(r"<g id=\"[^\"]*\">", "<g>", text)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", text)
    for index, light in enumerate(PALETTE):
        text = text.replace(light, f"var(--c{index})")
    return text


def variables() -> str:
    """The CSS that gives the figures' variables their values in light and in dark."""
    light = "".join(f"--c{index}:{value};" for index, value in enumerate(PALETTE))
    dark = "".join(f"--c{index}:{value};" for index, value in enumerate(PALETTE.values()))
    return f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"
