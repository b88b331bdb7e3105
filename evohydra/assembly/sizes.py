"""What `auto` means for batch_size, dtype and device: what the models' size and this machine's memory allow."""

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from evohydra.assembly.settings import Settings
from evohydra.families.sources import FoundSources
from evohydra.families.vocabulary import embeddings_of
from evohydra.files import Plain
from evohydra.scoring.benchmarks.room import LOGITS
from evohydra.scoring.executors.resources import total_memory

logger = logging.getLogger(__name__)
AUTO = "auto"
MOST = 512  # prompts a forward pass
SMALL = 64 * 1024**2  # bytes of weights below which MOST always fits
TOKENS = 1024  # of a prompt and its answer, where the model takes as many: problems in words, and their steps
SHARE = 0.8  # of a memory that weights and batches may take; the rest is for libraries and what lies between blocks
PATHS = 2  # times the layers of a model that the paths of a search have: more are possible, and few searches go there
PASS = 4  # tensors of a layer that are in memory at once while prompts are read
COPIES = 8  # bytes of a logit beside the model's own type: `generate` has it in float32, before and after its settings
SCORES = (
    2 * LOGITS * 4
)  # bytes of the logits that log-likelihoods come from, and of these, however many prompts there are
KEYS_AND_VALUES = re.compile(r"[._](k_proj|v_proj|key|value|c_attn|qkv|qkv_proj|query_key_value|Wqkv|in_proj)\.weight$")


@dataclass(frozen=True)
class Memory:
    """Bytes of the device that models run on, for one of those who share it; `device` is cuda or cpu."""

    device: str
    bytes: int


def fitted(settings: Settings, found: FoundSources) -> tuple[Settings, str | None, Mapping[str, int]]:
    """The settings with what `auto` means here, a sentence about batches, and what a run has to keep of it.

    dtype: that of the first source, but bfloat16 where float32 does not fit. device: cuda, but cpu where the weights do
    not fit into the GPU. batch_size: a power of two, at most 512; the same for the same model on the same machine.
    """
    parameters = _parameters(settings, found)
    memory = _memory(settings, settings.device)
    dtype = _out_dtype(settings, found)
    if settings.dtype == AUTO and dtype is torch.float32 and not _fits(parameters, dtype, memory):
        dtype = torch.bfloat16
        settings = replace(settings, dtype="bfloat16")
        logger.warning(
            "dtype=auto: bfloat16, for %s parameters in float32, as %r was published, do not fit into %s",
            _large(parameters),
            found.models[0].name,
            _gigabytes(memory.bytes),
        )
    if settings.device == AUTO and memory.device == "cuda" and not _fits(parameters, dtype, memory):
        logger.warning(
            "device=auto: cpu, for %s parameters in %s do not fit into the %s of the GPU",
            _large(parameters),
            str(dtype).removeprefix("torch."),
            _gigabytes(memory.bytes),
        )
        settings = replace(settings, device="cpu")
        memory = _memory(settings, "cpu")
    if settings.batch_size != AUTO:
        return settings, None, {}
    prompts = _prompts(settings, found, dtype, memory)
    said = f"batch_size=auto: {prompts} prompts a forward pass fit into {_gigabytes(memory.bytes)}"
    return _with_batch_size(settings, prompts), said if prompts < MOST else None, {"batch_size": prompts}


def fitting_batch(settings: Settings, found: FoundSources, gpu: int | None = None) -> int:
    """What batch_size=auto would be with the settings' type and device, or on a GPU of so many bytes."""
    device = "cpu" if settings.device == AUTO and not torch.cuda.is_available() else settings.device
    memory = Memory("cuda", gpu) if gpu is not None else _memory(settings, device)
    return _prompts(settings, found, _out_dtype(settings, found), memory)


def _parameters(settings: Settings, found: FoundSources) -> int:
    """Of all models in memory."""
    shapes = found.aligned.tensors[found.aligned.files_from].shapes
    return _on_paths(settings, found)[0] * sum(math.prod(shape) for shape in shapes.values())


