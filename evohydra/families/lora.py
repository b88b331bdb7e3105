"""LoRAs of diffusion models: files with the names of diffusers or PEFT, and of kohya's scripts (arXiv 2106.09685)."""

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from evohydra.checks import check
from evohydra.families import AddedAdapter, Overlay
from evohydra.families.lora_names import Place, places, plain
from evohydra.files import Plain, check_plain_file, parse_json, read_json
from evohydra.merging.adapters import for_module, unsupported
from evohydra.merging.checkpoints import SourceError, TensorSource, first_few
from evohydra.merging.finding import locate

FACTOR = re.compile(r"\.?(?:lora_(A|B|down|up)|lora\.(down|up)|lora_linear_layer\.(down|up)|_lora\.(down|up))\.weight$")
DOWN = ("A", "down")
METADATA = "lora_adapter_metadata"
# What the scale of the product depends on; diffusers writes the component before the key.
SETTINGS: Plain = {
    "lora_alpha": float,
    "alpha_pattern": Mapping[str, float] | None,
    "use_rslora": bool | None,
}
FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")


@dataclass(frozen=True)
class LowRank:
    """A change of one tensor: `scale` times `up` (out, r) times `down` (r, in), of convolutions with their windows."""

    down: Tensor
    up: Tensor
    scale: float
    shape: tuple[int, ...]
    moved: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, compare=False)

    def delta(self, device: torch.device) -> Tensor:
        """The change in float32; the sums are PEFT's."""
        if device not in self.moved:
            self.moved[device] = self.down.to(device).float(), self.up.to(device).float()
        down, up = self.moved[device]
        if down.ndim == 4 and down.shape[2:] != (1, 1):
            return torch.nn.functional.conv2d(down.transpose(0, 1), up).transpose(0, 1) * self.scale
        return (up.flatten(1) @ down.flatten(1)).view(self.shape) * self.scale


@dataclass(frozen=True)
class Sum:
    """Changes of one tensor, added one after the other and rounded once."""

    changes: tuple[LowRank, ...]

    @torch.inference_mode()
    def added_to(self, tensor: Tensor) -> Tensor:
        """A new tensor in the type and on the device of `tensor`."""
        total = tensor.float()
        for change in self.changes:
            total = total + change.delta(tensor.device)
        return total.to(tensor.dtype)


class AdaptedPipeline:
    """Tensors with a LoRA merged in as they are read."""

    def __init__(self, tensors: TensorSource, adapter: Path, denoiser: str) -> None:
        self.shapes = tensors.shapes
        self._tensors = tensors
        self._changes = {name: Sum((change,)) for name, change in read(adapter, self.shapes, denoiser, 1.0).items()}
        self.changed = frozenset(self._changes)

    def read(self, name: str) -> Tensor:
        """The tensor `name`, in the type in which it is stored."""
        tensor = self._tensors.read(name)
        return self._changes[name].added_to(tensor) if name in self._changes else tensor


def file_of(path: Path) -> Path:
    """The safetensors file of a LoRA that is a file or a directory; SourceError where there is none."""
    if path.is_file():
        return path
    known = [path / name for name in FILES if (path / name).is_file()] or sorted(path.glob("*.safetensors"))
    if len(known) != 1:
        raise SourceError(f"adapter {path}: expected one safetensors file with a LoRA, got {[f.name for f in known]}")
    return known[0]


def read(path: Path, shapes: Mapping[str, tuple[int, ...]], denoiser: str, strength: float) -> dict[str, LowRank]:
    """What a LoRA changes, by the names of tensors with `shapes`; `strength` multiplies it.

    Raises SourceError for tensors that are no plain LoRA's, and for those that have no place among `shapes`.
    """
    stored, settings = _stored(file_of(path))
    known = places(shapes, denoiser)
    factors: dict[str, dict[str, Tensor]] = {}
    alphas: dict[str, float] = {}
    strange, lost = [], []
    for key, tensor in stored.items():
        found = FACTOR.search(key)
        module = key.removesuffix(".alpha") if key.endswith(".alpha") else key[: found.start()] if found else None
        if module is None:
            strange.append(key)
            continue
        if module not in known and (now := plain(module, denoiser)) in known:
            known[module] = known[now]
        if module not in known:
            lost.append(module)
        elif found is None:
            alphas[module] = _alpha(path, key, tensor)
        else:
            factors.setdefault(module, {})["down" if next(filter(None, found.groups())) in DOWN else "up"] = tensor
    if strange:
        raise SourceError(f"adapter {path}: expected the factors of a plain LoRA, got also {first_few(strange)}")
    if lost or not factors:
        raise SourceError(
            f"adapter {path}: {len(set(lost))} of its targets are not in the model, the first is "
            f"{min(lost, default=None)!r}: expected a LoRA for this architecture"
        )
    changes: dict[str, LowRank] = {}
    for module, pair in factors.items():
        for target, own in _parted(path, module, pair, known[module], shapes):
            if target in changes:
                raise SourceError(f"adapter {path}: expected one change of {target!r}, got two, one of them {module!r}")
            scale = _scale(target, own, alphas.get(module), settings)
            changes[target] = _checked(path, target, own, scale * strength, shapes[target])
    return changes


def _alpha(path: Path, key: str, tensor: Tensor) -> float:
    if tensor.numel() != 1:
        raise SourceError(f"adapter {path}: expected one number for {key!r}, got shape {tuple(tensor.shape)}")
    if not math.isfinite(float(tensor)):
        raise SourceError(f"adapter {path}: expected a finite number for {key!r}, got {float(tensor)}")
    return float(tensor)


