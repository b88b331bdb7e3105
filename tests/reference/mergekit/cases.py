"""What is compared with mergekit: kinds of tensors, and methods with their parameters. Imports torch alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
NAMES = ("base", "one", "two", "three")
BASE, INPUT = "base", "input"  # the first tensor is a base, or one of the inputs that mergekit calls its base

# In every tensor of these kinds mergekit finds nothing to trip over, so all methods are run on them.
SHAPES = {
    "close": (16, 20),  # fine-tunes: a tenth of the base away from it
    "unlike": (16, 20),  # random tensors that have nothing in common with the base: sums that cancel
    "coarse": (16, 20),  # multiples of 1/8: many equal magnitudes
    "same": (4, 16),  # all models equal to the base: no task vector at all
    "opposed": (4, 16),  # the second model is where the first is, on the other side of the base
    "parallel": (4, 16),  # the task vectors are multiples of each other
    "zeros": (4, 8),
    "equal": (4, 8),  # every tensor has one value in all its entries
    "one": (1,),
    "scalar": (),
    "empty": (0,),
    "row": (1, 64),
    "column": (64, 1),
    "vector": (64,),
    "cube": (2, 3, 8),
}
MIDDLE = {"middle": (96, 80)}
# Methods with factors from sums over tensors or rows: in float32 those sums are rounded, and acos makes much of it.
FROM_SUMS = ("slerp", "nuslerp", "multislerp", "karcher", "model_stock", "sce")
MIDDLE_DTYPES = ("bf16", "fp32")
LARGE = {"close": (1000, 1000), "unlike": (1000, 1000)}


@dataclass(frozen=True)
class Settings:
    """A mergekit method with parameters for `count` models, those of a model as a list.

    first: what stands before the models, nothing, the BASE, or (INPUT) a base that is one of the inputs.
    kinds: the kinds of tensors, all where there are none.
    """

    method: str
    count: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    first: str | None = BASE
    kinds: Sequence[str] = ()
    middle: bool = False

    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors in the order in which mergekit gets them."""
        return NAMES[: self.count + 1] if self.first == BASE else NAMES[1 : self.count + 1]


def tensors(kind: str, shape: tuple[int, ...], seed: int) -> dict[str, Tensor]:
    """Base and three models, float32."""
    generator = torch.Generator().manual_seed(seed)

    def normal() -> Tensor:
        return torch.randn(shape, generator=generator)

    base = 0.05 * normal()
    if kind == "unlike":
        return {"base": base, **{name: 0.05 * normal() for name in NAMES[1:]}}
    if kind == "coarse":
        return {name: (2 * normal()).round().clamp(-4, 4) / 8 for name in NAMES}
    if kind == "same":
        return dict.fromkeys(NAMES, base)
    if kind in ("opposed", "parallel"):
        step = (0.0625 * normal()).bfloat16().float()
        base = base.bfloat16().float()
        factors = (1.0, -1.0, 0.5) if kind == "opposed" else (1.0, 2.0, 0.5)
        return {"base": base, **{name: base + by * step for name, by in zip(NAMES[1:], factors, strict=True)}}
    if kind == "zeros":
        return dict.fromkeys(NAMES, torch.zeros(shape))
    if kind == "equal":
        return {name: torch.full(shape, value) for name, value in zip(NAMES, (0.5, 0.75, 0.125, -0.25), strict=True)}
    return {"base": base, **{name: base + 0.005 * normal() for name in NAMES[1:]}}


def dtypes(kind: str) -> tuple[str, ...]:
    """The types of a kind of tensors; fewer for those that take room."""
    return MIDDLE_DTYPES if kind in MIDDLE else tuple(DTYPES)


def sources(kind: str, shape: tuple[int, ...], seed: int) -> dict[tuple[str, str], Tensor]:
    """(type, name) -> tensor: `tensors` in each type."""
    made = tensors(kind, shape, seed)
    return {(short, name): tensor.to(DTYPES[short]) for short in dtypes(kind) for name, tensor in made.items()}


