"""Genes: coordinates of the unit interval, and the reals, integers and choices that they stand for."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evohydra.spaces.genes import Choice, Real, integer

UNITS = st.floats(0, 1)
BOUNDS = st.tuples(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(bounds=BOUNDS, unit=UNITS)
def test_reals_fill_their_range(bounds: tuple[float, float], unit: float) -> None:
    low, high = bounds
    gene = Real("a", low, high)
    assert (gene.value(0.0), gene.value(1.0)) == pytest.approx(bounds)
    assert gene.value(unit) == pytest.approx(low + unit * (high - low))
    value = min(max(gene.value(unit), low), high)
    assert gene.unit(value) == pytest.approx(unit, abs=1e-6)


@given(unit=UNITS)
def test_logarithmic_reals_are_even_in_the_exponent(unit: float) -> None:
    gene = Real("a", 1e-4, 1e2, log=True)
    assert math.log10(gene.value(unit)) == pytest.approx(-4 + 6 * unit)
    assert gene.unit(10 ** (-4 + 6 * min(max(unit, 1e-9), 1 - 1e-9))) == pytest.approx(unit, abs=1e-6)
    assert gene.kind == "continuous"


def test_negative_ranges_by_hand() -> None:
    gene = Real("a", -2.0, 1.0)
    assert [gene.value(unit) for unit in (0.0, 0.5, 1.0)] == [-2.0, -0.5, 1.0]
    assert [gene.unit(value) for value in (-2.0, 0.0, 1.0)] == pytest.approx([0.0, 2 / 3, 1.0])


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [(1.0, 1.0, False), (2.0, 1.0, False), (0.0, 1.0, True), (-1.0, 1.0, True), (0.0, math.inf, False),
     (math.nan, 1.0, False)],
)  # fmt: skip
def test_ranges_that_make_no_sense_name_the_gene(low: float, high: float, log: bool) -> None:
    with pytest.raises(ValueError, match="'density'"):
        Real("density", low, high, log)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_a_value_outside_of_the_range_has_no_coordinate(value: float) -> None:
    with pytest.raises(ValueError, match=r"'a'.*outside"):
        Real("a", 0.0, 1.0).unit(value)


@given(count=st.integers(2, 9), unit=UNITS)
def test_choices_have_equal_shares(count: int, unit: float) -> None:
    gene = Choice("a", tuple(range(count)))
    assert gene.value(unit) == min(math.floor(unit * count), count - 1)
    assert all(gene.value(gene.unit(option)) == option for option in gene.options)
    assert gene.kind == "categorical"


def test_choices_by_hand() -> None:
    gene = Choice("a", ("none", "density", "l1"))
    assert [gene.value(unit) for unit in (0.0, 0.33, 0.34, 0.66, 0.67, 1.0)] == [
        "none", "none", "density", "density", "l1", "l1",
    ]  # fmt: skip
    assert gene.unit("density") == 0.5
    with pytest.raises(ValueError, match="'l2' is none of"):
        gene.unit("l2")
    with pytest.raises(ValueError, match="two or more"):
        Choice("a", ("one",))


def test_integers_include_both_ends() -> None:
    gene = integer("a", -1, 2)
    assert gene.kind == "integer"
    assert [gene.value(unit) for unit in (0.0, 0.24, 0.25, 0.5, 0.75, 1.0)] == [-1, -1, 0, 1, 2, 2]
    with pytest.raises(ValueError, match="low < high"):
        integer("a", 3, 3)


@pytest.mark.parametrize(("low", "high"), [(1e-6, 1e-2), (0.01, 100.0), (1e-3, 7.0)])
def test_rounding_does_not_step_over_the_ends_of_a_logarithmic_range(low: float, high: float) -> None:
    gene = Real("t", low, high, log=True)
    for unit in (0.0, 1.0):
        assert low <= gene.value(unit) <= high
        assert gene.unit(gene.value(unit)) == pytest.approx(unit)
