"""Sources in the live model under their own configuration: other modules over the same parameters."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from evohydra.merging.checkpoints import SourceError


class OwnSettings:
    """Lets a model compute as another configuration says, without a copy of its parameters.

    `make` gives for each name a model of the same class, built with that configuration; all of it but its parameters
    and stored buffers, which are then those of `module`, takes the place of what is in `module`.
    """

    def __init__(self, module: torch.nn.Module, make: Mapping[str, Callable[[], torch.nn.Module]]) -> None:
        self._module, self._make = module, make
        self._states: dict[str | None, dict[str, Any]] = {None: _state(module)}
        self._parameters = dict(module.named_parameters(remove_duplicate=False))
        stored = module.state_dict().keys() - self._parameters.keys()
        self._buffers = {name: buffer for name, buffer in module.named_buffers() if name in stored}
        self._installed: str | None = None

    def install(self, name: str | None) -> None:
        """Compute as the configuration of `name` says; as the model's own does where it has none of its own, or None.

        Raises SourceError where that makes a model of other parameters.
        """
        wanted = name if name in self._make else None
        if wanted == self._installed:
            return
        if wanted not in self._states:
            assert wanted is not None
            self._states[wanted] = _state(self._over_the_same(wanted, self._make[wanted]()))
        vars(self._module).update(self._states[wanted])
        self._installed = wanted

    def _over_the_same(self, name: str, twin: torch.nn.Module) -> torch.nn.Module:
        shapes = {key: tuple(each.shape) for key, each in twin.named_parameters(remove_duplicate=False)}
        ours = {key: tuple(each.shape) for key, each in self._parameters.items()}
        if shapes != ours or type(twin) is not type(self._module):
            other = sorted(key for key in shapes.keys() | ours.keys() if shapes.get(key) != ours.get(key))
            raise SourceError(
                f"source {name!r}: its configuration describes other parameters than that of the merge "
                f"({', '.join(other[:3])}), so that it cannot be scored beside it"
            )
        for key, tensor in {**self._parameters, **self._buffers}.items():
            place, _, last = key.rpartition(".")
            setattr(twin.get_submodule(place), last, tensor)
        return twin.eval()


def _state(module: torch.nn.Module) -> dict[str, Any]:
    """All attributes of a module but its hooks."""
    return {key: value for key, value in vars(module).items() if "hook" not in key}
