"""What a test of so many examples can show, and how much too good the best of many genomes looks.

Two models are compared on the same n examples. Where scores are 0 or 1, the share d of examples on which they disagree
decides: the difference of two models with the true gain g has the variance (d - g^2) / n (Connor, Sample size for
testing differences in proportions for the paired-sample design, Biometrics 43, 1987). Of other scores d is the mean
square of the paired differences, and the same formulas hold.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

POWER, LEVEL = 0.8, 0.05  # chance to see a gain that is there; two-sided chance to see one that is not
# Two models whose answers are independent, each right half of the time, disagree on half of the examples. More needs
# models that are right where the other is wrong, and less is usual between a merge and its sources.
BOUND = 0.5


@dataclass(frozen=True)
class Disagreement:
    """d by benchmark, see above; `measured` on how many examples, 0: it is the bound."""

    values: Mapping[str, float]
    measured: int


def disagreement(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float:
    """The mean square difference of the scores of two models, of several pairs the largest; at least 1 / (n + 1).

    The least is what a few examples without any difference can say: 1 in n + 1 (Laplace's rule, nearly).
    """
    values = [float(np.mean((np.asarray(one) - np.asarray(other)) ** 2)) for one, other in pairs]
    examples = min(len(one) for one, _ in pairs)
    return max([1.0 / (examples + 1), *values])


def smallest_gain(
    sizes: Mapping[str, int], apart: Mapping[str, float], power: float = POWER, level: float = LEVEL
) -> float | None:
    """The smallest true gain of the mean over benchmarks that a paired two-sided test finds with that power.

    sizes: test examples by benchmark. apart: d by benchmark. Solves g = z_level s0 + z_power s1 with s0^2 the variance
    without a gain and s1^2 that with it (Connor 1987). None where these models can have no gain that is large enough.
    """
    count = len(sizes)
    terms = [(apart[name], size) for name, size in sizes.items()]
    if any(size < 1 for _, size in terms):
        return None
    null = math.sqrt(sum(d / size for d, size in terms)) / count
    z_level, z_power = float(norm.isf(level / 2)), float(norm.isf(1 - power))
    largest = min(1.0, sum(math.sqrt(d) for d, _ in terms) / count)  # |mean| is at most the root of the mean square

    def short_of(gain: float) -> float:
        with_gain = math.sqrt(sum(max(d - gain**2, 0.0) / size for d, size in terms)) / count
        return gain - z_level * null - z_power * with_gain

    if short_of(largest) < 0:
        return None
    return float(brentq(short_of, 0.0, largest, xtol=1e-9))


def examples_for(gain: float, apart: float, power: float = POWER, level: float = LEVEL) -> int:
    """The test examples of one benchmark that show a true gain of `gain` (Connor 1987)."""
    z_level, z_power = float(norm.isf(level / 2)), float(norm.isf(1 - power))
    root = z_level * math.sqrt(apart) + z_power * math.sqrt(max(apart - gain**2, 0.0))
    return math.ceil((root / gain) ** 2 - 1e-9)


def optimism(sizes: Mapping[str, int], apart: Mapping[str, float], genomes: int) -> float:
    """By how much the best of `genomes` equally good ones looks better than it is, on average.

    sizes: examples on which each is scored, the same for all. The scores of two genomes on n examples differ with the
    variance d / n, of which each has half as its own. The expected largest of m standard normal numbers is taken by
    Blom's approximation (Statistical Estimates and Transformed Beta-Variables, 1958). Genomes that a search asks for
    near each other, or that are truly unequal, give less: it is what to expect at most.
    """
    own = math.sqrt(sum(apart[name] / (2 * max(size, 1)) for name, size in sizes.items())) / len(sizes)
    return own * largest_of(genomes)


def largest_of(count: int) -> float:
    """The expected largest of `count` standard normal numbers, by Blom's approximation; 0 for one."""
    return 0.0 if count <= 1 else float(norm.ppf((count - 0.375) / (count + 0.25)))


def bounded(names: Sequence[str]) -> Disagreement:
    """What is assumed where nothing was measured."""
    return Disagreement(dict.fromkeys(names, BOUND), 0)
