"""The parameters of a loaded model under the names of checkpoint tensors, to be written in place."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from evohydra.families.private_transformers import revert_weight_conversion
from evohydra.merging.checkpoints import SourceError


def by_checkpoint_name(
    module: Any, known: Collection[str], bare: Callable[[str], str] | None = None
) -> Mapping[str, Tensor]:
    """The parameters and stored buffers of `module` under their names in `known`.

    Names that differ are the same where `bare` makes them equal; by default it takes away the prefix of the model
    without its head, which published checkpoints have or lack.

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
    prefix = f"{module.base_model_prefix}."
    bare = bare or (lambda name: name.removeprefix(prefix))
    places = {bare(name): name for name in known}
    found: dict[str, Tensor] = {}
    lost = []
    for name, view in revert_weight_conversion(module, views).items():
        tensor = view.as_subclass(Tensor)
        place = name if name in known else places.get(bare(name))
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


class _InPlace(torch.Tensor):
    """A tensor whose parts stay views: `contiguous` copies nothing."""

    def contiguous(self, *_: object, **__: object) -> "_InPlace":
        """Itself."""
        return self
