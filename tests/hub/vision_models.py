"""A tiny LLaVA-NeXT under the name of the published one, with its image token and its 64 further rows."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers

from tests import tiny_vlms
from tests.hub.language_models import ROWS, SIZES, fine_tuned, save_safe, tokenizer
from tests.hub.repositories import Repository, folder
from tests.hub.server import Hub

LLAVA = "llava-hf/llava-v1.6-mistral-7b-hf"
MORE_ROWS = 64
TEMPLATE = (
    "{% for message in messages %}{% for part in message.content %}{% if part.type == 'image' %}<image>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}"
)


def add_llava(hub: Hub, root: Path) -> None:
    """The processor's files, safetensors, and a language part that is a fine-tune of Mistral."""
    at = root / LLAVA
    _save_processor(at)
    save_safe(_model(), at, "60KB")
    hub.add(Repository(LLAVA)).commit({**folder(at), "README.md": f"# {LLAVA}\n".encode()})


def _model() -> Any:
    language = fine_tuned("mistral", 7, MORE_ROWS)
    config = transformers.LlavaNextConfig(
        vision_config=transformers.CLIPVisionConfig(**tiny_vlms.TOWER),
        text_config=transformers.MistralConfig(
            **{**SIZES, "vocab_size": ROWS + MORE_ROWS, "sliding_window": None, "rope_theta": 1_000_000.0}
        ),
        image_token_index=ROWS, image_grid_pinpoints=tiny_vlms.PINPOINTS, pad_token_id=ROWS + 1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = transformers.LlavaNextForConditionalGeneration(config).to(torch.bfloat16)
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.lm_head.load_state_dict(language.lm_head.state_dict())
    return model


def _save_processor(at: Path) -> None:
    words = tokenizer("<image>", "<pad>")
    words.pad_token = "<pad>"
    words.init_kwargs["extra_special_tokens"] = {"image_token": "<image>"}
    images = transformers.LlavaNextImageProcessorPil(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, image_grid_pinpoints=tiny_vlms.PINPOINTS
    )
    transformers.LlavaNextProcessor(images, words, **tiny_vlms.IMAGES, chat_template=TEMPLATE).save_pretrained(at)
    (at / "added_tokens.json").write_text(json.dumps({"<image>": ROWS, "<pad>": ROWS + 1}))
