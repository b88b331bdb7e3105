"""Whether a picture shows the digit that its prompt asks for, by a classifier fitted on scikit-learn's digits."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.svm import SVC

from evohydra.scoring.benchmarks.prompts import Prompt
from evohydra.scoring.benchmarks.scorers import ScorerError
from evohydra.zoo.digits import JUDGED, pictures
from evohydra.zoo.scenes import CELL

LIBRARIES = ("scikit-learn",)  # that scores depend on


def digits() -> "Digits":
    """A scorer by a support vector machine, fitted in a tenth of a second on digits that no diffusion model saw."""
    return Digits(SVC(C=10.0).fit(*_judged()))  # of radial basis functions; nothing about it is random


class Digits:
    """1 where the classifier sees the prompt's label ("0" to "9") in the picture, and 0 where it sees another digit."""

    name = "digits"

    def __init__(self, judge: Any) -> None:
        self.judge = judge

    def identity(self) -> dict[str, object]:
        """The classifier's settings; it is fitted on data of scikit-learn."""
        return {"classifier": {key: str(value) for key, value in sorted(self.judge.get_params().items())}}

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[Prompt]) -> NDArray[np.float64]:
        """(n,) ones and zeros; ScorerError for a prompt without a digit as its label."""
        right: NDArray[np.float64] = (self.judge.predict(features(images)) == self._wanted(prompts)).astype(np.float64)
        return right

    def log_probabilities(self, images: Sequence[Image.Image], prompts: Sequence[Prompt]) -> NDArray[np.float64]:
        """(n,): of the prompt's label, by the classifier calibrated with a sigmoid on five folds (Platt 1999)."""
        labels = np.searchsorted(self.judge.classes_, self._wanted(prompts))
        likely = self._calibrated.predict_proba(features(images))[np.arange(len(labels)), labels]
        found: NDArray[np.float64] = np.log(likely.clip(np.finfo(np.float64).tiny))
        return found

    @functools.cached_property
    def _calibrated(self) -> CalibratedClassifierCV:
        return CalibratedClassifierCV(clone(self.judge), ensemble=False).fit(*_judged())

    def _wanted(self, prompts: Sequence[Prompt]) -> NDArray[np.str_]:
        for prompt in prompts:
            if prompt.label not in self.judge.classes_:
                raise ScorerError(f"prompt {prompt.text!r}: expected a digit as its label, got {prompt.label!r}")
        return np.array([prompt.label for prompt in prompts])


def _judged() -> tuple[NDArray[np.float64], list[str]]:
    """The features and labels that the classifier is fitted on."""
    images, labels = pictures(JUDGED)
    return features([Image.fromarray(image) for image in images]), [str(label) for label in labels]


def features(images: Sequence[Image.Image]) -> NDArray[np.float64]:
    """(n, 64) grey values from 0 to 1 of the pictures, at the size of the data set."""
    small = [image.convert("L").resize((CELL, CELL), Image.Resampling.BOX) for image in images]
    return np.stack([np.asarray(image, dtype=np.float64).ravel() for image in small]) / 255.0
