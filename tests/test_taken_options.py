"""Options and files that lm-eval and Hydra take, and what evohydra makes of them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evohydra.assembly import composition
from evohydra.assembly.parts import chosen_sources
from evohydra.families.causal_lm import CausalLM, LiveCausalLM
from evohydra.merging.checkpoints import SourceError
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.lm_eval import lm_eval_benchmarks
from evohydra.scoring.benchmarks.lm_eval_benchmark import LMEvalBenchmark
from tests import tiny_models

CPU = torch.device("cpu")
BOUNDS = {"search": {"start": 0, "stop": 20}, "validation": None, "test": {"start": 30, "stop": 50}}
SHOT = """
training_split: train
fewshot_split: train
"""
BY_NUMPY = """import numpy as np

def share(doc, results):
    long = len(results[0]) % 2 == 1
    return {"closeness": np.bool_(long), "exact": np.float32(long)}
"""
TEMPLATES = {"default": "D {{ messages[0].content }}", "short": "S {{ messages[0].content }}"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task with a split for shots, one with numpy's truth values, a model, and files of one's own."""
    root = tmp_path_factory.mktemp("tasks")
    tiny_models.save_task(root)
    plain = (root / "sums.yaml").read_text()
    files = "{train: sums.jsonl, test: sums.jsonl}"
    shots = plain.replace("{test: sums.jsonl}", files).replace("task: sums\n", f"task: shots\n{SHOT}")
    (root / "shots.yaml").write_text(shots)
    (root / "truth.yaml").write_text(plain.replace("task: sums", "task: truth").replace("scoring.share", "own.share"))
    (root / "own.py").write_text(BY_NUMPY)
    shutil.copy(root / "sums.jsonl", root / "mine.jsonl")
    tiny_models.save_model(root / "model", 1)
    return root


@pytest.fixture
def live(root: Path) -> LiveCausalLM:
    return CausalLM().live_model(root / "model", CPU, torch.float32)


def benchmark(task: str, root: Path, **options: Any) -> LMEvalBenchmark:
    settings = {"metric": "closeness", "include_path": str(root), "shuffle": None, "splits": BOUNDS, **options}
    (found,) = lm_eval_benchmarks(task, task=task, **settings).values()
    return found


def test_numpys_truth_values_are_numbers(root: Path, live: LiveCausalLM) -> None:
    scores = benchmark("truth", root)(live, "search")
    np.testing.assert_array_equal(scores, benchmark("truth", root, metric="exact")(live, "search"))
    assert set(scores) <= {0.0, 1.0}


@pytest.mark.parametrize(
    ("template", "wanted", "message"),
    [
        (None, True, r"benchmark 'sums': chat_template=true: expected a tokenizer with a chat template, .* has none"),
        (None, "short", r"chat_template=short: expected a tokenizer with a chat template"),
        ("{{ messages }}", "short", r"chat_template=short: expected true, or the name of .* \['default'\]"),
        (TEMPLATES, "long", r"chat_template=long: expected true, or the name of .* \['default', 'short'\]"),
        (
            {"a": "{{ messages }}", "b": "x"},
            True,
            r"expected the name of one of the tokenizer's templates \['a', 'b'\]",
        ),
    ],
)
def test_a_chat_template_that_is_not_there_is_missed_before_anything_is_asked(
    template: Any, wanted: bool | str, message: str, root: Path, live: LiveCausalLM
) -> None:
    live.tokenizer.chat_template = template  # type: ignore[attr-defined]
    with pytest.raises(BenchmarkError, match=message):
        benchmark("sums", root, chat_template=wanted)(live, "search")


@pytest.mark.parametrize(("wanted", "beginning"), [(True, "D 0+0="), ("short", "S 0+0="), ("default", "D 0+0=")])
def test_the_template_that_is_named_is_asked_by(
    wanted: bool | str, beginning: str, root: Path, live: LiveCausalLM
) -> None:
    live.tokenizer.chat_template = TEMPLATES  # type: ignore[attr-defined]
    asked = benchmark("sums", root, chat_template=wanted)
    asked(live, "search", [0])
    (request,) = asked._asked(live, "search")[0]
    assert request.args[0] == beginning  # type: ignore[attr-defined]


