"""evohydra's side of the comparison with mergekit: which function a method is, and how far apart two results are."""

import itertools
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.reference.mergekit.cases import BASE, BATCHES, Statistics

RENAMED = {"lambda": "scaling"}
SHARED = {"scale": lambda values: values[0], "rescale": lambda wanted: "l1" if wanted else "none"}


@dataclass(frozen=True)
class Counterpart:
    """The evohydra function of a mergekit method, and mergekit's defaults where ours are other ones or none."""

    path: str
    defaults: Mapping[str, Any]
    of_models: Mapping[str, float]  # defaults of parameters with a number for each model

    def arguments(self, parameters: Mapping[str, Any], count: int) -> dict[str, Any]:
        """Keyword parameters of the function."""
        merged = {**self.defaults, **{key: [value] * count for key, value in self.of_models.items()}, **parameters}
        return {RENAMED.get(key, key): SHARED.get(key, lambda x: x)(value) for key, value in merged.items()}


def _at(path: str, defaults: Mapping[str, Any] | None = None, **of_models: float) -> Counterpart:
    return Counterpart(f"evohydra.merging.methods.{path}", defaults or {}, of_models)


COUNTERPARTS = {
    "linear": _at("linear:linear", {"normalize": True}),
    "slerp": _at("slerp:slerp"),
    "nuslerp": _at("nuslerp:nuslerp", {"nuslerp_flatten": True, "nuslerp_row_wise": False}),
    "multislerp": _at("multislerp:multislerp", {"normalize_weights": True}),
    "karcher": _at("karcher:karcher", {"max_iter": 10, "tol": 1e-5}, weight=1.0),
    "task_arithmetic": _at("task_arithmetic:task_arithmetic", {"normalize": False, "lambda": 1.0}),
    "ties": _at("ties:ties", {"normalize": True, "lambda": 1.0}, density=1.0),
    "dare_linear": _at("dare:dare_linear", {"normalize": False, "rescale": True, "lambda": 1.0}, density=1.0),
    "dare_ties": _at("dare:dare_ties", {"normalize": False, "rescale": True, "lambda": 1.0}, density=1.0),
    "breadcrumbs": _at("breadcrumbs:breadcrumbs", {"normalize": False, "lambda": 1.0}, density=1.0, gamma=0.01),
    "breadcrumbs_ties": _at(
        "breadcrumbs:breadcrumbs_ties", {"normalize": False, "lambda": 1.0}, density=1.0, gamma=0.01
    ),
    "della": _at("della:della", {"normalize": True, "rescale": True, "lambda": 1.0}, density=1.0, epsilon=0.15),
    "della_linear": _at(
        "della:della_linear", {"normalize": False, "rescale": True, "lambda": 1.0}, density=1.0, epsilon=0.15
    ),
    "model_stock": _at("model_stock:model_stock", {"filter_wise": False}),
    "sce": _at("sce:sce", {"select_topk": 1.0}),
    "ram": _at("ram:ram", {"epsilon": 1e-5}),
    "ramplus_tl": _at("ram:ramplus_tl", {"r": 0.1, "alpha": 0.2, "epsilon": 1e-5}),
    "nearswap": _at("nearswap:nearswap"),
    "arcee_fusion": _at("arcee_fusion:arcee_fusion"),
    "passthrough": _at("passthrough:passthrough"),
}
WITH_STREAMS = {"dare_linear", "dare_ties", "della", "della_linear"}
WHAT_IS_KEPT = {"ties": "ties", "breadcrumbs": "task_arithmetic", "breadcrumbs_ties": "ties"}


def merge(case: Mapping[str, Any], inputs: Sequence[Tensor], stream: int = 0) -> Tensor:
    """evohydra's merge of a case."""
    base, models = (inputs[0], inputs[1:]) if case["first"] == BASE else (None, inputs)
    counterpart = COUNTERPARTS[case["method"]]
    arguments = counterpart.arguments(case["parameters"], len(models))
    if case["method"] in WITH_STREAMS:
        arguments["streams"] = [(stream * 1000003 + 7919 * k) % 2**32 - 2**31 for k in range(len(models))]
    function: Callable[..., Tensor] = pkgutil.resolve_name(counterpart.path)
    return function(base, list(models), **arguments)


def ulps(one: Tensor, other: Tensor) -> Tensor:
    """How many steps from number to number of their type lie between the entries, int64; 0 and -0 are the same."""
    assert one.dtype == other.dtype
    kind = torch.int16 if one.dtype.itemsize == 2 else torch.int32
    lowest = torch.iinfo(kind).min
    ordered = [x.contiguous().view(kind).long() for x in (one, other)]
    first, second = (torch.where(x < 0, lowest - x, x) for x in ordered)
    return (first - second).abs()


