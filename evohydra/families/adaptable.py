"""Which tensors of a language model an adapter can change: those of linear layers and of embeddings."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

from evohydra.families.configurations import read_configuration


@dataclass(frozen=True)
class Module:
    """A module that LoRA knows: its name in the model, whether it looks rows up, and whether it stores (in, out)."""

    name: str
    embedding: bool = False
    transposed: bool = False


def adaptable(directory: Path, names: Collection[str]) -> dict[str, Module]:
    """By the name of a checkpoint's tensor the module whose weight it is, as PEFT finds it in the loaded model.

    A head that is tied to the embeddings is there as well, under the name that it would have. No weight is read.
    """
    with torch.device("meta"):
        config = read_configuration(directory, "causal language model")
        model = transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    kinds: dict[str, Module] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding | Conv1D):
            kinds[f"{name}.weight"] = Module(name, isinstance(module, nn.Embedding), isinstance(module, Conv1D))
    prefix = f"{model.base_model_prefix}."
    head = model.get_output_embeddings()
    tied = [f"{name}.weight" for name, module in model.named_modules() if module is head]
    found = {}
    for name in {*names, *(tied if config.tie_word_embeddings else ())}:
        near = next((each for each in (name, f"{prefix}{name}", name.removeprefix(prefix)) if each in kinds), None)
        if near is not None:
            found[name] = kinds[near]
    return found
