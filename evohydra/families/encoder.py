"""Encoders: BERT and models like it, also as sentence-transformers lays them out. What is merged is AutoModel's."""

import functools
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NoReturn

import torch
import transformers
from transformers import PretrainedConfig

from evohydra.families import PUBLISHED, Aligned, LiveModel, Overlay, Rules, sentences
from evohydra.families import encoder_parts as parts
from evohydra.families import tensor_sets as sets
from evohydra.families.agreement import apart, check_agreement
from evohydra.families.alignment import align, check_depths, check_not_quantised
from evohydra.families.comparison import Comparison, differing, rounding
from evohydra.families.comparison import apart as outputs_apart
from evohydra.families.configurations import read_configuration
from evohydra.families.in_place import by_checkpoint_name, check_all_used
from evohydra.families.layouts import location
from evohydra.families.live_encoder import NO_PATHS, LiveEncoder, like, load, outputs, with_pooler
from evohydra.families.loading import (
    NOWHERE,
    OF_TOKENIZER,
    OneDirectory,
    check_rules,
    copy_side_files,
    fit_rows,
    pattern,
    token_ids,
    tokenizer_of,
    write_config,
)
from evohydra.families.own_settings import OwnSettings
from evohydra.families.padding_tokens import settled
from evohydra.families.rules import config_from, tokenizer_from
from evohydra.families.sentences import backbone_of
from evohydra.merging.checkpoints import CheckpointReader, SourceError, TensorSource
from evohydra.recipe import LayerNames, Stack
from evohydra.spaces.grouping import EMBEDDINGS, Location

# Shared by all layers: distances between tokens, embedded.
RELATIVE = "relative_attention_bias", "rel_embeddings", "encoder.LayerNorm"


