"""What every kind of fitness in conf/fitness keeps to, on searches over recipes whose responses are known."""

import functools
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import hydra.utils
import numpy as np
import pytest
from numpy.typing import NDArray

from evohydra.recipe import Checkpoint, Node
from evohydra.scoring.benchmarks import Split
from evohydra.scoring.benchmarks.likelihood import benchmark_of
from evohydra.scoring.job import Evaluation, Examples
from evohydra.searching.driver import choose, groups_of, search
from evohydra.searching.fitness import Fitness
from evohydra.searching.fitness.generation import Generation, OfSources, Scored, Wanted, members_of
from evohydra.searching.fitness.likelihood import BY_METRIC
from evohydra.searching.fitness.likelihood_scale import is_likelihood
from evohydra.searching.ledger import Ledger, Record
from evohydra.searching.objectives import Objective
from evohydra.searching.rounds import Scoring
from evohydra.searching.search_parts import SearchParts
from evohydra.spaces.genes import Axis, Value
from tests.commands import json_lines
from tests.contracts.discovery import composed, names
from tests.kill_repeatedly import without_seconds
from tests.scripted import scheduling

LAST_STAGE, MISLEADS = "likelihood, then the metric", "likelihood that misleads"
KINDS = [name for name in names("fitness") if name != "auto"]  # which becomes one of them
MISLEADS_BO = f"{MISLEADS}, optimizer=bo"
SEARCHES = [*KINDS, LAST_STAGE, MISLEADS, MISLEADS_BO]

SIZES = {"sums": 90, "words": 30}
BUDGET, POPULATION = 56, 8


class Levels:
    """Two genes in steps of a tenth, so that recipes come again; a recipe's name spells them."""

    names = ("x", "y")
    axes = (Axis(), Axis())

    def decode(self, x: NDArray[np.float64]) -> Node:
        return Checkpoint(" ".join(f"{each:.1f}" for each in x), "-")

    def values(self, x: NDArray[np.float64]) -> dict[str, Value]:
        return {}

    def encode(self, node: Node) -> NDArray[np.float64]:
        raise NotImplementedError

    def known_merges(self) -> Mapping[str, Node]:
        return {}

    def default(self) -> Node:
        return self.decode(np.zeros(2))


class Responses:
    """A genome is the better the nearer it is to (0.7, 0.3), fails where y is 0.9, and knows nothing where x is 0.

    Ends the process by SIGKILL when it is called for the time number `last`. misleads: log-likelihoods are the larger
    the worse a genome is.
    """

    def __init__(self, last: int | None = None, *, misleads: bool = False) -> None:
        generator = np.random.default_rng(5)
        self._items = {
            name: (generator.normal(0, 1.5, size), generator.normal(size=(size, 3))) for name, size in SIZES.items()
        }
        self.asked: list[tuple[str, Split, str, int]] = []
        self.calls, self._last, self._misleads = 0, last, misleads

    def __call__(self, recipe: Node, split: Split, examples: Examples | None = None) -> Evaluation:
        if self.calls == self._last:
            os.kill(os.getpid(), signal.SIGKILL)
        self.calls += 1
        assert isinstance(recipe, Checkpoint)
        x, y = map(float, recipe.name.split())
        chosen = {name: range(size) for name, size in SIZES.items()} if examples is None else examples
        assert all(list(places) == sorted(set(places)) for places in chosen.values())
        self.asked += [(recipe.name, split, name, place) for name, places in chosen.items() for place in places]
        if y > 0.85:
            return Evaluation({}, {"merge": 0.5}, "MergeError: not finite")
        ability = -9.0 if x < 0.05 else 2 - 6 * ((x - 0.7) ** 2 + (y - 0.3) ** 2)
        scores = {}
        for name, places in chosen.items():
            difficulties, directions = self._items[benchmark_of(name)]
            luck = directions @ np.array([x - 0.5, y - 0.5, 1.0])
            ahead = ability - difficulties + luck
            likely = -np.logaddexp(0, ahead if self._misleads else -ahead)
            told = (ahead > 0).astype(float) if name in SIZES else likely
            scores[name] = [float(told[place]) for place in places]
        return Evaluation(scores, {"merge": 0.5}, tokens=3)


