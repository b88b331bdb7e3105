"""batch_size, dtype, device and threads: what `auto` means for models of a size on a machine of a size."""

import json
import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, MistralConfig

from evohydra.assembly import composition, process, sizes
from evohydra.assembly.parts import found_sources
from evohydra.assembly.settings import Settings
from evohydra.merging.checkpoints import CheckpointReader
from evohydra.scoring.executors import resources
from evohydra.searching.json_lines import LedgerError
from tests.commands import built, carried_out, json_lines, workspace

GIGABYTE = 10**9
ZOO = Path(sizes.__file__).parents[1] / "zoo"
MISTRAL = MistralConfig(sliding_window=4096, num_key_value_heads=8)  # 7B
GEMMA = Gemma3TextConfig(  # 270M, with a large vocabulary
    vocab_size=262144, hidden_size=640, num_hidden_layers=18, num_attention_heads=4, num_key_value_heads=1,
    intermediate_size=2048, head_dim=256,
)  # fmt: skip
LLAMA_13B = LlamaConfig(hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40)


def shapes(config: Any) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def prompts(config: Any, gigabytes: float, dtype: torch.dtype = torch.bfloat16) -> int:
    of = shapes(config)
    weights = sum(math.prod(shape) for shape in of.values()) * dtype.itemsize
    return sizes.batch_size(of, dtype, int(sizes.SHARE * gigabytes * GIGABYTE) - weights - 2 * 1024**3)


@pytest.mark.parametrize(
    ("config", "gigabytes", "expected"),
    [
        (MISTRAL, 16, 1),
        (MISTRAL, 24, 8),
        (MISTRAL, 80, 128),
        (MISTRAL, 141, 256),
        (LLAMA_13B, 80, 32),
        (GEMMA, 16, 128),
    ],
)
def test_batches_of_published_sizes_on_known_gpus(config: Any, gigabytes: float, expected: int) -> None:
    assert prompts(config, gigabytes) == expected


def test_a_prompt_takes_what_keys_and_values_of_its_tokens_and_the_logits_of_one_take() -> None:
    cached = 32 * 2 * 8 * 128 * 2  # layers, keys and values, heads, width, bytes
    logits, inside = 32000 * (2 + 4 + 4), 4 * 14336 * 2
    assert sizes.bytes_of_a_token(shapes(MISTRAL), torch.bfloat16) == cached + inside
    assert sizes.bytes_of_a_prompt(shapes(MISTRAL), torch.bfloat16, 100) == 100 * (cached + inside) + logits


@pytest.mark.parametrize("model", ["base", "tiny_ja", "tiny_vlm", "tiny_ja_lm"])
def test_the_zoo_has_full_batches_whatever_the_memory(model: str) -> None:
    assert sizes.batch_size(CheckpointReader(ZOO / model).shapes, torch.float32, room=0) == 512


def test_batches_never_shrink_to_none_and_are_powers_of_two() -> None:
    found = [prompts(MISTRAL, gigabytes) for gigabytes in range(1, 900, 7)]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (1, 512)
    assert all(each.bit_count() == 1 for each in found)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine whose memory tests choose, for models that count as large."""
    monkeypatch.setattr(sizes, "SMALL", 0)

    def of(kilobytes: float, gpu: float | None = None) -> None:
        monkeypatch.setattr(sizes, "total_memory", lambda: int(kilobytes * 1000))
        if gpu is not None:
            monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
            monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
            properties = SimpleNamespace(total_memory=int(gpu * 1000))
            monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)

    return of


@dataclass
class Fitted:
    settings: Any
    said: str | None
    kept: Any


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A run on two tiny models, of 22 kB in float32."""
    given = workspace(tmp_path_factory.mktemp("tiny"))
    return [each for each in given if not each.startswith("batch_size")]


def fitted(arguments: list[str], *more: str) -> Fitted:
    """The settings of a run as they fit the machine."""
    composition.register()
    with initialize_config_dir(composition.conf_dir(), version_base="1.3"):
        config = compose("config", overrides=[*arguments, "cache_gb=0", *more])
    plain: Any = OmegaConf.to_container(config, resolve=True)
    settings = Settings.parse(plain)
    return Fitted(*sizes.fitted(settings, found_sources(settings)))


