"""What is chosen for a run: the benchmark by what the sources are for, fitness and budget by the optimizer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from evohydra.assembly.parts import chosen_sources, common_family, instantiate
from evohydra.assembly.settings import Settings
from evohydra.checks import check, checked
from evohydra.files import Plain
from evohydra.scoring.benchmarks import Benchmark, BenchmarkError
from evohydra.scoring.benchmarks.likelihood import Likely, check_likely
from evohydra.searching.optimizers import UsualBudget
from evohydra.searching.optimizers.bo import BayesianOptimization

AUTO = "auto"
LIKELIHOOD, FULL = "likelihood", "full"  # what conf/fitness/auto.yaml holds
USUAL_BUDGET = 204  # genomes


@dataclass(frozen=True)
class Choices:
    """What conf/benchmark/auto.yaml says.

    choices: by benchmark the purposes that sources must have together, in order of preference; fitting: by the name of
    a family the benchmarks that a user may choose from.
    """

    choices: Mapping[str, Sequence[str]]
    fitting: Mapping[str, Sequence[str]]


def with_benchmark(plain: Plain, given: Sequence[str] = ()) -> tuple[Plain, str | None]:
    """The configuration with one benchmark in the place of `auto`, and in a sentence which; unchanged without `auto`.

    `given` are the overrides of the command line. Raises BenchmarkError, with the benchmarks that fit, where sources do
    not say what they are for or nothing is known for what they say, and where options are given of another benchmark
    than the one that is chosen.
    """
    known = plain.get("benchmark")
    if not isinstance(known, Mapping) or not isinstance(known.get(AUTO), Mapping):
        return plain, None
    table = checked("benchmark.auto", Choices, known[AUTO])
    chosen, purposes = _chosen(plain["model"], table)
    if chosen not in known:
        raise BenchmarkError(
            f"benchmark=auto: expected the settings of {chosen!r} beside the choices that name it, got "
            f"{sorted(known)}; choose it with benchmark={chosen}"
        )
    dropped = table.choices.keys() - {chosen}
    _check_used(given, chosen, dropped)
    kept = {name: spec for name, spec in known.items() if name not in {AUTO, *dropped}}
    return {**plain, "benchmark": kept}, f"benchmark=auto: {chosen}, for sources of {', '.join(purposes)}"


def _chosen(model: Plain, table: Choices) -> tuple[str, list[str]]:
    sources = chosen_sources(model)
    silent = [name for name, source in sources.items() if not source.purpose]
    purposes = sorted({word for source in sources.values() for word in source.purpose or ()})
    fitting = [name for name, words in table.choices.items() if set(words) <= set(purposes)]
    if fitting and not silent:
        return fitting[0], purposes
    scored_as = common_family(sources).scored_as
    known = [name for family in scored_as for name in table.fitting.get(family, ())] or list(table.choices)
    if silent:
        verb, those = ("does", "it is") if len(silent) == 1 else ("do", "they are")
        key = f"model.sources.{silent[0]}.purpose=[mathematics]"
        reason = f"{', '.join(silent)} {verb} not say what {those} for ({key}, for example)"
    else:
        reason = f"none is known for sources of {', '.join(purposes)}"
    raise BenchmarkError(f"benchmark=auto: {reason}; choose one that fits with benchmark=NAME: {', '.join(known)}")


def _check_used(given: Sequence[str], chosen: str, dropped: "set[str]") -> None:
    """BenchmarkError for an option of a benchmark that is not used: it would be ignored without a word."""
    for override in given:
        key = override.lstrip("+~").partition("=")[0].split(".")
        if key[0] == "benchmark" and len(key) > 1 and key[1] in dropped:
            raise BenchmarkError(
                f"{'.'.join(key)}: benchmark=auto has chosen {chosen!r} for these sources, which has no use for it; "
                f"benchmark={key[1]} chooses that one"
            )


def with_search(
    settings: Settings, benchmarks: Mapping[str, Benchmark], given: Sequence[str] = ()
) -> tuple[Settings, str | None]:
    """The settings with a number in the place of `budget=auto` and a kind of fitness in that of `fitness=auto`.

    And what was chosen, in a sentence; None where both are given. Likelihood is for `bo`, which was measured with it,
    and for benchmarks that all have right answers; other optimizers do what they are published for. `given` are the
    overrides of the command line: ValueError for an option of another kind of fitness than the one that is chosen.
    """
    said = []
    strategy = getattr(instantiate(settings.optimizer), "func", None)
    if settings.budget == AUTO:
        budget = usual_budget(settings.optimizer)
        settings, said = replace(settings, budget=budget), [f"budget=auto: {budget} genomes"]
    if set(settings.fitness) == {LIKELIHOOD, FULL}:
        for kind, options in settings.fitness.items():
            check(f"fitness.{kind}", Mapping[str, object], options)
        searches = strategy is BayesianOptimization
        lacking = no_likelihood(benchmarks) if searches else None
        if searches and lacking is None:
            kind, reason = LIKELIHOOD, "how likely genomes find right answers; the metric chooses the winner"
        else:
            kind, reason = FULL, f"every genome on the whole search split{f' ({lacking})' if lacking else ''}"
        for override in given:
            key = override.lstrip("+~").partition("=")[0]
            if key.startswith("fitness.") and key.split(".")[1] in {LIKELIHOOD, FULL} - {kind}:
                raise ValueError(f"{key}: fitness=auto has chosen {kind} here, which has no use for it; drop it")
        settings = replace(settings, fitness=settings.fitness[kind])
        said.append(f"fitness=auto: {kind}, {reason}")
    return settings, "; ".join(said) or None


def usual_budget(optimizer: Plain) -> int:
    """The genomes that budget=auto stands for with this optimizer, a part of the configuration."""
    strategy = getattr(instantiate(optimizer), "func", None)
    return strategy.usual_budget if isinstance(strategy, UsualBudget) else USUAL_BUDGET


def no_likelihood(benchmarks: Mapping[str, Benchmark]) -> str | None:
    """Why these benchmarks should not be searched by the likelihood of right answers; None where they may be."""
    if not benchmarks:
        return "no benchmark"
    for name, benchmark in benchmarks.items():
        if isinstance(benchmark, Likely) and not benchmark.complete_references:
            if benchmark.complete_references is False:
                return f"references of {name} are only the end of what models write"
            key = f"benchmark.{name.partition('/')[0]}.complete_references"
            return f"{key} does not say whether references are all that models write"
    try:
        check_likely(benchmarks)
    except BenchmarkError as error:
        return str(error).removeprefix("fitness=likelihood: ").partition(";")[0]
    return None
