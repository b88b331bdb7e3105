"""Optimizers and kinds of fitness side by side on the embedded examples: score against examples, tokens and seconds.

    python -m tests.benchmarks.searches measure RESULTS.jsonl embedded            # all rows of an example, five seeds
    python -m tests.benchmarks.searches measure RESULTS.jsonl ties/bo-likelihood --seeds 1 2
    python -m tests.benchmarks.searches table RESULTS.jsonl

A row is an example and a search of it, and each seed of it is one run of the real command, a line of RESULTS.jsonl.
What is there already is not run again, so that a measurement may be interrupted. Rows are in ROWS; `--add` runs other
options under a label of their own: `--add tiny_sdxl/trial fitness=subset fitness.examples=64`.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from evohydra.searching.json_lines import whole_lines
from tests.commands import environment

ALWAYS = ("tracker=none", "report=false", "baselines=null", "threads=1")
LAYERS_AND_MODULES = "merge.parameter.granularity.modules=true"
METHODS = (
    "wudi", "pcb", "boosted_task_arithmetic", "boosted_ties", "any", "regmean", "regmean_plus_plus", "activation",
    "fisher", "boosted_consensus", "moe",
)  # fmt: skip
FOR_LORAS = (
    "task_arithmetic", "ties", "dare_ties", "knots", "knots_dare_ties", "core_space", "core_space_dare_ties",
)  # fmt: skip
OF_FACTORS = ("task_arithmetic", "ties", "dare_ties")
EXAMPLES: dict[str, tuple[str, ...]] = {
    "embedded": (),
    "ties": ("merge=ties",),
    "dare_ties": ("merge=dare_ties",),
    "modules": (LAYERS_AND_MODULES,),
    "dfs": ("experiment=tiny_dfs",),
    "hybrid": ("experiment=tiny_hybrid",),
    "tiny_vlm": ("experiment=tiny_vlm",),
    "tiny_sdxl": ("experiment=tiny_sdxl",),
    "wordings": ("experiment=tiny_wordings",),
    **{name: (f"merge={name}",) for name in METHODS},
    # A weight, and a density, for each adapter. Most of these methods make no adapter of small rank.
    **{f"loras-{name}": ("experiment=tiny_loras", f"merge={name}", "format=plain") for name in FOR_LORAS},
    **{
        f"loras-{name}-of-factors": ("experiment=tiny_loras", f"merge={name}", "+merge.parameter.options.of=factors")
        for name in OF_FACTORS
    },
    "any-whole": ("merge=any", "merge.parameter.granularity.layers=whole"),
}
LIKELIHOOD = ("fitness=likelihood",)
PROBABILITY = (*LIKELIHOOD, "fitness.scale=probability")
VERIFIED = (*LIKELIHOOD, "fitness.references=verified")
SEARCHES: dict[str, tuple[str, ...]] = {
    "cmaes-full": ("optimizer=cmaes", "fitness=full", "budget=204"),
    "cmaes-full-half": ("optimizer=cmaes", "fitness=full", "budget=102"),
    "as-is-100": ("budget=100",),  # optimizer and fitness of the example
    "bo-full-half": ("optimizer=bo", "fitness=full", "budget=102"),
    "bo-full": ("optimizer=bo", "fitness=full", "budget=130"),
    "bo-likelihood": ("optimizer=bo", *LIKELIHOOD, "budget=130"),
    "bo-likelihood-250": ("optimizer=bo", *LIKELIHOOD, "budget=250"),
    "bo-likelihood-440": ("optimizer=bo", *LIKELIHOOD, "budget=440"),
    "bo-probability": ("optimizer=bo", *PROBABILITY, "budget=130"),
    "bo-verified": ("optimizer=bo", *VERIFIED, "budget=130"),
    "bo-irt": ("optimizer=bo", "fitness=irt", "budget=130"),
    "bo-racing": ("optimizer=bo", "fitness=racing", "budget=130"),
    "cmaes-likelihood": ("optimizer=cmaes", *LIKELIHOOD, "budget=130"),
    "de-likelihood": ("optimizer=de", *LIKELIHOOD, "budget=130"),
    "random-likelihood": ("optimizer=random", *LIKELIHOOD, "budget=130"),
    "catcma-full": ("optimizer=catcma", "fitness=full", "budget=408"),
    "catcma-likelihood": ("optimizer=catcma", *LIKELIHOOD, "budget=408"),
    "catcma-likelihood-half": ("optimizer=catcma", *LIKELIHOOD, "fitness.examples=128", "budget=408"),
    "cmaes-full-408": ("optimizer=cmaes", "fitness=full", "budget=408"),
    "cmaes-likelihood-408": ("optimizer=cmaes", *LIKELIHOOD, "budget=408"),
    "bo-dfs-likelihood": ("optimizer=bo", *LIKELIHOOD, "budget=250"),
}
AVERAGED = ("genomes", "examples", "by_metric", "tokens", "cpu", "validation", "best_source")
Line = Mapping[str, Any]


def carried_out(example: str, options: Sequence[str], seed: int) -> dict[str, Any]:
    """One run of the command, and what it says of its winner and of its cost."""
    with tempfile.TemporaryDirectory() as room:
        command = [sys.executable, "-m", "evohydra", *EXAMPLES[example], *options, *ALWAYS, f"seed={seed}"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [*command, f"hydra.run.dir={room}/run"], env=environment(), check=True, stdout=subprocess.DEVNULL
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        summary = json.loads((Path(room) / "run" / "summary.json").read_text())
        generated = sum(
            sum(len(v) for n, v in line["scores"].items() if not n.startswith(("log-likelihood", "likelihood")))
            for line in whole_lines(Path(room) / "run" / "ledger.jsonl")
        )
    test, winner = summary["test"], summary["test"]["winner"]
    return {
        "test": winner["score"],
        "n": winner["n"],
        "validation": summary["validation"]["winner"]["score"],
        "best_source": max(each["score"] for each in test["sources"].values()),
        "uniform": (test["uniform"] or {}).get("score"),
        "genomes": summary["evaluations"],
        "examples": summary["examples_scored"],
        "by_metric": generated,
        "tokens": summary["tokens"],
        "cpu": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "likelihood": summary["search"].get("likelihood"),
    }


def lines_of(file: Path) -> list[Line]:
    """What has been measured."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def measure(file: Path, rows: Iterable[tuple[str, str, Sequence[str]]], seeds: Sequence[int]) -> None:
    """Each row for each seed, a line for each; what is in the file is not done again."""
    for example, search, options in rows:
        for seed in seeds:
            key = {"example": example, "search": search, "options": list(options), "seed": seed}
            if any(key.items() <= line.items() for line in lines_of(file)):
                continue
            line = {**key, **carried_out(example, options, seed)}
            with file.open("a") as lines:
                lines.write(json.dumps(line) + "\n")
            print(f"{example}/{search} seed {seed}: {line['test']:.3f}, {line['examples']} examples", flush=True)


