"""A Ray of several nodes on one machine, for tests."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from evohydra.scoring.executors.ray_cluster import OBJECTS, OWN, ray_library

NODE = {"object_store_memory": OBJECTS}
TRIES = 5  # to start a node


@contextmanager
def nodes_of_ray(**head: object) -> Iterator[Any]:
    """A Ray with its head; `added` adds a node, `remove_node` takes one away. It ends with the block."""
    ray_library()
    from ray.cluster_utils import Cluster

    os.environ.update(OWN)
    settings = {"include_dashboard": False, **NODE, **head}
    cluster = _tried(lambda: Cluster(initialize_head=True, head_node_args=settings))
    try:
        yield cluster
    finally:
        cluster.shutdown()


def added(cluster: Any) -> Any:
    """A new node with one CPU."""
    return _tried(lambda: cluster.add_node(num_cpus=1, **NODE))


def _tried(start: Callable[[], Any]) -> Any:
    """What is started. On a machine with much to do Ray gives up a start after half a minute: it is tried again."""
    for left in range(TRIES)[::-1]:
        try:
            return start()
        except Exception as error:  # Ray raises this very class
            if not left or "timed out during startup" not in str(error):
                raise
            print(f"a node did not start: {error}", flush=True)
    raise AssertionError
