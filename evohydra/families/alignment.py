"""Sources of language models brought to the same tensors: heads, missing tensors, and rows of one vocabulary."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from evohydra.families import Rules, tokenizers
from evohydra.families import tensor_sets as sets
from evohydra.families.private_transformers import left_out_on_load
from evohydra.families.splitting import check_splitting
from evohydra.families.vocabulary import TokenRows, Vocabulary, embeddings_of, plan, rows_of
from evohydra.merging.checkpoints import SourceError, TensorSource, check_same_shapes, check_same_tensors


@dataclass(frozen=True)
class Common:
    """Sources with the same tensors, what changes in the configuration, and the tokenizer where it is a new one."""

    tensors: Mapping[str, TensorSource]
    changes: Mapping[str, object]
    tokenizer: object
    left_out: tuple[str, ...]


def align(
    sources: Mapping[str, TensorSource],
    ties: Mapping[str, bool],
    directories: Mapping[str, Path],
    base: str | None,
    rules: Rules,
    files_from: str,
    completing: bool = False,
    owner: str | None = None,
) -> Common:
    """The sources, under common names already, with a head each or none, the same tensors, and one vocabulary's rows.

    `ties` says what configurations say of heads. `completing`: see `on_common_tokens`. `owner` is the source whose
    tokenizer the merge has, `files_from` unless it is another. Raises SourceError for different tensors, shapes or
    tokens as far as `rules` do not allow them.
    """
    embeddings = embeddings_of(next(iter(sources.values())).shapes)
    tied = None
    if embeddings is not None and all(embeddings in source.shapes for source in sources.values()):
        sources, tied = sets.with_common_head(sources, ties, embeddings)
    sources, left_out = sets.completed(sources, base, rules.missing)
    sets.check_heads(sources, ties, directories)
    before = rows_of(sources[files_from])
    check_same_tensors(sources)
    owner = owner or files_from
    sources, tokenizer, doubts = on_common_tokens(sources, directories, base, rules, owner, completing)
    if tokenizer is None and owner != files_from:
        tokenizer = tokenizers.load(directories[owner])
    tokenizer = with_chat_template(tokenizer, directories[owner], rules.chat_template)
    check_same_shapes(sources)
    changes: dict[str, object] = {}
    if (rows := rows_of(sources[files_from])) != before:
        changes["vocab_size"] = rows
    if tied is False and ties[files_from]:
        changes["tie_word_embeddings"] = False
    return Common(sources, changes, tokenizer, (*left_out, *doubts, *assumed(directories)))


def on_common_tokens(
    sources: Mapping[str, TensorSource],
    directories: Mapping[str, Path],
    base: str | None,
    rules: Rules,
    files_from: str,
    completing: bool = False,
) -> tuple[Mapping[str, TensorSource], object, tuple[str, ...]]:
    """The sources with the rows of the merge's vocabulary, its tokenizer where that is none of theirs, and doubts.

    A row that a source lacks is the base's, if it has one; with `completing` it is that of `files_from`, and sources
    may lack some also where all tokenizers are to be the same. A source without a tokenizer is taken to have that of
    the base, else that of `files_from`: `assumed` says so. The doubts are sentences of
    `check_splitting`.
    """
    loaded = _tokenizers(directories, base, rules, files_from, completing)
    vocabularies = {name: tokenizers.vocabulary(each, rows_of(sources[name])) for name, each in loaded.items()}
    united: PreTrainedTokenizerBase | None = None
    doubts: tuple[str, ...] = ()
    if rules.tokenizer != "same":
        tokenizers.check_comparable(loaded)
    elif completing:
        tokenizers.check_within(vocabularies, files_from)
        doubts = check_splitting(loaded, files_from, tokenizers.CHOICES, rules.allow_other_splitting)
    else:
        sizes = {name: rows_of(source) for name, source in sources.items()}
        if len(set(sizes.values())) > 1:
            raise SourceError(
                f"sources with embeddings of different sizes: {sizes} "
                "rows; tokenizer=base leaves out tokens that a source added to its base's, tokenizer=union keeps them"
            )
        if vocabularies:
            tokenizers.check_same(vocabularies)
            first = files_from if files_from in loaded else next(iter(loaded))
            doubts = check_splitting(loaded, first, tokenizers.CHOICES, rules.allow_other_splitting)
        if rules.pad_vocabulary_to is None and not rules.tokens:
            return sources, None, doubts
    target = vocabularies[files_from]
    if rules.tokenizer == "union":
        united = tokenizers.union(loaded, vocabularies, files_from)
    if any(token not in (united or loaded[files_from]).get_vocab() for token in rules.tokens):
        united = tokenizers.with_tokens(united or loaded[files_from], rules.tokens)
    if united is not None:
        tokens = united.get_vocab()
        target = Vocabulary(tokens, max(target.rows, 1 + max(tokens.values(), default=-1)))
    if rules.tokens_only:
        target = Vocabulary(target.tokens, 1 + max(target.tokens.values(), default=-1))
    multiple = rules.pad_vocabulary_to or 1
    target = Vocabulary(target.tokens, -(-target.rows // multiple) * multiple)
    owner = files_from if completing else base
    rows = plan(vocabularies, target, files_from, owner, not rules.tokens_only, rules.tokens)
    return {name: TokenRows(name, sources, rows[name]) for name in sources}, united, doubts


def _tokenizers(
    directories: Mapping[str, Path], base: str | None, rules: Rules, owner: str, completing: bool
) -> dict[str, PreTrainedTokenizerBase]:
    """The tokenizers of all sources; where rows stay as they are, of those that have one."""
    bare = without_tokenizer(directories)
    loaded = {name: tokenizers.load(directory) for name, directory in directories.items() if name not in bare}
    if rules.tokenizer == "same" and rules.pad_vocabulary_to is None and not rules.tokens and not completing:
        return loaded
    for name in bare:
        if (like := owner if completing else base or owner) in bare:
            raise SourceError(f"source {like!r}: expected a tokenizer to match rows by, got none of its files")
        loaded[name] = loaded[like]
    return {name: loaded[name] for name in directories}


def without_tokenizer(directories: Mapping[str, Path]) -> list[str]:
    """The names of the sources that hold no file of a tokenizer."""
    return [name for name, directory in directories.items() if not tokenizers.has_files(directory)]


def assumed(directories: Mapping[str, Path]) -> tuple[str, ...]:
    """In a sentence each, what is not known of sources without a tokenizer."""
    return tuple(
        f"source {name!r} has no tokenizer files: its rows are taken to be for the same tokens as those of the others"
        for name in without_tokenizer(directories)
    )


def with_chat_template(tokenizer: object, directory: Path, template: str | None) -> object:
    """`tokenizer`, or that of `directory`, with another chat template; as it is where there is none."""
    if template is None:
        return tokenizer
    changed: Any = copy.deepcopy(tokenizer) if tokenizer is not None else tokenizers.load(directory)
    changed.chat_template = template
    return changed


def check_not_quantised(configs: Mapping[str, PretrainedConfig]) -> None:
    """Raise SourceError for a configuration of quantised weights."""
    for name, config in configs.items():
        settings = config.to_dict()
        settings |= settings.get("text_config") or {}
        if settings.get("quantization_config") or settings.get("compression_config"):
            raise SourceError(
                f"source {name!r}: expected weights in a floating-point type, got a quantised checkpoint; merge the "
                "model that it was made from"
            )


def check_depths(
    configs: Mapping[str, PretrainedConfig], tensors: Mapping[str, TensorSource], classes: Mapping[Any, Any]
) -> None:
    """SourceError for a source whose configuration has another number of layers than its tensors are of.

    `classes` are those of the models, by the class of the configuration.
    """
    for source, config in configs.items():
        kind = classes[type(config)]
        numbers = [
            int(place[1])
            for name in tensors[source].shapes
            if (place := sets.LAYER.search(name)) and not left_out_on_load(kind, name)
        ]
        depth = getattr(config, "num_hidden_groups", getattr(config, "num_hidden_layers", None))  # ALBERT has groups
        if numbers and isinstance(depth, int) and depth != 1 + max(numbers):
            raise SourceError(
                f"source {source!r}: expected the tensors of {depth} layers, as its config.json says, got those of "
                f"{1 + max(numbers)}. Configuration and weights do not belong together"
            )
