"""The data-flow space: the published decoder by hand, round trips, inactive genes, bounds, and its errors."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from evohydra.checks import check_settings
from evohydra.recipe import Checkpoint, Hop, LayerNames, Stack, digest, from_dict
from evohydra.spaces.dataflow import DataFlowSpace
from evohydra.spaces.published import published_path
from evohydra.spaces.scales import Matrix, Network, Ones, ScaleRange, Scales, Slot
from evohydra.spaces.slots import Slots

A, B, C = (Checkpoint(name, f"/{name}") for name in ("a", "b", "c"))
LAYOUT = LayerNames(
    "model.layers", r"model\.embed_tokens\.weight", r"self_attn\.o_proj\.weight", r"mlp\.down_proj\.weight"
)
PAPER: dict[str, Any] = {
    "repeats": 3, "scales": Matrix, "low": -1.0, "high": 3.0, "favour": {"layers": 2.0, "ends": 2.0, "others": 0.0},
}  # fmt: skip
KINDS: list[Callable[..., Scales]] = [Matrix, Slot, Network, Ones]


def space(**options: Any) -> DataFlowSpace:
    return DataFlowSpace(**({"models": (A, B), "layers": (3, 2), "layout": LAYOUT} | options))


def hops(path: Stack) -> list[tuple[int, int, float]]:
    return [(hop.source, hop.layer, hop.scale) for hop in path.hops]


@st.composite
def spaces(draw: st.DrawFn, kinds: list[Callable[..., Scales]] = KINDS) -> DataFlowSpace:
    depths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    low, high = draw(st.sampled_from([(0.5, 1.5), (0.1, 4.0), (0.999, 1.001)]))
    return space(
        models=(A, B, C)[: len(depths)], layers=depths, repeats=draw(st.integers(1, 3)),
        order=draw(st.sampled_from(["sources", "layers"])), scales=draw(st.sampled_from(kinds)),
        low=low, high=high, log=draw(st.booleans()), ends=draw(st.booleans()),
        scaling=draw(st.sampled_from(["branch", "stream"])), max_hops=draw(st.none() | st.integers(2, 6)),
        first=draw(st.none() | st.sampled_from([model.name for model in (A, B, C)[: len(depths)]])),
    )  # fmt: skip


def point(found: DataFlowSpace, seed: int) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    return np.clip(generator.random(len(found.names)) ** generator.uniform(0.3, 3), 0, 1)


def test_a_path_by_hand() -> None:
    """M = 5 (a.0 a.1 a.2 b.0 b.1), r = 2. Taken: a.1 and b.1, then a.0, b.0. p of W is 0.01 * (10 * row + column)."""
    found = space(repeats=2, low=-1.0, high=3.0)
    params = np.full(10 + 25, -0.3)
    params[[1, 4, 5, 8]] = 0.1, 1e-9, 2.0, 0.5
    params[2] = 0.0  # not above 0: skipped
    params[10:] = [0.01 * (10 * row + column) for row in range(5) for column in range(5)]
    # a.0 -> a.1 -> b.1 -> a.0 -> b.0 -> a.2: W[0][1], W[1][4], W[4][0], W[0][3], W[3][2]
    expected = [(0, 0, 1.0), (0, 1, 1.01), (1, 1, 1.14), (0, 0, 1.40), (1, 0, 1.03), (0, 2, 1.32)]
    path = found.decode(params / 4 + 0.5)
    assert [place[:2] for place in hops(path)] == [place[:2] for place in expected]
    np.testing.assert_allclose([hop.scale for hop in path.hops], [scale for *_, scale in expected], rtol=1e-14)
    assert path.sources == (A, B)
    assert path.layout == LAYOUT
    assert path.scaling == "branch"


def test_in_the_order_of_layers_one_repetition_goes_from_source_to_source() -> None:
    found = space(repeats=1, order="layers", ends=False, scales=Ones)
    assert found.names == ("path.0/b.0", "path.0/a.0", "path.0/b.1", "path.0/a.1", "path.0/a.2")
    path = found.decode(np.array([0.8, 0.2, 0.6, 0.7, 0.9]))
    assert hops(path) == [(1, 0, 1.0), (1, 1, 1.0), (0, 1, 1.0), (0, 2, 1.0)]
    assert hops(found.default()) == hops(found.alone())
    assert [axis.favoured for axis in found.axes] == [-1.5, 2.0, -1.5, 2.0, 2.0]
    kept = space(repeats=1, order="layers", scales=Ones)
    assert [place[:2] for place in hops(kept.decode(np.full(5, 0.8)))] == [
        (0, 0), (1, 0), (0, 0), (1, 1), (0, 1), (0, 2), (0, 2),
    ]  # fmt: skip


def test_a_path_without_anything_taken_is_the_ends() -> None:
    assert hops(space().decode(np.full(15 + 25, 0.5))) == [(0, 0, 1.0), (0, 2, 1.0)]
    assert hops(space(ends=False).decode(np.full(15 + 25, 0.5))) == [(0, 0, 1.0)]


def transcribed(params: NDArray[np.float64], depth_a: int, layers: int, repeats: int) -> list[tuple[int, int, float]]:
    """The rule once more, in loops and from the issue's text alone."""
    slots = layers * repeats
    chosen = [0] + [slot % layers for slot in range(slots) if params[slot] > 0] + [depth_a - 1]
    weights = [[1 + params[slots + i * layers + j] for j in range(layers)] for i in range(layers)]
    scale, out = 1.0, []
    for place, layer in enumerate(chosen):
        scale = 1.0 if place == 0 else float(weights[chosen[place - 1]][layer])
        out.append((0, layer, scale) if layer < depth_a else (1, layer - depth_a, scale))
    return out


