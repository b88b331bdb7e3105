"""Pictures that the sources, the uniform merge and the winner draw of held-out prompts: a grid, and samples."""

import logging
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager, get_font
from PIL import Image

from evohydra.families import LiveModel
from evohydra.pages import in_markdown
from evohydra.recipe import Node
from evohydra.report.style import save
from evohydra.scoring.benchmarks import Split
from evohydra.scoring.worker import Worker

SHOWN = 6  # prompts
PLAIN = "DejaVu Sans"  # comes with matplotlib
SIDE = 1.5  # inches of a picture in the grid
SMALL = 128  # pixels; below it a picture is shown pixel by pixel
Picture = tuple[Image.Image, Mapping[str, float]]  # and its scores
Drawn = Callable[[Node, str, Split, Sequence[int]], list[Picture]]  # by a model, for examples of a benchmark
logger = logging.getLogger(__name__)


@runtime_checkable
class Illustrated(Protocol):
    """A benchmark whose models draw; `album` is the same for those that judge the same pictures."""

    @property
    def album(self) -> str:
        """The name of the pictures."""
        ...

    @property
    def settings(self) -> str:
        """How they are drawn, in words."""
        ...

    def examples(self, split: Split) -> Sequence[Any]:
        """The examples of a split, in its order; each with its `text` and the `seed` of its noise."""
        ...

    def pictures(self, live: LiveModel, split: Split, examples: Sequence[int]) -> list[Picture]:
        """What the live model draws for the examples at these places, and the score by each scorer."""
        ...


def pictures(worker: Worker, recipe: Node, benchmark: str, split: Split, examples: Sequence[int]) -> list[Picture]:
    """What the model of `recipe` draws, for a benchmark whose models draw."""
    asked = worker.benchmarks[benchmark]
    assert isinstance(asked, Illustrated)
    return asked.pictures(worker.become(recipe), split, examples)


@dataclass(frozen=True)
class Sample:
    """A picture of the winner, with all that is needed to draw it again."""

    prompt: str
    seed: int
    settings: str
    image: Image.Image
    scores: Mapping[str, float]


def draw_albums(
    benchmarks: Mapping[str, object], models: Mapping[str, Node], drawn_by: Drawn, directory: Path
) -> tuple[dict[str, Path], list[Sample]]:
    """For each album a grid of what `models` draw, as a PNG in `directory`; the last one's pictures as samples.

    A model that draws nothing finite has an empty column.
    """
    figures: dict[str, Path] = {}
    samples: list[Sample] = []
    albums: dict[str, tuple[str, Illustrated]] = {}
    for label, each in benchmarks.items():
        if isinstance(each, Illustrated):
            albums.setdefault(each.album, (label, each))
    for name, (label, benchmark) in albums.items():
        places = shown(benchmark)
        columns: dict[str, list[Picture]] = {}
        for model, node in models.items():
            try:
                columns[model] = drawn_by(node, label, "test", places)
            except ArithmeticError as reason:
                logger.warning("%s has no pictures for %s: %s", model, name, reason)
                columns[model] = []
        examples = [benchmark.examples("test")[place] for place in places]
        figure = grid([example.text for example in examples], columns)
        figures[f"pictures-{name}"] = save(figure, directory / f"pictures-{name}.png")
        *_, last = columns.values()
        for example, (image, scores) in zip(examples, last, strict=False):
            samples.append(Sample(example.text, example.seed, benchmark.settings, image, scores))
    return figures, samples


def shown(benchmark: Illustrated) -> list[int]:
    """The places of the test examples that are shown: one of each prompt, a handful from all over the split."""
    first: dict[str, int] = {}
    for place, example in enumerate(benchmark.examples("test")):
        first.setdefault(example.text, place)
    places = list(first.values())
    return [places[len(places) * number // min(SHOWN, len(places))] for number in range(min(SHOWN, len(places)))]


def grid(prompts: Sequence[str], columns: Mapping[str, Sequence[Picture]]) -> Figure:
    """A row for each of `prompts`, a column for each model, and below each picture its scores."""
    fonts = fonts_for("".join([*prompts, *columns]))
    if fonts is None:
        logger.warning(
            "no font has all characters of the prompts (install Noto Sans CJK): the grid's rows have numbers"
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
                cell.set_xlabel(_words(scores), fontsize=7)
    return figure


def write_samples(samples: Sequence[Sample], directory: Path) -> str:
    """The pictures in samples/ below `directory`; returns what the model card says of them, in Markdown."""
    if not samples:
        return ""
    (directory / "samples").mkdir()
    rows = []
    for number, sample in enumerate(samples, start=1):
        sample.image.save(directory / "samples" / f"{number}.png")
        rows.append(
            f"| ![](samples/{number}.png) | {in_markdown(sample.prompt)} | {sample.seed} | {_words(sample.scores)} |"
        )
    settings = "; ".join(dict.fromkeys(sample.settings for sample in samples))
    return (
        f"\n\n## Samples\n\nHeld-out prompts, not chosen by their looks; {settings}, and the noise of "
        '`generator=torch.Generator("cpu").manual_seed(SEED)`.\n\n'
        "| picture | prompt | seed | score |\n|---|---|---|---|\n" + "\n".join(rows)
    )


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


def _words(scores: Mapping[str, float]) -> str:
    named = [f"{score:.3f}" if len(scores) == 1 else f"{name} {score:.3f}" for name, score in scores.items()]
    return ", ".join(named)
