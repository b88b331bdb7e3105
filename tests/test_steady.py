"""Asynchronous searches: what is asked and told, what a kill leaves, and what a replay proves."""

import functools
import random
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, cast

import hydra.utils
import numpy as np
import pytest

from evohydra.recipe import Checkpoint, Node, digest
from evohydra.scoring.benchmarks import Split
from evohydra.scoring.executors import Executor
from evohydra.scoring.job import Evaluation, Examples, Job
from evohydra.searching.driver import SearchError
from evohydra.searching.events import EVENTS, Asked, Events, Told
from evohydra.searching.fitness import Fitness
from evohydra.searching.json_lines import LedgerError
from evohydra.searching.ledger import Ledger, Record
from evohydra.searching.optimizers import Optimizer
from evohydra.searching.rounds import Scoring
from evohydra.searching.scheduler import Scheduler
from evohydra.searching.scores import ScoreStore
from evohydra.searching.search_parts import SearchParts
from evohydra.searching.steady import Steady, search_steadily
from tests.commands import evohydra, json_lines, python, warm_start, workspace, write_lines
from tests.contracts.discovery import composed
from tests.contracts.test_fitness import SIZES, Levels, Responses
from tests.kill_repeatedly import differences, kill, lines, on_file, scored_twice
from tests.test_kill import VERIFIED_ANSWERS
from tests.tiny_models import save_lucky

Evaluate = Callable[[Node, Split, Examples | None], Evaluation]
BUDGET, POPULATION = 56, 8


