"""Every genome by how likely it finds right answers to a few examples; now and then by the benchmarks' metric too."""

import copy
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from annotated_types import Lt

from evohydra.checks import Count, Natural
from evohydra.scoring.benchmarks.likelihood import Per, Scale, benchmark_of, likelihood_name
from evohydra.scoring.job import Examples, Verified
from evohydra.scoring.statistics import RankCorrelation, rank_correlation
from evohydra.searching.fitness import Fitness, Sizes
from evohydra.searching.fitness.expected import Between, Course, Expected
from evohydra.searching.fitness.full import Full
from evohydra.searching.fitness.generation import Generation, Judged, Member, Requests, Scored, Wanted
from evohydra.searching.fitness.likelihood_scale import Both, Means, is_likelihood, ranks, scale_of, too_low
from evohydra.searching.fitness.order import check, drawn, say_where_fewer
from evohydra.searching.fitness.seen import Seen
from evohydra.searching.fitness.subset import Subset
from evohydra.searching.ledger import Record
from evohydra.searching.objectives import Objective
from evohydra.searching.references import LEAST, References

Scores = Mapping[str, Sequence[float]]
TWICE = 2  # questions for each example, so that enough are left where models solve half of them


class Likelihood:
    """The mean likelihood of the right answers to `examples` random examples of each benchmark, the same for all.

    per: of which part of an answer it is a mean. scale: whether it is a logarithm or a probability. clip: what an
    example counts at least, so that those that no model solves do not decide; null: as it is. In every `check_every`-th
    generation (0: never) the members are scored by the benchmarks' metric on the same examples too, and the note of the
    first one that is not a copy tells how well both rank all genomes that have both.

    Where their rank correlation is surely too low, and from the genome `metric_from` on (null: never), genomes are
    scored by the metric alone, on `metric_examples` random examples of each benchmark (null: all). Their fitness is the
    metric on the scale of log-likelihoods, which comes from the genomes that have both.

    references: the right answers are those of the task, or verified ones: before the search models answer `questions`
    random examples of each benchmark (null: twice as many as `examples`), and what the benchmark judges right are the
    references (`with_references`). The examples are then random ones of those that a model has solved.
    """

    same_examples = False  # scores of a checked generation are those of two kinds
    same_of_each_kind = True
    comparable = True
    wants_likelihoods = True

    def __init__(
        self,
        *,
        sizes: Sizes,
        seed: int,
        examples: Count = 64,
        per: Per = "token",
        scale: Scale = "log",
        clip: Annotated[float, Lt(0)] | None = -5.0,
        check_every: Natural = 10,
        metric_from: Count | None = None,
        metric_examples: Count | None = None,
        references: Literal["task", "verified"] = "task",
        questions: Count | None = None,
    ) -> None:
        check(
            metric_from is None or check_every > 0,
            "metric_from",
            "null where check_every is 0, since no genome has both kinds of scores then",
            metric_from,
        )
        check(
            questions is None or references == "verified", "questions", f"null with references={references}", questions
        )
        check(questions is None or questions >= examples, "questions", f"{examples} (examples) or more", questions)
        say_where_fewer(sizes, "examples", examples)
        say_where_fewer(sizes, "questions", questions or 0)
        say_where_fewer(sizes, "metric_examples", metric_examples or 0)
        self._names = {benchmark: likelihood_name(benchmark, per, scale) for benchmark in sizes}
        self._places = drawn(sizes, examples, seed, 0)
        self.questions: Examples | None = None
        if references == "verified":
            self.questions = drawn(sizes, questions or TWICE * examples, seed, 0)
        self._sizes, self._seed, self._examples = sizes, seed, examples
        self._per, self._scale, self._metric_examples = per, scale, metric_examples
        self._by_metric = drawn(sizes, max(sizes.values()) if metric_examples is None else metric_examples, seed, 1)
        self._clip, self._check_every, self._metric_from = clip, check_every, metric_from
        self._seen = Seen(self._both_of)

    def with_references(self, found: References) -> tuple[Fitness, Verified]:
        """The kind that goes by these right answers, and these by the names of their likelihoods.

        By the metric, with no names, where fewer than LEAST examples of a benchmark are solved (or than are asked for).
        """
        solved = {name: list(texts) for name, texts in found.texts.items()}
        if any(len(solved[name]) < min(LEAST, self._examples, size) for name, size in self._sizes.items()):
            if self._metric_examples is None:
                return Full(sizes=self._sizes, seed=self._seed), {}
            return Subset(sizes=self._sizes, seed=self._seed, examples=self._metric_examples, fresh=False), {}
        digests = found.digests()
        made = copy.copy(self)
        made.questions = None
        made._seen = Seen(made._both_of)
        made._names = {name: likelihood_name(name, self._per, self._scale, digests[name]) for name in self._sizes}
        chosen = drawn({name: len(places) for name, places in solved.items()}, self._examples, self._seed, 0)
        made._places = {name: [solved[name][at] for at in chosen[name]] for name in self._sizes}
        texts = {
            likely: {at: found.texts[name][at] for at in made._places[name]} for name, likely in made._names.items()
        }
        return made, texts

    def expected(self, course: Course) -> Expected:
        """Every genome by likelihood, those of checked generations by the metric too; at worst all by the metric."""
        by_metric = max(course.genomes - self._metric_from, 0) if self._metric_from is not None else 0
        every = self._check_every
        checks = [each for number, each in enumerate(course.generations) if every and number % every == 0]
        checked = min(sum(checks), course.genomes - by_metric)
        metric, likelihood = {}, {}
        for name, places in self._places.items():
            whole = len(self._by_metric[name])
            surely = checked * len(places) + by_metric * whole
            metric[name] = Between(surely, surely, max(surely, course.genomes * whole) if every else surely)
            likelihood[self._names[name]] = Between.known((course.genomes - by_metric) * len(places))
        questions = {name: len(places) for name, places in (self.questions or {}).items()}
        return Expected(metric, likelihood, questions)

    def __call__(self, generation: Generation) -> Requests:
        """Judge each member as soon as it is scored; verified references come before (`with_references`)."""
        if self.questions is not None:
            raise ValueError("fitness.references=verified: expected the references before the first generation")
        both = list(self._seen.both(generation.earlier).values())
        if self._goes_by_metric(both, generation.earlier, generation.objective):
            return self._judged_by_metric(generation, both)
        return self._judged_by_likelihood(generation)

    def _goes_by_metric(self, both: Sequence[Both], earlier: Sequence[Record], objective: Objective) -> bool:
        late = self._metric_from is not None and len(earlier) >= self._metric_from
        return bool(both) and (too_low(ranks(both, objective)) or late)

    def ahead(self, number: int, earlier: Sequence[Record], objective: Objective) -> Examples | None:
        """The examples of likelihoods, or of the metric, as they are wanted of a generation."""
        if self.questions is not None:
            return None
        by_metric = self._goes_by_metric(list(self._seen.both(earlier).values()), earlier, objective)
        return self._by_metric if by_metric else self._wanted(number)

    def _wanted(self, number: int) -> Examples:
        """Of a generation that goes by likelihoods; of each `check_every`-th one the metric's examples, too."""
        examples = {name: self._places[benchmark] for benchmark, name in self._names.items()}
        return {**examples, **(self._places if self._checked(number) else {})}

    def _checked(self, number: int) -> bool:
        return bool(self._check_every) and number % self._check_every == 0

    def starts_anew(self, earlier: Sequence[Record], objective: Objective) -> bool:
        """Whether what the search learnt from these genomes is worth nothing: log-likelihoods rank them too badly.

        True for the first generation by the metric only.
        """
        both = list(self._seen.both(earlier).values())
        return not self._seen.by_metric(earlier) and too_low(ranks(both, objective))

    def group(self, record: Record) -> int:
        """Which genomes the `top` best of are validated: those by the metric (0), those by log-likelihoods (1)."""
        return int(is_likelihood(record.scores))

    def _judged_by_likelihood(self, generation: Generation) -> Requests:
        checked, examples = self._checked(generation.number), self._wanted(generation.number)
        yield Wanted([(place, examples) for place in range(len(generation.members))], wait=checked)
        notes = {}
        if checked:
            both = self._seen.both(generation.earlier)
            for member in generation.members:
                if (known := self._both_of(_scores(member))) is not None:
                    both.setdefault(member.digest, known)
            found = ranks(list(both.values()), generation.objective)
            # a line of the ledger that copies another one says that, and nothing else
            notes = {next((place for place, each in enumerate(generation.members) if each.scored), 0): _note(found)}
        for place, member in enumerate(generation.members):
            if not checked:
                yield Scored(place)
            if member.error is not None:
                yield Judged(place, note=notes.get(place))
                continue
            means = self._means(_scores(member))
            yield Judged(place, _fitness(generation.objective, means), note=notes.get(place), means=means)

    def _judged_by_metric(self, generation: Generation, both: Sequence[Both]) -> Requests:
        scale = scale_of(both, generation.objective)
        yield Wanted([(place, self._by_metric) for place in range(len(generation.members))], wait=False)
        for place, member in enumerate(generation.members):
            yield Scored(place)
            if member.error is not None:
                yield Judged(place, note=BY_METRIC)
                continue
            means = scale(_metric(_scores(member)))
            yield Judged(place, _fitness(generation.objective, means), note=BY_METRIC, means=means)

    def _means(self, scores: Scores) -> Means:
        """Of each benchmark the mean log-likelihood, clipped."""
        means = {}
        for benchmark, name in self._names.items():
            values = [value if self._clip is None else max(value, self._clip) for value in scores[name]]
            means[benchmark] = sum(values) / len(values)
        return means

    def _both_of(self, scores: Scores) -> Both | None:
        """What is known of a genome with these scores, None where it has not both kinds."""
        if not {*self._names, *self._names.values()} <= scores.keys():
            return None
        return Both(self._means(scores), _metric({name: scores[name] for name in self._names}))


BY_METRIC = "by the metric, on the scale of log-likelihoods"


def _scores(member: Member) -> Scores:
    """None where it has failed."""
    every = member.scores if member.error is None else {}
    return {name: list(values.values()) for name, values in every.items() if values}


def _metric(scores: Scores) -> Means:
    return {name: sum(values) / len(values) for name, values in scores.items()}


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
    told = f"{found.value:.2f} (95 % {found.low:.2f} to {found.high:.2f}) of {found.n} genomes"
    if too_low(found):
        return f"likelihood and metric: rank correlation {told}: too low, the search begins anew by the metric"
    return f"likelihood and metric: rank correlation {told}"
