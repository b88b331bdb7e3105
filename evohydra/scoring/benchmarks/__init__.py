"""Benchmarks: a live model and the examples of a split -> one score for each example."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from evohydra.families import LiveModel

Split = Literal["search", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


class BenchmarkError(ValueError):
    """A benchmark that cannot be used as configured: what was expected and what came."""


class Benchmark(Protocol):
    """Scores a model on disjoint splits of examples."""

    name: str
    families: tuple[str, ...]  # names of the families whose models it can score

    def size(self, split: Split) -> int:
        """The number of examples in `split`; 0 where a run does without a validation split."""
        ...

    def identity(self) -> dict[str, object]:
        """What scores depend on beside the model, as JSON data, quickly and without a model.

        `splits`: for each split digests of its examples as they are asked and judged, in their order. `versions`: of
        the libraries that scores depend on. All else under names of its own: metric, generation options, digests of
        code. Nothing that changes no score: batch sizes, memory, places of files.
        """
        ...

    def __call__(self, live: "LiveModel", split: Split, examples: Sequence[int] | None = None) -> NDArray[np.float64]:
        """One score for each example of `split`, or of those at `examples` (n,), in their order; larger is better."""
        ...


@dataclass(frozen=True)
class CommonAnswer:
    """The one text that all of `count` answers are."""

    text: str
    count: int


@runtime_checkable
class TellsAnswers(Protocol):
    """A benchmark whose answers tell, whatever they score, whether the model is broken."""

    def common_answer(self) -> CommonAnswer | None:
        """The text that all answers of the last call are; None where they differ, are no texts, or are none."""
        ...


@dataclass(frozen=True)
class GivenAnswer:
    """An answer of a model to an example, with its score.

    extracted: what of the text was judged, where that is less than all of it. tokens: how many it has, and cut: whether
    it reached the limit without an end; None where that is not known.
    """

    text: str
    score: float
    extracted: str | None = None
    tokens: int | None = None
    cut: bool | None = None


@runtime_checkable
class FromHub(Protocol):
    """A benchmark that says which data sets of the Hugging Face hub its examples are from."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """Their names; none where the examples are from files."""
        ...


Change = Literal["none", "length", "wording"]  # of how examples are asked: nothing, twice the limit, another prompt


@runtime_checkable
class Audited(Protocol):
    """A benchmark whose models write answers, which can be asked in another way too."""

    def ends(self) -> tuple[int, int, int]:
        """Of the last call: answers that models wrote, those of them that reached the limit, and their tokens."""
        ...

    def lacks(self, change: Change) -> str | None:
        """Why examples cannot be asked with this change; None where they can."""
        ...

    def shots(self) -> list[str]:
        """The questions of the few-shot examples of the test split, where it has any."""
        ...

    def asked(
        self, live: "LiveModel", split: Split, examples: Sequence[int], change: Change = "none"
    ) -> list[GivenAnswer]:
        """What the live model writes to the examples of `split` at these places."""
        ...


@runtime_checkable
class Asking(Protocol):
    """A benchmark that may ask people (`asks`): it is shown all models first, so that a run stops once for many."""

    @property
    def asks(self) -> bool:
        """Whether it does."""
        ...

    def show(self, live: "LiveModel", split: Split, examples: Sequence[int] | None = None) -> None:
        """This model will have to be judged on these examples."""
        ...

    def ask(self) -> None:
        """Raises BenchmarkError, with what to do, while answers about shown models are missing."""
        ...


@runtime_checkable
class Divisible(Protocol):
    """A benchmark whose examples several workers can share without a change of any score."""

    def part(
        self, live: "LiveModel", split: Split, examples: Sequence[int] | None, index: int, count: int
    ) -> Sequence[int]:
        """The positions, among `examples` of `split` or all of it, in part `index` of `count`; a part may hold none."""
        ...


@dataclass(frozen=True)
class Lengths:
    """How long examples are, in tokens, on average: the prompt with its shots, and the reference (`longest`: of all).

    limit: of answers. passes: through the model for each example (choices). writes: whether answers are generated, by
    so many `beams`.
    """

    prompt: float
    reference: float
    longest: float
    limit: int
    passes: float
    writes: bool
    beams: int = 1


@runtime_checkable
class TellsLengths(Protocol):
    """A benchmark in words that can say, without a model, how long its examples are."""

    def lengths(self, split: Split, tokens: Callable[[str], int]) -> Lengths:
        """Of the first examples of `split`; `tokens` counts those of a text."""
        ...


@runtime_checkable
class Described(Protocol):
    """A benchmark whose examples can be read."""

    def describe(self, split: Split, index: int) -> tuple[str, str]:
        """What example `index` of `split` asks, and what is right, in words."""
        ...


@runtime_checkable
class ShowsImages(Protocol):
    """A benchmark of questions about images: the same question about another image is another example."""

    def pixels(self, split: Split) -> Sequence[str]:
        """For each example of `split` a digest of its image's pixels; no image is in two splits."""
        ...


class Prompted(Protocol):
    """An example that asks for a picture."""

    @property
    def text(self) -> str:
        """The prompt."""
        ...


@runtime_checkable
class Draws(Protocol):
    """A benchmark whose models draw pictures of prompts; `album` is the same for those that judge the same pictures."""

    @property
    def album(self) -> str:
        """The name of the pictures."""
        ...

    def examples(self, split: Split) -> Sequence[Prompted]:
        """The examples of `split`, in its order."""
        ...


@runtime_checkable
class AsksInWords(Protocol):
    """A benchmark whose prompts are texts, so that one can see whether they are what a model was trained on."""

    name: str

    def asked_as(self) -> str | None:
        """A prompt as it is asked; None where it is made by the chat template of the model's own tokenizer."""
        ...


@runtime_checkable
class Answered(Protocol):
    """A benchmark whose answers can be read."""

    def answers(self, live: "LiveModel", split: Split, examples: Sequence[int]) -> list[str]:
        """What the live model answers to the examples of `split` at these places, in words."""
        ...
