"""What searches of mixtures of experts (merge=moe) cannot be combined with."""

from collections.abc import Mapping

from evohydra.files import Plain


def check_mixture(plain: Plain) -> None:
    """ValueError where a configuration asks for a mixture, and for what is not known of mixtures."""
    merge = plain.get("merge") or {}
    if per_token(merge) is None:
        return
    if merge.get("dataflow"):
        raise ValueError(
            "merge=moe: expected no path beside it (merge=moe+dfs): layers of paths are those of dense sources"
        )
    if plain.get("continue") or (plain.get("generations") or 1) != 1:
        raise ValueError(
            "merge=moe: expected models as sources, such as the checkpoint of a winner, and no recipes (continue, "
            "generations)"
        )


def per_token(merge: Plain) -> int | None:
    """How many experts answer a token, as `merge` says; None where it is no mixture."""
    parameter = merge.get("parameter")
    found: int | None = parameter.get("experts_per_token") if isinstance(parameter, Mapping) else None
    return found
