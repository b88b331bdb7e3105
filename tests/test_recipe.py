"""Recipes: JSON and back, and a digest that is the same everywhere and differs for every change."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evohydra.checks import PLAIN_NAME
from evohydra.recipe import MOST_LEVELS, Checkpoint, Group, Merge, Node, checkpoints, digest, from_dict
from tests.elsewhere import elsewhere

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

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
values = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(), st.booleans(), names)
parameters = st.dictionaries(names, st.one_of(values, st.lists(st.floats(0, 1), max_size=3).map(tuple)), max_size=3)
plain = st.from_regex(PLAIN_NAME, fullmatch=True)
leaves = st.builds(Checkpoint, plain, names, st.none() | names, st.none() | names)
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


def digest_of_the_merge() -> str:
    return digest(MERGE)


def test_the_digest_is_the_same_in_another_process() -> None:
    assert elsewhere(__name__, "digest_of_the_merge") == digest_of_the_merge()


def test_the_digest_of_published_recipes_stays() -> None:
    """Of evohydra 0.1.0: ledgers and recipe files on disk hold such digests, a change of format must be noticed."""
    assert digest(MERGE) == "92988d31fcf3d3a761c0a516e5ed71cc7f6b0c0b99aac71a87163c8e03049c63"


def test_checkpoints_are_found_at_every_depth() -> None:
    outer = Merge("m:f", None, (MERGE, Checkpoint("three", "-")), ())
    assert [checkpoint.name for checkpoint in checkpoints(outer)] == ["base", "one", "two", "three"]


PATH: dict[str, Any] = {
    "node": "stack", "sources": [CHECKPOINT.to_dict()], "hops": [[0, 1, 1.0]], "scaling": "branch",
    "layout": {"layers": "l", "embeddings": "e", "attention": "a", "mlp": "m"},
}  # fmt: skip
GROUP: dict[str, Any] = {"name": "all", "tensors": ["a"], "parameters": {"weight": [0.5, 0.5]}}


NO_NAMES = ("", "/a", "../a", "..", ".a", "a/b", "a\nb", "a\\b", "a" * 101, "[red]", "<b>", "a|b")


def with_group(**changes: object) -> dict[str, Any]:
    return {**MERGE.to_dict(), "groups": [{**GROUP, **changes}]}


def checkpoint(**changes: object) -> dict[str, Any]:
    return {**CHECKPOINT.to_dict(), **changes}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, "recipe: not a recipe: expected node checkpoint, merge, stack, got {}"),
        ([], r"recipe: not a recipe.* got \[\]"),
        ({"node": ["merge"]}, "recipe: not a recipe"),
        ({"node": "stack"}, "recipe: expected a value for sources, hops, layout, scaling, got none"),
        ({"node": "checkpoint", "name": "one"}, "recipe: expected a value for path, got none"),
        (checkpoint(size=3), r"expected no other keys than .*, got \['size'\]"),
        (checkpoint(path=["a"]), r"recipe.path: expected a text, got \['a'\]"),
        (checkpoint(adapter=7), "recipe.adapter: expected a text or null, got 7"),
        *((checkpoint(name=name), "recipe.name: expected a plain name") for name in NO_NAMES),
        ({key: value for key, value in MERGE.to_dict().items() if key != "groups"}, "expected a value for groups"),
        ({**MERGE.to_dict(), "models": None}, "recipe.models: expected a list"),
        ({**MERGE.to_dict(), "models": []}, "recipe.models: expected one model or more, got none"),
        ({**MERGE.to_dict(), "models": "one"}, "recipe.models: expected a list"),
        ({**MERGE.to_dict(), "models": [3]}, r"recipe.models\[0\]: not a recipe"),
        ({**MERGE.to_dict(), "base": checkpoint(name="a/b")}, "recipe.base.name: expected a plain name"),
        ({**MERGE.to_dict(), "method": None}, "recipe.method: expected a text, got None"),
        ({**MERGE.to_dict(), "options": {"a": {"b": 1}}}, "recipe.options: expected a mapping"),
        ({**MERGE.to_dict(), "options": {"a": float("inf")}}, "recipe.options: expected a mapping"),
        ({**MERGE.to_dict(), "groups": [{"name": "all"}]}, r"recipe.groups\[0\]: expected a value for tensors"),
        (with_group(tensors="abc"), r"recipe.groups\[0\].tensors: expected a list"),
        (with_group(tensors=[1]), r"recipe.groups\[0\].tensors: expected a list"),
        (with_group(parameters={"weight": ["a"]}), r"recipe.groups\[0\].parameters: expected a mapping"),
        (with_group(more=1), r"recipe.groups\[0\]: expected no other keys than name, tensors, parameters"),
        ({**PATH, "hops": []}, "a path needs one hop or more"),
        ({**PATH, "hops": [[0, 0, 1.0]] * 10_001}, "a path needs one hop or more, at most 10000, got 10001"),
        ({**PATH, "hops": [[0, 1]]}, r"recipe.hops: expected a list of \[source, layer, scale\]"),
        ({**PATH, "hops": [[0.0, 1, 1.0]]}, "recipe.hops: expected a list"),
        ({**PATH, "hops": [[0, True, 1.0]]}, "recipe.hops: expected a list"),
        ({**PATH, "hops": [[0, -1, 1.0]]}, "recipe.hops: expected a list"),
        ({**PATH, "hops": [[1, 0, 1.0]]}, "hop 0: there is no layer 0 of source 1"),
        ({**PATH, "scaling": "both"}, "recipe.scaling: expected branch or stream, got 'both'"),
        ({**PATH, "layout": {"layers": "l"}}, "recipe.layout: expected a value for embeddings"),
        ({**PATH, "layout": {**PATH["layout"], "mlp": "("}}, "recipe.layout.mlp: '\\(' is no regular expression"),
        ({**PATH, "layout": {**PATH["layout"], "mlp": "(?:a{999}){999}"}}, "recipe.layout.mlp: expected counts"),
    ],
)  # fmt: skip
def test_what_is_no_recipe_is_an_error_that_says_where(data: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=f"^{expected}" if expected.startswith("recipe") else expected) as raised:
        from_dict(data)
    assert len(str(raised.value)) < 500


def test_recipes_in_recipes_end_somewhere() -> None:
    node: Node = CHECKPOINT
    for _ in range(MOST_LEVELS):
        node = Merge("linear", None, (node,), ())
    assert from_dict(node.to_dict()) == node
    with pytest.raises(ValueError, match=f"at most {MOST_LEVELS} recipes in each other"):
        from_dict(Merge("linear", None, (node,), ()).to_dict())


json_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def replaced(data: Any, at: int, instead: object) -> Any:
    """`data` with the value number `at` of all that are in it, from the outside, replaced."""
    left = at

    def walk(value: Any) -> Any:
        nonlocal left
        left -= 1
        if left == -1:
            return instead
        if isinstance(value, dict):
            return {key: walk(inner) for key, inner in value.items()}
        return [walk(inner) for inner in value] if isinstance(value, list) else value

    return walk(data)


@given(node=nodes, at=st.integers(0, 40), instead=json_data)
def test_any_damage_is_refused_or_still_a_recipe(node: Node, at: int, instead: object) -> None:
    damaged = replaced(json.loads(json.dumps(node.to_dict())), at, instead)
    try:
        read = from_dict(damaged)
    except ValueError as error:
        said = str(error)
        read = None
    if read is None:
        assert 0 < len(said) < 1000
        return
    assert from_dict(json.loads(json.dumps(read.to_dict()))) == read


def test_what_a_checkpoint_may_say_is_read_again() -> None:
    node = Checkpoint(
        "one", "owner/one", "main", settings="a digest", convert="weights_only", variant="fp16", config="x"
    )
    assert from_dict(json.loads(json.dumps(node.to_dict()))) == node
    assert "convert" not in Checkpoint("one", "owner/one").to_dict()
    with pytest.raises(ValueError, match=r"recipe\.convert: expected weights_only or null, got 'pickle'"):
        from_dict({**node.to_dict(), "convert": "pickle"})
