"""The section of the report about held-out scores."""

from collections.abc import Iterator, Sequence

from evohydra.report import paired_tests
from evohydra.report.blocks import Block, FigureBlock, Table
from evohydra.report.cells import interval
from evohydra.report.each_benchmark import cells, several
from evohydra.report.gathering import Job
from evohydra.report.score_figures import finished, held_out, held_out_figure, too_few
from evohydra.report.tables import p_value
from evohydra.report.tables import rows as models_tested


def held_out_blocks(jobs: Sequence[Job]) -> Iterator[Block]:
    """Scores of all models on test, in a figure and in numbers, and the paired tests; nothing where none has ended."""
    figure = held_out_figure(jobs)
    if figure is None:
        return
    done = finished(jobs)
    seeds = (
        " Of strategies: the mean over runs (small dots), in an interval for which seeds and examples are samples."
        if len(done) > 1
        else ""
    )
    if any(score.get("masks") for _, score, _ in held_out(jobs)):
        seeds += " Of merges that drop entries at random: the mean over mask seeds (small dots)."
    benchmarks = ", ".join(done[0].benchmarks)
    yield FigureBlock("scores", figure, f"Scores on the test split of {benchmarks} with 95 % intervals.{seeds}")
    few = dict(too_few(jobs))
    rows = [
        (
            name,
            f"failed: {score.get('error')}" if score["score"] is None else f"{score['score']:.3f}",
            "" if score["score"] is None else "too few runs" if name in few and each else interval(score),
            str(len(each) or 1),
        )
        for name, score, each in held_out(jobs)
    ]
    examples = (done[0].summary or {})["test"]["winner"]["n"]
    told = f"The same in numbers, on {examples} examples. They chose nothing: not the genomes, not the winner."
    yield Table(("", "score", "95 % interval", "models"), rows, told)
    tested = dict(models_tested((done[0].summary or {})["test"])) if len(done) == 1 else {}
    if names := several(tested.values()):
        each_told = [(name, *cells(score, names)) for name, score in tested.items()]
        yield Table(("", *names), each_told, "Mean scores of each benchmark on the test split.")
    if len(done) == 1:
        pairs, sides = paired_tests.winner_against_others(done[0]), ("model", "against")
        test = "Paired over the test examples: bootstrap intervals, p of a sign-flip test."
    else:
        pairs, sides = paired_tests.strategies_against_each_other(jobs), ("higher", "lower")
        test = (
            "Runs of the same seed are paired, and examples in them; seeds and examples both count as samples (two-way "
            "random effects, Hillis 2007). With one common seed two winners are compared, not strategies (sign flips)."
        )
    if pairs:
        yield Table(
            (*sides, "difference", "95 % interval", "pairs", "p", "p, Holm"),
            [
                (p.better, p.other, f"{p.gain.difference:+.3f}", f"{p.gain.low:+.3f} to {p.gain.high:+.3f}",
                 str(p.pairs), p_value(p.gain.p), p_value(p.holm))
                for p in pairs
            ],
            f"{test} The last column is corrected for the number of rows (Holm 1979).",
        )  # fmt: skip
