"""Parts of wandb that are not in its documentation."""

from typing import Any

from evohydra.checks.libraries import PrivateParts

PARTS = (PrivateParts("wandb", "0.31.0", "wandb:Run", ("_log_artifact",)),)


def use_offline(run: Any, artifact: object) -> None:
    """Do what `use_artifact` does with an artifact that is new; offline it refuses, though `wandb sync` can do it."""
    run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
