"""Vision features are computed for the first genome only, bit for bit; lm-eval's multimodal tasks reuse them too."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.hf_vlms import HFMultimodalLM

from evohydra.scoring.benchmarks import SPLITS, BenchmarkError
from evohydra.scoring.benchmarks.lm_eval import lm_eval_benchmarks
from evohydra.scoring.benchmarks.lm_eval_benchmark import LMEvalBenchmark
from evohydra.scoring.benchmarks.vision_features import VisionFeatures
from tests import tiny_models, tiny_visual

BOUNDS = {
    "search": {"start": 0, "stop": 6}, "validation": {"start": 6, "stop": 8}, "test": {"start": 8, "stop": 12},
}  # fmt: skip


@pytest.fixture(params=tiny_visual.MODELS)
def live(request: pytest.FixtureRequest) -> tiny_visual.Live:
    return tiny_visual.MODELS[request.param]()


def tower_of(live: tiny_visual.Live) -> Any:
    inner = live.module.base_model
    return next(getattr(inner, name) for name in ("vision_tower", "vision_model", "visual") if hasattr(inner, name))


def counted(module: Any) -> list[int]:
    calls: list[int] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def batch_of(live: tiny_visual.Live, *seeds: int) -> Any:
    texts = [f"{live.image}何{'?' * seed}" for seed in seeds]
    images = [[tiny_visual.picture(seed)] for seed in seeds]
    return live.processor(text=texts, images=images, padding=True, padding_side="left", return_tensors="pt")


def logits(live: tiny_visual.Live, inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = live.module(**inputs).logits
    return found


def generated(live: tiny_visual.Live, inputs: Any) -> list[list[int]]:
    found: list[list[int]] = live.module.generate(**inputs, max_new_tokens=4, num_beams=3, do_sample=False).tolist()
    return found


def test_the_tower_runs_once_for_a_batch_and_nothing_changes_by_a_bit(live: tiny_visual.Live) -> None:
    calls = counted(tower_of(live))
    features = VisionFeatures(live.module, 2**24)
    first, second = batch_of(live, 1, 2), batch_of(live, 3)
    expected = [logits(live, batch) for batch in (first, second)]
    answers = [generated(live, batch) for batch in (first, second)]
    calls.clear()
    for _ in range(3):
        features.begin_genome()
        for key, batch in enumerate((first, second)):
            with features.batch(("logits", key)):
                assert torch.equal(logits(live, batch), expected[key])
            with features.batch(("generate", key)):
                assert generated(live, batch) == answers[key]
    assert len(calls) == 4  # two batches, each once in a forward pass and once in generation
    assert features.seconds > 0.0
    assert features.saved > 0.0
    logits(live, first)  # outside all is as before
    assert len(calls) == 5
    assert not {"get_image_features", "get_video_features"} & set(live.module.base_model.__dict__)


def test_the_memory_bound_and_errors_leave_the_model_as_it_was(live: tiny_visual.Live) -> None:
    calls = counted(tower_of(live))
    features = VisionFeatures(live.module, 0)
    batch = batch_of(live, 1)
    for _ in range(2):
        features.begin_genome()
        with features.batch("one"):
            logits(live, batch)
    assert len(calls) == 2
    with pytest.raises(RuntimeError, match="of a genome"), features.batch("one"):
        raise RuntimeError("of a genome")
    assert "get_image_features" not in live.module.base_model.__dict__


def test_a_tower_that_changes_after_all_is_noticed(live: tiny_visual.Live) -> None:
    calls = counted(tower_of(live))
    features = VisionFeatures(live.module, 2**24)
    batch = batch_of(live, 1)

    def ask() -> torch.Tensor:
        features.begin_genome()
        with features.batch("one"):
            return logits(live, batch)

    before = ask()
    weight = next(parameter for parameter in tower_of(live).parameters() if parameter.ndim > 1)
    with torch.inference_mode():
        weight.copy_(weight.clone())  # written, with the same numbers: as a merge writes what it copies
    live.module.get_input_embeddings().weight.data.mul_(1.0)
    assert torch.equal(ask(), before)
    assert len(calls) == 1
    with torch.inference_mode():
        weight.copy_(weight.flip(0))
    assert not torch.equal(ask(), before)
    assert len(calls) == 2


def test_a_language_model_has_no_vision_features(tmp_path: Path) -> None:
    import transformers

    directory = tiny_models.save_model(tmp_path / "model", 1)
    with pytest.raises(BenchmarkError, match="not a vision-language model"):
        VisionFeatures(transformers.AutoModelForCausalLM.from_pretrained(directory), 0)


# lm-eval's multimodal tasks ------------------------------------------------------------------------------------------

TASK = """
task: {task}
dataset_path: parquet
dataset_kwargs: {{data_files: {{test: pictures.parquet}}}}
test_split: test
output_type: generate_until
{image}
doc_to_text: "{text}{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["x"], do_sample: false, max_gen_toks: 6}}
process_results: !function closeness.of_answer
metric_list:
  - {{metric: closeness, aggregation: mean, higher_is_better: true}}
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("multimodal")
    from datasets import Dataset, Features, Image, Value

    rows = {
        "question": [f"何色です{'?' * (n % 4)}" for n in range(12)], "answer": ["赤です"] * 12,
        "picture": [tiny_visual.picture(n) for n in range(12)],
    }  # fmt: skip
    kinds = Features({"question": Value("string"), "answer": Value("string"), "picture": Image()})
    Dataset.from_dict(rows, features=kinds).to_parquet(root / "pictures.parquet")
    (root / "pictures.yaml").write_text(TASK.format(task="pictures", image="doc_to_image: [picture]", text="<image>"))
    (root / "words.yaml").write_text(TASK.format(task="words", image="", text=""))
    (root / "closeness.py").write_text(
        "import zlib\n\n\ndef of_answer(doc, results):\n    return {'closeness': "
        "zlib.crc32(results[0].encode()) % 997}\n"
    )
    return root


