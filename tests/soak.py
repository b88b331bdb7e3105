"""Kill runs in turn: every optimizer with every kind of fitness, over spaces and families; each must end unharmed.

    python -m tests.soak --minutes 25

Models and budgets are tiny. Each run is a fork of this process, so that libraries are imported once; it is killed as in
tests/kill_repeatedly.py (SIGKILL at random moments of start, search, validation, test and writing), carried to its end,
and compared with one that was left alone: every byte of the winner, ledger, scores, summary and recipe; no line may be
lost, nothing scored twice. What an optimizer or a kind of fitness refuses is counted and named.
"""

import argparse
import importlib
import itertools
import json
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests import tiny_models, tiny_pipelines, tiny_vlms
from tests.commands import carried_out, workspace
from tests.contracts.discovery import composed, names
from tests.kill_repeatedly import Kill, differences

POPULATION, BUDGET = 5, 10  # optimizer=de wants 5
REFUSED = "refused: "  # and the reason: the last line of a run that cannot be
IDLE = {"jemalloc_bg_thd"}  # threads of allocators, which know what to do in forks
COMMON = ["tracker=none", "report=false", "threads=1", "top=1", "baselines=null", f"budget={BUDGET}"]
# A family and a space; diffusion models have parameter space alone.
PLACES = (
    ("causal_lm", "parameter"), ("causal_lm", "dataflow"), ("causal_lm", "hybrid"), ("vision_language", "parameter"),
    ("vision_language", "dataflow"), ("vision_language", "hybrid"), ("diffusion", "parameter"),
)  # fmt: skip
MERGES = {"parameter": "slerp", "dataflow": "dfs", "hybrid": "slerp+dfs"}
FEW_GENES = ["merge.parameter.granularity.layers=whole", "merge.parameter.granularity.edges=false"]
SMALLER = {"grid": ["optimizer.points=2"], "line": ["optimizer.points=3"]}
WITH_PICTURES = (("vision_language", "dataflow"), ("vision_language", "hybrid"))
VERIFIED = "likelihood, verified references"
# As small as the splits of the tiny benchmarks.
FITNESS = {
    "auto": [],
    "full": [],
    "subset": ["fitness.examples=4"],
    "likelihood": ["fitness.examples=4", "fitness.check_every=2"],
    VERIFIED: ["fitness.examples=3", "fitness.check_every=2", "fitness.references=verified"],
    "racing": ["fitness.first=2"],
    "irt": ["fitness.calibrate=4", "fitness.first=2", "fitness.step=1", "fitness.most=4"],
}


class Fork:
    """`what` in a fork of this process, with output and process group of its own; see `kill_repeatedly.Started`."""

    def __init__(self, what: Callable[[], object], output: Path) -> None:
        self._ended: int | None = None
        self.pid = os.fork()
        with suppress(OSError):  # in both processes: whichever is first
            os.setpgid(self.pid, self.pid)
        if self.pid == 0:
            os._exit(_ending(what, output))

    def poll(self) -> int | None:
        """What it ended with, None while it is at work."""
        return self._reap(os.WNOHANG)

    def wait(self) -> int:
        """What it ends with."""
        ended = self._reap(0)
        assert ended is not None
        return ended

    def _reap(self, how: int) -> int | None:
        if self._ended is None:
            pid, status = os.waitpid(self.pid, how)
            self._ended = os.waitstatus_to_exitcode(status) if pid else None
        return self._ended


def _ending(what: Callable[[], object], output: Path) -> int:
    file = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        what()
    except ValueError as error:
        print(f"{REFUSED}{error}", flush=True)
        return 1
    except BaseException:  # this copy of the process must not go on in `main`
        traceback.print_exc()
        return 1
    return 0


def begin(overrides: list[str], directory: Path) -> Fork:
    """A run; see `kill_repeatedly.Start`."""

    def run() -> None:
        directory.mkdir(exist_ok=True)
        carried_out(overrides, directory)

    return Fork(run, directory.parent / "output.txt")


