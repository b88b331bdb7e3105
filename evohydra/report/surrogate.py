"""What the Gaussian process of a search has learnt: which genes bend it, slices through the winner, its predictions."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from evohydra.files import read_json
from evohydra.report import style
from evohydra.report.blocks import Block, FigureBlock
from evohydra.report.gathering import SETTINGS, Job
from evohydra.report.genomes import Genome
from evohydra.scoring.benchmarks.likelihood import measure_of
from evohydra.searching.feedback import tell
from evohydra.searching.fitness.likelihood import BY_METRIC
from evohydra.searching.ledger import Record
from evohydra.searching.optimizers.bo import BayesianOptimization
from evohydra.searching.optimizers.gaussian.learnt import Learnt
from evohydra.spaces.genes import Axis

LEAST = 20  # genomes from which on there is something to show
MOST = 600  # genomes that a report fits a model to
SHOWN, SLICES = 16, 4  # genes in the figures
STEPS = 101  # of a slice
PARTS = 10  # that are held out in turn
TRUSTED = 0.1  # R^2 below which a model explains nothing
NORMAL_95 = 1.96
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Surrogate:
    """The model of a search, refitted from its ledger.

    names: of the genes' coordinates. records: what it was told of; best: the place of the best one among these.
    predicted, deviation: (n,), of each genome by a model that was fitted to nine tenths of the others. expected: mean
    and deviation of the best one's fitness by what was known before its generation, None if nothing was.
    """

    learnt: Learnt
    names: Sequence[str]
    axes: Sequence[Axis]
    records: Sequence[Record]
    best: int
    predicted: Values
    deviation: Values
    expected: tuple[float, float] | None
    measure: str

    @property
    def fitness(self) -> Values:
        """(n,): of the genomes as the model sees it: failures as the worst, and very bad ones raised."""
        return self.learnt.centre + self.learnt.scale * self.learnt.process.values

    @property
    def r2(self) -> float:
        """How much of the variance of fitness it explains on genomes that it was not fitted to."""
        fitness = self.fitness
        return 1 - float(((fitness - self.predicted) ** 2).sum() / ((fitness - fitness.mean()) ** 2).sum())

    @property
    def within(self) -> float:
        """The share of genomes whose fitness lies in the 95 % interval that was predicted without them."""
        return float((np.abs(self.fitness - self.predicted) <= NORMAL_95 * self.deviation).mean())


def surrogate(job: Job) -> Surrogate | None:
    """The model of a run with `optimizer=bo` and one objective; None for others, and where there is too little."""
    kept = read_json(job.directory / SETTINGS) if (job.directory / SETTINGS).is_file() else {}
    if str(_target(job)).rpartition(".")[2] != BayesianOptimization.__name__ or not kept.get("axes"):
        return None
    places = _since_last_start(job.records)
    if not LEAST <= len(places) <= MOST or len({job.records[at].fitness for at in places} - {None}) < 2:
        return None
    records = [Record(**job.lines[at]) for at in places]
    scored = [record for record in records if record.fitness is not None]
    axes = [Axis(**{**axis["axis"], "begins": tuple(axis["axis"]["begins"])}) for axis in kept["axes"]]
    learnt = _model(axes, records)
    if learnt is None:
        return None
    best = int(np.argmax([-np.inf if record.fitness is None else record.fitness for record in records]))
    before = [record for record in records if record.generation < records[best].generation]
    then = _model(axes, before) if len(before) >= LEAST else None
    expected = None
    if then is not None:
        mean, deviation = then.predict(np.array([records[best].genome]))
        expected = (float(mean[0]), math.hypot(float(deviation[0]), then.noise))
    names, measure = [axis["name"] for axis in kept["axes"]], measure_of(scored[-1].scores) or "fitness"
    return Surrogate(learnt, names, axes, records, best, *_held_out(axes, records), expected, measure)


def _held_out(axes: Sequence[Axis], records: Sequence[Record]) -> tuple[Values, Values]:
    """The fitness of each genome, (n,), as a model predicts it that has not seen its tenth, and its deviation."""
    mean, deviation = np.zeros(len(records)), np.zeros(len(records))
    order = np.random.default_rng(0).permutation(len(records))
    for part in range(PARTS):
        out = order[part::PARTS]
        fitted = _model(axes, [record for at, record in enumerate(records) if at not in set(out.tolist())])
        assert fitted is not None
        mean[out], of_function = fitted.predict(np.array([records[at].genome for at in out]))
        deviation[out] = np.hypot(of_function, fitted.noise)
    return mean, deviation


def _target(job: Job) -> object:
    return (job.config.get("optimizer") or {}).get("_target_")


def _since_last_start(records: Sequence[Genome]) -> Sequence[int]:
    """The places of genomes that the last optimizer of a run was told of: where the metric took over, it began anew."""
    anew = [at for at, r in enumerate(records) if r.note and r.note.endswith("the search begins anew by the metric")]
    if not anew:
        return range(len(records))
    notes = ((at, records[at].note) for at in range(anew[-1], len(records)))
    return [at for at, note in notes if note and note.startswith(BY_METRIC)]


def _model(axes: Sequence[Axis], records: Sequence[Record]) -> Learnt | None:
    made = BayesianOptimization(axes=axes, seed=0)
    genomes = np.array([record.genome for record in records], dtype=np.float64)
    tell(made, genomes, records, records)
    return made.learnt()


def surrogate_blocks(job: Job) -> Iterator[Block]:
    """What there is to show of the model of a run."""
    found = surrogate(job)
    if found is None:
        return
    share = f"R² = {found.r2:.2f} on genomes that it was not fitted to"
    if found.r2 < TRUSTED:
        yield f"The search's Gaussian process predicts fitness hardly better than its mean ({share}): it is not shown."
        return
    told = ""
    if found.expected is not None:
        mean, half = found.expected[0], NORMAL_95 * found.expected[1]
        best = found.records[found.best]
        told = (
            f" Before genome {best.index}, the best one, was scored, the model expected {mean:.3f} "
            f"(95 % {mean - half:.3f} to {mean + half:.3f}); it scored {best.fitness:.3f}."
        )
    yield FigureBlock(
        "model_predictions",
        predictions_figure(found),
        "What the Gaussian process predicts of each genome from nine tenths of the others, and what it scored (bars: "
        f"95 %). It has {share}; {found.within:.0%} of the genomes lie in their interval. Very bad genomes are raised "
        f"to one value, as the model sees them. Points above the line scored better than predicted.{told}",
    )
    yield FigureBlock(
        "model_genes",
        relevance_figure(found),
        "How quickly fitness changes with each gene by the Gaussian process: 1 / length scale. At 2, half of the range "
        "that the gene began with is enough for fitness to become another; at 0.1 or less it hardly matters.",
    )
    yield FigureBlock(
        "model_slices",
        slices_figure(found),
        "Slices of the Gaussian process through the best genome (line), along its genes that matter most: mean and 95 "
        "% band. All other genes stay at the best genome's values. Where the band is wide, nobody has looked yet.",
    )


def _order(found: Surrogate) -> NDArray[np.intp]:
    return np.argsort(found.learnt.length_scales, kind="stable")


def relevance_figure(found: Surrogate) -> style.Drawing:
    """A bar for each of the genes with the shortest length scales."""
    order = _order(found)[:SHOWN]
    figure = style.new_figure(0.7 + 0.19 * len(order))
    axes = figure.add_subplot()
    rows = [(found.names[at], 1 / float(found.learnt.length_scales[at])) for at in _order(found)]
    figure.shows(("gene", "1 / length scale"), rows)
    axes.barh(range(len(order)), 1 / found.learnt.length_scales[order], height=0.66, color=style.colour(0))
    axes.set_yticks(range(len(order)), [found.names[at] for at in order], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("1 / length scale")
    style.gridded(axes, "x")
    return figure


def slices_figure(found: Surrogate) -> style.Drawing:
    """Mean and 95 % band along each of a few genes, through the best genome."""
    order = _order(found)[:SLICES]
    best = np.array(found.records[found.best].genome)
    figure = style.new_figure(1.7 * -(-len(order) // 2) + 0.3)
    grid = figure.subplots(-(-len(order) // 2), min(2, len(order)), sharey=True, squeeze=False)
    rows: list[tuple[object, ...]] = []
    for axes, at in zip(grid.flat, order, strict=False):
        units = np.linspace(0, 1, STEPS)
        points = np.repeat(best[None], STEPS, axis=0)
        points[:, at] = units
        mean, deviation = found.learnt.predict(points)
        scale = _values_of(found, int(at))
        half = NORMAL_95 * deviation
        shown = (scale(units).tolist(), mean.tolist(), (mean - half).tolist(), (mean + half).tolist())
        rows += [(found.names[at], *row) for row in zip(*shown, strict=True)]
        axes.fill_between(scale(units), mean - half, mean + half, color=style.colour(0), alpha=0.2, linewidth=0)
        axes.plot(scale(units), mean, color=style.colour(0), linewidth=1.4)
        axes.axvline(float(scale(best[at : at + 1])[0]), color=style.colour(1), linewidth=1)
        axes.set_title(found.names[at], fontsize=7, loc="left")
        style.gridded(axes)
    for axes in list(grid.flat)[len(order) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel(found.measure, fontsize=8)
    figure.shows(("gene", "value", found.measure, "low", "high"), rows)
    return figure


class _Scale:
    """From a coordinate of the unit cube to the gene's own value, where that is a number on a straight line."""

    def __init__(self, slope: float, start: float) -> None:
        self._slope, self._start = slope, start

    def __call__(self, units: Values) -> Values:
        return self._start + self._slope * units


