"""A path as a plain checkpoint: one layer for each hop, scales folded into its weights."""

import math
import re
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from evohydra.checks.patterns import matches_whole
from evohydra.recipe import Node, Stack

Shapes = Mapping[str, tuple[int, ...]]


def plain_shapes(path: Stack, sources: Sequence[Shapes]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor, given those of each source; ValueError for a layer that a source lacks."""
    prefix = f"{path.layout.layers}."
    shapes = {name: shape for name, shape in sources[0].items() if not name.startswith(prefix)}
    for number, hop in enumerate(path.hops):
        layer = f"{prefix}{hop.layer}."
        found = {n.removeprefix(layer): shape for n, shape in sources[hop.source].items() if n.startswith(layer)}
        if not found:
            raise ValueError(f"hop {number}: source {hop.source} has no layer {hop.layer}")
        shapes |= {f"{prefix}{number}.{rest}": shape for rest, shape in found.items()}
    return shapes


def plain_tensor(path: Stack, name: str, read: Callable[[Node, str], Tensor]) -> Tensor:
    """One tensor, as `read(source, its name there)` gives it where nothing scales it."""
    place = re.fullmatch(rf"{re.escape(path.layout.layers)}\.(\d+)\.(.+)", name)
    if place is None:
        return _scaled(read(path.sources[0], name), _edge_factor(path, name), 0.0)
    number, rest = int(place[1]), place[2]
    hop = path.hops[number]
    tensor = read(path.sources[hop.source], f"{path.layout.layers}.{hop.layer}.{rest}")
    if path.scaling == "stream" and matches_whole(path.layout.readers, rest, "layout.readers"):
        return _scaled(tensor, _stream_scale(path, number), 0.0)
    return _scaled(tensor, _branch_factor(path, number, rest), path.layout.offset)


def factors(path: Stack) -> tuple[list[float], list[float]]:
    """For each hop what multiplies its input, and what multiplies the output of its MLP."""
    scales = [hop.scale for hop in path.hops]
    if path.scaling == "stream":
        return scales, [1.0] * len(scales)
    return [scales[0]] + [1.0] * (len(scales) - 1), [*scales[1:], 1.0]


def why_not_plain(path: Stack) -> str | None:
    """Why the path cannot be written with its scales in the weights; None where it can."""
    if path.scaling == "stream" and any(hop.scale <= 0 for hop in path.hops):
        return "scales of the whole stream can be put into weights only where they are positive"
    return None


def _edge_factor(path: Stack, name: str) -> float:
    """What a tensor outside of layers is multiplied by: the embeddings by the first scale, others not."""
    scaled = path.scaling == "branch" and matches_whole(path.layout.embeddings, name, "layout.embeddings")
    return path.hops[0].scale if scaled else 1.0


def _branch_factor(path: Stack, number: int, rest: str) -> float:
    """What tensor `rest` of hop `number` is multiplied by.

    branch: the scale of hop t + 1 multiplies what the MLP of hop t adds to the stream, and nothing else does. stream:
    layers see the stream through norms, which take its length away. So instead of multiplying it by the scales so far,
    what each branch adds is divided by them (exact but for the epsilon of the norms), and what reads the stream
    without a norm is multiplied by them.
    """
    is_mlp = matches_whole(path.layout.mlp, rest, "layout.mlp")
    if path.scaling == "branch":
        return path.hops[number + 1].scale if is_mlp and number + 1 < len(path.hops) else 1.0
    if not is_mlp and not matches_whole(path.layout.attention, rest, "layout.attention"):
        return 1.0
    return 1 / _stream_scale(path, number)


def _stream_scale(path: Stack, number: int) -> float:
    return math.prod(hop.scale for hop in path.hops[: number + 1])


def _scaled(tensor: Tensor, factor: float, offset: float) -> Tensor:
    if factor == 1.0:
        return tensor
    return ((tensor.double() + offset) * factor - offset).to(tensor.dtype)
