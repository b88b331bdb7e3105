"""What other libraries raise over a file that they do not expect, as one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from evohydra.merging.checkpoints import SourceError

LONGEST = 500  # characters of what a library says
PANIC = "PanicException"  # of libraries in Rust; it is no Exception


@contextmanager
def refused(expected: str, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """SourceError, which says what was `expected` where, for whatever is raised inside, `but` for these.

    Libraries raise anything where a file holds another type than they expect. What evohydra itself says stays, and so
    does memory that has run out.
    """
    try:
        yield
    except but:
        raise
    except (SourceError, MemoryError, torch.OutOfMemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != PANIC:
            raise
        said = " ".join(str(error).split())[:LONGEST]
        raise SourceError(f"{expected} ({type(error).__name__}: {said})") from error
