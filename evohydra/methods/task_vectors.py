"""Task vectors, and their weighted sum added to the base (Editing Models with Task Arithmetic, arXiv 2212.04089)."""

from collections.abc import Sequence

from torch import Tensor


def task_vectors(base: Tensor | None, models: Sequence[Tensor]) -> list[Tensor]:
    """tau_k = theta_k - theta_base (section 2); ValueError without a base."""
    if base is None:
        raise ValueError("this merge method needs the base model of its sources, and the sources name none")
    return [model - base for model in models]


def weighted_sum(vectors: Sequence[Tensor], weight: Sequence[float], normalize: bool) -> Tensor:
    """sum_k w_k x_k, divided by sum_k w_k where `normalize`; ValueError where that sum is 0."""
    total = sum(weight) if normalize else 1.0
    if abs(total) < 1e-12:
        raise ValueError(f"cannot normalize weights that sum to 0: {list(weight)}")
    result = vectors[0] * weight[0]
    for vector, factor in zip(vectors[1:], weight[1:], strict=True):
        # Not add_(alpha=...): whether that rounds once or twice depends on the processor.
        result.add_(vector * factor)
    return result.div_(total) if normalize else result


def add_scaled(base: Tensor, delta: Tensor, scaling: float) -> Tensor:
    """Theta = theta_base + lambda * tau; `delta` is consumed."""
    return delta.mul_(scaling).add_(base)
