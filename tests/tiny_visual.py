"""Tiny random vision-language models of several architectures, made in code, and images with questions on disk."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import AddedToken
from transformers import CLIPVisionConfig, LlamaConfig

from tests import tiny_models, tiny_vlms

CPU = torch.device("cpu")
NONE: Mapping[str, int] = {}
CHARACTERS = ["<pad>", "<eos>", "\n", *"0123456789abcdefghijklmnopqrstuvwxyz +=?.答えは赤青猫犬これです。何色:"]
CHAT = (
    "{% for message in messages %}{% for part in message.content %}{% if part.type == 'image' %}IMAGE"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{{ '\\n' }}{% endfor %}"
)
TEXT = {name: value for name, value in tiny_vlms.TEXT.items() if name != "vocab_size"} | {"num_key_value_heads": 2}


@dataclass
class Live:
    """What benchmarks see of a live vision-language model."""

    module: Any
    processor: Any
    image: str = "<image>"
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer


def tokenizer(*special: str) -> Any:
    made = tiny_models.tokenizer(CHARACTERS)
    made.add_special_tokens({"additional_special_tokens": [AddedToken(token, special=True) for token in special]})
    return made


def clip(size: int, tower: Mapping[str, int]) -> CLIPVisionConfig:
    return CLIPVisionConfig(**{**tiny_vlms.TOWER, "image_size": size, "projection_dim": 16, **tower})


def clip_processor(size: int) -> Any:
    return transformers.CLIPImageProcessorPil(
        size={"height": size, "width": size},
        do_center_crop=False,
        resample=2,
        crop_size={"height": size, "width": size},
    )


def processed(tower: Mapping[str, int]) -> dict[str, Any]:
    """LLaVA's settings of images for this tower."""
    return {**tiny_vlms.IMAGES, "patch_size": tower.get("patch_size", tiny_vlms.TOWER["patch_size"])}


def llava(size: int = 16, tower: Mapping[str, int] = NONE, text: Mapping[str, int] = NONE) -> Live:
    words = tokenizer("<image>")
    image = words.convert_tokens_to_ids("<image>")
    config = transformers.LlavaConfig(
        vision_config=clip(size, tower), text_config=LlamaConfig(vocab_size=len(words), **{**TEXT, **text}),
        image_token_id=image,
        vision_feature_select_strategy="default", vision_feature_layer=-2,
    )  # fmt: skip
    processor = transformers.LlavaProcessor(
        clip_processor(size), words, **processed(tower), chat_template=CHAT.replace("IMAGE", "<image>")
    )  # fmt: skip
    return _made(transformers.LlavaForConditionalGeneration, config, processor)


def llava_next(size: int = 16, tower: Mapping[str, int] = NONE, text: Mapping[str, int] = NONE) -> Live:
    words = tokenizer("<image>")
    image = words.convert_tokens_to_ids("<image>")
    pinpoints = [[size, 2 * size], [2 * size, size], [2 * size, 2 * size]]
    config = transformers.LlavaNextConfig(
        vision_config=clip(size, tower), text_config=LlamaConfig(vocab_size=len(words), **{**TEXT, **text}),
        image_token_id=image,
        vision_feature_select_strategy="default", vision_feature_layer=-2, image_grid_pinpoints=pinpoints,
    )  # fmt: skip
    processor = transformers.LlavaNextProcessor(
        transformers.LlavaNextImageProcessorPil(
            size={"shortest_edge": size}, crop_size={"height": size, "width": size}, image_grid_pinpoints=pinpoints
        ),
        words, **processed(tower), chat_template=CHAT.replace("IMAGE", "<image>"),
    )  # fmt: skip
    return _made(transformers.LlavaNextForConditionalGeneration, config, processor)


def idefics3(size: int = 16) -> Live:
    words = tokenizer("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
    config = transformers.Idefics3Config(
        vision_config={**tiny_vlms.TOWER, "num_hidden_layers": 2, "image_size": size},
        text_config=LlamaConfig(vocab_size=len(words), **TEXT), image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2, tie_word_embeddings=False,
    )  # fmt: skip
    processor = transformers.Idefics3Processor(
        transformers.Idefics3ImageProcessorPil(
            size={"longest_edge": size}, max_image_size={"longest_edge": size}, do_image_splitting=False
        ),
        words, image_seq_len=4, chat_template=CHAT.replace("IMAGE", "<image>"),
    )  # fmt: skip
    return _made(transformers.Idefics3ForConditionalGeneration, config, processor)


def qwen2_vl(size: int = 16) -> Live:
    words = tokenizer("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    ids = {name: words.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad", "vision_start")}
    config = transformers.Qwen2VLConfig(
        text_config={**TEXT, "vocab_size": len(words), **tiny_vlms.MROPE},
        vision_config={"depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2, "patch_size": 4,
                       "spatial_merge_size": 2, "temporal_patch_size": 2},
        image_token_id=ids["image_pad"], video_token_id=ids["video_pad"], vision_start_token_id=ids["vision_start"],
        vision_end_token_id=words.convert_tokens_to_ids("<|vision_end|>"), tie_word_embeddings=False,
    )  # fmt: skip
    processor = transformers.Qwen2VLProcessor.__new__(transformers.Qwen2VLProcessor)  # a video processor: torchvision
    processor.image_processor = transformers.Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, size={"shortest_edge": size * size, "longest_edge": 4 * size * size}
    )
    processor.tokenizer, processor.video_processor = words, None
    processor.image_token, processor.video_token = "<|image_pad|>", "<|video_pad|>"
    processor.image_token_id, processor.video_token_id = ids["image_pad"], ids["video_pad"]
    processor.chat_template = CHAT.replace("IMAGE", shown := "<|vision_start|><|image_pad|><|vision_end|>")
    return _made(transformers.Qwen2VLForConditionalGeneration, config, processor, shown)


MODELS: dict[str, Callable[..., Live]] = {
    "llava": llava, "llava_next": llava_next, "idefics3": idefics3, "qwen2_vl": qwen2_vl,
}  # fmt: skip


def _made(kind: Any, config: Any, processor: Any, image: str = "<image>") -> Live:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        module = kind(config).eval()
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(False)
        if "norm" not in name and parameter.ndim > 1:
            parameter.mul_(12.0)  # answers that differ
    module.generation_config = transformers.GenerationConfig(pad_token_id=0, eos_token_id=1)
    return Live(module, processor, image)


def picture(seed: int, width: int = 24, height: int = 16) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def save_questions(root: Path, count: int = 10) -> Path:
    """Questions about `count` images, as JSON lines beside a directory of images; every fifth is asked about twice."""
    (root / "images").mkdir(parents=True)
    rows = []
    for number in range(count):
        picture(number, 16 + 4 * (number % 3)).save(root / "images" / f"{number}.png")
        for again in range(2 if number % 5 == 4 else 1):
            question = f"何色です{'?' * (again + number % 3)}"
            rows.append({"image": f"images/{number}.png", "image_id": number, "question": question, "answer": "赤です"})
    (root / "questions.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return root / "questions.jsonl"