DETERMINISTIC = (
    Settings("linear", 2, {"weight": [0.3, 0.5]}, None),
    Settings("linear", 3, {"weight": [0.2, 0.7, -0.4], "normalize": False}, None),
    Settings("linear", 3, {"weight": [1.0, 0.0, 0.0]}, None),
    Settings("slerp", 2, {"t": 0.3}, INPUT, middle=True),
    Settings("slerp", 2, {"t": 0.85}, INPUT),
    Settings("slerp", 2, {"t": 0.0}, INPUT),
    Settings("nuslerp", 2, {"weight": [0.3, 0.6], "nuslerp_flatten": True, "nuslerp_row_wise": False}, middle=True),
    Settings("nuslerp", 2, {"weight": [0.3, 0.6], "nuslerp_flatten": False, "nuslerp_row_wise": False}),
    Settings("nuslerp", 2, {"weight": [0.3, 0.6], "nuslerp_flatten": False, "nuslerp_row_wise": True}),
    Settings("nuslerp", 2, {"weight": [0.5, 0.25], "nuslerp_flatten": True, "nuslerp_row_wise": False}, None),
    Settings("nuslerp", 2, {"weight": [0.5, 0.25], "nuslerp_flatten": False, "nuslerp_row_wise": False}, None),
    Settings("nuslerp", 2, {"weight": [0.5, 0.25], "nuslerp_flatten": False, "nuslerp_row_wise": True}, None),
    Settings("multislerp", 2, {"weight": [0.3, 0.6]}),
    Settings("multislerp", 3, {"weight": [0.3, 0.6, 0.2]}),
    Settings("multislerp", 3, {"weight": [0.3, 0.6, 0.2], "normalize_weights": False}, None),
    Settings("multislerp", 2, {"weight": [0.5, 0.5]}, None),
    Settings("karcher", 2, {}, None, middle=True),
    Settings("karcher", 3, {}, None),
    Settings("karcher", 3, {"max_iter": 2, "tol": 1e-3}, None),
    Settings("task_arithmetic", 2, {"weight": [0.4, 0.7]}, middle=True),
    Settings("task_arithmetic", 3, {"weight": [0.5, -0.3, 0.8], "normalize": True, "lambda": 0.7}),
    Settings("ties", 2, {"weight": [0.4, 0.7], "density": [0.5, 0.3]}, middle=True),
    Settings("ties", 3, {"weight": [1.0, 1.0, 1.0], "density": [0.2, 0.2, 0.2], "lambda": 0.6}),
    Settings("ties", 3, {"weight": [0.5, -0.3, 0.8], "density": [0.9, 0.5, 0.05], "normalize": False}),
    Settings("breadcrumbs", 2, {"weight": [0.4, 0.7], "density": [0.8, 0.6], "gamma": [0.05, 0.02]}, middle=True),
    Settings(
        "breadcrumbs", 3,
        {"weight": [0.5, 0.3, 0.8], "density": [0.5, 0.5, 0.9], "gamma": [0.1, 0.2, 0.3],
         "normalize": True, "lambda": 0.7},
    ),
    Settings("breadcrumbs_ties", 2, {"weight": [0.4, 0.7], "density": [0.8, 0.6], "gamma": [0.05, 0.02]}, middle=True),
    Settings(
        "breadcrumbs_ties", 3,
        {"weight": [0.5, -0.3, 0.8], "density": [0.5, 0.5, 0.9], "gamma": [0.1, 0.2, 0.3],
         "normalize": True, "lambda": 0.7},
    ),
    Settings("model_stock", 2, {"filter_wise": False}, middle=True),
    Settings("model_stock", 3, {"filter_wise": False}),
    Settings("model_stock", 2, {"filter_wise": True}),
    Settings("model_stock", 3, {"filter_wise": True}),
    Settings("sce", 2, {"select_topk": 0.3}, middle=True),
    Settings("sce", 3, {"select_topk": 0.6}),
    Settings("sce", 2, {"select_topk": 1.0}),
    Settings("ram", 2, {}),
    Settings("ram", 3, {"epsilon": 0.003}),
    Settings("ramplus_tl", 2, {"epsilon": 0.003}, middle=True),
    Settings("ramplus_tl", 3, {"r": 0.3, "alpha": 0.5, "epsilon": 0.005}),
    Settings("nearswap", 1, {"t": 0.001}),
    Settings("nearswap", 1, {"t": 0.02}),
    Settings("arcee_fusion", 1, middle=True),
    Settings("passthrough", 1, {"scale": [0.7]}, None),
    Settings("passthrough", 1, {"scale": [1.0]}, None),
)  # fmt: skip

