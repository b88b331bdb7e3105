"""The part of a report about genes: importance, ablations, and how the population moved."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence

from evohydra.files import Plain, read_json
from evohydra.report import style
from evohydra.report.blocks import Block, FigureBlock
from evohydra.report.gathering import Job, strategies
from evohydra.report.importance import importance, importance_figure
from evohydra.report.search_figures import MAPPED, population_figure
from evohydra.report.surrogate import surrogate_blocks

TRUSTED = 0.1  # R^2 below which the order of genes is not shown


def gene_blocks(jobs: Sequence[Job]) -> Iterator[Block]:
    """What there is to say of the genes of these jobs."""
    for number, alike in enumerate(_same_genes(jobs)):
        known = [(job, at) for job in alike for at, record in enumerate(job.records) if record.fitness is not None]
        found = importance([(job.records[at].fitness or 0.0, functools.partial(_genes, job, at)) for job, at in known])
        if found is None:
            continue
        of = f" of {', '.join(strategies(alike))}" if len(strategies(jobs)) > len(strategies(alike)) else ""
        share = f"R² = {found.r2:.2f} on genomes that it was not fitted to"
        if found.r2 < TRUSTED:
            yield f"A random forest cannot predict the fitness{of} from the genes ({share}): no order of them is shown."
            continue
        yield FigureBlock(
            f"importance{number or ''}",
            importance_figure(found),
            f"Permutation importance of genes{of}: how much of a random forest's R² is lost when one gene's values "
            f"are shuffled, on held-out genomes (bars: standard deviation). The forest has {share}, {found.genomes} in "
            "all. It tells what mattered where the search went, not everywhere.",
        )
    if len(jobs) == 1:
        yield from surrogate_blocks(jobs[0])
    for job in jobs:
        file = job.directory / "ablations.json"
        ablated = read_json(file) if file.is_file() and job.summary else None
        if ablated and job.summary and ablated["recipe"] == job.summary["recipe_digest"]:
            whose = f"run {job.name}" if len(jobs) > 1 else "the winner"
            yield FigureBlock(
                f"ablations_{job.name}" if len(jobs) > 1 else "ablations",
                ablation_figure(ablated["ablations"]),
                f"Ablations of {whose}: what its validation score gains from each of its genes, against the same "
                "recipe with that gene at its default (95 % intervals, paired over examples).",
            )
    moved = population_figure(jobs)
    if moved is not None:
        figure, shown = moved
        which = "all" if sum(len(job.records) for job in jobs) <= MAPPED else f"{MAPPED} of them, drawn at random"
        yield FigureBlock(
            "population",
            figure,
            f"Genomes in the plane in which they differ most (principal components of {which}, "
            f"{shown:.0%} of their variance), from the first (dark) to the last (bright); one plane in all panels.",
        )


def _genes(job: Job, at: int) -> Mapping[str, object]:
    genes: Mapping[str, object] = job.lines[at]["genes"]
    return genes


def ablation_figure(ablations: Sequence[Plain]) -> style.Drawing:
    """Gains with their intervals, largest first."""
    ranked = sorted(ablations, key=lambda each: -each["difference"])
    figure = style.new_figure(0.7 + 0.19 * len(ranked))
    heads = ("name", "difference", "low", "high")
    figure.shows(heads, [tuple(each[head] for head in heads) for each in ranked])
    axes = figure.add_subplot()
    axes.axvline(0, color=style.MUTED, linewidth=0.8)
    for place, each in enumerate(ranked):
        axes.plot([each["low"], each["high"]], [place, place], color=style.colour(0), linewidth=1.6)
        axes.scatter([each["difference"]], [place], s=18, color=style.colour(0), zorder=3)
    axes.set_yticks(range(len(ranked)), [each["name"] for each in ranked], fontsize=8)
    axes.set_ylim(len(ranked) - 0.4, -0.6)
    axes.set_xlabel("gain in validation score")
    style.gridded(axes, "x")
    return figure


def _same_genes(jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs by the space that they search: those whose genomes are of one length and whose genes share names."""
    spaces: dict[tuple[object, ...], list[Job]] = {}
    for job in jobs:
        if job.records:
            space = json.dumps(job.config.get("merge", {}), sort_keys=True, default=str)
            spaces.setdefault((job.records[0].dimension, space), []).append(job)
    return list(spaces.values())