def test_data_files_may_leave_out_splits_that_are_not_asked_for(root: Path, live: LiveCausalLM) -> None:
    mine = {"test": str(root / "mine.jsonl")}
    got = benchmark("shots", root, data_files=mine)(live, "search")
    np.testing.assert_array_equal(got, benchmark("sums", root)(live, "search"))
    with_shots = benchmark("shots", root, data_files=mine, num_fewshot=2)
    assert with_shots(live, "search").shape == (20,)  # of the 20 documents that are in no split
    everything = {"search": {"start": 0, "stop": 30}, "validation": None, "test": {"start": 30, "stop": 60}}
    with pytest.raises(BenchmarkError, match=r"2 few-shot examples need 2 documents that are in no split"):
        benchmark("shots", root, data_files=mine, num_fewshot=2, splits=everything)


@pytest.mark.parametrize("task", ["shots", "sums"])
def test_data_files_without_the_split_that_is_scored_are_refused(task: str, root: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"expected a file for test, by which the task is scored, got \['train'\]"):
        benchmark(task, root, data_files={"train": str(root / "mine.jsonl")})


def test_the_family_of_a_source_follows_from_its_files(root: Path, tmp_path: Path) -> None:
    pipeline = tmp_path / "pipeline"
    pipeline.mkdir()
    (pipeline / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}))
    seeing = tmp_path / "seeing"
    seeing.mkdir()
    (seeing / "config.json").write_text(json.dumps({"model_type": "qwen2_vl"}))
    reading, sentences, writing = tmp_path / "reading", tmp_path / "sentences", tmp_path / "writing"
    for place, architecture in (
        (reading, "BertForMaskedLM"),
        (sentences / "0_BERT", "BertModel"),
        (writing, "BertLMHeadModel"),
    ):
        place.mkdir(parents=True)
        settings = {"model_type": "bert", "architectures": [architecture]}
        (place / "config.json").write_text(json.dumps(settings))
    (sentences / "modules.json").write_text(
        json.dumps([{"path": "0_BERT", "type": "sentence_transformers.models.Transformer"}])
    )
    paths = {"a": root / "model", "b": pipeline, "c": seeing, "d": reading, "e": sentences, "f": writing}
    sources = chosen_sources({"sources": {name: {"path": str(path)} for name, path in paths.items()}})
    expected = {
        "a": "causal_lm.CausalLM", "b": "sdxl.SDXL", "c": "vision_language.VisionLanguage", "d": "encoder.Encoder",
        "e": "encoder.Encoder", "f": "causal_lm.CausalLM",
    }  # fmt: skip
    assert {name: source.family for name, source in sources.items()} == {
        name: f"evohydra.families.{family}" for name, family in expected.items()
    }
    given = {"path": str(root / "model"), "family": "my.Family"}
    assert chosen_sources({"sources": {"a": given}})["a"].family == "my.Family"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "model_index.json",
            {"_class_name": "KandinskyPipeline"},
            "expected a pipeline of the class .*, got Kandinsky",
        ),
        (
            "config.json",
            {"model_type": "vit"},
            "with or without images, or an encoder, got 'vit'",
        ),
        ("config.json", {}, "expected the config.json of a model that transformers knows"),
    ],
)
def test_a_model_of_no_family_is_refused(file: str, content: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(SourceError, match=rf"{message}.*\(model\.sources\.mine\.family says which"):
        chosen_sources({"sources": {"mine": {"path": str(tmp_path)}}})


def test_options_that_have_no_value_yet_are_known(tmp_path: Path) -> None:
    composition.register()
    tiny_models.save_conf(tmp_path)
    own = ["model=local_one+local_two", f"hydra.searchpath=[file://{tmp_path / 'conf'}]", "benchmark=lm_eval"]
    given = ["model.sources.one.path=/x", "benchmark.lm_eval.task=sums"]
    assert composition.explain([*own, *given]) == []
    (hint,) = composition.explain([*own, *given, "model.sources.one.pth=/x"])
    assert "did you mean 'path'?" in hint
