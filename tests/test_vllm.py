"""vLLM itself, in an environment of its own (docs/backends.md), on small random models with heads of 32.

EVOHYDRA_VLLM_PYTHON=/path/to/python pytest -m slow tests/test_vllm.py
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from evohydra.merging.checkpoints import SourceError
from evohydra.recipe import Group, Merge
from evohydra.scoring.benchmarks.likelihood import likelihood_name
from evohydra.scoring.executors import Executor
from evohydra.scoring.job import Job
from evohydra.scoring.worker import Worker
from tests.commands import built, carried_out, environment, json_lines, workspace
from tests.kill_repeatedly import finish, kill, scored_twice, without_seconds

PYTHON = os.environ.get("EVOHYDRA_VLLM_PYTHON")
HEADS_OF_32 = {"hidden_size": 96, "num_attention_heads": 3, "num_key_value_heads": 3, "intermediate_size": 128,
               "max_position_embeddings": 256}  # fmt: skip
SERVED = ["backend=vllm", "backend.cache_gb=0.2"]
VLLM = [*SERVED, "executor=processes", "executor.workers=1", "executor.threads=1", f"executor.python={PYTHON}"]
TWO = {
    "processes": ["executor=processes", "executor.workers=2", "executor.threads=1", f"executor.python={PYTHON}"],
    "ray": ["executor=ray", "executor.workers=2", "executor.cpus_per_worker=1", f"executor.python={PYTHON}"],
}
EMBEDDED = [
    "model=tiny_ja+tiny_math", "optimizer=bo", "budget=16", "start=[sources,uniform]", "top=2", "baselines=null",
    "audit=none", "tracker=none", "report=false", "answers=1", "threads=1",
]  # fmt: skip


def itself(worker: Worker) -> Worker:
    """The worker, which is in this process."""
    return worker


@pytest.fixture(scope="module")
def by_vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[str], Executor]]:
    """A run on small random models with heads of 32, and its worker, which vLLM serves."""
    if PYTHON is None:
        pytest.skip("needs a Python with vLLM: EVOHYDRA_VLLM_PYTHON=/path/to/python")
    root = tmp_path_factory.mktemp("vllm")
    with pytest.MonkeyPatch.context() as patched:
        for key, value in environment().items():
            patched.setenv(key, value)
        arguments = [*workspace(root, **HEADS_OF_32), "budget=6"]
        with closing(built([*arguments, *VLLM], root / "run").make_executor()) as executor:
            yield arguments, executor


@pytest.mark.slow
def test_vllm_scores_as_transformers(by_vllm: tuple[list[str], Executor], tmp_path: Path) -> None:
    """Answers and likelihoods of a source, a merge with another head, one that is not finite, and the source again."""
    arguments, executor = by_vllm
    plain = built(arguments, tmp_path / "run").make_executor().ask(itself)
    first, second = plain.sources.models
    (name,) = plain.benchmarks
    likely = likelihood_name(name, "token")
    names = tuple(plain.engine.shapes(first))
    nodes = [
        first,
        Merge("task_arithmetic", plain.sources.base, (first, second), (Group("all", names, {"weight": (0.3, 0.4)}),)),
        Merge("task_arithmetic", plain.sources.base, (second,), (Group("all", names, {"weight": (1e300,)}),)),
        first,
    ]
    jobs = [Job(node, "search", {name: list(range(16)), likely: list(range(16))}) for node in nodes]
    tickets = executor.submit(jobs)
    found = dict(executor.completed() for _ in tickets)
    for ticket, job in zip(tickets, jobs, strict=True):
        expect, got = plain.evaluate(job), found[ticket]
        assert got.scores.get(name) == expect.scores.get(name)
        assert got.scores.get(likely, []) == pytest.approx(expect.scores.get(likely, []), abs=1e-3)
        assert str(got.error)[:12] == str(expect.error)[:12]  # what else it names depends on what is merged at once
        assert got.ends == expect.ends
    assert found[tickets[0]].scores == found[tickets[3]].scores
    assert "is not finite" in str(found[tickets[2]].error)


@pytest.mark.slow
def test_a_worker_of_vllm_that_is_killed_is_replaced(by_vllm: tuple[list[str], Executor], tmp_path: Path) -> None:
    arguments, executor = by_vllm
    first = built(arguments, tmp_path / "run").models.sources
    jobs = [Job(node, "search", None) for node in first.values()]
    before = [executor.submit([job]) and executor.completed()[1].scores for job in jobs]
    executor.submit(jobs)
    os.kill(executor._seats[0].process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    again = dict(executor.completed() for _ in jobs)
    assert [again[ticket].scores for ticket in sorted(again)] == before


@pytest.mark.slow
@pytest.mark.parametrize("executor", TWO)
def test_two_workers_of_vllm_score_as_one(by_vllm: tuple[list[str], Executor], tmp_path: Path, executor: str) -> None:
    arguments, one = by_vllm
    run = built([*arguments, *SERVED, *TWO[executor]], tmp_path / "run")
    jobs = [Job(node, "search", None) for node in run.models.sources.values()] * 4
    expect = [one.submit([job]) and one.completed()[1].scores for job in jobs]
    places: set[str] = set()
    until = time.monotonic() + 600.0
    with closing(run.make_executor()) as two:
        while len(places) < 2 and time.monotonic() < until:  # the second one is made while the first one works
            tickets = two.submit(jobs)
            found = dict(two.completed() for _ in tickets)
            assert [found[ticket].scores for ticket in tickets] == expect
            places |= {turn.where for turn in two.watch.take()}
    assert len(places) == 2


@pytest.mark.slow
def test_an_embedded_search_that_is_killed_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """The default models; kill -9 ends the command in the middle of the search, and its worker ends with it."""
    if PYTHON is None:
        pytest.skip("needs a Python with vLLM: EVOHYDRA_VLLM_PYTHON=/path/to/python")
    command = [*EMBEDDED, *VLLM]
    alone, killed = tmp_path / "alone" / "run", tmp_path / "killed" / "run"
    for directory in (alone, killed):
        directory.parent.mkdir()
    finish(command, alone)
    genomes = len(json_lines(alone / "ledger.jsonl"))
    told = kill(command, killed, genomes, after=600.0, more=genomes + 2, longer=0.0)
    assert told.alive
    assert told.phase == "search"
    assert 0 < told.genomes < genomes
    finish(command, killed)
    one, other = ([without_seconds(each) for each in json_lines(run / "ledger.jsonl")] for run in (alone, killed))
    assert one == other
    assert scored_twice(killed) == 0
    assert (alone / "winner" / "model.safetensors").read_bytes() == (
        killed / "winner" / "model.safetensors"
    ).read_bytes()


@pytest.mark.slow
def test_genomes_as_lora_requests_score_as_merged_ones(tmp_path: Path) -> None:
    """Three in a batch, one that is none, one more, and then what is merged: nothing of an adapter is left in it."""
    if PYTHON is None:
        pytest.skip("needs a Python with vLLM: EVOHYDRA_VLLM_PYTHON=/path/to/python")
    loras = ["experiment=tiny_loras", "tracker=none", "baselines=null", "threads=1", "budget=8"]
    plain = built(loras, tmp_path / "run")
    worker = plain.make_executor().ask(itself)
    genome, source = plain.plan.space.default(), next(iter(plain.models.sources.values()))
    assert isinstance(genome, Merge)
    (name,) = worker.benchmarks
    asked = {name: list(range(8)), likelihood_name(name, "token"): list(range(8))}
    (group,) = genome.groups[:1]
    nodes = [
        replace(genome, groups=(replace(group, parameters={**group.parameters, "weight": weight}), *genome.groups[1:]))
        for weight in ((1.0, 0.5, 0.2, 0.1), (1e39,) * 4, (0.0, 0.0, 1.0, 0.0), (0.3, 1.0, 0.9, 0.8), (0.1,) * 4)
    ]
    jobs = [Job(node, "search", asked) for node in nodes]
    jobs += [Job(nodes[0], "validation", {name: list(range(8))}), Job(source, "search", asked), jobs[0]]
    more = ["backend.genomes=adapters", "backend.together=3"]
    with closing(built([*loras, *VLLM, *more], tmp_path / "served").make_executor()) as executor:
        tickets = executor.submit(jobs)
        found = dict(executor.completed() for _ in tickets)
    for ticket, job in zip(tickets, jobs, strict=True):
        expect, got = worker.evaluate(job), found[ticket]
        assert got.scores.keys() == expect.scores.keys(), got.error
        for key, scores in expect.scores.items():
            assert got.scores[key] == (scores if key == name else pytest.approx(scores, abs=1e-3))
    assert "is not finite after task_arithmetic, as an adapter" in str(found[tickets[1]].error)
    first = [found[tickets[place]].seconds["merge"] for place in (0, 2)]
    assert first[1] < first[0]  # it was loaded with the first one


@pytest.mark.slow
def test_heads_that_vllm_has_no_kernel_for(by_vllm: tuple[list[str], Executor], tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="the heads of this model have 8"):
        built([*workspace(tmp_path), "budget=6", *VLLM], tmp_path / "run")


@pytest.mark.slow
def test_a_search_by_vllm_finds_what_one_by_transformers_finds(
    by_vllm: tuple[list[str], Executor], tmp_path: Path
) -> None:
    """To the written winner; the same command again scores nothing anew."""
    root, arguments = tmp_path, [*by_vllm[0], "top=2", "baselines=null", "audit=none"]
    plain = carried_out(arguments, root / "plain" / "run")
    vllm = [*arguments, *VLLM]
    served = carried_out(vllm, root / "served" / "run")
    one, other = (
        {name: each["score"] for name, each in summary["test"].items() if "score" in each}
        for summary in (plain, served)
    )
    assert one == pytest.approx(other)
    assert "winner_unverified" not in served
    assert (root / "served" / "run" / "winner" / "model.safetensors").is_file()
    asked, too = (json_lines(root / name / "run" / "ledger.jsonl") for name in ("plain", "served"))
    assert [each["scores"] for each in asked] == [each["scores"] for each in too]
    scored = (root / "served" / "run" / "scores.jsonl").read_bytes()
    carried_out(vllm, root / "served" / "run")
    assert (root / "served" / "run" / "scores.jsonl").read_bytes() == scored
