"""Stable Diffusion 1.5: pipelines of the class StableDiffusionPipeline."""

from types import MappingProxyType

from evohydra.families.diffusion import UNET, Diffusion


class StableDiffusion(Diffusion):
    """The family of Stable Diffusion 1.5; see `Diffusion`."""

    name = "stable_diffusion"
    pipeline = "StableDiffusionPipeline"
    denoiser = "unet"
    why_no_paths = UNET
    original = MappingProxyType(
        {
            "unet": "model.diffusion_model.",
            "vae": "first_stage_model.",
            "text_encoder": "cond_stage_model.transformer.",
        }
    )
