"""Scorers: pictures and what they should show -> one number for each picture."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.prompts import Prompt


class ScorerError(BenchmarkError):
    """A scorer that cannot be used as configured."""


class Scorer(Protocol):
    """Judges pictures. A yaml names a function that makes it, `_partial_`; what it lacks is an error there."""

    name: str

    def identity(self) -> dict[str, object]:
        """What its scores depend on beside its code, as JSON data: settings, and digests of weights and files.

        Packages that they depend on are in LIBRARIES of its module.
        """
        ...

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[Prompt]) -> NDArray[np.float64]:
        """A finite score for each of `images` (n,), drawn for the prompt at its place in `prompts`; larger is better.

        Raises BenchmarkError where the run cannot go on.
        """
        ...


def with_identity(scorer: Scorer) -> Scorer:
    """The scorer; ScorerError for one that does not say what its scores depend on."""
    if not callable(getattr(scorer, "identity", None)):
        raise ScorerError(f"{type(scorer).__name__} lacks identity(), by which a run knows its settings and weights")
    return scorer


@runtime_checkable
class Graded(Protocol):
    """A scorer that knows how sure it is."""

    def log_probabilities(self, images: Sequence[Image.Image], prompts: Sequence[Prompt]) -> NDArray[np.float64]:
        """(n,): the logarithm (natural) of the probability that a picture shows what its prompt asks for."""
        ...


@runtime_checkable
class AskingScorer(Protocol):
    """A scorer that asks people: it is shown all pictures first, so that a run stops once for many."""

    def show(self, images: Sequence[Image.Image], prompts: Sequence[Prompt]) -> None:
        """These pictures will have to be judged."""
        ...

    def ask(self) -> None:
        """Raises BenchmarkError, with what to do, while choices about shown pictures are missing."""
        ...


@runtime_checkable
class OnDevice(Protocol):
    """A scorer that computes where the model does."""

    def to(self, device: torch.device) -> None:
        """Move to `device`."""
        ...
