"""What benchmarks of pictures keep to: one noise for all models, each picture drawn once, failures with reasons."""

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from evohydra.scoring.benchmarks import SPLITS, BenchmarkError
from evohydra.scoring.benchmarks.prompts import Prompt
from evohydra.scoring.benchmarks.scorers.aesthetic import aesthetic
from evohydra.scoring.benchmarks.scorers.hps import hps
from evohydra.scoring.benchmarks.scorers.pick_score import pick_score
from evohydra.scoring.benchmarks.scorers.similarity import similarity
from tests import tiny_pipelines, tiny_scorers, tiny_studio
from tests.tiny_pipelines import SIZE
from tests.tiny_scorers import Brightness
from tests.tiny_studio import SPLITS as BOUNDS
from tests.tiny_studio import benchmark, benchmarks, live

PIPELINES = {"sdxl": tiny_pipelines.make_sdxl, "stable_diffusion": tiny_pipelines.make_sd15}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP, a SigLIP and an aesthetic head for the CLIP; not to be written to."""
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("scorers")
    tiny_scorers.save(root / "clip", tiny_scorers.clip_config())
    tiny_scorers.save(root / "siglip", tiny_scorers.siglip_config())
    head = {"layers.0.weight": torch.randn(4, 12), "layers.0.bias": torch.randn(4)}
    save_file(
        {**head, "layers.7.weight": torch.randn(1, 4), "layers.7.bias": torch.randn(1)}, root / "head.safetensors"
    )
    return root


@pytest.fixture
def scorers(models: Path) -> dict[str, Any]:
    clip = str(models / "clip")
    return {
        "brightness": Brightness,
        "clip": lambda: similarity(clip),
        "siglip": lambda: similarity(str(models / "siglip")),
        "aesthetic": lambda: aesthetic(clip, str(models / "head.safetensors")),
        "pick_score": lambda: pick_score(clip),
        "hps": lambda: hps(clip),
    }


def test_every_scorer_is_a_benchmark_and_keeps_to_the_contract(scorers: dict[str, Any]) -> None:
    made, model = benchmarks(scorers=scorers, seeds_per_prompt=2), live()
    assert list(made) == [f"tiny/{key}" for key in scorers]
    for name, each in made.items():
        assert each.name == name
        assert each.families == ("diffusion",)
        assert [each.size(split) for split in SPLITS] == [10, 4, 8]
        scores = each(model, "search")
        assert scores.shape == (10,)
        assert scores.dtype == np.float64
        assert np.isfinite(scores).all()
        assert len(np.unique(scores)) > 5  # it looks at the pictures
        assert np.array_equal(each(model, "search", [7, 2]), scores[[7, 2]])
        assert np.array_equal(each(model, "search"), scores)


def test_pictures_are_drawn_once_for_all_scorers_and_again_for_another_genome() -> None:
    seen = {"a": Brightness(), "b": Brightness(-1.0)}
    made, model = benchmarks(scorers={key: (lambda each=each: each) for key, each in seen.items()}), live()
    drawn = 0

    def count(*_: object) -> None:
        nonlocal drawn
        drawn += 1

    model.module.register_forward_hook(count)
    first, second = (each(model, "search") for each in made.values())
    assert np.array_equal(first, -second)
    assert drawn == 4  # steps of one batch
    assert [each.seen for each in seen.values()] == [5, 5]
    model.change()
    again = [each(model, "search") for each in reversed(made.values())]  # in whatever order they are asked
    assert drawn == 8
    assert not np.array_equal(again[1], first)
    assert np.array_equal(again[1], -again[0])


@pytest.mark.parametrize("guidance", [0.0, 4.0])
@pytest.mark.parametrize("kind", PIPELINES)
def test_a_plain_pipeline_draws_the_same_from_the_seed_of_an_example(kind: str, guidance: float) -> None:
    """Also with a scheduler that draws noise at each step, and when embeddings and noise are reused."""
    model = live(PIPELINES[kind])
    scheduler = {"name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "linspace"}
    settings = {"negative_prompt": "文字" if guidance else None}
    each = benchmark(scheduler=scheduler, guidance=guidance, **settings)
    each(model, "search")
    model.change()
    (drawn, _), *_ = each.pictures(model, "search", [3, 1])
    example = each.examples("search")[3]
    own = model.pipeline.scheduler
    assert isinstance(own, diffusers.EulerDiscreteScheduler)  # it was put back
    chosen = diffusers.EulerAncestralDiscreteScheduler.from_config(own.config, timestep_spacing="linspace")
    model.pipeline.scheduler = chosen
    (plain,) = model.pipeline(
        example.text, generator=torch.Generator("cpu").manual_seed(example.seed), num_inference_steps=4,
        guidance_scale=guidance, height=SIZE, width=SIZE, **settings,
    ).images  # fmt: skip
    assert np.array_equal(np.asarray(plain), np.asarray(drawn))


def test_the_batch_changes_no_pixel_by_more_than_rounding() -> None:
    model = live()
    pictures = []
    for batch_size in (1, 3, 8):
        each = benchmark(batch_size=batch_size)
        pictures.append(np.stack([np.asarray(image) for image, _ in each.pictures(model, "search", range(5))]))
    assert pictures[0].std() > 10
    for other in pictures[1:]:
        assert np.abs(pictures[0].astype(int) - other).max() <= 1


def test_embeddings_and_noise_are_computed_once_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model, each = live(), benchmark(seeds_per_prompt=2)
    passes: list[int] = []
    drawn: list[int] = []
    model.pipeline.text_encoder.register_forward_hook(lambda *_: passes.append(1))
    from diffusers.pipelines.stable_diffusion_xl import pipeline_stable_diffusion_xl as module

    original = module.randn_tensor
    monkeypatch.setattr(module, "randn_tensor", lambda *a, **k: (drawn.append(1), original(*a, **k))[1])
    each(model, "search")
    assert (len(passes), len(drawn)) == (5, 10)  # prompts, and prompts times seeds
    for _ in range(3):
        model.change()
        each(model, "search")
    assert (len(passes), len(drawn)) == (5, 10)
    with torch.no_grad():  # text encoders that are merged: their embeddings are another genome's
        model.pipeline.text_encoder.get_input_embeddings().weight.mul_(1.5)
    before = each(model, "search")
    assert (len(passes), len(drawn)) == (10, 10)
    fresh = benchmark(seeds_per_prompt=2)
    assert np.array_equal(fresh(model, "search"), before)


def test_noise_is_paired_between_models_and_differs_between_examples() -> None:
    each = benchmark(seeds_per_prompt=3, noise_seed=1)
    seeds = [example.seed for split in SPLITS for example in each.examples(split)]
    assert len(set(seeds)) == len(seeds) == 33
    assert [e.seed for e in benchmark(seeds_per_prompt=3, noise_seed=1).examples("test")] == seeds[21:]
    assert not set(seeds) & {e.seed for e in benchmark(noise_seed=2).examples("search")}
    texts = [{example.text for example in each.examples(split)} for split in SPLITS]
    assert not texts[0] & texts[1]
    assert not (texts[0] | texts[1]) & texts[2]


def test_a_denoiser_that_is_not_finite_is_told_from_a_vae_that_overflows() -> None:
    model, each = live(), benchmark()
    with torch.no_grad():
        model.module.conv_out.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="denoiser's latents are not finite after step 1"):
        each(model, "search")
    for settings in ({}, {"batch_size": 2}):
        model = live()
        with torch.no_grad():
            model.pipeline.vae.decoder.conv_out.bias.fill_(float("inf"))  # white, if it were clamped
        with pytest.raises(FloatingPointError, match=r"VAE's image is not finite, though .* overflow in torch.float32"):
            benchmark(**settings)(model, "search")
    with torch.no_grad():
        model.pipeline.vae.decoder.conv_out.bias.zero_()
    assert np.isfinite(each(model, "search")).all()  # the next genome is none the worse


def test_scores_that_are_none() -> None:
    class Strange(Brightness):
        def __call__(self, images: Any, prompts: Any) -> Any:
            return np.full(len(images), np.nan) if self.seen == 0 else np.zeros(1)

    strange = Strange()
    each, model = benchmark(scorers={"strange": lambda: strange}), live()
    with pytest.raises(FloatingPointError, match="the scorer strange gives nan"):
        each(model, "search")
    strange.seen = 1
    with pytest.raises(BenchmarkError, match=r"scorer strange: expected 5 scores, got the shape \(1,\)"):
        each(model, "search")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"step": 4}, r"benchmark 'tiny': unknown options \['step'\]; known are .*'steps'"),
        ({"steps": 0}, "steps: expected a whole number of at least 1, got 0"),
        ({"batch_size": "all"}, "batch_size: expected a whole number of at least 1, got 'all'"),
        ({"scheduler": {"name": "Eulr"}}, "scheduler.name: expected a scheduler of diffusers, .* got 'Eulr'"),
        ({"scheduler": {"name": "DDIMScheduler", "spacing": 1}}, r"DDIMScheduler has no options \['spacing'\]"),
        ({"topics": ["山"]}, r"unknown topics \['山'\]; the prompts have .*'風景'"),
        ({"scorers": {}}, r"benchmark.tiny.use: expected some of \[\], got \[\]"),
        ({"use": ["clip"]}, r"benchmark.tiny.use: expected some of \['brightness'\], got \['clip'\]"),
        ({"splits": {**BOUNDS, "test": None}}, "only the validation split may be null"),
        ({"splits": {**BOUNDS, "test": {"start": 4, "stop": 6}}}, "the splits overlap"),
        ({"splits": {**BOUNDS, "test": {"start": 4, "end": 6}}}, r"test split: unknown options \['end'\]"),
        ({"prompts": [Prompt("猫", "")] * 9}, "the prompt '猫' is there twice"),
    ],
)
def test_bad_options(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        benchmark(**options)


def test_a_size_that_the_vae_does_not_have() -> None:
    with pytest.raises(BenchmarkError, match="benchmark 'tiny': height: expected a multiple of 2 for this VAE, got 17"):
        benchmark(height=17)(live(), "search")


def test_no_validation_split() -> None:
    each = benchmark(splits={**BOUNDS, "validation": None})
    assert each.size("validation") == 0
    assert tiny_studio.benchmark(topics=["風景"]).examples("test")[0].topic == "風景"
