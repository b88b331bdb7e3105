"""Lose workers, nodes, the command and the head of a Ray cluster, and compare the run with one that was left alone.

    python -m tests.kill_over_ray --workers 30 --nodes 5 --commands 10 --heads 1
    python -m tests.kill_over_ray --search steady --workers 10 --nodes 0 --commands 5 --heads 0 --budget 120
    python -m tests.kill_over_ray --search steady --executor processes --workers 10 --commands 5 --budget 120

One run over three nodes on this machine. What is lost comes in a random order, each at a random place among the steps
of the run (lines of ledger.jsonl and scores.jsonl, files of the winner) and then a little later, but never before the
run has taken a new step since the loss before: each loss meets a run that is at work again. A node that was
removed is followed by a new one; a command that was killed, or that has ended because its head was lost, is given
again. The head's loss has to end the command with a sentence, within two minutes, and another cluster takes its place.

With --search steady no two runs are the same: then the run's own history has to lead to what it asked
(`python -m evohydra.replay`), with all its genomes. With --executor processes there are two workers without a Ray,
and no nodes and heads to lose. In each case no line may be lost, and nothing scored twice.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from tests.commands import environment, workspace
from tests.kill_repeatedly import (
    POLL,
    children,
    command_line,
    content,
    left_alone,
    lines,
    on_file,
    scored_twice,
    start,
    steps,
    workers_of,
)
from tests.ray_nodes import added, nodes_of_ray

NODES = 2  # beside the head, with a worker each
PATIENCE = 600.0  # seconds without a step
TO_END = 120.0  # seconds that a command has to end when its head is lost
SHARE = 0.5  # of the steps of the run: the last loss is to come before its end, also where some came late
NOTICED = 3.0  # seconds for the command to hear of a lost node
PAUSE = 4  # steps of the run that was left alone: a loss comes so much later than the step that is waited for


class Losses:
    """A run in `directory`, and what befalls it. counts: how often each loss came; lost: lines that were lost.

    pace: seconds for a step of a run that is left alone. over_ray: whether it has a Ray, else processes.
    """

    def __init__(
        self, overrides: list[str], directory: Path, chance: random.Random, pace: float, *, over_ray: bool
    ) -> None:
        self._over_ray = over_ray
        self._overrides, self._directory, self._chance, self._pace = overrides, directory, chance, pace
        self._opened = ExitStack()
        self._cluster: Any = None
        self._others: list[Any] = []
        self._process: subprocess.Popen[bytes] | None = None
        self.counts: Counter[str] = Counter()
        self.lost = 0

    def begin(self) -> None:
        """A new cluster, if there is to be one, and the command on it."""
        if not self._over_ray:
            self._command()
            return
        self._cluster = self._opened.enter_context(nodes_of_ray(num_cpus=1))
        self._others = [added(self._cluster) for _ in range(NODES)]
        self._command()

    def _command(self) -> None:
        over = ["executor=processes", "executor.workers=2"]
        if self._over_ray:
            over = ["executor=ray", f"executor.address={self._cluster.address}"]
        self._process = start([*self._overrides, *over, "executor.retries=1000"], self._directory)

    def reach(self, step: int) -> bool:
        """Wait until the run has taken so many steps, and a little longer; False where it has ended before."""
        assert self._process is not None
        seen, since = steps(self._directory), time.monotonic()
        while (now := steps(self._directory)) < step and self._process.poll() is None:
            if now != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() > since + PATIENCE:
                raise RuntimeError(f"no step for {PATIENCE:.0f} s:\n{self._said()[-3000:]}")
            time.sleep(POLL)
        time.sleep(self._chance.uniform(0, PAUSE * self._pace))
        return self._process.poll() is None

    def worker(self) -> bool:
        """Kill a worker; False where there is none."""
        assert self._process is not None
        if self._over_ray:
            nodes = [self._cluster.head_node, *self._others]
            below = [each for node in nodes for each in children(node.all_processes["raylet"][0].process.pid)]
            desks = [each for each in below if command_line(each).startswith(b"ray::Desk")]
        else:
            desks = workers_of(self._process.pid)
        if not desks:
            return False
        with suppress(ProcessLookupError):
            os.kill(self._chance.choice(desks), signal.SIGKILL)
            return True
        return False

    def node(self) -> bool:
        """Remove a node with all that is on it, and add another one; meanwhile the command stands still.

        A node may take a minute to start, in which the run would come to its end before the losses that are left.
        """
        assert self._process is not None
        self._cluster.remove_node(self._others.pop(self._chance.randrange(len(self._others))), allow_graceful=False)
        time.sleep(NOTICED)
        os.kill(self._process.pid, signal.SIGSTOP)
        self._others.append(added(self._cluster))
        os.kill(self._process.pid, signal.SIGCONT)
        return True

    def command(self) -> bool:
        """Kill the command, and give it again."""
        assert self._process is not None
        known = on_file(self._directory)
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.lost += (known - on_file(self._directory)).total()
        self._command()
        return True

    def head(self) -> bool:
        """Kill the head; the command has to end by itself, with a sentence. Then all begins on another cluster."""
        assert self._process is not None
        said = len(self._said())
        os.kill(self._cluster.head_node.all_processes["gcs_server"][0].process.pid, signal.SIGKILL)
        code, words = self._process.wait(TO_END), self._said()[said:]
        if code != 1 or "Ray is lost: its head" not in words or "Traceback" in words:
            raise RuntimeError(f"the head was lost: no clear end (exit code {code}):\n{words[-3000:]}")
        self._opened.close()
        self.begin()
        return True

    def end(self) -> None:
        """Carry the run to its end, and end the cluster."""
        assert self._process is not None
        with self._opened:
            if self._process.wait() != 0:
                raise RuntimeError(self._said()[-3000:])

    def _said(self) -> str:
        file = self._directory.parent / "output.txt"
        return file.read_text(errors="replace") if file.is_file() else ""


def carried_out(
    wanted: dict[str, int], overrides: list[str], root: Path, seed: int, *, steady: bool, over_ray: bool
) -> tuple[Counter[str], list[str]]:
    """How often each loss came, and the names of what then differs from the same run left alone.

    steady: of an asynchronous run, which differs by itself, what is wrong with its own history.
    """
    alone, lossy = root / "alone" / "run", root / "losses" / "run"
    for directory in (alone, lossy):
        directory.parent.mkdir(parents=True)
    whole = left_alone(overrides, alone, start)
    chance = random.Random(seed)
    events = [kind for kind, count in wanted.items() for _ in range(count)]
    chance.shuffle(events)
    places = sorted(chance.sample(range(1, max(len(events) + 2, int(SHARE * whole.steps))), len(events)))
    run = Losses(overrides, lossy, chance, whole.pace, over_ray=over_ray)
    began = time.monotonic()
    run.begin()
    seen = 0  # steps at the last loss
    for place, kind in zip(places, events, strict=True):
        done = False
        while not done and run.reach(max(place, seen + 1)):
            done = getattr(run, kind)()
        if not done:
            raise RuntimeError(f"the run ended before all was lost, after {run.counts}; give it a larger budget")
        seen = steps(lossy)
        run.counts[kind] += 1
        print(f"{time.monotonic() - began:.0f} s, {steps(lossy)} steps: lost a {kind}", flush=True)
    run.end()
    if steady:
        expected, found = {"genomes": whole.genomes, "replay": ""}, of_itself(lossy)
    else:
        expected, found = content(alone), content(lossy)
    expected |= {"lines lost": 0, "scored twice": 0}
    found |= {"lines lost": run.lost, "scored twice": scored_twice(lossy)}
    print(f"{time.monotonic() - began:.0f} s with losses, {whole.genomes} genomes", flush=True)
    return run.counts, sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))


def of_itself(directory: Path) -> dict[str, Any]:
    """The genomes of a run, and why its history does not lead to what it asked, "" where it does."""
    command = [sys.executable, "-m", "evohydra.replay", str(directory)]
    replayed = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    print(replayed.stdout + replayed.stderr, end="", flush=True)
    reason = replayed.stderr if replayed.returncode else ""
    return {"genomes": lines(directory / "ledger.jsonl"), "replay": reason}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Lose parts of a Ray cluster; a run has to end as if left alone.")
    kinds = {"worker": ("--workers", 30), "node": ("--nodes", 5), "command": ("--commands", 10), "head": ("--heads", 1)}
    for flag, count in kinds.values():
        parser.add_argument(flag, type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=int, default=600)
    parser.add_argument("--search", choices=["generations", "steady"], default="generations")
    parser.add_argument("--executor", choices=["ray", "processes"], default="ray")
    given = parser.parse_args()
    steady, over_ray = given.search == "steady", given.executor == "ray"
    os.environ.update(environment())
    with tempfile.TemporaryDirectory() as room:
        root = Path(room)
        overrides = [*workspace(root), f"budget={given.budget}", "top=2", "baselines=null", "threads=1"]
        overrides += [f"search={given.search}"]
        wanted = {kind: getattr(given, f"{kind}s") for kind in kinds if over_ray or kind in ("worker", "command")}
        counts, differing = carried_out(wanted, overrides, root / "runs", given.seed, steady=steady, over_ray=over_ray)
    print(", ".join(f"{count} times a {kind}" for kind, count in counts.items()))
    if differing:
        sys.exit(f"not as it should be: {', '.join(differing)}")
    if steady:
        print("all genomes are there, and the history leads to what was asked")
    else:
        print("the same ledger, scores, summary, recipe and winner as the run that was left alone")
    print("no line lost, nothing scored twice")


if __name__ == "__main__":
    main()
