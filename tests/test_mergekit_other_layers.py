"""Slices that merge layers of one model with layers of other numbers of another one.

What is expected is put together by hand; mergekit 0.1.5 gave the same for each configuration here.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny_models
from tests.test_mergekit_slices import EDGES, Tensors, average, entry, merged, models, root, slerp

__all__ = ["models", "root"]  # fixtures


def layer(name: str, number: int) -> str:
    return f"model.layers.{number}.{name.split('.', 3)[3]}"


def check(got: Tensors, expected: list[Any]) -> None:
    """`expected`: for each layer of the merge a function of the name of its tensor."""
    for name, tensor in got.items():
        if name.startswith("model.layers."):
            torch.testing.assert_close(tensor, expected[int(name.split(".")[2])](name), rtol=1e-5, atol=1e-6)
    assert {name.split(".")[2] for name in got if name.startswith("model.layers.")} == set(
        map(str, range(len(expected)))
    )


def of(models: dict[str, Tensors], weights: dict[str, tuple[float, int]]) -> Any:
    """The average of layers, by model its weight and the number of its layer."""
    total = sum(weight for weight, _ in weights.values())
    return lambda name: sum(w * models[m][layer(name, n)] for m, (w, n) in weights.items()) / total


def test_each_model_gives_its_own_layers(root: Path, models: dict[str, Tensors], tmp_path: Path) -> None:
    first, last = {"weight": 0.4}, {"weight": 0.6}
    slices = [entry(("one", 0, 2, first), ("two", 2, 4, last)), entry(("one", 2, 4, first), ("two", 0, 2, last))]
    got = merged(root, tmp_path / "out", "linear", slices)
    check(got, [of(models, {"one": (0.4, n), "two": (0.6, (n + 2) % 4)}) for n in range(4)])
    for name in EDGES:
        torch.testing.assert_close(got[name], average(models, name, {"one": 0.4, "two": 0.6}))


def test_gradients_run_over_the_slice_and_filters_look_at_each_models_own_names(
    root: Path, models: dict[str, Tensors], tmp_path: Path
) -> None:
    own = {"weight": [{"filter": "layers.1.", "value": 0.9}, {"value": 0.2}]}
    other = {"weight": [{"filter": "layers.3.", "value": 0.7}, {"value": 0.5}]}
    slices = [
        entry(("one", 0, 2, own), ("two", 2, 4, other)),
        entry(("one", 1, 4, {"weight": [0, 1]}), ("two", 0, 3, {"weight": [0.9, 0.1]})),
    ]
    got = merged(root, tmp_path / "out", "linear", slices)
    pairs = [(0.2, 0, 0.5, 2), (0.9, 1, 0.7, 3), (0.0, 1, 0.9, 0), (0.5, 2, 0.5, 1), (1.0, 3, 0.1, 2)]
    check(got, [of(models, {"one": (w, n), "two": (v, m)}) for w, n, v, m in pairs])


def test_slerp_between_other_layers(root: Path, models: dict[str, Tensors], tmp_path: Path) -> None:
    slices = [entry(("one", 0, 2, None), ("two", 2, 4, None)), entry(("two", 1, 3, None), ("one", 1, 3, None))]
    got = merged(root, tmp_path / "out", "slerp", slices, base_model="ROOT/one", parameters={"t": 0.3})
    got = {name: tensor for name, tensor in got.items() if tensor.dim() == 2}

    def between(one: int, two: int) -> Any:
        return lambda n: slerp(models["one"][layer(n, one)], models["two"][layer(n, two)], 0.3)

    check(got, [between(0, 2), between(1, 3), between(1, 1), between(2, 2)])


@pytest.mark.parametrize("start", [0, 1])
def test_the_base_may_give_other_layers_too(start: int, root: Path, models: dict[str, Tensors], tmp_path: Path) -> None:
    slices = [entry(("base", start, start + 3, None), ("one", 0, 3, {"weight": 0.4}), ("two", 1, 4, {"weight": 0.6}))]
    got = merged(root, tmp_path / "out", "task_arithmetic", slices, base_model="ROOT/base")

    def sums(number: int) -> Any:
        def tensor(name: str) -> torch.Tensor:
            base = models["base"][layer(name, start + number)]
            one, two = models["one"][layer(name, number)], models["two"][layer(name, number + 1)]
            return base + 0.4 * (one - base) + 0.6 * (two - base)

        return tensor

    check(got, [sums(n) for n in range(3)])


def test_models_of_another_type_are_converted(tmp_path: Path) -> None:
    base = tiny_models.save_model(tmp_path / "base", 0, num_hidden_layers=4)
    for seed, (name, dtype) in enumerate((("one", torch.float32), ("two", torch.bfloat16)), 1):
        tiny_models.save_model(tmp_path / name, seed, base=base, dtype=dtype)
    slices = [entry(("one", 0, 2, {"weight": 1.0}), ("two", 2, 4, {"weight": 0.0}))]
    got = merged(tmp_path, tmp_path / "out", "linear", slices, dtype="bfloat16")
    assert {tensor.dtype for tensor in got.values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        ([entry(("one", 0, 2, None), ("two", 1, 4, None))], "as many layers of every model"),
        ([entry(("one", 0, 2, None), ("two", 3, 5, None))], "layers below 4"),
        (
            [entry(("one", 0, 2, None), ("two", 2, 4, None), base_model="ROOT/base")],
            "expected the base .* where it has",
        ),
    ],
)
def test_what_mergekit_refuses_is_refused(slices: list[Any], message: str, root: Path, tmp_path: Path) -> None:
    method = "task_arithmetic" if "base_model" in slices[0] else "linear"
    with pytest.raises(ValueError, match=message):
        merged(root, tmp_path / "out", method, slices, parameters={"weight": 0.5})
