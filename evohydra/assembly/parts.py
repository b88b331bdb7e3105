"""What a worker is made of, from the settings: the same in the driver and in each worker."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import hydra
import torch
from hydra.errors import InstantiationException

from evohydra.assembly.guarding import texts_of
from evohydra.assembly.mixtures import per_token
from evohydra.assembly.settings import Settings, Spec
from evohydra.checks import check_given
from evohydra.families import AddedAdapter, Family, LiveModel, Rules, declared, sources
from evohydra.families.kinds import family_at
from evohydra.families.sources import FoundSources, OpenSources
from evohydra.merging.checkpoints import SourceError
from evohydra.merging.engine import Engine
from evohydra.merging.kernels.compilation import worth_compiling
from evohydra.scoring.benchmarks import Benchmark, BenchmarkError

NOWHERE: Mapping[str, Path] = MappingProxyType({})


MADE_HOW = {"_partial_": (False, True), "_convert_": ("none", "partial", "object", "all")}  # Hydra's own keys


@dataclass(frozen=True)
class Parts:
    """What a worker is made of, and what the driver needs to know of it."""

    settings: Settings
    family: Family
    sources: OpenSources
    engine: Engine
    out_dtype: torch.dtype
    benchmarks: Mapping[str, Benchmark]
    rules: Rules

    def live_model(self, **more: object) -> LiveModel:
        """A live model of the merge; `more` are arguments of the family's `live_model`."""
        opened = self.sources
        place, device = opened.directories[opened.files_from], self.engine.device
        return self.family.live_model(place, device, self.out_dtype, opened.overlay, **more)  # type: ignore[arg-type]


def instantiate(spec: Mapping[str, object]) -> Any:
    """What a part of the configuration describes; ValueError where that cannot be made."""
    if not spec.get("_target_"):
        raise ValueError(f"expected _target_, which says what it is, got {dict(spec)}")
    for key, known in MADE_HOW.items():
        if spec.get(key, known[0]) not in known:
            raise ValueError(f"{spec['_target_']}: {key}: expected one of {list(known)}, got {spec[key]!r}")
    check_given(str(spec["_target_"]), spec)
    try:
        return hydra.utils.instantiate(dict(spec))
    except InstantiationException as error:
        if isinstance(error.__cause__, ValueError | OSError):
            raise error.__cause__ from None
        raise ValueError(f"{spec['_target_']} cannot be made: {error.__cause__ or error}") from error


def chosen_sources(model: Spec) -> dict[str, declared.Source]:
    """The sources as they were configured, by name; `model` is that part of the configuration."""
    chosen = model.get("sources") if isinstance(model, Mapping) else None
    if not isinstance(chosen, Mapping):
        raise ValueError(
            f"model.sources: expected sources by name, for example model=tiny_ja+tiny_math, got {chosen!r}"
        )
    return {name: declared.parse(name, _with_family(name, fields)) for name, fields in chosen.items()}


def _with_family(name: str, fields: object) -> object:
    """The fields of a source with the family that its files say, where it names none."""
    path = fields.get("path") if isinstance(fields, Mapping) else None
    if not isinstance(fields, Mapping) or not isinstance(path, str) or fields.get("family") is not None:
        return fields
    if not path.strip():
        return {**fields, "family": ""}  # the path is missed before it
    revision = fields.get("revision")
    try:
        return {**fields, "family": family_at(path, revision if isinstance(revision, str) else None)}
    except SourceError as error:
        raise type(error)(f"{error} (model.sources.{name}.family says which family it is of)") from error


def common_family(chosen: Mapping[str, declared.Source]) -> Family:
    """The family of the sources, see `declared.common_family`."""
    name = declared.common_family(chosen)
    family = instantiate({"_target_": name})
    if not isinstance(family, Family):
        raise ValueError(f"model.sources.{next(iter(chosen))}.family: expected a family of models, got {name}")
    return family


