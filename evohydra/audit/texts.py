"""What is wrong with answers that score nothing, and which examples are nearly the same text."""

import re
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from evohydra.scoring.benchmarks import GivenAnswer
from evohydra.scoring.measures import JAPANESE, LATIN, is_japanese

NUMBER = re.compile(r"(?:(?<![0-9A-Za-z)])-)?\d+(?:\.\d+)?")  # the minus of 5-3 is none of a number
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
INVALID = "[invalid]"  # what lm-eval's filters give where they find nothing
GRAM = 8  # characters of an n-gram: some two words
NEAR = 0.8  # share of the n-grams of two texts that both have, from which on they are nearly the same
KINDS = ("cut at the limit", "empty", "other language", "no number", "right number, not accepted", "wrong content")


def kind_of_error(answer: GivenAnswer, expected: str, question: str = "") -> str:
    """Which of KINDS a wrong answer is, the first one that fits; `expected` is the reference.

    other language: in Japanese script where the reference is not, or the other way round. Numbers are the last ones of
    both texts. A number of the reference that the question names already, as in "the 5 is on the right", tells nothing
    about the answer.
    """
    text = answer.text.strip()
    if answer.cut:
        return KINDS[0]
    if not text:
        return KINDS[1]
    letters = [bool(JAPANESE.search(each) or LATIN.search(each)) for each in (text, expected)]
    if all(letters) and is_japanese(text) != is_japanese(expected):
        return KINDS[2]
    number, wanted, asked = map(_numbers, (text, expected, question))
    if wanted and answer.extracted == INVALID:
        return KINDS[3]
    if wanted and wanted[-1] not in asked:
        if not number:
            return KINDS[3]
        if number[-1] == wanted[-1]:
            return KINDS[4]
    return KINDS[5]


def _numbers(text: str) -> list[float]:
    plain = THOUSANDS.sub("", unicodedata.normalize("NFKC", text).replace("\N{MINUS SIGN}", "-"))
    return [float(each) for each in NUMBER.findall(plain)]


def errors(answers: Sequence[GivenAnswer], asked: Sequence[tuple[str, str]]) -> dict[str, int]:
    """How many answers that score less than 1 are of each kind; those that occur. asked: question and reference."""
    told = zip(answers, asked, strict=True)
    found = [kind_of_error(answer, expected, question) for answer, (question, expected) in told if answer.score < 1]
    return {kind: found.count(kind) for kind in KINDS if kind in found}


def nearest(texts: Sequence[str], others: Sequence[str]) -> NDArray[np.float64]:
    """(n,): for each text the largest share of n-grams that it has in common with one of `others` (Jaccard's index)."""
    if not others:
        return np.zeros(len(texts))
    known: dict[str, int] = {}
    left, right = (_table([_grams(text) for text in each], known) for each in (texts, others))
    width = len(known)
    both = (_sized(left, width) @ _sized(right, width).T).toarray()
    sizes, of_others = (np.array([len(_grams(text)) for text in each]) for each in (texts, others))
    shares: NDArray[np.float64] = (both / (sizes[:, None] + of_others[None, :] - both)).max(axis=1)
    return shares


def _grams(text: str) -> set[str]:
    """The n-grams of a text without blanks; numbers count as they are. Of a short text it is itself."""
    plain = "".join(unicodedata.normalize("NFKC", text).lower().split())
    return {plain[at : at + GRAM] for at in range(max(1, len(plain) - GRAM + 1))}


def _table(grams: Sequence[set[str]], known: dict[str, int]) -> tuple[list[int], list[int]]:
    """Columns and row ends of a sparse table of texts by n-grams."""
    columns, ends = [], [0]
    for each in grams:
        columns += [known.setdefault(gram, len(known)) for gram in sorted(each)]
        ends.append(len(columns))
    return columns, ends


def _sized(table: tuple[list[int], list[int]], width: int) -> csr_matrix:
    columns, ends = table
    return csr_matrix((np.ones(len(columns)), columns, ends), shape=(len(ends) - 1, width))


def near_duplicates(test: Sequence[str], others: Mapping[str, Sequence[str]]) -> dict[str, dict[str, object]]:
    """For each name in `others` how many test examples are nearly the same as one of its texts, and their places."""
    found: dict[str, dict[str, object]] = {}
    for name, texts in others.items():
        shares = nearest(test, texts)
        places = np.flatnonzero(shares >= NEAR).tolist()
        found[name] = {"near": len(places), "of": len(test), "largest": round(float(shares.max(initial=0)), 3)}
        found[name]["places"] = places
    return found