def make(kind: str, seed: int = 1) -> Fitness:
    spec = composed(f"fitness={kind.split()[0].strip(',')}")["fitness"]
    if kind == "irt":
        spec = spec | {"calibrate": POPULATION, "first": 8, "step": 4, "most": 16}
    if kind.startswith("likelihood"):
        spec = spec | {"examples": 15, "check_every": 2, "clip": -3.0}
    if kind == LAST_STAGE:
        spec = spec | {"metric_from": 3 * POPULATION, "metric_examples": 20}
    if kind in (MISLEADS, MISLEADS_BO):
        spec = spec | {"metric_examples": 25}
    if kind == "subset":
        spec = spec | {"examples": 10}
    fitness: Fitness = hydra.utils.instantiate(spec)(sizes=SIZES, seed=seed)
    return fitness


def carry_out(
    kind: str,
    directory: Path,
    evaluate: Responses,
    seed: int = 1,
    budget: int = BUDGET,
    objective: Objective = Objective(),  # noqa: B008
) -> list[Record]:
    """A search with this kind of fitness."""
    strategy = "optimizer=bo" if kind == MISLEADS_BO else "optimizer=cmaes"
    optimizer = hydra.utils.instantiate(composed(strategy, f"optimizer.population={POPULATION}")["optimizer"])
    space: Any = Levels()
    with closing(Ledger(directory, {"kind": kind})) as ledger, scheduling(evaluate, directory) as scheduler:

        def sources() -> list[Mapping[str, Sequence[float]]]:
            names = ("0.1 0.1", "0.9 0.2")
            models: dict[str, Node] = {name: Checkpoint(name, "-") for name in names}
            return [each.scores for each in scheduler.scored(models, "search").values()]

        renewed = functools.partial(optimizer, axes=space.axes, seed=seed)
        with closing(renewed()) as first:
            scoring = Scoring(scheduler, SIZES, objective, sources)
            search(SearchParts(space, first, make(kind), scoring, ledger, budget, renewed=renewed))
        fitness = make(kind)
        best = choose(space, ledger, scheduler, 2, objective, group=groups_of(fitness))
        assert best[0].validation == max(each.validation or 0.0 for each in best)
        return list(ledger.records)


def responses(kind: str, last: int | None = None) -> Responses:
    return Responses(last, misleads=kind in (MISLEADS, MISLEADS_BO))


def true_fitness(record: Record, space: Levels) -> float:
    scores = Responses()(space.decode(np.array(record.genome)), "search").scores
    return Objective().fitness(scores)


Finished = tuple[str, Path, Responses, list[Record]]


@pytest.fixture(scope="module", params=SEARCHES)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    directory, evaluate = tmp_path_factory.mktemp("search"), responses(request.param)
    return request.param, directory, evaluate, carry_out(request.param, directory, evaluate)


def test_the_suite_has_found_the_kinds() -> None:
    assert {"full", "subset", "racing", "irt"} <= set(KINDS)


def test_no_recipe_is_scored_twice_on_an_example(finished: Finished) -> None:
    _, _, evaluate, _ = finished
    assert len(set(evaluate.asked)) == len(evaluate.asked)


def test_records_say_what_was_scored(finished: Finished) -> None:
    kind, _, evaluate, records = finished
    searched = [each for each in evaluate.asked if each[1] == "search"]
    assert sum(record.scored for record in records) == len(searched) - (2 * sum(SIZES.values()) if kind == "irt" else 0)
    assert [record.index for record in records] == list(range(BUDGET))
    again = responses(kind)
    for record in records:
        if record.fitness is None:
            assert record.error == "MergeError: not finite"
            continue
        node = Levels().decode(np.array(record.genome))
        assert record.scores == again(node, "search", record.examples).scores
        assert (record.examples is None) == (sum(map(len, record.scores.values())) == sum(SIZES.values()))
    assert any("the same recipe as" in (record.note or "") for record in records)