def benchmark(task: str, tasks: Path, **options: Any) -> LMEvalBenchmark:
    settings = {"include_path": str(tasks), "shuffle": None, "splits": BOUNDS, "batch_size": 4, **options}
    return lm_eval_benchmarks(task, task=task, **settings)[task]


class Plain(HFMultimodalLM):  # type: ignore[misc]
    """lm-eval's own, able to take a processor."""

    def __init__(self, live: tiny_visual.Live) -> None:
        self.live = live
        super().__init__(pretrained=live.module, batch_size=4, convert_img_format=True)

    def _create_tokenizer(self, *_: Any, **__: Any) -> None:
        self.processor, self.tokenizer = self.live.processor, self.live.tokenizer


@pytest.mark.parametrize("name", ["llava", "llava_next", "idefics3"])
def test_multimodal_tasks_score_as_lm_evals_own_model_does(name: str, tasks: Path) -> None:
    live = tiny_visual.MODELS[name]()
    built = benchmark("pictures", tasks)
    assert built.families == ("vision_language",)
    assert [built.size(split) for split in SPLITS] == [6, 2, 4]
    settings = {"until": ["x"], "do_sample": False, "max_gen_toks": 6}
    requests = [
        Instance("generate_until", doc={}, idx=0, metadata=("t", n, 1), arguments=(
            f"<image>何色です{'?' * (n % 4)}", dict(settings), {"visual": [tiny_visual.picture(n)]}))
        for n in range(6)
    ]  # fmt: skip
    import zlib

    answers = Plain(live).generate_until(requests, disable_tqdm=True)
    expected = [zlib.crc32(answer.encode()) % 997 for answer in answers]
    calls = counted(tower_of(live))
    for _ in range(2):
        assert built(live, "search").tolist() == expected
    assert len(calls) == 2  # batches of 4 and 2, for the first genome
    assert len(set(expected)) > 2
    np.testing.assert_array_equal(built(live, "search", [3, 1]), np.array(expected, dtype=float)[[3, 1]])


