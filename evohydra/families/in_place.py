"""The parameters of a loaded causal language model under the names of checkpoint tensors, to be written in place."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

from evohydra.checkpoints import SourceError


def by_checkpoint_name(module: Any, known: Collection[str]) -> Mapping[str, Tensor]:
    """The parameters and stored buffers of `module` under their names in `known`.

    transformers renames tensors as it loads (GPT-2's, GPT-NeoX's) and fuses some (the experts of a mixture are one 3-D
    parameter); of a fused parameter each tensor of the checkpoint is a view, so that writing to it writes the model.
    Raises SourceError where a parameter has no such counterpart.
    """
    stored = module.state_dict().keys()
    buffers = {name: buffer for name, buffer in module.named_buffers() if name in stored}
    parameters = dict(module.named_parameters())
    memory = {tensor.untyped_storage().data_ptr() for tensor in (*parameters.values(), *buffers.values())}
    # The inverse of loading makes copies, for files, of what it cuts out; these tensors refuse to be copied.
    views = {name: tensor.detach().as_subclass(_InPlace) for name, tensor in (parameters | buffers).items()}
    found: dict[str, Tensor] = {}
    lost = []
    for name, view in revert_weight_conversion(module, views).items():
        tensor = view.as_subclass(Tensor)
        place = next((each for each in _spellings(name, module.base_model_prefix) if each in known), None)
        if place is not None and tensor.untyped_storage().data_ptr() in memory:
            found[place] = tensor
        elif name not in buffers:
            lost.append(name)
    if lost:
        raise SourceError(
            f"{type(module).__name__}: {len(lost)} parameters of the loaded model are no tensor of its files, nor a "
            f"part of one, the first is {min(lost)!r}; this architecture cannot be merged in place"
        )
    return found


def _spellings(name: str, prefix: str) -> tuple[str, ...]:
    """Published checkpoints have the prefix of the model without its head, or lack it."""
    return name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}"


class _InPlace(torch.Tensor):
    """A tensor whose parts stay views: `contiguous` copies nothing."""

    def contiguous(self, *_: Any, **__: Any) -> "_InPlace":
        """Itself."""
        return self
