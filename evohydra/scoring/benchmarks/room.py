"""Batches that fit into memory: halved where they do not, for the rest of a worker's life."""

import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")
LOGITS = 2**26  # that log-likelihoods are made from at once: a quarter of a gigabyte in float32
logger = logging.getLogger(__name__)
# What torch says where memory does not suffice; it has a type of its own only for CUDA.
MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")


class NoRoomError(MemoryError):
    """One example alone does not fit into memory."""


def out_of_memory(reason: BaseException) -> bool:
    """Whether an error is about memory that does not suffice, on a CPU, CUDA or MPS."""
    return isinstance(reason, MemoryError | torch.OutOfMemoryError) or any(words in str(reason) for words in MEMORY)


class Room:
    """How many rows go through a model at once: at most `size`, and half of what did not fit.

    What is computed of a row must not depend on the rows beside it, except for rounding. Errors and the log name
    `batch_size`, the setting that `size` comes from.
    """

    def __init__(self, size: int) -> None:
        self.size, self.given = size, size

    def over(self, count: int, compute: Callable[[slice], T], what: str) -> list[T]:
        """What `compute` gives for each part of `count` rows, in order.

        A part for which memory does not suffice is computed again in halves. Raises NoRoomError where a single row,
        `what` in words, does not fit.
        """
        found: list[T] = []
        before, refused, start = self.size, "", 0
        while start < count:
            rows = slice(start, min(start + self.size, count))
            failed = ""
            try:
                found.append(compute(rows))
                start = rows.stop
            except (RuntimeError, MemoryError) as error:
                if isinstance(error, NoRoomError) or not out_of_memory(error):
                    raise
                failed = f"{type(error).__name__}: {error}"
            if failed:  # here the error is gone, and with it all that its frames hold
                self._halve(rows.stop - rows.start, what, failed)
                refused = refused or failed
        if refused:
            logger.warning(
                "batch_size=%d: %d at once do not fit into memory (%s). From here on they are computed %d at a time; "
                "results differ in rounding at most",
                self.given,
                min(before, count),
                " ".join(refused.split())[:200],
                self.size,
            )
        return found

    def _halve(self, rows: int, what: str, failed: str) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if rows == 1:
            raise NoRoomError(f"batch_size={self.given}: {what} does not fit into memory, alone in its batch: {failed}")
        self.size = rows // 2
