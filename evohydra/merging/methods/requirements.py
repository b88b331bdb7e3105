"""What a merge method asks of its sources, and the errors that say so."""

from collections.abc import Sequence

from torch import Tensor


def need_base(base: Tensor | None) -> Tensor:
    """`base`; ValueError where there is none."""
    if base is None:
        raise ValueError(
            "this merge method needs the base model of its sources, and the sources name none; "
            "model.sources.NAME.base=PATH, for any of them, says what it is. Other methods need none: merge=linear, "
            "merge=slerp"
        )
    return base


def need_models(method: str, models: Sequence[Tensor], least: int, most: int | None = None) -> None:
    """ValueError unless there are `least` to `most` models (besides the base)."""
    if len(models) < least or (most is not None and len(models) > most):
        bound = f"exactly {least}" if least == most else f"at least {least}" if most is None else f"{least} to {most}"
        raise ValueError(f"{method} takes {bound} model{'s' if bound[-1] != '1' else ''}, got {len(models)}")


def need_at_least(name: str, value: float, least: float) -> float:
    """`value`; ValueError where it is below `least` or no number."""
    if not value >= least:
        raise ValueError(f"{name}: expected a number of at least {least:g}, got {value}")
    return value


def shares(weight: Sequence[float]) -> list[float]:
    """w_k / sum_k w_k; ValueError where that sum is 0."""
    total = sum(weight)
    if abs(total) < 1e-12:
        raise ValueError(f"cannot normalize weights that sum to 0: {list(weight)}")
    return [w / total for w in weight]
