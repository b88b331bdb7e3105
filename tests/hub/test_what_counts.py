"""Which files count: pins, the weights that libraries load, the settings beside them, and what a cache holds."""

import io
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save, save_file

from evohydra.convert import convert
from evohydra.families.causal_lm import CausalLM
from evohydra.families.settings_files import settings_digest
from evohydra.hub import asking
from evohydra.hub.hashes import sha256_of
from evohydra.hub.weights_only import read_pickle
from evohydra.merging.checkpoints import CheckpointReader, SourceError
from evohydra.merging.finding import locate
from tests import tiny_models
from tests.hub.language_models import ABEL, ARITHMO, METAMATH, SHISA
from tests.hub.repositories import Content, Repository
from tests.hub.server import Fault, Hub

PATTERNS = CausalLM().wanted(None)
FIRST = "pytorch_model-00001-of-00002.bin"


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.WARNING, "evohydra"):
        yield caplog


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PAUSES", (0.0, 0.0))


def find(name: str, convert: str | None = None) -> Path:
    return locate(name, wanted=PATTERNS, convert=convert)


def tensors(directory: Path) -> dict[str, torch.Tensor]:
    reader = CheckpointReader(directory)
    return {name: reader.read(name) for name in reader.shapes}


def content(hub: Hub, name: str, ref: str = "main") -> dict[str, bytes | Path]:
    repository = hub.repositories["models", name]
    return {n: c.source for n, c in repository.commits[repository.refs[ref]].items()}


def commit(hub: Hub, name: str, changes: Mapping[str, bytes]) -> str:
    return hub.repositories["models", name].commit({**content(hub, name), **changes})


