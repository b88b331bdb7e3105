"""The page of pictures, questions and answers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from evohydra.report.answers import SHOWN, Pictured, answers_page, shown


@dataclass(frozen=True)
class Asked:
    question: str
    references: tuple[str, ...]
    grey: int


class Album:
    """A benchmark of grey squares."""

    def __init__(self, count: int) -> None:
        self._examples = [Asked(f"何色 <{n}>?", (f"灰{n}", "灰"), 10 * n) for n in range(count)]

    def examples(self, split: str) -> Sequence[Asked]:
        assert split == "test"
        return self._examples

    def image(self, example: Asked) -> Image.Image:
        return Image.new("RGB", (4, 4), (example.grey,) * 3)

    def answers(self, live: Any, split: str, examples: Sequence[int]) -> list[str]:
        return ["" for _ in examples]


def test_the_same_handful_from_all_over_the_split() -> None:
    album: Pictured = Album(20)
    assert isinstance(album, Pictured)
    assert shown(album) == [0, 2, 5, 7, 10, 12, 15, 17]
    assert shown(Album(3)) == [0, 1, 2]
    assert len(shown(Album(1000))) == SHOWN


def test_pictures_questions_references_and_answers_are_on_the_page(tmp_path: Path) -> None:
    album = Album(2)
    page = answers_page(
        album,
        {"a": ["灰0", "red"], "winner": ["<b>", "灰"]},
        {"a": [1.0, 0.25], "winner": [0.0, 1.0]},
        tmp_path / "page.html",
    ).read_text()
    assert len(re.findall("<img [^>]*data:image/png;base64,", page)) == 2
    assert "何色 &lt;1&gt;?" in page
    assert "灰1 / 灰" in page
    assert re.findall(r'<td class="right">([^<]*)<', page) == ["✓ 灰0", "✓ 灰"]
    assert re.findall(r'<td class="wrong">([^<]*)<', page) == ["✗ &lt;b&gt;"]
    assert '<td class="">0.25 red<' in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert re.findall("<th>([^<]*)</th>", page) == ["picture", "question", "reference", "a", "winner"]
    assert "http" not in page  # no network
