"""What strategies and runs are called, by the options that tell them apart."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from evohydra.searching.masking import shown_overrides

ASIDE = ("run", "seed", "tracker", "ablate", "report")  # of command lines


def differences(overrides: Mapping[Path, Sequence[str]]) -> dict[Path, tuple[str, ...]]:
    """What tells the command lines of runs apart: nothing of what all have in common, and no secrets."""
    common = set.intersection(*map(set, overrides.values())) if overrides else set()
    return {
        run: tuple(
            shown_overrides([text for text in each if text not in common and not text.startswith("run=")]).values()
        )
        for run, each in overrides.items()
    }


def telling(overrides: Sequence[str]) -> list[str]:
    """Those that make a strategy: not the seed, not where things are written, and no secrets."""
    keys = {text: text.lstrip("+~").split("=")[0] for text in shown_overrides(overrides).values()}
    return [text for text in keys if keys[text] not in ASIDE and not keys[text].startswith(("tracker.", "hydra"))]


def strategy_of(overrides: Sequence[str]) -> str:
    """A name for readers: of a group its option alone, of any other key its last part too."""
    words = []
    for text in telling(overrides):
        key, _, value = text.lstrip("+~").partition("=")
        group = "." not in key and not value.replace(".", "").lstrip("-").isdigit()
        words.append(value if group else f"{key.rsplit('.', 1)[-1]}={value}")
    return " ".join(words)
