"""The space of mixtures of experts: its genes, its recipes, and points and recipes as inverses."""

from dataclasses import replace
from typing import Any

import hydra.utils
import numpy as np
import pytest

from evohydra.assembly.ranges import with_ranges_for
from evohydra.families.layouts import location
from evohydra.merging.group_methods import method_of
from evohydra.recipe import Checkpoint, Merge, digest, from_dict
from evohydra.spaces.mixture import MixtureSpace
from evohydra.winner.recipe_files import _check_parameters
from tests.contracts.discovery import composed

MODELS, BASE = tuple(Checkpoint(name, "-") for name in ("one", "two")), Checkpoint("base", "-")
NAMES = [
    "model.embed_tokens.weight", "model.norm.weight",
    *(
        f"model.layers.{layer}.{rest}.weight"
        for layer in range(2)
        for rest in (
            "self_attn.q_proj", "block_sparse_moe.gate",
            *(f"block_sparse_moe.experts.{expert}.{each}" for expert in range(2) for each in ("w1", "w2", "w3")),
        )
    ),
]  # fmt: skip
LOCATIONS = {name: location(name) for name in NAMES}


def space(*overrides: str, merge: str = "moe_random") -> MixtureSpace:
    spec = composed(f"merge={merge}", *overrides)["merge"]["parameter"]
    if merge == "moe":
        spec["routers"]["statistics"] = "0" * 64
    made: MixtureSpace = hydra.utils.instantiate(spec)(models=MODELS, base=BASE, locations=LOCATIONS)
    return made


def test_genes_are_those_of_shared_tensors_experts_and_routers() -> None:
    names = space().names
    assert len(names) == len(set(names)) == 4 * 2 + 2 * 2 + 2 * 2
    assert {
        "embeddings/weight/one",
        "layers.1/weight/two",
        "layers.0.experts.one/weight/one",
        "layers.1.router/weight/two",
    } <= set(names)
    assert "layers.0.experts.one/weight/two" not in names  # expert one is one's alone
    assert len(space("merge.parameter.granularity.layers=whole").names) == 3 * 2 + 2 + 2


@pytest.mark.parametrize("merge", ["moe", "moe_random"])
def test_points_and_recipes_are_inverses(merge: str) -> None:
    made = space(merge=merge)
    x = np.random.default_rng(0).uniform(0.1, 0.9, len(made.names))
    node = made.decode(x)
    np.testing.assert_allclose(made.encode(node), x, atol=1e-12)
    again = from_dict(node.to_dict())
    assert digest(again) == digest(node)
    _check_parameters(again)
    assert {name for group in node.groups for name in group.tensors} == set(NAMES)
    values = made.values(x)
    routers = next(group for group in node.groups if group.name == "layers.1.router")
    assert routers.parameters["weight"] == tuple(values[f"layers.1.router/weight/{name}"] for name in ("one", "two"))
    assert method_of(node, routers) == {"moe": "hidden_router", "moe_random": "random_router"}[merge]
    two = next(group for group in node.groups if group.name == "layers.0.experts.two")
    assert two.parameters["weight"] == (0.0, values["layers.0.experts.two/weight/two"])
    assert all(".experts.1." in name for name in two.tensors)


def test_known_mixtures_have_their_experts_and_are_in_the_space() -> None:
    made = space()
    assert set(made.known_merges()) == {"mixture on one", "mixture on two", "mixture on uniform"}
    for node in (*made.known_merges().values(), made.default()):
        assert isinstance(node, Merge)
        weights = {group.name: group.parameters["weight"] for group in node.groups}
        assert (weights["layers.1.experts.one"], weights["layers.1.experts.two"]) == ((1.0, 0.0), (0.0, 1.0))
        made.encode(node)
    uniform = made.known_merges()["mixture on uniform"]
    assert isinstance(uniform, Merge)
    assert uniform.groups[0].parameters["weight"] == (0.5, 0.5)


def test_another_merge_of_what_is_shared() -> None:
    node = space("merge@merge.parameter.shared=ties").default()
    assert node.method == "ties"
    assert {method_of(node, group) for group in node.groups} == {"ties", "task_arithmetic", "random_router"}


def test_genes_of_parts_are_frozen_by_their_own_names() -> None:
    """So are an expert's own, beside those of other sources, which always are."""
    made = space("merge.parameter.routers.frozen={layers.0/*: 0.0}", "merge.parameter.experts.frozen={*/weight/*: 1.0}")
    assert [name for name in made.names if "router" in name] == [
        f"layers.1.router/weight/{each}" for each in ("one", "two")
    ]
    assert not [name for name in made.names if "experts" in name]
    weights = {group.name: group.parameters["weight"] for group in made.decode(np.full(len(made.names), 0.5)).groups}
    assert weights["layers.0.experts.two"] == (0.0, 1.0)
    assert weights["layers.0.router"] == (0.0, 0.0)


def test_what_the_space_does_not_hold() -> None:
    made = space()
    node = made.default()
    with pytest.raises(ValueError, match="only mixtures of its own sources"):
        made.encode(replace(node, options={}))
    with pytest.raises(ValueError, match="with its own groups"):
        made.encode(replace(node, groups=node.groups[1:]))
    mixed = [replace(g, parameters={**g.parameters, "weight": (0.5, 1.0)}) for g in node.groups]
    with pytest.raises(ValueError, match="is frozen to 0"):
        made.encode(replace(node, groups=tuple(mixed)))
    with pytest.raises(ValueError, match="on its own base"):
        made.encode(replace(node, base=None))
    with pytest.raises(ValueError, match=r"expected a genome of shape \(16,\), got \(3,\)"):
        made.decode(np.zeros(3))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("merge@merge.parameter.experts=sce", "experts: "),
        ("merge.parameter.routers.genes.weight.high=-1", "routers: "),
        ("merge.parameter.shared.frozen={nothing: 1}", "shared: frozen: no gene matches"),
        ("merge.parameter.experts_per_token=0", "experts_per_token: expected a whole number of at least 1, got 0"),
    ],
)
def test_a_parts_fault_names_it(override: str, expected: str) -> None:
    with pytest.raises(Exception, match=expected):
        space(override)


def test_ranges_of_parts_widen_only_for_optimizers_that_do_it() -> None:
    merge: Any = composed("merge=moe")["merge"]
    fixed: Any = with_ranges_for(merge, object())
    for part in ("shared", "experts"):
        assert "widest" in merge["parameter"][part]["genes"]["weight"]
        assert "widest" not in fixed["parameter"][part]["genes"]["weight"]
