"""Where to look next: points of the unit cube at which an acquisition function is largest."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from evohydra.searching.optimizers import Points
from evohydra.searching.optimizers.gaussian.features import Features, on_levels

Values = NDArray[np.float64]
Acquisition = Callable[[Values], Values]  # (m, features) -> (m,)
Slope = Callable[[Values], tuple[float, Values]]  # (features,) -> the value and its gradient, (features,)

WIDE, NEAR = 512, 512  # candidates from all of the cube, and around the best genomes
CHANGED = 20  # genes that differ on average between a candidate and the genome that it was made from
STEPS = (0.1, 0.03, 0.01)  # edges of the cube, by which the best candidates are improved, one after the other
KEPT, EACH = 4, 32  # how many candidates are improved, and how many variants of each are tried at a time
ITERATIONS = 40  # of gradient ascent
APART = 1e-6  # genomes nearer than this are the same one


@dataclass(frozen=True)
class Around:
    """What candidates are made of. best: (k, genes), good genomes, the best one first; known: those already asked.

    low, high: (genes,), the box that numbers are looked for in.
    """

    features: Features
    best: Points
    known: Points
    low: Values
    high: Values

    def within(self, points: Points) -> Points:
        """`points`, (n, genes), in the box, and on the levels of integers and choices."""
        return on_levels(np.clip(points, self.low, self.high), self.features.levels)


def proposed(
    around: Around, acquisition: Acquisition, slope: Slope | None, generator: np.random.Generator
) -> NDArray[np.float64]:
    """The best genome found, (genes,), that is not known; any at random where all that were looked at are known."""
    features = around.features
    genes, levels = len(features.axes), features.levels
    wide = around.within(around.low + (around.high - around.low) * generator.random((WIDE, genes)))
    near = around.within(
        varied(around.best[np.arange(NEAR) % len(around.best)], levels, spread(generator, NEAR), generator)
    )
    points = np.vstack([wide, near])
    values = acquisition(features(points))
    order = (-values).argsort(kind="stable")[:KEPT]
    points, values = points[order], values[order]
    for step in STEPS if slope is None or levels.any() else ():
        points, values = _improved(points, values, step, around, acquisition, generator)
    if slope is not None and len(features.free):
        climbed = np.array([_climbed(point, around, slope) for point in points])
        points = np.vstack([climbed, points])
        values = acquisition(features(points))
    for at in (-values).argsort(kind="stable"):
        if not is_known(points[at], around.known):
            return np.asarray(points[at])
    for point in (*near, *wide):
        if not is_known(point, around.known):
            return np.asarray(point)
    return np.asarray(wide[0])


def is_known(point: Values, known: Points) -> bool:
    """Whether `point`, (genes,), is one of `known`, (n, genes)."""
    return bool((np.abs(known - point).max(axis=1, initial=0.0) < APART).any())


def spread(generator: np.random.Generator, count: int) -> Values:
    """(count, 1): how far variants lie from their genome, in edges of the cube; small steps as often as large ones."""
    found: Values = 10.0 ** generator.uniform(-2.5, -0.5, size=(count, 1))
    return found


def varied(points: Points, levels: NDArray[np.intp], step: Values, generator: np.random.Generator) -> Points:
    """A variant of each of `points`, (n, genes), in some CHANGED genes: numbers by `step`, (n, 1), levels drawn anew.

    In many dimensions candidates that differ in few genes are where models know something (Eriksson et al., Scalable
    Global Optimization via Local Bayesian Optimization, arXiv 1910.01739, supplement D).
    """
    count, genes = points.shape
    changed = generator.random((count, genes)) < min(1.0, CHANGED / genes)
    changed[np.arange(count), generator.integers(genes, size=count)] = True
    # a level is left with the chance that a step of half the unit interval would have to leave the middle
    drawn = (generator.random((count, genes)) < np.maximum(step, 1 / genes)) & (levels > 0)
    moved = points + np.where(levels > 0, 0.0, step * generator.normal(size=(count, genes)))
    moved = np.where(drawn, generator.random((count, genes)), moved)
    return on_levels(np.where(changed, moved, points), levels)


def _improved(
    points: Points,
    values: Values,
    step: float,
    around: Around,
    acquisition: Acquisition,
    generator: np.random.Generator,
) -> tuple[Points, Values]:
    """The best of each point and its variants; of choices and integers each level of one gene at a time too."""
    found, scores, features = [], [], around.features
    for point, value in zip(points, values, strict=True):
        variants = varied(np.repeat(point[None], EACH, axis=0), features.levels, np.full((EACH, 1), step), generator)
        others = np.array([*_neighbours(point, features.levels), *around.within(variants)])
        told = acquisition(features(others))
        at = int(told.argmax())
        found.append(others[at] if told[at] > value else point)
        scores.append(max(float(told[at]), float(value)))
    return np.array(found), np.array(scores)


def _neighbours(point: Values, levels: NDArray[np.intp]) -> Iterator[Values]:
    """`point` with one gene on another level."""
    for at in np.flatnonzero(levels):
        for level in range(levels[at]):
            middle = (level + 0.5) / levels[at]
            if abs(middle - point[at]) > APART:
                yield np.concatenate([point[:at], [middle], point[at + 1 :]])


def _climbed(point: Values, around: Around, slope: Slope) -> Values:
    """`point` after gradient ascent over its numbers; its levels stay."""
    features, free = around.features, around.features.free
    columns = np.flatnonzero(np.isin(features.gene, free))
    fixed = features(point[None])[0]

    def downhill(numbers: Values) -> tuple[float, Values]:
        moved = fixed.copy()
        moved[columns] = numbers
        value, gradient = slope(moved)
        return -value, -gradient[columns]

    found = minimize(
        downhill,
        point[free],
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(around.low[free], around.high[free], strict=True)),
        options={"maxiter": ITERATIONS},
    )
    climbed = point.copy()
    climbed[free] = np.clip(found.x, around.low[free], around.high[free])
    return climbed
