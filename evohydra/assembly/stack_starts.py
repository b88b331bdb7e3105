"""Published stacks of layers, mergekit's passthrough, as starting points of a search for paths (`start`)."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from evohydra.files import read_text
from evohydra.mergekit.configuration import checked
from evohydra.mergekit.documents import documents
from evohydra.mergekit.settings import PASSTHROUGH
from evohydra.mergekit.stacks import one_source_each, plain_hops
from evohydra.recipe import Checkpoint, Stack
from evohydra.searching.optimizers import Points
from evohydra.spaces import Space

SUFFIXES = (".yaml", ".yml")
MOST_BYTES = 10**6
logger = logging.getLogger(__name__)


def known_starts(start: Sequence[str]) -> tuple[str, ...]:
    """What of `start` are words, and no files."""
    return tuple(each for each in start if not each.endswith(SUFFIXES))


def by_content(start: Sequence[str]) -> list[str]:
    """`start` as part of what a run is: a file is known by its content."""
    files = {each: read_text(Path(each), MOST_BYTES) for each in start if each.endswith(SUFFIXES)}
    return [hashlib.sha256(files[each].encode()).hexdigest() if each in files else each for each in start]


def stack_points(start: Sequence[str], space: Space, names: Sequence[str]) -> Points:
    """The points, (k, dim), of the stacks in the files of `start`; `names` are the tensors of a source.

    Models of a file are sources by their path or their name. ValueError, with the file, for what is no passthrough over
    the sources of `space`, and for stacks that it does not hold.
    """
    points = []
    for file in (each for each in start if each.endswith(SUFFIXES)):
        if not Path(file).is_file():
            raise ValueError(
                f"start: expected sources, uniform, or the file of a stack, got {file}, which is not there"
            )
        try:
            points.append(space.encode(_stack(read_text(Path(file), MOST_BYTES), space, names)))
        except ValueError as error:
            raise ValueError(f"start: {file}: {error}") from error
    return np.array(points).reshape(len(points), len(space.names))


def _stack(text: str, space: Space, names: Sequence[str]) -> Stack:
    usual = space.default()
    if not isinstance(usual, Stack):
        raise ValueError("a stack of layers is a start of a search for paths: choose merge=dfs")
    config = checked(documents(text)[-1].config)
    if config["merge_method"] != PASSTHROUGH or not config.get("slices"):
        raise ValueError(f"expected merge_method: passthrough with slices, got {config['merge_method']!r}")
    slices = one_source_each(config["slices"])
    known = {
        key: place
        for place, source in enumerate(usual.sources)
        if isinstance(source, Checkpoint)
        for key in (source.name, source.path)
    }
    if unknown := sorted({each.model for each in slices} - set(known)):
        raise ValueError(f"expected the sources {', '.join(known)} by name or path, got {', '.join(unknown)}")
    first, last = known[slices[0].model], known[slices[-1].model]
    if first or last:
        logger.warning(
            "start: the stack has its embeddings of %s and its head of %s; in this search both are those of %s "
            "(merge.dataflow.first)",
            slices[0].model,
            slices[-1].model,
            getattr(usual.sources[0], "name", "the merge"),
        )
    return replace(usual, hops=plain_hops(config, slices, known, names, usual.layout))
