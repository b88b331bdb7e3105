"""Source models that cannot be merged: each is refused before any evaluation, by name and with what was expected."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evohydra.merging.checkpoints import SourceError
from tests.commands import built, evohydra, workspace
from tests.tiny_models import CHARACTERS, save_model

INDEX = "model.safetensors.index.json"
TENSOR = "model.layers.1.mlp.up_proj.weight"


class Workspace:
    """Tiny models of which one may be replaced or spoilt, and the command line of a run on them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.arguments = [*workspace(root), "baselines=null", "budget=6"]
        self.two = root / "two"

    def weights(self) -> dict[str, torch.Tensor]:
        return load_file(self.two / "model.safetensors")

    def store(self, tensors: dict[str, torch.Tensor]) -> None:
        (self.two / "model.safetensors").unlink()
        save_file(tensors, self.two / "model.safetensors", metadata={"format": "pt"})

    def shard(self, weight_map: Callable[[dict[str, str]], object] = lambda where: where) -> None:
        """Two shards with an index, whose weight_map may be changed."""
        tensors = self.weights()
        (self.two / "model.safetensors").unlink()
        where = {name: f"part-{index % 2}.safetensors" for index, name in enumerate(sorted(tensors))}
        for file in set(where.values()):
            save_file({name: tensors[name] for name in tensors if where[name] == file}, self.two / file)
        (self.two / INDEX).write_text(json.dumps({"weight_map": weight_map(where)}))

    def refused(self, *more: str, without: str = "") -> str:
        """The message with which the run is refused; nothing may be left of a run."""
        arguments = [each for each in self.arguments if not without or without not in each]
        with pytest.raises(SourceError) as caught:
            built([*arguments, *more], self.root / "run")
        assert not (self.root / "run").exists()
        return str(caught.value)


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def test_the_workspace_is_good_as_it_is(space: Workspace):
    assert len(built(space.arguments, space.root / "run").models.sources) == 2


def test_sharded_checkpoints_are_good_too(space: Workspace):
    space.shard()
    assert len(built(space.arguments, space.root / "run").models.sources) == 2


def test_unknown_source(space: Workspace):
    arguments = ["model=local_one+nonesuch", *space.arguments[1:]]
    process = evohydra(*arguments, "run=r", cwd=space.root)
    assert process.returncode != 0
    assert "unknown model nonesuch. Known:" in process.stderr
    assert "local_one" in process.stderr.split("Known:")[1]
    assert "tiny_math" in process.stderr.split("Known:")[1]
    assert "Traceback" not in process.stderr
    assert not list(space.root.glob("outputs/*/ledger.jsonl"))


def test_missing_directory_and_the_exit_of_the_command(space: Workspace):
    shutil.rmtree(space.two)
    process = evohydra(*space.arguments, "run=r", cwd=space.root)
    assert process.returncode != 0
    assert f"{space.two}: no such directory" in process.stderr
    assert "Traceback" not in process.stderr
    assert not list(space.root.glob("outputs/*"))


@pytest.mark.parametrize("left", [0, 4, 8, 300, 0.5, -1], ids="cut at {}".format)
def test_truncated_weights(space: Workspace, left: float):
    file = space.two / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(left * len(content)) if isinstance(left, float) else left])
    message = space.refused()
    assert str(file) in message
    assert f"truncated or corrupt safetensors file of {file.stat().st_size} bytes" in message


def test_a_missing_shard(space: Workspace):
    space.shard()
    (space.two / "part-1.safetensors").unlink()
    assert "shard 'part-1.safetensors' is missing" in space.refused()


@pytest.mark.parametrize("outside", ["../one/model.safetensors", "{root}/one/model.safetensors", "sub/x.safetensors"])
def test_an_index_that_points_elsewhere(space: Workspace, outside: str):
    target = outside.format(root=space.root)
    space.shard(lambda where: where | {TENSOR: target})
    message = space.refused()
    assert f"shard {target!r} points outside the checkpoint's directory" in message
    assert INDEX in message


@pytest.mark.parametrize("where", [None, [], {}, {TENSOR: 7}, {TENSOR: None}], ids=repr)
def test_an_index_that_makes_no_sense(space: Workspace, where: object):
    space.shard(lambda _: where)
    assert f"{space.two / INDEX}: expected a JSON object with a weight_map" in space.refused()


def test_an_index_that_is_no_json(space: Workspace):
    space.shard()
    (space.two / INDEX).write_text('{"weight_map": ')
    assert f"{space.two / INDEX}: expected a JSON object with a weight_map" in space.refused()


def test_a_tensor_that_is_not_in_its_shard(space: Workspace):
    space.shard(
        lambda where: where | {TENSOR: {"part-0.safetensors", "part-1.safetensors"}.difference({where[TENSOR]}).pop()}
    )
    assert f"tensor {TENSOR!r} is not in its shard" in space.refused()


