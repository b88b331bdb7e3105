"""What every kind of benchmark says of itself: what scores depend on, by content, and nothing else."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from evohydra.scoring.benchmarks import Benchmark, BenchmarkError
from evohydra.scoring.benchmarks.embedding_classification import embedding_classification
from evohydra.scoring.benchmarks.embedding_similarity import embedding_similarity
from evohydra.scoring.benchmarks.lm_eval import lm_eval_benchmarks
from evohydra.scoring.benchmarks.mteb_tasks import mteb_task
from evohydra.scoring.benchmarks.scorers.similarity import similarity
from evohydra.scoring.benchmarks.visual_qa import visual_qa
from tests import tiny_models, tiny_scorers, tiny_studio, tiny_visual
from tests.commands import REPOSITORY, python
from tests.elsewhere import elsewhere

BOUNDS = {
    "search": {"start": 0, "stop": 5}, "validation": {"start": 5, "stop": 7}, "test": {"start": 7, "stop": 10},
}  # fmt: skip
PICTURES = """
task: pictures
dataset_path: parquet
dataset_kwargs: {data_files: {test: pictures.parquet}}
test_split: test
output_type: generate_until
doc_to_image: [picture]
doc_to_text: "<image>{{question}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


@dataclass(frozen=True)
class Kind:
    """A kind of benchmark: its files, the benchmark over them, and changes of files by name."""

    save: Callable[[Path], object]
    make: Callable[..., Benchmark]
    data: Callable[[Path], object]  # changes one example of the validation split
    prompts: dict[str, Any]  # options with which examples are asked otherwise ...
    settings: dict[str, Any]  # ... scored or answered otherwise ...
    incidental: dict[str, Any]  # ... and that change no score


def language(root: Path, **options: Any) -> Benchmark:
    chosen = {"metric": "closeness", "include_path": str(root), "data_files": str(root / "sums.jsonl"), **options}
    return lm_eval_benchmarks("some", task="sums", splits=BOUNDS, **chosen)["some"]


def change_answer(root: Path) -> None:
    lines = (root / "sums.jsonl").read_text().splitlines()
    lines[6] = lines[6].replace('"answer": "6"', '"answer": "7"')
    (root / "sums.jsonl").write_text("\n".join(lines) + "\n")


def save_pictures(root: Path, changed: int | None = None) -> None:
    root.mkdir(parents=True, exist_ok=True)
    shown = [tiny_visual.picture(20 if n == changed else n) for n in range(10)]
    rows = {"question": [f"{n}?" for n in range(10)], "answer": ["赤です"] * 10, "picture": shown}
    kinds = Features({"question": Value("string"), "answer": Value("string"), "picture": ImageFeature()})
    Dataset.from_dict(rows, features=kinds).to_parquet(root / "pictures.parquet")
    (root / "pictures.yaml").write_text(PICTURES)


def multimodal(root: Path, **options: Any) -> Benchmark:
    files = str(root / "pictures.parquet")
    return lm_eval_benchmarks(
        "some", task="pictures", include_path=str(root), splits=BOUNDS, data_files=files, **options
    )["some"]


def questions(root: Path, **options: Any) -> Benchmark:
    chosen = {"metric": "tests.test_visual_qa:closeness", **options}
    return visual_qa("some", data_files=str(root / "questions.jsonl"), splits=BOUNDS, **chosen)["some"]


def drawn(root: Path, **options: Any) -> Benchmark:
    chosen: dict[str, Any] = {"prompts": str(root / "prompts.txt"), **options}
    (made,) = tiny_studio.benchmarks("some", splits=BOUNDS, **chosen).values()
    return made


def save_texts(root: Path, changed: int | None = None) -> None:
    labels = ["odd" if number % 2 else "even" for number in range(14)]
    rows = [{"text": f"text {20 if n == changed else n}", "label": label} for n, label in enumerate(labels)]
    root.mkdir(parents=True, exist_ok=True)
    (root / "texts.json").write_text(json.dumps(rows))


def save_pairs(root: Path, changed: int | None = None) -> None:
    rows = [{"sentence1": f"text {n}", "sentence2": "text", "score": 7 if n == changed else n % 3} for n in range(14)]
    root.mkdir(parents=True, exist_ok=True)
    (root / "pairs.json").write_text(json.dumps(rows))


def ordered(root: Path, **options: Any) -> Benchmark:
    chosen: dict[str, Any] = {"data_files": str(root / "pairs.json"), "splits": BOUNDS, **options}
    return embedding_similarity("some", references={"start": 10}, **chosen)["some"]


