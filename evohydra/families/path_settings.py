"""What configurations say about single layers, for paths through the layers of several models."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PretrainedConfig

from evohydra.merging.checkpoints import SourceError
from evohydra.recipe import Hop, Stack

LISTS = ("layer_types", "mlp_layer_types", "no_rope_layers")  # one entry for each layer
DENSE = "mlp_only_layers"  # numbers of layers, beside decoder_sparse_step
# Layers that need another layer, or more than the hidden state, cannot stand anywhere else.
ENTANGLED = ("num_kv_shared_layers", "hidden_size_per_layer_input", "add_cross_attention")
LENGTH_DEPENDENT = ("dynamic", "longrope", "yarn")  # rotary angles that depend on max_position_embeddings
# What says nothing about how a layer computes, or says it layer by layer. (Of vocabularies the rows are compared.)
FREE = re.compile(
    r"num_hidden_layers|n_layers?|layer_types|mlp_layer_types|no_rope_layers|mlp_only_layers|decoder_sparse_step|"
    r"max_window_layers|_?sliding_window_pattern|max_position_embeddings|n_positions|vocab_size|tie_word_embeddings|"
    r"_name_or_path|architectures|(torch_)?dtype|transformers_version|use_cache|return_dict|problem_type|"
    r"chunk_size_feed_forward|pretraining_tp|initializer_range|router_\w+|id2label|label2id|task_specific_params|"
    r"\w+_token_id|\w*dropout\w*|\w+_pdrop|summary_\w+|output_\w+|scale_attn_by_inverse_layer_idx"
)
# Sizes of its own that a layer has in memory, but not in a plain checkpoint. Rotary angles fix the size of a head.
SIZES = re.compile(
    r"num_attention_heads|num_key_value_heads|n_head|intermediate_size|n_inner|(moe|shared_expert)_intermediate_size|"
    r"num_experts|num_local_experts|num_experts_per_tok|norm_topk_prob"
)


def check_fit(configs: Mapping[str, PretrainedConfig]) -> None:
    """Raise SourceError where layers of these models cannot be on one path, with the settings that differ.

    `configs` by name; the first is the host, whose embeddings, masks and rotary angles all layers would see.
    """
    (host_name, host), *others = configs.items()
    for name, config in configs.items():
        reasons = [key for key in ENTANGLED if getattr(config, key, None)]
        if config.is_encoder_decoder or reasons:
            why = "an encoder and a decoder" if config.is_encoder_decoder else f"{', '.join(reasons)}"
            raise SourceError(f"source {name!r}: expected a decoder whose layers are a plain list, got one with {why}")
    expected = _settings(host)
    for name, config in others:
        came = _settings(config)
        differ = [
            f"{key} {came.get(key)!r} where {host_name!r} has {expected.get(key)!r}"
            for key in sorted(expected.keys() | came.keys())
            if expected.get(key) != came.get(key)
        ]
        if differ:
            raise SourceError(
                f"layers of source {name!r} do not fit on a path with those of {host_name!r}: {'; '.join(differ)}"
            )


def of_hops(configs: Mapping[int, object] | Sequence[object], hops: Sequence[Hop]) -> dict[str, object]:
    """What a configuration says about `hops` as its layers; `configs` are those of their sources, by number."""
    host = configs[0]
    settings: dict[str, object] = {"num_hidden_layers": len(hops)}
    for key in LISTS:
        if isinstance(getattr(host, key, None), list):
            settings[key] = [getattr(configs[hop.source], key)[hop.layer] for hop in hops]
    if isinstance(getattr(host, DENSE, None), list):
        settings[DENSE] = [n for n, hop in enumerate(hops) if not _sparse(configs[hop.source], hop.layer)]
        settings["decoder_sparse_step"] = 1
    return settings


def of_model(config: PretrainedConfig) -> dict[str, object]:
    """What a configuration says about its own layers."""
    own = of_hops([config], [Hop(0, layer) for layer in range(config.num_hidden_layers)])
    return {key: getattr(config, key) for key in own}


def of_plain_checkpoint(configs: Sequence[PretrainedConfig], path: Stack) -> dict[str, object]:
    """The keys of config.json that `path` changes in the first source's when it is written as a plain checkpoint.

    Raises ValueError for what only a path in memory can have.
    """
    host = configs[0]
    used = sorted({hop.source for hop in path.hops})
    for number in used:
        ours, theirs = host.to_dict(), configs[number].to_dict()
        differ = [key for key in theirs if SIZES.fullmatch(key) and theirs[key] != ours.get(key)]
        if differ:
            raise ValueError(
                f"the path runs, but is no plain checkpoint: source {number} has other {', '.join(differ)} than source "
                "0, and a configuration holds them once for all layers"
            )
        if getattr(configs[number], "scale_attn_by_inverse_layer_idx", False):
            raise ValueError("the path runs, but is no plain checkpoint: its attention is scaled by the layer's number")
    if host.tie_word_embeddings and path.scaling == "branch" and path.hops[0].scale != 1.0:
        raise ValueError(
            f"the path runs, but is no plain checkpoint: the scale {path.hops[0].scale} of its first hop would "
            "multiply the embeddings, which are the head too"
        )
    names = host.attribute_map
    return {names.get(key, key): value for key, value in of_hops(configs, path.hops).items()}


def _settings(config: PretrainedConfig) -> dict[str, Any]:
    """What has to be the same for all layers of a path, among what transformers reads for this type of model."""
    known = type(config)().to_dict().keys()
    plain = {
        key: value
        for key, value in config.to_dict().items()
        if key in known and not FREE.fullmatch(key) and not SIZES.fullmatch(key)
    }
    rotary = plain.get("rope_parameters")
    if rotary:
        plain["head_dim"] = plain.get("head_dim") or config.hidden_size // config.num_attention_heads
        kinds = [rotary, *(value for value in rotary.values() if isinstance(value, dict))]  # or one for each layer type
        if any(kind.get("rope_type") in LENGTH_DEPENDENT for kind in kinds):
            plain["max_position_embeddings"] = config.max_position_embeddings
    return plain


def _sparse(config: PretrainedConfig, layer: int) -> bool:
    """Whether a layer has experts, as transformers decides it for Qwen2-MoE and Qwen3-MoE."""
    return (
        layer not in getattr(config, DENSE) and config.num_experts > 0 and (layer + 1) % config.decoder_sparse_step == 0
    )
