"""Tiny random diffusion pipelines on disk, made with diffusers' own classes, for tests."""

import warnings
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from evohydra.families import comparison

diffusers.utils.logging.disable_progress_bar()
diffusers.utils.logging.set_verbosity_error()
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

START, END = "<|startoftext|>", "<|endoftext|>"
SIZE = 16  # pixels that a tiny pipeline draws; its latents are half of that


def tokenizer() -> CLIPTokenizer:
    """CLIP's kind of tokenizer without merges: each byte is a token, at the end of a word another one."""
    letters = sorted(chr(i) for i in (*range(33, 127), *range(161, 173), *range(174, 512)) if i < 324)
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), START, END]
    made: CLIPTokenizer = CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=[], model_max_length=77)
    return made


def text_config(hidden: int = 16, layers: int = 2) -> CLIPTextConfig:
    size = len(tokenizer())
    return CLIPTextConfig(
        vocab_size=size, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers,
        num_attention_heads=2, max_position_embeddings=77, projection_dim=hidden, bos_token_id=size - 2,
        eos_token_id=size - 1, pad_token_id=size - 1,
    )  # fmt: skip


def unet_sdxl(**changes: Any) -> diffusers.UNet2DConditionModel:
    """SDXL's plan (three stages, the first without attention) at a width of 16."""
    settings = {
        "sample_size": SIZE // 2, "block_out_channels": (16, 32, 32), "layers_per_block": 2, "norm_num_groups": 8,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 1, 2), "attention_head_dim": (2, 4, 4), "cross_attention_dim": 32,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 8, "use_linear_projection": True,
        "projection_class_embeddings_input_dim": 64,
    }  # fmt: skip
    return diffusers.UNet2DConditionModel(**{**settings, **changes})


def unet_sd15(**changes: Any) -> diffusers.UNet2DConditionModel:
    """The plan of Stable Diffusion 1.5 (four stages, the last without attention) at a width of 16."""
    settings = {
        "sample_size": SIZE // 2, "block_out_channels": (16, 16, 32, 32), "layers_per_block": 2, "norm_num_groups": 8,
        "attention_head_dim": 2, "cross_attention_dim": 16,
    }  # fmt: skip
    return diffusers.UNet2DConditionModel(**{**settings, **changes})


def vae(**changes: Any) -> diffusers.AutoencoderKL:
    settings = {
        "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "latent_channels": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
        "sample_size": SIZE,
    }  # fmt: skip
    return diffusers.AutoencoderKL(**{**settings, **changes})


def scheduler(**changes: Any) -> diffusers.EulerDiscreteScheduler:
    """That of SDXL-Lightning."""
    settings = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return diffusers.EulerDiscreteScheduler(**{**settings, "timestep_spacing": "trailing", **changes})


def make_sdxl(text_layers: int = 2, text_hidden: int = 16, prediction_type: str = "epsilon", **unet: Any) -> Any:
    """`text_layers` and `text_hidden` are the depth and the width of the second text encoder."""
    widths = {"cross_attention_dim": 16 + text_hidden, "projection_class_embeddings_input_dim": 48 + text_hidden}
    parts = {
        "unet": unet_sdxl(**{**widths, **unet}), "vae": vae(), "text_encoder": CLIPTextModel(text_config()),
        "text_encoder_2": CLIPTextModelWithProjection(text_config(text_hidden, text_layers)), "tokenizer": tokenizer(),
        "tokenizer_2": tokenizer(), "scheduler": scheduler(prediction_type=prediction_type),
    }  # fmt: skip
    return diffusers.StableDiffusionXLPipeline(**parts, add_watermarker=False)


def make_sd15(prediction_type: str = "epsilon", **unet: Any) -> Any:
    parts = {
        "unet": unet_sd15(**unet), "vae": vae(), "text_encoder": CLIPTextModel(text_config()),
        "tokenizer": tokenizer(), "scheduler": scheduler(prediction_type=prediction_type),
    }  # fmt: skip
    kept_out = {"safety_checker": None, "feature_extractor": None}
    return diffusers.StableDiffusionPipeline(**parts, **kept_out, requires_safety_checker=False)


def modules(pipeline: Any) -> dict[str, torch.nn.Module]:
    return {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}


