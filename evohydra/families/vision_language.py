"""Vision-language models: the language part is merged, vision tower and projector stay those of the VLM."""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from evohydra.families import PUBLISHED, Aligned, LiveModel, Overlay, Rules, path_settings
from evohydra.families import language_part as parts
from evohydra.families import tensor_sets as sets
from evohydra.families.alignment import align, check_not_quantised, on_common_tokens
from evohydra.families.comparison import Comparison, differing, rounding
from evohydra.families.configurations import read_configuration
from evohydra.families.generation_files import check_generation_file
from evohydra.families.hops import Paths, files_of
from evohydra.families.in_place import by_checkpoint_name, check_all_used
from evohydra.families.layouts import layout_of, location
from evohydra.families.loading import (
    NOWHERE,
    OneDirectory,
    check_rules,
    copy_side_files,
    distance,
    fit_rows,
    names_of,
    pattern,
    tokenizer_of,
)
from evohydra.families.padding_tokens import settled
from evohydra.families.private_transformers import from_config, no_init_weights
from evohydra.families.processors import check_image_processor, image_inputs, load_processor, without_special
from evohydra.families.refusals import refused
from evohydra.families.rules import AUTO
from evohydra.families.tokenizers import LOCAL
from evohydra.merging.checkpoints import CheckpointReader, SourceError, TensorSource
from evohydra.merging.engine import Engine
from evohydra.recipe import LayerNames, Node, Stack
from evohydra.spaces.grouping import Location

logger = logging.getLogger(__name__)
OF_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model")


@dataclass
class LiveVisionLanguage:
    """A vision-language model in memory, its tokenizer, and its parameters by checkpoint name.

    `frozen` are those of vision tower and projector, written once: no recipe changes them.
    """

    module: torch.nn.Module
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    parameters: Mapping[str, Tensor]
    paths: Paths
    frozen: Mapping[str, Tensor]
    directory: Path
    own_tokenizer: object = None
    loaded: object = None

    @property
    def processor(self) -> object:
        """Its processor, read when it is first asked for.

        Raises SourceError where there is none, or where a package is missing that it needs.
        """
        if self.loaded is None:
            self.loaded = load_processor(self.directory, self.own_tokenizer)
        return self.loaded

    def become(self, node: Node, engine: Engine) -> None:
        """Make this the model that `node` describes, see `Paths`."""
        if self.frozen:
            engine.merge_into(node, self.frozen)
            self.frozen = {}
        self.paths.become(node, engine)

    def expect(self, recipes: Sequence[Node]) -> None:
        """Tell which recipes will be run next, in this order, so that what their paths share is computed once."""
        self.paths.expect(recipes)


