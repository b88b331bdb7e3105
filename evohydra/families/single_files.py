"""Single safetensors files in the layout of the original releases, read by diffusers' own conversion, as views."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from evohydra.checks.libraries import PrivateParts
from evohydra.families import pipeline_files as files
from evohydra.families.noise_schedules import MARKS, marks_in
from evohydra.families.private_transformers import from_config
from evohydra.families.settings_files import LOCAL
from evohydra.families.tensor_sets import BUFFERS
from evohydra.merging.checkpoints import SCALE, SourceError, TensorSource, check_plain

# Where text encoders begin; the first two are converted from OpenAI's CLIP, the third from OpenCLIP.
CLIP = {"text_encoder": ("conditioner.embedders.0.transformer.", "cond_stage_model.transformer.")}
OPEN_CLIP = {"text_encoder_2": "conditioner.embedders.1.model."}
VAE = {"vae": "first_stage_model."}
# diffusers does not document its conversion.
PARTS = (
    PrivateParts("diffusers", "0.42.1", "diffusers.loaders.single_file_model", ("SINGLE_FILE_LOADABLE_CLASSES",)),
    PrivateParts("diffusers", "0.42.1", "diffusers.loaders.single_file_utils", ("convert_open_clip_checkpoint",)),
)
DENOISER = ("model.diffusion_model.", "double_blocks.", "joint_blocks.")


class MappedTensors:
    """Tensors that are in memory as views of one mapped file."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self.shapes: Mapping[str, tuple[int, ...]] = {n: tuple(t.shape) for n, t in sorted(tensors.items())}

    def read(self, name: str) -> Tensor:
        """The tensor `name`."""
        return self._tensors[name]


def open_single(path: Path, directory: Path, denoiser: str) -> TensorSource:
    """The components that a file holds of a pipeline like the one in `directory`, by "<component>/<name>".

    Raises SourceError where it holds no denoiser, or one of another architecture.
    """
    stored = _mapped(path)
    found: dict[str, Tensor] = {}
    for component, folder in files.folders(directory, denoiser).items():
        if not files.has_weights(folder) or not _holds(stored, component, denoiser):
            continue
        try:
            converted = _converted(component, folder, stored)
        except (KeyError, ValueError, IndexError, RuntimeError) as error:
            raise SourceError(f"{path}: expected a {component} like that in {folder}, got {error!r}") from error
        _check(path, component, folder, converted)
        found |= {f"{component}/{name}": tensor for name, tensor in converted.items()}
    if not any(name.startswith(f"{denoiser}/") for name in found):
        raise SourceError(f"{path}: expected a checkpoint in the original layout with a {denoiser}, got {_few(stored)}")
    found |= {mark: torch.zeros(0) for mark in marks_in(_header(path))}
    found |= {mark: stored[mark] for mark in MARKS if mark in stored}
    return MappedTensors(found)


def dtype(path: Path) -> torch.dtype:
    """The type of the denoiser's tensors, or of what the file holds at all."""
    stored = _mapped(path)
    inside = [name for name in stored if name.startswith(DENOISER)] or [*stored]
    return stored[inside[0]].dtype


def _mapped(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt", device="cpu") as opened:
            stored = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (it is no mapping)
    except (SafetensorError, OSError) as error:
        raise SourceError(f"{path}: truncated or corrupt safetensors file ({error})") from error
    for name in filter(SCALE.search, stored):  # which no conversion would look at
        check_plain(str(path), name, stored[name])
    return stored


def _header(path: Path) -> Mapping[str, str]:
    with safe_open(path, framework="pt", device="cpu") as opened:
        return opened.metadata() or {}


def _holds(stored: Mapping[str, Tensor], component: str, denoiser: str) -> bool:
    begins = (*CLIP.get(component, ()), *filter(None, (OPEN_CLIP.get(component), VAE.get(component))))
    if component == denoiser:
        begins = DENOISER
    return any(name.startswith(begins) for name in stored) if begins else False


def _converted(component: str, folder: Path, stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """One component under diffusers' names."""
    files.diffusers()
    from diffusers.loaders import single_file_model, single_file_utils

    if component in CLIP:
        return {
            name.removeprefix(begin): tensor
            for begin in CLIP[component]
            for name, tensor in stored.items()
            if name.startswith(begin) and not BUFFERS.search(name)
        }
    kind = files.class_of(folder)
    if component in OPEN_CLIP:
        with torch.device("meta"):
            model = from_config(kind, kind.config_class.from_pretrained(folder, **LOCAL))
        converted = single_file_utils.convert_open_clip_checkpoint(model, dict(stored), prefix=OPEN_CLIP[component])
    else:
        convert: Callable[..., object] = single_file_model.SINGLE_FILE_LOADABLE_CLASSES[kind.__name__][
            "checkpoint_mapping_fn"
        ]
        config = files.settings(folder)
        converted = convert(checkpoint=dict(stored), config=config)
    return {name: tensor for name, tensor in converted.items() if not BUFFERS.search(name)}


def _check(path: Path, component: str, folder: Path, converted: Mapping[str, Tensor]) -> None:
    expected = files.shapes(folder)
    for name, shape in expected.items():
        got = tuple(converted[name].shape) if name in converted else None
        if got != shape:
            raise SourceError(f"{path}: expected {component} with {name!r} of shape {shape} as in {folder}, got {got}")


def _few(stored: Mapping[str, Tensor]) -> list[str]:
    return sorted(stored)[:3]
