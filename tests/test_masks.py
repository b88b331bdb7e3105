"""Merges that drop entries at random are references with several masks."""

from evohydra.recipe import Checkpoint, Group, Merge
from evohydra.scoring.job import Evaluation
from evohydra.searching.masks import by_mask, label, mean_of, with_masks

ONE, TWO, BASE = (Checkpoint(name, name) for name in ("one", "two", "base"))


def merge(method: str, **options: int) -> Merge:
    weights = {"weight": (0.5, 0.5), "density": (0.5, 0.5)}
    return Merge(method, BASE, (ONE, TWO), (Group("all", ("a",), weights),), options)


def test_only_a_merge_with_random_masks_is_scored_with_several() -> None:
    found = by_mask(merge("dare_ties", mask_seed=7))
    assert list(found) == [7, 8, 9]
    assert found == {seed: merge("dare_ties", mask_seed=seed) for seed in (7, 8, 9)}
    assert by_mask(merge("ties", mask_seed=7)) == {}
    assert by_mask(ONE) == {}
    assert [*by_mask(merge("della"))] == [0, 1, 2]


def test_the_mean_is_taken_example_by_example() -> None:
    two = [Evaluation({"a": [1.0, 0.0], "b": [0.25]}), Evaluation({"a": [0.0, 0.0], "b": [0.75]})]
    assert mean_of(two).scores == {"a": [0.5, 0.0], "b": [0.5]}
    failed = Evaluation({}, error="not finite")
    assert mean_of([two[0], failed]) is failed


def test_each_mask_has_a_name_of_its_own() -> None:
    masks = {"dare_ties": by_mask(merge("dare_ties", mask_seed=1))}
    found = with_masks({"dare_ties": masks["dare_ties"][1], "one": ONE}, masks)
    assert list(found) == ["dare_ties", "one", *(label("dare_ties", seed) for seed in (1, 2, 3))]
    assert found[label("dare_ties", 2)] == masks["dare_ties"][2]
