"""vLLM and transformers in one process, genome by genome in turn, and a genome by way of the disk beside them.

    PYTHON -m tests.benchmarks.served_both MODELS OUT [--genomes 10] [--answered 64] [--others 100]

PYTHON has vLLM and evohydra (docs/backends.md). MODELS is what tests.benchmarks.smollm2_tune has written, or the word
zoo. Each genome is merged, answers search examples greedily and is asked for the log-likelihood of references, by both.
Then so many other genomes go through vLLM, and the first ones come again: the same bits are expected. By way of the
disk: a genome is written as a checkpoint, and the same engine reads it. Times are seconds of the processor.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from evohydra.recipe import Node
from evohydra.run import Run
from evohydra.scoring.benchmarks.likelihood import likelihood_name
from evohydra.scoring.job import Job
from evohydra.scoring.worker import Worker
from tests.benchmarks.served import apart, itself, noting
from tests.benchmarks.smollm2_search import arguments, random_genomes
from tests.commands import built

ZOO = "zoo"
PARTS = ("merge", "answers", "likelihoods")
Noted = list[tuple[list[int], list[int]]]


def made(models: str, out: Path, backend: str) -> tuple[Run, Worker]:
    """A run, and its worker in this process."""
    plain = ["model=tiny_ja+tiny_math", "benchmark=tiny_gsm_ja", "tracker=none", "threads=1", "batch_size=64"]
    given = plain if models == ZOO else arguments(Path(models), out)
    run = built([*given, "optimizer=cmaes", f"backend={backend}", "executor=local"], out / f"run-{backend}")
    assert isinstance(run, Run)
    return run, run.make_executor().ask(itself)


def scored(worker: Worker, node: Node, name: str, answered: int) -> tuple[dict[str, list[float]], list[float]]:
    """Its scores, and seconds of the processor of each of PARTS."""
    places, likely = list(range(answered)), likelihood_name(name, "token")
    moments = [time.process_time()]
    worker.become(node)
    moments.append(time.process_time())
    written = worker.evaluate(Job(node, "search", {name: places}))
    moments.append(time.process_time())
    told = worker.evaluate(Job(node, "search", {name: [], likely: places}))
    moments.append(time.process_time())
    assert written.error is None, written.error
    merge, answers, likelihoods = np.diff(moments).tolist()
    return {**written.scores, **told.scores}, [merge, answers - merge, likelihoods - merge]  # each job merges again


def by_disk(worker: Worker, node: Node, room: Path) -> list[float]:
    """Seconds to write a genome as a checkpoint, and for the engine to read it."""
    opened, live = worker.sources, worker.live
    room.mkdir(exist_ok=True)
    engine: Any = live.engine  # type: ignore[attr-defined]
    moments = [time.process_time()]
    tensors = {name: each.clone() for name, each in worker.engine.tensors(node, engine._names)}
    tensors |= {name: tensors[other].clone() for name, other in engine._tied.items()}
    save_file(tensors, room / "model.safetensors", {"format": "pt"})
    worker.family.copy_files(opened.directories[opened.files_from], room, live.dtype)
    os.sync()
    moments.append(time.process_time())
    engine._llm.collective_rpc(_read, args=(str(room),))
    moments.append(time.process_time())
    return [float(each) for each in np.diff(moments)]


def _read(worker: Any, room: str) -> None:
    """What vLLM's worker does: its own way to load weights from a folder."""
    worker.model_runner.vllm_config.load_config.load_format = "safetensors"  # ours is made without files
    worker.model_runner.reload_weights(weights_path=room, is_checkpoint_format=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="vLLM and transformers in one process.")
    parser.add_argument("models")
    parser.add_argument("out", type=Path)
    for name, default in (("genomes", 10), ("answered", 64), ("others", 100), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    begun = time.process_time()
    run, vllm = made(given.models, given.out, "vllm")
    starting = {"vllm": time.process_time() - begun}
    begun = time.process_time()
    _, plain = made(given.models, given.out, "transformers")
    starting["transformers"] = time.process_time() - begun
    (name,) = run.benchmarks
    space = run.plan.space
    count = given.genomes - len(run.models.sources) + given.others
    drawn = [space.decode(each) for each in random_genomes(count, len(space.names), 2, given.seed)]
    nodes = [*run.models.sources.values(), *drawn][: given.genomes]
    workers, noted = {"vllm": vllm, "transformers": plain}, {"vllm": list[Any](), "transformers": list[Any]()}
    for backend, worker in workers.items():
        scored(worker, nodes[0], name, 2)  # what is done once
        noting(worker, name, noted[backend])
    seconds: dict[str, list[list[float]]] = {backend: [] for backend in workers}
    known: dict[str, list[dict[str, list[float]]]] = {backend: [] for backend in workers}
    answers = 0
    differing: list[dict[str, float]] = []
    for node in nodes:
        for backend, worker in workers.items():
            noted[backend].clear()
            found, spent = scored(worker, node, name, given.answered)
            known[backend].append(found)
            seconds[backend].append(spent)
        answers += len(noted["vllm"])
        differing += apart(plain, noted["vllm"], noted["transformers"])
    for node in drawn[-given.others :] if given.others else ():
        vllm.evaluate(Job(node, "search", {name: list(range(4))}))
    again = [scored(vllm, node, name, given.answered)[0] for node in nodes]
    same = sum(one == other for one, other in zip(known["vllm"], again, strict=True))
    likely = likelihood_name(name, "token")
    worst = max(
        float(np.abs(np.subtract(one[likely], other[likely])).max())
        for one, other in zip(known["vllm"], known["transformers"], strict=True)
    )
    equal = sum(one[name] == other[name] for one, other in zip(known["vllm"], known["transformers"], strict=True))
    disk = by_disk(vllm, nodes[-1], given.out / "checkpoint")
    told = {
        "genomes": len(nodes), "same bits after others": same, "others": given.others,
        "answers": answers, "that differ": differing, "genomes with equal scores": equal,
        "largest difference of a log-likelihood per token": worst, "starting": starting,
        "seconds": {b: dict(zip(PARTS, np.mean(each, axis=0).tolist(), strict=True)) for b, each in seconds.items()},
        "disk": {"write": disk[0], "read": disk[1]},
    }  # fmt: skip
    (given.out / "both.json").write_text(json.dumps(told))
    (given.out / f"scores-{os.getpid()}.json").write_text(json.dumps(known["vllm"]))
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
