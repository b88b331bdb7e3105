"""Linear merges of linear merges as one merge of what those are made of."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evohydra.merging.collapsing import collapsed
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Group, Merge, Node, digest
from evohydra.spaces.genes import Value
from evohydra.spaces.grouping import Location
from evohydra.spaces.nested import NestedSpace, stand_in, tree
from evohydra.spaces.parameter import ParameterSpace
from tests.contracts.test_methods import Memory

A, B, C, BASE = (Checkpoint(name, name) for name in ("a", "b", "c", "base"))
NAMES = ("t", "u", "v", "w")
SOURCES = {
    name: Memory({each: torch.randn(5, 3, generator=torch.Generator().manual_seed(97 * at + 7)) + at for each in NAMES})
    for at, name in enumerate(("a", "b", "c", "base"))
}
CPU = torch.device("cpu")


def linear(models: tuple[Node, ...], weight: Any, tensors: tuple[str, ...] = NAMES, **options: Any) -> Merge:
    return Merge("linear", BASE, models, (Group("all", tensors, {"weight": weight}),), {"mask_seed": 0, **options})


def sums(models: tuple[Node, ...], weight: Any, tensors: tuple[str, ...] = NAMES, **options: Any) -> Merge:
    return replace(linear(models, weight, tensors, **options), method="task_arithmetic")


def made(node: Node, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    engine = Engine(SOURCES, device=CPU, dtype=dtype)
    return {name: engine.tensor(node, name).clone() for name in NAMES}


def weights(node: Merge) -> dict[str, dict[str, float]]:
    """By group and model."""
    named = [model.name if isinstance(model, Checkpoint) else "merge" for model in node.models]
    found: dict[str, dict[str, float]] = {}
    for group in node.groups:
        weight = group.parameters["weight"]
        assert isinstance(weight, tuple)
        found[group.name] = dict(zip(named, weight, strict=True))
    return found


def test_coefficients_are_multiplied_out() -> None:
    node = sums((sums((A, B), (0.5, 0.1)), B), (2.0, 1.0))
    flat = collapsed(node)
    assert (flat.method, flat.base, flat.models) == ("task_arithmetic", BASE, (A, B))
    assert weights(flat) == {"all": {"a": 1.0, "b": 1.2}}
    assert flat.options == {"normalize": False, "scaling": 1.0}
    # scaling and normalize: 0.5 * (3, 1) / 4 of (0.25 * (2, 2), C)
    node = sums((sums((A, B), (2.0, 2.0), scaling=0.25), C), (3.0, 1.0), normalize=True, scaling=0.5)
    assert weights(collapsed(node)) == {"all": {"a": 0.1875, "b": 0.1875, "c": 0.125}}
    # averages: (1, 3) / 4 of ((1, 1) / 2, B)
    flat = collapsed(linear((linear((A, B), (1.0, 1.0)), B), (1.0, 3.0)))
    assert (flat.method, weights(flat), flat.options) == (
        "linear", {"all": {"a": 0.125, "b": 0.875}}, {"normalize": True}
    )  # fmt: skip
    # three levels
    node = linear((sums((sums((A, BASE), (2.0, 7.0)), B), (0.5, 0.25)), C), (1.0, 1.0))
    flat = collapsed(node)
    assert (flat.method, weights(flat)) == ("task_arithmetic", {"all": {"a": 0.5, "b": 0.125, "c": 0.5}})
    # a model whose coefficients cancel stays, so that all genomes of a space have the same models
    flat = collapsed(sums((sums((A, B), (0.5, 0.5)), A), (1.0, -0.5)))
    assert weights(flat) == {"all": {"a": 0.0, "b": 0.5}}


def test_there_is_a_group_for_each_intersection() -> None:
    first = Merge("task_arithmetic", BASE, (A, B), (
        Group("early", ("t", "u"), {"weight": (1.0, 0.0)}), Group("late", ("v",), {"weight": (0.0, 1.0)}),
    ))  # fmt: skip
    second = sums((A, B), (0.5, 0.5), ("t", "u", "v"))
    node = Merge("task_arithmetic", BASE, (first, second), (
        Group("early", ("t",), {"weight": (1.0, 1.0)}), Group("rest", ("u", "v", "w"), {"weight": (2.0, 4.0)}),
    ))  # fmt: skip
    flat = collapsed(node)
    assert {group.name: group.tensors for group in flat.groups} == {
        "early & all": ("t",), "rest & early & all": ("u",), "rest & late & all": ("v",), "rest": ("w",)
    }  # fmt: skip
    assert weights(flat) == {
        "early & all": {"a": 1.5, "b": 0.5},
        "rest & early & all": {"a": 4.0, "b": 2.0},
        "rest & late & all": {"a": 2.0, "b": 4.0},
        "rest": {"a": 0.0, "b": 0.0},  # both sources have the base's
    }
    again = collapsed(sums((flat, first), (1.0, 1.0)))
    assert [group.name for group in again.groups] == [  # each word once
        "all & early", "all & rest & early", "all & rest & late", "all & rest"
    ]  # fmt: skip


def test_what_no_group_names_is_copied_from_the_same_model() -> None:
    """Without a base from the first one, which may be a merge itself."""
    inner = replace(linear((B, A), (1.0, 3.0), ("t", "u")), base=None)
    node = replace(linear((inner, C), (1.0, 1.0), ("t",)), base=None)
    flat = collapsed(node)
    assert flat.models == (B, A, C)
    assert [(group.tensors, group.parameters["weight"]) for group in flat.groups] == [
        (("t",), (0.125, 0.375, 0.5)), (("u",), (0.25, 0.75, 0.0))
    ]  # fmt: skip
    ours, theirs = made(flat), made(node)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in NAMES)
    assert torch.equal(ours["v"], SOURCES["b"].read("v"))
    # With a base an average has the base's own tensors, where a source has them.
    node = linear((linear((A, B), (1.0, 1.0), ("t",)), C), (1.0, 1.0), ("t", "u"))
    flat = collapsed(node)
    assert flat.models == (A, B, C, BASE)
    assert [group.parameters["weight"] for group in flat.groups] == [(0.25, 0.25, 0.5, 0.0), (0.0, 0.0, 0.5, 0.5)]


@pytest.mark.parametrize(
    "node",
    [
        sums((A, B), (1.0, 1.0)),  # no merge of merges
        replace(linear((sums((A, B), (1.0, 1.0)), C), (0.5, 0.5)), method="ties"),
        sums((replace(sums((A, B), (1.0, 1.0)), method="ties"), C), (0.5, 0.5)),
        sums((replace(sums((A, B), (1.0, 1.0)), method="package.module:task_arithmetic"), C), (0.5, 0.5)),
        replace(sums((sums((A, B), (1.0, 1.0)), C), (0.5, 0.5)), base=A),  # another base
        linear((sums((A, B), (1.0, 1.0)), C), (0.5, 0.5), normalize=False),  # multiplies the base
        sums((linear((A, B), (1.0, 1.0), normalize=False), C), (0.5, 0.5)),
        linear((linear((A, B), (1.0, 1.0)), C), (1.0, -1.0)),  # refused: weights that sum to 0
        sums((sums((A, B), (1.0, float("nan"))), C), (1.0, 1.0)),
        sums((sums((replace(A, adapter="x"), B), (1.0, 1.0)), C), (1.0, 1.0)),  # an adapter, and what is none
        sums((sums((BASE,), (1.0,)),), (1.0,)),  # nothing is left
    ],
)
def test_all_else_stays_a_tree(node: Merge) -> None:
    assert collapsed(node) is node


def test_what_cannot_be_multiplied_out_is_a_model_of_the_one_merge() -> None:
    ties = replace(sums((A, B), (1.0, 1.0)), method="ties")
    first, second = sums((ties, A), (0.5, 0.5)), sums((ties, B), (1.0, 2.0))
    flat = collapsed(sums((first, second, C), (1.0, 2.0, 3.0)))
    assert flat.models == (ties, A, B, C)  # once, where the tree has it twice
    assert flat.groups[0].parameters["weight"] == (2.5, 0.5, 4.0, 3.0)


@st.composite
def trees(draw: Any, based: bool, level: int = 2) -> Merge:
    """Linear merges of linear merges, with groups of their own that may leave out tensors."""
    inside = st.sampled_from([A, B, C] + ([BASE] if based else []))
    model = inside if level == 0 else st.one_of(inside, trees(based, level - 1), trees(based, level - 1))
    models = tuple(draw(st.lists(model, min_size=1, max_size=3)))
    weight = st.lists(st.floats(0.125, 1.5), min_size=len(models), max_size=len(models)).map(tuple)
    places = draw(st.lists(st.integers(0, 2), min_size=len(NAMES), max_size=len(NAMES)))
    method = draw(st.sampled_from(["linear", "task_arithmetic"] if based else ["linear"]))
    groups = []
    for number in (1, 2):
        tensors = tuple(name for name, place in zip(NAMES, places, strict=True) if place == number)
        own = {"normalize": draw(st.booleans())} if draw(st.booleans()) else {}
        groups.append(Group(f"g{number}", tensors, {"weight": draw(weight), **own}))
    options = {"mask_seed": 0, "normalize": draw(st.booleans())}
    options |= {"scaling": draw(st.floats(0.25, 1.5))} if method == "task_arithmetic" else {}
    return Merge(method, BASE if based else None, models, tuple(groups), options)


def depth(node: Node) -> int:
    return 1 + max(map(depth, node.models)) if isinstance(node, Merge) else 0


@given(st.booleans().flatmap(trees))
def test_one_merge_has_the_tensors_of_the_tree(node: Merge) -> None:
    flat = collapsed(node)
    ours, theirs = made(flat), made(node)
    for name in NAMES:
        size = float(theirs[name].abs().max()) + 300  # sums of up to (3 * 1.5) ** 3 task vectors may cancel
        assert float((ours[name] - theirs[name]).abs().max()) < 1e-6 * size, (name, flat)
    assert collapsed(flat) == flat
    names = [group.name for group in flat.groups]
    assert flat is node or len(set(names)) == len(names)


@given(trees(based=True), st.sampled_from(["linear", "task_arithmetic"]))
def test_trees_of_one_method_are_always_one_merge(node: Merge, method: str) -> None:
    def by_it(each: Node) -> Node:
        return replace(each, method=method, models=tuple(map(by_it, each.models))) if isinstance(each, Merge) else each

    whole = replace(sums((by_it(node), A), (1.0, 1.0)), method=method)
    flat = collapsed(whole)
    assert (flat.method, depth(flat)) == (method, 1)
    assert {str(BASE), *map(str, flat.models)} == {str(BASE), *map(str, leaves(whole))}


def leaves(node: Node) -> list[Node]:
    return [leaf for model in node.models for leaf in leaves(model)] if isinstance(node, Merge) else [node]


def test_in_16_bits_a_merge_is_rounded_less_than_a_tree() -> None:
    """A tree rounds each source."""
    node = linear((linear((A, B), (0.3, 0.4)), linear((A, C), (0.7, 0.2))), (0.9, 0.5))
    exact = made(node)
    ours, theirs = made(collapsed(node), torch.bfloat16), made(node, torch.bfloat16)
    off = [float(sum((each[n].float() - exact[n]).square().sum() for n in NAMES)) for each in (ours, theirs)]
    assert off[0] < off[1]


def test_the_weights_of_a_collapsed_genome_are_found_again_where_they_are_known() -> None:
    locations = {name: Location("layers", 0) for name in NAMES}
    genes = {"weight": {"per": "source", "low": 0.0, "high": 2.0, "default": 1.0, "alone": [1, 0], "uniform": "share"}}
    recipes: dict[str, Node] = {"one": sums((A, B), (0.5, 0.1)), "two": sums((B, C), (0.3, 0.7))}
    inner = ParameterSpace(
        models=tuple(map(stand_in, recipes)), base=BASE, locations=locations, method="task_arithmetic", genes=genes
    )
    space = NestedSpace(inner, recipes)
    x = np.array([0.25, 0.5])
    values: dict[str, Value] = space.values(x)
    assert list(values.values()) == [0.5, 1.0]  # genes are weights of the recipes
    flat, whole = space.decode(x), tree(space, x)
    assert isinstance(flat, Merge)
    assert isinstance(whole, Merge)
    assert flat.models == (A, B, C)
    assert flat.groups[0].parameters["weight"] == (0.25, 0.05 + 0.3, 0.7)
    assert whole.models == tuple(recipes.values())
    assert space.encode(space.default()) == pytest.approx([0.5, 0.5])
    assert {name: space.encode(node).tolist() for name, node in space.known_merges().items()} == {
        "one": [0.5, 0.0], "two": [0.0, 0.5], "uniform": [0.25, 0.25]
    }  # fmt: skip
    with pytest.raises(ValueError, match="this space holds only merges of its own sources"):
        space.encode(flat)
    earlier = NestedSpace(inner, recipes, collapse=False)
    assert digest(earlier.decode(x)) == digest(whole)
    assert earlier.encode(whole) == pytest.approx(x)


def test_merges_of_factors_are_not_multiplied_out() -> None:
    """The product of two sums is no sum of the products."""
    for options in ({"of": "factors"}, {}):
        inner = sums((A, B), (0.5, 0.1), **options)
        node = sums((inner, B), (2.0, 1.0), **({} if options else {"of": "factors"}))
        assert collapsed(node) == node
    assert collapsed(sums((sums((A, B), (0.5, 0.1), of="products"), B), (2.0, 1.0))).models == (A, B)
