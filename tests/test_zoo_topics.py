"""The tiny encoders: their texts, that none of the benchmark's was in training, and what a search makes of them."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

import evohydra
from evohydra.families import Rules
from evohydra.families.encoder import Encoder
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Group, Merge, Node
from evohydra.scoring.benchmarks.tiny_topics import FILE, tiny_topics
from evohydra.zoo.topics import TOPICS, WORDS, benchmark, vocabulary, words_of
from evohydra.zoo.train_topics import STAGES, Examples, build_tokenizer
from tests.commands import carried_out

ZOO = Path(evohydra.__file__).parent / "zoo"
SPLITS = {
    "search": {"start": 200, "stop": 500},
    "validation": {"start": 500, "stop": 900},
    "test": {"start": 900, "stop": 2400},
}


def test_the_texts_on_file_are_those_of_the_generator() -> None:
    on_file = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
    assert on_file == [{"text": each.text, "topic": each.topic} for each in benchmark()]
    assert len({row["text"] for row in on_file}) == 2400


def test_a_text_is_about_its_topic() -> None:
    """Two of its words are, and one each of two others; words belong to one topic alone."""
    topics = {word: topic for language in WORDS.values() for topic, words in language.items() for word in words}
    assert len(topics) == 120
    assert len(set(vocabulary())) == len(vocabulary())
    for each in benchmark():
        found = [topics[word] for word in each.text.split() if word in topics]
        assert found.count(each.topic) == 2
        assert len(found) == 4
        assert len(set(found)) == 3


def test_training_never_sees_what_the_benchmark_asks() -> None:
    held_out = frozenset(words_of(each.text) for each in benchmark())
    tokenizer = build_tokenizer()
    for stage in STAGES.values():
        examples = Examples(stage, tokenizer, held_out)
        for _ in range(10):
            tokens, topics = examples.batch()
            texts = {words_of(tokenizer.decode(row, skip_special_tokens=True)) for row in tokens}
            assert len(texts) > 30
            assert not texts & held_out
            assert topics.max() <= len(TOPICS)


@pytest.mark.parametrize("name", STAGES)
def test_encoders_load_as_anyone_would_load_them(name: str) -> None:
    model, tokenizer = AutoModel.from_pretrained(ZOO / name), AutoTokenizer.from_pretrained(ZOO / name)
    assert model.config.model_type == "bert"
    assert len(tokenizer) == model.config.vocab_size == len(vocabulary())
    assert tokenizer.tokenize("dog 猫 unheard") == ["dog", "猫", "[UNK]"]
    with torch.inference_mode():
        assert model(**tokenizer("dog 猫", return_tensors="pt")).last_hidden_state.shape == (1, 4, 48)


def test_each_knows_its_language_and_a_merge_knows_both() -> None:
    family = Encoder()
    directories = {name: ZOO / name for name in ("tiny_topics_en", "tiny_topics_ja", "topics_base")}
    opened = {name: family.open(place, place) for name, place in directories.items()}
    found = family.align(directories, opened, "topics_base", Rules())
    engine = Engine(found.tensors, device=torch.device("cpu"))
    live = family.live_model(directories[found.files_from], torch.device("cpu"), torch.float32, found.overlay)
    asked = tiny_topics("tiny", splits=SPLITS, references={"start": 0, "stop": 200})["tiny"]
    english, japanese, base = (Checkpoint(name, "-") for name in directories)
    group = Group("all", tuple(live.parameters), {"weight": (0.9, 1.1)})
    nodes: dict[str, Node] = {
        "en": english, "ja": japanese, "base": base,
        "both": Merge("task_arithmetic", base, (english, japanese), (group,)),
    }  # fmt: skip
    right = {}
    for name, node in nodes.items():
        live.become(node, engine)
        scores = asked(live, "test")
        right[name] = (scores[::2].mean(), scores[1::2].mean())  # English and Japanese texts take turns
    assert right["en"][0] > 0.95 > 0.6 > right["en"][1]
    assert right["ja"][1] > 0.9 > 0.6 > right["ja"][0]
    assert max(right["base"]) < 0.5
    assert min(right["both"]) > 0.85


def test_the_experiment_finds_a_merge_for_both(tmp_path: Path) -> None:
    command = ["experiment=tiny_topics", "tracker=none", "report=false", "threads=1", "baselines=null"]
    summary = carried_out([*command, "audit=none"], tmp_path / "run")
    test = summary["test"]
    best = max(source["score"] for source in test["sources"].values())
    assert test["winner"]["score"] > test["uniform"]["score"] > best + 0.1
    assert test["winner"]["score"] > 0.95


def test_sources_of_topics_are_asked_for_them(tmp_path: Path) -> None:
    command = ["model=tiny_topics_en+tiny_topics_ja", "optimizer=random", "budget=16", "top=1", "baselines=null"]
    summary = carried_out([*command, "tracker=none", "report=false", "audit=none", "threads=1"], tmp_path / "run")
    assert list(summary["data"]) == ["tiny_topics"]
