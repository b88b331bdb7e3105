"""What genomes have by both kinds of scores is the same, whether each is looked at once or all are again."""

import random
from collections.abc import Sequence

from evohydra.scoring.benchmarks.likelihood import likelihood_name
from evohydra.scoring.job import Scores
from evohydra.searching.fitness.likelihood_scale import Both
from evohydra.searching.fitness.seen import Seen
from evohydra.searching.kept import Span
from evohydra.searching.ledger import Record

METRIC, LIKELY = "a", likelihood_name("a", "token")


def record(index: int, kind: str) -> Record:
    scores: dict[str, list[float]] = {
        "both": {METRIC: [1.0, 0.0], LIKELY: [-float(index), -1.0]},
        "likely": {LIKELY: [-1.0, -2.0]},
        "metric": {METRIC: [1.0, 1.0]},
        "failed": {},
    }[kind]  # type: ignore[assignment]
    return Record(index, 0, [0.5], {}, f"{index % 7}", 0.5 if scores else None, scores, error=None if scores else "-")


def both_of(scores: Scores) -> Both | None:
    return Both({"a": sum(scores[LIKELY])}, {"a": sum(scores[METRIC])}) if {METRIC, LIKELY} <= scores.keys() else None


class Counted(list[Record]):
    """Counts how often its items are asked for."""

    asked = 0

    def __getitem__(self, at: object) -> Record:  # type: ignore[override]
        self.asked += 1
        return super().__getitem__(at)  # type: ignore[index,no-any-return]


def test_each_record_is_looked_at_once_and_parts_of_any_length_have_what_is_theirs() -> None:
    drawn = random.Random(1)
    records, seen = Counted(), Seen(both_of)
    for index in range(40):
        records.append(record(index, drawn.choice(["both", "likely", "failed"] if index < 20 else ["metric", "both"])))
        for length in {index + 1, drawn.randint(0, index)}:
            part: Sequence[Record] = Span(records, 0, length)
            fresh = Seen(both_of)
            plain = list(records)[:length]
            assert list(seen.both(part).items()) == list(fresh.both(plain).items())
            assert seen.by_metric(part) == fresh.by_metric(plain) == any(set(r.scores) == {METRIC} for r in plain)
    assert records.asked == len(records)
    assert list(seen.both(Span([record(0, "both")], 0, 1))) == ["0"]  # another search
    assert not seen.by_metric(Span([record(0, "both")], 0, 1))
