"""Every genome by how likely it finds right answers to a few examples; now and then by the benchmarks' metric too."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from annotated_types import Lt

from evohydra.checks import Count, Natural
from evohydra.scoring.benchmarks.likelihood import Per, benchmark_of, likelihood_name
from evohydra.scoring.statistics import RankCorrelation, rank_correlation
from evohydra.search.fitness import Sizes
from evohydra.search.fitness.generation import Generation, Judged, Member, Requests, Scored, Wanted
from evohydra.search.fitness.order import drawn
from evohydra.search.ledger import Record
from evohydra.search.objectives import Objective

Means = dict[str, float]  # of each benchmark
Names = Mapping[str, str]  # of each benchmark: what its log-likelihoods are called
LOW = 0.5  # a rank correlation that is surely below it is too low to search by


class Likelihood:
    """The mean log-likelihood of the right answers to `examples` random examples of each benchmark, the same for all.

    per: of which part of an answer it is a mean. clip: what an example counts at least, so that those that no model
    solves do not decide; null: as it is. In every `check_every`-th generation (0: never) the members are scored by the
    benchmarks' metric on the same examples too, and the first one's note tells how well both rank all genomes that have
    both.
    """

    same_examples = False  # scores of a checked generation are those of two kinds
    comparable = True
    wants_likelihoods = True

    def __init__(
        self,
        *,
        sizes: Sizes,
        seed: int,
        examples: Count = 64,
        per: Per = "token",
        clip: Annotated[float, Lt(0)] | None = -5.0,
        check_every: Natural = 10,
    ) -> None:
        self._names = {benchmark: likelihood_name(benchmark, per) for benchmark in sizes}
        self._places = drawn(sizes, examples, seed, 0)
        self._clip, self._check_every = clip, check_every

    def __call__(self, generation: Generation) -> Requests:
        """Judge each member as soon as it is scored."""
        checked = bool(self._check_every) and generation.number % self._check_every == 0
        examples = {name: self._places[benchmark] for benchmark, name in self._names.items()}
        examples |= self._places if checked else {}
        yield Wanted([(place, examples) for place in range(len(generation.members))], wait=checked)
        note = _note(self._both(generation)) if checked else None
        for place, member in enumerate(generation.members):
            if not checked:
                yield Scored(place)
            if member.error is not None:
                yield Judged(place, note=note if place == 0 else None)
                continue
            means = self._means({name: list(values.values()) for name, values in member.scores.items()})
            fitness = _fitness(generation.objective, means)
            yield Judged(place, fitness, note=note if place == 0 else None, means=means)

    def _means(self, scores: Mapping[str, Sequence[float]]) -> Means:
        """Of each benchmark the mean log-likelihood, clipped."""
        means = {}
        for benchmark, name in self._names.items():
            values = [value if self._clip is None else max(value, self._clip) for value in scores[name]]
            means[benchmark] = sum(values) / len(values)
        return means

    def _both(self, generation: Generation) -> RankCorrelation | None:
        """Of the genomes so far that have both kinds of scores, each recipe once."""
        seen: dict[str, Mapping[str, Sequence[float]]] = {}
        genomes: list[Record | Member] = [*generation.earlier, *generation.members]
        for each in genomes:
            recipe, scores = _of(each)
            if self._names.keys() <= scores.keys() and set(self._names.values()) <= scores.keys():
                seen.setdefault(recipe, scores)
        pairs = [
            (_fitness(generation.objective, self._means(scores)), _fitness(generation.objective, self._metric(scores)))
            for scores in seen.values()
        ]
        return rank_correlation([one for one, _ in pairs], [other for _, other in pairs])

    def _metric(self, scores: Mapping[str, Sequence[float]]) -> Means:
        return {benchmark: sum(scores[benchmark]) / len(scores[benchmark]) for benchmark in self._names}


def _of(genome: Record | Member) -> tuple[str, Mapping[str, Sequence[float]]]:
    if isinstance(genome, Record):
        return genome.recipe, genome.scores
    every = genome.scores if genome.error is None else {}
    return genome.digest, {name: list(values.values()) for name, values in every.items() if values}


def _fitness(objective: Objective, means: Means) -> float:
    return objective.fitness({benchmark: [mean] for benchmark, mean in means.items()})


def agreement(records: Sequence[Record], objective: Objective) -> RankCorrelation | None:
    """How well the fitness ranks the genomes of a run that the metric has scored too; None where none or few are."""
    seen: dict[str, tuple[float, float]] = {}
    for record in records:
        metric = {name: values for name, values in record.scores.items() if benchmark_of(name) == name}
        likely = {benchmark_of(name) for name in record.scores if benchmark_of(name) != name}
        if record.fitness is not None and likely and metric.keys() == likely:
            seen.setdefault(record.recipe, (record.fitness, objective.fitness(metric)))
    return rank_correlation([one for one, _ in seen.values()], [other for _, other in seen.values()])


def _note(found: RankCorrelation | None) -> str:
    if found is None:
        return "likelihood and metric: too few different genomes to compare their ranks"
    ranks = f"{found.value:.2f} (95 % {found.low:.2f} to {found.high:.2f}) of {found.n} genomes"
    if found.high < LOW:
        return f"likelihood and metric: rank correlation {ranks}: too low to search by; choose fitness=subset or full"
    return f"likelihood and metric: rank correlation {ranks}"
