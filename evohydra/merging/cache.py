"""What a merge computes of its sources alone, kept from one genome to the next within a number of bytes."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

Made = TypeVar("Made")


@runtime_checkable
class Sized(Protocol):
    """What says how much memory it takes."""

    @property
    def nbytes(self) -> int:
        """Bytes."""
        ...


class Cache(dict[tuple[str, ...], Any]):
    """Values by their keys; never more than `free` bytes of them together."""

    def __init__(self, free: int) -> None:
        super().__init__()
        self.free = free

    def kept(self, key: tuple[str, ...], make: Callable[[], Made]) -> Made:
        """What `make` gives, from now on without making it again where there is room for it."""
        if key not in self:
            made = make()
            size = _bytes(made)
            if size > self.free:
                return made
            self.free -= size
            self[key] = made
        found: Made = self[key]
        return found


def _bytes(value: object) -> int:
    if isinstance(value, Sized):
        return value.nbytes
    if isinstance(value, Sequence) and not isinstance(value, str):
        return 64 + sum(_bytes(each) for each in value)
    return 64
