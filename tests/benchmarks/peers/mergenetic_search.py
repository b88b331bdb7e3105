"""mergenetic's searcher, problem and mergers, under mergenetic's Python; evohydra's benchmark scores its models.

    python -m tests.benchmarks.peers.mergenetic_search SCORER_PYTHON RECORD SEED OUT ga|de freeze|- ONE TWO

A user of mergenetic writes such a script: a problem with a metric of one's own, a merger, an algorithm of pymoo.
Merging, loading and the search are mergenetic 0.1.1's as released, with `load_in_4bit` and `device` set for a CPU, and
without `low_cpu_memory`, which its merger always sets and which keeps mergekit's results on a GPU. `freeze` hides the
objects of the imports (vLLM's, above all) from garbage collections: that changes no result, and without it they take
most of a genome's time.
"""

import gc
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
from mergenetic.merging import SlerpMerger
from mergenetic.merging import merger as merging
from mergenetic.optimization import MergingProblem
from mergenetic.searcher import Searcher
from pymoo.algorithms.soo.nonconvex.de import DE
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from transformers import AutoConfig

from tests.benchmarks.peers.scoring import Scorer

# Of its published experiments: SLERP with 11 genes in steps of a tenth, GA as below. The size of a generation is of
# the configurations in its repository: 110 genomes.
GENES, POPULATION, ITERATIONS = 11, 10, 11


class TinyGsmJa(MergingProblem):
    """The problem: `metrics_4_genotype` and `test` are the user's, see mergenetic's predefined problems."""

    def __init__(self, merger: Any, scorer: Scorer, **options: Any) -> None:
        nothing = pd.DataFrame()  # the scorer has the examples
        super().__init__(merger, nothing, nothing, n_obj=1, load_in_4bit=False, device="cpu", **options)
        self._scorer = scorer
        self._seconds: dict[str, float] = {}

    def _from_array_to_genotype(self, x: Any) -> Path:
        return self._timed("merge", super()._from_array_to_genotype, x)

    def load_model(self, path: str, verbose: bool = True) -> Any:
        return self._timed("their_load", super().load_model, path, verbose)

    def _timed(self, part: str, function: Any, *given: Any) -> Any:
        start, cpu = time.perf_counter(), time.process_time()
        found = function(*given)
        self._seconds |= {part: time.perf_counter() - start, f"{part}_cpu": time.process_time() - cpu}
        return found

    def metrics_4_genotype(self, model: Any, tokenizer: Any = None) -> tuple[list[float], str]:
        split = "test" if self.test_mode else "search"
        score = self._scorer(self.merger.path_to_store_merged_model, split, **self._seconds)
        return [-score], f"{split} score {score}"

    def test(self, genotype: Any) -> tuple[list[float], str]:
        self.test_mode = True
        return self.metrics_4_genotype(*self.load_model(self._from_array_to_genotype(genotype)))


def main() -> None:
    """Search, and test what mergenetic chooses."""
    python, record, seed, out, algorithm, freeze, one, two = sys.argv[1:]
    if freeze == "freeze":
        gc.collect()
        gc.freeze()
    Path(out).mkdir(parents=True, exist_ok=True)
    kept = {"run_id": "peer", "path_to_store_yaml": out, "path_to_store_merged_model": out, "dtype": "bfloat16"}
    layers = [0, AutoConfig.from_pretrained(one).num_hidden_layers]
    merger = SlerpMerger(path_to_base_model=one, path_to_model_1=two, layer_range_base_model=layers,
                         layer_range_model_1=layers, **kept)  # fmt: skip
    options = merging.MergeOptions
    merging.MergeOptions = lambda **chosen: options(**chosen | {"low_cpu_memory": False})
    scorer = Scorer(python, "float32", Path(record))  # in which mergenetic loads a model on a CPU
    problem = TinyGsmJa(merger, scorer, n_var=GENES, discrete=True)
    shared = {"pop_size": POPULATION, "sampling": IntegerRandomSampling()}
    algorithms = {
        "ga": lambda: GA(crossover=SBX(), mutation=PM(), eliminate_duplicates=True, **shared),
        "de": lambda: DE(**shared),
    }
    searcher = Searcher(problem, algorithms[algorithm](), out, ITERATIONS, int(seed), "peer", verbose=False)
    searcher.search()
    searcher.test()


if __name__ == "__main__":
    main()
