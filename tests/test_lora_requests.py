"""Genomes as LoRA requests: what vLLM is given and asked, by a stand-in; tests/test_vllm.py has vLLM itself."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from evohydra.assembly.backends import VLLM
from evohydra.families.causal_lm import CausalLM
from evohydra.families.genome_adapters import parted
from evohydra.families.sources import OpenSources
from evohydra.families.vllm_adapters import Adapters, Genomes, write
from evohydra.merging.engine import Engine, MergeError
from evohydra.recipe import Merge
from evohydra.scoring.executors.local import Local
from evohydra.scoring.executors.pool import Pool, Seat
from evohydra.scoring.job import Evaluation, Job
from evohydra.searching.identity import differences
from tests.commands import built
from tests.test_adapter_genomes import LORAS, logits, weighed
from tests.test_adapter_merges import OF_LLAMA, merge, opened

CPU = torch.device("cpu")
SOME = {name: OF_LLAMA[name] for name in ("one", "two")}  # of linear layers alone, of ranks 4 and 2
ASKED = [[1, 2], [3]]


@dataclass
class Noting:
    """In the place of vLLM: what an adapter answers is its number and the text; bad: adapters that give no numbers."""

    bad: tuple[int, ...] = ()
    held: set[int] = field(default_factory=set)
    batches: list[list[object]] = field(default_factory=list)
    _counted: int = 0

    def add(self, number: int, directory: Path) -> object:
        assert load_file(directory / "adapter_model.safetensors")
        self.held.add(number)
        return number

    def remove(self, number: int) -> None:
        self.held.remove(number)

    def told(self, texts: Sequence[Sequence[int]], asked: object, carried: Sequence[object]) -> list[object]:
        assert self.held.issuperset(carried)  # type: ignore[arg-type]
        self.batches.append(list(carried))
        self._counted += sum(each in self.bad for each in carried)
        return [(number, list(text)) for number, text in zip(carried, texts, strict=True)]

    def not_numbers(self) -> tuple[int, int]:
        found, self._counted = self._counted, 0
        return found, 9


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> OpenSources:
    return opened(tmp_path_factory.mktemp("llama"), SOME)


@pytest.fixture(scope="module")
def engine(sources: OpenSources) -> Engine:
    return Engine(sources.tensors, device=CPU, dtype=torch.float32)


def four(sources: OpenSources) -> list[Merge]:
    node = merge(sources, "task_arithmetic")
    return [weighed(node, size, 1.0) for size in (0.1, 0.2, 0.3, 0.4)]


def adapters(node: Merge, engine: Engine, together: int = 3) -> Adapters:
    changes, _ = parted(node, engine)
    return Adapters({name: name.removesuffix(".weight") for name in changes}, 6, together)


def test_what_is_written_is_the_genome(sources: OpenSources, engine: Engine, tmp_path: Path) -> None:
    """PEFT's own model of the base with it, against the merge; layers that one adapter leaves have a smaller rank."""
    node = four(sources)[2]
    changes, _ = parted(node, engine)
    assert {change.rank for change in changes.values()} == {2, 4, 6}
    write(tmp_path, changes, adapters(node, engine), torch.float32)
    assert {
        tensor.shape[0]
        for name, tensor in load_file(tmp_path / "adapter_model.safetensors").items()
        if "lora_A" in name
    } == {6}  # vLLM takes one rank for all
    base = AutoModelForCausalLM.from_pretrained(sources.directories["base"])
    plain = CausalLM().live_model(sources.directories["base"], CPU, torch.float32, sources.overlay)
    plain.become(node, engine)
    tokens = (torch.arange(12) * 7 + 3) % plain.module.get_input_embeddings().num_embeddings  # type: ignore[operator]
    with torch.inference_mode():
        found = peft.PeftModel.from_pretrained(base, tmp_path)(input_ids=tokens[None]).logits
    torch.testing.assert_close(found, logits(plain), rtol=1e-3, atol=1e-3)


def test_genomes_that_are_asked_the_same_are_one_batch(sources: OpenSources, engine: Engine) -> None:
    vllm, nodes = Noting(), four(sources)
    genomes = Genomes(adapters(nodes[0], engine), torch.float32, vllm)
    genomes.load([nodes[0], nodes[0], *nodes[1:]], engine)
    assert [genomes.holds(node) for node in nodes] == [True, True, False, False]  # of three the first is there twice
    genomes.load(nodes, engine)
    for place, node in enumerate(nodes[:3]):
        genomes.ask_next(node)
        numbers = {number for number, _ in genomes.told(ASKED, None, "a")}  # type: ignore[misc]
        assert len(numbers) == 1
        assert [text for _, text in genomes.told(ASKED[:1], None, ("b", place))] == ASKED[:1]  # type: ignore[misc]
    assert [len(set(batch)) for batch in vllm.batches] == [3, 3, 2, 1]  # nobody is asked what has been told
    assert len({batch[0] for batch in vllm.batches}) == 3
    genomes.drop()
    assert not vllm.held


def test_whose_predictions_are_no_numbers_is_known(sources: OpenSources, engine: Engine) -> None:
    vllm, nodes = Noting(bad=(2,)), four(sources)
    genomes = Genomes(adapters(nodes[0], engine), torch.float32, vllm)
    genomes.load(nodes, engine)
    counts = []
    for node in nodes[:3]:
        genomes.ask_next(node)
        vllm.not_numbers()
        genomes.told(ASKED, None, "a")
        counts.append(vllm.not_numbers()[0])
    assert counts == [0, 2, 0]


