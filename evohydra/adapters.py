"""LoRA adapters in PEFT's format, applied to a checkpoint's tensors as they are read (arXiv 2106.09685, eq. 3)."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from evohydra.checkpoints import CheckpointReader, SourceError, TensorSource

# Settings whose effect on the weights is not the plain low-rank product.
UNSUPPORTED = ("use_dora", "lora_bias", "modules_to_save", "layer_replication", "alora_invocation_tokens", "use_qalora")
PREFIX = "base_model.model."


class Adapted:
    """A checkpoint with a LoRA adapter merged in: W + scale * B A, computed when a tensor is read.

    The scale is alpha / r, or alpha / sqrt(r) where the adapter is rank-stabilised (arXiv 2312.03732, eq. 4).
    Raises SourceError for adapters of another kind and for targets that the checkpoint lacks.
    """

    def __init__(self, checkpoint: TensorSource, directory: Path) -> None:
        self.shapes: Mapping[str, tuple[int, ...]] = checkpoint.shapes
        self.adapter = _AdapterFiles(directory)
        self._checkpoint = checkpoint
        self._config = _read_config(directory)
        self._modules = {name.removesuffix(".lora_A.weight") for name in self.adapter.shapes if ".lora_A." in name}
        others = [name for name in self.adapter.shapes if not re.search(r"\.lora_[AB]\.weight$", name)]
        if others:
            raise SourceError(f"adapter {directory}: expected lora_A and lora_B weights only, got {others[0]!r}")
        for module in sorted(self._modules):
            target = self._target(module)
            if target not in self.shapes:
                raise SourceError(f"adapter {directory}: its target {target!r} is not in the checkpoint")

    @staticmethod
    def _target(module: str) -> str:
        return module.removeprefix(PREFIX) + ".weight"

    def read(self, name: str) -> Tensor:
        """The adapted tensor, in the checkpoint's dtype."""
        weight = self._checkpoint.read(name)
        module = PREFIX + name.removesuffix(".weight")
        if module not in self._modules:
            return weight
        down = self.adapter.read(f"{module}.lora_A.weight").float()  # (r, in)
        up = self.adapter.read(f"{module}.lora_B.weight").float()  # (out, r)
        delta = (up @ down) * self._scale(name.removesuffix(".weight"))
        if self._config.get("fan_in_fan_out"):
            delta = delta.T
        return (weight.float() + delta).to(weight.dtype)

    def _scale(self, module: str) -> float:
        rank = _for_module(self._config.get("rank_pattern") or {}, module, self._config["r"])
        alpha = _for_module(self._config.get("alpha_pattern") or {}, module, self._config["lora_alpha"])
        return float(alpha) / (math.sqrt(rank) if self._config.get("use_rslora") else rank)


class _AdapterFiles(CheckpointReader):
    """The tensors of adapter_model.safetensors."""

    def _index(self) -> dict[str, str]:
        if not (self.directory / "adapter_model.safetensors").is_file():
            raise SourceError(
                f"adapter {self.directory}: expected adapter_model.safetensors (pickles are never loaded)"
            )
        return dict.fromkeys(self._open("adapter_model.safetensors").keys(), "adapter_model.safetensors")


def _read_config(directory: Path) -> dict[str, Any]:
    file = directory / "adapter_config.json"
    try:
        config: dict[str, Any] = json.loads(file.read_text())
        kind = config["peft_type"]
        config["r"], config["lora_alpha"]
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(f"{file}: expected a PEFT LoRA configuration, got {error!r}") from error
    used = [key for key in UNSUPPORTED if config.get(key)]
    if kind != "LORA" or config.get("bias", "none") != "none" or used:
        raise SourceError(
            f"{file}: only plain LoRA adapters are supported, got {kind} with {used or config.get('bias')}"
        )
    return config


def _for_module(pattern: Mapping[str, float], module: str, default: float) -> float:
    """The value whose key ends the module's name, as in PEFT's rank_pattern and alpha_pattern."""
    for key, value in pattern.items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default
