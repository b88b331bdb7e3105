"""mergekit's stacks of layers as starting points of a search for paths."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from evohydra.assembly.stack_starts import by_content, known_starts, stack_points
from evohydra.families.causal_lm import CausalLM
from evohydra.families.layouts import layout_of
from evohydra.mergekit.reader import read
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Stack, from_dict
from evohydra.spaces.dataflow import DataFlowSpace
from evohydra.spaces.scales import Slot
from tests import tiny_models
from tests.commands import carried_out, json_lines
from tests.test_pruning import one_source

DEPTHS = {"s1": 4, "s2": 4, "s3": 6}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for seed, (name, layers) in enumerate(DEPTHS.items()):
        tiny_models.save_model(root / name, seed, num_hidden_layers=layers)
    return root


def tensors_of(root: Path, name: str) -> tuple[str, ...]:
    return tuple(CausalLM().open(root / name, root / name, None).shapes)


def space(root: Path, *names: str, **options: Any) -> DataFlowSpace:
    layout = layout_of(tensors_of(root, names[0]), "llama", DEPTHS[names[0]])
    models = [Checkpoint(name, str(root / name)) for name in names]
    settings: dict[str, Any] = {"repeats": 3, "ends": False, "scales": Slot, "low": 0.0, "high": 2.0, **options}
    return DataFlowSpace(models=models, layers=[DEPTHS[name] for name in names], layout=layout, **settings)


def stack(file: Path, pieces: list[tuple[str, int, int, Any]], **more: object) -> str:
    slices = [
        {"sources": [{"model": model, "layer_range": [start, stop]}
                     | ({"parameters": {"scale": scale}} if scale is not None else {})]}
        for model, start, stop, scale in pieces
    ]  # fmt: skip
    file.write_text(yaml.safe_dump({"merge_method": "passthrough", "slices": slices, "dtype": "float32", **more}))
    return str(file)


HALF = [{"filter": "down_proj", "value": 0.5}, {"value": 1.0}]


@pytest.mark.parametrize(
    ("names", "pieces"),
    [
        (["s1"], [("s1", 0, 3, None), ("s1", 1, 4, None)]),  # a self-merge
        (["s1"], [("s1", 0, 2, None), ("s1", 1, 2, HALF), ("s1", 2, 4, None)]),  # with a scale
        (["s1", "s2"], [("s1", 0, 3, None), ("s2", 1, 3, HALF), ("s1", 2, 4, None)]),
        (["s1", "s3"], [("s1", 0, 3, None), ("s3", 2, 6, None), ("s1", 3, 4, None)]),  # of other depths
    ],
)
def test_a_stack_is_the_path_that_mergekit_writes(names: list[str], pieces: Any, root: Path, tmp_path: Path) -> None:
    searched = space(root, *names)
    absolute = [(str(root / name), *rest) for name, *rest in pieces]
    for models in (pieces, absolute):  # by the name of a source, and by its path
        file = stack(tmp_path / "stack.yaml", models)
        (point,) = stack_points(["sources", file], searched, tensors_of(root, names[0]))
    path = searched.decode(point)
    assert [(names[hop.source], hop.layer) for hop in path.hops] == [
        (name, layer) for name, start, stop, _ in pieces for layer in range(start, stop)
    ]
    # The weights are those of the same yaml, bit for bit.
    theirs = from_dict(read(Path(file).read_text(), CausalLM(), 10**9)["recipe"])
    assert isinstance(theirs, Stack)
    opened = {name: CausalLM().open(root / name, root / name, None) for name in names}
    engine = Engine(opened, device=torch.device("cpu"), dtype=torch.float32)
    shapes = engine.shapes(path)
    assert shapes == engine.shapes(theirs)
    for name in shapes:
        assert torch.equal(engine.tensor(path, name), engine.tensor(theirs, name)), name


@pytest.mark.parametrize(
    ("pieces", "options", "message"),
    [
        ([("s1", 0, 3, 0.5), ("s1", 1, 4, None)], {}, "layer 0 of s1 has scales that a path has no gene for"),
        ([("s1", 0, 4, HALF)], {}, "the scale of the last layer has no hop behind it"),
        ([("s1", 0, 2, HALF), ("s1", 2, 4, None)], {"low": 0.75}, "0.5 is outside"),
        ([("s1", 0, 3, None), ("s2", 1, 4, None)], {}, "expected the sources s1, .* by name or path, got s2"),
        ([("s1", 0, 4, None), ("s1", 0, 4, None), ("s1", 0, 4, None)], {"repeats": 2}, "needs more than 2"),
        ([("s1", 0, 5, None)], {}, "there is no layer 4 of source 0"),
    ],
)
def test_what_a_space_does_not_hold_is_told(
    pieces: Any, options: Any, message: str, root: Path, tmp_path: Path
) -> None:
    file = stack(tmp_path / "stack.yaml", pieces)
    with pytest.raises(ValueError, match=rf"start: .*stack\.yaml: .*{message}"):
        stack_points([file], space(root, "s1", **options), tensors_of(root, "s1"))


def test_files_are_known_by_their_content(root: Path, tmp_path: Path) -> None:
    first = stack(tmp_path / "a.yaml", [("s1", 0, 4, None)])
    second = stack(tmp_path / "b.yml", [("s1", 0, 4, None)])
    assert by_content(["sources", first]) == ["sources", *by_content([second])]
    stack(tmp_path / "b.yml", [("s1", 0, 3, None)])
    assert by_content([first]) != by_content([second])
    assert known_starts(["sources", first]) == ("sources",)
    (tmp_path / "ties.yaml").write_text(yaml.safe_dump({"merge_method": "linear", "models": [{"model": "s1"}]}))
    with pytest.raises(ValueError, match="expected merge_method: passthrough with slices, got 'linear'"):
        stack_points([str(tmp_path / "ties.yaml")], space(root, "s1"), tensors_of(root, "s1"))


def test_a_file_that_is_not_there(root: Path) -> None:
    with pytest.raises(ValueError, match=r"start: expected .*, got stack\.yaml, which is not there"):
        stack_points(["stack.yaml"], space(root, "s1"), tensors_of(root, "s1"))


def test_edges_of_another_model_are_told_of(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = stack(tmp_path / "stack.yaml", [("s1", 0, 3, None), ("s2", 3, 4, None)])
    (point,) = stack_points([file], space(root, "s1", "s2"), tensors_of(root, "s1"))
    assert np.isfinite(point).all()
    assert "its embeddings of s1 and its head of s2; in this search both are those of s1" in caplog.text


def test_a_search_begins_with_it(tmp_path: Path) -> None:
    """A self-merge of one model, with scales, in generation 0."""
    arguments = [each for each in one_source(tmp_path) if not each.startswith(("merge", "optimizer", "obj", "pick"))]
    file = stack(tmp_path / "stack.yaml", [("one", 0, 2, None), ("one", 1, 2, HALF), ("one", 2, 3, None)])
    changes = ["merge=dfs_slot", "optimizer=random", "optimizer.population=4", "budget=4", f"start=[sources,{file}]"]
    carried_out([*arguments, *changes, "merge.dataflow.repeats=2"], tmp_path / "run")
    genes = [line["genes"] for line in json_lines(tmp_path / "run" / "ledger.jsonl")[:2]]
    assert sum(value is True for value in genes[1].values()) == 2  # between the ends
    assert 0.5 in genes[1].values()
