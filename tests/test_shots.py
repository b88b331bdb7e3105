"""Few-shot examples are documents of no split."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from evohydra.families.causal_lm import CausalLM, LiveCausalLM
from evohydra.scoring.benchmarks import SPLITS, BenchmarkError
from evohydra.scoring.benchmarks.lm_eval import lm_eval_benchmarks
from evohydra.scoring.benchmarks.lm_eval_benchmark import LMEvalBenchmark

BOUNDS = {
    "search": {"start": 0, "stop": 10},
    "validation": {"start": 10, "stop": 20},
    "test": {"start": 20, "stop": 30},
}
YAML = """
task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{test: test.jsonl}}}}
test_split: test
training_split: {training}
num_fewshot: 3
output_type: generate_until
doc_to_text: "{text}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n"], do_sample: false, max_gen_toks: 2}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


def rows(start: int, stop: int, **more: object) -> list[dict[str, object]]:
    return [{"question": f"what is {i}?", "answer": str(i), **more} for i in range(start, stop)]


def save(file: Path, lines: list[dict[str, object]]) -> str:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


def built(
    root: Path,
    data_files: str | Mapping[str, str],
    *,
    training: str = "null",
    text: str = "{{question}}",
    **options: Any,
) -> LMEvalBenchmark:
    (root / "shown.yaml").write_text(YAML.format(task="shown", training=training, text=text) + options.pop("more", ""))
    settings = {"include_path": str(root), "data_files": data_files, "splits": BOUNDS, "limit": None, **options}
    return lm_eval_benchmarks("shown", task="shown", **settings)["shown"]


@pytest.fixture
def live(trio: tuple[Path, Path, Path]) -> LiveCausalLM:
    return CausalLM().live_model(trio[1], torch.device("cpu"), torch.float32)


def prompts(benchmark: LMEvalBenchmark, live: LiveCausalLM) -> list[str]:
    return [request.args[0] for split in SPLITS for one in benchmark._asked(live, split) for request in one]


def shown(benchmark: LMEvalBenchmark, live: LiveCausalLM) -> set[int]:
    """The numbers of the documents that are few-shot examples of any prompt."""
    blocks = [block for prompt in prompts(benchmark, live) for block in prompt.split("\n\n")[:-1]]
    assert len(blocks) == 3 * 30
    return {int(block.split("what is ")[1].split("?")[0]) for block in blocks}


@pytest.mark.parametrize("training", ["null", "train"])
def test_of_one_file_only_documents_outside_of_all_splits_are_shown(
    training: str, tmp_path: Path, live: LiveCausalLM, caplog: pytest.LogCaptureFixture
) -> None:
    file = save(tmp_path / "test.jsonl", rows(0, 40))
    with caplog.at_level(logging.WARNING):
        found = shown(built(tmp_path, file, training=training), live)
    assert found <= set(range(30, 40))
    assert len(found) > 3
    assert caplog.text.count("30 of 40 documents for few-shot examples are examples of a split") == 1
    assert "(search, validation, test)" in caplog.text


@pytest.mark.parametrize("training", ["null", "train"])
@pytest.mark.parametrize("first", [False, True])
def test_where_too_few_are_left_the_error_says_how(training: str, first: bool, tmp_path: Path) -> None:
    file = save(tmp_path / "test.jsonl", rows(0, 32))
    more = "fewshot_config: {sampler: first_n}\n" if first else ""
    with pytest.raises(BenchmarkError, match=r"'shown', search split: 3 few-shot.*data_files=.*train.*num_fewshot=0"):
        built(tmp_path, file, training=training, more=more)
    assert built(tmp_path, file, training=training, more=more, num_fewshot=0).size("test") == 10


def test_exactly_as_many_as_lm_eval_draws_are_enough(tmp_path: Path, live: LiveCausalLM) -> None:
    """It draws one more where the few-shot split is the test split."""
    few, enough = (save(tmp_path / f"{n}.jsonl", rows(0, n)) for n in (33, 34))
    with pytest.raises(BenchmarkError, match="need 4 documents"):
        built(tmp_path, few, more="fewshot_split: test\n")
    assert shown(built(tmp_path, enough, more="fewshot_split: test\n"), live) == {30, 31, 32, 33}


@pytest.mark.parametrize("more", [{"id": 7}, {}])
def test_the_same_question_in_another_file_is_not_shown(
    more: dict[str, object], tmp_path: Path, live: LiveCausalLM
) -> None:
    """Also where the document as a whole is another one."""
    train = save(tmp_path / "train.jsonl", [*rows(0, 30, **more), *rows(50, 58, **more)])
    files = {"train": train, "test": save(tmp_path / "test.jsonl", rows(0, 30, **dict.fromkeys(more, 1)))}
    found = shown(built(tmp_path, files, training="train"), live)
    assert found <= set(range(50, 58))


def test_examples_written_into_the_task_are_looked_at_too(tmp_path: Path) -> None:
    samples = [{"question": f"what is {i}?", "target": str(i)} for i in (3, 70, 71)]
    more = f'fewshot_config: {{samples: {json.dumps(samples)}, doc_to_target: "{{{{target}}}}"}}\n'
    file = save(tmp_path / "test.jsonl", rows(0, 30))
    with pytest.raises(BenchmarkError, match="of the task's 3 documents for them 2 are in none"):
        built(tmp_path, file, more=more)


def test_a_question_that_all_documents_share_is_no_leak(tmp_path: Path, live: LiveCausalLM) -> None:
    """What they ask is then the target alone."""
    files = {"train": save(tmp_path / "train.jsonl", rows(28, 60)), "test": save(tmp_path / "test.jsonl", rows(0, 30))}
    found = built(tmp_path, files, training="train", text="The text:")
    blocks = {block for prompt in prompts(found, live) for block in prompt.split("\n\n")[:-1]}
    assert {int(block.split(": ")[1]) for block in blocks} <= set(range(30, 60))


def test_without_a_leak_the_prompts_are_lm_evals_and_nothing_is_said(
    tmp_path: Path, live: LiveCausalLM, caplog: pytest.LogCaptureFixture
) -> None:
    files = {"train": save(tmp_path / "train.jsonl", rows(50, 60)), "test": save(tmp_path / "test.jsonl", rows(0, 30))}
    benchmark = built(tmp_path, files, training="train")
    assert "are examples of a split" not in caplog.text
    found = prompts(benchmark, live)
    task = benchmark._tasks["search"]
    task.set_fewshot_seed(seed=1234)
    assert found[:10] == [task.fewshot_context(task.eval_docs[i], 3) for i in range(10)]


def test_a_missing_file_of_the_few_shot_split_is_named(tmp_path: Path) -> None:
    file = save(tmp_path / "test.jsonl", rows(0, 30))
    with pytest.raises(BenchmarkError, match=r"'shown'.*3 few-shot examples.*data_files={train: FILE"):
        built(tmp_path, {"test": file}, training="train")
