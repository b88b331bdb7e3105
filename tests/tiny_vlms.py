"""Tiny random vision-language models of several architectures on disk, with processors made in code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken

from tests import tiny_models

QWEN = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
IDEFICS = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
IDEFICS += [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
SPECIAL = {"llava": ["<image>"], "llava_next": ["<image>"], "qwen2_vl": QWEN, "qwen2_5_vl": QWEN,
           "idefics3": IDEFICS, "smolvlm": IDEFICS}  # fmt: skip
PLAIN = len(tiny_models.CHARACTERS)
ROWS = 64
TEXT = {
    "vocab_size": ROWS, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "pad_token_id": 0,
    "bos_token_id": None, "eos_token_id": 1, "tie_word_embeddings": False,
}  # fmt: skip
IMAGES = {"patch_size": 4, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}  # LLaVA's
TOWER = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
         "image_size": 16, "patch_size": 4}  # fmt: skip
MROPE = {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}}
PINPOINTS = [[16, 32], [32, 16], [32, 32]]
# The architecture of a plain language model whose weights fit into the VLM.
LANGUAGE = {"llava": "llama", "llava_next": "mistral", "qwen2_vl": "qwen2", "qwen2_5_vl": "qwen2",
            "idefics3": "llama", "smolvlm": "llama"}  # fmt: skip
MODELS: dict[str, Any] = {
    "llama": transformers.LlamaConfig, "mistral": transformers.MistralConfig, "qwen2": transformers.Qwen2Config,
    "gemma": transformers.GemmaConfig,
}  # fmt: skip


def _qwen(kind: Any, tower: dict[str, Any], text: dict[str, Any]) -> Any:
    ids = {key: PLAIN + place for place, key in enumerate(("vision_start_token_id", "vision_end_token_id",
                                                           "image_token_id", "video_token_id"))}  # fmt: skip
    return kind(text_config={**text, **MROPE}, vision_config=tower, **ids)


def _idefics(kind: Any, text: dict[str, Any]) -> Any:
    return kind(text_config=transformers.LlamaConfig(**text), vision_config=TOWER, image_token_id=PLAIN,
                scale_factor=2, pad_token_id=0)  # fmt: skip


CONFIGS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "llava": lambda text: transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**TOWER), text_config=transformers.LlamaConfig(**text),
        image_token_index=PLAIN,
    ),
    "llava_next": lambda text: transformers.LlavaNextConfig(
        vision_config=transformers.CLIPVisionConfig(**TOWER), text_config=transformers.MistralConfig(**text),
        image_token_index=PLAIN, image_grid_pinpoints=PINPOINTS,
    ),
    "qwen2_vl": lambda text: _qwen(
        transformers.Qwen2VLConfig,
        {"depth": 3, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2, "patch_size": 4}, text,
    ),
    "qwen2_5_vl": lambda text: _qwen(
        transformers.Qwen2_5_VLConfig,
        {"depth": 3, "hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 16, "num_heads": 2,
         "patch_size": 4, "fullatt_block_indexes": [1], "window_size": 16}, text,
    ),
    "idefics3": lambda text: _idefics(transformers.Idefics3Config, text),
    "smolvlm": lambda text: _idefics(transformers.SmolVLMConfig, text),
}  # fmt: skip


def tokenizer(special: list[str]) -> Any:
    made = tiny_models.tokenizer()
    made.add_tokens([AddedToken(token, special=True) for token in special], special_tokens=True)
    made.init_kwargs["extra_special_tokens"] = {"image_token": "<image>"}
    return made


def save_processor(directory: Path, architecture: str) -> None:
    """The tokenizer, and the processor or, where making it needs torchvision, the settings of its images."""
    own = tokenizer(SPECIAL[architecture])
    size = {"shortest_edge": 16}
    clip = {"size": size, "crop_size": {"height": 16, "width": 16}}
    if architecture == "llava":
        images = transformers.CLIPImageProcessorPil(**clip)
        transformers.LlavaProcessor(images, own, **IMAGES).save_pretrained(directory)
    elif architecture == "llava_next":
        images = transformers.LlavaNextImageProcessorPil(**clip, image_grid_pinpoints=PINPOINTS)
        transformers.LlavaNextProcessor(images, own, **IMAGES).save_pretrained(directory)
    elif architecture == "idefics3":
        images = transformers.Idefics3ImageProcessorPil(
            size={"longest_edge": 32}, max_image_size={"longest_edge": 16}, do_image_splitting=False
        )
        transformers.Idefics3Processor(images, own, image_seq_len=4).save_pretrained(directory)
    else:
        own.save_pretrained(directory)
        kind = {"smolvlm": "SmolVLMImageProcessorPil"}.get(architecture, "Qwen2VLImageProcessorPil")
        getattr(transformers, kind)().save_pretrained(directory)
    if architecture.startswith("qwen2"):  # as published; whatever files say, Qwen2 language models get this class too
        file = directory / "tokenizer_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "tokenizer_class": "Qwen2Tokenizer"}))


def randomised(model: Any, seed: int) -> Any:
    """The model with norms and biases that are random too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.generation_config = transformers.GenerationConfig(pad_token_id=0, eos_token_id=1)
    return model


def save_vlm(directory: Path, architecture: str, seed: int = 0, **changes: Any) -> Path:
    """A random VLM with its processor."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForImageTextToText.from_config(CONFIGS[architecture]({**TEXT, **changes}))
    randomised(model, seed).save_pretrained(directory)
    save_processor(directory, architecture)
    return directory


def save_language_model(directory: Path, architecture: str, seed: int = 1, **changes: Any) -> Path:
    """A random plain language model that knows no pictures and has no rows for them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = MODELS[architecture](**{**TEXT, "vocab_size": PLAIN, **changes})
        model = transformers.AutoModelForCausalLM.from_config(config)
    randomised(model, seed).save_pretrained(directory)
    tiny_models.tokenizer().save_pretrained(directory)
    return directory
