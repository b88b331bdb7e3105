"""ROUGE-L of Japanese answers as the paper computes it: words by MeCab, and other languages count as nothing."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from evohydra.checks.libraries import optional
from evohydra.scoring.benchmarks.japanese import is_japanese

LIBRARIES = ("rouge-score", "fugashi", "unidic-lite", "emoji", "neologdn")  # that scores depend on
INSTALL = "evohydra[japanese]"
# What the paper's evaluation removes besides the characters that the package emoji knows: symbols and pictographs,
# emoticons, transport, flags, dingbats.
_PICTURES = re.compile("[\U0001f300-\U0001f64f\U0001f680-\U0001f6ff\U0001f1e0-\U0001f1ff\u2702-\u27b0]+")


class JapaneseWords:
    """A tokenizer for rouge-score: words of fugashi with unidic-lite, of a text that was normalised.

    Source: SakanaAI/evolutionary-model-merge, evomerge/eval/metrics.py, ``MecabTokenizer``.
    Raises ValueError, with what to install, when one of the packages is missing.
    """

    def __init__(self) -> None:
        fugashi, unidic, emoji, neologdn = (
            optional(name, "Japanese ROUGE", INSTALL) for name in ("fugashi", "unidic_lite", "emoji", "neologdn")
        )
        dictionary = unidic.DICDIR  # by name, so that another installed dictionary is not taken instead
        self._tagger = fugashi.GenericTagger(f'-r "{dictionary}/mecabrc" -d "{dictionary}" -Owakati')
        self._is_emoji, self._normalise_widths = emoji.is_emoji, neologdn.normalize

    def normalise(self, text: str) -> str:
        """`text` without emoji, with the widths and repetitions of neologdn, and single spaces."""
        kept = "".join(character for character in text if not self._is_emoji(character))
        return " ".join(self._normalise_widths(_PICTURES.sub("", kept)).split())

    def tokenize(self, text: str) -> list[str]:
        """The words of `text`."""
        words: list[str] = self._tagger.parse(self.normalise(text)).split()
        return words


@functools.cache
def _words() -> JapaneseWords:
    return JapaneseWords()


@functools.cache
def _scorer() -> Any:
    scorer = optional("rouge_score.rouge_scorer", "Japanese ROUGE", INSTALL)
    return scorer.RougeScorer(["rougeL"], tokenizer=_words())


@functools.lru_cache(maxsize=2**16)  # references come once for each genome
def _counts_as_japanese(text: str) -> bool:
    return is_japanese(text)


def by_language(reference: str, answer: str) -> str:
    """`answer`, or "" where the reference is Japanese and it is not; to other references any answer will do.

    Raises ValueError where the language detector's package is missing (see `japanese.is_japanese`).
    """
    return answer if not _counts_as_japanese(reference) or _counts_as_japanese(answer) else ""


def rouge_l_any_language(answer: str, references: Sequence[str]) -> float:
    """The largest F-measure of `answer` with one of `references`, in [0, 1]; any language counts."""
    return max(float(_scorer().score(reference, answer)["rougeL"].fmeasure) for reference in references)


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """The paper's: as `rouge_l_any_language`, where an answer in another language than Japanese counts as empty."""
    return max(rouge_l_any_language(by_language(reference, answer), [reference]) for reference in references)


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1 where `answer` is one of `references` after normalisation, in whatever language, else 0."""
    words = _words()
    return float(words.normalise(answer) in {words.normalise(reference) for reference in references})


def exact_match_plain(answer: str, references: Sequence[str]) -> float:
    """1 where `answer` is one of `references` but for white space at the ends, else 0; needs no package."""
    return float(answer.strip() in {reference.strip() for reference in references})


def aggregated(scores: Sequence[float], seed: int = 0) -> dict[str, float]:
    """low, mid and high of the paper's aggregation of F-measures (n,), in percent: rouge-score's bootstrap, seeded.

    mid is the median over resamples of the mean, which lies within a few hundredths of the mean itself; low and high
    bound 95 %. Raises ValueError for no scores.
    """
    if not len(scores):
        raise ValueError("scores: expected at least one, got none")
    scoring = optional("rouge_score.scoring", "Japanese ROUGE", INSTALL)
    aggregator = scoring.BootstrapAggregator()
    for score in scores:
        aggregator.add_scores({"rougeL": scoring.Score(score, score, score)})
    state = np.random.get_state()  # noqa: NPY002  (the package draws from the global generator)
    try:
        np.random.seed(seed)  # noqa: NPY002
        result = aggregator.aggregate()["rougeL"]
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return {bound: 100.0 * float(getattr(result, bound).fmeasure) for bound in ("low", "mid", "high")}
