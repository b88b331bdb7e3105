"""The parameter space: gene names, groupings, frozen genes, ranges of every kind, and its errors."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evohydra.recipe import Checkpoint, Merge, from_dict
from evohydra.spaces.grouping import Granularity, Location
from evohydra.spaces.parameter import ParameterSpace

BASE = Checkpoint("base", "-")
MODELS = (Checkpoint("shisa", "-"), Checkpoint("wizardmath", "-"))
DEPTH = 4
LOCATIONS: dict[str, Location | None] = {
    "model.embed_tokens.weight": Location("embeddings"),
    **{
        f"model.layers.{layer}.{part}.weight": Location(module, layer)
        for layer in range(DEPTH)
        for part, module in (("self_attn.q_proj", "attention"), ("mlp.up_proj", "mlp"), ("input_layernorm", "norms"))
    },
    "model.layers.0.rotary_emb.inv_freq": None,
    "model.norm.weight": Location("head"),
    "lm_head.weight": Location("head"),
}
WEIGHT = {"per": "source", "low": 0.0, "high": 1.0, "default": 1.0, "alone": [1, 0], "uniform": "share"}
DENSITY = {"per": "source", "low": 0.0, "high": 1.0, "default": 0.5, "alone": [1, 1], "uniform": 1}
ARITHMETIC = "task_arithmetic"
DARE = "dare_linear"


def space(method: str = ARITHMETIC, genes: dict[str, Any] | None = None, **more: Any) -> ParameterSpace:
    return ParameterSpace(
        models=MODELS, base=BASE, locations=LOCATIONS, method=method, genes=genes or {"weight": WEIGHT}, **more
    )


def test_a_range_that_may_be_widened() -> None:
    found = space(genes={"weight": WEIGHT | {"widest": [-0.5, 2.5]}})
    assert {axis.begins for axis in found.axes} == {(1 / 6, 0.5)}
    assert set(found.values(np.zeros(len(found.names))).values()) == {-0.5}
    assert set(found.values(np.full(len(found.names), 0.5)).values()) == {1.0}
    alone = found.encode(found.known_merges()["shisa"])
    np.testing.assert_allclose(sorted(set(alone)), [1 / 6, 0.5])


@pytest.mark.parametrize(
    "changes",
    [{"widest": [0.5, 2.0]}, {"widest": [0.0, 0.9]}, {"widest": [0.0]}, {"widest": [0, 3], "integer": True, "high": 2}],
)
def test_ranges_that_cannot_be_widened_so_far(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"widest: expected.* two numbers"):
        space(genes={"weight": {**WEIGHT, **changes}})


def test_a_range_is_widened_only_as_far_as_the_method_allows() -> None:
    with pytest.raises(ValueError, match=r"expected values in \[0, 1\], got 2"):
        space(DARE, genes={"weight": WEIGHT, "density": DENSITY | {"within": [0, 1], "widest": [0, 2]}})


def groups(**granularity: Any) -> list[str]:
    return list(Granularity(**granularity).group(LOCATIONS))


def test_groups_by_hand() -> None:
    layers = [f"layers.{layer}" for layer in range(DEPTH)]
    modules = [f"{layer}.{module}" for layer in layers for module in ("norms", "mlp", "attention")]
    assert groups() == ["embeddings", *layers, "head"]
    assert groups(layers="whole") == ["embeddings", "layers", "head"]
    assert groups(layers="whole", edges=False) == ["model"]
    assert groups(edges=False) == layers
    assert groups(layers=2) == ["embeddings", "layers.0-1", "layers.2-3", "head"]
    assert groups(layers=3) == ["embeddings", "layers.0-1", "layers.2", "layers.3", "head"]
    assert groups(layers=1, edges=False) == ["layers.0-3"]
    assert groups(layers=4) == groups()
    assert sorted(groups(modules=True)) == sorted(["embeddings", *modules, "head"])
    assert sorted(groups(layers=2, modules=True)) == sorted(
        ["embeddings", "head"]
        + [f"layers.{block}.{module}" for block in ("0-1", "2-3") for module in ("attention", "mlp", "norms")]
    )


def test_edges_off_join_the_nearest_layers() -> None:
    found = Granularity(edges=False).group(LOCATIONS)
    assert "model.embed_tokens.weight" in found["layers.0"]
    assert {"model.norm.weight", "lm_head.weight"} < set(found["layers.3"])


def test_filters_take_what_they_find_first_match_first() -> None:
    found = Granularity(filters={"queries": r"q_proj", "early": r"layers\.[01]\.", "out": "^lm_head"}).group(LOCATIONS)
    assert set(found["queries"]) == {name for name in LOCATIONS if "q_proj" in name}
    assert set(found["early"]) == {
        f"model.layers.{layer}.{part}.weight" for layer in (0, 1) for part in ("mlp.up_proj", "input_layernorm")
    }
    assert found["out"] == ("lm_head.weight",)
    assert found["head"] == ("model.norm.weight",)
    assert "layers.0" not in found


@given(
    layers=st.sampled_from(["whole", "each", 1, 2, 3, 4]), modules=st.booleans(), edges=st.booleans(),
    filters=st.sampled_from([{}, {"norms": "norm"}, {"a": "q_proj", "b": "embed"}]),
)  # fmt: skip
def test_every_tensor_is_in_one_group_and_buffers_are_in_none(**granularity: Any) -> None:
    found = [tensor for tensors in Granularity(**granularity).group(LOCATIONS).values() for tensor in tensors]
    assert sorted(found) == sorted(name for name, location in LOCATIONS.items() if location)


@pytest.mark.parametrize(
    ("granularity", "message"),
    [
        ({"layers": "every"}, "whole, each or a whole number"),
        ({"layers": 0}, "whole, each or a whole number"),
        ({"layers": True}, "whole, each or a whole number"),
        ({"layers": 5}, "5 blocks, but the model has 4 layers"),
        ({"filters": {"a": "("}}, r"granularity\.filters\.a.*no regular expression"),
        ({"filters": {"a": "vision"}}, "matches no tensor"),
    ],
)
def test_wrong_granularities_are_errors(granularity: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        space(granularity=granularity)


def test_genes_are_named_by_group_parameter_and_source() -> None:
    found = space(DARE, {"weight": WEIGHT, "density": DENSITY})
    assert "layers.3/weight/wizardmath" in found.names
    assert "embeddings/density/shisa" in found.names
    assert len(found.names) == len(set(found.names)) == len(found.axes) == 6 * 2 * 2
    x = np.linspace(0, 1, 24)
    recipe = found.decode(x)
    by_name = found.values(x)
    for group in recipe.groups:
        for gene in ("weight", "density"):
            expected = [by_name[f"{group.name}/{gene}/{model.name}"] for model in MODELS]
            assert list(group.parameters[gene]) == expected  # in the order of the models
    assert recipe.base == BASE
    assert recipe.models == MODELS


def test_genes_of_groups_and_of_the_whole_merge() -> None:
    genes = {
        "weight": {**WEIGHT, "per": "source"},
        "scaling": {"per": "merge", "low": -1.0, "high": 3.0, "default": 1.0},
        "normalize": {"per": "group", "choices": [False, True], "default": False},
    }
    found = space(genes=genes, granularity={"layers": "whole", "edges": False})
    assert found.names == ("model/weight/shisa", "model/weight/wizardmath", "merge/scaling", "model/normalize")
    assert tuple(axis.kind for axis in found.axes) == ("continuous", "continuous", "continuous", "categorical")
    recipe = found.decode(np.array([0.25, 0.5, 0.75, 0.9]))
    assert recipe.groups[0].parameters == {"weight": (0.25, 0.5), "normalize": True}
    assert recipe.options["scaling"] == 2.0
    np.testing.assert_allclose(found.encode(recipe), [0.25, 0.5, 0.75, 0.75])  # a choice: the middle of its share


def test_ranges_of_every_kind() -> None:
    genes = {
        "weight": {**WEIGHT, "low": -1.0, "high": 1.5},
        "scaling": {"per": "merge", "low": 0.01, "high": 100.0, "log": True, "default": 1.0},
        "normalize": {"per": "merge", "low": 0, "high": 1, "integer": True, "default": 0},
    }
    found = space(genes=genes, granularity={"layers": "whole", "edges": False})
    assert tuple(axis.kind for axis in found.axes) == ("continuous", "continuous", "continuous", "integer")
    values = found.values(np.array([0.0, 0.4, 0.5, 1.0]))
    assert list(values.values()) == pytest.approx([-1.0, 0.0, 1.0, 1])
    assert isinstance(values["merge/normalize"], int)


def test_frozen_genes_keep_their_value_and_are_no_coordinates() -> None:
    frozen = {"embeddings/*": 0.5, "layers.[01]/weight/shisa": 0.125}
    found = space(frozen=frozen)
    assert not {"embeddings/weight/shisa", "layers.1/weight/shisa"} & set(found.names)
    assert len(found.names) == 12 - 4
    recipe = found.decode(np.full(8, 0.75))
    weights = {group.name: group.parameters["weight"] for group in recipe.groups}
    assert weights["embeddings"] == (0.5, 0.5)
    assert weights["layers.0"] == weights["layers.1"] == (0.125, 0.75)
    assert weights["layers.2"] == weights["head"] == (0.75, 0.75)
    np.testing.assert_allclose(found.encode(recipe), 0.75)
    with pytest.raises(ValueError, match=r"frozen to 0\.5"):
        found.encode(space().decode(np.full(12, 0.75)))


def test_a_gene_given_as_a_value_holds_everywhere() -> None:
    found = space(DARE, {"weight": WEIGHT, "density": [0.5, 0.25]})
    assert all("density" not in name for name in found.names)
    recipe = found.decode(np.full(12, 0.5))
    assert recipe.options["density"] == (0.5, 0.25)
    np.testing.assert_allclose(found.encode(from_dict(recipe.to_dict())), 0.5)


def test_points_outside_of_the_cube_are_clipped() -> None:
    assert space().decode(np.full(12, 7.0)) == space().decode(np.ones(12))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"genes": {"weight": {**WEIGHT, "per": "layer"}}}, r"genes\.weight\.per.*'layer'"),
        ({"genes": {"weight": {**WEIGHT, "lo": 0}}}, r"genes\.weight\.lo: there is no such setting"),
        ({"genes": {"weight": {"per": "source", "default": 1}}}, "expected low and high, or choices"),
        ({"genes": {"weight": {**WEIGHT, "low": 2}}}, r"embeddings/weight/shisa.*low < high"),
        ({"genes": {"weight": {**WEIGHT, "log": True}}}, "low > 0"),
        ({"genes": {"weight": WEIGHT, "mass": WEIGHT}}, r"no parameter \['mass'\].*weight"),
        ({"genes": {"scaling": {**WEIGHT, "per": "merge"}}}, r"needs a gene or option for \['weight'\]"),
        ({"options": {"rescale": "l1"}}, "no parameter"),
        ({"method": "tie"}, "there is none of that name"),
        ({"method": "math:sqrt"}, r"expected the parameters \(base, models"),
        ({"frozen": {"embedings/*": 0.5}}, r"no gene matches \['embedings"),
    ],
)
def test_wrong_settings_are_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        space(**arguments)


def test_a_genome_of_another_size_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"\(12,\), got \(11,\)"):
        space().decode(np.zeros(11))


def test_recipes_of_other_spaces_have_no_point() -> None:
    found = space()
    others: dict[str, Any] = {
        "another granularity": space(granularity={"layers": "whole"}).default(),
        "another method": space(DARE, {"weight": WEIGHT, "density": DENSITY}).default(),
        "other options": space(options={"normalize": True}).default(),
        "no merge": MODELS[0],
        "another base": Merge(ARITHMETIC, None, MODELS, found.default().groups, found.default().options),
        "no groups": Merge(ARITHMETIC, BASE, MODELS, ()),
        "outside of the range": space(genes={"weight": {**WEIGHT, "high": 3.0}}).decode(np.ones(12)),
    }
    for what, node in others.items():
        with pytest.raises(ValueError, match=r"this space holds only|is outside"):
            pytest.fail(f"{what}: {found.encode(node)}")
