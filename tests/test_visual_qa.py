"""Questions about images: contracts of a benchmark, its data and splits, bad images, and the search set's script."""

import io
import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from evohydra.scoring.benchmarks import SPLITS, BenchmarkError, ja_vg_vqa, visual_data
from evohydra.scoring.benchmarks.images import ImageSource, decoded
from evohydra.scoring.benchmarks.likelihood import check_verifiable
from evohydra.scoring.benchmarks.run_cache import RunCache
from evohydra.scoring.benchmarks.visual_qa import GENERATION, VisualQA, visual_qa
from tests import tiny_visual

BOUNDS = {
    "search": {"start": 0, "stop": 5}, "validation": {"start": 5, "stop": 7}, "test": {"start": 7, "stop": 10},
}  # fmt: skip
SHORT = {"max_new_tokens": 5, "num_beams": 2}


def closeness(answer: str, references: Sequence[str]) -> float:
    """A number that differs between answers."""
    return float(zlib.crc32((answer + references[0]).encode()) % 997)


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_visual.save_questions(tmp_path_factory.mktemp("questions") / "data")


def benchmark(file: Path | None, **options: Any) -> VisualQA:
    settings: dict[str, Any] = {
        "metric": "tests.test_visual_qa:closeness", "generation_kwargs": SHORT, "splits": BOUNDS,
        "data_files": None if file is None else str(file),
    }  # fmt: skip
    return visual_qa("vqa", **{**settings, **options})["vqa"]


@pytest.fixture(params=tiny_visual.MODELS)
def live(request: pytest.FixtureRequest) -> tiny_visual.Live:
    return tiny_visual.MODELS[request.param]()


@pytest.fixture
def llava() -> tiny_visual.Live:
    return tiny_visual.llava()


def by_hand(live: tiny_visual.Live, example: Any, built: VisualQA) -> str:
    """The answer by the processor and generate alone, one example at a time."""
    text = f"{live.image}{example.question}\n"
    inputs = live.processor(text=[text], images=[[built.image(example)]], return_tensors="pt")
    tokens = live.module.generate(**inputs, pad_token_id=0, **{**GENERATION, **SHORT})
    answer: str = live.tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return answer.strip()


def test_answers_are_those_of_the_processor_and_generate(live: tiny_visual.Live, questions: Path) -> None:
    built = benchmark(questions, batch_size=1)
    places = range(built.size("search"))
    expected = [by_hand(live, example, built) for example in built.examples("search")]
    for _ in range(2):
        assert built.answers(live, "search", places) == expected
    assert len(set(expected)) > 2
    scores = built(live, "search")
    assert scores.dtype == np.float64
    assert scores.tolist() == [closeness(answer, ("赤です",)) for answer in expected]


def log_probability_by_hand(live: tiny_visual.Live, example: Any, built: VisualQA, answer: str) -> tuple[float, int]:
    """Of `answer` in all, and its number of tokens, from a pass over one example without padding."""
    prompt = f"{live.image}{example.question}\n"
    given = {"images": [[built.image(example)]], "return_tensors": "pt"}
    whole, before = (live.processor(text=[text], **given) for text in (prompt + answer, prompt))
    with torch.no_grad():
        logits = live.module(**whole).logits[0].double().log_softmax(dim=-1)
    first, tokens = before["input_ids"].shape[1], whole["input_ids"][0]
    return float(sum(logits[at - 1, tokens[at]] for at in range(first, len(tokens)))), len(tokens) - first


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_likelihood_of_references_is_that_of_a_pass_without_padding(
    batch_size: int, live: tiny_visual.Live, questions: Path
) -> None:
    built = benchmark(questions, batch_size=batch_size)
    built.check_references()
    expected = []
    for example in built.examples("search"):
        total, count = log_probability_by_hand(live, example, built, example.references[0])
        expected.append((total / count, total / len(example.references[0].encode())))
    for _ in range(2):
        assert built.log_likelihoods(live, "search", None, "token") == pytest.approx([a for a, _ in expected], 1e-4)
    assert built.log_likelihoods(live, "search", [3, 1], "byte") == pytest.approx(
        [expected[3][1], expected[1][1]], 1e-4
    )
    assert len({round(a, 6) for a, _ in expected}) > 2


