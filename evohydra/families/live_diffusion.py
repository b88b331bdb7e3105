"""A diffusion pipeline in memory: made from configurations, filled by merges in place."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evohydra.checks.libraries import optional
from evohydra.families import Fused, Overlay
from evohydra.families import pipeline_files as files
from evohydra.families.in_place import by_checkpoint_name
from evohydra.families.private_transformers import from_config, no_init_weights
from evohydra.families.refusals import refused
from evohydra.families.settings_files import LOCAL
from evohydra.families.tensor_sets import BUFFERS
from evohydra.merging.checkpoints import SourceError, first_few
from evohydra.merging.engine import Engine
from evohydra.recipe import Node

PROMPT = "a photograph of a cat"
STEPS, SIDE = 2, 8  # of the picture by which a written pipeline is compared, in latents


@dataclass
class LiveDiffusion:
    """A whole pipeline, its denoiser (`module`), and the parameters of all its components by checkpoint name.

    `merged` names the components that recipes change; what the others give (text embeddings) stays the same for a whole
    run. `fused` is added to the tensors of every merge, `kept` are adapters that are loaded beside them.
    """

    pipeline: Any
    module: torch.nn.Module
    device: torch.device
    dtype: torch.dtype
    parameters: Mapping[str, Tensor]
    merged: frozenset[str]
    fused: Mapping[str, Fused]
    kept: Mapping[Path, float]
    filled: bool = False

    @property
    def tokenizer(self) -> object:
        """The first one."""
        return self.pipeline.tokenizer

    @torch.inference_mode()
    def become(self, node: Node, engine: Engine) -> None:
        """Make this the pipeline that `node` describes, in place: what is copied is written once.

        Raises MergeError where a merged tensor is not finite.
        """
        changing = {n: p for n, p in self.parameters.items() if not self.filled or n.split("/")[0] in self.merged}
        engine.merge_into(node, changing)
        for name in changing.keys() & self.fused.keys():
            changing[name].copy_(self.fused[name].added_to(changing[name]))
        self.filled = True

    def expect(self, recipes: Sequence[Node]) -> None:
        """Nothing is shared between merges."""


def make_pipeline(
    kind: str,
    folders: Mapping[str, Path],
    index: Mapping[str, object],
    device: torch.device,
    dtype: torch.dtype,
    schedule: Mapping[str, object],
) -> Any:
    """A pipeline of the class `kind` whose weights hold arbitrary numbers, without a progress bar of its own.

    `index` is its model_index.json, whose plain values are arguments of the class, `schedule` what changes in the
    settings of its scheduler.
    """
    parts: dict[str, object] = {}
    for component, folder in folders.items():
        if files.has_weights(folder):
            parts[component] = _module(folder, device, dtype)
        elif component.startswith("tokenizer"):
            parts[component] = files.tokenizer(folder)
        else:
            parts[component] = files.scheduler(folder, schedule)
    plain = {key: value for key, value in index.items() if not key.startswith("_") and not isinstance(value, list)}
    absent = {key: None for key, value in index.items() if isinstance(value, list) and not any(value)}
    with refused(f"expected the components of a {kind}, got those of {sorted(parts)}"):
        made = getattr(files.diffusers(), kind)(**parts, **absent, **plain)
    made.set_progress_bar_config(disable=True)
    return made


def load_beside(pipeline: Any, adapters: Mapping[Path, float]) -> None:
    """Load adapters without changing a weight: diffusers runs them beside the layers.

    Raises SourceError where it cannot.
    """
    if adapters:
        optional("peft", "adapters with fuse: false", "evohydra[diffusion]")
        names = [f"kept_{number}" for number, _ in enumerate(adapters)]
        for name, file in zip(names, adapters, strict=True):
            try:
                pipeline.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=name)
            except (ValueError, KeyError, RuntimeError) as error:
                raise SourceError(
                    f"adapter {file}: diffusers cannot load it beside the weights ({error}); fuse: true adds it to them"
                ) from error
        pipeline.set_adapters(names, [*adapters.values()])


def _module(folder: Path, device: torch.device, dtype: torch.dtype) -> torch.nn.Module:
    made: Any
    kind = files.class_of(folder)
    known = refused(f"{folder}: expected the configuration of a {kind.__name__}")
    with no_init_weights(), device, _default(dtype), known:
        if files.of_diffusers(folder):
            made = kind.from_config(files.read_json(folder / "config.json"))
        else:
            made = from_config(kind, kind.config_class.from_pretrained(folder, **LOCAL), dtype=dtype)
            made.tie_weights()  # part of the initialisation that was left out
    # Gradients are left on: kernels are chosen by it, and the pixels are to be those of what from_pretrained gives.
    finished: torch.nn.Module = made.to(device).eval()
    return finished


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def parameters_of(pipeline: Any, overlay: Overlay) -> dict[str, Tensor]:
    """Parameters and stored buffers of all components, by checkpoint name; SourceError where sources lack some."""
    assert overlay.names is not None
    found: dict[str, Tensor] = {}
    for component, folder in overlay.folders.items():
        if not files.has_weights(folder):
            continue
        module = pipeline.components[component]
        known = {name.split("/", 1)[1] for name in overlay.names if name.startswith(f"{component}/")}
        if files.of_diffusers(folder):
            stored = module.state_dict(keep_vars=True)
        else:
            stored = dict(by_checkpoint_name(module, known, lambda name: name.removeprefix(files.TEXT_MODEL)))
        if lost := sorted(set(stored) - known):
            raise SourceError(
                f"component {component!r}: expected {len(stored)} tensors for {type(module).__name__}, {len(lost)} are "
                f"missing from the sources, the first is {lost[0]!r}"
            )
        if unused := sorted(name for name in known - set(stored) if not BUFFERS.search(name)):
            raise SourceError(
                f"component {component!r}: {len(unused)} tensors of the sources are no part of the "
                f"{type(module).__name__} that its config.json describes: {first_few(unused)}"
            )
        found |= {f"{component}/{name}": tensor for name, tensor in stored.items()}
    return found


@torch.inference_mode()
def draw(pipeline: Any) -> Tensor:
    """A small picture, (1, 3, h, w), in few steps from fixed noise."""
    side = SIDE * pipeline.vae_scale_factor
    noise = torch.Generator().manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the picture is no picture anyway
        drawn = pipeline(
            PROMPT,
            num_inference_steps=STEPS,
            guidance_scale=0.0,
            height=side,
            width=side,
            generator=noise,
            output_type="pt",
        )
    pixels: Tensor = drawn.images.float()
    return pixels
