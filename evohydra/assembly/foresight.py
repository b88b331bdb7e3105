"""What a plan has to know of a run, from its parts: sizes, lengths, devices, and how it is asked."""

import functools
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch

from evohydra.assembly.backends import IMPORTS, VLLM, backend_of
from evohydra.assembly.parts import Parts, worker_bytes
from evohydra.assembly.sizes import bytes_of_a_prompt, bytes_of_a_token
from evohydra.families import tokenizers
from evohydra.families.mixtures import Upcycled
from evohydra.families.prefixes import most_kept
from evohydra.families.vocabulary import embeddings_of
from evohydra.files import Plain
from evohydra.merging.checkpoints import SourceError, TensorSource
from evohydra.planning import words
from evohydra.planning.calibration import Calibrated, peak_memory
from evohydra.planning.cost import Shape
from evohydra.planning.devices import DEVICES, Device, of_name, this_processor
from evohydra.planning.engines import Serving, inside
from evohydra.planning.memory import Rooms, Sizes
from evohydra.planning.outlook import Model, Outlook, estimated, outlook
from evohydra.planning.work import Work, work_of
from evohydra.recipe import Stack
from evohydra.run import Run
from evohydra.scoring.benchmarks import SPLITS, Benchmark, Lengths, TellsLengths
from evohydra.scoring.benchmarks.likelihood import benchmark_of
from evohydra.scoring.executors.resources import total_memory, usable_cores
from evohydra.scoring.measures import measured_on
from evohydra.spaces.grouping import Location
from evohydra.spaces.mixture import EXPERT

logger = logging.getLogger(__name__)
AS_MERGED = " (as if genomes were merged: what backend.genomes=adapters takes is not planned)"
USUAL_TOKENS = 1024  # of a prompt and its answer, where nothing is known of them


def beginning(run: Run, parts: Parts, place: Plain) -> list[str]:
    """The line with which a run begins: expected time, memory, smallest gain; none of a job of a sweep.

    The run does not fail for the want of it.
    """
    if place["group"]:
        return []
    try:
        line = words.beginning(foreseen(run, parts, device_here(parts.engine.device), run.directory))
        return [line + way_that_is_planned(parts)]
    except Exception as error:
        logger.warning("there is no plan of this run (%s: %s)", type(error).__name__, error)
        return []


def way_that_is_planned(parts: Parts) -> str:
    """What a plan says behind time or backend where genomes are not merged, as it takes them to be."""
    return AS_MERGED if backend_of(parts.settings).genomes == "adapters" else ""


def foreseen(
    run: Run,
    parts: Parts,
    device: Device,
    directory: Path,
    *,
    workers: Sequence[int] = (1,),
    download: float = 0.0,
    memory: float | None = None,
    found: Calibrated | None = None,
) -> Outlook:
    """What a run will cost and can show, by the device's figures or by what was measured.

    directory: where it is written. memory: bytes of the machine that is planned for; None: this one's.
    """
    work, sizes, lengths = work_of(run), sizes_of(run.benchmarks), lengths_of(run, parts)
    batch, serving = parts.settings.batch_size, serving_of(parts)
    at_once = serving.sequences if serving else batch if isinstance(batch, int) else 1
    speed = estimated(work, model_of(parts), lengths, device, at_once, served=serving is not None)
    rooms = rooms_here(device, directory)
    return outlook(
        work,
        sizes,
        (speed, speed) if found is None else (found.processor, found.wall),
        replace(
            held_by(parts, lengths, sizes, peak_memory() if found is None else found.libraries, device),
            hidden=shared_by_paths(run, work, parts, lengths),
        ),
        device,
        rooms if memory is None else replace(rooms, memory=memory),
        top=run.plan.top,
        workers=workers,
        here=str(parts.settings.executor.get("_target_", "")).endswith(".Local"),
        download=download,
        found=found,
        weights=run.plan.objective.weights,
    )


def sizes_of(benchmarks: Mapping[str, Benchmark]) -> dict[str, dict[str, int]]:
    """The examples by split and benchmark."""
    return {split: {name: each.size(split) for name, each in benchmarks.items()} for split in SPLITS}


def lengths_of(run: Run, parts: Parts) -> dict[str, Lengths]:
    """How long examples are, of all benchmarks that tell, limits' too; counted by the tokenizer of the merge."""
    telling = {name: each for name, each in parts.benchmarks.items() if isinstance(each, TellsLengths)}
    if not telling:
        return {}
    tokens = functools.lru_cache(_counter(parts))
    return {name: each.lengths("search", tokens) for name, each in telling.items()}


def _counter(parts: Parts) -> "functools.partial[int]":
    opened = parts.sources
    tokenizer = opened.overlay.tokenizer
    if tokenizer is None:
        try:
            tokenizer = tokenizers.load(opened.directories[opened.files_from])
        except (SourceError, OSError):  # files that a benchmark would not need either
            return functools.partial(_by_characters)
    return functools.partial(_count, tokenizer)


def _count(tokenizer: object, text: str) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False))  # type: ignore[attr-defined]


def _by_characters(text: str) -> int:
    return math.ceil(len(text) / 3)


