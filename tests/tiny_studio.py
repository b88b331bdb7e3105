"""A live diffusion model and benchmarks of pictures for tests, without a family."""

from dataclasses import dataclass
from typing import Any

import torch

from evohydra.scoring.benchmarks.text_to_image import TextToImage, text_to_image
from tests import tiny_pipelines
from tests.tiny_pipelines import SIZE
from tests.tiny_scorers import Brightness

CPU = torch.device("cpu")
SPLITS = {
    "search": {"start": 0, "stop": 5}, "validation": {"start": 5, "stop": 7}, "test": {"start": 7, "stop": 11},
}  # fmt: skip


@dataclass
class Live:
    """What benchmarks see of a live diffusion model."""

    pipeline: Any
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32

    @property
    def module(self) -> Any:
        return self.pipeline.unet if self.pipeline.components.get("unet") else self.pipeline.transformer

    @torch.no_grad()
    def change(self, step: float = 0.05) -> None:
        """Another genome: every weight of the denoiser moves."""
        for parameter in self.module.parameters():
            parameter.add_(step * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))


def live(make: Any = tiny_pipelines.make_sdxl, **settings: Any) -> Live:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Live(make(**settings))


def benchmarks(name: str = "tiny", **options: Any) -> dict[str, TextToImage]:
    chosen = {"prompts": "ja", "scorers": {"brightness": Brightness}, "splits": SPLITS, "height": SIZE, "width": SIZE}
    return text_to_image(name, **{**chosen, **options})


def benchmark(**options: Any) -> TextToImage:
    (made,) = benchmarks(**options).values()
    return made