def test_the_likelihood_of_an_answer_that_was_verified(live: tiny_visual.Live, questions: Path) -> None:
    built = benchmark(questions, batch_size=3)
    check_verifiable({built.name: built})
    answers, scores = built.written(live, "search", [3, 0])
    assert answers == built.answers(live, "search", [3, 0])
    assert scores == built(live, "search", [3, 0]).tolist()
    texts = {3: ["red", "blue and red"], 1: ["red"]}
    told = {}
    for place, each in texts.items():
        example = built.examples("search")[place]
        pairs = [log_probability_by_hand(live, example, built, text) for text in each]
        told[place] = max(total / count for total, count in pairs)
    found = built.log_likelihoods_of(live, "search", [1, 3], "token", texts)
    assert found == pytest.approx([told[1], told[3]], 1e-4)


def test_some_examples_alone_and_other_batches_score_alike(live: tiny_visual.Live, questions: Path) -> None:
    built = benchmark(questions, batch_size=3)
    scores = built(live, "search")
    np.testing.assert_array_equal(built(live, "search", [4, 0, 3]), scores[[4, 0, 3]])
    built(live, "test")
    np.testing.assert_array_equal(built(live, "search"), scores)
    np.testing.assert_array_equal(benchmark(questions, batch_size=1)(live, "search"), scores)


def test_sampled_answers_follow_from_seed_and_example(live: tiny_visual.Live, questions: Path) -> None:
    sampled = {"do_sample": True, "num_beams": 1, "max_new_tokens": 6}
    one = benchmark(questions, generation_kwargs=sampled, batch_size=3)
    answers = one.answers(live, "search", range(one.size("search")))
    torch.rand(3)
    assert one.answers(live, "search", range(one.size("search"))) == answers
    single = benchmark(questions, generation_kwargs=sampled, batch_size=1)
    assert single.answers(live, "search", [3, 1]) == [answers[3], answers[1]]
    other = benchmark(questions, generation_kwargs=sampled, batch_size=3, sampling_seed=1)
    assert other.answers(live, "search", range(one.size("search"))) != answers
    assert other.identity() != one.identity()
    greedy = [benchmark(questions, sampling_seed=seed).identity() for seed in (0, 1)]
    assert greedy[0] == greedy[1]


def test_scores_follow_changes_of_the_language_model(live: tiny_visual.Live, questions: Path) -> None:
    built = benchmark(questions)
    before = built(live, "search")
    embeddings = live.module.get_input_embeddings().weight
    kept = embeddings.clone()
    with torch.inference_mode():
        embeddings.copy_(kept.flip(1))
    assert (built(live, "search") != before).any()
    with torch.inference_mode():
        embeddings.copy_(kept)
    np.testing.assert_array_equal(built(live, "search"), before)


