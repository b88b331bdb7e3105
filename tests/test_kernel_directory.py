"""Compiled kernels are loaded only from where nobody else could have put them, and only whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from evohydra.merging.kernels import native
from evohydra.merging.kernels.compilation import compiling
from evohydra.merging.kernels.private_files import UntrustedDirectoryError, private_directory
from tests.commands import REPOSITORY, environment

CODE = """
int planted = 0;
extern "C" void loop() { planted = 1; }
__attribute__((constructor)) void at_loading() { __builtin_trap(); }
"""


def doubled(inputs: list[torch.Tensor], floats: torch.Tensor, integers: torch.Tensor, target: torch.Tensor) -> None:
    target.copy_(inputs[0] * floats[0])


def made(directory: Path) -> torch.Tensor:
    """What the kernel gives, built in `directory` or loaded from it."""
    inputs, target = [torch.arange(8.0)], torch.zeros(8)
    numbers = (torch.tensor([2.0]), torch.zeros(0, dtype=torch.int32))
    native.loop(doubled, inputs, numbers, target)(inputs, *numbers, target)
    return target


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


def only(directory: Path) -> Path:
    (library,) = directory.glob("loop-*.so")
    return library


def test_a_kernel_is_kept_for_its_owner_alone(directory: Path):
    assert torch.equal(made(directory), torch.arange(8.0) * 2)
    assert directory.stat().st_mode & 0o022 == 0
    library = only(directory)
    before = library.stat()
    assert before.st_mode & 0o022 == 0
    assert torch.equal(made(directory), torch.arange(8.0) * 2)
    assert only(directory).stat().st_mtime_ns == before.st_mtime_ns  # not built again


RUN = """
import sys
from tests.test_kernel_directory import made
from pathlib import Path
print(made(Path(sys.argv[1])).tolist())
"""


@pytest.mark.parametrize("damage", ["empty", "half", "zeros", "planted", "link"])
def test_what_is_not_whole_is_made_again(damage: str, directory: Path, tmp_path: Path):
    """In another process: a library that is mapped already would not be read again, and half of one is a bus error."""
    made(directory)
    library = only(directory)
    content = library.read_bytes()
    library.unlink()
    if damage == "planted":
        (tmp_path / "evil.cpp").write_text(CODE)
        subprocess.run(["g++", "-shared", "-fPIC", "-o", library, tmp_path / "evil.cpp"], check=True)
    elif damage == "link":
        (tmp_path / "elsewhere.so").write_bytes(content)
        library.symlink_to(tmp_path / "elsewhere.so")
    else:
        half = content[: len(content) // 2]
        library.write_bytes({"empty": b"", "half": half, "zeros": half + bytes(len(content) - len(half))}[damage])
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(directory)], capture_output=True, text=True, cwd=REPOSITORY,
        env=environment(TORCHINDUCTOR_CACHE_DIR=str(directory)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([2.0 * i for i in range(8)])
    assert not only(directory).is_symlink()
    assert only(directory).stat().st_size > 1000


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777, 0o702])
def test_a_directory_that_others_may_write_to_is_refused(mode: int, directory: Path):
    directory.mkdir()
    directory.chmod(mode)
    x = [torch.arange(5000.0), torch.ones(5000)]
    from evohydra.merging.kernels import compilation
    from evohydra.merging.methods.linear import linear

    compilation._compiled.clear()
    with (
        compiling(True),
        pytest.raises(UntrustedDirectoryError, match="that only you can write to, but other users may write"),
    ):
        linear(None, x, weight=[1.0, 3.0])
    assert list(directory.iterdir()) == []


def test_a_directory_that_is_made_is_private(tmp_path: Path):
    assert private_directory(tmp_path / "a" / "kernels").stat().st_mode & 0o777 == 0o700


def test_a_directory_that_others_may_replace_is_refused(tmp_path: Path):
    open_to_all = tmp_path / "shared"
    (open_to_all / "kernels").mkdir(mode=0o700, parents=True)
    open_to_all.chmod(0o777)
    with pytest.raises(UntrustedDirectoryError, match=f"other users may replace what is in {open_to_all}"):
        private_directory(open_to_all / "kernels")
    open_to_all.chmod(0o1777)  # as /tmp: only owners may rename
    assert private_directory(open_to_all / "kernels") == open_to_all / "kernels"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path: Path):
    (tmp_path / "kernels").mkdir(mode=0o700)
    os.chown(tmp_path / "kernels", 12345, 12345)
    with pytest.raises(UntrustedDirectoryError, match="it belongs to the user 12345"):
        private_directory(tmp_path / "kernels")
