"""What a peer's process knows of the scorer: it hands over a directory, and keeps a line for each genome."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[3]


class Scorer:
    """The scorer in a process of its own, under evohydra's Python; `record` is a line for each model that it scored."""

    def __init__(self, python: str, dtype: str, record: Path) -> None:
        command = [python, "-m", "tests.benchmarks.peers.scorer", dtype]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=environment()
        )
        self._record = record

    def __call__(self, model: Path | str, split: str, **noted: Any) -> float:
        """The mean score of the checkpoint in `model`; `noted` goes into the record."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"model": str(Path(model).resolve()), "split": split}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the scorer has ended; see its error above")
        answer = json.loads(line)
        score = sum(answer["scores"]) / len(answer["scores"])
        with self._record.open("a") as record:
            print(json.dumps(noted | answer | {"split": split, "score": score}), file=record)
        return score

    def close(self) -> None:
        """End the scorer."""
        self._process.communicate()


def environment() -> dict[str, str]:
    """What both sides run with: this checkout, one thread, no network."""
    return os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
