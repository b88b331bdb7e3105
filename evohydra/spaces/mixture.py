"""Mixtures of experts: merges of sources in a mixture's form, in which each source's MLP is an expert of its own."""

import glob
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evohydra.checks import Count, Seed, check
from evohydra.merging.group_methods import METHOD, method_of
from evohydra.recipe import Checkpoint, Group, Merge, Node, Parameter
from evohydra.spaces.genes import Axis, Value
from evohydra.spaces.grouping import Location
from evohydra.spaces.parameter import ParameterSpace

SEED = "mask_seed"
EXPERT = re.compile(r"\.experts\.(\d+)\.")
ROUTER = re.compile(r"\.gate\.weight$")
Locations = Mapping[str, Location | None]


@dataclass(frozen=True)
class _Part:
    """A space over some tensors, whose groups are called NAME + `end` in the whole; its usual merge."""

    space: ParameterSpace
    end: str
    usual: Merge

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(map(self.gene, self.space.names))

    def gene(self, name: str) -> str:
        group, _, rest = name.partition("/")
        return f"{group}{self.end}/{rest}"

    def groups(self, merge: Merge, first: str) -> list[Group]:
        """The groups of a merge of its own as groups of the whole, which has the method `first`."""
        own: dict[str, Parameter] = {} if merge.method == first else {METHOD: merge.method}
        options = {key: value for key, value in merge.options.items() if key != SEED}
        return [
            replace(group, name=f"{group.name}{self.end}", parameters={**own, **options, **group.parameters})
            for group in merge.groups
        ]

    def merge(self, whole: Merge, groups: Sequence[Group]) -> Merge:
        """The inverse of `groups`; ValueError for groups that are merged otherwise."""
        ours = self.usual.options.keys() - {SEED}
        if other := [group.name for group in groups if method_of(whole, group) != self.usual.method]:
            raise ValueError(f"{other[0]}: expected the method {self.usual.method} in this space")
        told = [{key: group.parameters.get(key) for key in ours} for group in groups]
        if any(each != told[0] for each in told):
            raise ValueError(f"{groups[0].name}: expected the same options as in other groups of its kind")
        options = {key: value for key, value in told[0].items() if value is not None}
        return replace(
            self.usual,
            options={SEED: whole.options[SEED], **options},
            groups=tuple(
                replace(
                    group,
                    name=group.name.removesuffix(self.end),
                    parameters={k: v for k, v in group.parameters.items() if k not in {METHOD, *ours}},
                )
                for group in groups
            ),
        )


