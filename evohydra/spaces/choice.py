"""Parameter space with a choice of methods: each group of tensors has a gene that says which one merges it."""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evohydra.checks import Seed
from evohydra.merging.group_methods import METHOD, method_of
from evohydra.recipe import Checkpoint, Group, Merge, Node, Parameter
from evohydra.spaces import Space
from evohydra.spaces.genes import Axis, Choice, Value
from evohydra.spaces.grouping import Location
from evohydra.spaces.parameter import ParameterSpace

SEED = "mask_seed"
Chosen = Mapping[str, str]  # by group the candidate


class ChoiceSpace:
    """Recipes in which each group is merged by one of the `candidates`, which are parameter spaces, by name.

    Gene names are "<group>/method", then those of each candidate with its name before the parameter:
    "<group>/ties.density/<source>". All candidates' genes are coordinates; those of a candidate that a group does not
    choose do not show in the recipe, so that such genomes are one model and are scored once. `granularity` and
    `mask_seed` hold for all candidates. `frozen` maps patterns of "<group>/method" to a candidate; other genes are
    frozen in the candidate's own settings.
    """

    def __init__(
        self,
        *,
        models: Sequence[Checkpoint],
        base: Checkpoint | None,
        locations: Mapping[str, Location | None],
        candidates: Mapping[str, Callable[..., ParameterSpace]],
        granularity: Mapping[str, object] | None = None,
        frozen: Mapping[str, str] | None = None,
        mask_seed: Seed = 0,
    ) -> None:
        if len(candidates) < 2:
            raise ValueError(f"candidates: expected two methods or more to choose from, got {list(candidates)}")
        if wrong := [name for name in candidates if "/" in name or "." in name]:
            raise ValueError(f"candidates: expected names without / and ., got {wrong}")
        located = {"models": models, "base": base, "locations": locations, "granularity": granularity or {}}
        self._seed = mask_seed
        self._candidates: dict[str, ParameterSpace] = {}
        for name, make in candidates.items():
            try:
                self._candidates[name] = make(**located, mask_seed=mask_seed)
            except ValueError as error:
                raise ValueError(f"candidates.{name}: {error}") from None
        self._usual = {name: _usual(space) for name, space in self._candidates.items()}
        self._groups = [group.name for group in next(iter(self._candidates.values())).default().groups]
        chosen = {group: Choice(f"{group}/{METHOD}", tuple(candidates)) for group in self._groups}
        self._frozen = _frozen(chosen, dict(frozen or {}))
        self._choices = {group: gene for group, gene in chosen.items() if group not in self._frozen}
        own = [_with(name, gene) for name, space in self._candidates.items() for gene in space.names]
        self.names = (*(gene.name for gene in self._choices.values()), *own)
        self.axes: tuple[Axis, ...] = (
            *(gene.axis for gene in self._choices.values()),
            *(axis for space in self._candidates.values() for axis in space.axes),
        )

    def decode(self, x: NDArray[np.float64]) -> Merge:
        """The recipe at `x`, (dim,), in the unit cube."""
        if x.shape != (len(self.names),):
            raise ValueError(f"expected a genome of shape ({len(self.names)},), got {x.shape}")
        chosen, parts = self._split(np.clip(x, 0.0, 1.0))
        return self._joined(chosen, {name: self._candidates[name].decode(part) for name, part in parts.items()})

    def values(self, x: NDArray[np.float64]) -> dict[str, Value]:
        """Each gene's value at `x`, (dim,), by name; those of candidates that are not chosen too."""
        chosen, parts = self._split(x)
        found: dict[str, Value] = {gene.name: chosen[group] for group, gene in self._choices.items()}
        for name, part in parts.items():
            found |= {_with(name, gene): value for gene, value in self._candidates[name].values(part).items()}
        return found

    def encode(self, node: Node) -> NDArray[np.float64]:
        """The point, (dim,), whose recipe is `node`; ValueError where this space holds no such recipe.

        Candidates have their usual values where they are not chosen.
        """
        if not isinstance(node, Merge) or [group.name for group in node.groups] != self._groups:
            raise ValueError("this space holds only merges of its own sources with its own groups")
        if node.options != {SEED: self._seed}:
            raise ValueError(f"expected the mask_seed {self._seed} as the only option, got {dict(node.options)}")
        parts, chosen = dict(self._usual), {}
        for place, group in enumerate(node.groups):
            name, parts = self._choice(node, place, parts)
            chosen[group.name] = name
            if (kept := self._frozen.get(group.name, name)) != name:
                raise ValueError(f"{group.name}/{METHOD} is frozen to {kept}, the recipe has {name}")
        units = [gene.unit(chosen[group]) for group, gene in self._choices.items()]
        point = np.concatenate([np.array(units), *(parts[name] for name in self._candidates)])
        return point

    def known_merges(self) -> dict[str, Node]:
        """Each source alone and the uniform merge, all by the first candidate that has it."""
        found: dict[str, Node] = {}
        for name, space in self._candidates.items():
            for label, merge in space.known_merges().items():
                if label not in found and isinstance(merge, Merge):
                    found[label] = self._all_by(name, merge)
        return found

    def default(self) -> Merge:
        """The first candidate's usual values in all groups."""
        name = next(iter(self._candidates))
        return self._all_by(name, self._candidates[name].default())

    def defaults(self) -> tuple[Merge, ...]:
        """The usual values of each candidate that a group may choose, in all groups."""
        may = self._candidates if self._choices else dict.fromkeys(self._frozen.values())
        return tuple(self._all_by(name, self._candidates[name].default()) for name in may)

    def _all_by(self, name: str, merge: Merge) -> Merge:
        return self._joined(dict.fromkeys(self._groups, name), {name: merge})

    def _split(self, x: NDArray[np.float64]) -> tuple[dict[str, str], dict[str, NDArray[np.float64]]]:
        """By group the candidate, and by candidate its own part of the genome."""
        genes = zip(self._choices.items(), x, strict=False)
        chosen = self._frozen | {group: str(gene.value(float(unit))) for (group, gene), unit in genes}
        ends = np.cumsum([len(self._choices), *(len(space.names) for space in self._candidates.values())])
        return chosen, dict(zip(self._candidates, np.split(x, ends[:-1])[1:], strict=True))

    def _joined(self, chosen: Chosen, merges: Mapping[str, Merge]) -> Merge:
        """One merge of all groups. Its method is the first group's; others are named in the groups that have them."""
        groups = []
        first = merges[chosen[self._groups[0]]]
        for place, name in enumerate(self._groups):
            merge = merges[chosen[name]]
            options = {key: value for key, value in merge.options.items() if key != SEED}
            own: dict[str, Parameter] = {} if merge.method == first.method else {METHOD: merge.method}
            groups.append(replace(merge.groups[place], parameters={**own, **options, **merge.groups[place].parameters}))
        return replace(first, groups=tuple(groups), options={SEED: self._seed})

    def _choice(
        self, node: Merge, place: int, parts: Mapping[str, NDArray[np.float64]]
    ) -> tuple[str, dict[str, NDArray[np.float64]]]:
        """The candidate of the group at `place`, and `parts`, a genome of each candidate, with that group's genes."""
        group, reasons = node.groups[place], []
        for name, space in self._candidates.items():
            usual = space.decode(parts[name])
            if usual.method != method_of(node, group):
                continue
            try:
                return name, {**parts, name: space.encode(_with_group(usual, place, group))}
            except ValueError as error:
                reasons.append(f"{name}: {error}")
        raise ValueError(f"this space holds no such merge of {group.name}: {'; '.join(reasons) or 'no such method'}")


