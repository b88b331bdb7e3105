"""Merges of two fine-tunes of SmolLM2-135M-Instruct: does the likelihood of right answers rank them as answers do?

    python -m tests.benchmarks.smollm2_search rank MODELS RUNS [--random 25] [--near 12] [--workers 1]
    python -m tests.benchmarks.smollm2_search search MODELS RUNS KIND SEED [OVERRIDE...]
    python -m tests.benchmarks.smollm2_search table RUNS

MODELS is what tests.benchmarks.smollm2_tune has written. `rank` scores genomes of task arithmetic by greedy answers, by
the likelihood of the task's references and by that of verified ones; what is scored lies in RUNS/rank/scores.jsonl, and
the same command goes on. `search` carries out `python -m evohydra` with one of KINDS. `table` prints what RUNS hold.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evohydra.recipe import Node
from evohydra.run import Run
from evohydra.scoring.benchmarks.likelihood import likelihood_name
from evohydra.scoring.job import Evaluation, Examples, Job, Verified
from evohydra.scoring.statistics import rank_correlation
from evohydra.scoring.worker import written
from evohydra.searching.fitness import WantsReferences
from evohydra.searching.references import verified_references
from evohydra.searching.scheduler import Scheduler
from evohydra.searching.scores import ScoreStore, conditions
from tests.commands import built

SOURCES = ("steps", "sums")
TASKS = Path(__file__).parent / "smollm2_tasks"
KINDS_OF_SCORES = ("metric", "task", "task, probability", "verified", "verified, probability")
RANDOM = 25  # random genomes at most
CLIP = -5.0  # of log-likelihoods, as fitness.clip
SPREAD, NEAR = 0.12, 0.2  # of genes around a level, and around the best genome, in the unit cube
SPLITS = {"search": (0, 90), "validation": (90, 120), "test": (120, 210)}
EXAMPLES = 32  # of the search split, for each genome of a search
METRIC = ("fitness=subset", "fitness.fresh=false", f"fitness.examples={EXAMPLES}")
LIKELIHOOD = ("fitness=likelihood", f"fitness.examples={EXAMPLES}")
KINDS: dict[str, tuple[str, ...]] = {
    "bo_task": ("optimizer=bo", *LIKELIHOOD, "budget=40"),
    "bo_verified": ("optimizer=bo", *LIKELIHOOD, "fitness.references=verified", "fitness.questions=90", "budget=32"),
    "bo_metric": ("optimizer=bo", *METRIC, "budget=56"),
    "cmaes_metric": ("optimizer=cmaes", *METRIC, "budget=56"),
}  # genomes: so many that all score some 1800 examples in the search


def arguments(models: Path, runs: Path) -> list[str]:
    """The command line of a run on the task `steps`; it and its data are copied to `runs`."""
    tasks = runs / "tasks"
    tasks.mkdir(parents=True, exist_ok=True)
    for file in (*TASKS.glob("steps.*"), *TASKS.glob("*.py"), models / "data" / "steps.jsonl"):
        shutil.copyfile(file, tasks / file.name)
    sources = [
        f"model.sources.{skill}.{key}={value}"
        for skill in SOURCES
        for key, value in (("path", models / "base"), ("adapter", models / skill))
    ]
    bounds = ",".join(f"{name}:{{start:{start},stop:{stop}}}" for name, (start, stop) in SPLITS.items())
    return [
        f"hydra.searchpath=[file://{TASKS / 'conf'}]",
        "model=smollm2_steps+smollm2_sums",
        *sources,
        "benchmark=lm_eval",
        "benchmark.lm_eval.task=steps",
        f"benchmark.lm_eval.include_path={tasks}",
        "benchmark.lm_eval.metric=right",
        f"benchmark.lm_eval.splits={{{bounds}}}",
        "benchmark.lm_eval.shuffle=null",
        "dtype=float32",
        "batch_size=32",
        "threads=1",
        "tracker=none",
        "baselines=null",
        "report=false",
    ]


class Scored:
    """The scheduler of a run outside of a search."""

    def __init__(self, run: Run, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._executor = run.make_executor()
        self._store = ScoreStore(directory / "scores.jsonl", conditions(run.identity))
        self._scheduler = Scheduler(self._executor, self._store)
        self.executor = self._executor

    def __call__(
        self, recipes: Mapping[str, Node], examples: Examples, verified: Verified
    ) -> Iterator[tuple[str, Evaluation]]:
        """Recipes by their labels on these examples of the search split, in order."""
        jobs = [(label, Job(recipe, "search", examples, verified=verified)) for label, recipe in recipes.items()]
        for pending in self._scheduler.submit(jobs):
            found = self._scheduler.result(pending)
            assert found.error is None, f"{pending.label}: {found.error}"
            yield pending.label, found

    def close(self) -> None:
        """End it."""
        self._executor.close()
        self._store.close()


def random_genomes(count: int, axes: int, sources: int, seed: int) -> NDArray[np.float64]:
    """(count, axes) in the unit cube: every other one uniform in each gene, the others around a level of each source.

    Means over many uniform genes are all alike; levels make whole models weigh more or less.
    """
    generator = np.random.default_rng([seed, 135])
    genomes = generator.random((count, axes))
    for row in genomes[1::2]:
        levels = generator.random(sources)
        row[:] = np.clip(np.tile(levels, axes // sources) + generator.normal(0, SPREAD, axes), 0, 1)
    return genomes


def around(best: NDArray[np.float64], count: int, seed: int) -> NDArray[np.float64]:
    """(count, axes): the best genome with a step in each gene, normal with the standard deviation NEAR."""
    generator = np.random.default_rng([seed, 136])
    return np.clip(best + generator.normal(0, NEAR, (count, len(best))), 0, 1)


def rank(
    models: Path, runs: Path, *, random: int, near: int, workers: int, answered: int, likely: int, seed: int
) -> None:
    """Score known merges, random genomes and genomes around the best one by both kinds of scores; a line for each.

    By greedy answers to the first `answered` search examples of each skill, and by the likelihood of references to
    `likely` of them, and of verified ones to as many examples that are solved.
    """
    directory = runs / "rank"
    given = ["optimizer=cmaes", "fitness=likelihood", "fitness.references=verified"]  # cmaes: ranges from 0 to 1.5
    given += [f"fitness.examples={likely}", "fitness.questions=90"]
    given += ["executor=processes", f"executor.workers={workers}"] if workers > 1 else []
    run = built([*arguments(models, runs), *given], directory)
    assert isinstance(run, Run)
    (name,) = run.benchmarks
    with closing(Scored(run, directory)) as scored:
        verified = written_references(run, directory, scored)
        asked = {name: list(range(answered)), likelihood_name(name, "token"): list(range(likely))}
        asked |= {each: sorted(texts) for each, texts in verified.items()}
        space = run.plan.space
        drawn = random_genomes(RANDOM, len(space.names), len(run.models.sources), seed)[:random]
        genomes = [("known", name, space.encode(node)) for name, node in space.known_merges().items()]
        genomes += [("random", f"random {number}", genome) for number, genome in enumerate(drawn)]
        rows: list[dict[str, Any]] = []
        while genomes:
            recipes = {label: space.decode(genome) for _, label, genome in genomes}
            for (kind, label, genome), (_, found) in zip(genomes, scored(recipes, asked, verified), strict=True):
                rows.append(row_of(found, name, verified) | {"kind": kind, "label": label, "genome": genome.tolist()})
                rows[-1] |= {"seconds": found.seconds, "tokens": found.tokens}
                print(label, {key: round(rows[-1][key], 3) for key in KINDS_OF_SCORES if key in rows[-1]}, flush=True)
                (directory / "rows.json").write_text(json.dumps(rows))
            best = np.array(max(rows, key=lambda row: float(row["metric"]))["genome"])
            done = any(row["kind"] == "near" for row in rows)
            genomes = [("near", f"near {at}", x) for at, x in enumerate(around(best, 0 if done else near, seed))]


def written_references(run: Run, directory: Path, scored: Scored) -> Verified:
    """The verified references of a search: by the name of their likelihoods."""
    fitness = run.plan.fitness
    assert isinstance(fitness, WantsReferences)
    assert fitness.questions is not None
    asked = {**run.models.sources} | ({"uniform": run.models.uniform} if run.models.uniform else {})
    found = verified_references(
        directory / "references.jsonl",
        asked,
        fitness.questions,
        lambda node, name, places: scored.executor.ask(written, node, name, "search", places),
    )
    print({name: len(texts) for name, texts in found.texts.items()}, "solved", flush=True)
    return fitness.with_references(found)[1]


def row_of(found: Evaluation, name: str, verified: Verified) -> dict[str, Any]:
    """The mean of each kind of scores; of verified references none where too few examples are solved."""
    answers = np.array(found.scores[name])
    row: dict[str, Any] = {"metric": float(answers.mean()), "halves": [answers[at::2].mean() for at in (0, 1)]}
    names = {"task": likelihood_name(name, "token")} | dict(zip(["verified"], verified, strict=False))
    for kind, likely in names.items():
        values = np.array(found.scores[likely])
        row[kind], row[f"{kind}, probability"] = float(values.clip(CLIP).mean()), float(np.exp(values).mean())
    return row


def correlations(rows: Sequence[Mapping[str, Any]]) -> str:
    """How each kind of likelihood ranks the genomes as the metric does, and which genome it puts first, as markdown."""
    half = sorted(rows, key=lambda row: -float(row["metric"]))[: len(rows) // 2]
    groups = {"all": rows, "better half": half}
    groups |= {kind: [row for row in rows if row["kind"] == kind] for kind in ("random", "near")}
    lines = ["| genomes | likelihood of | rank correlation | metric of its first | best |", "|---|---|---|---|---|"]
    for label, group in groups.items():
        metric = [float(row["metric"]) for row in group]
        if halves := rank_correlation(*zip(*(row["halves"] for row in group), strict=True)):
            told = f"{halves.value:.2f} ({halves.low:.2f} to {halves.high:.2f})"
            lines.append(f"| {label} ({len(group)}) | (half of the answers against the other half) | {told} | | |")
        for kind in KINDS_OF_SCORES[1:]:
            likely = [float(row[kind]) for row in group if kind in row]
            if likely and (found := rank_correlation(likely, metric)):
                first = metric[int(np.argmax(likely))]
                told = f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f}) | {first:.3f} | {max(metric):.3f}"
                lines.append(f"| {label} ({len(group)}) | {kind} | {told} |")
    return "\n".join(lines)


def search(models: Path, runs: Path, kind: str, seed: int, given: Sequence[str]) -> None:
    """One run of the command; its summary, and its processor time, stay in its directory."""
    name = f"{kind}_{seed}"
    command = [*arguments(models, runs), *KINDS[kind], "top=3", f"seed={seed}", f"run={name}"]
    command = [sys.executable, "-m", "evohydra", *command, f"hydra.run.dir={runs / name}", *given]
    subprocess.run(command, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    (runs / name / "processor.json").write_text(json.dumps({"seconds": round(used.ru_utime + used.ru_stime)}))


def table(runs: Path) -> str:
    """What searches found, as markdown."""
    lines = [
        "| search | genomes | examples in the search | tokens | processor time | search | validation | test |",
        "|---|---|---|---|---|---|---|---|",
    ]
    others: dict[str, Mapping[str, Any]] = {}
    for file in sorted(runs.glob("*/summary.json")):
        found = json.loads(file.read_text())
        processor = json.loads((file.parent / "processor.json").read_text())["seconds"]
        splits = [f"{found[split]['winner']['score']:.3f}" for split in ("search", "validation")]
        cells = [found["evaluations"], found["examples_scored"], found["tokens"], f"{processor} s", *splits]
        others = {**found["test"]["sources"], "uniform": found["test"]["uniform"]}
        lines.append(f"| {file.parent.name} | {' | '.join(map(str, cells))} | {_interval(found['test']['winner'])} |")
    lines += [f"| {name} | | | | | | | {_interval(score)} |" for name, score in others.items()]
    return "\n".join(lines)


def _interval(score: Mapping[str, Any]) -> str:
    return f"{score['score']:.3f} ({score['low']:.3f} to {score['high']:.3f})"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("rank", "search", "table"):
        command = commands.add_parser(name)
        if name != "table":
            command.add_argument("models", type=Path, help="what smollm2_tune has written")
        command.add_argument("runs", type=Path, help="where runs are")
        if name == "rank":
            command.add_argument("--random", type=int, default=RANDOM)
            command.add_argument("--near", type=int, default=12)
            command.add_argument("--answered", type=int, default=64)
            command.add_argument("--likely", type=int, default=64)
            command.add_argument("--workers", type=int, default=1)
            command.add_argument("--seed", type=int, default=1)
        if name == "search":
            command.add_argument("kind", choices=list(KINDS))
            command.add_argument("seed", type=int)
            command.add_argument("given", nargs="*", help="further overrides, for example budget=60")
    told = parser.parse_args()
    if told.command == "rank":
        names = ("random", "near", "workers", "answered", "likely", "seed")
        rank(told.models.resolve(), told.runs.resolve(), **{name: getattr(told, name) for name in names})
    elif told.command == "search":
        search(told.models.resolve(), told.runs.resolve(), told.kind, told.seed, told.given)
    else:
        if (rows := told.runs / "rank" / "rows.json").is_file():
            print(correlations(json.loads(rows.read_text())))
        print(table(told.runs))


if __name__ == "__main__":
    main()
