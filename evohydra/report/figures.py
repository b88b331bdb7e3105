"""Pictures of a search: fitness over evaluations, and the winning genome or path."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evohydra.files import write_whole
from evohydra.ledger import Record
from evohydra.recipe import Checkpoint, Merge, Node, Stack


def fitness_figure(records: Sequence[Record], path: Path) -> Path:
    """Each genome's fitness, the best so far and the mean of each generation, as a PNG at `path`."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    scored = [(record.index + 1, record.fitness) for record in records if record.fitness is not None]
    failed = [record.index + 1 for record in records if record.fitness is None]
    if scored:
        index, fitness = (np.array(column) for column in zip(*scored, strict=True))
        axes.scatter(index, fitness, s=12, color="0.65", label="genome", zorder=1)
        axes.plot(
            index,
            np.maximum.accumulate(fitness),
            color="tab:red",
            drawstyle="steps-post",
            label="best so far",
            zorder=3,
        )
        ends, means = [], []
        for generation in sorted({record.generation for record in records}):
            members = [r for r in records if r.generation == generation and r.fitness is not None]
            if members:
                ends.append(np.mean([r.index + 1 for r in members]))
                means.append(np.mean([r.fitness for r in members if r.fitness is not None]))
        axes.plot(ends, means, color="tab:blue", marker="o", markersize=3, label="mean of a generation", zorder=2)
    if failed:
        axes.scatter(failed, [axes.get_ylim()[0]] * len(failed), marker="x", color="black", label="failed")
    axes.set(xlabel="evaluations", ylabel="fitness on the search split")
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    return save(figure, path)


def recipe_figures(recipe: Node, directory: Path) -> dict[str, Path]:
    """What there is to see of a recipe: its genome if it is a merge, its path, and the genome of a merge on it."""
    if isinstance(recipe, Merge):
        return {"genome": _genome_figure(recipe, directory / "genome.png")}
    if isinstance(recipe, Checkpoint):
        return {}
    figures = {"path": _path_figure(recipe, directory / "path.png")}
    for source in recipe.sources:
        figures |= recipe_figures(source, directory)
    return figures


def _path_figure(recipe: Stack, path: Path) -> Path:
    """Hops against layers, in the colour of the source, as large as the scale, as in arXiv 2403.13187, figure 4."""
    depth = 1 + max(hop.layer for hop in recipe.hops)
    figure = Figure(figsize=(min(16, 3 + 0.16 * len(recipe.hops)), 1.8 + 0.1 * depth), layout="constrained")
    axes = figure.add_subplot()
    numbers, layers = np.arange(len(recipe.hops)), np.array([hop.layer for hop in recipe.hops])
    scales = np.array([hop.scale for hop in recipe.hops])
    sizes = 40 * np.clip(np.abs(scales), 0.02, 4) ** 2
    axes.plot(numbers, layers, color="0.8", linewidth=1, zorder=1)
    for index, source in enumerate(recipe.sources):
        here = np.array([hop.source == index for hop in recipe.hops])
        if here.any():
            name = source.name if isinstance(source, Checkpoint) else "merge"
            axes.scatter([], [], s=40, color=f"C{index}", label=name)
            filled = np.where(scales[here] < 0, "white", f"C{index}")
            axes.scatter(numbers[here], layers[here], s=sizes[here], c=filled, edgecolors=f"C{index}", zorder=2)
    negative = ", hollow where it is negative" if (scales < 0).any() else ""
    axes.set(xlabel="hop", ylabel="layer of the source")
    figure.suptitle(f"the size of a hop is its scale{negative}", fontsize="medium")
    axes.set_ylim(-0.7, depth - 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), markerscale=1.0)
    axes.grid(alpha=0.3)
    return save(figure, path)


def _genome_figure(recipe: Merge, path: Path) -> Path:
    """The winning genome, groups by sources, one panel for each parameter, as a PNG at `path`."""
    names = [name for name, value in recipe.groups[0].parameters.items() if not isinstance(value, str | bool)]
    groups = [group.name for group in recipe.groups]
    height = max(2.5, 0.34 * len(groups) + 1.4)
    figure = Figure(figsize=(2.2 + 2.6 * max(1, len(names)), height), layout="constrained")
    for position, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), position + 1)
        values = np.array([np.atleast_1d(group.parameters[name]) for group in recipe.groups], dtype=float)
        per_source = values.shape[1] == len(recipe.models)
        labels = [getattr(model, "name", "merge") for model in recipe.models] if per_source else [""]
        span = max(1.0, float(np.abs(values).max()))
        low = -span if (values < 0).any() else 0.0
        axes.imshow(values, cmap="RdBu_r" if low < 0 else "viridis", vmin=low, vmax=span, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            bright = value > 0.6 * span if low == 0 else abs(value) < 0.5 * span
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="black" if bright else "white")
        axes.set_title(name)
        axes.set_xticks(range(len(labels)), labels)
        axes.set_yticks(range(len(groups)), groups if position == 0 else [""] * len(groups))
    return save(figure, path)


def save(figure: Figure, path: Path) -> Path:
    """Draw `figure` as a PNG at `path`."""
    picture = BytesIO()
    FigureCanvasAgg(figure).print_png(picture)  # no display, no global state
    write_whole(path, picture.getvalue())
    return path
