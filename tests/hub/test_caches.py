"""What stands in caches is what the hub lists or what was made: damaged, changed, removed or foreign files are seen."""

import io
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load, save, save_file

from evohydra.convert import convert
from evohydra.families.causal_lm import CausalLM
from evohydra.families.sdxl import SDXL
from evohydra.hub.converting import conversion_room
from evohydra.hub.hashes import sha256_of
from evohydra.hub.weights_only import read_pickle
from evohydra.merging.checkpoints import SourceError
from evohydra.merging.finding import locate
from tests.hub.diffusion_models import SDXL as SDXL_BASE
from tests.hub.language_models import ABEL, METAMATH, SHISA
from tests.hub.repositories import PullRequest, Repository
from tests.hub.server import Fault, Hub

PATTERNS = CausalLM().wanted(None)
CHANGES = {
    "deleted": lambda file: file.unlink(),
    "edited": lambda file: file.write_text(file.read_text().replace("{", '{"rope_theta": 77, ', 1)),
}


def find(name: str, convert: str | None = None, **pins: str) -> Path:
    return locate(name, wanted=PATTERNS, convert=convert, sha256=pins)


def repository(hub: Hub, name: str) -> Repository:
    return hub.repositories["models", name]


def content(hub: Hub, name: str, ref: str = "main") -> dict[str, bytes | Path]:
    found = repository(hub, name)
    return {n: c.source for n, c in found.commits[found.refs[ref]].items()}


def test_a_record_that_is_shorter_than_its_tensor_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.randn(16), "b": torch.randn(7)}, tmp_path / "whole.bin")
    assert read_pickle(tmp_path / "whole.bin")["a"].shape == (16,)
    with zipfile.ZipFile(tmp_path / "whole.bin") as whole, zipfile.ZipFile(tmp_path / "short.bin", "w") as short:
        for entry in whole.infolist():
            kept = whole.read(entry)
            short.writestr(entry.filename, kept[:32] if entry.file_size == 64 else kept)
    with pytest.raises(
        SourceError, match=r"short\.bin: the file is damaged: its tensors need more records of 64 bytes"
    ):
        read_pickle(tmp_path / "short.bin")


def test_files_that_are_often_called_like_pickles_are_named(tmp_path: Path) -> None:
    file = tmp_path / "pytorch_model.bin"
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 14\n")
    with pytest.raises(
        SourceError, match="got a pointer of Git LFS to them, 127 bytes; fetch the weights with git lfs"
    ):
        read_pickle(file)
    save_file({"a": torch.ones(3)}, file)
    with pytest.raises(SourceError, match=r"expected a pickle, got safetensors; call it model\.safetensors"):
        read_pickle(file)
    torch.save({"a": torch.ones(3)}, file, pickle_protocol=4)
    with pytest.raises(SourceError, match="another protocol of pickle than 2"):
        read_pickle(file)


