"""Merge methods: pure functions of tensors, one file each.

A method is `method(base, models, *, ...) -> Tensor`: `base` is None where the recipe has none, `models` are tensors of
one shape, float32 or wider, and none of them is written to. Its keyword parameters come from the genes and options of
the recipe, one number for a group or one for each model. Parameters with these names are supplied by the engine:

- `cuts`: a `Cut` for each model, where its `density` falls in the magnitudes of its task vector (see `trimming`);
- `uniforms`: for each model numbers in [0, 1), of the shape of the tensor, from (mask_seed, tensor, model) alone.
"""

import inspect
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_origin

from torch import Tensor

SUPPLIED = ("cuts", "uniforms")


@dataclass(frozen=True)
class Method:
    """A merge function, its keyword parameters, and which of them are required or hold a value for each model."""

    function: Callable[..., Tensor]
    parameters: frozenset[str]
    required: frozenset[str]
    per_model: frozenset[str]
    elementwise: bool


_elementwise: set[Callable[..., Tensor]] = set()


def elementwise(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Declare that each entry of the result depends on the same entry of base and models alone.

    The engine then merges many small tensors as one.
    """
    _elementwise.add(function)
    return function


def resolve(path: str) -> Method:
    """The method at "package.module:function"; ValueError where there is none."""
    try:
        function = pkgutil.resolve_name(path)
        signature = inspect.signature(function, eval_str=True)
    except (ImportError, AttributeError, NameError, ValueError, TypeError) as error:
        raise ValueError(f"merge method {path!r}: expected package.module:function, got {error}") from error
    positional = [name for name, p in signature.parameters.items() if p.kind is not p.KEYWORD_ONLY]
    if positional != ["base", "models"]:
        raise ValueError(f"merge method {path!r}: expected the parameters (base, models, *, ...), got {signature}")
    keywords = {name: p for name, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY}
    required = frozenset(name for name, p in keywords.items() if p.default is p.empty)
    per_model = frozenset(name for name, p in keywords.items() if get_origin(p.annotation) is Sequence)
    return Method(function, frozenset(keywords), required, per_model, function in _elementwise)
