"""What the fine-tunes of tests.benchmarks.smollm2_tune learn: nothing that is searched on, and what counts as right."""

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.benchmarks import smollm2_data, smollm2_facts, smollm2_tune
from tests.benchmarks.smollm2_data import SKILLS, completion, prompt, step
from tests.benchmarks.smollm2_facts import CAPITALS, CHOICES, FEW, PRUNED
from tests.benchmarks.smollm2_search import around, random_genomes
from tests.benchmarks.smollm2_tasks.scoring import capital, label
from tests.benchmarks.smollm2_tasks.scoring import step as scored

ROW = {
    "question": "A robe takes 2 bolts of blue fiber and half that much white. How many bolts?",
    "answer": "It takes 2/2=<<2/2=1>>1 bolt\nSo 2+1=<<2+1=3>>3 bolts\n#### 3",
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Some 400 made-up rows in the formats of both files."""
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "jglue").mkdir()
    problems = [
        {"question": f"{ROW['question']} ({n})", "answer": f"{ROW['answer']}\nSo {n}+1=<<{n}+1={n + 1}>>{n + 1}"}
        for n in range(1000, 1400)
    ]
    pairs = [
        {
            "yjcaptions_id": f"{number // 2}-1-2",
            "sentence1": f"犬{number}",
            "sentence2": "猫",
            "label": ["entailment", "contradiction", "neutral"][number % 3],
        }
        for number in range(900)
    ]
    for name, rows in (("gsm8k/test.jsonl", problems), ("jglue/jnli-valid-v1.3.json", pairs)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_a_step_is_the_first_line_and_what_counts_are_results_that_are_not_in_the_question() -> None:
    found = step(ROW)
    assert found == {"question": ROW["question"], "answer": "It takes 2/2=1 bolt", "results": [1.0, 3.0]}
    assert step({**ROW, "answer": "It takes a bolt\n#### 1"}) is None
    assert step({**ROW, "answer": "It takes 4/2=<<4/2=2>>2 bolts\n#### 2"}) is None, "2 is in the question"
    for answer, right in ((" He needs 2/2 = 1 bolt", 1), (" 2+1=3", 1), (" 2+2=4", 0), (" none", 0), (" 1,000", 0)):
        assert scored(found, [answer]) == {"right": right}


def test_capitals_are_asked_among_those_of_their_continent() -> None:
    rows = smollm2_facts.examples()
    assert rows == smollm2_facts.examples()
    assert len({row["country"] for row in rows}) == len(rows) == 129
    continents = [{pair.replace("_", " ").partition(":")[2] for pair in pairs.split()} for pairs in CAPITALS.values()]
    for row in rows:
        choices = row["choices"]
        assert isinstance(choices, list)
        assert choices[row["at"]] == row["capital"]  # type: ignore[index]
        assert len(set(choices)) == CHOICES
        assert any(set(choices) <= capitals for capitals in continents)
    assert {row["at"] for row in rows} == {0, 1, 2}
    for splits in (PRUNED, FEW):
        ends = [bound for split in splits.values() for bound in split]
        assert ends == sorted(ends)
        assert ends[-1] <= len(rows)


@pytest.mark.parametrize(
    ("answer", "right"), [(" Paris", 1), (" paris, a city", 1), (" Parisian", 0), (" the city of Paris", 0), ("", 0)]
)
def test_a_capital_comes_first_in_its_answer(answer: str, right: int) -> None:
    assert capital({"capital": "Paris"}, [answer]) == {"right": right}


def test_a_label_alone_is_right() -> None:
    for answer, right in (("含意", 1), (" 含意 ", 1), ("含意です", 0), ("矛盾", 0)):
        assert label({"answer": "含意"}, [answer]) == {"right": right}


@pytest.mark.parametrize("skill", list(SKILLS))
def test_what_is_held_out_is_not_trained_on(skill: str, data: Path) -> None:
    train, held = SKILLS[skill](data)
    assert len(held) in ((smollm2_data.HELD_OUT,) if skill != "sums" else range(205, 215))
    assert len(train) > 100
    assert not {prompt(skill, example) for example in train} & {prompt(skill, example) for example in held}
    assert SKILLS[skill](data) == (train, held)


def test_pictures_of_held_out_captions_are_not_trained_on(data: Path) -> None:
    train, held = SKILLS["jnli"](data)
    pictures = [{int(str(example["sentence1"])[1:]) // 2 for example in each} for each in (train, held)]
    assert not pictures[0] & pictures[1]


def test_the_loss_is_that_of_the_answers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=11, num_key_value_heads=2, **size))
    monkeypatch.setattr(model, "get_base_model", lambda: model, raising=False)
    rows = [([1, 2, 3, 4, 5], 3), ([6, 7, 8], 1)]
    total = 0.0
    for tokens, asked in rows:
        logs = model(torch.tensor([tokens])).logits.detach().log_softmax(-1)[0]
        total -= sum(float(logs[at - 1, tokens[at]]) for at in range(asked, len(tokens)))
    assert float(smollm2_tune.loss(model, rows).detach()) == pytest.approx(total / 4, rel=1e-5)


def test_every_row_comes_once_before_one_comes_again() -> None:
    rows = [(list(range(number + 2)), 1) for number in range(20)]
    given = [row for batch in smollm2_tune.batches(rows, 10, 4, seed=0) for row in batch]
    assert sorted(len(tokens) for tokens, _ in given) == sorted(2 * [len(tokens) for tokens, _ in rows])
    assert sorted(map(str, given[:20])) == sorted(map(str, rows))


def test_completions_end_as_the_tasks_stop() -> None:
    assert completion("steps", {"answer": "2/2=1"}) == " 2/2=1\n"
    assert completion("jnli", {"answer": "含意"}) == "含意\n"


def test_genomes_are_in_the_unit_cube_and_differ_in_their_levels() -> None:
    genomes = random_genomes(20, 64, 2, seed=1)
    assert genomes.shape == (20, 64)
    assert ((genomes >= 0) & (genomes <= 1)).all()
    levels = genomes.reshape(20, 32, 2).mean(1)
    assert levels[1::2].std() > 2 * levels[::2].std()
    near = around(genomes[0], 5, seed=1)
    assert 0.05 < abs(near - genomes[0]).mean() < 0.2
