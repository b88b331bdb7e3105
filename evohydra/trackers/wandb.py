"""Weights & Biases: a row for each genome, a table of all, the figures, and the winner as an artifact."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from evohydra.ledger import Record


class WandbTracker:
    """Logs a run to W&B, offline unless the user is logged in or asks for `mode=online`.

    A run that is resumed logs under the same id again, so that syncing continues it. Offline, the winner's artifact
    refers to the files in the run directory; online they are uploaded (`artifact`: auto, upload, reference, none).
    """

    def __init__(
        self,
        *,
        name: str,
        directory: Path,
        config: Mapping[str, Any],
        group: str | None,
        project: str = "evohydra",
        entity: str | None = None,
        mode: str = "auto",
        tags: Sequence[str] = (),
        artifact: str = "auto",
    ) -> None:
        for option, value, known in (
            ("mode", mode, ("auto", "online", "offline")),
            ("artifact", artifact, ("auto", "upload", "reference", "none")),
        ):
            if value not in known:
                raise ValueError(f"tracker.{option}: expected one of {', '.join(known)}, got {value!r}")
        self._mode = ("online" if wandb.setup().settings.api_key else "offline") if mode == "auto" else mode
        self._artifact = artifact
        self._best = -math.inf
        self._records: list[Record] = []
        self._run = wandb.init(
            project=project,
            entity=entity,
            name=name,
            group=group,
            job_type=str(config.get("optimizer", {}).get("_target_", "search")).rsplit(".", 1)[-1],
            id=hashlib.sha256(f"{group}/{name}".encode()).hexdigest()[:16],
            resume="allow" if self._mode == "online" else None,
            config=dict(config),
            tags=list(tags),
            dir=str(directory),
            mode="online" if self._mode == "online" else "offline",
            # No metadata: it holds the command line, and with it any secret that was given there.
            settings=wandb.Settings(
                silent=True, console="off", x_disable_stats=True, x_disable_meta=True, disable_git=True, save_code=False
            ),
        )

    def genome(self, record: Record) -> None:
        """A row: fitness, best so far, the mean score on each benchmark, every gene, and the seconds."""
        self._records.append(record)
        if record.fitness is not None:
            self._best = max(self._best, record.fitness)
        row: dict[str, Any] = {"index": record.index, "generation": record.generation, "recipe": record.recipe}
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

    def finish(self, summary: Mapping[str, Any], figures: Mapping[str, Path], winner: Path) -> None:
        """The table of all genomes, the figures, the summary and the winner."""
        genes = list(dict.fromkeys(gene for record in self._records for gene in record.genes))
        table = wandb.Table(
            columns=["index", "generation", "fitness", "error", *genes],
            data=[
                [r.index, r.generation, r.fitness, r.error, *(r.genes.get(gene) for gene in genes)]
                for r in self._records
            ],
        )
        images = {
            f"figure/{name}": wandb.Html(str(path), inject=False) if path.suffix == ".html" else wandb.Image(str(path))
            for name, path in figures.items()
        }
        self._run.log({"genomes": table, **images})
        self._run.summary.update({key: summary[key] for key in ("test", "validation", "search", "gain", "seconds")})
        if self._artifact != "none":
            self._run.log_artifact(self._winner(winner))

    def _winner(self, directory: Path) -> Any:
        artifact = wandb.Artifact(f"winner-{self._run.id}", type="model")
        upload = self._artifact == "upload" or (self._artifact == "auto" and self._mode == "online")
        if upload:
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
        self._run.finish(exit_code=int(failed))
