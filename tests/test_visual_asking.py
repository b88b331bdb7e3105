"""Questions about images, asked for the audit of a winner: twice the length, in other words, and how answers end."""

from pathlib import Path

import pytest
import torch

from evohydra.audit.findings import _duplicates, _not_checked
from evohydra.scoring.benchmarks import Audited, BenchmarkError, ShowsImages
from evohydra.scoring.benchmarks.visual_options import ends_of
from tests import tiny_visual
from tests.test_visual_qa import benchmark

OTHER = "{question}{image}: "
PLAIN = {"num_beams": 1, "max_new_tokens": 4}


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_visual.save_questions(tmp_path_factory.mktemp("questions") / "data")


def test_how_answers_end() -> None:
    tokens = torch.tensor([[5, 6, 1, 0], [5, 6, 7, 8], [1, 0, 0, 0]])
    assert ends_of(tokens, {0, 1}, 4) == [(2, False), (4, True), (0, False)]
    assert ends_of(tokens, {0, 1}, 8)[1] == (4, False)  # the batch ended before its limit
    assert ends_of(tokens, {0, 1}, None)[1] == (4, None)


def test_questions_are_asked_at_twice_the_length_and_in_other_words(questions: Path) -> None:
    live = tiny_visual.llava()
    built = benchmark(questions, generation_kwargs=PLAIN, second_prompt=OTHER, batch_size=2)
    assert isinstance(built, Audited)
    assert [built.lacks(change) for change in ("none", "length", "wording")] == [None, None, None]
    before = built.asked(live, "test", [0, 2])
    assert [each.text for each in before] == built.answers(live, "test", [0, 2])
    assert [each.score for each in before] == built(live, "test", [0, 2]).tolist()
    assert built.ends() == (2, sum(each.cut is True for each in before), sum(each.tokens or 0 for each in before))
    assert any(each.cut for each in before)
    longer = built.asked(live, "test", [0, 2], "length")
    for one, two in zip(before, longer, strict=True):
        assert two.text.startswith(one.text)
        assert (two.tokens or 0) > 4 if one.cut else two == one
    reworded = built.asked(live, "test", [0, 2], "wording")
    other = benchmark(questions, generation_kwargs=PLAIN, prompt=OTHER, batch_size=2)
    assert [each.text for each in reworded] == other.answers(live, "test", [0, 2])
    assert [each.text for each in built.asked(live, "test", [0, 2])] == [each.text for each in before]


def test_what_cannot_be_asked_is_said(questions: Path) -> None:
    plain = benchmark(questions)
    assert "second_prompt" in str(plain.lacks("wording"))
    assert plain.identity() == benchmark(questions, second_prompt=OTHER).identity()  # no score depends on it
    with pytest.raises(BenchmarkError, match=r"second_prompt: expected \{image\} in it once"):
        benchmark(questions, second_prompt="{question}")


def test_the_same_question_about_another_image_is_no_duplicate(questions: Path) -> None:
    built = benchmark(questions)
    assert isinstance(built, ShowsImages)
    assert set(built.pixels("search")).isdisjoint(built.pixels("test"))
    assert _duplicates({"vqa": built}, {"vqa": [1.0] * 3}, {"vqa": [0.0] * 3}) == {}
    (said,) = _not_checked({"vqa": built})
    assert "Near duplicates among the images of vqa were not looked for" in said
