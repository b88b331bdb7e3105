"""The timeline of workers, a row each."""

from collections.abc import Iterator, Sequence

from evohydra.files import Plain
from evohydra.report import style
from evohydra.report.blocks import Block, FigureBlock, Table
from evohydra.report.gathering import Job
from evohydra.searching.worker_times import WORKERS, sessions, table

ROW = 0.32  # inches
HEIGHT = 0.7  # of a bar, in rows
MOST = 64  # workers that are drawn
CLOUD = 300  # bars from which on an SVG holds them as a picture
COLOURS = {"merge": 1, "score": 0}
DEATHS = 30  # that are listed
WORDS = {"merge": "merging", "score": "scoring"}


def worker_blocks(jobs: Sequence[Job]) -> Iterator[Block]:
    """The timeline of a run, the same in numbers, and which workers died of what."""
    turns = sessions(jobs[0].directory / WORKERS) if len(jobs) == 1 else []
    if not turns:
        return
    yield FigureBlock(
        "workers",
        workers_figure(turns),
        "A row for each worker: when it merged and scored; it waited where the row is empty. Crosses are deaths. At "
        "dotted lines the command was given again; the time between is left out. The data are in workers.jsonl.",
    )
    rows = [(str(w), str(n), f"{m:.1f}", f"{s:.1f}", f"{i:.1f}", str(d)) for w, n, m, s, i, d in table(turns)]
    heads = ("worker", "jobs", "merging, s", "scoring, s", "waiting, s", "deaths")
    yield Table(heads, rows, "The same in numbers.")
    ends = [(str(t["worker"]), t["where"], t["reason"]) for each in turns for t in each if t["outcome"] == "died"]
    if ends:
        yield Table(("worker", "where", "why it died"), ends[:DEATHS], "Workers that died.", words=True)


def workers_figure(sessions: Sequence[Sequence[Plain]]) -> style.Drawing:
    """What each worker did when, sessions one after the other, without the time between them; deaths are crosses."""
    workers = sorted({turn["worker"] for session in sessions for turn in session})[:MOST]
    figure = style.new_figure(1.2 + ROW * len(workers))
    axes = figure.add_subplot()
    heads = ("worker", "began", "ended", *COLOURS, "outcome")
    shown = [(number, *(turn[head] for head in heads)) for number, session in enumerate(sessions) for turn in session]
    figure.shows(("session", *heads), shown)
    offset = 0.0
    bars: dict[str, dict[int, list[tuple[float, float]]]] = {part: {} for part in COLOURS}  # starts and widths by row
    deaths: list[tuple[float, int]] = []
    for session in sessions:
        first, last = min(turn["began"] for turn in session), max(turn["ended"] for turn in session)
        if offset:
            axes.axvline(offset, color=style.MUTED, linewidth=0.8, linestyle=":")
        for turn in session:
            if turn["worker"] not in workers:
                continue
            row, at = workers.index(turn["worker"]), offset + turn["began"] - first
            for part in COLOURS:
                bars[part].setdefault(row, []).append((at, turn[part]))
                at += turn[part]
            if turn["outcome"] == "died":
                deaths.append((offset + turn["ended"] - first, row))
        offset += last - first
    for part, index in COLOURS.items():
        for at_row, (row, spans) in enumerate(sorted(bars[part].items())):  # a bar of its own for each takes kilobytes
            axes.broken_barh(
                spans,
                (row - HEIGHT / 2, HEIGHT),
                facecolors=style.colour(index),
                linewidth=0,
                label=WORDS[part] if at_row == 0 else None,
                rasterized=sum(map(len, bars[part].values())) > CLOUD,
            )
    if deaths:
        at, rows = zip(*deaths, strict=True)
        axes.scatter(at, rows, marker="x", s=22, color=style.INK, zorder=3, label="died")
    axes.set(xlabel="seconds in which the command was at work", ylabel="worker", yticks=range(len(workers)))
    axes.set_yticklabels([str(worker) for worker in workers])
    axes.invert_yaxis()
    style.gridded(axes, "x")
    figure.legend(loc="outside upper left", ncols=3)
    return figure
