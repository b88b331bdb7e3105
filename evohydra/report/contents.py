"""What the report of a run or a sweep says, section by section."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from evohydra.files import Plain
from evohydra.report import paired_tests
from evohydra.report.audit_tables import audit_blocks
from evohydra.report.blocks import Block, FigureBlock, Link, Picture, Section, Table
from evohydra.report.cells import interval, mean, number
from evohydra.report.example_tables import example_blocks
from evohydra.report.front import front_figure
from evohydra.report.front_table import front_rows
from evohydra.report.gathering import Job, apart, by_group, by_split, chosen_by_auto, strategies
from evohydra.report.gene_blocks import gene_blocks
from evohydra.report.held_out_blocks import held_out_blocks
from evohydra.report.lineage import called, lineage_blocks
from evohydra.report.origin import origin_blocks
from evohydra.report.picture_captions import caption
from evohydra.report.recipe_figures import recipe_figures
from evohydra.report.score_figures import finished, held_out, optimism_figure, too_few
from evohydra.report.search_figures import examples_each, fitness_figure, seconds_by_part, time_figure
from evohydra.report.style import Look, looking
from evohydra.report.sweeps import broken_limits, sweep_sentences
from evohydra.report.tables import (
    gain_sentence,
    masks_sentences,
    score_sentence,
    search_sentences,
    unsearched_sentence,
)
from evohydra.report.worker_figures import worker_blocks

FITNESS = {
    False: "Fitness of each genome on the search split, the best so far, and the mean of each generation",
    True: "Best fitness so far on the search split. Median over the runs of a strategy and the band between their "
    "quartiles",
}
RECIPES = {
    "genome": "the genes of its merge, groups of tensors by sources.",
    "path": "its path through the layers; the size of a hop is its scale, hollow where that is negative.",
}
PATIENCE = "A line that lies further left reaches the same fitness for less."


def contents(jobs: Sequence[Job], target: Path, look: Look = "screen") -> list[Section]:
    """The sections that these jobs have something for, on a page in `target`."""
    best = best_job(jobs)
    whose = f" of run {best.name}, the best on validation" if best and len(jobs) > 1 else ""
    with looking(look):
        made = [
            Section("In short", list(verdict(jobs))),
            Section("What was run", list(origin_blocks(jobs[0])) if len(jobs) == 1 else []),
            Section("The search", list(_search(jobs))),
            Section("Held-out scores", list(held_out_blocks(jobs))),
            Section(f"The audit of the winner{whose}", list(audit_blocks(best))),
            Section("From the search to the test split", list(_optimism(jobs))),
            Section("The winning recipes", list(_winners(jobs, target))),
            Section("Where the winner comes from", list(lineage_blocks(best))),
            Section("Which genes mattered", list(gene_blocks(jobs))),
            Section("What the winner gets right and the sources get wrong", list(example_blocks(best))),
            Section("Where the time went", list(_time(jobs))),
            Section("What the workers did", list(worker_blocks(jobs))),
            Section("All runs", list(_all(jobs, target))),
        ]
        return [section for section in made if section.blocks]


def best_job(jobs: Sequence[Job]) -> Job | None:
    """The finished run whose winner is best on validation (else on search): test scores choose nothing.

    A run whose winner keeps all limits is before one whose winner does not.
    """

    def key(job: Job) -> tuple[bool, float]:
        summary = job.summary or {}
        validation = summary["validation"]["winner"]["score"]
        score = float(validation if validation is not None else summary["search"]["winner"]["score"] or 0.0)
        return job.keeps_limits, score

    return max(finished(jobs), key=key, default=None)


def verdict(jobs: Sequence[Job]) -> Iterator[str]:
    """What has ended and what has not, and which strategy is best, in sentences."""
    done = finished(jobs)
    for job in jobs:
        if job.state != "finished":
            at = f"Run {job.name} ({' '.join(job.overrides)})" if len(jobs) > 1 else "This run"
            yield f"{at}: {job.state}{'; ' if job.failure else ''}{job.failure}."
        whose = "run " + job.name if len(jobs) > 1 else "this run"
        if job.summary and (reason := job.summary.get("winner_unverified")):
            yield f"The winner of {whose} is not verified: {reason}."
        if job.summary and (reason := job.summary["test"]["winner"].get("error")):
            yield f"The winner of {whose} failed on the test split: {reason}."
    if len(jobs) > 1:
        yield f"{len(done)} of {len(jobs)} runs have ended with a winner; all that follows is about those."
        yield from broken_limits(done)
    if len(done) == 1 and done[0].summary:
        yield from filter(None, [score_sentence(done[0].summary["test"])])
        yield gain_sentence(done[0].summary["gain"])
        yield from filter(None, [unsearched_sentence(done[0].summary["test"])])
        yield from masks_sentences(done[0].summary["test"])
        yield from done[0].summary.get("guard", {}).get("said", ())
        yield from done[0].summary.get("audit", {}).get("verdict", ())
        yield from search_sentences(done[0].summary["search"])
    yield from apart(jobs)
    yield from chosen_by_auto(jobs)
    for group, members in by_group(done).items():
        yield from _ranking(members, f"In {group}, best" if group else "Best")
    yield from sweep_sentences(jobs)


def _ranking(done: Sequence[Job], best: str) -> Iterator[str]:
    """Which strategy is best, and whether that is settled, where there are several."""
    told = [(name, score) for name, score, _ in held_out(done) if name in strategies(done)] if len(done) > 1 else []
    if len(told) < 2:
        return
    ranked = sorted(told, key=lambda item: -item[1]["score"])
    name, score = ranked[0]
    yield (
        f"{best} on the test split is {name} with {_between(score, name in dict(too_few(done)))}, before "
        + ", ".join(f"{other} ({other_score['score']:.3f})" for other, other_score in ranked[1:])
        + "."
    )
    pairs = [pair for pair in paired_tests.strategies_against_each_other(done) if pair.better == name]
    settled = [pair.other for pair in pairs if pair.holm < 0.05 and pair.pairs > 1]
    open_ = [other for other, _ in ranked[1:] if other not in settled]  # also where two winners are all there is
    if settled:
        yield f"That it is better than {', '.join(settled)} is settled at the 5 % level (paired test, Holm)."
    if open_:
        yield f"Whether it is better than {', '.join(open_)} is not settled by these runs." + "".join(
            f" Some {pair.needed} seeds would show a difference of {pair.gain.difference:.3f} to {pair.other}."
            for pair in pairs
            if pair.other in open_ and pair.needed is not None and pair.needed > pair.pairs
        )


CAPTIONS = {
    "metric": "",
    "likelihood": " Fitness is by likelihood here.",
    "verified likelihood": " Fitness is by the likelihood of verified references here, which each run has of its own.",
}


def _search(jobs: Sequence[Job]) -> Iterator[Block]:
    known = [job for job in jobs if job.records and (len(jobs) == 1 or job.summary)]
    if not known:
        return
    kinds = {kind: [job for job in known if job.fitness_is == kind] for kind in CAPTIONS}
    kinds = {kind: members for kind, members in kinds.items() if members}
    for kind, members in kinds.items():
        suffix = f"_by_{kind.replace(' ', '_')}" if kind != next(iter(kinds)) else ""
        each = examples_each(members)
        for by, what in (("evaluations", "genomes evaluated"), ("examples", "examples scored")):
            if by == "examples" and each is not None:
                continue
            caption = f"{FITNESS[len(members) > 1]}, against {what}. {PATIENCE if len(members) > 1 else ''}"
            caption += CAPTIONS[kind]
            if each is not None:
                caption += f" A genome costs some {each:.0f} examples; against examples the picture is nearly the same."
            name = "fitness" if by == "evaluations" else "fitness_by_examples"
            yield FigureBlock(name + suffix, fitness_figure(members, by), caption)


def _optimism(jobs: Sequence[Job]) -> Iterator[Block]:
    figure = optimism_figure(jobs)
    if figure is None:
        return
    yield FigureBlock(
        "optimism",
        figure,
        "The best fitness that the search saw, and the winner's score on each split. The search chose by the search "
        "split, the last choice was made on validation: what is lost on the way to test is optimism. "
        + ("Thick: means of a strategy, thin: its runs." if len(finished(jobs)) > 1 else "Bars are 95 % intervals."),
    )
    rows = []
    for strategy, members in strategies(finished(jobs)).items():
        means = [mean([by_split(job)[split] for job in members]) for split in by_split(members[0])]
        gap = means[0] - means[-1] if means[0] is not None and means[-1] is not None else None
        rows.append((strategy or "winner", *map(number, means), "-" if gap is None else f"{gap:+.3f}"))
    heads = ("", "best seen", "search", "validation", "test", "best seen - test")
    yield Table(heads, rows, "Means over the runs of each strategy.")


def _winners(jobs: Sequence[Job], target: Path) -> Iterator[Block]:
    for strategy, members in strategies(finished(jobs)).items():
        job = best_job(members)
        if job is None or job.recipe is None:
            continue
        several = len(finished(jobs)) > 1
        whose = (
            f"Winner of {strategy} (run {job.name}, best of its {len(members)} on validation)" if several else "Winner"
        )
        suffix = f"_{strategy.replace(' ', '_').replace('/', '-')}" if several else ""
        for name, figure in recipe_figures(job.recipe, called(job)).items():
            yield FigureBlock(f"{name}{suffix}", figure, f"{whose}: {RECIPES[name]}")
        if job.summary and (chosen := job.records[job.summary["search"]["index"]]).objectives:
            compared = [record for record in job.records if record.objectives]
            others = "all other genomes"
            if "front" in job.summary["validation"]:  # for generations were scored on different examples
                compared = [record for record in compared if record.generation == chosen.generation]
                others = "those of its generation, which were scored on the same examples,"
            figure = front_figure([record.objectives for record in compared], chosen.objectives)
            told = f"its objectives on the search split, with {others} and the front of them."
            yield FigureBlock(f"front{suffix}", figure, f"{whose}: {told}")
            if found := front_rows(job.summary):
                split, heads, rows = found
                yield Table(heads, rows, f"The front on the {split} split, and what each rule (`pick`) prefers.")
        for path in sorted(job.directory.glob("*.png")):
            yield Picture(path, f"{whose}: {caption(path)}")
        for path in sorted(job.directory.glob("answers-*.html")):
            yield Link(os.path.relpath(path, target), f"{whose}: answers about held-out pictures")


def _time(jobs: Sequence[Job]) -> Iterator[Block]:
    figure = time_figure(jobs)
    if figure is None:
        return
    yield FigureBlock("time", figure, "Seconds of a run: merging and scoring the genomes of the search, and all else "
                  "(starting, validation and test, writing the winner; since a run last began).")  # fmt: skip
    rows = []
    for strategy, members in strategies([job for job in jobs if job.summary and job.records]).items():
        parts = [seconds_by_part(job) for job in members]
        means = [sum(each[part] for each in parts) / len(parts) for part in parts[0]]
        genomes = sum(len(job.records) for job in members) / len(members)
        rows.append((strategy or "this run", *(f"{value:.1f}" for value in (*means, sum(means))),
                     f"{sum(means[:3]) / genomes:.3f}"))  # fmt: skip
    yield Table(("seconds", *parts[0], "sum", "a genome"), rows, "Means over the runs of each strategy.")


def _all(jobs: Sequence[Job], target: Path) -> Iterator[Block]:
    if len(jobs) == 1:
        return
    rows = []
    for job in jobs:
        scores = by_split(job) if job in finished(jobs) else {}
        cells = [number(scores.get(split)) for split in ("search", "validation", "test")]
        page = job.directory / "report.html"
        run = Link(os.path.relpath(page, target), job.name) if page.is_file() else job.name
        state = job.state if job.keeps_limits else f"{job.state}, limits not kept"
        rows.append((run, " ".join(job.overrides), state, *cells))
    yield Table(("run", "what it was given", "state", "search", "validation", "test"), rows, "", words=True)


def _between(score: Plain, few: bool) -> str:
    return f"{score['score']:.3f} ({'too few runs for an interval' if few else f'95 % {interval(score)}'})"
