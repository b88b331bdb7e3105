"""Questions about images, answered by the live vision-language model and scored one by one."""

import functools
import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evohydra.checks import check_settings, checked_by
from evohydra.families import LiveModel
from evohydra.files import Plain
from evohydra.scoring.benchmarks import SPLITS, BenchmarkError, Change, GivenAnswer, Split, visual_data
from evohydra.scoring.benchmarks.contents import code_of, digest_of, libraries_of, versions_of
from evohydra.scoring.benchmarks.generation_settings import check_ahead, check_generation
from evohydra.scoring.benchmarks.images import decoded
from evohydra.scoring.benchmarks.likelihood import LOWEST, Per, Texts
from evohydra.scoring.benchmarks.not_numbers import check_log_likelihoods
from evohydra.scoring.benchmarks.room import Room
from evohydra.scoring.benchmarks.run_cache import RunCache
from evohydra.scoring.benchmarks.sampling import DRAWS, may_sample
from evohydra.scoring.benchmarks.splits import check_disjoint
from evohydra.scoring.benchmarks.vision_prompts import Asker, check_prompt
from evohydra.scoring.benchmarks.visual_data import Example, Source
from evohydra.scoring.benchmarks.visual_metric import checked_metric
from evohydra.scoring.benchmarks.visual_options import GENERATION, VQAOptions, doubled, lacking
from evohydra.scoring.benchmarks.visual_splits import cut, split_source

GIB = 1024**3
QUESTION = "a question with its image"
PACKAGES = ("transformers", "tokenizers", "torch", "pillow")  # that scores depend on
logger = logging.getLogger(__name__)


def check_visual(prefix: str, settings: Plain) -> None:
    """What is wrong with settings of generation, as far as their names and types say it."""
    given = settings.get("generation_kwargs")
    if isinstance(given, Mapping):
        check_ahead(f"{prefix}.generation_kwargs", given)


@checked_by(check_visual)
def visual_qa(name: str, *, splits: Mapping[str, Plain | None], **options: Any) -> "dict[str, VisualQA]":
    """The benchmark `name`, by its name.

    `splits` gives a `Slice` for search, validation (or None: no validation) and test; it counts images, and all
    questions of an image go with it. `options` are those of `VQAOptions` and of `Source`; what a split gives of
    `Source` holds for it alone. Raises BenchmarkError for unknown options, data that cannot be had, images that cannot
    be used, and splits that are empty or share an image.
    """
    options = {key: value for key, value in options.items() if key != "generation_kwargs" or value is not None}
    known = {kind: set(kind.__dataclass_fields__) for kind in (VQAOptions, Source)}
    unknown = sorted(set(options) - known[VQAOptions] - known[Source])
    if unknown:
        raise BenchmarkError(
            f"benchmark {name!r}: unknown options {unknown}; known are {sorted(known[VQAOptions] | known[Source])}"
        )
    own = {key: options[key] for key in options if key in known[VQAOptions]}
    check_settings(f"benchmark.{name}", VQAOptions, own)
    if sorted(splits) != sorted(SPLITS):
        raise BenchmarkError(f"benchmark {name!r}: expected the splits {', '.join(SPLITS)}, got {sorted(splits)}")
    if splits["search"] is None or splits["test"] is None:
        raise BenchmarkError(f"benchmark {name!r}: only the validation split may be null")
    chosen = VQAOptions(**own)
    common = {key: value for key, value in options.items() if key in known[Source]}
    sliced: dict[Split, list[Example]] = {}
    read: dict[str, list[Example]] = {}
    for split in SPLITS:
        at = splits[split]
        if at is None:
            continue
        source, bounds = split_source(name, split, common, at)
        if repr(source) not in read:
            read[repr(source)] = visual_data.examples(name, source)
        sliced[split] = cut(read[repr(source)], bounds, chosen.shuffle, chosen.limit)
    other = splits["test"].get("task")  # of the test split alone
    return {name: VisualQA(name, sliced, chosen, f"{name}: {other}" if other else name)}