class Crew:
    """An executor with several workers, which are done in random order.

    most: how many were at work at once. idle: how often one was free while BUDGET recipes were not begun.
    """

    def __init__(self, workers: int, evaluate: Evaluate, seed: int = 0) -> None:
        self.workers, self._evaluate, self._order = workers, evaluate, random.Random(seed)
        self._open: list[tuple[int, Job]] = []
        self.tickets, self.most, self.idle = 0, 0, 0
        self._begun: set[str] = set()

    def submit(self, jobs: Sequence[Job]) -> list[int]:
        first = self.tickets
        self.tickets += len(jobs)
        self._open += enumerate(jobs, start=first)
        self._begun |= {digest(job.recipe) for job in jobs}
        self.most = max(self.most, len(self._open))
        return list(range(first, self.tickets))

    def completed(self) -> tuple[int, Evaluation]:
        self.idle += len(self._open) < self.workers and len(self._begun) < BUDGET
        ticket, job = self._open.pop(self._order.randrange(len(self._open)))
        assert job.part is None
        return ticket, self._evaluate(job.recipe, job.split, job.examples)

    def ask(self, task: Any, *given: object) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is left to be ended."""


class Numbers(Levels):
    """Two genes without steps, so that no recipe comes twice."""

    def decode(self, x: Any) -> Node:
        return Checkpoint(" ".join(repr(float(each)) for each in x), "-")


class Stopped(BaseException):
    """The process ends here."""


class Stopping:
    """Responses that end the process at their call number `last`."""

    def __init__(self, last: int | None = None, evaluate: Evaluate | None = None) -> None:
        self._evaluate, self.calls, self._last = evaluate or Responses(), 0, last

    def __call__(self, recipe: Node, split: Split, examples: Examples | None = None) -> Evaluation:
        if self.calls == self._last:
            raise Stopped
        self.calls += 1
        return self._evaluate(recipe, split, examples)


@functools.cache
def maker(optimizer: str) -> Callable[..., Optimizer]:
    spec = composed(f"optimizer={optimizer}")["optimizer"] | {"population": POPULATION}
    made: Callable[..., Optimizer] = hydra.utils.instantiate(spec)
    return made


def kind(fitness: str = "full") -> Fitness:
    name, *options = fitness.split()
    spec = composed(f"fitness={name}", *options)["fitness"]
    if name == "irt":
        spec = spec | {"calibrate": POPULATION, "first": 8, "step": 4, "most": 16}
    if name == "likelihood":
        spec = spec | {"examples": 15, "check_every": 2, "clip": -3.0}
    made: Fitness = hydra.utils.instantiate(spec)(sizes=SIZES, seed=1)
    return made


def carry_out(
    directory: Path,
    *,
    optimizer: str = "de",
    fitness: str = "full",
    workers: int = 4,
    evaluate: Any = None,
    budget: int = BUDGET,
    seed: int = 0,
    space: Levels | None = None,
    replay: bool = False,
) -> tuple[list[Record], Crew]:
    found, responses = space or Numbers(), evaluate or Responses()
    crew = Crew(workers, responses, seed)
    with ExitStack() as stack:
        renewed = functools.partial(maker(optimizer), axes=found.axes, seed=1, start=None)
        strategy = stack.enter_context(closing(renewed()))
        ledger = stack.enter_context(closing(Ledger(directory, {})))
        events = stack.enter_context(closing(Events(directory)))
        store = stack.enter_context(closing(ScoreStore(directory / "scores.jsonl", {})))
        sources = [
            {name: [float(at % 3 == each) for at in range(size)] for name, size in SIZES.items()} for each in range(2)
        ]
        scoring = Scoring(Scheduler(cast(Executor, crew), store), SIZES, sources=lambda: sources)
        parts = SearchParts(found, strategy, kind(fitness), scoring, ledger, budget, (), renewed)
        if replay:
            with closing(Steady(parts, events)) as steady:
                steady.replay(ask=True)
        else:
            search_steadily(parts, events)
        return ledger.records, crew


FITNESS = [
    "full",
    "full +fitness.reject.after=8",
    "subset fitness.fresh=false",
    "likelihood",
    "racing fitness.fresh=false",
    "irt",
]


def bits(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in ("ledger.jsonl", EVENTS, "scores.jsonl")}


@pytest.mark.parametrize("workers", [1, 4, 20])
@pytest.mark.parametrize("fitness", FITNESS)
def test_every_kind_of_fitness(fitness: str, workers: int, tmp_path: Path) -> None:
    """All workers are busy, nothing is scored twice, and the history leads to what was asked."""
    records, crew = carry_out(tmp_path, fitness=fitness, workers=workers)
    assert [record.index for record in records] == list(range(BUDGET))
    assert crew.most == workers
    assert crew.idle == 0
    assert scored_twice(tmp_path) == 0
    assert all(np.isfinite(record.fitness) for record in records if record.error is None)
    before = bits(tmp_path)
    again, replaying = carry_out(tmp_path, fitness=fitness, workers=workers, replay=True)
    assert (again, replaying.tickets) == (records, 0)
    assert bits(tmp_path) == before


@pytest.mark.parametrize("optimizer", ["random", "bo", "cmaes", "ga", "m2n2"])
@pytest.mark.parametrize("fitness", FITNESS)
def test_stopped_anywhere_it_goes_on(fitness: str, optimizer: str, tmp_path: Path) -> None:
    """What was told stays; what was in flight is scored, once. Recipes come again: of two alike one waits."""
    if optimizer == "m2n2" and fitness != "full":
        pytest.skip("it wants fitness=full")
    options: dict[str, Any] = {"optimizer": optimizer, "fitness": fitness, "space": Levels(), "workers": 3}
    told = 0
    for seed, last in enumerate([0, 4, 6, 2, 5]):
        with pytest.raises(Stopped):
            carry_out(tmp_path, evaluate=Stopping(last), seed=seed, budget=200, **options)
        before = bits(tmp_path)
        assert scored_twice(tmp_path) == 0
        told = len(json_lines(tmp_path / "ledger.jsonl"))
    records, _ = carry_out(tmp_path, budget=told + 20, **options)
    assert len(records) == told + 20
    after = bits(tmp_path)
    assert all(after[name].startswith(content) for name, content in before.items())
    assert scored_twice(tmp_path) == 0
    assert carry_out(tmp_path, budget=told + 20, replay=True, **options)[0] == records


def test_one_worker_repeats_itself_after_any_stop(tmp_path: Path) -> None:
    carry_out(tmp_path / "alone", workers=1, optimizer="cmaes")
    for last in (0, 7, 20):
        with pytest.raises(Stopped):
            carry_out(tmp_path / "stopped", workers=1, optimizer="cmaes", evaluate=Stopping(last))
    carry_out(tmp_path / "stopped", workers=1, optimizer="cmaes")
    assert bits(tmp_path / "alone") == bits(tmp_path / "stopped")


def test_a_result_that_was_told_without_its_line_in_the_ledger(tmp_path: Path) -> None:
    """The process ended between the two: the line is made again from the scores."""
    carry_out(tmp_path, budget=20)
    whole = bits(tmp_path)
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_bytes(b"".join(whole["ledger.jsonl"].splitlines(keepends=True)[:15]))
    carry_out(tmp_path, budget=20)
    assert bits(tmp_path) == whole
    write_lines(tmp_path / "scores.jsonl", json_lines(tmp_path / "scores.jsonl")[:-2])  # then they are scored again
    ledger.write_bytes(b"".join(whole["ledger.jsonl"].splitlines(keepends=True)[:15]))
    records, _ = carry_out(tmp_path, budget=20)
    assert ledger.read_bytes() == whole["ledger.jsonl"]
    assert len(records) == 20


def test_a_larger_and_a_smaller_budget(tmp_path: Path) -> None:
    first, _ = carry_out(tmp_path, budget=20)
    more, _ = carry_out(tmp_path, budget=30)
    assert more[:20] == first
    whole = bits(tmp_path)
    assert carry_out(tmp_path, budget=10)[0] == first[:10]
    assert bits(tmp_path) == whole


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda e: e | {"genome": [0.5, *e["genome"][1:]]} if "genome" in e else e, "asks for another genome than"),
        (lambda e: e | {"asked": e["asked"] + 1} if "asked" in e else e, "asks for genome"),
        (lambda e: {"told": 50} if "told" in e else e, "tells the result of genome 50 before it was asked"),
        (lambda e: {"told": 0} if "told" in e else e, "tells the result of genome 0 again"),
        (lambda e: {"sold": 0}, "a line is damaged"),
    ],
)
@pytest.mark.parametrize("optimizer", ["de", "bo"])
def test_a_changed_event_is_named(
    optimizer: str, change: Callable[[dict[str, Any]], dict[str, Any]], expected: str, tmp_path: Path
) -> None:
    carry_out(tmp_path, budget=24, optimizer=optimizer)
    entries = json_lines(tmp_path / EVENTS)
    at = next(at for at, e in enumerate(entries) if at > 30 and change(e) != e)
    write_lines(tmp_path / EVENTS, [*entries[:at], change(entries[at]), *entries[at + 1 :]])
    with pytest.raises(LedgerError, match=expected) as raised:
        carry_out(tmp_path, budget=24, optimizer=optimizer, replay=True)
    assert "damaged" in expected or f"events.jsonl: line {at + 1} " in str(raised.value)


def test_a_changed_order_of_results_is_found(tmp_path: Path) -> None:
    """Also where each line by itself could be right: the ledger holds the lines in the order of the results."""
    carry_out(tmp_path, budget=24)
    entries = json_lines(tmp_path / EVENTS)
    places = [at for at, entry in enumerate(entries) if "told" in entry]
    entries[places[-1]], entries[places[-2]] = entries[places[-2]], entries[places[-1]]
    write_lines(tmp_path / EVENTS, entries)
    with pytest.raises(LedgerError, match="holds another genome than the search asks for"):
        carry_out(tmp_path, budget=24, replay=True)


def failing(first: int, last: int = 10**6) -> Evaluate:
    responses, calls = Responses(), iter(range(10**6))

    def evaluate(recipe: Node, split: Split, examples: Examples | None) -> Evaluation:
        if first <= next(calls) < last:
            return Evaluation({}, {"merge": 0.5}, "MergeError: not finite")
        return responses(recipe, split, examples)

    return evaluate


def test_failures_alone_end_the_search_and_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"every genome of the first 8 failed.*not kept"):
        carry_out(tmp_path, evaluate=failing(0))
    assert json_lines(tmp_path / "ledger.jsonl") == []
    assert len(carry_out(tmp_path)[0]) == BUDGET


def test_failures_in_a_row_are_not_kept_where_a_healthy_genome_fails_too(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"every genome of the last 8 that were scored failed.*fails now too"):
        carry_out(tmp_path, evaluate=failing(20))
    assert len(json_lines(tmp_path / "ledger.jsonl")) == 20
    records, _ = carry_out(tmp_path)
    assert len(records) == BUDGET
    assert sum(record.error is not None for record in records) < 20
    assert carry_out(tmp_path, replay=True)[0] == records


def test_failures_of_the_genomes_own_are_kept(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="They are kept: give the same command again"):
        carry_out(tmp_path, evaluate=failing(20, 31))
    assert len(json_lines(tmp_path / "ledger.jsonl")) == 28
    records, _ = carry_out(tmp_path)
    assert [record.error is None for record in records[18:29]] == [True] * 2 + [False] * 8 + [records[28].error is None]


@pytest.mark.parametrize("optimizer", ["bo", "cmaes", "nsga2", "map_elites", "m2n2"])
def test_first_results_that_are_failures_are_told_later(optimizer: str, tmp_path: Path) -> None:
    """How bad a failure is says the worst of the others."""
    records, _ = carry_out(tmp_path, optimizer=optimizer, evaluate=failing(0, 5))
    assert sum(record.fitness is None for record in records[:6]) >= 5
    assert carry_out(tmp_path, optimizer=optimizer, replay=True)[0] == records


def test_likelihoods_that_mislead_end_as_in_generations(tmp_path: Path) -> None:
    """The search begins anew by the metric, with an optimizer that knows nothing of what was before."""
    evaluate = Responses(misleads=True)
    records, _ = carry_out(tmp_path, fitness="likelihood", evaluate=evaluate, budget=120, optimizer="cmaes")
    by_metric = [record for record in records if record.scores and not any("likel" in name for name in record.scores)]
    assert len(by_metric) > 40
    again, _ = carry_out(tmp_path, fitness="likelihood", evaluate=evaluate, budget=120, optimizer="cmaes", replay=True)
    assert again == records


def test_a_race_is_longer_where_genomes_are_alike(tmp_path: Path) -> None:
    records, _ = carry_out(tmp_path, fitness="racing fitness.fresh=false", optimizer="cmaes", budget=80)
    scored = [sum(map(len, record.scores.values())) for record in records if record.error is None]
    assert min(scored[:8]) <= 12
    assert max(scored) > 30
    assert np.mean(scored) < sum(SIZES.values()) / 2
    estimated = [record for record in records if record.error_bar]
    assert len(estimated) > 40


def test_events_say_what_was_asked_and_told(tmp_path: Path) -> None:
    records, _ = carry_out(tmp_path, workers=3, budget=12)
    with closing(Events(tmp_path)) as events:
        asks = [event for event in events.recorded if isinstance(event, Asked)]
        told = [event.number for event in events.recorded if isinstance(event, Told)]
    assert [each.number for each in asks] == list(range(12))
    assert [list(asks[number].genome) for number in told] == [record.genome for record in records]
    assert told != sorted(told)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    root = tmp_path_factory.mktemp("begun")
    return root, [*workspace(root), "budget=18", "top=1", "baselines=null", "search=steady"]


WORKERS = ["executor=processes", "executor.workers=2"]


def test_killed_again_and_again_with_two_workers(begun: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Nothing that was told or scored is lost, nothing is scored twice, and the history leads to what was asked."""
    arguments = [*begun[1], *WORKERS, "optimizer=bo"]
    run, chance = tmp_path / "run", random.Random(5)
    alive = 0
    for more in (2, 9, 16):
        known = on_file(run)
        done = kill(arguments, run, 18, after=300.0, more=more, longer=chance.uniform(0, 0.3), begin=warm_start)
        alive += done.alive
        assert done.lost == 0
        assert (known - on_file(run)).total() == 0
        assert scored_twice(run) == 0
    assert alive >= 2
    ended = evohydra(*arguments, f"hydra.run.dir={run}", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert lines(run / "ledger.jsonl") == 18
    assert scored_twice(run) == 0
    proof = python("-m", "evohydra.replay", run, cwd=tmp_path)
    assert (proof.returncode, proof.stdout.splitlines()[-1][:18]) == (0, "ok: 18 genomes of "), proof.stderr


def test_killed_with_one_worker_it_ends_with_the_same_bits(begun: tuple[Path, list[str]], tmp_path: Path) -> None:
    kills, differing = differences(3, 3, [*begun[1], "optimizer=de"], tmp_path / "runs", warm_start)
    assert differing == []
    assert any(each.alive for each in kills)


def test_the_replay_command(begun: tuple[Path, list[str]], tmp_path: Path) -> None:
    """For both kinds of search; nothing is written, and a changed line is named."""
    for name, options in {"steady": [], "generations": ["search=generations"]}.items():
        run = tmp_path / name
        done = evohydra(*begun[1], *options, f"hydra.run.dir={run}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        before = {file.name: file.read_bytes() for file in run.glob("*.json*")}
        proof = python("-m", "evohydra.replay", run, cwd=tmp_path)
        assert proof.returncode == 0, proof.stderr
        assert f"ok: 18 genomes of {name} follow from the seed" in proof.stdout
        assert {file.name: file.read_bytes() for file in run.glob("*.json*")} == before
        changed = tmp_path / f"{name} changed"
        shutil.copytree(run, changed)
        file = changed / (EVENTS if name == "steady" else "ledger.jsonl")
        entries = json_lines(file)
        at = [at for at, entry in enumerate(entries) if "genome" in entry][10]
        entries[at]["genome"][0] = 0.5 * entries[at]["genome"][0]
        write_lines(file, entries)
        proof = python("-m", "evohydra.replay", changed, cwd=tmp_path)
        assert proof.returncode == 1
        assert f"{file.name}: line {at + 1} " in proof.stderr


def test_verified_references(begun: tuple[Path, list[str]], tmp_path: Path) -> None:
    save_lucky(begun[0] / "task")
    run = tmp_path / "run"
    done = evohydra(*begun[1], *VERIFIED_ANSWERS, *WORKERS, f"hydra.run.dir={run}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    entries = json_lines(run / "ledger.jsonl")
    assert len(entries) == 18
    assert any("verified" in name for entry in entries for name in entry["scores"])
    proof = python("-m", "evohydra.replay", run, cwd=tmp_path)
    assert proof.returncode == 0, proof.stderr


def test_the_kind_of_search_is_part_of_the_run(begun: tuple[Path, list[str]], tmp_path: Path) -> None:
    run = f"hydra.run.dir={tmp_path / 'run'}"
    assert evohydra(*begun[1], "budget=6", run, cwd=tmp_path).returncode == 0
    other = evohydra(*begun[1], "budget=6", "search=generations", run, cwd=tmp_path)
    assert other.returncode == 1
    assert "search was 'steady', is now None" in other.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["optimizer=line"], "search=steady: expected an optimizer that takes single results (one of bipop, bo,"),
        (["fitness=subset"], "fitness.fresh: expected false with search=steady"),
        (["fitness=racing"], "fitness.fresh: expected false with search=steady"),
        (["search=sometimes"], "search: expected"),
    ],
)
def test_what_cannot_be_searched_steadily_is_refused_before_a_run_begins(
    options: list[str], expected: str, begun: tuple[Path, list[str]], tmp_path: Path
) -> None:
    given = [each for each in begun[1] if options != ["optimizer=line"] or "optimizer.p" not in each]
    done = evohydra(*given, *options, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path)
    assert done.returncode == 1
    assert expected in done.stderr
    assert not (tmp_path / "run" / "run.json").exists()
