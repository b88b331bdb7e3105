"""A PEFT adapter on disk, as PEFT, transformers and vLLM read it: adapter_config.json, adapter_model.safetensors."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from evohydra.families.adaptable import Module
from evohydra.files import write_json
from evohydra.files.tensors import write_tensors
from evohydra.merging.adapters import PREFIX
from evohydra.merging.finding import place
from evohydra.merging.low_rank import LowRank, nearest

CUT = "left_out.json"  # by tensor how large its change is, and what the adapter leaves out of it


@dataclass
class Adapter:
    """An adapter as it is put together: low-rank changes, weights that replace the base's, and what is left out.

    `norms` has by tensor the norm of its whole change, and of what is left out of it.
    """

    changes: dict[Module, LowRank] = field(default_factory=dict)
    whole: dict[Module, Tensor] = field(default_factory=dict)
    norms: dict[str, tuple[float, float]] = field(default_factory=dict)

    def put(self, name: str, module: Module, change: LowRank, rank: int | None) -> None:
        """Take in a change as it is where its rank is at most `rank` (None: any), else the nearest of that rank."""
        if rank is None or change.rank <= rank:
            self.changes[module] = change
        else:
            self.put_nearest(name, module, change.delta(), rank)

    def put_nearest(self, name: str, module: Module, delta: Tensor, rank: int) -> None:
        """Take in the product of this rank that is nearest to a change of the weight of `module`."""
        turned = module.transposed or module.embedding
        up, down, left = nearest(delta.T if turned else delta, rank)
        self.changes[module] = LowRank(up, down, 1.0, turned, module.embedding)
        norm = float(delta.double().norm())
        self.norms[name] = (norm, left * norm)


def write_adapter(
    adapter: Adapter, directory: Path, modules: Mapping[str, Module], base: str, revision: str | None, task: str
) -> None:
    """Write `adapter` into `directory`; `modules` are all that the base has, by tensor, `base` is its path.

    PEFT knows neither zoo:// nor where a relative path began: what is on this machine is named by its whole path.
    Factors are float32, with which PEFT computes; their product is the change itself, so that a reader who takes all
    scales to be lora_alpha / r, as vLLM does, is right as well.
    """
    ranks = {module: change.rank for module, change in adapter.changes.items()}
    rank = Counter(ranks.values()).most_common(1)[0][0] if ranks else 1
    others = {_exactly(module.name): of for module, of in ranks.items() if of != rank}
    write_json(
        directory / "adapter_config.json",
        {
            "peft_type": "LORA",
            "task_type": task,
            "base_model_name_or_path": place(base),
            "revision": revision,
            "inference_mode": True,
            "r": rank,
            "lora_alpha": rank,
            "rank_pattern": others,
            "alpha_pattern": others,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": any(module.transposed for module in adapter.changes),
            "target_modules": _targets(set(adapter.changes), set(modules.values())),
            "modules_to_save": sorted(module.name for module in adapter.whole) or None,
        },
    )
    tensors: dict[str, Tensor] = {}
    for module, change in sorted(adapter.changes.items(), key=lambda each: each[0].name):
        down, up = ("embedding_A", "embedding_B") if module.embedding else ("A.weight", "B.weight")
        tensors[f"{PREFIX}{module.name}.lora_{down}"] = change.down.cpu()
        tensors[f"{PREFIX}{module.name}.lora_{up}"] = (change.up * change.scale).cpu()
    tensors |= {f"{PREFIX}{module.name}.weight": tensor.cpu() for module, tensor in adapter.whole.items()}
    described = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in sorted(tensors.items())}
    write_tensors(directory / "adapter_model.safetensors", described, sorted(tensors.items(), key=lambda e: e[0]))
    if adapter.norms:
        named = {name: {"change": whole, "left_out": left} for name, (whole, left) in adapter.norms.items()}
        write_json(directory / CUT, named)


def _exactly(name: str) -> str:
    """A pattern of PEFT's for this name alone."""
    return name.replace(".", r"\.")


def _targets(changed: set[Module], known: set[Module]) -> list[str]:
    """The last parts of names where all modules that end so are changed, else whole names."""
    missed = {module.name.rpartition(".")[2] for module in known - changed}
    ends = {module: module.name.rpartition(".")[2] for module in changed}
    return sorted({module.name if end in missed else end for module, end in ends.items()})


def unlike(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors differ somewhere by more than roundings of their type, and of sums in float32.

    Entry by entry: what fine-tuning changes in 16 bits is less than the roundings of the largest weights.
    """
    apart, size = (one.float() - other.float()).abs(), other.float().abs()
    sums = 16 * torch.finfo(torch.float32).eps * size.max() if one.numel() else 0.0
    return bool((apart > 4 * torch.finfo(one.dtype).eps * size + sums).any())
