"""Single files in the original layout: written, read by diffusers, by this project, and as a source."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from evohydra.families import Rules
from evohydra.families.diffusion import Diffusion
from evohydra.families.sdxl import SDXL
from evohydra.families.sources import open_sources
from evohydra.families.stable_diffusion import StableDiffusion
from evohydra.merging.checkpoints import SourceError, fingerprint
from evohydra.recipe import Checkpoint
from evohydra.winner.formats.single_file import FILE, SingleFile, write_original
from tests import tiny_pipelines as tiny

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
    import diffusers

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
    from evohydra.merging.engine import Engine

    family, folder, file = pair
    sources = open_sources((Checkpoint("one", str(folder)),), None, family, Rules())
    engine = Engine(sources.tensors, device=torch.device("cpu"), dtype=torch.float32)
    SingleFile().check(sources.models[0], family, sources)
    written = SingleFile().write(sources.models[0], engine, family, sources, tmp_path, torch.float16, 10**9)
    assert written == fingerprint("merge", family.open(tmp_path, tmp_path))
    ours, whole = load_file(tmp_path / FILE), load_file(file)
    assert ours.keys() == whole.keys()
    assert all(torch.equal(ours[name], whole[name].half()) for name in whole)


def test_the_format_is_for_diffusion_models(trio: tuple[Path, Path, Path]) -> None:
    from evohydra.families.causal_lm import CausalLM

    sources = open_sources((Checkpoint("one", str(trio[1])),), None, CausalLM(), Rules())
    with pytest.raises(ValueError, match="format=single_file: expected models of the families sdxl or"):
        SingleFile().check(sources.models[0], CausalLM(), sources)
