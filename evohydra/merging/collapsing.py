"""Linear merges of linear merges as one merge of what those are made of: their coefficients are multiplied out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evohydra.merging.adapter_merges import coefficients
from evohydra.merging.factor_merges import of_factors
from evohydra.merging.group_methods import method_of, methods_of
from evohydra.merging.methods import resolve
from evohydra.recipe import Checkpoint, Group, Merge, Node, Parameter

AVERAGE, ARITHMETIC = "linear", "task_arithmetic"
NORMALIZE = "normalize"
AND = " & "  # between the names of groups that tensors are in


def collapsed(node: Merge) -> Merge:
    """`node` with the models of its sources in the places of those, where both are linear merges on the same base.

    For example task_arithmetic with weights (2, 1) of two sources, the first of which is task_arithmetic with weights
    (0.5, 0.1) of A and B, and the second is B, is task_arithmetic with weights (1, 1.2) of A and B. A model that comes
    more than once has the sum of its coefficients, also where that is 0. There is a group for each intersection of the
    groups. The result is `linear` where all of them are averages, else `task_arithmetic`: a sum in which the base is
    not multiplied, as `linear` without `normalize` would do.

    Coefficients are in float64. The merged tensors are those of the tree but for roundings: sources are not rounded to
    the type of the merge any more. What cannot be multiplied out stays as it is: sources by other methods or on another
    base, weights that a method refuses, and adapters beside what is none (merges of adapters alone have a faster way).
    """
    inner = [collapsed(model) if isinstance(model, Merge) and _is_linear(model) else None for model in node.models]
    fitting = [each if each is not None and each.base == node.base else None for each in inner]
    if not any(fitting) or not _is_linear(node):
        return node
    averages = all(_is_average(each) for each in (node, *fitting) if each is not None)
    if not averages:
        if node.base is None or not _keeps_base(node):
            return node
        fitting = [each if each is not None and _keeps_base(each) else None for each in fitting]
        if not any(fitting):
            return node
    try:
        made = _Together(node, fitting, AVERAGE if averages else ARITHMETIC).merge()
    except ValueError:  # weights that a method refuses: whoever carries out the tree says so
        return node
    adapters = [isinstance(model, Checkpoint) and model.adapter is not None for model in made.models]
    if not made.models or not made.groups or (any(adapters) and not all(adapters)):
        return node
    return collapsed(made)  # what an inner merge could not take in, this one may


def _is_linear(node: Merge) -> bool:
    """Whether it is by methods of our own alone that are linear in task vectors; no other code is looked at.

    Merges of factors are not: of these the product counts.
    """
    if any(of_factors(node, group) for group in node.groups):
        return False
    return all(":" not in name and resolve(name).coefficients is not None for name in methods_of(node))


def _is_average(node: Merge) -> bool:
    return all(method_of(node, group) == AVERAGE for group in node.groups)


def _keeps_base(node: Merge) -> bool:
    """Whether the base's own coefficient is 1 in all groups, whatever the weights are."""
    return all(method_of(node, group) != AVERAGE or _normalized(node, group) for group in node.groups)


def _normalized(node: Merge, group: Group) -> bool:
    usual = resolve(method_of(node, group)).defaults
    return bool({**usual, **node.options, **group.parameters}[NORMALIZE])


class _Together:
    """A merge, and those of its models that are merges to be multiplied out (None: a model that stays as it is)."""

    def __init__(self, node: Merge, inner: Sequence[Merge | None], method: str) -> None:
        self._node, self._inner, self._method = node, inner, method
        self._models: list[Node] = []
        for model, merge in zip(node.models, inner, strict=True):
            for each in merge.models if merge else (model,):
                self._place(each)

    def _place(self, model: Node) -> int | None:
        """The number of a model; None of the base of task vectors, whose own is 0."""
        if self._method == ARITHMETIC and model == self._node.base:
            return None
        if model not in self._models:
            self._models.append(model)
        return self._models.index(model)

    def merge(self) -> Merge:
        """The one merge; ValueError from a method for its weights."""
        parts = self._parts()
        weights = [self._weights(*key) for key in parts]
        flags = [self._all_normalized(*key) for key in parts]
        alike = len(set(flags)) == 1
        options: dict[str, Parameter] = {NORMALIZE: flags[0]} if alike else {}
        groups, names = [], self._names(parts)
        for name, tensors, found, normalize in zip(names, parts.values(), weights, flags, strict=True):
            weight = tuple(found.get(place, 0.0) for place in range(len(self._models)))
            own: dict[str, Parameter] = {} if alike else {NORMALIZE: normalize}
            groups.append(Group(name, tuple(tensors), {"weight": weight, **own}))
        if self._method == ARITHMETIC:
            options |= {"scaling": 1.0}
        return replace(
            self._node, method=self._method, models=tuple(self._models), groups=tuple(groups), options=options
        )

    def _parts(self) -> dict[tuple[int | None, ...], list[str]]:
        """Tensors by the numbers of the groups that they are in: of the merge, then of each inner one."""
        outer, *inner = [_numbers(each) for each in (self._node, *self._inner)]
        names = dict.fromkeys(outer)
        if self._node.base is None:
            names |= dict.fromkeys(inner[0])  # what is copied from the first model, which may merge it
        found: dict[tuple[int | None, ...], list[str]] = {}
        for name in names:
            found.setdefault(tuple(each.get(name) for each in (outer, *inner)), []).append(name)
        return found

    def _weights(self, outer: int | None, *inner: int | None) -> dict[int, float]:
        """By number of the model its coefficient."""
        found: dict[int, float] = {}

        def add(model: Node, coefficient: float) -> None:
            if (place := self._place(model)) is not None:
                found[place] = found.get(place, 0.0) + coefficient

        for model, merge, at, own in zip(
            self._node.models, self._inner, inner, self._outer_weights(outer), strict=True
        ):
            if merge is None:
                add(model, own)
            elif at is None:
                add(merge.base or merge.models[0], own)
            else:
                for each, coefficient in zip(merge.models, coefficients(merge, merge.groups[at])[1], strict=True):
                    add(each, own * coefficient)
        return found

    def _outer_weights(self, at: int | None) -> Sequence[float]:
        if at is None:  # copied from the first model
            return (1.0, *(0.0 for _ in self._node.models[1:]))
        return coefficients(self._node, self._node.groups[at])[1]

    def _all_normalized(self, outer: int | None, *inner: int | None) -> bool:
        """Whether the weights are shares, which sum to 1 but for their roundings."""
        if self._method == ARITHMETIC:
            return False
        named = zip((self._node, *self._inner), (outer, *inner), strict=True)
        return all(_normalized(merge, merge.groups[at]) for merge, at in named if merge is not None and at is not None)

    def _names(self, parts: Mapping[tuple[int | None, ...], object]) -> list[str]:
        """Of each part the names of its groups, each once; with a number where two would have the same."""
        found: list[str] = []
        for key in parts:
            named = [
                word
                for merge, at in zip((self._node, *self._inner), key, strict=True)
                if merge is not None and at is not None
                for word in merge.groups[at].name.split(AND)
            ]
            name = AND.join(dict.fromkeys(named))
            same = sum(each == name or each.startswith(f"{name} (") for each in found)
            found.append(f"{name} ({same + 1})" if same else name)
        return found


def _numbers(node: Merge | None) -> dict[str, int]:
    """By tensor the number of its group."""
    groups = node.groups if node is not None else ()
    return {name: number for number, group in enumerate(groups) for name in group.tensors}
