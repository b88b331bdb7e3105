"""Vectors of texts, and classification by them: against transformers, sentence-transformers, and plain numpy."""

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from numpy.typing import NDArray
from scipy.stats import kendalltau

from evohydra.families.encoder import Encoder
from evohydra.families.live_encoder import LiveEncoder
from evohydra.families.sentences import POOLINGS
from evohydra.merging.checkpoints import CheckpointReader
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.embedding_classification import EmbeddingClassification, embedding_classification
from evohydra.scoring.benchmarks.embedding_similarity import EmbeddingSimilarity, concordance, embedding_similarity
from evohydra.scoring.benchmarks.embeddings import Embedder
from tests import tiny_encoders

CPU = torch.device("cpu")
TEXTS = [
    "fish1 stone2 cloud3",
    "cloud3",
    "stone1 " * 20,
    "fish1 fish2",
    "unknown words here fish4",
    "fish1 stone2 cloud4",
]
BOUNDS = {
    "search": {"start": 30, "stop": 70},
    "validation": {"start": 70, "stop": 90},
    "test": {"start": 90, "stop": 120},
}
REFERENCES = {"start": 0, "stop": 30}


def live_of(directory: Path) -> LiveEncoder:
    return Encoder().live_model(directory, CPU, torch.float32)


def by_hand(directory: Path, text: str, mode: str) -> torch.Tensor:
    """The vector of a text that is alone in its batch."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModel.from_pretrained(directory).eval()
    tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=32)
    tokens.pop("token_type_ids", None)
    with torch.inference_mode():
        hidden = model(**tokens).last_hidden_state[0]
    steps = torch.arange(1, len(hidden) + 1).unsqueeze(1)
    found = {
        "cls": hidden[0],
        "lasttoken": hidden[-1],
        "max": hidden.amax(0),
        "mean": hidden.mean(0),
        "mean_sqrt_len_tokens": hidden.sum(0) / len(hidden) ** 0.5,
        "weightedmean": (hidden * steps).sum(0) / steps.sum(),
    }[mode]
    return found / found.norm()


@pytest.mark.parametrize("architecture", tiny_encoders.ARCHITECTURES)
def test_vectors_are_those_of_transformers_whatever_is_in_the_batch(architecture: str, tmp_path: Path) -> None:
    directory = tiny_encoders.save(tmp_path / "one", 0, architecture)
    for mode in POOLINGS if architecture in ("bert", "modernbert") else ("mean", "cls"):
        expected = torch.stack([by_hand(directory, text, mode) for text in TEXTS])
        for size in (1, 2, 64):
            found = Embedder("some", size, mode, None)(live_of(directory), TEXTS)  # type: ignore[arg-type]
            torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


def test_texts_are_read_as_files_say(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Pooling, length, small letters and prompt."""
    plain = tiny_encoders.save(tmp_path / "plain", 0)
    place = tiny_encoders.as_sentences(
        tiny_encoders.save(tmp_path / "one", 0), {"pooling_mode": ["cls", "max"]}, max_seq_length=5, do_lower_case=True
    )
    prompts = {"prompts": {"query": "cloud1 "}, "default_prompt_name": "query"}
    (place / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    live = live_of(place)
    found = Embedder("some", 4, "auto", None)(live, ["Fish1", "stone1 stone2 stone3 stone4"])
    read = ["cloud1 fish1", "cloud1 stone1 stone2"]
    parts = [
        torch.cat([Embedder("some", 1, mode, None)(live_of(plain), [text]) for mode in ("cls", "max")], dim=1)
        for text in read
    ]
    assert found.shape == (2, 32)
    for own, expected in zip(found, parts, strict=True):  # of two, each scaled by its own length
        for half, other in zip(own.reshape(2, 16), expected.reshape(2, 16), strict=True):
            torch.testing.assert_close(half / half.norm(), other, atol=2e-6, rtol=1e-5)
    assert "1 of 2 texts are cut: the model reads 5 tokens" in caplog.text
    without = Embedder("some", 4, "mean", "")(live, ["fish1"])
    torch.testing.assert_close(without, Embedder("some", 4, "mean", None)(live_of(plain), ["fish1"]))


def test_tokens_of_a_prompt_may_be_left_out_of_the_pooling(tmp_path: Path) -> None:
    place = tiny_encoders.as_sentences(
        tiny_encoders.save(tmp_path / "one", 0), {"pooling_mode": "mean", "include_prompt": False}
    )
    live = live_of(place)
    found = Embedder("some", 4, "auto", "cloud1 stone2 ")(live, ["fish1 fish2", "fish3"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    for own, text in zip(found, ["fish1 fish2", "fish3"], strict=True):
        tokens = torch.tensor([tokenizer(f"cloud1 stone2 {text}")["input_ids"]])
        with torch.inference_mode():
            expected = live.module(input_ids=tokens).last_hidden_state[0, 3:].mean(0)
        torch.testing.assert_close(own, expected / expected.norm(), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("mode", [*POOLINGS, "cls+mean"])
def test_vectors_are_those_of_sentence_transformers(mode: str, tmp_path: Path) -> None:
    """Of a directory as it was published, and of the winner."""
    library = pytest.importorskip("sentence_transformers")
    place = tiny_encoders.as_sentences(
        tiny_encoders.save(tmp_path / "one", 0), {"pooling_mode": mode.split("+")}, "0_Transformer"
    )
    live = live_of(place)
    expected = library.SentenceTransformer(str(place), device="cpu").encode(TEXTS, normalize_embeddings=True)
    found = Embedder("some", 4, "auto", None)(live, TEXTS)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6)
    out = tmp_path / "out"
    out.mkdir()
    Encoder().copy_files(place, out, torch.float32)
    (place / "0_Transformer" / "model.safetensors").rename(out / "model.safetensors")
    again = library.SentenceTransformer(str(out), device="cpu").encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_array_equal(again, expected)


@pytest.mark.parametrize("architecture", tiny_encoders.ARCHITECTURES)
def test_no_text_is_longer_than_there_are_positions(
    architecture: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tiny_encoders.save(tmp_path / "one", 0, architecture)
    tiny_encoders.tokenizer(longest=10**30).save_pretrained(directory)  # as tokenizers have it that say nothing
    live = live_of(directory)
    found = Embedder("some", 4, "mean", None)(live, ["fish1 " * 100])
    assert f"1 of 1 texts are cut: the model reads {live.longest} tokens" in caplog.text
    assert found.isfinite().all()
    assert 38 <= live.longest <= 40
    if any("position_embeddings" in name for name in live.parameters):
        with pytest.raises((IndexError, RuntimeError)), torch.inference_mode():
            live.module(input_ids=torch.full((1, live.longest + 1), 7))


def test_a_model_of_nan_has_failed(tmp_path: Path) -> None:
    live = live_of(tiny_encoders.save(tmp_path / "one", 0))
    live.parameters["encoder.layer.1.output.LayerNorm.weight"].fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="the vectors of 6 of 6 texts are not numbers"):
        Embedder("some", 4, "auto", None)(live, TEXTS)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> LiveEncoder:
    return live_of(tiny_encoders.save(tmp_path_factory.mktemp("live") / "one", 0))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoders.save_texts(tmp_path_factory.mktemp("texts") / "texts.jsonl")


def made(file: Path, **options: Any) -> EmbeddingClassification:
    chosen: dict[str, Any] = {"data_files": str(file), "splits": BOUNDS, "references": REFERENCES, **options}
    return embedding_classification("some", **chosen)["some"]


def rows_of(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def expected_scores(file: Path, live: LiveEncoder, rule: str, k: int, places: range) -> NDArray[np.float64]:
    """By loops over plain numbers."""
    rows = rows_of(file)
    vectors = Embedder("some", 8, "mean", None)(live, [row["text"] for row in rows]).double().numpy()
    labels = [row["label"] for row in rows]
    found = []
    for at in places:
        if rule == "centroid":
            means = {
                label: np.mean([vectors[n] for n in range(30) if labels[n] == label], axis=0) for label in set(labels)
            }
            chosen = max(means, key=lambda label: vectors[at] @ means[label] / np.linalg.norm(means[label]))
        else:
            near = sorted(range(30), key=lambda n: -vectors[at] @ vectors[n])[:k]
            votes = {label: [vectors[at] @ vectors[n] + 1 for n in near if labels[n] == label] for label in set(labels)}
            chosen = max(votes, key=lambda label: (len(votes[label]), sum(votes[label])))
        found.append(float(chosen == labels[at]))
    return np.array(found)


@pytest.mark.parametrize(("rule", "k"), [("neighbours", 1), ("neighbours", 5), ("neighbours", 30), ("centroid", 5)])
def test_scores_are_those_of_the_rule(rule: str, k: int, file: Path, live: LiveEncoder) -> None:
    benchmark = made(file, rule=rule, k=k)
    for split, bounds in BOUNDS.items():
        places = range(bounds["start"], bounds["stop"])
        scores = benchmark(live, split)  # type: ignore[arg-type]
        assert benchmark.size(split) == len(scores) == len(places)  # type: ignore[arg-type]
        np.testing.assert_array_equal(scores, expected_scores(file, live, rule, k, places))
    everything = benchmark(live, "search")
    assert 0 < everything.mean() < 1
    np.testing.assert_array_equal(benchmark(live, "search", [7, 0, 33]), everything[[7, 0, 33]])
    assert benchmark(live, "search", []).shape == (0,)
    assert benchmark.describe("search", 0) == tuple(rows_of(file)[30].values())
    labels = benchmark.answers(live, "search", range(40))
    rows = rows_of(file)[30:70]
    assert [float(label == row["label"]) for label, row in zip(labels, rows, strict=True)] == everything.tolist()


def test_scores_follow_the_weights(file: Path, tmp_path: Path) -> None:
    """Nothing of one genome is left for the next."""
    directories = {name: tiny_encoders.save(tmp_path / name, seed) for seed, name in enumerate(("one", "two"))}
    live = live_of(directories["one"])
    engine = Engine({name: CheckpointReader(path) for name, path in directories.items()}, device=CPU)
    benchmark = made(file)
    found = {}
    for name in ("one", "two", "one"):
        live.become(Checkpoint(name, "-"), engine)
        scores = benchmark(live, "search").tolist()
        assert found.setdefault(name, scores) == scores
        assert scores == made(file)(live_of(directories[name]), "search").tolist()
    assert found["one"] != found["two"]


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".tsv", ".parquet"])
def test_every_kind_of_file_holds_the_same(suffix: str, file: Path, live: LiveEncoder, tmp_path: Path) -> None:
    rows = [{"sentence": f'{row["text"]}, "said"', "kind": number % 3} for number, row in enumerate(rows_of(file))]
    target = tmp_path / f"texts{suffix}"
    if suffix == ".parquet":
        Dataset.from_list(rows).to_parquet(target)
    elif suffix in (".csv", ".tsv"):
        with target.open("w", newline="") as opened:
            writer = csv.DictWriter(opened, ["kind", "sentence"], delimiter="," if suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    else:
        lines = [json.dumps(row) for row in rows]
        target.write_text(json.dumps(rows) if suffix == ".json" else "\n".join(lines))
    benchmark = made(target, columns={"text": "sentence", "label": "kind"})
    assert benchmark.describe("test", 29) == (rows[119]["sentence"], "2")
    (tmp_path / "same.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    same = made(tmp_path / "same.jsonl", columns={"text": "sentence", "label": "kind"})
    assert benchmark.identity() == same.identity()
    np.testing.assert_array_equal(benchmark(live, "test"), same(live, "test"))


def test_splits_may_have_files_of_their_own(file: Path, live: LiveEncoder, tmp_path: Path) -> None:
    lines = file.read_text().splitlines()
    parts = {"references": lines[:30], "search": lines[30:70], "validation": lines[70:90], "test": lines[90:]}
    for name, chosen in parts.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(chosen))
    own = {name: {"data_files": str(tmp_path / f"{name}.jsonl")} for name in parts}
    references = own.pop("references")
    apart = made(file, splits=own, references=references, data_files=None)
    assert apart.identity() == made(file).identity()
    np.testing.assert_array_equal(apart(live, "test"), made(file)(live, "test"))
    assert made(file, splits={**BOUNDS, "validation": None}).size("validation") == 0
    assert made(file, limit=7).size("search") == 7
    assert made(file, shuffle=3).describe("test", 0) != made(file).describe("test", 0)


ROW = {"text": "fish1 fish2 stone1 again", "label": "fish"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_files": None}, r"no data: expected benchmark\.some\.data_files=/data/FILE"),
        ({"data_files": "/nowhere.csv"}, "no such file: /nowhere.csv"),
        ({"columns": {"words": "text"}}, "columns.words: there is no such setting"),
        ({"columns": {"text": "label", "label": "kind"}}, "expected a word or a whole number in the column 'kind'"),
        ({"columns": {"text": "texts"}}, "expected a text in the column 'texts'.*it has .'label', 'text'"),
        (
            {"references": {"start": 0, "stop": 31}},
            "the splits overlap: example 0 of search is example 30 of references",
        ),
        ({"references": {"start": 0, "stop": 1}}, "no reference has the label"),
        ({"references": None}, "references: expected start and stop"),
        ({"k": 31}, "k: expected at most 30 references, got 31"),
        ({"k": 0}, "k"),
        ({"rule": "tree"}, "rule: expected"),
        ({"pooling": "middle"}, "pooling: expected"),
        ({"metric": "f1"}, "metric: there is no such setting"),
        ({"splits": {"search": {}, "test": {}}}, "expected the splits search, validation, test"),
        ({"splits": {**BOUNDS, "test": {"task": "sst2"}}}, "task: expected local data_files"),
        ({"splits": {**BOUNDS, "test": {"start": 120}}}, "the test split is empty"),
        ({"splits": {**BOUNDS, "test": None}}, "only the validation split may be null"),
    ],
)
def test_wrong_options_are_refused_in_a_sentence(options: dict[str, Any], message: str, file: Path) -> None:
    with pytest.raises(ValueError, match=message):
        made(file, **options)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{**ROW, "label": 0.5}], "row 0: expected a word or a whole number in the column 'label', got 0.5"),
        ([{**ROW, "label": None}], "expected a word or a whole number"),
        ([{**ROW, "text": " "}], "row 0: expected a text"),
        ([], "holds no texts"),
        ([{**ROW, "text": f"fish{n}"} for n in range(120)], "expected references with two labels or more"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(rows: list[dict[str, Any]], message: str, tmp_path: Path) -> None:
    more = [{"text": f"stone{n}", "label": "stone"} for n in range(len(rows), 120)] if rows else []
    (tmp_path / "texts.json").write_text(json.dumps(rows + more))
    with pytest.raises(BenchmarkError, match=message):
        made(tmp_path / "texts.json")


@pytest.mark.parametrize("spoil", [lambda text: text + '"', lambda text: text.encode("utf-16")])
def test_a_damaged_table_is_refused(spoil: Callable[[str], Any], tmp_path: Path) -> None:
    damaged = spoil('text,label\n"a b",fish\n"c')
    (tmp_path / "texts.csv").write_bytes(damaged if isinstance(damaged, bytes) else damaged[:-1].encode())
    with pytest.raises(BenchmarkError, match=r"is not readable as \.csv"):
        made(tmp_path / "texts.csv")


def test_other_models_are_refused(file: Path) -> None:
    with pytest.raises(BenchmarkError, match="expected an encoder, got str"):
        made(file)("no model", "search")  # type: ignore[arg-type]


HEADED = transformers.AutoModelForSequenceClassification
LABELS = {0: "stone", 1: "cloud", 2: "fish"}


@pytest.mark.parametrize("architecture", tiny_encoders.ARCHITECTURES)
def test_a_head_says_what_transformers_says(architecture: str, file: Path, tmp_path: Path) -> None:
    directory = tiny_encoders.save(tmp_path / "one", 3, architecture, kind=HEADED, id2label=LABELS, step=3.0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = HEADED.from_pretrained(directory).eval()
    rows = rows_of(file)[30:70]
    with torch.inference_mode():
        logits = [model(torch.tensor([tokenizer(row["text"])["input_ids"]])).logits[0] for row in rows]
    labels = [LABELS[int(each.argmax())] for each in logits]
    benchmark = made(file, rule="head", k=1000)  # of neighbours
    assert benchmark.answers(live_of(directory), "search", range(40)) == labels
    expected = [float(label == row["label"]) for label, row in zip(labels, rows, strict=True)]
    assert benchmark(live_of(directory), "search").tolist() == expected
    found = Embedder("some", 7, "auto", None).logits(live_of(directory), [row["text"] for row in rows])
    torch.testing.assert_close(found, torch.stack(logits), atol=1e-5, rtol=1e-4)


def test_a_head_that_cannot_be_asked_is_refused(file: Path, live: LiveEncoder, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="rule=head: expected a model with a head"):
        made(file, rule="head")(live, "search")
    other = tiny_encoders.save(tmp_path / "one", 0, kind=HEADED, num_labels=3)
    with pytest.raises(BenchmarkError, match=r"expected the labels of the model's head \(LABEL_0, .*got 'cloud'"):
        made(file, rule="head")(live_of(other), "search")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of texts that share none to four of five words, which is their score."""
    draw = random.Random(1)
    rows = []
    for number in range(120):
        words = draw.sample(tiny_encoders.WORDS, 10)
        shared = number % 5
        first, second = words[:5], [*words[:shared], *words[5 : 10 - shared]]
        rows.append({"sentence1": " ".join(first), "sentence2": " ".join(second), "score": shared / 2})
    file = tmp_path_factory.mktemp("pairs") / "pairs.json"
    file.write_text(json.dumps(rows))
    return file


def similarity(file: Path, **options: Any) -> EmbeddingSimilarity:
    chosen: dict[str, Any] = {"data_files": str(file), "splits": BOUNDS, "references": REFERENCES, **options}
    return embedding_similarity("some", **chosen)["some"]


def test_pairs_are_ordered_as_by_hand(pairs: Path, live: LiveEncoder) -> None:
    rows = json.loads(pairs.read_text())
    embed = Embedder("some", 8, "mean", None)
    firsts, seconds = (embed(live, [row[key] for row in rows]).double() for key in ("sentence1", "sentence2"))
    cosines = (firsts * seconds).sum(dim=1).tolist()
    benchmark = similarity(pairs)
    for split, bounds in BOUNDS.items():
        expected = []
        for at in range(bounds["start"], bounds["stop"]):
            others = [n for n in range(30) if rows[n]["score"] != rows[at]["score"]]
            right = [(cosines[at] > cosines[n]) == (rows[at]["score"] > rows[n]["score"]) for n in others]
            expected.append(sum(right) / len(others))
        np.testing.assert_allclose(benchmark(live, split), expected)  # type: ignore[arg-type]
    whole = benchmark(live, "search")
    assert 0.5 < whole.mean() < 1  # even random vectors of texts with common words are nearer
    np.testing.assert_array_equal(benchmark(live, "search", [5, 2]), whole[[5, 2]])
    assert benchmark(live, "search", []).shape == (0,)
    assert benchmark.answers(live, "test", [3]) == [f"{cosines[93]:.3f}"]
    asked = rows[93]
    assert benchmark.describe("test", 3) == (f"{asked['sentence1']}\n{asked['sentence2']}", f"{asked['score']:g}")


def test_the_mean_follows_the_order_of_all_pairs() -> None:
    """It is 1 for the right order, 0 for the other way round, and grows with Kendall's correlation."""
    draw = np.random.default_rng(0)
    right = draw.integers(0, 5, 400).astype(float)
    known = draw.integers(0, 5, 400).astype(float)
    found = []
    for noise in (0.0, 0.5, 2.0, 50.0):
        cosines, known_cosines = (each + noise * draw.normal(size=400) for each in (right, known))
        found.append((concordance(cosines, right, known_cosines, known).mean(), kendalltau(cosines, right).statistic))
    assert found[0][0] == 1
    assert found == sorted(found, reverse=True)
    assert abs(found[-1][0] - 0.5) < 0.03
    np.testing.assert_allclose(concordance(-right, right, -known, known), 0)
    np.testing.assert_allclose(concordance(0 * right, right, 0 * known, known), 0.5)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"score": "much"}, {}, "row 0: expected a number in the column 'score', got 'much'"),
        ({"score": float("nan")}, {}, "row 0: expected a number in the column 'score'"),
        ({"score": True}, {}, "row 0: expected a number in the column 'score'"),
        ({"sentence2": ""}, {}, "row 0: expected a text in the column 'sentence2'"),
        ({}, {"columns": {"label": "score"}}, "columns.label: there is no such setting"),
        ({}, {"references": {"start": 0, "stop": 1}}, "expected references of two scores or more, got only 0"),
        ({}, {"references": {"start": 0, "stop": 31}}, "the splits overlap"),
        ({}, {"k": 5}, "k: there is no such setting"),
        ({}, {"data_files": None}, "with the columns sentence1, sentence2, score"),
    ],
)
def test_pairs_that_cannot_be_used_are_refused(
    change: dict[str, Any], options: dict[str, Any], message: str, pairs: Path, tmp_path: Path
) -> None:
    first, *others = json.loads(pairs.read_text())
    (tmp_path / "pairs.json").write_text(json.dumps([{**first, **change}, *others]))
    with pytest.raises(ValueError, match=message):
        similarity(tmp_path / "pairs.json", **options)


def test_scores_in_a_table_are_numbers(pairs: Path, tmp_path: Path) -> None:
    rows = json.loads(pairs.read_text())
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    assert similarity(tmp_path / "pairs.csv").identity() == similarity(pairs).identity()
