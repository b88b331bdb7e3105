"""Every merge method against results of mergekit itself, made by mergekit/make_fixtures.py.

What mergekit computes differently on purpose or by accident is listed in `OURS`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from evohydra.merging.methods.arcee_fusion import EPSILON
from tests.reference.mergekit.cases import DTYPES, FROM_SUMS, random_sources
from tests.reference.mergekit.compare import (
    COUNTERPARTS,
    WHAT_IS_KEPT,
    apart,
    choices,
    merge,
    sce_with,
    selected,
    statistics,
    trimmed,
    ulps,
    units,
)

HERE = Path(__file__).parent / "mergekit"
CASES: list[dict[str, Any]] = json.loads((HERE / "cases.json").read_text())["cases"]
PLAIN = sorted({(case["name"], short) for case in CASES for short in case["results"] if case["kind"] != "random"})
RANDOM = [case for case in CASES if case["kind"] == "random"]
RUNS = 200  # of ours: a quarter of mergekit's, whose errors are added

# The names of cases that evohydra refuses with a ValueError where mergekit gives numbers, and why.
OURS = {
    "task_arithmetic-57": "weights that sum to 0 cannot be normalized; mergekit leaves them, or in float16 gives NaN"
}


@pytest.fixture(scope="module")
def inputs() -> dict[str, Tensor]:
    return load_file(HERE / "inputs.safetensors")


@pytest.fixture(scope="module")
def outputs() -> dict[str, Tensor]:
    return load_file(HERE / "outputs.safetensors")


@pytest.fixture(scope="module")
def drawn() -> dict[tuple[str, str], Tensor]:
    return random_sources({key.split("/")[1]: t for key, t in load_file(HERE / "random.safetensors").items()})


def of(name: str) -> list[dict[str, Any]]:
    return [case for case in CASES if case["name"] == name and case["kind"] != "random"]


def given(case: Mapping[str, Any], short: str, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    return [inputs[f"{case['kind']}/{short}/{name}"].clone() for name in case["inputs"]]


def piece(output: Tensor, start: int, like: Tensor) -> Tensor:
    return output[start : start + like.numel()].view(like.shape)


def far(one: Tensor, other: Tensor, tensors: list[Tensor], among: Tensor | None = None) -> int:
    """The largest distance in units in the last place, of all entries or of those where `among`."""
    distance = apart(one, other, tensors) if among is None else apart(one, other, tensors)[among]
    return int(distance.max()) if distance.numel() else 0


def complaint(
    case: Mapping[str, Any], tensors: list[Tensor], expected: Tensor, double: Tensor | None = None
) -> str | None:
    """What is wrong with evohydra's merge of a case, None where nothing is."""
    merged = merge(case, tensors)
    if merged.shape != expected.shape or merged.dtype != expected.dtype:
        return f"{merged.dtype} of {tuple(merged.shape)} for {expected.dtype} of {tuple(expected.shape)}"
    if not bool(merged.isfinite().all()):
        return "not finite"
    distance = far(merged, expected, tensors)
    if distance <= 1:
        return None
    if case["method"] in FROM_SUMS and merged.dtype == torch.float32:
        exact = expected if double is None else double
        theirs, ours = (float(units(result, exact, tensors).max()) for result in (expected, merged))
        if ours <= max(4.0, 2 * theirs):
            return None
    if case["method"] in WHAT_IS_KEPT:
        return trimming_complaint(case, tensors, merged, expected)
    if case["method"] == "sce" and bool(selected(case, tensors)[1].any()):
        return selection_complaint(case, tensors, merged, expected)
    if case["method"] == "arcee_fusion" and merged.dtype == torch.float32:
        return fusion_complaint(tensors, merged, expected)
    return f"{distance} units in the last place apart"


