"""The options of `evohydra plan` beside those of the run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evohydra.planning.devices import Device, Figures, chosen

FIGURES = ("gpu_gb", "gpu_tflops", "gpu_bandwidth")
OWN = ("calibrate", "gpu", *FIGURES, "workers", "json", "memory_gb")


@dataclass(frozen=True)
class Options:
    """The plan's own options."""

    calibrate: str = "auto"
    gpu: Device | None = None
    workers: int | None = None
    json: str | None = None
    memory_gb: float | None = None


def parsed(overrides: Sequence[str]) -> tuple[Options, list[str]]:
    """The plan's own options, and the overrides of the run; ValueError for values that make no sense."""
    given = {key: value for key, at, value in (text.partition("=") for text in overrides) if at and key in OWN}
    rest = [text for text in overrides if text.partition("=")[0] not in OWN or "=" not in text]
    calibrate = given.get("calibrate", "auto").lower()
    if calibrate not in ("auto", "true", "false"):
        raise ValueError(f"calibrate: expected auto, true or false, got {given['calibrate']!r}")
    workers = given.get("workers")
    if workers is not None and not (workers.isdecimal() and int(workers) > 0):
        raise ValueError(f"workers: expected a number from 1 on, got {workers!r}")
    figures = [_positive(key, given.get(key)) for key in FIGURES]
    gpu = None
    if "gpu" not in given and any(key in given for key in FIGURES):
        raise ValueError(f"{', '.join(key for key in FIGURES if key in given)}: of which GPU? give gpu=NAME too")
    if "gpu" in given:
        gpu = chosen(given["gpu"], Figures(*figures))
        if calibrate == "true":
            raise ValueError(f"calibrate=true measures this machine, not gpu={given['gpu']}; give one of both")
        calibrate = "false"
    file = given.get("json")
    if file is not None and not (file and Path(file).absolute().parent.is_dir() and not Path(file).is_dir()):
        raise ValueError(f"json: expected a file in a directory that exists, got {file!r}")
    memory = _positive("memory_gb", given.get("memory_gb"))
    return Options(calibrate, gpu, int(workers) if workers else None, file, memory), rest


def _positive(key: str, given: str | None) -> float | None:
    """A number above 0, or None where none is given; ValueError, which names the key, for anything else."""
    if given is None:
        return None
    try:
        number = float(given)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(f"{key}: expected a number above 0, got {given!r}")
    return number