def save(
    directory: Path,
    make: Any,
    seed: int,
    *,
    base: Path | None = None,
    step: float = 0.3,
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
    max_shard_size: str = "10GB",
    **settings: Any,
) -> Path:
    """The pipeline that `make` gives, or a random step of all its parts away from the one in `base`."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        pipeline = make(**settings) if base is None else diffusers.DiffusionPipeline.from_pretrained(base)
        if base is not None:
            with torch.no_grad():
                for module in modules(pipeline).values():
                    for parameter in module.parameters():
                        scale = float(parameter.std()) if parameter.numel() > 1 else 0.0
                        parameter.add_(torch.randn_like(parameter) * step * max(scale, 0.02))
        pipeline.to(dtype).save_pretrained(directory, variant=variant, max_shard_size=max_shard_size)
    return directory


def save_sdxl(directory: Path, seed: int, **settings: Any) -> Path:
    """A tiny StableDiffusionXLPipeline folder; see `save`."""
    return save(directory, make_sdxl, seed, **settings)


def save_pair(root: Path, make: Any = make_sdxl) -> tuple[Path, Path]:
    """Two pipelines that began as the same one."""
    base = save(root / "base", make, 0)
    return save(root / "one", make, 1, base=base), save(root / "two", make, 2, base=base)


@torch.inference_mode()
def draw(pipeline: Any, prompts: tuple[str, ...] = ("a cat", "七"), seed: int = 0, **settings: Any) -> torch.Tensor:
    """Pixels in [0, 1], (n, 3, SIZE, SIZE): four steps without guidance, from noise of this seed."""
    noise = [torch.Generator().manual_seed(seed + i) for i, _ in enumerate(prompts)]
    chosen = {"num_inference_steps": 4, "guidance_scale": 0.0, "height": SIZE, "width": SIZE, "output_type": "pt"}
    pixels: torch.Tensor = pipeline(list(prompts), generator=noise, **{**chosen, **settings}).images
    return pixels


def apart(one: Any, other: Any) -> float:
    """The largest difference between their pixels, over the largest."""
    return comparison.apart(draw(one), draw(other))


def allowed(pipeline: Any) -> float:
    """How much of it rounding explains where the weights are the same, in the four steps of `draw`."""
    return comparison.rounding([*modules(pipeline).values()], pipeline.dtype, passes=4)


def assert_the_same(one: Any, other: Any) -> None:
    """Weights bit for bit, pixels but for rounding: their last bits depend on where the weights lie in memory."""
    ours, theirs = modules(one), modules(other)
    assert ours.keys() == theirs.keys()
    assert not [name for key, module in ours.items() for name in comparison.differing(theirs[key], module, f"{key}/")]
    assert apart(one, other) <= allowed(one)


def t5(width: int) -> tuple[Any, Any]:
    """A T5 encoder and a tokenizer for it."""
    words = tokenizer()
    config = transformers.T5Config(
        vocab_size=len(words), d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2, pad_token_id=len(words) - 1,
        eos_token_id=len(words) - 1, decoder_start_token_id=0, is_encoder_decoder=False, use_cache=False,
    )  # fmt: skip
    return transformers.T5EncoderModel(config), words


def make_sd3() -> Any:
    """Stable Diffusion 3 with two blocks and a small T5."""
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        caption_projection_dim=32, joint_attention_dim=32, pooled_projection_dim=32, out_channels=4,
    )  # fmt: skip
    encoder, words = t5(32)
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer, vae=vae(shift_factor=0.1, scaling_factor=1.5), text_encoder_3=encoder,
        text_encoder=CLIPTextModelWithProjection(text_config()), tokenizer=tokenizer(), tokenizer_2=tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(text_config()), tokenizer_3=words,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )  # fmt: skip


def make_flux() -> Any:
    """FLUX.1 with one block of each kind and a small T5."""
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    encoder, words = t5(16)
    return diffusers.FluxPipeline(
        transformer=transformer, vae=vae(shift_factor=0.1, scaling_factor=1.5),
        text_encoder=CLIPTextModel(text_config()), tokenizer=tokenizer(), text_encoder_2=encoder, tokenizer_2=words,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )  # fmt: skip
