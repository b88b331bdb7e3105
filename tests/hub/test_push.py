"""`push=OWNER/NAME`: the winner on the hub, where it is asked for, and nothing otherwise."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard, snapshot_download

from evohydra.winner.publishing import PushError, check_base, check_push, push
from evohydra.winner.snippets import loading
from tests.commands import built, carried_out
from tests.hub.server import Fault, Hub

MINE = "somebody/merge"
SMALL = [
    "optimizer=de", "optimizer.population=5", "budget=5", "top=1", "tracker=none", "report=false", "threads=1",
    "fitness=full", "baselines=null", "audit=none", "benchmark=[tiny_gsm_ja]",
    "benchmark.tiny_gsm_ja.splits.search.stop=4", "benchmark.tiny_gsm_ja.splits.validation.stop=304",
    "benchmark.tiny_gsm_ja.splits.test.stop=504",
]  # fmt: skip
UPLOADS = ("/api/repos/create", "/preupload/", "/info/lfs/", "/put/", "/commit/")


def uploads(hub: Hub) -> list[str]:
    return [each.path for each in hub.asked if any(part in each.path for part in UPLOADS)]


@pytest.fixture
def winner(tmp_path: Path) -> Path:
    """A directory as winners are, without a model."""
    made = tmp_path / "winner"
    (made / "samples").mkdir(parents=True)
    (made / "model.safetensors").write_bytes(b"weights")
    (made / "config.json").write_text("{}")
    (made / "samples" / "0.png").write_bytes(b"picture")
    (made / ".evohydra.json").write_text("{}")
    (made / "README.md").write_text(f"---\nlicense: other\n---\n{loading('transformers', 'text-generation')}\n")
    return made


def test_a_run_uploads_its_winner_to_a_private_repository(online: Hub, tmp_path: Path) -> None:
    summary = carried_out([*SMALL, f"push={MINE}"], tmp_path / "run")
    repository = online.repositories["models", MINE]
    assert repository.private
    found = Path(snapshot_download(MINE, cache_dir=tmp_path / "again", endpoint=online.url))
    local = tmp_path / "run" / "winner"
    names = {path.name for path in local.iterdir() if path.name != ".evohydra.json"}
    assert {path.name for path in found.iterdir()} == names
    for name in names - {"README.md"}:
        assert (found / name).read_bytes() == (local / name).read_bytes()
    card = ModelCard.load(found / "README.md")
    assert f'place = "{MINE}"' in card.text
    assert 'place = "."' in (local / "README.md").read_text()
    assert card.data.eval_results[0].metric_value == summary["test"]["winner"]["score"]


def test_without_push_nothing_is_uploaded(online: Hub, tmp_path: Path) -> None:
    carried_out(SMALL, tmp_path / "run")
    assert online.asked == []


def test_a_repository_that_is_there_stays_as_visible_as_it_was(online: Hub, winner: Path) -> None:
    push(winner, MINE)
    repository = online.repositories["models", MINE]
    repository.private = False
    repository.commit({"notes.txt": b"mine"})
    assert push(winner, MINE).startswith(f"{online.url}/{MINE}/commit/")
    assert not repository.private
    files = repository.commits[repository.refs["main"]]
    assert set(files) == {"notes.txt", "model.safetensors", "config.json", "samples/0.png", "README.md"}
    assert files["model.safetensors"].data == b"weights"


@pytest.mark.parametrize(("name", "swept", "said"), [
    ("merge", False, "push: expected OWNER/NAME, a repository of the Hugging Face hub, got 'merge'"),
    ("a/b/c", False, "push: expected OWNER/NAME"), ("../x", False, "push: expected OWNER/NAME"),
    (MINE, True, "push=somebody/merge: the jobs of a sweep have a winner each"),
])  # fmt: skip
def test_what_cannot_be_a_repository_is_refused_before_the_hub_is_asked(
    online: Hub, name: str, swept: bool, said: str
) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        check_push(name, swept=swept)
    assert online.asked == []


def test_who_may_not_upload_is_told_before_the_search(online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    check_push(MINE, swept=False)
    online.role = "read"
    with pytest.raises(ValueError, match="the token may only read; it takes a token with write access"):
        check_push(MINE, swept=False)
    monkeypatch.setenv("HF_TOKEN", "hf_nobodys")
    with pytest.raises(ValueError, match="the hub refuses the token"):
        check_push(MINE, swept=False)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ValueError, match="nobody is logged in to the Hugging Face hub"):
        check_push(MINE, swept=False)
    assert uploads(online) == []


def test_a_hub_that_cannot_be_reached_is_told_before_the_search(online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"the Hugging Face hub cannot be reached .* search without push"):
        check_push(MINE, swept=False)


def test_an_upload_that_fails_loses_nothing(online: Hub, winner: Path) -> None:
    online.faults["/commit/main"] = Fault(status=500)
    with pytest.raises(PushError, match=r"could not be uploaded as somebody/merge \(.*It is whole in .*tries again"):
        push(winner, MINE)
    assert (winner / "model.safetensors").read_bytes() == b"weights"
    assert push(winner, MINE)


def test_an_adapter_names_a_base_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "somebody" / "base").mkdir(parents=True)
    check_base(MINE, "somebody/base")
    for base in ("zoo://base", str(tmp_path / "somebody" / "base"), "/not/here"):
        with pytest.raises(ValueError, match=f"expected OWNER/NAME of the hub as the base .* got {base}"):
            check_base(MINE, base)


def test_a_search_whose_adapter_would_name_a_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evohydra.assembly.runs.check_push", lambda name, swept: None)
    with pytest.raises(ValueError, match=f"push={MINE}: an adapter names its base, .* got zoo://base"):
        built(["experiment=tiny_loras", "tracker=none", f"push={MINE}"], tmp_path / "run")
