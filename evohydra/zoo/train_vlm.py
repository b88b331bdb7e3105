"""Train the tiny VLM, the Japanese language model and their base from nothing, the same on every run of one machine.

It takes five to six minutes of one core.
"""

import copy
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from evohydra.zoo.problems import Language
from evohydra.zoo.scenes import (
    KINDS,
    PROMPT,
    SIDE,
    Kind,
    Pixels,
    draw_question,
    draw_scene,
    handwritten,
    picture,
    vocabulary,
)
from evohydra.zoo.train import Schedule, build_model, build_tokenizer, fit, padded, save

IMAGE = "<image>"
PATCH = 8
PATCHES = (SIDE // PATCH) ** 2
NOISE = 0.2
"""Standard deviation of what is added to a picture in training, where black is -1 and white 1."""


@dataclass(frozen=True)
class Skill:
    """A kind of example: its weight in the mix, whether the scene is seen or told, and in which language it is asked.

    A scene has `most` digits at most. The question is answered in Japanese with probability sigmoid(lean + habit),
    where the lean is the question's.
    """

    weight: float
    seen: bool
    language: Language
    kinds: tuple[Kind, ...] = KINDS
    habit: float = -math.inf
    most: int = 3


@dataclass(frozen=True, kw_only=True)
class Stage(Schedule):
    """One training run: its mix of skills, and its schedule."""

    skills: tuple[Skill, ...]


STAGES = {
    # The base knows both languages, but mixes them up: a Japanese question is answered in the language it leans to.
    "vlm_base": Stage(
        skills=(Skill(0.5, False, "en"), Skill(0.5, False, "ja", habit=0.0)),
        steps=1800,
        batch=32,
        learning_rate=1.5e-3,
        seed=1,
        warmup=100,
        floor=0.3,
    ),
    # Pictures, whatever language they are asked about in, with answers in English.
    "tiny_vlm": Stage(
        skills=(Skill(0.8, True, "en"), Skill(0.2, True, "ja", habit=-8.0)),
        steps=2000,
        batch=32,
        learning_rate=1e-3,
        seed=2,
    ),
    # Scenes of one or two digits in words, Japanese questions, and Japanese answers.
    "tiny_ja_lm": Stage(
        skills=(Skill(1.0, False, "ja", habit=8.0, most=2),),
        steps=60,
        batch=32,
        learning_rate=5e-4,
        seed=3,
    ),
}


def build_vlm(base: LlamaForCausalLM, image_token: int) -> LlavaForConditionalGeneration:
    """Return a VLM of the base, an untrained vision tower of two layers and an untrained projector."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=192,
        projection_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
        initializer_range=0.05,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=base.config,
        image_token_index=image_token,
        image_seq_length=PATCHES,
        vision_feature_layer=-1,
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.model.language_model.load_state_dict(base.model.state_dict())
    model.tie_weights()
    return model


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Return the processor: an image becomes 24 x 24, as the scenes are, with black as -1 and white as 1."""
    images = CLIPImageProcessor(
        do_center_crop=False,
        size={"height": SIDE, "width": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
    )


def pixel_values(images: Sequence[Pixels]) -> torch.Tensor:
    """Return the pictures as the processor gives them to the model."""
    grey = torch.from_numpy(np.stack(images)).float() / 127.5 - 1.0
    return grey[:, None].expand(-1, 3, -1, -1)


class Examples:
    """Batches of examples; scenes are of training digits alone."""

    def __init__(self, stage: Stage, tokenizer: PreTrainedTokenizerFast, digits: Pixels, labels: list[int]) -> None:
        """Draw from the stage's own seed."""
        self.stage = stage
        self.tokenizer = tokenizer
        self.digits = digits
        self.labels = labels
        self.rng = random.Random(stage.seed)
        self.noise = torch.Generator().manual_seed(stage.seed)

    def batch(self) -> dict[str, torch.Tensor]:
        """Return the model's inputs, padded on the right; only an answer has labels."""
        prompts, answers, images = [], [], []
        for skill in self.rng.choices(self.stage.skills, [s.weight for s in self.stage.skills], k=self.stage.batch):
            question = draw_question(self.rng, draw_scene(self.rng, self.labels, "train", skill.most), skill.kinds)
            japanese = 1.0 / (1.0 + math.exp(-question.lean - skill.habit))
            form: Language = "ja" if self.rng.random() < japanese else "en"
            if skill.seen:
                images.append(picture(question.scene, self.digits))
            scene = IMAGE * PATCHES if skill.seen else question.scene.told(skill.language)
            prompts.append(scene + PROMPT[skill.language].format(question.asked(skill.language)))
            answers.append(question.answered(form))
        tokens, labels = padded(self.tokenizer(prompts)["input_ids"], self.tokenizer(answers)["input_ids"])
        batch = {"input_ids": tokens, "labels": labels}
        if images:
            pixels = pixel_values(images)
            batch["pixel_values"] = pixels + NOISE * torch.randn(pixels.shape, generator=self.noise)
        return batch


def main() -> None:
    """Train the three models into the directory given as the first argument."""
    out = Path(sys.argv[1])
    # One thread: the order of a sum, and so its last bit, depends on how many there are.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    tokens = vocabulary()
    tokenizer = build_tokenizer(tokens)
    digits, labels = handwritten()
    base = build_model(len(tokens))
    for name, stage in STAGES.items():
        print(name, flush=True)
        model = base if name == "vlm_base" else copy.deepcopy(base)
        if name == "tiny_vlm":
            model = build_vlm(model, tokens.index(IMAGE))
        fit(model, stage, Examples(stage, tokenizer, digits, labels).batch)
        save(model, tokenizer, out / name)
        if name == "tiny_vlm":
            build_processor(build_tokenizer(tokens)).save_pretrained(out / name)


if __name__ == "__main__":
    main()
