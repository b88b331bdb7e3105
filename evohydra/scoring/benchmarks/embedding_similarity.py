"""Pairs of texts in order of their similarity: whether the vectors of the live encoder order them as people did."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evohydra.checks import Count, checked
from evohydra.families import LiveModel
from evohydra.files import Plain
from evohydra.scoring.benchmarks import BenchmarkError, Split
from evohydra.scoring.benchmarks.contents import digest_of, versions_of
from evohydra.scoring.benchmarks.embeddings import PACKAGES, Embedder, Pooling, described
from evohydra.scoring.benchmarks.splits import check_disjoint
from evohydra.scoring.benchmarks.text_tables import REFERENCES, Row, cut_tables


@dataclass(frozen=True)
class PairColumns:
    """Where a row holds what; `score` is a number that grows with similarity."""

    first: str = "sentence1"
    second: str = "sentence2"
    score: str = "score"


@dataclass(frozen=True)
class Pair:
    """Two texts, and how similar they are."""

    first: str
    second: str
    score: float

    @property
    def texts(self) -> str:
        """Both texts, a line each."""
        return f"{self.first}\n{self.second}"


@dataclass(frozen=True)
class SimilarityOptions:
    """How texts become vectors; all as in `ClassificationOptions`."""

    pooling: Pooling = "auto"
    prompt: str | None = None
    batch_size: Count = 32
    shuffle: int | None = None
    limit: Count | None = None


def embedding_similarity(
    name: str,
    *,
    splits: Mapping[str, Plain | None],
    references: Plain,
    data_files: str | None = None,
    columns: Mapping[str, str] | None = None,
    **options: object,
) -> "dict[str, EmbeddingSimilarity]":
    """The benchmark `name`, by its name.

    `splits` gives a `Slice` for search, validation (or None: no validation) and test, `references` one of the pairs
    that all others are compared with, which are in no split. `columns` are those of `PairColumns`, `options` those of
    `SimilarityOptions`. Raises BenchmarkError for data that cannot be read, splits that are empty or share a pair, and
    references that are all equally similar; ValueError for unknown options.
    """
    chosen = checked(f"benchmark.{name}", SimilarityOptions, options)
    where = checked(f"benchmark.{name}.columns", PairColumns, columns or {})
    named = [where.first, where.second, where.score]
    rows = cut_tables(name, splits, references, data_files, named, chosen.shuffle, chosen.limit)
    pairs = {part: [_pair(row, where) for row in found] for part, found in rows.items()}
    known = pairs.pop(REFERENCES)
    return {name: EmbeddingSimilarity(name, pairs, known, chosen)}


class EmbeddingSimilarity:
    """One set of pairs with scores, of which some are what the others are compared with."""

    families = ("encoder",)

    def __init__(
        self, name: str, pairs: Mapping[str, Sequence[Pair]], references: Sequence[Pair], options: SimilarityOptions
    ) -> None:
        self.name = name
        self._pairs, self._references, self._options = pairs, references, options
        every = {REFERENCES: references, **pairs}
        check_disjoint(name, {part: [each.texts for each in found] for part, found in every.items()})
        if len({each.score for each in references}) < 2:
            raise BenchmarkError(
                f"benchmark {name!r}: expected references of two scores or more, got only {references[0].score:g}; "
                f"change benchmark.{name}.{REFERENCES}"
            )
        self._embed = Embedder(name, options.batch_size, options.pooling, options.prompt)

    def size(self, split: Split) -> int:
        """The number of pairs in `split`."""
        return len(self._pairs.get(split, ()))

    def identity(self) -> dict[str, object]:
        """What scores depend on: texts and scores of each split and of the references, and how vectors are made."""
        return {
            "kind": "embedding_similarity",
            **described(self._options.pooling, self._options.prompt),
            "references": _digest(self._references),
            "splits": {
                split: {"examples": len(pairs), "pairs": _digest(pairs)} for split, pairs in self._pairs.items()
            },
            "versions": versions_of(PACKAGES),
        }

    def describe(self, split: Split, index: int) -> tuple[str, str]:
        """Both texts of pair `index` of `split`, and their score."""
        pair = self._pairs[split][index]
        return pair.texts, f"{pair.score:g}"

    def __call__(self, live: LiveModel, split: Split, examples: Sequence[int] | None = None) -> NDArray[np.float64]:
        """For each pair of `split`, or of those at `examples` (n,): the share of references that it is ordered with.

        Of the references that are more or less similar than the pair the share of which cosines say the same; equal
        cosines are half right.
        """
        places = range(self.size(split)) if examples is None else examples
        if not len(places):
            return np.empty(0)
        asked = [self._pairs[split][at] for at in places]
        known = self._cosines(live, self._references)
        return concordance(
            self._cosines(live, asked),
            np.array([each.score for each in asked]),
            known,
            np.array([each.score for each in self._references]),
        )

    def answers(self, live: LiveModel, split: Split, examples: Sequence[int]) -> list[str]:
        """The cosines of the pairs of `split` at `examples` (n,), in words."""
        if not len(examples):
            return []
        return [f"{cosine:.3f}" for cosine in self._cosines(live, [self._pairs[split][at] for at in examples])]

    def _cosines(self, live: LiveModel, pairs: Sequence[Pair]) -> NDArray[np.float64]:
        vectors = self._embed(live, [text for each in pairs for text in (each.first, each.second)]).double()
        cosines: NDArray[np.float64] = (vectors[::2] * vectors[1::2]).sum(dim=1).numpy()
        return cosines


def concordance(
    found: NDArray[np.float64],
    right: NDArray[np.float64],
    known_found: NDArray[np.float64],
    known_right: NDArray[np.float64],
) -> NDArray[np.float64]:
    """For each of n numbers `found` the share of known ones that it is on the side of where it should be, (n,).

    `right` says where it should be; known ones that are `right` as far do not count. Each of n has known ones that do.
    """
    wanted = np.sign(right[:, None] - known_right[None, :])
    got = np.sign(found[:, None] - known_found[None, :])
    agreeing = np.where(got == 0, 0.5, got == wanted) * (wanted != 0)
    shares: NDArray[np.float64] = agreeing.sum(axis=1) / (wanted != 0).sum(axis=1)
    return shares


def _pair(row: Row, columns: PairColumns) -> Pair:
    value = row.values.get(columns.score)
    try:
        score = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise row.lacks("a number", columns.score)
    return Pair(row.text(columns.first), row.text(columns.second), score)


def _digest(pairs: Sequence[Pair]) -> str:
    return digest_of([[each.first, each.second, each.score] for each in pairs])
