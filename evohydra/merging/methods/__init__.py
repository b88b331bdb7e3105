"""Merge methods: pure functions of tensors, one file each.

A method is `method(base, models, *, ...) -> Tensor`: `base` is None where the recipe has none, `models` are tensors of
one shape, type and device, and none of them is written to. The result has that shape and type; arithmetic rounds where
mergekit's does (see `arithmetic`). The keyword parameters come from the genes and options of the recipe, one number for
a group or one for each model. Parameters that the engine supplies, by name:

- `out`: a tensor of the result's shape and type to write it into, or None;
- `streams`: for each model the key of its random numbers (see `randomness`), from (mask_seed, tensor, model) alone;
- `statistics`: of a method that `reads` some, for each model what a pass over texts has found of this tensor, or None;
- those that the decorator `once` names: what depends on the sources alone, computed once for each tensor.

A method whose result is linear in the task vectors says so with `linear_in_task_vectors`: adapters of one base are then
merged as adapters.
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args, get_origin

from torch import Tensor

from evohydra.checks.registry import check_allowed
from evohydra.merging.group_methods import METHOD
from evohydra.merging.signatures import KINDS, OF, OUT, STATISTICS, STREAMS, check_kind, no_such_method

Provider = Callable[..., object]
Coefficients = Callable[..., tuple[float, list[float]]]
# Means over the tokens that a source reads: of x x^T of the inputs of a linear layer, (n, n); of their squares, (n,);
# of x x^T behind the layers of the merge at its usual values. Over examples: of the squared gradients of a tensor; of
# states of the base at what a source answers best, as a direction.
Statistic = Literal["inputs", "input_squares", "merged_inputs", "gradient_squares", "expert_states"]


@dataclass(frozen=True)
class Method:
    """A merge function and what is known of its keyword parameters.

    parameters: those of genes and options, `required` without a default, `per_model` with a value for each model.
    supplied: those that the engine gives. providers: of these, what computes each, and from which parameters.
    coefficients: of a method that is linear in the task vectors, see `linear_in_task_vectors`. reads: see `reads`.
    """

    function: Callable[..., Tensor]
    parameters: frozenset[str]
    required: frozenset[str]
    per_model: frozenset[str]
    defaults: Mapping[str, object]
    supplied: frozenset[str]
    providers: Mapping[str, Provider]
    elementwise: bool
    kinds: Mapping[str, type]
    coefficients: "Coefficients | None" = None
    reads: Statistic | None = None

    def check(self, name: str, value: object, where: str) -> None:
        """ValueError, naming `where` it stands, for a `value` of another kind than that of the parameter `name`."""
        check_kind(self.kinds.get(name, object), value, where, several=name in self.per_model)


@dataclass
class _Declared:
    elementwise: bool = False
    providers: dict[str, Provider] = field(default_factory=dict)
    coefficients: Coefficients | None = None
    reads: Statistic | None = None


_declared: dict[Callable[..., Tensor], _Declared] = {}


def elementwise(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Declare that each entry of the result depends on the same entry of base and models alone.

    The engine then merges many small tensors as one.
    """
    _declared.setdefault(function, _Declared()).elementwise = True
    return function