def units(one: Tensor, other: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """The difference in float32 units in the last place of the largest entry merged or given, float64."""
    largest = torch.stack([*inputs, other]).float().abs().amax(0)
    unit = torch.nextafter(largest, torch.tensor(torch.inf)) - largest
    return (one.double() - other.double()).abs() / unit.double()


def apart(result: Tensor, expected: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """`ulps`, but at most 1 where the difference is up to two `units`.

    Sums in float32 are exact to the last place of their largest term and not of what is left when terms cancel:
    mergekit's own results change there with the order of a sum or a fused multiply-add, by processor and threads.
    """
    distance = ulps(result, expected)
    return torch.where(units(result, expected, inputs) <= 2, distance.clamp(max=1), distance)


def trimmed(case: Mapping[str, Any], inputs: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """For each model which entries of its task vector trimming keeps, and which are equal to one at the cut.

    Of the latter as many are kept as there is room for, and which ones is the sort's business: empty where all or none
    of them are kept.
    """
    base, models = inputs[0], inputs[1:]
    settings = COUNTERPARTS[case["method"]].arguments(case["parameters"], len(models))
    result = []
    for position, model in enumerate(models):
        magnitude = (model - base).abs().float()
        density = settings["density"][position]
        size = magnitude.numel()
        if density >= 1.0 or size == 0:
            result.append((torch.ones_like(magnitude, dtype=torch.bool), torch.zeros_like(magnitude, dtype=torch.bool)))
            continue
        if case["method"] == "ties":
            kept = max(1, int(density * size)) if density > 0 else 0
            start = size - kept
        else:
            kept = int(density * size)
            start = max(0, size - kept - int(settings["gamma"][position] * size))
        order = magnitude.reshape(-1).sort().values
        inside = torch.zeros_like(magnitude, dtype=torch.bool)
        tied = torch.zeros_like(magnitude, dtype=torch.bool)
        if kept:
            low, high = order[start], order[start + kept - 1]
            inside = (magnitude >= low) & (magnitude <= high)
            if start > 0 and order[start - 1] == low:
                tied |= magnitude == low
            if start + kept < size and order[start + kept] == high:
                tied |= magnitude == high
        result.append((inside & ~tied, tied))
    return result


def choices(case: Mapping[str, Any], inputs: Sequence[Tensor]) -> Iterator[Tensor]:
    """evohydra's merges with what trimming keeps, and all or none of each model's entries that tie at the cut."""
    base, models = inputs[0], inputs[1:]
    kept = trimmed(case, inputs)
    parameters = {key: value for key, value in case["parameters"].items() if key not in ("density", "gamma")}
    if case["method"] == "breadcrumbs_ties":
        parameters = {"normalize": False, **parameters}
    dense = {**case, "method": WHAT_IS_KEPT[case["method"]], "parameters": parameters}
    for wanted in itertools.product(*([False, True] if bool(tied.any()) else [False] for _, tied in kept)):
        yield merge(
            dense,
            [
                base,
                *(
                    torch.where(certain | (tied & choice), model, base)
                    for model, (certain, tied), choice in zip(models, kept, wanted, strict=True)
                ),
            ],
        )


def selected(case: Mapping[str, Any], inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor, int]:
    """Of sce: which entries its selection takes for sure, which tie at its end, and how many of those are taken."""
    vectors = torch.stack([model - inputs[0] for model in inputs[1:]])
    variance = torch.var(vectors, dim=0, correction=0)
    density = COUNTERPARTS["sce"].arguments(case["parameters"], len(vectors))["select_topk"]
    count = int(int(torch.count_nonzero(variance)) * density)
    none = torch.zeros_like(variance, dtype=torch.bool)
    if density >= 1.0:
        return ~none, none, 0
    if count == 0:
        return none, none, 0
    end = variance.reshape(-1).topk(count).values[-1]
    above, tied = variance > end, variance == end
    missing = count - int(above.sum())
    return (above | tied, none, 0) if missing == int(tied.sum()) else (above, tied, missing)


def sce_with(case: Mapping[str, Any], inputs: Sequence[Tensor], selection: Tensor) -> Tensor:
    """evohydra's SCE of these entries alone."""
    base = inputs[0]
    dense = {**case, "parameters": {"select_topk": 1.0}}
    return merge(dense, [base, *(torch.where(selection, model, base) for model in inputs[1:])])


def statistics(case: Mapping[str, Any], inputs: Sequence[Tensor], runs: int) -> dict[str, dict[str, list[float]]]:
    """Keep rate, mean and variance over many merges, each with streams of its own."""
    dense = {**case, "parameters": {**case["parameters"], "density": [1.0] * (len(inputs) - 1)}}
    collected = Statistics(inputs[0], inputs[1], merge(dense, inputs) - inputs[0])
    for batch in range(BATCHES):
        for run in range(runs // BATCHES):
            collected.add(merge(case, inputs, stream=1 + batch * runs + run))
        collected.end_batch()
    return collected.result()
