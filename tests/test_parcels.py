"""Jobs that cross to workers without what those know: each arrives as it was sent."""

import pickle

from evohydra.recipe import Checkpoint, Group, Hop, LayerNames, Merge, Node, Stack, digest
from evohydra.scoring.executors.parcels import ROOM, Layout, Packer, unpack
from evohydra.scoring.job import Job
from tests.benchmarks.ray_overhead import recipe

ONE, TWO = Checkpoint("one", "/models/one"), Checkpoint("two", "/models/two")


def merge(value: float, names: tuple[str, ...] = ("a", "b"), models: tuple[Node, ...] = (ONE, TWO)) -> Merge:
    groups = tuple(Group(name, (f"{name}.weight",), {"weight": (value, 0.5), "on": True, "by": 1}) for name in names)
    return Merge("linear", None, models, groups, {"normalize": True})


def stack(value: float) -> Stack:
    return Stack((merge(value), ONE), (Hop(0, 1), Hop(1, 0, value)), LayerNames("layers", "e", "a", "m"))


class Crossing:
    """A driver and one worker."""

    def __init__(self) -> None:
        self.packer = Packer()
        self.replace()

    def replace(self) -> None:
        self.numbers: dict[int, int] = {}
        self.layouts: dict[int, Layout] = {}

    def sent(self, job: Job) -> tuple[Job, int]:
        """What arrives, and the bytes that crossed."""
        packed = pickle.dumps(self.packer.pack(job, self.numbers))
        return unpack(pickle.loads(packed), self.layouts), len(packed)


def test_recipes_of_every_kind_arrive_as_they_were() -> None:
    crossing = Crossing()
    nested = merge(0.3, ("c",), (merge(0.1), stack(0.2)))
    for node in (
        ONE,
        merge(0.1),
        merge(0.7),
        stack(0.4),
        nested,
        merge(0.2, ()),
        Merge("ties", merge(0.5), (ONE,), ()),
    ):
        for job in (Job(node, "search"), Job(node, "test", {"task": [3, 1]}, (0, 2))):
            arrived, _ = crossing.sent(job)
            assert arrived == job
            assert digest(arrived.recipe) == digest(node)
            assert repr(arrived) == repr(job)  # 1 and True and 1.0 are equal


def test_what_recipes_share_crosses_once_for_each_worker() -> None:
    crossing = Crossing()
    sizes = [crossing.sent(Job(recipe(4000, number), "search"))[1] for number in range(3)]
    assert sizes[0] > 150_000
    assert max(sizes[1:]) < 45_000
    crossing.replace()  # by a worker that knows nothing
    arrived, size = crossing.sent(Job(recipe(4000, 7), "search"))
    assert arrived.recipe == recipe(4000, 7)
    assert size > 150_000


def test_more_layouts_than_are_remembered_arrive_too() -> None:
    crossing = Crossing()
    for number in [*range(3 * ROOM), 0, 1, 5 * ROOM, 0]:
        node = merge(0.5, tuple(f"{number}-{each}" for each in range(2)))
        assert crossing.sent(Job(node, "search"))[0].recipe == node
    deep: Node = ONE
    for number in range(ROOM + 2):  # in a single recipe
        deep = merge(0.1 * number, (f"level {number}",), (deep, TWO))
    assert crossing.sent(Job(deep, "search"))[0].recipe == deep
    assert crossing.sent(Job(merge(0.2), "search"))[0].recipe == merge(0.2)
    assert max(len(crossing.layouts), len(crossing.numbers)) == ROOM