def linear_in_task_vectors(
    coefficients: Coefficients,
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Declare that the result is c_0 theta_base + sum_k c_k tau_k: `coefficients(count, **parameters) -> c_0, [c_k]`.

    `count` is the number of models. The engine then merges adapters of one base by their factors.
    """

    def declare(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        _declared.setdefault(function, _Declared()).coefficients = coefficients
        return function

    return declare


def reads(statistic: Statistic) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Declare that the method weighs its sources by what a pass over texts finds, which it gets as `statistics`.

    The inputs of a linear layer belong to the last index of its tensor, also where a checkpoint stores it transposed.
    """

    def declare(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        _declared.setdefault(function, _Declared()).reads = statistic
        return function

    return declare


def once(**providers: Provider) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Declare parameters of a method that are computed from its sources: `provider(base, models, *, ...)`.

    A provider's keyword parameters are parameters of the method that must not change from genome to genome. The engine
    computes each once for each tensor and keeps it; without an engine it is computed when the method is called.
    """

    def declare(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        defaults = {name: p.default for name, p in inspect.signature(function).parameters.items()}

        @functools.wraps(function)
        def method(base: Tensor | None, models: Sequence[Tensor], **given: object) -> Tensor:
            for name, provider in providers.items():
                if given.get(name) is None:
                    wanted = {key: given.get(key, defaults[key]) for key in asks(provider)}
                    given[name] = provider(base, models, **wanted)
            return function(base, models, **given)

        _declared[method] = _Declared(providers=providers)
        return method

    return declare


def providers_of(function: Callable[..., Tensor]) -> Mapping[str, Provider]:
    """The parameters of a method that `once` has declared, and what computes each."""
    return _declared.get(function, _Declared()).providers


@functools.cache
def asks(provider: Provider) -> tuple[str, ...]:
    """The parameters of the method from which a provider computes."""
    return tuple(name for name, p in inspect.signature(provider).parameters.items() if p.kind is p.KEYWORD_ONLY)


@functools.cache
def resolve(name: str) -> Method:
    """The method of this name, or the one at "package.module:function" from outside; ValueError where there is none."""
    path = name if ":" in name else f"{_module(name)}:{name}"
    try:
        function = pkgutil.resolve_name(path)
        signature = inspect.signature(function, eval_str=True)
    except (ImportError, AttributeError, NameError, ValueError, TypeError) as error:
        raise ValueError(f"merge method {path!r}: expected package.module:function, got {error}") from error
    if _positional(signature) != ["base", "models"]:
        raise ValueError(f"merge method {path!r}: expected the parameters (base, models, *, ...), got {signature}")
    declared = _declared.get(function, _Declared())
    keywords = {name: p for name, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY}
    supplied = frozenset(keywords).intersection({OUT, STREAMS, STATISTICS, *declared.providers})
    own = {name: p for name, p in keywords.items() if name not in supplied}
    if taken := sorted({METHOD, OF}.intersection(own)):
        raise ValueError(
            f"merge method {path!r}: a parameter called {taken[0]} is taken: it means something else in recipes"
        )
    return Method(
        function=function,
        parameters=frozenset(own),
        required=frozenset(name for name, p in own.items() if p.default is p.empty),
        per_model=frozenset(name for name, p in own.items() if get_origin(p.annotation) is Sequence),
        defaults={name: p.default for name, p in own.items() if p.default is not p.empty},
        supplied=supplied,
        providers=declared.providers,
        elementwise=declared.elementwise,
        kinds={name: _kind(p.annotation) for name, p in own.items()},
        coefficients=declared.coefficients,
        reads=declared.reads,
    )


def check_method(name: str, allowed: Collection[str]) -> None:
    """ValueError for a method that a file names, which is none of ours and in no module that the user has `allowed`.

    Nothing else is imported.
    """
    if name not in known_methods():
        check_allowed("method", name, list(known_methods()), allowed if ":" in name else ())


@functools.cache
def known_methods() -> Mapping[str, str]:
    """The names of our own methods, and the module of each; what only computes parameters of others is none."""
    found: dict[str, tuple[str, Callable[..., Tensor]]] = {}
    for module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        place = f"{__name__}.{module}"
        for name, function in vars(importlib.import_module(place)).items():
            if inspect.isfunction(function) and function.__module__ == place and not name.startswith("_"):
                signature = inspect.signature(function)
                if _positional(signature) == ["base", "models"] and signature.return_annotation is Tensor:
                    found[name] = (place, function)
    providers = {provider for declared in _declared.values() for provider in declared.providers.values()}
    return {name: place for name, (place, function) in sorted(found.items()) if function not in providers}


def _positional(signature: inspect.Signature) -> list[str]:
    return [name for name, p in signature.parameters.items() if p.kind is not p.KEYWORD_ONLY]


def _module(name: str) -> str:
    """The module that holds the method `name`."""
    if (place := known_methods().get(name)) is None:
        raise no_such_method(name, known_methods())
    return place


def _kind(annotation: object) -> type:
    """What a parameter is, or for each model; object where that is none of `KINDS`."""
    plain = get_args(annotation)[0] if get_origin(annotation) is Sequence else annotation
    return plain if plain in KINDS else object
