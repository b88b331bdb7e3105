"""Fitness from a few examples that tell most, by item response theory on the run's own scores."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le

from evohydra.checks import Count
from evohydra.scoring.job import Scores
from evohydra.searching.fitness import Sizes
from evohydra.searching.fitness.calibration import Adaptive, Questions, Random, calibrated
from evohydra.searching.fitness.estimators import Estimator
from evohydra.searching.fitness.expected import Between, Course, Expected
from evohydra.searching.fitness.generation import Generation, Judged, Member, OfSources, Requests, Wanted
from evohydra.searching.fitness.order import check, interleaved, say_where_fewer, shuffled, weight_of
from evohydra.searching.fitness.rejection import rejection
from evohydra.searching.fitness.response_model import Array
from evohydra.searching.ledger import Record

logger = logging.getLogger(__name__)
ROWS = 200  # genomes, the latest ones, that the response model is fitted on


class ItemResponse:
    """Scores each genome on `first` random examples of each benchmark, then `step` more at a time that tell most of it.

    It ends where the error bar is `precision` or less, or at `most` examples of each benchmark. The examples of a
    generation come from a random `pool`, a share of the search split, lest the search learns telling examples by heart.

    Examples are calibrated by the scores of all sources, of the first `calibrate` genomes (these are scored on the
    whole search split), and of the latest genomes on what they were scored on. Where the response model expects
    held-out scores no better than the genomes' own means do, the generation gets random examples instead, and fitness
    is their mean; the records say so. Where there are several objectives, they are made of the estimated mean of each
    benchmark, as the fitness is: raw means of chosen examples are no estimates. `estimator` is one of
    `evohydra.searching.fitness.estimators`.

    In an asynchronous search pools and calibration change with each population of asks: they follow from what was told
    when its first genome was asked.
    """

    same_examples, comparable = False, True

    def __init__(
        self,
        *,
        sizes: Sizes,
        seed: int,
        calibrate: Annotated[int, Ge(2)],
        first: Count,
        step: Count,
        most: Count,
        precision: Annotated[float, Ge(0)],
        pool: Annotated[float, Gt(0), Le(1)],
        dimensions: Count,
        estimator: Estimator,
        reject: Mapping[str, object] | None = None,
    ) -> None:
        check(most >= first, "most", "as many as fitness.first or more", most)
        say_where_fewer(sizes, "first", first)
        self._sizes, self._seed, self._calibrate = sizes, seed, calibrate
        self._first, self._step, self._most, self._precision, self._pool = first, step, most, precision, pool
        self._dimensions, self._estimator = dimensions, estimator
        self._reject = rejection(reject)
        self._calibrated: tuple[tuple[int, int], tuple[dict[str, Questions], str | None]] | None = None

    def expected(self, course: Course) -> Expected:
        """The first genomes on all examples, the others on some of them; all sources on all."""
        first = min(self._calibrate, course.genomes)
        metric = {}
        for name, size in self._sizes.items():
            least, most = min(self._first, size), min(self._most, size)
            others = Between(least, (least + most) / 2, most).times(course.genomes - first)
            metric[name] = others + Between.known(first * size)
        return Expected(metric, sources=True)

    def __call__(self, generation: Generation) -> Requests:
        """Have the members scored in steps, and judge them at the end."""
        pools = self._pools(generation.number)
        questions, note = self._questions(generation, pools, (yield OfSources()))
        rejected = (yield from self._reject(generation, interleaved(pools))) if self._reject else {}
        asked = {
            place: _Asked(member, questions)
            for place, member in enumerate(generation.members)
            if place not in rejected and member.index >= self._calibrate
        }
        wanted = {place: each.further(self._first) for place, each in asked.items()}
        whole = [place for place in range(len(generation.members)) if place not in rejected and place not in asked]
        for member in (yield Wanted([(place, generation.everything()) for place in whole])):
            _check_scores(member)
        weights = weight_of(generation.objective, self._sizes)
        while wanted:
            for member in (yield Wanted(list(wanted.items()))):
                _check_scores(member)
            for place, examples in wanted.items():
                asked[place].add(examples)
            open_ = [
                place
                for place in wanted
                if generation.members[place].error is None and asked[place].error(weights) > self._precision
            ]
            further = {place: asked[place].further(self._step, self._most) for place in open_}
            wanted = {place: examples for place, examples in further.items() if any(examples.values())}
        for place, member in enumerate(generation.members):
            if place in rejected or place in whole or member.error is not None:
                yield Judged(place, note=rejected.get(place))
                continue
            means = {name: value for name, (value, _) in asked[place].estimates().items()}
            fitness = generation.objective.fitness({name: [value] for name, value in means.items()})
            yield Judged(place, fitness, asked[place].error(weights), note, means)

    def _pools(self, generation: int) -> dict[str, list[int]]:
        """The examples of each benchmark that a generation's genomes may be asked, in random order."""
        pools: dict[str, list[int]] = {name: [] for name in self._sizes}
        for name, place in shuffled(self._sizes, self._seed, generation):
            if len(pools[name]) < max(self._most, self._pool * self._sizes[name]):
                pools[name].append(place)
        return pools

    def _questions(
        self, generation: Generation, pools: Mapping[str, Sequence[int]], sources: Sequence[Scores]
    ) -> tuple[dict[str, Questions], str | None]:
        """How the genomes of a generation are asked, and what is to be noted about that.

        Of single genomes it is remembered as long as it stays the same: it follows from what is on file.
        """
        if not generation.single:
            return self._questions_after(generation.number, generation.earlier, pools, sources)
        key = generation.number, generation.settled
        if self._calibrated is None or self._calibrated[0] != key:
            earlier = generation.earlier[: generation.settled]
            self._calibrated = key, self._questions_after(generation.number, earlier, pools, sources)
        return self._calibrated[1]

    def _questions_after(
        self,
        number: int,
        earlier: Sequence[Record],
        pools: Mapping[str, Sequence[int]],
        sources: Sequence[Scores],
    ) -> tuple[dict[str, Questions], str | None]:
        questions: dict[str, Questions] = {}
        notes = []
        for name, size in self._sizes.items():
            questions[name] = Random(pools[name], size)
            rows = _rows(name, size, sources, earlier)
            if number == 0:
                continue
            seed = [self._seed, number]
            known, told = calibrated(rows, len(sources), self._dimensions, seed)
            logger.info("generation %d, %s: %s", number, name, told)
            if known is None:
                notes.append(f"random examples of {name}: {told}")
            else:
                questions[name] = Adaptive(known, self._estimator, pools[name], self._first)
        return questions, "; ".join(notes) or None


