"""Train the tiny SDXL pipelines: their parts, a common base and two fine-tunes; the same on every run of one machine.

It takes six to seven minutes of one core. Text encoders learn to foretell the words of captions, the VAE to compress
pictures; from then on both are frozen, and only UNets are trained, for the four steps in which they will draw.
"""

import copy
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from evohydra.zoo.digit_captions import NUMBERS, draw_caption, phrasings, said
from evohydra.zoo.digit_tokenizer import LENGTH, build_tokenizer
from evohydra.zoo.digits import DRAWN, SIDE, pictures
from evohydra.zoo.problems import Language
from evohydra.zoo.train import IGNORED, Schedule, descend

Style = Literal["chalk", "ink"]
WIDTH = 32
BATCH = 32
STEPS = 4
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
PARTS = Schedule(steps=150, batch=64, learning_rate=3e-3, seed=5, warmup=1, floor=0.02)
VAE = Schedule(steps=1500, batch=64, learning_rate=3e-3, seed=6, warmup=1, floor=0.02)


@dataclass(frozen=True)
class Skill:
    """A kind of example: its weight in the mix, the language of its captions, and the style of its pictures.

    A caption tells another digit, drawn at random, with probability `mismatched`, as many captions on the web do.
    Chalk is light on dark, as the digits of the data set are; ink is dark on light.
    """

    weight: float
    language: Language
    style: Style
    mismatched: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Stage(Schedule):
    """One training run of a UNet: its mix of skills, its schedule, and whether its attention alone is trained."""

    skills: tuple[Skill, ...]
    attention_alone: bool = False


STAGES = {
    # The base draws in ink what English captions ask for; of Japanese ones it has seen too few that are right.
    "digits_base": Stage(
        skills=(Skill(0.6, "en", "ink"), Skill(0.4, "ja", "ink", mismatched=0.7)),
        steps=1500,
        batch=BATCH,
        learning_rate=2e-3,
        seed=1,
        warmup=50,
        floor=0.05,
    ),
    # Chalk, and English alone.
    "tiny_digits_en": Stage(
        skills=(Skill(1.0, "en", "chalk"),), steps=500, batch=BATCH, learning_rate=1e-3, seed=2, warmup=50, floor=0.05
    ),
    # Japanese, in ink still.
    "tiny_digits_ja": Stage(
        skills=(Skill(1.0, "ja", "ink"),),
        steps=2500,
        batch=BATCH,
        learning_rate=1e-3,
        seed=3,
        warmup=50,
        floor=0.05,
        attention_alone=True,
    ),
}


