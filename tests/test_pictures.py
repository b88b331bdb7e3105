"""The grid of pictures and the samples of a winner."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from evohydra.report import picture_grid
from evohydra.report.picture_captions import caption
from evohydra.report.picture_grid import fonts_for, grid
from evohydra.report.pictures import Illustrated, draw_albums, shown
from evohydra.report.samples import Picture, Sample, write_samples
from evohydra.scoring.benchmarks import Split
from tests.tiny_scorers import Brightness
from tests.tiny_studio import benchmark, benchmarks, live


def test_benchmarks_of_pictures_are_illustrated_and_show_one_picture_of_each_prompt() -> None:
    each = benchmark(seeds_per_prompt=3, splits={"search": {"stop": 2}, "validation": None, "test": {"start": 2}})
    assert isinstance(each, Illustrated)
    places = shown(each)
    assert len(places) == 6
    assert [place % 3 for place in places] == [0] * 6
    assert places[-1] > each.size("test") // 2
    assert shown(benchmark()) == [0, 1, 2, 3]
    assert each.settings == "steps=4, guidance=0.0, height=16, width=16"


def test_one_grid_for_all_scorers_and_the_last_model_gives_the_samples(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made, model = benchmarks(scorers={"one": Brightness, "two": lambda: Brightness(-1)}), live()
    sound = [parameter.clone() for parameter in model.module.parameters()]

    def drawn(node: Any, name: str, split: Split, places: Sequence[int]) -> list[Picture]:
        with torch.no_grad():
            for parameter, value in zip(model.module.parameters(), sound, strict=True):
                parameter.copy_(value * (float("nan") if node == "broken" else 1.0))
        return made[name].pictures(model, split, places)

    models: dict[str, Any] = {"source": "sound", "uniform": "broken", "winner": "sound"}
    with caplog.at_level(logging.WARNING):
        figures, samples = draw_albums(made, models, drawn, tmp_path)
    assert figures == {"pictures-tiny": tmp_path / "pictures-tiny.png"}
    with Image.open(figures["pictures-tiny"]) as drawn:
        assert min(drawn.size) > 300
    assert [sample.prompt for sample in samples] == [e.text for e in made["tiny/one"].examples("test")]
    assert all(sample.scores["one"] == -sample.scores["two"] for sample in samples)
    assert "uniform has no pictures for tiny: the denoiser's latents are not finite" in caplog.text


def test_the_grid_holds_prompts_models_and_scores() -> None:
    picture = Image.new("RGB", (8, 8), "red")
    figure = grid(["a very red square on a wall", "猫"], {"one": [(picture, {"s": 0.25})], "winner": []})
    texts = [text.get_text() for axes in figure.axes for text in (*axes.texts, axes.title, axes.xaxis.label)]
    assert "a very red square on\na wall" in texts or "prompt 1" in texts
    assert {"one", "winner", "0.250"} <= set(texts)
    assert sum(len(axes.images) for axes in figure.axes) == 1


def test_prompts_that_no_font_can_write_are_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_grid, "findSystemFonts", lambda: ["/no/such.ttf"])
    assert fonts_for("a cat: 3") == ["DejaVu Sans"]
    assert fonts_for("縁側の猫") is None
    figure = grid(["縁側の猫"], {"one": []})
    assert figure.axes[0].texts[0].get_text() == "prompt 1"


def test_samples_in_a_directory_and_in_the_model_card(tmp_path: Path) -> None:
    assert write_samples([], tmp_path) == ""
    assert not list(tmp_path.iterdir())
    red = Image.new("RGB", (8, 8), "red")
    text = write_samples([Sample("猫|犬", 17, "steps=4", red, {"clip": 0.5})], tmp_path)
    assert "| ![](samples/1.png) | 猫\\|犬 | 17 | 0.500 |" in text
    assert "steps=4" in text
    with Image.open(tmp_path / "samples" / "1.png") as read:
        assert read.tobytes() == red.tobytes()


def test_where_no_font_has_the_prompts_they_are_told_beside_the_grid(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "pictures-cats.png"
    picture_grid.save_grid(["a cat"], {"one": []}, path)
    assert caption(path) == "what models draw for prompts of the test split of cats, and their scores."
    monkeypatch.setattr(picture_grid, "findSystemFonts", list)
    picture_grid.save_grid(["縁側の\n猫", "a dog"], {"one": []}, path)
    assert path.with_suffix(".txt").read_text(encoding="utf-8") == "prompt 1: 縁側の 猫\nprompt 2: a dog\n"
    assert caption(path).endswith("and their scores. prompt 1: 縁側の 猫; prompt 2: a dog.")
    assert caption(tmp_path / "path.png") == "path."
