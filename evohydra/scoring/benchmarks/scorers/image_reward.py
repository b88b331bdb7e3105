"""ImageReward: a BLIP with a reward head, tuned on people's rankings (Xu et al. 2023, arXiv 2304.05977)."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    BlipForImageTextRetrieval,
    PreTrainedTokenizerBase,
)

from evohydra.families.configurations import check_configuration
from evohydra.families.settings_files import LOCAL
from evohydra.families.tokenizer_files import check_tokenizer_files
from evohydra.scoring.benchmarks.contents import digest_of
from evohydra.scoring.benchmarks.prompts import Prompt
from evohydra.scoring.benchmarks.scorers import ScorerError
from evohydra.scoring.benchmarks.scorers.similarity import located
from evohydra.scoring.benchmarks.scorers.weights import linear_layers, read_weights, text_rules, weights_digest

# By which its authors standardise the rewards of the published model (ImageReward/ImageReward.py).
MEAN, STD = 0.16717362830052426, 1.0333394966054072
TOKENS = 35  # of a prompt; the rest is cut off, as by the authors
# timm's names of a vision transformer -> those of transformers' BLIP; its text encoder has the same names in both.
VISION = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj": "embeddings.patch_embedding",
    "norm": "post_layernorm",
}
BLOCK = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
POSITIONS = "vision_model.embeddings.position_embedding"


def image_reward(path: str | None = None, weights: str | None = None, revision: str | None = None) -> "ImageReward":
    """A scorer by `weights`, ImageReward.pt of THUDM/ImageReward as safetensors; prompts in English.

    `path` is a BLIP of the same architecture, for its configuration, tokenizer and image processor:
    Salesforce/blip-itm-large-coco. Raises ScorerError for what is missing or does not fit.
    """
    directory = located(path, revision)
    try:
        check_configuration(directory)
        check_tokenizer_files(directory)
        config: Any = AutoConfig.from_pretrained(directory, **LOCAL)
        tokenizer = AutoTokenizer.from_pretrained(directory, **LOCAL)
        processor = AutoImageProcessor.from_pretrained(directory, **LOCAL)
    except (OSError, ValueError) as error:
        raise ScorerError(f"path: {directory}: not a BLIP in the format of transformers: {str(error)[:300]}") from error
    if config.model_type != "blip":
        raise ScorerError(f"path: {directory}: expected a model of type blip, got {config.model_type}")
    tensors = read_weights("weights", weights)
    head = linear_layers("weights", {k.removeprefix("mlp."): t for k, t in tensors.items() if k.startswith("mlp.")})
    parts = renamed({k.removeprefix("blip."): t for k, t in tensors.items() if k.startswith("blip.")})
    if POSITIONS in parts:  # the size of its pictures: one position for each patch, and one for the class
        patches = math.isqrt(parts[POSITIONS].shape[1] - 1)
        config.vision_config.image_size = patches * config.vision_config.patch_size
    blip = BlipForImageTextRetrieval(config)
    needed = {
        key: value for key, value in blip.state_dict().items() if key.startswith(("vision_model.", "text_encoder."))
    }
    wrong = sorted(set(needed) ^ set(parts)) or [k for k in needed if needed[k].shape != parts[k].shape]
    if wrong:
        raise ScorerError(f"weights: {weights} does not fit the BLIP in {path}: they differ in {wrong[:5]}")
    blip.load_state_dict(parts, strict=False)  # all but projections that the reward does not use
    return ImageReward(blip.eval().requires_grad_(False), head, tokenizer, processor)


class ImageReward:
    """The standardised reward: 0 for an average picture of the authors' test data, larger is better."""

    name = "image_reward"

    def __init__(
        self, blip: Any, head: Sequence[tuple[Tensor, Tensor]], tokenizer: PreTrainedTokenizerBase, processor: Any
    ) -> None:
        self._blip, self._head = blip, head
        self._tokenizer, self._processor = tokenizer, processor

    def identity(self) -> dict[str, object]:
        """Its weights, and how it reads pictures and texts."""
        head = {f"{row} {place}": each for row, pair in enumerate(self._head) for place, each in enumerate(pair)}
        return {
            "weights": weights_digest({**self._blip.state_dict(), **head}),
            "processors": digest_of([self._processor.to_dict(), text_rules(self._tokenizer)]),
        }

    def to(self, device: torch.device) -> None:
        """Move to `device`."""
        self._blip.to(device)
        self._head = [(weight.to(device), bias.to(device)) for weight, bias in self._head]

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[Prompt]) -> NDArray[np.float64]:
        """(n,) rewards of the pictures for their prompts."""
        device, side = self._blip.device, self._blip.config.vision_config.image_size
        size = {"height": side, "width": side}
        pixels = self._processor(images=list(images), size=size, return_tensors="pt")["pixel_values"].to(device)
        texts = self._tokenizer(
            [prompt.text for prompt in prompts],
            padding="max_length",
            truncation=True,
            max_length=TOKENS,
            return_tensors="pt",
        ).to(device)
        seen = self._blip.vision_model(pixel_values=pixels).last_hidden_state  # (n, patches + 1, width)
        read = self._blip.text_encoder(
            input_ids=texts["input_ids"],
            attention_mask=texts["attention_mask"],
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=device),
        ).last_hidden_state
        reward = read[:, 0].float()  # (n, width), of the first token
        for weight, bias in self._head:
            reward = torch.nn.functional.linear(reward, weight, bias)
        scores: NDArray[np.float64] = ((reward[:, 0].double() - MEAN) / STD).cpu().numpy()
        return scores


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the authors' BLIP under the names of transformers' BlipForImageTextRetrieval."""
    found = {}
    for name, tensor in tensors.items():
        if name.startswith("text_encoder.") and not name.endswith("position_ids"):
            found[name] = tensor
        elif name.startswith("visual_encoder."):
            part, kind = re.fullmatch(r"visual_encoder\.(.+?)(\.weight|\.bias|)", name).groups()  # type: ignore[union-attr]
            block = re.fullmatch(r"blocks\.(\d+)\.(.+)", part)
            known = BLOCK.get(block[2]) if block else VISION.get(part)
            if known is None:
                raise ScorerError(f"weights: {name} is no tensor of ImageReward's BLIP")
            found[f"vision_model.{f'encoder.layers.{block[1]}.' if block else ''}{known}{kind}"] = tensor
    return found
