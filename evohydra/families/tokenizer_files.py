"""The files of a tokenizer are rules of strangers: they are looked at, and tried, before a library carries them out."""

import functools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from evohydra.checks import shown, trials
from evohydra.files import Plain, read_json
from evohydra.merging.checkpoints import SourceError

RULES, SETTINGS = "tokenizer.json", "tokenizer_config.json"
PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
MOST_GROWTH = 100  # times: what replacements may make of a text together
MOST_ADDED = 100  # tokens that stand around each text, and characters that stand before or behind each word
MOST_STEPS = 1000  # rules that are applied one after the other
MOST_PADDING = 100_000  # tokens
LONGEST_PATTERN = 10_000  # characters of a regular expression; the longest of known models has some 500
MOST_EXTRA = 10_000  # tokens that transformers counts out by itself
EXTRA = ("extra_ids", "num_mask_tokens", "offset")
# What no trial is needed for: these make no more than a few characters of one, and have no regular expression.
PLAIN = frozenset({
    "Sequence", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Strip", "BertNormalizer", "Prepend", "Nmt",
    "ByteLevel", "Metaspace", "Whitespace", "WhitespaceSplit", "BertPreTokenizer", "Punctuation", "Digits",
    "TemplateProcessing", "BertProcessing", "RobertaProcessing", "WordPiece", "ByteFallback", "Fuse", "BPEDecoder",
})  # fmt: skip
ALPHABET = "aA1 \n\t.,-'あ漢é😀"


def check_tokenizer_files(directory: Path) -> None:
    """SourceError, with file and key, for rules and numbers with which a tokenizer would not end, or end the process.

    Its regular expressions are tried in a process of its own, see `trials`. Which tokens it has is not looked at here,
    and a directory without these files is good.
    """
    try:
        for name in (RULES, SETTINGS):
            file = directory / name
            if file.exists():
                state = file.stat()
                _check_file(file, state.st_mtime_ns, state.st_size)
    except (ValueError, OSError) as error:
        raise error if isinstance(error, SourceError) else SourceError(str(error)) from error


@functools.lru_cache(maxsize=64)
def _check_file(file: Path, changed: int, size: int) -> None:
    """`changed` and `size` tell a file from another one that had its name; what is raised is not kept."""
    data = read_json(file)
    if file.name == SETTINGS:
        for key in EXTRA:
            _check_most(f"{file}: {key}", data.get(key), MOST_EXTRA)
        return
    _check_numbers(file, data)
    for part in PARTS:
        for key, rule in _rules(data.get(part), f"{file}: {part}"):
            _check_rule(key, rule)
    for part in ("normalizer", "decoder"):
        growth = math.prod(_growth(rule) for _, rule in _rules(data.get(part), part))
        if growth > MOST_GROWTH:
            raise SourceError(f"{file}: {part}: expected text to grow at most {MOST_GROWTH} times, got {growth} times")
    kinds = {str(rule.get("type")) for part in PARTS for _, rule in _rules(data.get(part), part)}
    if kinds - PLAIN:
        reason = _tried(json.dumps({part: data.get(part) for part in PARTS}))
        if reason is not None:
            raise SourceError(f"{file}: cutting a short text by its rules {reason}")


def _check_numbers(file: Path, data: Plain) -> None:
    padding, model = data.get("padding"), data.get("model")
    if isinstance(padding, Mapping):
        strategy = padding.get("strategy")
        fixed = strategy.get("Fixed") if isinstance(strategy, Mapping) else None
        _check_most(f"{file}: padding.strategy.Fixed", fixed, MOST_PADDING)
        _check_most(f"{file}: padding.pad_to_multiple_of", padding.get("pad_to_multiple_of"), MOST_PADDING)
    if isinstance(model, Mapping):
        for key in ("continuing_subword_prefix", "end_of_word_suffix"):
            _check_length(f"{file}: model.{key}", model.get(key), MOST_ADDED)


def _check_most(where: str, value: object, most: int) -> None:
    if isinstance(value, int | float) and not value <= most:
        raise SourceError(f"{where}: expected at most {most}, got {shown(value)}")


