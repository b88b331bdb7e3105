"""The parameters of a loaded model under the names of checkpoint tensors, to be written in place."""

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from evohydra.checks import NOTHING
from evohydra.families.experts import as_stored
from evohydra.families.private_transformers import left_out_on_load, revert_weight_conversion
from evohydra.families.tensor_sets import BUFFERS, LAYER
from evohydra.merging.checkpoints import SourceError, first_few

logger = logging.getLogger(__name__)


def by_checkpoint_name(
    module: Any,
    known: Collection[str],
    bare: Callable[[str], str] | None = None,
    shapes: Mapping[str, tuple[int, ...]] = NOTHING,
) -> Mapping[str, Tensor]:
    """The parameters and stored buffers of `module` under their names in `known`.

    Names that differ are the same where `bare` makes them equal; by default it takes away the prefix of the model
    without its head, which published checkpoints have or lack. `shapes` are those in the files: those of
    Qwen3-VL's experts have their sides the other way round, which transformers looks at as it loads them.

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
            found[place] = as_stored(tensor, shapes.get(place))
        elif name not in buffers:
            lost.append(name)
    if lost:
        raise SourceError(
            f"{type(module).__name__}: {len(lost)} parameters of the loaded model are no tensor of its files, nor a "
            f"part of one, the first is {min(lost)!r}; this architecture cannot be merged in place"
        )
    return found


def check_all_used(module: Any, known: Collection[str], found: Collection[str]) -> None:
    """Raise SourceError for layers, among tensors `known`, that `module` does not have; warn of other tensors.

    `found` are the names of those that are parameters of it. What transformers itself leaves out of such checkpoints
    may be there.
    """
    tied = tuple(getattr(module, "all_tied_weights_keys", None) or ())
    unused = sorted(
        name
        for name in set(known) - set(found)
        if not BUFFERS.search(name) and not name.endswith(tied) and not left_out_on_load(module, name)
    )
    used = {place for name in found if (place := _layer(name))}
    of_layers = [name for name in unused if (place := _layer(name)) and place not in used]
    if of_layers:
        raise SourceError(
            f"{len(of_layers)} tensors of the sources are no part of the model that config.json describes "
            f"({type(module).__name__}): {first_few(of_layers)}. Configuration and weights do not belong together"
        )
    if unused:
        logger.warning(
            "%d tensors of the sources are no part of the model that config.json describes, and change no score: %s",
            len(unused),
            first_few(unused),
        )


def _layer(name: str) -> str | None:
    """The beginning of the name of a layer's tensor, up to the number of the layer."""
    place = LAYER.search(name)
    return None if place is None else name[: place.start(2)]


class _InPlace(torch.Tensor):
    """A tensor whose parts stay views: `contiguous` copies nothing."""

    def contiguous(self, *_: object, **__: object) -> "_InPlace":
        """Itself."""
        return self
