"""Whole runs on pictures, by the command on tiny pipelines: scores, grid, samples, and failures with their reasons."""

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file

from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.scorers.human import ChoicesMissingError
from evohydra.searching.driver import SearchError
from tests import tiny_pipelines, tiny_scorers
from tests.commands import built, carried_out, json_lines, workspace
from tests.tiny_pipelines import SIZE


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pipelines with a yaml each, a CLIP, and a head for it; not to be written to."""
    root = tmp_path_factory.mktemp("pictures")
    paths = dict(zip(("one", "two"), tiny_pipelines.save_pair(root), strict=True))
    (root / "conf" / "model").mkdir(parents=True)
    for name, path in paths.items():
        text = f"# @package model.sources.{name}\nfamily: evohydra.families.sdxl.SDXL\npath: {path}\n"
        (root / "conf" / "model" / f"{name}.yaml").write_text(text)
    tiny_scorers.save(root / "clip", tiny_scorers.clip_config())
    save_file({"weight": torch.randn(1, 12), "bias": torch.zeros(1)}, root / "head.safetensors")
    return root


@pytest.fixture
def arguments(root: Path) -> list[str]:
    settings = {
        **{"height": SIZE, "width": SIZE, "limit": 3, "scorers.clip.path": root / "clip"},
        **{"scorers.aesthetic.path": root / "clip", "scorers.aesthetic.head": root / "head.safetensors"},
    }
    return [
        f"hydra.searchpath=[file://{root}/conf]", "model=one+two", "merge=linear", "benchmark=[ja_prompts]",
        *(f"benchmark.ja_prompts.{key}={value}" for key, value in settings.items()),
        "baselines=null", "budget=6", "optimizer.population=6", "top=1", "tracker=none", "threads=1",
        "merge.compile=false", "report=false", "audit=none",
    ]  # fmt: skip


def shown_pairs(directory: Path) -> list[dict[str, str]]:
    """What is on the page for people."""
    page = (directory / "pairs.html").read_text(encoding="utf-8")
    pairs: list[dict[str, str]] = json.loads(re.search(r"const pairs = (\[.*\]);", page)[1])  # type: ignore[index]
    return pairs


def brightness(data: str) -> float:
    with Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))) as image:
        return float(np.asarray(image.convert("L")).mean())


def test_a_run_with_two_scorers(arguments: list[str], tmp_path: Path) -> None:
    weights = "objective.weights={ja_prompts/clip: 1.0, ja_prompts/aesthetic: 0.1}"
    more = ["benchmark.ja_prompts.use=[clip,aesthetic]", "objective=weighted", weights, "tracker=wandb"]
    run = tmp_path / "run"
    carried_out([*arguments, *more, "tracker.mode=offline"], run)
    line = json_lines(run / "ledger.jsonl")[0]
    assert {name: len(scores) for name, scores in line["scores"].items()} == {
        "ja_prompts/clip": 3,
        "ja_prompts/aesthetic": 3,
    }
    parts = {name: np.mean(scores) for name, scores in line["scores"].items()}
    assert line["fitness"] == pytest.approx(parts["ja_prompts/clip"] + 0.1 * parts["ja_prompts/aesthetic"])

    (logged,) = (run / "wandb").glob("offline-run-*/files/media/images/figure/pictures-ja_prompts*.png")
    assert logged.read_bytes() == (run / "pictures-ja_prompts.png").read_bytes()
    winner = run / "winner"
    card = (winner / "README.md").read_text()
    rows = [row.strip("| ").split(" | ") for row in card.splitlines() if row.startswith("| ![](samples/")]
    assert len(rows) == 3
    assert "steps=4, guidance=0, height=16, width=16" in card
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(winner, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    for number, (_, prompt, seed, score) in enumerate(rows, start=1):
        assert score.startswith("clip ")
        noise = torch.Generator("cpu").manual_seed(int(seed))
        with Image.open(winner / "samples" / f"{number}.png") as sample:
            drawn = pipeline(
                prompt, num_inference_steps=4, guidance_scale=0, height=SIZE, width=SIZE, generator=noise
            ).images[0]  # fmt: skip
            # Alone instead of three at a time: sums are rounded in another order.
            assert np.abs(np.asarray(sample).astype(int) - np.asarray(drawn)).max() <= 1


def test_a_genome_whose_pictures_are_not_finite_is_the_worst_and_says_why(
    root: Path, arguments: list[str], tmp_path: Path
) -> None:
    """Extrapolation so far that the denoiser overflows, in one genome of several."""
    run = built([*arguments, "budget=7", "optimizer.population=7"], tmp_path / "run")
    calls = 0
    executor = run.make_executor()
    run = replace(run, make_executor=lambda: executor)
    module = executor.ask(lambda worker: worker.live.module)

    def spoil(_: object, __: object, output: tuple[torch.Tensor, ...]) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            output[0].fill_(torch.nan)

    module.register_forward_hook(spoil)
    summary = run(Console(file=io.StringIO()))
    lines = json_lines(tmp_path / "run" / "ledger.jsonl")
    failed = [line for line in lines if line["fitness"] is None]
    assert len(failed) == summary["search"]["failed"] == 1
    assert failed[0]["error"] == "FloatingPointError: the denoiser's latents are not finite after step 3"
    assert len(lines) == 7


def test_a_vae_that_overflows_ends_the_run_with_what_to_do(root: Path, arguments: list[str], tmp_path: Path) -> None:
    """In float16, with the weights of the last decoder layer far too large: each picture is inf."""
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(root / "one")
    with torch.no_grad():
        pipeline.vae.decoder.conv_out.weight.fill_(60000.0)
        pipeline.vae.decoder.conv_out.bias.fill_(60000.0)
    pipeline.vae.register_to_config(force_upcast=False)
    pipeline.to(torch.float16).save_pretrained(tmp_path / "fp16")
    changed = [f"model.sources.{name}.path={tmp_path / 'fp16'}" for name in ("one", "two")]
    with pytest.raises(SearchError, match=r"first generation failed; .* VAE's image is not finite, .*torch.float16"):
        carried_out([*arguments, *changed], tmp_path / "run")


def test_what_a_scorer_lacks_is_said_before_any_evaluation(arguments: list[str], tmp_path: Path) -> None:
    for more, expected in (
        (["benchmark.ja_prompts.scorers.clip.path=null"], "benchmark.ja_prompts.scorers.clip: path: expected the dire"),
        (["benchmark.ja_prompts.scorers.clip.path=/no"], "benchmark.ja_prompts.scorers.clip: path: /no: no such dire"),
        (["benchmark.ja_prompts.use=[hps]"], "benchmark.ja_prompts.scorers.hps: path: expected the directory"),
        (["benchmark.ja_prompts.use=[human]"], "benchmark.ja_prompts.scorers.human: directory: expected where to"),
        (["benchmark.ja_prompts.use=[clap]"], r"benchmark.ja_prompts.use: expected some of .*'clip'.* got \['clap'\]"),
        (["benchmark.ja_prompts.prompts=/no.txt"], "prompts /no.txt: expected a list that comes with evohydra"),
    ):
        with pytest.raises(BenchmarkError, match=expected):
            built([*arguments, *more], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_benchmarks_of_other_families(arguments: list[str], tmp_path: Path) -> None:
    pictures = [each for each in arguments if each.startswith("benchmark")]
    language = workspace(tmp_path)
    asked = [each for each in language if each.startswith("benchmark")]
    drawing = [each for each in arguments if each not in pictures]
    with pytest.raises(BenchmarkError, match=r"'lm_eval' scores models of the families .*family 'sdxl'"):
        built([*drawing, *asked], tmp_path / "run")
    expected = r"'ja_prompts/clip' scores models of the families \['diffusion'\], .* 'causal_lm'"
    with pytest.raises(BenchmarkError, match=expected):
        built([*(each for each in language if each not in asked), *pictures, "baselines=null"], tmp_path / "run")


def test_weights_must_be_given(arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"objective.weights: expected a number for each of \['ja_prompts/clip'\], got \{\}"
    ):
        built([*arguments, "objective=weighted"], tmp_path / "run")


def test_a_person_is_asked_once_a_generation_and_the_same_command_goes_on(arguments: list[str], tmp_path: Path) -> None:
    """Someone who likes what is brighter."""
    judged = tmp_path / "judged"
    people = ["benchmark.ja_prompts.use=[human]", f"benchmark.ja_prompts.scorers.human.directory={judged}"]
    people += ["benchmark.ja_prompts.limit=2"]
    asked = []
    for stop in range(6):
        try:
            summary = carried_out([*arguments, *people, "top=2"], tmp_path / "run")
            break
        except ChoicesMissingError:
            pairs = shown_pairs(judged)
            asked.append(len(pairs))
            brighter = {
                pair["pair"]: "left" if brightness(pair["left"]) > brightness(pair["right"]) else "right"
                for pair in pairs
            }
            (judged / f"choices {stop}.json").write_text(json.dumps(brighter))
    lines = json_lines(tmp_path / "run" / "ledger.jsonl")
    assert len(lines) == 6
    assert lines[0]["scores"]["ja_prompts/human"] == [0.5] * 2  # the first source: the reference itself
    assert {score for line in lines for score in line["scores"]["ja_prompts/human"]} == {0.0, 0.5, 1.0}
    assert summary["test"]["sources"]["one"]["score"] == 0.5
    assert len(asked) == 3  # a generation, validation and test
    assert asked[0] == 10  # six genomes of which one is the reference
    assert 0 < asked[1] <= 4  # both candidates at once
