"""How figures look: colours that most colour-blind readers tell apart, as PNG on white and as SVG in light and dark."""

import re
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evohydra.files import write_whole

WIDTH = 4.4  # inches: on a phone's screen the letters keep their size
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
    "image.composite_image": False,
}


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure of `width` x `height` inches; draw inside of `rc_context(SETTINGS)`."""
    return Figure(figsize=(width, height), layout="constrained", facecolor="none")


def colour(index: int) -> str:
    """The colour of series number `index`."""
    return SERIES[index % len(SERIES)]


def line(index: int) -> dict[str, Any]:
    """Colour and dashes of series number `index`, which differ from those of every other of the first 24."""
    return {"color": colour(index), "linestyle": DASHES[index // len(SERIES) % len(DASHES)]}


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
