"""The front of a search with several objectives, and a picture of it."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from evohydra.report import style
from evohydra.searching.fronts import on_front

PANELS = 6  # of pairs of objectives, at most
Objectives = Mapping[str, float]


def front_figure(objectives: Sequence[Objectives], winner: Objectives) -> style.Drawing:
    """All genomes, the front of them and the winner, one panel for each pair of objectives."""
    names = list(winner)
    pairs = list(itertools.combinations(range(len(names)), 2))[:PANELS]
    columns = min(2, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = style.new_figure(0.5 + (2.4 if columns == 1 else 1.9) * rows)
    every = np.array([_numbers(each) for each in objectives])
    best, chosen = every[_best(objectives)], _numbers(winner)
    for number, (x, y) in enumerate(pairs):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.scatter(every[:, x], every[:, y], s=8, color=style.MUTED, alpha=0.55, linewidths=0, label="a genome")
        order = np.argsort(best[:, x], kind="stable")
        line = "-" if len(names) == 2 else "none"
        axes.plot(best[order, x], best[order, y], line, marker="o", markersize=4, color=style.colour(0), label="front")
        axes.scatter(chosen[x], chosen[y], s=90, marker="*", color=style.colour(1), label="winner", zorder=3)
        axes.set(xlabel=_label(names[x]), ylabel=_label(names[y]))
        style.gridded(axes)
    front = set(_best(objectives))
    shown = [(*numbers, at in front, numbers == chosen) for at, numbers in enumerate(every.tolist())]
    figure.shows((*(name.removeprefix("-") for name in names), "on the front", "winner"), shown)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def _best(objectives: Sequence[Objectives]) -> list[int]:
    if not objectives:
        return []
    values = np.array([list(each.values()) for each in objectives])
    return [int(at) for at in np.flatnonzero(on_front(values))]


def _numbers(objectives: Objectives) -> list[float]:
    """The objectives as people read them: costs are positive."""
    return [-value if name.startswith("-") else value for name, value in objectives.items()]


def _label(name: str) -> str:
    return f"{name.removeprefix('-')} (less is better)" if name.startswith("-") else name
