"""Which parts of the audit of a winner are wanted, and on how many examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Part = Literal["length", "wording", "errors", "difficulty", "duplicates", "tenths", "reload"]
PARTS: tuple[Part, ...] = get_args(Part)
WRITTEN: tuple[Part, ...] = ("length", "wording", "errors", "reload")  # that need answers in words


@dataclass(frozen=True)
class AuditPlan:
    """parts: those that are wanted. examples: how many test examples are asked again, at most.

    answers: how many answers of each model answers.jsonl holds; None: all.
    """

    parts: Sequence[Part] = PARTS
    examples: int = 300
    answers: int | None = 8


def audit_plan(audit: str | bool | Sequence[Part], examples: int, answers: int | str) -> AuditPlan:
    """The plan by the options audit (all | none | parts), audit_examples and answers (a number | all)."""
    parts = audit if not isinstance(audit, str | bool) else PARTS if audit in ("all", True) else ()
    return AuditPlan(tuple(parts), examples, None if isinstance(answers, str) else answers)
