"""What a benchmark keeps to, on toy tasks of each kind of request, against lm-eval's own evaluator and HFLM."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from evohydra.families.causal_lm import CausalLM, LiveCausalLM
from evohydra.scoring.benchmarks import SPLITS, BenchmarkError
from evohydra.scoring.benchmarks.live_lm import LiveLM
from evohydra.scoring.benchmarks.lm_eval import lm_eval_benchmarks
from evohydra.scoring.benchmarks.lm_eval_benchmark import LMEvalBenchmark
from tests import tiny_models

CPU = torch.device("cpu")
SPLIT_BOUNDS = {
    "search": {"start": 0, "stop": 24}, "validation": {"start": 24, "stop": 36}, "test": {"start": 36, "stop": 60},
}  # fmt: skip
KINDS = {
    "sums": "closeness",
    "sums_fewshot": "closeness",
    "choose": "acc",
    "log_likelihood": "likelihood",
    "rolling": "likelihood",
}
COMMON = """
task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{test: sums.jsonl}}}}
test_split: test
output_type: {output_type}
doc_to_text: "{{{{question}}}}"
"""
MORE = {
    "choose": """
doc_to_choice: ["0", "1", "2", "twelve"]
doc_to_target: "{{answer|int % 4}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
    "log_likelihood": """
doc_to_target: "{{answer}}"
process_results: !function likelihood.of_answer
metric_list: [{metric: likelihood, aggregation: mean, higher_is_better: true}]
""",
    "rolling": """
doc_to_target: "{{question}}"
process_results: !function likelihood.of_text
metric_list: [{metric: likelihood, aggregation: mean, higher_is_better: false}]
""",
}
TYPES = {"choose": "multiple_choice", "log_likelihood": "loglikelihood", "rolling": "loglikelihood_rolling"}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tiny_models.save_task(tmp_path_factory.mktemp("tasks"))
    for task, more in MORE.items():
        (root / f"{task}.yaml").write_text(COMMON.format(task=task, output_type=TYPES[task]) + more)
    shots = [{"question": f"{i}+{i}=", "answer": f"{2 * i}"} for i in range(10, 20)]
    (root / "shots.jsonl").write_text("".join(json.dumps(row) + "\n" for row in shots))
    sums = (root / "sums.yaml").read_text().replace("{test: sums.jsonl}", "{test: sums.jsonl, shots: shots.jsonl}")
    sums = sums.replace("task: sums\n", "task: sums_fewshot\nnum_fewshot: 2\nfewshot_split: shots\n")
    (root / "sums_fewshot.yaml").write_text(sums)
    (root / "likelihood.py").write_text(
        "def of_answer(doc, results):\n    return {'likelihood': results[0][0]}\n\n\n"
        "def of_text(doc, results):\n    return {'likelihood': results[0] if results[0] else 0.0}\n"
    )
    return root


@pytest.fixture
def live(trio: tuple[Path, Path, Path]) -> LiveCausalLM:
    return CausalLM().live_model(trio[1], CPU, torch.float32)


def benchmark(task: str, tasks: Path, **options: Any) -> LMEvalBenchmark:
    settings = {"metric": KINDS[task], "include_path": str(tasks), "shuffle": None, "splits": SPLIT_BOUNDS, **options}
    found = lm_eval_benchmarks(task, task=task, **settings)
    assert list(found) == [task]
    return found[task]


def by_lm_eval(task: str, tasks: Path, live: LiveCausalLM, examples: list[int]) -> list[float]:
    """The metric of each example, by lm-eval's own loop over its own HFLM."""
    manager = TaskManager(include_path=tasks, include_defaults=False)
    loaded = manager.load([task])["tasks"]
    for each in loaded.values():
        each.set_fewshot_seed(seed=1234)  # what simple_evaluate does
    lm = HFLM(pretrained=live.module, tokenizer=live.tokenizer, batch_size=7)
    results = evaluate(lm=lm, task_dict=loaded, samples={task: examples}, log_samples=True, bootstrap_iters=0)
    samples = sorted(results["samples"][task], key=lambda sample: sample["doc_id"])
    return [float(sample[KINDS[task]]) for sample in samples]


