"""How tokenizers cut texts: two with one vocabulary may still make other tokens of a text."""

import json
import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from evohydra.families.refusals import refused
from evohydra.files import Plain
from evohydra.merging.checkpoints import SourceError

SEED = 0
BLOCK = 4096  # texts that are cut at once
PROBES = (
    "a", "a b", " a", "a ", "a  b", "   a", "\ta", "a\tb", "a\nb", "\n\na", "a\r\nb", "a b\n", "Hello, World!", "HELLO",
    "don't we'll I'M", "2024-05-17", "12345678", "1,234.5", "3+4=7", "x_y-z/w", "$5 & 6%", "(a)[b]{c}", "aaa aaaaaa",
    "....... -------", "é", "e\u0301", "Ünïcödé", "ﬁ ² ½", "ｆｕｌｌ　ｗｉｄｔｈ", "日本語の文章です。", "数字１２と3",
    "ｶﾞｷﾞ", "が", "か\u3099", "中文字符，标点", "한국어 문장", "Русский текст", "😀 👩\u200d💻", "a\u00a0b",
    "a\u200bb", "def f(x):\n    return x\n", "<b>a</b>", "http://a.b/c?d=e",
)  # fmt: skip
WHOLE = "a"  # what a tokenizer adds before and behind it, it adds to every text


@dataclass(frozen=True)
class Cut:
    """A text, and the tokens that two tokenizers make of it."""

    text: str
    theirs: Sequence[int]
    ours: Sequence[int]

    def told(self, one: str, other: str) -> str:
        """The difference in words, between the sources `one` and `other`."""
        return f"{self.text!r} is {list(self.theirs)} in {one!r} and {list(self.ours)} in {other!r}"


@dataclass(frozen=True)
class Unlike:
    """How one tokenizer differs from another.

    parts: what they are made of that differs, in the words of tokenizer.json. plain: an ordinary text that they cut
    otherwise. special: one with added tokens in it. ends: a text with what they put around it.
    """

    parts: tuple[str, ...]
    plain: Cut | None
    special: Cut | None
    ends: Cut | None

    @property
    def random(self) -> bool:
        """Whether they leave out merges at random, one more often than the other."""
        return "model.dropout" in self.parts


def check_splitting(
    loaded: Mapping[str, PreTrainedTokenizerBase], owner: str, choices: str, allowed: bool = False
) -> tuple[str, ...]:
    """In a sentence for each, which tokenizers may make other tokens of a text than that of `owner` does.

    Tokens that only one of two has are not looked at. Raises SourceError, with `choices`, for a tokenizer that cuts an
    ordinary text otherwise, unless that is `allowed`; one that does so only around added tokens is in the sentences.
    """
    said = []
    for name in (each for each in loaded if each != owner):
        with refused(f"sources {name!r} and {owner!r}: expected tokenizers that cut any text"):
            found = unlike(loaded[name], loaded[owner])
        if found is None:
            continue
        of_parts = f" ({', '.join(found.parts)})" if found.parts else ""
        cuts = [cut.told(name, owner) for cut in (found.plain, found.special, found.ends) if cut is not None]
        if found.random:
            cuts.insert(0, "one of them leaves out merges at random")
        if (found.plain is not None or found.random) and not allowed:
            raise SourceError(
                f"sources {name!r} and {owner!r} have the same tokens, but tokenizers that make other tokens of the "
                f"same text{of_parts}: {cuts[0]}; {choices}"
            )
        told = "; ".join(cuts) or "of all texts that were tried they make the same tokens"
        said.append(
            f"the tokenizers of sources {name!r} and {owner!r} differ{of_parts}: {told}. The merge has the one of "
            f"{owner!r}"
        )
    return tuple(said)


def unlike(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> Unlike | None:
    """How two tokenizers differ; None where all that decides on the tokens of a text is the same."""
    theirs, ours = one.get_vocab(), other.get_vocab()
    shared = {token: number for token, number in theirs.items() if ours.get(token) == number}
    parts = _unlike_parts(one, other, shared.keys())
    known = frozenset(shared.values())
    ends = _first_cut(one, other, [WHOLE], known, add_special_tokens=True)
    if not parts and ends is None and one.is_fast:
        return None
    added = {each.content for tokenizer in (one, other) for each in tokenizer.added_tokens_decoder.values()}
    ids = sorted(number for token, number in shared.items() if token not in added)
    plain = _first_cut(one, other, _ordinary(other, ids, added), known)
    both = [text for token in sorted(added & shared.keys()) for text in (token, f"a{token}b", f"a {token} b")]
    special = _first_cut(one, other, both, known)
    return Unlike(parts, plain, special, ends) if parts or plain or special or ends else None


def _unlike_parts(
    one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase, shared: Collection[str]
) -> tuple[str, ...]:
    """The names of what differs in their parts."""
    if one.is_fast and other.is_fast and one.backend_tokenizer.to_str() == other.backend_tokenizer.to_str():
        return ()
    theirs, ours = _parts(one, shared), _parts(other, shared)
    return tuple(sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key)))


def _parts(tokenizer: PreTrainedTokenizerBase, shared: Collection[str]) -> dict[str, object]:
    """What decides on the tokens of a text, by the names of tokenizer.json, as far as it concerns `shared` tokens.

    Of a tokenizer that has no tokenizer.json, its class.
    """
    if not tokenizer.is_fast:
        return {"class": type(tokenizer).__name__}
    data: Plain = json.loads(tokenizer.backend_tokenizer.to_str())
    model = dict(data["model"])
    tokens = model.pop("vocab", None)
    found: dict[str, object] = {key: data.get(key) for key in ("normalizer", "pre_tokenizer")}
    if isinstance(tokens, list):  # Unigram: pieces with their scores
        found["scores"] = {token: score for token, score in tokens if token in shared}
    if "merges" in model:
        found["merges"] = [[left, right] for left, right in model.pop("merges") if left in shared and right in shared]
    model["dropout"] = model.get("dropout") or None
    found |= {f"model.{key}": value for key, value in model.items() if value is not None}
    found["added_tokens"] = {
        each["content"]: [each[key] for key in ("single_word", "lstrip", "rstrip", "normalized")]
        for each in data["added_tokens"]
        if each["content"] in shared
    }
    return found


def _ordinary(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], added: Collection[str]) -> Iterator[str]:
    """Texts without added tokens: `PROBES`, each of the tokens `ids` alone, and each before another one."""
    following = random.Random(SEED).sample(ids, len(ids))
    for text in PROBES:
        if not any(each in text for each in added):
            yield text
    for row in ([[each] for each in ids], [list(pair) for pair in zip(ids, following, strict=True)]):
        for start in range(0, len(row), BLOCK):
            for text in tokenizer.batch_decode(row[start : start + BLOCK], clean_up_tokenization_spaces=False):
                if not any(each in text for each in added):
                    yield text


def _first_cut(
    one: PreTrainedTokenizerBase,
    other: PreTrainedTokenizerBase,
    texts: Iterable[str],
    known: Collection[int],
    add_special_tokens: bool = False,
) -> Cut | None:
    """The first of the texts of which they make other tokens, among those that `other` cuts into `known` tokens."""
    remaining = iter(texts)
    while block := [text for _, text in zip(range(BLOCK), remaining, strict=False)]:
        theirs = one(block, add_special_tokens=add_special_tokens).input_ids
        ours = other(block, add_special_tokens=add_special_tokens).input_ids
        for text, left, right in zip(block, theirs, ours, strict=True):
            if left != right and all(number in known for number in right):
                return Cut(text, left, right)
    return None
