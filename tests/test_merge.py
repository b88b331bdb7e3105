"""The engine: what it writes into a live model is what it gives tensor by tensor, and what is not finite is named."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evohydra.families.causal_lm import CausalLM
from evohydra.families.declared import Source, checkpoints
from evohydra.families.sources import OpenSources, open_sources
from evohydra.merging.engine import Engine, MergeError
from evohydra.recipe import Checkpoint, Group, Merge
from tests.contracts.test_methods import Memory
from tests.tiny_models import save_trio

METHODS = {
    "linear:linear": {"weight": (0.4, 0.9)},
    "task_arithmetic:task_arithmetic": {"weight": (0.4, 1.3)},
    "ties:ties": {"weight": (0.4, 0.9), "density": (0.3, 0.7)},
    "dare:dare_ties": {"weight": (0.4, 0.9), "density": (0.3, 0.7)},
}


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OpenSources:
    base, *models = save_trio(tmp_path_factory.mktemp("models"), tie_word_embeddings=request.param)
    sources = {model.name: Source(str(model), "", str(base)) for model in models}
    return open_sources(*checkpoints(sources), CausalLM())


def recipe(opened: OpenSources, method: str, parameters: dict[str, tuple[float, ...]]) -> Merge:
    names = sorted(opened.tensors["one"].shapes)
    groups = (Group("first", tuple(names[::2]), parameters), Group("second", tuple(names[1::2]), parameters))
    return Merge(f"evohydra.merging.methods.{method}", opened.base, opened.models, groups, {"mask_seed": 3})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cache", [0, 2**20])
def test_a_live_model_holds_the_tensors_of_the_recipe_bit_for_bit(opened: OpenSources, method: str, cache: int):
    node = recipe(opened, method, METHODS[method])
    live = CausalLM().live_model(Path(opened.directories["one"]), torch.device("cpu"), torch.float32)
    Engine(opened.tensors, device=torch.device("cpu"), dtype=torch.float32, cache_bytes=cache).merge_into(
        node, live.parameters
    )
    alone = Engine(opened.tensors, device=torch.device("cpu"), dtype=torch.float32, cache_bytes=0)
    assert live.parameters
    for name, parameter in live.parameters.items():
        assert torch.equal(parameter, alone.tensor(node, name)), name
        assert not torch.equal(parameter, opened.tensors["one"].read(name)), name


@pytest.mark.parametrize("method", ["linear:linear", "dare:dare_ties"])
def test_a_merge_that_is_not_finite_is_refused_by_name(opened: OpenSources, method: str):
    parameters = {**METHODS[method], "weight": (3e38, 3e38)}
    options = {"mask_seed": 3, "normalize": False, "scaling": 1e30}
    node = replace(recipe(opened, method, parameters), options=options)
    engine = Engine(opened.tensors, device=torch.device("cpu"), dtype=torch.float32)
    live = CausalLM().live_model(Path(opened.directories["one"]), torch.device("cpu"), torch.float32)
    with pytest.raises(MergeError, match=re.escape("of group 'first' is not finite")):
        engine.merge_into(node, live.parameters)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 3e38])
@pytest.mark.parametrize("place", [0, 4999])
def test_what_is_not_finite_is_found_with_a_cache_too(number: float, place: int):
    """Where the largest entry is known, results that cannot overflow are not looked at: these can."""
    tensors = {name: torch.ones(5000) for name in ("base", "one", "two")}
    tensors["two"][place] = number
    sources = {name: Memory({"t": tensor}) for name, tensor in tensors.items()}
    models = (Checkpoint("one", "-"), Checkpoint("two", "-"))
    groups = (Group("all", ("t",), {"weight": (2.0, 2.0)}),)
    node = Merge("task_arithmetic", Checkpoint("base", "-"), models, groups)
    engine = Engine(sources, device=torch.device("cpu"))
    with pytest.raises(MergeError, match="'t' of group 'all' is not finite"):
        engine.tensor(node, "t")