# Parameters at the edge of what makes sense. `zero` weights, densities of 0 and 1, a single model.
_FEW = ("close", "one", "column")
_NARROW = ("one", "column", "scalar", "empty")
_HALF = {"weight": [0.4, 0.7], "density": [0.5, 0.5], "epsilon": [0.1, 0.1]}
_AVERAGE = {"weight": [0.5, 0.5], "density": [0.5, 0.5], "rescale": True, "normalize": True, "lambda": 0.8}
ODD = (
    Settings("linear", 2, {"weight": [0.0, 0.0]}, None, _FEW),
    Settings("linear", 2, {"weight": [0.0, 0.0], "normalize": False}, None, _FEW),
    Settings("linear", 2, {"weight": [1.0, -1.0]}, None, _FEW),
    Settings("slerp", 2, {"t": 1.0}, INPUT, _FEW),
    Settings("slerp", 2, {"t": 1.5}, INPUT, _FEW),
    Settings("nuslerp", 2, {"weight": [0.0, 0.0]}, BASE, _FEW),
    Settings("nuslerp", 2, {"weight": [1.0, -1.0]}, None, _FEW),
    Settings("multislerp", 2, {"weight": [0.0, 0.0]}, BASE, _FEW),
    Settings("multislerp", 2, {"weight": [0.0, 0.0], "normalize_weights": False}, BASE, _FEW),
    Settings("multislerp", 1, {"weight": [0.5]}, BASE, _FEW),
    Settings("multislerp", 3, {"weight": [1.0, 1.0, 0.0]}, BASE, ("opposed",)),
    Settings("karcher", 1, {}, None, _FEW),
    Settings("task_arithmetic", 2, {"weight": [0.0, 0.0]}, BASE, _FEW),
    Settings("task_arithmetic", 2, {"weight": [1.0, -1.0], "normalize": True}, BASE, _FEW),
    Settings("ties", 2, {"weight": [0.0, 0.0], "density": [0.5, 0.5]}, BASE, _FEW),
    Settings("ties", 2, {"weight": [0.4, 0.7], "density": [0.0, 0.0]}, BASE, _FEW),
    Settings("ties", 2, {"weight": [0.4, 0.7], "density": [0.0, 1.0]}, BASE, _FEW),
    Settings("ties", 1, {"weight": [1.0], "density": [0.001]}, BASE, _FEW),
    Settings("ties", 2, {"weight": [1.0, -1.0], "density": [1.0, 1.0]}, BASE, (*_FEW, "parallel", "same")),
    Settings("breadcrumbs", 2, {"weight": [0.4, 0.7], "density": [0.0, 0.0], "gamma": [0.01, 0.01]}, BASE, _FEW),
    Settings("breadcrumbs", 2, {"weight": [0.4, 0.7], "density": [0.001, 0.5], "gamma": [0.0, 0.0]}, BASE, _FEW),
    Settings("breadcrumbs", 2, {"weight": [0.4, 0.7], "density": [0.5, 0.5], "gamma": [1.0, 0.9]}, BASE, _FEW),
    Settings("breadcrumbs", 2, {"weight": [0.4, 0.7], "density": [1.0, 1.0], "gamma": [0.1, 0.1]}, BASE, _FEW),
    Settings("breadcrumbs_ties", 2, {"weight": [0.4, 0.7], "density": [0.0, 0.5], "gamma": [0.1, 0.1]}, BASE, _FEW),
    Settings("della", 2, {"weight": [0.4, 0.7], "density": [0.0, 0.0], "epsilon": [0.1, 0.1]}, BASE, _FEW),
    Settings("della", 2, {"weight": [0.4, 0.7], "density": [1.0, 1.0], "epsilon": [0.1, 0.1]}, BASE, _FEW),
    Settings("della", 2, {"weight": [0.4, 0.7], "density": [0.9, 0.9], "epsilon": [0.1, 0.1]}, BASE, _FEW),
    Settings("della", 2, {"weight": [0.4, 0.7], "density": [0.05, 0.9], "epsilon": [0.1, 0.05]}, BASE, _FEW),
    Settings("della", 2, _HALF, BASE, _NARROW),
    Settings("della_linear", 2, _HALF, BASE, _NARROW[:2]),
    Settings("della_linear", 2, {"weight": [0.4, 0.7], "density": [0.0, 1.0], "epsilon": [0.1, 0.1]}, BASE, _FEW),
    Settings("dare_linear", 2, {"weight": [0.4, 0.7], "density": [0.0, 0.0]}, BASE, _FEW),
    Settings("dare_linear", 2, {"weight": [0.4, 0.7], "density": [1.0, 1.0]}, BASE, _FEW),
    Settings("dare_ties", 2, {"weight": [0.4, 0.7], "density": [0.0, 1.0]}, BASE, _FEW),
    Settings("dare_ties", 2, {"weight": [0.0, 0.0], "density": [0.5, 0.5]}, BASE, _FEW),
    Settings("model_stock", 1, {}, BASE, _FEW),
    Settings("sce", 2, {"select_topk": 0.0}, BASE, _FEW),
    Settings("sce", 2, {"select_topk": 0.001}, BASE, _FEW),
    Settings("sce", 1, {"select_topk": 0.5}, BASE, _FEW),
    Settings("ram", 1, {}, BASE, _FEW),
    Settings("ramplus_tl", 2, {"epsilon": 0.0}, BASE, _FEW),
    Settings("nearswap", 1, {"t": 0.0}, BASE, (*_FEW, "same")),
    Settings("passthrough", 1, {"scale": [0.0]}, None, _FEW),
)  # fmt: skip

