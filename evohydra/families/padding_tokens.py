"""`tokenizer=auto`: sources whose tokenizers agree but for padding, which fills up batches and stands in no text."""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from evohydra.families import Rules, tokenizers
from evohydra.families.rules import AUTO
from evohydra.families.splitting import check_splitting
from evohydra.families.vocabulary import Vocabulary, rows_of
from evohydra.files import read_json
from evohydra.merging.checkpoints import TensorSource

NAMED = re.compile(r"\W*pad(ding)?\W*", re.IGNORECASE)  # [PAD], <pad>, <|pad|>
LISTS = ("additional_special_tokens", "extra_special_tokens")  # special tokens without a role
PAD_OF_TEMPLATE = re.compile(r"\bpad_token\b")  # the name that a template has for the padding token
CONFIGURATIONS = ("config.json", "generation_config.json")


def settled(
    rules: Rules,
    sources: Mapping[str, TensorSource],
    directories: Mapping[str, Path],
    owner: str | None,
    completing: bool = False,
) -> tuple[Rules, tuple[str, ...]]:
    """`rules` with what "auto" means for these sources, and in sentences what is then left out or doubtful.

    "same" where all tokenizers and rows are; the name of `owner` (None: the source with the fewest tokens) where they
    differ only in padding: added tokens that no prompt, template or setting names, and rows of no token. With
    `completing` sources may lack tokens that `owner` has. Raises SourceError, with the choices, for tokenizers that
    differ in more, also where they have the same tokens and cut texts otherwise.
    """
    if rules.tokenizer != AUTO:
        return rules, ()
    loaded = {name: tokenizers.load(directory) for name, directory in directories.items()}
    known = {name: tokenizers.vocabulary(each, rows_of(sources[name])) for name, each in loaded.items()}
    owner = owner or min(known, key=lambda name: (len(known[name].tokens), known[name].rows))
    if all(_agrees(each, known[owner], completing) for each in known.values()):
        return replace(rules, tokenizer="same"), ()
    unlike = {t for each in known.values() for t in each.tokens if len({v.tokens.get(t) for v in known.values()}) > 1}
    padding = {name: unlike & padding_tokens(loaded[name], directories[name], rules.texts) for name in known}
    used = {
        name: Vocabulary({t: row for t, row in each.tokens.items() if t not in padding[name]}, each.rows)
        for name, each in known.items()
    }
    if completing:
        tokenizers.check_within(used, owner)
    else:
        tokenizers.check_same(used)
    doubts = check_splitting(loaded, owner, tokenizers.CHOICES)
    return replace(rules, tokenizer=owner), (_left_out(known, padding, owner), *doubts)


def _agrees(one: Vocabulary, owner: Vocabulary, completing: bool) -> bool:
    if completing:
        return one.tokens.items() <= owner.tokens.items()
    return one == owner


def _left_out(known: Mapping[str, Vocabulary], padding: Mapping[str, set[str]], owner: str) -> str:
    target = known[owner]
    gone = [f"{token!r} of {name!r}" for name in known for token in sorted(padding[name] - target.tokens.keys())]
    rows = {name: each.rows for name, each in known.items() if each.rows != target.rows}
    of_rows = "; ".join(f"{name!r} has {number}" for name, number in rows.items())
    said = f"tokenizer=auto: the merge has the tokenizer of {owner!r} and its {target.rows} rows of embeddings"
    said += f" ({of_rows})" if rows else ""
    reason = "left out as padding, for no prompt, template or setting names it"
    return f"{said}; {reason}: {', '.join(gone)}" if gone else said


def padding_tokens(tokenizer: PreTrainedTokenizerBase, directory: Path, texts: Collection[str] = ()) -> set[str]:
    """Added tokens that are called padding or are the padding token, and have no other role.

    Another role is that of a special token (end of a text), a place in the chat template or in one of the `texts` that
    models are asked with, or a number in the configuration (where answers end, where pictures stand).
    """
    roles = {key: value for key, value in tokenizer.special_tokens_map.items() if key not in LISTS}
    pad = roles.pop("pad_token", None)
    template = str(tokenizer.chat_template or "")
    named = {pad} if PAD_OF_TEMPLATE.search(template) else set()
    ids = _ids_with_a_role(directory)
    return {
        token.content
        for number, token in tokenizer.added_tokens_decoder.items()
        if (token.content == pad or NAMED.fullmatch(token.content))
        and token.content not in roles.values()
        and token.content not in named
        and not any(token.content in text for text in (template, *texts))
        and number not in ids
    }


def _ids_with_a_role(directory: Path) -> set[object]:
    """The numbers of tokens in the configurations, but for that of padding."""
    found: set[object] = set()
    for file in (directory / name for name in CONFIGURATIONS):
        entries = read_json(file) if file.is_file() else {}
        for key, value in entries.items():
            if key.endswith(("_token_id", "_token_index")) and key != "pad_token_id":
                found |= set(value) if isinstance(value, list) else {value}
    return found
