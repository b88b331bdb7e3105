"""How the winner of a search keeps its limits: `guard` in summary.json."""

from collections.abc import Sequence
from dataclasses import asdict

from evohydra.searching.driver import Candidate
from evohydra.searching.feasible import broken
from evohydra.searching.guard import Guard, Kept, sentence
from evohydra.searching.ledger import Record
from evohydra.searching.scheduler import Scheduler


def told_of_limits(
    guard: Guard, scheduler: Scheduler, candidates: Sequence[Candidate], records: Sequence[Record]
) -> dict[str, object]:
    """The limits of the winner on validation (on search where there is none) and on test.

    kept: whether all are kept for sure (95 %, one-sided) where it was chosen. keeping: how many genomes of the search
    kept all. said: the same in sentences. On test intervals are two-sided, and nothing is chosen by them.
    """
    winner = candidates[0]
    split = "validation" if winner.limits is not None else "search"
    chosen = winner.limits
    if chosen is None:
        (pending,) = guard.submit(scheduler, [("winner", winner.recipe)], "search")
        chosen = guard.judged(scheduler, pending, "search") or []
    (pending,) = guard.submit(scheduler, [("winner", winner.recipe)], "test")
    tested = guard.judged(scheduler, pending, "test", two_sided=True) or []
    error = scheduler.result(pending).error
    kept = bool(chosen) and all(each.low >= 0 for each in chosen)
    scored = [record for record in records if record.limits]
    keeping = sum(broken(record) == 0 for record in scored)
    return {
        "kept": kept,
        "split": split,
        "chosen": [asdict(each) for each in chosen],
        "test": [asdict(each) for each in tested],
        "keeping": keeping,
        "scored": len(scored),
        "candidates": len(candidates),
        "said": [
            *_said(kept, split, chosen, tested, keeping, len(scored), len(candidates)),
            *([] if error is None else [f"On test the limits could not be scored: {error}."]),
        ],
    }


def _said(
    kept: bool, split: str, chosen: Sequence[Kept], tested: Sequence[Kept], keeping: int, scored: int, looked_at: int
) -> list[str]:
    told = f"{keeping} of {scored} genomes keep all limits in the search."
    if kept:
        first = f"The winner keeps all limits on {split}. {told}"
    else:
        lacking = " ".join(f"{sentence(each)}." for each in chosen if each.low < 0)
        verb = "was" if looked_at == 1 else "were"
        first = (
            f"NO GENOME KEEPS ALL LIMITS for sure on {split} ({looked_at} {verb} looked at there); this is the one "
            f"that lacks least. {told} {lacking}"
        )
    return [first, *(f"On test, {sentence(each)}." for each in tested)]
