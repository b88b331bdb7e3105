"""Weights that are no plain numbers are refused, whatever names them: an average of codes is no average of weights."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from evohydra.families.causal_lm import CausalLM
from evohydra.families.single_files import open_single
from evohydra.families.sources import open_sources
from evohydra.merging.checkpoints import SourceError
from evohydra.recipe import Checkpoint

PROJECTION = "model.layers.0.self_attn.q_proj"
Tensors = dict[str, Tensor]


def int8_alone(tensors: Tensors) -> None:
    tensors[f"{PROJECTION}.weight"] = (tensors[f"{PROJECTION}.weight"] * 100).to(torch.int8)


def int8_with_scale(tensors: Tensors) -> None:
    int8_alone(tensors)
    tensors[f"{PROJECTION}.weight_scale"] = torch.full((16, 1), 0.01)


def bitsandbytes(tensors: Tensors) -> None:
    int8_alone(tensors)
    tensors[f"{PROJECTION}.SCB"] = torch.full((16,), 0.01)


def four_bits(tensors: Tensors) -> None:
    tensors[f"{PROJECTION}.weight"] = torch.zeros(128, 1, dtype=torch.uint8)
    tensors[f"{PROJECTION}.weight.absmax"] = torch.ones(4)
    tensors[f"{PROJECTION}.weight.quant_state.bitsandbytes__nf4"] = torch.zeros(7, dtype=torch.uint8)


def gptq(tensors: Tensors) -> None:
    del tensors[f"{PROJECTION}.weight"]
    tensors[f"{PROJECTION}.qweight"] = torch.zeros(2, 16, dtype=torch.int32)
    tensors[f"{PROJECTION}.scales"] = torch.ones(1, 16)


def float8_alone(tensors: Tensors) -> None:
    tensors[f"{PROJECTION}.weight"] = tensors[f"{PROJECTION}.weight"].to(torch.float8_e4m3fn)


def float8_with_scale(tensors: Tensors) -> None:
    float8_alone(tensors)
    tensors[f"{PROJECTION}.scale_weight"] = torch.tensor(3.0)


def scale_beside_floats(tensors: Tensors) -> None:
    tensors[f"{PROJECTION}.weight_scale_inv"] = torch.ones(1, 1)


def int64_weights(tensors: Tensors) -> None:
    tensors[f"{PROJECTION}.weight"] = (tensors[f"{PROJECTION}.weight"] * 100).long()


KINDS: list[Callable[[Tensors], None]] = [
    int8_alone, int8_with_scale, bitsandbytes, four_bits, gptq, float8_alone, float8_with_scale, scale_beside_floats,
    int64_weights,
]  # fmt: skip


def changed(model: Path, target: Path, change: Callable[[Tensors], None], **config: object) -> Path:
    target.mkdir()
    for file in model.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    tensors = load_file(model / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**settings, **config}))
    return target


@pytest.mark.parametrize("change", KINDS)
def test_quantised_weights_are_refused_with_source_and_tensor(
    change: Callable[[Tensors], None], trio: tuple[Path, ...], tmp_path: Path
) -> None:
    places = [changed(trio[at], tmp_path / name, change) for at, name in ((1, "one"), (2, "two"))]
    nodes = tuple(Checkpoint(path.name, str(path)) for path in places)
    with pytest.raises(SourceError, match=rf"source 'one'.*{PROJECTION}.*quantised"):
        open_sources(nodes, None, CausalLM())


@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_configurations_of_quantised_weights_are_refused(key: str, trio: tuple[Path, ...], tmp_path: Path) -> None:
    one = changed(trio[1], tmp_path / "one", lambda _: None, **{key: {"quant_method": "compressed-tensors"}})
    with pytest.raises(SourceError, match=r"source 'one'.*quantised"):
        open_sources((Checkpoint("one", str(one)),), None, CausalLM())


def test_float8_numbers_without_a_scale_are_read_exactly_in_a_chosen_type(
    trio: tuple[Path, ...], tmp_path: Path
) -> None:
    def whole(tensors: Tensors) -> None:
        tensors |= {name: tensor.to(torch.float8_e4m3fn) for name, tensor in tensors.items()}

    one = changed(trio[1], tmp_path / "one", whole)
    sources = open_sources((Checkpoint("one", str(one), dtype="bfloat16"),), None, CausalLM())
    read = sources.tensors["one"].read(f"{PROJECTION}.weight")
    assert read.dtype == torch.bfloat16
    assert torch.equal(read.float(), load_file(one / "model.safetensors")[f"{PROJECTION}.weight"].float())


def test_a_converted_source_with_scales_is_refused_too(trio: tuple[Path, ...], tmp_path: Path) -> None:
    one = changed(trio[1], tmp_path / "one", float8_with_scale)
    with pytest.raises(SourceError, match="scale_weight"):
        open_sources((Checkpoint("one", str(one), dtype="bfloat16"),), None, CausalLM())


@pytest.mark.parametrize(
    "buffer",
    [
        ("model.layers.0.attn.bias", torch.ones(1, 1, 4, 4, dtype=torch.uint8)),
        ("model.layers.0.counts", torch.tensor([1, 2, 3])),
        ("model.layers.0.seen", torch.tensor(7, dtype=torch.int32)),
        ("model.embeddings.position_ids", torch.arange(4, dtype=torch.int32)[None]),
    ],
)
def test_masks_and_counts_are_no_weights(buffer: tuple[str, Tensor], trio: tuple[Path, ...], tmp_path: Path) -> None:
    name, tensor = buffer
    one = changed(trio[1], tmp_path / "one", lambda tensors: tensors.update({name: tensor}))
    two = changed(trio[2], tmp_path / "two", lambda tensors: tensors.update({name: tensor}))
    nodes = tuple(Checkpoint(path.name, str(path)) for path in (one, two))
    assert name in open_sources(nodes, None, CausalLM()).copied


def test_a_single_file_with_scales_is_refused_though_no_conversion_reads_them(tmp_path: Path) -> None:
    name = "model.diffusion_model.double_blocks.0.img_attn.proj"
    weight = torch.ones(4, 4).to(torch.float8_e4m3fn)
    save_file({f"{name}.weight": weight, f"{name}.scale_weight": torch.tensor(2.0)}, tmp_path / "flux.safetensors")
    with pytest.raises(SourceError, match=r"scale_weight' \(float32\) is part of a quantised weight"):
        open_single(tmp_path / "flux.safetensors", tmp_path, "transformer")
