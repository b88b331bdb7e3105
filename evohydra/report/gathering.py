"""What runs have left on disk, whether they have ended or not, and what tells their strategies apart."""

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml

from evohydra.files import Plain, current, read_json, write_json
from evohydra.recipe import Node, from_dict
from evohydra.report.comparability import Begun, groups, told
from evohydra.report.genomes import Genome, genomes_of
from evohydra.report.naming import differences, strategy_of
from evohydra.scoring.benchmarks.likelihood import benchmark_of, verified_in
from evohydra.scoring.job import Scores
from evohydra.searching.fitness.likelihood_scale import is_likelihood
from evohydra.searching.json_lines import in_use
from evohydra.searching.lines_on_file import each_line
from evohydra.searching.objectives import Objective
from evohydra.spaces.genes import Axis

SETTINGS = "settings.json"  # of the last command that a run accepted
AUTO = "auto"


@dataclass(frozen=True)
class Job:
    """A run's directory. `strategy` is what tells it apart from the other runs, its seed aside.

    begun: what it depends on. group: which of the runs' groups it belongs to, where these cannot be compared with each
    other ("" where all can); its strategy says so too.
    records, finals: its genomes, and the lines of all else that was scored on whole splits. lines: those of its ledger,
    each read when it is asked for. summary, recipe: of its winner, None while there is none. ended_at: how many genomes
    it had at an earlier end, from where it goes on with another budget; None if it does not.
    """

    directory: Path
    overrides: tuple[str, ...]
    strategy: str
    config: Plain
    records: Sequence[Genome]
    finals: Sequence[Plain]
    summary: Plain | None
    recipe: Node | None
    ended_at: int | None = None
    begun: Begun = field(default_factory=lambda: Begun({}, {}))
    group: str = ""
    lines: Sequence[Plain] = ()

    @property
    def name(self) -> str:
        """Its directory's name."""
        return self.directory.name

    @property
    def seed(self) -> object:
        """The seed that it was given."""
        return self.config.get("seed")

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """The names of what it scores, as far as it has scored."""
        of_finals = (tuple(line["scores"]) for line in self.finals if line.get("scores"))
        of_genomes = (record.names for record in self.records if record.names)
        return tuple(dict.fromkeys(map(benchmark_of, next(itertools.chain(of_finals, of_genomes), ()))))

    @property
    def fitness_is(self) -> Literal["metric", "likelihood", "verified likelihood"]:
        """What it searched by; fitness of different kinds cannot be compared."""
        names = {name for record in self.records for name in record.names}
        if not is_likelihood(names):
            return "metric"
        return "verified likelihood" if any(verified_in(name) for name in names) else "likelihood"

    @cached_property
    def state(self) -> str:
        """Finished, running, or how far it came."""
        if self.summary is not None:
            return "finished"
        budget = _budget(self.config)
        progress = f"{len(self.records)} of {budget} genomes" if budget else f"{len(self.records)} genomes"
        if self.ended_at is not None:
            progress += f" (it goes on from an earlier end at {self.ended_at})"
        return f"running, {progress}" if in_use(self.directory) else f"ended early, {progress}"

    @cached_property
    def failure(self) -> str:
        """The error with which it ended, as its log has it; "" where it holds none."""
        log = self.directory / "evohydra.log"
        if self.summary is not None or not log.is_file():
            return ""
        lines = [line for line in log.read_text(errors="replace").splitlines() if line and not line[0].isspace()]
        return next((line for line in reversed(lines) if "Error" in line.split(":")[0]), "")

    @property
    def keeps_limits(self) -> bool:
        """Whether its winner keeps all limits for sure, where it has any."""
        return bool((self.summary or {}).get("guard", {}).get("kept", True))

    def final(self, split: str, label: str | None = None) -> Scores | None:
        """The scores, example by example, that stand under `label` for `split`; without one the winner's.

        They are weighted as in the run's fitness.
        """
        recipe = (self.summary or {}).get("recipe_digest")
        for entry in reversed(self.finals):
            matches = entry["recipe"] == recipe if label is None else entry["label"] == label
            if entry["split"] == split and matches and _are_numbers(entry["scores"]):
                return Objective((self.config.get("objective") or {}).get("weights")).weighted(entry["scores"])
        return None