def test_float32_that_does_not_fit_is_bfloat16_with_a_word(
    arguments: list[str], machine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    machine(20)
    with caplog.at_level(logging.WARNING):
        assert fitted(arguments).settings.dtype == "bfloat16"
    assert "dtype=auto: bfloat16, for 0.0 million parameters in float32, as 'one' was published" in caplog.text
    assert fitted(arguments, "dtype=float32").settings.dtype == "float32"
    machine(3000)
    assert fitted(arguments).settings.dtype == "auto"


def test_a_gpu_that_does_not_hold_the_model_is_left_alone_with_a_word(
    arguments: list[str], machine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    machine(10**6, gpu=10)
    with caplog.at_level(logging.WARNING):
        assert fitted(arguments).settings.device == "cpu"
    assert "device=auto: cpu, for" in caplog.text
    assert fitted(arguments, "device=cuda").settings.device == "cuda"
    machine(10**6, gpu=10**6)
    assert fitted(arguments).settings.device == "auto"


def test_workers_share_the_memory(arguments: list[str], machine: Any) -> None:
    machine(40_000)
    alone = fitted(arguments).settings.batch_size
    shared = fitted(arguments, "executor=processes", "executor.workers=4").settings.batch_size
    assert alone >= 2 * shared > 1


def test_paths_have_all_their_sources_in_memory_and_more_layers(arguments: list[str], machine: Any) -> None:
    found = []
    for kilobytes in (40_000, 50_000, 60_000, 70_000):
        machine(kilobytes)
        found.append([fitted(arguments, f"merge={merge}").settings.batch_size for merge in ("linear", "dfs")])
    assert all(merge >= path > 1 for merge, path in found)
    assert any(merge > path for merge, path in found)
    config = shapes(MISTRAL)
    more = [sizes.bytes_of_a_token(config, torch.bfloat16, longer) for longer in (1, 2)]
    assert more[1] - more[0] == 32 * 2 * 8 * 128 * 2


def test_benchmarks_get_the_number_and_their_own_numbers_stay(arguments: list[str], machine: Any) -> None:
    machine(40_000)
    found = fitted(arguments, "benchmark=[lm_eval,mgsm_ja]", "benchmark.mgsm_ja.batch_size=3")
    number = found.settings.batch_size
    assert {k: v["batch_size"] for k, v in found.settings.benchmark.items()} == {"lm_eval": number, "mgsm_ja": 3}
    assert found.kept == {"batch_size": number}
    assert found.said is not None
    assert found.said.startswith(f"batch_size=auto: {number} prompts a forward pass")
    assert fitted(arguments, "batch_size=7").kept == {}


def test_a_benchmark_that_is_made_of_another_one_gets_the_number_too(arguments: list[str], machine: Any) -> None:
    """Else lm-eval would look for a size of its own, by passes of the longest prompts, at every call."""
    machine(40_000)
    of = "benchmark.answer_length.of=${benchmark.lm_eval}"
    found = fitted(arguments, "benchmark=[lm_eval,answer_length]", of).settings
    assert found.benchmark is not None
    assert found.benchmark["answer_length"]["of"]["batch_size"] == found.batch_size
    assert isinstance(found.batch_size, int)


def test_a_run_keeps_the_batch_size_that_was_chosen(tmp_path: Path, machine: Any) -> None:
    known = [each for each in workspace(tmp_path) if not each.startswith("batch_size")]
    arguments = [*known, "cache_gb=0", "baselines=null", "top=1"]
    machine(40_000)
    carried_out([*arguments, "budget=6"], tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "run.json").read_text())["chosen"]["batch_size"]
    machine(4_000_000)
    with pytest.raises(
        LedgerError, match=rf"batch_size=auto has chosen {kept}, here .*Give batch_size={kept} to go on"
    ):
        carried_out([*arguments, "budget=8"], tmp_path / "run")
    for number, budget in ((kept, 8), (5, 9)):  # what a user chooses is not asked for
        carried_out([*arguments, f"budget={budget}", f"batch_size={number}"], tmp_path / "run")
    assert len(json_lines(tmp_path / "run" / "ledger.jsonl")) == 9


def test_a_run_of_before_there_was_auto_goes_on(tmp_path: Path) -> None:
    known = [each for each in workspace(tmp_path) if not each.startswith("batch_size")]
    arguments = [*known, "baselines=null", "top=1"]
    carried_out([*arguments, "batch_size=512", "budget=6"], tmp_path / "run")  # the default of earlier versions
    kept = (tmp_path / "run" / "run.json").read_bytes()
    assert b"chosen" not in kept
    ledger = json_lines(tmp_path / "run" / "ledger.jsonl")
    carried_out([*arguments, "budget=8"], tmp_path / "run")
    assert json_lines(tmp_path / "run" / "ledger.jsonl")[:6] == ledger
    assert (tmp_path / "run" / "run.json").read_bytes() == kept


def test_limits_of_a_container_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = resources.total_memory(tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    assert resources.total_memory(tmp_path) == whole
    (tmp_path / "memory.max").write_text("1000000\n")
    assert resources.total_memory(tmp_path) == 1_000_000
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert resources.usable_cores(tmp_path) == 64
    for limit, cores in (("max 100000", 64), ("250000 100000", 3), ("50000 100000", 1), ("9999999 100000", 64)):
        (tmp_path / "cpu.max").write_text(f"{limit}\n")
        assert resources.usable_cores(tmp_path) == cores


def test_threads_stay_within_a_container_unless_somebody_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(process, "usable_cores", lambda: 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    process.set_up_process("auto")
    process.set_up_process(5)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    process.set_up_process("auto")
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(process, "usable_cores", lambda: 64)
    process.set_up_process("auto")
    assert given == [3, 5]


def test_an_unfitting_type_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dtype: expected .*bfloat16.*got 'int8'"):
        built([*workspace(tmp_path), "dtype=int8"], tmp_path / "run")
