"""Simulated power cuts: a run is killed, and everything that was not yet synchronised with the disk is taken away.

What counts as on the disk is what POSIX promises: the bytes of a file that were there when it was synchronised (fsync),
and the names in a directory that were there when the directory was. File systems often keep more. What a directory had
lost since, by a deletion or a rename, does not come back here.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tests.commands import carried_out, warm
from tests.warm import Parted


@dataclass
class OnDisk:
    """What is on the disk: the bytes of files, and the names in directories with whose they are, by inode."""

    sizes: dict[int, int] = field(default_factory=dict)
    names: dict[int, dict[str, int]] = field(default_factory=dict)


def begin_recorded(overrides: list[str], directory: Path) -> Parted:
    """The run in a process of its own, which tells beside the directory what it waits for."""
    directory.mkdir(parents=True, exist_ok=True)
    arguments = [str(record_of(directory)), str(directory), *overrides]
    return warm().start("tests.power_cut", arguments, Path.cwd(), directory.parent / "output.txt")


def record_synchronised(record: Path) -> None:
    """Write to `record` what os.fsync puts on the disk from now on."""
    synchronise, log = os.fsync, os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def fsync(file: int | IO[bytes]) -> None:
        where = os.readlink(f"/proc/self/fd/{file if isinstance(file, int) else file.fileno()}")
        size = os.stat(where).st_size
        names = {each.name: each.inode() for each in os.scandir(where)} if os.path.isdir(where) else None
        synchronise(file)
        line = {"inode": os.stat(where).st_ino, "size": size, "names": names}
        os.write(log, json.dumps(line).encode() + b"\n")

    os.fsync = fsync  # type: ignore[assignment]


def record_of(directory: Path) -> Path:
    return directory.parent / "on_disk.jsonl"


def _on_disk(record: Path) -> OnDisk:
    found = OnDisk()
    for line in record.read_text().splitlines() if record.is_file() else ():
        entry = json.loads(line)
        found.sizes[entry["inode"]] = entry["size"]
        if entry["names"] is not None:
            found.names[entry["inode"]] = entry["names"]
    return found


def cut_power(directory: Path, *, zeros: bool) -> list[str]:
    """Take from `directory` what was not on the disk; returns the names of files that lost something.

    The lost end of a file is cut off, or with `zeros` overwritten by them, as some file systems leave it.
    """
    known, lost = _on_disk(record_of(directory)), []
    for below, folders, files in os.walk(directory):
        there = known.names.get(os.stat(below).st_ino, {})
        for name in list(folders):
            if there.get(name) != os.lstat(Path(below) / name).st_ino and name not in there:
                subprocess.run(["rm", "-r", str(Path(below) / name)], check=True)
                folders.remove(name)
                lost.append(name)
        for name in files:
            path = Path(below) / name
            if name not in there:
                path.unlink()
                lost.append(name)
                continue
            found = path.stat()
            size = min(known.sizes.get(found.st_ino, 0), found.st_size)
            if size < found.st_size:
                lost.append(name)
                os.truncate(path, size)
                if zeros:
                    os.truncate(path, found.st_size)
    return lost


if __name__ == "__main__":
    record_synchronised(Path(sys.argv[1]))
    carried_out(sys.argv[3:], Path(sys.argv[2]))
