"""Pictures of the search: best-so-far fitness against its cost, the population over time, and where the time went."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from evohydra.report import style
from evohydra.report.gathering import Job, strategies
from evohydra.scoring.benchmarks.likelihood import measure_of

MAPPED = 1500  # genomes from whose principal components a map is made
CLOUD = 600  # points from which on an SVG holds them as a picture
ALIKE = 0.1  # of the width of a figure
GRID = 200  # places at which curves of several runs are compared
Row = tuple[object, ...]  # of the numbers that a figure shows


def spent(job: Job, by: str) -> NDArray[np.float64]:
    """(record,) what had been spent when each genome was known: evaluations or examples."""
    if by == "evaluations":
        return np.arange(1, len(job.records) + 1, dtype=np.float64)
    scored = np.cumsum([record.scored for record in job.records], dtype=np.float64)
    # Where the fitness is fitted to the sources' answers, these were scored first.
    before = float((job.summary or {}).get("examples_scored", scored[-1]) - scored[-1])
    return np.asarray(scored + before, dtype=np.float64)


def examples_each(jobs: Sequence[Job]) -> float | None:
    """How many examples a genome costs, where that is nearly the same all through these runs; else None.

    Then fitness against examples is nearly the picture of fitness against genomes.
    """
    found = [spent(job, "examples") for job in jobs]
    each = sum(scored[-1] for scored in found) / sum(map(len, found))
    near = ALIKE * max(scored[-1] for scored in found)
    same = (np.allclose(scored, each * np.arange(1, len(scored) + 1), atol=near) for scored in found)
    return float(each) if each > 0 and all(same) else None


def best_so_far(job: Job) -> NDArray[np.float64]:
    """(record,) the best fitness up to each genome; -inf before the first that could be scored, see `_counting`."""
    return np.maximum.accumulate(_counting(job))


def _counting(job: Job) -> NDArray[np.float64]:
    """(record,) the fitness of genomes that keep all limits, where any does; else of all. -inf for the others."""
    any_kept = any(record.keeps and record.fitness is not None for record in job.records)
    fitness = [
        -np.inf if record.fitness is None or (any_kept and not record.keeps) else record.fitness
        for record in job.records
    ]
    return np.array(fitness, dtype=np.float64)


def fitness_figure(jobs: Sequence[Job], by: str) -> style.Drawing:
    """Best-so-far fitness against evaluations or examples: of one run with its genomes, of several as quartiles."""
    figure = style.new_figure(3.0)
    axes = figure.add_subplot()
    if len(jobs) == 1:
        rows = _one_run(axes, jobs[0], by)
        figure.shows(("genome", "generation", by, "fitness", "best so far"), rows)
    else:
        told = enumerate(strategies(jobs).items())
        rows = [row for index, (strategy, members) in told for row in _quartiles(axes, index, strategy, members, by)]
        figure.shows(("strategy", "runs", by, "lower quartile", "median", "upper quartile"), rows)
    what = _measure(jobs)
    axes.set(
        xlabel="genomes evaluated" if by == "evaluations" else "examples scored",
        ylabel=f"{what} on the search split" if len(jobs) == 1 else f"best {what} so far",
    )
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.margins(x=0.01)
    style.gridded(axes)
    figure.legend(loc="outside upper left", ncols=2, handlelength=2.4)
    return figure


def _measure(jobs: Sequence[Job]) -> str:
    """What fitness is called: a likelihood where it is one for all of them."""
    found = {measure_of(job.records[0].names) for job in jobs if job.records}
    return next(iter(found)) or "fitness" if len(found) == 1 else "fitness"


def _one_run(axes: Axes, job: Job, by: str) -> list[Row]:
    at, best = spent(job, by), best_so_far(job)
    fitness = np.array([np.nan if r.fitness is None else r.fitness for r in job.records], dtype=np.float64)
    known, failed = np.isfinite(fitness), ~np.isfinite(fitness)
    generation = np.array([record.generation for record in job.records])
    axes.scatter(at[known], fitness[known], s=7, color=style.MUTED, alpha=0.55, linewidths=0,
                 rasterized=len(at) > CLOUD, label="a genome")  # fmt: skip
    axes.plot(at[np.isfinite(best)], best[np.isfinite(best)], drawstyle="steps-post", label="best so far",
              **style.line(1))  # fmt: skip
    rounds = [known & (generation == number) for number in np.unique(generation)]
    means = [(at[members].mean(), fitness[members].mean()) for members in rounds if members.any()]
    if len(means) > 1:
        axes.plot(*zip(*means, strict=True), marker="o", markersize=2.5, linewidth=1, label="mean of a generation",
                  color=style.colour(0))  # fmt: skip
    if failed.any():
        low = axes.get_ylim()[0]
        axes.scatter(at[failed], np.full(failed.sum(), low), marker="x", s=14, linewidths=1, color=style.colour(3),
                     label="failed")  # fmt: skip
    return [
        (record.index, record.generation, place, record.fitness, top if np.isfinite(top) else None)
        for record, place, top in zip(job.records, at.tolist(), best.tolist(), strict=True)
    ]


def _quartiles(axes: Axes, index: int, strategy: str, jobs: Sequence[Job], by: str) -> list[Row]:
    """The median over seeds and the band between the quartiles; a search that has ended keeps its best."""
    finished = [job for job in jobs if job.summary is not None and job.records]
    if not finished:
        return []
    curves = [(spent(job, by), best_so_far(job)) for job in finished]
    first = max(at[np.isfinite(best)][0] for at, best in curves)
    grid = np.linspace(first, max(at[-1] for at, _ in curves), GRID)
    values = np.stack([best[np.searchsorted(at, grid + 1e-9, side="right") - 1] for at, best in curves])
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
    axes.fill_between(grid, low, high, color=style.colour(index), alpha=0.18, linewidth=0)
    runs = f" ({len(finished)} run{'s' if len(finished) > 1 else ''})"
    axes.plot(grid, median, linewidth=1.6, label=(strategy or "all") + runs, **style.line(index))
    known = zip(grid.tolist(), low.tolist(), median.tolist(), high.tolist(), strict=True)
    return [(strategy or "all", len(finished), *row) for row in known]


def population_figure(jobs: Sequence[Job]) -> tuple[style.Drawing, float] | None:
    """The genomes of each strategy on the two directions in which all differ most (PCA), early to late.

    Of more than `MAPPED` genomes the directions are those of a random sample of so many.
    Returns the figure and the share of the variance that it shows; None where genomes cannot be laid on one map.
    """
    told = {strategy: [job for job in members if job.records] for strategy, members in strategies(jobs).items()}
    told = {strategy: members for strategy, members in told.items() if members}
    every = [
        (strategy, job, at) for strategy, members in told.items() for job in members for at in range(len(job.records))
    ]
    lengths = {job.records[at].dimension for _, job, at in every}
    if len(lengths) != 1 or lengths == {1} or len(every) < 3:
        return None
    found = _placed([(job, at) for _, job, at in every])
    if found is None:
        return None
    placed, share = found
    columns = min(2, len(told))
    rows = -(-len(told) // columns)
    figure = style.new_figure(0.75 + (2.1 if columns == 1 else 1.65) * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    start = 0
    for axes, (strategy, members) in zip(grid.flat, told.items(), strict=False):
        count = sum(len(job.records) for job in members)
        here = placed[start : start + count]
        start += count
        when = np.concatenate([np.linspace(0, 1, len(job.records)) for job in members])
        dots = axes.scatter(*here.T, c=when, s=6, cmap="viridis", vmin=0, vmax=1, linewidths=0, alpha=0.8,
                            rasterized=len(here) > CLOUD)  # fmt: skip
        axes.scatter(*np.array(_bests(members, here)).T, s=42, marker="*", facecolors=style.colour(1),
                     edgecolors=style.PAPER, linewidths=0.5, label="best of a run")  # fmt: skip
        axes.set_title(strategy, loc="left")
        style.gridded(axes)
    for axes in list(grid.flat)[len(told) :]:
        axes.set_visible(False)
    figure.colorbar(dots, ax=grid, label="first to last genome", ticks=[], fraction=0.04, pad=0.02)
    figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside upper left")
    shown_rows = [
        (strategy, job.name, job.records[at].index, *place, job.records[at].fitness)
        for (strategy, job, at), place in zip(every, placed.tolist(), strict=True)
    ]
    parts = ("first component", "second component")[: placed.shape[1]]
    figure.shows(("strategy", "run", "genome", *parts, "fitness"), shown_rows)
    return figure, share


def _placed(genomes: Sequence[tuple[Job, int]]) -> tuple[NDArray[np.float64], float] | None:
    """(genome, 2) on the first two principal components, and the share of the variance that these hold.

    A genome is a job and a place in it. None where all are the same.
    """
    sample = genomes
    if len(genomes) > MAPPED:
        chosen = np.random.default_rng(0).choice(len(genomes), MAPPED, replace=False)
        sample = [genomes[at] for at in sorted(chosen.tolist())]
    points = np.array([job.lines[at]["genome"] for job, at in sample], dtype=np.float64)
    mean = points.mean(axis=0)
    points -= mean
    _, sizes, directions = np.linalg.svd(points, full_matrices=False)
    if not sizes.any():
        return None
    share = float((sizes[:2] ** 2).sum() / (sizes**2).sum())
    if sample is genomes:
        return points @ directions[:2].T, share
    return np.array([directions[:2] @ (np.array(job.lines[at]["genome"]) - mean) for job, at in genomes]), share


def _bests(jobs: Sequence[Job], placed: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    found, start = [], 0
    for job in jobs:
        found.append(placed[start + int(np.argmax(_counting(job)))])
        start += len(job.records)
    return found


def seconds_by_part(job: Job) -> dict[str, float]:
    """Where the time of a finished run went."""
    seconds = (job.summary or {})["seconds"]
    return {
        "merging": seconds["merge"],
        "forward passes": seconds["forward"],
        "rest of scoring": max(0.0, seconds["evaluate"] - seconds["forward"]),
        "else": seconds["other"],
    }


def time_figure(jobs: Sequence[Job]) -> style.Drawing | None:
    """Mean seconds of a run of each strategy, by part; None where no run has ended."""
    told = {
        strategy: [seconds_by_part(job) for job in members if job.summary is not None]
        for strategy, members in strategies(jobs).items()
    }
    told = {strategy: parts for strategy, parts in told.items() if parts}
    if not told:
        return None
    figure = style.new_figure(1.15 + 0.3 * len(told))
    axes = figure.add_subplot()
    left = np.zeros(len(told))
    each: dict[str, list[float]] = {}
    for index, part in enumerate(next(iter(told.values()))[0]):
        means = np.array([np.mean([seconds[part] for seconds in parts]) for parts in told.values()])
        axes.barh(range(len(told)), means, left=left, height=0.62, color=style.colour(index), label=part,
                  edgecolor=style.PAPER, linewidth=0.6)  # fmt: skip
        left += means
        each[part] = means.tolist()
    names = [strategy or "this run" for strategy in told]
    figure.shows(("strategy", *each), list(zip(names, *each.values(), strict=True)))
    axes.set_yticks(range(len(told)), names)
    axes.invert_yaxis()
    axes.set_xlabel("seconds of a run")
    style.gridded(axes, "x")
    figure.legend(loc="outside upper left", ncols=4, handlelength=1.0, columnspacing=1.0)
    return figure