@given(depths=st.tuples(st.integers(1, 5), st.integers(1, 5)), repeats=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_decoding_is_the_published_rule(depths: tuple[int, int], repeats: int, seed: int) -> None:
    total = sum(depths)
    params = np.random.default_rng(seed).normal(0, 0.4, total * repeats + total**2).clip(-2, 2)
    published = [(hop.source, hop.layer, hop.scale) for hop in published_path(params, depths, repeats)]
    assert published == transcribed(params, depths[0], total, repeats)
    found = hops(space(**PAPER | {"layers": depths, "repeats": repeats}).decode(params / 4 + 0.5))
    assert [place[:2] for place in found] == [place[:2] for place in published]
    np.testing.assert_allclose([f[2] for f in found], [p[2] for p in published], rtol=0, atol=1e-15)


def test_the_papers_numbers() -> None:
    found = space(**PAPER | {"layers": (32, 32)})
    assert len(found.names) == 192 + 64 * 64
    assert [axis.favoured for axis in found.axes] == [2.0] * 32 + [0.0] * (160 + 4096)
    assert [axis.kind for axis in found.axes] == ["categorical"] * 192 + ["continuous"] * 4096
    sigma = 0.025
    start = np.array([0.5 + sigma * axis.favoured for axis in found.axes])
    assert [layer for _, layer, _ in hops(found.decode(start))] == [0, *range(32), 31]


def test_published_params_of_another_shape_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"shape \(40,\)"):
        published_path(np.zeros(41), (3, 2), 3)


@given(found=spaces(), seed=st.integers(0, 10**6))
def test_encoding_is_the_inverse_of_decoding(found: DataFlowSpace, seed: int) -> None:
    path = found.decode(point(found, seed))
    if any(hop.scale != 1 for hop in path.hops) and any("network" in name for name in found.names):
        with pytest.raises(ValueError, match="scales of a network"):
            found.encode(path)
        return
    x = found.encode(path)
    assert ((x >= 0) & (x <= 1)).all()
    assert found.decode(x) == path
    np.testing.assert_array_equal(found.encode(found.decode(x)), x)
    assert from_dict(path.to_dict()) == path


@given(found=spaces(), seed=st.integers(0, 10**6))
def test_hops_are_layers_that_exist_and_paths_are_not_too_long(found: DataFlowSpace, seed: int) -> None:
    path = found.decode(point(found, seed))
    depths = found._slots.depths
    assert all(0 <= hop.layer < depths[hop.source] for hop in path.hops)
    assert all(found._options["low"] <= hop.scale <= found._options["high"] for hop in path.hops)
    assert path.hops[0].scale == 1
    assert len(path.hops) <= (found._options["max_hops"] or len(path.hops))
    if found._options["ends"]:
        first, last = path.hops[0], path.hops[-1]
        assert (first.source, first.layer, last.source, last.layer) == (0, 0, 0, depths[0] - 1)


