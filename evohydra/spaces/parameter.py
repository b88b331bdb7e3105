"""Parameter space (arXiv 2403.13187, section 3.1): the genes of one merge method for each group of tensors."""

import fnmatch
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evohydra.checks import checked_by
from evohydra.files import Plain
from evohydra.recipe import Checkpoint, Group, Merge, Node, Parameter
from evohydra.spaces.gene_spec import SHARE, GeneSpec, check_genes, check_parameters, parse_spec
from evohydra.spaces.genes import Axis, Choice, Gene, Real, Value
from evohydra.spaces.grouping import Granularity, Location
from evohydra.spaces.simplex import Simplex

if TYPE_CHECKING:
    from evohydra.merging.methods import Method

SOURCES, UNIFORM = "sources", "uniform"


@checked_by(check_genes)
class ParameterSpace:
    """Recipes that merge `models` by `method`, each group of tensors with its own genes.

    Gene names are "<group>/<parameter>/<source>", "<group>/<parameter>" or "merge/<parameter>". `frozen` maps patterns
    of such names (as in a shell) to the value that they keep; what is frozen is no coordinate. `genes` may also give a
    plain value instead of a range: it then holds everywhere. `options` and `mask_seed`, the seed of random masks, hold
    for the whole merge; a range instead of a value makes them genes. `known_merges` says which ones the method can
    give: each of its "sources" alone, and their "uniform" average. `statistics`: the digest of what a pass over texts
    has found of the sources, for methods that weigh by it; how to make it, where that has still to be done.
    """

    def __init__(
        self,
        *,
        models: Sequence[Checkpoint],
        base: Checkpoint | None,
        locations: Mapping[str, Location | None],
        method: str,
        genes: Mapping[str, object],
        options: Mapping[str, object] | None = None,
        granularity: Mapping[str, object] | None = None,
        frozen: Mapping[str, Value] | None = None,
        mask_seed: int | Mapping[str, object] = 0,
        known_merges: Sequence[str] = (SOURCES, UNIFORM),
        statistics: str | Mapping[str, object] | None = None,
    ) -> None:
        self._method, self._models, self._base = method, tuple(models), base
        if not isinstance(known_merges, list | tuple) or set(known_merges) - {SOURCES, UNIFORM}:
            raise ValueError(f"known_merges: expected a list of some of {[SOURCES, UNIFORM]}, got {known_merges!r}")
        self._known = tuple(known_merges)
        self._groups = _granularity(granularity or {}).group(locations)
        self._constants: dict[str, Any] = {}
        self._specs: dict[str, GeneSpec] = {}
        for name, spec in {"mask_seed": mask_seed, **(options or {}), **genes}.items():
            if isinstance(spec, Mapping):
                self._specs[name] = parse_spec(name, spec if name in genes else {"per": "merge", **spec})
            else:
                self._constants[name] = tuple(spec) if isinstance(spec, list) else spec
        self._check_names()
        if isinstance(statistics, str):
            self._constants["statistics"] = statistics
        self._slots = self._frozen_or_free(dict(frozen or {}))
        self._simplices = self._on_simplices()
        self._free = {name: slot for name, slot in self._slots.items() if isinstance(slot, Real | Choice)}
        self.names = tuple(self._free)
        self.axes: tuple[Axis, ...] = tuple(gene.axis for gene in self._free.values())

    def _resolved(self) -> "Method":
        """The method, whose module loads torch."""
        from evohydra.merging.methods import resolve

        return resolve(self._method)

    def _check_names(self) -> None:
        method = self._resolved()
        check_parameters(self._method, method, self._constants, self._specs)
        for name in method.per_model.intersection(self._constants):
            value = self._constants[name]
            values = value if isinstance(value, tuple) else (value,) * len(self._models)
            if len(values) != len(self._models):
                raise ValueError(f"{name}: expected a value for each of {len(self._models)} models, got {list(values)}")
            self._constants[name] = values

    def _frozen_or_free(self, frozen: dict[str, Value]) -> dict[str, Gene | float]:
        slots: dict[str, Any] = {}
        used = set()
        for parameter, spec in self._specs.items():
            for name in self._slot_names(parameter, spec):
                slots[name] = spec.gene(name)
                for pattern, value in frozen.items():
                    if fnmatch.fnmatchcase(name, pattern):
                        used.add(pattern)
                        self._resolved().check(parameter, value, f"frozen: gene {name!r}")
                        spec.check(name, value)
                        slots[name] = value
        if set(frozen) - used:
            raise ValueError(
                f"frozen: no gene matches {sorted(set(frozen) - used)}; genes are {', '.join(list(slots)[:6])}, ..."
            )
        return slots

    def _on_simplices(self) -> list[Simplex]:
        """Those of all groups; what is left to a single weight becomes its value."""
        found = []
        for parameter, spec in self._specs.items():
            for group in self._groups if spec.simplex else ():
                names = tuple(f"{group}/{parameter}/{model.name}" for model in self._models)
                frozen = {n: slot for n in names if not isinstance(slot := self._slots[n], Real | Choice)}
                found.append(Simplex.of(names, frozen))
                self._slots.update(found[-1].frozen)
        return found

    def _slot_names(self, parameter: str, spec: GeneSpec) -> list[str]:
        if spec.per == "merge":
            return [f"merge/{parameter}"]
        if spec.per == "group":
            return [f"{group}/{parameter}" for group in self._groups]
        return [f"{group}/{parameter}/{model.name}" for group in self._groups for model in self._models]

    def decode(self, x: NDArray[np.float64]) -> Merge:
        """The recipe at `x`, (dim,), in the unit cube."""
        if x.shape != (len(self.names),):
            raise ValueError(f"expected a genome of shape ({len(self.names)},), got {x.shape}")
        return self._recipe(self.values(np.clip(x, 0.0, 1.0)))

    def values(self, x: NDArray[np.float64]) -> dict[str, Value]:
        """Each gene's value at `x`, (dim,), by name."""
        values = {name: gene.value(float(u)) for (name, gene), u in zip(self._free.items(), x, strict=True)}
        for simplex in self._simplices:
            values.update(simplex.weights(values))
        return values

    def encode(self, node: Node) -> NDArray[np.float64]:
        """The point, (dim,), whose recipe is `node`; ValueError where this space holds no such recipe."""
        if not isinstance(node, Merge) or node.method != self._method or node.models != self._models:
            raise ValueError("this space holds only merges of its own sources by its own method")
        values = dict(self._named_values(node))
        constants = {name: value for name, value in node.options.items() if name not in self._specs}
        groups = {group.name: group.tensors for group in node.groups}
        if (
            node.base != self._base
            or groups != self._groups
            or constants != self._constants
            or self._slots.keys() - values
        ):
            raise ValueError("this space holds only merges on its own base with its own groups and options")
        units = dict(values)
        for simplex in self._simplices:
            units.update(simplex.units(values))
        point = np.array([gene.unit(units[name]) for name, gene in self._free.items()])
        for name, slot in self._slots.items():
            if name not in self._free and values[name] != slot:
                raise ValueError(f"{name} is frozen to {slot}, the recipe has {values[name]}")
        return point

    def _named_values(self, node: Merge) -> list[tuple[str, Any]]:
        named: list[tuple[str, object]] = [(f"merge/{name}", value) for name, value in node.options.items()]
        for group in node.groups:
            for name, value in group.parameters.items():
                if isinstance(value, tuple):
                    named += [(f"{group.name}/{name}/{m.name}", v) for m, v in zip(self._models, value, strict=True)]
                else:
                    named.append((f"{group.name}/{name}", value))
        return named

    def known_merges(self) -> dict[str, Node]:
        """Each source alone and the uniform merge, as far as this method has them."""
        found: dict[str, Node] = {}
        for index, model in enumerate(self._models if SOURCES in self._known else ()):
            found[model.name] = self._fill(lambda spec, own, i=index: _alone(spec, own, i))
        if UNIFORM in self._known:
            share = 1 / len(self._models)
            found[UNIFORM] = self._fill(lambda spec, _: share if spec.uniform == SHARE else spec.uniform)
        return found

    def default(self) -> Merge:
        """The recipe at the method's usual values, whatever is frozen here."""
        share = 1 / len(self._models)
        return self._fill(lambda spec, _: share if spec.default == SHARE else spec.default)

    def _fill(self, choose: Any) -> Merge:
        values: dict[str, Value] = {}
        for parameter, spec in self._specs.items():
            for position, name in enumerate(self._slot_names(parameter, spec)):
                chosen = choose(spec, position % len(self._models))
                values[name] = spec.value(spec.default if chosen is None else chosen)
        return self._recipe(values)

    def _recipe(self, values: Mapping[str, Value]) -> Merge:
        def at(name: str) -> Any:
            return values[name] if name in values else self._slots[name]

        options: dict[str, Parameter] = dict(self._constants)
        groups: dict[str, dict[str, Parameter]] = {group: {} for group in self._groups}
        for parameter, spec in self._specs.items():
            if spec.per == "merge":
                options[parameter] = at(f"merge/{parameter}")
                continue
            for group, parameters in groups.items():
                if spec.per == "group":
                    parameters[parameter] = at(f"{group}/{parameter}")
                else:
                    parameters[parameter] = tuple(at(f"{group}/{parameter}/{model.name}") for model in self._models)
        return Merge(
            method=self._method,
            base=self._base,
            models=self._models,
            groups=tuple(Group(name, tensors, groups[name]) for name, tensors in self._groups.items()),
            options=options,
        )


def uniform_merge(
    models: Sequence[Checkpoint], base: Checkpoint | None, locations: Mapping[str, Location | None]
) -> Merge:
    """The plain average of the models; that of one is the model, with what is copied of it and not of the base."""
    group = Group(
        "model", tuple(name for name, at in locations.items() if at), {"weight": (1 / len(models),) * len(models)}
    )
    return Merge("linear", base if len(models) > 1 else None, tuple(models), (group,))


def _granularity(fields: Plain) -> Granularity:
    unknown = sorted(set(fields) - set(Granularity.__dataclass_fields__))
    if unknown:
        raise ValueError(f"granularity: expected the keys {sorted(Granularity.__dataclass_fields__)}, got {unknown}")
    return Granularity(**fields)


def _alone(spec: GeneSpec, position: int, index: int) -> float | None:
    if spec.alone is None:
        return None
    if spec.per == "source":
        own, other = spec.alone
        return own if position == index else other
    return spec.alone[index] if index < len(spec.alone) else None
