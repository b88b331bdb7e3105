"""The memory of a process, as Linux tells it."""

from pathlib import Path


def status(process: int | str) -> dict[str, int]:
    """Sizes in bytes from /proc/<process>/status: RssAnon (memory of its own), VmHWM (the most ever resident), ...

    Empty for a process that has ended.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    pairs = (line.split() for line in lines if line.endswith(" kB"))
    return {key.rstrip(":"): int(size) * 1024 for key, size, _ in pairs}