def test_a_genome_that_is_none_leaves_the_others(sources: OpenSources, engine: Engine) -> None:
    vllm, (one, two, *_) = Noting(), four(sources)
    genomes = Genomes(adapters(one, engine), torch.float32, vllm)
    genomes.load([one, weighed(one, 1e39, 1e39), two], engine)
    genomes.ask_next(one)
    genomes.told(ASKED, None, "a")
    with pytest.raises(MergeError, match="is not finite after task_arithmetic, as an adapter"):
        genomes.ask_next(weighed(one, 1e39, 1e39))
    genomes.ask_next(two)
    assert {number for number, _ in genomes.told(ASKED, None, "a")} == {3}  # type: ignore[misc]
    assert len(vllm.batches) == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["merge=ties", "format=plain"], "ties makes no sum of adapters"),
        (["backend.together=0"], "backend.together: expected a whole number of at least 1, got 0"),
        (["backend.genomes=lora"], "backend.genomes: expected merged or adapters, got 'lora'"),
    ],
)
def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], words: str) -> None:
    monkeypatch.setattr("evohydra.assembly.backends.is_installed", lambda: True)
    with pytest.raises(ValueError, match=words):
        built([*LORAS, "backend=vllm", "backend.genomes=adapters", *given], tmp_path / "run")


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ({"one": OF_LLAMA["three"]}, "and not 'model.embed_tokens.weight', an embedding or a head"),
        (
            {"one": {**OF_LLAMA["two"], "modules_to_save": ["norm"]}},
            "and not 'model.layers.0.input_layernorm.weight', .*, which adapters have trained whole",
        ),
        ({"one": {**OF_LLAMA["two"], "r": 260}, "two": {**OF_LLAMA["two"], "r": 260}}, "add up to 520, vLLM takes 512"),
    ],
)
def test_adapters_that_are_no_requests(tmp_path: Path, kinds: dict[str, Any], words: str) -> None:
    found = opened(tmp_path, kinds)
    made = Engine(found.tensors, device=CPU, dtype=torch.float32)
    parts: Any = type("Parts", (), {"engine": made, "sources": found})
    with pytest.raises(ValueError, match=rf"backend\.genomes=adapters with backend=vllm: .*{words}.*merged scores all"):
        VLLM(genomes="adapters").check_recipe(merge(found, "linear"), parts)


def test_identities() -> None:
    plain, together = VLLM(), VLLM(genomes="adapters")
    assert plain.identity() == {"name": "vllm", "sequences": 64, "bits": VLLM(together=9).identity()["bits"]}  # type: ignore[index]
    found = differences(plain.identity(), together.identity())
    assert {at for at, _, _ in found} == {("bits",), ("genomes",), ("together",)}
    assert (plain.together, together.together) == (1, 4)


class Scoring:
    """A worker that notes what it is told of."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def expect(self, recipes: Sequence[object]) -> None:
        """Nothing."""

    def evaluate(self, job: Job, *ahead: Job) -> Evaluation:
        self.told.append((job.recipe, *(each.recipe for each in ahead)))
        return Evaluation({"a": [float(str(job.recipe))]})


def jobs(count: int) -> list[Job]:
    return [Job(str(number), "search") for number in range(count)]  # type: ignore[arg-type]


def test_one_worker_is_told_what_comes_next() -> None:
    worker = Scoring()
    with closing(Local(make=lambda: worker, together=3)) as executor:  # type: ignore[arg-type, return-value]
        executor.submit(jobs(4))
        assert [executor.completed()[1].scores["a"] for _ in range(4)] == [[0.0], [1.0], [2.0], [3.0]]
    assert worker.told == [("0", "1", "2"), ("1", "2", "3"), ("2", "3"), ("3",)]


class Sending(Pool[Seat]):
    """Workers that are where a test says, and do nothing by themselves."""

    def __init__(self, workers: int, together: int) -> None:
        super().__init__(2, together=together)
        self.workers = workers
        self.sent: list[tuple[int, tuple[object, ...]]] = []
        self.said: list[tuple[int, str, object]] = []

    def _begin(self) -> None:
        while len(self._seats) < self.workers:
            self._seats.append(Seat(len(self._seats), ready=True, asked=False))

    def _send(self, seat: Seat, task: object, given: tuple[Any, ...]) -> None:
        self.sent.append((seat.number, tuple(each.job.recipe for each in given)))

    def _said(self) -> Any:
        number, kind, content = self.said.pop(0)
        return self._seats[number], kind, content

    def _restart(self, seat: Seat) -> None:
        seat.ready, seat.asked = True, False

    def _end(self, seat: Seat) -> None:
        raise AssertionError


def test_workers_take_several_jobs_each_and_none_is_lost() -> None:
    """Five jobs for two workers; one dies with a job in its line, and the other one does it."""
    pool = Sending(2, 3)
    tickets = pool.submit([Job(merge_of(number), "search") for number in range(5)])
    assert [(seat, len(given)) for seat, given in pool.sent] == [(0, 3), (1, 1)]
    pool.said = [(1, "done", Evaluation({})), (0, "died", "gone"), *[(1, "done", Evaluation({}))] * 2]
    found = [pool.completed()[0]]
    assert found == [tickets[3]]
    while len(found) < 3:
        found.append(pool.completed()[0])
    pool.said = [(0, "done", Evaluation({})), (0, "done", Evaluation({})), (1, "done", Evaluation({}))]
    while len(found) < 5:
        found.append(pool.completed()[0])
    assert sorted(found) == sorted(tickets)


def merge_of(number: int) -> Merge:
    return Merge("linear", None, (), (), {"number": number})
