"""`python -m tests.gpu`: its logic, and parts of it on the CPU. On a machine with a GPU the script is the test."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands import REPOSITORY, python
from tests.gpu import copies, merges, searches, served
from tests.gpu.findings import Finding, table

STEP = torch.finfo(torch.float32).eps / 2


def test_bits_that_differ_are_measured_in_half_steps() -> None:
    cpu = torch.tensor([1.0, -0.0, 0.5])
    assert merges.distance(torch.tensor([1.0, 0.0, 0.5]), cpu, [cpu]) == merges.Distance(True, 0.0, 0.0)
    near = merges.distance(torch.tensor([1.0, 0.0, 0.5 + 4 * STEP]), cpu, [cpu])
    assert (near.same, near.farthest, near.beyond) == (False, 4.0, 0.0)
    far = merges.distance(torch.tensor([1.0, 0.0, 0.6]), cpu, [cpu])
    assert far.beyond == pytest.approx(1 / 3)
    assert merges.distance(torch.tensor([1.0, 0.0, 0.5 + 4 * STEP]), cpu, [4 * cpu]).farthest == 1.0
    assert not merges.judged("linear", "float32", far).passed
    assert merges.judged("linear", "float32", near).passed
    assert merges.judged("tsv_m", "float32", merges.Distance(False, 100.0, 0.5)).passed
    assert not merges.judged("arcee_fusion", "float32", far).passed


def test_a_merge_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> merges.Distance:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(merges, "compared", fails)
    found = list(merges.checks(torch.device("cpu"), ["linear"]))
    assert [each.passed for each in found] == [False, False]
    assert "no kernel image" in found[0].found


def test_every_merge_has_the_cpu_s_bits_on_the_cpu() -> None:
    found = list(merges.checks(torch.device("cpu"), ["linear", "ties", "tsv_m"]))
    assert [(each.passed, each.figures["same_bits"]) for each in found] == [(True, True)] * 6


def test_copies_are_counted_from_a_trace() -> None:
    def event(name: str, size: int) -> dict[str, object]:
        return {"name": name, "cat": "gpu_memcpy", "args": {"bytes": size}}

    events = [
        event("Memcpy HtoD (Pinned -> Device)", 100), event("Memcpy HtoD (Pageable -> Device)", 7),
        event("Memcpy DtoH (Device -> Pinned)", 3), event("Memcpy DtoD (Device -> Device)", 50), {"name": "copy_"},
    ]  # fmt: skip
    assert copies.crossed({"traceEvents": events}) == copies.Crossed(107, 3, 7)
    assert copies.watched(lambda: None, torch.device("cpu")) == copies.Crossed(0, 0, 0)


def test_scores_are_compared_genome_by_genome() -> None:
    one = [{"index": 0, "recipe": "a", "scores": {"task": [1.0, 0.0]}}]
    assert searches.alike(one, [{"index": 0, "recipe": "a", "scores": {"task": [1.0, 1.0]}}]) == (1, 2)
    with pytest.raises(ValueError, match="genome 0 is another one"):
        searches.alike(one, [{"index": 0, "recipe": "b", "scores": {"task": [1.0, 1.0]}}])


def test_the_table() -> None:
    told = table([Finding("merge", "a", "b", "c", True), Finding("copies", "d", "e", "f", None)])
    assert told.splitlines()[2:] == ["| merge | a | b | c | yes |", "| copies | d | e | f | - |"]


def measured(**changes: object) -> dict[str, Any]:
    spent = {"merge": 0.1, "answers": 1.0, "likelihoods": 0.5}
    told: dict[str, Any] = {
        "genomes": 10, "answers": 640, "that differ": [{"ours": 3.02, "theirs": 3.0}], "others": 100,
        "same bits after others": 10, "largest difference of a log-likelihood per token": 1e-3,
        "wall": {"vllm": spent, "transformers": spent}, "disk": {"write": 2.0, "read": 1.0}, "gpu bytes": 0,
    }  # fmt: skip
    return {**told, **changes}


def test_what_vllm_has_answered_is_judged() -> None:
    """An answer that differs by more than a near-tie, too many that differ, and bits that do not repeat."""

    def passed(invariant: bool = True, **changes: object) -> list[bool | None]:
        return [each.passed for each in served.findings(measured(**changes), "zoo", invariant=invariant)]

    assert passed() == [True, True, None]
    assert passed(**{"that differ": [{"ours": 4.0, "theirs": 3.0}]}) == [False, True, None]
    assert passed(**{"that differ": [{"ours": 3.0, "theirs": 3.0}] * 7}) == [False, True, None]
    assert passed(**{"same bits after others": 9}) == [True, False, None]
    assert passed(invariant=False, **{"same bits after others": 9}) == [True, None, None]


def test_a_python_without_vllm_leaves_it_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.gpu.served.is_installed", lambda: False)
    (found,) = served.checks("cpu", tmp_path, "zoo", 1)
    assert found.passed is None
    assert "left out" in found.found


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU")
def test_without_a_gpu_it_is_one_sentence(tmp_path: Path) -> None:
    done = python("-m", "tests.gpu", cwd=REPOSITORY)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "tests.gpu: torch finds no CUDA device here; --device cpu runs the same checks on the CPU"
    )


def test_the_command_on_the_cpu(tmp_path: Path) -> None:
    arguments = ["--device", "cpu", "--parts", "merge", "copies", "--methods", "linear"]
    done = python("-m", "tests.gpu", *arguments, "--json", tmp_path / "found.json", cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["machine"]["torch"] == torch.__version__
    assert len(found["findings"]) == 2 + 3 * len(copies.METHODS)
    assert not any(each["passed"] is False for each in found["findings"])
