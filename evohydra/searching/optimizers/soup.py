"""The greedy model soup (Wortsman et al., arXiv 2203.05482, algorithm 1): a baseline of a few evaluations."""

from collections.abc import Generator, Sequence

import numpy as np
from numpy.typing import NDArray

from evohydra.searching.optimizers import Points, dimension_of, starting_points
from evohydra.spaces.genes import Axis


def ingredients(start: Points) -> Points:
    """The different points of `start`, (k, dimension), without the average of the others: that is the uniform merge."""
    points = np.array(list({point.tobytes(): point for point in start}.values()))
    others = (len(points) * points.mean(axis=0) - points) / max(1, len(points) - 1)
    average = np.isclose(points, others, rtol=0, atol=1e-9).all(axis=1) & (len(points) > 2)
    different: Points = points[~average]
    return different


def mixture(axes: Sequence[Axis], points: Points, shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """`points`, (k, dimension), mixed by `shares`, (k,), that sum to 1; choices are those of the largest share."""
    chosen = np.array([axis.kind == "categorical" for axis in axes])
    mixed: NDArray[np.float64] = np.where(chosen, points[shares.argmax()], shares @ points)
    return np.clip(mixed, 0.0, 1.0)


class GreedySoup:
    """Starting points are scored, and averaged one after the other, the best first, as long as the score does not fall.

    Averages are of genomes: for weights that is the average of the models. The uniform merge is scored with the
    others, but is no ingredient. Choices are those of the best ingredient. Then the search is over.
    """

    def __init__(self, *, axes: Sequence[Axis], seed: int, start: Points | None = None) -> None:
        self._axes = tuple(axes)
        self._start = known_points(start, dimension_of(axes), "soup")
        self.population = len(self._start)
        self._tasting = self._taste()
        self._next = next(self._tasting)

    def _taste(self) -> Generator[Points, NDArray[np.float64], None]:
        """Yields what is to be scored, and is sent its fitness."""
        fitness = yield self._start
        points = ingredients(self._start)
        fitness = np.array([fitness[(self._start == point).all(axis=1).argmax()] for point in points])
        best, *others = np.argsort(-fitness, kind="stable")
        soup, score = [best], fitness[best]
        for other in others:
            tried = [*soup, other]
            (tasted,) = yield mixture(self._axes, points[tried], np.full(len(tried), 1 / len(tried)))[None]
            if tasted >= score:
                soup, score = tried, tasted

    def ask(self) -> Points:
        """All ingredients, then one soup at a time, (1, dimension)."""
        return self._next.copy()

    def tell(self, genomes: Points, fitness: NDArray[np.float64]) -> None:
        """Keep the new ingredient, or not."""
        try:
            self._next = self._tasting.send(fitness)
        except StopIteration:
            self._next = np.empty((0, len(self._axes)))

    def close(self) -> None:
        """Nothing to release."""


def known_points(start: Points | None, dimension: int, name: str) -> Points:
    """`start`; ValueError where there are no starting points."""
    points = starting_points(start, dimension, len(start) if start is not None else 0)
    if not len(points):
        raise ValueError(
            f"optimizer={name} mixes starting points: expected start=[sources] and a merge method that can give each "
            "source alone, got no starting points"
        )
    return points
