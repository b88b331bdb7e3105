"""What configurations say that numbers depend on, and where sources disagree in it."""

import re
from collections.abc import Iterator, Mapping

import torch
from transformers import PretrainedConfig
from transformers.activations import ACT2CLS, ACT2FN

from evohydra.families.path_settings import LENGTH_DEPENDENT
from evohydra.merging.checkpoints import SourceError

# What changes no number of a forward pass without dropout, or is compared elsewhere: the tensors' shapes and number
# (depth, rows), whether the head is tied, and the tokenizer's tokens. Kinds of layers stand in lists, one for each.
ELSEWHERE = re.compile(
    r"num_hidden_layers|n_layers?|num_layers|vocab_size|tie_word_embeddings|max_window_layers|"
    r"_?sliding_window_pattern|use_sliding_window|_name_or_path|name_or_path|architectures|(torch_)?dtype|"
    r"transformers_version|use_cache|use_return_dict|return_dict|problem_type|chunk_size_feed_forward|pretraining_tp|"
    r"initializer_range|initializer_factor|init_std|router_(aux_loss|z_loss)\w*|router_jitter_noise|id2label|label2id|"
    r"task_specific_params|\w+_token_id|\w*dropout\w*|\w+_pdrop|summary_\w+|output_(attentions|hidden_states|"
    r"router_logits)|decoder_bias|sparse_pred\w*|deterministic_flash_attn|initializer_cutoff_factor|is_decoder|is_encoder_decoder|model_type|_attn_implementation\w*|scale_attn_weights_in_fp32"
)
# Types of models that number positions from the padding token's number on (create_position_ids_from_input_ids).
COUNTED_FROM_PADDING = {
    "camembert",
    "data2vec-text",
    "esm",
    "ibert",
    "layoutlmv3",
    "lilt",
    "longformer",
    "luke",
    "markuplm",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}
PROBE = torch.linspace(-8, 8, 129)  # what activations are told apart by
LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")


def settings(config: PretrainedConfig) -> dict[str, object]:
    """What the layers of a language model are computed with, by key; of mappings inside "rope_parameters.rope_theta".

    Only what transformers reads for this type of model. The longest text is not among it where nothing but the cutting
    of prompts depends on it.
    """
    text = config.get_text_config()
    known = type(text)().to_dict().keys()
    plain = {key: value for key, value in text.to_dict().items() if key in known and not ELSEWHERE.fullmatch(key)}
    if text.to_dict().get("use_sliding_window") is False:
        plain.pop("sliding_window", None)
    rotary = plain.get("rope_parameters") or {}
    kinds = [rotary, *(each for each in rotary.values() if isinstance(each, Mapping))]
    if not any(kind.get("rope_type") in LENGTH_DEPENDENT for kind in kinds):
        plain = {key: value for key, value in plain.items() if key not in LENGTHS}
    if text.model_type in COUNTED_FROM_PADDING:
        plain["pad_token_id"] = text.pad_token_id
    return dict(_flat(plain))


def lengths(config: PretrainedConfig) -> dict[str, object]:
    """The longest text, as far as the configuration says."""
    text = config.get_text_config().to_dict()
    return {key: text[key] for key in LENGTHS if text.get(key) is not None}


def differing(config: PretrainedConfig, reference: PretrainedConfig) -> dict[str, tuple[object, object]]:
    """By key both values of settings that two configurations disagree in."""
    return _unlike(settings(config), settings(reference))


def apart(config: PretrainedConfig, reference: PretrainedConfig) -> dict[str, tuple[object, object]]:
    """As `differing`, and the longest text."""
    return {**_unlike(lengths(config), lengths(reference)), **differing(config, reference)}


def check_agreement(configs: Mapping[str, PretrainedConfig], owner: str, chosen: str) -> tuple[str, ...]:
    """In a sentence each, in what sources differ from `owner`, whose configuration the merge has.

    `chosen` is the option `config`. Raises SourceError where it is "same" and layers would be computed otherwise.
    """
    unlike = {name: found for name, config in configs.items() if (found := differing(config, configs[owner]))}
    if unlike and chosen == "same":
        told = "; ".join(f"{name!r} has {told_of(found, owner)}" for name, found in unlike.items())
        raise SourceError(
            f"the sources' layers are computed with other settings: {told}. A merge has one configuration: config=base "
            f"or config=NAME gives it that of the base or of a source, config=allow that of {owner!r}"
        )
    every = {name: apart(config, configs[owner]) for name, config in configs.items()}
    return tuple(
        f"source {name!r} has {told_of(found, owner)}: merges are computed with the latter, the source itself is "
        "scored with its own"
        for name, found in every.items()
        if found
    )


def told_of(found: Mapping[str, tuple[object, object]], owner: str) -> str:
    """The differences in words."""
    return ", ".join(f"{key} {theirs!r} where {owner!r} has {ours!r}" for key, (theirs, ours) in sorted(found.items()))


def _unlike(theirs: Mapping[str, object], ours: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    keys = theirs.keys() | ours.keys()
    return {key: (theirs.get(key), ours.get(key)) for key in keys if not _same(theirs.get(key), ours.get(key))}


def _same(one: object, other: object) -> bool:
    """Whether two values are equal, or two names of one activation ("silu" and "swish").

    Of lists with an entry for each layer those of layers that both have are compared.
    """
    if one == other:
        return True
    if isinstance(one, list) and isinstance(other, list) and one and other:
        shared = min(len(one), len(other))
        return one[:shared] == other[:shared]
    if not (isinstance(one, str) and isinstance(other, str) and one in ACT2CLS and other in ACT2CLS):
        return False
    return torch.equal(ACT2FN[one](PROBE), ACT2FN[other](PROBE))


def _flat(plain: Mapping[str, object], before: str = "") -> Iterator[tuple[str, object]]:
    for key, value in plain.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value
