"""Weights & Biases after a run: upload what was logged offline, and a report there that compares strategies."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import wandb

from evohydra.checks.libraries import optional
from evohydra.report.contents import verdict
from evohydra.report.gathering import Job, gather
from evohydra.report.paired_tests import strategies_against_each_other
from evohydra.report.score_figures import held_out
from evohydra.report.tables import p_value
from evohydra.trackers.wandb import LOGIN, logged_in, run_id, where

Command = Callable[[Sequence[str]], int]
MEDIA = ("fitness", "scores", "optimism", "genome", "path", "importance", "population")


def sync(directories: Sequence[Path], run: Command = subprocess.call) -> list[Path]:
    """Upload the offline W&B run of each run at or below `directories` with `wandb sync`; returns what was uploaded.

    A run that was killed and went on has several offline runs of one id; the last one repeats all that was logged
    before, and it alone is sent. Raises ValueError without a login or without such runs, OSError where wandb fails.
    """
    _check_login()
    found = [path for job in gather(directories) if (path := _offline_run(job.directory))]
    if not found:
        raise ValueError(f"no offline W&B runs in {', '.join(map(str, directories))}: choose tracker=wandb for a run")
    for path in found:
        if run([sys.executable, "-m", "wandb", "sync", str(path)]):
            raise OSError(f"wandb sync {path} failed; what it says is above")
    return found


def _offline_run(directory: Path) -> Path | None:
    beside = max((directory / "wandb").glob("offline-run-*"), key=lambda path: path.name, default=None)
    elsewhere = where(directory).get("files")  # by WANDB_DIR
    return Path(elsewhere) if beside is None and elsewhere and Path(elsewhere).is_dir() else beside


def share(directories: Sequence[Path], name: str) -> str:
    """Make a W&B report of the runs at or below `directories`; returns its address.

    Raises ValueError without the package, without a login, and where the runs were not logged to W&B.
    """
    reports = optional("wandb_workspaces.reports.v2", "--wandb", "evohydra[sharing]")
    _check_login()
    jobs = gather(directories)
    logged = {run: job for job in jobs if (run := run_id(job.directory, new=False))}
    if not logged:
        raise ValueError(f"no W&B runs in {', '.join(map(str, directories))}: choose tracker=wandb for a run")
    first = next(iter(logged.values()))
    settings = first.config.get("tracker") or {}
    entity = settings.get("entity") or wandb.Api().default_entity
    project = where(first.directory).get("project") or settings.get("project") or "evohydra"
    report = reports.Report(
        entity=entity,
        project=project,
        title=f"evohydra: {name}",
        description=f"{len(jobs)} runs of evohydra, search strategies compared.",
        blocks=_blocks(reports, jobs, list(logged), entity, project, name),
    )
    report.save()
    return str(report.url)


def _blocks(
    reports: Any, jobs: Sequence[Job], ids: Sequence[str], entity: str, project: str, name: str
) -> list[object]:
    expressions = optional("wandb_workspaces.expr", "--wandb", "evohydra[sharing]")
    these = [expressions.Metric("ID").isin(list(ids))]
    runs = {"entity": entity, "project": project, "filters": these}
    strategies = reports.Runset(name=f"strategies of {name}", groupby=["JobType"], **runs)
    single = reports.Runset(name=f"runs of {name}", **runs)
    score = "test.winner.score"
    return [
        reports.H1("In short"),
        *(reports.P(str(block)) for block in verdict(jobs)),
        reports.H1("Strategies"),
        reports.PanelGrid(
            runsets=[strategies],
            panels=[
                reports.LinePlot(title="Best fitness so far", x="index", y=["best"], groupby_aggfunc="median"),
                reports.BarPlot(title="Score on the test split", metrics=[reports.SummaryMetric(score)]),
            ],
        ),
        reports.MarkdownBlock("\n".join(_markdown(jobs))),
        reports.H1("Runs"),
        reports.PanelGrid(
            runsets=[single],
            panels=[
                reports.ScatterPlot(
                    title="From validation to test",
                    x=reports.SummaryMetric("validation.winner.score"),
                    y=reports.SummaryMetric(score),
                ),
                reports.MediaBrowser(title="Figures", media_keys=[f"figure/{each}" for each in MEDIA]),
                reports.RunComparer(diff_only="split"),
            ],
        ),
    ]


def _markdown(jobs: Sequence[Job]) -> Iterator[str]:
    yield "| on the test split | score | 95 % interval | runs |\n|---|---|---|---|"
    for name, score, each in held_out(jobs):
        if score["score"] is not None:
            yield f"| {name} | {score['score']:.3f} | {score['low']:.3f} to {score['high']:.3f} | {len(each) or 1} |"
    pairs = strategies_against_each_other(jobs)
    if pairs:
        yield "\n| higher | lower | difference | 95 % interval | p (Holm) |\n|---|---|---|---|---|"
    for pair in pairs:
        gain = pair.gain
        between = f"{gain.low:+.3f} to {gain.high:+.3f}"
        yield f"| {pair.better} | {pair.other} | {gain.difference:+.3f} | {between} | {p_value(pair.holm)} |"


def _check_login() -> None:
    if not logged_in():
        raise ValueError(f"not logged in to W&B: {LOGIN}, then give the same command again")
