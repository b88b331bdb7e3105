"""Generations: nothing is scored twice, broken genomes stop early, and each scoring is on file."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evohydra.recipe import Checkpoint, Node
from evohydra.scoring.benchmarks import Split, TellsAnswers
from evohydra.scoring.benchmarks.lm_eval_benchmark import LMEvalBenchmark
from evohydra.scoring.job import Evaluation, Examples, broken_by
from evohydra.searching.fitness.full import Full
from evohydra.searching.fitness.generation import Generation, Member, Requests, Scored, Wanted, members_of
from evohydra.searching.fitness.rejection import Rejection, rejection
from evohydra.searching.ledger import Ledger, Record
from evohydra.searching.rounds import Rounds, Scoring
from evohydra.searching.scheduler import Scheduler
from tests.scripted import scheduling

SIZES = {"sums": 6, "words": 4}


class Scripted:
    """Scores a checkpoint by the number in its name: its share of the examples of each benchmark, the first ones."""

    def __init__(self, broken: Mapping[str, str] | None = None) -> None:
        self.asked: list[tuple[str, int]] = []
        self._broken = broken or {}

    def __call__(self, recipe: Node, split: Split, examples: Examples | None = None) -> Evaluation:
        assert isinstance(recipe, Checkpoint)
        chosen = {name: range(size) for name, size in SIZES.items()} if examples is None else examples
        self.asked.append((recipe.name, sum(len(places) for places in chosen.values())))
        if recipe.name == "bad":
            return Evaluation({}, {"merge": 1.0}, "MergeError: not finite")
        share = float(recipe.name)
        scores = {name: [float(place < share * SIZES[name]) for place in places] for name, places in chosen.items()}
        return Evaluation(scores, {"merge": 1.0}, tokens=7, broken=self._broken.get(recipe.name))


def generation(ledger: Ledger, names: Sequence[str]) -> Generation:
    first = len(ledger.records)
    genomes = np.array([[(first + place) / 100] for place in range(len(names))])
    members = members_of(first, genomes, [{}] * len(names), [Checkpoint(name, "-") for name in names])
    number = ledger.records[-1].generation + 1 if ledger.records else 0
    return Generation(number, members, SIZES, earlier=tuple(ledger.records))


def scored(rounds: Rounds, *wanted: Sequence[tuple[int, Examples]]) -> list[list[Member]]:
    """The members of each round, as a kind of fitness that wants these receives them."""
    received = []

    def requests() -> Requests:
        for items in wanted:
            received.append((yield Wanted(items)))

    assert list(rounds.judged(requests())) == []
    return received


def iter_of(request: Any) -> Requests:
    yield request


def judged(
    ledger: Ledger, names: Sequence[str], scheduler: Scheduler, reject: Mapping[str, float] | None = None
) -> list[Record]:
    this = generation(ledger, names)
    rounds = Rounds(this, Scoring(scheduler, SIZES), ledger)
    records = []
    for each in rounds.judged(Full(sizes=SIZES, seed=0, reject=reject)(this)):
        records.append(this.record(each))
        ledger.add(records[-1])
    return records


@contextmanager
def opened(directory: Path, evaluate: Scripted) -> Iterator[tuple[Ledger, Scheduler]]:
    with closing(Ledger(directory, {})) as ledger, scheduling(evaluate, directory) as scheduler:
        yield ledger, scheduler


def test_a_recipe_is_scored_once_whatever_the_generation(tmp_path: Path) -> None:
    evaluate = Scripted()
    with opened(tmp_path, evaluate) as (ledger, scheduler):
        first = judged(ledger, ["0.5", "bad", "0.5", "1", "bad"], scheduler)
        second = judged(ledger, ["1", "bad", "0"], scheduler)
    assert evaluate.asked == [("0.5", 10), ("bad", 10), ("1", 10), ("0", 10)]
    assert [record.fitness for record in first] == [0.5, None, 0.5, 1.0, None]
    assert [record.fitness for record in second] == [1.0, None, 0.0]
    assert [record.note for record in (*first, *second)] == [
        None, None, "the same recipe as genome 0", None, "the same recipe as genome 1",
        "the same recipe as genome 3", "the same recipe as genome 1", None,
    ]  # fmt: skip
    assert [record.scored for record in (*first, *second)] == [10, 10, 0, 10, 0, 0, 0, 10]
    assert first[4].error == second[1].error == first[1].error == "MergeError: not finite"
    assert set(first[2].seconds.values()) == {0.0}
    assert (first[2].tokens, first[2].scores) == (0, first[0].scores)


def test_examples_are_added_and_none_twice(tmp_path: Path) -> None:
    evaluate, again = Scripted(), Scripted()
    with opened(tmp_path, evaluate) as (ledger, scheduler):
        this = generation(ledger, ["0.5", "1", "0.5"])
        rounds = Rounds(this, Scoring(scheduler, SIZES), ledger)
        scored(rounds, [(0, {"sums": [0, 1], "words": [3]}), (2, {"sums": [1, 4]})])
        assert evaluate.asked == [("0.5", 3), ("0.5", 1)]
        assert this.members[0].scores == {"sums": {0: 1.0, 1: 1.0}, "words": {3: 0.0}}
        assert this.members[2].scores == {"sums": {1: 1.0, 4: 0.0}}
        (received,) = scored(rounds, [(0, this.everything()), (2, this.everything())])
        assert [member.index for member in received] == [0, 2]
        assert evaluate.asked[2:] == [("0.5", 6)]
        assert this.members[0].scored + this.members[2].scored == 10
        assert this.members[2].scores == this.members[0].scores
    # The same again finds every scoring on file.
    with opened(tmp_path, again) as (ledger, scheduler):
        replayed = generation(ledger, ["0.5", "1", "0.5"])
        rounds = Rounds(replayed, Scoring(scheduler, SIZES), ledger)
        scored(rounds, [(0, {"sums": [0, 1], "words": [3]}), (2, {"sums": [1, 4]})], [(0, this.everything())])
        assert again.asked == []
        assert replayed.members[0] == this.members[0]


def test_a_genome_is_judged_before_the_next_one_is_scored(tmp_path: Path) -> None:
    evaluate = Scripted()
    with opened(tmp_path, evaluate) as (ledger, scheduler):
        this = generation(ledger, ["0.5", "1", "0"])
        judgements = Rounds(this, Scoring(scheduler, SIZES), ledger).judged(Full(sizes=SIZES, seed=0)(this))
        for count, each in enumerate(judgements, 1):
            assert each.place == count - 1
            assert len(evaluate.asked) == count
    assert len(evaluate.asked) == 3


def test_a_kind_that_yields_something_else_is_told_so(tmp_path: Path) -> None:
    with opened(tmp_path, Scripted()) as (ledger, scheduler):
        rounds = Rounds(generation(ledger, ["1"]), Scoring(scheduler, SIZES), ledger)
        with pytest.raises(TypeError, match="yields requests and judgements, got 3"):
            next(rounds.judged(iter_of(3)))
        with pytest.raises(ValueError, match="no scores were wanted for the member at place 0"):
            next(rounds.judged(iter_of(Scored(0))))


def test_broken_genomes_stop_after_a_few_examples(tmp_path: Path) -> None:
    with opened(tmp_path, Scripted(broken={"0": "all answers are empty"})) as (ledger, scheduler):
        records = judged(ledger, ["1", "0", "0.6", "bad", "0.001"], scheduler, {"after": 5, "risk": 0.2})
    assert [record.scored for record in records] == [10, 5, 10, 5, 10]
    assert records[1].note == "rejected after 5 examples: all answers are empty"
    assert records[1].fitness == 0.0
    assert records[1].examples is not None
    assert sum(map(len, records[1].examples.values())) == 5
    assert records[3].error == "MergeError: not finite"


def test_an_average_genome_is_rejected_with_the_stated_risk(tmp_path: Path) -> None:
    """What all others solve and one does not is telling; what few solve is not."""
    order = [(name, place) for name, size in SIZES.items() for place in range(size)]
    for others, expected in (("0.7", {3}), ("0.001", set())):
        with opened(tmp_path / others, Scripted()) as (ledger, scheduler):
            this = generation(ledger, [others, others + "0", others + "00", "0", "bad"])
            found = {}

            def requests(this: Generation = this, found: dict[int, str] = found) -> Requests:
                found |= yield from Rejection(after=4, risk=0.01)(this, order)

            assert list(Rounds(this, Scoring(scheduler, SIZES), ledger).judged(requests())) == []
            assert set(found) == expected


@pytest.mark.parametrize(("key", "value"), [("after", 0), ("risk", 0.0), ("risk", 1.0)])
def test_a_rejection_that_makes_no_sense(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"fitness\.reject\.{key}: expected a .*, got {value}"):
        rejection({key: value})


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["", " ", "\n"], "all answers are empty"),
        (["a", "a "], "all answers are the same"),
        (["a", "b"], None),
        (["a"], None),
        ([(-1.0, True), (-1.0, True)], None),
        ([], None),
    ],
)
def test_answers_that_only_a_broken_model_gives(answers: list[object], expected: str | None) -> None:
    benchmark = LMEvalBenchmark.__new__(LMEvalBenchmark)
    benchmark._answers = answers
    assert isinstance(benchmark, TellsAnswers)
    assert broken_by({"sums": benchmark.common_answer()}) == expected
