"""Prompts that sources were trained on: said in their files, used where a run asks for them, warned of where not."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from evohydra.assembly.prompts import doubts_about_prompts
from evohydra.families.causal_lm import LiveCausalLM
from evohydra.families.declared import Source
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.prompt_formats import asks_as, marks
from tests import tiny_models
from tests.commands import built, workspace
from tests.contracts.test_benchmarks import benchmark
from tests.contracts.test_benchmarks import live as live
from tests.contracts.test_benchmarks import tasks as tasks
from tests.test_composition import CONF

FORMATS = {
    file.stem: yaml.safe_load(file.read_text())["prompt"]
    for file in sorted((CONF / "model").glob("*.yaml"))
    if yaml.safe_load(file.read_text())["prompt"]
}
MARKS = {
    "abel": ("Question:", "Answer:"),
    "arithmo": ("Question:", "Answer:"),
    "elyza13b": ("<</SYS>>", "[/INST]"),
    "metamath13b": ("### Instruction:", "### Response: Let's think step by step."),
    "wizardmath": ("### Instruction:", "### Response:"),
}
TEMPLATE = "{% for m in messages %}<eos>[INST] {{ m.content }} [/INST]{% endfor %}"


def test_the_published_sources_say_how_they_are_asked() -> None:
    assert {name for name, text in FORMATS.items() if text == "chat"} == {"shisa", "llava16_mistral"}
    assert {name: marks(text) for name, text in FORMATS.items() if text != "chat"} == MARKS
    assert FORMATS["wizardmath"].startswith("Below is an instruction that describes a task.")


@pytest.mark.parametrize(
    ("asked", "yes"),
    [
        ("Below ...\n\n### Instruction:\n1+1?\n\n### Response:", True),
        ("### Response:\n1+1?\n### Instruction:", False),
        ("以下に、\n\n### 指示:\n1+1?\n\n### 応答:", False),
        ("1+1?", False),
    ],
)
def test_a_prompt_is_known_by_the_lines_around_its_question(asked: str, yes: bool) -> None:
    assert asks_as(asked, FORMATS["wizardmath"]) is yes


@pytest.mark.parametrize("task", ["sums", "sums_fewshot", "choose", "log_likelihood"])
def test_a_format_is_around_every_prompt(task: str, tasks: Path, live: LiveCausalLM, tmp_path: Path) -> None:
    """As if the task had been written with it; of shots there is one around all."""
    by_format = benchmark(task, tasks, prompt_format="x{question}y")
    got = by_format(live, "search")
    asked = [[each.arguments[0] for each in requests] for requests in by_format._requests["search"]]
    plain = benchmark(task, tasks)
    before = plain(live, "search")
    assert asked == [[f"x{each.arguments[0]}y" for each in requests] for requests in plain._requests["search"]]
    assert task == "choose" or not np.array_equal(got, before)
    if task != "sums_fewshot":
        own = tmp_path / "own"
        own.mkdir()
        for file in tasks.iterdir():
            if file.is_file():
                text = file.read_text()
                (own / file.name).write_text(
                    text.replace('doc_to_text: "{{question}}"', 'doc_to_text: "x{{question}}y"')
                )
        assert got.tolist() == benchmark(task, own)(live, "search").tolist()


def test_a_format_is_part_of_what_scores_depend_on(tasks: Path) -> None:
    plain = benchmark("sums", tasks)
    assert "prompt_format" not in plain.identity()  # as in runs of before there was one
    formatted = benchmark("sums", tasks, prompt_format="x{question}y")
    assert formatted.identity() == {**plain.identity(), "prompt_format": "x{question}y"}
    assert formatted.asked_as() == "x0+0=y"


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        (
            "sums",
            {"prompt_format": "x"},
            r"benchmark\.sums\.prompt_format: expected a text with \{question\}",
        ),
        ("sums", {"prompt_format": "{question}{question}"}, "in it once"),
        ("sums", {"prompt_format": "{question}", "chat_template": True}, "prompt_format or chat_template, got both"),
        ("rolling", {"prompt_format": "x{question}"}, "asks for whole texts, which have no prompt"),
    ],
)
def test_formats_that_cannot_be(
    task: str, options: dict[str, Any], message: str, tasks: Path, live: LiveCausalLM
) -> None:
    with pytest.raises(BenchmarkError, match=message):
        benchmark(task, tasks, **options)(live, "search")


def asking(text: str | None) -> Any:
    return SimpleNamespace(name="some", asked_as=lambda: text)


def test_a_source_that_is_asked_otherwise_is_named_with_its_format(tmp_path: Path) -> None:
    chat = tiny_models.tokenizer()
    chat.chat_template, chat.bos_token = TEMPLATE, "<eos>"
    chat.save_pretrained(tmp_path / "chat")
    tiny_models.tokenizer().save_pretrained(tmp_path / "none")
    prompts = {"chat": "chat", "none": "chat", "wizard": FORMATS["wizardmath"], "plain": None}
    sources = {name: Source("", "", prompt=prompt) for name, prompt in prompts.items()}
    places = dict.fromkeys(sources, tmp_path) | {name: tmp_path / name for name in ("chat", "none")}

    def doubted(text: str | None) -> set[str]:
        found = doubts_about_prompts(sources, places, {"some": asking(text)})
        return {name for name in sources if found and f"{name} (" in found[0]}

    assert doubted("1+1=") == {"chat", "none", "wizard"}
    assert doubted("[INST] 1+1= [/INST]") == {"none", "wizard"}
    assert doubted(None) == {"wizard"}  # by chat templates
    assert doubted("### Instruction:\n1+1=\n### Response:") == {"chat", "none"}
    (said,) = doubts_about_prompts(sources, places, {"some": asking("1+1=")})
    assert "wizard ('### Instruction:' ... '### Response:')" in said
    assert "chat ('[INST]' ... '[/INST]'), none (its chat template)" in said
    assert doubts_about_prompts({"plain": sources["plain"]}, places, {"some": asking("1+1=")}) == []


def test_a_run_warns_once_and_not_where_the_format_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = ["+model.sources.two.prompt='Q: {question} A:'", "baselines=null"]
    arguments = [*workspace(tmp_path), *own]
    with caplog.at_level(logging.WARNING):
        built(arguments, tmp_path / "run")
    assert caplog.text.count("not as these sources were trained to be asked: two ('Q:' ... 'A:')") == 1
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        built([*arguments, "benchmark.lm_eval.prompt_format=${model.sources.two.prompt}"], tmp_path / "other")
    assert "trained to be asked" not in caplog.text
