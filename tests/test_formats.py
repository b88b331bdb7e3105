"""The formats of winners: plain checkpoints, and the released form of a path with its layers stored once."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from evohydra.families.causal_lm import CausalLM
from evohydra.families.loading import compared
from evohydra.families.sources import OpenSources, open_sources
from evohydra.merging.checkpoints import SourceError
from evohydra.merging.engine import Engine
from evohydra.recipe import Hop, Stack
from evohydra.winner.checkpoint_files import planned
from evohydra.winner.formats import shared
from evohydra.winner.formats.plain import Plain
from evohydra.winner.formats.shared import Shared
from tests.commands import carried_out, python, workspace
from tests.contracts.test_hops import ONE, TWO, save

CPU = torch.device("cpu")
FAMILY = CausalLM()
# 9 hops over 6 of the 7 layers; some come twice, one with a negative scale.
HOPS = (
    Hop(0, 0), Hop(0, 1, 1.3), Hop(1, 0, 0.7), Hop(1, 1), Hop(0, 1, -0.4), Hop(1, 3, 1.1), Hop(1, 0, 0.9),
    Hop(0, 1, 0.0), Hop(0, 2, 1.05),
)  # fmt: skip
STORED = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 3)]


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("mistrals")
    return {
        name: save(root / name, "mistral", depth, seed) for seed, (name, depth) in enumerate([("one", 3), ("two", 4)])
    }


@pytest.fixture(scope="module")
def opened(directories: dict[str, Path]) -> OpenSources:
    models = tuple(replace(node, path=str(directories[node.name])) for node in (ONE, TWO))
    return open_sources(models, None, FAMILY, layers_only="one")


@pytest.fixture(scope="module")
def path(opened: OpenSources, directories: dict[str, Path]) -> Stack:
    return Stack(opened.models, HOPS, FAMILY.layout(directories["one"]))


@pytest.fixture(scope="module")
def live(opened: OpenSources, path: Stack, directories: dict[str, Path]):
    live = FAMILY.live_model(directories["one"], CPU, torch.float32, opened.overlay, directories)
    live.become(path, Engine(opened.tensors, device=CPU))
    return live


def written(form: Plain | Shared, node: Stack, opened: OpenSources, directory: Path, shard_bytes: int = 10**9) -> Path:
    directory.mkdir()
    engine = Engine(opened.tensors, device=CPU)
    form.check(node, FAMILY, opened)
    form.write(node, engine, FAMILY, opened, directory, torch.float32, shard_bytes)
    return directory


@pytest.fixture(scope="module")
def released(path: Stack, opened: OpenSources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(Shared(), path, opened, tmp_path_factory.mktemp("released") / "out")


def test_a_plain_checkpoint_is_one_of_the_sources_architecture(path, opened, live, tmp_path: Path) -> None:
    directory = written(Plain(), path, opened, tmp_path / "plain")
    model = transformers.AutoModelForCausalLM.from_pretrained(directory)
    assert isinstance(model, transformers.MistralForCausalLM)
    assert len(model.model.layers) == len(HOPS)
    assert Plain().verify(directory, FAMILY, live).outputs < 1e-5


def test_the_released_form_key_by_key(released: Path, path: Stack, directories: dict[str, Path]) -> None:
    """The layout of SakanaAI/EvoLLM-JP-v1-10B: its config.json and its tensors."""
    config = json.loads((released / "config.json").read_text())
    source = json.loads((directories["one"] / "config.json").read_text())
    assert config["model_type"] == "evomistral"
    assert config["architectures"] == ["EvoMistralForCausalLM"]
    assert (config["num_hidden_layers"], config["num_hops"]) == (6, 9)
    for key in source.keys() - {
        "model_type",
        "architectures",
        "num_hidden_layers",
        "layer_types",
        "transformers_version",
    }:
        assert config[key] == source[key], key
    tensors = load_file(released / "model.safetensors")
    assert tensors["model.input_layers"].tolist() == [STORED.index((hop.source, hop.layer)) for hop in HOPS]
    assert tensors["model.input_layers"].dtype == torch.int64
    torch.testing.assert_close(tensors["model.input_scales"], torch.tensor([hop.scale for hop in HOPS]))
    sources = [load_file(directories[name] / "model.safetensors") for name in ("one", "two")]
    expected = {name: tensor for name, tensor in sources[0].items() if ".layers." not in name}
    for place, (source_number, layer) in enumerate(STORED):
        prefix = f"model.layers.{layer}."
        for name, tensor in sources[source_number].items():
            if name.startswith(prefix):
                expected[f"model.layers.{place}.{name.removeprefix(prefix)}"] = tensor
    assert tensors.keys() - {"model.input_layers", "model.input_scales"} == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensors[name], tensor), name


def test_the_released_form_is_read_back(released: Path, live) -> None:
    assert Shared().verify(released, FAMILY, live).same_bits
    loaded = shared.load(released, CPU, torch.float32)
    tokens = torch.arange(2, 12)[None]
    generated = loaded.module.generate(tokens, max_new_tokens=6, do_sample=False)
    assert torch.equal(generated, live.module.generate(tokens, max_new_tokens=6, do_sample=False))
    assert len({parameter.data_ptr() for parameter in loaded.module.parameters()}) == len(loaded.parameters)


def test_semantics_of_the_released_code(released: Path) -> None:
    """The forward pass of the released modeling file, by hand: only the MLP output is scaled, the embeddings by s_0."""
    tensors = load_file(released / "model.safetensors")
    loaded = shared.load(released, CPU, torch.float32)
    stored = transformers.MistralForCausalLM(
        transformers.MistralConfig(**{**json.loads((released / "config.json").read_text()), "model_type": "mistral"})
    ).eval()
    stored.load_state_dict({name: t for name, t in tensors.items() if not name.startswith("model.input_")})
    model = stored.model
    tokens = torch.arange(2, 12)[None]
    with torch.inference_mode():
        scales, layers = tensors["model.input_scales"], tensors["model.input_layers"]
        hidden = model.embed_tokens(tokens) * scales[0]
        residual = torch.zeros_like(hidden)
        angles = model.rotary_emb(hidden, torch.arange(10)[None])
        # Windows of 4, as the configuration says.
        distance = torch.arange(10)[:, None] - torch.arange(10)[None]
        mask = torch.where((distance >= 0) & (distance < model.config.sliding_window), 0.0, -torch.inf)[None, None]
        for number, layer in enumerate(model.layers[int(place)] for place in layers):
            residual = residual + (hidden if number == 0 else scales[number] * hidden)
            attended, _ = layer.self_attn(
                layer.input_layernorm(residual), position_embeddings=angles, attention_mask=mask
            )
            residual = residual + attended
            hidden = layer.mlp(layer.post_attention_layernorm(residual))
        expected = stored.lm_head(model.norm(residual + hidden))
        torch.testing.assert_close(loaded.module(tokens).logits, expected, rtol=1e-4, atol=1e-4)


def test_in_shards(path: Stack, opened: OpenSources, live, tmp_path: Path) -> None:
    directory = written(Shared(), path, opened, tmp_path / "shards", shard_bytes=20_000)
    assert len(list(directory.glob("*.safetensors"))) > 1
    assert Shared().verify(directory, FAMILY, live).same_bits


def test_the_released_form_becomes_a_plain_mistral(released: Path, live, tmp_path: Path) -> None:
    done = python("-m", "evohydra.winner.formats.shared", released, tmp_path / "plain", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert (config["model_type"], config["num_hidden_layers"]) == ("mistral", 9)
    assert not {"num_hops", "auto_map"} & config.keys()
    assert Plain().verify(tmp_path / "plain", FAMILY, live).outputs < 1e-5
    again = python("-m", "evohydra.winner.formats.shared", released, tmp_path / "plain", cwd=tmp_path)
    assert Plain().verify(tmp_path / "plain", FAMILY, live).outputs < 1e-5
    again = python("-m", "evohydra.winner.formats.shared", released, tmp_path / "plain", cwd=tmp_path)
    assert "exists" in again.stderr
    assert again.returncode == 1


def changed(directory: Path, target: Path, config: dict[str, object], tensors: dict[str, torch.Tensor]) -> Path:
    target.mkdir()
    for file in directory.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    (target / "config.json").write_text(json.dumps(json.loads((directory / "config.json").read_text()) | config))
    save_file(
        load_file(directory / "model.safetensors") | tensors, target / "model.safetensors", metadata={"format": "pt"}
    )
    return target


@pytest.mark.parametrize(
    ("config", "tensors", "expected"),
    [
        ({"model_type": "mistral"}, {}, "expected a checkpoint of model_type 'evomistral', got 'mistral'"),
        ({"num_hops": 5}, {}, r"expected model.input_layers of shape \(5,\), got \(9,\)"),
        ({}, {"model.input_scales": torch.ones(2)}, r"expected model.input_scales of shape \(9,\), got \(2,\)"),
        ({}, {"model.input_layers": torch.tensor([0, 1, 2, 3, 4, 5, 6, -1, 0])}, r"names layers \[-1, 6\], of 6"),
    ],
)
def test_damaged(config, tensors, expected: str, released: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=expected):
        shared.load(changed(released, tmp_path / "damaged", config, tensors), CPU, torch.float32)


def test_only_paths_of_mistrals_have_the_released_form(path: Stack, opened: OpenSources, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected paths .* with scaling=branch .* got paths with scaling=stream"):
        Shared().check(replace(path, scaling="stream"), FAMILY, opened)
    with pytest.raises(ValueError, match=r"expected paths .* of Mistral models, got merges of 'llama' models"):
        carried_out([*workspace(tmp_path), "format=shared"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_in_the_released_form(directories: dict[str, Path], tmp_path: Path) -> None:
    arguments = [
        "merge=dfs_slot", "format=shared", "budget=6", "top=1", "baselines=null", "merge.dataflow.repeats=1",
        f"model.sources.one.path={directories['one']}", f"model.sources.two.path={directories['two']}",
    ]  # fmt: skip
    left_out = ("path=", "base=")
    given = [
        each
        for each in workspace(tmp_path)
        if not each.startswith("model.sources") or not any(p in each for p in left_out)
    ]
    carried_out([*given, *arguments], tmp_path / "run")
    recipe = json.loads((tmp_path / "run" / "winner" / "recipe.json").read_text())
    assert recipe["written_as"] == "shared"
    assert json.loads((tmp_path / "run" / "winner" / "config.json").read_text())["model_type"] == "evomistral"
    again = python("-m", "evohydra.rebuild", tmp_path / "run" / "recipe.json", tmp_path / "again", cwd=tmp_path)
    assert "identical, bit for bit" in again.stdout, again.stderr
    one, two = (shared.load(place, CPU, torch.float32) for place in (tmp_path / "run" / "winner", tmp_path / "again"))
    assert compared(one, two).same_bits


@given(sizes=st.lists(st.integers(1, 30), max_size=12))
def test_files_are_filled_in_the_order_of_the_tensors(sizes: list[int]) -> None:
    """As recipes promise: a file ends where the next tensor does not fit, also before one larger than a file."""
    groups: list[list[str]] = [[]]
    filled = 0
    for number, size in enumerate(sizes):
        if groups[-1] and filled + size > 10:
            groups.append([])
            filled = 0
        groups[-1].append(str(number))
        filled += size
    files = planned({str(number): size for number, size in enumerate(sizes)}, "model", 10)
    assert list(files.values()) == groups
    count = len(groups)
    several = [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    assert list(files) == (several if count > 1 else ["model.safetensors"])
