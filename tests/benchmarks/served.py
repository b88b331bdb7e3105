"""vLLM against transformers on merges of SmolLM2-135M: the same answers, the same whatever came before, and how fast.

    PYTHON -m tests.benchmarks.served score MODELS OUT vllm
    PYTHON -m tests.benchmarks.served score MODELS OUT vllm --backwards
    PYTHON -m tests.benchmarks.served score MODELS OUT transformers
    PYTHON -m tests.benchmarks.served disk MODELS OUT
    PYTHON -m tests.benchmarks.served table OUT

PYTHON has vLLM and evohydra (docs/backends.md). MODELS is what tests.benchmarks.smollm2_tune has written. Genomes are
the two sources, their average and random ones of task arithmetic; each answers the first search examples greedily, and
is asked for the log-likelihood of references to some of them. `score ... transformers` comes after the first: where an
answer differs from vLLM's, it looks at the logits of both tokens. `disk` is the other way: a genome is written as a
checkpoint, and an engine is started on it. All times are given as seconds of the clock and of the processor.
"""

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from evohydra.recipe import Node
from evohydra.run import Run
from evohydra.scoring.benchmarks.likelihood import likelihood_name
from evohydra.scoring.job import Job
from evohydra.scoring.worker import Worker
from tests.benchmarks.smollm2_search import arguments, random_genomes
from tests.commands import built

GENOMES, ANSWERED, LIKELY = 10, 64, 32


def made(models: Path, out: Path, backend: str) -> tuple[Run, Worker, dict[str, Node]]:
    """A run, its worker, and the recipes that are scored."""
    run = built([*arguments(models, out), "optimizer=cmaes", f"backend={backend}"], out / f"run-{backend}")
    assert isinstance(run, Run)
    known: dict[str, Node] = {**run.models.sources}
    if run.models.uniform is not None:
        known["uniform"] = run.models.uniform
    space = run.plan.space
    for number, genome in enumerate(random_genomes(GENOMES - len(known), len(space.names), 2, 1)):
        known[f"random {number}"] = space.decode(genome)
    return run, run.make_executor().ask(itself), known


def itself(worker: Worker) -> Worker:
    """The worker, which is in this process."""
    return worker


class Spent:
    """Seconds of the clock and of the processor."""

    def __enter__(self) -> "Spent":
        self._from = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = [time.perf_counter() - self._from[0], time.process_time() - self._from[1]]


def noting(worker: Worker, name: str, noted: list[tuple[list[int], list[int]]]) -> None:
    """Note prompts and answers in tokens, without what fills them up, from now on."""
    lm: Any = worker.benchmarks[name]._lm  # type: ignore[attr-defined]
    generate: Callable[..., torch.Tensor] = lm._model_generate
    ends = {lm.tokenizer.pad_token_id, lm.tokenizer.eos_token_id}

    def watched(context: torch.Tensor, max_length: int, stop: list[str], **options: Any) -> torch.Tensor:
        told = generate(context, max_length, stop, **options)
        for row, whole in zip(options["attention_mask"], told.tolist(), strict=True):
            padding = int((row == 0).sum())
            answer = itertools.takewhile(lambda token: token not in ends, whole[context.shape[1] :])
            noted.append((whole[padding : context.shape[1]], list(answer)))
        return told

    lm._model_generate = watched


def score(models: Path, out: Path, backend: str, *, backwards: bool, answered: int, likely: int) -> None:
    """Score all genomes; a file for each."""
    with Spent() as starting:
        run, worker, recipes = made(models, out, backend)
    (name,) = run.benchmarks
    noted: list[tuple[list[int], list[int]]] = []
    worker.evaluate(Job(run.models.sources["steps"], "search", {name: [0], likelihood_name(name, "token"): [0]}))
    noting(worker, name, noted)
    order = list(recipes.items())[:: -1 if backwards else 1]
    target = out / (f"{backend} backwards" if backwards else backend)
    target.mkdir(exist_ok=True)
    (target / "start.json").write_text(json.dumps(starting.seconds))
    for label, node in order:
        noted.clear()
        with Spent() as merging:
            worker.become(node)
        with Spent() as answering:
            written = worker.evaluate(Job(node, "search", {name: list(range(answered))}))
        with Spent() as reading:
            told = worker.evaluate(Job(node, "search", {name: [], likelihood_name(name, "token"): list(range(likely))}))
        found = {
            "scores": {**written.scores, **told.scores},
            "merging": merging.seconds,
            "answering": answering.seconds,
            "reading": reading.seconds,
            "answers": sorted(noted),
            "errors": [written.error, told.error],
            "ends": written.ends,
            "tokens": [written.tokens, told.tokens],
        }
        if backend == "transformers":
            found["apart"] = apart(worker, json.loads((out / "vllm" / f"{label}.json").read_text())["answers"], noted)
        (target / f"{label}.json").write_text(json.dumps(found))
        print(label, {k: [round(s, 2) for s in found[k]] for k in ("merging", "answering", "reading")}, flush=True)


