"""Templates of HTML pages: what is put in is escaped, what is missing is an error."""

from pathlib import Path

import pytest
from jinja2 import UndefinedError
from PIL import Image

from evohydra.pages import image_address, render
from evohydra.report.blocks import Link, Picture, Section, Table
from evohydra.report.page import page

HOSTILE = "</td><script>'\"&"


def test_nothing_in_a_report_can_write_html(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "picture.png")
    blocks = [
        HOSTILE,
        Link(f'{HOSTILE}" onclick="', HOSTILE),
        Table((HOSTILE,), [(HOSTILE,), (Link("a", HOSTILE),)], HOSTILE),
        Picture(tmp_path / "picture.png", HOSTILE),
    ]
    text = page(HOSTILE, [Section(HOSTILE, blocks)])
    assert "<script" not in text
    assert 'onclick="' not in text
    assert text.count("&lt;script&gt;") == 12  # the title twice, and each of the places above
    assert text.count("data:image/png;base64,") == 1


def test_wide_tables_have_a_row_for_themselves() -> None:
    def classes(heads: int, words: bool) -> list[bool]:
        text = page("", [Section("", [Table(("a",) * heads, [], "", words=words)])])
        return ['<figure class="wide">' in text, '<table class="words">' in text, "<figcaption>" in text]

    assert classes(5, False) == [False, False, False]
    assert classes(6, False) == [True, False, False]
    assert classes(2, True) == [True, True, False]


def test_a_value_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="rows"):
        render("answers.html", name="", variables="", models=[])


def test_a_picture_in_an_address() -> None:
    assert image_address(Image.new("RGB", (2, 2)), "WEBP", quality=92).startswith("data:image/webp;base64,UklGR")
