"""What a check finds: a row of the table, and the same in JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Number = float | int | str | bool | None


@dataclass(frozen=True)
class Finding:
    """One check: `expected` and `found` in words, `passed` (None where nothing is promised), and figures by name."""

    part: str
    what: str
    expected: str
    found: str
    passed: bool | None
    figures: Mapping[str, Number] = field(default_factory=dict)


def table(findings: Sequence[Finding]) -> str:
    """In Markdown."""
    words = {True: "yes", False: "**no**", None: "-"}
    rows = [f"| {f.part} | {f.what} | {f.expected} | {f.found} | {words[f.passed]} |" for f in findings]
    return "\n".join(["| part | check | expected | found | as expected |", "|---|---|---|---|---|", *rows])
