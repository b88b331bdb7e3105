"""What an inference engine (vLLM) costs: seconds where answers that end make room for others, and the memory inside."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from evohydra.planning.cost import Asked, Rate, Shape, language_rate
from evohydra.planning.devices import Device

ACTIVATIONS = 1e9  # bytes that it takes beside weights, keys and values


@dataclass(frozen=True)
class Serving:
    """What an engine is told: texts at once, its share of a GPU's memory, and bytes for keys and values on a CPU.

    libraries: bytes of a process that has imported it, besides.
    """

    sequences: int
    share: float
    cache: float
    libraries: float


def served_rate(shape: Shape, asked: Asked, device: Device, texts: int, job: float = math.inf) -> Rate:
    """How fast a language model answers, from the device's figures, where an engine works on so many texts at once.

    An answer that has ended makes room for the next one, so that answers of the mean length count; at the end of a
    genome the longest one goes on alone. `job` examples are asked of a model at once.
    """
    if not asked.writes:
        return language_rate(shape, asked, device, texts, job)
    rate = language_rate(shape, replace(asked, longest=asked.answer), device, texts, job)
    rest = replace(asked, longest=max(0.0, asked.longest - asked.answer))
    return replace(rate, per_job=language_rate(shape, rest, device, 1).per_batch if rest.longest else 0.0)


def inside(weights: float, cached: float, length: float, serving: Serving, *, on_gpu: bool) -> Mapping[str, float]:
    """Bytes of what an engine holds: texts of `length` tokens with answers, each token of `cached` bytes."""
    held = serving.sequences * length * cached if on_gpu else serving.cache
    return {"weights": weights, "keys and values": held, **({"activations": ACTIVATIONS} if on_gpu else {})}
