"""Ablations of a winner: each of its genes, or each group of tensors, set to its default and scored on validation."""

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from evohydra.recipe import Node
from evohydra.scoring.statistics import paired_gain
from evohydra.searching.driver import Candidate
from evohydra.searching.objectives import Objective
from evohydra.searching.scheduler import Scheduler
from evohydra.spaces import Space

KINDS = ("genes", "groups")


def check_ablations(kind: str | None, validated: bool) -> None:
    """ValueError where `kind` is none, or there is no validation split to score them on."""
    if kind is not None and kind not in KINDS:
        raise ValueError(f"ablate: expected null or one of {', '.join(KINDS)}, got {kind!r}")
    if kind and not validated:
        raise ValueError(f"ablate={kind} needs a validation split, and there is none")


def ablations(
    space: Space, winner: Candidate, scheduler: Scheduler, objective: Objective, kind: str
) -> list[dict[str, object]]:
    """What the winner gains from each of its genes or groups: by name, with interval and p, paired over examples.

    An ablation that cannot be scored is left out. Raises ValueError where the space does not hold its own default.
    """
    genome, usual = np.array(winner.record.genome), space.encode(space.default())
    changed: dict[str, Node] = {"winner": winner.recipe}
    for name, places in _parts(space.names, kind).items():
        ablated = genome.copy()
        ablated[places] = usual[places]
        changed[f"ablation of {name}"] = space.decode(ablated)
    scored = scheduler.scored(changed, "validation")
    best = scored.pop("winner")
    found = []
    for label, other in scored.items():
        if other.scores:
            gain = paired_gain(objective.weighted(best.scores), objective.weighted(other.scores))
            found.append({"name": label.removeprefix("ablation of "), **asdict(gain)})
    return found


def _parts(names: tuple[str, ...], kind: str) -> Mapping[str, list[int]]:
    parts: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        group = name.rsplit("/", min(2, name.count("/")))[0]  # of group/parameter/source, or group/parameter
        parts.setdefault(name if kind == "genes" else group, []).append(place)
    return parts
