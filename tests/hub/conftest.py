"""The stand-in of the hub, with all its repositories; and commands that know no other hub."""

from collections.abc import Iterator

import pytest

from tests.hub import language_models
from tests.hub.server import Hub, serving


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """All repositories, without a server; not to be changed."""
    hub = Hub()
    language_models.add_all(hub, tmp_path_factory.mktemp("published"))
    return hub


@pytest.fixture
def hub(published: Hub) -> Iterator[Hub]:
    """A hub on loopback that has heard nothing yet and has no faults."""
    with serving(Hub(dict(published.repositories))) as served:
        yield served
