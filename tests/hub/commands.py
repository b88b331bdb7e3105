"""Commands whose hub is the stand-in, from a cache of their own."""

import subprocess
from pathlib import Path

from tests import commands
from tests.hub.server import TOKEN, Hub


def surroundings(hub: Hub, home: Path, login: bool = True) -> dict[str, str]:
    """The environment of a user of this hub whose caches are all below `home`."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home / "huggingface"),
        "HF_DATASETS_CACHE": str(home / "datasets"),
        "EVOHYDRA_CACHE": str(home / "evohydra"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        **({"HF_TOKEN": TOKEN} if login else {}),
    }


def evohydra(
    hub: Hub, home: Path, *arguments: str, login: bool = True, **changes: str
) -> subprocess.CompletedProcess[str]:
    """`python -m evohydra ARGUMENTS` in `home`."""
    home.mkdir(exist_ok=True)
    return commands.evohydra(*arguments, cwd=home, **{**surroundings(hub, home, login), **changes})
