"""Pickles are read as tensors and nothing else, converted file by file, and refused by name where they hold more."""

import argparse
import json
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from evohydra.convert import convert
from evohydra.families.causal_lm import CausalLM
from evohydra.families.sdxl import SDXL
from evohydra.hub.hashes import sha256_of
from evohydra.hub.weights_only import read_pickle, safe_name
from evohydra.merging.checkpoints import CheckpointReader, SourceError
from evohydra.merging.finding import locate
from tests import commands, tiny_models
from tests.hub.commands import surroundings
from tests.hub.language_models import ABEL, MISTRAL
from tests.hub.server import Hub

TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool)
LANGUAGE = CausalLM().wanted(None)


class Runs:
    """What makes a pickle run a command when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/evohydra-was-here",)


def pickled_model(directory: Path) -> Path:
    """A tiny model as transformers once wrote it."""
    tiny_models.save_model(directory, 0)
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    return directory


def test_tensors_of_every_type_and_shape_are_the_same_bits(tmp_path: Path) -> None:
    state = {f"{kind}/{shape}": torch.randn(shape).to(kind) for kind in TYPES for shape in ((), (0, 3), (2, 3), (5,))}
    state["a view"] = torch.arange(12.0).reshape(3, 4).T[1:]
    state["tied"] = state["another name"] = torch.randn(4, 4)
    torch.save(OrderedDict(state), tmp_path / "pytorch_model.bin")
    got = load_file(
        next((tmp_path / "out" / name) for name in convert(str(tmp_path / "pytorch_model.bin"), tmp_path / "out"))
    )
    assert got.keys() == state.keys()
    for name, tensor in state.items():
        assert got[name].dtype == tensor.dtype
        assert torch.equal(got[name], tensor)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"a": torch.ones(1), "b": argparse.Namespace(x=1)}, "it wanted to import argparse.Namespace"),
        ({"a": Runs()}, f"it wanted to import {os.system.__module__}.system"),
        ({"a": torch.ones(1), "epoch": 3}, "got int as 'epoch'"),
        ([torch.ones(1)], "got list"),
        ({}, "got dict"),
        ({3: torch.ones(1)}, "got Tensor as 3"),
        ({"a": torch.eye(3).to_sparse()}, "got Tensor as 'a'"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "type torch.complex64"),
        ({"a": {"b": torch.ones(1)}}, "got dict as 'a'"),
    ],
)
def test_what_is_more_than_tensors_is_refused_by_name_and_not_run(tmp_path: Path, content: object, named: str) -> None:
    mark = Path("/tmp/evohydra-was-here")
    mark.unlink(missing_ok=True)
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(SourceError, match=named.replace("(", r"\(")):
        convert(str(tmp_path / "pytorch_model.bin"), tmp_path / "out")
    assert not mark.exists()
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.randn(100)}, file)
    whole = file.read_bytes()
    plain = pickle.dumps({"a": Runs()})
    for content in (b"", b"no model", whole[: len(whole) // 2], plain, b"\x80\x02.", whole[:-30]):
        file.write_bytes(content)
        with pytest.raises(SourceError, match=r"pytorch_model\.bin: (expected|refused)"):
            read_pickle(file)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(SourceError, match="ordinary file"):
        read_pickle(file)


def test_a_damaged_record_is_refused_and_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    weights = {"a": torch.randn(64, 64), "b": torch.randn(3)}
    torch.save(weights, file)
    content = bytearray(file.read_bytes())
    at = content.index(weights["a"].numpy().tobytes()) + 1000
    content[at] ^= 0x10
    file.write_bytes(content)
    with pytest.raises(SourceError, match=r"that it cannot .*CRC"):
        read_pickle(file)
    checked = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(weights, file)
    finally:
        torch.serialization.set_crc32_options(checked)
    assert torch.equal(read_pickle(file)["a"], weights["a"])


def test_files_from_before_torch_1_6_are_read_too(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(6)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(read_pickle(tmp_path / "old.pt")["a"], torch.arange(6))


def test_the_state_of_a_training_frameworks_checkpoint_is_taken(tmp_path: Path) -> None:
    state = {"model.diffusion_model.x": torch.ones(2, 2), "first_stage_model.y": torch.zeros(1)}
    torch.save({"state_dict": state, "epoch": 3, "optimizer_states": [{"lr": 0.1}]}, tmp_path / "sd.ckpt")
    assert [*convert(str(tmp_path / "sd.ckpt"), tmp_path / "out")] == ["sd.safetensors"]
    assert load_file(tmp_path / "out" / "sd.safetensors").keys() == state.keys()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pytorch_model.bin", "model.safetensors"),
        ("pytorch_model-00001-of-00002.bin", "model-00001-of-00002.safetensors"),
        ("pytorch_model.bin.index.json", "model.safetensors.index.json"),
        ("unet/diffusion_pytorch_model.fp16.bin", "unet/diffusion_pytorch_model.fp16.safetensors"),
        (
            "unet/diffusion_pytorch_model.bin.index.fp16.json",
            "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
        ),
        ("text_encoder/pytorch_model.bin", "text_encoder/model.safetensors"),
        ("v1-5.ckpt", "v1-5.safetensors"),
    ],
)
def test_files_get_the_names_that_the_libraries_look_for(name: str, expected: str) -> None:
    assert safe_name(name) == expected


def test_a_directory_of_ones_own_is_converted_where_the_source_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOHYDRA_CACHE", str(tmp_path / "cache"))
    directory = pickled_model(tmp_path / "mine")
    before = commands.files(directory)
    with pytest.raises(SourceError, match="convert=weights_only"):
        CheckpointReader(locate(str(directory), wanted=LANGUAGE))
    found = locate(str(directory), wanted=LANGUAGE, convert="weights_only")
    assert CheckpointReader(found).shapes
    assert (found / "tokenizer.json").read_bytes() == (directory / "tokenizer.json").read_bytes()
    assert locate(str(directory), wanted=LANGUAGE, convert="weights_only") == found
    assert commands.files(directory) == before
    torch.save({"model.norm.weight": torch.ones(16)}, directory / "pytorch_model.bin")
    assert locate(str(directory), wanted=LANGUAGE, convert="weights_only") != found


def test_components_of_a_pipeline_are_converted_in_their_folders(tmp_path: Path) -> None:
    for name in ("unet/diffusion_pytorch_model.bin", "text_encoder/pytorch_model.bin"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        torch.save({"weight": torch.ones(2)}, tmp_path / "in" / name)
        (tmp_path / "in" / name).with_name("config.json").write_text("{}")
    (tmp_path / "in" / "model_index.json").write_text("{}")
    convert(str(tmp_path / "in"), tmp_path / "out", patterns=SDXL().wanted(None))
    assert sorted(commands.files(tmp_path / "out")) == [
        "conversion.json", "model_index.json", "text_encoder/config.json", "text_encoder/model.safetensors",
        "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
    ]  # fmt: skip


def test_the_command_converts_what_is_on_the_hub(hub: Hub, tmp_path: Path) -> None:
    done = commands.python("-m", "evohydra.convert", ABEL, "out", cwd=tmp_path, **surroundings(hub, tmp_path))
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "conversion.json").read_text())
    lines = dict(reversed(line.split("  ")) for line in done.stdout.splitlines())
    assert lines == {f"out/{name}": hashed for name, hashed in record["to"].items()}
    assert {name: sha256_of(tmp_path / "out" / name) for name in record["to"]} == record["to"]
    assert CheckpointReader(tmp_path / "out").shapes
    again = commands.python("-m", "evohydra.convert", ABEL, "out", cwd=tmp_path, **surroundings(hub, tmp_path))
    assert again.returncode == 1
    assert again.stderr == "convert: out exists; give a directory that does not, or an empty one\n"


def test_the_command_says_what_it_cannot_convert(online: Hub, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no pickled weights"):
        convert("upaya07/Arithmo2-Mistral-7B", tmp_path / "out", patterns=LANGUAGE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"expected pickled weights .* got \[\]"):
        convert(str(tmp_path / "empty"), tmp_path / "out", patterns=LANGUAGE)
    (tmp_path / "model.gguf").write_bytes(b"")
    with pytest.raises(SourceError, match=r"expected a file .bin, .ckpt, .pt, .pth, got .gguf"):
        convert(str(tmp_path / "model.gguf"), tmp_path / "out")
    assert convert(MISTRAL, tmp_path / "both", patterns=LANGUAGE).keys() == {
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    }  # fmt: skip
