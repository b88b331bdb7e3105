"""What of an encoder's checkpoint is the encoder: its names, and heads and poolers that not all sources have."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import transformers
from transformers import PretrainedConfig, PreTrainedModel

from evohydra.families import tensor_sets as sets
from evohydra.merging.checkpoints import SourceError, TensorSource

HEADED = "ForSequenceClassification"  # the end of the name of a class whose head may stay
DECODING = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")  # of classes that write texts
POOLER = re.compile(r"(^|\.)pooler\.")
LIST = "encoder.layer.0, layers.0 or transformer.layer.0"
SCORED_BY_HEAD = (
    "all sources have the same head, which is merged with them (group head): only benchmarks that ask it score it "
    "(rule=head of embedding_classification), vectors do not depend on it"
)
# As norms called their tensors when BERT was published.
FORMER = re.compile(r"(LayerNorm|layer_norm)\.(gamma|beta)$")
MODERN = {"gamma": "weight", "beta": "bias"}


@dataclass(frozen=True)
class Kept:
    """Sources with what is merged; `headed`: whether that includes a head, `left_out`: sentences on the rest."""

    tensors: Mapping[str, TensorSource]
    headed: bool
    left_out: tuple[str, ...]


def is_encoder(config: PretrainedConfig) -> bool:
    """Whether it is the configuration of a model that reads a text in both directions, and is used as such."""
    classes = config.architectures or [""]
    return (
        type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING
        and not config.is_encoder_decoder
        and not getattr(config, "is_decoder", False)
        and not classes[0].endswith(DECODING)
    )


def backbone_class(configs: Mapping[str, PretrainedConfig]) -> type[PreTrainedModel]:
    """The class that AutoModel makes of all these configurations; SourceError for different ones and for others."""
    types = {name: config.model_type for name, config in configs.items()}
    if len(set(types.values())) > 1:
        raise SourceError(f"sources of different architectures: {types}")
    found: list[type[PreTrainedModel]] = []
    for name, config in configs.items():
        kind = transformers.MODEL_MAPPING.get(type(config), None)
        if not is_encoder(config) or not (isinstance(kind, type) and issubclass(kind, PreTrainedModel)):
            raise SourceError(
                f"source {name!r}: expected an encoder (BERT and models like it), got {config.model_type!r} of the "
                f"class {(config.architectures or ['unknown'])[0]}"
            )
        found.append(kind)
    return found[0]


def modern_names(tensors: TensorSource) -> TensorSource:
    """The tensors with the weight and bias of norms under these names, as transformers reads them."""
    names = {modern_name(name): name for name in tensors.shapes}
    return tensors if names.keys() == tensors.shapes.keys() else sets.Renamed(tensors, names)


def modern_name(name: str) -> str:
    """What the tensor is called today."""
    return FORMER.sub(lambda found: f"{found[1]}.{MODERN[found[2]]}", name)


def heads_of(names: Collection[str], prefix: str) -> set[str]:
    """The tensors that are no part of the encoder: where its own have a `prefix` those without it."""
    if not any(name.startswith(f"{prefix}.") for name in names):
        return set()
    return {name for name in names if not name.startswith(f"{prefix}.")}


def check_layers(sources: Mapping[str, TensorSource]) -> None:
    """SourceError for a source whose tensors are not those of numbered layers."""
    for name, tensors in sources.items():
        if not sets.layers_of(tensors):
            some = sorted(tensors.shapes)[:3]
            raise SourceError(f"source {name!r}: expected layers called like {LIST}, got tensors like {some}")


def kept(
    sources: Mapping[str, TensorSource], configs: Mapping[str, PretrainedConfig], prefix: str, completing: bool
) -> Kept:
    """The sources without the heads that not all have, and without a pooler that not all have.

    A head is kept where all have one for the classification of texts, of the same tensors and labels. `completing`:
    tensors that some lack are taken from the base (missing=base), so that the pooler may stay.
    """
    heads = {name: heads_of(tensors.shapes, prefix) for name, tensors in sources.items()}
    headed = _all_alike(sources, configs, heads)
    left_out = (
        [SCORED_BY_HEAD] if headed else [_said(name, configs[name], heads[name]) for name in sources if heads[name]]
    )
    tensors = {
        name: source if headed or not heads[name] else _without(source, heads[name]) for name, source in sources.items()
    }
    poolers = {name: {each for each in source.shapes if POOLER.search(each)} for name, source in tensors.items()}
    lacking = [name for name, pooler in poolers.items() if not pooler]
    if lacking and any(poolers.values()) and not headed and not completing:
        tensors = {name: _without(source, poolers[name]) for name, source in tensors.items()}
        left_out.append(
            f"the pooler is not in the merge, for there is none in {', '.join(lacking)}; no pooling of hidden states "
            "depends on it"
        )
    return Kept(tensors, headed, tuple(left_out))


def _all_alike(
    sources: Mapping[str, TensorSource],
    configs: Mapping[str, PretrainedConfig],
    heads: Mapping[str, set[str]],
) -> bool:
    found = {
        repr(
            (
                config.architectures,
                sorted((int(number), label) for number, label in (config.id2label or {}).items()),
                config.problem_type,
                sorted((each, sources[name].shapes[each]) for each in heads[name]),
            )
        )
        for name, config in configs.items()
    }
    return len(found) == 1 and all(heads.values()) and all(map(is_headed, configs.values()))


def is_headed(config: PretrainedConfig) -> bool:
    """Whether it says that the model has a head for the classification of texts."""
    return bool((config.architectures or [""])[0].endswith(HEADED))


def _said(name: str, config: PretrainedConfig, head: set[str]) -> str:
    kind = (config.architectures or ["of an unknown class"])[0]
    labels = f", labels {', '.join(map(str, (config.id2label or {}).values()))}" if is_headed(config) else ""
    return (
        f"source {name!r}: the {len(head)} tensors of its head ({kind}{labels}) are not in the merge, which is the "
        "encoder alone: a head stays where all sources and the base have the same one for the same labels"
    )


def _without(tensors: TensorSource, gone: set[str]) -> TensorSource:
    return sets.Renamed(tensors, {name: name for name in tensors.shapes if name not in gone}) if gone else tensors
