"""Merges that drop entries at random (DARE, DELLA): with other random masks the same recipe is another model.

As references they are scored with several masks: a single one may be lucky by more than a search gains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from evohydra.merging.group_methods import methods_of
from evohydra.merging.methods import resolve
from evohydra.merging.signatures import STREAMS
from evohydra.recipe import Merge, Node
from evohydra.scoring.job import Evaluation, Scores

MASKS = 3  # with which a reference is scored
SEED = "mask_seed"


def by_mask(node: Node) -> dict[int, Node]:
    """By its mask seed a merge, and the same one with the next seeds; none of a model without random masks."""
    if not isinstance(node, Merge) or not any(STREAMS in resolve(each).supplied for each in methods_of(node)):
        return {}
    first = node.options.get(SEED, 0)
    assert isinstance(first, int)
    return {seed: replace(node, options={**node.options, SEED: seed}) for seed in range(first, first + MASKS)}


def mean_of(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Of the same examples the mean score of each over some models; the first one that failed, if one did."""
    if failed := next((each for each in evaluations if not each.scores), None):
        return failed
    return Evaluation(mean_scores([each.scores for each in evaluations]))


def mean_scores(several: Sequence[Scores]) -> dict[str, list[float]]:
    """By benchmark the mean score of each example."""
    return {name: np.mean([each[name] for each in several], axis=0).tolist() for name in several[0]}


def with_masks(models: Mapping[str, Node], masks: Mapping[str, Mapping[int, Node]]) -> dict[str, Node]:
    """`models`, and those of `masks` (by a model's name and mask seed) under names of their own."""
    return {**models, **{label(name, seed): node for name, each in masks.items() for seed, node in each.items()}}


def label(name: str, seed: int | str) -> str:
    """What a model with this mask seed is called."""
    return f"{name}, mask seed {seed}"
