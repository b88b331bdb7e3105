"""A Ray of several nodes on one machine, for tests."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from evohydra.scoring.executors.ray_cluster import OBJECTS, OWN, ray_library

NODE = {"object_store_memory": OBJECTS}


@contextmanager
def nodes_of_ray(**head: object) -> Iterator[Any]:
    """A Ray with its head; `add_node(**NODE, ...)` and `remove_node` change its nodes. It ends with the block."""
    ray_library()
    from ray.cluster_utils import Cluster

    os.environ.update(OWN)
    cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **NODE, **head})
    try:
        yield cluster
    finally:
        cluster.shutdown()
