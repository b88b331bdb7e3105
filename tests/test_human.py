"""The page of pairs that a person chooses from, and the way of choices back into a run."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evohydra.scoring.benchmarks import Asking, BenchmarkError
from evohydra.scoring.benchmarks.prompts import Prompt
from evohydra.scoring.benchmarks.scorers.human import ChoicesMissingError, Human, human
from tests.tiny_studio import benchmark, live

PROMPTS = [Prompt("赤い</script>四角", "", seed=1), Prompt("青い四角", "", seed=2), Prompt("青い四角", "", seed=3)]


def squares(*colours: str) -> list[Image.Image]:
    return [Image.new("RGB", (8, 8), colour) for colour in colours]


def waiting(directory: Path) -> list[dict[str, str]]:
    """The pairs on the page."""
    page = (directory / "pairs.html").read_text(encoding="utf-8")
    found: list[dict[str, str]] = json.loads(re.search(r"const pairs = (\[.*\]);", page)[1])  # type: ignore[index]
    assert page.count("</script>") == 1
    assert "http" not in page.replace("http-equiv", "")
    return found


def picture(data: str) -> tuple[int, ...]:
    """The colour of a picture on the page."""
    import base64
    import io

    with Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))) as image:
        return image.convert("RGB").getpixel((4, 4))  # type: ignore[return-value]


@pytest.fixture
def scorer(tmp_path: Path) -> Human:
    """Its references are all black."""
    made = human(str(tmp_path / "human"))
    assert made(squares("black", "black", "black"), PROMPTS).tolist() == [0.5] * 3  # the references themselves
    return made


def test_choices_come_back_as_scores(scorer: Human, tmp_path: Path) -> None:
    directory = tmp_path / "human"
    with pytest.raises(ChoicesMissingError, match=rf"2 pairs .*{directory}/pairs.html.* into {directory}, and"):
        scorer(squares("white", "black", "red"), PROMPTS)
    pairs = waiting(directory)
    assert sorted(pair["prompt"] for pair in pairs) == sorted([PROMPTS[0].text, PROMPTS[2].text])
    choices = {}
    for pair in pairs:
        dark = [side for side in ("left", "right") if max(picture(pair[side])) < 20]
        assert len(dark) == 1  # the reference is on one side
        better = "left" if dark == ["right"] else "right"
        choices[pair["pair"]] = better if pair["prompt"] == PROMPTS[0].text else dark[0]
    (directory / "choices (1).json").write_text(json.dumps(choices))
    again = human(str(directory))  # as in a run that goes on
    assert again(squares("white", "black", "red"), PROMPTS).tolist() == [1.0, 0.5, 0.0]
    # Another person, in CSV, finds no difference: the mean counts.
    rows = "\n".join(f"{pair},tie" for pair in choices)
    (directory / "choices of M.csv").write_text(f"pair,choice\n{rows}\n")
    assert again(squares("white", "black", "red"), PROMPTS).tolist() == [0.75, 0.5, 0.25]
    with pytest.raises(ChoicesMissingError, match="1 pairs"):  # another picture is another pair
        again(squares("blue"), PROMPTS[:1])


def test_sides_are_blind_and_fixed(tmp_path: Path) -> None:
    prompts = [Prompt(f"p{n}", "", seed=n) for n in range(40)]
    scorer = human(str(tmp_path))
    scorer(squares(*["black"] * 40), prompts)
    pages = []
    for _ in range(2):
        with pytest.raises(ChoicesMissingError, match="40 pairs"):
            scorer(squares(*["white"] * 40), prompts)
        pages.append(waiting(tmp_path))
    assert pages[0] == pages[1]
    left = sum(max(picture(pair["left"])) < 20 for pair in pages[0])
    assert 10 < left < 30
    assert [pair["prompt"] for pair in pages[0]] != [prompt.text for prompt in prompts]  # mixed


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("choices.json", '{"a": "better"}', "pair a: expected left, right or tie, got 'better'"),
        ("choices.json", "[1]", "expected an object"),
        ("choices.json", "{", "expected an object"),
        ("choices.csv", "id,choice\na,left\n", "CSV with the columns pair and choice, got KeyError: 'pair'"),
        ("choices.xlsx", "", "expected choices.*json or choices.*csv"),
    ],
)
def test_files_of_choices_that_cannot_be_read(
    name: str, content: str, expected: str, scorer: Human, tmp_path: Path
) -> None:
    (tmp_path / "human" / name).write_text(content)
    with pytest.raises(BenchmarkError, match=expected):
        scorer(squares("white"), PROMPTS[:1])


def test_a_benchmark_shows_all_models_and_then_asks_once(tmp_path: Path) -> None:
    each, model = benchmark(scorers={"human": lambda: human(str(tmp_path))}, batch_size=2), live()
    assert isinstance(each, Asking)
    assert each.asks
    assert not benchmark().asks
    benchmark().ask()
    each.show(model, "search")
    each.ask()  # the first model is the reference
    assert np.array_equal(each(model, "search"), np.full(5, 0.5))
    model.change(0.3)
    each.show(model, "search", [0, 3])
    model.change(0.3)
    each.show(model, "search")
    with pytest.raises(ChoicesMissingError, match="7 pairs"):
        each.ask()
    choices: dict[str, Any] = {pair["pair"]: "left" for pair in waiting(tmp_path)}
    (tmp_path / "choices.json").write_text(json.dumps(choices))
    each.show(model, "search")
    each.ask()
    assert set(each(model, "search")) == {0.0, 1.0}
