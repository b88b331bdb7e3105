"""Search with evohydra and its peers: the same sources, examples and number of scored examples; prints the scores.

    python -m tests.benchmarks.peers.compare [ROW ...] [--seeds 1 2 3 4 5] [--out DIRECTORY]

Makes each peer's environment (mergenetic's takes 8 GB), runs the rows in turn for each seed, and keeps what is done in
DIRECTORY: the same command again goes on with what is missing.
"""

import argparse
import json
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scipy import stats

from tests.benchmarks.peers.rows import ROWS, VALIDATION, python_of, record, start


def run(name: str, seed: int, directory: Path, python: str) -> dict[str, Any]:
    """One search to its end: what its winner scores on the test split, and what it took."""
    if ROWS[name].environment is not None:  # what an interrupted run has left; evohydra goes on with its own
        shutil.rmtree(directory, ignore_errors=True)
    if start(name, seed, directory, python, faster=True).wait() != 0:
        raise RuntimeError(f"{name}: see {directory / 'output.txt'}")
    found = _of_evohydra(directory) if ROWS[name].environment is None else _of_peer(directory)
    return {"row": name, "seed": seed} | found


def _of_evohydra(directory: Path) -> dict[str, Any]:
    summary = json.loads((directory / "run" / "summary.json").read_text())
    genomes = json_lines(record(directory))
    examples = sum(len(scores) for genome in genomes for scores in genome["scores"].values())
    return {
        "score": summary["test"]["winner"]["score"],
        "search": None if "measure" in summary["search"]["winner"] else summary["search"]["winner"]["score"],
        "genomes": len(genomes),
        "examples": examples + VALIDATION,
    }


def _of_peer(directory: Path) -> dict[str, Any]:
    scored = json_lines(record(directory))
    genomes = [line for line in scored if line["split"] == "search"]
    (tested,) = (line for line in scored if line["split"] == "test")
    return {
        "score": tested["score"],
        "search": max(line["score"] for line in genomes),
        "genomes": len(genomes),
        "examples": sum(len(line["scores"]) for line in genomes),
    }


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of JSON; none where there is no file."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.is_file() else []


def table(results: list[dict[str, Any]]) -> Iterator[str]:
    """The rows in Markdown: means over seeds, and Student's 95 % interval of the mean score."""
    yield "| | score | interval | seeds | on search examples | genomes | examples |"
    yield "|---|---|---|---|---|---|---|"
    for name, row in ROWS.items():
        runs = sorted((result for result in results if result["row"] == name), key=lambda result: result["seed"])
        if runs:
            scores = [result["score"] for result in runs]
            by_seed = ", ".join(f"{score:.3f}" for score in scores)
            genomes, examples = (statistics.mean(each[key] for each in runs) for key in ("genomes", "examples"))
            found = [each["search"] for each in runs if each["search"] is not None]  # None of a search by likelihood
            search = f"{statistics.mean(found):.3f}" if found else "-"
            yield (
                f"| {row.label} | {statistics.mean(scores):.3f} | {_interval(scores)} | {by_seed} | {search} "
                f"| {genomes:.0f} | {examples:.0f} |"
            )


def _interval(scores: list[float]) -> str:
    if len(scores) < 2:
        return ""
    mean, half = statistics.mean(scores), stats.t.ppf(0.975, len(scores) - 1) * stats.sem(scores)
    return f"{mean - half:.3f} to {mean + half:.3f}"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Compare search with evohydra and its peers.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"which of {', '.join(ROWS)} (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--out", type=Path, default=Path("outputs/peers"))
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    done = out / "scores.jsonl"
    for seed in arguments.seeds:
        for name in arguments.rows or ROWS:
            if not any((result["row"], result["seed"]) == (name, seed) for result in json_lines(done)):
                result = run(name, seed, out / f"{name}-{seed}", python_of(ROWS[name].environment, out))
                with done.open("a") as file:
                    print(json.dumps(result), file=file)
                print(json.dumps(result), flush=True)
    print("\n".join(table(json_lines(done))))


if __name__ == "__main__":
    main()
