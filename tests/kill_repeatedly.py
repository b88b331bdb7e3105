"""Kill a run again and again, carry it to its end, and compare it with one that was left alone.

    python -m tests.kill_repeatedly --kills 20 -- model=tiny_ja+tiny_math budget=30 tracker=none

    python -m tests.kill_repeatedly --workers --kills 20 -- executor=processes executor.workers=2 tracker=none

After each kill it looks whether every line that was on file is there still, and at the end whether anything was scored
twice: a run that forgets and scores again ends as if nothing had happened, too. (What a process was scoring when it was
killed is scored again, one job for each worker.)

What follows -- are overrides of the run, but for its name. Every third kill comes at a random moment of the time that
the command needs to start; each of the others waits until the run has taken a random number of new steps (lines of
ledger.jsonl, scores.jsonl, references.jsonl and events.jsonl, files of the winner), and then a little longer. So kills
land in the start, in the search, on validation and test, and while the winner is written.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

LOGS = ("ledger.jsonl", "scores.jsonl", "references.jsonl", "events.jsonl")  # the last two are not there in every run
ROOM = ".result.partial"
STEP_FILES = (
    ROOM, f"{ROOM}/.winner.partial", f"{ROOM}/.winner.partial/model.safetensors", f"{ROOM}/winner", "winner",
    "summary.json",
)  # fmt: skip
POLL = 0.0005  # seconds


@dataclass(frozen=True)
class Kill:
    """One kill: whether the process was alive, in which phase it was, and the lines that it left.

    lost: how many lines that were on file when it started are gone.
    """

    alive: bool
    phase: str
    genomes: int
    finals: int
    lost: int


class Started(Protocol):
    """A run that has been started, as Popen knows it; it leads a process group of its own."""

    pid: int

    def poll(self) -> int | None:
        """What it ended with, None while it is at work."""
        ...

    def wait(self) -> int:
        """What it ends with."""
        ...


Start = Callable[[list[str], Path], Started]  # from overrides, in a directory; its output goes to output.txt beside it


def start(overrides: list[str], directory: Path) -> subprocess.Popen[bytes]:
    """The run in `directory`, leading a process group of its own."""
    command = [sys.executable, "-m", "evohydra", *overrides, f"hydra.run.dir={directory}"]
    log = (directory.parent / "output.txt").open("ab")
    with log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, preexec_fn=_interruptible
        )


def _interruptible() -> None:
    """Ctrl-C ends a process again where a shell had it ignored, as it has for commands in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finish(overrides: list[str], directory: Path, begin: Start = start) -> None:
    """The run carried to its end; RuntimeError with its output where that fails."""
    if begin(overrides, directory).wait() != 0:
        raise RuntimeError((directory.parent / "output.txt").read_text()[-3000:])


def lines(path: Path) -> int:
    """How many whole lines `path` has."""
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def on_file(directory: Path) -> Counter[bytes]:
    """The whole lines of all logs; no two are the same, for each tells how long it took, its model, or its ask."""
    found: Counter[bytes] = Counter()
    for path in (directory / name for name in LOGS):
        content = path.read_bytes() if path.is_file() else b""
        found.update(path.name.encode() + line for line in content[: content.rfind(b"\n") + 1].splitlines())
    return found


def scored_twice(directory: Path) -> int:
    """How many scores on file were computed although they were on file already."""
    entries = [json.loads(line) for line in (directory / "scores.jsonl").read_text().splitlines()]
    keys = Counter(json.dumps([e["recipe"], e["split"], e["examples"]]) for e in entries if not e["copied"])
    return sum(count - 1 for count in keys.values())


def steps(directory: Path) -> int:
    """How far the run has come; it only grows, but for the winner's own files."""
    written = sum((directory / name).exists() for name in STEP_FILES)
    return sum(lines(directory / name) for name in LOGS) + written


