"""Causal language models: decoders of transformers whose layers are a list."""

import functools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PretrainedConfig

from evohydra.families import PUBLISHED, Aligned, LiveModel, Overlay, Rules, path_settings
from evohydra.families import tensor_sets as sets
from evohydra.families.agreement import apart, check_agreement
from evohydra.families.alignment import (
    align,
    assumed,
    check_depths,
    check_not_quantised,
    on_common_tokens,
    with_chat_template,
)
from evohydra.families.comparison import Comparison
from evohydra.families.configurations import read_configuration
from evohydra.families.encoder_parts import is_encoder
from evohydra.families.generation_agreement import otherwise_generating
from evohydra.families.generation_files import check_generation_file
from evohydra.families.hops import Paths, files_of
from evohydra.families.in_place import by_checkpoint_name, check_all_used
from evohydra.families.layouts import layout_of, location
from evohydra.families.loading import (
    NOWHERE,
    OF_TOKENIZER,
    TOKEN_IDS,
    OneDirectory,
    check_rules,
    compared,
    copy_side_files,
    fit_rows,
    names_of,
    token_ids,
    tokenizer_of,
    write_config,
)
from evohydra.families.mixtures import mixture, upcycled
from evohydra.families.own_settings import OwnSettings
from evohydra.families.padding_tokens import settled
from evohydra.families.private_transformers import no_init_weights
from evohydra.families.refusals import refused
from evohydra.families.rules import AUTO, config_from, tokenizer_from
from evohydra.families.tokenizers import LOCAL
from evohydra.files import Plain
from evohydra.merging.checkpoints import CheckpointReader, SourceError, TensorSource
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, LayerNames, Node, Stack
from evohydra.spaces.grouping import Location

transformers.utils.logging.disable_progress_bar()


@dataclass(frozen=True)
class LiveCausalLM:
    """A causal language model in memory, its tokenizer, and its parameters by checkpoint name."""

    module: torch.nn.Module
    tokenizer: object
    device: torch.device
    dtype: torch.dtype
    parameters: Mapping[str, Tensor]
    paths: Paths
    own: OwnSettings

    def become(self, node: Node, engine: Engine) -> None:
        """Make this the model that `node` describes, see `Paths`; a source under its own configuration."""
        self.own.install(node.name if isinstance(node, Checkpoint) else None)
        self.paths.become(node, engine)

    def expect(self, recipes: Sequence[Node]) -> None:
        """Tell which recipes will be run next, in this order, so that what their paths share is computed once."""
        self.paths.expect(recipes)


