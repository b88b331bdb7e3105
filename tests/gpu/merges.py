"""Merges of every method on the device against those on the CPU, which are the ones whose bits are promised."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evohydra.merging.engine import Engine
from evohydra.recipe import Node
from evohydra.spaces.grouping import Location
from tests.contracts.test_methods import METHODS, Memory, Statistics, space
from tests.gpu.findings import Finding
from tests.weights_worker import SHAPES, sources

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Roundings of a merged entry, each half a step of the largest number at most: base, three task vectors, their weights,
# sums and quotients are fewer than 16. On a GPU a product may be contracted with a sum, which leaves out a rounding.
ROUNDINGS = 16
# Of singular vectors and matrix products each sum is over the longer side of a matrix, and a step of a singular value
# moves its vectors: a backward-stable factorisation of n x m is right to some n + m roundings.
FACTORS = {
    "tsv_m", "iso_c", "iso_cts", "wudi", "boosted_consensus", "boosted_task_arithmetic", "boosted_ties", "knots",
    "core_space", "knots_dare_ties", "core_space_dare_ties", "regmean", "regmean_plus_plus",
}  # fmt: skip
# An entry at the threshold of an importance, which exponentials and logarithms decide, may fall on the other side.
THRESHOLDS = {"arcee_fusion"}
AT_THRESHOLD = 1e-3  # of all entries


@dataclass(frozen=True)
class Distance:
    """Between a merge on the device and on the CPU, in half steps of the largest number that takes part.

    same: whether all bits are. beyond: the share of entries that are further apart than `ROUNDINGS`.
    """

    same: bool
    farthest: float
    beyond: float


def distance(here: Tensor, cpu: Tensor, operands: Sequence[Tensor]) -> Distance:
    """Of one tensor; all on the CPU, the merges in the type of the operands."""
    same = bool(torch.equal(here + 0.0, cpu + 0.0))  # -0 is 0
    if not cpu.numel() or same:
        return Distance(True, 0.0, 0.0)
    largest = max(float(each.abs().max()) for each in (cpu, *operands))
    half = torch.finfo(cpu.dtype).eps / 2 * max(largest, torch.finfo(cpu.dtype).tiny)
    apart = (here.double() - cpu.double()).abs() / half
    return Distance(False, float(apart.max()), float((apart > ROUNDINGS).double().mean()))


def allowed(method: str) -> float:
    """How many half steps apart rounding explains."""
    return ROUNDINGS * sum(SHAPES["matrix"]) if method in FACTORS else ROUNDINGS


def merged(node: Node, tensors: Mapping[str, Memory], device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Merged into parameters on the device, as a search does; given back on the CPU."""
    engine = Engine(tensors, device=device, dtype=dtype, cache_bytes=2**26, statistics=Statistics(SHAPES))
    found = {}
    for _ in range(2):  # the second time from what is kept
        parameters = {name: torch.zeros(shape, dtype=dtype, device=device) for name, shape in SHAPES.items()}
        engine.merge_into(node, parameters)
        again = {name: tensor.cpu() for name, tensor in parameters.items()}
        if found and any(not torch.equal(found[name], again[name]) for name in found):
            raise AssertionError("a merge from what is kept has other bits than the first one")
        found = again
    return found


def nodes(method: str) -> list[Node]:
    """The default merge of a method and two drawn ones."""
    searched = space(method, {name: Location("mlp", index % 2) for index, name in enumerate(SHAPES)})
    generator = np.random.default_rng(3)
    drawn = [searched.decode(generator.random(len(searched.names))) for _ in range(2)]
    return [searched.default(), *drawn]


def compared(method: str, device: torch.device, dtype: torch.dtype) -> Distance:
    """The largest distances over three merges and all tensors."""
    tensors = sources(dtype)
    found = []
    for node in nodes(method):
        cpu = merged(node, tensors, torch.device("cpu"), dtype)
        here = merged(node, tensors, device, dtype)
        for name in SHAPES:
            found.append(distance(here[name], cpu[name], [each.read(name) for each in tensors.values()]))
    return Distance(
        all(each.same for each in found), max(each.farthest for each in found), max(each.beyond for each in found)
    )


def judged(method: str, dtype: str, found: Distance) -> Finding:
    """Whether a distance is one that rounding explains."""
    if method in THRESHOLDS:
        expected, passed = f"at most {AT_THRESHOLD:.1%} of entries beyond rounding", found.beyond <= AT_THRESHOLD
    else:
        expected, passed = f"at most {allowed(method):.0f} half steps", found.farthest <= allowed(method)
    told = "the same bits" if found.same else f"{found.farthest:.2g} half steps, {found.beyond:.2%} of entries beyond"
    figures = {"same_bits": found.same, "half_steps": found.farthest, "beyond": found.beyond}
    return Finding("merge", f"`{method}`, {dtype}", expected, told, passed, figures)


def checks(device: torch.device, methods: Sequence[str] = tuple(METHODS)) -> Iterator[Finding]:
    """Every method in every type; a method that fails is a finding, too."""
    for name, dtype in DTYPES.items():
        for method in methods:
            try:
                yield judged(method, name, compared(method, device, dtype))
            except Exception as error:
                yield Finding("merge", f"`{method}`, {name}", "a merge", f"{type(error).__name__}: {error}", False)