@dataclass(frozen=True)
class Case:
    """What is killed."""

    optimizer: str
    fitness: str
    family: str
    space: str

    def overrides(self, given: dict[str, list[str]]) -> list[str]:
        """Its command line; `given` are those of each family's models."""
        settings = composed(f"optimizer={self.optimizer}")["optimizer"]
        population = [f"optimizer.population={POPULATION}"] if "population" in settings else []
        few = [*SMALLER.get(self.optimizer, []), *(FEW_GENES if self.space == "parameter" else [])]
        fitness = "likelihood" if self.fitness == VERIFIED else self.fitness
        chosen = [f"merge={MERGES[self.space]}", f"optimizer={self.optimizer}", f"fitness={fitness}"]
        if self.fitness == VERIFIED and self.family != "diffusion":  # answers that are right now and then
            chosen += ["benchmark.lm_eval.task=lucky", "benchmark.lm_eval.metric=lucky"]
        first = ["merge.dataflow.first=vlm"] if (self.family, self.space) in WITH_PICTURES else []
        return [*given[self.family], *COMMON, *chosen, *population, *few, *first, *FITNESS[self.fitness]]


def cases(seed: int) -> Iterator[Case]:
    """All pairs of optimizer and fitness, again and again, each time at another place."""
    pairs = list(itertools.product(names("optimizer"), [*names("fitness"), VERIFIED]))
    random.Random(seed).shuffle(pairs)
    for turn in itertools.count():
        for number, (optimizer, fitness) in enumerate(pairs):
            yield Case(optimizer, fitness, *PLACES[(number + turn) % len(PLACES)])


def given(root: Path) -> dict[str, list[str]]:
    """The tiny models and benchmarks of each family, and the overrides that choose them."""
    language = workspace(root / "lm", num_hidden_layers=2)
    tiny_models.save_lucky(root / "lm" / "task")
    return {
        "causal_lm": [each for each in language if not each.startswith("optimizer.")],
        "vision_language": _vision_language(root / "vlm"),
        "diffusion": _diffusion(root / "sdxl"),
    }


def _sources(root: Path, **families: str) -> list[str]:
    (root / "conf" / "model").mkdir(parents=True)
    for name, family in families.items():
        text = f"# @package model.sources.{name}\nfamily: {family}\npath: {root / name}\n"
        (root / "conf" / "model" / f"my_{name}.yaml").write_text(text)
    return [f"hydra.searchpath=[file://{root / 'conf'}]", f"model={'+'.join(f'my_{name}' for name in families)}"]


def _vision_language(root: Path) -> list[str]:
    tiny_vlms.save_vlm(root / "vlm", "llava")
    tiny_vlms.save_language_model(root / "lm", "llama")
    task = tiny_models.save_lucky(tiny_models.save_task(root / "task"))
    plain, ours = "evohydra.families.causal_lm.CausalLM", "evohydra.families.vision_language.VisionLanguage"
    return [
        *_sources(root, lm=plain, vlm=ours), "allow_other_base=true", "batch_size=64", "benchmark=lm_eval",
        "benchmark.lm_eval.task=sums", f"benchmark.lm_eval.include_path={task}", "benchmark.lm_eval.metric=closeness",
    ]  # fmt: skip


def _diffusion(root: Path) -> list[str]:
    root.mkdir()
    tiny_pipelines.save_pair(root)
    size, family = tiny_pipelines.SIZE, "evohydra.families.sdxl.SDXL"
    scorer = "+benchmark.ja_prompts.scorers.brightness={_target_: tests.tiny_scorers.Brightness, _partial_: true}"
    return [
        *_sources(root, one=family, two=family), "benchmark=[ja_prompts]", scorer,
        "benchmark.ja_prompts.use=[brightness]", "benchmark.ja_prompts.limit=6", f"benchmark.ja_prompts.height={size}",
        f"benchmark.ja_prompts.width={size}", "merge.compile=false",
    ]  # fmt: skip


