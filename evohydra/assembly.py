"""From a plain configuration to the parts of a run; the same for the driver and for each of its workers.

Every user error that can be found without reading weights is raised before they are read, and all others before
anything is scored.
"""

import functools
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import hydra
import numpy as np
import torch

from evohydra.families import AddedAdapter, Family, Rules, sources
from evohydra.families.settings_files import settings_digest
from evohydra.families.sources import FoundSources, OpenSources
from evohydra.masking import without_secrets
from evohydra.merging.checkpoints import Survey
from evohydra.merging.engine import Engine, worth_compiling
from evohydra.recipe import Node
from evohydra.run import SCORES, Models, Run
from evohydra.scoring.benchmarks import Asking, Benchmark, BenchmarkError
from evohydra.scoring.executors import Executor
from evohydra.scoring.worker import Worker
from evohydra.search.identity import Alignment, Identity, OfScores, OfSearch, own_keys
from evohydra.search.optimizers import Points
from evohydra.search.plan import SearchPlan
from evohydra.search.warm_start import best_genomes
from evohydra.search.warm_start import identity as warm_identity
from evohydra.spaces import Space
from evohydra.spaces.hybrid import HybridSpace
from evohydra.spaces.parameter import uniform_merge
from evohydra.winner.unsearched import UnsearchedRecipe
from evohydra.winner.writer import WinnerForm

logger = logging.getLogger(__name__)
Plain = Mapping[str, Any]  # a configuration, resolved


@dataclass(frozen=True)
class Parts:
    """What a worker is made of, and what the driver needs to know of it."""

    plain: Plain
    family: Family
    sources: OpenSources
    engine: Engine
    out_dtype: torch.dtype
    benchmarks: Mapping[str, Benchmark]


class WorkerMaker:
    """Makes a worker from the parts that are here, or in another process from the configuration alone."""

    def __init__(self, parts: Parts) -> None:
        self._parts: Parts | None = parts
        self._plain, self._surveys = parts.plain, parts.sources.surveys

    def __getstate__(self) -> dict[str, Any]:
        return {"_parts": None, "_plain": self._plain, "_surveys": self._surveys}

    def __call__(self) -> Worker:
        """A worker, with a live model of its own."""
        parts = self._parts or _parts_elsewhere(self._plain, self._surveys)
        plain, opened = parts.plain, parts.sources
        on_paths = opened.models if plain["merge"].get("dataflow") else ()
        live = parts.family.live_model(
            opened.directories[opened.files_from],
            parts.engine.device,
            parts.out_dtype,
            opened.form,
            sources={model.name: opened.directories[model.name] for model in on_paths},
            prefix_bytes=int(plain["prefix_gb"] * 1024**3),
        )
        return Worker(parts.engine, live, parts.benchmarks, opened, parts.family, opened.models[0])


def _parts_elsewhere(plain: Plain, surveys: Mapping[str, Survey]) -> Parts:
    _set_threads(plain["threads"])
    found = _found_sources(plain)
    return _parts(plain, found, sources.read_sources(found, surveys), _benchmarks(plain, found.family))


def make_run(plain: Plain, directory: Path, place: Mapping[str, Any]) -> Run | UnsearchedRecipe:
    """A run from its configuration; `place` is what trackers call it, and in which sweep (`group`) it is.

    Where every gene is frozen and there is no benchmark, what writes that one recipe.
    """
    _set_threads(plain["threads"])
    found = _found_sources(plain)
    benchmarks = _benchmarks(plain, found.family)
    space = _space(plain["merge"], _located(found), found)
    instantiate(plain["executor"])(make=_unmade, worker_bytes=0).close()  # its options are checked
    if benchmarks:
        _plan(plain, benchmarks, space, np.empty((0, len(space.names)))).check()
    elif space.names:
        raise BenchmarkError("no benchmark: choose one or more, for example benchmark=[mgsm_ja]")

    parts = _parts(plain, found, sources.read_sources(found), benchmarks)
    located = _located(found, parts.sources)
    space = _space(plain["merge"], located, found)
    form = _form(plain, found.rules)
    form.format.check(space.default(), parts.family, parts.sources)
    parts.engine.probe(space.default())
    make_executor = functools.partial(_executor, plain, parts)
    if not benchmarks:
        return UnsearchedRecipe(directory, space.decode(np.empty(0)), form, make_executor)
    warm, identity = np.empty((0, len(space.names))), _identity(plain, parts)
    if plain["warm_start"]:
        earlier = Path(plain["warm_start"])
        warm = best_genomes(earlier, space, plain["warm_start_top"])
        warmed = warm_identity(earlier, warm, identity.scores.benchmarks)
        identity = replace(identity, search=replace(identity.search, warm_start=warmed))
    return Run(
        directory=directory,
        models=_models(plain, located, parts),
        plan=_plan(plain, benchmarks, space, warm),
        benchmarks=benchmarks,
        make_executor=make_executor,
        make_tracker=lambda: instantiate(plain["tracker"])(directory=directory, config=without_secrets(plain), **place),
        form=form,
        identity=identity,
        allow_other_versions=bool(plain.get("allow_other_versions")),
        report=plain["report"],
        shared_scores=directory.parent / SCORES if place["group"] and plain["share_scores"] else None,
    )


