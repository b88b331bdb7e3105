"""Sampled answers follow from seed, example and repeat, whatever the batches, the worker and what was scored before."""

import random
from collections import Counter
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from evohydra.families.causal_lm import CausalLM, LiveCausalLM
from evohydra.recipe import Checkpoint
from evohydra.scoring.benchmarks import Benchmark
from evohydra.scoring.benchmarks.sampling import drawn_at, may_sample, own_randomness, row_draws, stream
from evohydra.scoring.job import Job
from evohydra.scoring.worker import Worker
from tests import tiny_models
from tests.commands import carried_out, json_lines, workspace
from tests.contracts.test_benchmarks import CPU, benchmark
from tests.contracts.test_benchmarks import tasks as toy_tasks  # noqa: F401
from tests.kill_repeatedly import without_seconds
from tests.scripted import NO_SOURCES

SAMPLED = {"do_sample": True, "temperature": 1.0}


def test_tokens_come_as_often_as_their_probabilities_say() -> None:
    weights = torch.tensor([[0.1, 0.0, 0.6, 0.3]])
    uniform = torch.from_numpy(stream("often").random((20000, 1)))
    drawn = Counter(drawn_at(weights.expand(20000, 4), uniform, replacement=False).flatten().tolist())
    assert set(drawn) == {0, 2, 3}
    for token, share in ((0, 0.1), (2, 0.6), (3, 0.3)):
        assert drawn[token] / 20000 == pytest.approx(share, abs=0.015)


def test_draws_without_replacement_differ_and_leave_impossible_ones_for_last() -> None:
    weights = torch.tensor([[0.0, 2.0, 0.0, 1.0, 1.0]]).expand(500, 5)
    drawn = drawn_at(weights, torch.from_numpy(stream("beams").random((500, 4))), replacement=False)
    assert all(sorted(row[:3]) == [1, 3, 4] and row[3] == 0 for row in drawn.tolist())
    assert torch.bincount(drawn[:, 0], minlength=5)[1] / 500 == pytest.approx(0.5, abs=0.08)
    edges = drawn_at(weights[:2], torch.tensor([[0.0], [1 - 2.0**-53]], dtype=torch.float64), replacement=True)
    assert edges.flatten().tolist() == [1, 4]


@pytest.mark.parametrize("bad", [[0.5, float("nan")], [0.5, float("inf")], [0.5, -0.1], [0.0, 0.0]])
def test_what_is_no_distribution_is_refused(bad: list[float]) -> None:
    with row_draws([("a",)]), pytest.raises(RuntimeError, match="probability tensor"):
        torch.multinomial(torch.tensor([bad]), 1)


def test_each_row_has_a_stream_of_its_own() -> None:
    weights = torch.ones(3, 1000)

    def drawn(*keys: str) -> list[list[int]]:
        with row_draws([(key,) for key in keys]):
            rows = weights[: len(keys)]
            return torch.stack([torch.multinomial(rows, 1)[:, 0] for _ in range(5)]).T.tolist()

    together = drawn("a", "b", "c")
    assert together == [*drawn("a"), *drawn("b", "c")]
    assert len({tuple(row) for row in together}) == 3
    with row_draws([("a",), ("b",)]):  # several answers to each prompt
        assert len(set(torch.multinomial(torch.ones(6, 1000), 1).flatten().tolist())) == 6


def test_global_generators_are_given_back() -> None:
    def numbers() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    expected = [numbers() for _ in range(2)]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    inside = []
    found = [numbers()]
    for _ in range(2):
        with own_randomness("mine", "search"):
            inside.append(numbers())
    assert [*found, numbers()] == expected
    assert inside[0] == inside[1] != expected[0]


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, False), ({"do_sample": False, "temperature": 1.0}, False), ({"temperature": 0.0}, False),
     ({"temperature": 0.7}, True), ({"do_sample": True}, True)],
)  # fmt: skip
def test_which_options_sample(options: dict[str, object], expected: bool) -> None:
    assert may_sample(options) is expected


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LiveCausalLM:
    return CausalLM().live_model(tiny_models.save_model(tmp_path_factory.mktemp("model"), 4), CPU, torch.float32)


def asked(tasks: Path, **options: Any) -> Any:
    return benchmark("sums", tasks, **{"generation_kwargs": SAMPLED, **options})