def test_images_are_decoded_and_preprocessed_once_a_run(
    llava: tiny_visual.Live, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = benchmark(questions)
    calls = []
    plain = type(llava.processor).__call__
    monkeypatch.setattr(type(llava.processor), "__call__", lambda *a, **b: calls.append(1) or plain(*a, **b))
    monkeypatch.setattr("evohydra.scoring.benchmarks.visual_qa.decoded", lambda *_: pytest.fail("decoded again"))
    first = built(llava, "search")
    asked = len(calls)
    np.testing.assert_array_equal(built(llava, "search"), first)
    assert len(calls) == asked == 2
    monkeypatch.undo()
    nothing_kept = benchmark(questions, cache_gb=0, features_gb=0)
    for _ in range(2):
        np.testing.assert_array_equal(nothing_kept(llava, "search"), first)


def test_all_questions_of_an_image_go_to_one_split(questions: Path) -> None:
    built = benchmark(questions)
    assert [built.size(split) for split in SPLITS] == [6, 2, 4]  # images 4 and 9 have two questions
    whole = benchmark(questions, shuffle=3)
    seen = [{example.image_id for example in whole.examples(split)} for split in SPLITS]
    assert sum(map(len, seen)) == len(set().union(*seen)) == 10
    assert benchmark(questions, limit=1).size("search") == 1
    once = benchmark(questions, first_question=True, splits={**BOUNDS, "validation": None})
    assert once.size("validation") == 0


def rewritten(questions: Path, target: Path, change: Any) -> Path:
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    rows = [{**row, "image": str(questions.parent / row["image"])} for row in rows]
    target.write_text("".join(json.dumps(change(number, row)) + "\n" for number, row in enumerate(rows)))
    return target


def test_an_image_in_two_splits_is_an_error(questions: Path, tmp_path: Path) -> None:
    same_id = rewritten(questions, tmp_path / "a.jsonl", lambda n, row: row)
    other = {"data_files": str(same_id), "start": 4, "stop": 6}
    with pytest.raises(BenchmarkError, match="overlap"):
        benchmark(questions, splits={**BOUNDS, "test": other})
    renamed = rewritten(questions, tmp_path / "b.jsonl", lambda n, row: {**row, "image_id": f"other {n}"})
    with pytest.raises(BenchmarkError, match="overlap"):  # by the pixels
        benchmark(questions, splits={**BOUNDS, "test": {**other, "data_files": str(renamed)}})
    copy = tmp_path / "again.png"
    tiny_visual.picture(99).save(copy)
    repainted = rewritten(questions, tmp_path / "c.jsonl", lambda n, row: {**row, "image": str(copy)})
    with pytest.raises(BenchmarkError, match="overlap"):  # by the id
        benchmark(questions, splits={**BOUNDS, "test": {**other, "data_files": str(repainted)}})


def test_parquet_with_bytes_and_nested_questions_as_the_hub_stores_them(
    questions: Path, tmp_path: Path, llava: tiny_visual.Live
) -> None:
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    table = [
        {
            "image_id": row["image_id"],
            "image": {"bytes": (questions.parent / row["image"]).read_bytes(), "path": None},
            "qas": [{"question": row["question"], "answer": row["answer"]}, {"question": "何?", "answer": "犬"}],
        }
        for row in rows
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), tmp_path / "x.parquet")
    nested = {"columns": {"questions": "qas"}, "first_question": True}
    built = benchmark(tmp_path / "x.parquet", **nested)
    np.testing.assert_array_equal(built(llava, "test"), benchmark(questions)(llava, "test"))
    assert benchmark(tmp_path / "x.parquet", columns={"questions": "qas"}).size("search") == 12


