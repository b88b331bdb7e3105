"""The command: compose the configuration, build the run, carry it out."""

import importlib
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

import evohydra
from evohydra.assembly import composition, starting
from evohydra.checks.terminal import harmless, quiet
from evohydra.library.commands import ENDS_WITH_CALLER
from evohydra.report.sweep_callback import SWEEP, report_sweeps

logger = logging.getLogger(__name__)
INTERRUPTED, ENDED = 130, 143  # the exit codes of shells for Ctrl-C, and for SIGTERM
# The commands beside a search, with the modules that carry them out: `evohydra merge recipe.json out`.
COMMANDS = {
    "merge": "evohydra.rebuild",
    "rebuild": "evohydra.rebuild",
    "evaluate": "evohydra.evaluation",
    "convert": "evohydra.convert",
    "extract_lora": "evohydra.extract_lora",
    "report": "evohydra.report.__main__",
    "replay": "evohydra.replay",
    "plan": "evohydra.plan",
}


def place_in_sweep(directory: Path, seed: int) -> dict[str, object]:
    """What trackers call a run: alone by its directory, in a multirun by what tells it apart from the other jobs."""
    from evohydra.report.naming import strategy_of, telling

    settings = HydraConfig.get()
    optimizer = str(settings.runtime.choices["optimizer"])
    if settings.mode != RunMode.MULTIRUN:
        return {"name": directory.name, "group": None, "strategy": optimizer}
    swept = composition.swept(settings)
    strategy = strategy_of(swept) or optimizer
    group = Path(settings.sweep.dir).name
    return {"name": f"{strategy} seed={seed}", "group": group, "strategy": strategy, "differing": telling(swept)}


def _share_cores() -> None:
    """Let threads of torch that wait for each other give their cores away soon, unless the environment has its own way.

    To be called before torch is loaded. On two quiet cores the embedded example takes as long as with the 300,000 turns
    of GNU's OpenMP; with three other processes on them it takes 55 s instead of 94 s.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def _interrupts(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    """What Ctrl-C does from now on; as it is where somebody has chosen that, or in a thread."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)


class _Ended(KeyboardInterrupt):
    """SIGTERM: what `kill` sends, and Slurm when the time of a job is over."""


def _ends_plainly() -> None:
    """Let SIGTERM end this run as Ctrl-C does, unless somebody (submitit) has chosen what it does; a second one kills.

    Processes that part from this one end at once.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return
    here = os.getpid()

    def end(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() == here:
            raise _Ended
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)


def _end_with_caller() -> None:
    """Of a command that is run from Python: interrupt it once the process that waits for it has ended.

    That one holds the other end of the standard input, and writes nothing to it. Interrupts count also where they are
    ignored, as in what a script has put into the background: here they are the caller's word.
    """
    if os.environ.pop(ENDS_WITH_CALLER, None):
        signal.signal(signal.SIGINT, signal.SIG_DFL)

        def wait() -> None:
            os.read(0, 1)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=wait, daemon=True).start()


def _back_to(directory: str) -> None:
    """Make paths mean what they mean where the command was given, also with hydra.job.chdir=true."""
    if Path.cwd() != Path(directory):
        os.chdir(directory)
        logger.warning(
            "hydra.job.chdir=true changes nothing: paths are those of %s, where the command was given, and the "
            "files of the run are in its own directory",
            directory,
        )


def _nothing_left(directory: Path, settings: HydraConf) -> bool:
    """Delete what Hydra has written for a run that never began, unless it is one of a sweep; whether it did."""
    alone = settings.mode != RunMode.MULTIRUN
    return alone and starting.leave_nothing(directory, settings.output_subdir, f"{settings.job.name}.log")


def _searchpath(settings: HydraConf) -> list[str]:
    """The overrides that say where else parts of the configuration are."""
    return [text for text in settings.overrides.hydra if text.startswith("hydra.searchpath=")]


@hydra.main(version_base="1.3", config_path=composition.conf_dir(), config_name="config")
def job(config: DictConfig) -> float:
    """One run; returns the winner's score on validation (on search where there is none), larger is better."""
    starting.let_through()
    quiet()
    from evohydra.assembly.ahead import check_ahead
    from evohydra.searching.hydra_files import mask_hydra_files
    from evohydra.searching.masking import mask_logs, shown_text
    from evohydra.searching.secret_overrides import check_configuration, check_names, secret_values

    settings = HydraConfig.get()
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    directory = Path(settings.runtime.output_dir)
    _interrupts(signal.default_int_handler)
    if settings.mode != RunMode.MULTIRUN:
        _ends_plainly()
    _back_to(settings.runtime.cwd)
    secrets = secret_values(os.environ)
    mask_logs(secrets)
    sweep = Path(settings.sweep.dir) if settings.mode == RunMode.MULTIRUN else None
    mask_hydra_files(directory, sweep, secrets, settings.output_subdir)
    names = {"hydra.run.dir": directory, "hydra.job.name": settings.job.name}
    try:
        check_names({**names, "hydra.output_subdir": settings.output_subdir}, os.environ)
        starting.check_run(plain["run"])
        check_configuration(plain, os.environ)
    except ValueError as error:
        _nothing_left(directory, settings)
        sys.exit(harmless(f"evohydra: {shown_text(str(error), secrets)}"))
    try:
        check_ahead(plain, settings.overrides.task)
        from evohydra.assembly.handing_on import hand_on  # takes seconds
        from evohydra.assembly.runs import make_run
        from evohydra.report import make_console

        place = place_in_sweep(directory, plain["seed"])
        given, console = [*settings.overrides.task, *_searchpath(settings)], make_console()
        hand_on(plain, directory, place, given, console)
        summary = make_run(plain, directory, place, given)(console)
    except (ArithmeticError, ValueError, OSError, RuntimeError, MemoryError) as error:
        logger.info("the run ended with an error", exc_info=True)
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        plainly = starting.is_a_sentence(error)
        told = harmless(shown_text(str(error) if plainly else f"{type(error).__name__}: {error}", secrets))
        gone = plainly and _nothing_left(directory, settings)
        message = f"evohydra: {told}" if gone else f"evohydra: {told}\n(details in {directory}/evohydra.log)"
        if settings.mode == RunMode.MULTIRUN:  # the other jobs go on
            raise composition.JobError(message) from None
        sys.exit(message)
    except KeyboardInterrupt as error:
        ended = isinstance(error, _Ended)
        whole = Path(settings.sweep.dir) if settings.mode == RunMode.MULTIRUN else directory
        print(
            f"\nevohydra: {'ended by SIGTERM' if ended else 'interrupted'}. What was scored is in {directory}; "
            f"the same command with run={whole.name} goes on.",
            file=sys.stderr,
        )
        sys.exit(ENDED if ended else INTERRUPTED)
    validation = summary["validation"]["winner"]["score"]
    score = summary["search"]["winner"]["score"] if validation is None else validation
    return math.nan if score is None else score


