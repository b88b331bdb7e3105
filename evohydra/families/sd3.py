"""Stable Diffusion 3: pipelines of the class StableDiffusion3Pipeline."""

from evohydra.families.diffusion import TRANSFORMER, Diffusion


class SD3(Diffusion):
    """The family of Stable Diffusion 3; see `Diffusion`."""

    name = "sd3"
    pipeline = "StableDiffusion3Pipeline"
    denoiser = "transformer"
    why_no_paths = TRANSFORMER