@pytest.mark.parametrize("more", [{}, {"num_beams": 2}, {"top_k": 5}], ids=str)
def test_answers_do_not_depend_on_batches_subsets_and_what_was_before(
    more: dict[str, int],
    toy_tasks: Path,  # noqa: F811
    model: LiveCausalLM,
) -> None:
    options = {**SAMPLED, **more}
    whole = asked(toy_tasks, batch_size=64, generation_kwargs=options)
    scores = whole(model, "search").tolist()
    assert len(set(scores)) > 12
    torch.rand(7)
    assert whole(model, "search").tolist() == scores
    for batch_size in (1, 5):
        in_batches = asked(toy_tasks, batch_size=batch_size, generation_kwargs=options)
        assert in_batches(model, "search").tolist() == scores
    places = [17, 3, 4, 20]
    assert asked(toy_tasks, batch_size=3, generation_kwargs=options)(model, "search", places).tolist() == [
        scores[place] for place in places
    ]
    assert asked(toy_tasks, sampling_seed=1, generation_kwargs=options)(model, "search").tolist() != scores


def test_repeats_differ_and_examples_of_one_text_too(tmp_path: Path, model: LiveCausalLM) -> None:
    root = tiny_models.save_task(tmp_path)
    rows = [f'{{"question": "1+{i}=", "answer": "{i + 1}"}}\n' * count for i, count in ((2, 24), (3, 12), (4, 24))]
    (root / "sums.jsonl").write_text("".join(rows))
    (root / "sums.yaml").write_text((root / "sums.yaml").read_text() + "repeats: 3\n")
    scores: list[list[str]] = []
    for batch_size in (64, 5):
        one = asked(root, batch_size=batch_size)
        one(model, "search")
        scores.append([answer for instances in one._requests["search"] for i in instances for answer in i.resps])
    assert scores[0] == scores[1]
    assert len(scores[0]) == 72
    assert len(set(scores[0])) > 60


def test_the_seed_is_part_of_identity_where_answers_are_sampled(toy_tasks: Path) -> None:  # noqa: F811
    one, two = (asked(toy_tasks, sampling_seed=seed).identity() for seed in (0, 1))
    assert one != two
    greedy = [benchmark("sums", toy_tasks, sampling_seed=seed).identity() for seed in (0, 1)]
    assert greedy[0] == greedy[1]
    assert "sampling" not in benchmark("choose", toy_tasks).identity()


class Careless:
    """A benchmark of one's own that draws from every global generator."""

    name, families = "careless", ("causal_lm",)

    def size(self, split: str) -> int:
        return 4

    def identity(self) -> dict[str, object]:
        return {}

    def __call__(self, live: object, split: str, examples: object = None) -> np.ndarray:
        drawn = [random.random(), np.random.rand(), float(torch.rand(())), random.random()]  # noqa: NPY002
        return np.array(drawn)


def test_what_a_benchmark_draws_from_global_generators_is_the_same_for_every_genome(model: LiveCausalLM) -> None:
    nothing = cast(Any, None)

    class Live:
        def become(self, recipe: object, engine: object) -> None: ...

        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

    careless = cast(Benchmark, Careless())
    worker = Worker(nothing, cast(Any, Live()), {"careless": careless}, NO_SOURCES, nothing)
    first, second = (worker.evaluate(Job(Checkpoint(name, "-"), "search")).scores["careless"] for name in "ab")
    assert first == second
    assert len(set(first)) == 4
    assert worker.evaluate(Job(Checkpoint("a", "-"), "test")).scores["careless"] != first


def test_a_run_that_samples_repeats_itself_on_any_workers(tmp_path: Path) -> None:
    sampled = "benchmark.lm_eval.generation_kwargs={do_sample:true,temperature:1.0}"
    overrides = [*workspace(tmp_path), sampled, "budget=12", "top=2", "baselines=null", "batch_size=4"]
    carried_out(overrides, tmp_path / "first")
    torch.rand(5)
    carried_out(overrides, tmp_path / "second")
    shared = ["executor=processes", "executor.workers=2"]
    carried_out([*overrides, *shared], tmp_path / "third")
    carried_out([*overrides, "seed=2"], tmp_path / "other")
    first, second, third, other = (
        without_seconds(json_lines(tmp_path / name / "ledger.jsonl")) for name in ("first", "second", "third", "other")
    )
    assert first == second == third
    assert len({line["fitness"] for line in first}) > 6
    before = {line["label"]: line["scores"] for line in json_lines(tmp_path / "first" / "scores.jsonl")}
    after = {line["label"]: line["scores"] for line in json_lines(tmp_path / "other" / "scores.jsonl")}
    assert before["one"] != after["one"]  # another seed draws other answers
    assert len(other) == len(first)
