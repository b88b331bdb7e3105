"""The stand-in answers as the hub does: huggingface_hub's own client is asked."""

from pathlib import Path

import pytest
import transformers
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from tests.hub.language_models import ABEL, MISTRAL, ROWS, SHISA, WIZARDMATH, WIZARDMATH_SAFE
from tests.hub.server import TOKEN, Fault, Hub


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def test_a_repository_is_downloaded_and_loaded(hub: Hub, tmp_path: Path) -> None:
    found = snapshot_download(SHISA, cache_dir=tmp_path, endpoint=hub.url, allow_patterns=["*.json", "*.safetensors"])
    model = transformers.AutoModelForCausalLM.from_pretrained(found)
    words = transformers.AutoTokenizer.from_pretrained(found)
    assert model.config.vocab_size == ROWS == len(words)
    assert words.decode(words("1 + 1 は何？", add_special_tokens=False)["input_ids"]) == "1 + 1 は何？"
    assert Path(found).name == hub.repositories["models", SHISA].refs["main"]


def test_lists_commits_and_requests_are_the_hubs(hub: Hub) -> None:
    api = HfApi(endpoint=hub.url)
    names = {file.path: file for file in api.list_repo_tree(WIZARDMATH, recursive=True)}
    assert "pytorch_model-00001-of-00002.bin" in names
    assert not [n for n in names if n.endswith(".safetensors")]
    assert names["pytorch_model-00001-of-00002.bin"].lfs.sha256
    (request,) = api.get_repo_discussions(WIZARDMATH, discussion_status="open")
    assert (request.author, request.git_reference) == ("SFconvertbot", "refs/pr/4")
    commits = api.list_repo_commits(WIZARDMATH, revision=request.git_reference)
    assert [each.commit_id for each in commits] == [WIZARDMATH_SAFE, api.model_info(WIZARDMATH).sha]
    assert [each.id for each in api.list_models(search="abel")] == [ABEL]


def test_who_may_not_is_refused(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(GatedRepoError):
        hf_hub_download(MISTRAL, "config.json", cache_dir=tmp_path, endpoint=hub.url, token=False)
    assert hf_hub_download(MISTRAL, "config.json", cache_dir=tmp_path, endpoint=hub.url, token=TOKEN)
    with pytest.raises(RepositoryNotFoundError):
        HfApi(endpoint=hub.url).model_info("no/such-model", token=False)
    with pytest.raises(RevisionNotFoundError):
        HfApi(endpoint=hub.url).model_info(SHISA, revision="no-such-branch")


def test_a_dropped_connection_goes_on_where_it_was(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100)  # what is kept is whole chunks
    repository = hub.repositories["models", SHISA]
    name = next(n for n in repository.commits[repository.refs["main"]] if n.endswith(".safetensors"))
    hub.faults[name] = Fault(cut=1000)
    hf_hub_download(SHISA, name, cache_dir=tmp_path, endpoint=hub.url)
    assert [each.range for each in hub.asked if each.method == "GET"][-2:] == [None, "bytes=1000-"]
