"""mergekit-evolve's own command, under mergekit's Python; its models are scored by evohydra's benchmark.

    python -m tests.benchmarks.peers.mergekit_evolve SCORER_PYTHON RECORD SEED [arguments of mergekit-evolve]

Configuration, genome, resharding, CMA-ES, stopping, choice and merges are mergekit 0.1.5's as released. Replaced are
the evaluation of a merge, which wants a GPU whatever the options say (docs/peers.md), and the seed, which the command
cannot be given. vLLM, which it imports without using it, is stood in for by an empty class.
"""

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cma
import lm_eval.models

lm_eval.models.vllm_causallms = SimpleNamespace(VLLM=type("VLLM", (), {}))

import shutil  # noqa: E402

from mergekit.evo.helpers import merge_model  # noqa: E402
from mergekit.scripts import evolve  # noqa: E402

from tests.benchmarks.peers.scoring import Scorer  # noqa: E402


def strategy(scorer: Scorer) -> type:
    """What stands in for mergekit-evolve's evaluation strategies."""

    class ScoredElsewhere:
        def __init__(self, _: Any, genome: Any, options: Any, *, model_storage_path: str, **__: Any) -> None:
            self._genome, self._options, self._storage = genome, options, model_storage_path

        def evaluate_genotypes(self, genotypes: list[Any]) -> list[dict[str, float]]:
            return [{"score": self._score(genotype)} for genotype in genotypes]

        def _score(self, genotype: Any) -> float:
            start, cpu = time.perf_counter(), time.process_time()
            merged = merge_model(genotype, self._genome, self._storage, self._options)
            noted = {"merge": time.perf_counter() - start, "merge_cpu": time.process_time() - cpu}
            try:
                return scorer(merged, "search", genome=[float(gene) for gene in genotype], **noted)
            finally:
                shutil.rmtree(merged)  # as mergekit.evo.helpers.evaluate_model does

    return ScoredElsewhere


def main() -> None:
    """Search, then score the model that the command leaves on the test split."""
    python, record, seed, *arguments = sys.argv[1:]
    scorer = Scorer(python, "bfloat16", Path(record))  # in which mergekit-evolve evaluates
    evolve.ActorPoolEvaluationStrategy = strategy(scorer)
    fmin2 = cma.fmin2
    cma.fmin2 = lambda *given, options, **named: fmin2(*given, options=options | {"seed": int(seed)}, **named)
    evolve.main(arguments, standalone_mode=False)
    storage = Path(arguments[arguments.index("--storage-path") + 1])
    scorer(storage / "final_model", "test")


if __name__ == "__main__":
    main()
