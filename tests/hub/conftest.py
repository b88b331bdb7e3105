"""The stand-in of the hub, with all its repositories; and commands that know no other hub."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.hub import data_sets, diffusion_models, language_models, vision_models
from tests.hub.repositories import Repository
from tests.hub.server import TOKEN, Hub, serving


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """All repositories, without a server; not to be changed."""
    hub = Hub()
    root = tmp_path_factory.mktemp("published")
    language_models.add_all(hub, root)
    vision_models.add_llava(hub, root)
    diffusion_models.add_all(hub, root)
    data_sets.add_all(hub)
    return hub


@pytest.fixture
def hub(published: Hub) -> Iterator[Hub]:
    """A hub on loopback that has heard nothing yet and has no faults; its repositories may be added to."""
    own = {key: _copy(repository) for key, repository in published.repositories.items()}
    with serving(Hub(own)) as served:
        yield served


def _copy(one: Repository) -> Repository:
    parts = (dict(one.refs), dict(one.commits), dict(one.history), list(one.requests))
    return Repository(one.name, one.kind, one.gated, *parts)


@pytest.fixture
def online(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub as that of this process, from empty caches, logged in."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("EVOHYDRA_CACHE", str(tmp_path / "evohydra"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    point_at(hub.url, monkeypatch)
    return hub


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the hub of this process the one at `url`."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
