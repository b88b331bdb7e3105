"""Where tensors of a checkpoint sit, and how those of its layers are called, found from the names themselves."""

import re
from collections.abc import Collection, Iterable

from evohydra.families.tensor_sets import BUFFERS, LAYER
from evohydra.families.vocabulary import EMBEDDING
from evohydra.merging.checkpoints import SourceError, first_few
from evohydra.recipe import LayerNames
from evohydra.spaces.grouping import EMBEDDINGS, HEAD, Location

LIST = re.compile(r"^((?:.+\.)?(?:layers|h|blocks))\.(\d+)\.(.+)$")
INPUTS = re.compile(r"(.+\.)?(embed_tokens|embed_in|wte|wpe)\.weight")
# The last tensors of a branch, where its output enters the residual stream as it is; experts may be fused.
ATTENTION = re.compile(r"(self_attn|attn|attention)\.(o_proj|out_proj|c_proj|dense)\.(weight|bias)")
MLP = re.compile(r"(mlp|block_sparse_moe)\.(.+\.)?(down_proj|c_proj|dense_4h_to_h|w2)(\.(weight|bias))?")
# Where the output of a branch goes through a norm first, it has the length that the norm's weight gives it.
POST_ATTENTION, POST_MLP = "post_attention_layernorm.weight", "post_feedforward_layernorm.weight"
OFFSETS = {"gemma2": 1.0, "gemma3_text": 1.0, "olmo2": 0.0, "olmo3": 0.0}  # added to that weight, by model type
# What reads the stream. Only where no norm stands before it does it see the length of the stream.
READERS = re.compile(r"(self_attn|mlp)\.(q|k|v|gate|up)_proj\.weight")
PRE_NORM = "input_layernorm.weight"


OF_ATTENTION = re.compile(r"attn|attention")
OF_NORM = re.compile(r"norm|(^|\.)ln_", re.IGNORECASE)


def layout_of(names: Collection[str], model_type: str, depth: int) -> LayerNames:
    """The layout of a decoder with `depth` layers whose checkpoint has tensors `names`.

    Raises SourceError, with what was expected and what came, where the layers are not one plain list, or no rule says
    which tensors end a branch of a layer.
    """
    prefix, layers = _layers(names, model_type, depth)
    found = {rest for rests in layers.values() for rest in rests}
    outside = sorted(name for name in names if not name.startswith(f"{prefix}."))
    embeddings = [name for name in outside if INPUTS.fullmatch(name)]
    if not embeddings:
        raise _unknown(model_type, "input embeddings called embed_tokens, embed_in or wte", outside)
    if POST_MLP in found:
        if model_type not in OFFSETS:
            raise SourceError(
                f"{model_type}: its layers have norms behind attention and MLP, and it is not known what is added to "
                f"their weights; known are {sorted(OFFSETS)}"
            )
        attention, mlp, offset = re.compile(re.escape(POST_ATTENTION)), re.compile(re.escape(POST_MLP)), 0.0
        offset = OFFSETS[model_type]
    else:
        attention, mlp, offset = ATTENTION, MLP, 0.0
    for layer, rests in layers.items():
        for rule, what in ((attention, "an output of its attention"), (mlp, "an output of its MLP")):
            if not any(map(rule.fullmatch, rests)):
                raise _unknown(model_type, f"{what} in layer {layer}, a tensor {rule.pattern}", rests)
    bare = POST_MLP in found and PRE_NORM not in found
    return LayerNames(
        layers=prefix,
        embeddings=_alternatives(embeddings),
        attention=_alternatives(filter(attention.fullmatch, found)),
        mlp=_alternatives(filter(mlp.fullmatch, found)),
        offset=offset,
        readers=_alternatives(filter(READERS.fullmatch, found)) if bare else "",
    )


def _layers(names: Collection[str], model_type: str, depth: int) -> tuple[str, dict[int, list[str]]]:
    """What comes before the number of a layer, and for each number the rest of its tensors' names."""
    prefixes: dict[str, dict[int, list[str]]] = {}
    for name in sorted(names):
        if place := LIST.match(name):
            prefixes.setdefault(place[1], {}).setdefault(int(place[2]), []).append(place[3])
    if len(prefixes) != 1:
        expected = f"the tensors of {depth} layers called like model.layers.0.self_attn.o_proj.weight, in one list"
        raise _unknown(model_type, expected, sorted(prefixes) or sorted(names))
    prefix, layers = prefixes.popitem()
    if sorted(layers) != list(range(depth)):
        raise _unknown(model_type, f"layers {prefix}.0 to {prefix}.{depth - 1}", [str(each) for each in sorted(layers)])
    return prefix, layers


def _alternatives(names: Iterable[str]) -> str:
    """A regular expression for `names`, those of experts whatever their number."""
    return "|".join(sorted({re.sub(r"(?<=\\\.)\d+(?=\\\.)", r"\\d+", re.escape(name)) for name in names}))


def _unknown(model_type: str, expected: str, came: Collection[str]) -> SourceError:
    return SourceError(
        f"{model_type}: no path can be laid through this architecture; expected {expected}, got "
        f"{first_few(sorted(came)) if came else 'none'}"
    )


def location(name: str) -> Location | None:
    """Where the tensor sits; None for buffers."""
    if BUFFERS.search(name):
        return None
    layer = LAYER.search(name)
    if layer is None:
        return Location(EMBEDDINGS if EMBEDDING.search(name) and "embed_out" not in name else HEAD)
    rest = layer.group(2)
    if OF_NORM.search(rest.rsplit(".", 1)[0].rsplit(".", 1)[-1]):
        return Location("norms", int(layer.group(1)))
    return Location("attention" if OF_ATTENTION.search(rest) else "mlp", int(layer.group(1)))
