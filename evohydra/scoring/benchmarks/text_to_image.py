"""Pictures of prompts, drawn by the live diffusion model and judged by one scorer or several."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray
from PIL import Image

from evohydra.checks import Count, check_settings
from evohydra.families import LiveModel
from evohydra.files import Plain
from evohydra.scoring.benchmarks import SPLITS, BenchmarkError, Split
from evohydra.scoring.benchmarks.contents import code_of, digest_of, libraries_of, versions_of
from evohydra.scoring.benchmarks.drawing import Drawing, Painter
from evohydra.scoring.benchmarks.prompts import Prompt, check_different, read_prompts
from evohydra.scoring.benchmarks.scorers import AskingScorer, OnDevice, Scorer, with_identity
from evohydra.scoring.benchmarks.splits import check_disjoint, slice_of

GIB = 1024**3
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


def text_to_image(
    name: str,
    *,
    prompts: str | Sequence[Prompt],
    scorers: Mapping[str, Callable[[], Scorer]],
    splits: Mapping[str, Mapping[str, object] | None],
    use: Sequence[str] | None = None,
    **options: Any,
) -> "dict[str, TextToImage]":
    """A benchmark `name`/<scorer> for each of `scorers`, or those that are in `use`; all judge the same pictures.

    `prompts` are a list that comes with evohydra, a file, or the prompts themselves. `splits` gives a `Slice` of them
    for search, validation (or None: no validation) and test, which may name `prompts` of their own. `options` are those
    of `PictureOptions` and `Drawing`. Raises BenchmarkError for unknown options, prompts that cannot be read, scorers
    that lack something, and splits that are empty or share a prompt.
    """
    where = f"benchmark {name!r}"
    known = {kind: set(kind.__dataclass_fields__) for kind in (PictureOptions, Drawing)}
    if unknown := sorted(set(options) - known[PictureOptions] - known[Drawing]):
        all_known = sorted(known[PictureOptions] | known[Drawing])
        raise BenchmarkError(f"{where}: unknown options {unknown}; known are {all_known}")
    try:
        chosen = PictureOptions(**{key: value for key, value in options.items() if key in known[PictureOptions]})
    except BenchmarkError as error:
        raise BenchmarkError(f"{where}: {error}") from error
    for kind in (PictureOptions, Drawing):
        check_settings(f"benchmark.{name}", kind, {key: options[key] for key in options if key in known[kind]})
    drawing = Drawing(**{key: value for key, value in options.items() if key in known[Drawing]})
    drawing.check(where)
    studio = Studio(name, _examples(name, prompts, splits, chosen), _made(name, scorers, use), chosen, drawing)
    return {f"{name}/{key}": TextToImage(f"{name}/{key}", studio, key) for key in studio.scorers}


def _made(name: str, scorers: Mapping[str, Callable[[], Scorer]], use: Sequence[str] | None) -> dict[str, Scorer]:
    """The scorers, made before the search: what they lack would show after the first pictures."""
    wanted = list(scorers) if use is None else list(use)
    if not wanted or (unknown := sorted(set(wanted) - set(scorers))):
        raise BenchmarkError(f"benchmark.{name}.use: expected some of {sorted(scorers)}, got {wanted and unknown}")
    made = {}
    for key in wanted:
        try:
            made[key] = with_identity(scorers[key]())
        except ValueError as error:
            raise BenchmarkError(f"benchmark.{name}.scorers.{key}: {error}") from error
    return made


def _examples(
    name: str, prompts: str | Sequence[Prompt], splits: Mapping[str, Plain | None], options: PictureOptions
) -> dict[Split, list[Prompt]]:
    """The examples of each split: prompts with seeds."""
    where = f"benchmark {name!r}"
    if sorted(splits) != sorted(SPLITS):
        raise BenchmarkError(f"{where}: expected the splits {', '.join(SPLITS)}, got {sorted(splits)}")
    found: dict[Split, list[Prompt]] = {}
    for split in SPLITS:
        at = splits[split]
        if at is None:
            if split != "validation":
                raise BenchmarkError(f"{where}: only the validation split may be null")
            continue
        if unknown := sorted(set(at) - {"start", "stop", "prompts"}):
            raise BenchmarkError(f"{where}, {split} split: unknown options {unknown}; known are start, stop, prompts")
        given = at.get("prompts") or prompts
        read = read_prompts(name, given) if isinstance(given, str) else list(given)
        check_different(where, read)
        among = _of_topics(where, read, options.topics)
        bounds = slice_of(f"benchmark.{name}.splits.{split}", {key: at[key] for key in ("start", "stop") if key in at})
        chosen = [among[index] for index in bounds.indices(len(among), options.shuffle, options.limit)]
        found[split] = [replace(prompt, seed=seed) for prompt in chosen for seed in _seeds(prompt, options)]
    check_disjoint(name, {split: [prompt.text for prompt in examples] for split, examples in found.items()})
    check_disjoint(name, {split: [str(prompt.seed) for prompt in examples] for split, examples in found.items()})
    return found


def _of_topics(where: str, prompts: Sequence[Prompt], topics: Sequence[str] | None) -> list[Prompt]:
    if topics is None:
        return list(prompts)
    known = sorted({prompt.topic for prompt in prompts})
    if unknown := sorted(set(topics) - set(known)):
        raise BenchmarkError(f"{where}: unknown topics {unknown}; the prompts have {known}")
    return [prompt for prompt in prompts if prompt.topic in topics]


def _seeds(prompt: Prompt, options: PictureOptions) -> list[int]:
    """The seeds of a prompt: 48 bits, so that no two prompts share one, in splits or files however they are cut."""
    return [
        int.from_bytes(sha256(f"{options.noise_seed} {number} {prompt.text}".encode()).digest()[:6])
        for number in range(options.seeds_per_prompt)
    ]


@dataclass
class _Judged:
    """The scores of the model that is being evaluated, so far."""

    weights: object = None
    scores: dict[tuple[Split, int], Mapping[str, float]] = field(default_factory=dict)


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
        painter = self._ready(live)
        known = self._judged.scores
        missing = [place for place in dict.fromkeys(places) if (split, place) not in known]
        for start in range(0, len(missing), self._options.batch_size):
            batch = missing[start : start + self._options.batch_size]
            self._draw(painter, split, batch)
        return [known[split, place][scorer] for place in places]

    def pictures(self, live: LiveModel, split: Split, places: Sequence[int]) -> list[Picture]:
        """The pictures of the examples at `places`, each with its scores."""
        painter, size = self._ready(live), self._options.batch_size
        batches = [places[start : start + size] for start in range(0, len(places), size)]
        images = [image for batch in batches for image in self._draw(painter, split, batch)]
        return [(image, self._judged.scores[split, place]) for image, place in zip(images, places, strict=True)]

    def show(self, live: LiveModel, split: Split, places: Sequence[int], scorer: str) -> None:
        """Let a scorer that asks people see the pictures of the examples at `places`."""
        painter, size, judge = self._ready(live), self._options.batch_size, self.scorers[scorer]
        assert isinstance(judge, AskingScorer)
        for start in range(0, len(places), size):
            prompts = [self.examples[split][place] for place in places[start : start + size]]
            judge.show(painter(prompts), prompts)

    def _draw(self, painter: Painter, split: Split, places: Sequence[int]) -> list[Image.Image]:
        """Pictures of one batch, whose scores are kept."""
        prompts = [self.examples[split][place] for place in places]
        images = painter(prompts)
        columns = {key: self._judge(key, images, prompts) for key in self.scorers}
        for row, place in enumerate(places):
            self._judged.scores[split, place] = {key: float(column[row]) for key, column in columns.items()}
        return images

    def _judge(self, key: str, images: Sequence[Image.Image], prompts: Sequence[Prompt]) -> NDArray[np.float64]:
        scores = np.asarray(self.scorers[key](images, prompts), dtype=np.float64)
        if scores.shape != (len(images),):
            raise BenchmarkError(
                f"benchmark {self.name!r}, scorer {key}: expected {len(images)} scores, got the shape {scores.shape}"
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


class TextToImage:
    """One scorer's view of the pictures of a `Studio`."""

    families = ("diffusion",)

    def __init__(self, name: str, studio: Studio, scorer: str) -> None:
        self.name, self._studio, self._scorer = name, studio, scorer

    @property
    def album(self) -> str:
        """The same for benchmarks that judge the same pictures."""
        return self._studio.name

    @property
    def settings(self) -> str:
        """How pictures are drawn, as words for a model card."""
        return self._studio.settings

    def identity(self) -> dict[str, object]:
        """What scores depend on: prompts, how they are drawn, and the scorer."""
        return self._studio.identity(self._scorer)

    def size(self, split: Split) -> int:
        """The number of examples in `split`: prompts times seeds."""
        return len(self._studio.examples.get(split, ()))

    def examples(self, split: Split) -> Sequence[Prompt]:
        """The examples of `split`, in its order."""
        return self._studio.examples.get(split, ())

    def __call__(self, live: LiveModel, split: Split, examples: Sequence[int] | None = None) -> NDArray[np.float64]:
        """The score of each example of `split`, or of those at `examples` (n,), in their order.

        Raises FloatingPointError where the model draws numbers that are not finite.
        """
        places = range(self.size(split)) if examples is None else examples
        return np.array(self._studio.scores(live, split, places, self._scorer), dtype=np.float64)

    @property
    def asks(self) -> bool:
        """Whether its scorer asks people."""
        return isinstance(self._studio.scorers[self._scorer], AskingScorer)

    def show(self, live: LiveModel, split: Split, examples: Sequence[int] | None = None) -> None:
        """Put what the model draws before those who will be asked."""
        places = range(self.size(split)) if examples is None else examples
        self._studio.show(live, split, places, self._scorer)

    def ask(self) -> None:
        """Raises BenchmarkError while choices about shown pictures are missing."""
        scorer = self._studio.scorers[self._scorer]
        if isinstance(scorer, AskingScorer):
            scorer.ask()

    def pictures(self, live: LiveModel, split: Split, examples: Sequence[int]) -> list[Picture]:
        """What the model draws for the examples of `split` at `examples` (n,), each with the score of every scorer."""
        return self._studio.pictures(live, split, examples)