def test_tasks_of_language_alone_run_on_the_language_part(live: tiny_visual.Live, tasks: Path) -> None:
    built = benchmark("words", tasks)
    assert "causal_lm" in built.families
    scores = built(live, "test")
    assert scores.shape == (4,)
    np.testing.assert_array_equal(built(live, "test"), scores)


@pytest.mark.parametrize("task", ["pictures", "words"])
def test_sampled_answers_do_not_depend_on_batches(task: str, live: tiny_visual.Live, tasks: Path) -> None:
    sampled = {"generation_kwargs": {"do_sample": True, "temperature": 1.0}}
    scores = benchmark(task, tasks, **sampled)(live, "search").tolist()
    assert len(set(scores)) > 2
    assert benchmark(task, tasks, batch_size=1, **sampled)(live, "search", [3, 1]).tolist() == [scores[3], scores[1]]
    assert benchmark(task, tasks, sampling_seed=1, **sampled)(live, "search").tolist() != scores


def test_local_parquet_replaces_a_tasks_data(tasks: Path, tmp_path: Path) -> None:
    table = pyarrow.parquet.read_table(tasks / "pictures.parquet").slice(2, 10)
    pyarrow.parquet.write_table(table, tmp_path / "mine.parquet")
    bounds = {"search": {"stop": 0.5}, "validation": None, "test": {"start": 0.5}}
    built = benchmark("pictures", tasks, data_files=str(tmp_path / "mine.parquet"), splits=bounds)
    assert built(tiny_visual.llava(), "test").shape == (5,)
    with pytest.raises(BenchmarkError, match="data_dir: no such directory"):
        benchmark("pictures", tasks, data_dir=str(tmp_path / "none"))


def test_a_copy_of_the_repository_serves_a_group_of_tasks(tasks: Path, tmp_path: Path) -> None:
    """As MMMU: one repository, whose parts the tasks of a group name."""
    copy = tmp_path / "copy"
    for part in ("art", "music"):
        (copy / part).mkdir(parents=True)
        (copy / part / "test-0.parquet").write_bytes((tasks / "pictures.parquet").read_bytes())
    parts = [{"config_name": part, "data_files": [{"split": "test", "path": f"{part}/*.parquet"}]} for part in
             ("art", "music")]  # fmt: skip
    (copy / "README.md").write_text(f"---\nconfigs: {json.dumps(parts)}\n---\n")
    for part in ("art", "music"):
        text = TASK.format(task=f"all_{part}", image="doc_to_image: [picture]", text="<image>")
        lines = [line for line in text.splitlines() if not line.startswith(("dataset_path", "dataset_kwargs"))]
        (tmp_path / f"{part}.yaml").write_text(
            "\n".join([*lines, "dataset_path: nobody/nowhere", f"dataset_name: {part}"])
        )
    (tmp_path / "group.yaml").write_text("group: all\ntask: [all_art, all_music]\n")
    (tmp_path / "closeness.py").write_text((tasks / "closeness.py").read_text())
    found = lm_eval_benchmarks("all", task="all", data_dir=str(copy), include_path=str(tmp_path), splits=BOUNDS)
    assert len(found) == 2
    assert all(built(tiny_visual.llava(), "validation").shape == (2,) for built in found.values())


def test_examples_are_told_apart_by_their_pixels(tasks: Path, tmp_path: Path) -> None:
    rows = pyarrow.parquet.read_table(tasks / "pictures.parquet")
    twice = pyarrow.concat_tables([rows, rows.slice(0, 1)])
    pyarrow.parquet.write_table(twice, tmp_path / "twice.parquet")
    splits = {**BOUNDS, "test": {"start": 8, "stop": 13}}
    with pytest.raises(BenchmarkError, match="example 4 of test is example 0 of search"):
        benchmark("pictures", tasks, data_files=str(tmp_path / "twice.parquet"), splits=splits)


def test_a_task_with_images_needs_an_image_processor(tasks: Path) -> None:
    live = tiny_visual.llava()
    live.processor.image_processor = None
    with pytest.raises(BenchmarkError, match="no image processor"):
        benchmark("pictures", tasks)(live, "search")