@given(found=spaces(), seed=st.integers(0, 10**6))
def test_only_genes_that_are_reported_change_the_recipe(found: DataFlowSpace, seed: int) -> None:
    x = point(found, seed)
    path, reported = found.decode(x), found.values(x)
    assert set(reported) <= set(found.names)
    other = np.random.default_rng(seed + 1).random(len(x))
    slots = found._slots.end
    changed = np.where([name in reported for name in found.names], x, other)
    within = np.nextafter(other[:slots] / 2, 0)  # of its half of the unit interval
    changed[:slots] = np.where(x[:slots] > 0.5, 1 - within, within)
    assert digest(found.decode(changed)) == digest(path)
    assert found.values(changed) == reported


@given(seed=st.integers(0, 10**6))
def test_every_reported_scale_changes_the_recipe(seed: int) -> None:
    for kind in (Matrix, Slot):
        found = space(scales=kind, repeats=2)
        x = point(found, seed)
        names = [name for name in found.values(x) if name.startswith("scale/")]
        scales = {hop.scale for hop in found.decode(x).hops[1:]}
        assert {found.values(x)[name] for name in names} == scales
        for name in names:
            changed = x.copy()
            changed[found.names.index(name)] = 1 - 0.9 * changed[found.names.index(name)]
            assert found.decode(changed) != found.decode(x)


def test_what_is_reported() -> None:
    found = space(repeats=2, scales=Slot)
    x = np.full(len(found.names), 0.5)
    x[[3, 6]] = 0.75
    x[found.names.index("scale/path.1/a.1")] = 1.0
    assert found.values(x) == {
        "path.0/b.0": True, "path.1/a.1": True, "scale/path.0/b.0": 1.0, "scale/path.1/a.1": 1.5, "scale/end": 1.0,
    }  # fmt: skip
    assert hops(found.decode(x)) == [(0, 0, 1.0), (1, 0, 1.0), (0, 1, 1.5), (0, 2, 1.0)]
    matrix = space(repeats=2)
    values = matrix.values(np.where(np.arange(35) == 3, 0.75, 0.5))
    assert values == {"path.0/b.0": True, "scale/a.0/b.0": 1.0, "scale/b.0/a.2": 1.0}


def test_names_are_unique_and_axes_match() -> None:
    for kind, ends in itertools.product(KINDS, (True, False)):
        found = space(scales=kind, ends=ends)
        assert len(set(found.names)) == len(found.names) == len(found.axes)
    assert len(space(scales=Slot).names) == 15 + 16
    assert len(space(scales=Slot, ends=False).names) == 15 + 15
    assert len(space(scales=Ones).names) == 15
    # Two one-hot and two depths, t and the bias, to 4 units; those and a bias to the scale.
    assert len(space(scales=Network).names) == 15 + 4 * 8 + 5


def test_favoured_slots() -> None:
    assert [a.favoured for a in space(repeats=2).axes[:10]] == [-1.5, 2, -1.5, *[-1.5] * 7]
    assert [a.favoured for a in space(repeats=2, ends=False).axes[:10]] == [2, 2, 2, *[-1.5] * 7]
    favour = {"others": -3, "layers": 1}
    assert [a.favoured for a in space(repeats=2, favour=favour, first="b").axes[:4]] == [-1.5, -1.5, -3, -3]
    assert {a.favoured for a in space(repeats=2).axes[10:]} == {0.0}


def test_longer_paths_lose_their_last_slots() -> None:
    x = np.full(15 + 25, 0.5)
    x[:15] = 0.75
    assert [h[:2] for h in hops(space(max_hops=4).decode(x))] == [(0, 0), (0, 0), (0, 1), (0, 2)]
    assert [h[:2] for h in hops(space(max_hops=2).decode(x))] == [(0, 0), (0, 2)]
    assert [h[:2] for h in hops(space(max_hops=4, ends=False).decode(x))] == [(0, 0), (0, 1), (0, 2), (1, 0)]


def test_which_source_is_a() -> None:
    found = space(models=(A, B, C), layers=(3, 2, 4), first="b")
    assert found.decode(np.full(len(found.names), 0.2)).sources == (B, A, C)
    assert list(found.known_merges()) == ["b"]
    assert hops(found.known_merges()["b"]) == [(0, 0, 1.0), (0, 1, 1.0)]  # type: ignore[arg-type]
    some = space(models=(A, B, C), layers=(3, 2, 4), sources=["c"], first="b")
    assert some.decode(np.full(len(some.names), 0.2)).sources == (B, C)
    assert space(models=(A, B, C), layers=(3, 2, 4), sources=["c", "a"]).alone().sources == (A, C)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ends", [True, False])