def _check_length(where: str, value: object, most: int) -> None:
    if isinstance(value, str | list) and len(value) > most:
        raise SourceError(f"{where}: expected a length of at most {most}, got {len(value)}")


def _rules(part: object, key: str) -> Iterator[tuple[str, Plain]]:
    """All rules of a part with their keys, also those inside of sequences; SourceError for too many."""
    whole, waiting, seen = key, [(key, part)], 0
    while waiting:
        key, rule = waiting.pop()
        seen += 1
        if seen > MOST_STEPS:
            raise SourceError(f"{whole}: expected at most {MOST_STEPS} rules, got more")
        if isinstance(rule, Mapping):
            yield key, rule
            for inside in ("normalizers", "pretokenizers", "processors", "decoders"):
                listed = rule.get(inside)
                if isinstance(listed, list):
                    waiting += [(f"{key}.{inside}.{n}", each) for n, each in enumerate(listed[: MOST_STEPS + 1])]


def _check_rule(where: str, rule: Plain) -> None:
    pattern = rule.get("pattern")
    if isinstance(pattern, Mapping):
        for kind in ("Regex", "String"):
            _check_length(f"{where}.pattern.{kind}", pattern.get(kind), LONGEST_PATTERN)
    for key in ("prepend", "prefix", "suffix"):
        _check_length(f"{where}.{key}", rule.get(key), MOST_ADDED)
    if rule.get("type") == "TemplateProcessing":
        for key in ("single", "pair"):
            added = _added(rule, key)
            if added > MOST_ADDED:
                raise SourceError(f"{where}.{key}: expected at most {MOST_ADDED} tokens around a text, got {added}")


def _added(rule: Plain, key: str) -> int:
    """How many pieces and special tokens a template of a post-processor has."""
    pieces, special = rule.get(key), rule.get("special_tokens")
    if not isinstance(pieces, list):
        return 0
    named = [piece.get("SpecialToken") for piece in pieces if isinstance(piece, Mapping)]
    ids = [each.get("id") for each in named if isinstance(each, Mapping)]
    known = special if isinstance(special, Mapping) else {}
    lists = [known[name].get("ids") for name in ids if isinstance(known.get(name), Mapping)]
    return len(pieces) - len(lists) + sum(len(each) if isinstance(each, list) else 1 for each in lists)


def _growth(rule: Plain) -> int:
    """How many characters a replacement makes of one; patterns that match nothing stand between any two."""
    content = rule.get("content")
    if rule.get("type") != "Replace" or not isinstance(content, str):
        return 1
    pattern = rule.get("pattern")
    text = pattern.get("String") if isinstance(pattern, Mapping) else None
    if isinstance(text, str) and text:
        return max(1, math.ceil(len(content) / len(text)))
    return 1 + len(content) if len(content) > 1 else 1


@functools.lru_cache(maxsize=64)
def _tried(rules: str) -> str | None:
    """Why rules, as JSON, are refused after a trial; None for good ones.

    The text has runs of what is in the rules themselves, at which regular expressions that look back take longest.
    """
    parts = json.loads(rules)
    letters = "".join(sorted({*ALPHABET, *(c for c in _patterns(parts) if c.isalnum())}))[:300]
    text = "".join(letter * 40 + "!" for letter in letters)
    try:
        made = trials.tried("tokenizer", parts=parts, text=text)
    except trials.BeyondBoundsError as error:
        return str(error)
    except trials.FailedTrialError as error:
        return f"fails: {' '.join(str(error).split())}"
    most = MOST_GROWTH * len(text)
    return f"makes {made} of its {len(text)} characters, expected at most {most}" if made > most else None


def _patterns(parts: Mapping[str, object]) -> str:
    """All patterns and contents, one behind the other."""
    found = []
    for part in PARTS:
        for _, rule in _rules(parts.get(part), part):
            pattern = rule.get("pattern")
            found += [str(each) for each in (pattern.values() if isinstance(pattern, Mapping) else ())]
    return "".join(found)
