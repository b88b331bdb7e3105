"""One evaluation after the other, in this process."""

from collections.abc import Callable, Iterable, Iterator

from evohydra.scoring.executors import Item, Result


class Local:
    """The executor of a single machine with one live model."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """The results in the order of `items`, each as soon as it is there."""
        return map(function, items)
