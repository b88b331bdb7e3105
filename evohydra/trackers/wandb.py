"""Weights & Biases: a row for each genome, a table of all, the figures, and the winner with all that it came from."""

import json
import logging
import math
import os
import re
import secrets
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies

import wandb

from evohydra.checks.libraries import commit, versions
from evohydra.files import Plain
from evohydra.recipe import Checkpoint, checkpoints, from_dict
from evohydra.searching.feasible import broken
from evohydra.searching.ledger import Record
from evohydra.searching.worker_times import WORKERS, sessions
from evohydra.searching.worker_times import table as times_table
from evohydra.trackers.private_wandb import use_offline

logger = logging.getLogger(__name__)
PATIENCE = 10.0  # seconds for an answer
LOGIN = "run `wandb login`, or set WANDB_API_KEY to the key from https://wandb.ai/authorize"
WHERE = "where.json"
SENT = (
    "Weights & Biases, project {project}: sent are settings, the command, the commit of this directory, scores, genes, "
    "figures, the report with its examples, the winner's card and recipe, and how busy this machine is"
)
MODES = {"online": "online", "run": "online", "offline": "offline", "dryrun": "offline", "disabled": "disabled"}
TAG = 64  # characters that W&B allows


class WandbTracker:
    """Logs a run to W&B, offline unless the user is logged in or asks for `mode=online`.

    What W&B's own variables say (WANDB_MODE, WANDB_DISABLED, WANDB_PROJECT, WANDB_NAME, WANDB_DIR, WANDB_RUN_GROUP,
    WANDB_JOB_TYPE, WANDB_RUN_ID, WANDB_TAGS, WANDB_RESUME) counts, unless an argument here says otherwise. ValueError
    for a WANDB_MODE that is none.
    Where W&B cannot be reached a run is recorded offline, with a warning.
    A run that goes on logs under the same id again. Its job type is the strategy; jobs of a sweep (`group`) are called
    by what tells them apart. The winner's artifact holds its small files and refers to its weights, which stay where
    they are unless `upload` is "winner". Sources and data are artifacts that the run has used. A new run that is logged
    online says what is sent.
    """

    def __init__(
        self,
        *,
        name: str,
        directory: Path,
        config: Mapping[str, object],
        group: str | None,
        strategy: str,
        differing: Sequence[str] = (),
        project: str | None = None,
        entity: str | None = None,
        mode: Literal["auto", "online", "offline", "disabled"] = "auto",
        tags: Sequence[str] = (),
        upload: Literal["winner"] | None = None,
    ) -> None:
        self._mode = _mode() if mode == "auto" else mode
        if self._mode == "online" and not _answers():
            self._mode = "offline"
            logger.warning(
                "Weights & Biases cannot be reached: the run is recorded offline; `wandb sync` uploads it later (%s)",
                directory / "wandb",
            )
        self._upload, self._times = upload, directory / WORKERS
        self._best = -math.inf
        self._rows: list[tuple[int, int, float | None, str | None, Mapping[str, object]]] = []
        if self._mode == "disabled":
            return
        project = project or os.environ.get("WANDB_PROJECT") or "evohydra"
        elsewhere = os.environ.get("WANDB_DIR")
        if self._mode == "online" and run_id(directory, new=False) is None:
            weights = "and the winner's weights" if upload else "no weights (tracker.upload=winner sends the winner's)"
            logger.warning("%s; %s. tracker=none sends nothing", SENT.format(project=project), weights)
        self._run = wandb.init(
            project=project,
            entity=entity,
            name=_unless("WANDB_NAME", name),
            group=_unless("WANDB_RUN_GROUP", group),
            job_type=_unless("WANDB_JOB_TYPE", strategy),
            id=run_id(directory, new=True),
            resume="allow" if self._mode == "online" and not os.environ.get("WANDB_RESUME") else None,
            config={**config, "code": {"evohydra": versions()["evohydra"], "commit": commit()}},
            tags=[*tags, *_tags(), *(text[:TAG] for text in differing)],
            dir=elsewhere or str(directory),
            mode="online" if self._mode == "online" else "offline",
            # No metadata of W&B's own: they hold the command line with all that was given there, and addresses of git.
            # What is told of both is in the configuration, without secrets.
            settings=wandb.Settings(silent=True, console="off", x_disable_meta=True, disable_git=True, save_code=False),
        )
        place = {"project": project, "files": str(Path(self._run.dir).parent) if elsewhere else None}
        (directory / "wandb" / WHERE).write_text(json.dumps(place))

    def genome(self, record: Record) -> None:
        """A row: fitness, best so far that keeps all limits, mean scores by benchmark, every gene, and the seconds."""
        if self._mode == "disabled":
            return
        self._rows.append((record.index, record.generation, record.fitness, record.error, record.genes))
        if record.fitness is not None and not broken(record):
            self._best = max(self._best, record.fitness)
        row: dict[str, object] = {"index": record.index, "generation": record.generation, "recipe": record.recipe}
        if record.fitness is not None:
            row["fitness"] = record.fitness
        if math.isfinite(self._best):
            row["best"] = self._best
        if record.error:
            row["error"] = record.error
        row |= {f"score/{name}": sum(scores) / len(scores) for name, scores in record.scores.items()}
        row |= {f"gene/{name}": value for name, value in record.genes.items()}
        row |= {f"seconds/{part}": value for part, value in record.seconds.items()}
        self._run.log(row, step=record.index, commit=True)

    def finish(self, summary: Plain, figures: Mapping[str, Path], winner: Path) -> None:
        """The table of all genomes, the figures, the summary and the winner."""
        if self._mode == "disabled":
            return
        genes = list(dict.fromkeys(gene for row in self._rows for gene in row[-1]))
        table = wandb.Table(
            columns=["index", "generation", "fitness", "error", *genes],
            data=[[*first, *(values.get(gene) for gene in genes)] for *first, values in self._rows],
        )
        images = {
            f"figure/{name}": wandb.Html(str(path), inject=False) if path.suffix == ".html" else wandb.Image(str(path))
            for name, path in figures.items()
        }
        self._run.log({"genomes": table, "workers": self._workers(), **images})
        self._run.summary.update({key: summary[key] for key in ("test", "validation", "search", "gain", "seconds")})
        recipe = json.loads((winner / "recipe.json").read_text())
        for each in {each.name: each for each in checkpoints(from_dict(recipe["recipe"]))}.values():
            self._use(_source(each, recipe.get("commits", {}).get(each.name)))
        for benchmark, splits in summary["data"].items():
            self._use(_data(benchmark, splits))
        told = {"score": summary["test"]["winner"], "recipe": summary["recipe_digest"], "commit": commit()}
        self._run.log_artifact(self._winner(winner, {**told, "versions": summary["versions"]}))

    def _workers(self) -> wandb.Table:
        """What each worker did over all sessions of the run."""
        columns = ["worker", "jobs", "seconds merging", "seconds scoring", "seconds waiting", "deaths"]
        return wandb.Table(columns=columns, data=[list(row) for row in times_table(sessions(self._times))])

    def _use(self, artifact: wandb.Artifact) -> None:
        if self._mode == "online":
            self._run.use_artifact(artifact)
        else:
            use_offline(self._run, artifact)

    def _winner(self, directory: Path, metadata: Plain) -> wandb.Artifact:
        artifact = wandb.Artifact(f"winner-{self._run.id}", type="model", metadata=dict(metadata))
        if self._upload == "winner":
            artifact.add_dir(str(directory), policy="immutable")
        else:
            whole = directory.resolve()
            for path in sorted(path for path in whole.rglob("*") if path.is_file()):
                name = path.relative_to(whole).as_posix()
                if path.suffix == ".safetensors":
                    artifact.add_reference(path.as_uri(), name=name, checksum=False)
                else:
                    artifact.add_file(str(path), name=name, policy="immutable")
        return artifact

    def close(self, *, failed: bool) -> None:
        """End the W&B run, so that the next job of a multirun begins one of its own."""
        if self._mode != "disabled":
            self._run.finish(exit_code=int(failed))


