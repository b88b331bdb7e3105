"""evohydra from Python: search, load, merge and evaluate, as the command line has them."""

import datetime
import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from evohydra.library.commands import TAIL, carried_out, directory_of, override
from evohydra.library.runs import Run, RunError

if TYPE_CHECKING:
    from evohydra.assembly.evaluation import Evaluated
    from evohydra.rebuild import Made

OUTPUTS = Path("outputs")


def search(*overrides: str, run: str | None = None, show: bool = True, **options: object) -> Run:
    """Search for the best merge, as `python -m evohydra` does with the same options; goes on with a run that exists.

        evohydra.search("optimizer.batch=8", model="tiny_ja+tiny_math", merge="ties", optimizer="bo", budget=60)

    options: by their names on the command line; values may be texts, numbers, true or false, None, lists and mappings.
    overrides: options whose names have dots, as they are written on the command line. run: the name of the directory in
    outputs/; None: the time. show: print what the command prints.

    The search has a process of its own, so that its memory is free afterwards, and so that a notebook whose process is
    killed loses nothing: the same call with the same `run` goes on. Raises RunError with the reason where it fails.
    """
    name = run or datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
    given = [*overrides, *(override(key, value) for key, value in options.items()), override("run", name)]
    directory = directory_of(given, OUTPUTS / name)
    code, said = carried_out([sys.executable, "-m", "evohydra", *given], show)
    if code != 0:
        told = [line.removeprefix("evohydra: ") for line in said if line.strip()]
        raise RunError("\n".join(told[-TAIL:]) or f"the run ended with exit status {code}")
    return load(directory)


def load(directory: str | os.PathLike[str]) -> Run:
    """A run that is on disk; ValueError where there is none in this directory."""
    from evohydra.report.gathering import gather, runs_below

    path = Path(directory).expanduser()
    if not path.is_dir():
        raise ValueError(f"{path}: expected the directory of a run, such as outputs/NAME; there is none")
    runs = runs_below(path)
    if runs != [path]:
        jobs = f"; it holds the runs {', '.join(each.name for each in runs)}" if runs else ""
        raise ValueError(f"{path}: expected the directory of one run{jobs}")
    return Run(gather([path])[0])


def merge(
    file: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    sources: Mapping[str, str | os.PathLike[str]] | None = None,
    device: str = "cpu",
    allow: Collection[str] = (),
    overwrite: bool = False,
) -> "Made":
    """Write the merge of a recipe.json or of a mergekit yaml to the directory `out`, as `evohydra merge` does.

    sources: where sources are now, by name. allow: modules of your own that the recipe may name. overwrite: replace
    `out`, if evohydra has written it. Raises ValueError where the recipe makes no sense, where sources are not those of
    the recipe, and where the weights are not the ones that it promises (which are then in `out`).
    """
    from evohydra.rebuild import make

    paths = {name: os.fspath(path) for name, path in (sources or {}).items()}
    made = make(Path(file).expanduser(), Path(out), paths, device, allow, overwrite)
    if made.identical is False:
        raise ValueError(f"{made.path}: NOT identical: the recipe promises {made.promised}, got {made.weights}")
    return made


def evaluate(
    model: str | os.PathLike[str], *overrides: str, split: str = "test", answers: bool = False, **options: object
) -> "Evaluated":
    """The score of one model, without a search, as `evohydra evaluate` gives it.

        evohydra.evaluate("outputs/NAME/winner", benchmark="mgsm_ja").score

    model: a name of conf/model, a directory, a file, or OWNER/NAME on the hub. options and overrides: as in `search`,
    those that concern the benchmark and how a model runs. answers: of all examples, in `.answers`.
    """
    from evohydra.assembly.evaluation import evaluate as evaluated

    given = [*overrides, *(override(key, value) for key, value in options.items())]
    return evaluated(os.fspath(model), given, split, with_answers=answers)
