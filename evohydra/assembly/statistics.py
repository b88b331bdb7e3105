"""Statistics of activations for merge methods that weigh by them: found on file, or gathered before the search."""

import functools
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, cast

import numpy as np
from annotated_types import Gt
from filelock import FileLock

from evohydra.assembly.guarding import counted
from evohydra.assembly.merge_spaces import Located
from evohydra.assembly.parts import Parts
from evohydra.assembly.parts_of_spaces import specs, with_each
from evohydra.assembly.router_rows import OF_ROUTERS, asking_of, by_content
from evohydra.assembly.settings import Spec
from evohydra.assembly.workers import scores_depend_on
from evohydra.checks import Count, check_entries
from evohydra.files import Plain
from evohydra.merging.methods import Statistic, resolve
from evohydra.merging.signatures import STATISTICS
from evohydra.merging.statistics import DIRECTORY, UNREAD, Files, StatisticsError, StatisticsFiles, digest_of
from evohydra.recipe import Checkpoint, Merge, Node, checkpoints
from evohydra.scoring.benchmarks import Benchmark, BenchmarkError
from evohydra.scoring.benchmarks.token_texts import GivesTexts
from evohydra.scoring.gathering.course import Course, on_file
from evohydra.scoring.gathering.course import gathered as gathered_by
from evohydra.scoring.gathering.files import Wanted
from evohydra.searching.identity import OfScores
from evohydra.spaces import Space

logger = logging.getLogger(__name__)
KEYS: Plain = {"prompts": Count, "directory": str | None, "memory_gb": Annotated[float, Gt(0)]}
INCIDENTAL = ("directory", "memory_gb", "files")  # what changes no bit, or (files) is known by content
PASS = 1  # the version of what a pass does; another one makes other files
LOCK = "gathering.lock"  # in the directory, while files are looked for and made
FILE_SIZES: Mapping[Statistic, str] = {
    "inputs": "4 n^2 bytes for the inputs, n numbers, of linear layers",
    "merged_inputs": "4 n^2 bytes for the inputs, n numbers, of linear layers",
    "input_squares": "4 n bytes for the inputs, n numbers, of linear layers",
    "gradient_squares": "4 bytes for each parameter",
    "expert_states": "4 n bytes for the states, n numbers, of each layer",
}
BACKWARD = (
    "merge=%s: each source takes a forward and a backward pass over %d prompts with their references, for the "
    "gradients of its own log-likelihood; no weight is changed by it, and the merge takes none"
)


@dataclass(frozen=True)
class Gathered:
    """Merges with the digests of their statistics, the files of these, and what of them belongs to a run's identity."""

    merge: Spec
    baselines: Plain | None
    files: StatisticsFiles
    identity: Mapping[str, str]
    said: tuple[str, ...] = ()


def check_statistics(merge: Spec, benchmarks: Mapping[str, Benchmark], *, nested: bool) -> None:
    """ValueError, before weights are read, where sources cannot read what a method of `merge` needs.

    nested: sources are recipes, or will be.
    """
    for spec in specs(merge.get("parameter")):
        who = _called(spec)
        if resolve(str(spec["method"])).reads is None:
            if spec.get(STATISTICS) is not None:
                raise ValueError(f"{who}: it reads no statistics; expected none, got statistics={spec[STATISTICS]!r}")
            continue
        _settings(spec)
        if nested:
            raise ValueError(
                f"{who}: it weighs sources by their activations, which are gathered of checkpoints alone; expected "
                "models as sources, such as the checkpoint of a winner, and no recipes (continue, generations)"
            )
        if not benchmarks:
            raise BenchmarkError(
                f"{who}: its sources read prompts of a benchmark's search split; expected benchmark=[...], got none"
            )
        for name, benchmark in benchmarks.items():
            reason = benchmark.lacks_texts() if isinstance(benchmark, GivesTexts) else "its examples are no texts"
            if reason is not None:
                raise BenchmarkError(
                    f"{who}: its sources read prompts with their references before the search, of which benchmark "
                    f"{name!r} has none: {reason}"
                )


def reads_texts(merge: Spec) -> bool:
    """Whether a method of `merge` needs what sources find in texts."""
    return any(resolve(str(spec["method"])).reads is not None for spec in specs(merge.get("parameter")))