def phase(directory: Path, genomes: int) -> str:
    """What a run that is to evaluate `genomes` genomes, and has taken its first step, is busy with."""
    if any((directory / name).exists() for name in ("winner", ROOM, ".result")):
        return "writing the winner"
    return "search" if lines(directory / "ledger.jsonl") < genomes else "validation and test"


def kill(
    overrides: list[str],
    directory: Path,
    genomes: int,
    *,
    after: float,
    more: int,
    longer: float,
    begin: Start = start,
) -> Kill:
    """Start the run; kill its group `after` seconds, or `longer` seconds after it has taken `more` steps."""
    before, known = steps(directory), on_file(directory)
    process = begin(overrides, directory)
    until = time.monotonic() + after
    while process.poll() is None and time.monotonic() < until and steps(directory) < before + more:
        time.sleep(POLL)
    time.sleep(longer)
    alive = process.poll() is None
    when = phase(directory, genomes) if steps(directory) > before else "start"
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    lost = (known - on_file(directory)).total()
    return Kill(alive, when, *(lines(directory / name) for name in LOGS[:2]), lost)


def without_seconds(data: Any) -> Any:
    """`data` without what no two runs have in common."""
    if isinstance(data, dict):
        return {key: without_seconds(value) for key, value in data.items() if key not in ("seconds", "check")}
    return [without_seconds(value) for value in data] if isinstance(data, list) else data


def content(directory: Path) -> dict[str, Any]:
    """All that a run promises to repeat: ledgers, summary, recipe, and every byte of the winner."""
    found: dict[str, Any] = {
        str(path.relative_to(directory)): path.read_bytes()
        for path in (directory / "winner").rglob("*")
        if path.is_file()
    }
    for name in filter(lambda name: (directory / name).exists(), LOGS):
        found[name] = [without_seconds(json.loads(line)) for line in (directory / name).read_text().splitlines()]
    found["scores.jsonl"].sort(key=json.dumps)  # workers are done in any order
    for name in ("summary.json", "recipe.json", "run.json"):
        found[name] = without_seconds(json.loads((directory / name).read_text()))
    left_over = (".partial", ".tmp", ".result")
    found["left over"] = [path.name for path in directory.iterdir() if path.name.endswith(left_over)]
    return found


@dataclass(frozen=True)
class Alone:
    """A run that was left alone: its genomes, its steps, and the seconds to its first line and for each later step."""

    genomes: int
    steps: int
    starting: float
    pace: float


def left_alone(overrides: list[str], directory: Path, begin: Start) -> Alone:
    """Carry the run to its end; RuntimeError with its output where that fails."""
    began = time.monotonic()
    process = begin(overrides, directory)
    while process.poll() is None and not lines(directory / "ledger.jsonl"):
        time.sleep(POLL)
    first_line = time.monotonic()
    if process.wait() != 0:
        raise RuntimeError((directory.parent / "output.txt").read_text()[-3000:])
    total = steps(directory) + 4  # those that are gone by now
    pace = (time.monotonic() - first_line) / total
    return Alone(lines(directory / "ledger.jsonl"), total, first_line - began, pace)


def differences(
    kills: int, seed: int, overrides: list[str], root: Path, begin: Start = start
) -> tuple[list[Kill], list[str]]:
    """`kills` kills of a run, and the names of what then differs from the same run left alone.

    "lines lost" and "scored twice" are among them where there are any.
    """
    runs = {name: root / name / "run" for name in ("alone", "killed")}
    for directory in runs.values():
        directory.parent.mkdir(parents=True)
    alone = left_alone(overrides, runs["alone"], begin)
    generator = random.Random(seed)
    done = []
    for number in range(kills):
        by_time = number % 3 == 0
        # On average the kills that are left share the steps that are left.
        left = alone.steps - steps(runs["killed"])
        furthest = min(left - 1, 2 * left // (1 + (kills - number) * 2 // 3))
        done.append(
            kill(
                overrides,
                runs["killed"],
                alone.genomes,
                after=generator.uniform(0, alone.starting) if by_time else 3600.0,
                more=10**9 if by_time else generator.randint(1, max(1, furthest)),
                longer=generator.uniform(0, alone.pace),
                begin=begin,
            )
        )
    known = on_file(runs["killed"])
    finish(overrides, runs["killed"], begin)
    expected, found = content(runs["alone"]), content(runs["killed"])
    found["lines lost"] = sum(each.lost for each in done) + (known - on_file(runs["killed"])).total()
    found["scored twice"] = scored_twice(runs["killed"])
    expected |= {"lines lost": 0, "scored twice": 0}
    return done, sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))


