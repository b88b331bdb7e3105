"""Pictures that the sources, the uniform merge and the winner draw of held-out prompts: a grid, and samples."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from evohydra.families import LiveModel
from evohydra.recipe import Node
from evohydra.report.samples import Picture, Sample
from evohydra.scoring.benchmarks import Split
from evohydra.scoring.worker import Worker

SHOWN = 6  # prompts
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
    if albums:
        from evohydra.report.picture_grid import save_grid  # matplotlib takes seconds to import
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
        figures[f"pictures-{name}"] = save_grid(
            [example.text for example in examples], columns, directory / f"pictures-{name}.png"
        )
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