@pytest.mark.parametrize("task", KINDS)
def test_scores_are_those_of_lm_eval_in_the_order_of_the_examples(
    task: str, tasks: Path, live: LiveCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tasks)  # lm-eval looks for relative data files there
    built = benchmark(task, tasks)
    sign = -1.0 if task == "rolling" else 1.0  # lower is better there
    assert [built.size(split) for split in SPLITS] == [24, 12, 24]
    for split in SPLITS:
        scores = built(live, split)
        bounds = SPLIT_BOUNDS[split]
        expected = by_lm_eval(task, tasks, live, list(range(bounds["start"], bounds["stop"])))
        assert scores.shape == (built.size(split),)
        assert scores.dtype == np.float64
        np.testing.assert_allclose(sign * scores, expected, rtol=1e-6)
        assert len(set(expected)) > 1  # the comparison can fail


@pytest.mark.parametrize("task", [each for each in KINDS if each != "sums_fewshot"])  # whose shots follow the order
def test_a_score_belongs_to_the_example_that_is_described_whatever_the_order(
    task: str, tasks: Path, live: LiveCausalLM
) -> None:
    def scored(shuffle: int | None) -> dict[tuple[str, str], list[float]]:
        built = benchmark(task, tasks, shuffle=shuffle)
        found = {}
        for split in SPLITS:
            likely = [] if task == "rolling" else [built.log_likelihoods(live, split, None, "token")]
            for place, values in enumerate(zip(built(live, split), *likely, strict=True)):
                found[built.describe(split, place)] = list(map(float, values))
        return found

    plain, shuffled = scored(None), scored(3)
    assert list(shuffled) != list(plain)
    assert sorted(shuffled) == sorted(plain)
    for described, values in plain.items():
        np.testing.assert_allclose(shuffled[described], values, rtol=1e-4)


@pytest.mark.parametrize("task", KINDS)
def test_scores_do_not_depend_on_calls_before_or_on_the_batch_size(task: str, tasks: Path, live: LiveCausalLM) -> None:
    built = benchmark(task, tasks, batch_size=24)
    first = built(live, "search")
    built(live, "test")
    np.testing.assert_array_equal(built(live, "search"), first)
    for size in (1, 5):
        np.testing.assert_allclose(benchmark(task, tasks, batch_size=size)(live, "search"), first, rtol=1e-5)


@pytest.mark.parametrize("task", KINDS)
def test_some_examples_alone_score_as_they_do_among_all(task: str, tasks: Path, live: LiveCausalLM) -> None:
    built = benchmark(task, tasks)
    chosen = [17, 3, 4, 20]
    some = built(live, "search", chosen)
    np.testing.assert_allclose(some, built(live, "search")[chosen], rtol=1e-5)
    np.testing.assert_allclose(built(live, "search", chosen), some, rtol=1e-5)


@pytest.mark.parametrize("task", KINDS)
@pytest.mark.parametrize("count", [2, 3, 7])
def test_parts_together_are_all_and_score_as_uncut(task: str, count: int, tasks: Path, live: LiveCausalLM) -> None:
    """The same bits, not only nearly: what a ledger holds does not depend on the number of workers."""
    built = benchmark(task, tasks, batch_size=4)
    for examples in (None, [17, 3, 4, 20, 11, 0]):
        whole = built(live, "search", examples)
        places = list(range(24)) if examples is None else examples
        parts = [built.part(live, "search", examples, index, count) for index in range(count)]
        assert sorted(at for part in parts for at in part) == list(range(len(places)))
        for part in parts:
            if part:
                np.testing.assert_array_equal(built(live, "search", [places[at] for at in part]), whole[list(part)])
    assert task != "sums" or len(built.part(live, "search", None, 0, 2)) == 12


