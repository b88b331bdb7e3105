"""A page of pictures with what is asked about them, what is right, and what models answer."""

import base64
import html
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from evohydra.families import LiveModel
from evohydra.files import write_whole
from evohydra.scoring.benchmarks import Split

SHOWN = 8  # examples
HEIGHT = 160  # pixels of a picture on the page
STYLE = """
:root { color-scheme: light dark; } body { font: 15px system-ui, sans-serif; margin: 1rem; }
table { border-collapse: collapse; } td, th { border: 1px solid #8888; padding: .4rem .6rem; text-align: left; }
.scroll { overflow-x: auto; } img { image-rendering: pixelated; background: white; }
.right { color: #2a9d4a; font-weight: 600; }
"""


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

    def image(self, example: Any) -> Image.Image:
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
    heads = "".join(f"<th>{html.escape(head)}</th>" for head in ("", "question", "reference", *answers))
    rows = []
    for row, place in enumerate(shown(benchmark)):
        example: Example = benchmark.examples("test")[place]
        cells = [f"<td>{_picture(benchmark.image(example))}</td>"]
        cells += [f"<td>{html.escape(text)}</td>" for text in (example.question, " / ".join(example.references))]
        for each in answers.values():
            right = ' class="right"' if each[row].strip() in example.references else ""
            cells.append(f"<td{right}>{html.escape(each[row])}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Answers about held-out pictures</title><style>{STYLE}</style><h1>Answers about held-out pictures</h1>"
        f'<div class="scroll"><table><tr>{heads}</tr>{"".join(rows)}</table></div></html>\n'
    )
    write_whole(path, page.encode())
    return path


def _picture(image: Image.Image) -> str:
    packed = BytesIO()
    image.save(packed, "PNG")
    data = base64.b64encode(packed.getvalue()).decode()
    return f'<img height="{HEIGHT}" alt="" src="data:image/png;base64,{data}">'