def uncounted(merge: Spec) -> list[str]:
    """What a plan by figures says of the passes over texts before the search of `merge`, which it does not count."""
    found = []
    for spec in specs(merge.get("parameter")):
        if (statistic := resolve(str(spec["method"])).reads) is not None:
            often = " once for each layer" if statistic == "merged_inputs" else ""
            found.append(
                f"{_called(spec)}: before the search each source reads the first {_settings(spec)['prompts']} "
                f"examples of each benchmark{often}. The seconds, memory and disk that this takes are not counted; its "
                f"files have {FILE_SIZES[statistic]} for each source"
            )
    return found


def check_any_merges(space: Space, try_it: Callable[[Node], None]) -> None:
    """ValueError, the method's, where it refuses whatever genes `space` gives it, as for weights frozen to 0.

    So that no pass over texts is made for it. try_it: merges a little of a recipe.
    """
    reasons = []
    for genome in np.random.default_rng(0).random((3, len(space.names))):
        try:
            try_it(space.decode(genome))
        except ArithmeticError:  # of these numbers
            return
        except ValueError as reason:
            reasons.append(reason)
        else:
            return
    raise reasons[0]


def without_places(merge: Spec) -> Spec:
    """`merge` without what changes no bit of its statistics: where they are, and how much memory their sums take."""
    return with_each(merge, lambda spec: {**spec, STATISTICS: _of_identity(spec)} if spec.get(STATISTICS) else spec)


def _of_identity(spec: Plain) -> Plain:
    return {key: value for key, value in spec[STATISTICS].items() if key not in INCIDENTAL}


def unread(merge: Spec) -> Spec:
    """`merge` with a digest of statistics that nobody has, to look at it before texts are read."""
    return with_each(merge, lambda spec: {**spec, STATISTICS: UNREAD} if spec.get(STATISTICS) else spec)


def gathered(
    merge: Spec,
    baselines: Plain | None,
    parts: Parts,
    located: Located,
    directory: Path,
    *,
    gathers: bool | None,
    swept: bool = False,
) -> Gathered:
    """`merge` with the digests of the statistics that its methods read; they are gathered where they are not on file.

    So for `baselines`, merges by name, which are no part of a run's identity. directory: of the run. swept: it is a job
    of a sweep, whose jobs share files. gathers: see `Reading`; where it is False StatisticsError for files that are
    missing.
    """
    if gathers is None:
        return Gathered(unread(merge), baselines, StatisticsFiles(), {})
    files: dict[str, Files] = {}
    said: list[str] = []
    own = directory / DIRECTORY  # which jobs of earlier versions have, too
    room = directory.parent / DIRECTORY if (swept or not gathers) and not own.is_dir() else own

    def of(spec: Plain) -> Plain:
        method = resolve(str(spec["method"]))
        if method.reads is None:
            return spec
        course = _course(spec, method.reads, parts, located, room)
        found = on_file(course) if not gathers else _made(course, spec, said)
        files[digest_of(found)] = found
        return {**spec, STATISTICS: digest_of(found)}

    made = with_each(merge, of)
    identity = {f"{file.path.name} of {name}": file.sha256 for found in files.values() for name, file in found.items()}
    compared = {name: with_each({"parameter": spec}, of)["parameter"] for name, spec in (baselines or {}).items()}
    return Gathered(made, compared if baselines else baselines, StatisticsFiles(files), identity, tuple(said))


def _made(course: Course, spec: Plain, said: list[str]) -> Files:
    place = next(iter(course.sources.values())).directory
    try:
        place.mkdir(parents=True, exist_ok=True)
        (place / LOCK).touch()
    except OSError as error:
        raise StatisticsError(f"{_called(spec)}: statistics cannot be written to {place}: {error}") from error
    if course.statistic == "gradient_squares" and not all(each.path.exists() for each in course.sources.values()):
        logger.warning(BACKWARD, spec["method"], course.prompts)
    start = time.perf_counter()
    with FileLock(place / LOCK):
        found, count = gathered_by(course)
    if count:
        size = sum(file.path.stat().st_size for file in found.values()) / 1e6
        said.append(
            f"{_called(spec)}: {len(found)} sources have read the first {course.prompts} examples of each benchmark's "
            f"search split ({time.perf_counter() - start:.1f} s, {size:.1f} MB in {place})"
        )
    return found