def test_another_shape(space: Workspace):
    save_model(space.two, 2, intermediate_size=20)
    message = space.refused()
    assert "(24, 16) in 'one' and (20, 16) in 'two'" in message or "(16, 24) in 'one' and (16, 20) in 'two'" in message


def test_another_number_of_layers(space: Workspace):
    save_model(space.two, 2, num_hidden_layers=3)
    message = space.refused()
    assert "9 of 'two' are missing from 'one'" in message
    assert "model.layers.2." in message


@pytest.mark.parametrize("depth", [1, 3])
def test_a_configuration_of_another_number_of_layers(space: Workspace, depth: int):
    """transformers loads such a model without an error: shorter, or with a layer of random numbers."""
    for name in ("base", "one", "two"):
        file = space.root / name / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"num_hidden_layers": depth}))
    message = space.refused()
    assert f"expected the tensors of {depth} layers, as its config.json says, got those of 2" in message


def test_another_name_of_a_tensor(space: Workspace):
    space.store({name.replace("up_proj", "upper"): tensor for name, tensor in space.weights().items()})
    message = space.refused()
    assert "'one' and 'two' have different tensors" in message
    assert "model.layers.0.mlp.up" in message


def test_another_architecture(space: Workspace):
    config = json.loads((space.two / "config.json").read_text())
    (space.two / "config.json").write_text(json.dumps(config | {"model_type": "mistral", "architectures": None}))
    assert "different architectures: {'one': 'llama', 'two': 'mistral', 'base': 'llama'}" in space.refused()


def test_another_tokenizer(space: Workspace):
    swapped = [*CHARACTERS]
    swapped[3], swapped[4] = swapped[4], swapped[3]
    save_model(space.two, 2, base=space.root / "base", characters=swapped)
    assert (
        "'one' and 'two' have different tokenizers: 2 tokens differ, the first is '0' with id 3 and 4"
        in space.refused()
    )


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_not_finite(space: Workspace, number: float, dtype: torch.dtype):
    tensors = {name: tensor.to(dtype) for name, tensor in space.weights().items()}
    tensors[TENSOR][1, 2] = tensors[TENSOR][3, 4] = number
    tensors[TENSOR][0, 0] = -number
    space.store(tensors)
    assert f"source 'two': tensor {TENSOR!r} holds 3 NaN or infinite numbers" in space.refused()


def test_pickles_are_not_loaded(space: Workspace):
    torch.save(space.weights(), space.two / "pytorch_model.bin")
    (space.two / "model.safetensors").unlink()
    message = space.refused()
    assert "only pickle files (pytorch_model.bin), which can run code" in message
    assert "convert=weights_only" in message


def test_a_directory_without_weights(space: Workspace):
    (space.two / "model.safetensors").unlink()
    assert f"expected model.safetensors or {INDEX}, found no safetensors file" in space.refused()


@pytest.mark.parametrize("where", ["config.json", "tokenizer_config.json"])
def test_code_of_a_checkpoint_is_neither_run_nor_offered(space: Workspace, where: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question at the terminal"))
    (space.two / "its_own.py").write_text(f"open({str(space.root / 'was_run')!r}, 'w')\nclass Own: pass\n")
    file = space.two / where
    config = json.loads(file.read_text())
    for key in ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer"):
        config.setdefault("auto_map", {})[key] = ["its_own.Own", None] if key == "AutoTokenizer" else "its_own.Own"
    file.write_text(json.dumps(config | {"model_type": "own", "tokenizer_class": "Own"}))
    message = space.refused()
    assert str(space.two) in message
    assert not (space.root / "was_run").exists()
    assert "its_own" not in sys.modules


def test_a_directory_without_configuration(space: Workspace):
    (space.two / "config.json").unlink()
    assert f"{space.two}: expected the config.json of a causal language model" in space.refused()


def test_sources_on_different_bases(space: Workspace):
    other = save_model(space.root / "other", 5)
    message = space.refused(f"model.sources.two.base={other}")
    assert f"disagree on their base model: one on {space.root / 'base'}, two on {other}" in message


def test_an_unreachable_hub(space: Workspace):
    message = space.refused("model.sources.two.path=nobody/nothing-of-the-kind", without="sources.two.path")
    assert "could not reach 'nobody/nothing-of-the-kind' on the Hugging Face hub" in message
    assert "model.sources.two.path=/models/nothing-of-the-kind" in message


def test_unknown_model_of_the_zoo(space: Workspace):
    message = space.refused("model.sources.two.path=zoo://nonesuch", without="sources.two.path")
    assert "zoo://nonesuch: no such model in the zoo; it holds" in message
