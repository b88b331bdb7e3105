"""Whose tokenizer the merge of a mergekit configuration has, and whose rows its tokens."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from evohydra.checks import shown
from evohydra.families.token_rows import TokenRow
from evohydra.mergekit.configuration import TOKENIZER, only_known, reference

logger = logging.getLogger(__name__)
ROW = {"source", "force"}


@dataclass(frozen=True)
class Vocabulary:
    """The tokenizer in the words of `families.Rules`, the multiple that rows are padded to, and rows by token."""

    tokenizer: str = "same"
    multiple: int | None = None
    rows: Mapping[str, TokenRow] = field(default_factory=dict)


def vocabulary(config: Mapping[str, object], names: Mapping[str, str], donor: str) -> Vocabulary:
    """What a configuration says of tokens; ValueError, naming the key, for what it cannot.

    `names` are those of the models by reference, `donor` is the base_model, or the model that stands for it.
    """
    source, multiple, key = config.get("tokenizer_source"), None, "tokenizer_source"
    rows: dict[str, TokenRow] = {}
    given = config.get("tokenizer")
    if given is not None:
        if source is not None:
            raise ValueError("expected either tokenizer or tokenizer_source")
        if not isinstance(given, Mapping):
            raise ValueError(f"tokenizer: expected a mapping with a source, got {given!r}")
        only_known(given, TOKENIZER, "tokenizer")
        source, multiple, key = given.get("source", "union"), given.get("pad_to_multiple_of"), "tokenizer.source"
        source = reference(source) if isinstance(source, Mapping) else source
        rows = _rows(given.get("tokens") or {}, names)
    if source is None or source == "union":
        return Vocabulary(source or "same", multiple, rows)
    if source == "base" and config.get("base_model") is None:
        logger.warning("%s: base, but the configuration names no base_model; the first model stands for it", key)
    wanted = donor if source == "base" else str(source)
    if wanted not in names:
        raise ValueError(f"{key}: expected base, union or one of the models {sorted(names)}, got {source!r}")
    return Vocabulary(names[wanted], multiple, rows)


def _rows(tokens: object, names: Mapping[str, str]) -> dict[str, TokenRow]:
    if not isinstance(tokens, Mapping):
        raise ValueError(f"tokenizer.tokens: expected a mapping of tokens, got {shown(tokens)}")
    return {str(token): _row(entry, names, f"tokenizer.tokens[{shown(token)}]") for token, entry in tokens.items()}


def _row(entry: object, names: Mapping[str, str], where: str) -> TokenRow:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("force", False), bool):
        raise ValueError(f"{where}: expected a mapping with source, and force as true or false, got {shown(entry)}")
    only_known(entry, ROW, where)
    source, force = entry.get("source"), entry.get("force", False)

    def named(model: object) -> str:
        found = reference(model) if isinstance(model, Mapping) else model
        if found not in names:
            raise ValueError(f"{where}.source: expected one of the models {sorted(names)}, got {shown(model)}")
        return names[str(found)]

    kind = source.get("kind") if isinstance(source, Mapping) else None
    if kind == "zero":
        return TokenRow(force=force)
    if kind == "model_token":
        return _of_model_token(source, named, force, where)  # type: ignore[arg-type]
    if kind is not None or source is None:
        raise ValueError(
            f"{where}.source: expected a model, or a mapping of kind zero or model_token, got {shown(source)}"
        )
    return TokenRow(named(source), None, force)


def _of_model_token(source: Mapping[str, object], named: Callable[[object], str], force: bool, where: str) -> TokenRow:
    text, number = source.get("token"), source.get("token_id")
    if (text is None) == (number is None):
        raise ValueError(f"{where}.source: expected either token or token_id, got {shown(source)}")
    if not isinstance(text, str | None) or not isinstance(number, int | None) or isinstance(number, bool):
        raise ValueError(f"{where}.source: expected token as a text or token_id as a number, got {shown(source)}")
    return TokenRow(named(source.get("model")), text if number is None else number, force)
