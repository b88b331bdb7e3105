"""A page of pictures with what is asked about them, what is right, and what models answer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from evohydra.families import LiveModel
from evohydra.files import write_whole
from evohydra.pages import image_address, render
from evohydra.scoring.benchmarks import Split

SHOWN = 8  # examples
HEIGHT = 160  # pixels of a picture on the page


class Example(Protocol):
    """A question about a picture."""

    @property
    def question(self) -> str:
        """What is asked."""
        ...

    @property
    def references(self) -> Sequence[str]:
        """What is right."""
        ...


@runtime_checkable
class Pictured(Protocol):
    """A benchmark whose examples can be looked at."""

    def examples(self, split: Split) -> Sequence[Any]:
        """The examples of a split, in its order; each an `Example`."""
        ...

    def image(self, example: object) -> Image.Image:
        """Its picture."""
        ...

    def answers(self, live: LiveModel, split: Split, examples: Sequence[int]) -> list[str]:
        """What the live model answers to the examples at these places."""
        ...


def shown(benchmark: Pictured) -> list[int]:
    """The places of the test examples on the page: the same handful in every run, from all over the split."""
    count = len(benchmark.examples("test"))
    return [count * number // min(SHOWN, count) for number in range(min(SHOWN, count))]


def answers_page(benchmark: Pictured, answers: Mapping[str, Sequence[str]], path: Path) -> Path:
    """The `shown` examples with the answers of each model, by its name, as an HTML page at `path`.

    Answers that equal a reference are green. The page needs no network.
    """
    rows = []
    for row, place in enumerate(shown(benchmark)):
        example: Example = benchmark.examples("test")[place]
        rows.append(
            {
                "picture": image_address(benchmark.image(example), "PNG"),
                "question": example.question,
                "references": example.references,
                "answers": [each[row] for each in answers.values()],
            }
        )
    write_whole(path, render("answers.html", models=list(answers), rows=rows, height=HEIGHT).encode())
    return path
