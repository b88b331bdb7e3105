"""Searches that begin with genomes of an earlier run (`warm_start`)."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from evohydra.assembly.parts import instantiate
from evohydra.assembly.settings import Settings
from evohydra.searching.identity import Identity
from evohydra.searching.optimizers import Optimizer, Points
from evohydra.searching.optimizers.gaussian.transfer import Earlier
from evohydra.searching.plan import SearchPlan
from evohydra.searching.warm_start import best_genomes, earlier_genomes
from evohydra.searching.warm_start import identity as warm_identity
from evohydra.spaces import Space
from evohydra.spaces.genes import Axis


def warm_genomes(settings: Settings, space: Space) -> Points:
    """The genomes of an earlier run to begin with, (k, dim)."""
    if not settings.warm_start:
        return np.empty((0, len(space.names)))
    return best_genomes(Path(settings.warm_start), space, settings.warm_start_top)


def _earlier(settings: Settings, space: Space) -> Earlier | None:
    """All genomes of an earlier run, for a strategy that takes them as data."""
    strategy = getattr(instantiate(settings.optimizer), "func", None)
    if not (getattr(strategy, "takes_earlier", False) and settings.optimizer.get("transfer", True)):
        return None
    return earlier_genomes(Path(str(settings.warm_start)), space)


def optimizer_of(settings: Settings, earlier: Earlier | None, axes: Sequence[Axis], start: Points) -> Optimizer:
    """The strategy, with the genomes of an earlier run where these are data of it."""
    data = {} if earlier is None else {"earlier": earlier}
    made: Optimizer = instantiate(settings.optimizer)(axes=axes, seed=settings.seed, start=start, **data)
    return made


def warmed(settings: Settings, plan: SearchPlan, identity: Identity) -> tuple[SearchPlan, Identity]:
    """The plan and the identity of a search with the genomes that it begins with; as they are if there are none."""
    if not settings.warm_start:
        return plan, identity
    warm, earlier = warm_genomes(settings, plan.space), _earlier(settings, plan.space)
    known = warm_identity(Path(settings.warm_start), warm, identity.scores.benchmarks, earlier)
    return (
        replace(
            plan, warm=np.vstack([plan.warm, warm]), make_optimizer=functools.partial(optimizer_of, settings, earlier)
        ),
        replace(identity, search=replace(identity.search, warm_start=known)),
    )
