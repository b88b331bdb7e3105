"""Where pictures are drawn and judged, each once for each model, whatever benchmarks look at them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray
from PIL import Image

from evohydra.checks import Count
from evohydra.families import LiveModel
from evohydra.scoring.benchmarks import BenchmarkError, Split
from evohydra.scoring.benchmarks.contents import code_of, digest_of, libraries_of, versions_of
from evohydra.scoring.benchmarks.drawing import Drawing, Painter
from evohydra.scoring.benchmarks.prompts import Prompt
from evohydra.scoring.benchmarks.room import Room
from evohydra.scoring.benchmarks.scorers import AskingScorer, Graded, OnDevice, Scorer

GIB = 1024**3
PICTURE = "a picture"
PACKAGES = ("diffusers", "transformers", "tokenizers", "torch", "pillow")  # that scores depend on
Picture = tuple[Image.Image, Mapping[str, float]]  # and the score of each scorer


@dataclass(frozen=True)
class PictureOptions:
    """Which prompts are drawn, and how many at a time.

    An example is a prompt with the seed of its noise; each prompt has `seeds_per_prompt` of them, which follow from its
    text and `noise_seed`. `topics` keeps the prompts of these only, `limit` so many of each split; `shuffle` is the
    seed of the order in which splits are cut. `cache_gb` bounds the kept text embeddings, and the kept noise.
    """

    seeds_per_prompt: Count = 1
    noise_seed: int = 0
    topics: Sequence[str] | None = None
    shuffle: int | None = None
    limit: Count | None = None
    batch_size: Count = 8
    cache_gb: Annotated[float, Ge(0)] = 2.0


@dataclass
class _Judged:
    """The scores of the model that is being evaluated, so far."""

    weights: object = None
    scores: dict[tuple[Split, int], Mapping[str, float]] = field(default_factory=dict)
    log_probabilities: dict[tuple[Split, int], Mapping[str, float]] = field(default_factory=dict)  # of graded scorers


class Studio:
    """Draws the pictures of all scorers' benchmarks, each picture once for each model."""

    def __init__(
        self,
        name: str,
        examples: Mapping[Split, Sequence[Prompt]],
        scorers: Mapping[str, Scorer],
        options: PictureOptions,
        drawing: Drawing,
    ) -> None:
        self.name, self.examples, self.scorers = name, examples, scorers
        self._options, self._drawing = options, drawing
        self._painter: Painter | None = None
        self._judged = _Judged()
        self._room = Room(options.batch_size)

    def identity(self, scorer: str) -> dict[str, object]:
        """What the scores of `scorer` depend on: prompts with seeds, how pictures are drawn, and the scorer's own."""
        judge = self.scorers[scorer]
        splits = {
            split: {"examples": len(prompts), "prompts": digest_of([asdict(prompt) for prompt in prompts])}
            for split, prompts in self.examples.items()
        }
        return {
            "kind": "text_to_image",
            "drawing": asdict(self._drawing),
            "scorer": {"name": judge.name, "code": code_of([type(judge)]), **judge.identity()},
            "splits": splits,
            "versions": versions_of({*PACKAGES, *libraries_of([type(judge)])}),
        }

    @property
    def settings(self) -> str:
        """How pictures are drawn: what is not the pipeline's own."""
        given = {key: value for key, value in asdict(self._drawing).items() if value is not None}
        return ", ".join(f"{key}={value}" for key, value in given.items())

    def scores(self, live: LiveModel, split: Split, places: Sequence[int], scorer: str) -> list[float]:
        """What `scorer` says of the pictures of the examples at `places`; those that are missing are drawn."""
        self._draw_missing(live, split, places)
        return [self._judged.scores[split, place][scorer] for place in places]

    def log_probabilities(self, live: LiveModel, split: Split, places: Sequence[int], scorer: str) -> list[float]:
        """How sure `scorer`, a graded one, is of these pictures; those that are missing are drawn."""
        self._draw_missing(live, split, places)
        return [self._judged.log_probabilities[split, place][scorer] for place in places]

    def _draw_missing(self, live: LiveModel, split: Split, places: Sequence[int]) -> None:
        painter = self._ready(live)
        missing = [place for place in dict.fromkeys(places) if (split, place) not in self._judged.scores]
        self._room.over(len(missing), lambda rows: self._draw(painter, split, missing[rows]), PICTURE)

    def pictures(self, live: LiveModel, split: Split, places: Sequence[int]) -> list[Picture]:
        """The pictures of the examples at `places`, each with its scores."""
        painter = self._ready(live)
        batches = self._room.over(len(places), lambda rows: self._draw(painter, split, places[rows]), PICTURE)
        images = [image for batch in batches for image in batch]
        return [(image, self._judged.scores[split, place]) for image, place in zip(images, places, strict=True)]

    def show(self, live: LiveModel, split: Split, places: Sequence[int], scorer: str) -> None:
        """Let a scorer that asks people see the pictures of the examples at `places`."""
        painter, judge = self._ready(live), self.scorers[scorer]
        assert isinstance(judge, AskingScorer)
        prompts = [self.examples[split][place] for place in places]
        for images in self._room.over(len(prompts), lambda rows: (painter(prompts[rows]), prompts[rows]), PICTURE):
            judge.show(*images)

    def _draw(self, painter: Painter, split: Split, places: Sequence[int]) -> list[Image.Image]:
        """Pictures of one batch, whose scores are kept."""
        prompts = [self.examples[split][place] for place in places]
        images = painter(prompts)
        graded = {key: each.log_probabilities for key, each in self.scorers.items() if isinstance(each, Graded)}
        for judges, kept in ((self.scorers, self._judged.scores), (graded, self._judged.log_probabilities)):
            columns = {key: self._checked(key, judge(images, prompts), len(images)) for key, judge in judges.items()}
            for row, place in enumerate(places):
                kept[split, place] = {key: float(column[row]) for key, column in columns.items()}
        return images

    def _checked(self, key: str, given: NDArray[np.float64], count: int) -> NDArray[np.float64]:
        """What the scorer `key` gives for `count` pictures, if these are numbers."""
        scores = np.asarray(given, dtype=np.float64)
        if scores.shape != (count,):
            raise BenchmarkError(
                f"benchmark {self.name!r}, scorer {key}: expected {count} scores, got the shape {scores.shape}"
            )
        if not np.isfinite(scores).all():
            raise FloatingPointError(f"the scorer {key} gives {scores[~np.isfinite(scores)][0]} for a picture")
        return scores

    def _ready(self, live: LiveModel) -> Painter:
        if self._painter is None or self._painter.live is not live:
            where = f"benchmark {self.name!r}"
            self._painter = Painter(where, live, self._drawing, int(self._options.cache_gb * GIB))
            self._judged = _Judged()
            for scorer in self.scorers.values():
                if isinstance(scorer, OnDevice):
                    scorer.to(live.device)
        weights = self._painter.weights()  # by content: whatever wrote them, and in whatever order models are scored
        if weights != self._judged.weights:
            self._painter.begin_genome()
            self._judged = _Judged(weights)
        return self._painter
