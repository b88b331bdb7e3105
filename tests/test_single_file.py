"""Single files in the original layout: written, read by diffusers, by this project, and as a source."""

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from evohydra.families import Rules
from evohydra.families.diffusion import Diffusion
from evohydra.families.sdxl import SDXL
from evohydra.families.sources import open_sources
from evohydra.families.stable_diffusion import StableDiffusion
from evohydra.merging.checkpoints import SourceError, fingerprint
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint
from evohydra.winner.formats.single_file import FILE, SingleFile, write_original
from tests import tiny_pipelines as tiny

CPU = torch.device("cpu")
FAMILIES: dict[str, tuple[Diffusion, Any, dict[str, Any]]] = {
    # diffusers knows SDXL by the tenth layer of its second text encoder, and the encoders by their widths.
    "sdxl": (SDXL(), tiny.make_sdxl, {"text_layers": 10, "text_hidden": 24}),
    "stable_diffusion": (StableDiffusion(), tiny.make_sd15, {}),
}


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Diffusion, Path, Path]:
    """A family, a pipeline's folder, and the same as a single file."""
    family, make, settings = FAMILIES[request.param]
    root = tmp_path_factory.mktemp(request.param)
    folder = tiny.save(root / "folder", make, 0, **settings)
    write_original(family.open(folder, folder), family.original, root / FILE)
    return family, folder, root / FILE


