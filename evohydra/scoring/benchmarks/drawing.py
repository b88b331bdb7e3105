"""Pictures that the live pipeline draws of prompts, from noise that is the same for every genome."""

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from evohydra.checks import Count
from evohydra.checks.libraries import optional
from evohydra.files import Plain
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.frozen import fingerprints
from evohydra.scoring.benchmarks.kept_inputs import KeptInputs
from evohydra.scoring.benchmarks.prompts import Prompt


@dataclass(frozen=True)
class Drawing:
    """How pictures are drawn; None is the pipeline's own.

    scheduler: the `name` of a scheduler of diffusers, and options over those of the pipeline's scheduler.
    """

    steps: Count = 4
    guidance: float | None = 0.0
    height: Count | None = None
    width: Count | None = None
    scheduler: Plain | None = None
    negative_prompt: str | None = None

    def check(self, where: str) -> None:
        """BenchmarkError for what no pipeline could draw with."""
        if self.scheduler is not None:
            _scheduler_class(where, self.scheduler)


class Painter:
    """Draws with the pipeline of one live model."""

    def __init__(self, where: str, live: Any, drawing: Drawing, cache_bytes: int) -> None:
        self.live, self._drawing = live, drawing
        self._pipeline = live.pipeline
        self._pipeline.set_progress_bar_config(disable=True)
        self._inputs = KeptInputs(self._pipeline, cache_bytes)
        self._scheduler = self._pipeline.scheduler
        if drawing.scheduler is not None:
            options = {key: value for key, value in drawing.scheduler.items() if key != "name"}
            made = _scheduler_class(where, drawing.scheduler)
            self._scheduler = made.from_config(self._pipeline.scheduler.config, **options)
        for key, size in (("height", drawing.height), ("width", drawing.width)):
            if size is not None and size % self._pipeline.vae_scale_factor:
                raise BenchmarkError(
                    f"{where}: {key}: expected a multiple of {self._pipeline.vae_scale_factor} for this VAE, got {size}"
                )

    def begin_genome(self) -> None:
        """Another genome may be in the live model."""
        self._inputs.begin_genome()

    def weights(self) -> tuple[tuple[int, int], ...]:
        """The same for the same numbers in all parts of the pipeline."""
        parts = [part for part in self._pipeline.components.values() if isinstance(part, torch.nn.Module)]
        return fingerprints([parameter for part in parts for parameter in part.parameters()])

    def __call__(self, prompts: Sequence[Prompt]) -> list[Image.Image]:
        """A picture of each of `prompts`, from the noise of its seed; one batch.

        Raises FloatingPointError where the denoiser or the VAE gives numbers that are not finite.
        """
        drawing = self._drawing
        wanted: dict[str, object] = {
            "guidance_scale": drawing.guidance,
            "height": drawing.height,
            "width": drawing.width,
        }
        if drawing.negative_prompt is not None:
            wanted["negative_prompt"] = [drawing.negative_prompt] * len(prompts)
        with self._inputs.standing_in(), self._drawing_scheduler(), _finite_decoding(self._pipeline.vae):
            images: list[Image.Image] = self._pipeline(
                prompt=[prompt.text for prompt in prompts],
                generator=[torch.Generator("cpu").manual_seed(prompt.seed) for prompt in prompts],
                num_inference_steps=drawing.steps,
                callback_on_step_end=_check_latents,
                output_type="pil",
                **{key: value for key, value in wanted.items() if value is not None},
            ).images
        return images

    @contextlib.contextmanager
    def _drawing_scheduler(self) -> Iterator[None]:
        """The pipeline is left with its own: that is the one which the winner is written and verified with."""
        own = self._pipeline.scheduler
        try:
            self._pipeline.scheduler = self._scheduler
            yield
        finally:
            self._pipeline.scheduler = own


def _check_latents(pipeline: object, step: int, _: object, tensors: dict[str, Any]) -> dict[str, object]:
    if not torch.isfinite(tensors["latents"]).all():
        raise FloatingPointError(f"the denoiser's latents are not finite after step {step + 1}")
    return tensors


@contextlib.contextmanager
def _finite_decoding(vae: Any) -> Iterator[None]:
    """An image that is not finite, from latents that are, is an error instead of a black picture."""

    def check(_: torch.nn.Module, __: object, output: Any) -> None:
        decoded = output[0] if isinstance(output, tuple) else output
        if not torch.isfinite(decoded).all():
            raise FloatingPointError(
                f"the VAE's image is not finite, though the latents are: an overflow in {decoded.dtype}. Use a VAE "
                "that bears it, or float32 for it (force_upcast: true in vae/config.json, or out_dtype=float32)"
            )

    handle = vae.decoder.register_forward_hook(check)
    try:
        yield
    finally:
        handle.remove()


def _scheduler_class(where: str, wanted: Mapping[str, object]) -> Any:
    diffusers = optional("diffusers", where, "evohydra[diffusion]")
    name = wanted.get("name")
    found = getattr(diffusers, name, None) if isinstance(name, str) and name.endswith("Scheduler") else None
    if found is None:
        raise BenchmarkError(
            f"{where}: scheduler.name: expected a scheduler of diffusers, as EulerDiscreteScheduler, got {name!r}"
        )
    known = set(inspect.signature(found.__init__).parameters) - {"self"}
    if unknown := sorted(set(wanted) - known - {"name"}):
        raise BenchmarkError(f"{where}: scheduler: {name} has no options {unknown}; it has {sorted(known)}")
    return found
