"""What every merge method of conf/merge keeps to; discovery.py says how to run it on a method of your own."""

from collections.abc import Mapping
from dataclasses import replace

import hydra.utils
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evohydra.merging.engine import Engine
from evohydra.merging.methods import resolve
from evohydra.merging.statistics import Found
from evohydra.recipe import Checkpoint, Group, Merge, Parameter
from evohydra.spaces.grouping import Location
from evohydra.spaces.parameter import ParameterSpace
from tests.contracts.discovery import composed, names, settings_of

METHODS = [name for name in names("merge") if "method" in settings_of("merge", name).get("parameter", {})]
NAMES = ("one", "two", "three")
BASE = Checkpoint("base", "-")
SHAPES = {
    "embed": (6, 4), "scalar": (), "single": (1,), "empty": (0,), "hollow": (3, 0), "row": (1, 5), "column": (5, 1),
    "matrix": (16, 12), "cube": (2, 3, 4), "head": (4, 6),
}  # fmt: skip
LOCATIONS = {name: Location("mlp", index % 2) for index, name in enumerate(SHAPES)} | {
    "embed": Location("embeddings"),
    "head": Location("head"),
}
CLOSE = {
    torch.float64: {"rtol": 1e-5, "atol": 1e-6},
    torch.float32: {"rtol": 1e-5, "atol": 1e-6},
    torch.float16: {"rtol": 4e-3, "atol": 4e-3},  # a few roundings of numbers of about 1
    torch.bfloat16: {"rtol": 3e-2, "atol": 3e-2},
}


class Memory:
    """Tensors that are there already."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}

    def read(self, name: str) -> Tensor:
        return self.tensors[name]


def sources(dtype: torch.dtype = torch.float32, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> dict[str, Memory]:
    """A base and three random steps away from it."""
    generator = torch.Generator().manual_seed(7)
    base = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    models = {"base": base}
    for model in NAMES:
        models[model] = {name: t + 0.5 * torch.randn(t.shape, generator=generator) for name, t in base.items()}
    return {model: Memory({n: t.to(dtype) for n, t in tensors.items()}) for model, tensors in models.items()}


class Statistics:
    """What passes over texts might have found; digests are kinds (`Method.reads`). Sums of whole numbers are exact."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = shapes

    def read(self, digest: str, source: str, name: str) -> Found | None:
        shape = self.shapes[name]
        generator = torch.Generator().manual_seed(len(source) * 31 + sum(map(ord, source)))
        if digest == "gradient_squares":
            return Found(torch.randint(0, 1024, shape, generator=generator).square().float())
        if len(shape) != 2 or 0 in shape:
            return None
        x = torch.randint(-512, 512, (64, shape[1]), generator=generator).double()
        x[:, 1:] += x[:, :-1].clone()
        return Found((x.square().mean(dim=0) if digest == "input_squares" else x.T @ x / 64).float())

    def told(self, node: object) -> dict[str, dict[str, dict[str, str]]]:
        return {}


def engine(tensors: Mapping[str, Memory], cache: int = 2**24) -> Engine:
    statistics = Statistics(tensors["one"].shapes)
    return Engine(tensors, device=torch.device("cpu"), cache_bytes=cache, statistics=statistics)


def space(
    name: str,
    locations: Mapping[str, Location] = LOCATIONS,
    base: Checkpoint | None = BASE,
    count: int | None = None,
) -> ParameterSpace:
    """The yaml's own search space over as many models as the method takes."""
    spec = {**settings_of("merge", name)["parameter"]}
    if "statistics" in spec:
        spec["statistics"] = resolve(spec["method"]).reads
    models = tuple(Checkpoint(model, "-") for model in NAMES[: COUNT[name] if count is None else count])
    built: ParameterSpace = hydra.utils.instantiate(spec)(models=models, base=base, locations=locations)
    return built


def takes(name: str) -> int:
    """How many models a method takes: two, if it takes two."""
    for count in (2, 1, 3):
        try:
            engine(sources()).tensor(space(name, count=count).default(), "matrix")
        except ValueError:
            continue
        return count
    raise AssertionError(f"{name} takes neither 1, 2 nor 3 models on a base")


