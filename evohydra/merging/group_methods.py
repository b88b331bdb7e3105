"""Which method merges a group: that of its merge, unless its own parameters name another one (`merge=any`)."""

from evohydra.recipe import Group, Merge

METHOD = "method"  # among a group's parameters


def method_of(node: Merge, group: Group) -> str:
    """The name of the method that merges `group`, one of those of `node`."""
    return str(group.parameters.get(METHOD, node.method))


def methods_of(node: Merge) -> tuple[str, ...]:
    """All methods of a merge, that of `node` first, each once."""
    return tuple(dict.fromkeys([node.method, *(method_of(node, group) for group in node.groups)]))