class VisualQA:
    """One data set of questions about images; images are decoded and preprocessed once a run."""

    families = ("vision_language",)
    complete_references = True

    def __init__(self, name: str, examples: Mapping[Split, Sequence[Example]], options: VQAOptions, title: str) -> None:
        self.name, self.title = name, title
        self._examples, self._options = examples, options
        self._cache = RunCache(int(options.cache_gb * GIB))
        self._room = Room(options.batch_size)
        self._asker: Asker | None = None
        self._ends: list[tuple[int, bool | None]] = []  # of the answers of the last call
        if options.second_prompt is not None:
            check_prompt(name, "second_prompt", options.second_prompt)
        check_generation(f"benchmark.{name}.generation_kwargs", options.generation_kwargs, self._generation)
        self._check_images()
        self._metric = checked_metric(name, options.metric, examples["search"][0].references)

    @property
    def _generation(self) -> Plain:
        return {**GENERATION, **self._options.generation_kwargs}

    def size(self, split: Split) -> int:
        """The number of examples in `split`."""
        return len(self._examples.get(split, ()))

    def examples(self, split: Split) -> Sequence[Example]:
        """The examples of `split`, in its order."""
        return self._examples.get(split, ())

    def pixels(self, split: Split) -> Sequence[str]:
        """For each example of `split` a digest of its image, see `ShowsImages`."""
        return self._pixels[split]

    def identity(self) -> dict[str, object]:
        """What scores depend on: questions, references and pixels of each split, prompt, generation and metric."""
        options, generation = self._options, self._generation
        splits = {
            split: {
                "examples": len(examples),
                "questions": digest_of([[each.question, *each.references] for each in examples]),
                "images": digest_of(self._pixels[split]),
            }
            for split, examples in self._examples.items()
        }
        return {
            "kind": "visual_qa",
            "metric": options.metric,
            "code": code_of([self._metric]),
            "prompt": options.prompt,
            "system_prompt": options.system_prompt,
            "generation": generation,
            **({"sampling": {"seed": options.sampling_seed, "draws": DRAWS}} if may_sample(generation) else {}),
            "splits": splits,
            "versions": versions_of({*PACKAGES, *libraries_of([self._metric])}),
        }

    def asked_as(self) -> str | None:
        """The text around all questions; None where it is the processor's chat template."""
        return self._options.prompt

    def describe(self, split: Split, index: int) -> tuple[str, str]:
        """The question of example `index` of `split`, and its references."""
        example = self._examples[split][index]
        return example.question, " / ".join(example.references)

    def image(self, example: Example) -> Image.Image:
        """The image of `example`, in RGB."""
        image: Image.Image = self._cache.once(
            ("image", example.image.key), lambda: decoded(example.image, self._options.max_pixels)[0], _bytes
        )
        return image

    def __call__(self, live: LiveModel, split: Split, examples: Sequence[int] | None = None) -> NDArray[np.float64]:
        """The metric for each example of `split`, or of those at `examples` (n,), in their order."""
        places = range(self.size(split)) if examples is None else examples
        return self._scores(self.answers(live, split, places), split, places)

    def _scores(self, answers: Sequence[str], split: Split, places: Sequence[int]) -> NDArray[np.float64]:
        pairs = zip(answers, (self._examples[split][place] for place in places), strict=True)
        return np.array([self._metric(answer, example.references) for answer, example in pairs], dtype=np.float64)

    def ends(self) -> tuple[int, int, int]:
        """How the answers of the last call have ended, see `Audited`."""
        return len(self._ends), sum(cut is True for _, cut in self._ends), sum(tokens for tokens, _ in self._ends)

    def lacks(self, change: Change) -> str | None:
        """Why questions cannot be asked with this change, see `Audited`."""
        return lacking(change, self._generation, self._options.second_prompt)

    def shots(self) -> list[str]:
        """None: questions about images are asked without examples."""
        return []

    def asked(
        self, live: LiveModel, split: Split, examples: Sequence[int], change: Change = "none"
    ) -> list[GivenAnswer]:
        """What the live model answers, see `Audited`."""
        answers = self._written(live, split, examples, change)
        scores = self._scores(answers, split, examples).tolist()
        told = zip(answers, scores, self._ends, strict=True)
        return [GivenAnswer(text, score, tokens=tokens, cut=cut) for text, score, (tokens, cut) in told]

    def answers(self, live: LiveModel, split: Split, examples: Sequence[int]) -> list[str]:
        """What the model answers to the examples of `split` at `examples` (n,), in their order."""
        return self._written(live, split, examples, "none")

    def _written(self, live: LiveModel, split: Split, examples: Sequence[int], change: Change) -> list[str]:
        asker, options = self._ready(live), self._options
        prompt = options.second_prompt if change == "wording" else None
        longer = doubled(self._generation) if change == "length" else {}
        self._ends = []
        self._cache.begin_round()
        asker.features.begin_genome()
        before = asker.features.saved
        answers: list[str] = []

        def ask(rows: slice) -> tuple[list[str], list[tuple[int, bool | None]]]:
            batch = tuple(examples[rows])
            made = functools.partial(self._inputs, asker, split, batch, prompt)
            inputs = self._cache.once((split, batch, prompt), made, _bytes)
            draws = [(options.sampling_seed, split, place) for place in batch]
            return asker.answers((split, batch), inputs, draws, longer)

        for found, ends in self._room.over(len(examples), ask, QUESTION):
            answers, self._ends = answers + found, self._ends + ends
        logger.info("%s: reused vision features saved %.2f s", self.name, asker.features.saved - before)
        return answers

    def check_references(self) -> None:
        """BenchmarkError where an example of the search split has no right answer that a model can be asked for."""
        for place, example in enumerate(self._examples["search"]):
            if not _asked_for(example):
                raise BenchmarkError(
                    f"fitness=likelihood: example {place} of the search split of benchmark {self.name!r} has no right "
                    f"answer (its references are {list(example.references)}); expected one or more for every example"
                )

    def log_likelihoods(
        self, live: LiveModel, split: Split, examples: Sequence[int] | None, per: Per
    ) -> NDArray[np.float64]:
        """(n,): how likely the model finds the likeliest reference of each example, see `likelihood.Likely`."""
        places = range(self.size(split)) if examples is None else examples
        texts = {place: _asked_for(self._examples[split][place]) for place in places}
        return self.log_likelihoods_of(live, split, places, per, texts)

    def check_verifiable(self) -> None:
        """Nothing: every answer is a text, and metrics of answers are 1 where they are right."""

    def written(self, live: LiveModel, split: Split, examples: Sequence[int]) -> tuple[list[str], list[float]]:
        """The answers of the live model and their scores, see `likelihood.Verifiable`."""
        answers = self.answers(live, split, examples)
        return answers, self._scores(answers, split, examples).tolist()

    def log_likelihoods_of(
        self, live: LiveModel, split: Split, examples: Sequence[int], per: Per, texts: Texts
    ) -> NDArray[np.float64]:
        """(n,): how likely the model finds the likeliest of `texts`, see `likelihood.Verifiable`."""
        asker, places = self._ready(live), examples
        self._cache.begin_round()
        asker.features.begin_genome()
        pairs = [
            (at, begin + text)
            for at, place in enumerate(places)
            for begin in asker.beginnings(self._examples[split][place].question)
            for text in texts[place]
        ]
        best = np.full(len(places), -np.inf)

        def ask(rows: slice) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
            asked = tuple((places[at], text) for at, text in pairs[rows])
            inputs = self._cache.once((split, asked), functools.partial(self._answered, asker, split, asked), _bytes)
            return asker.log_probabilities((split, asked), inputs)

        each = iter(pairs)
        for totals, tokens in self._room.over(len(pairs), ask, QUESTION):
            check_log_likelihoods(totals.tolist())
            for (at, text), total, count in zip(itertools.islice(each, len(totals)), totals, tokens, strict=True):
                best[at] = max(best[at], total / (count if per == "token" else len(text.encode())))
        clipped: NDArray[np.float64] = best.clip(LOWEST, 0.0)
        return clipped

    def _answered(self, asker: Asker, split: Split, asked: Sequence[tuple[int, str]]) -> object:
        examples = [self._examples[split][place] for place, _ in asked]
        questions, images = [each.question for each in examples], [self.image(each) for each in examples]
        return asker.answered(questions, images, [text for _, text in asked])

    @property
    def seconds_saved(self) -> float:
        """The seconds that reused vision features have saved so far."""
        return self._asker.features.saved if self._asker is not None else 0.0

    def _inputs(self, asker: Asker, split: Split, batch: Sequence[int], prompt: str | None) -> object:
        asked = [self._examples[split][place] for place in batch]
        return asker.inputs([each.question for each in asked], [self.image(each) for each in asked], prompt)

    def _ready(self, live: LiveModel) -> Asker:
        if self._asker is None or self._asker.live is not live:
            prompts = self._options.prompt, self._options.system_prompt
            features = int(self._options.features_gb * GIB)
            self._asker = Asker(self.name, live, *prompts, self._generation, features)
        return self._asker

    def _check_images(self) -> None:
        """Decode every image before the search: a broken one in the test split would show days later."""
        digests: dict[Split, list[str]] = {split: [] for split in self._examples}
        known: dict[str, str] = {}
        for split, examples in self._examples.items():
            for example in examples:
                key = example.image.key
                if key not in known:
                    image, known[key] = decoded(example.image, self._options.max_pixels)
                    self._cache.put(("image", key), image, _bytes(image))
                digests[split].append(known[key])
        check_disjoint(self.name, digests)
        self._pixels = digests
        identities = {s: [e.image_id for e in examples if e.image_id] for s, examples in self._examples.items()}
        if all(identities.values()):
            check_disjoint(self.name, identities)


def _asked_for(example: Example) -> list[str]:
    """The right answers in words, each once."""
    return [text for text in dict.fromkeys(example.references) if text.strip()]


def _bytes(value: Any) -> int:
    if isinstance(value, Image.Image):
        return value.width * value.height * 3
    return sum(tensor.nbytes for tensor in value.values() if hasattr(tensor, "nbytes"))