def classified(root: Path, **options: Any) -> Benchmark:
    chosen: dict[str, Any] = {"data_files": str(root / "texts.json"), "splits": BOUNDS, "k": 2, **options}
    return embedding_classification("some", references={"start": 10}, **chosen)["some"]


def save_labelled(root: Path, changed: int | None = None) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for split, other in (("train", None), ("test", changed)):
        rows = [{"text": f"{split} {20 if n == other else n}", "label": n % 2} for n in range(14)]
        (root / f"{split}.json").write_text(json.dumps(rows))


def by_mteb(root: Path, **options: Any) -> Benchmark:
    chosen: dict[str, Any] = {"data_dir": str(root), "splits": BOUNDS, **options}
    return mteb_task("some", task="Banking77Classification", **chosen)["some"]


KINDS = {
    "mteb": Kind(
        save_labelled, by_mteb, lambda root: save_labelled(root, changed=6), {"prompt": "query: "}, {"experiments": 3},
        {"batch_size": 3},
    ),
    "embedding_classification": Kind(
        save_texts, classified, lambda root: save_texts(root, changed=6), {"prompt": "query: "}, {"k": 3},
        {"batch_size": 3},
    ),
    "embedding_similarity": Kind(
        save_pairs, ordered, lambda root: save_pairs(root, changed=6), {"prompt": "query: "}, {"pooling": "cls"},
        {"batch_size": 3},
    ),
    "lm_eval": Kind(
        tiny_models.save_task, language, change_answer, {"num_fewshot": 2},
        {"generation_kwargs": {"max_gen_toks": 3}, "prefix_cache": False}, {"batch_size": 3, "prefix_cache": "auto"},
    ),
    "lm_eval_multimodal": Kind(
        save_pictures, multimodal, lambda root: save_pictures(root, changed=6), {"system_prompt": "x"},
        {"generation_kwargs": {"max_gen_toks": 3}}, {"batch_size": 3},
    ),
    "visual_qa": Kind(
        tiny_visual.save_questions, questions, lambda root: tiny_visual.picture(20).save(root / "images" / "6.png"),
        {"prompt": "{image}{question}!"}, {"metric": "evohydra.scoring.benchmarks.rouge:exact_match"},
        {"batch_size": 3, "cache_gb": 1.0, "features_gb": 1.0},
    ),
    "text_to_image": Kind(
        lambda root: write(root / "prompts.txt", "".join(f"猫が{n}匹\n" for n in range(10))), drawn,
        lambda root: write(root / "prompts.txt", "".join(f"{'犬' if n == 6 else '猫'}が{n}匹\n" for n in range(10))),
        {"negative_prompt": "文字"}, {"steps": 2}, {"batch_size": 3, "cache_gb": 1.0},
    ),
}  # fmt: skip


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def root(kind: Kind, tmp_path: Path) -> Path:
    kind.save(tmp_path / "data")
    return tmp_path / "data"


def test_it_is_plain_data_about_every_split_wherever_the_files_are(kind: Kind, root: Path) -> None:
    made = kind.make(root)
    found = made.identity()
    assert json.loads(json.dumps(found)) == found
    for split in ("search", "validation", "test"):
        assert found["splits"][split]["examples"] == made.size(split)
    assert {"torch", "transformers", "tokenizers"} <= set(found["versions"])
    assert found["versions"]["torch"] == version("torch")
    assert kind.make(root).identity() == found
    moved = shutil.copytree(root, root.parent / "elsewhere")
    shutil.rmtree(root)
    assert kind.make(moved).identity() == found
    assert str(root.parent) not in json.dumps(found)


