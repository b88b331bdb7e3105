"""Pictures of prompts, drawn by the live diffusion model and judged by one scorer or several."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evohydra.checks import check_settings
from evohydra.families import LiveModel
from evohydra.files import Plain
from evohydra.scoring.benchmarks import SPLITS, BenchmarkError, Split
from evohydra.scoring.benchmarks.drawing import Drawing
from evohydra.scoring.benchmarks.likelihood import LOWEST, Per
from evohydra.scoring.benchmarks.prompts import Prompt, check_different, read_prompts
from evohydra.scoring.benchmarks.scorers import AskingScorer, Graded, Scorer, with_identity
from evohydra.scoring.benchmarks.splits import check_disjoint, slice_of
from evohydra.scoring.benchmarks.studio import Picture, PictureOptions, Studio


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


class TextToImage:
    """One scorer's view of the pictures of a `Studio`."""

    families = ("diffusion",)
    complete_references = True

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

    def check_references(self) -> None:
        """BenchmarkError for a scorer that does not know how sure it is."""
        scorer = self._studio.scorers[self._scorer]
        if not isinstance(scorer, Graded):
            raise BenchmarkError(
                f"fitness=likelihood: the scorer of benchmark {self.name!r} ({scorer.name}) gives no probability that "
                "a picture shows what its prompt asks for; choose fitness=full, its score is graded already"
            )

    def log_likelihoods(
        self, live: LiveModel, split: Split, examples: Sequence[int] | None, per: Per
    ) -> NDArray[np.float64]:
        """(n,): how sure the scorer is that each picture shows what was asked for, see `likelihood.Likely`."""
        places = range(self.size(split)) if examples is None else examples
        found = np.array(self._studio.log_probabilities(live, split, places, self._scorer), dtype=np.float64)
        return found.clip(LOWEST, 0.0)

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