def by_split(job: Job) -> dict[str, float | None]:
    """The best fitness of the search, and the score of the winner on each split; None for what is no score."""
    summary = job.summary or {}
    search = summary["search"]
    return {
        "best seen": None if "measure" in search else search["best"],
        **{
            split: None if "measure" in (one := summary[split]["winner"]) else one["score"]
            for split in ("search", "validation", "test")
        },
    }


def gather(directories: Iterable[Path]) -> list[Job]:
    """Every run at or below `directories`."""
    runs = [run for directory in directories for run in runs_below(directory)]
    differing = differences({run: overrides_of(run) for run in runs})
    return _in_groups([_job(run, differing[run]) for run in runs])


def _in_groups(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, marked where the scores of some cannot be compared with those of others."""
    numbers = groups([job.begun for job in jobs])
    if len(set(numbers)) < 2:
        return list(jobs)
    marks = [f"group {number + 1}" for number in numbers]
    return [
        replace(job, group=mark, strategy=f"{job.strategy} ({mark})".strip())
        for job, mark in zip(jobs, marks, strict=True)
    ]


def by_group(jobs: Iterable[Job]) -> dict[str, list[Job]]:
    """The jobs of each group, in the order in which they come first."""
    found: dict[str, list[Job]] = {}
    for job in jobs:
        found.setdefault(job.group, []).append(job)
    return found


def apart(jobs: Sequence[Job]) -> Iterator[str]:
    """In sentences, which jobs cannot be compared with which, and why; none where all can."""
    members = by_group(jobs)
    if len(members) < 2:
        return
    listed = "; ".join(f"{group}: {', '.join(job.name for job in each)}" for group, each in members.items())
    yield (
        "The scores of these runs cannot all be compared with each other: some had other sources, data, metrics, code "
        f"or versions. Runs that can be compared are {listed}. No test is made between groups."
    )
    _, *later = members
    for group in later:
        job = members[group][0]
        unlike = ((other, why) for other in jobs if other.group != group and (why := told(other.begun, job.begun)))
        if first := next(unlike, None):
            yield f"From run {first[0].name} to run {job.name}: {first[1]}."


def chosen_by_auto(jobs: Sequence[Job]) -> Iterator[str]:
    """In a sentence, that `fitness=auto` or `budget=auto` has chosen other searches for some jobs than for others."""
    done = [job for job in jobs if job.summary and "fitness" in job.begun.identity.get("search", {})]
    found: dict[str, list[str]] = {}
    for job in done:
        kind = str(job.begun.identity["search"]["fitness"]["_target_"]).rpartition(".")[2].lower()
        search = f"fitness={kind} budget={(job.summary or {}).get('budget')}"
        found[search] = list(dict.fromkeys([*found.get(search, []), job.strategy]))
    if len(found) > 1 and any(job.config.get("budget") == AUTO or _by_auto(job) for job in done):
        listed = "; ".join(f"{', '.join(strategies)}: {search}" for search, strategies in found.items())
        yield (
            f"These runs differ in more than their options say, since auto has chosen by the optimizer: {listed}. Give "
            "fitness and budget to compare the optimizers alone."
        )


def _by_auto(job: Job) -> bool:
    return "_target_" not in (job.config.get("fitness") or {})


def runs_below(directory: Path) -> list[Path]:
    """`directory` where it is a run, else the runs directly in it, in the order of their numbers or names."""
    if (directory / "run.json").is_file() or (directory / ".hydra").is_dir():
        return [directory]
    below = [path for path in directory.iterdir() if path.is_dir() and (path / ".hydra").is_dir()]
    return sorted(below, key=lambda path: (len(path.name), path.name))


def strategies(jobs: Iterable[Job]) -> dict[str, list[Job]]:
    """The jobs of each strategy, in the order in which they come first."""
    found: dict[str, list[Job]] = {}
    for job in jobs:
        found.setdefault(job.strategy, []).append(job)
    return found


def keep_settings(run: Path, benchmarks: Collection[str], axes: Mapping[str, Axis]) -> None:
    """Keep what Hydra has written of the command in settings.json, once the run has accepted it.

    Of benchmarks those that are in use: `benchmarks` are their keys. `axes` are those of the genes, by name.

    Hydra writes its own files anew for each command in a directory, also for one that is then refused.
    """
    if (run / ".hydra").is_dir():
        config = _by_hydra(run, "config", {})
        if known := config.get("benchmark"):
            config["benchmark"] = {name: spec for name, spec in known.items() if name in benchmarks}
        searched = [{"name": name, "axis": asdict(axis)} for name, axis in axes.items()]
        write_json(run / SETTINGS, {"overrides": _by_hydra(run, "overrides", []), "config": config, "axes": searched})


def _by_hydra(run: Path, name: str, otherwise: object) -> Any:
    file = run / ".hydra" / f"{name}.yaml"
    return (yaml.safe_load(file.read_text()) if file.is_file() else None) or otherwise


def _job(run: Path, overrides: tuple[str, ...]) -> Job:
    identity = _json(run / "run.json") or {}
    config = (_json(run / SETTINGS) or {}).get("config") or _by_hydra(run, "config", identity.get("search") or {})
    records, lines = genomes_of(run / "ledger.jsonl")
    summary, recipe = _json(current(run, "summary.json")), _json(current(run, "recipe.json"))
    ended_at = None
    if summary is not None and not _is_end(summary, _budget(config), len(records)):
        ended_at, summary, recipe = summary["evaluations"], None, None
    return Job(
        directory=run,
        overrides=overrides,
        strategy=strategy_of(overrides),
        config=config,
        records=records,
        finals=[line for line in each_line(run / "scores.jsonl") if line["examples"] is None and not _of_search(line)],
        summary=summary,
        recipe=from_dict(recipe["recipe"]) if recipe else None,
        ended_at=ended_at,
        begun=Begun(identity, config),
        lines=lines,
    )


def _of_search(line: Plain) -> bool:
    """Whether a line of scores.jsonl is of a genome of the search, whose scores are in the ledger."""
    return line["split"] == "search" and str(line["label"]).startswith("genome ")


def _budget(config: Plain) -> int | None:
    """The genomes of a run, of several generations those of the last one; None of `auto`."""
    budget, generations = config.get("budget"), config.get("generations", 1)
    return budget // generations if isinstance(budget, int) else None


def _is_end(summary: Plain, budget: int | None, genomes: int) -> bool:
    """Whether a summary is that of a run with this budget, and not of one that went on since.

    Some strategies end before the budget does. Summaries of earlier versions do not hold theirs.
    """
    if budget is not None and "budget" in summary:
        return bool(summary["budget"] == budget)
    return bool(summary["evaluations"] >= min(genomes, genomes if budget is None else budget))


def _are_numbers(scores: Scores) -> bool:
    """Whether there are scores, and all are numbers, which earlier versions did not see to."""
    return bool(scores) and all(math.isfinite(value) for values in scores.values() for value in values)


def overrides_of(run: Path) -> list[str]:
    """The overrides of its command line, as it began or, of runs that never did, as Hydra has them."""
    accepted = _json(run / SETTINGS)
    found: list[str] = accepted["overrides"] if accepted else _by_hydra(run, "overrides", [])
    return found


def _json(path: Path) -> Any:
    return read_json(path) if path.is_file() else None
