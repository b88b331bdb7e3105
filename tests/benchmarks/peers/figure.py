"""Score against scored examples, of evohydra and its peers, from what `compare` has kept.

python -m tests.benchmarks.peers.figure FIGURE.png [--out DIRECTORY]

DIRECTORY holds scores.jsonl. The scores of docs/peers.md are kept in tests/benchmarks/peers. A line joins the points of
one search with more and with fewer genomes.
"""

import argparse
import statistics
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from tests.benchmarks.peers.compare import json_lines
from tests.benchmarks.peers.rows import ROWS

SHOWN = ("evohydra", "evohydra_as_many", "evohydra_cmaes", "evohydra_paper", "mergenetic_ga", "mergekit_evolve")
JOINED = (("evohydra", "evohydra_as_many"), ("evohydra_cmaes", "evohydra_paper"))
HEIGHTS, LEFT = {"evohydra": 8, "evohydra_cmaes": -12}, ("mergenetic_ga",)  # of labels that would lie on a line
OURS, THEIRS = "#0b6e99", "#b04a2f"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Draw what the comparison with peers has found.")
    parser.add_argument("figure", type=Path)
    parser.add_argument("--out", type=Path, default=Path("outputs/peers"))
    arguments = parser.parse_args()
    results = json_lines(arguments.out / "scores.jsonl")
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    means: dict[str, tuple[float, float]] = {}
    for name in SHOWN:
        if not (runs := [each for each in results if each["row"] == name]):
            continue
        colour = OURS if ROWS[name].environment is None else THEIRS
        examples = [each["examples"] for each in runs]
        scores = [each["score"] for each in runs]
        axes.plot(examples, scores, ".", color=colour, alpha=0.5)
        at = statistics.mean(examples), statistics.mean(scores)
        means[name] = at
        axes.plot(*at, "o", color=colour)
        right = name not in LEFT
        place = {"xytext": (8 if right else -8, HEIGHTS.get(name, -3)), "ha": "left" if right else "right"}
        axes.annotate(ROWS[name].label, at, textcoords="offset points", fontsize=9, color=colour, **place)
    for pair in JOINED:
        if all(name in means for name in pair):
            axes.plot(*zip(*(means[name] for name in pair), strict=True), "-", color=OURS, alpha=0.4, linewidth=1)
    axes.set_xlim(0, 95_000)
    axes.set_ylim(0.5, 1)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel("scored examples, validation included")
    axes.set_ylabel("score on 1000 test problems")
    axes.grid(alpha=0.3)
    figure.savefig(arguments.figure, dpi=150)


if __name__ == "__main__":
    main()
