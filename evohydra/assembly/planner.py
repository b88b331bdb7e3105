"""The plan of a run: all that the run checks before it scores anything, then its cost and what it can show."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from evohydra.assembly.automatic import no_likelihood
from evohydra.assembly.foresight import device_here, foreseen, model_of, serving_of, sizes_of, way_that_is_planned
from evohydra.assembly.inspection import fit_of
from evohydra.assembly.reading import BY_HEADERS, WHOLE
from evohydra.assembly.runs import Assembled, assembled
from evohydra.assembly.sizes import fitting_batch
from evohydra.assembly.statistics import reads_texts
from evohydra.assembly.workers import WorkerMaker
from evohydra.families.vllm_engine import is_installed
from evohydra.files import Plain
from evohydra.hub.headers import Headers, headers_only, is_stand_in
from evohydra.planning import advice as advised
from evohydra.planning.calibration import Both, Calibrated, calibrated, since
from evohydra.planning.cost import saved
from evohydra.planning.document import document
from evohydra.planning.options import Options
from evohydra.planning.outlook import Outlook
from evohydra.planning.words import plain, screen
from evohydra.planning.work import work_of
from evohydra.run import Run

SMALL = 2 * 10**9  # bytes of sources that calibrate=auto reads
NAMES = {"SepCMAES": "sep_cmaes"}  # whose module has another name


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


def plan(config: Plain, given: Sequence[str], options: Options) -> Planned:
    """The plan of a run whose configuration was looked at ahead; `given` are the overrides that it was made with.

    Nothing is written, and of models on the hub no more than headers and small files is fetched. Raises what the run
    would raise before it scores anything.
    """
    began = since()
    if config.get("generations", 1) > 1:
        raise ValueError(
            "plan: expected one generation, whose sources are there; give generations=1 and its share of the budget"
        )
    with tempfile.TemporaryDirectory(prefix="evohydra-plan-") as room, headers_only(Path(room)) as headers:
        return _planned(config, given, options, headers, began)


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
    small = whole and model_of(parts).of_sources <= SMALL
    elsewhere = serving_of(parts) is not None and not is_installed()  # vLLM is where the workers are
    passes = reads_texts(parts.settings.merge)  # which a plan carries out only where it is told to measure
    if options.calibrate == "true" or (options.calibrate == "auto" and small and not elsewhere and not passes):
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
        axes=run.plan.space.axes,
        budget=run.plan.budget,
        objectives=objectives,
        optimizer=optimizer,
        sizes=sizes,
        apart=found.apart.values,
        smallest=found.smallest,
        optimism=found.optimism,
        validated=run.plan.validated,
        fitness=kind,
        likely=no_likelihood(run.benchmarks) is None,
        batches=_batches(made, found),
    )
    serving = serving_of(made.parts)
    used = {
        "backend": (f"vllm, {serving.sequences} texts at once" if serving else "transformers")
        + way_that_is_planned(made.parts),
        "optimizer": optimizer,
        "fitness": kind,
        "budget": run.plan.budget,
        "batch_size": settings.batch_size,
    }
    written = document(
        fit,
        found,
        sizes,
        chosen=used,
        advice=lines,
        lacking=[*found.memory.lacking, *headers.no_room],
        optimizer=optimizer,
        suited=f"{best} suits: {reason}",
    )
    return Planned(written, found)


def _batches(made: Assembled, found: Outlook) -> advised.Batches | None:
    """Of language models, whose prompts are what fills the memory."""
    size = made.parts.settings.batch_size
    if not isinstance(size, int) or model_of(made.parts).shape is None or serving_of(made.parts) is not None:
        return None
    fitting = fitting_batch(made.parts.settings, made.found, found.device.memory if found.device.gpu else None)
    return None if fitting == size else advised.Batches(size, fitting, saved(found.work, found.speed, fitting))


def _name(part: Plain) -> str:
    """What a part of the configuration is called on the command line."""
    module, _, made = str(part.get("_target_", "")).rpartition(".")
    return NAMES.get(made, module.rpartition(".")[2])
