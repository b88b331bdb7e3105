"""Stable Diffusion XL: pipelines of the class StableDiffusionXLPipeline."""

from collections.abc import Mapping
from types import MappingProxyType

from evohydra.families.diffusion import UNET, Diffusion


class SDXL(Diffusion):
    """The family of Stable Diffusion XL; see `Diffusion`."""

    name = "sdxl"
    pipeline = "StableDiffusionXLPipeline"
    denoiser = "unet"
    why_no_paths = UNET
    settings: Mapping[str, object] = MappingProxyType({"add_watermarker": False})
    original = MappingProxyType(
        {
            "unet": "model.diffusion_model.",
            "vae": "first_stage_model.",
            "text_encoder": "conditioner.embedders.0.transformer.",
            "text_encoder_2": "conditioner.embedders.1.model.",
        }
    )
