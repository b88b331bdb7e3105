"""The choice of a method for each group: conditional genes, recipes, merges that are each method's own, and errors."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra.utils
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from evohydra.assembly import composition
from evohydra.assembly.ranges import with_ranges_for
from evohydra.assembly.runs import make_run
from evohydra.mergekit.writer import NotExpressible, to_yaml
from evohydra.merging.engine import Engine, MergeError
from evohydra.merging.group_methods import method_of, methods_of
from evohydra.merging.methods import resolve
from evohydra.recipe import Merge, digest, from_dict
from evohydra.report.recipe_figures import recipe_figures
from evohydra.spaces.choice import ChoiceSpace, defaults_of
from evohydra.winner.recipe_files import _check_parameters
from evohydra.winner.remaking import rebuild
from tests.commands import carried_out, workspace
from tests.contracts.discovery import composed
from tests.contracts.test_methods import BASE, LOCATIONS, NAMES, SHAPES, Checkpoint, engine, sources

MODELS = tuple(Checkpoint(name, "-") for name in NAMES[:2])
GROUPS = ["embeddings", "layers.0", "layers.1", "head"]


def choice(*overrides: str, **changes: Any) -> ChoiceSpace:
    spec = composed("merge=any", *overrides)["merge"]["parameter"] | changes
    made: ChoiceSpace = hydra.utils.instantiate(spec)(models=MODELS, base=BASE, locations=LOCATIONS)
    return made


def genome(space: ChoiceSpace, *chosen: str, seed: int = 0) -> np.ndarray:
    """A random genome in which the groups choose these candidates, of the four of the yaml."""
    x = np.random.default_rng(seed).uniform(0.1, 0.9, len(space.names))
    order = ["task_arithmetic", "ties", "wudi", "pcb"]
    x[: len(chosen)] = [(order.index(name) + 0.5) / 4 for name in chosen]
    return x


MIXED = ("ties", "task_arithmetic", "wudi", "pcb")


def test_names_are_those_of_the_groups() -> None:
    space = choice()
    assert list(space.names[:4]) == [f"{group}/method" for group in GROUPS]
    assert [axis.kind for axis in space.axes[:4]] == ["categorical"] * 4
    assert {axis.levels for axis in space.axes[:4]} == {4}
    assert len(space.names) == len(set(space.names)) == len(space.axes) == 4 * (1 + 2 + 4 + 2 + 3)
    assert {"layers.0/ties.density/two", "head/wudi.ridge", "head/pcb.density"} <= set(space.names)
    values = space.values(genome(space, *MIXED))
    assert set(values) == set(space.names)
    assert values["layers.0/method"] == "task_arithmetic"


def test_genes_of_other_candidates_do_not_show() -> None:
    space = choice()
    x = genome(space, *MIXED)
    node, values = space.decode(x), space.values(x)
    assert node.method == "ties"
    assert methods_of(node) == MIXED
    assert [method_of(node, group) for group in node.groups] == list(MIXED)
    assert node.options == {"mask_seed": 1}
    assert node.groups[0].parameters["density"] == tuple(values[f"embeddings/ties.density/{m.name}"] for m in MODELS)
    assert "density" not in node.groups[1].parameters
    assert node.groups[1].parameters["normalize"] is False  # each candidate has its own options
    assert node.groups[0].parameters["normalize"] is True
    for place, name in enumerate(space.names):
        group, _, rest = name.partition("/")
        moved = x.copy()
        moved[place] = (x[place] + 0.35) % 1.0
        chosen = rest == "method" or rest.startswith(f"{MIXED[GROUPS.index(group)]}.")
        assert (digest(space.decode(moved)) != digest(node)) == chosen, name


@pytest.mark.parametrize("chosen", [MIXED, ("pcb",) * 4, ("wudi", "wudi", "ties", "wudi")], ids=str)
def test_recipes_and_points_are_each_others_images(chosen: tuple[str, ...]) -> None:
    space = choice()
    x = genome(space, *chosen, seed=1)
    node = space.decode(x)
    assert from_dict(node.to_dict()) == node
    again, values = space.encode(node), space.values(x)
    assert methods_of(space.decode(again)) == methods_of(node)
    for name, value in space.values(again).items():
        group, _, rest = name.partition("/")
        if rest == "method" or rest.startswith(f"{chosen[GROUPS.index(group)]}."):
            assert value == pytest.approx(values[name])
    known = space.known_merges()
    assert list(known) == [*NAMES[:2], "uniform"]
    for each in (*known.values(), space.default()):
        assert isinstance(each, Merge)
        assert methods_of(each) == ("task_arithmetic",)
        space.encode(each)


def merged(node: Merge, merger: Engine) -> dict[str, Tensor]:
    return {name: merger.tensor(node, name) for name in SHAPES}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_each_group_is_merged_as_its_method_alone_merges_it(dtype: torch.dtype) -> None:
    space, tensors = choice(), sources(dtype)
    node = space.decode(genome(space, *MIXED))
    found = merged(node, engine(tensors))
    for group in node.groups:
        name = method_of(node, group)
        known = resolve(name).parameters
        alone = replace(
            node,
            method=name,
            groups=(replace(group, parameters={k: v for k, v in group.parameters.items() if k in known}),),
        )
        for tensor in group.tensors:
            assert torch.equal(found[tensor], engine(tensors).tensor(alone, tensor))
    # Into parameters in place, as a search does, where small tensors of elementwise methods are merged end to end.
    live = {name: torch.zeros(shape, dtype=dtype) for name, shape in SHAPES.items()}
    Engine(tensors, device=torch.device("cpu"), dtype=dtype).merge_into(from_dict(node.to_dict()), live)
    assert all(torch.equal(live[name], found[name]) for name in SHAPES)


def test_a_merge_that_is_not_finite_names_the_groups_method() -> None:
    space, tensors = choice(), sources()
    tensors["one"].tensors["head"] = torch.full((4, 6), float("nan"))
    with pytest.raises(MergeError, match=r"'head' of group 'head' is not finite after pcb"):
        merged(space.decode(genome(space, *MIXED)), engine(tensors))


def test_what_recipe_files_say_is_checked_by_each_groups_method() -> None:
    space = choice()
    node = space.decode(genome(space, *MIXED))
    _check_parameters(node)
    pcb = node.groups[3]
    wrong = replace(pcb, parameters={**pcb.parameters, "ridge": 1.0})
    with pytest.raises(ValueError, match=r"group 'head': pcb has no parameter \['ridge'\]"):
        _check_parameters(replace(node, groups=(*node.groups[:3], wrong)))
    with pytest.raises(NotExpressible, match="one method for all groups, this recipe ties, task_arithmetic, wudi, pcb"):
        to_yaml(node, "float32")
    (table,) = recipe_figures(node).values()
    assert table is not None


def test_masks_are_drawn_where_only_some_groups_have_them() -> None:
    from evohydra.searching.masks import by_mask

    space = choice("+merge@merge.parameter.candidates.dare_linear=dare_linear", "seed=7")
    x = np.full(len(space.names), 0.5)
    assert not by_mask(space.decode(np.concatenate([np.zeros(4), x[4:]])))
    x[:4] = [0.0, 0.99, 0.0, 0.0]
    node = space.decode(x)
    assert methods_of(node) == ("task_arithmetic", "dare_linear")
    assert list(by_mask(node)) == [7, 8, 9]


def test_choices_that_are_frozen() -> None:
    space = choice(frozen={"embeddings/*": "ties", "head/method": "pcb"})
    assert list(space.names[:2]) == ["layers.0/method", "layers.1/method"]
    assert space.names[2].startswith("embeddings/task_arithmetic.")
    node = space.decode(np.full(len(space.names), 0.1))
    assert [method_of(node, group) for group in node.groups] == ["ties", "task_arithmetic", "task_arithmetic", "pcb"]
    space.encode(node)
    with pytest.raises(ValueError, match="embeddings/method is frozen to ties, the recipe has task_arithmetic"):
        space.encode(space.default())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frozen": {"nothing/*": "ties"}}, r"frozen: no choice matches 'nothing/\*'"),
        ({"frozen": {"head/*": "dare"}}, r"'dare' is none of \['task_arithmetic', 'ties', 'wudi', 'pcb'\]"),
        ({"candidates": {}}, r"candidates: expected two methods or more to choose from, got \[\]"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choice(**changes)


def test_a_candidates_fault_names_it() -> None:
    with pytest.raises(ValueError, match=r"candidates\.pcb: pcb has no parameter \['ridge'\]"):
        choice("+merge.parameter.candidates.pcb.options.ridge=1")


def test_ranges_of_candidates_widen_only_for_optimizers_that_do_it() -> None:
    merge = composed("merge=any")["merge"]
    fixed: Any = with_ranges_for(merge, None)
    assert "widest" in merge["parameter"]["candidates"]["task_arithmetic"]["genes"]["weight"]
    assert "widest" not in fixed["parameter"]["candidates"]["task_arithmetic"]["genes"]["weight"]
    assert fixed["parameter"]["candidates"]["ties"] == merge["parameter"]["candidates"]["ties"]


def test_a_winner_of_several_methods_is_rebuilt_to_the_same_bits(tmp_path: Path) -> None:
    """And its table, figures and card are written."""
    frozen = "merge.parameter.frozen={embeddings/*: ties, layers.0/*: wudi, head/*: pcb}"
    small = ("budget=6", "top=1", "start=[]", "baselines=null", "audit=none", "report=true")
    carried_out([*workspace(tmp_path), "merge=any", frozen, *small], tmp_path / "run")
    content = json.loads((tmp_path / "run" / "recipe.json").read_text())
    node = from_dict(content["recipe"])
    assert isinstance(node, Merge)
    assert {"ties", "wudi", "pcb"} <= set(methods_of(node))
    made, promised = rebuild(content, tmp_path / "again", {}, torch.device("cpu"))
    assert made == promised
    weights = [load_file(tmp_path / place / "model.safetensors") for place in ("run/winner", "again")]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_a_method_with_a_parameter_of_that_name_is_refused() -> None:
    with pytest.raises(ValueError, match="a parameter called method is taken"):
        resolve("tests.test_choice_space:with_method")


def with_method(base: Tensor | None, models: list[Tensor], *, method: str) -> Tensor:
    """A method whose parameter would be taken for the name of one."""
    return models[0]


def test_each_method_that_a_group_may_have_is_looked_at_before_the_search() -> None:
    assert [merge.method for merge in defaults_of(choice())] == ["task_arithmetic", "ties", "wudi", "pcb"]
    frozen = choice(frozen={"*/method": "ties"})
    assert [merge.method for merge in defaults_of(frozen)] == ["ties"]


def test_an_adapter_of_several_methods_needs_a_rank(tmp_path: Path) -> None:
    given = ["model=tiny_lora_ja+tiny_lora_plus", "merge=any", "format=lora", "tracker=none", "batch_size=8"]
    with pytest.raises(ValueError, match=r"what ties makes of adapters .* expected format\.rank=NUMBER"):
        make_run(composition.composed(given), tmp_path / "run", {"name": "run", "group": None}, given)
