"""The logarithm of expected improvement (Ament et al., Unexpected Improvements, arXiv 2310.20708, equation 9)."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, log_ndtr, ndtr

Values = NDArray[np.float64]
LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)


def log_improvement(mean: Values, deviation: Values, best: float) -> Values:
    """log E[max(f - best, 0)] for f normal with these means and deviations, (n,) each; larger is better."""
    return log_h((mean - best) / deviation) + np.log(deviation)


def log_h(z: Values) -> Values:
    """log(phi(z) + z Phi(z)), also far below 0, where the sum itself is 0 in floating point."""
    z = np.asarray(z, dtype=np.float64)
    near = np.maximum(z, -1.0)
    direct = np.log(np.exp(-0.5 * near**2 - LOG_ROOT_2PI) + near * ndtr(near))
    far = np.minimum(z, -1.0)
    ratio = math.sqrt(math.pi / 2) * erfcx(-far / math.sqrt(2)) * far  # z Phi(z) / phi(z), near -1 far below 0
    with np.errstate(divide="ignore"):
        tail = np.where(far > -1e4, np.log1p(ratio.clip(min=-1 + 1e-15)), -2 * np.log(-far))
    found: Values = np.where(z > -1.0, direct, -0.5 * far**2 - LOG_ROOT_2PI + tail)
    return found


def slope_of_log_h(z: float) -> float:
    """d log_h / dz = Phi(z) / (phi(z) + z Phi(z))."""
    return math.exp(float(log_ndtr(z)) - float(log_h(np.array([z]))[0]))
