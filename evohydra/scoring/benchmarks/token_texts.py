"""Examples as texts in tokens: what a model reads where nobody asks for its answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from evohydra.scoring.benchmarks import Split

if TYPE_CHECKING:
    from evohydra.families import LiveModel


@dataclass(frozen=True)
class TokenText:
    """An example with its reference; the last `answer` tokens are the reference's."""

    tokens: tuple[int, ...]
    answer: int


@runtime_checkable
class GivesTexts(Protocol):
    """A benchmark whose examples are texts with a right answer."""

    def size(self, split: Split) -> int:
        """The number of examples in `split`."""
        ...

    def lacks_texts(self) -> str | None:
        """Why its examples cannot be read as texts; None where they can."""
        ...

    def texts(self, live: "LiveModel", split: Split, examples: Sequence[int]) -> list[TokenText]:
        """The examples of `split` at these places as the model would read them, each with its first reference.

        The last tokens of those that are longer than the model reads. BenchmarkError for one without a reference.
        """
        ...
