"""The hybrid space: one genome for a merge and a path through its layers, in every place the merge can have."""

from typing import Any

import hydra.utils
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evohydra.recipe import Checkpoint, Merge, Stack, checkpoints, digest, from_dict, with_checkpoints
from evohydra.spaces.dataflow import DataFlowSpace
from evohydra.spaces.hybrid import HybridSpace
from evohydra.spaces.parameter import ParameterSpace
from evohydra.spaces.scales import Slot
from tests.contracts.discovery import composed
from tests.test_dataflow_space import LAYOUT, hops
from tests.test_parameter_space import BASE, DEPTH, LOCATIONS, MODELS, WEIGHT, space

PLACES = {"first": 0, "added": 2, "added_first": 0}


def dataflow(**options: Any) -> DataFlowSpace:
    return DataFlowSpace(**({"models": MODELS, "layers": (DEPTH, DEPTH), "layout": LAYOUT, "repeats": 2} | options))


def hybrid(**options: Any) -> HybridSpace:
    return HybridSpace(space(), dataflow(**options))


def test_the_merge_takes_its_place_among_the_sources() -> None:
    shisa, wizardmath = MODELS
    for merged, expected in (
        ("first", [None, wizardmath]),
        ("added", [*MODELS, None]),
        ("added_first", [None, *MODELS]),
    ):
        found = hybrid(merged=merged)
        path = found.decode(np.full(len(found.names), 0.3))
        assert [None if isinstance(source, Merge) else source for source in path.sources] == expected
        assert from_dict(path.to_dict()) == path
        known = {model.name: model for model in (BASE, *MODELS)}
        assert {node.name for node in checkpoints(path)} == set(known)  # no stand-in is left
        assert with_checkpoints(path, known) == path
    found = hybrid(first="wizardmath")
    assert found.decode(np.full(len(found.names), 0.3)).sources[1] == shisa
    only = hybrid(merged="added_first", sources=["shisa"])  # the paper's: A is the merge, B is shisa
    assert only.decode(np.full(len(only.names), 0.3)).sources[1:] == (shisa,)


def test_names_tell_the_two_parts_apart() -> None:
    found = hybrid(merged="added")
    assert len(set(found.names)) == len(found.names) == len(found.axes)
    genes = len(space().names)
    assert found.names[:genes] == tuple(f"parameter/{name}" for name in space().names)
    assert found.names[genes] == "dataflow/path.0/shisa.0"
    assert "dataflow/path.1/merged.3" in found.names
    assert found.axes[:genes] == space().axes
    assert {axis.kind for axis in found.axes[genes : genes + 24]} == {"categorical"}


@given(merged=st.sampled_from(sorted(PLACES)), ends=st.booleans(), slot=st.booleans(), seed=st.integers(0, 10**6))
def test_encoding_is_the_inverse_of_decoding(merged: str, ends: bool, slot: bool, seed: int) -> None:
    found = hybrid(merged=merged, ends=ends, **({"scales": Slot} if slot else {}))
    x = np.random.default_rng(seed).random(len(found.names))
    path = found.decode(x)
    encoded = found.encode(path)
    again = found.decode(encoded)
    assert again.hops == path.hops
    assert isinstance(merge := path.sources[PLACES[merged]], Merge)
    np.testing.assert_allclose(encoded[: len(space().names)], x[: len(space().names)], atol=1e-12)
    assert space().decode(x[: len(space().names)]) == merge


@given(merged=st.sampled_from(sorted(PLACES)), seed=st.integers(0, 10**6))
def test_only_genes_that_are_reported_change_the_recipe(merged: str, seed: int) -> None:
    found = hybrid(merged=merged)
    generator = np.random.default_rng(seed)
    x, other = generator.random((2, len(found.names)))
    reported = found.values(x)
    free = [name not in reported and "scale/" in name for name in found.names]
    assert any(free)
    assert digest(found.decode(np.where(free, other, x))) == digest(found.decode(x))
    changed = x.copy()
    changed[found.names.index("parameter/layers.1/weight/shisa")] += 0.01
    assert digest(found.decode(changed)) != digest(found.decode(x))


@pytest.mark.parametrize("merged", ["first", "added_first"])
def test_landmarks_are_those_of_the_merge_layer_by_layer(merged: str) -> None:
    found = hybrid(merged=merged)
    known = found.known_merges()
    assert list(known) == ["shisa", "wizardmath", "uniform"]
    for name, node in known.items():
        assert isinstance(node, Stack)
        assert hops(node) == [(0, layer, 1.0) for layer in range(DEPTH)]
        assert node.sources[0] == space().known_merges()[name]
        assert found.decode(found.encode(node)) == node
    assert found.default().sources[0] == space().default()
    assert found.decode(found.encode(found.default())) == found.default()