def test_diffusers_loads_the_file_as_the_same_pipeline(pair: tuple[Diffusion, Path, Path]) -> None:
    family, folder, file = pair
    kind = getattr(diffusers, family.pipeline)
    loaded = kind.from_single_file(file, config=str(folder), local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    plain = kind.from_pretrained(folder)
    plain.set_progress_bar_config(disable=True)
    for name, module in tiny.modules(plain).items():
        theirs = loaded.components[name].state_dict()
        assert theirs.keys() == module.state_dict().keys()
        for key, tensor in module.state_dict().items():
            assert torch.equal(theirs[key], tensor), f"{name} {key}"
    tiny.assert_the_same(loaded, plain)


def test_a_file_is_a_source_like_its_folder(pair: tuple[Diffusion, Path, Path]) -> None:
    family, folder, file = pair
    ours, theirs = family.open(file, folder), family.open(folder, folder)
    assert fingerprint("file", ours) == fingerprint("folder", theirs)
    alone = open_sources((Checkpoint("one", str(file), config=str(folder)),), None, family, Rules())
    assert alone.directories["one"] == folder
    assert family.dtype(alone.paths["one"]) == torch.float32
    both = open_sources((Checkpoint("one", str(file)), Checkpoint("two", str(folder))), None, family, Rules())
    assert both.models[0].fingerprint == both.models[1].fingerprint


def test_a_file_alone_needs_a_folder_that_describes_it(pair: tuple[Diffusion, Path, Path]) -> None:
    family, _, file = pair
    with pytest.raises(SourceError, match=r"source 'one': a single file needs a directory .* model.sources.one.config"):
        open_sources((Checkpoint("one", str(file)),), None, family, Rules())


def test_a_file_of_another_architecture_and_one_of_something_else(
    pair: tuple[Diffusion, Path, Path], tmp_path: Path
) -> None:
    family, folder, file = pair
    tensors = load_file(file)
    narrow = {n: t[:8] if n.endswith("input_blocks.0.0.weight") else t for n, t in tensors.items()}
    save_file({n: t.contiguous() for n, t in narrow.items()}, tmp_path / "narrow.safetensors")
    with pytest.raises(SourceError, match=r"expected unet with 'conv_in.weight' of shape .* got \(8, 4, 3, 3\)"):
        family.open(tmp_path / "narrow.safetensors", folder)
    less = {n: t for n, t in tensors.items() if "input_blocks.1.0" not in n}
    save_file(less, tmp_path / "less.safetensors")
    with pytest.raises(SourceError, match="expected"):
        family.open(tmp_path / "less.safetensors", folder)
    save_file({"lora.weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(SourceError, match=r"expected a checkpoint in the original layout with a unet, got \['lora"):
        family.open(tmp_path / "other.safetensors", folder)
    (tmp_path / "torn.safetensors").write_bytes(file.read_bytes()[:5000])
    with pytest.raises(SourceError, match="truncated or corrupt"):
        family.open(tmp_path / "torn.safetensors", folder)


def test_a_file_that_says_that_it_predicts_velocities(pair: tuple[Diffusion, Path, Path], tmp_path: Path) -> None:
    family, folder, file = pair
    save_file(load_file(file) | {"v_pred": torch.zeros(0)}, tmp_path / "v.safetensors")
    nodes = (Checkpoint("one", str(folder)), Checkpoint("two", str(tmp_path / "v.safetensors")))
    with pytest.raises(SourceError, match=r"prediction_type: .*'one': 'epsilon', 'two': 'v_prediction'"):
        open_sources(nodes, None, family, Rules())


def test_the_format_writes_both(pair: tuple[Diffusion, Path, Path], tmp_path: Path) -> None:
    family, folder, file = pair
    sources = open_sources((Checkpoint("one", str(folder)),), None, family, Rules())
    engine = Engine(sources.tensors, device=torch.device("cpu"), dtype=torch.float32)
    SingleFile().check(sources.models[0], family, sources)
    written = SingleFile().write(sources.models[0], engine, family, sources, tmp_path, torch.float16, 10**9)
    assert written == fingerprint("merge", family.open(tmp_path, tmp_path))
    ours, whole = load_file(tmp_path / FILE), load_file(file)
    assert ours.keys() == whole.keys()
    assert all(torch.equal(ours[name], whole[name].half()) for name in whole)


@pytest.mark.parametrize("marks", [("v_pred",), ("v_pred", "ztsnr")])
def test_marks_of_files_reach_the_scheduler_and_what_is_written(
    marks: tuple[str, ...], pair: tuple[Diffusion, Path, Path], tmp_path: Path
) -> None:
    """Two files that predict velocities, described by a folder whose scheduler says otherwise."""
    family, folder, file = pair
    nodes = []
    for name in ("one", "two"):
        saved = tmp_path / f"{name}.safetensors"
        save_file(load_file(file) | {mark: torch.zeros(0) for mark in marks}, saved)
        nodes.append(Checkpoint(name, str(saved), config=str(folder)))
    sources = open_sources(tuple(nodes), None, family, Rules())
    live = family.live_model(sources.directories["one"], CPU, torch.float32, sources.overlay)
    (tmp_path / "out").mkdir()
    engine = Engine(sources.tensors, device=CPU, dtype=torch.float32)
    SingleFile().write(sources.models[0], engine, family, sources, tmp_path / "out", torch.float32, 10**9)
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "out")
    for pipeline in (live.pipeline, again):
        assert pipeline.scheduler.config.prediction_type == "v_prediction"
        assert pipeline.scheduler.config.rescale_betas_zero_snr == ("ztsnr" in marks)
    assert set(load_file(tmp_path / "out" / FILE)) & {"v_pred", "ztsnr"} == set(marks)
    read = open_sources((Checkpoint("again", str(tmp_path / "out" / FILE), config=str(folder)),), None, family, Rules())
    assert read.overlay.config == sources.overlay.config


def test_a_scheduler_without_the_setting_of_a_mark_is_an_error(
    pair: tuple[Diffusion, Path, Path], tmp_path: Path
) -> None:
    family, folder, file = pair
    shutil.copytree(folder, tmp_path / "folder")
    diffusers.PNDMScheduler().save_pretrained(tmp_path / "folder" / "scheduler")
    save_file(load_file(file) | {"ztsnr": torch.zeros(0)}, tmp_path / "one.safetensors")
    node = Checkpoint("one", str(tmp_path / "one.safetensors"), config=str(tmp_path / "folder"))
    sources = open_sources((node,), None, family, Rules())
    with pytest.raises(SourceError, match=r"setting rescale_betas_zero_snr=True.*PNDMScheduler has none"):
        family.live_model(sources.directories["one"], CPU, torch.float32, sources.overlay)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("rescale_betas_zero_snr", True), ("beta_end", 0.02), ("beta_schedule", "linear"), ("num_train_timesteps", 500)],
)
def test_schedules_of_noise_that_differ_are_refused_or_chosen(
    setting: str, value: object, pair: tuple[Diffusion, Path, Path], tmp_path: Path
) -> None:
    family, folder, _ = pair
    shutil.copytree(folder, tmp_path / "two")
    diffusers.EulerDiscreteScheduler.from_pretrained(folder / "scheduler", **{setting: value}).save_pretrained(
        tmp_path / "two" / "scheduler"
    )
    nodes = (Checkpoint("one", str(folder)), Checkpoint("two", str(tmp_path / "two")))
    with pytest.raises(SourceError, match=rf"another schedule of noise: {setting} .* components\.scheduler=SOURCE"):
        open_sources(nodes, None, family, Rules())
    sources = open_sources(nodes, None, family, Rules(components={"scheduler": "two"}))
    assert any(setting in warning for warning in sources.warnings)
    live = family.live_model(sources.directories["one"], CPU, torch.float32, sources.overlay)
    assert live.pipeline.scheduler.config[setting] == value


def test_how_pictures_are_drawn_may_differ(pair: tuple[Diffusion, Path, Path], tmp_path: Path) -> None:
    family, folder, _ = pair
    shutil.copytree(folder, tmp_path / "two")
    diffusers.DDIMScheduler.from_pretrained(folder / "scheduler", timestep_spacing="leading").save_pretrained(
        tmp_path / "two" / "scheduler"
    )
    nodes = (Checkpoint("one", str(folder)), Checkpoint("two", str(tmp_path / "two")))
    assert not open_sources(nodes, None, family, Rules()).warnings


def test_merged_encoders_have_the_same_settings(pair: tuple[Diffusion, Path, Path], tmp_path: Path) -> None:
    family, folder, _ = pair
    shutil.copytree(folder, tmp_path / "two")
    file = tmp_path / "two" / "text_encoder" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "hidden_act": "gelu_new"}))
    nodes = (Checkpoint("one", str(folder)), Checkpoint("two", str(tmp_path / "two")))
    open_sources(nodes, None, family, Rules())
    with pytest.raises(SourceError, match=r"text_encoder of source 'two': expected hidden_act as in 'one'.*'gelu_new'"):
        open_sources(nodes, None, family, Rules(components={"text_encoder": "merge"}))


