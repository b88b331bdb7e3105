"""What the genomes of a search have by both kinds of scores, log-likelihoods and the metric; each is looked at once."""

from collections.abc import Callable, Sequence

from evohydra.scoring.job import Scores
from evohydra.searching.fitness.likelihood_scale import Both, is_likelihood
from evohydra.searching.kept import Span
from evohydra.searching.ledger import Record


class Seen:
    """What is known of the first genomes of a search, whose records only grow (`Span`): nothing is read twice.

    both_of: what is known of a genome by its scores, None where it has not both kinds.
    """

    def __init__(self, both_of: Callable[[Scores], Both | None]) -> None:
        self._both_of = both_of
        self._whole: Sequence[Record] | None = None
        self._begin()

    def _begin(self) -> None:
        self._looked_at = 0
        self._both: list[tuple[int, str, Both]] = []  # place, recipe, and what is known of it
        self._by_metric: int | None = None  # the first place that was scored by the metric alone

    def _look(self, earlier: Sequence[Record]) -> None:
        """Look at those of `earlier` that were not looked at."""
        whole = earlier.whole if isinstance(earlier, Span) and earlier.first == 0 else None
        if whole is None or whole is not self._whole:
            self._begin()
        self._whole = whole
        for place in range(self._looked_at, len(earlier)):
            record = earlier[place]
            if record.scores and self._by_metric is None and not is_likelihood(record.scores):
                self._by_metric = place
            if (both := self._both_of(record.scores)) is not None:
                self._both.append((place, record.recipe, both))
        self._looked_at = max(self._looked_at, len(earlier))

    def both(self, earlier: Sequence[Record]) -> dict[str, Both]:
        """By recipe what is known of those of `earlier` that have both, the first genome of each."""
        self._look(earlier)
        found: dict[str, Both] = {}
        for place, recipe, both in self._both:
            if place < len(earlier):
                found.setdefault(recipe, both)
        return found

    def by_metric(self, earlier: Sequence[Record]) -> bool:
        """Whether one of `earlier` was scored by the metric alone."""
        self._look(earlier)
        return self._by_metric is not None and self._by_metric < len(earlier)