def defaults_of(space: Space) -> tuple[Node, ...]:
    """The usual recipe of a space by each of its methods, of which most have one."""
    return space.defaults() if isinstance(space, ChoiceSpace) else (space.default(),)


def _usual(space: ParameterSpace) -> NDArray[np.float64]:
    """The point of a candidate's usual values; the middle of its ranges where these are frozen to others."""
    try:
        return space.encode(space.default())
    except ValueError:
        return np.full(len(space.names), 0.5)


def _with_group(merge: Merge, place: int, group: Group) -> Merge:
    """The candidate's `merge` with the parameters of a `group` of a joined one."""
    options = {key: group.parameters.get(key, value) for key, value in merge.options.items()}
    own = {key: value for key, value in group.parameters.items() if key != METHOD and key not in merge.options}
    groups = (*merge.groups[:place], replace(group, parameters=own), *merge.groups[place + 1 :])
    return replace(merge, groups=groups, options=options)


def _with(candidate: str, gene: str) -> str:
    group, _, rest = gene.partition("/")
    return f"{group}/{candidate}.{rest}"


def _frozen(choices: Mapping[str, Choice], patterns: Mapping[str, str]) -> dict[str, str]:
    """By group the candidate to which it is frozen."""
    found = {}
    for pattern, candidate in patterns.items():
        matched = {group: gene for group, gene in choices.items() if fnmatch.fnmatchcase(gene.name, pattern)}
        if not matched:
            raise ValueError(
                f"frozen: no choice matches {pattern!r}; choices are {', '.join(g.name for g in choices.values())}"
            )
        for group, gene in matched.items():
            gene.unit(candidate)
            found[group] = candidate
    return found