def test_a_alone_is_a_landmark_and_the_default(kind: Callable[..., Scales], ends: bool) -> None:
    found = space(scales=kind, ends=ends)
    alone = found.known_merges()["a"]
    assert hops(alone) == [(0, 0, 1.0), (0, 1, 1.0), (0, 2, 1.0)]
    assert found.decode(found.encode(alone)) == alone == found.default() == found.alone()
    # The most likely path of a search that begins where the space favours.
    assert found.decode(np.array([0.5 + 0.1 * axis.favoured for axis in found.axes])) == alone


def test_where_a_alone_is_too_long_it_is_no_landmark() -> None:
    short = space(max_hops=2)
    assert short.known_merges() == {}
    assert hops(short.default()) == [(0, 0, 1.0), (0, 2, 1.0)]
    with pytest.raises(ValueError, match="has 3 hops, max_hops is 2"):
        short.encode(short.alone())
    assert space(layers=(1, 2)).known_merges() == {}  # both ends are its only layer: a path has it twice
    assert hops(space(layers=(1, 2)).default()) == [(0, 0, 1.0), (0, 0, 1.0)]
    assert list(space(layers=(1, 2), ends=False).known_merges()) == ["a"]


def stack(*places: tuple[int, int, float], **changes: Any) -> Stack:
    fields: dict[str, Any] = {"sources": (A, B), "layout": LAYOUT} | changes
    return Stack(hops=tuple(Hop(*place) for place in places), **fields)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (A, "only paths"),
        (stack((0, 0, 1.0), (0, 2, 1.0), sources=(B, A)), "own sources"),
        (stack((0, 0, 1.0), (0, 2, 1.0), scaling="stream"), "scaling=branch"),
        (stack((0, 0, 0.9), (0, 2, 1.0)), "first hop is 1"),
        (stack((0, 0, 1.0), (0, 1, 1.0)), "from layer 0 to layer 2 of a"),
        (stack((0, 0, 1.0)), "from layer 0 to layer 2"),
        (stack((0, 0, 1.0), (1, 2, 1.0), (0, 2, 1.0)), "no layer 2 of source 1"),
        (stack((0, 0, 1.0), *[(1, 1, 1.0), (1, 0, 1.0)] * 4, (0, 2, 1.0)), "repeats: the path needs more than 3"),
        (stack((0, 0, 1.0), (0, 2, 1.6)), r"scale of 1\.6 is outside \[0\.5, 1\.5\]"),
        (stack((0, 0, 1.0), (1, 1, 1.2), (1, 1, 1.1), (1, 1, 1.3), (0, 2, 1.0)), "scale/b.1/b.1 would need to be both"),
    ],
)
def test_recipes_that_the_space_does_not_hold(recipe: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        space().encode(recipe)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": 0}, "repeats: expected a whole number of at least 1 and at most 1000, got 0"),
        ({"repeats": 1.5}, "repeats"),
        ({"repeats": True}, "repeats"),
        ({"low": 0.0, "log": True}, "logarithmic range needs low > 0, got low=0"),
        ({"low": -1.0, "log": True}, "logarithmic range needs low > 0"),
        ({"low": float("nan")}, "low: expected a number, got nan"),
        ({"high": float("inf")}, "high: expected a number, got inf"),
        ({"high": "2"}, "high: expected a number, got '2'"),
        ({"low": 1.5, "high": 0.5}, "expected low < 1 < high"),
        ({"low": 1.2, "high": 1.5}, "expected low < 1 < high"),
        ({"low": 1.0, "high": 1.0}, "expected low < 1 < high"),
        ({"scales": "matrixes"}, "scales: expected a class .* got 'matrixes'"),
        ({"scaling": "streams"}, "scaling: expected one of branch, stream, got 'streams'"),
        ({"scaling": "stream", "low": 0.0}, "only where they are positive; got scaling=stream with low=0"),
        ({"scaling": "stream", "low": -0.5}, "only where they are positive"),
        ({"max_hops": 1}, "max_hops: expected null or 2 or more: the ends of the path take two, got 1"),
        ({"max_hops": 0, "ends": False}, "max_hops: expected a whole number of at least 1 or null, got 0"),
        ({"max_hops": 2.5}, "max_hops"),
        ({"models": (), "layers": ()}, "one source or more"),
        ({"layers": (3,)}, "a number of layers for each of 2 models"),
        ({"layers": (3, 0)}, "source 'b': a path needs layers, it has 0"),
        ({"models": (A, A)}, "different names"),
        ({"first": "d"}, "first: expected a, b, got 'd'"),
        ({"sources": ["b", "d"]}, "sources: expected a, b, got 'd'"),
        ({"sources": "b"}, "sources: expected a list of names, got 'b'"),
        ({"ends": "no"}, "ends: expected true or false, got 'no'"),
        ({"log": 1}, "log: expected true or false, got 1"),
        ({"favour": {"layer": 2}}, "favour: expected the keys layers, ends, others, got layer"),
    ],
)
def test_wrong_options_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        space(**options)