def _mode() -> str:
    """What the environment says, in W&B's words and their older names; without a word online where there is a login."""
    if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes", "on"):
        return "disabled"
    wanted = os.environ.get("WANDB_MODE", "").lower()
    if wanted and wanted not in MODES:
        raise ValueError(f"WANDB_MODE: expected one of {', '.join(MODES)}, got {wanted!r}")
    return MODES[wanted] if wanted else "online" if logged_in() else "offline"


def _answers() -> bool:
    """Whether something answers at W&B's address: its client tries for a minute and a half before it gives up.

    Where there is a proxy it is the client's to find out.
    """
    address = urlsplit(str(wandb.setup().settings.base_url))
    if getproxies():
        return True
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), timeout=PATIENCE).close()
    except OSError:
        return False
    return True


def _unless(variable: str, value: str | None) -> str | None:
    """`value`, or None where the environment says it: W&B reads that itself, but only if nothing is given."""
    return None if os.environ.get(variable) else value


def _tags() -> list[str]:
    return [tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag.strip()]


def logged_in() -> bool:
    """Whether W&B knows a key here."""
    return bool(wandb.setup().settings.api_key)


def run_id(directory: Path, *, new: bool) -> str | None:
    """The id of the W&B run of a run directory, which keeps it; None where it has none and no `new` one is to be made.

    Not a digest of the name: runs of the same name elsewhere, or deleted ones, have ids too.
    """
    file = directory / "wandb" / "id"
    if not file.is_file() and new:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(os.environ.get("WANDB_RUN_ID") or secrets.token_hex(8))
    return file.read_text().strip() if file.is_file() else None


def where(directory: Path) -> dict[str, Any]:
    """Where the W&B run of a run directory was logged: its project, and its files where they are not in there."""
    file = directory / "wandb" / WHERE
    found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return found


def _source(checkpoint: Checkpoint, commit: str | None) -> wandb.Artifact:
    """A reference to where a source model is, on the hub at the `commit` that was read; nothing is read or copied."""
    told = {**checkpoint.to_dict(), **({"commit": commit} if commit else {})}
    artifact = wandb.Artifact(_plain(f"source-{checkpoint.name}"), type="model", metadata=told)
    from evohydra.merging.finding import locate  # loads torch

    local = locate(checkpoint.path) if checkpoint.path.startswith("zoo://") else Path(checkpoint.path)
    hub = f"https://huggingface.co/{checkpoint.path}/tree/{commit or checkpoint.revision or 'main'}"
    address = local.resolve().as_uri() if local.exists() else hub
    artifact.add_reference(address, name="model", checksum=False)
    return artifact


def _data(benchmark: str, splits: Mapping[str, object]) -> wandb.Artifact:
    """The number of examples in each split, and their digests."""
    artifact = wandb.Artifact(_plain(f"data-{benchmark}"), type="dataset", metadata=dict(splits))
    with artifact.new_file("splits.json") as file:
        json.dump(splits, file, indent=2)
    return artifact


def _plain(name: str) -> str:
    """`name` in characters that W&B allows."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name)
