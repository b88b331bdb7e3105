"""A base under several names: another name than the first is compared with it, or refused."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from huggingface_hub import constants

from evohydra.families.causal_lm import CausalLM
from evohydra.families.declared import Source, checkpoints
from evohydra.hub.hashes import sha256_of
from evohydra.merging.checkpoints import SourceError
from evohydra.merging.finding import locate
from evohydra.recipe import Checkpoint
from tests.hub.language_models import MISTRAL
from tests.hub.repositories import Repository
from tests.hub.server import Hub

PATTERNS = CausalLM().wanted(None)
SHARD = "model-00001-of-00002.safetensors"


def base(*names: str, revision: str | None = None, pins: Mapping[str, str] | None = None) -> Checkpoint:
    source = Source("zoo://tiny_ja", "causal_lm", base=names, base_revision=revision, base_sha256=pins)
    _, found = checkpoints({"one": source})
    assert found is not None
    return found


def copy_of(hub: Hub, name: str, changes: Mapping[str, bytes] | None = None) -> str:
    gated = hub.repositories["models", MISTRAL]
    files = {n: c.source for n, c in gated.commits[gated.refs["main"]].items()}
    return hub.add(Repository(name)).commit({**files, **(changes or {})})


@pytest.fixture
def stranger(online: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub for somebody who may not read the gated base."""
    monkeypatch.delenv("HF_TOKEN")
    return online


def test_a_copy_is_taken_at_the_commit_that_was_compared(stranger: Hub) -> None:
    commit = copy_of(stranger, "friends/base", {"README.md": b"a copy"})
    found = base(MISTRAL, "friends/base", revision="main")
    assert (found.path, found.revision) == ("friends/base", commit)


@pytest.mark.parametrize("name", [SHARD, "config.json", "tokenizer.json"])
def test_other_weights_or_settings_are_no_copy(stranger: Hub, name: str) -> None:
    copy_of(stranger, "strangers/base", {name: b"{}"})
    with pytest.raises(SourceError, match=f"'strangers/base' does not hold the files of '{MISTRAL}' \\({name}"):
        base(MISTRAL, "strangers/base")


def test_pins_of_weights_do_not_stand_for_settings_that_the_first_name_tells(stranger: Hub) -> None:
    copy_of(stranger, "strangers/base", {"config.json": b"{}"})
    files = stranger.repositories["models", "strangers/base"].commits
    pins = {n: c.sha256 for found in files.values() for n, c in found.items() if n.endswith(".safetensors")}
    with pytest.raises(SourceError, match=r"does not hold the files of .* \(config\.json"):
        base(MISTRAL, "strangers/base", pins=pins)


def test_where_the_first_name_is_unknown_nothing_is_taken_but_what_is_pinned(online: Hub) -> None:
    copy_of(online, "strangers/base")
    with pytest.raises(SourceError, match=r"nothing says that it is a copy.*base_sha256"):
        base("nobody/base", "strangers/base")
    found = locate("strangers/base", wanted=PATTERNS)
    pins = {path.name: sha256_of(path) for path in found.glob("*.safetensors")}
    assert base("nobody/base", "strangers/base", pins=pins).path == "strangers/base"
    pins.pop(SHARD)
    with pytest.raises(SourceError, match="nothing says that it is a copy"):
        base("nobody/base", "strangers/base", pins=pins)


def test_directories_of_ones_own_are_compared_too(stranger: Hub, tmp_path: Path) -> None:
    gated = stranger.repositories["models", MISTRAL]
    mine = tmp_path / "mine"
    mine.mkdir()
    (tmp_path / "empty").mkdir()
    for name, content in gated.commits[gated.refs["main"]].items():
        (mine / name).write_bytes(content.data)
    assert base(MISTRAL, str(mine)).path == str(mine)
    assert base(str(mine), MISTRAL).path == str(mine)
    with pytest.raises(SourceError, match="does not hold the files of"):
        base(MISTRAL, str(tmp_path / "empty"))
    (mine / SHARD).write_bytes(b"others")
    with pytest.raises(SourceError, match=f"does not hold the files of '{MISTRAL}' \\({SHARD}"):
        base(MISTRAL, str(mine))


def test_without_a_network_the_one_that_was_compared_is_taken(stranger: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_of(stranger, "friends/base")
    found = base(MISTRAL, "friends/base")
    locate(found.path, found.revision, wanted=PATTERNS)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert base(MISTRAL, "friends/base") == found
    assert base(MISTRAL, "friends/other", "friends/base").path == MISTRAL  # never compared: as if nothing was there


def test_a_lone_configuration_in_the_cache_is_no_base(
    online: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy_of(online, "friends/base")
    import huggingface_hub

    huggingface_hub.hf_hub_download(MISTRAL, "config.json")  # as AutoConfig leaves it
    monkeypatch.delenv("HF_TOKEN")
    found = base(MISTRAL, "friends/base")
    locate(found.path, found.revision, wanted=PATTERNS)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert base(MISTRAL, "friends/base") == found
