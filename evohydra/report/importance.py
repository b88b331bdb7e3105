"""Which genes mattered: how much worse a random forest predicts fitness once a gene's values are shuffled."""

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold

from evohydra.report import style

LEAST, MOST = 30, 1500  # genomes: below there is nothing to learn, beyond a random sample is enough
TREES, FOLDS, SHUFFLES, SEED = 40, 3, 3, 0
SHOWN = 16  # genes in the figure
Genes = Callable[[], Mapping[str, object]]


@dataclass(frozen=True)
class Importance:
    """Of each gene, most important first: the loss of R^2, mean and standard deviation over folds and shuffles.

    r2: of the forest on genomes that it was not fitted to; where it is near 0 or below, the order says nothing.
    """

    genes: tuple[str, ...]
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    r2: float
    genomes: int


def importance(scored: Sequence[tuple[float, Genes]]) -> Importance | None:
    """Permutation importance (Breiman 2001, Machine Learning 45, 5-32, section 10) on held-out genomes.

    scored: the fitness of each genome, and what gives its genes by name; it is asked once, of `MOST` genomes at most.
    None for fewer than `LEAST` genomes, and where all have the same fitness. A gene that does not bear on a genome is a
    missing value to the forest; choices are numbered in the order of their names.
    """
    generator = np.random.default_rng(SEED)
    if len(scored) > MOST:
        scored = [scored[index] for index in generator.choice(len(scored), MOST, replace=False)]
    fitness = np.array([each for each, _ in scored], dtype=np.float64)
    if len(scored) < LEAST or np.ptp(fitness) == 0.0:
        return None
    names, values = _table([genes for _, genes in scored])
    if not names:
        return None
    predicted = np.zeros_like(fitness)
    lost = []
    for fitted, held_out in KFold(FOLDS, shuffle=True, random_state=SEED).split(values):
        forest = RandomForestRegressor(TREES, max_features=1 / 3, min_samples_leaf=2, random_state=SEED)
        forest.fit(values[fitted], fitness[fitted])
        predicted[held_out] = forest.predict(values[held_out])
        shuffled = permutation_importance(
            forest, values[held_out], fitness[held_out], n_repeats=SHUFFLES, random_state=SEED
        )
        lost.append(shuffled.importances)  # (gene, shuffle)
    every = np.concatenate(lost, axis=1)
    order = np.argsort(-every.mean(axis=1), kind="stable")
    return Importance(
        tuple(names[index] for index in order),
        every.mean(axis=1)[order],
        every.std(axis=1)[order],
        float(r2_score(fitness, predicted)),
        len(scored),
    )


def _table(genomes: Sequence[Genes]) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """The names of genes, and their values, (genome, gene): of choices the place in the order of their names.

    One genome at a time is in memory beside the table.
    """
    places: dict[str, int] = {}  # of genes, in the order in which they come first
    words: dict[int, dict[str, int]] = {}  # of the choice at a place, numbered as they come
    rows: list[array[float]] = []
    chosen: list[array[int]] = []  # of each genome, the places of its choices
    for genes in genomes:
        row, here = array("d", [math.nan]) * len(places), array("I")
        for name, value in genes().items():
            at = places.setdefault(name, len(places))
            if at == len(row):
                row.append(math.nan)
            if isinstance(value, str):
                known = words.setdefault(at, {})
                row[at] = known.setdefault(value, len(known))
                here.append(at)
            elif value is not None:
                row[at] = float(value)  # type: ignore[arg-type]
        rows.append(row)
        chosen.append(here)
    values = np.full((len(rows), len(places)), np.nan)
    order = {at: {known[word]: place for place, word in enumerate(sorted(known))} for at, known in words.items()}
    for number, (row, here) in enumerate(zip(rows, chosen, strict=True)):
        for at in here:
            row[at] = order[at][int(row[at])]
        values[number, : len(row)] = row
    return tuple(places), values


def importance_figure(found: Importance) -> style.Drawing:
    """A bar for each of the most important genes."""
    count = min(SHOWN, len(found.genes))
    figure = style.new_figure(0.7 + 0.19 * count)
    rows = list(zip(found.genes, found.mean.tolist(), found.spread.tolist(), strict=True))
    figure.shows(("gene", "loss of R2", "standard deviation"), rows)
    axes = figure.add_subplot()
    places = range(count)
    axes.barh(places, found.mean[:count], height=0.66, color=style.colour(0))
    axes.errorbar(found.mean[:count], places, xerr=found.spread[:count], fmt="none", ecolor=style.INK, elinewidth=0.8)
    axes.set_yticks(places, found.genes[:count], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("loss of R² when shuffled")
    style.gridded(axes, "x")
    return figure