def test_where_the_merge_is_not_a_only_a_is_a_landmark() -> None:
    found = hybrid(merged="added")
    (alone,) = found.known_merges().items()
    assert alone[0] == "shisa"
    assert isinstance(alone[1], Stack)
    assert hops(alone[1]) == [(0, layer, 1.0) for layer in range(DEPTH)]
    assert found.decode(found.encode(alone[1])) == alone[1]


def test_where_a_alone_is_too_long_there_is_no_landmark() -> None:
    assert hybrid(max_hops=3).known_merges() == {}
    assert len(hybrid(max_hops=3).default().hops) == 3


def test_recipes_that_the_space_does_not_hold() -> None:
    found = hybrid(merged="added")
    for node, message in (
        (MODELS[0], "only paths"),
        (space().default(), "only paths"),
        (dataflow().alone(), "own sources"),
        (Stack((*MODELS, BASE), dataflow().alone().hops, LAYOUT), "source 2 of a path of this space is a merge"),
        (Stack((*MODELS[::-1], space().default()), dataflow().alone().hops, LAYOUT), "own sources"),
    ):
        with pytest.raises(ValueError, match=message):
            found.encode(node)
    with pytest.raises(ValueError, match="expected a genome of shape"):
        found.decode(np.zeros(3))


def test_no_source_may_be_called_as_the_merge_is() -> None:
    models = (Checkpoint("merged", "/x"), MODELS[1])
    with pytest.raises(ValueError, match="give it another name"):
        HybridSpace(space(), dataflow(models=models))


@pytest.mark.parametrize("merge", ["dfs", "dfs_slot", "dfs_network", "dfs_none", "dfs_paper"])
def test_every_yaml_makes_a_space_and_joins_any_merge(merge: str) -> None:
    alone = composed(f"merge={merge}")["merge"]
    assert set(alone) == {"compile", "dataflow"}
    both = composed(f"merge=task_arithmetic+{merge}")["merge"]
    assert both["dataflow"] == alone["dataflow"]
    assert set(composed(f"merge={merge}+dare_ties")["merge"]) == {"compile", "parameter", "dataflow"}
    path = hydra.utils.instantiate(alone["dataflow"])(models=MODELS, layers=(DEPTH, DEPTH), layout=LAYOUT)
    parts = {"models": MODELS, "base": BASE, "locations": LOCATIONS}
    found = HybridSpace(hydra.utils.instantiate(both["parameter"])(**parts), path)
    x = np.random.default_rng(0).random(len(found.names))
    assert isinstance(found.decode(x), Stack)
    assert list(found.known_merges()) == ["shisa", "wizardmath", "uniform"]
    assert set(found.values(x)) <= set(found.names)


def test_the_papers_experiment() -> None:
    plain = composed("experiment=evollm_jp_dfs", "model.sources.local.path=/winner")
    assert list(plain["model"]["sources"]) == ["local", "shisa"]
    models = [Checkpoint(name, source["path"]) for name, source in plain["model"]["sources"].items()]
    found = hydra.utils.instantiate(plain["merge"]["dataflow"])(models=models, layers=(32, 32), layout=LAYOUT)
    assert len(found.names) == 192 + 4096
    assert (plain["budget"], plain["optimizer"]["population"], plain["fitness"]["examples"]) == (100 * 128, 128, 200)
    # One standard deviation is 0.1 in the paper's p, of scales 1 + p.
    x = np.full(len(found.names), 0.5)
    x[192 + 31] += plain["optimizer"]["sigma"]  # from A's first layer, which is the first hop, to its last one
    assert [hop.scale for hop in found.decode(x).hops] == pytest.approx([1, 1.1])
    splits = plain["benchmark"]["gsm8k_ja_search"]["splits"]
    assert splits["search"] == {"start": 0, "stop": 869}
    assert splits["validation"] == {"start": 869, "stop": 1069}


def test_ranges_and_granularity_of_the_merge_stay_its_own() -> None:
    merge = ParameterSpace(
        models=MODELS, base=BASE, locations=LOCATIONS, method="task_arithmetic",
        genes={"weight": WEIGHT}, granularity={"layers": "whole", "edges": False},
    )  # fmt: skip
    found = HybridSpace(merge, dataflow())
    assert found.names[:2] == ("parameter/model/weight/shisa", "parameter/model/weight/wizardmath")
    assert len(found.names) == 2 + 16 + 64
