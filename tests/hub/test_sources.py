"""Sources as they are published: which files are fetched, what is done about pickles, and what goes wrong."""

import errno
import io
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants, file_download
from safetensors.torch import load_file

from evohydra.families.causal_lm import CausalLM
from evohydra.families.declared import Source, checkpoints
from evohydra.families.sdxl import SDXL
from evohydra.families.sources import published_sources
from evohydra.hub.hashes import sha256_of
from evohydra.hub.progress import Bar
from evohydra.merging.checkpoints import CheckpointReader, SourceError
from evohydra.merging.finding import locate
from evohydra.recipe import Checkpoint
from tests.hub.conftest import point_at
from tests.hub.diffusion_models import DPO, JAPANESE, LIGHTNING, LORA
from tests.hub.diffusion_models import SDXL as SDXL_BASE
from tests.hub.language_models import (
    ABEL,
    ARITHMO,
    ELYZA,
    LLAMA,
    METAMATH,
    MISTRAL,
    SHISA,
    WIZARDMATH,
    WIZARDMATH_SAFE,
)  # fmt: skip
from tests.hub.repositories import PullRequest, Repository
from tests.hub.server import Fault, Hub

PATTERNS = CausalLM().wanted(None)
NOWHERE = "http://127.0.0.1:9"  # a port where nobody listens


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.WARNING, "evohydra"):
        yield caplog


def tensors(directory: Path) -> dict[str, torch.Tensor]:
    reader = CheckpointReader(directory)
    return {name: reader.read(name) for name in reader.shapes}


def main(hub: Hub, name: str) -> str:
    return hub.repositories["models", name].refs["main"]


def without(hub: Hub, name: str, kept: str) -> None:
    """Leave on main only files whose name ends so, beside those that hold no weights."""
    repository = hub.repositories["models", name]
    files = {n: c.source for n, c in repository.commits[repository.refs["main"]].items()}
    weights = (".bin", ".safetensors")
    repository.commit({n: c for n, c in files.items() if n.endswith(kept) or not n.endswith(weights)})