def merged(recipe: Merge, tensors: Mapping[str, Memory]) -> dict[str, Tensor]:
    merger = engine(tensors)
    return {name: merger.tensor(recipe, name) for name in tensors["one"].shapes}


def with_genes(recipe: Merge, **values: float) -> Merge:
    """The recipe with every number of the given genes replaced."""

    def changed(group: Group) -> Group:
        parameters = dict(group.parameters)
        for gene, value in values.items():
            old = parameters[gene]
            parameters[gene] = tuple(value for _ in old) if isinstance(old, tuple) else value
        return replace(group, parameters=parameters)

    return replace(recipe, groups=tuple(changed(group) for group in recipe.groups))


def needs_base(name: str) -> bool:
    try:
        merged(space(name, base=None).default(), sources())
    except ValueError:
        return True
    return False


COUNT = {name: takes(name) for name in METHODS}
WITH_BASE = [name for name in METHODS if needs_base(name)]
GENES = {name: settings_of("merge", name)["parameter"]["genes"] for name in METHODS}
PER_SOURCE = [
    name
    for name in METHODS
    if COUNT[name] > 1 and all(not isinstance(spec, dict) or spec["per"] == "source" for spec in GENES[name].values())
]
ALONE = [name for name in METHODS if "one" in space(name).known_merges()]
UNIFORM = [name for name in METHODS if "uniform" in space(name).known_merges()]


def test_the_suite_has_found_the_methods() -> None:
    assert {"linear", "ties", "dare_ties", "slerp"} <= set(METHODS)
    assert {"task_arithmetic", "ties"} <= set(WITH_BASE)
    assert not {"linear", "slerp"} & set(WITH_BASE)


@pytest.mark.parametrize("choice", ["merge=dare_ties", "merge=regmean", "merge=dfs", "optimizer=cmaes", "optimizer=bo"])
def test_settings_of_a_choice_are_those_of_the_whole_configuration(choice: str) -> None:
    group, name = choice.split("=")
    assert settings_of(group, name) == composed(choice)[group]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ALONE)
def test_one_hot_weights_at_full_density_give_that_source(name: str, dtype: torch.dtype) -> None:
    tensors = sources(dtype)
    for model in NAMES[: COUNT[name]]:
        for tensor, result in merged(space(name).known_merges()[model], tensors).items():
            torch.testing.assert_close(result, tensors[model].read(tensor), **CLOSE[dtype])


@pytest.mark.parametrize("name", UNIFORM)
def test_uniform_gives_the_average_where_signs_and_directions_agree(name: str) -> None:
    """Sign election and great circles differ from the average elsewhere, and are meant to."""
    direction = sources()["one"].tensors
    tensors = {
        model: Memory({name: factor * tensor for name, tensor in direction.items()})
        for model, factor in {"base": 0.5, "one": 1.0, "two": 1.5, "three": 2.0}.items()
    }
    average = {1: 1.0, 2: 1.25, 3: 1.5}[COUNT[name]]
    for tensor, result in merged(space(name).known_merges()["uniform"], tensors).items():
        torch.testing.assert_close(result, average * direction[tensor], **CLOSE[torch.float32])


@pytest.mark.parametrize("name", UNIFORM)
def test_uniform_of_a_model_with_itself_is_that_model(name: str) -> None:
    tensors = sources()
    tensors["two"] = tensors["three"] = tensors["one"]
    for tensor, result in merged(space(name).known_merges()["uniform"], tensors).items():
        torch.testing.assert_close(result, tensors["one"].read(tensor), **CLOSE[torch.float32])


@pytest.mark.parametrize("name", [name for name in WITH_BASE if "weight" in GENES[name]])
def test_zero_weights_give_the_base(name: str) -> None:
    tensors = sources()
    for tensor, result in merged(with_genes(space(name).default(), weight=0.0), tensors).items():
        assert torch.equal(result, tensors["base"].read(tensor))


@pytest.mark.parametrize("name", WITH_BASE)
def test_a_missing_base_is_an_error_that_says_so(name: str) -> None:
    with pytest.raises(ValueError, match="base"):
        merged(space(name, base=None).default(), sources())


