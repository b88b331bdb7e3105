"""FLUX.1: pipelines of the class FluxPipeline."""

from evohydra.families.diffusion import TRANSFORMER, Diffusion


class Flux(Diffusion):
    """The family of FLUX.1; see `Diffusion`."""

    name = "flux"
    pipeline = "FluxPipeline"
    denoiser = "transformer"
    why_no_paths = TRANSFORMER
