"""Tiny random CLIP and SigLIP models on disk, and a scorer that tests can check by eye."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from evohydra.scoring.benchmarks.prompts import Prompt

SIZE = 16  # pixels that the models look at
PARTS = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**PARTS, "image_size": SIZE, "patch_size": 8}


def tokenizer(length: int = 24) -> transformers.PreTrainedTokenizerFast:
    """One token for each of the characters 猫 and 犬, for a byte else."""
    letters = ["<pad>", "<end>", "<unk>", *map(chr, range(33, 127)), "猫", "犬"]
    made = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(letters)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<end>", unk_token="<unk>", model_max_length=length
    )


def clip_config(**text: Any) -> transformers.CLIPConfig:
    words = {"vocab_size": len(tokenizer()), "max_position_embeddings": 24, "eos_token_id": 1, "bos_token_id": 1}
    gelu = {"hidden_act": "gelu"}  # as the larger ones of open_clip
    return transformers.CLIPConfig(
        text_config={**PARTS, **words, **gelu, **text}, vision_config={**VISION, **gelu}, projection_dim=12
    )


def siglip_config() -> transformers.SiglipConfig:
    words = {"vocab_size": len(tokenizer()), "max_position_embeddings": 24, "eos_token_id": 1, "bos_token_id": 1}
    return transformers.SiglipConfig(text_config={**PARTS, **words, "projection_size": 16}, vision_config=VISION)


def save(directory: Path, config: Any, seed: int = 0) -> Path:
    """A random model of `config` with tokenizer and image processor, as transformers saves them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformers.AutoModel.from_config(config).save_pretrained(directory)
    tokenizer().save_pretrained(directory)
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    square = {"height": SIZE, "width": SIZE}
    CLIPImageProcessorPil(size=square, crop_size=square).save_pretrained(directory)
    return directory


class Brightness:
    """The mean of a picture's pixels, in [0, 1]; counts the pictures that it has seen."""

    name = "brightness"

    def __init__(self, sign: float = 1.0) -> None:
        self.seen, self._sign = 0, sign

    def identity(self) -> dict[str, Any]:
        return {"sign": self._sign}

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[Prompt]) -> NDArray[np.float64]:
        assert len(images) == len(prompts)
        self.seen += len(images)
        return np.array([self._sign * np.asarray(image).mean() / 255 for image in images])