class Encoder(OneDirectory):
    """The family of encoders that AutoModel loads without remote code, with or without sentence-transformers' files."""

    name = "encoder"
    task = "feature-extraction"
    takes: tuple[str, ...] = ()
    scored_as: tuple[str, ...] = ("encoder",)
    known_to_mergekit = False

    def wanted(self, variant: str | None) -> tuple[str, ...]:
        """All configurations, tokenizers and safetensors files at the top and in the folders of modules."""
        return (*super().wanted(variant), "*/*.json", "*/*.txt", "*/*.model", "0_*/*.safetensors")

    def open(self, path: Path, directory: Path, variant: str | None = None) -> TensorSource:
        """The tensors of the encoder and its head; SourceError for a file."""
        if path.is_file():
            return super().open(path, directory, variant)
        return super().open(backbone_of(path), directory, variant)

    def align(
        self, directories: Mapping[str, Path], tensors: Mapping[str, TensorSource], base: str | None, rules: Rules
    ) -> Aligned:
        """The sources under common names, with a head where all have the same, and the rows of one vocabulary.

        Raises SourceError for different architectures, tensors, shapes, tokens or pooling as far as `rules` do not
        allow them.
        """
        check_rules(rules)
        homes = {name: backbone_of(directory) for name, directory in directories.items()}
        configs = {name: _config(home) for name, home in homes.items()}
        kind = parts.backbone_class(configs)
        check_not_quantised(configs)
        modern = {name: parts.modern_names(source) for name, source in tensors.items()}
        parts.check_layers(modern)
        check_depths(configs, modern, transformers.MODEL_MAPPING)
        kept = parts.kept(modern, configs, kind.base_model_prefix, rules.missing == "base")
        sources = sets.without_buffers(sets.with_common_names(kept.tensors, f"{kind.base_model_prefix}."))
        rules, padding = settled(rules, sources, homes, base)
        owner = tokenizer_from(tuple(sources), base, rules)
        files_from = config_from(tuple(sources), base, rules, owner)
        if rules.tokenizer == "same":
            owner = files_from
        # A head for masked words, which embeddings may be tied to, is left out already.
        found = align(sources, dict.fromkeys(sources, True), homes, base, rules, files_from, owner=owner)
        doubts = check_agreement(configs, files_from, rules.config)
        own = {name for name, each in configs.items() if apart(each, configs[files_from])}
        otherwise, told = sentences.check_agreement(directories, files_from, rules.config)
        changes = {**found.changes, **_other_tokens(configs, owner, files_from)}
        if not kept.headed and parts.is_headed(configs[files_from]):
            changes["architectures"] = [kind.__name__]
        overlay = Overlay(
            frozenset(found.tensors[files_from].shapes),
            changes,
            found.tokenizer,
            own={name: directories[name] for name in directories if name in own | otherwise},
            chosen=rules.config != "same",
        )
        left_out = (*padding, *kept.left_out, *found.left_out, *doubts, *told)
        return Aligned(found.tensors, files_from, overlay, left_out, tokenizer=rules.tokenizer)

    def align_layers(
        self, directories: Mapping[str, Path], tensors: Mapping[str, TensorSource], first: str, rules: Rules
    ) -> NoReturn:
        """SourceError: paths are for decoders."""
        raise SourceError(NO_PATHS)

    def locations(
        self, directory: Path, names: tuple[str, ...], copied: frozenset[str] = frozenset()
    ) -> dict[str, Location | None]:
        """Where each tensor sits, from its name; poolers and heads are `head`, buffers and those of `copied` None."""
        return {name: None if name in copied else _location(name) for name in names}

    def dtype(self, path: Path) -> torch.dtype:
        """The type that the configuration names, float32 where it names none."""
        dtype = _config(backbone_of(path)).dtype
        return dtype if isinstance(dtype, torch.dtype) else torch.float32

    def layout(self, directory: Path, names: Collection[str] | None = None) -> LayerNames:
        """SourceError: paths are for decoders."""
        raise SourceError(NO_PATHS)

    def depth(self, directory: Path) -> int:
        """The number of its layers."""
        return int(_config(backbone_of(directory)).num_hidden_layers)

    def path_config(self, directories: Mapping[str, Path], path: Stack, chosen: bool = False) -> dict[str, object]:
        """SourceError: paths are for decoders."""
        raise SourceError(NO_PATHS)

    def live_model(
        self,
        directory: Path,
        device: torch.device,
        dtype: torch.dtype,
        overlay: Overlay = PUBLISHED,
        sources: Mapping[str, Path] = NOWHERE,
        prefix_bytes: int = 0,
    ) -> LiveEncoder:
        """The checkpoint's own model and tokenizer as `overlay` changes them, in evaluation mode."""
        if sources:
            raise SourceError(NO_PATHS)
        home = backbone_of(directory)
        config = _config(home, {key: value for key, value in overlay.config.items() if key != "vocab_size"})
        kind = parts.backbone_class({str(directory): config})
        names = overlay.names or set(map(parts.modern_name, CheckpointReader(home).shapes))
        heads = parts.heads_of(names, kind.base_model_prefix)
        headed = bool(heads) and parts.is_headed(config)
        known = names if headed else set(names) - heads
        pooler = with_pooler(kind, any(map(parts.POOLER.search, set(names) - heads)))
        whole = load(home, config, device, dtype, headed, pooler)
        fit_rows(whole, overlay, device)
        parameters = by_checkpoint_name(
            whole, known, lambda name: parts.modern_name(name).removeprefix(f"{kind.base_model_prefix}.")
        )
        check_all_used(whole, known, parameters)
        module = whole.base_model

        def under(place: Path) -> transformers.PreTrainedModel:
            return like(module, _config(backbone_of(place)), device, dtype, pooler)

        own = OwnSettings(module, {name: functools.partial(under, place) for name, place in overlay.own.items()})
        merged = sentences.settings_of(directory)
        others = {name: sentences.settings_of(p) for name, p in overlay.own.items() if sentences.modules_of(p)}
        tokenizer = tokenizer_of(home, overlay)
        return LiveEncoder(module, whole, tokenizer, device, dtype, parameters, own, merged, others, merged)

    def copy_files(self, directory: Path, target: Path, dtype: torch.dtype, overlay: Overlay = PUBLISHED) -> None:
        """Configuration, tokenizer and the files of sentence-transformers, for an encoder at the top of `target`."""
        home = backbone_of(directory)
        copy_side_files(home, target, overlay.tokenizer, OF_TOKENIZER)
        if home != directory and (directory / sentences.PROMPTS).is_file():
            shutil.copyfile(directory / sentences.PROMPTS, target / sentences.PROMPTS)
        write_config(home, target, dtype, overlay.config)
        sentences.copy_layout(directory, target)

    def verify(self, directory: Path, live: LiveModel) -> Comparison:
        """In what the written model differs from the live one: weights, last hidden states, and what a head says."""
        assert isinstance(live, LiveEncoder)
        written = self.live_model(directory, live.device, live.dtype)
        tokens = pattern(live)[:, : live.longest]
        pairs = zip(outputs(written, tokens), outputs(live, tokens), strict=True)
        furthest = max(outputs_apart(theirs, ours) for theirs, ours in pairs)
        return Comparison(differing(written.whole, live.whole), furthest, rounding([live.whole], live.dtype))


def _config(home: Path, changes: Mapping[str, object] | None = None) -> PretrainedConfig:
    config = read_configuration(home, "encoder")
    for key, value in (changes or {}).items():
        setattr(config, key, value)
    return config


def _location(name: str) -> Location | None:
    place = location(name)
    if place is not None and place.layer is None and any(each in name for each in RELATIVE):
        return Location(EMBEDDINGS)
    return place


def _other_tokens(configs: Mapping[str, PretrainedConfig], owner: str, files_from: str) -> dict[str, object]:
    """What changes in the configuration of `files_from` where the tokenizer is another source's."""
    changes: dict[str, object] = token_ids(configs[owner], configs[files_from])
    if "pad_token_id" in changes:
        raise SourceError(
            f"the tokenizer of {owner!r} pads with token {changes['pad_token_id']}, the configuration of "
            f"{files_from!r} with {configs[files_from].pad_token_id}, which positions may depend on: choose tokenizer "
            "and config of the same source"
        )
    return changes