def _parted(
    path: Path, module: str, pair: dict[str, Tensor], place: Place, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The tensors that a module is, and the factors of each: rows of `up` in turn, and all of `down`."""
    up = pair.get("up")
    if up is None or (len(place.tensors) == 1 and not place.swapped):
        yield place.tensors[0], pair
        return
    rows = [shapes[each][0] for each in place.tensors]
    if up.ndim < 2 or up.shape[0] != sum(rows):
        raise SourceError(
            f"adapter {path}: the factors of {module!r} have the shape {tuple(up.shape)}, expected {sum(rows)} rows, "
            f"those of {', '.join(place.tensors)} together (a LoRA for another architecture?)"
        )
    if place.swapped:
        up = torch.cat(up.chunk(2)[::-1])
    for target, part in zip(place.tensors, torch.split(up, rows), strict=True):
        yield target, {**pair, "up": part.contiguous()}


def _stored(file: Path) -> tuple[dict[str, Tensor], Mapping[str, object]]:
    """The tensors of a file, and PEFT's settings where it or a file beside it has them."""
    try:
        check_plain_file(file)
        with safe_open(file, framework="pt", device="cpu") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (it is no mapping)
            settings = parse_json((opened.metadata() or {}).get(METADATA, "{}"), file)
        beside = file.with_name("adapter_config.json")
        if beside.is_file():
            settings = read_json(beside)
        if not isinstance(settings, dict):
            raise ValueError(f"expected settings as a JSON object, got {type(settings).__name__}")
        for key, value in settings.items():
            if (kind := SETTINGS.get(key.rsplit(".", 1)[-1])) is not None:
                check(key, kind, value)
        own = {key.rsplit(".", 1)[-1]: value for key, value in settings.items()}
        if used := unsupported(own):
            raise SourceError(f"adapter {file}: only plain LoRA adapters are supported, got {used}")
    except (SafetensorError, OSError, ValueError) as error:
        raise SourceError(f"adapter {file}: truncated or corrupt ({error})") from error
    return tensors, settings


def _scale(target: str, pair: Mapping[str, Tensor], alpha: float | None, settings: Plain) -> float:
    """alpha / r; 1 where nothing says what alpha is."""
    rank = pair["down"].shape[0] if "down" in pair and pair["down"].ndim else 1
    if rank == 0:
        raise SourceError(f"expected factors of {target!r} of rank 1 or more, got 0")
    if alpha is not None:
        return alpha / rank
    component, module = target.removesuffix(".weight").split("/", 1)
    own = {key.removeprefix(f"{component}."): value for key, value in settings.items()}
    if "lora_alpha" not in own:
        return 1.0
    alpha = for_module(own.get("alpha_pattern") or {}, module, own["lora_alpha"])
    return float(alpha) / (rank**0.5 if own.get("use_rslora") else rank)


def _checked(path: Path, target: str, pair: Mapping[str, Tensor], scale: float, shape: tuple[int, ...]) -> LowRank:
    if len(pair) < 2:
        raise SourceError(f"adapter {path}: expected both factors of {target!r}, got {sorted(pair)}")
    down, up = pair["down"], pair["up"]
    for factor in (down, up):
        if factor.ndim < 2 or not factor.is_floating_point() or not factor.isfinite().all():
            raise SourceError(
                f"adapter {path}: expected the factors of {target!r} as matrices of finite numbers, got {factor.dtype} "
                f"of shape {tuple(factor.shape)}{'' if factor.isfinite().all() else ' with values that are not finite'}"
            )
    product = (up.shape[0], *down.shape[1:])
    same = product == shape or (down.ndim == 2 and product == shape[:2] and shape[2:] in ((), (1, 1)))
    if not same or up.shape[1] != down.shape[0] or set(up.shape[2:]) - {1}:
        raise SourceError(
            f"adapter {path}: the factors of {target!r} have shapes {tuple(up.shape)} and {tuple(down.shape)}, "
            f"expected a product of shape {shape} (a LoRA for another architecture?)"
        )
    return LowRank(down, up, scale, shape)


def summed(changes: Iterable[Mapping[str, LowRank]]) -> dict[str, Sum]:
    """Several LoRAs as one change for each tensor."""
    found: dict[str, tuple[LowRank, ...]] = {}
    for each in changes:
        for name, change in each.items():
            found[name] = (*found.get(name, ()), change)
    return {name: Sum(parts) for name, parts in found.items()}


def with_adapters(
    overlay: Overlay, adapters: Sequence[AddedAdapter], shapes: Mapping[str, tuple[int, ...]], denoiser: str
) -> Overlay:
    """The overlay of a merge with these LoRAs; SourceError where one does not fit `shapes`, or is not the recipe's."""
    marked, fused = [], []
    kept: dict[Path, float] = {}
    for adapter in adapters:
        file = file_of(locate(adapter.path, wanted=("*.safetensors", "*.json")))
        hashed = hashlib.sha256(file.read_bytes()).hexdigest()
        if adapter.sha256 not in (None, hashed):
            raise SourceError(f"adapter {file} is not the one of the recipe: expected {adapter.sha256}, got {hashed}")
        changes = read(file, shapes, denoiser, adapter.scale)
        if adapter.fuse:
            fused.append(changes)
        elif file.name in {each.name for each in kept}:
            raise SourceError(f"adapters: expected files of different names to keep, got {file.name} twice")
        else:
            kept[file] = adapter.scale
        marked.append(replace(adapter, sha256=hashed))
    return replace(overlay, fused=summed(fused), kept=kept, adapters=tuple(marked))
