"""The limits of a run from its configuration: `guard`, a list."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from evohydra.checks import check
from evohydra.files import Plain
from evohydra.recipe import Node
from evohydra.scoring.benchmarks import SPLITS, Benchmark, BenchmarkError
from evohydra.scoring.measures import DISTANCE, MEASURES, PERPLEXITY, SCORE, TOKENS, check_measurable
from evohydra.searching.bounds import parse_bound
from evohydra.searching.guard import Guard, Limit, examples_for

KEYS = ("benchmark", "measure", "of", "text", "at_least", "at_most")
# Of plain numbers: the lowest, the highest, and what to say of others.
SHARE = (0.0, 1.0, "expected a share, from 0 to 1, such as 0.02")
RANGES = {
    **dict.fromkeys(MEASURES, SHARE),
    SCORE: (-math.inf, math.inf, ""),
    TOKENS: (0.0, math.inf, "expected a number of tokens, 0 or more"),
    DISTANCE: (0.0, math.inf, "expected a distance, 0 or more, such as 0.1"),
    PERPLEXITY: (1.0, math.inf, "a perplexity is 1 or more; expected such as 1.1 x source"),
}
USUAL = {"truncated": "source best + 0.02", "refusals": "source best + 0.02", "repetition": "source best + 0.02"}


def guarding(guard: Sequence[Plain] | None) -> frozenset[str]:
    """The benchmarks and texts that limits are set on, which do not count in the fitness."""
    named = {str(each["benchmark"]) for each in guard or () if each.get("benchmark")}
    return frozenset(named | {Path(file).name for file in files_of(guard)})


def files_of(guard: Sequence[Plain] | None) -> list[str]:
    """The files with held-out texts that limits are set on, each once."""
    given = [str(each["text"]) for each in guard or () if each.get("measure") == PERPLEXITY and each.get("text")]
    return list(dict.fromkeys(given))


def texts_of(guard: Sequence[Plain] | None, examples: int, batch_size: int | str) -> dict[str, Benchmark]:
    """The held-out texts that limits are set on, by the name of their file; BenchmarkError for what is no text.

    examples: passages of the search split, at most.
    """
    if not files_of(guard):
        return {}
    from evohydra.scoring.benchmarks.held_out import held_out_text  # loads lm-eval

    found: dict[str, Benchmark] = {}
    for file in files_of(guard):
        text = held_out_text(file, examples, batch_size)
        if text.name in found:
            raise BenchmarkError(f"guard: expected texts in files of different names, got two of {text.name!r}")
        found[text.name] = text
    return found


def by_content(guard: Sequence[Plain]) -> list[Plain]:
    """The limits as part of what a run is: a text is known by its name and its content, wherever its file is."""
    return [{**each, "text": Path(str(each["text"])).name} if each.get("text") else each for each in guard]


def counted(guard: Sequence[Plain] | None, benchmarks: Mapping[str, Benchmark]) -> dict[str, Benchmark]:
    """The benchmarks that count in the fitness; BenchmarkError where limits are set on all of them."""
    left = {name: each for name, each in benchmarks.items() if name not in guarding(guard)}
    if benchmarks and not left:
        raise BenchmarkError(
            f"guard: limits are set on every benchmark ({', '.join(benchmarks)}), and such do not count in the "
            "fitness; expected one more in benchmark=[...]"
        )
    return left


def check_limits(
    guard: Sequence[Plain] | None, benchmarks: Collection[str], sources: Sequence[str], *, paths: bool
) -> None:
    """ValueError, which names the entry, for a limit that cannot be kept to whatever benchmarks and sources hold.

    benchmarks: their names; those in a group of tasks begin with that of the group. paths: whether genomes are paths
    through layers.
    """
    for key, entry, limit in _entries(guard, sources):
        if paths and limit.measure == DISTANCE:
            raise ValueError(
                f"{key}.measure: a path through layers has other layers than the base, so that there is no distance "
                "between them; expected another measure, or a merge without dfs"
            )
        named = entry.get("benchmark") or entry.get("of")
        if named is not None and limit.measure not in (PERPLEXITY, DISTANCE):
            _check_named(key, str(named).partition("/")[0], benchmarks, str(named))


def limits_of(
    guard: Sequence[Plain] | None,
    benchmarks: Mapping[str, Benchmark],
    sources: Sequence[str],
    *,
    based: bool,
) -> list[Limit]:
    """The limits; ValueError, which names the entry, for what cannot be kept to.

    based: whether there is a base.
    """
    found = []
    for key, entry, limit in _entries(guard, sources):
        found.append(replace(limit, benchmark=_benchmark(key, entry, limit.measure, benchmarks, guard)))
        if not based and (limit.bound.reference == "base" or limit.measure == DISTANCE):
            raise ValueError(f"{key}: it refers to the base, and this run has none")
    if len({limit.text for limit in found}) < len(found):
        raise ValueError("guard: expected each limit once")
    return found


def doubts_about_examples(limits: Sequence[Limit], benchmarks: Mapping[str, Benchmark], examples: int) -> list[str]:
    """What limits on shares ask of more examples than there are, in sentences; `examples` are the most of the search.

    ValueError where a limit cannot be kept for sure whatever a model answers.
    """
    doubts = []
    for number, limit in enumerate(limits):
        key, bound, plain = f"guard[{number}]", limit.bound, limit.bound.reference is None
        if limit.benchmark is None or limit.measure in (TOKENS, PERPLEXITY) or (plain and limit.measure == SCORE):
            continue
        ideal = max(0.0, float(limit.sign))  # a share that is as good as any
        margin = limit.sign * ((ideal if plain else 0.0) - bound.offset)
        if margin < 0 or (not plain and bound.factor != 1.0):
            continue
        benchmark, needed = benchmarks[limit.benchmark], examples_for(margin)
        split = "validation" if benchmark.size("validation") else "search"
        size = benchmark.size("validation") or min(benchmark.size("search"), examples)
        if needed is not None and needed <= size:
            continue
        told = f"{size} {split} examples; " + ("no number of them suffices" if needed is None else f"it takes {needed}")
        if plain:
            raise ValueError(f"{key}: {limit.text}: whatever a model answers, that cannot be kept for sure on {told}")
        doubts.append(f"{key}: {limit.text}: a model that only answers as that one does not keep it for sure on {told}")
    return doubts


def _entries(guard: Sequence[Plain] | None, sources: Sequence[str]) -> Iterator[tuple[str, Plain, Limit]]:
    """Where each entry stands, the entry, and its limit without the benchmark.

    ValueError for the first one that makes no sense, whatever the benchmarks are.
    """
    for number, entry in enumerate(guard or ()):
        key = f"guard[{number}]"
        check(key, Mapping[str, str | int | float], entry)
        if unknown := sorted(set(entry) - set(KEYS)):
            raise ValueError(f"{key}: unknown keys {unknown}; known are {list(KEYS)}")
        if ("benchmark" in entry) == ("measure" in entry):
            raise ValueError(f"{key}: expected benchmark or measure, one of them, got {dict(entry)}")
        measure = str(entry.get("measure", SCORE))
        _check_measure(key, measure, entry)
        sides = {side: entry[side] for side in ("at_least", "at_most") if side in entry}
        if not sides and measure in USUAL:
            sides = {"at_most": USUAL[measure]}
        if len(sides) != 1:
            raise ValueError(f"{key}: expected at_least or at_most, one of them, got {dict(entry)}")
        ((side, given),) = sides.items()
        if measure == PERPLEXITY and side == "at_least":
            raise ValueError(f"{key}.at_least: of perplexity less is better; expected at_most, such as 1.1 x source")
        if measure == SCORE and side == "at_most":
            raise ValueError(
                f"{key}.at_most: of every benchmark's score more is better, also where its metric is shown with "
                "another sign; expected at_least"
            )
        bound = parse_bound(f"{key}.{side}", given, tuple(sources))
        least, most, such = RANGES[measure]
        if bound.reference is None and not least <= bound.offset <= most:
            raise ValueError(f"{key}.{side}: {such}, got {given!r}")
        yield key, entry, Limit(measure, None, 1 if side == "at_least" else -1, bound, str(given))


def _check_measure(key: str, measure: str, entry: Plain) -> None:
    """ValueError for a measure that there is not, or that is of something else than the entry says."""
    if measure not in (*MEASURES, SCORE) or ("measure" in entry and measure == SCORE):
        raise ValueError(f"{key}.measure: expected one of {', '.join(MEASURES)}, got {measure!r}")
    if measure == PERPLEXITY and (not entry.get("text") or "of" in entry):
        raise ValueError(f"{key}.text: expected a file of held-out text (.txt, .jsonl), without of; got {dict(entry)}")
    if measure != PERPLEXITY and "text" in entry:
        raise ValueError(f"{key}.text: texts are for measure: {PERPLEXITY}; got {dict(entry)}")


def _benchmark(
    key: str, entry: Plain, measure: str, benchmarks: Mapping[str, Benchmark], guard: Sequence[Plain] | None
) -> str | None:
    """The benchmark that a limit is about; None for the distance from the base."""
    if measure == PERPLEXITY:
        return Path(str(entry["text"])).name
    if measure == DISTANCE:
        return None
    count = counted(guard, benchmarks)
    name = entry.get("benchmark") or entry.get("of") or (next(iter(count)) if len(count) == 1 else None)
    if name is None:
        raise ValueError(f"{key}.of: expected a benchmark, one of {', '.join(benchmarks)}, as several count; got none")
    _check_named(key, str(name), benchmarks, str(name))
    check_measurable(measure, benchmarks[str(name)])
    return str(name)


def _check_named(key: str, name: str, benchmarks: Collection[str], given: str) -> None:
    if name not in benchmarks:
        raise ValueError(
            f"{key}: expected one of the benchmarks of this run, {', '.join(benchmarks)}, got {given!r}; add it to "
            "benchmark=[...]"
        )


def guard_of(
    limits: Sequence[Limit], benchmarks: Mapping[str, Benchmark], models: Mapping[str, Node], examples: int
) -> Guard | None:
    """What holds genomes against the limits; None without any. models: sources and base by name."""
    if not limits:
        return None
    sizes = {split: {name: each.size(split) for name, each in benchmarks.items()} for split in SPLITS}
    return Guard(limits, models, sizes, examples, validated=all(sizes["validation"].values()))


def has_validation(benchmarks: Mapping[str, Benchmark]) -> bool:
    """Whether there are validation splits; ValueError where some benchmarks have one and others not."""
    from evohydra.scoring.benchmarks.held_out import HeldOutText  # loads lm-eval

    asked = {name: each for name, each in benchmarks.items() if not isinstance(each, HeldOutText)}
    sizes = {name: benchmark.size("validation") for name, benchmark in asked.items()}
    if any(sizes.values()) and not all(sizes.values()):
        raise ValueError(f"validation examples for some benchmarks only: {sizes}; give all a validation split, or none")
    return all(sizes.values())
