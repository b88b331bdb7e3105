"""Weights on a simplex: their distribution, corners and middle, frozen ones, and published numbers."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from evohydra.recipe import Checkpoint, Merge
from evohydra.spaces.genes import simplex_units, simplex_weights
from evohydra.spaces.grouping import Location
from evohydra.spaces.parameter import ParameterSpace
from tests.contracts.discovery import composed

NAMES = ("sdxl", "dpo", "juggernaut", "jsdxl")
# The published weights of Evo-Ukiyoe (see evohydra/docs/diffusion.md).
CONV = (0.159288, 0.103245, 0.650322, 0.087145)
ATTN = (0.187728, 0.200141, 0.392269, 0.219862)


def space(names: tuple[str, ...] = NAMES, **settings: Any) -> ParameterSpace:
    plain = composed("merge=simplex")["merge"]["parameter"]
    given = {key: value for key, value in plain.items() if not key.startswith("_")} | settings
    places = {part: Location("m", None, None, {"paper": part}) for part in ("attn", "conv")}
    given["granularity"] = {"preset": "paper"}
    return ParameterSpace(models=[Checkpoint(n, n) for n in names], base=None, locations=places, **given)


def weights(merge: Merge) -> dict[str, Any]:
    return {group.name: group.parameters["weight"] for group in merge.groups}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_weights_are_on_the_simplex_and_follow_their_units(units: list[float]) -> None:
    found = simplex_weights(units)
    assert min(found) >= 0
    assert sum(found) == pytest.approx(1)
    assert simplex_weights(units[::-1]) == pytest.approx(found[::-1])
    assert sorted(range(len(units)), key=lambda i: (units[i], i)) == sorted(
        range(len(units)), key=lambda i: (found[i], units[i], i)
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6).filter(lambda each: sum(each) > 1e-3))
def test_units_are_the_inverse(sizes: list[float]) -> None:
    wanted = [size / sum(sizes) for size in sizes]
    units = simplex_units(wanted)
    assert all(0 <= unit < 1 for unit in units)
    assert simplex_weights(units) == pytest.approx(wanted, abs=1e-12)


def test_corners_edges_and_the_middle_by_hand() -> None:
    assert simplex_weights((0.5, 0.5, 0.5)) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert simplex_weights((0, 0, 0.2)) == (0, 0, 1)
    assert simplex_weights((1, 0.9, 0.9)) == (1, 0, 0)
    assert simplex_weights((1, 0.9, 1)) == (0.5, 0, 0.5)
    assert simplex_weights((0, 0)) == (0.5, 0.5)
    assert simplex_weights(simplex_units((0, 1, 0))) == (0, 1, 0)
    # -log(1 - 0.75) = 2 log 2
    assert simplex_weights((0.5, 0.75)) == pytest.approx((1 / 3, 2 / 3))


def test_uniform_units_are_uniform_on_the_simplex() -> None:
    """A weight among three is then distributed as Beta(1, 2)."""
    drawn = np.random.default_rng(0).random((4000, 3))
    found = np.array([simplex_weights(tuple(map(float, row))) for row in drawn])
    for column in found.T:
        assert kstest(column, "beta", args=(1, 2)).pvalue > 0.01


def test_the_space_decodes_records_and_encodes_weights() -> None:
    searched = space()
    assert len(searched.names) == 8
    assert searched.names[0] == "attn/weight/sdxl"
    x = np.random.default_rng(1).random(8)
    merge = searched.decode(x)
    for group, found in weights(merge).items():
        assert sum(found) == pytest.approx(1)
        assert found == tuple(searched.values(x)[f"{group}/weight/{name}"] for name in NAMES)
    again = searched.decode(searched.encode(merge))
    assert weights(again)["attn"] == pytest.approx(weights(merge)["attn"])
    marks = searched.known_merges()
    assert weights(searched.decode(searched.encode(marks["dpo"])))["conv"] == (0, 1, 0, 0)  # type: ignore[arg-type]
    assert weights(searched.default()) == dict.fromkeys(("attn", "conv"), (0.25,) * 4)


def frozen(**groups: tuple[float, ...]) -> dict[str, float]:
    return {f"{g}/weight/{n}": w for g, ws in groups.items() for n, w in zip(NAMES, ws, strict=False)}


def test_published_weights_are_one_recipe_without_coordinates() -> None:
    searched = space(frozen=frozen(attn=ATTN, conv=CONV))
    assert searched.names == ()
    assert weights(searched.decode(np.empty(0))) == {"attn": ATTN, "conv": CONV}
    assert searched.encode(searched.decode(np.empty(0))).shape == (0,)


def test_the_others_share_what_frozen_weights_leave() -> None:
    searched = space(frozen={"conv/weight/jsdxl": 0.4, "attn/weight/*": 0.25})
    assert searched.names == tuple(f"conv/weight/{name}" for name in NAMES[:3])
    assert weights(searched.decode(np.full(3, 0.5)))["conv"] == pytest.approx((0.2, 0.2, 0.2, 0.4))
    x = np.array([0.1, 0.6, 0.3])
    merge = searched.decode(x)
    assert weights(searched.decode(searched.encode(merge)))["conv"] == pytest.approx(weights(merge)["conv"])
    last = space(frozen=frozen(attn=ATTN, conv=CONV[:3]))
    assert last.names == ()
    assert weights(last.decode(np.empty(0)))["conv"] == pytest.approx(CONV)


@pytest.mark.parametrize("wrong", [{"conv/weight/*": 0.3}, {"conv/weight/dpo": 1.2}, {"conv/weight/dpo": -0.1},
                                   {"conv/weight/*": 0.2}])  # fmt: skip
def test_frozen_weights_that_do_not_sum_to_one_are_errors(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"frozen: expected weights of 0 or more that sum to 1"):
        space(frozen=wrong)


def test_weights_that_sum_to_something_else_have_no_point() -> None:
    searched, other = space(), space(frozen={"attn/weight/dpo": 0.5})
    with pytest.raises(ValueError, match=r"expected weights of 0 or more that sum to 0\.5, got"):
        other.encode(searched.known_merges()["uniform"])


@pytest.mark.parametrize("gene", [{"per": "group", "simplex": True, "default": "share"},
                                  {"per": "source", "simplex": True, "default": 1.0}])  # fmt: skip
def test_a_simplex_is_over_sources(gene: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"genes.weight.simplex: expected per: source and default: share"):
        space(genes={"weight": gene})
