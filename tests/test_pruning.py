"""Paths that only leave layers out (merge=dfs_prune), and the shortest of them that keeps a score (pick=shortest)."""

import itertools
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from evohydra.recipe import Checkpoint, LayerNames
from evohydra.searching.fronts import picked
from evohydra.searching.shortest import Shortest, warn_unless_kept
from evohydra.spaces.dataflow import DataFlowSpace
from evohydra.spaces.scales import Ones
from tests.commands import built, carried_out, json_lines, workspace

LAYOUT = LayerNames("model.layers", "embed", "attention", "mlp")
FRONT = np.array([[0.2, -1.0], [0.5, -2.0], [0.7, -3.0], [0.9, -4.0], [0.8, -5.0]])


def one_source(root: Path, layers: int = 3) -> list[str]:
    """The command line of a run on one model of so many layers."""
    given = [each for each in workspace(root, num_hidden_layers=layers) if "sources.two" not in each]
    changed = ["model=local_one" if each.startswith("model=") else each for each in given]
    changed = [each for each in changed if not each.startswith(("optimizer", "model.sources.one.base"))]
    return [*changed, "merge=dfs_prune", "optimizer=grid", f"budget={2**layers}", "top=1", "start=[sources]",
            "objective=path_length", "pick=shortest", "baselines=null"]  # fmt: skip


@pytest.mark.parametrize("names", [("a",), ("a", "b")])
def test_layers_are_left_out_and_never_repeated(names: tuple[str, ...]) -> None:
    models = [Checkpoint(name, name) for name in names]
    space = DataFlowSpace(
        models=models, layers=[3] * len(models), layout=LAYOUT, repeats=1, order="layers", scales=Ones, ends=False
    )
    found = set()
    for genome in itertools.product((0.25, 0.75), repeat=len(space.names)):
        hops = [(hop.layer, hop.source) for hop in space.decode(np.array(genome)).hops]
        assert len(set(hops)) == len(hops)
        assert [layer for layer, _ in hops] == sorted(layer for layer, _ in hops)
        found.add(tuple(hops))
    assert len(found) == 2 ** len(space.names) - 1  # the empty path is the first layer


def test_the_shortest_of_those_that_keep_enough() -> None:
    fitness = FRONT[:, 0]
    for keep, best in ((1.0, 3), (0.8, 3), (0.75, 2), (0.5, 1), (0.0, 0)):
        rule = Shortest(keep).against(0.9)
        assert picked(FRONT, fitness, rule, 1) == [best], keep
    # Of those that keep too little the one that keeps most comes first.
    assert picked(FRONT, fitness, Shortest(1.0).against(2.0), 4) == [3, 2, 1, 0]
    assert Shortest(0.9).against(1.0).keeps(np.array([0.9, 0.3 * 3, 0.8999])).tolist() == [True, True, False]
    with pytest.raises(ValueError, match=r"expected a source whose score is 0 or more, got -0\.500"):
        Shortest().against(-0.5)
    with pytest.raises(ValueError, match=r"pick\.keep: expected a number of at least 0 and at most 1, got 95"):
        Shortest(95)


def test_a_model_alone_is_pruned(tmp_path: Path) -> None:
    summary = carried_out([*one_source(tmp_path), "pick.keep=0.6"], tmp_path / "run")
    lines = {line["index"]: line for line in json_lines(tmp_path / "run" / "ledger.jsonl")}
    hops = {index: -line["objectives"]["-hops"] for index, line in lines.items()}
    assert sorted(hops.values()) == [1, 1, 1, 1, 2, 2, 2, 3]  # the empty path is one of those with one layer
    # The whole front is validated, whatever top is.
    candidates = {each["index"]: each["validation"] for each in summary["validation"]["candidates"]}
    front = {(each["score"], each["-hops"]) for each in summary["search"]["front"]}
    assert sorted((lines[i]["fitness"], float(-hops[i])) for i in candidates) == sorted(front)  # one of equal ones
    # The winner is the shortest that keeps 0.6 of the source's score on validation.
    whole = next(line["recipe"] for index, line in lines.items() if hops[index] == 3)
    scored = [each for each in json_lines(tmp_path / "run" / "scores.jsonl") if each["split"] == "validation"]
    (source,) = [np.mean([*each["scores"].values()]) for each in scored if each["recipe"] == whole]
    enough = [index for index, score in candidates.items() if score >= 0.6 * source]
    winner = summary["search"]["index"]
    assert winner in enough
    assert hops[winner] == min(hops[index] for index in enough)
    config = json.loads((tmp_path / "run" / "winner" / "config.json").read_text())
    assert config["num_hidden_layers"] == hops[winner]
    assert summary["test"]["uniform"] is None  # of one model there is no average


def test_a_winner_that_keeps_too_little_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    rule = Shortest(0.9).against(1.0)
    with caplog.at_level(logging.WARNING):
        warn_unless_kept(rule, 0.95)
        assert not caplog.messages
        warn_unless_kept(rule, 0.5)
    assert "no path of the front keeps 0.9 x the source's score on validation (1.000)" in caplog.text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["objective=mean"], "pick=shortest: expected objective=path_length"),
        (["start=[]"], r"pick=shortest: expected start=\[sources\]"),
        (["fitness=subset", "fitness.examples=3"], "choose fitness=full"),
        (["pick.keep=95"], r"pick\.keep: expected a number of at least 0 and at most 1, got 95"),
    ],
)
def test_what_the_rule_needs_is_asked_for_first(changes: list[str], expected: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=expected):
        built([*one_source(tmp_path), *changes], tmp_path / "run")
