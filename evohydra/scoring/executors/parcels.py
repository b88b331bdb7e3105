"""Jobs on their way to workers: what recipes of a run have in common crosses once for each worker.

A recipe of 2000 groups is mostly names: of groups, of their tensors and of their parameters. All genomes of a search
have the same ones, so that a job carries their values alone.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from evohydra.recipe import Group, Merge, Node, Parameter, Stack
from evohydra.scoring.job import Job

ROOM = 16  # layouts that are remembered; recipes of one run may have several

Layout = tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]  # of each group: name, tensors, names of parameters


@dataclass(frozen=True)
class Parcel:
    """A job whose recipe has no groups; for each of its merges, in the order of `_emptied`, there is an entry.

    values: of all parameters of all groups. places: where the worker keeps the layout. fresh: layouts to be kept there
    from now on.
    """

    job: Job
    values: tuple[list[Parameter], ...]
    places: tuple[int, ...]
    fresh: dict[int, Layout]


@dataclass
class Packer:
    """Packs jobs, and knows the last layouts: each has a place, and a number of its own."""

    _known: OrderedDict[Layout, tuple[int, int]] = field(default_factory=OrderedDict)
    _next: int = 0

    def pack(self, job: Job, kept: dict[int, int]) -> Parcel:
        """A job for a worker. `kept`, which is brought up to date: the number of the layout at each of its places."""
        merges: list[Merge] = []
        recipe = _emptied(job.recipe, merges)
        layouts = [_layout(each.groups) for each in merges]
        at = [self._place(layout) for layout in layouts]
        if len({place for place, _ in at}) < len(set(at)):  # more layouts in one recipe than there is room for
            return Parcel(job, (), (), {})
        fresh = {}
        for layout, (place, number) in zip(layouts, at, strict=True):
            if kept.get(place) != number:
                kept[place] = number
                fresh[place] = layout
        values = tuple([v for group in each.groups for v in group.parameters.values()] for each in merges)
        return Parcel(replace(job, recipe=recipe), values, tuple(place for place, _ in at), fresh)

    def _place(self, layout: Layout) -> tuple[int, int]:
        """Its place and number; a new layout takes the place of the one that was used longest ago."""
        found = self._known.get(layout)
        if found is None:
            place = self._known.popitem(last=False)[1][0] if len(self._known) >= ROOM else len(self._known)
            self._next += 1
            found = self._known[layout] = place, self._next
        self._known.move_to_end(layout)
        return found


def unpack(parcel: Parcel, kept: dict[int, Layout]) -> Job:
    """The job, on the worker's side. `kept`: the layouts that came with earlier parcels, by place."""
    kept |= parcel.fresh
    if not parcel.places:
        return parcel.job
    filled = (_groups(kept[place], values) for place, values in zip(parcel.places, parcel.values, strict=True))
    return replace(parcel.job, recipe=_filled(parcel.job.recipe, filled))


def _layout(groups: Sequence[Group]) -> Layout:
    return tuple([(group.name, group.tensors, tuple(group.parameters)) for group in groups])


def _groups(layout: Layout, values: Sequence[Parameter]) -> tuple[Group, ...]:
    left = iter(values)
    return tuple([Group(name, tensors, dict(zip(names, left))) for name, tensors, names in layout])  # noqa: B905


def _emptied(node: Node, merges: list[Merge]) -> Node:
    """The recipe without groups; `merges` is filled with those that had some, each after what is below it."""
    if isinstance(node, Stack):
        return replace(node, sources=tuple(_emptied(each, merges) for each in node.sources))
    if not isinstance(node, Merge):
        return node
    base = None if node.base is None else _emptied(node.base, merges)
    models = tuple(_emptied(each, merges) for each in node.models)
    merges.append(node)
    return replace(node, base=base, models=models, groups=())


def _filled(node: Node, groups: Iterator[tuple[Group, ...]]) -> Node:
    """The inverse of `_emptied`."""
    if isinstance(node, Stack):
        return replace(node, sources=tuple(_filled(each, groups) for each in node.sources))
    if not isinstance(node, Merge):
        return node
    base = None if node.base is None else _filled(node.base, groups)
    models = tuple(_filled(each, groups) for each in node.models)
    return replace(node, base=base, models=models, groups=next(groups))
