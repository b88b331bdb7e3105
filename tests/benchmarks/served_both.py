"""vLLM and transformers in one process, genome by genome in turn, and a genome by way of the disk beside them.

    PYTHON -m tests.benchmarks.served_both MODELS OUT [--genomes 10] [--answered 64] [--others 100] [--device auto]

PYTHON has vLLM and evohydra (docs/backends.md). MODELS is what tests.benchmarks.smollm2_tune has written, or zoo, or
7B: random models of Mistral 7B's shape, which write 200 tokens to each problem of the zoo. Each genome is merged,
answers search examples greedily and is asked for the log-likelihood of references, by both. Then so many other genomes
go through vLLM, and the first ones come again: the same bits are expected. By way of the disk, each genome: it is
written as a checkpoint, and the same engine reads it; the last one also by an engine that a new process starts. Times
are seconds of the processor (`seconds`) and of the clock (`wall`).
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from transformers import GenerationConfig, MistralConfig, MistralForCausalLM

from evohydra.families.vllm_engine import INVARIANT
from evohydra.recipe import Node
from evohydra.run import Run
from evohydra.scoring.benchmarks.likelihood import likelihood_name
from evohydra.scoring.job import Job
from evohydra.scoring.worker import Worker
from tests.benchmarks.plan_paper import MISTRAL
from tests.benchmarks.served import apart, itself, noting
from tests.benchmarks.smollm2_search import arguments, random_genomes
from tests.commands import REPOSITORY, built, environment

ZOO, SEVEN = "zoo", "7B"
WRITTEN = 200  # tokens of an answer of random models, which do not end by themselves
PARTS = ("merge", "answers", "likelihoods")
Spent = NDArray[np.float64]  # (parts, 2)


def save_sources(root: Path, **shape: int) -> list[str]:
    """Random models of a shape in bfloat16, with the zoo's tokenizer; the overrides of a run on them."""
    zoo = REPOSITORY / "evohydra" / "zoo" / "base"
    overrides = []
    for seed, name in enumerate(("base", "tiny_ja", "tiny_math")):
        folder = root / name
        if not folder.exists():
            torch.manual_seed(seed)
            config = MistralConfig(
                **shape, tie_word_embeddings=False, bos_token_id=None, eos_token_id=1, pad_token_id=0
            )
            model = MistralForCausalLM._from_config(config, dtype=torch.bfloat16)
            model.generation_config = GenerationConfig(eos_token_id=1, pad_token_id=0)
            model.save_pretrained(folder)
            for file in zoo.glob("tokenizer*"):
                shutil.copyfile(file, folder / file.name)
        if name != "base":
            overrides += [f"model.sources.{name}.path={folder}", f"model.sources.{name}.base={root / 'base'}"]
    return [*overrides, f"benchmark.tiny_gsm_ja.generation_kwargs={{max_gen_toks: {WRITTEN}}}"]


def made(models: str, out: Path, backend: str, device: str) -> tuple[Run, Worker]:
    """A run, and its worker in this process."""
    given = ["model=tiny_ja+tiny_math", "benchmark=tiny_gsm_ja", "tracker=none", "threads=1", "batch_size=64"]
    if models == SEVEN:
        given += save_sources(out / "sources", **MISTRAL, max_position_embeddings=4096)
    elif models != ZOO:
        given = arguments(Path(models), out)
    given += ["optimizer=cmaes", f"backend={backend}", "executor=local", f"device={device}"]
    run = built(given, out / f"run-{backend}")
    assert isinstance(run, Run)
    return run, run.make_executor().ask(itself)


def scored(worker: Worker, node: Node, name: str, answered: int) -> tuple[dict[str, list[float]], Spent]:
    """Its scores, and seconds, (of the processor, of the clock), of each of PARTS."""
    places, likely = list(range(answered)), likelihood_name(name, "token")
    moments = [now()]
    worker.become(node)
    moments.append(now())
    written = worker.evaluate(Job(node, "search", {name: places}))
    moments.append(now())
    told = worker.evaluate(Job(node, "search", {name: [], likely: places}))
    moments.append(now())
    assert written.error is None, written.error
    merge, answers, likelihoods = np.diff(moments, axis=0)
    spent = np.stack([merge, answers - merge, likelihoods - merge])  # each job merges again
    return {**written.scores, **told.scores}, spent


