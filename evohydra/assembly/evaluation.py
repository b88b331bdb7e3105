"""One model, scored without a search."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evohydra.assembly import composition
from evohydra.assembly.ahead import check_ahead
from evohydra.checks.libraries import versions
from evohydra.files import Plain
from evohydra.scoring.benchmarks import SPLITS, Split
from evohydra.scoring.statistics import Interval, interval

if TYPE_CHECKING:
    from evohydra.assembly.one_model import Answer

# That mean something here.
OPTIONS = ("benchmark", "device", "dtype", "threads", "batch_size", "prefix_cache", "hydra.searchpath")
OF_SOURCE = ("family", "revision", "adapter", "variant", "convert")  # options of a model that is no name of conf/model
ONE = "model"  # what such a model is called


@dataclass(frozen=True)
class Evaluated:
    """A model's scores on a split.

    benchmarks: for each its mean score with its 95 % interval. scores: example by example. titles: what the scores are
    called. answers: of all examples where they were asked for. data: digests of the examples. tokens: how many went
    through the model, padding included.
    """

    model: str
    split: Split
    benchmarks: Mapping[str, Interval]
    scores: Mapping[str, Sequence[float]]
    titles: Sequence[str]
    answers: "Sequence[Answer]"
    data: Plain
    versions: Mapping[str, str]
    seconds: float
    tokens: int

    @property
    def overall(self) -> Interval:
        """The mean over benchmarks of their mean scores, with its 95 % interval."""
        return interval(self.scores)

    @property
    def score(self) -> float:
        """The mean over benchmarks of their mean scores."""
        return self.overall.score


def evaluate(
    model: str, overrides: Sequence[str] = (), split: str = "test", *, with_answers: bool = False
) -> Evaluated:
    """The scores of one model on the examples of a split.

    model: a name of conf/model, a directory, a file, or OWNER/NAME of the hub. overrides: options of the command line
    that concern benchmarks and how models run, and `adapter`, `revision` or `family` of the model.

    Raises ValueError for settings that make no sense here, BenchmarkError where the benchmark does not fit, SourceError
    for a model that cannot be read, RuntimeError where the model cannot be scored.
    """
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    chosen: Split = split
    began = time.perf_counter()
    plain = _configuration(model, overrides)
    check_ahead(plain, overrides)
    from evohydra.assembly.one_model import scored  # takes seconds

    try:
        found = scored(plain, overrides, chosen, with_answers=with_answers)
    except ValueError as error:  # options of the model are given without the place where configurations have them
        raise type(error)(str(error).replace(f"model.sources.{ONE}.", "")) from error
    if found.evaluation.error is not None:
        raise RuntimeError(f"{model} could not be scored on {split}: {found.evaluation.error}")
    return Evaluated(
        model=model if found.model == ONE else found.model,
        split=chosen,
        benchmarks={name: interval({name: values}) for name, values in found.evaluation.scores.items()},
        scores=found.evaluation.scores,
        titles=found.titles,
        answers=found.answers,
        data=found.data,
        versions=versions(),
        seconds=time.perf_counter() - began,
        tokens=found.evaluation.tokens,
    )


def _configuration(model: str, overrides: Sequence[str]) -> Plain:
    """The configuration of a run that has this model alone, and no base."""
    keys = [text.lstrip("+~").partition("=")[0] for text in overrides]
    of_source = {key: text.partition("=")[2] for key, text in zip(keys, overrides, strict=True) if key in OF_SOURCE}
    for key in keys:
        if key not in OF_SOURCE and not any(key == known or key.startswith(f"{known}.") for known in OPTIONS):
            raise ValueError(f"{key}: expected an option for one model that is scored, {_known()}; got {key!r}")
    rest = [text for key, text in zip(keys, overrides, strict=True) if key not in OF_SOURCE]
    named = model in composition.choices("model", rest)
    if named and Path(model).exists():
        raise ValueError(f"{model} is a name of conf/model, and a file or directory; for the latter write ./{model}")
    if named and of_source:
        raise ValueError(f"{next(iter(of_source))}: {model} is a name of conf/model, which says that itself")
    if not named and not Path(model).expanduser().exists() and model.count("/") != 1:
        known = ", ".join(composition.choices("model", rest))
        raise ValueError(f"{model}: expected a directory, a file, OWNER/NAME of the hub, or one of {known}")
    fixed = ["merge=linear", "merge.compile=false", "budget=1", "baselines=null"]
    plain = composition.composed([f"model={model if named else 'local'}", *fixed, *rest])
    declared = plain["model"]["sources"]
    source: dict[str, object] = {**next(iter(declared.values())), "base": None}
    for key in ("base_revision", "base_variant", "base_sha256"):
        source.pop(key, None)
    if not named:
        source |= {"path": _place(model), "family": None, **of_source}
    return {**plain, "model": {"sources": {next(iter(declared)) if named else ONE: source}}}


def _known() -> str:
    return f"one of {', '.join((*OPTIONS, *OF_SOURCE))}"


def _place(model: str) -> str:
    """The path of a model; ValueError for the directory of a run."""
    path = Path(model).expanduser()
    if (path / "winner").is_dir() and (path / "ledger.jsonl").is_file():
        raise ValueError(f"{model}: expected a model, got the directory of a run; its model is {path / 'winner'}")
    return str(path) if path.exists() else model
