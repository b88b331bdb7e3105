"""Held-out text: its passages, its numbers, and limits on the perplexity of it."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evohydra.assembly.guarding import by_content, guard_of, guarding, limits_of, texts_of
from evohydra.families.causal_lm import CausalLM
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.held_out import HeldOutText, held_out_text
from tests.test_guard import BENCHMARKS, SOURCES, Sums
from tests.tiny_models import save_model


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"at_most": 2}, "guard[0].text: expected a file of held-out text"),
        ({"text": "a.txt", "of": "sums", "at_most": 2}, "guard[0].text: expected a file of held-out text"),
        ({"text": "a.txt", "at_least": "source"}, "guard[0].at_least: of perplexity less is better"),
        ({"text": "a.txt", "at_most": 0.9}, "guard[0].at_most: a perplexity is 1 or more"),
        ({"text": "a.txt"}, "expected at_least or at_most, one of them"),
        ({"measure": "truncated", "text": "a.txt"}, "guard[0].text: texts are for measure: perplexity"),
    ],
)
def test_limits_on_perplexity_that_mislead_are_refused(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        limits_of([{"measure": "perplexity", **entry}], BENCHMARKS, SOURCES, based=True)


def test_a_perplexity_is_compared_by_its_logarithm() -> None:
    """1.1 x source: passages are pairs, the bound is that of the whole text, and the interval is that of the pairs."""
    text = HeldOutText("a.txt", [f"passage {number}" for number in range(12)], 60, 8)
    given = {"measure": "perplexity", "text": "/some/where/a.txt", "at_most": "1.1 x source"}
    every = {**BENCHMARKS, "a.txt": text}
    (limit,) = limits_of([given], every, ("a", "b"), based=False)
    assert limit.text == "perplexity of a.txt at most 1.1 x source"
    assert by_content([given])[0]["text"] == "a.txt"
    guard = guard_of([limit], {"sums": Sums(), "a.txt": text}, {"a": None, "b": None}, 60)  # type: ignore[dict-item]
    assert guard is not None
    source = np.log([2.0, 3.0, 2.0, 4.0])
    guard._references |= {("search", "a"): {limit.name: list(source)}, ("search", "b"): {limit.name: list(source + 1)}}
    kept = guard._kept(None, limit, list(source + np.log(1.05)), "search", False)  # type: ignore[arg-type]
    mean = float(np.exp(source.mean()))
    assert (kept.value, kept.bound) == pytest.approx((1.05 * mean, 1.1 * mean))
    assert kept.margin == kept.low == pytest.approx(np.log(1.1 / 1.05))  # all passages differ alike
    uneven = guard._kept(None, limit, list(source + np.log([1.0, 1.2, 1.0, 1.02])), "search", True)  # type: ignore[arg-type]
    assert uneven.low < uneven.margin < (uneven.high or 0.0)
    (plain,) = limits_of([{**given, "at_most": 3}], every, ("a",), based=False)
    assert guard._kept(None, plain, list(source), "search", False).bound == pytest.approx(3.0)  # type: ignore[arg-type]


def test_passages_of_a_held_out_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(
        "\n\n".join(["one", "two\nlines", "three", "one", " \n", "four", "five", "six", "七"])
    )
    text = held_out_text(str(tmp_path / "a.txt"), 60, 512)
    assert [text.size(split) for split in ("search", "validation", "test")] == [3, 2, 2]  # "one" counts once
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"text": f"{number}"}) + "\n" for number in range(9)))
    table = held_out_text(str(tmp_path / "b.jsonl"), 2, 512)
    assert [table.size(split) for split in ("search", "validation", "test")] == [2, 3, 3]
    assert text.identity()["splits"] != table.identity()["splits"]
    (tmp_path / "short.txt").write_text("one\n\ntwo")
    (tmp_path / "c.jsonl").write_text('{"texts": "x"}\n')
    for name, said in [
        ("none.txt", "no such file"),
        ("short.txt", "expected 6 different passages or more"),
        ("c.jsonl", "expected a text in the column 'text'"),
        ("a.pdf", "expected a file .txt, .csv"),
    ]:
        (tmp_path / "a.pdf").touch()
        with pytest.raises(BenchmarkError, match=re.escape(said)):
            held_out_text(str(tmp_path / name), 60, 8)
    guard = [{"measure": "perplexity", "text": str(tmp_path / "a.txt"), "at_most": at} for at in (2, 3)]
    assert list(texts_of(guard, 60, 8)) == ["a.txt"]
    assert guarding(guard) == {"a.txt"}


def test_nats_are_per_byte_and_longer_passages_count_for_more(tmp_path: Path) -> None:
    """Against the model's own logits: the sum over all tokens of a split, by all its bytes."""
    save_model(tmp_path / "model", 0)
    live = CausalLM().live_model(tmp_path / "model", torch.device("cpu"), torch.float32)
    passages = ["1+2=3", "12 and 34", "5", "77+1=78 and more of it", "8 8 8", "9=9", "31+2", "4", "1 2 3 4 5 6 7 8 9"]
    text = HeldOutText("a.txt", passages, 60, 8)
    numbers = text(live, "test")
    assert list(numbers) == pytest.approx(list(text(live, "test", [0, 1, 2])))
    nats = size = 0.0
    for passage in passages[2::3]:
        tokens = [live.tokenizer.eos_token_id, *live.tokenizer.encode(passage)]
        with torch.no_grad():
            logits = live.module(torch.tensor([tokens])).logits[0].log_softmax(dim=-1)
        nats -= float(sum(logits[at, token] for at, token in enumerate(tokens[1:])))
        size += len(passage.encode())
    assert float(numbers.mean()) == pytest.approx(nats / size, rel=1e-4)
