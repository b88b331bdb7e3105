"""Experts of a mixture as other files hold them: each by itself or all in one tensor, in either order of its sides."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from evohydra.merging.checkpoints import TensorSource

FUSED = re.compile(r"(.*\.experts)\.(gate_up_proj|down_proj)$")
# The single matrices that a fused one is made of, one below the other.
PARTS = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}


class ExpertsLike:
    """A source whose experts are fused, and turned, as those of `host` are; all else is its own.

    host: name and shape of the tensors of a model with fused experts, (experts, rows, columns) each. Experts that do
    not fit stay as they are. Reading a fused tensor reads all of its experts.
    """

    def __init__(self, source: TensorSource, host: Mapping[str, tuple[int, ...]]) -> None:
        self._source = source
        self._made: dict[str, tuple[list[list[str]], bool]] = {}
        own = source.shapes
        for name, shape in host.items():
            place = FUSED.match(name)
            if place is None or len(shape) != 3 or own.get(name) == shape:
                continue
            if name in own:
                if _turned(own[name]) == shape:
                    self._made[name] = ([[name]], True)
                continue
            names = [[f"{place[1]}.{e}.{part}.weight" for part in PARTS[place[2]]] for e in range(shape[0])]
            if all(each in own for parts in names for each in parts):
                rows, columns = sum(own[each][0] for each in names[0]), own[names[0][0]][1]
                if shape[1:] in ((rows, columns), (columns, rows)):
                    self._made[name] = (names, shape[1:] != (rows, columns))
        used = {each for names, _ in self._made.values() for parts in names for each in parts}
        shapes = {name: shape for name, shape in own.items() if name not in used}
        self.shapes: Mapping[str, tuple[int, ...]] = dict(
            sorted({**shapes, **{n: host[n] for n in self._made}}.items())
        )

    def read(self, name: str) -> Tensor:
        """The tensor `name`, in the source's own type."""
        if name not in self._made:
            return self._source.read(name)
        names, turned = self._made[name]
        if names == [[name]]:
            fused = self._source.read(name)
        else:
            fused = torch.stack([torch.cat([self._source.read(each) for each in parts]) for parts in names])
        return fused.transpose(1, 2).contiguous() if turned else fused


def _turned(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], *reversed(shape[1:]))


def as_stored(parameter: Tensor, shape: tuple[int, ...] | None) -> Tensor:
    """A parameter as a file holds it with that `shape`: a view with its last two sides turned where they are there."""
    turned = parameter.dim() == 3 and shape is not None and tuple(parameter.shape) != shape
    return parameter.transpose(1, 2) if turned and _turned(tuple(parameter.shape)) == shape else parameter
