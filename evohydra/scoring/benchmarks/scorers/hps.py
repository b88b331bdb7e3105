"""HPS v2: a CLIP ViT-H/14 of open_clip, tuned on people's preferences (Wu et al. 2023, arXiv 2306.09341)."""

import re

from torch import Tensor

from evohydra.scoring.benchmarks.scorers import ScorerError
from evohydra.scoring.benchmarks.scorers.similarity import Embedder, Similarity, located
from evohydra.scoring.benchmarks.scorers.weights import read_weights

# open_clip's names -> those of transformers' CLIPModel; the rest is in `renamed`.
OUTER = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "text_projection": "text_projection.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.proj": "visual_projection.weight",
    "logit_scale": "logit_scale",
}
NORMS = {
    "ln_final": "text_model.final_layer_norm",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
}
INNER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)")


def hps(path: str | None = None, weights: str | None = None, revision: str | None = None) -> Similarity:
    """A scorer by the CLIP in `path`, whose weights are replaced by those of `weights`; prompts in English.

    `path` is laion/CLIP-ViT-H-14-laion2B-s32B-b79K in the format of transformers, `weights` HPS_v2.1_compressed.pt of
    xswu/HPSv2 as safetensors; None where `path` holds the weights of HPS already. The score is the cosine, as in the
    package hpsv2. Raises ScorerError for what is missing or does not fit.
    """
    embedder = Embedder(located(path, revision))
    if weights is not None:
        tensors = renamed(read_weights("weights", weights))
        own = embedder.model.state_dict()
        wrong = sorted(set(own) ^ set(tensors)) or [k for k in own if own[k].shape != tensors[k].shape]
        if wrong:
            raise ScorerError(f"weights: {weights} does not fit the CLIP in {path}: they differ in {wrong[:5]}")
        embedder.model.load_state_dict(tensors)
    return Similarity("hps", embedder)


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an open_clip model under the names of transformers' CLIPModel."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name in OUTER:
            transposed = name in ("text_projection", "visual.proj")  # there a matrix by which features are multiplied
            found[OUTER[name]] = tensor.T.contiguous() if transposed else tensor
        elif (norm := name.rpartition(".")[0]) in NORMS:
            found[f"{NORMS[norm]}.{name.rpartition('.')[2]}"] = tensor
        elif block := BLOCK.fullmatch(name):
            visual, number, part, kind = block.groups()
            layer = f"{'vision' if visual else 'text'}_model.encoder.layers.{number}"
            if part == "attn.in_proj":  # queries, keys and values in one
                for each, piece in zip("qkv", tensor.chunk(3), strict=True):
                    found[f"{layer}.self_attn.{each}_proj.{kind}"] = piece.clone()
            elif part in INNER:
                found[f"{layer}.{INNER[part]}.{kind}"] = tensor
            else:
                raise ScorerError(f"weights: {name} is no tensor of a CLIP of open_clip")
        elif name != "attn_mask":  # a buffer of some versions
            raise ScorerError(f"weights: {name} is no tensor of a CLIP of open_clip")
    return found