class MixtureSpace:
    """Recipes of mixtures of experts, one for each of `models`; their tensors are those of upcycled sources.

    `shared` is the space of what experts share (attention, norms, embeddings, head): a merge of all sources. In expert
    k, merged by `experts`, all sources but source k keep the values with which a merge is not theirs: it is that
    source, or the base with more or less of what the source adds to it. `routers` gives a row to each expert. Genes of
    experts and routers are called by their groups: "layers.0.experts.<source>/weight/<source>" and
    "layers.0.router/weight/<source>". `granularity` says which layers share their genes, and what groups shared tensors
    are in; `mask_seed` is the seed of random rows and masks. How many experts answer a token (`experts_per_token`) is a
    setting of the sources' form.
    """

    def __init__(
        self,
        *,
        models: Sequence[Checkpoint],
        base: Checkpoint | None,
        locations: Locations,
        shared: Callable[..., ParameterSpace],
        experts: Callable[..., ParameterSpace],
        routers: Callable[..., ParameterSpace],
        experts_per_token: Count,
        granularity: Mapping[str, object] | None = None,
        mask_seed: Seed = 0,
    ) -> None:
        check("experts_per_token", Count, experts_per_token)
        kinds = _kinds(locations, len(models))
        layers = {"layers": (granularity or {}).get("layers", "each")}

        def made(what: str, make: Callable[..., ParameterSpace], tensors: Locations, **more: object) -> ParameterSpace:
            try:
                return make(models=models, base=base, locations=tensors, mask_seed=mask_seed, **more)
            except ValueError as error:
                raise ValueError(f"{what}: {error}") from None

        whole = made("shared", shared, kinds[None], granularity=granularity or {})
        self._shared = _Part(whole, "", whole.default())
        self._experts = []
        for number, model in enumerate(models):
            frozen = _others(experts, [each.name for each in models if each != model])
            own = made("experts", experts, kinds[number], granularity=layers, frozen=frozen)
            if not isinstance(usual := own.known_merges().get(model.name), Merge):
                raise ValueError("experts: expected a method whose merges can be one of the sources (alone)")
            self._experts.append(_Part(own, f".experts.{model.name}", usual))
        routing = made("routers", routers, kinds["router"], granularity=layers)
        self._parts = (self._shared, *self._experts, _Part(routing, ".router", routing.default()))
        self.names = tuple(name for part in self._parts for name in part.names)
        self.axes: tuple[Axis, ...] = tuple(axis for part in self._parts for axis in part.space.axes)

    def decode(self, x: NDArray[np.float64]) -> Merge:
        """The recipe at `x`, (dim,), in the unit cube."""
        if x.shape != (len(self.names),):
            raise ValueError(f"expected a genome of shape ({len(self.names)},), got {x.shape}")
        return self._joined([part.space.decode(own) for part, own in zip(self._parts, self._split(x), strict=True)])

    def values(self, x: NDArray[np.float64]) -> dict[str, Value]:
        """Each gene's value at `x`, (dim,), by name."""
        found: dict[str, Value] = {}
        for part, own in zip(self._parts, self._split(x), strict=True):
            found |= {part.gene(name): value for name, value in part.space.values(own).items()}
        return found

    def encode(self, node: Node) -> NDArray[np.float64]:
        """The point, (dim,), whose recipe is `node`; ValueError where this space holds no such recipe."""
        if not isinstance(node, Merge) or set(node.options) != {SEED}:
            raise ValueError("this space holds only mixtures of its own sources, with mask_seed as the only option")
        expected = [group.name for part in self._parts for group in part.groups(part.usual, "")]
        if [group.name for group in node.groups] != expected:
            raise ValueError("this space holds only mixtures with its own groups")
        found, left = [], list(node.groups)
        for part in self._parts:
            count = len(part.usual.groups)
            found.append(part.space.encode(replace(part.merge(node, left[:count]), models=node.models, base=node.base)))
            left = left[count:]
        return np.concatenate(found)

    def known_merges(self) -> dict[str, Node]:
        """Mixtures with each source as an expert, on the shared tensors of one source, or of the average of all."""
        _, *others = (part.usual for part in self._parts)
        known = self._shared.space.known_merges()
        return {
            f"mixture on {name}": self._joined([merge, *others])
            for name, merge in known.items()
            if isinstance(merge, Merge)
        }

    def default(self) -> Merge:
        """The usual merge of what is shared, each source as an expert, and routers at their usual values."""
        return self._joined([part.usual for part in self._parts])

    def _split(self, x: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        ends = np.cumsum([len(part.space.names) for part in self._parts])
        return np.split(np.clip(x, 0.0, 1.0), ends[:-1])

    def _joined(self, merges: Sequence[Merge]) -> Merge:
        """One merge of all groups; its method is that of what is shared."""
        first = merges[0]
        groups = [g for part, merge in zip(self._parts, merges, strict=True) for g in part.groups(merge, first.method)]
        return replace(first, groups=tuple(groups), options={SEED: first.options[SEED]})


def _kinds(locations: Locations, experts: int) -> dict[int | str | None, Locations]:
    """The tensors of each expert, by its number, of routers, and of what experts share (None)."""
    found: dict[int | str | None, dict[str, Location | None]] = {key: {} for key in (None, "router", *range(experts))}
    for name, place in locations.items():
        if expert := EXPERT.search(name):
            found[int(expert[1])][name] = place
        else:
            found["router" if ROUTER.search(name) else None][name] = place
    if not all(found.values()):
        raise ValueError("a mixture: expected tensors of experts, of routers, and of what they share, got some of them")
    return dict(found)


def _others(experts: Callable[..., ParameterSpace], others: Sequence[str]) -> dict[str, Value]:
    """What is frozen in an expert: the genes of the `others`, at the values with which a merge is not theirs."""
    given: Mapping[str, object] = getattr(experts, "keywords", {})
    genes, frozen = given.get("genes"), given.get("frozen")
    found: dict[str, Value] = dict(frozen) if isinstance(frozen, Mapping) else {}
    for name, gene in genes.items() if isinstance(genes, Mapping) else ():
        if isinstance(gene, Mapping) and gene.get("per") == "source":
            if gene.get("simplex") or not gene.get("alone"):
                raise ValueError(f"experts: {name}: expected a gene with `alone` that is on no simplex")
            found |= {f"*/{glob.escape(name)}/{glob.escape(other)}": gene["alone"][1] for other in others}
    return found