def now() -> tuple[float, float]:
    """Of the processor, and of the clock; what a GPU was given is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.process_time(), time.perf_counter()


def by_disk(worker: Worker, node: Node, room: Path) -> Spent:
    """Seconds, (of the processor, of the clock), to write a genome as a checkpoint, and for the engine to read it."""
    opened, live = worker.sources, worker.live
    room.mkdir(exist_ok=True)
    engine: Any = live.engine  # type: ignore[attr-defined]
    moments = [now()]
    tensors = {name: each.clone() for name, each in worker.engine.tensors(node, engine._names)}
    tensors |= {name: tensors[other].clone() for name, other in engine._tied.items()}
    save_file(tensors, room / "model.safetensors", {"format": "pt"})
    worker.family.copy_files(opened.directories[opened.files_from], room, live.dtype)
    with (room / "model.safetensors").open("rb") as written:
        os.fsync(written.fileno())
    moments.append(now())
    engine._llm.collective_rpc(_read, args=(str(room),))
    moments.append(now())
    found: Spent = np.diff(moments, axis=0)
    return found


def started(room: Path, context: int) -> list[float]:
    """Seconds, (of the processor, of the clock), of a process that starts an engine on a checkpoint, with imports."""
    options = {
        "dtype": "float32", "max_model_len": context, "max_num_seqs": 64, "enforce_eager": True,
        "kv_cache_memory_bytes": 1024**3,
    }  # fmt: skip
    text = f"from vllm import LLM\nif __name__ == '__main__':\n    LLM({str(room)!r}, **{options!r})\n"
    script = room / "start.py"
    script.write_text(text)
    begun, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, str(script)], check=True, env=environment(), stdin=subprocess.DEVNULL)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime
    return [processor, time.perf_counter() - clock]


def _read(worker: Any, room: str) -> None:
    """What vLLM's worker does: its own way to load weights from a folder."""
    worker.model_runner.vllm_config.load_config.load_format = "safetensors"  # ours is made without files
    worker.model_runner.reload_weights(weights_path=room, is_checkpoint_format=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="vLLM and transformers in one process.")
    parser.add_argument("models")
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--genomes", type=int, default=10)
    parser.add_argument("--answered", type=int, default=64)
    parser.add_argument("--others", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", action="store_true", help="also start an engine in a new process (in float32)")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    begun = time.process_time()
    run, vllm = made(given.models, given.out, "vllm", given.device)
    starting = {"vllm": time.process_time() - begun}
    begun = time.process_time()
    _, plain = made(given.models, given.out, "transformers", given.device)
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
    seconds: dict[str, list[Spent]] = {backend: [] for backend in workers}
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
    disk = np.mean([by_disk(vllm, node, given.out / "checkpoint") for node in nodes], axis=0)
    served: Any = vllm.live
    new = started(given.out / "checkpoint", served.engine.context) if given.start else None
    on_gpu = torch.cuda.is_available()
    told = {
        "genomes": len(nodes), "same bits after others": same, "others": given.others,
        "answers": answers, "that differ": differing, "genomes with equal scores": equal,
        "largest difference of a log-likelihood per token": worst, "starting": starting,
        **{kind: {b: dict(zip(PARTS, np.mean(each, axis=0)[:, column].tolist(), strict=True))
                  for b, each in seconds.items()} for column, kind in enumerate(("seconds", "wall"))},
        "disk": {"write": disk[0, 1], "read": disk[1, 1]},
        "disk of the processor": {"write": disk[0, 0], "read": disk[1, 0]},
        "an engine in a new process": new,
        "gpu bytes": torch.cuda.mem_get_info()[1] - torch.cuda.mem_get_info()[0] if on_gpu else 0,
        "invariant": os.environ.get(INVARIANT) == "1",
    }  # fmt: skip
    (given.out / "both.json").write_text(json.dumps(told))
    (given.out / f"scores-{os.getpid()}.json").write_text(json.dumps(known["vllm"]))
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
