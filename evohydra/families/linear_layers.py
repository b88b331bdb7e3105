"""The linear layers of a model in memory under the names of their tensors in checkpoints, and what they read."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from evohydra.families import LiveModel
from evohydra.merging.private_torch import writes


@dataclass(frozen=True)
class Linear:
    """A linear layer. names: its tensors in checkpoints, several where it is fused in memory from their rows.

    width: of its inputs. transposed: they belong to the first index of the tensors (Conv1D of GPT-2).
    """

    module: torch.nn.Module
    names: tuple[str, ...]
    width: int
    transposed: bool


def linear_layers(live: LiveModel) -> list[Linear]:
    """All linear layers whose weights are tensors of checkpoints, or made of rows of some.

    Left out are heads that are tied to embeddings, which are no linear layer in their other use, and experts that one
    tensor holds together.
    """
    embedded = {each.weight.data_ptr() for each in live.module.modules() if isinstance(each, torch.nn.Embedding)}
    found = []
    for module in live.module.modules():
        if isinstance(module, torch.nn.Linear | Conv1D) and module.weight.data_ptr() not in embedded:
            transposed = isinstance(module, Conv1D)
            weight = module.weight
            names = tuple(name for name, tensor in live.parameters.items() if _is_part(tensor, weight, transposed))
            if names:
                found.append(Linear(module, names, weight.shape[0 if transposed else 1], transposed))
    return found


def _is_part(tensor: Tensor, weight: Tensor, transposed: bool) -> bool:
    """Whether a tensor of a checkpoint is a weight in memory, or some of its rows."""
    if tensor.dim() != 2 or tensor.untyped_storage().data_ptr() != weight.untyped_storage().data_ptr():
        return False
    start = tensor.storage_offset() - weight.storage_offset()
    inside = 0 <= start <= weight.numel() - tensor.numel() and tensor.stride() == weight.stride()
    return inside and (tensor.shape == weight.shape or (not transposed and tensor.shape[1] == weight.shape[1]))


@contextmanager
def inputs_seen(layers: Iterable[Linear], see: Callable[[Linear, Tensor], None]) -> Iterator[None]:
    """Meanwhile `see` is called with all that each layer reads, (tokens, width), as it is read."""

    def hook(layer: Linear) -> Callable[[torch.nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: see(layer, inputs[0].detach().reshape(-1, layer.width))

    handles = [layer.module.register_forward_pre_hook(hook(layer)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def shared_inputs(layers: Collection[Linear], read: Callable[[], object]) -> dict[str, str]:
    """For the first name of each layer that of the first layer which reads the same tensor, when `read` is called.

    Such layers (queries, keys and values) come one after the other; one that is called twice shares with none.
    """
    order: list[Linear] = []
    same: dict[str, str] = {}
    before: tuple[Linear, Tensor, int] | None = None

    def see(layer: Linear, inputs: Tensor) -> None:
        nonlocal before
        order.append(layer)
        if before is None or before[2] != writes(inputs) or not _same_memory(before[1], inputs):
            before = (layer, inputs, writes(inputs))
        same[layer.names[0]] = before[0].names[0]

    with inputs_seen(layers, see):
        read()
    called = [layer.names[0] for layer in order]
    once = {name for name in called if called.count(name) == 1}
    return {
        layer.names[0]: same[layer.names[0]] if {layer.names[0], same.get(layer.names[0])} <= once else layer.names[0]
        for layer in layers
    }


def _same_memory(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride()


@contextmanager
def gradients_of(live: LiveModel, names: Collection[str]) -> Iterator[Callable[[], Mapping[str, Tensor]]]:
    """Meanwhile backward passes leave gradients of these tensors, by their names; the call gives and forgets them."""
    wanted = {name: live.parameters[name] for name in names}
    storages = {tensor.untyped_storage().data_ptr() for tensor in wanted.values()}
    owners = {
        each.untyped_storage().data_ptr(): each
        for each in live.module.parameters()
        if each.untyped_storage().data_ptr() in storages
    }

    def taken() -> Mapping[str, Tensor]:
        found = {}
        for name, tensor in wanted.items():
            owner = owners.get(tensor.untyped_storage().data_ptr())
            if owner is not None and owner.grad is not None:
                gradient = owner.grad.contiguous()
                start = tensor.storage_offset() - owner.storage_offset()
                found[name] = gradient.as_strided(tensor.shape, tensor.stride(), start)
        for owner in owners.values():
            owner.grad = None
        return found

    for owner in owners.values():
        owner.requires_grad_(True)
    try:
        yield taken
    finally:
        for owner in owners.values():
            owner.requires_grad_(False)
            owner.grad = None