def _prompts(settings: Settings, found: FoundSources, dtype: torch.dtype, memory: Memory) -> int:
    shapes = found.aligned.tensors[found.aligned.files_from].shapes
    room = _room(settings, _parameters(settings, found) * dtype.itemsize, memory)
    return batch_size(shapes, dtype, room, _on_paths(settings, found)[1])


def batch_size(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, room: int, longer: int = 1) -> int:
    """How many prompts go through a model with tensors of these shapes at once, if `room` bytes are for them.

    `longer`: how many times the model's layers a prompt goes through, where it goes along paths.
    """
    if sum(math.prod(shape) for shape in shapes.values()) * dtype.itemsize <= SMALL:
        return MOST
    fitting = max(1, (room - min(SCORES, room // 4)) // bytes_of_a_prompt(shapes, dtype, TOKENS, longer))
    return min(MOST, 1 << (fitting.bit_length() - 1))


def bytes_of_a_prompt(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, tokens: int, longer: int = 1) -> int:
    """What a prompt with its answer takes: its tokens, and the logits of one of them at a time."""
    embeddings = embeddings_of(shapes)
    rows = shapes[embeddings][0] if embeddings else 0
    return tokens * bytes_of_a_token(shapes, dtype, longer) + rows * (dtype.itemsize + COPIES)


def bytes_of_a_token(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, longer: int = 1) -> int:
    """Keys and values of all layers, and one layer's activations, as far as shapes tell."""
    matrices = {name: shape for name, shape in shapes.items() if len(shape) == 2}
    embeddings = embeddings_of(shapes)
    rows, width = shapes[embeddings] if embeddings else (0, max((shape[0] for shape in matrices.values()), default=1))
    cached = sum(shape[0] for name, shape in matrices.items() if KEYS_AND_VALUES.search(name))
    inside = max((max(shape) for name, shape in matrices.items() if max(shape) != rows), default=width)
    return (longer * cached + PASS * inside) * dtype.itemsize


def _on_paths(settings: Settings, found: FoundSources) -> tuple[int, int]:
    """How many models' weights are in memory, and how many times a model's layers a path may have."""
    if not settings.merge.get("dataflow"):
        return 1, 1
    return len(found.models) + bool(settings.merge.get("parameter")), PATHS


def _out_dtype(settings: Settings, found: FoundSources) -> torch.dtype:
    """The type of the model in memory."""
    wanted = settings.out_dtype or settings.dtype
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if wanted in known:
        return known[wanted]
    return found.family.dtype(found.paths[found.models[0].name])


def _memory(settings: Settings, device: str) -> Memory:
    """The memory for one worker."""
    wanted = settings.executor.get("workers", 1)
    workers = wanted if isinstance(wanted, int) else 1
    if device != "cpu" and torch.cuda.is_available():
        gpus = max(1, torch.cuda.device_count())
        return Memory("cuda", torch.cuda.get_device_properties(0).total_memory // -(-workers // gpus))
    return Memory("cpu", total_memory() // workers)


def _fits(parameters: int, dtype: torch.dtype, memory: Memory) -> bool:
    return parameters * dtype.itemsize <= SHARE * memory.bytes


def _room(settings: Settings, weights: int, memory: Memory) -> int:
    """Bytes for prompts beside the weights; workers that are as many as fit count on as much as the weights take."""
    tables = min(int(settings.cache_gb * 1024**3), 3 * weights)
    room = int(SHARE * memory.bytes) - weights - tables
    return min(room, weights) if memory.device == "cpu" and settings.executor.get("workers") == AUTO else room


def _with_batch_size(settings: Settings, prompts: int) -> Settings:
    benchmarks = {name: _with_number(spec, prompts) for name, spec in (settings.benchmark or {}).items()}
    return replace(settings, batch_size=prompts, benchmark=benchmarks)


def _with_number(spec: Plain, prompts: int) -> Plain:
    """A benchmark's settings with a number for `auto`, in those of a benchmark that it is made of (`of`) too."""
    found = {key: _with_number(value, prompts) if isinstance(value, Mapping) else value for key, value in spec.items()}
    return {**found, "batch_size": prompts} if found.get("batch_size") == AUTO else found


def _large(number: int) -> str:
    return f"{number / 1e9:.1f} billion" if number >= 1e8 else f"{number / 1e6:.1f} million"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
