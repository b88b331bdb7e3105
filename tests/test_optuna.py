"""optimizer=optuna: samplers by name, and a study that others can watch."""

from pathlib import Path

import hydra.utils
import numpy as np
import optuna
import pytest

from evohydra.spaces.genes import Axis
from tests.contracts.discovery import composed
from tests.contracts.test_optimizers import everything, make, sphere


@pytest.mark.parametrize("sampler", ["TPESampler", "CmaEsSampler", "GPSampler", "QMCSampler", "NSGAIISampler"])
def test_samplers_come_by_name_and_repeat_themselves(sampler: str) -> None:
    once, again, other = (everything("optuna", sampler=sampler, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert once.min() >= 0
    assert once.max() <= 1
    assert sampler == "QMCSampler" or not np.array_equal(once, other)


def test_settings_are_those_of_the_sampler() -> None:
    assert len(everything("optuna", multivariate=True)) == 24
    with pytest.raises(ValueError, match=r"optimizer\.multivariat: there is no such setting; known are .*multivariate"):
        make("optuna", multivariat=True)
    with pytest.raises(ValueError, match=r"optimizer\.sampler: expected one of .*TPESampler.*, got 'Bayes'"):
        make("optuna", sampler="Bayes")
    with pytest.raises(ValueError, match=r"optimizer\.sampler=GridSampler: it is not made of a seed"):
        make("optuna", sampler="GridSampler")


def test_a_search_can_be_watched_and_one_that_goes_on_makes_its_study_anew(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'search.db'}"
    for _ in range(2):
        searching = make("optuna", storage=storage, study="mine")
        asked = searching.ask()
        searching.tell(asked, sphere(asked))
        study = optuna.load_study(study_name="mine", storage=storage)
        assert len(study.trials) == 4
        assert study.best_value == pytest.approx(sphere(asked).max())
        assert list(study.best_params.values()) == pytest.approx(asked[sphere(asked).argmax()].tolist())


def test_the_study_of_another_program_is_left_alone(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'search.db'}"
    optuna.create_study(study_name="theirs", storage=storage)
    with pytest.raises(ValueError, match="has a study 'theirs' that evohydra did not make; choose another name"):
        make("optuna", storage=storage, study="theirs")
    assert optuna.get_all_study_names(storage) == ["theirs"]


def test_levels_are_asked_for_at_their_middle() -> None:
    axes = (Axis(), Axis("integer", levels=4), Axis("categorical", levels=3))
    searching = hydra.utils.instantiate(composed("optimizer=optuna")["optimizer"])(axes=axes, seed=1, start=None)
    genomes = np.vstack([searching.ask() for _ in range(8)])
    assert set(genomes[:, 1]) <= {0.125, 0.375, 0.625, 0.875}
    assert set(genomes[:, 2]) <= {1 / 6, 0.5, 5 / 6}