def _unmade() -> Worker:
    raise AssertionError("a worker before the sources are read")


def _form(plain: Plain, rules: Rules) -> WinnerForm:
    """How the winner is written."""
    licences = {name: source.licence for name, source in _chosen(plain).items()}
    return WinnerForm(licences, rules, instantiate(plain["format"]), int(plain["shard_gb"] * 1e9))


def instantiate(spec: Mapping[str, Any]) -> Any:
    """What a part of the configuration describes; ValueError where a value is missing."""
    missing = sorted(key for key, value in spec.items() if value == "???")
    if missing:
        raise ValueError(f"{spec['_target_']}: expected a value for {', '.join(missing)}, got none; give it one")
    return hydra.utils.instantiate(dict(spec))


def _chosen(plain: Plain) -> dict[str, sources.Source]:
    return {name: sources.parse(name, fields) for name, fields in plain["model"]["sources"].items()}


def _found_sources(plain: Plain) -> FoundSources:
    """The sources, located and compared; their weights are not read."""
    chosen = _chosen(plain)
    family: Family = instantiate({"_target_": sources.common_family(chosen)})
    keys = ("tokenizer", "missing", "pad_vocabulary_to", "allow_other_base")
    added = tuple(AddedAdapter.parse(each) for each in plain["adapters"] or ())
    rules = Rules(**{key: plain[key] for key in keys}, components=plain["components"] or {}, adapters=added)
    merging, path = plain["merge"].get("parameter"), plain["merge"].get("dataflow")
    models, base = sources.checkpoints(chosen, rules) if merging else (sources.models(chosen), None)
    differing = sources.disagreement(chosen) if merging else None
    first_on_path = (path or {}).get("first") or models[0].name
    return sources.find_sources(
        models, base, family, rules, (differing,) if differing else (), None if merging else first_on_path
    )


def _parts(plain: Plain, found: FoundSources, opened: OpenSources, benchmarks: Mapping[str, Benchmark]) -> Parts:
    published = opened.paths[opened.models[0].name]
    dtype = found.family.dtype(published) if plain["dtype"] == "auto" else sources.parse_dtype(plain["dtype"])
    out_dtype = sources.parse_dtype(plain["out_dtype"], "out_dtype", "null") if plain["out_dtype"] else dtype
    engine = Engine(
        opened.tensors,
        device=_device(plain["device"]),
        dtype=dtype,
        compile_kernels=_compile(plain["merge"]["compile"], opened.tensors[opened.files_from].shapes, plain["budget"]),
        cache_bytes=int(plain["cache_gb"] * 1024**3),
    )
    return Parts(plain, found.family, opened, engine, out_dtype, benchmarks)


def _benchmarks(plain: Plain, family: Family) -> dict[str, Benchmark]:
    """The benchmarks by name; BenchmarkError for those that cannot score models of this family."""
    benchmarks: dict[str, Benchmark] = {}
    for name, spec in (plain.get("benchmark") or {}).items():
        benchmarks.update(instantiate(spec)(name))
    for benchmark in benchmarks.values():
        if not callable(getattr(benchmark, "identity", None)):
            raise BenchmarkError(f"benchmark {benchmark.name!r} lacks identity(), by which a run knows its data")
        if not set(family.scored_as) & set(benchmark.families):
            raise BenchmarkError(
                f"benchmark {benchmark.name!r} scores models of the families {list(benchmark.families)}, the sources "
                f"are of the family {family.name!r}"
            )
    return benchmarks


def _plan(plain: Plain, benchmarks: Mapping[str, Benchmark], space: Space, warm: Points) -> SearchPlan:
    """The search; its options are checked."""
    numbers = {"budget": 1, "top": 1, "seed": 0, "optimizer.population": 1}  # and the least that they may be
    for key, least in numbers.items():
        value = plain["optimizer"].get("population") if "." in key else plain[key]
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
        if not whole and not (value is None and "." in key):
            raise ValueError(f"{key}: expected a whole number of at least {least}, got {value!r}")
    sizes = {name: benchmark.size("search") for name, benchmark in benchmarks.items()}
    plan = SearchPlan(
        space=space,
        sizes=sizes,
        objective=instantiate(plain["objective"]),
        pick=instantiate(plain["pick"]),
        fitness=instantiate(plain["fitness"])(sizes=sizes, seed=plain["seed"]),
        make_optimizer=lambda axes, start: instantiate(plain["optimizer"])(axes=axes, seed=plain["seed"], start=start),
        budget=plain["budget"],
        seed=plain["seed"],
        top=plain["top"],
        start=tuple(plain["start"] or ()),
        warm=warm,
        ablate=plain["ablate"],
        validated=_has_validation(benchmarks),
    )
    return plan


def _has_validation(benchmarks: Mapping[str, Benchmark]) -> bool:
    sizes = {name: benchmark.size("validation") for name, benchmark in benchmarks.items()}
    if any(sizes.values()) and not all(sizes.values()):
        raise ValueError(f"validation examples for some benchmarks only: {sizes}; give all a validation split, or none")
    return all(sizes.values())


