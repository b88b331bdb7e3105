"""The comparison with peers: what it says of their settings is so, its scripts can be read, and its scorer scores."""

import ast
import sys
from pathlib import Path

import cma
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from evohydra.assembly import composition
from evohydra.assembly.sizes import MOST
from evohydra.merging.finding import ZOO
from evohydra.recipe import Merge
from tests.benchmarks.peers import compare, scorer
from tests.benchmarks.peers.rows import AS_MERGEKIT_EVOLVE, ROWS, evolve_configuration
from tests.benchmarks.peers.scoring import Scorer
from tests.commands import REPOSITORY, built

PEERS = REPOSITORY / "tests" / "benchmarks" / "peers"
LAYERS = 6  # of the models in the zoo


def test_mergekit_evolves_genome_and_settings_are_those_that_it_documents(tmp_path: Path) -> None:
    run = built([*AS_MERGEKIT_EVOLVE, "tracker=none", "~merge@baselines.ties", "~merge@baselines.dare_ties"], tmp_path)
    space = run.plan.space
    optimizer = run.plan.make_optimizer(space.axes, np.empty((0, 2 * LAYERS)))
    # Mergekit's docs/evolve.md and mergekit/evo/genome.py: a weight for each layer and source, which begins at
    # 1 / n_models; scripts/evolve.py: --sigma0 is 1/6; the size of a generation is pycma's default.
    assert len(space.names) == 2 * LAYERS
    middle, further = np.full(2 * LAYERS, 0.25), np.full(2 * LAYERS, 0.25 + 1 / 12)
    for point, weight in ((middle, 1 / 2), (further, 1 / 2 + 1 / 6)):
        node = space.decode(point)
        assert isinstance(node, Merge)
        assert len(node.groups) == LAYERS
        assert all(np.allclose(group.parameters["weight"], weight) for group in node.groups)
    assert optimizer.population == cma.CMAEvolutionStrategy([0.5] * 12, 1 / 6, {"verbose": -9}).popsize == 11
    composition.register()
    with initialize_config_dir(composition.conf_dir(), version_base="1.3"):
        config = compose("config", list(AS_MERGEKIT_EVOLVE))
    assert (config.optimizer.mean, config.optimizer.sigma) == (0.25, pytest.approx(1 / 12))


def test_mergekit_evolves_file_has_its_keys_and_our_sources() -> None:
    file = evolve_configuration()
    # The keys of docs/evolve.md; the default metric, acc, is not that of the task.
    assert set(file["genome"]) == {"models", "base_model", "merge_method", "layer_granularity"}
    composition.register()
    with initialize_config_dir(composition.conf_dir(), version_base="1.3"):
        ours = OmegaConf.to_container(compose("config").model)
    assert isinstance(ours, dict)
    assert file["genome"]["models"] == [str(ZOO / name) for name in ours["sources"]]
    assert {source["base"] for source in ours["sources"].values()} == {"zoo://base"}
    assert file["tasks"] == [{"name": "tiny_gsm_ja", "metric": "exact_match,none"}]


def test_the_scorer_asks_what_evohydra_asks_and_scores_alike(tmp_path: Path) -> None:
    composition.register()
    with initialize_config_dir(composition.conf_dir(), version_base="1.3"):
        config = compose("config", [f"batch_size={MOST}"])  # as auto has it for models of this size
        ours = OmegaConf.to_container(config.benchmark.tiny_gsm_ja, resolve=True)
    assert isinstance(ours, dict)
    assert scorer.options() == {key: value for key, value in ours.items() if not key.startswith("_")}
    scored = Scorer(sys.executable, "float32", tmp_path / "record.jsonl")
    assert scored(ZOO / "tiny_ja", "test", merge=0.0) == pytest.approx(0.335)  # the README's table
    (line,) = compare.json_lines(tmp_path / "record.jsonl")
    assert (line["split"], line["merge"], len(line["scores"])) == ("test", 0.0, 1000)
    with pytest.raises(RuntimeError, match="the scorer has ended"):
        scored(tmp_path, "test")
    scored.close()


def test_every_script_can_be_read_and_every_row_has_a_command(tmp_path: Path) -> None:
    for file in PEERS.glob("*.py"):
        ast.parse(file.read_text())
    for name, row in ROWS.items():
        command = row.command("python", tmp_path, 7, False)
        module = command[command.index("-m") + 1]
        assert module == "evohydra" or (REPOSITORY / f"{module.replace('.', '/')}.py").is_file(), name
        assert "7" in command or "seed=7" in command


def test_the_table_has_the_mean_and_the_interval_over_seeds() -> None:
    results = [
        {"row": "evohydra", "seed": seed, "score": score, "search": 0.7, "genomes": 108, "examples": 33400}
        for seed, score in ((2, 0.6), (1, 0.5), (3, 0.7))
    ]
    # Student's t with two degrees of freedom, 4.3027, times 0.1 / sqrt(3).
    assert list(compare.table(results))[2] == (
        f"| {ROWS['evohydra'].label} | 0.600 | 0.352 to 0.848 | 0.500, 0.600, 0.700 | 0.700 | 108 | 33400 |"
    )
