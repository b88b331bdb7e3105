"""Outputs of models with the same weights: their last bits depend on the processor and on where the weights lie."""

from typing import Any

from torch import Tensor

from evohydra.families.comparison import apart, rounding


def assert_near(got: Tensor, expected: Tensor, module: Any) -> None:
    """The same but for what rounding explains in one pass through `module`."""
    difference, allowed = apart(got, expected), rounding([module], next(module.parameters()).dtype)
    assert difference <= allowed, f"{difference:.2g} apart, where rounding explains {allowed:.2g}"
