"""The front of a search with several objectives, and a picture of it."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from evohydra.fronts import on_front
from evohydra.ledger import Record
from evohydra.report.figures import save

PANELS = 6  # of pairs of objectives, at most


def front(records: Sequence[Record]) -> list[Record]:
    """Those that no other one is better than in all objectives, in the order of the first; none without objectives."""
    scored = [record for record in records if record.objectives]
    if not scored:
        return []
    best = on_front(np.array([list(record.objectives.values()) for record in scored]))
    return sorted((r for r, is_best in zip(scored, best, strict=True) if is_best), key=lambda r: _numbers(r))


def front_figure(records: Sequence[Record], winner: int, path: Path) -> Path:
    """All genomes, the front of them and the winner (its index), one panel for each pair of objectives, as a PNG."""
    scored = [record for record in records if record.objectives]
    names = list(scored[0].objectives)
    pairs = list(itertools.combinations(range(len(names)), 2))[:PANELS]
    figure = Figure(figsize=(1 + 5 * min(3, len(pairs)), 4.5 * (1 + (len(pairs) - 1) // 3)), layout="constrained")
    every, best = (np.array([_numbers(r) for r in group]) for group in (scored, front(records)))
    (chosen,) = (np.array(_numbers(record)) for record in scored if record.index == winner)
    for number, (x, y) in enumerate(pairs):
        axes = figure.add_subplot(1 + (len(pairs) - 1) // 3, min(3, len(pairs)), number + 1)
        axes.scatter(every[:, x], every[:, y], s=14, color="0.65", label="genome")
        order = np.argsort(best[:, x], kind="stable")
        line = "-" if len(names) == 2 else "none"
        axes.plot(best[order, x], best[order, y], line, marker="o", markersize=5, color="tab:blue", label="front")
        axes.scatter(
            chosen[x], chosen[y], s=160, marker="*", color="tab:red", edgecolors="black", label="winner", zorder=3
        )
        axes.set(xlabel=_label(names[x]), ylabel=_label(names[y]))
        axes.grid(alpha=0.3)
        if number == 0:
            axes.legend()
    figure.suptitle("objectives on the search split", fontsize="medium")
    return save(figure, path)


def _numbers(record: Record) -> list[float]:
    """The objectives as people read them: costs are positive."""
    return [-value if name.startswith("-") else value for name, value in record.objectives.items()]


def _label(name: str) -> str:
    return f"{name.removeprefix('-')} (less is better)" if name.startswith("-") else name