def fusion_complaint(tensors: list[Tensor], merged: Tensor, expected: Tensor) -> str | None:
    base, model = tensors
    p, q = (torch.softmax(x.double(), dim=-1) + EPSILON for x in (model, base))
    terms, change = p * torch.log(p / q), (model.double() - base.double()).abs()
    importance = change * terms.sum(dim=-1, keepdim=True)
    # Of a row: an epsilon of each softmax's total, in all terms alike; what each term has of its own is a random walk.
    walk = (p.square() + terms.square()).sum(dim=-1, keepdim=True).sqrt()
    wrong = change * torch.finfo(torch.float32).eps * (2 + 4 * walk)
    low, middle, high = (
        torch.stack([(importance + side * wrong).reshape(-1).sort().values[k * (len(base.reshape(-1)) - 1) // 4]
                     for side in (-1, 1)])
        for k in (1, 2, 3)
    )  # fmt: skip
    least, most = middle + 1.5 * (high - low.flip(0))
    open_ = (importance + wrong >= least) & (importance - wrong <= most)
    if float(open_.float().mean()) > 0.2:
        return f"{int(open_.sum())} of {open_.numel()} entries are at the threshold, too many to tell"
    taken = base + (model - base)
    for whose, result in (("mergekit's", expected), ("evohydra's", merged)):
        sure = torch.where(importance > most, taken, base)
        right = torch.where(open_, (result == taken) | (result == base), result == sure)
        if not bool(right.all()):
            return f"{whose} choice is wrong in {int((~right).sum())} entries that are not at the threshold"
    return None


def trimming_complaint(case: Mapping[str, Any], tensors: list[Tensor], merged: Tensor, expected: Tensor) -> str | None:
    tied = torch.stack([tied for _, tied in trimmed(case, tensors)]).any(0)
    if (distance := far(merged, expected, tensors, ~tied)) > 1:
        return f"{distance} units in the last place apart where no magnitudes tie"
    possible = list(choices(case, tensors))
    for whose, result in (("mergekit's", expected), ("evohydra's", merged)):
        nearest = torch.stack([apart(result, choice, tensors) for choice in possible]).amin(0)
        if int(nearest.max()) > 1:
            return f"{whose} result is that of no choice among equal magnitudes"
    return None


def selection_complaint(case: Mapping[str, Any], tensors: list[Tensor], merged: Tensor, expected: Tensor) -> str | None:
    sure, tied, count = selected(case, tensors)
    for whose, result in (("mergekit's", expected), ("evohydra's", merged)):
        taken = tied & (result != tensors[0])
        if int(taken.sum()) > count:
            return f"{whose} selection takes {int(taken.sum())} of {int(tied.sum())} equal variances, not {count}"
        if (distance := far(sce_with(case, tensors, sure | taken), result, tensors)) > 1:
            return f"{whose} result is {distance} units in the last place from evohydra's of the same selection"
    return None


@pytest.mark.parametrize(("name", "short"), PLAIN)
def test_a_merge_is_mergekits(name: str, short: str, inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> None:
    """Every entry is equal to mergekit's or its neighbour in the type of the checkpoints, on every kind of tensors.

    Where terms cancel, differences of two float32 units in the last place of the largest term are as good (`apart`).
    Methods with sums over tensors or rows in them (FROM_SUMS): in float32 it is as good to be four such units from what
    mergekit gives for the same numbers as float64, or twice as far as mergekit's own float32 is.

    Where trimming (ties, breadcrumbs, breadcrumbs_ties) cuts through equal magnitudes, mergekit's choice among them is
    that of an unstable sort. There each entry that does not tie must be equal or a neighbour; and each result, ours and
    mergekit's, must be what keeping or dropping each tied entry gives, to one unit. Where sce selects among equal
    variances, both must take as many of them as there is room for, and each must be evohydra's merge of what it took.

    arcee_fusion takes what is at least as important as a threshold. In float32 the last bits of importances, which rest
    on exponentials and logarithms, depend on the processor, in mergekit as here: entries that are nearer to the
    threshold than these errors may be the base's or the model's, and both results must be right in all others.

    Where mergekit raises or gives NaN, evohydra gives finite numbers or a ValueError or an ArithmeticError.
    """
    complaints = []
    for case in of(name):
        if short not in case["results"]:
            continue
        tensors = given(case, short, inputs)
        result = case["results"][short]
        if "start" in result:
            expected = piece(outputs[f"{name}/{short}"], result["start"], tensors[0])
            double = piece(outputs[f"{name}/fp64"], result["double"], tensors[0]) if "double" in result else None
            try:
                problem = complaint(case, tensors, expected, double)
            except (ValueError, ArithmeticError) as error:
                problem = None if name in OURS else f"{type(error).__name__}: {error}"
            except (RuntimeError, IndexError, TypeError) as error:
                problem = f"{type(error).__name__}: {error}"
        else:
            try:
                problem = None if bool(merge(case, tensors).isfinite().all()) else "not finite, without an error"
            except (ValueError, ArithmeticError):
                problem = None
            except (RuntimeError, IndexError, TypeError) as error:
                problem = f"{type(error).__name__}: {error}"
        if problem:
            complaints.append(f"{case['kind']} {case['parameters']}: {problem}")
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("short", DTYPES)
@pytest.mark.parametrize("case", RANDOM, ids=lambda case: str(case["name"]))
def test_random_masks_have_mergekits_distribution(case: dict[str, Any], short: str, drawn: dict[Any, Tensor]) -> None:
    """Keep rate, mean and variance of the merged task vector are mergekit's, within five standard errors.

    For each eighth of the magnitudes of a row: DELLA keeps large entries more often than small ones.
    """
    tensors = [drawn[short, name] for name in case["inputs"]]
    ours = statistics(case, tensors, RUNS)
    complaints = []
    for name, theirs in case["results"][short]["statistics"].items():
        for group, (mean, error) in enumerate(zip(theirs["mean"], theirs["error"], strict=True)):
            allowed = 5 * (error**2 + ours[name]["error"][group] ** 2) ** 0.5 + 1e-9
            if abs(ours[name]["mean"][group] - mean) > allowed:
                complaints.append(f"{name} {group}: {ours[name]['mean'][group]:.6g} for {mean:.6g} +- {allowed:.2g}")
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("short", DTYPES)
def test_the_distance_counts_numbers(short: str) -> None:
    """From one number of the type to the next is 1, also across zero; 0 and -0 are the same."""
    dtype = DTYPES[short]
    start = torch.tensor([1.0, -1.0, 0.0, 2.0], dtype=dtype)
    after = torch.nextafter(start.float(), torch.tensor(9.0)) if dtype == torch.float32 else None
    if after is None:
        after = (start.view(torch.int16) + torch.tensor([1, -1, 1, 1], dtype=torch.int16)).view(dtype)
    assert ulps(start, after).tolist() == [1, 1, 1, 1]
    assert ulps(torch.tensor([0.0], dtype=dtype), torch.tensor([-0.0], dtype=dtype)).tolist() == [0]
    smallest = torch.tensor([1], dtype=torch.int16 if dtype.itemsize == 2 else torch.int32).view(dtype)
    assert ulps(smallest, -smallest).tolist() == [2]


def test_every_method_of_mergekit_is_compared() -> None:
    """The table of counterparts and the cases name the same methods."""
    assert {case["method"] for case in CASES} == set(COUNTERPARTS)
