"""Scores checkpoints that peers write: tiny_gsm_ja, as evohydra itself asks it; a line of JSON in, a line out."""

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from evohydra.families import LiveModel
from evohydra.families.causal_lm import CausalLM
from evohydra.merging.checkpoints import CheckpointReader
from evohydra.scoring.benchmarks.lm_eval import lm_eval_benchmarks

NAME = "tiny_gsm_ja"
YAML = Path(__file__).parents[3] / "conf" / "benchmark" / f"{NAME}.yaml"
BATCH, SEED = 512, 1  # as batch_size=auto has it for models of this size


def options() -> dict[str, Any]:
    """What the file of the benchmark says of it, for `lm_eval_benchmarks`."""
    said = yaml.safe_load(YAML.read_text())
    return {key: value for key, value in said.items() if not key.startswith("_")} | {
        "batch_size": BATCH,
        "sampling_seed": SEED,
        "prefix_cache": "auto",
    }


def load(live: LiveModel, directory: Path) -> None:
    """Overwrite the parameters of `live` by those of the checkpoint, which may repeat the embeddings as a head."""
    reader = CheckpointReader(directory)
    tied = {"lm_head.weight"} if "lm_head.weight" not in live.parameters else set()
    if set(reader.shapes) - tied != set(live.parameters):
        raise ValueError(f"{directory}: its tensors are not those of the sources")
    for name, parameter in live.parameters.items():
        parameter.copy_(reader.read(name))


def main() -> None:
    """Answer until the input ends. The one argument is the type in which the model is evaluated."""
    torch.set_num_threads(1)
    dtype = getattr(torch, sys.argv[1])
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        (benchmark,) = lm_eval_benchmarks(NAME, **options()).values()
        live: LiveModel | None = None
        for line in sys.stdin:
            asked = json.loads(line)
            start, cpu = time.perf_counter(), time.process_time()
            if live is None:
                live = CausalLM().live_model(Path(asked["model"]), torch.device("cpu"), dtype)
            load(live, Path(asked["model"]))
            loaded = time.perf_counter()
            scores = benchmark(live, asked["split"])
            found = {
                "scores": scores.tolist(),
                "load": loaded - start,
                "evaluate": time.perf_counter() - loaded,
                "cpu": time.process_time() - cpu,
            }
            print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