class _Asked:
    """What a member was asked of each benchmark, in order."""

    def __init__(self, member: Member, questions: Mapping[str, Questions]) -> None:
        self.member, self._questions = member, questions
        self._places: dict[str, list[int]] = {name: [] for name in questions}

    def add(self, examples: Mapping[str, Sequence[int]]) -> None:
        """It was scored on these."""
        for name, places in examples.items():
            self._places[name] += places

    def _scores(self, name: str) -> Array:
        return np.array([self.member.scores[name][place] for place in self._places[name]])

    def further(self, count: int, most: int | None = None) -> dict[str, list[int]]:
        """Up to `count` more examples of each benchmark, no more than `most` in all."""
        wanted = {}
        for name, questions in self._questions.items():
            places = self._places[name]
            left = count if most is None else min(count, most - len(places))
            wanted[name] = questions.further(places, self._scores(name), left) if left > 0 else []
        return wanted

    def estimates(self) -> dict[str, tuple[float, float]]:
        """The mean over all examples of each benchmark, and its standard error."""
        return {name: each.estimate(self._places[name], self._scores(name)) for name, each in self._questions.items()}

    def error(self, weights: Mapping[str, float]) -> float:
        """The standard error of the fitness."""
        return math.sqrt(sum((weights[name] * error) ** 2 for name, (_, error) in self.estimates().items()))


def _rows(name: str, size: int, sources: Sequence[Scores], records: Sequence[Record]) -> Array:
    """(models, examples) scores on benchmark `name`, NaN where there is none; the sources come first."""
    scored = [record for record in records if record.scores.get(name)][-ROWS:]
    rows = np.full((len(sources) + len(scored), size), np.nan)
    for row, scores in enumerate(sources):
        rows[row] = scores[name]
    for row, record in enumerate(scored, len(sources)):
        rows[row, slice(None) if record.examples is None else list(record.examples[name])] = record.scores[name]
    return rows


def _check_scores(member: Member) -> None:
    for name, scores in member.scores.items():
        bad = [value for value in scores.values() if not 0 <= value <= 1 and math.isfinite(value)]
        if bad:
            raise ValueError(
                f"fitness=irt: expected scores between 0 and 1, but benchmark {name!r} gave {bad[0]}; choose another "
                "fitness: racing (with fitness.bounds), subset or full"
            )