def _executor(plain: Plain, parts: Parts) -> Executor:
    """The executor with its workers; people are asked in one process only."""
    made: Executor = instantiate(plain["executor"])(make=WorkerMaker(parts), worker_bytes=_worker_bytes(parts))
    asking = [name for name, each in parts.benchmarks.items() if isinstance(each, Asking) and each.asks]
    if asking and made.workers > 1:
        made.close()
        raise BenchmarkError(f"benchmark {asking[0]!r} asks people, which one worker has to do: choose executor=local")
    return made


def _worker_bytes(parts: Parts) -> int:
    """The memory of a worker: its live model and its answers, tables about the sources, hidden states of paths."""
    plain, opened = parts.plain, parts.sources
    shapes = opened.tensors[opened.files_from].shapes.values()
    model = sum(math.prod(shape) for shape in shapes) * parts.out_dtype.itemsize
    tables = min(int(plain["cache_gb"] * 1024**3), 3 * model * len(opened.models))
    return 2 * model + tables + (int(plain["prefix_gb"] * 1024**3) if plain["merge"].get("dataflow") else 0)


def _located(found: FoundSources, opened: OpenSources | None = None) -> dict[str, Any]:
    """What spaces of merges are made of: models, base, and where tensors sit."""
    known = opened or found
    copied = opened.copied if opened else frozenset()
    return {"models": known.models, "base": known.base, "locations": found.locations(copied)}


def _space(merge: Plain, located: Mapping[str, Any], found: FoundSources) -> Space:
    """The space of merges, of paths, or of both, as far as they are configured."""
    merges = instantiate(merge["parameter"])(**located) if merge.get("parameter") else None
    if not merge.get("dataflow"):
        if merges is None:
            raise ValueError("nothing to search: choose merge=METHOD, merge=dfs or merge=METHOD+dfs")
        return cast("Space", merges)
    aligned = found.aligned
    paths = instantiate(merge["dataflow"])(
        models=located["models"],
        layers=[found.family.depth(found.directories[model.name]) for model in found.models],
        layout=found.family.layout(
            found.directories[aligned.files_from], tuple(aligned.tensors[aligned.files_from].shapes)
        ),
    )
    return HybridSpace(merges, paths) if merges else paths


def _models(plain: Plain, located: Mapping[str, Any], parts: Parts) -> Models:
    """The models that a winner is compared with."""
    opened, engine = parts.sources, parts.engine
    alike = len({tuple(sorted(engine.shapes(model).items())) for model in opened.models}) == 1
    baselines: dict[str, Node] = {}
    for name, spec in (plain.get("baselines") or {}).items():
        space: Space = instantiate(spec)(**located)
        try:
            engine.probe(space.default())
            baselines[name] = space.default()
        except ValueError as reason:
            logger.warning("baseline %s is left out: %s", name, reason)
    return Models(
        sources={model.name: model for model in opened.models},
        base=opened.base,
        uniform=uniform_merge(opened.models, opened.base, located["locations"]) if alike else None,
        baselines=baselines,
        files_from=opened.files_from,
    )


def _identity(plain: Plain, parts: Parts) -> Identity:
    """What the results of a run depend on."""
    opened = parts.sources
    nodes = (*opened.models, *filter(None, [opened.base]))
    scores = OfScores(
        sources={
            node.name: {"fingerprint": node.fingerprint, "settings": settings_digest(opened.directories[node.name])}
            for node in nodes
        },
        configured_by=opened.files_from,
        alignment=Alignment(
            **{key: plain[key] for key in ("tokenizer", "missing", "pad_vocabulary_to")},
            components=plain["components"] or {},
            adapters=[{"sha256": each.sha256, "scale": each.scale, "fuse": each.fuse} for each in opened.form.adapters],
        ),
        dtype=str(parts.engine.dtype),
        out_dtype=str(parts.out_dtype),
        device=parts.engine.device.type,
        backend=plain.get("backend"),
        benchmarks={name: benchmark.identity() for name, benchmark in parts.benchmarks.items()},
    )
    search = OfSearch(
        models=[node.to_dict() for node in opened.models],
        base=opened.base.to_dict() if opened.base else None,
        merge={key: value for key, value in plain["merge"].items() if key != "compile"},  # changes no bit
        **{key: plain[key] for key in ("optimizer", "seed", "fitness", "objective")},
        start=plain["start"] or [],
        warm_start=None,
        own=own_keys(plain),
    )
    return Identity(scores, search)


def _compile(wanted: str | bool, shapes: Mapping[str, tuple[int, ...]], merges: int) -> bool:
    if wanted not in ("auto", True, False):
        raise ValueError(f"merge.compile: expected auto, true or false, got {wanted!r}")
    return worth_compiling(shapes, merges) if wanted == "auto" else bool(wanted)


def _set_threads(threads: int | str) -> None:
    if threads == "auto":
        return
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ValueError(f"threads: expected auto or a whole number of at least 1, got {threads!r}")
    torch.set_num_threads(threads)


def _device(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device: expected auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda, but torch finds no CUDA device here; use device=auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
