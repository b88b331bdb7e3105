"""A page of pictures with what is asked about them, what is right, and what models answer."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from markupsafe import Markup
from PIL import Image

from evohydra.families import LiveModel
from evohydra.files import write_whole
from evohydra.pages import image_address, render
from evohydra.recipe import Node
from evohydra.scoring.benchmarks import Split
from evohydra.scoring.job import Evaluation

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


def marked(score: float) -> str:
    """Right, wrong, or the score of what is neither."""
    return {0.0: "✗", 1.0: "✓"}.get(score, f"{score:.2f}")


def answers_pages(
    benchmarks: Mapping[str, object],
    models: Mapping[str, Node],
    tested: Mapping[str, Evaluation],
    ask: Callable[[Node, str, Split, Sequence[int]], Sequence[str]],
    room: Path,
) -> dict[str, Path]:
    """For each benchmark with pictures a page in `room` with the answers of all models that `tested` has scores of.

    ask: what a model answers to examples of a split.
    """
    pages = {}
    for name, benchmark in benchmarks.items():
        if isinstance(benchmark, Pictured):
            scores = {model: found for model in models if (found := tested[model].scores.get(name))}
            given = {model: ask(models[model], name, "test", shown(benchmark)) for model in scores}
            file = room / f"answers-{name.replace('/', '-')}.html"
            pages[f"answers-{name}"] = answers_page(benchmark, given, scores, file)
    return pages


def answers_page(
    benchmark: Pictured, answers: Mapping[str, Sequence[str]], scores: Mapping[str, Sequence[float]], path: Path
) -> Path:
    """The `shown` examples with the answers of each model, by its name, as an HTML page at `path`.

    scores: of each model for all test examples; they say which answers are right. The page needs no network.
    """
    from evohydra.report.style import variables  # loads matplotlib

    rows = []
    for row, place in enumerate(shown(benchmark)):
        example: Example = benchmark.examples("test")[place]
        rows.append(
            {
                "picture": image_address(benchmark.image(example), "PNG"),
                "question": example.question,
                "references": example.references,
                "answers": [(marked(scores[name][place]), each[row]) for name, each in answers.items()],
            }
        )
    found = render(
        "answers.html", models=list(answers), rows=rows, height=HEIGHT, name=path.stem, variables=Markup(variables())
    )
    write_whole(path, found.encode())
    return path