def build_pipeline() -> StableDiffusionXLPipeline:
    """Return the untrained pipeline: 16 x 16 pixels, latents of 8 x 8."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        pad_token_id=tokenizer.pad_token_id,
        **ends,
    )
    unet = UNet2DConditionModel(
        sample_size=SIDE // 2,
        block_out_channels=(32, 48),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 3),
        cross_attention_dim=2 * WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )
    vae = AutoencoderKL(
        sample_size=SIDE,
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        force_upcast=False,
    )
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        text_encoder_2=CLIPTextModelWithProjection(copy.deepcopy(text)),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=scheduler,
        add_watermarker=False,
    )


def styled(style: Style) -> Tensor:
    """Return the pictures to train on, in the style, as the VAE takes them: (n, 3, 16, 16), from -1 to 1."""
    grey = torch.from_numpy(pictures(DRAWN)[0]).float() / 127.5 - 1.0
    return (grey if style == "chalk" else -grey)[:, None].expand(-1, 3, -1, -1)


def train_text(encoder: CLIPTextModel | CLIPTextModelWithProjection, tokenizer: CLIPTokenizer, seed: int) -> None:
    """Train a text encoder to foretell each token of a caption from those before it."""
    rng, noise = random.Random(seed), torch.Generator().manual_seed(seed)
    words = encoder.get_input_embeddings().weight
    # Far larger than usual: words that are told apart at once make UNets learn several times faster.
    words.data.normal_(generator=noise)

    def loss() -> Tensor:
        languages: list[Language] = rng.choices(("en", "ja"), k=PARTS.batch)
        captions = [draw_caption(rng, each, rng.randrange(10), phrasings(each)) for each in languages]
        tokens = tokenizer(captions, padding="max_length", return_tensors="pt")["input_ids"]
        padding = (tokens == tokenizer.eos_token_id).cumsum(1) > 1
        foretold = encoder(tokens).last_hidden_state @ words.T / WIDTH**0.5  # (batch, LENGTH, vocabulary)
        answers = tokens.masked_fill(padding, IGNORED)
        return functional.cross_entropy(foretold[:, :-1].flatten(0, 1), answers[:, 1:].flatten())

    descend(list(encoder.parameters()), PARTS, loss)


def train_vae(vae: AutoencoderKL) -> None:
    """Train the VAE on pictures of both styles, and note the scale of its latents."""
    noise = torch.Generator().manual_seed(VAE.seed)
    images = torch.cat([styled("chalk"), styled("ink")])

    def loss() -> Tensor:
        batch = images[torch.randint(len(images), (VAE.batch,), generator=noise)]
        latents = vae.encode(batch).latent_dist
        again = vae.decode(latents.mean + latents.std * torch.randn(latents.mean.shape, generator=noise)).sample
        divergence: Tensor = latents.kl().mean() / latents.mean[0].numel()
        return functional.mse_loss(again, batch) + 1e-3 * divergence

    descend(list(vae.parameters()), VAE, loss)
    with torch.no_grad():
        spread = vae.encode(images).latent_dist.mean.std()
    vae.register_to_config(scaling_factor=round(1.0 / spread.item(), 4))


class Examples:
    """What UNets are trained on: noised latents of the training digits, each with a caption."""

    def __init__(self, pipeline: StableDiffusionXLPipeline, stage: Stage) -> None:
        """Draw from the stage's own seed; texts and pictures are encoded once."""
        self.stage = stage
        self.rng = random.Random(stage.seed)
        self.noise = torch.Generator().manual_seed(stage.seed)
        self.labels = pictures(DRAWN)[1]
        self.phrasings = {skill.language: phrasings(skill.language) for skill in stage.skills}
        captions = [
            said(phrasing, word)
            for language, known in self.phrasings.items()
            for phrasing in known
            for words in NUMBERS[language]
            for word in words
        ]
        self.places = {caption: place for place, caption in enumerate(captions)}
        scheduler = pipeline.scheduler
        self.kept = scheduler.alphas_cumprod.float()
        scheduler.set_timesteps(STEPS)
        self.times = scheduler.timesteps.long()
        with torch.no_grad():
            self.texts, _, self.pooled, _ = pipeline.encode_prompt(captions, do_classifier_free_guidance=False)
            self.latents = {
                style: pipeline.vae.encode(styled(style)).latent_dist.mean * pipeline.vae.config.scaling_factor
                for style in sorted({skill.style for skill in stage.skills})
            }

    def batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return noised latents, timesteps, text embeddings, pooled text embeddings, and the velocities to predict."""
        skills = self.rng.choices(self.stage.skills, [s.weight for s in self.stage.skills], k=self.stage.batch)
        clean, places = [], []
        for skill in skills:
            image = self.rng.randrange(len(self.labels))
            mismatched = self.rng.random() < skill.mismatched
            digit = self.rng.randrange(10) if mismatched else self.labels[image]
            caption = draw_caption(self.rng, skill.language, digit, self.phrasings[skill.language])
            clean.append(self.latents[skill.style][image])
            places.append(self.places[caption])
        latents = torch.stack(clean)
        # Three in four are of the timesteps that will be asked for.
        drawn = torch.randint(STEPS, (len(places),), generator=self.noise)
        any_time = torch.randint(len(self.kept), (len(places),), generator=self.noise)
        times = torch.where(torch.rand(len(places), generator=self.noise) < 0.75, self.times[drawn], any_time)
        signal = self.kept[times].sqrt().view(-1, 1, 1, 1)
        spoilt = (1.0 - self.kept[times]).sqrt().view(-1, 1, 1, 1)
        noise = torch.randn(latents.shape, generator=self.noise)
        # v-prediction (Salimans and Ho 2022, arXiv 2202.00512, section 4 and appendix D)
        velocity = signal * noise - spoilt * latents
        return signal * latents + spoilt * noise, times, self.texts[places], self.pooled[places], velocity


def train_unet(pipeline: StableDiffusionXLPipeline, stage: Stage) -> None:
    """Train the pipeline's UNet in place through the stage."""
    unet, examples = pipeline.unet, Examples(pipeline, stage)
    sizes = torch.tensor([[SIDE, SIDE, 0, 0, SIDE, SIDE]]).expand(stage.batch, -1)  # as the pipeline gives them

    def loss() -> Tensor:
        latents, times, texts, pooled, velocity = examples.batch()
        added = {"text_embeds": pooled, "time_ids": sizes}
        predicted = unet(latents, times, encoder_hidden_states=texts, added_cond_kwargs=added).sample
        return functional.mse_loss(predicted, velocity)

    descend(trained(unet, stage), stage, loss)
    unet.requires_grad_(True)


def trained(unet: UNet2DConditionModel, stage: Stage) -> Sequence[torch.nn.Parameter]:
    """Return the parameters that the stage trains; the others are frozen."""
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(not stage.attention_alone or any(part in name for part in ATTENTION))
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


def train_parts(pipeline: StableDiffusionXLPipeline) -> None:
    """Train and freeze what all pipelines share: text encoders and VAE."""
    train_text(pipeline.text_encoder, pipeline.tokenizer, PARTS.seed)
    train_text(pipeline.text_encoder_2, pipeline.tokenizer, PARTS.seed + 1)
    train_vae(pipeline.vae)
    for part in (pipeline.text_encoder, pipeline.text_encoder_2, pipeline.vae):
        part.requires_grad_(False).eval()


def main() -> None:
    """Train the three pipelines into the directory given as the first argument."""
    out = Path(sys.argv[1])
    # One thread: the order of a sum, and so its last bit, depends on how many there are.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    pipeline = build_pipeline()
    train_parts(pipeline)
    base = pipeline.unet
    for name, stage in STAGES.items():
        print(name, flush=True)
        pipeline.unet = base if name == "digits_base" else copy.deepcopy(base)
        train_unet(pipeline, stage)
        pipeline.save_pretrained(out / name)


if __name__ == "__main__":
    main()
