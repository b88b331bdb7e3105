"""Pictures of scores: held-out scores with intervals, and how far the search was too optimistic."""

from collections.abc import Iterator, Sequence

import numpy as np

from evohydra.files import Plain
from evohydra.report import style
from evohydra.report.gathering import Job, by_split, strategies
from evohydra.report.tables import rows
from evohydra.scoring.repeats import HALF, WIDE, Bounds, bounds_of, runs_for_half_width, spread
from evohydra.scoring.statistics import mean_of_runs

Score = Plain
SPLITS = ("best seen", "search", "validation", "test")


def finished(jobs: Sequence[Job]) -> list[Job]:
    """The jobs with a winner that could be scored on test."""
    return [job for job in jobs if job.summary and job.summary["test"]["winner"]["score"] is not None]


def bounds(jobs: Sequence[Job]) -> Bounds | None:
    """Between which numbers scores on test lie, whatever the model; None where that is not known."""
    scores = [line["scores"] for job in jobs for line in job.finals if line["split"] == "test" and line["scores"]]
    return bounds_of(scores, (jobs[0].config.get("objective") or {}).get("weights")) if jobs else None


def held_out(jobs: Sequence[Job]) -> Iterator[tuple[str, Score, list[float]]]:
    """Name, score on test with its interval, and the scores of single runs: of all that is no winner, then winners.

    Of a merge with random masks, the scores of each of these.
    """
    done = finished(jobs)
    if len(done) == 1:
        for name, score in rows(done[0].summary["test"] if done[0].summary else {}):
            yield name, score, _of_masks(score)
        return
    known: set[str] = set()
    for job in done:
        for row, score in rows((job.summary or {})["test"]):
            name = f"{row} ({job.group})" if job.group else row
            if row != "winner" and name not in known and score["score"] is not None:
                known.add(name)
                yield name, score, _of_masks(score)
    for strategy, members in strategies(done).items():
        each = [job.summary["test"]["winner"] for job in members if job.summary]
        scores = [job.final("test") for job in members]
        if len(members) == 1 or not all(scores):
            yield strategy, each[0], []
            continue
        over = mean_of_runs([score for score in scores if score], bounds(done))
        interval = {"score": over.difference, "low": over.low, "high": over.high, "n": each[0]["n"]}
        yield strategy, interval, [score["score"] for score in each]


def _of_masks(score: Plain) -> list[float]:
    return [each for each in (score.get("masks") or {}).values() if each is not None]


def too_few(jobs: Sequence[Job]) -> Iterator[tuple[str, str]]:
    """Each strategy whose runs are too few for an interval that tells something, and how many it takes, in words."""
    done = finished(jobs)
    known = bounds(done)
    if known is None or known[0] == known[1]:
        return
    width = known[1] - known[0]
    for strategy, members in strategies(done).items():
        scores = [score for job in members if (score := job.final("test"))]
        if len(scores) < 2 or len(scores) < len(members):
            continue
        over = mean_of_runs(scores, known)
        if over.high - over.low <= WIDE * width:
            continue
        found = spread([{name: np.asarray(values, float) for name, values in run.items()} for run in scores])
        needed, half = runs_for_half_width(found, HALF * width), f"{HALF * width:.2f}"
        told = (
            f"some {needed} runs would give one of +-{half}, if their scores differ as these do."
            if needed
            else f"more runs alone would not give one of +-{half}: the test split has too few examples."
        )
        yield strategy, f"{len(scores)} runs are too few for an interval of {strategy or 'these runs'}: {told}"


def held_out_figure(jobs: Sequence[Job]) -> style.Drawing | None:
    """Scores on test with 95 % intervals; None where no run has ended."""
    told = [(name, score, each) for name, score, each in held_out(jobs) if score["score"] is not None]
    if not told:
        return None
    lines: list[tuple[object, ...]] = []
    for name, score, each in told:
        lines.append((name, "mean" if each else "", score["score"], score["low"], score["high"]))
        lines += [(name, number, value, None, None) for number, value in enumerate(each, start=1)]
    winners = {"winner": 1} if len(finished(jobs)) == 1 else {s: index for index, s in enumerate(strategies(jobs))}
    figure = style.new_figure(0.7 + 0.27 * len(told))
    figure.shows(("model", "run", "score", "low", "high"), lines)
    axes = figure.add_subplot()
    for place, (name, score, each) in enumerate(told):
        shade = style.colour(winners[name]) if name in winners else style.MUTED
        axes.plot([score["low"], score["high"]], [place, place], color=shade, linewidth=2, solid_capstyle="butt")
        axes.scatter(each, np.full(len(each), place + 0.24), s=9, color=shade, alpha=0.5, linewidths=0)
        axes.scatter([score["score"]], [place], s=26, color=shade, zorder=3)
    axes.set_yticks(range(len(told)), [name for name, *_ in told])
    axes.set_ylim(len(told) - 0.4, -0.6)
    centres = [value for _, score, each in told for value in (score["score"], *each)]
    margin = 0.3 * (max(centres) - min(centres)) or 0.1  # the interval of two runs may be wider than any axis
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, min(centres) - margin), min(high, max(centres) + margin))
    axes.set_xlabel("score on the test split")
    style.gridded(axes, "x")
    return figure


def optimism_figure(jobs: Sequence[Job]) -> style.Drawing | None:
    """The scores of winners from the split that chose them to the one that nobody has seen; None without any."""
    done = finished(jobs)
    if not done:
        return None
    figure = style.new_figure(2.7)
    axes = figure.add_subplot()
    lines = [(job.strategy or "winner", job.name, *by_split(job).values()) for job in done]
    figure.shows(("strategy", "run", *SPLITS), lines)
    for index, (strategy, members) in enumerate(strategies(done).items()):
        table = np.array([[np.nan if v is None else v for v in by_split(job).values()] for job in members], float)
        if len(members) > 1:
            axes.plot(table.T, color=style.colour(index), linewidth=0.6, alpha=0.35)
        shown = ~np.isnan(table).all(axis=0)
        axes.plot(
            np.flatnonzero(shown),
            np.nanmean(table[:, shown], axis=0),
            marker=style.marker(index),
            markersize=4.5,
            linewidth=1.8,
            label=strategy or "winner",
            **style.line(index),
        )
        summary = members[0].summary or {}
        if len(done) == 1:
            for place, split in enumerate(SPLITS[1:], start=1):
                score = summary[split]["winner"]
                if by_split(done[0])[split] is not None:
                    axes.plot([place, place], [score["low"], score["high"]], color=style.colour(index), linewidth=1)
    axes.set_xticks(
        range(len(SPLITS)), ["best genome\nof the search", "winner,\nsearch", "winner,\nvalidation", "winner,\ntest"]
    )
    axes.set_xlim(-0.25, len(SPLITS) - 0.75)
    axes.set_ylabel("score")
    style.gridded(axes, "y")
    if len(done) > 1:
        figure.legend(loc="outside upper left", ncols=3, handlelength=2.4)
    return figure
