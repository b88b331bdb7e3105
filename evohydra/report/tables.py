"""The summary of a run as a table for people."""

from collections.abc import Iterator

from rich.table import Table

from evohydra.files import Plain


def rows(test: Plain) -> Iterator[tuple[str, Plain]]:
    """What was scored on test with its interval: sources, base, uniform merge, baselines, winner."""
    for name, score in test["sources"].items():
        yield f"source {name}", score
    if test.get("base"):
        yield "base", test["base"]
    if test.get("uniform"):
        yield "uniform merge", test["uniform"]
    for name, score in test["baselines"].items():
        yield f"{name} at its defaults", score
    yield "winner", test["winner"]


def summary_table(summary: Plain, benchmarks: str) -> Table:
    """Every model on the test split with its 95 % interval."""
    table = Table(title=f"{benchmarks}, test split: score and 95 % interval", title_justify="left")
    for heading in ("model", "score", "95 % interval", "examples"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for name, score in rows(summary["test"]):
        style = "bold" if name == "winner" else ""
        if score["score"] is None:
            table.add_row(name, "failed", (score.get("error") or "")[:100], "", style=style)
            continue
        table.add_row(
            name, f"{score['score']:.3f}", f"{score['low']:.3f} to {score['high']:.3f}", str(score["n"]), style=style
        )
    return table


def gain_sentence(gain: Plain) -> str:
    """The paired comparison of the winner with the best source in a sentence; sources that failed in another one."""
    if gain["difference"] is None:
        return (
            "There is no comparison of the winner with the best source: the winner or every source has failed on test."
        )
    return (
        f"The winner scores {gain['difference']:+.3f} against the best source, {gain['best_source']} "
        f"(95 % {gain['low']:+.3f} to {gain['high']:+.3f}, paired, p = {gain['p']:.4f})."
        + "".join(f" Source {name} failed on test and is not compared." for name in gain.get("failed", ()))
    )


def markdown(summary: Plain) -> str:
    """The same table for a model card."""
    lines = ["| model | score | 95 % interval | examples |", "|---|---|---|---|"]
    for name, score in rows(summary["test"]):
        if score["score"] is None:
            reason = " ".join(str(score.get("error") or "").replace("|", "\\|").split())
            lines.append(f"| {name} | failed: {reason} | | |")
        else:
            lines.append(
                f"| {name} | {score['score']:.3f} | {score['low']:.3f} to {score['high']:.3f} | {score['n']} |"
            )
    return "\n".join(lines)