def pickle_of(state: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def state_of(hub: Hub, name: str) -> dict[str, torch.Tensor]:
    files = [source for path, source in content(hub, name).items() if path.endswith(".bin")]
    return {k: v for file in files for k, v in torch.load(file, weights_only=True).items()}


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_records_that_are_compressed_are_read_right(tmp_path: Path) -> None:
    state = {name: torch.randn(50, 3) for name in ("a", "b", "c")}
    torch.save(state, tmp_path / "stored.bin")
    with zipfile.ZipFile(tmp_path / "stored.bin") as stored, zipfile.ZipFile(tmp_path / "x.bin", "w") as made:
        for number, entry in enumerate(stored.infolist()):
            kind = zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED
            made.writestr(entry.filename, stored.read(entry), compress_type=kind)
    assert any(entry.compress_type for entry in zipfile.ZipFile(tmp_path / "x.bin").infolist())
    got = read_pickle(tmp_path / "x.bin")
    assert all(torch.equal(got[name], state[name]) for name in state)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_tensors_without_all_their_numbers_are_refused(tmp_path: Path) -> None:
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    wrong = {"a": torch.ones(1, device="meta"), "b": torch.ones(1).expand(10**11), "c": nested}
    for name, tensor in wrong.items():
        torch.save({name: tensor}, tmp_path / "pytorch_model.bin")
        with pytest.raises(SourceError, match=r"pytorch_model\.bin: (expected|refused)"):
            read_pickle(tmp_path / "pytorch_model.bin")
    torch.save({"__metadata__": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(SourceError, match="which safetensors keeps"):
        read_pickle(tmp_path / "pytorch_model.bin")


def test_pinned_pickles_are_what_is_converted_and_never_the_bots(online: Hub) -> None:
    right = sha256_of(Path(content(online, METAMATH)[FIRST]))
    with pytest.raises(SourceError, match=f"pins {FIRST}, so that no conversion of the hub's own is taken"):
        locate(METAMATH, wanted=PATTERNS, sha256={FIRST: right})
    with pytest.raises(SourceError, match="is not the file that was pinned"):
        locate(METAMATH, wanted=PATTERNS, convert="weights_only", sha256={FIRST: "0" * 64})
    found = locate(METAMATH, wanted=PATTERNS, convert="weights_only", sha256={FIRST: right.upper()})
    assert json.loads((found / "conversion.json").read_text())["from"][FIRST] == right


def test_pins_are_compared_with_the_bytes(online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find(SHISA)
    shard = found / "model-00001-of-00002.safetensors"
    pins = {path.name: sha256_of(path) for path in (shard, found / "config.json")}
    assert locate(SHISA, wanted=PATTERNS, sha256=pins) == found
    for name in ("config.json", shard.name):
        with pytest.raises(SourceError, match=f"{name} is not the file that was pinned"):
            locate(SHISA, wanted=PATTERNS, sha256={name: "1" * 64})
    with pytest.raises(SourceError, match=r"pins model\.safetensors, a file that is not there"):
        locate(SHISA, wanted=PATTERNS, sha256={"model.safetensors": pins[shard.name]})
    with pytest.raises(SourceError, match="expected 64 hexadecimal digits, got 'abc'"):
        locate(SHISA, wanted=PATTERNS, sha256={"config.json": "abc"})
    damaged = bytearray(shard.read_bytes())
    damaged[-3] ^= 1
    shard.resolve().write_bytes(damaged)
    for change in (lambda: None, lambda: offline(monkeypatch)):
        change()
        with pytest.raises(SourceError, match=f"{shard.name} in the local cache is damaged"):
            locate(SHISA, wanted=PATTERNS, sha256=pins)


def test_what_came_has_to_be_what_the_hub_lists(online: Hub) -> None:
    repository = online.repositories["models", ARITHMO]
    files = repository.commits[repository.refs["main"]]
    name = "model-00002-of-00002.safetensors"
    good = files[name]
    other = Content(good.data[:-4] + b"\0\0\0\0")
    object.__setattr__(other, "sha256", good.sha256)  # the body is another than the hub says
    repository.commits[repository.refs["main"]] = {**files, name: other}
    with pytest.raises(SourceError, match=f"{name} in the local cache is damaged: the hub says"):
        find(ARITHMO)


def test_pins_hold_for_directories_and_files_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOHYDRA_CACHE", str(tmp_path / "cache"))
    directory = tiny_models.save_model(tmp_path / "mine", 0)
    for path in (directory, directory / "model.safetensors"):
        assert locate(
            str(path), wanted=PATTERNS, sha256={"model.safetensors": sha256_of(directory / "model.safetensors")}
        )
        with pytest.raises(SourceError, match=r"model\.safetensors is not the file that was pinned"):
            locate(str(path), wanted=PATTERNS, sha256={"model.safetensors": "0" * 64})
        with pytest.raises(SourceError, match=r"pins other\.safetensors, which is not among the files"):
            locate(str(path), wanted=PATTERNS, sha256={"other.safetensors": "0" * 64})
    (directory / "conversion.json").write_text(json.dumps({"from": {"pytorch_model.bin": "0" * 64}, "to": {}}))
    with pytest.raises(SourceError, match=r"pins pytorch_model\.bin, which is not among the files"):
        locate(str(directory), wanted=PATTERNS, sha256={"pytorch_model.bin": "0" * 64})


def test_the_bots_pins_hold_with_and_without_a_network(online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find(METAMATH)
    name = next(path.name for path in found.glob("*.safetensors"))
    for change in (lambda: None, lambda: offline(monkeypatch)):
        change()
        assert locate(METAMATH, wanted=PATTERNS, sha256={name: sha256_of(found / name)}) == found
        with pytest.raises(SourceError, match="is not the file that was pinned"):
            locate(METAMATH, wanted=PATTERNS, sha256={name: "0" * 64})


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "consolidated.safetensors"])
def test_safetensors_that_are_no_models_do_not_stand_for_pickled_ones(
    online: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    commit(online, ABEL, {name: save({"x": torch.ones(2)})})
    with pytest.raises(SourceError, match="found only pickle files"):
        find(ABEL)
    assert len(tensors(find(ABEL, "weights_only"))) > 5
    directory = tiny_models.save_model(tmp_path / "mine", 0)
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").rename(directory / name)
    with pytest.raises(SourceError, match="found only pickle files"):
        CheckpointReader(find(str(directory)))
    assert find(str(directory), "weights_only").parent.name == "local"


def test_of_a_whole_file_and_shards_the_one_is_read_that_transformers_reads(online: Hub, tmp_path: Path) -> None:
    whole = {name: tensor * 2 for name, tensor in tensors(find(ARITHMO)).items()}
    commit(online, ARITHMO, {"model.safetensors": save(whole, {"format": "pt"})})
    found = find(ARITHMO)
    assert [path.name for path in found.glob("*.safetensors*")] == ["model.safetensors"]
    both = tmp_path / "both"
    shutil.copytree(find(SHISA), both)
    save_file(whole, both / "model.safetensors", {"format": "pt"})
    import transformers

    read = transformers.AutoModelForCausalLM.from_pretrained(both).state_dict()
    for directory in (found, both):
        got = tensors(directory)
        assert all(torch.equal(got[name], read[name]) for name in got)
    files = content(online, SHISA)
    left = {n: c for n, c in files.items() if not n.endswith((".index.json", "1-of-00002.safetensors"))}
    online.add(Repository("somebody/leftover")).commit({**left, "model.safetensors": save(whole)})
    assert tensors(find("somebody/leftover")).keys() == whole.keys()


def test_models_of_other_runtimes_are_no_pickles(online: Hub) -> None:
    state = state_of(online, ABEL)
    kept = {n: c for n, c in content(online, ABEL).items() if ".bin" not in n}
    more = dict.fromkeys(("openvino_model.bin", "ggml-model.bin", "adapter_model.bin"), b"no pickle")
    online.add(Repository("somebody/runtimes")).commit({**kept, **more, "pytorch_model.bin": pickle_of(state)})
    assert tensors(find("somebody/runtimes", "weights_only")).keys() == state.keys()
    online.add(Repository("somebody/none")).commit({**kept, **more})
    with pytest.raises(SourceError, match=r"expected weights such as \*\.safetensors, got \['adapter_model\.bin'"):
        find("somebody/none", "weights_only")


def test_the_bots_weights_have_the_settings_of_the_branch(
    online: Hub, monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    before = find(METAMATH)
    config = json.loads((before / "config.json").read_text())
    moved = commit(online, METAMATH, {"config.json": json.dumps({**config, "rope_theta": 77.0}).encode()})
    said.clear()
    found = find(METAMATH)
    assert json.loads((found / "config.json").read_text())["rope_theta"] == 77.0
    assert "with the branch's own config.json, which differ" in said.text
    assert all(torch.equal(tensor, tensors(before)[name]) for name, tensor in tensors(found).items())
    assert moved in found.parts
    assert find(METAMATH) == found
    offline(monkeypatch)
    assert find(METAMATH) == found


def test_a_pull_request_that_lacks_a_shard_is_not_taken(online: Hub) -> None:
    repository = online.repositories["models", METAMATH]
    files = content(online, METAMATH, "refs/pr/1")
    del files[next(n for n in files if n.endswith(".safetensors") and "00002-of" in n)]
    repository.commit(files, "refs/pr/1")
    assert (find(METAMATH, "weights_only") / "conversion.json").is_file()


@pytest.mark.parametrize("status", [403, 500])
def test_a_repository_whose_discussions_cannot_be_read_is_converted(online: Hub, status: int) -> None:
    online.faults["/discussions"] = Fault(status=status, times=99, message="Discussions are disabled for this repo")
    with pytest.raises(SourceError, match=r"Its pull requests could not be read .*convert=weights_only"):
        find(ABEL)
    found = find(ABEL, "weights_only")
    asked = len(online.asked)
    assert find(ABEL, "weights_only") == found
    assert not [each for each in online.asked[asked:] if each.path.endswith("/discussions")]


def test_a_pull_request_that_is_gone_is_taken_from_the_cache_or_looked_for_anew(online: Hub, tmp_path: Path) -> None:
    found = find(METAMATH)
    repository = online.repositories["models", METAMATH]
    del repository.commits[repository.refs.pop("refs/pr/1")]
    repository.requests.clear()
    assert find(METAMATH) == found
    shutil.rmtree(tmp_path / "cache")
    assert (find(METAMATH, "weights_only") / "conversion.json").is_file()


def test_a_token_that_the_hub_refuses_is_named(online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "expired" * 5)
    with pytest.raises(SourceError, match=r"refuses the token .* HF_TOKEN"):
        find(SHISA)


@pytest.mark.parametrize("status", [429, 500])
def test_a_hub_that_is_busy_is_asked_again_and_then_the_cache(
    online: Hub, said: pytest.LogCaptureFixture, status: int
) -> None:
    online.faults[f"/api/models/{SHISA}"] = Fault(status=status, times=2)
    found = find(SHISA)
    online.faults[f"/api/models/{SHISA}"] = Fault(status=status, times=99)
    assert find(SHISA) == found
    assert "the hub does not answer" in said.text
    online.faults[f"/api/models/{ARITHMO}"] = Fault(status=status, times=99)
    with pytest.raises(SourceError, match="not in the local cache"):
        find(ARITHMO)


@pytest.mark.parametrize(
    "name", ["generation_config.json", "tokenizer_config.json", "model-00002-of-00002.safetensors"]
)
def test_an_unfinished_download_is_not_taken_for_a_whole_one(
    online: Hub, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    online.faults[name] = Fault(status=404)
    with pytest.raises(SourceError, match=r"could not download all of .*The same command goes on"):
        find(SHISA)
    offline(monkeypatch)
    with pytest.raises(
        SourceError, match=rf"unfinished: \d of its 8 files are not in the local cache \(.*{name}.*Go online"
    ):
        find(SHISA)


def test_a_cache_without_a_list_of_files_is_taken_and_said(
    online: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    found, converted = find(SHISA), find(METAMATH)
    for trees in (tmp_path / "cache").glob("*/trees"):  # as huggingface_hub 1 leaves it
        shutil.rmtree(trees)
    offline(monkeypatch)
    assert find(SHISA) == found
    assert find(METAMATH) == converted
    assert "nothing in the local cache says whether all files" in said.text


def test_a_connection_that_always_breaks_says_that_the_command_goes_on(
    online: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None, raising=False)
    online.faults["model-00001-of-00002.safetensors"] = Fault(cut=1000, times=10**6)
    with pytest.raises(
        SourceError, match=r"could not download all of .*What has come is kept\. The same command goes on"
    ):
        find(SHISA)


def test_only_changes_of_files_that_are_used_are_said_and_nothing_is_converted_twice(
    online: Hub, said: pytest.LogCaptureFixture
) -> None:
    before = find(ABEL, "weights_only")
    find(METAMATH)
    said.clear()
    for name in (ABEL, METAMATH):
        commit(online, name, {"README.md": b"# better words\n"})
    after = find(ABEL, "weights_only")
    find(METAMATH)
    assert "has changed" not in said.text
    assert "converting" not in said.text
    assert after != before
    assert (after / "model-00001-of-00002.safetensors").stat().st_ino == (
        before / "model-00001-of-00002.safetensors"
    ).stat().st_ino


def test_a_cache_that_cannot_be_written_to_stops_only_what_needs_it(
    online: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EVOHYDRA_CACHE", str(tmp_path / "file" / "cache"))
    assert tensors(find(METAMATH))
    assert "could not keep a note" in said.text
    with pytest.raises(SourceError, match="could not write the conversion"):
        find(ABEL, "weights_only")


def test_a_conversion_that_was_damaged_is_made_again(online: Hub, said: pytest.LogCaptureFixture) -> None:
    found = find(ABEL, "weights_only")
    expected = {name: tensor.clone() for name, tensor in tensors(found).items()}
    first, second = sorted(found.glob("*.safetensors"))
    for damage in (
        lambda: first.write_bytes(first.read_bytes()[:-3] + b"abc"),
        second.unlink,
        lambda: (found / "conversion.json").write_text("{}"),
    ):
        damage()
        said.clear()
        assert find(ABEL, "weights_only") == found
        assert "missing or damaged; it is made again" in said.text
        assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors(found).items())


def test_what_a_killed_conversion_left_is_removed(online: Hub) -> None:
    found = find(ABEL, "weights_only")
    left = found.with_name(f".{found.name}.{2**22 + 1}.partial")
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    shutil.rmtree(found)
    find(ABEL, "weights_only")
    assert os.listdir(found.parent) == [found.name]


def test_where_weights_come_from_is_no_setting(online: Hub) -> None:
    found = find(ABEL, "weights_only")
    digest = settings_digest(found, PATTERNS)
    (found / "conversion.json").unlink()
    assert settings_digest(found, PATTERNS) == digest


def test_the_command_converts_what_is_in_the_cache_without_a_network(
    online: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find(ABEL, "weights_only")
    offline(monkeypatch)
    assert convert(ABEL, tmp_path / "out", patterns=PATTERNS)
    with pytest.raises(SourceError, match="not in the local cache"):
        convert("somebody/gpt2", tmp_path / "other", patterns=PATTERNS)
    for name in ("gpt2", "./nothing", "/models/x.bin", "owner/name/file.bin"):
        with pytest.raises(SourceError, match=f"{name}: no such file or directory; a model of the hub is called owner"):
            convert(name, tmp_path / "other", patterns=PATTERNS)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    with pytest.raises(SourceError, match="link exists; give a directory that does not"):
        convert(ABEL, tmp_path / "link", patterns=PATTERNS)