class CausalLM(OneDirectory):
    """The family of everything that AutoModelForCausalLM loads without remote code."""

    name = "causal_lm"
    task = "text-generation"
    takes: tuple[str, ...] = ()
    scored_as: tuple[str, ...] = ("causal_lm",)
    known_to_mergekit = True

    def align(
        self, directories: Mapping[str, Path], tensors: Mapping[str, TensorSource], base: str | None, rules: Rules
    ) -> Aligned:
        """The sources under common names, with a head each or none, the same tensors, and the rows of one vocabulary.

        Raises SourceError for different architectures, tensors, shapes or tokens as far as `rules` do not allow them.
        """
        check_rules(rules)
        configs = {name: _config(directory) for name, directory in directories.items()}
        prefix = _prefix(configs)
        check_depths(configs, tensors, transformers.MODEL_FOR_CAUSAL_LM_MAPPING)
        sources: Mapping[str, TensorSource] = sets.with_common_names(tensors, f"{prefix}.")
        sources = sets.without_buffers(sources)
        ties = {name: bool(getattr(config, "tie_word_embeddings", False)) for name, config in configs.items()}
        rules, padding = settled(rules, sources, directories, base)
        owner = tokenizer_from(tuple(sources), base, rules)
        files_from = config_from(tuple(sources), base, rules, owner)
        if rules.tokenizer == "same":
            owner = files_from
        check_generation_file(directories[files_from], configs[files_from].vocab_size)
        found = align(sources, ties, directories, base, rules, files_from, owner=owner)
        doubts = check_agreement(configs, files_from, rules.config)
        doubts = (*doubts, *otherwise_generating(directories, files_from, rules.tokenizer == "same"))
        changes = dict(found.changes)
        if owner != files_from:
            changes |= token_ids(configs[owner], configs[files_from])
        own = {name: directories[name] for name, each in configs.items() if apart(each, configs[files_from])}
        names = frozenset(found.tensors[files_from].shapes)
        overlay = Overlay(names, changes, found.tokenizer, own=own, chosen=rules.config != "same")
        left_out = (*padding, *found.left_out, *doubts)
        return Aligned(found.tensors, files_from, overlay, left_out, tokenizer=rules.tokenizer)

    def align_layers(
        self, directories: Mapping[str, Path], tensors: Mapping[str, TensorSource], first: str, rules: Rules
    ) -> Aligned:
        """The sources under common names; they may differ in depth, their layers have the shapes of those of `first`.

        Raises SourceError for different architectures, widths or tokens.
        """
        check_rules(rules)
        if first not in tensors:
            raise SourceError(f"first: expected {', '.join(tensors)}, got {first!r}")
        if rules.tokenizer not in (AUTO, "same", first) or rules.missing != "error" or rules.pad_vocabulary_to:
            raise SourceError(
                f"a path has the embeddings and the tokenizer of {first!r}: tokenizer, missing and pad_vocabulary_to "
                "have no meaning without a merge (merge=METHOD+dfs)"
            )
        rules.check_unused("tokens", "tokens_only", why="a path has the rows of its first source")
        configs = {name: _config(directory) for name, directory in directories.items()}
        ordered, prefix = {first: tensors[first], **tensors}, _prefix(configs)
        check_depths(configs, tensors, transformers.MODEL_FOR_CAUSAL_LM_MAPPING)
        sources: Mapping[str, TensorSource] = sets.without_buffers(sets.with_common_names(ordered, f"{prefix}."))
        check_generation_file(directories[first], configs[first].vocab_size)
        ties = {first: bool(getattr(configs[first], "tie_word_embeddings", False))}
        sets.check_heads({first: sources[first]}, ties, directories)
        sets.check_layers(sources, first)
        rules, padding = settled(rules, sources, directories, first)
        sources, _, splitting = on_common_tokens(sources, directories, None, rules, first)
        tokenizer = with_chat_template(None, directories[first], rules.chat_template)
        alike = [name for name, source in sources.items() if source.shapes == sources[first].shapes]
        own = {name: directories[name] for name in alike if apart(configs[name], configs[first])}
        chosen = rules.config != "same"
        doubts = check_agreement(configs, first, rules.config) if chosen else ()
        overlay = Overlay(frozenset(sources[first].shapes), tokenizer=tokenizer, own=own, chosen=chosen)
        left_out = (*padding, *assumed(directories), *splitting, *doubts)
        return Aligned(sources, first, overlay, left_out, tokenizer=rules.tokenizer)

    def upcycled(
        self, directories: Mapping[str, Path], aligned: Aligned, experts: int, experts_per_token: int
    ) -> Aligned:
        """Aligned sources as mixtures of `experts`, see `mixtures.upcycled`."""
        directory = directories[aligned.files_from]
        return upcycled(aligned, _config(directory), directory, experts, experts_per_token)

    def locations(
        self, directory: Path, names: tuple[str, ...], copied: frozenset[str] = frozenset()
    ) -> dict[str, Location | None]:
        """Where each tensor sits, from its name; buffers and those of `copied` have no place and are copied."""
        return {name: None if name in copied else location(name) for name in names}

    def dtype(self, directory: Path) -> torch.dtype:
        """The type that the configuration names, float32 where it names none."""
        dtype = _config(directory).dtype
        return dtype if isinstance(dtype, torch.dtype) else torch.float32

    def layout(self, directory: Path, names: Collection[str] | None = None) -> LayerNames:
        """How the tensors of its layers are called, among `names` (those of the checkpoint)."""
        config = _config(directory)
        if config.is_encoder_decoder:
            raise SourceError(
                f"{directory}: expected a decoder whose layers are a plain list, got {config.model_type!r}, an encoder "
                "with a decoder"
            )
        known = CheckpointReader(directory).shapes.keys() if names is None else names
        return layout_of(known, config.model_type, config.num_hidden_layers)

    def depth(self, directory: Path) -> int:
        """The number of its layers."""
        return int(_config(directory).num_hidden_layers)

    def path_config(self, directories: Mapping[str, Path], path: Stack, chosen: bool = False) -> dict[str, object]:
        """The keys of config.json that change when `path` is written as a plain checkpoint; `directories` by name.

        With `chosen` layers are taken that were published with other settings. Raises ValueError for a path that runs
        but cannot be written so, SourceError for layers that do not fit.
        """
        configs = {directory: _config(directory) for directory in directories.values()}
        of_sources = [configs[directories[files_of(source)]] for source in path.sources]
        if not chosen:
            named = {f"{n} {files_of(source)}": of_sources[n] for n, source in enumerate(path.sources)}
            path_settings.check_fit(named)
        return path_settings.of_plain_checkpoint(of_sources, path)

    def live_model(
        self,
        directory: Path,
        device: torch.device,
        dtype: torch.dtype,
        overlay: Overlay = PUBLISHED,
        sources: Mapping[str, Path] = NOWHERE,
        prefix_bytes: int = 0,
    ) -> LiveCausalLM:
        """The checkpoint's own model and tokenizer as `overlay` changes them, in evaluation mode."""
        if sources:
            configs = {name: _config(place) for name, place in sources.items()}
            path_settings.check_fit({str(directory): _config(directory), **configs})
        module = _model(directory, device, dtype, {k: v for k, v in overlay.config.items() if k != "vocab_size"})
        fit_rows(module, overlay, device)
        known = names_of(directory, overlay)
        parameters = by_checkpoint_name(module, known, shapes=CheckpointReader(directory).shapes)
        check_all_used(module, known, parameters)

        def load(place: Path, names: Collection[str]) -> tuple[object, Mapping[str, Tensor]]:
            model = _model(place, device, dtype, {})
            return model.base_model, by_checkpoint_name(model, names)

        def under(place: Path) -> Any:
            return _like(module, _config(place), device, dtype)

        paths = Paths(module.base_model, parameters, sources, load, prefix_bytes)
        own = OwnSettings(module, {name: functools.partial(under, place) for name, place in overlay.own.items()})
        return LiveCausalLM(module, tokenizer_of(directory, overlay), device, dtype, parameters, paths, own)

    def copy_files(self, directory: Path, target: Path, dtype: torch.dtype, overlay: Overlay = PUBLISHED) -> None:
        """Configuration (with `dtype` and the changes of `overlay`), generation configuration and tokenizer files."""
        copy_side_files(directory, target, overlay.tokenizer, OF_TOKENIZER)
        write_config(directory, target, dtype, overlay.config)
        generation = target / "generation_config.json"
        if (ids := _only_ids(overlay.config)) and generation.is_file():
            generation.write_text(json.dumps({**json.loads(generation.read_text()), **ids}, indent=2) + "\n")

    def verify(self, directory: Path, live: LiveModel) -> Comparison:
        """In what the written model differs from the live one."""
        return compared(self.live_model(directory, live.device, live.dtype), live)


