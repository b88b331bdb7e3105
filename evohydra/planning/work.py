"""What a run does, in numbers: genomes, generations, and how many examples each stage scores on how many models."""

from collections.abc import Mapping
from dataclasses import dataclass

from evohydra.run import Run
from evohydra.scoring.benchmarks import Audited
from evohydra.searching.driver import ROUNDS, groups_of
from evohydra.searching.fitness.expected import Between, Course, Expected, Foretells
from evohydra.searching.guard import Guard
from evohydra.searching.optimizers import LaterGenerations


@dataclass(frozen=True)
class Stage:
    """A part of a run: `models` are merged or loaded, `examples` scored on all of them together, by name of the score.

    A score's name is that of a benchmark (its metric) or of the likelihoods of its right answers.
    """

    name: str
    models: float
    examples: Mapping[str, Between]


@dataclass(frozen=True)
class Work:
    """All of a run; `assumed` says what its fitness does not tell."""

    course: Course
    stages: tuple[Stage, ...]
    assumed: str | None = None

    def stage(self, name: str) -> Stage:
        """The stage of this name; one without models where the run has none."""
        return next((each for each in self.stages if each.name == name), Stage(name, 0, {}))

    def of_a_job(self, score: str) -> float:
        """The mean number of examples of this score that a model is asked at once."""
        stages = [stage for stage in self.stages if score in stage.examples]
        models = sum(stage.models for stage in stages)
        return sum(stage.examples[score].likely for stage in stages) / models if models else 0.0

    def examples(self) -> dict[str, Between]:
        """Of all stages together."""
        found: dict[str, Between] = {}
        for stage in self.stages:
            for name, count in stage.examples.items():
                found[name] = found[name] + count if name in found else count
        return found


def course_of(genomes: int, first: int, later: int) -> Course:
    """The generations of a search: one of `first` genomes, then of `later`, the last one cut."""
    sizes, left = [min(first, genomes)], genomes - first
    while left > 0:
        sizes.append(min(later, left))
        left -= later
    return Course(genomes, tuple(sizes))


def work_of(run: Run) -> Work:
    """What `run` does from its beginning; nothing of it is carried out."""
    plan = run.plan
    optimizer = plan.optimizer(plan.starting_points())
    optimizer.close()
    later = optimizer.later if isinstance(optimizer, LaterGenerations) else optimizer.population
    course = course_of(plan.budget, optimizer.population, 1 if plan.steady else later)
    assumed = None
    if isinstance(plan.fitness, Foretells):
        expected = plan.fitness.expected(course)
    else:
        assumed = "this kind of fitness does not say how many examples it wants: all of them are assumed"
        expected = Expected({name: Between.known(size * course.genomes) for name, size in plan.sizes.items()})
    return Work(course, tuple(_stages(run, course, expected)), assumed)


def _stages(run: Run, course: Course, expected: Expected) -> list[Stage]:
    sizes = {
        split: {name: each.size(split) for name, each in run.benchmarks.items()}
        for split in ("search", "validation", "test")
    }
    stages = []
    if expected.questions:
        asked = len(run.models.sources) + (run.models.uniform is not None)
        stages.append(Stage("references", asked, {n: Between.known(s * asked) for n, s in expected.questions.items()}))
    if expected.sources:
        models = len(run.models.sources)
        stages.append(Stage("sources", models, _whole(sizes["search"], models)))
    wanted = {name: count for name, count in {**expected.metric, **expected.likelihood}.items() if count.high > 0}
    stages.append(Stage("search", course.genomes, wanted))
    if run.plan.validated:
        groups = 1 if groups_of(run.plan.fitness) is None or run.plan.fitness.comparable else len(course.generations)
        candidates = min(run.plan.top * groups, course.genomes)
        stages.append(Stage("validation", candidates, _whole(sizes["validation"], candidates)))
    tested = len(run.models.all()) + 1
    scored = tested + sum(len(masks) - 1 for masks in run.models.masks.values())
    stages.append(Stage("test", scored, _whole(sizes["test"], scored)))
    if run.plan.ablate:
        stages.append(
            Stage("ablations", len(run.plan.space.names), _whole(sizes["validation"], len(run.plan.space.names)))
        )
    if run.guard is not None and run.guard.limits:
        stages.append(_limits(run.guard, course.genomes, min(run.plan.top, course.genomes), tested))
    if found := _audited(run, tested):
        stages.append(Stage("audit", tested + 2, found))
    return stages


def _limits(guard: Guard, genomes: int, candidates: int, tested: int) -> Stage:
    """What limits are measured on: of each genome, of candidates on validation, and of all on test.

    By the name of the first number that is measured on a benchmark: it is asked once for all.
    """
    names = {limit.benchmark: limit.name for limit in reversed(guard.limits) if limit.benchmark is not None}
    rounds = Between(1, 1, ROUNDS).times(candidates if guard.validated else 0)
    examples = {
        names[name]: Between.known(genomes * min(guard.sizes["search"][name], guard.examples))
        + rounds.times(guard.sizes["validation"][name])
        + Between.known(tested * guard.sizes["test"][name])
        for name in sorted(names)
    }
    return Stage("limits", genomes + candidates + tested, examples)


def _audited(run: Run, tested: int) -> dict[str, Between]:
    """The answers that the audit asks for: as before, read anew, in other words, and at twice the limit."""
    parts, found = set(run.audit.parts), {}
    for name, benchmark in run.benchmarks.items():
        if not isinstance(benchmark, Audited) or benchmark.lacks("none"):
            continue
        size = benchmark.size("test")
        asked = min(run.audit.examples, size)
        kept = size if run.audit.answers is None else min(run.audit.answers, size)
        once = 2 * asked * bool(parts & {"length", "errors", "reload"}) + kept * tested
        again = asked * ("reload" in parts) + 2 * asked * ("wording" in parts and not benchmark.lacks("wording"))
        longer = 2 * asked * ("length" in parts and not benchmark.lacks("length"))  # where answers reach the limit
        found[name] = Between(once + again, once + again, once + again + 2 * longer)
    return found


def _whole(sizes: Mapping[str, int], models: int) -> dict[str, Between]:
    return {name: Between.known(size * models) for name, size in sizes.items()}
