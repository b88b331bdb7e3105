"""The benchmark that runs searches side by side: it goes on where it stopped, and has means and intervals."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from evohydra.assembly import composition
from tests.benchmarks import searches

SCORES = {1: 0.7, 2: 0.8, 3: 0.9}
COSTS = {"genomes": 4, "examples": 1200, "by_metric": 100, "tokens": 2_000_000, "cpu": 3.0}


def run(_: str, __: Sequence[str], seed: int) -> dict[str, Any]:
    return {"test": SCORES[seed], "validation": 0.75, "best_source": 0.2, **COSTS}


def test_an_interrupted_measurement_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, row = tmp_path / "results.jsonl", ("ties", "bo-full", ("optimizer=bo",))
    done: list[int] = []

    def recorded(example: str, options: Sequence[str], seed: int) -> dict[str, Any]:
        if seed == 3 and len(done) == 2:
            raise KeyboardInterrupt
        done.append(seed)
        return run(example, options, seed)

    monkeypatch.setattr(searches, "carried_out", recorded)
    with pytest.raises(KeyboardInterrupt):
        searches.measure(file, [row], [1, 2, 3])
    done.append(0)
    searches.measure(file, [row], [1, 2, 3])
    assert done == [1, 2, 0, 3]
    searches.measure(file, [("ties", "bo-full", ("optimizer=bo", "budget=9"))], [1])  # other options are another run
    assert done == [1, 2, 0, 3, 1]
    assert [json.loads(line)["seed"] for line in file.read_text().splitlines()] == [1, 2, 3, 1]


def test_tables_hold_means_and_intervals() -> None:
    lines = [{"example": "ties", "search": "x", "seed": seed, **run("", (), seed)} for seed in (3, 1, 2)]
    row = searches.table(lines).splitlines()[-1]
    # Student's t with 2 degrees of freedom: 4.303 x 0.1 / sqrt(3)
    assert ".700 (1) .800 (2) .900 (3) | 0.800 +- 0.248 |" in row
    assert "| 4 | 1,200 | 100 | 2.00 M | 3 s | 0.750 |" in row


def test_rows_are_options_of_the_command() -> None:
    composition.register()
    with initialize_config_dir(composition.conf_dir(), version_base="1.3"):
        for options in searches.SEARCHES.values():
            chosen = compose("config", [*options, *searches.ALWAYS])
            assert f"budget={chosen.budget}" in options
        for options in searches.EXAMPLES.values():
            compose("config", [*options, *searches.ALWAYS])
