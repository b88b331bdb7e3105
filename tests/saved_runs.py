"""Run directories as a sweep leaves them, without models: three strategies on a known response."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from evohydra.recipe import Checkpoint, Group, Merge, digest
from evohydra.scoring.statistics import interval
from evohydra.searching.objectives import Objective

GROUPS, MODELS = ("embeddings", "layers.0", "layers.1", "head"), ("ja", "math")
NAMES = [f"{group}/weight/{model}" for group in GROUPS for model in MODELS]


def recipe(genome: np.ndarray) -> Merge:
    """The merge of a genome, (8,)."""
    weights = genome.reshape(len(GROUPS), len(MODELS))
    groups = (Group(g, (f"{g}.w",), {"weight": tuple(map(float, w))}) for g, w in zip(GROUPS, weights, strict=True))
    return Merge("linear", None, tuple(Checkpoint(m, m) for m in MODELS), tuple(groups))


def answers(skill: float, split: str, rng: np.random.Generator) -> list[float]:
    """Scores of zeros and ones on 60 examples, whose difficulties are those of the split."""
    hardness = np.random.default_rng(sum(map(ord, split))).normal(size=60)
    return (rng.random(60) < 1 / (1 + np.exp(hardness - skill))).astype(float).tolist()


def save_run(
    directory: Path, strategy: str, seed: int, gain: float, *, genomes: int = 40, reach: float = 1.0, ended: bool = True
) -> Path:
    """A run whose fitness hangs on the first gene alone; `gain` is what its strategy makes of each generation,
    `reach` how much of the first gene's range the first one holds.
    """
    rng = np.random.default_rng(seed)
    (directory / ".hydra").mkdir(parents=True)
    write = lambda name, data: (directory / name).write_text(data)  # noqa: E731
    write(".hydra/overrides.yaml", yaml.safe_dump([f"optimizer={strategy}", f"seed={seed}", "run=sweep", "budget=40"]))
    write(".hydra/config.yaml", yaml.safe_dump({"seed": seed, "budget": 40, "tracker": {"project": "evohydra"}}))
    write("run.json", "{}")
    records: list[dict[str, Any]] = []
    for index in range(genomes):
        genome = np.clip(reach * rng.random(8) + gain * (index // 8), 0, 1)
        scores = answers(4 * genome[0] - 2, "search", rng)
        records.append({
            "index": index, "generation": index // 8, "genome": genome.tolist(),
            "genes": dict(zip(NAMES, genome.tolist(), strict=True)), "recipe": digest(recipe(genome)),
            "fitness": float(np.mean(scores)), "scores": {"sums": scores},
            "seconds": {"merge": 0.1, "evaluate": 0.5, "forward": 0.4}, "error": None, "tokens": 9, "objectives": {},
        })  # fmt: skip
    if genomes > 5:
        records[3] |= {"fitness": None, "scores": {}, "error": "ValueError: not finite"}
    write("ledger.jsonl", "".join(json.dumps(record) + "\n" for record in records) + '{"index": 99, "ge')
    if ended:
        save_end(directory, records, rng)
    return directory


def save_end(directory: Path, records: list[dict[str, Any]], rng: np.random.Generator) -> None:
    """What a run leaves once its search is over."""
    best = max(records, key=lambda record: record["fitness"] or -1.0)
    node = recipe(np.array(best["genome"]))
    skills = {"ja": -0.8, "math": -2.0, "uniform": 0.0, "winner": 4 * best["genome"][0] - 2}
    finals: list[dict[str, Any]] = []
    for label, skill in skills.items():
        of = best["recipe"] if label == "winner" else label
        splits = ("validation", "test") if label == "winner" else ("test",)
        line = {"label": label, "examples": None, "copied": False, "recipe": of}
        finals += [{**line, "split": split, "scores": {"sums": answers(skill, split, rng)}}
                   for split in splits]  # fmt: skip
    (directory / "scores.jsonl").write_text("".join(json.dumps(final) + "\n" for final in finals))

    def score(label: str, split: str) -> dict[str, float]:
        (scores,) = (f["scores"] for f in finals if f["label"] == label and f["split"] == split)
        return vars(interval(Objective().weighted(scores)))

    summary = {
        "test": {
            "winner": score("winner", "test"), "uniform": score("uniform", "test"), "base": None, "baselines": {},
            "sources": {name: score(name, "test") for name in MODELS},
        },
        "validation": {"winner": score("winner", "validation")},
        "search": {"winner": vars(interval(best["scores"])), "index": best["index"], "best": best["fitness"]},
        "gain": {"best_source": "ja", "difference": 0.2, "low": 0.1, "high": 0.3, "p": 0.001},
        "evaluations": len(records), "seconds": {"merge": 4.0, "evaluate": 20.0, "forward": 16.0, "other": 5.0},
        "recipe_digest": best["recipe"],
    }  # fmt: skip
    (directory / "summary.json").write_text(json.dumps(summary))
    (directory / "recipe.json").write_text(json.dumps({"recipe": node.to_dict()}))
    shown = {"benchmark": "sums", "index": 3, "question": "りんごが<3>個", "expected": "答えは3です。",
             "scores": {"winner": 1.0, "ja": 0.0}, "answers": {"winner": "3です", "ja": "red"}}  # fmt: skip
    (directory / "examples.json").write_text(json.dumps({"recipe": best["recipe"], "examples": [shown]}))


def save_sweep(root: Path) -> Path:
    """Three strategies with three seeds each; the last run was killed, and one has not written a genome."""
    gains = {"cmaes": 0.12, "de": 0.06, "random": 0.0}
    for number, (strategy, seed) in enumerate((s, seed) for s in gains for seed in (1, 2, 3)):
        ended = number < 8
        save_run(root / str(number), strategy, seed, gains[strategy], genomes=40 if ended else 11, ended=ended)
    save_run(root / "9", "random", 4, 0.0, genomes=0, ended=False)
    return root