def prepare(root: Path) -> dict[str, list[str]]:
    """What `given` gives, once all is imported here that one run of each family imports.

    The models are made, and these runs are carried out, in forks: they leave threads behind, and a fork of a process
    with threads may hang. RuntimeError where some are left.
    """
    _succeed(lambda: (root / "given.json").write_text(json.dumps(given(root / "models"))), root)
    models: dict[str, list[str]] = json.loads((root / "given.json").read_text())
    for family, overrides in models.items():
        chosen = [*overrides, *COMMON, "merge=slerp", "optimizer=random", f"optimizer.population={POPULATION}"]
        _succeed(lambda family=family, chosen=chosen: _warm_up(chosen, root / family), root)
        for name in json.loads((root / family / "modules.json").read_text()):
            with suppress(Exception):  # some are made by their library, and cannot be imported by name
                importlib.import_module(name)
    threads = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
    if len(busy := [name for name in threads if name not in IDLE]) > 1:
        raise RuntimeError(f"expected one thread, so that a fork cannot hang, got {busy}")
    return models


def _succeed(what: Callable[[], object], root: Path) -> None:
    if Fork(what, root / "prepared.txt").wait() != 0:
        raise RuntimeError((root / "prepared.txt").read_text()[-3000:])


def _warm_up(overrides: list[str], directory: Path) -> None:
    directory.mkdir()
    carried_out(overrides, directory)
    (directory / "modules.json").write_text(json.dumps(sorted(sys.modules)))


def soak(minutes: float, kills: int, seed: int, root: Path) -> tuple[dict[Case, list[Kill]], Counter[str], list[str]]:
    """Kill runs for so long: the kills of each case, what was refused, and what differed."""
    models, until = prepare(root), time.monotonic() + 60 * minutes
    done: dict[Case, list[Kill]] = {}
    refused: Counter[str] = Counter()
    differing: list[str] = []
    for number, case in enumerate(cases(seed)):
        if time.monotonic() > until:
            break
        room = root / str(number)
        try:
            done[case], found = differences(kills, seed + number, case.overrides(models), room, begin)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            if not reason.startswith(REFUSED):
                differing.append(f"{case}: {error}")
            refused[f"{case.optimizer}, {case.fitness}: {reason}"] += 1
            continue
        differing += [f"{case}: {name}" for name in found]
        print(json.dumps({**vars(case), "kills": len(done[case]), "differing": found}), flush=True)
    return done, refused, differing


def report(done: dict[Case, list[Kill]]) -> Iterator[str]:
    """Kills of living processes, by each choice and by phase."""
    hits = {case: [each for each in kills if each.alive] for case, kills in done.items()}
    for key in ("optimizer", "fitness", "family", "space"):
        counted = Counter({str(vars(case)[key]): 0 for case in hits})
        for case, found in hits.items():
            counted[str(vars(case)[key])] += len(found)
        yield f"{key}: {', '.join(f'{name} {count}' for name, count in sorted(counted.items()))}"
    phases = Counter(each.phase for found in hits.values() for each in found)
    yield f"phase: {', '.join(f'{name} {count}' for name, count in sorted(phases.items()))}"
    yield f"{phases.total()} kills of living processes in {len(done)} runs"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Kill runs of all kinds in turn; each must end as if left alone.")
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--kills", type=int, default=4, help="of each run")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        done, refused, differing = soak(arguments.minutes, arguments.kills, arguments.seed, Path(root))
    print(*(f"refused {count} times: {reason}" for reason, count in sorted(refused.items())), sep="\n")
    print(*report(done), sep="\n")
    if differing:
        sys.exit("\n".join(differing))
    print("0 lines lost, nothing scored twice, 0 bits different")


if __name__ == "__main__":
    main()