def identities(directory: str) -> dict[str, object]:
    """The identity of each kind, whose files are in `directory`."""
    return {name: kind.make(Path(directory) / name).identity() for name, kind in KINDS.items()}


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`identities` in another process with other hashes of strings."""
    directory = tmp_path_factory.mktemp("elsewhere")
    for name, kind in KINDS.items():
        kind.save(directory / name)
    return elsewhere(__name__, "identities", directory)


def test_it_is_the_same_in_another_process(kind: Kind, root: Path, there: dict[str, object]) -> None:
    (name,) = (name for name, each in KINDS.items() if each is kind)
    assert there[name] == kind.make(root).identity()


def test_another_example_changes_its_split_alone(kind: Kind, root: Path) -> None:
    before = kind.make(root).identity()
    kind.data(root)
    after = kind.make(root).identity()
    assert after["splits"]["validation"] != before["splits"]["validation"]
    assert {key: value for key, value in after.items() if key != "splits"} == {
        key: value for key, value in before.items() if key != "splits"
    }
    for split in ("search", "test"):
        assert after["splits"][split] == before["splits"][split]


def test_what_changes_scores_changes_it_and_nothing_else_does(kind: Kind, root: Path) -> None:
    before = kind.make(root).identity()
    for changes in (kind.prompts, kind.settings):
        assert kind.make(root, **changes).identity() != before
    assert kind.make(root, **kind.incidental).identity() == before


def test_libraries_that_the_code_of_a_task_imports_are_among_the_versions(tmp_path: Path) -> None:
    """Also where a function imports them; not the standard library, and not what is only mentioned."""
    root = tiny_models.save_task(tmp_path / "data")
    before = language(root).identity()["versions"]
    assert not {"sacrebleu", "rouge-score", "scikit-learn"} & set(before)
    text = (root / "scoring.py").read_text()
    imports = "import sacrebleu\nfrom rouge_score import rouge_scorer\n\n\ndef never():\n    import sklearn.metrics\n\n"
    (root / "scoring.py").write_text(imports + text + "\n# import nltk\n")
    after = language(root).identity()["versions"]
    assert after == {**before, **{each: version(each) for each in ("sacrebleu", "rouge-score", "scikit-learn")}}


def test_weights_and_template_of_a_scorer_change_it(tmp_path: Path) -> None:
    def identity(seed: int, **options: Any) -> Any:
        directory = tiny_scorers.save(tmp_path / f"{seed}", tiny_scorers.clip_config(), seed)
        write(tmp_path / "prompts.txt", "".join(f"猫が{n}匹\n" for n in range(10)))
        return drawn(tmp_path, scorers={"clip": lambda: similarity(str(directory), **options)}).identity()

    first = identity(0)
    shutil.rmtree(tmp_path / "0")
    assert identity(0) == first
    assert identity(1) != first
    assert identity(0, template="{prompt}の写真") != first


def test_a_scorer_that_says_nothing_of_itself_is_an_error(tmp_path: Path) -> None:
    class Silent:
        name = "silent"

        def __call__(self, images: list[Image.Image], prompts: Any) -> Any:
            raise AssertionError

    write(tmp_path / "prompts.txt", "".join(f"猫が{n}匹\n" for n in range(10)))
    with pytest.raises(BenchmarkError, match=r"scorers\.silent: Silent lacks identity"):
        drawn(tmp_path, scorers={"silent": Silent})


FOLLOWED = {
    "metrics_here.py": "from judging.kinds import KIND\nfrom judging.rules import right\n\n\n"
    "def score(answer):\n    from judging.deep import later\n\n    return right(answer)\n",
    "elsewhere/judging/__init__.py": "",
    "elsewhere/judging/rules.py": "from .relative import SHIFT\n\n\ndef right(answer):\n    return 0.0\n",
    "elsewhere/judging/relative.py": "SHIFT = 0\n",
    "elsewhere/judging/kinds.py": "class Kind:\n    factor = 1\n\n\nKIND = Kind()\n",
    "elsewhere/judging/deep/__init__.py": "from judging.deep import rules\n",
    "elsewhere/judging/deep/rules.py": "def other():\n    return 2\n",
    "elsewhere/judging/deep/later.py": "LIMIT = 3\n",
}


def digests(root: Path, files: dict[str, str]) -> dict[str, str]:
    """Those of the code that `score` uses, in a process of its own, as modules stay loaded."""
    code = "import json, metrics_here as m; from evohydra.scoring.benchmarks.contents import code_of as c; "
    code += "import judging.deep; print(json.dumps(c([m.score])))"
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    path = ":".join(map(str, (root, root / "elsewhere", REPOSITORY)))
    done = python("-c", code, cwd=root, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return digests(tmp_path_factory.mktemp("followed"), FOLLOWED)


def test_where_code_of_ones_own_lies_changes_nothing(tmp_path: Path, followed: dict[str, str]) -> None:
    assert digests(tmp_path, FOLLOWED) == followed


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ("elsewhere/judging/rules.py", "def right(answer):\n    return 1.0\n"),
        ("elsewhere/judging/deep/later.py", "LIMIT = 4\n"),
        ("elsewhere/judging/kinds.py", "class Kind:\n    factor = 2\n\n\nKIND = Kind()\n"),
        ("elsewhere/judging/relative.py", "SHIFT = 9\n"),
        ("elsewhere/judging/deep/rules.py", "def other():\n    return 3\n"),
    ],
)
def test_code_of_ones_own_is_followed_into_other_directories(
    tmp_path: Path, changed: str, text: str, followed: dict[str, str]
) -> None:
    """All that a metric's module comes to use."""
    assert digests(tmp_path, FOLLOWED | {changed: text}) != followed