# Random masks: statistics of many merges of (64, 256) tensors, by rank of the magnitude in its row.
RANDOM_SHAPE = (64, 256)
GROUPS = 8
RUNS, BATCHES = 800, 20
RANDOM = (
    Settings("dare_linear", 1, {"weight": [1.0], "density": [0.3], "rescale": True}),
    Settings("dare_linear", 2, {"weight": [0.4, 0.7], "density": [0.6, 0.2], "rescale": False}),
    Settings("dare_ties", 2, {"weight": [0.4, 0.7], "density": [0.6, 0.3], "rescale": True}),
    Settings("dare_ties", 2, _AVERAGE),
    Settings("della", 1, {"weight": [1.0], "density": [0.4], "epsilon": [0.2], "rescale": True}),
    Settings("della", 2, {"weight": [0.4, 0.7], "density": [0.6, 0.3], "epsilon": [0.15, 0.1], "rescale": True}),
    Settings("della_linear", 1, {"weight": [1.0], "density": [0.5], "epsilon": [0.3], "rescale": False}),
    Settings("della_linear", 2, {"weight": [0.4, 0.7], "density": [0.6, 0.3], "epsilon": [0.15, 0.1], "rescale": True}),
)  # fmt: skip


def random_sources(stored: Mapping[str, Tensor]) -> dict[tuple[str, str], Tensor]:
    """(type, name) -> tensor of RANDOM_SHAPE, from int16 numbers of standard deviation 4096: fine-tunes of a base."""
    base = stored["base"].float() * (0.05 / 4096)
    made = {"base": base, **{name: base + stored[name].float() * (0.005 / 4096) for name in ("one", "two")}}
    return {(short, name): tensor.to(dtype) for short, dtype in DTYPES.items() for name, tensor in made.items()}


def magnitude_groups(base: Tensor, one: Tensor) -> Tensor:
    """For each entry the eighth of its row in which the magnitude of the first task vector falls; (64, 256) int64."""
    order = (one.float() - base.float()).abs().argsort(dim=1, stable=True).argsort(dim=1)
    return order * GROUPS // base.shape[1]


class Statistics:
    """Keep rate, mean and variance of merged task vectors by group, with standard errors from batches of runs."""

    def __init__(self, base: Tensor, one: Tensor, full: Tensor) -> None:
        """`full`: the task vector without any dropping, whose sign turns means of entries positive."""
        self.base = base.double()
        self.groups = magnitude_groups(base, one)
        self.sign = full.double().sign()
        self.batches: list[Tensor] = []
        self._begin()

    def _begin(self) -> None:
        self.runs = 0
        self.kept, self.sum, self.squares = (torch.zeros_like(self.base) for _ in range(3))

    def add(self, merged: Tensor) -> None:
        """One merge more."""
        vector = merged.double() - self.base
        self.kept += vector != 0
        self.sum += vector
        self.squares += vector.square()
        self.runs += 1

    def end_batch(self) -> None:
        """The runs since the last batch as one sample of each statistic."""
        mean = self.sum / self.runs
        variance = (self.squares / self.runs - mean.square()) * self.runs / (self.runs - 1)
        rows = [self.kept / self.runs, mean * self.sign, variance]
        self.batches.append(torch.stack([self._by_group(row) for row in rows]))
        self._begin()

    def _by_group(self, row: Tensor) -> Tensor:
        return torch.stack([row[self.groups == group].mean() for group in range(GROUPS)])

    def result(self) -> dict[str, dict[str, list[float]]]:
        """Statistic -> mean and standard error for each group."""
        samples = torch.stack(self.batches)  # (batch, statistic, group)
        mean, error = samples.mean(0), samples.std(0) / len(self.batches) ** 0.5
        return {
            name: {"mean": mean[row].tolist(), "error": error[row].tolist()}
            for row, name in enumerate(("kept", "mean", "variance"))
        }