def test_the_format_is_for_diffusion_models(trio: tuple[Path, Path, Path]) -> None:
    from evohydra.families.causal_lm import CausalLM

    sources = open_sources((Checkpoint("one", str(trio[1])),), None, CausalLM(), Rules())
    with pytest.raises(ValueError, match="format=single_file: expected models of the families sdxl or"):
        SingleFile().check(sources.models[0], CausalLM(), sources)


@pytest.mark.parametrize(
    ("header", "marks"),
    [
        ({"modelspec.prediction_type": "v"}, {"v_pred"}),
        ({"modelspec.predict_key": "v", "ss_zero_terminal_snr": "True"}, {"v_pred", "ztsnr"}),
        ({"ss_v_parameterization": "True"}, {"v_pred"}),
        ({"modelspec.prediction_type": "epsilon", "ss_zero_terminal_snr": "False"}, set()),
    ],
)
def test_headers_of_files_say_what_they_predict_too(
    header: dict[str, str], marks: set[str], pair: tuple[Diffusion, Path, Path], tmp_path: Path
) -> None:
    """A file of a training script, described by a folder for epsilon, drew as if noise were predicted."""
    family, folder, file = pair
    save_file(load_file(file), tmp_path / "one.safetensors", metadata=header)
    node = Checkpoint("one", str(tmp_path / "one.safetensors"), config=str(folder))
    sources = open_sources((node,), None, family, Rules())
    live = family.live_model(sources.directories["one"], CPU, torch.float32, sources.overlay)
    assert live.pipeline.scheduler.config.prediction_type == ("v_prediction" if "v_pred" in marks else "epsilon")
    assert live.pipeline.scheduler.config.rescale_betas_zero_snr == ("ztsnr" in marks)
    engine = Engine(sources.tensors, device=CPU, dtype=torch.float32)
    (tmp_path / "out").mkdir()
    SingleFile().write(sources.models[0], engine, family, sources, tmp_path / "out", torch.float32, 10**9)
    assert set(load_file(tmp_path / "out" / FILE)) & {"v_pred", "ztsnr"} == marks