@pytest.mark.parametrize("cache", [0, 2**24], ids=["no cache", "cache"])
@pytest.mark.parametrize("name", METHODS)
def test_inputs_are_not_written_to(name: str, cache: int) -> None:
    tensors, untouched = sources(), sources()
    merger = engine(tensors, cache)
    searched = space(name)
    points = np.random.default_rng(3).uniform(0.1, 0.9, (3, len(searched.names)))
    runs = [[merger.tensor(searched.decode(x), tensor).clone() for x in points for tensor in SHAPES] for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    for model, memory in tensors.items():
        for tensor in SHAPES:
            assert torch.equal(memory.read(tensor), untouched[model].read(tensor)), (model, tensor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_results_have_the_shape_and_type_of_the_sources(name: str, dtype: torch.dtype) -> None:
    for tensor, result in merged(space(name).default(), sources(dtype)).items():
        assert result.shape == SHAPES[tensor]
        assert result.dtype == dtype
        assert bool(result.isfinite().all())


@pytest.mark.parametrize("name", METHODS)
def test_large_tensors_merge_like_small_ones(name: str) -> None:
    shapes = {"large": (1031, 1021)}
    tensors = sources(shapes=shapes)
    searched = space(name, {"large": Location("mlp", 0)})
    for model in set(searched.known_merges()) - {"uniform"}:
        result = merged(searched.known_merges()[model], tensors)["large"]
        torch.testing.assert_close(result, tensors[model].read("large"), **CLOSE[torch.float32])
    result = merged(searched.decode(np.full(len(searched.names), 0.5)), tensors)["large"]
    drift = (result - tensors["base"].read("large")).abs().max()
    assert 0 < drift < 10


def backwards(parameters: Mapping[str, Parameter]) -> dict[str, Parameter]:
    return {name: value[::-1] if isinstance(value, tuple) else value for name, value in parameters.items()}


@pytest.mark.parametrize("name", PER_SOURCE)
def test_the_order_of_the_models_does_not_matter(name: str) -> None:
    tensors, searched = sources(), space(name)
    recipe = searched.decode(np.random.default_rng(5).uniform(0.1, 0.9, len(searched.names)))
    groups = tuple(replace(group, parameters=backwards(group.parameters)) for group in recipe.groups)
    turned = replace(recipe, models=recipe.models[::-1], groups=groups, options=backwards(recipe.options))
    swapped = merged(turned, tensors)
    for tensor, result in merged(recipe, tensors).items():
        torch.testing.assert_close(result, swapped[tensor], **CLOSE[torch.float32])


@pytest.mark.parametrize("name", METHODS)
@given(data=st.data())
def test_points_and_recipes_are_each_others_images(name: str, data: st.DataObject) -> None:
    searched = space(name)
    size = len(searched.names)
    x = np.array(data.draw(st.lists(st.floats(0, 1), min_size=size, max_size=size)))
    recipe = searched.decode(x)
    again = searched.encode(recipe)
    assert again.shape == x.shape
    assert searched.values(again) == pytest.approx(searched.values(x), abs=1e-9)
    if not any(
        isinstance(spec, dict) and spec.get("simplex") for spec in GENES[name].values()
    ):  # one recipe is there a whole ray of points
        continuous = np.array([axis.kind == "continuous" for axis in searched.axes])
        np.testing.assert_allclose(again[continuous], x[continuous], atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_landmarks_lie_in_the_search_space(name: str) -> None:
    searched = space(name)
    known = {"sources": [*NAMES[: COUNT[name]]], "uniform": ["uniform"]}
    told = settings_of("merge", name)["parameter"].get("known_merges", ["sources", "uniform"])
    assert list(searched.known_merges()) == [mark for each in told for mark in known[each]]
    for node in searched.known_merges().values():
        point = searched.encode(node)
        assert ((point >= 0) & (point <= 1)).all()
        assert searched.decode(point) == node


@pytest.mark.parametrize("name", METHODS)
@given(data=st.data())
def test_every_corner_of_the_cube_merges_or_is_a_user_error(name: str, data: st.DataObject) -> None:
    """Generations hold corners: what a corner may not do is crash the run (search catches these two alone)."""
    searched, tensors = space(name), sources()
    size = len(searched.names)
    x = np.array(data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=size, max_size=size)))
    try:
        results = merged(searched.decode(x), tensors)
    except (ArithmeticError, ValueError):
        return
    assert all(bool(result.isfinite().all()) for result in results.values())
