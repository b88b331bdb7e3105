"""A grid of what models draw, in a figure."""

import logging
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager, get_font

from evohydra.files import write_whole
from evohydra.report.samples import Picture, words
from evohydra.report.style import save

PLAIN = "DejaVu Sans"  # comes with matplotlib
SIDE = 1.5  # inches of a picture in the grid
SMALL = 128  # pixels; below it a picture is shown pixel by pixel
logger = logging.getLogger(__name__)


def save_grid(prompts: Sequence[str], columns: Mapping[str, Sequence[Picture]], path: Path) -> Path:
    """The `grid` as a PNG at `path`; where its rows have numbers, what these stand for is in a text file beside it."""
    if fonts_for("".join([*prompts, *columns])) is None:
        lines = [f"prompt {number}: {' '.join(prompt.split())}\n" for number, prompt in enumerate(prompts, 1)]
        write_whole(path.with_suffix(".txt"), "".join(lines).encode())
    return save(grid(prompts, columns), path)


def grid(prompts: Sequence[str], columns: Mapping[str, Sequence[Picture]]) -> Figure:
    """A row for each of `prompts`, a column for each model, and below each picture its scores."""
    fonts = fonts_for("".join([*prompts, *columns]))
    if fonts is None:
        logger.warning(
            "no font has all characters of the prompts (install Noto Sans CJK): the grid's rows have numbers, "
            "and a text file beside it has the prompts"
        )
    size = (SIDE * (len(columns) + 1), (SIDE + 0.15) * len(prompts) + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(prompts), len(columns) + 1, squeeze=False)
    for row, prompt in enumerate(prompts):
        label = f"prompt {row + 1}" if fonts is None else _wrapped(prompt)
        axes[row, 0].text(1.0, 0.5, label, ha="right", va="center", fontsize=9, family=fonts)
        axes[row, 0].set_axis_off()
        for place, (model, pictures) in enumerate(columns.items(), start=1):
            cell = axes[row, place]
            cell.set(xticks=[], yticks=[])
            if row == 0:
                cell.set_title(model, fontsize=9, family=fonts)
            if row < len(pictures):
                image, scores = pictures[row]
                cell.imshow(image, interpolation="nearest" if max(image.size) < SMALL else "antialiased")
                cell.set_xlabel(words(scores), fontsize=7)
    return figure


def fonts_for(text: str) -> list[str] | None:
    """The names of installed fonts that have every character of `text` between them, None where there are none."""
    missing = {ord(character) for character in text if not character.isspace()} - _characters(findfont(PLAIN))
    if not missing:
        return [PLAIN]
    # Not those that matplotlib's list knows: it is from before the last font was installed.
    for path in sorted(findSystemFonts(), key=_preference):
        if missing <= _characters(path):
            fontManager.addfont(path)
            return [PLAIN, FontProperties(fname=path).get_name()]
    return None


def _characters(path: str) -> set[int]:
    try:
        return set(get_font(path).get_charmap())
    except (OSError, RuntimeError):  # what matplotlib raises for fonts that it cannot read
        return set()


def _preference(path: str) -> tuple[bool, bool, str]:
    """Regular before bold, fonts without serifs before others."""
    name = Path(path).name.lower()
    return "regular" not in name, "sans" not in name and "goth" not in name, path


def _wrapped(prompt: str) -> str:
    """In lines of at most some 18 letters, or half as many characters of Japanese, which has no spaces."""
    return "\n".join(textwrap.wrap(prompt, 20 if prompt.isascii() else 10)[:6])
