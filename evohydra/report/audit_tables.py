"""The audit of a winner as tables."""

from collections.abc import Iterator

from evohydra.report.blocks import Block, Table
from evohydra.report.gathering import Job


def audit_blocks(job: Job | None) -> Iterator[Block]:
    """What the winner's gain survives, answers at the limit, kinds of errors, and scores by difficulty."""
    audit = ((job.summary if job else None) or {}).get("audit")
    if not audit:
        return
    yield " ".join(audit["verdict"])
    rows = [
        (model, split, str(each["answers"]), f"{each['share']:.1%}", f"{each['mean_tokens']:.1f}")
        for split, models in audit["at_the_limit"].items()
        for model, each in models.items()
    ]
    if rows:
        told = "Answers that were cut at the limit of tokens, by model and split; genomes of the search in one row."
        yield Table(("model", "split", "answers", "cut", "mean tokens"), rows, told)
    rows = [
        (name, model, kind, str(count), str(counts["of"]))
        for name, models in (audit.get("errors") or {}).items()
        for model, counts in models.items()
        for kind, count in counts.items()
        if kind != "of"
    ]
    if rows:
        yield Table(("benchmark", "model", "wrong answers", "number", "of"), rows, "Wrong answers by kind.", words=True)
    if difficulty := audit.get("difficulty"):
        groups = [(f"{row['solved_by']}", str(row["examples"]), f"{row['winner']:.3f}") for row in difficulty]
        yield Table(("solved by so many sources", "test examples", "winner"), groups, "Its score by difficulty.")
