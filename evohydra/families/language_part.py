"""The language part of a vision-language model: which tensors it is, and whose weights fit into it."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, PretrainedConfig

from evohydra.families.agreement import differing, settings, told_of
from evohydra.families.experts import ExpertsLike
from evohydra.families.tensor_sets import Completed, Renamed, with_common_names, without_buffers
from evohydra.merging.checkpoints import SourceError, TensorSource, first_few
from evohydra.merging.release_names import bare as bare

EMBEDDINGS = "embed_tokens.weight"
HEAD = re.compile(r"(?:^|\.)(lm_head\.(?:weight|bias))$")
# Decoders whose layers are those of a plain language model, but for rotary angles, by their types.
PLAIN = {
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
}
# What the VLM's decoder makes once for all of its layers.
OF_DECODER = ("rope_parameters", "sliding_window")
OF_HOST = re.compile(r"rope_parameters\b|rope_theta|sliding_window|layer_types|max_position_embeddings")


@dataclass(frozen=True)
class LanguagePart:
    """The tensors of the language part: by the name in a plain language model's checkpoint that of the VLM's.

    `prefix` comes before the names of all but the head's.
    """

    names: Mapping[str, str]
    prefix: str

    def of(self, tensors: TensorSource) -> TensorSource:
        """The tensors of the language part under plain names."""
        return Renamed(tensors, self.names)

    def published(self, plain: str) -> str:
        """The name of a tensor in the VLM's files, also where they lack it."""
        if plain in self.names:
            return self.names[plain]
        if HEAD.search(plain):
            return f"language_model.{plain}" if self.prefix == "language_model.model." else plain
        return self.prefix + plain.removeprefix("model.")


def language_part(source: str, names: Iterable[str]) -> LanguagePart:
    """The language part among the tensors `names` of a VLM, found by its input embeddings.

    Raises SourceError, with what was expected and what came, where that is not one.
    """
    known = sorted(names)
    prefixes = [name.removesuffix(EMBEDDINGS) for name in known if re.search(rf"(^|\.){EMBEDDINGS}$", name)]
    if len(prefixes) != 1:
        raise SourceError(
            f"source {source!r}: expected a vision-language model with one table of input embeddings ({EMBEDDINGS}), "
            f"got {len(prefixes)} among {first_few(known)}"
        )
    prefix = prefixes[0]
    found = {}
    for name in known:
        if head := HEAD.search(name):
            found[head[1]] = name
        elif name.startswith(prefix) and (prefix != "model." or re.match(r"(embed_tokens|layers|norm)\.", name[6:])):
            found[f"model.{name.removeprefix(prefix)}"] = name
    return LanguagePart(found, prefix)


def is_vlm(config: object) -> bool:
    """Whether transformers has an image-text-to-text model for the configuration."""
    return type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING


def vlms_among(configs: Mapping[str, PretrainedConfig]) -> list[str]:
    """The names of those that are vision-language models.

    Raises SourceError where there is none, or where they are of different architectures.
    """
    types = {name: config.model_type for name, config in configs.items() if is_vlm(config)}
    if not types:
        raise SourceError(
            "expected a vision-language model (image-text-to-text) among the sources, got "
            f"{ {name: config.model_type for name, config in configs.items()} }"
        )
    if len(set(types.values())) > 1:
        raise SourceError(f"vision-language models of different architectures: {types}")
    return list(types)


def check_language_models(configs: Mapping[str, PretrainedConfig], host: str, same_depth: bool) -> None:
    """Raise SourceError for a source whose language part cannot have the place of that of `host`."""
    ours = configs[host].get_text_config()
    for name, config in configs.items():
        theirs = config.get_text_config()
        if config.is_encoder_decoder or theirs.is_encoder_decoder:
            raise SourceError(
                f"source {name!r}: expected a model whose language part is a decoder, got {config.model_type!r} with "
                f"an encoder and a decoder ({theirs.model_type})"
            )
        if theirs.model_type not in (ours.model_type, PLAIN.get(ours.model_type)):
            raise SourceError(
                f"source {name!r}: expected a language model of the architecture in {host!r} "
                f"({PLAIN.get(ours.model_type, ours.model_type)}), got {theirs.model_type!r}"
            )
        for key in ("hidden_size", *(("num_hidden_layers",) if same_depth else ())):
            if getattr(theirs, key) != getattr(ours, key):
                raise SourceError(
                    f"source {name!r}: expected a language model with {key} {getattr(ours, key)}, as that of {host!r} "
                    f"has, got {getattr(theirs, key)}"
                )


