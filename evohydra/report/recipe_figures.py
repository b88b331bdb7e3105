"""Pictures of a recipe: the genes of a merge as layers x sources, and the hops of a path."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from evohydra.merging.group_methods import method_of, methods_of
from evohydra.recipe import Checkpoint, Group, Merge, Node, Stack, digest
from evohydra.report import style

NOTHING: Mapping[str, str] = MappingProxyType({})
NUMBERED = 60  # groups up to which each cell holds its number


def recipe_figures(recipe: Node, names: Mapping[str, str] = NOTHING) -> Mapping[str, style.Drawing]:
    """What there is to see of a recipe: its genome if it is a merge, its path, and the genome of a merge on it.

    names: what recipes that are sources are called, by digest; of these there is nothing to see.
    """
    if digest(recipe) in names:
        return {}
    if isinstance(recipe, Merge):
        figure = genome_figure(recipe, names)
        return {"genome": figure} if figure else {}
    if isinstance(recipe, Checkpoint):
        return {}
    figures: dict[str, style.Drawing] = {"path": path_figure(recipe, names)}
    for source in recipe.sources:
        figures |= recipe_figures(source, names)
    return figures


def _called(node: Node, names: Mapping[str, str]) -> str:
    return node.name if isinstance(node, Checkpoint) else names.get(digest(node), "merge")


def genome_figure(recipe: Merge, names: Mapping[str, str] = NOTHING) -> style.Drawing | None:
    """Groups by sources, one panel for each parameter that is a number; None where none is."""
    groups = recipe.groups
    numbers = list(dict.fromkeys(name for group in groups for name in _numbers(group)))
    if not numbers:
        return None
    tables = {name: _table(name, groups) for name in numbers}
    columns = sum(table.shape[1] for table in tables.values())
    width = max(style.usual_width(), 1.3 + 0.55 * columns)
    figure = style.new_figure(1.3 + 0.24 * len(groups), width)
    rows: list[tuple[object, ...]] = []
    panels = figure.subplots(1, len(numbers), squeeze=False, width_ratios=[t.shape[1] for t in tables.values()])[0]
    for position, (axes, (name, values)) in enumerate(zip(panels, tables.items(), strict=True)):
        per_source = values.shape[1] == len(recipe.models) and values.shape[1] > 1
        labels = [_called(model, names) for model in recipe.models] if per_source else ["all"]
        known = labels if len(labels) == values.shape[1] else [str(number) for number in range(values.shape[1])]
        rows += [
            (group.name, name, label, value)
            for group, line in zip(groups, values.tolist(), strict=True)
            for label, value in zip(known, line, strict=True)
            if not np.isnan(value)
        ]
        span = max(1.0, float(np.nanmax(np.abs(values))))
        low = -span if (values < 0).any() else 0.0
        mesh = axes.pcolormesh(
            values, cmap="RdBu_r" if low < 0 else "viridis", vmin=low, vmax=span, edgecolors=style.PAPER, linewidth=0.5
        )
        if len(groups) <= NUMBERED:
            for (row, column), value in np.ndenumerate(values):
                if np.isnan(value):
                    continue
                red, green, blue, _ = mesh.cmap(mesh.norm(value))
                bright = 0.3 * red + 0.6 * green + 0.1 * blue > 0.5
                axes.text(
                    column + 0.5,
                    row + 0.5,
                    f"{value:.2f}",
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color="#000000" if bright else "#ffffff",
                )
        else:
            figure.colorbar(mesh, ax=axes, orientation="horizontal", fraction=0.02, pad=0.01)
        axes.set_title(name)
        axes.set_xticks(np.arange(len(labels)) + 0.5, labels, rotation=35, ha="right", rotation_mode="anchor")
        axes.set_yticks(np.arange(len(groups)) + 0.5, _rows(recipe) if position == 0 else [])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.invert_yaxis()
    figure.shows(("group", "parameter", "source", "value"), rows)
    return figure


def _rows(recipe: Merge) -> list[str]:
    """The names of the groups, with their methods where there are several."""
    several = len(methods_of(recipe)) > 1
    return [f"{group.name} ({method_of(recipe, group)})" if several else group.name for group in recipe.groups]


def _numbers(group: Group) -> list[str]:
    return [name for name, value in group.parameters.items() if not isinstance(value, str | bool)]


def _table(name: str, groups: Sequence[Group]) -> NDArray[np.float64]:
    """The values of a parameter, (groups, 1 or sources); NaN for a group whose method has no such parameter."""
    lines = [np.atleast_1d(np.array(group.parameters.get(name, np.nan), float)) for group in groups]
    width = max(len(line) for line in lines)
    return np.array([np.broadcast_to(line, width) for line in lines])


def path_figure(recipe: Stack, names: Mapping[str, str] = NOTHING) -> style.Drawing:
    """Hops against layers, in the colour of the source, as large as the scale, as in arXiv 2403.13187, figure 4."""
    depth = 1 + max(hop.layer for hop in recipe.hops)
    figure = style.new_figure(1.5 + 0.075 * depth, max(style.usual_width(), 1.0 + 0.09 * len(recipe.hops)))
    axes = figure.add_subplot()
    numbers, layers = np.arange(len(recipe.hops)), np.array([hop.layer for hop in recipe.hops])
    scales = np.array([hop.scale for hop in recipe.hops])
    sizes = 24 * np.clip(np.abs(scales), 0.02, 4) ** 2
    axes.plot(numbers, layers, color=style.GRID, linewidth=1, zorder=1)
    for index, source in enumerate(recipe.sources):
        here = np.array([hop.source == index for hop in recipe.hops])
        if here.any():
            name = _called(source, names)
            shade, form = style.colour(index), style.marker(index)
            axes.scatter([], [], s=30, color=shade, marker=form, label=name)
            filled = np.where(scales[here] < 0, style.PAPER, shade)
            axes.scatter(numbers[here], layers[here], s=sizes[here], c=filled, edgecolors=shade, marker=form, zorder=2)
    axes.set(xlabel="hop", ylabel="layer of the source", ylim=(-0.7, depth - 0.3))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    style.gridded(axes)
    figure.legend(loc="outside upper left", ncols=3)
    called = [_called(source, names) for source in recipe.sources]
    rows = [(number, hop.layer, called[hop.source], hop.scale) for number, hop in enumerate(recipe.hops)]
    figure.shows(("hop", "layer", "source", "scale"), rows)
    return figure
