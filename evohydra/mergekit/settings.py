"""The settings of a mergekit configuration at one tensor: precedence, filters, gradients, defaults."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evohydra.checks import shown
from evohydra.files import Plain
from evohydra.mergekit.writer import OPTIONS, Counterpart
from evohydra.merging.methods import Method, resolve
from evohydra.recipe import Parameter

PASSTHROUGH = "passthrough"
# Weights whose sum is 0, or below NO_SUM, are divided by 1 there. (linear and multislerp divide by it, and give NaN.)
DIVIDED_BY_1 = ("task_arithmetic", "dare_linear", "breadcrumbs", "della_linear")
NO_SUM = 1e-8
SWITCHES = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class Slice:
    """Layers `start` to `stop` of the same sources, with the settings of each source and those of the slice."""

    start: int
    stop: int
    sources: Mapping[str, Mapping[str, object]]
    parameters: Mapping[str, object]


@dataclass(frozen=True)
class Settings:
    """What a configuration says of one tensor: those of a source go before the slice's, and these before the rest.

    `written` is the tensor's name in the merge, where its layer has another number there: filters of what is a model's
    own look at its name in the model, others at this one. `elsewhere` are its names in models where it has another one.
    """

    config: Plain
    models: Sequence[str]
    tensor: str
    at: Slice
    t: float
    written: str | None = None
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    def parameters(self, method_name: str, counterpart: Counterpart) -> dict[str, Parameter]:
        """The method's parameters."""
        method = resolve(counterpart.method)
        keys = {OPTIONS.get(name, name): name for name in method.parameters - set(counterpart.fixed)}
        parameters: dict[str, Parameter] = {}
        for name, only in counterpart.fixed.items():
            parameters[name] = (1.0,) * len(self.models) if only is None else only
        for key, name in sorted(keys.items()):
            if name in method.per_model:
                values = [self.value(key, model, counterpart.defaults.get(name)) for model in self.models]
                if any(value is None for value in values):
                    raise ValueError(f"{method_name} needs {key} for every model; tensor {self.tensor!r} has {values}")
                parameters[name] = tuple(_number(key, value) for value in values)
                method.check(name, parameters[name], f"{key} at tensor {self.tensor!r}")
                continue
            # A scale is a source's own in mergekit, and there is one source.
            value = self.value(key, self.models[0] if method_name == PASSTHROUGH else None)
            if value is not None:
                parameters[name] = _like(method, name, key, value)
                method.check(name, parameters[name], f"{key} at tensor {self.tensor!r}")
            elif name in method.required:
                raise ValueError(f"{method_name} needs {key}, and tensor {self.tensor!r} has none")
        return _as_they_are(method_name, parameters)

    def stacked(self) -> dict[str, Parameter]:
        """Those of a linear merge that is the one source of this slice."""
        (source,) = self.at.sources
        scale = self.scale(source)
        return {"weight": tuple(scale if model == source else 0.0 for model in self.models), "normalize": False}

    def scale(self, source: str) -> float:
        """What passthrough multiplies the tensor of `source` by."""
        return _number("scale", self.value("scale", source, 1.0))

    def value(self, key: str, model: str | None, default: object = None) -> object:
        """The setting at the tensor, of one model or of all."""
        own = [self.at.sources.get(model, {})] if model is not None else []
        name = self.written or self.tensor if model is None else self.elsewhere.get(model, self.tensor)
        for settings in (*own, self.at.parameters, self.config.get("parameters") or {}):
            if key in settings:
                value = _value(key, settings[key], name, self.t)
                if value is not None:
                    return value
        return default


def parameters_known(method_name: str, counterpart: Counterpart) -> set[str]:
    """The parameters of a method by mergekit's names."""
    if method_name == PASSTHROUGH:
        return {"scale"}
    return {OPTIONS.get(name, name) for name in resolve(counterpart.method).parameters - set(counterpart.fixed)}


def _as_they_are(method_name: str, parameters: dict[str, Parameter]) -> dict[str, Parameter]:
    """Without `normalize` where weights sum to 0 and mergekit divides by 1 instead."""
    weights = parameters.get("weight")
    if method_name in DIVIDED_BY_1 and isinstance(weights, tuple) and abs(sum(weights)) < NO_SUM:
        return {**parameters, "normalize": False}
    return parameters


def _like(method: Method, name: str, key: str, value: object) -> Parameter:
    """`value` in the type of the method's default."""
    default = method.defaults.get(name, 0.0)
    if isinstance(default, bool | str):
        value = SWITCHES.get(value.lower(), value) if isinstance(value, str) else value
        if value not in (True, False):
            raise ValueError(f"{key}: expected true or false, got {value!r}")
        # A switch there; the kind of rescaling is the L1 norm.
        return bool(value) if isinstance(default, bool) else "l1" if value else "none"
    number = _number(key, value)
    if not isinstance(default, int):
        return number
    if number != int(number):
        raise ValueError(f"{key}: expected a whole number, got {value!r}")
    return int(number)


def _number(key: str, value: Any) -> float:
    """`value` as a number; YAML reads some, such as 1e-4, as strings."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{key}: expected a number, got {shown(value)}") from error


def _value(key: str, setting: object, tensor: str, t: float) -> object:
    """A setting at a tensor: a scalar, a gradient over the layers of the slice, or the first filter that matches."""
    if not isinstance(setting, list):
        return _value(key, [setting], tensor, t) if isinstance(setting, Mapping) else setting
    if all(isinstance(entry, Mapping) for entry in setting):
        return next(_matching(key, setting, tensor, t), None)
    place = t * (len(setting) - 1)
    if any(isinstance(entry, bool) for entry in setting):
        return setting[int(place)]
    if not all(isinstance(entry, int | float | str) for entry in setting):
        raise ValueError(f"{key}: expected numbers, or filters with values, got {setting}")
    left = int(place)
    right = min(len(setting) - 1, left + 1)
    return (1 - (place - left)) * _number(key, setting[left]) + (place - left) * _number(key, setting[right])


def _matching(key: str, conditions: Sequence[Mapping[str, object]], tensor: str, t: float) -> Iterator[object]:
    for condition in conditions:
        pattern = condition.get("filter")
        if "value" not in condition or not isinstance(pattern, str | None):
            raise ValueError(f"{key}: expected a filter, part of a tensor's name, and a value, got {dict(condition)}")
        if pattern in (None, "*") or pattern in tensor:
            yield _value(key, condition["value"], tensor, t)