@torch.inference_mode()
def apart(worker: Worker, theirs: list[Any], ours: list[tuple[list[int], list[int]]]) -> list[dict[str, float]]:
    """Where answers differ: the logits that transformers gives both tokens, vLLM's and its own."""
    known = {tuple(prompt): answer for prompt, answer in theirs}
    found = []
    for prompt, answer in ours:
        other = known[tuple(prompt)]
        at = next((n for n, (a, b) in enumerate(itertools.zip_longest(answer, other)) if a != b), None)
        if at is not None:
            logits = worker.live.module(input_ids=torch.tensor([[*prompt, *answer[:at]]])).logits[0, -1]
            end = worker.live.tokenizer.eos_token_id
            tokens = [each[at] if at < len(each) else end for each in (answer, other)]
            best = logits.topk(2).values.tolist()
            found.append(
                {
                    "place": at,
                    "ours": float(logits[tokens[0]]),
                    "theirs": float(logits[tokens[1]]),
                    "largest": best[0],
                    "next": best[1],
                }
            )
    return found


def disk(models: Path, out: Path) -> None:
    """Write a genome as a checkpoint, start an engine on it, and let it write the same answers."""
    from vllm import LLM, SamplingParams

    _, worker, recipes = made(models, out, "transformers")
    known = json.loads((out / "vllm" / "random 1.json").read_text())["answers"]
    with tempfile.TemporaryDirectory() as room:
        opened = worker.sources
        with Spent() as writing:
            names = list(worker.live.parameters)
            tensors = {name: each.clone() for name, each in worker.engine.tensors(recipes["random 1"], names)}
            save_file(tensors, Path(room) / "model.safetensors", {"format": "pt"})
            worker.family.copy_files(opened.directories[opened.files_from], Path(room), worker.live.dtype)
        with Spent() as starting:
            llm = LLM(
                room,
                dtype="float32",
                max_model_len=8192,
                max_num_seqs=64,
                enforce_eager=True,
                kv_cache_memory_bytes=1024**3,
            )
        with Spent() as answering:
            told = llm.generate(
                [{"prompt_token_ids": prompt} for prompt, _ in known],
                SamplingParams(temperature=0, max_tokens=max(len(answer) for _, answer in known), stop=["\n"]),
            )
    found = {
        "writing": writing.seconds,
        "starting": starting.seconds,
        "answering": answering.seconds,
        "answers": len(told),
    }
    (out / "disk.json").write_text(json.dumps(found))
    print(found)


def table(out: Path) -> None:
    """What the files hold."""
    files = {
        kind: {f.stem: json.loads(f.read_text()) for f in (out / kind).glob("*.json") if f.stem != "start"}
        for kind in ("vllm", "vllm backwards", "transformers")
    }
    ours, theirs = files["vllm"], files["transformers"]
    print(f"{len(ours)} genomes")
    again = files["vllm backwards"]
    same = [label for label in again if again[label]["scores"] == ours[label]["scores"]]
    print(f"the same scores in the other order: {len(same)} of {len(again)}")
    both = sorted(ours.keys() & theirs.keys())
    differing = [each for label in both for each in theirs[label]["apart"]]
    total = sum(len(theirs[label]["answers"]) for label in both)
    print(f"answers that differ, token by token: {len(differing)} of {total}")
    for each in differing:
        print("  ", {key: round(value, 5) for key, value in each.items()})
    worst = max(_difference(ours[label]["scores"], theirs[label]["scores"]) for label in both)
    print(f"largest difference of a log-likelihood per token: {worst:.2g}")
    for part in ("merging", "answering", "reading"):
        means = {
            kind: np.mean([files[kind][label][part] for label in both], axis=0) for kind in ("vllm", "transformers")
        }
        print(part, {kind: [round(float(s), 2) for s in each] for kind, each in means.items()}, "clock, processor")
    print("start", {kind: json.loads((out / kind / "start.json").read_text()) for kind in ("vllm", "transformers")})
    if (out / "disk.json").is_file():
        print("disk", (out / "disk.json").read_text())


def _difference(one: Mapping[str, list[float]], other: Mapping[str, list[float]]) -> float:
    (name,) = [name for name in one if name.startswith("log-likelihood")]
    return float(np.abs(np.subtract(one[name], other[name])).max())


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="vLLM against transformers on merges of SmolLM2-135M.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("score", "disk", "table"):
        of = commands.add_parser(command)
        if command != "table":
            of.add_argument("models", type=Path)
        of.add_argument("out", type=Path)
        if command == "score":
            of.add_argument("backend", choices=["vllm", "transformers"])
            of.add_argument("--backwards", action="store_true")
            of.add_argument("--answered", type=int, default=ANSWERED)
            of.add_argument("--likely", type=int, default=LIKELY)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.command == "score":
        score(
            given.models,
            given.out,
            given.backend,
            backwards=given.backwards,
            answered=given.answered,
            likely=given.likely,
        )
    elif given.command == "disk":
        disk(given.models, given.out)
    else:
        table(given.out)


if __name__ == "__main__":
    main()