def test_a_pin_of_the_bots_file_is_not_compared_with_what_was_converted_here(
    online: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    online.faults["discussions"] = Fault(status=403)
    mine = find(METAMATH, "weights_only")
    assert (mine / "conversion.json").is_file()
    online.faults.clear()
    name = "model-00001-of-00002.safetensors"
    bots = repository(online, METAMATH).commits[repository(online, METAMATH).refs["refs/pr/1"]][name].sha256
    assert bots != sha256_of(mine / name)
    taken = find(METAMATH, "weights_only", **{name: bots})
    assert sha256_of(taken / name) == bots
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find(METAMATH, "weights_only", **{name: bots}) == taken


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors.index.json"])
def test_a_conversion_whose_settings_were_changed_is_made_again(online: Hub, name: str, how: str) -> None:
    made = find(ABEL, "weights_only")
    before = (made / name).read_bytes()
    CHANGES[how](made / name)
    assert find(ABEL, "weights_only") == made
    assert (made / name).read_bytes() == before


@pytest.mark.parametrize("how", CHANGES)
def test_the_branchs_settings_beside_the_bots_weights_are_made_again(online: Hub, how: str) -> None:
    repository(online, METAMATH).commit({**content(online, METAMATH), "generation_config.json": b'{"eos_token_id": 2}'})
    made = find(METAMATH)
    CHANGES[how](made / "config.json")
    assert find(METAMATH) == made
    assert 'rope_theta": 77' not in (made / "config.json").read_text()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_small_files_of_the_cache_are_compared_with_what_the_hub_lists(
    online: Hub, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    file = (find(SHISA) / name).resolve()
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    for offline in (False, True):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        with pytest.raises(SourceError, match=f"{name} in the local cache is damaged: the hub says its git hash is"):
            find(SHISA)
    file.write_bytes(whole)
    assert find(SHISA)


@pytest.mark.parametrize("known", [False, True])
def test_a_setting_that_the_branch_has_removed_is_not_read_whatever_the_cache_holds(online: Hub, known: bool) -> None:
    request = repository(online, METAMATH).refs["refs/pr/1"]
    files = content(online, METAMATH)
    assert "added_tokens.json" in files
    if known:
        locate(METAMATH, request, wanted=PATTERNS)
    repository(online, METAMATH).commit({n: c for n, c in files.items() if n != "added_tokens.json"})
    found = find(METAMATH)
    assert not (found / "added_tokens.json").exists()
    assert found.name != request


def test_variants_beside_weights_without_one_are_not_downloaded(online: Hub) -> None:
    name = "studio/two-precisions"
    plain = {n: c for n, c in content(online, SHISA).items() if ".safetensors" not in n}
    weights = save({"a": torch.ones(2)})
    online.add(Repository(name)).commit({**plain, "model.safetensors": weights, "model.fp16.safetensors": weights})
    assert [path.name for path in find(name).glob("*.safetensors")] == ["model.safetensors"]
    online.add(Repository(f"{name}-alone")).commit({**plain, "model.fp16.safetensors": weights})
    assert [path.name for path in find(f"{name}-alone").glob("*.safetensors")] == ["model.fp16.safetensors"]


def test_a_missing_shard_is_said_before_anything_is_converted(online: Hub, tmp_path: Path) -> None:
    files = content(online, ABEL)
    shard = "pytorch_model-00002-of-00002.bin"
    repository(online, ABEL).commit({n: c for n, c in files.items() if n != shard})
    with pytest.raises(SourceError, match=f"{shard}: this shard is missing, of 2 that belong together"):
        find(ABEL, "weights_only")
    for index in (True, False):
        mine = tmp_path / f"mine-{index}"
        mine.mkdir()
        for name in ("pytorch_model-00001-of-00002.bin", *(["pytorch_model.bin.index.json"] if index else [])):
            source = files[name]
            (mine / name).write_bytes(source if isinstance(source, bytes) else source.read_bytes())
        with pytest.raises(SourceError, match="this shard is missing"):
            convert(str(mine), tmp_path / "out", patterns=PATTERNS)
    assert not (tmp_path / "out").exists()


def test_what_a_kill_left_of_a_single_files_conversion_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOHYDRA_CACHE", str(tmp_path / "cache"))
    torch.save({"a": torch.ones(3)}, tmp_path / "model.ckpt")
    made = find(str(tmp_path / "model.ckpt"), "weights_only")
    left = made.parent.with_name(f".{made.parent.name}.{2**22 + 1}.partial")
    left.mkdir()
    (left / made.name).write_bytes(b"half")
    made.unlink()
    assert find(str(tmp_path / "model.ckpt"), "weights_only") == made
    assert not left.exists()
    left = tmp_path / f".out.{2**22 + 1}.partial"
    left.mkdir()
    assert convert(str(tmp_path / "model.ckpt"), tmp_path / "out").keys() == {"model.safetensors"}
    assert not left.exists()


def test_a_pickle_that_may_not_be_converted_is_not_downloaded(online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    online.add(Repository("studio/ckpt")).commit({"model.ckpt": b"x" * 1000, "config.json": b"{}"})
    with pytest.raises(SourceError, match="expected safetensors, got a pickle"):
        find("studio/ckpt/model.ckpt")
    assert not online.asked
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1500))
    with pytest.raises(SourceError, match="Nothing was downloaded"):
        find("studio/ckpt/model.ckpt", "weights_only")


@pytest.mark.parametrize("pickled", [("unet", "vae"), ("vae",)])
def test_a_pipeline_whose_weights_the_bot_has_converted_is_read(online: Hub, pickled: tuple[str, ...]) -> None:
    files = content(online, SDXL_BASE)
    safe = {n: c for n, c in files.items() if n.endswith(".safetensors") and n.startswith(pickled) and ".fp16" not in n}
    mine = online.add(Repository("studio/pipeline"))
    pickles = {}
    for name, source in safe.items():
        buffer = io.BytesIO()
        torch.save(load(source if isinstance(source, bytes) else source.read_bytes()), buffer)
        pickles[name.replace(".safetensors", ".bin")] = buffer.getvalue()
    mine.commit({**{n: c for n, c in files.items() if n not in safe and ".fp16" not in n}, **pickles})
    mine.propose(safe, PullRequest(1))
    found = locate("studio/pipeline", wanted=SDXL().wanted(None))
    assert {p.relative_to(found).as_posix() for p in found.rglob("*.safetensors")} >= safe.keys()


def test_a_pipeline_of_variants_alone_says_which_option_takes_them(online: Hub) -> None:
    files = {n: c for n, c in content(online, SDXL_BASE).items() if not n.endswith(".safetensors") or ".fp16." in n}
    online.add(Repository("studio/half")).commit(files)
    with pytest.raises(SourceError, match=r"These are variants: model\.sources\.<name>\.variant=fp16 takes them"):
        locate("studio/half", wanted=SDXL().wanted(None))


def test_answers_that_are_none_of_a_hub_are_as_none(online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(*_: object, **__: object) -> Iterator[object]:
        raise KeyError("id")
        yield

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_tree", odd)
    with pytest.raises(SourceError, match=f"could not reach '{SHISA}'"):
        find(SHISA)
    monkeypatch.undo()


def test_a_commit_that_is_gone_from_the_hub_is_read_from_the_cache(online: Hub) -> None:
    found = find(SHISA)
    del repository(online, SHISA).commits[found.name]
    repository(online, SHISA).refs.clear()
    assert locate(SHISA, found.name, wanted=PATTERNS) == found
    with pytest.raises(SourceError, match="has no revision"):
        locate(SHISA, "0" * 40, wanted=PATTERNS)


def test_a_room_that_is_not_locked_yet_is_left_to_its_process(tmp_path: Path) -> None:
    other = tmp_path / f".made.{os.getppid()}.partial"
    other.mkdir()
    target = tmp_path / "made"
    with conversion_room(target) as room:
        (room / "model.safetensors").write_bytes(b"mine")
    assert other.is_dir()
    with conversion_room(target) as room:  # another process was faster: the same is there
        (room / "model.safetensors").write_bytes(b"mine")
    assert [path.name for path in target.iterdir()] == ["model.safetensors"]
    with pytest.raises(SourceError, match="nothing is left"), conversion_room(tmp_path / "full"):
        raise OSError("no space left")
    assert sorted(tmp_path.iterdir()) == [other, target]