@pytest.mark.parametrize("task", KINDS)
def test_scores_follow_changes_of_the_weights_in_place(
    task: str, tasks: Path, live: LiveCausalLM, trio: tuple[Path, Path, Path]
) -> None:
    built = benchmark(task, tasks)
    before = built(live, "search")
    kept = {name: parameter.clone() for name, parameter in live.parameters.items()}
    other = CausalLM().live_model(trio[2], CPU, torch.float32)
    for name, parameter in live.parameters.items():
        parameter.copy_(other.parameters[name])
    changed = built(live, "search")
    np.testing.assert_array_equal(changed, benchmark(task, tasks)(other, "search"))
    if task != "choose":  # a discrete score of a random model may stay
        assert (changed != before).any()
    for name, parameter in live.parameters.items():
        parameter.copy_(kept[name])
    np.testing.assert_array_equal(built(live, "search"), before)


def test_shuffling_moves_examples_between_splits_and_keeps_their_scores(tasks: Path, live: LiveCausalLM) -> None:
    def scores(shuffle: int | None) -> list[list[float]]:
        built = benchmark("sums", tasks, shuffle=shuffle)
        return [sorted(built(live, split)) for split in SPLITS]

    plain, shuffled = scores(None), scores(3)
    assert sorted(np.concatenate(shuffled)) == sorted(np.concatenate(plain))
    assert shuffled != plain
    assert shuffled == scores(3)
    assert shuffled != scores(4)


def test_wrong_options_are_errors_that_list_the_known_ones(tasks: Path, live: LiveCausalLM) -> None:
    with pytest.raises(BenchmarkError, match="closeness"):
        benchmark("sums", tasks, metric="accuracy")
    with pytest.raises(BenchmarkError, match="batch_size"):
        benchmark("sums", tasks, batchsize=4)
    with pytest.raises(BenchmarkError, match="none"):
        benchmark("sums", tasks, filter="strict")(live, "search")
    with pytest.raises(BenchmarkError, match="validation"):
        benchmark("sums", tasks, splits={"search": {}, "test": {}})
    with pytest.raises(BenchmarkError, match="reaches to example 61"):
        benchmark("sums", tasks, splits={**SPLIT_BOUNDS, "test": {"start": 36, "stop": 61}})
    with pytest.raises(BenchmarkError, match="overlap"):
        benchmark("sums", tasks, splits={**SPLIT_BOUNDS, "test": {"start": 35, "stop": 60}})