def test_fitness_is_that_on_all_examples_within_its_error_bar(finished: Finished) -> None:
    """By and large: root mean square of the deviation in error bars, and its mean."""
    kind, _, _, records = finished
    deviations = []
    for record in records:
        if record.fitness is None or "rejected" in (record.note or "") or BY_METRIC in (record.note or ""):
            continue
        deviation = record.fitness - true_fitness(record, Levels())
        if record.error_bar is None and record.examples is None:
            assert deviation == pytest.approx(0, abs=1e-12)
        elif record.error_bar is not None:
            assert 0 < record.error_bar < 0.3
            deviations.append(deviation / record.error_bar)
    assert bool(deviations) == (kind in ("racing", "irt"))
    if deviations:
        assert np.sqrt(np.mean(np.square(deviations))) < 2.0
        assert abs(np.mean(deviations)) < 1.2


def _with_score(means: Mapping[str, float], fitness: float, recipe: Node) -> dict[str, float]:
    return {"score": fitness, **means}


@pytest.mark.parametrize(("kind", "off_at_most"), [("full", None), ("subset", None), ("racing", 0.95), ("irt", 0.5)])
def test_objectives_are_estimates_like_the_fitness(kind: str, off_at_most: float | None, tmp_path: Path) -> None:
    """Of estimating kinds: at most `off_at_most` times as far off as raw means of the chosen examples."""
    off = []
    for seed in range(1, 6 if off_at_most else 2):
        records = carry_out(kind, tmp_path / str(seed), Responses(), seed, objective=Objective(parts=_with_score))
        again = Responses()
        for record in records:
            if record.fitness is None or "rejected" in (record.note or ""):
                continue
            assert record.objectives["score"] == record.fitness
            raw = {name: np.mean(record.scores[name]) for name in SIZES}
            if record.error_bar is None:
                assert {name: record.objectives[name] for name in SIZES} == raw
                continue
            if kind == "irt":
                assert np.mean([record.objectives[name] for name in SIZES]) == pytest.approx(record.fitness)
            whole = again(Levels().decode(np.array(record.genome)), "search").scores
            truth = {name: np.mean(whole[name]) for name in SIZES}
            off += [(record.objectives[name] - truth[name], raw[name] - truth[name]) for name in SIZES]
    assert bool(off) == (off_at_most is not None)
    if off_at_most:
        ours, raw_ones = np.sqrt(np.mean(np.square(off), axis=0))
        assert ours < off_at_most * raw_ones


def test_cheap_kinds_are_cheaper_and_find_a_good_genome(finished: Finished) -> None:
    kind, _, _, records = finished
    total = sum(record.scored for record in records)
    recipes = {record.recipe for record in records if record.fitness is not None}
    if kind != "full":
        assert total < 0.75 * len(recipes) * sum(SIZES.values())
    by_metric = [r for r in records if r.scores and not is_likelihood(r.scores)]
    last = by_metric or records  # of a search that has gone over to the metric
    best = max((r for r in last if r.fitness is not None), key=lambda r: (r.fitness or 0) - (r.error_bar or 0))
    assert true_fitness(best, Levels()) > 0.8


def test_the_same_again_asks_nothing(finished: Finished) -> None:
    kind, directory, _, records = finished
    before = {file.name: file.read_bytes() for file in directory.iterdir()}
    evaluate = responses(kind)
    assert carry_out(kind, directory, evaluate) == records
    assert evaluate.calls == 0
    assert {file.name: file.read_bytes() for file in directory.iterdir()} == before


@pytest.mark.parametrize("budgets", [(12, BUDGET), (9, 23, 41, BUDGET)])
def test_a_larger_budget_continues_as_if_it_had_been_given_at_once(
    finished: Finished, tmp_path: Path, budgets: tuple[int, ...]
) -> None:
    """Also where the smaller one ended in the middle of a generation, whose members were compared with each other."""
    kind, directory, _, records = finished
    for budget in budgets:
        found = carry_out(kind, tmp_path, responses(kind), budget=budget)
        assert len(found) == budget
    assert found == records
    ledgers = [json_lines(each / "ledger.jsonl") for each in (directory, tmp_path)]
    assert ledgers[0] == ledgers[1]


