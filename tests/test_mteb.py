"""benchmark=mteb: what mteb itself reports for the same files by sentence-transformers, example by example."""

import json
import random
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evohydra.families.encoder import Encoder
from evohydra.families.live_encoder import LiveEncoder
from evohydra.scoring.benchmarks import SPLITS, BenchmarkError
from evohydra.scoring.benchmarks.mteb_tasks import MtebBenchmark, mteb_task
from tests import tiny_encoders
from tests.commands import evohydra

mteb = pytest.importorskip("mteb")
sentence_transformers = pytest.importorskip("sentence_transformers")
SHARES = {
    "search": {"start": 0.0, "stop": 0.4},
    "validation": {"start": 0.4, "stop": 0.6},
    "test": {"start": 0.6, "stop": 1.0},
}
CONFIGS = """---
configs:
- {config_name: corpus, data_files: [{split: train, path: corpus.jsonl}]}
- {config_name: queries, data_files: [{split: train, path: queries.jsonl}]}
- {config_name: qrels, data_files: [{split: train, path: qrels.jsonl}]}
"""
RANKED = "- {config_name: top_ranked, data_files: [{split: train, path: top_ranked.jsonl}]}\n"


def texts(count: int, seed: int) -> list[str]:
    """Different texts of known words, the first of which is of kind count modulo 3."""
    random.seed(seed)
    kinds = ("fish", "stone", "cloud")
    return [
        " ".join(f"{kinds[at % 3] if not n else random.choice(kinds)}{random.randrange(12)}" for n in range(6))
        for at in range(count)
    ]


def rows(path: Path, found: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in found))


def labelled(directory: Path) -> Path:
    directory.mkdir()
    for split, count, seed in (("train", 90, 1), ("test", 60, 2)):
        found = [{"text": text, "label": at % 3} for at, text in enumerate(texts(count, seed))]
        rows(directory / f"{split}.jsonl", found)
    return directory


def ranking(directory: Path, *, top_ranked: bool = False) -> Path:
    directory.mkdir()
    documents, queries = texts(40, 3), texts(20, 4)
    rows(directory / "corpus.jsonl", [{"id": f"d{n}", "title": "", "text": text} for n, text in enumerate(documents)])
    rows(directory / "queries.jsonl", [{"id": f"q{n}", "text": text} for n, text in enumerate(queries)])
    relevant = [
        {"query-id": f"q{n}", "corpus-id": f"d{(n + 3 * step) % 40}", "score": 2 - step}
        for n in range(20) for step in range(2)
    ]  # fmt: skip
    rows(directory / "qrels.jsonl", relevant)
    if top_ranked:
        ranked = [{"query-id": f"q{n}", "corpus-ids": [f"d{(n + k) % 40}" for k in range(12)]} for n in range(20)]
        rows(directory / "top_ranked.jsonl", ranked)
    (directory / "README.md").write_text(CONFIGS + (RANKED if top_ranked else "") + "---\n")
    return directory


def model(directory: Path, prompts: dict[str, str] | None = None, similarity: str = "cosine") -> Path:
    place = tiny_encoders.as_sentences(tiny_encoders.save(directory, 0))
    said = {"prompts": prompts or {}, "default_prompt_name": None, "similarity_fn_name": similarity}
    (place / "config_sentence_transformers.json").write_text(json.dumps(said))
    return place


def live_of(directory: Path) -> LiveEncoder:
    return Encoder().live_model(directory, torch.device("cpu"), torch.float32)


def benchmark(task: str, data: Path, **options: object) -> MtebBenchmark:
    return mteb_task("mteb", task=task, data_dir=str(data), **{"splits": SHARES, **options})["mteb"]  # type: ignore[arg-type]


def mean_of(found: MtebBenchmark, live: LiveEncoder) -> float:
    return float(np.mean(np.concatenate([found(live, split) for split in SPLITS])))


