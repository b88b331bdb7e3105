"""The sbatch script of the documentation, with stand-ins for Slurm's commands on this machine."""

import os
import re
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.commands import REPOSITORY, environment, workspace
from tests.kill_repeatedly import lines

SCRIPT = REPOSITORY / "evohydra" / "docs" / "ray_slurm.sh"
SRUN = """#!/bin/bash
echo "$@" >> "$ASKED"
while [[ $1 == -* ]]; do [[ $1 == -w ]] && shift; shift; done
exec "$@"
"""


@pytest.mark.slow
def test_the_script_makes_a_ray_of_all_nodes_and_leaves_none_behind(tmp_path: Path) -> None:
    bin_, asked = tmp_path / "bin", tmp_path / "asked"
    bin_.mkdir()
    for name, text in {"srun": SRUN, "scontrol": "#!/bin/bash\necho first; echo second\n"}.items():
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    with closing(socket.socket()) as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    variables = environment(
        PATH=os.pathsep.join([str(bin_), str(Path(sys.executable).parent), os.environ["PATH"]]),
        ASKED=str(asked), SLURM_JOB_NODELIST="n[1-2]", SLURM_CPUS_PER_TASK="1", RAY_PORT=str(port),
        EVOHYDRA_DEVICE="cpu", RAY_worker_niceness="0",
    )  # fmt: skip
    run = tmp_path / "run"
    overrides = [*workspace(tmp_path), "budget=14", "top=2", "baselines=null", "threads=1", f"hydra.run.dir={run}"]
    done = subprocess.run(
        ["bash", SCRIPT, *overrides], cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert lines(run / "ledger.jsonl") == 14
    assert (run / "winner").is_dir()
    steps = [line for line in asked.read_text().splitlines() if "ray start" in line]
    assert sorted("--head" in step for step in steps) == [False, True]
    assert all(re.search(r"-w (first|second) ray start", step) for step in steps)
    until = time.monotonic() + 60
    while (left := with_port(port)) and time.monotonic() < until:
        time.sleep(0.5)
    assert not left


def with_port(port: int) -> list[str]:
    """The command lines that name a port."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = each.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if f":{port}" in line or f"={port}\0" in line:
            found.append(line)
    return found