def _values_of(found: Surrogate, at: int) -> _Scale:
    known = [(record.genome[at], record.genes.get(found.names[at])) for record in found.records]
    pairs = np.array([(unit, value) for unit, value in known if isinstance(value, float)], dtype=np.float64)
    if len(pairs) > 2 and np.ptp(pairs[:, 0]) > 0:
        slope, start = np.polyfit(pairs[:, 0], pairs[:, 1], 1)
        if np.allclose(start + slope * pairs[:, 0], pairs[:, 1], atol=1e-6 * max(1.0, abs(slope))):
            return _Scale(float(slope), float(start))
    return _Scale(1.0, 0.0)


def predictions_figure(found: Surrogate) -> style.Drawing:
    """Predicted against real fitness of each genome; the best one is marked."""
    mean, deviation, fitness = found.predicted, found.deviation, found.fitness
    figure = style.new_figure(3.2)
    axes = figure.add_subplot()
    ends = [float(fitness.min()), float(fitness.max())]
    axes.plot(ends, ends, color=style.MUTED, linewidth=0.8)
    axes.errorbar(
        mean,
        fitness,
        xerr=NORMAL_95 * deviation,
        fmt="o",
        markersize=3,
        elinewidth=0.5,
        color=style.colour(0),
        alpha=0.6,
        label="a genome",
    )
    best = [mean[found.best]], [fitness[found.best]]
    axes.scatter(*best, marker="*", s=90, color=style.colour(1), zorder=3, label="the best one")
    axes.set(xlabel=f"{found.measure}, predicted from the others", ylabel=f"{found.measure}, as scored")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    shown = zip(found.records, mean.tolist(), deviation.tolist(), fitness.tolist(), strict=True)
    rows = [(record.index, predicted, of_it, scored) for record, predicted, of_it, scored in shown]
    figure.shows(("genome", "predicted", "standard deviation", "scored"), rows)
    low, high = float(mean.min()), float(mean.max())
    axes.set_xlim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    style.gridded(axes)
    figure.legend(loc="outside upper left", ncols=2)
    return figure