def _explain(arguments: Sequence[str], reason: BaseException | None) -> None:
    """Say what is wrong with a command line that Hydra cannot compose; where we do not know, Hydra's words stay.

    What a launcher fails with before any job begins is told without its traceback.
    """
    hints = composition.explain([*arguments])
    if not hints and reason is not None and not composition.is_hydras(reason) and starting.keeps_messages():
        hints = [f"{type(reason).__name__}: {reason}"]
    if hints:
        starting.drop_messages()
    for hint in hints:
        print(f"evohydra: {hint}", file=sys.stderr)


def _help(asked: Sequence[str]) -> None:
    """`--help`, or with the name of a group what can be chosen of it."""
    from evohydra.assembly import help as pages

    try:
        topics = [each for each in asked if not each.startswith("hydra.")]
        print("\n\n".join(pages.topic(each, asked) for each in topics) if topics else pages.usage([*COMMANDS]))
    except ValueError as error:
        sys.exit(f"evohydra: {error}")


def main() -> None:
    """The console script, and python -m evohydra."""
    _share_cores()
    first, others = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    if first == "--version":
        print(f"evohydra {evohydra.__version__}")
        return
    if first in ("--help", "-h"):
        _help(others)
        return
    if first in COMMANDS:
        quiet()
        importlib.import_module(COMMANDS[first]).main(others)
        return
    starting.begin()
    _end_with_caller()
    _interrupts(signal.SIG_DFL)  # until libraries are imported, some of which do not bear an exception there
    from evohydra.searching.secret_overrides import check_overrides

    try:
        check_overrides(sys.argv[1:], os.environ)  # before Hydra writes them to files
        starting.check_given_run(sys.argv[1:])
    except ValueError as error:
        sys.exit(harmless(f"evohydra: {error}"))
    composition.register()
    quiet()  # launchers hand the environment on to processes of their own
    try:
        with starting.held_messages():
            try:
                job()
            except SystemExit as ending:
                if ending.code == 1:  # Hydra could not compose the configuration, and says so at length
                    _explain(sys.argv[1:], ending.__context__)
                raise
    except KeyboardInterrupt:
        print("\nevohydra: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    finally:
        for sweep in report_sweeps():
            starting.leave_nothing(sweep, None, SWEEP)


if __name__ == "__main__":
    main()
