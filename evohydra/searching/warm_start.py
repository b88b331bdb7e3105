"""Warm starts: the best genomes of an earlier run as starting points of another one."""

import hashlib
import itertools
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evohydra.files import Plain, read_json
from evohydra.searching.fitness.likelihood_scale import is_likelihood
from evohydra.searching.lines_on_file import LinesOnFile
from evohydra.searching.optimizers import Points
from evohydra.searching.optimizers.gaussian.transfer import Earlier
from evohydra.spaces import Space

logger = logging.getLogger(__name__)


def best_genomes(directory: Path, space: Space, top: int) -> Points:
    """The `top` different recipes of the run in `directory` by fitness on its search split, (k, dim).

    Of a run that searched by log-likelihoods, genomes that the metric alone has scored come first.
    Raises ValueError where there is no such run, where a line was changed, or where its genes are not those of `space`,
    by name and by value.
    """
    ledger = directory / "ledger.jsonl"
    if not ledger.is_file():
        raise ValueError(f"warm_start: expected the directory of a run, got {directory}, which has no ledger.jsonl")
    known, lines = _scored(ledger)
    best: dict[str, int] = {}
    for each in sorted(known, key=lambda each: (each.likely, -each.fitness, each.number)):
        best.setdefault(each.recipe, each.line)
    if not best:
        raise ValueError(f"warm_start: {ledger} has no genome with a score")
    chosen = [lines[at] for at in itertools.islice(best.values(), top)]
    for record in chosen:
        _check(record, space, ledger)
    return np.array([record["genome"] for record in chosen], dtype=np.float64)


def earlier_genomes(directory: Path, space: Space) -> Earlier:
    """All different recipes of the run in `directory` with their fitness; ValueError as by `best_genomes`.

    Where a run has scored some by likelihood and others by the metric, those of which there are more.
    """
    known, lines = _scored(directory / "ledger.jsonl")
    kinds = [[each for each in known if each.likely == likely] for likely in (True, False)]
    different = {each.recipe: each for each in max(kinds, key=len)}.values()
    genomes = []
    for each in different:
        line = lines[each.line]
        _check(line, space, directory / "ledger.jsonl")
        genomes.append(np.array(line["genome"], dtype=np.float64))
    return Earlier(np.array(genomes), np.array([each.fitness for each in different], dtype=np.float64))


class _Scored(NamedTuple):
    """What is kept of a genome that was scored; `line` is its place in the ledger, where the rest is."""

    likely: bool
    fitness: float
    number: int
    recipe: str
    line: int


def _scored(ledger: Path) -> tuple[list[_Scored], LinesOnFile]:
    """The genomes of a ledger that have a fitness, and all its lines."""
    known: list[_Scored | None] = []

    def look(line: Plain) -> None:
        scored = line["fitness"] is not None
        likely = scored and is_likelihood(line["scores"])
        known.append(_Scored(likely, line["fitness"], line["index"], line["recipe"], len(known)) if scored else None)

    lines = LinesOnFile(ledger, look)
    return [each for each in known if each is not None], lines


def _check(record: Plain, space: Space, ledger: Path) -> None:
    """ValueError unless the genome means the same in `space` as it did in the earlier run."""
    was, genome = record["genes"], np.array(record["genome"], dtype=np.float64)
    what = f"warm_start: {ledger} has other genes than this run, which needs the same model, merge and granularity"
    if len(genome) != len(space.names):
        missing, new = sorted(set(was) - set(space.names)), sorted(set(space.names) - set(was))
        raise ValueError(
            f"{what}: expected {len(space.names)} coordinates, got {len(genome)}; there, but not here: {missing[:3]}; "
            f"here, but not there: {new[:3]}"
        )
    here = space.values(genome)
    for name in sorted(was.keys() | here.keys()):
        if not _same(was.get(name), here.get(name)):
            raise ValueError(
                f"{what}, and the same ranges: {name} was {was.get(name)!r} there, and would be {here.get(name)!r} here"
            )


def _same(one: Any, other: Any) -> bool:
    numbers = [isinstance(value, float) for value in (one, other)]
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12) if all(numbers) else bool(one == other)


def identity(
    directory: Path, points: Points, benchmarks: Mapping[str, Mapping[str, object]], data: Earlier | None = None
) -> dict[str, str]:
    """What a run with this warm start depends on; warns where the earlier run may have seen other examples.

    data: all genomes of that run, for a strategy that learns from them.
    """
    known = read_json(directory / "run.json") if (directory / "run.json").is_file() else {}
    earlier = (known.get("scores") or {}).get("benchmarks") or {}
    if _examples(earlier) != _examples(json.loads(json.dumps(benchmarks))):
        logger.warning(
            "warm_start: %s was scored by another benchmark, or on other splits; make sure that none of its search "
            "examples is in a validation or test split of this run",
            directory,
        )
    told = {"run": str(directory), "genomes": hashlib.sha256(points.tobytes()).hexdigest()}
    if data is not None:
        told["data"] = hashlib.sha256(data.genomes.tobytes() + data.fitness.tobytes()).hexdigest()
    return told


def _examples(benchmarks: Mapping[str, Mapping[str, object]]) -> dict[str, Any]:
    """The examples of each, by their digests."""
    return {name: found.get("splits") for name, found in benchmarks.items()}