def model_of(parts: Parts) -> Model:
    """The model of a run as far as its speed and memory go."""
    opened = parts.sources
    shapes = opened.tensors[opened.files_from].shapes
    numbers = sum(math.prod(shape) for shape in shapes.values())
    size = parts.out_dtype.itemsize
    embeddings = embeddings_of(shapes)
    rows = math.prod(shapes[embeddings]) if embeddings else 0
    layers = len({place.layer for place in _places(parts).values() if place is not None and place.layer is not None})
    on_paths = 2 if parts.settings.merge.get("dataflow") else 1
    shape = None
    if embeddings and parts.family.name in ("causal_lm", "vision_language"):
        head = rows if not any("lm_head" in name for name in shapes) else 0  # a tied head is computed all the same
        cached = bytes_of_a_token(shapes, parts.out_dtype, 1) - bytes_of_a_token(shapes, parts.out_dtype, 0)
        asleep = _asleep(shapes, len(opened.models), parts.rules.experts_per_token)
        shape = Shape((numbers - asleep - rows + head) * on_paths, numbers * size, cached * on_paths, layers * on_paths)
    sources = len(opened.models) + (opened.base is not None)
    kept = parts.settings.cache_gb * 1024**3
    stored = sources * _stored(opened.tensors[opened.files_from])
    return Model(shape, numbers * size, sources, stored * (parts.engine.dtype or parts.out_dtype).itemsize, kept)


def _stored(source: TensorSource) -> int:
    """The numbers in a source's files, which hold no experts where it is one."""
    shapes = source.dense if isinstance(source, Upcycled) else source.shapes
    return sum(math.prod(shape) for shape in shapes.values())


def _asleep(shapes: Mapping[str, tuple[int, ...]], experts: int, per_token: int | None) -> int:
    """The numbers of a mixture's experts that do not answer a token; 0 where it is none."""
    inside = sum(math.prod(shape) for name, shape in shapes.items() if EXPERT.search(name)) if per_token else 0
    return inside - inside * (per_token or 0) // experts


def _places(parts: Parts) -> Mapping[str, Location | None]:
    opened = parts.sources
    names = tuple(opened.tensors[opened.files_from].shapes)
    return parts.family.locations(opened.directories[opened.files_from], names, opened.copied)


def serving_of(parts: Parts) -> Serving | None:
    """What an engine is told that runs the models; None: transformers runs them."""
    backend = backend_of(parts.settings)
    if not isinstance(backend, VLLM):
        return None
    cache = backend.cache_gb * 1024**3
    return Serving(backend.sequences, backend.memory, cache, IMPORTS)


def held_by(
    parts: Parts,
    lengths: Mapping[str, Lengths],
    sizes: Mapping[str, Mapping[str, int]],
    libraries: float,
    device: Device,
) -> Sizes:
    """What the memory of a worker follows from; `libraries` are the bytes of a process without a model.

    Where benchmarks do not tell how long their prompts are, these are left out.
    """
    opened, settings = parts.sources, parts.settings
    model = model_of(parts)
    paths = 2 if settings.merge.get("dataflow") else 1
    shapes = opened.tensors[opened.files_from].shapes
    batch = settings.batch_size if isinstance(settings.batch_size, int) else 1
    most = max((size for split in sizes.values() for size in split.values()), default=1)
    length = max((each.prompt + min(each.limit, 2 * each.longest) for each in lengths.values()), default=USUAL_TOKENS)
    on_paths = settings.prefix_gb * 1024**3 if settings.merge.get("dataflow") else 0.0
    serving, held = serving_of(parts), None
    if serving is not None and model.shape is not None:
        held = inside(model.bytes, model.shape.cached, length, serving, on_gpu=device.gpu)
        libraries += serving.libraries
    return Sizes(
        live=model.bytes,
        tables=worker_bytes(parts) - 2 * model.bytes - on_paths,
        token=bytes_of_a_prompt(shapes, parts.out_dtype, round(length), paths) / length
        if model.shape and lengths
        else 0.0,
        batch=max(1, min(batch, most)),
        length=length,
        hidden=0.0,
        libraries=libraries,
        sources=model.of_sources,
        inside=held,
        share=serving.share if serving else 1.0,
    )


def shared_by_paths(run: Run, work: Work, parts: Parts, lengths: Mapping[str, Lengths]) -> float:
    """Bytes of hidden states and caches that the paths of the first generation share, at most `prefix_gb`.

    Where benchmarks do not tell how long their prompts are, it is all of that.
    """
    if not parts.settings.merge.get("dataflow"):
        return 0.0
    plan, model = run.plan, model_of(parts)
    limit, scored = parts.settings.prefix_gb * 1024**3, work.stage("search").examples
    if model.shape is None or any(measured_on(benchmark_of(name)) not in lengths for name in scored):
        return limit
    with closing(plan.optimizer(plan.starting_points())) as optimizer:
        decoded = [plan.space.decode(genome) for genome in optimizer.ask()]
    states, layers = most_kept([node for node in decoded if isinstance(node, Stack)])
    shapes = parts.sources.tensors[parts.sources.files_from].shapes
    embeddings = embeddings_of(shapes)
    state = shapes[embeddings][1] * parts.out_dtype.itemsize if embeddings else 0
    kept = 0.0
    for name, count in scored.items():
        told, writes = lengths[measured_on(benchmark_of(name))], benchmark_of(name) == name
        tokens = count.likely / work.course.genomes * told.passes * (told.prompt + (0 if writes else told.reference))
        cached = layers * model.shape.cached / model.shape.layers if writes else 0.0  # likelihoods need no cache
        kept += tokens * (states * state + cached)
    return min(limit, kept)


def rooms_here(device: Device, directory: Path) -> Rooms:
    """Bytes that there are on this machine, and of a device."""
    place = next(each for each in (directory, *directory.absolute().parents) if each.exists())
    return Rooms(total_memory(), device.memory if device.gpu else None, shutil.disk_usage(place).free)


def device_here(device: torch.device) -> Device:
    """The device that a run uses here, by its maker's figures where these are known, else by a short measurement."""
    if device.type != "cuda":
        return this_processor(total_memory(), usable_cores())
    properties = torch.cuda.get_device_properties(device)
    known = of_name(properties.name) or DEVICES["a10g"]
    return Device(properties.name, properties.total_memory, known.flops, known.bandwidth, known.overhead)
