"""The plan of a run: all that the run checks before it scores anything, then its cost and what it can show."""

import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from evohydra.assembly import composition, starting
from evohydra.assembly.ahead import check_ahead
from evohydra.assembly.automatic import no_likelihood
from evohydra.assembly.foresight import device_here, foreseen, model_of, sizes_of
from evohydra.assembly.inspection import fit_of
from evohydra.assembly.reading import BY_HEADERS, WHOLE
from evohydra.assembly.runs import Assembled, assembled
from evohydra.assembly.sizes import fitting_batch
from evohydra.assembly.workers import WorkerMaker
from evohydra.files import Plain
from evohydra.hub.headers import Headers, headers_only, is_stand_in
from evohydra.planning import advice as advised
from evohydra.planning.calibration import Both, Calibrated, calibrated, since
from evohydra.planning.cost import saved
from evohydra.planning.devices import Device, Figures, chosen
from evohydra.planning.document import document
from evohydra.planning.outlook import Outlook
from evohydra.planning.words import plain, screen
from evohydra.planning.work import work_of
from evohydra.run import Run
from evohydra.searching.secret_overrides import check_configuration, check_overrides

FIGURES = ("gpu_gb", "gpu_tflops", "gpu_bandwidth")
OWN = ("calibrate", "gpu", *FIGURES, "workers", "json", "memory_gb")
SMALL = 2 * 10**9  # bytes of sources that calibrate=auto reads
NAMES = {"SepCMAES": "sep_cmaes"}  # whose module has another name


@dataclass(frozen=True)
class Options:
    """The plan's own options."""

    calibrate: str = "auto"
    gpu: Device | None = None
    workers: int | None = None
    json: str | None = None
    memory_gb: float | None = None


@dataclass(frozen=True)
class Planned:
    """A plan: the document, and the numbers that it was made of."""

    document: Plain
    outlook: Outlook

    @property
    def fits(self) -> bool:
        """Whether there is room for all of it."""
        return bool(self.document["fits"])

    def __str__(self) -> str:
        return plain(screen(self.document, self.outlook))


def plan(overrides: Sequence[str]) -> Planned:
    """The plan of a run; nothing is written, and of models on the hub no more than headers and small files is fetched.

    Raises what the run would raise before it scores anything.
    """
    began = since()
    options, rest = parsed(overrides)
    check_overrides(list(rest), os.environ)
    config = composition.composed([text for text in rest if not text.startswith("hydra.run.dir=")])
    starting.check_run(config["run"])
    check_configuration(config, os.environ)
    check_ahead(config, rest)
    if config.get("generations", 1) > 1:
        raise ValueError(
            "plan: expected one generation, whose sources are there; give generations=1 and its share of the budget"
        )
    with tempfile.TemporaryDirectory(prefix="evohydra-plan-") as room, headers_only(Path(room)) as headers:
        return _planned(config, rest, options, headers, began)


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
    memory = _positive("memory_gb", given.get("memory_gb"))
    return Options(calibrate, gpu, int(workers) if workers else None, given.get("json"), memory), rest


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


def _planned(config: Plain, given: Sequence[str], options: Options, headers: Headers, began: Both) -> Planned:
    place = {"name": "plan", "group": None, "strategy": ""}
    start = since()
    directory = headers.room / "run"
    made = assembled(config, directory, place, given, WHOLE if options.calibrate == "true" else BY_HEADERS)
    run, parts = made.run, made.parts
    if not isinstance(run, Run):
        raise ValueError("nothing to plan: every gene is frozen, and there is no benchmark; the run writes one recipe")
    device = options.gpu or device_here(parts.engine.device)
    found = None
    whole = not headers.downloads and _all_here(made)
    if options.calibrate == "true" and not whole:
        raise ValueError(
            "calibrate=true: expected all sources on this machine, but some are headers alone; download them first "
            "(the run does), or plan without"
        )
    if options.calibrate == "true" or (options.calibrate == "auto" and whole and model_of(parts).of_sources <= SMALL):
        if options.calibrate == "auto":  # by headers so far: what a run refuses for its numbers is refused here too
            start = since()
            made = assembled(config, directory, place, given, WHOLE)
            run, parts = cast("Run", made.run), made.parts
        found = _measured(run, made, began, start)
    counts = sorted({1, 8, *([options.workers] if options.workers else [])})
    memory = None if options.memory_gb is None else options.memory_gb * 1e9
    download = float(sum(headers.downloads.values()))
    prospect = foreseen(run, parts, device, Path.cwd(), workers=counts, download=download, memory=memory, found=found)
    return _told(made, run, prospect, headers)


def _all_here(made: Assembled) -> bool:
    return not any(is_stand_in(path) for path in made.found.paths.values())


def _batch(made: Assembled) -> int:
    size = made.parts.settings.batch_size
    return size if isinstance(size, int) else 1


def _measured(run: Run, made: Assembled, began: Both, start: Both) -> Calibrated:
    read = since(start)
    return calibrated(run, WorkerMaker(made.parts), work_of(run), _batch(made), began, read)


def _told(made: Assembled, run: Run, found: Outlook, headers: Headers) -> Planned:
    sizes = sizes_of(run.benchmarks)
    fit = fit_of(made, run, unread=not found.measured)
    settings = made.parts.settings
    optimizer, kind = _name(settings.optimizer), _name(settings.fitness)
    zeros = {name: [0.0] for name in run.benchmarks}
    objectives = len(run.plan.objective.several(zeros, run.plan.space.default())) or 1
    best, reason = advised.suited(run.plan.space.axes, run.plan.budget, objectives)
    lines = advised.advice(
        axes=run.plan.space.axes, budget=run.plan.budget, objectives=objectives, optimizer=optimizer, sizes=sizes,
        apart=found.apart.values, smallest=found.smallest, optimism=found.optimism, validated=run.plan.validated,
        fitness=kind, likely=no_likelihood(run.benchmarks) is None, batches=_batches(made, found),
    )  # fmt: skip
    used = {
        "optimizer": optimizer,
        "fitness": kind,
        "budget": run.plan.budget,
        "batch_size": settings.batch_size,
    }
    written = document(
        fit, found, sizes, chosen=used, advice=lines, lacking=[*found.memory.lacking, *headers.no_room],
        optimizer=optimizer, suited=f"{best} suits: {reason}",
    )  # fmt: skip
    return Planned(written, found)


def _batches(made: Assembled, found: Outlook) -> advised.Batches | None:
    """Of language models, whose prompts are what fills the memory."""
    size = made.parts.settings.batch_size
    if not isinstance(size, int) or model_of(made.parts).shape is None:
        return None
    fitting = fitting_batch(made.parts.settings, made.found, found.device.memory if found.device.gpu else None)
    return None if fitting == size else advised.Batches(size, fitting, saved(found.work, found.speed, fitting))


def _name(part: Plain) -> str:
    """What a part of the configuration is called on the command line."""
    module, _, made = str(part.get("_target_", "")).rpartition(".")
    return NAMES.get(made, module.rpartition(".")[2])
