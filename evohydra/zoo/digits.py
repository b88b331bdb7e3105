"""Scikit-learn's handwritten digits as pictures, and which of them are drawn after and which are judged by."""

import numpy as np
from PIL import Image

from evohydra.zoo.scenes import CELL, Pixels, handwritten

SIDE = 2 * CELL
DRAWN = slice(0, 900)
"""The digits, in their shuffled order, that the diffusion models are trained on."""
JUDGED = slice(900, None)
"""The others: what their pictures are judged by."""


def pictures(part: slice) -> tuple[Pixels, list[int]]:
    """Return the digits of a part as grey pictures (n, 16, 16), light on dark, and their values."""
    digits, labels = handwritten()
    enlarged = [
        np.asarray(Image.fromarray(each).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for each in digits[part]
    ]
    return np.stack(enlarged), labels[part]
