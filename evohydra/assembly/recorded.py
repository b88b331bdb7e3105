"""What trackers record of a run's options: as they were given, and as they were chosen, without secrets."""

from collections.abc import Sequence
from pathlib import Path

from evohydra.assembly.settings import Settings
from evohydra.checks.libraries import git_state
from evohydra.files import Plain
from evohydra.searching.identity import Identity
from evohydra.searching.masking import shown_overrides, without_secrets


def recorded(plain: Plain, identity: Identity, settings: Settings, given: Sequence[str]) -> object:
    """The configuration, what was used where it says auto, the command, and the checkout that it was given in."""
    command = ["evohydra", *shown_overrides(given).values()]
    told = {**plain, "chosen": _used(identity, settings), "command": command, "git": git_state(Path.cwd())}
    return without_secrets(told)


def _used(identity: Identity, settings: Settings) -> Plain:
    """What is used where the configuration may say auto."""
    scores = identity.scores
    return {
        "tokenizer": scores.alignment.tokenizer,
        "dtype": scores.dtype,
        "out_dtype": scores.out_dtype,
        "device": scores.device,
        "batch_size": settings.batch_size,
        "benchmark": list(scores.benchmarks),
        "fitness": settings.fitness,
        "budget": settings.budget,
    }
