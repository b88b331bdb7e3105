"""A shared machine with two real users: what somebody else has made is not used. Only root can be two users."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evohydra.merging.kernels.private_files import UntrustedDirectoryError, private_directory

OTHER = 65534  # nobody: any user but root
pytestmark = pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can play two users")


def as_another(what: Callable[[], object]) -> str:
    """What `what` gives, or raises, in a process of the other user."""
    read, write = os.pipe()
    if not (child := os.fork()):
        os.setgroups([])
        os.setgid(OTHER)
        os.setuid(OTHER)
        try:
            told = str(what())
        except UntrustedDirectoryError as error:
            told = f"refused: {error}"
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
        os.write(write, told.encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as answer:
        return answer.read()


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory like /tmp: all may write, and only owners may remove."""
    directory = Path(f"/tmp/evohydra-shared-{os.getpid()}")
    directory.mkdir()
    directory.chmod(0o1777)
    yield directory
    shutil.rmtree(directory)


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o777])
def test_kernels_that_somebody_else_planted_are_not_loaded(mode: int, shared: Path) -> None:
    kernels = shared / "kernels"  # under the victim's name, before the victim came
    kernels.mkdir()
    (kernels / "loop-planted.so").write_bytes(b"planted")
    kernels.chmod(mode)
    assert "it belongs to the user 0" in as_another(lambda: private_directory(kernels))


def test_what_one_user_makes_another_does_not_take(shared: Path) -> None:
    mine = shared / "kernels"
    assert as_another(lambda: private_directory(mine)) == str(mine)
    assert (mine.stat().st_uid, mine.stat().st_mode & 0o777) == (OTHER, 0o700)
    with pytest.raises(UntrustedDirectoryError, match=f"it belongs to the user {OTHER}"):
        private_directory(mine)


def test_a_room_that_all_may_rename_in_is_refused(shared: Path) -> None:
    shared.chmod(0o777)
    told = as_another(lambda: private_directory(shared / "kernels"))
    assert f"other users may replace what is in {shared}" in told