def found_sources(settings: Settings, paths: Mapping[str, Path] = NOWHERE) -> FoundSources:
    """The sources, located and compared; their weights are not read. `paths` are where some are known to be."""
    chosen = chosen_sources(settings.model)
    family = common_family(chosen)
    keys = ("tokenizer", "missing", "config", "pad_vocabulary_to", "allow_other_base")
    added = tuple(AddedAdapter.parse(each) for each in settings.adapters or ())
    rules = Rules(
        **{key: settings.all[key] for key in keys},
        components=settings.components or {},
        adapters=added,
        texts=tuple(_texts([[source.prompt for source in chosen.values()], settings.benchmark])),
        experts_per_token=per_token(settings.merge),
    )
    path = settings.merge.get("dataflow")
    merging = settings.merge.get("parameter") or settings.all.get("continue")  # whose recipes are merges
    models, base = declared.checkpoints(chosen, rules) if merging else (declared.models(chosen), None)
    differing = declared.disagreement(chosen) if merging else None
    first_on_path = (path or {}).get("first") or models[0].name
    pinned = {name: source.sha256 for name, source in chosen.items() if source.sha256}
    pinned[declared.BASE] = declared.base_pins(chosen)
    return sources.find_sources(
        models,
        base,
        family,
        rules,
        (differing,) if differing else (),
        None if merging else first_on_path,
        pinned,
        paths,
    )


def _texts(plain: object) -> Iterator[str]:
    """All strings in a part of the configuration."""
    if isinstance(plain, str):
        yield plain
    elif isinstance(plain, Mapping):
        yield from (text for value in plain.values() for text in _texts(value))
    elif isinstance(plain, Sequence):
        yield from (text for value in plain for text in _texts(value))


def opened_parts(
    settings: Settings,
    found: FoundSources,
    opened: OpenSources,
    benchmarks: Mapping[str, Benchmark],
    device: torch.device,
) -> Parts:
    """The parts over sources that have been read, on `device`."""
    published = opened.paths[opened.models[0].name]
    dtype = found.family.dtype(published) if settings.dtype == "auto" else getattr(torch, settings.dtype)
    shapes, compiled = opened.tensors[opened.files_from].shapes, settings.merge["compile"]
    engine = Engine(
        opened.tensors,
        device=device,
        dtype=dtype,
        compile_kernels=worth_compiling(shapes, settings.genomes) if compiled == "auto" else compiled,
        cache_bytes=int(settings.cache_gb * 1024**3),
    )
    out_dtype = getattr(torch, settings.out_dtype) if settings.out_dtype else dtype
    return Parts(settings, found.family, opened, engine, out_dtype, benchmarks, found.rules)


def benchmarks_of(settings: Settings, family: Family) -> dict[str, Benchmark]:
    """The benchmarks by name; BenchmarkError for those that cannot score models of this family."""
    benchmarks: dict[str, Benchmark] = {}
    for name, spec in (settings.benchmark or {}).items():
        if not spec.get("_target_"):
            raise BenchmarkError(
                f"benchmark.{name}: there are settings ({', '.join(spec)}) for a benchmark that is not chosen; add "
                f"{name} to benchmark=[...], or drop the settings with ~benchmark.{name}"
            )
        benchmarks.update(instantiate(spec)(name))
    texts = texts_of(settings.guard, settings.guard_examples, settings.batch_size)
    if both := sorted(set(texts) & set(benchmarks)):
        raise BenchmarkError(f"guard: expected a text whose file is not called as a benchmark is, got {both}")
    benchmarks.update(texts)
    for benchmark in benchmarks.values():
        if not callable(getattr(benchmark, "identity", None)):
            raise BenchmarkError(f"benchmark {benchmark.name!r} lacks identity(), by which a run knows its data")
        if not set(family.scored_as) & set(benchmark.families):
            raise BenchmarkError(
                f"benchmark {benchmark.name!r} scores models of the families {list(benchmark.families)}, the sources "
                f"are of the family {family.name!r}"
            )
    return benchmarks


def shapes_of(parts: Parts) -> list[tuple[int, ...]]:
    """The shapes of all tensors of a merge."""
    opened = parts.sources
    return list(opened.tensors[opened.files_from].shapes.values())


def worker_bytes(parts: Parts) -> int:
    """The memory of a worker: its live model and its answers, tables about the sources, hidden states of paths."""
    settings, opened = parts.settings, parts.sources
    model = sum(map(math.prod, shapes_of(parts))) * parts.out_dtype.itemsize
    tables = min(int(settings.cache_gb * 1024**3), 3 * model * len(opened.models))
    return 2 * model + tables + (int(settings.prefix_gb * 1024**3) if settings.merge.get("dataflow") else 0)
