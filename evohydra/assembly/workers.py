"""Workers from what a run is made of: in this process, or in others from the configuration alone."""

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from evohydra.assembly.backends import backend_of
from evohydra.assembly.guarding import counted
from evohydra.assembly.own_code import own_code
from evohydra.assembly.parts import Parts, benchmarks_of, found_sources, opened_parts, shapes_of
from evohydra.assembly.parts_of_spaces import specs
from evohydra.assembly.process import device_of, set_up_process, suit_threads
from evohydra.assembly.settings import Settings
from evohydra.families import sources
from evohydra.families.sources import FoundSources, OpenSources
from evohydra.files import Plain
from evohydra.hub import cache_directory
from evohydra.merging.checkpoints import Survey
from evohydra.merging.engine import Engine
from evohydra.merging.stamps import Stamps
from evohydra.merging.statistics import Statistics
from evohydra.recipe import Merge
from evohydra.scoring.benchmarks import Benchmark
from evohydra.scoring.benchmarks.contents import versions_of
from evohydra.scoring.executors.elsewhere import versions_in
from evohydra.scoring.worker import Worker
from evohydra.searching.identity import Alignment, OfScores, check_same_scores

LIBRARIES = ("evohydra", "torch", "transformers", "tokenizers")  # that merge and run models, whatever scores them

ADAPTERS = {"merges of adapters": "by factors, rounded once (earlier versions merged copies)"}
FETCHING = "fetching.lock"  # of the workers of a machine that lacks a source


@dataclass(frozen=True)
class _Known:
    """What the driver knows, as plain data; a worker elsewhere has to find the same."""

    settings: Settings
    paths: Mapping[str, Path]
    surveys: Mapping[str, Survey]
    weights: Mapping[str, Stamps]
    scores: OfScores
    statistics: Statistics | None


class WorkerMaker:
    """Makes a worker from the parts that are here, or in another process from the configuration alone.

    There all is read again, whenever a worker begins. Raises LedgerError where it is not what the driver has read.
    """

    def __init__(self, parts: Parts) -> None:
        opened = parts.sources
        self._parts: Parts | None = parts
        scores, statistics = scores_depend_on(parts), parts.engine.statistics
        self._known = _Known(parts.settings, opened.paths, opened.surveys, opened.weights, scores, statistics)

    def __getstate__(self) -> dict[str, object]:
        return {"_parts": None, "_known": self._known}

    def __call__(self) -> Worker:
        """A worker, with a live model of its own."""
        parts = self._parts or _parts_elsewhere(self._known)
        settings, opened = parts.settings, parts.sources
        on_paths = opened.models if settings.merge.get("dataflow") else ()
        whole = functools.partial(
            parts.live_model,
            sources={model.name: opened.directories[model.name] for model in on_paths},
            prefix_bytes=int(settings.prefix_gb * 1024**3),
        )
        live = backend_of(settings).live(parts, whole)
        opened.check_settings()  # which the model has read again
        count = counted(settings.guard, parts.benchmarks)
        return Worker(parts.engine, live, count, opened, parts.family, opened.models[0], parts.benchmarks)


def _parts_elsewhere(known: _Known) -> Parts:
    """The parts where the driver has read them: a branch of the hub may have moved.

    Weights are read again where their files are not those that the driver has read.
    """
    settings = known.settings
    set_up_process(settings.threads)
    device = device_of(settings.device)
    if device.type != known.scores.device:
        raise ValueError(
            f"device=auto: expected workers on the same device as the command takes it for, {known.scores.device}, got "
            f"{device.type}; give device=cuda, or device=cpu"
        )
    found, benchmarks = _found_here(known)
    surveys = {name: each for name, each in known.surveys.items() if known.weights[name] == found.weights[name]}
    parts = opened_parts(settings, found, sources.read_sources(found, surveys), benchmarks, device)
    parts.engine.statistics = known.statistics
    suit_threads(settings.threads, shapes_of(parts))
    check_same_scores(known.scores, scores_depend_on(parts))
    return parts


def _found_here(known: _Known) -> tuple[FoundSources, dict[str, Benchmark]]:
    """Sources and benchmarks on this machine.

    Where it has not all the directories that the driver has, one worker after the other looks for them, so that what
    the first one fetches or converts is there for the others.
    """
    here = {name: path for name, path in known.paths.items() if path.exists()}
    with contextlib.ExitStack() as stack:
        if len(here) < len(known.paths):
            room = cache_directory()
            room.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(room / FETCHING))
        found = found_sources(known.settings, here)
        return found, benchmarks_of(known.settings, found.family)


def scores_depend_on(parts: Parts) -> OfScores:
    """What the scores of a run depend on."""
    settings, opened, rules = parts.settings, parts.sources, parts.rules
    nodes, backend = (*opened.models, *filter(None, [opened.base])), backend_of(settings)
    return OfScores(
        sources={
            node.name: {"fingerprint": node.fingerprint, "settings": opened.settings[node.name]} for node in nodes
        },
        configured_by=opened.files_from,
        alignment=Alignment(
            tokenizer=rules.tokenizer,
            missing=settings.missing,
            pad_vocabulary_to=settings.pad_vocabulary_to,
            components=settings.components or {},
            config=None if settings.config == "same" else settings.config,
            adapters=[
                {"sha256": each.sha256, "scale": each.scale, "fuse": each.fuse} for each in opened.overlay.adapters
            ],
            experts_per_token=rules.experts_per_token,
        ),
        dtype=str(parts.engine.dtype),
        out_dtype=str(parts.out_dtype),
        device=parts.engine.device.type if settings.device == "auto" else settings.device,
        backend=backend.identity(),
        code=own_code(settings.model, settings.merge, settings.benchmark),
        versions={**versions_of((*LIBRARIES, *backend.libraries)), **of_adapters(settings.merge, opened, parts.engine)},
        benchmarks={name: benchmark.identity() for name, benchmark in parts.benchmarks.items()},
        workers=None
        if (python := settings.executor.get("python")) is None
        else versions_in(str(python), backend.libraries),
    )


def of_adapters(merge: Plain, opened: OpenSources, engine: Engine) -> dict[str, str]:
    """Beside versions, how adapters are merged, where `merge` has a linear method; earlier versions merged copies."""
    methods = [each["method"] for each in specs(merge.get("parameter"))]
    groups = [Merge(each, opened.base, opened.models, ()) for each in methods if each and opened.base]
    return ADAPTERS if any(map(engine.adapters.used, groups)) else {}
