"""Recipes: JSON and back, and a digest that is the same everywhere and differs for every change."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evohydra.recipe import Checkpoint, Group, Merge, Node, checkpoints, digest, from_dict

CHECKPOINT = Checkpoint("one", "owner/one", revision="main", adapter="owner/lora", dtype="bfloat16", fingerprint="ab12")
MERGE = Merge(
    "package.module:function",
    Checkpoint("base", "zoo://base"),
    (CHECKPOINT, Checkpoint("two", "/models/two")),
    (
        Group("embeddings", ("embed.weight",), {"weight": (0.25, 0.5), "t": 0.125}),
        Group("layers.0", ("a", "b"), {"weight": (1.0, -1e-3)}),
    ),
    {"normalize": True, "rescale": "density", "seed": 3, "scaling": 0.1},
)

names = st.text(min_size=1, max_size=6)
values = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(), st.booleans(), names)
parameters = st.dictionaries(names, st.one_of(values, st.lists(st.floats(0, 1), max_size=3).map(tuple)), max_size=3)
leaves = st.builds(Checkpoint, names, names, st.none() | names, st.none() | names)
groups = st.builds(Group, names, st.lists(names, max_size=3).map(tuple), parameters)
nodes = st.recursive(
    leaves,
    lambda inner: st.builds(
        Merge, names, st.none() | inner, st.lists(inner, min_size=1, max_size=3).map(tuple),
        st.lists(groups, max_size=3).map(tuple), parameters,
    ),
    max_leaves=5,
)  # fmt: skip


@given(node=nodes)
def test_json_and_back(node: Node) -> None:
    again = from_dict(json.loads(json.dumps(node.to_dict())))
    assert again == node
    assert digest(again) == digest(node)


def changed() -> dict[str, Node]:
    """MERGE with one thing changed, for each thing in it."""
    first, second = MERGE.groups
    other: dict[str, Any] = {
        "method": replace(MERGE, method="package.module:other"),
        "no base": replace(MERGE, base=None),
        "base": replace(MERGE, base=CHECKPOINT),
        "order of models": replace(MERGE, models=MERGE.models[::-1]),
        "fewer models": replace(MERGE, models=MERGE.models[:1]),
        "order of groups": replace(MERGE, groups=(second, first)),
        "name of a group": replace(MERGE, groups=(replace(first, name="edges"), second)),
        "tensors of a group": replace(MERGE, groups=(first, replace(second, tensors=("a",)))),
        "order of tensors": replace(MERGE, groups=(first, replace(second, tensors=("b", "a")))),
        "a weight": replace(MERGE, groups=(first, replace(second, parameters={"weight": (1.0, -1.1e-3)}))),
        "a scalar": replace(MERGE, groups=(replace(first, parameters={**first.parameters, "t": 0.12500001}), second)),
        "an option": replace(MERGE, options={**MERGE.options, "seed": 4}),
        "a missing option": replace(MERGE, options={"normalize": True}),
        "another node": CHECKPOINT,
    }
    for field in ("name", "path", "revision", "adapter", "dtype", "fingerprint"):
        model = replace(CHECKPOINT, **{field: "other"})
        other[f"{field} of a model"] = replace(MERGE, models=(model, MERGE.models[1]))
    return other


def test_every_change_changes_the_digest() -> None:
    digests = {what: digest(node) for what, node in changed().items()} | {"as it is": digest(MERGE)}
    assert len(set(digests.values())) == len(digests), digests


def test_the_order_of_keys_does_not_matter() -> None:
    options = dict(reversed(MERGE.options.items()))
    assert list(options) != list(MERGE.options)
    assert digest(replace(MERGE, options=options)) == digest(MERGE)


def test_the_digest_is_the_same_in_another_process() -> None:
    code = "from tests.test_recipe import MERGE, digest; print(digest(MERGE))"
    for hash_seed in ("1", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.strip() == digest(MERGE)


def test_the_digest_of_published_recipes_stays() -> None:
    """Of evohydra 0.1.0: ledgers and recipe files on disk hold such digests, a change of format must be noticed."""
    assert digest(MERGE) == "92988d31fcf3d3a761c0a516e5ed71cc7f6b0c0b99aac71a87163c8e03049c63"


def test_checkpoints_are_found_at_every_depth() -> None:
    outer = Merge("m:f", None, (MERGE, Checkpoint("three", "-")), ())
    assert [checkpoint.name for checkpoint in checkpoints(outer)] == ["base", "one", "two", "three"]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"node": "stack"},
        {"node": "checkpoint", "name": "one"},
        {"node": "checkpoint", "name": "one", "path": "-", "size": 3},
        {key: value for key, value in MERGE.to_dict().items() if key != "groups"},
        {**MERGE.to_dict(), "models": None},
        {**MERGE.to_dict(), "groups": [{"name": "all"}]},
    ],
)
def test_what_is_no_recipe_is_an_error(data: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a recipe"):
        from_dict(data)
