"""What a benchmark computes once and uses for many genomes, within a bound on memory."""

from collections.abc import Callable, Hashable
from typing import Any


class RunCache:
    """Values by key, at most `max_bytes` of them.

    Genomes go through the same examples in the same order, so what was kept first is kept on (to drop the least
    recently used would drop each value just before its next use). Only values that one whole round has not asked for,
    as with other examples in each generation, make room for new ones.
    """

    def __init__(self, max_bytes: int) -> None:
        self._free = max_bytes
        self._values: dict[Hashable, tuple[object, int]] = {}
        self._used: dict[Hashable, int] = {}
        self._round = 0

    def begin_round(self) -> None:
        """Another genome begins."""
        self._round += 1

    def clear(self) -> None:
        """Forget everything."""
        for key in list(self._values):
            self._drop(key)

    def values(self) -> list[Any]:
        """All that is kept."""
        return [value for value, _ in self._values.values()]

    def get(self, key: Hashable) -> object:
        """The value of `key`, or None."""
        if key not in self._values:
            return None
        self._used[key] = self._round
        return self._values[key][0]

    def put(self, key: Hashable, value: object, size: int) -> None:
        """Keep `value` of `size` bytes if there is, or can be made, room for it."""
        if size > self._free:
            for old in [old for old, used in self._used.items() if used < self._round - 1]:
                self._drop(old)
        if size <= self._free and key not in self._values:
            self._values[key], self._used[key] = (value, size), self._round
            self._free -= size

    def once(self, key: Hashable, compute: Callable[[], object], size: Callable[[Any], int]) -> Any:
        """The value of `key`, computed where it is not kept."""
        value = self.get(key)
        if value is None:
            value = compute()
            self.put(key, value, size(value))
        return value

    def _drop(self, key: Hashable) -> None:
        self._free += self._values.pop(key)[1]
        del self._used[key]
