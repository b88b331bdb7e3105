"""Batches that do not fit into memory are halved, in every kind of benchmark, and give the same results."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evohydra.families.causal_lm import CausalLM, LiveCausalLM
from evohydra.scoring.benchmarks.embeddings import Embedder
from evohydra.scoring.benchmarks.held_out import HeldOutText
from evohydra.scoring.benchmarks.room import NoRoomError, Room, out_of_memory
from tests import tiny_encoders, tiny_studio
from tests.contracts.test_benchmarks import CPU, benchmark
from tests.contracts.test_benchmarks import tasks as tasks
from tests.contracts.test_identities import multimodal, save_pictures
from tests.test_embeddings import TEXTS, live_of
from tests.test_sampled_answers import SAMPLED
from tests.test_visual_qa import benchmark as visual
from tests.test_visual_qa import llava as llava
from tests.test_visual_qa import questions as questions

OF_CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
)
ERRORS: dict[str, Callable[[int], Exception]] = {
    "cuda": lambda rows: torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {rows}.00 GiB"),
    "cpu": lambda rows: RuntimeError(f"{OF_CPU} {rows} bytes. Error code 12 (Cannot allocate memory)"),
    "windows": lambda rows: RuntimeError(
        f"DefaultCPUAllocator: not enough memory: you tried to allocate {rows} bytes."
    ),
    "mps": lambda rows: RuntimeError(f"MPS backend out of memory (MPS allocated: {rows}.00 GB)"),
    "python": lambda rows: MemoryError(),
}
Scores = Callable[[], Any]


class Memory:
    """Of a module: as much as `rows` of a batch take. `asked` are the rows of all its passes."""

    def __init__(self, module: torch.nn.Module, rows: int, error: Callable[[int], Exception]) -> None:
        self.asked: list[int] = []

        def look(_: torch.nn.Module, inputs: tuple[object, ...], named: dict[str, object]) -> None:
            given = [each for each in (*inputs, *named.values()) if isinstance(each, Tensor) and each.dim() > 1]
            self.asked.append(len(given[0]))
            if len(given[0]) > rows:
                raise error(len(given[0]))

        self._hook = module.register_forward_pre_hook(look, with_kwargs=True)

    def free(self) -> None:
        self._hook.remove()


@pytest.fixture
def language(trio: tuple[Path, Path, Path]) -> LiveCausalLM:
    return CausalLM().live_model(trio[1], CPU, torch.float32)


def check(module: torch.nn.Module, make: Callable[[], Scores], caplog: Any, error: str = "cuda", rows: int = 3) -> None:
    """`make` makes a benchmark, whose scores its result gives, asked as often as one likes."""
    expected = np.asarray(make()())
    score, memory = make(), Memory(module, rows, ERRORS[error])
    with caplog.at_level(logging.WARNING):
        found = np.asarray(score())
        assert max(memory.asked) > rows, "this can fail"
        memory.asked.clear()
        again = np.asarray(score())
    memory.free()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(again, found)
    assert max(memory.asked) <= rows, "what does not fit is not tried again"
    said = [record.getMessage() for record in caplog.records if "batch_size" in record.getMessage()]
    assert len(said) == 1
    assert re.match(
        rf"batch_size=\d+: \d+ at once do not fit into memory .*computed {max(memory.asked)} at a time", said[0]
    )


@pytest.mark.parametrize("error", ERRORS)
def test_answers(error: str, language: LiveCausalLM, tasks: Path, caplog: pytest.LogCaptureFixture) -> None:
    def make() -> Scores:
        asked = benchmark("sums", tasks, batch_size=24)
        return lambda: asked(language, "search")

    check(language.module, make, caplog, error)


def test_answers_that_are_sampled(language: LiveCausalLM, tasks: Path, caplog: pytest.LogCaptureFixture) -> None:
    def make() -> Scores:
        asked = benchmark("sums", tasks, batch_size=10, generation_kwargs=SAMPLED)
        return lambda: asked(language, "search")

    check(language.module, make, caplog)


@pytest.mark.parametrize("task", ["choose", "log_likelihood", "rolling"])
def test_log_likelihoods(task: str, language: LiveCausalLM, tasks: Path, caplog: pytest.LogCaptureFixture) -> None:
    def make() -> Scores:
        asked = benchmark(task, tasks, batch_size=24)
        return lambda: asked(language, "search")

    check(language.module, make, caplog, "cpu")


def test_references(language: LiveCausalLM, tasks: Path, caplog: pytest.LogCaptureFixture) -> None:
    def make() -> Scores:
        asked = benchmark("sums", tasks, batch_size=24)
        return lambda: asked.log_likelihoods(language, "search", None, "token")

    check(language.module, make, caplog)


def test_held_out_texts(language: LiveCausalLM, caplog: pytest.LogCaptureFixture) -> None:
    def make() -> Scores:
        text = HeldOutText("a.txt", [f"{number} and more of it" for number in range(30)], 10, 8)
        return lambda: text(language, "search")

    check(language.module, make, caplog)


def test_vectors_of_texts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    live = live_of(tiny_encoders.save(tmp_path / "one", 0))

    def make() -> Scores:
        embed = Embedder("some", 6, "mean", None)
        return lambda: embed(live, TEXTS)

    check(live.module, make, caplog)


def test_pictures(caplog: pytest.LogCaptureFixture) -> None:
    live = tiny_studio.live()

    def make() -> Scores:
        drawn = tiny_studio.benchmark(batch_size=5)
        return lambda: [np.asarray(image) // 4 for image, _ in drawn.pictures(live, "search", range(5))]

    check(live.module, make, caplog)


@pytest.mark.parametrize("likely", [False, True], ids=["answers", "references"])
def test_questions_about_images(likely: bool, llava: Any, questions: Path, caplog: pytest.LogCaptureFixture) -> None:
    def make() -> Scores:
        asked = visual(questions, batch_size=5, generation_kwargs={"max_new_tokens": 5, "num_beams": 1})
        return lambda: asked.log_likelihoods(llava, "search", None, "token") if likely else asked(llava, "search")

    check(llava.module, make, caplog)


@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sampled"])
def test_lm_evals_tasks_with_images(
    sampled: bool, llava: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_pictures(tmp_path)

    def make() -> Scores:
        options = {"generation_kwargs": {"max_gen_toks": 4, **(SAMPLED if sampled else {})}}
        asked = multimodal(tmp_path, batch_size=5, **options)
        return lambda: [answer.encode() for answer in asked.answers(llava, "search", range(5))]  # type: ignore[attr-defined]

    expected, score = make()(), make()
    memory = Memory(llava.module, 2, ERRORS["cuda"])
    assert score() == expected
    assert len(set(expected)) > 1
    assert max(memory.asked) > 2
    memory.asked.clear()
    assert score() == expected
    assert max(memory.asked) <= 2
    assert caplog.text.count("at once do not fit into memory") == 1


@pytest.mark.parametrize("task", ["sums", "log_likelihood"])
def test_an_example_that_does_not_fit_alone_is_named_with_the_setting(
    task: str, language: LiveCausalLM, tasks: Path
) -> None:
    memory = Memory(language.module, 0, ERRORS["cpu"])
    said = (
        r"^batch_size=24: a (prompt|text) of \d+ tokens .*does not fit into memory, alone in its batch: RuntimeError: "
    )
    with pytest.raises(NoRoomError, match=f"{said}.*you tried to allocate 1 bytes"):
        benchmark(task, tasks, batch_size=24)(language, "search")
    memory.free()
    assert memory.asked[-1] == 1


def test_other_errors_are_left_alone() -> None:
    def fail(_: slice) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        Room(4).over(8, fail, "a row")
    assert not out_of_memory(FloatingPointError("3 logits are not numbers"))


def test_parts_of_a_split_are_cut_as_if_everything_fitted(language: LiveCausalLM, tasks: Path) -> None:
    """Workers cut a split by themselves: one whose memory is short must not cut it otherwise."""
    asked = benchmark("sums", tasks, batch_size=8)
    parts = [asked.part(language, "search", None, index, 2) for index in range(2)]
    memory = Memory(language.module, 2, ERRORS["cuda"])
    asked(language, "search")
    memory.free()
    assert [asked.part(language, "search", None, index, 2) for index in range(2)] == parts


def test_auto_of_a_benchmark_alone_is_a_number(language: LiveCausalLM, tasks: Path) -> None:
    """lm-eval finds one by passes over texts of the model's whole length, with all their logits."""
    memory = Memory(language.module, 512, ERRORS["cuda"])
    asked = benchmark("sums", tasks, batch_size="auto")
    asked(language, "search")
    memory.free()
    assert set(memory.asked) == {24}
    assert len(asked.part(language, "search", None, 0, 2)) == 24
