"""What recipe files call the families."""

from evohydra.checks.registry import Registry

HERE = "evohydra.families"
FAMILIES = Registry(
    "family",
    {
        "causal_lm": f"{HERE}.causal_lm.CausalLM",
        "vision_language": f"{HERE}.vision_language.VisionLanguage",
        "encoder": f"{HERE}.encoder.Encoder",
        "sdxl": f"{HERE}.sdxl.SDXL",
        "stable_diffusion": f"{HERE}.stable_diffusion.StableDiffusion",
        "sd3": f"{HERE}.sd3.SD3",
        "flux": f"{HERE}.flux.Flux",
    },
)