def test_local_files_replace_the_tasks_data(tasks: Path, live: LiveCausalLM, tmp_path: Path) -> None:
    rows = [{"question": f"{i}{i}+1=", "answer": "2"} for i in range(10)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bounds = {"search": {"start": 0.0, "stop": 0.5}, "validation": {"start": 0.5, "stop": 0.7}, "test": {"start": 0.7}}
    built = benchmark("sums", tasks, data_files=str(tmp_path / "mine.jsonl"), splits=bounds)
    assert [built.size(split) for split in SPLITS] == [5, 2, 3]
    assert built(live, "test").shape == (3,)
    with pytest.raises(BenchmarkError, match="no such file"):
        benchmark("sums", tasks, data_files=str(tmp_path / "other.jsonl"))


def requests(prompts: list[str], settings: Mapping[str, Any]) -> list[Instance]:
    return [
        Instance("generate_until", doc={}, arguments=(prompt, dict(settings)), idx=0, metadata=("t", i, 1))
        for i, prompt in enumerate(prompts)
    ]


# Letters come in pairs only, so that stop strings begin and end inside of tokens: a becomes ab, z becomes za.
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PAIRS = [c + LETTERS[(LETTERS.index(c) + 1) % 26] if c in LETTERS else c for c in tiny_models.CHARACTERS]
STOPS: dict[str, Callable[[list[str]], list[str]]] = {
    "none": lambda answers: [],
    "one character": lambda answers: [answers[0][9]],
    "several characters": lambda answers: [answers[0][7:10]],
    "many tokens": lambda answers: [answers[0][5:17]],
    "several strings": lambda answers: [answers[1][12:18], answers[2][6:8], answers[3][20]],
    "a string that never comes": lambda answers: ["答答答"],
    "the end of text": lambda answers: ["<eos>"],
    "an empty string": lambda answers: [""],
    "an empty string and another": lambda answers: ["", answers[0][9]],
}


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> LiveCausalLM:
    """A model whose answers are long and varied."""
    directory = tiny_models.save_model(tmp_path_factory.mktemp("talkative"), 4, characters=PAIRS)
    live = CausalLM().live_model(directory, CPU, torch.float32)
    for name, parameter in live.parameters.items():
        if "norm" not in name:
            parameter.mul_(12.0)
    return live


@pytest.mark.parametrize("kind", STOPS)
def test_the_live_model_answers_like_hflm(kind: str, talkative: LiveCausalLM) -> None:
    module, tokenizer = talkative.module, talkative.tokenizer
    prompts = [f"{i}+{i * 7 % 13}={'?' * (i % 4)}" for i in range(12)]
    settings = {"do_sample": False, "temperature": 0.0, "max_gen_toks": 24}
    plain, ours = (HFLM(pretrained=module, tokenizer=tokenizer, batch_size=5), LiveLM(module, tokenizer, 5))
    free = plain.generate_until(requests(prompts, {**settings, "until": []}), disable_tqdm=True)
    until = STOPS[kind](free)
    expected = plain.generate_until(requests(prompts, {**settings, "until": until}), disable_tqdm=True)
    for _ in range(2):
        assert ours.generate_until(requests(prompts, {**settings, "until": until}), disable_tqdm=True) == expected
    assert len(set(expected)) > (1 if "empty" in kind else 6)
    stopped = [a for a, b in zip(expected, free, strict=True) if a != b]
    assert bool(stopped) == (kind not in ("none", "a string that never comes", "the end of text"))


BYTES = ["<pad>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]


@pytest.mark.parametrize(
    "until", [["\ufffd"], ["\x1e"], ["\ufffd\x1e", "SS"], ["\x1e\ufffd", "QQ"], []], ids=lambda until: repr(until)
)
def test_stops_at_bytes_that_are_no_text_yet_are_hflms(until: list[str]) -> None:
    """A model of bytes answers with parts of characters, which are decoded as U+FFFD until they are whole."""
    backend = Tokenizer(models.BPE({token: row for row, token in enumerate(BYTES)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = tiny_models.config(vocab_size=len(BYTES), hidden_size=32, initializer_range=0.3)
        module = LlamaForCausalLM(config).eval()
    prompts = ["1+2=", "答えは", "hello, world", "あ", "x" * 20]
    asked = requests(prompts, {"do_sample": False, "max_gen_toks": 40, "until": until})
    plain, ours = HFLM(pretrained=module, tokenizer=tokenizer, batch_size=3), LiveLM(module, tokenizer, 3)
    expected = plain.generate_until(asked, disable_tqdm=True)
    assert any("\ufffd" in answer for answer in expected) or "\ufffd" in until
    assert ours.generate_until(asked, disable_tqdm=True) == expected


def test_stop_strings_end_the_generation_and_not_only_the_answer(talkative: LiveCausalLM) -> None:
    """Generating on after the stop string and cutting it off later would give the same answers, more slowly."""
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    handle = talkative.module.register_forward_hook(count)
    lm = LiveLM(talkative.module, talkative.tokenizer, 1)
    settings = {"do_sample": False, "max_gen_toks": 24}
    (free,) = lm.generate_until(requests(["1+2="], {**settings, "until": []}), disable_tqdm=True)
    freely, passes = passes, 0
    lm.generate_until(requests(["1+2="], {**settings, "until": [free[3:6]]}), disable_tqdm=True)
    handle.remove()
    assert freely == 24
    assert passes <= 6  # tokens: six characters at least