class VisionLanguage(OneDirectory):
    """The family of what AutoModelForImageTextToText loads without remote code, with a decoder as its language part.

    Sources are such models of one architecture, and plain language models of the architecture of their decoder. The
    first of the former gives vision tower, projector, processor and the rows of tokens that a source lacks.
    """

    name = "vision_language"
    task = "image-text-to-text"
    takes: tuple[str, ...] = ("evohydra.families.causal_lm.CausalLM",)
    scored_as: tuple[str, ...] = ("vision_language", "causal_lm")
    known_to_mergekit = False

    def align(
        self, directories: Mapping[str, Path], tensors: Mapping[str, TensorSource], base: str | None, rules: Rules
    ) -> Aligned:
        """The sources with the tensors of the VLM: language parts on its vocabulary, all else its own.

        Raises SourceError for sources whose language parts differ in more than `rules` allow.
        """
        configs = {name: _config(directory) for name, directory in directories.items()}
        host = parts.vlms_among({name: config for name, config in configs.items() if name != base})[0]
        _check(configs, directories, host, rules, same_depth=True)
        part, sources = parts.language_parts(configs, tensors, host)
        rules, padding = settled(rules, sources, directories, host, completing=True)
        ties = {name: _tied(config) for name, config in configs.items()}
        found = align(sources, ties, directories, base, rules, host, completing=True)
        whole = {name: parts.whole(part, found.tensors[name], tensors[host]) for name in tensors}
        overlay = Overlay(frozenset(whole[host].shapes), found.changes, found.tokenizer)
        said = (*parts.not_in_the_merge(configs, host), *parts.check_settings(configs, host, rules.config))
        left_out = (*padding, *found.left_out, *said)
        return Aligned(whole, host, overlay, left_out, tokenizer=rules.tokenizer)

    def align_layers(
        self, directories: Mapping[str, Path], tensors: Mapping[str, TensorSource], first: str, rules: Rules
    ) -> Aligned:
        """The sources with the tensors of `first`, a VLM; layers of language parts may differ in number.

        Raises SourceError where a path cannot lead through the layers of all, or begins with no VLM.
        """
        if first not in tensors:
            raise SourceError(f"first: expected {', '.join(tensors)}, got {first!r}")
        configs = {name: _config(directory) for name, directory in directories.items()}
        if first not in (vlms := parts.vlms_among(configs)):
            raise SourceError(
                "the first source of a path gives it all but layers, so here vision tower and projector: expected "
                f"merge.dataflow.first={' or '.join(vlms)}, got {first!r}"
            )
        if rules.tokenizer not in (AUTO, "same", first) or rules.pad_vocabulary_to:
            raise SourceError(
                f"a path has the embeddings and the tokenizer of {first!r}: tokenizer and pad_vocabulary_to have no "
                "meaning without a merge (merge=METHOD+dfs)"
            )
        rules.check_unused("tokens", "tokens_only", "chat_template", why="a path has the files of its first source")
        _check(configs, directories, first, rules, same_depth=False)
        part, sources = parts.language_parts(configs, tensors, first)
        sets.check_heads({first: sources[first]}, {first: _tied(configs[first])}, directories)
        sets.check_layers(sources, first)
        rules, padding = settled(rules, sources, directories, first, completing=True)
        on_tokens, _, doubts = on_common_tokens(sources, directories, None, rules, first, completing=True)
        own = on_tokens[first]
        edges = frozenset(name for name in own.shapes if not sets.LAYER.search(name))
        whole = {}
        for name, source in on_tokens.items():
            kept = {n: n for n in source.shapes if sets.LAYER.search(n) or n in edges}
            ours = sets.Completed(sets.Renamed(source, kept), own, edges - kept.keys())
            whole[name] = parts.whole(part, ours, tensors[first])
        left_out = (*padding, *doubts, *parts.not_in_the_merge(configs, first))
        overlay = Overlay(frozenset(whole[first].shapes))
        return Aligned({n: whole[n] for n in tensors}, first, overlay, left_out, tokenizer=rules.tokenizer)

    def locations(
        self, directory: Path, names: tuple[str, ...], copied: frozenset[str] = frozenset()
    ) -> dict[str, Location | None]:
        """Where each tensor of the language part sits; all others are copied."""
        places = {own: plain for plain, own in parts.language_part(str(directory), names).names.items()}
        return {name: location(places[name]) if name in places and name not in copied else None for name in names}

    def dtype(self, directory: Path) -> torch.dtype:
        """The type that the configuration names, float32 where it names none."""
        config = _config(directory)
        named = (each.dtype for each in (config, config.get_text_config()))
        return next((dtype for dtype in named if isinstance(dtype, torch.dtype)), torch.float32)

    def layout(self, directory: Path, names: Collection[str] | None = None) -> LayerNames:
        """How the tensors of the language part's layers are called, among `names` (those of the checkpoint)."""
        text = _config(directory).get_text_config()
        known = CheckpointReader(directory).shapes.keys() if names is None else names
        part = parts.language_part(str(directory), known)
        return layout_of(part.names.values(), text.model_type, text.num_hidden_layers)

    def depth(self, directory: Path) -> int:
        """The number of layers of the language part."""
        return int(_config(directory).get_text_config().num_hidden_layers)

    def path_config(self, directories: Mapping[str, Path], path: Stack, chosen: bool = False) -> dict[str, object]:
        """What changes in the configuration of the language part when `path` is written; `directories` by name.

        Raises ValueError for a path that runs but cannot be written so, SourceError for layers that do not fit.
        """
        configs = {name: _config(directory) for name, directory in directories.items()}
        first = files_of(path.sources[0])
        whole = configs[first if parts.is_vlm(configs[first]) else parts.vlms_among(configs)[0]]
        host = whole.get_text_config()
        host.tie_word_embeddings = _tied(whole)
        of_sources = [host, *(parts.in_place_of(host, configs[files_of(each)]) for each in path.sources[1:])]
        path_settings.check_fit({f"{n} {files_of(source)}": of_sources[n] for n, source in enumerate(path.sources)})
        return path_settings.of_plain_checkpoint(of_sources, path)

    def live_model(
        self,
        directory: Path,
        device: torch.device,
        dtype: torch.dtype,
        overlay: Overlay = PUBLISHED,
        sources: Mapping[str, Path] = NOWHERE,
        prefix_bytes: int = 0,
    ) -> LiveVisionLanguage:
        """The checkpoint's own model and tokenizer as `overlay` changes them, in evaluation mode."""
        config = _config(directory)
        host = config.get_text_config()
        placed = {name: parts.in_place_of(host, _config(place)) for name, place in sources.items()}
        if placed:
            path_settings.check_fit({str(directory): host, **placed})
        for key, value in overlay.config.items():
            if key == "tie_word_embeddings":
                config.tie_word_embeddings = value
            if key != "vocab_size":
                setattr(host, key, value)
        with refused(f"{directory}: expected a vision-language model that transformers loads"):
            module = transformers.AutoModelForImageTextToText.from_pretrained(
                directory, config=config, dtype=dtype, **LOCAL
            )
        module = module.to(device).eval().requires_grad_(False)
        fit_rows(module, overlay, device)
        known = names_of(directory, overlay)
        parameters = by_checkpoint_name(module, known, parts.bare, CheckpointReader(directory).shapes)
        check_all_used(module, known, parameters)
        part = parts.language_part(str(directory), known)
        outside = parts.outside(part, parameters.keys())
        decoder = module.get_decoder()
        by_place = {place: name for name, place in sources.items()}

        def load(place: Path, names: Collection[str]) -> tuple[object, Mapping[str, Tensor]]:
            # The VLM's own kind of layers, whatever kind of model the weights come from, which are yet to be written.
            with no_init_weights(), device:
                twin = from_config(type(decoder), placed[by_place[place]], dtype=dtype)
            here = parts.language_part(str(place), names)
            shapes = here.shapes(CheckpointReader(place))
            plain = by_checkpoint_name(twin.eval().requires_grad_(False), here.names.keys(), parts.bare, shapes)
            return twin, {here.names[name]: tensor for name, tensor in plain.items()}

        paths = Paths(decoder, {n: p for n, p in parameters.items() if n not in outside}, sources, load, prefix_bytes)
        frozen = {n: p for n, p in parameters.items() if n in outside}
        own = tokenizer_of(directory, overlay)
        return LiveVisionLanguage(module, own, device, dtype, parameters, paths, frozen, directory, overlay.tokenizer)

    def copy_files(self, directory: Path, target: Path, dtype: torch.dtype, overlay: Overlay = PUBLISHED) -> None:
        """Configuration, processor, tokenizer and the like; what `overlay` changes is the language part's."""
        copy_side_files(directory, target, overlay.tokenizer, OF_TOKENIZER)
        config = json.loads((directory / "config.json").read_text())
        for each in (config, *(value for value in config.values() if isinstance(value, dict))):
            if {"dtype", "torch_dtype"} & each.keys() or each is config:
                each.pop("torch_dtype", None)
                each["dtype"] = str(dtype).removeprefix("torch.")
        config.get("text_config", config).update(overlay.config)
        if "tie_word_embeddings" in overlay.config:
            config["tie_word_embeddings"] = overlay.config["tie_word_embeddings"]
        (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    def verify(self, directory: Path, live: LiveModel) -> Comparison:
        """In what the written model differs from the live one, its logits on a text and about a picture.

        Where the processor needs packages that are not installed, on a text alone.
        """
        assert isinstance(live, LiveVisionLanguage)
        written = self.live_model(directory, live.device, live.dtype)
        config = written.module.config
        tokens = without_special(pattern(live), config)
        of_text = distance(written, {"input_ids": tokens}, live, {"input_ids": tokens})
        weights, allowed = differing(written.module, live.module), rounding([live.module], live.dtype)
        try:
            read, ours = written.processor, live.processor
        except SourceError as error:
            logger.warning("the winner is compared with the live model on a text only: %s", error)
            return Comparison(weights, of_text, allowed)
        inputs, same = (image_inputs(each, config, live.device, live.dtype) for each in (read, ours))
        outputs = max(of_text, distance(written, inputs, live, same))
        return Comparison(weights, outputs, allowed)


def _check(
    configs: Mapping[str, PretrainedConfig], directories: Mapping[str, Path], host: str, rules: Rules, same_depth: bool
) -> None:
    check_rules(rules)
    if rules.missing != "error":
        raise SourceError(f"missing: the merge has the tensors of {host!r}; expected error, got {rules.missing!r}")
    if rules.tokenizer not in (AUTO, "same", "union", host):
        raise SourceError(
            f"tokenizer: expected auto, same, union or {host!r}, which knows pictures, got {rules.tokenizer!r}"
        )
    check_not_quantised(configs)
    parts.check_language_models(configs, host, same_depth)
    check_image_processor(host, directories[host])
    check_generation_file(directories[host], configs[host].get_text_config().vocab_size)


def _config(directory: Path) -> PretrainedConfig:
    return read_configuration(directory, "vision-language or language model")


def _tied(config: object) -> bool:
    """Whether the head is the embeddings."""
    return bool(getattr(config, "tie_word_embeddings", False))