def test_the_title_names_another_data_set_of_the_test(questions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert benchmark(questions).title == benchmark(questions).name
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    own = [{**row, "image": str(questions.parent / row["image"])} for row in rows]
    monkeypatch.setattr(visual_data, "_from_hub", lambda name, source: own)
    other = {"task": "owner/OTHER", "data_files": None, "start": 0.8, "stop": 1.0}
    assert benchmark(questions, splits={**BOUNDS, "test": other}).title.endswith(": owner/OTHER")


def bomb() -> bytes:
    """A PNG of 100 000 x 100 000 pixels in a hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def file_of(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no image at all", "not a readable image"),
        (b"", "not a readable image"),
        (file_of(tiny_visual.picture(1), "PNG")[:300], "not a readable image"),
        (file_of(tiny_visual.picture(1, 64, 64), "JPEG")[:700], "not a readable image"),
        (bomb(), "decompression bomb"),
        (file_of(Image.new("RGB", (9000, 6000)), "PNG"), "more than max_pixels"),
        (file_of(tiny_visual.picture(1), "EPS"), "not a readable image"),
    ],
    ids=["text", "empty", "cut PNG", "cut JPEG", "bomb", "large", "a program"],
)
def test_broken_and_huge_images_are_refused_by_name_before_the_search(
    content: bytes, message: str, questions: Path, tmp_path: Path
) -> None:
    with pytest.raises(BenchmarkError, match=message):
        decoded(ImageSource("bytes", data=content))
    (tmp_path / "bad.png").write_bytes(content)
    last = rewritten(  # in the test split, which is not asked before the search has ended
        questions, tmp_path / "q.jsonl", lambda n, row: {**row, "image": str(tmp_path / "bad.png")} if n > 10 else row
    )
    with pytest.raises(BenchmarkError, match=rf"bad\.png.*{message}"):
        benchmark(last)


def test_orientation_and_transparency_are_those_of_the_photograph() -> None:
    photo = tiny_visual.picture(1, 20, 10)
    turned = Image.Exif()
    turned[0x0112] = 6
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", exif=turned)
    assert decoded(ImageSource("x", data=buffer.getvalue()))[0].size == (10, 20)
    assert decoded(ImageSource("x", data=file_of(photo.convert("RGBA"), "PNG")))[0].mode == "RGB"
    assert decoded(ImageSource("x", data=file_of(photo.convert("P"), "GIF")))[0].mode == "RGB"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: {k: v for k, v in row.items() if k != "image"}, "without images.*lm_eval"),
        (lambda row: {**row, "image": None}, "no image"),
        (lambda row: {**row, "image": "nowhere.png"}, r"nowhere\.png: cannot be read"),
        (lambda row: {**row, "question": " "}, "expected a text in the column 'question'"),
        (lambda row: {**row, "answer": 7}, "expected a text in the column 'answer', got 7"),
    ],
)
def test_rows_that_cannot_be_asked_are_named(change: Any, message: str, questions: Path, tmp_path: Path) -> None:
    file = rewritten(questions, tmp_path / "q.jsonl", lambda n, row: change(row) if n == 2 else row)
    with pytest.raises(BenchmarkError, match=message):
        benchmark(file)


def test_wrong_settings_are_errors_with_the_known_ones(
    questions: Path, tmp_path: Path, llava: tiny_visual.Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BenchmarkError, match=r"unknown options \['batchsize'\].*batch_size"):
        benchmark(questions, batchsize=4)
    with pytest.raises(BenchmarkError, match=r"unknown options \['begin'\]"):
        benchmark(questions, splits={**BOUNDS, "test": {"begin": 1}})
    with pytest.raises(BenchmarkError, match="unknown columns"):
        benchmark(questions, columns={"picture": "image"})
    with pytest.raises(BenchmarkError, match="validation"):
        benchmark(questions, splits={"search": {}, "test": {}})
    with pytest.raises(BenchmarkError, match="reaches to example 11"):
        benchmark(questions, splits={**BOUNDS, "test": {"start": 7, "stop": 11}})
    with pytest.raises(BenchmarkError, match=r"expected package\.module:function"):
        benchmark(questions, metric="evohydra.scoring.benchmarks.rouge:rouge_x")
    with pytest.raises(BenchmarkError, match=r"metric\(answer, references\)"):
        benchmark(questions, metric="builtins:dict")
    with pytest.raises(BenchmarkError, match="no such file"):
        benchmark(tmp_path / "none.jsonl")
    with pytest.raises(BenchmarkError, match=r"data_files=/data/FILE\.jsonl"):
        benchmark(None)
    (tmp_path / "bad.jsonl").write_text("{")
    with pytest.raises(BenchmarkError, match=r"not readable as \.jsonl"):
        benchmark(tmp_path / "bad.jsonl")
    with pytest.raises(BenchmarkError, match=r"prompt: expected \{image\} in it once"):
        benchmark(questions, prompt="{question}")(llava, "search")
    llava.processor.chat_template = None
    with pytest.raises(BenchmarkError, match=r"no chat template; give benchmark\.vqa\.prompt"):
        benchmark(questions)(llava, "search")
    assert benchmark(questions, prompt="問: {image}{question}\n")(llava, "search").shape == (6,)
    llava.processor.image_processor = None
    with pytest.raises(BenchmarkError, match="no image processor"):
        benchmark(questions)(llava, "search")


def test_an_unreachable_data_set_says_how_to_give_local_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("evohydra.scoring.benchmarks.visual_data.load_dataset", unreachable)
    with pytest.raises(BenchmarkError, match=r"SakanaAI/JA-VG-VQA-500.*benchmark\.vqa\.data_files=/data/FILE\.parquet"):
        benchmark(None, task="SakanaAI/JA-VG-VQA-500")


def test_questions_may_hold_braces(questions: Path, tmp_path: Path, llava: tiny_visual.Live) -> None:
    file = rewritten(questions, tmp_path / "q.jsonl", lambda n, row: {**row, "question": "{0} {image} {question}"})
    assert benchmark(file, prompt="{image}{question}:")(llava, "search").shape == (6,)


def test_a_cache_keeps_what_came_first_and_drops_what_a_round_has_not_asked_for() -> None:
    cache = RunCache(10)
    cache.begin_round()
    for key in "abc":
        cache.put(key, key.upper(), 4)
    assert [cache.get(key) for key in "abc"] == ["A", "B", None]
    for _ in range(2):
        cache.begin_round()
        assert cache.get("a") == "A"
    cache.put("d", "D", 4)
    assert [cache.get(key) for key in "abd"] == ["A", None, "D"]
    cache.put("e", "E", 11)
    assert cache.get("e") is None
    assert cache.once("a", lambda: "new", len) == "A"


def test_the_search_set_leaves_out_the_images_of_the_test_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    for number in range(12):
        tiny_visual.picture(number).save(tmp_path / "images" / f"{number}.jpg")
    entries = [
        {"image_id": n, "qas": [{"question": f"質問{n}", "answer": "赤"}, {"question": "x", "answer": "y"}]}
        for n in range(14)
    ]
    (tmp_path / "question_answers.json").write_text(json.dumps(entries))
    held = pyarrow.Table.from_pylist([{"image_id": n, "image": None} for n in range(4)])
    pyarrow.parquet.write_table(held, tmp_path / "test.parquet")
    command = [
        str(tmp_path / "question_answers.json"), str(tmp_path / "out.jsonl"), "--images", str(tmp_path / "images"),
        "--without", str(tmp_path / "test.parquet"), "--count",
    ]  # fmt: skip
    ja_vg_vqa.main([*command, "6"])
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len({row["image_id"] for row in rows}) == 6
    assert all(4 <= int(row["image_id"]) < 12 and row["question"] == f"質問{row['image_id']}" for row in rows)
    assert [built.size("search") for built in [benchmark(tmp_path / "out.jsonl", splits={
        "search": {"stop": 4}, "validation": None, "test": {"start": 4}})]] == [4]  # fmt: skip
    with pytest.raises(SystemExit):
        ja_vg_vqa.main([*command, "9"])
    assert "expected at least 9 images" in capsys.readouterr().err


def test_a_processor_that_cannot_be_read_ends_the_run_and_is_no_failed_genome(questions: Path) -> None:
    class Lacking:
        @property
        def processor(self) -> Any:
            raise ValueError("needs torchvision: pip install -c constraints.txt -e '.[vision]'")

    with pytest.raises(BenchmarkError, match=r"shows images: needs torchvision.*'\.\[vision\]'"):
        benchmark(questions)(Lacking(), "search")


def test_a_reference_that_is_no_token_behind_the_prompt_is_refused(llava: tiny_visual.Live, questions: Path) -> None:
    built = benchmark(questions)
    asker = built._ready(llava)
    example = built.examples("search")[0]
    with pytest.raises(BenchmarkError, match="no token of its own for the answer '' behind the prompt"):
        asker.answered([example.question], [built.image(example)], [""])