def test_only_what_is_needed_is_downloaded(online: Hub) -> None:
    repository = online.repositories["models", MISTRAL]
    files = {n: c.source for n, c in repository.commits[repository.refs["main"]].items()}
    unneeded = ("consolidated.safetensors", "original/x.safetensors", "original/params.json", "training_args.bin")
    doubles = dict.fromkeys((*unneeded, "onnx/model.onnx", "model.fp16.bin"), b"not needed")
    repository.commit(files | doubles)
    found = locate(MISTRAL, wanted=PATTERNS)
    got = sorted(path.relative_to(found).as_posix() for path in found.rglob("*") if path.is_file())
    assert got == [
        "config.json",
        "generation_config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert sorted(online.files()) == got


def test_a_pinned_commit_of_a_pull_request_gives_the_bots_safetensors(online: Hub) -> None:
    found = locate(WIZARDMATH, WIZARDMATH_SAFE, wanted=PATTERNS)
    assert found.name == WIZARDMATH_SAFE
    assert not list(found.glob("*.bin*"))
    assert (
        CheckpointReader(found).shapes["lm_head.weight"][0]
        == 1 + CheckpointReader(locate(SHISA, wanted=PATTERNS)).shapes["lm_head.weight"][0]
    )


@pytest.mark.parametrize(("name", "request_"), [(WIZARDMATH, 4), (ELYZA, 2), (METAMATH, 1)])
def test_where_main_has_pickles_only_the_bots_pull_request_is_taken(
    online: Hub, said: pytest.LogCaptureFixture, name: str, request_: int
) -> None:
    found = locate(name, wanted=PATTERNS)
    commit = online.repositories["models", name].refs[f"refs/pr/{request_}"]
    assert found.name == commit
    assert f"(refs/pr/{request_}, commit {commit})" in said.text
    assert not [path for path in online.files() if path.endswith(".bin")]


def test_only_the_bots_conversion_of_the_same_pickles_counts(online: Hub) -> None:
    repository = online.repositories["models", ABEL]
    safe = {"model.safetensors": b"whatever"}
    repository.propose(safe, PullRequest(1, author="somebody"))
    repository.propose(safe, PullRequest(2, title="Better weights"))
    repository.propose({**safe, "pytorch_model-00001-of-00002.bin": b"others"}, PullRequest(3))
    repository.propose(safe, PullRequest(4, status="closed"))
    with pytest.raises(SourceError, match=r"no conversion of the hub's own .*convert=weights_only"):
        locate(ABEL, wanted=PATTERNS)


@pytest.mark.parametrize("name", [WIZARDMATH, ABEL])
def test_what_was_found_or_converted_is_there_without_a_network(
    online: Hub, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    found = locate(name, wanted=PATTERNS, convert="weights_only")
    for change in (
        lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True),
        lambda: point_at(NOWHERE, monkeypatch),
    ):
        change()
        assert locate(name, wanted=PATTERNS, convert="weights_only") == found
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def test_pickles_are_converted_once_and_hold_the_same(online: Hub, said: pytest.LogCaptureFixture) -> None:
    found = locate(ABEL, wanted=PATTERNS, convert="weights_only")
    index = json.loads((found / "model.safetensors.index.json").read_text())
    assert sorted(set(index["weight_map"].values())) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    files = online.repositories["models", ABEL].commits[main(online, ABEL)]
    record = json.loads((found / "conversion.json").read_text())
    assert record["from"] == {n: c.sha256 for n, c in files.items() if n.endswith(".bin")}
    expected: dict[str, torch.Tensor] = {}
    for name in record["from"]:
        source = files[name].source
        assert isinstance(source, Path)
        expected |= torch.load(source, weights_only=True)
    got = tensors(found)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) and got[name].dtype == torch.bfloat16 for name in got)
    assert "converting 2 pickle files" in said.text
    said.clear()
    asked = len(online.files())
    assert locate(ABEL, wanted=PATTERNS, convert="weights_only") == found
    assert "converting" not in said.text
    assert len(online.files()) == asked


def test_files_that_are_pinned_are_the_pinned_ones_or_refused(online: Hub) -> None:
    files = online.repositories["models", ABEL].commits[main(online, ABEL)]
    pins = {n: c.sha256 for n, c in files.items() if n.endswith(".bin")}
    wrong = {**pins, "pytorch_model-00002-of-00002.bin": "0" * 64}
    with pytest.raises(SourceError, match=f"is not the file that was pinned: expected the SHA-256 {'0' * 64}"):
        locate(ABEL, wanted=PATTERNS, convert="weights_only", sha256=wrong)
    assert not [path for path in online.files() if path.endswith(".bin")]
    assert locate(ABEL, wanted=PATTERNS, convert="weights_only", sha256=pins)


