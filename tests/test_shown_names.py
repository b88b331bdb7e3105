"""Names and texts of models are shown as they are: in Markdown, and by rich."""

import io

import pytest
from rich.console import Console

from evohydra.pages import in_markdown
from evohydra.report import say
from evohydra.report.tables import markdown, summary_table

SCORE = {"score": 0.5, "low": 0.4, "high": 0.6, "n": 10}
NAME = "[/red] a|b <img src=x> `c`"
TEST = {"sources": {NAME: SCORE, "two": {"score": None, "error": NAME}}, "baselines": {}, "winner": SCORE}


def test_markup_of_rich_is_plain_text() -> None:
    console = Console(file=io.StringIO(), width=200)
    say(console, f"  {NAME}: done")
    console.print(summary_table({"test": TEST}, NAME))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.count(NAME) == 4


def test_tables_of_a_model_card_keep_their_cells() -> None:
    rows = markdown({"test": TEST}).splitlines()
    assert [row.replace("\\|", "").count("|") for row in rows] == [5] * len(rows)
    assert not any(mark in row for row in rows for mark in (" <img", "[/red]", " `c`"))


@pytest.mark.parametrize("text", ["# a\n# b", "a\n\n| x |", "[a](b)", "<script>", "![x](y)", "``` x", "*a*", "a\\"])
def test_text_stays_on_one_line_without_marks(text: str) -> None:
    shown = in_markdown(text)
    assert "\n" not in shown
    unescaped = shown.replace("\\\\", "")
    assert all(unescaped[at - 1] == "\\" for at, mark in enumerate(unescaped) if mark in "`*[]<>|")