def interval(values: Sequence[float]) -> str:
    """The mean of seeds with half the width of its 95 % interval (t); of a single seed its score."""
    if len(values) < 2:
        return f"{values[0]:.3f}"
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.3f} +- {half:.3f}"


def table(lines: Sequence[Line]) -> str:
    """The rows of each example as markdown: means over seeds, with the 95 % interval (t) of the mean test score."""
    shown = [
        "| example | search | genomes | examples | by the metric | tokens | processor time | validation "
        "| test score, by seed | mean | best source |",
        "|" + "---|" * 11,
    ]
    rows: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        rows.setdefault((line["example"], line["search"]), []).append(line)
    for (example, search), group in sorted(rows.items(), key=lambda row: list(EXAMPLES).index(row[0][0])):
        group = sorted(group, key=lambda line: line["seed"])
        scores = [line["test"] for line in group]
        mean = {key: float(np.mean([line[key] for line in group])) for key in AVERAGED}
        by_seed = " ".join(f"{line['test']:.3f}".lstrip("0") + f" ({line['seed']})" for line in group)
        shown.append(
            f"| {example} | {search} | {mean['genomes']:.0f} | {mean['examples']:,.0f} | {mean['by_metric']:,.0f} "
            f"| {mean['tokens'] / 1e6:.2f} M | {mean['cpu']:.0f} s | {mean['validation']:.3f} "
            f"| {by_seed} | {interval(scores)} | {mean['best_source']:.3f} |"
        )
    return "\n".join(shown)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Searches side by side.")
    parser.add_argument("what", choices=["measure", "table"])
    parser.add_argument("file", type=Path)
    parser.add_argument("rows", nargs="*", help="EXAMPLE or EXAMPLE/SEARCH")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--add", nargs="+", metavar=("LABEL", "OPTION"), help="EXAMPLE/LABEL and its options")
    given = parser.parse_args()
    if given.what == "table":
        print(table(lines_of(given.file)))
        return
    rows: list[tuple[str, str, Sequence[str]]] = []
    for row in given.rows:
        example, _, search = row.partition("/")
        rows += [(example, each, SEARCHES[each]) for each in ([search] if search else SEARCHES)]
    if given.add:
        example, _, search = given.add[0].partition("/")
        rows.append((example, search, given.add[1:]))
    measure(given.file, rows, given.seeds)


if __name__ == "__main__":
    main()
