"""The tokenizers of causal language models: read, compared, and united."""

import copy
import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedTokenizerBase

from evohydra.families.declared import BASE
from evohydra.families.refusals import refused
from evohydra.families.settings_files import LOCAL as LOCAL
from evohydra.families.tokenizer_files import check_tokenizer_files
from evohydra.families.vocabulary import Vocabulary
from evohydra.files import Plain
from evohydra.merging.checkpoints import SourceError

LARGEST_ID = 10**7
# Any of these makes a tokenizer, or says which one it is.
FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.spm",
    "spiece.model",
    "*.tiktoken",
    "tekken.json",
    "tokenizer.model.v*",
)
CHOICES = "tokenizer=base or the name of a source gives all models one of them"  # where tokenizers are to be the same
NEVER = -1e4  # the score of a piece that a Unigram model shall not choose by itself


def load(directory: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint directory; SourceError where transformers knows none, and for absurd rules."""
    check_tokenizer_files(directory)
    with refused(f"{directory}: expected a tokenizer that transformers loads"):
        made: PreTrainedTokenizerBase = transformers.AutoTokenizer.from_pretrained(directory, **LOCAL)
        largest = max(made.get_vocab().values(), default=0)
    if largest > LARGEST_ID:  # libraries count up to it when they write the tokenizer
        raise SourceError(f"{directory}: expected a tokenizer whose ids are at most {LARGEST_ID}, got {largest}")
    return made


def has_files(directory: Path) -> bool:
    """Whether a checkpoint directory holds anything of a tokenizer."""
    return any(next(directory.glob(pattern), None) is not None for pattern in FILES)


def with_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Iterable[str]) -> PreTrainedTokenizerBase:
    """A copy with those of the `tokens` that it lacks, as added ones, behind its own."""
    more = copy.deepcopy(tokenizer)
    known = more.get_vocab()
    more.add_tokens([token for token in tokens if token not in known])
    return more


def vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int) -> Vocabulary:
    """The tokens that have one of `rows` rows."""
    return Vocabulary({token: row for token, row in tokenizer.get_vocab().items() if row < rows}, rows)


def check_same(vocabularies: Mapping[str, Vocabulary]) -> None:
    """Raise SourceError, with the first token that differs, unless all vocabularies are one."""
    (first, reference), *others = ((name, each.tokens) for name, each in vocabularies.items())
    for name, tokens in others:
        if tokens != reference:
            differing = sorted(t for t in tokens.keys() | reference.keys() if tokens.get(t) != reference.get(t))
            token = differing[0]
            choices = "base, union" if BASE in vocabularies else "union"
            raise SourceError(
                f"sources {first!r} and {name!r} have different tokenizers: {len(differing)} tokens differ, the "
                f"first is {token!r} with id {reference.get(token)} and {tokens.get(token)}; tokenizer={choices} or "
                "the name of a source gives the merge one of them, and matches rows by token"
            )


def check_within(vocabularies: Mapping[str, Vocabulary], owner: str) -> None:
    """Raise SourceError unless all tokens of all vocabularies are tokens of `owner`, with the same ids."""
    for name, each in vocabularies.items():
        shared = {token: row for token, row in vocabularies[owner].tokens.items() if token in each.tokens}
        check_same({owner: Vocabulary(shared, 0), name: each})


def check_comparable(tokenizers: Mapping[str, object]) -> None:
    """Raise SourceError where the same string is another token in one source than in the other.

    Byte-level tokenizers write "Ġa" where others write "▁a", and every letter beyond ASCII as other letters.
    """
    byte_level = {}
    for name, tokenizer in tokenizers.items():
        data = _data(name, tokenizer)
        byte_level[name] = "ByteLevel" in json.dumps([data["pre_tokenizer"], data["decoder"]])
    if len(set(byte_level.values())) > 1:
        yes, no = (sorted(n for n, value in byte_level.items() if value is each) for each in (True, False))
        raise SourceError(
            f"tokens cannot be matched by their strings: {yes} spell them as bytes (ByteLevel), {no} do not; expected "
            "tokenizers of one kind"
        )


def _data(name: str, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What tokenizer.json would hold."""
    if not tokenizer.is_fast:
        raise SourceError(
            f"source {name!r}: expected a tokenizer that can be matched by token (a fast one, with tokenizer.json), "
            f"got {type(tokenizer).__name__}"
        )
    data: dict[str, object] = json.loads(tokenizer.backend_tokenizer.to_str())
    return data


def union(
    tokenizers: Mapping[str, PreTrainedTokenizerBase], vocabularies: Mapping[str, Vocabulary], owner: str
) -> PreTrainedTokenizerBase:
    """The tokenizer of `owner` with the tokens that only other sources have behind its own, which keep their ids.

    Ordinary tokens join the model itself: BPE's merges come behind the owner's, Unigram's pieces with their scores.
    (mergekit makes them added tokens, which are cut out of any word before the model sees it, and never match where
    they are spelled as bytes.) Added tokens stay added tokens with their properties, the first source's that has them.
    Raises SourceError for models of different kinds, and where transformers does not load the result as it is meant.
    """
    data = {name: _data(name, tokenizer) for name, tokenizer in tokenizers.items()}
    kinds = {name: each["model"]["type"] for name, each in data.items()}
    if len(set(kinds.values())) > 1:
        raise SourceError(f"tokenizer=union needs tokenizers of one kind, got {kinds}")
    ids: dict[str, int] = dict(tokenizers[owner].get_vocab())
    following = max(ids.values(), default=-1) + 1
    pieces = {token: [token, NEVER] for token in ids}  # Unigram's; of any kind: the owner's added tokens join the model
    added = []
    for name, tokenizer in tokenizers.items():
        properties = {info.content: info for info in tokenizer.added_tokens_decoder.values()}
        theirs = vocabularies[name].tokens
        if kinds[name] == "Unigram":
            scored = {token: [token, score] for token, score in data[name]["model"]["vocab"]}
            pieces |= scored if name == owner else {t: p for t, p in scored.items() if t not in ids}
        for token in sorted(theirs.keys() - ids.keys(), key=lambda each: theirs[each]):
            ids[token], following = following, following + 1
            pieces.setdefault(token, [token, NEVER])
            if token in properties:
                added.append(properties[token])
    model = data[owner]["model"]
    if kinds[owner] == "Unigram":
        if sorted(ids.values()) != list(range(len(ids))):
            raise SourceError(f"tokenizer=union: the ids of {owner!r} have gaps, which a Unigram model cannot have")
        model["vocab"] = [pieces[token] for token in sorted(ids, key=lambda each: ids[each])]
    else:
        model["vocab"] = ids
    if kinds[owner] == "BPE":
        model["merges"] = _merges([data[owner]["model"], *(each["model"] for each in data.values())], ids)
    return _loaded(tokenizers[owner], data[owner], added, ids)


def _merges(models: list[Plain], ids: Mapping[str, int]) -> list[object]:
    """The merges of all BPE models, in order, each once; without those whose tokens have no row."""
    merges: dict[tuple[str, str], object] = {}
    for model in models:
        for merge in model["merges"]:
            left, right = merge if isinstance(merge, list) else merge.split(" ")
            if (
                left in ids
                and right in ids
                and left + right.removeprefix(model["continuing_subword_prefix"] or "") in ids
            ):
                merges.setdefault((left, right), merge)
    return list(merges.values())


def _loaded(
    owner: PreTrainedTokenizerBase, data: Mapping[str, object], added: list[Any], ids: Mapping[str, int]
) -> PreTrainedTokenizerBase:
    with tempfile.TemporaryDirectory() as directory:
        owner.save_pretrained(directory)
        (Path(directory) / "tokenizer.json").write_text(json.dumps(data))
        united = load(Path(directory))
    for info in added:  # these are in the model already, so they keep their ids
        united.add_tokens(info, special_tokens=info.special)
    got = united.get_vocab()
    wrong = sorted(token for token, row in ids.items() if got.get(token) != row)
    if wrong:
        raise SourceError(
            f"tokenizer=union: transformers does not load the united tokenizer as it is meant; {len(wrong)} tokens "
            f"have other ids, the first is {wrong[0]!r} ({type(united).__name__})"
        )
    return united