def _course(spec: Plain, statistic: Statistic, parts: Parts, located: Located, room: Path) -> Course:
    settings, opened = _settings(spec), parts.sources
    place = Path(settings["directory"]) if settings["directory"] else room
    usual = functools.partial(_usual, spec, located)
    behind = _behind(usual()) if statistic == "merged_inputs" else None
    scores = scores_depend_on(parts)

    asking = asking_of(settings, located) if statistic == "expert_states" else None
    together = behind if asking is None else by_content(asking)

    def wanted(node: Checkpoint) -> Wanted:
        of = _key(scores, node, parts, behind=together is not None)
        key = {**of, "statistic": statistic, "prompts": settings["prompts"], "behind": together}
        return Wanted(place, node.name, statistic, key)

    return Course(
        statistic=statistic,
        sources={node: wanted(node) for node in opened.models},
        make_live=parts.live_model,
        engine=parts.engine,
        benchmarks=cast(Mapping[str, GivesTexts], counted(parts.settings.guard, parts.benchmarks)),
        prompts=settings["prompts"],
        most_bytes=int(settings.get("memory_gb", 0) * 1e9),
        locations=located.locations,
        usual=usual,
        asking=asking,
    )


def _usual(spec: Plain, located: Located) -> Merge:
    """The merge at the method's usual values, in one group for each layer."""
    merge = located.merges({**spec, STATISTICS: UNREAD}).default()
    assert isinstance(merge, Merge)
    return merge


def _behind(merge: Merge) -> Plain:
    """What a merge is whose groups all have the same values, by content: its method, its models in order, and these."""
    return {
        "method": merge.method,
        "models": [node.fingerprint for node in checkpoints(merge)],
        "options": {**merge.options, STATISTICS: None},
        "genes": dict(merge.groups[0].parameters),
    }


def _key(scores: OfScores, node: Checkpoint, parts: Parts, *, behind: bool) -> dict[str, object]:
    """What the statistics of one source depend on, by content. Versions of libraries are told in the file instead.

    behind: whether it reads behind merged layers, which depend on all sources.
    """
    counting = counted(parts.settings.guard, parts.benchmarks)
    asked = {name: {k: v for k, v in scores.benchmarks[name].items() if k != "versions"} for name in counting}
    read = {name: {**each, "splits": _search(each.get("splits"))} for name, each in asked.items()}
    rules = parts.rules
    alone = rules.tokenizer == "same" and not (rules.components or rules.adapters or rules.pad_vocabulary_to or behind)
    names = {node.name, scores.configured_by} if alone and rules.missing == "error" else set(scores.sources)
    return {
        "pass": PASS,
        "evohydra": scores.versions["evohydra"],
        "source": node.name,
        "fingerprint": node.fingerprint,
        "sources": sorted(json.dumps(dict(scores.sources[name]), sort_keys=True) for name in names),
        "configured_by": dict(scores.sources[scores.configured_by]),
        "alignment": asdict(scores.alignment),
        "dtype": [scores.dtype, scores.out_dtype],
        "device": scores.device,
        "texts": hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest(),
    }


def _search(splits: object) -> object:
    return splits.get("search") if isinstance(splits, Mapping) else None


def _called(spec: Plain) -> str:
    """How the command line names the merge that `spec` is, or is the part of."""
    return "merge=moe" if resolve(str(spec["method"])).reads == "expert_states" else f"merge={spec['method']}"


def _settings(spec: Plain) -> Plain:
    """What `statistics` of a method says; ValueError for what makes no sense."""
    where = f"{_called(spec)}: statistics"
    keys = OF_ROUTERS if resolve(str(spec["method"])).reads == "expert_states" else KEYS
    given = spec.get(STATISTICS)
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}: expected {', '.join(keys)}, got {given!r}")
    found: Plain = check_entries(where, given, keys)
    if (place := found["directory"]) is not None and Path(place).exists() and not Path(place).is_dir():
        raise ValueError(f"{where}.directory: expected a directory, or a place where one can be made, got {place}")
    return found