def test_pins_hold_without_a_network_too(online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    found = locate(SHISA, wanted=PATTERNS)
    pins = {"model-00001-of-00002.safetensors": sha256_of(found / "model-00001-of-00002.safetensors")}
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate(SHISA, wanted=PATTERNS, sha256=pins) == found
    with pytest.raises(SourceError, match="is not the file that was pinned"):
        locate(SHISA, wanted=PATTERNS, sha256=dict.fromkeys(pins, "0" * 64))


def test_a_gated_repository_says_where_to_accept_and_how_to_log_in(
    online: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(SourceError) as refused:
        locate(LLAMA, wanted=PATTERNS)
    message = str(refused.value)
    assert f"https://huggingface.co/{LLAMA}" in message
    assert "hf auth login" in message
    assert "HF_TOKEN" in message


def test_of_several_names_of_a_base_the_first_readable_one_of_the_same_files_is_taken(
    online: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    gated = online.repositories["models", MISTRAL]
    files = {n: c.source for n, c in gated.commits[gated.refs["main"]].items()}
    mirror = online.add(Repository("friends/Mistral-7B-v0.1"))
    mirror.commit(files)
    other = online.add(Repository("strangers/Mistral-7B-v0.1"))
    other.commit({**files, "model-00001-of-00002.safetensors": b"other weights"})

    def base(*names: str) -> str:
        _, found = checkpoints({"one": Source("zoo://tiny_ja", "causal_lm", base=names)})
        assert found is not None
        return found.path

    assert base(MISTRAL, mirror.name) == MISTRAL
    monkeypatch.delenv("HF_TOKEN")
    assert base(MISTRAL, other.name, mirror.name) == mirror.name
    with pytest.raises(SourceError, match=f"(?s)is gated.*'{other.name}' does not hold the files of '{MISTRAL}'"):
        base(MISTRAL, other.name)


def test_a_wrong_name_gets_near_ones(online: Hub) -> None:
    for wrong in ("WizardLM/WizardMath-7B-V1.1", "WizardLMTeam/WizardMath-7B-V1.0", "augmxnt/shisa-gama-7b"):
        with pytest.raises(SourceError, match=r"there is no .* Near names on the hub: ") as refused:
            locate(wrong, wanted=PATTERNS)
        assert (SHISA if "shisa" in wrong else WIZARDMATH) in str(refused.value)
    with pytest.raises(SourceError, match="has no revision 'v9'"):
        locate(SHISA, "v9", wanted=PATTERNS)


def test_without_a_network_the_sentence_says_so(online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(NOWHERE, monkeypatch)
    with pytest.raises(SourceError, match=r"could not reach 'augmxnt/shisa.*not in the local cache"):
        locate(SHISA, wanted=PATTERNS)


def test_what_is_said_of_a_base_names_the_options_of_a_base(online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = (Checkpoint("one", SHISA), Checkpoint("two", ARITHMO), Checkpoint("base", MISTRAL))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    copies = "model.sources.one.base={0} model.sources.two.base={0}"
    with pytest.raises(SourceError, match=r"^source 'base': .* is gated") as refused:
        published_sources(nodes, CausalLM())
    assert copies.format("/DIRECTORY") in str(refused.value)
    point_at(NOWHERE, monkeypatch)
    with pytest.raises(SourceError, match=r"^source 'base': could not reach 'mistralai/") as refused:
        published_sources(nodes[-1:] + nodes[:2], CausalLM())
    assert str(refused.value).endswith(copies.format("/models/Mistral-7B-v0.1"))
    assert "path=" not in str(refused.value)
    pinned = {"base": {"config.json": "0" * 63}}
    with pytest.raises(SourceError, match=r"model\.sources\.<name>\.base_sha256"):
        published_sources(nodes, CausalLM(), pinned)


def test_a_download_that_is_cut_goes_on(online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    online.faults["model-00001-of-00002.safetensors"] = Fault(cut=10_000)
    found = locate(SHISA, wanted=PATTERNS)
    assert "bytes=10000-" in [each.range for each in online.asked]
    assert tensors(found)


def test_a_slow_download_comes_whole(online: Hub) -> None:
    online.faults["model-00001-of-00002.safetensors"] = Fault(delay=0.2)
    assert tensors(locate(SHISA, wanted=PATTERNS))


def test_files_that_are_there_are_kept_when_others_fail(online: Hub) -> None:
    online.faults["model-00002-of-00002.safetensors"] = Fault(status=404)
    with pytest.raises(SourceError, match=r"could not download .*The same command goes on"):
        locate(SHISA, wanted=PATTERNS)
    online.faults.clear()
    online.asked.clear()
    locate(SHISA, wanted=PATTERNS)
    assert online.files() == ["model-00002-of-00002.safetensors"]


def test_the_space_is_checked_before_the_first_byte(online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(
        len(c.data)
        for n, c in online.repositories["models", ABEL].commits[main(online, ABEL)].items()
        if n.endswith(".bin")
    )
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=int(1.5 * size)))
    with pytest.raises(
        SourceError, match=r"needs .* kB on the disk of .* which has .* kB free. Nothing was downloaded"
    ):
        locate(ABEL, wanted=PATTERNS, convert="weights_only")  # there is room for the pickles, not for both
    assert not [path for path in online.files() if path.endswith(".bin")]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=3 * size))
    assert locate(ABEL, wanted=PATTERNS, convert="weights_only")


def test_a_disk_that_fills_up_half_way_is_said_and_leaves_nothing(
    online: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = file_download.http_get

    def half(url: str, temp_file: Any, **settings: Any) -> None:
        if "/lfs/" not in url:
            fetch(url, temp_file, **settings)
            return
        temp_file.write(b"0" * (settings["expected_size"] // 2))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(file_download, "http_get", half)
    with pytest.raises(SourceError, match=r"could not download .*No space left on device.*The same command goes on"):
        locate(SHISA, wanted=PATTERNS)
    monkeypatch.undo()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".incomplete", ".safetensors")]


def test_a_disk_that_fills_up_while_converting_leaves_nothing(
    online: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*settings: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("evohydra.hub.weights_only.write_tensors", full)
    with pytest.raises(SourceError, match=r"could not write the conversion .*No space left on device"):
        locate(ABEL, wanted=PATTERNS, convert="weights_only")
    assert not [path for path in (tmp_path / "evohydra" / "converted").rglob("*") if path.is_file()]


def test_a_branch_that_has_changed_is_said(online: Hub, said: pytest.LogCaptureFixture) -> None:
    first = locate(ARITHMO, wanted=PATTERNS)
    repository = online.repositories["models", ARITHMO]
    files = {n: c.source for n, c in repository.commits[first.name].items()}
    repository.commit({**files, "README.md": b"# better words\n"})
    said.clear()
    locate(ARITHMO, wanted=PATTERNS)
    assert "has changed" not in said.text
    config = json.loads((first / "config.json").read_text())
    second = repository.commit({**files, "config.json": json.dumps({**config, "rope_theta": 1.0}).encode()})
    assert locate(ARITHMO, wanted=PATTERNS).name == second
    assert f"{ARITHMO} has changed on the hub" in said.text
    assert f"is at {second} now" in said.text
    assert "(config.json)" in said.text
    assert locate(ARITHMO, first.name, wanted=PATTERNS) == first


def test_pickled_components_of_a_pipeline_are_converted(online: Hub) -> None:
    repository = online.add(Repository("studio/old-sdxl"))
    state = {"conv_in.weight": torch.ones(2, 2)}
    files: dict[str, bytes | Path] = {
        "model_index.json": json.dumps({"unet": ["diffusers", "X"], "vae": [None, None]}).encode()
    }
    for name in ("unet/diffusion_pytorch_model.bin", "vae_1_0/diffusion_pytorch_model.bin"):
        buffer = io.BytesIO()
        torch.save(state, buffer)
        files |= {name: buffer.getvalue(), name.rpartition("/")[0] + "/config.json": b"{}"}
    repository.commit(files)
    wanted = SDXL().wanted(None)
    with pytest.raises(SourceError, match=r"only pickle files \(unet/diffusion_pytorch_model.bin\)"):
        locate(repository.name, wanted=wanted)
    found = locate(repository.name, wanted=wanted, convert="weights_only")
    assert torch.equal(
        load_file(found / "unet" / "diffusion_pytorch_model.safetensors")["conv_in.weight"], torch.ones(2, 2)
    )
    assert [path for path in online.files() if path.endswith(".bin")] == ["unet/diffusion_pytorch_model.bin"]


def test_a_single_pickled_file_of_a_repository_is_converted(online: Hub) -> None:
    buffer = io.BytesIO()
    torch.save({"state_dict": {"model.diffusion_model.x": torch.ones(3)}, "epoch": 1}, buffer)
    online.add(Repository("studio/single")).commit({"old.ckpt": buffer.getvalue(), "other.ckpt": b"not wanted"})
    with pytest.raises(SourceError, match=r"old\.ckpt: expected safetensors, got a pickle.*convert=weights_only"):
        locate("studio/single/old.ckpt")
    found = locate("studio/single/old.ckpt", convert="weights_only")
    assert load_file(found).keys() == {"model.diffusion_model.x"}
    assert online.files() == ["old.ckpt"]
    with pytest.raises(SourceError, match=r"has none of the files \['new\.safetensors'\]"):
        locate("studio/single/new.safetensors")


def test_only_the_components_that_a_pipeline_names_are_downloaded(online: Hub) -> None:
    found = locate(SDXL_BASE, wanted=SDXL().wanted("fp16"))
    weights = {path.relative_to(found).as_posix() for path in found.rglob("*.safetensors")}
    assert weights == {
        "text_encoder/model.fp16.safetensors", "text_encoder_2/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors", "vae/diffusion_pytorch_model.fp16.safetensors",
    }  # fmt: skip


def test_workers_read_what_the_driver_has_read_though_the_branch_has_moved(online: Hub) -> None:
    nodes = (Checkpoint("one", ARITHMO),)
    paths, _, _ = published_sources(nodes, CausalLM())
    repository = online.repositories["models", ARITHMO]
    repository.commit(
        {n: c.source for n, c in repository.commits[main(online, ARITHMO)].items()} | {"config.json": b"{}"}
    )
    online.asked.clear()
    again, _, _ = published_sources(nodes, CausalLM(), known=paths)
    assert again == paths
    assert not online.asked


def test_a_pipeline_of_which_one_component_is_pickled_keeps_the_others(online: Hub) -> None:
    repository = online.repositories["models", SDXL_BASE]
    files = {n: c.source for n, c in repository.commits[main(online, SDXL_BASE)].items()}
    safe = files.pop("vae/diffusion_pytorch_model.safetensors")
    assert isinstance(safe, Path)
    buffer = io.BytesIO()
    torch.save(load_file(safe), buffer)
    mixed = online.add(Repository("studio/mixed"))
    mixed.commit({**files, "vae/diffusion_pytorch_model.bin": buffer.getvalue()})
    whole, wanted = locate(SDXL_BASE, wanted=SDXL().wanted(None)), SDXL().wanted(None)
    found = locate(mixed.name, wanted=wanted, convert="weights_only")
    one, other = SDXL().open(whole, whole), SDXL().open(found, found)
    assert one.shapes == other.shapes
    assert all(torch.equal(one.read(name), other.read(name)) for name in one.shapes)
    assert locate(mixed.name, wanted=wanted, convert="weights_only") == found
    half = locate(mixed.name, wanted=SDXL().wanted("fp16"), convert="weights_only")
    assert half != found  # of that type there are safetensors


def test_a_conversion_made_earlier_is_not_taken_for_other_pins(online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    locate(ABEL, wanted=PATTERNS, convert="weights_only")
    for offline in (False, True):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        with pytest.raises(SourceError, match="is not the file that was pinned"):
            locate(ABEL, wanted=PATTERNS, convert="weights_only", sha256={"pytorch_model-00001-of-00002.bin": "0" * 64})


@pytest.mark.parametrize("path", [DPO, f"{LIGHTNING}/{LORA}", SDXL_BASE, JAPANESE])
def test_pipelines_of_any_layout_are_there_without_a_network(
    online: Hub, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    wanted = SDXL().wanted("fp16" if path == SDXL_BASE else None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match="not in the local cache"):
        locate(path, wanted=wanted)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    found = locate(path, wanted=wanted)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate(path, wanted=wanted) == found
    with pytest.raises(SourceError, match=r"not in the local cache|has none of the files"):
        locate(path.replace(LORA, "another.safetensors"), "v9" if LORA not in path else None, wanted=wanted)


def test_a_bar_is_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    Bar(total=2).update(1)
    assert not screen.getvalue()
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    with Bar(total=2_000_000, unit="B", unit_scale=True, ncols=80, name="of huggingface_hub") as bar:
        bar.update(1_000_000)
    assert "/2.00M" in screen.getvalue()