def by_mteb(task: str, data: Path, directory: Path) -> float:
    """What mteb reports on all of the data for the model as sentence-transformers loads it."""
    asked = mteb.get_task(task)
    asked.metadata = asked.metadata.model_copy(update={"dataset": {**asked.metadata.dataset, "path": str(data)}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names of prompts that mteb does not know, but sentence-transformers does
        wrapper = mteb.models.SentenceTransformerEncoderWrapper(
            sentence_transformers.SentenceTransformer(str(directory), device="cpu")
        )
    split = asked.metadata.eval_splits[0]
    found = asked.evaluate(wrapper, split=split, encode_kwargs={"batch_size": 8, "show_progress_bar": False})
    return float(found["default"]["main_score"])


PROMPTS = [
    None,
    {"query": "cloud1 ", "document": "stone2 stone3 "},
    {"Classification": "fish7 fish3 ", "Retrieval-query": "cloud1 ", "passage": "stone2 "},
]


@pytest.mark.parametrize("prompts", PROMPTS)
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("task", ["Banking77Classification", "NanoSciFactRetrieval", "AskUbuntuDupQuestions"])
def test_the_mean_over_examples_is_what_mteb_reports(
    task: str, similarity: str, prompts: dict[str, str] | None, tmp_path: Path
) -> None:
    data = labelled(tmp_path / "data") if task.endswith("Classification") else ranking(
        tmp_path / "data", top_ranked=task == "AskUbuntuDupQuestions"
    )  # fmt: skip
    place = model(tmp_path / "model", prompts, similarity)
    found, live = benchmark(task, data), live_of(place)
    assert sum(map(found.size, SPLITS)) == (60 if task.endswith("Classification") else 20)
    assert mean_of(found, live) == pytest.approx(by_mteb(task, data, place), abs=2e-5)


@pytest.mark.parametrize("task", ["Banking77Classification", "NanoSciFactRetrieval"])
def test_an_example_scores_the_same_alone_and_among_others(task: str, tmp_path: Path) -> None:
    data = labelled(tmp_path / "data") if task.endswith("Classification") else ranking(tmp_path / "data")
    found, live = benchmark(task, data), live_of(model(tmp_path / "model"))
    together = found(live, "search")
    assert 0 < together.mean() < 1
    for places in ([3], [5, 0, 2], list(range(found.size("search")))[::-1]):
        np.testing.assert_array_equal(found(live, "search", places), together[places])
    assert found(live, "search", []).shape == (0,)
    answers = found.answers(live, "search", [0, 1])
    assert len(answers) == 2
    assert all(found.describe("search", at)[0] for at in (0, 1))


@pytest.mark.parametrize("task", ["Banking77Classification", "NanoSciFactRetrieval"])
def test_data_are_read_as_they_are_now(task: str, tmp_path: Path) -> None:
    """Written anew at one place, and in another directory of the same name; with a README, by which datasets keeps."""
    make = labelled if task.endswith("Classification") else ranking
    found = []
    for place, word in (("a", ""), ("a", " fish1"), ("b", " stone2")):
        shutil.rmtree(tmp_path / place, ignore_errors=True)
        (tmp_path / place).mkdir()
        data = make(tmp_path / place / "data")
        if make is labelled:
            files = "[{split: train, path: train.jsonl}, {split: test, path: test.jsonl}]"
            (data / "README.md").write_text(f"---\nconfigs:\n- {{config_name: default, data_files: {files}}}\n---\n")
        changed = data / ("test.jsonl" if make is labelled else "queries.jsonl")
        lines = [json.loads(line) for line in changed.read_text().splitlines()]
        rows(changed, [{**line, "text": line["text"] + word} for line in lines])
        read = benchmark(task, data)
        assert {read.describe("search", at)[0] for at in range(read.size("search"))} <= {
            line["text"] + word for line in lines
        }
        found.append(read.identity())
    assert found[0] != found[1] != found[2] != found[0]


def test_queries_without_documents_to_rank_are_left_out_as_in_mteb(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, place = ranking(tmp_path / "data", top_ranked=True), model(tmp_path / "model")
    lines = (data / "top_ranked.jsonl").read_text().splitlines(keepends=True)
    (data / "top_ranked.jsonl").write_text("".join(lines[2:]))
    found = benchmark("AskUbuntuDupQuestions", data)
    assert sum(map(found.size, SPLITS)) == 18
    assert "2 queries have no documents to be ranked (q0, ...): left out" in caplog.text
    assert np.isfinite(mean_of(found, live_of(place)))


def test_a_text_that_is_none_is_named(tmp_path: Path) -> None:
    data = labelled(tmp_path / "data")
    lines = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    rows(data / "test.jsonl", [*lines, {"text": None, "label": 0}])
    with pytest.raises(BenchmarkError, match="row 60: expected a text, got"):
        benchmark("Banking77Classification", data)


def test_texts_that_stand_twice_are_asked_once_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = labelled(tmp_path / "data")
    (data / "test.jsonl").write_text((data / "test.jsonl").read_text() * 2)
    found = benchmark("Banking77Classification", data)
    assert sum(map(found.size, SPLITS)) == 60
    assert "60 of 120 texts are there twice or more" in caplog.text


def test_few_examples_with_two_labels_are_scored(tmp_path: Path) -> None:
    """mteb's average precision knows no labels but 0 and 1; a search asks for few examples at a time."""
    found = benchmark("Banking77Classification", labelled(tmp_path / "data"), experiments=2)
    live = live_of(model(tmp_path / "model"))
    labels = [found.describe("search", at)[1] for at in range(found.size("search"))]
    places = [labels.index("1"), labels.index("2")]
    np.testing.assert_array_equal(found(live, "search", places), found(live, "search")[places])


def test_identity_is_of_all_that_scores_depend_on(tmp_path: Path) -> None:
    data = labelled(tmp_path / "data")
    one = benchmark("Banking77Classification", data)
    copied = tmp_path / "elsewhere"
    copied.mkdir()
    for file in data.iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    assert benchmark("Banking77Classification", copied, batch_size=4).identity() == one.identity()
    for options in ({"experiments": 3}, {"prompt": "cloud1 "}, {"pooling": "cls"}, {"shuffle": 1}):
        assert benchmark("Banking77Classification", data, **options).identity() != one.identity()
    rows(copied / "train.jsonl", [{"text": text, "label": at % 3} for at, text in enumerate(texts(90, 7))])
    assert benchmark("Banking77Classification", copied).identity() != one.identity()


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("Banking77Clasification", "has no task 'Banking77Clasification'.*Banking77Classification"),
        ("STSBenchmark", "not with STSBenchmark: STS, main score cosine_spearman; benchmark=embedding_similarity"),
        ("TwentyNewsgroupsClustering", "not with TwentyNewsgroupsClustering"),
        ("SprintDuplicateQuestions", "not with SprintDuplicateQuestions: PairClassification"),
        ("MassiveIntentClassification", "benchmark.mteb.subset: .* has several"),
        ("CIFAR10", "is about image"),
        (None, "expected the name of a task of mteb"),
    ],
)
def test_tasks_that_a_search_cannot_use_are_refused_before_any_data_is_read(task: str | None, words: str) -> None:
    with pytest.raises(BenchmarkError, match=words):
        mteb_task("mteb", task=task, splits=SHARES)


def test_data_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"benchmark\.mteb\.data_dir=/data/NAME"):
        benchmark("Banking77Classification", tmp_path / "nowhere")
    data = labelled(tmp_path / "data")
    (data / "test.jsonl").unlink()
    with pytest.raises(BenchmarkError, match=r"expected the splits test, train in the data of .*, got train"):
        benchmark("Banking77Classification", data)