def in_place_of(host: PretrainedConfig, config: PretrainedConfig) -> object:
    """The language part of `config` as layers of the decoder with the configuration `host`, another object.

    Its own are sizes, depth and kinds of layers; rotary angles and windows are those of the host.
    """
    known = type(host)().to_dict().keys() - {"model_type", "architectures"}
    own = {key: value for key, value in config.get_text_config().to_dict().items() if key in known}
    return type(host)(**{**own, **{key: getattr(host, key) for key in OF_DECODER if key in known}})


def not_in_the_merge(configs: Mapping[str, PretrainedConfig], host: str) -> tuple[str, ...]:
    """In a sentence each, what the decoder of `host` does otherwise than the sources did."""
    ours = configs[host].get_text_config()
    sentences = []
    for name, config in configs.items():
        theirs = config.get_text_config()
        for key, what in (("rope_theta", "a rotary base of"), ("sliding_window", "a sliding window of")):
            own, instead = _setting(theirs, key), _setting(ours, key)
            if own != instead:
                sentences.append(
                    f"source {name!r} was trained with {what} {own}, the merge has that of {host!r}, {instead}"
                )
    return tuple(sentences)


def check_settings(configs: Mapping[str, PretrainedConfig], host: str, chosen: str) -> tuple[str, ...]:
    """In a sentence each, what else sources' layers were computed with than those of `host` are.

    Raises SourceError where `chosen`, the option `config`, is "same". Angles and windows are always the host's.
    """
    if chosen not in ("same", "allow", host):
        raise SourceError(
            f"config: the merge has that of {host!r}, a vision-language model; expected same, allow or {host!r}, got "
            f"{chosen!r}"
        )
    ours = settings(configs[host])
    sentences = []
    for name, config in configs.items():
        theirs = settings(config)
        both = {key for key in theirs.keys() & ours.keys() if not OF_HOST.match(key)}
        found = {key: at for key, at in differing(config, configs[host]).items() if key in both}
        if found and chosen == "same":
            raise SourceError(
                f"the language part of source {name!r} is computed with other settings: {told_of(found, host)}; "
                f"config=allow merges it all the same, under the configuration of {host!r}"
            )
        if found:
            sentences.append(f"source {name!r} has {told_of(found, host)}; all are scored with the latter")
    return tuple(sentences)


def _setting(config: PretrainedConfig, key: str) -> object:
    data = config.to_dict()
    rotary = data.get("rope_parameters") or {}
    return rotary.get(key) if key == "rope_theta" else data.get(key) if data.get("use_sliding_window", True) else None


def outside(part: LanguagePart, names: Collection[str]) -> frozenset[str]:
    """Of the tensors `names` of a VLM those of vision tower and projector."""
    return frozenset(names) - frozenset(part.names.values())


def language_parts(
    configs: Mapping[str, PretrainedConfig], tensors: Mapping[str, TensorSource], host: str
) -> tuple[LanguagePart, dict[str, TensorSource]]:
    """The language part of the VLM `host`, and those of all sources under plain names, the host's first."""
    part = language_part(host, tensors[host].shapes)
    plain: dict[str, TensorSource] = {}
    for name in (host, *(each for each in tensors if each != host)):
        own = tensors[name]
        plain[name] = language_part(name, own.shapes).of(own) if is_vlm(configs[name]) else own
    common = without_buffers(with_common_names(plain, "model."))
    return part, {name: ExpertsLike(source, common[host].shapes) for name, source in common.items()}


def whole(part: LanguagePart, plain: TensorSource, host: TensorSource) -> TensorSource:
    """A language part under the names of the VLM's files, and the rest of the VLM."""
    own = Renamed(plain, {part.published(name): name for name in plain.shapes})
    return Completed(own, host, outside(part, host.shapes.keys()))