def test_killed_in_any_evaluation_it_goes_on_as_if_nothing_had_happened(finished: Finished, tmp_path: Path) -> None:
    """Each kill costs the evaluation that it hits and no other, also within a generation that is scored in rounds."""
    kind, directory, evaluate, _ = finished
    generator = np.random.default_rng(3)
    done = 0
    for _ in range(6):
        further = int(generator.integers(evaluate.calls // 12, evaluate.calls // 7))
        child = os.fork()
        if child == 0:
            try:
                carry_out(kind, tmp_path, responses(kind, last=further))
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        done += further if os.WIFSIGNALED(status) else 0
    assert done > evaluate.calls // 4
    last = responses(kind)
    carry_out(kind, tmp_path, last)
    assert last.calls == evaluate.calls - done
    for name in ("ledger.jsonl", "scores.jsonl"):
        expected, found = (json_lines(each / name) for each in (directory, tmp_path))
        assert without_seconds(found) == without_seconds(expected)


def test_a_search_by_likelihood_goes_over_to_the_metric(finished: Finished) -> None:
    """From the genome that the settings say on; where log-likelihoods mislead, after the first check, and anew."""
    kind, _, _, records = finished
    if not kind.startswith("likelihood"):
        return
    by_metric = [record for record in records if record.scores and set(record.scores) == set(SIZES)]
    too_low = [record.generation for record in records if "too low, the search begins anew" in (record.note or "")]
    assert too_low[:1] == ([2] if kind in (MISLEADS, MISLEADS_BO) else [])
    first = {LAST_STAGE: 3 * POPULATION, "likelihood": BUDGET}.get(kind) or sum(r.generation <= 2 for r in records)
    assert [record.index for record in records if record.scores and record not in by_metric][-1] < first
    assert all(record.index >= first for record in by_metric)
    assert len(by_metric) > (BUDGET - first) / 2 or kind == "likelihood"
    if too_low:
        genomes = [[record.genome for record in records[at : at + POPULATION]] for at in (0, first)]
        assert genomes[0] == genomes[1]
    means = [np.mean([np.mean(record.scores[name]) for name in SIZES]) for record in by_metric]
    fitness = [record.fitness for record in by_metric]
    assert np.argsort(means, kind="stable").tolist() == np.argsort(np.round(fitness, 9), kind="stable").tolist()


def test_rejected_genomes_are_broken_ones(finished: Finished) -> None:
    _, _, _, records = finished
    for record in records:
        if "rejected" in (record.note or ""):
            assert record.scored == 8
            assert record.fitness == 0.0
            assert true_fitness(record, Levels()) < 0.25


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_only_ask(kind: str, tmp_path: Path) -> None:
    """Driven by hand, without anything that scores, a kind judges as it does in a search."""
    records = carry_out(kind, tmp_path, Responses(), budget=POPULATION)
    space, respond = Levels(), Responses()
    genomes = np.array([record.genome for record in records])
    members = members_of(0, genomes, [{}] * POPULATION, [space.decode(x) for x in genomes])
    generation = Generation(0, members, SIZES)
    requests, judged = make(kind)(generation), []
    answer: Any = None
    while True:
        try:
            request = requests.send(answer)
        except StopIteration:
            break
        answer = None
        if isinstance(request, Wanted):
            answer = [members[place] for place, _ in request.items]
            for place, examples in request.items:
                if members[place].error is None:
                    wanted = {name: sorted(places) for name, places in examples.items()}
                    members[place].take(respond(members[place].recipe, "search", wanted), wanted)
        elif isinstance(request, Scored):
            answer = members[request.place]
        elif isinstance(request, OfSources):
            answer = [respond(Checkpoint(name, "-"), "search").scores for name in ("0.1 0.1", "0.9 0.2")]
        else:
            judged.append(generation.record(request))
    assert [each.index for each in judged] == list(range(POPULATION))
    for found, record in zip(judged, records, strict=True):
        assert (found.fitness, found.scores, found.error) == (record.fitness, record.scores, record.error)
        assert (found.error_bar, found.examples) == (record.error_bar, record.examples)
