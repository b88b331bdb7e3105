"""The benchmark of the tiny VLM: the file that ships with evohydra, and a search on it."""

import re
from pathlib import Path

import torch
import transformers

from evohydra.merging.finding import locate
from evohydra.scoring.benchmarks.tiny_vqa_ja import tiny_vqa_ja
from tests.commands import evohydra


def test_splits_have_their_examples():
    splits = {"search": {"start": 0, "stop": 300}, "validation": {"start": 300, "stop": 500}, "test": {"start": 500}}
    benchmark = tiny_vqa_ja("tiny", splits=splits, prompt="{image}問：{question}答：")["tiny"]
    assert [benchmark.size(split) for split in ("search", "validation", "test")] == [300, 200, 1000]
    example = benchmark.examples("test")[0]
    assert example.references[0].endswith("。")
    assert benchmark.image(example).size == (24, 24)


def test_a_search_on_pictures_and_the_page_of_answers(tmp_path: Path):
    """The command, W&B offline, on the tiny VLM with few questions; the winner loads with transformers alone."""
    run = tmp_path / "outputs" / "run"
    few = [f"benchmark.tiny_vqa_ja.splits.{split}" for split in ("search", "validation", "test")]
    bounds = [
        setting
        for key, (start, stop) in zip(few, ((0, 30), (300, 320), (500, 540)), strict=True)
        for setting in (f"{key}.start={start}", f"++{key}.stop={stop}")
    ]
    done = evohydra("experiment=tiny_vlm", "budget=12", "top=1", "run=run", "threads=1", *bounds, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (run / "answers-tiny_vqa_ja.html").read_text()
    assert page.count("<img ") == 8
    assert "<th>tiny_vlm</th>" in page
    assert re.search("The (digit|number|sum|smallest|largest)", page)  # the VLM answers in English
    (logged,) = (run / "wandb").glob("offline-run-*/files/media/html/figure/answers-tiny_vqa_ja*.html")
    assert "Examples of the test split" in logged.read_text()
    model = transformers.AutoModelForImageTextToText.from_pretrained(run / "winner")
    assert transformers.AutoProcessor.from_pretrained(run / "winner")
    frozen, own = (
        {n: t for n, t in m.state_dict().items() if "vision_tower" in n or "projector" in n}
        for m in (model, transformers.AutoModelForImageTextToText.from_pretrained(locate("zoo://tiny_vlm")))
    )
    assert frozen.keys() == own.keys()
    assert all(torch.equal(frozen[name], own[name]) for name in own)