@pytest.mark.parametrize(
    ("taker", "settings", "message"),
    [
        (
            DataFlowSpace,
            {"favour": {"layers": float("nan")}},
            r"path\.favour: expected a mapping \(a number of .* each\)",
        ),
        (DataFlowSpace, {"merged": "last"}, r"path\.merged: expected first, added or added_first, got 'last'"),
        (Network, {"hidden": 0}, r"path\.hidden: expected a whole number of at least 1 and at most 1000, got 0"),
        (Network, {"reach": float("inf")}, r"path\.reach: expected a number of more than 0, got inf"),
    ],
)
def test_settings_of_wrong_types_are_errors(taker: type, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_settings("path", taker, settings)


def test_a_stream_without_scales_can_have_any_range() -> None:
    assert space(scaling="stream", low=-1.0, scales=Ones).default().scaling == "stream"


def test_genomes_of_another_length_are_errors() -> None:
    found = space()
    for use in (found.decode, found.values):
        with pytest.raises(ValueError, match=r"shape \(40,\), got \(41,\)"):
            use(np.zeros(41))


@given(low=st.floats(0.01, 0.99), high=st.floats(1.01, 50), log=st.booleans(), unit=st.floats(0, 1))
def test_a_scale_is_found_again(low: float, high: float, log: bool, unit: float) -> None:
    bounds = ScaleRange(low, high, log)
    assert (bounds.value(0.0), bounds.value(0.5), bounds.value(1.0)) == (low, 1.0, high)
    assert bounds.unit(low) == 0
    assert bounds.unit(1.0) == 0.5
    assert bounds.unit(high) == 1
    scale = bounds.value(unit)
    assert low <= scale <= high
    assert bounds.value(bounds.unit(scale)) == pytest.approx(scale, rel=1e-15)
    assert bounds.unit(scale) == pytest.approx(unit, abs=1e-12)


def test_scales_of_a_logarithmic_range() -> None:
    bounds = ScaleRange(0.25, 2.0, log=True)
    assert [bounds.value(u) for u in (0, 0.25, 0.5, 0.75, 1)] == pytest.approx([0.25, 0.5, 1, 2**0.5, 2])
    with pytest.raises(ValueError, match="outside"):
        bounds.unit(0.2)


def test_the_network_by_hand() -> None:
    slots = Slots(("a", "b"), (3, 2), 2)
    network = Network(slots=slots, bounds=ScaleRange(0.5, 2.0), hidden=1, reach=2.0)
    x = np.full(8 + 2, 0.5)
    assert network.decode(x, slots.path(np.ones(10, bool))) == [1.0] * 12
    # Weights: how deep the layer is (input 5) 1.0, t (input 6) 0.5; the unit 2.0, its bias -0.2.
    x[[5, 6, 8, 9]] = 0.75, 0.625, 1.0, 0.45
    path = slots.path(np.arange(10) == 4)  # a.0 -> b.1 -> a.2
    outputs = [2 * np.tanh(1.0 + 0.5 * t / 11) - 0.2 for t in (1, 2)]
    assert network.decode(x, path) == pytest.approx([1.0, *(1 + np.tanh(output) for output in outputs)])
    x[9] = 0.0  # far below zero: towards the lowest scale
    assert all(0.5 <= scale < 1 for scale in network.decode(x, path)[1:])