def told(number: int, each: Kill) -> str:
    """A kill in words."""
    return (
        f"kill {number}: {each.phase}, {'alive' if each.alive else 'it had ended'}, {each.genomes} genomes and "
        f"{each.finals} scores on file, {each.lost} lines lost"
    )


def workers_of(process: int) -> list[int]:
    """The processes of the workers of a driver, with executor=processes or a Ray of its own."""
    begun = [child for child in children(process) if b"multiprocessing.forkserver" in command_line(child)]
    found = [worker for each in begun for worker in children(each)]
    deeper = [each for child in children(process) for each in children(child)]
    return [*found, *(each for each in deeper if command_line(each).startswith(b"ray::Desk"))]


def children(process: int) -> list[int]:
    """The processes that a process has started, but for those that have ended."""
    file = Path(f"/proc/{process}/task/{process}/children")
    return [int(child) for child in file.read_text().split()] if file.exists() else []


def command_line(process: int) -> bytes:
    """The command line of a process; empty where it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def workers_killed(
    kills: int, seed: int, overrides: list[str], root: Path, begin: Start = start
) -> tuple[int, list[str]]:
    """A run of which `kills` workers are killed, one after the other: how many, and what then differs."""
    alone, killed = root / "alone" / "run", root / "killed" / "run"
    for directory in (alone, killed):
        directory.parent.mkdir(parents=True)
    finish(overrides, alone, begin)
    generator, done = random.Random(seed), 0
    process = begin([*overrides, f"executor.retries={kills}"], killed)
    pace = 0.0
    while process.poll() is None and done < kills:
        before, began = steps(killed), time.monotonic()
        while process.poll() is None and steps(killed) == before and time.monotonic() < began + 30:
            time.sleep(POLL)
        pace = max(pace, min(1.0, time.monotonic() - began))
        time.sleep(generator.uniform(0, pace))
        try:
            os.kill(generator.choice(workers_of(process.pid)), signal.SIGKILL)
        except (IndexError, OSError):
            continue
        done += 1
        print(f"killed worker {done}, {lines(killed / 'ledger.jsonl')} genomes on file", flush=True)
    if process.wait() != 0:
        raise RuntimeError((killed.parent / "output.txt").read_text()[-3000:])
    expected, found = content(alone), content(killed)
    expected["scored twice"], found["scored twice"] = 0, scored_twice(killed)
    return done, sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Kill a run again and again; it must end as if nothing had happened.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", action="store_true", help="kill workers of executor=processes, not the driver")
    parser.add_argument("overrides", nargs="*", help="overrides of the run, after --")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        if arguments.workers:
            hit, differing = workers_killed(arguments.kills, arguments.seed, arguments.overrides, Path(root))
        else:
            kills, differing = differences(arguments.kills, arguments.seed, arguments.overrides, Path(root))
            hit = sum(kill.alive for kill in kills)
            print(*(told(number, each) for number, each in enumerate(kills, start=1)), sep="\n")
    print(f"{hit} of {arguments.kills} kills hit a living process")
    if differing:
        sys.exit(f"differs from the run that was left alone: {', '.join(differing)}")
    print("the same ledger, summary, recipe and winner as the run that was left alone")
    print("no line lost, nothing scored twice")


if __name__ == "__main__":
    main()