def _model(directory: Path, device: torch.device, dtype: torch.dtype, changes: Mapping[str, object]) -> Any:
    """A model that is only read from, and written to in place."""
    check_generation_file(directory, _config(directory).vocab_size)
    if "model_type" in changes:  # not that of the files, whose weights have no place in it
        return mixture(directory, device, dtype, changes)
    with refused(f"{directory}: expected a causal language model that transformers loads"):
        config = transformers.AutoConfig.from_pretrained(directory, **changes, **LOCAL)
        module = transformers.AutoModelForCausalLM.from_pretrained(directory, config=config, dtype=dtype, **LOCAL)
    for key, value in _only_ids(changes).items():
        setattr(module.generation_config, key, value)
    return module.to(device).eval().requires_grad_(False)


def _like(module: Any, config: PretrainedConfig, device: torch.device, dtype: torch.dtype) -> Any:
    """A model of the class, vocabulary and head of `module`, with arbitrary weights, that computes as `config` says."""
    ours = module.config
    for key in ("vocab_size", "tie_word_embeddings", *TOKEN_IDS):
        setattr(config, key, getattr(ours, key, None))
    with no_init_weights(), device:
        twin = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    twin.generation_config = module.generation_config
    return twin.requires_grad_(False)


def _only_ids(changes: Plain) -> dict[str, Any]:
    return {key: value for key, value in changes.items() if key in TOKEN_IDS}


def _config(directory: Path) -> PretrainedConfig:
    return read_configuration(directory, "causal language model")


def _prefix(configs: Mapping[str, PretrainedConfig]) -> str:
    """What comes before the names of all tensors but the head's, in most published checkpoints."""
    types = {name: config.model_type for name, config in configs.items()}
    if len(set(types.values())) > 1:
        raise SourceError(f"sources of different architectures: {types}")
    check_not_quantised(configs)
    if encoders := [name for name, config in configs.items() if is_encoder(config)]:
        first = encoders[0]
        raise SourceError(
            f"source {first!r}: expected a language model that writes texts, got the encoder {types[first]!r}; "
            f"model.sources.{first}.family=evohydra.families.encoder.Encoder merges encoders"
        )
    kind = type(next(iter(configs.values())))
    if kind not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        raise SourceError(f"expected sources that are causal language models, got {next(iter(types.values()))!r}")
    prefix: str = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[kind].base_model_prefix
    return prefix