def test_vectors_that_are_compared_otherwise_are_refused(tmp_path: Path) -> None:
    found = benchmark("NanoSciFactRetrieval", ranking(tmp_path / "data"))
    with pytest.raises(BenchmarkError, match="similarity_fn_name='euclidean'"):
        found(live_of(model(tmp_path / "model", similarity="euclidean")), "search")


def test_a_search_by_a_task_of_mteb(tmp_path: Path) -> None:
    base = tiny_encoders.save(tmp_path / "base", 0)
    sources = [tiny_encoders.save(tmp_path / name, seed, near=base) for seed, name in enumerate(("one", "two"), 1)]
    done = evohydra(
        "model=local_encoder", f"model.sources.local_encoder.path={sources[0]}",
        f"+model.sources.other.path={sources[1]}", f"model.sources.local_encoder.base={base}",
        "benchmark=mteb", "benchmark.mteb.task=NanoSciFactRetrieval",
        f"benchmark.mteb.data_dir={ranking(tmp_path / 'data')}", "optimizer=cmaes", "optimizer.population=4",
        "budget=8", "run=mteb", "tracker=none", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "outputs" / "mteb" / "summary.json").read_text())
    assert 0 < summary["test"]["winner"]["score"] <= 1
    assert "mteb.abstasks" not in done.stdout + done.stderr
