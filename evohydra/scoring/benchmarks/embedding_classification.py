"""Texts classified by the vectors of the live encoder: by the nearest ones of known texts, or by the nearest class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evohydra.checks import Count, checked
from evohydra.families import LiveModel
from evohydra.families.live_encoder import LiveEncoder
from evohydra.files import Plain
from evohydra.scoring.benchmarks import BenchmarkError, Split
from evohydra.scoring.benchmarks.contents import digest_of, versions_of
from evohydra.scoring.benchmarks.embeddings import PACKAGES, Embedder, Pooling, described
from evohydra.scoring.benchmarks.splits import check_disjoint
from evohydra.scoring.benchmarks.text_tables import REFERENCES, Row, cut_tables


@dataclass(frozen=True)
class Columns:
    """Where a row holds what; a label is a word or a whole number."""

    text: str = "text"
    label: str = "label"


@dataclass(frozen=True)
class Labelled:
    """A text and its label."""

    text: str
    label: str


@dataclass(frozen=True)
class ClassificationOptions:
    """How texts are classified.

    rule: "neighbours" (the most frequent label among the `k` nearest known texts by cosine; of equally frequent ones
    the one whose texts are nearer in sum), "centroid" (the class whose mean vector is nearest), or "head" (what the
    model's own head says; no known text is asked for). pooling: of hidden states, "auto" as the model's files say.
    prompt: what stands before every text, None as the model's files say. shuffle is the seed of the order in which
    splits are cut, limit the most texts of each split.
    """

    rule: Literal["neighbours", "centroid", "head"] = "neighbours"
    k: Count = 5
    pooling: Pooling = "auto"
    prompt: str | None = None
    batch_size: Count = 32
    shuffle: int | None = None
    limit: Count | None = None


def embedding_classification(
    name: str,
    *,
    splits: Mapping[str, Plain | None],
    references: Plain,
    data_files: str | None = None,
    columns: Mapping[str, str] | None = None,
    **options: object,
) -> "dict[str, EmbeddingClassification]":
    """The benchmark `name`, by its name.

    `splits` gives a `Slice` for search, validation (or None: no validation) and test, `references` one of the known
    texts, which are in no split; each may have `data_files` of its own. `columns` are those of `Columns`, `options`
    those of `ClassificationOptions`. Raises BenchmarkError for data that cannot be read, splits that are empty or share
    a text, and labels that no known text has; ValueError for unknown options.
    """
    chosen = checked(f"benchmark.{name}", ClassificationOptions, options)
    where = checked(f"benchmark.{name}.columns", Columns, columns or {})
    rows = cut_tables(name, splits, references, data_files, [where.text, where.label], chosen.shuffle, chosen.limit)
    texts = {part: [_labelled(row, where) for row in found] for part, found in rows.items()}
    known = texts.pop(REFERENCES)
    return {name: EmbeddingClassification(name, texts, known, chosen)}


class EmbeddingClassification:
    """One set of texts with labels, of which some are known to the classifier."""

    families = ("encoder",)

    def __init__(
        self,
        name: str,
        texts: Mapping[str, Sequence[Labelled]],
        references: Sequence[Labelled],
        options: ClassificationOptions,
    ) -> None:
        self.name = name
        self._texts, self._references, self._options = texts, references, options
        every: dict[str, Sequence[Labelled]] = {REFERENCES: references, **{split: texts[split] for split in texts}}
        check_disjoint(name, {split: [each.text for each in chosen] for split, chosen in every.items()})
        self._labels = sorted({each.label for each in references})
        if options.rule != "head":
            self._check_references()
        self._embed = Embedder(name, options.batch_size, options.pooling, options.prompt)

    def _check_references(self) -> None:
        name, known = self.name, len(self._references)
        for split, chosen in self._texts.items():
            if strange := sorted({each.label for each in chosen} - set(self._labels)):
                raise BenchmarkError(
                    f"benchmark {name!r}: no reference has the label {strange[0]!r} of the {split} split; change "
                    f"benchmark.{name}.{REFERENCES} (they have {', '.join(self._labels[:10])})"
                )
        if len(self._labels) < 2:
            raise BenchmarkError(f"benchmark {name!r}: expected references with two labels or more, got {self._labels}")
        if self._options.rule == "neighbours" and self._options.k > known:
            raise BenchmarkError(f"benchmark {name!r}: k: expected at most {known} references, got {self._options.k}")

    def size(self, split: Split) -> int:
        """The number of texts in `split`."""
        return len(self._texts.get(split, ()))

    def identity(self) -> dict[str, object]:
        """What scores depend on: texts and labels of each split and of the references, and how they are compared."""
        options = self._options
        return {
            "kind": "embedding_classification",
            "rule": options.rule,
            **({"k": options.k} if options.rule == "neighbours" else {}),
            **described(options.pooling, options.prompt),
            **({"references": _digest(self._references)} if options.rule != "head" else {}),
            "splits": {
                split: {"examples": len(texts), "texts": _digest(texts)} for split, texts in self._texts.items()
            },
            "versions": versions_of(PACKAGES),
        }

    def describe(self, split: Split, index: int) -> tuple[str, str]:
        """Text `index` of `split`, and its label."""
        example = self._texts[split][index]
        return example.text, example.label

    def __call__(self, live: LiveModel, split: Split, examples: Sequence[int] | None = None) -> NDArray[np.float64]:
        """1 for each text of `split`, or of those at `examples` (n,), whose label is found, else 0."""
        places = range(self.size(split)) if examples is None else examples
        found = self.answers(live, split, places)
        right = [label == self._texts[split][at].label for label, at in zip(found, places, strict=True)]
        return np.array(right, dtype=np.float64)

    def answers(self, live: LiveModel, split: Split, examples: Sequence[int]) -> list[str]:
        """The labels that are found for the texts of `split` at `examples` (n,), in their order."""
        if not len(examples):
            return []
        texts = [self._texts[split][at].text for at in examples]
        if self._options.rule == "head":
            named = self._labels_of_head(live)
            return [named[int(at)] for at in self._embed.logits(live, texts).argmax(dim=1)]
        known = self._embed(live, [each.text for each in self._references])
        vectors = self._embed(live, texts)
        labels = torch.tensor([self._labels.index(each.label) for each in self._references])
        of_class = torch.nn.functional.one_hot(labels, len(self._labels)).to(known.dtype)  # (references, labels)
        if self._options.rule == "centroid":
            votes = vectors @ torch.nn.functional.normalize(of_class.T @ known, dim=1).T
        else:
            votes = neighbours(vectors @ known.T, of_class, self._options.k)
        return [self._labels[int(at)] for at in votes.argmax(dim=1)]

    def _labels_of_head(self, live: LiveModel) -> list[str]:
        """The labels that the model's head tells apart; BenchmarkError where it has none, or none of a text's."""
        if not isinstance(live, LiveEncoder) or live.whole is live.module:
            raise BenchmarkError(
                f"benchmark {self.name!r}: rule=head: expected a model with a head for the classification of texts, "
                "that all sources and the base have; rule=neighbours asks for no head"
            )
        config = live.whole.config
        named = [str(config.id2label[number]) for number in range(config.num_labels)]
        asked = {each.label for texts in self._texts.values() for each in texts}
        if strange := sorted(asked - set(named)):
            raise BenchmarkError(
                f"benchmark {self.name!r}: rule=head: expected the labels of the model's head "
                f"({', '.join(named[:10])}), got {strange[0]!r}"
            )
        return named


def neighbours(cosines: Tensor, of_class: Tensor, k: int) -> Tensor:
    """How many of the `k` nearest known texts have each label, (texts, labels), float64.

    `cosines` (texts, known), `of_class` (known, labels) is 1 where a known text has the label. A fraction below 1 is
    added that grows with nearness, so that it decides between equal counts.
    """
    nearest = cosines.argsort(dim=1, descending=True, stable=True)[:, :k]
    votes = of_class.double()[nearest]  # (texts, k, labels)
    nearness = (cosines.double().gather(1, nearest).clamp(-1, 1) + 1).unsqueeze(-1)
    return votes.sum(dim=1) + (nearness * votes).sum(dim=1) / (2 * k + 1)


def _labelled(row: Row, columns: Columns) -> Labelled:
    text, label = row.text(columns.text), row.values.get(columns.label)
    if not isinstance(label, str | int) or not str(label).strip():
        raise row.lacks("a word or a whole number", columns.label)
    return Labelled(text, str(label))


def _digest(texts: Sequence[Labelled]) -> str:
    return digest_of([[each.text, each.label] for each in texts])
