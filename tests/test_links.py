"""Checkpoints whose files are links, as in the hub's cache, are read and copied; where one is broken, refused."""

import os
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from evohydra.families import AddedAdapter, Family, Rules
from evohydra.families.causal_lm import CausalLM
from evohydra.families.encoder import Encoder
from evohydra.families.lora import read
from evohydra.families.sdxl import SDXL
from evohydra.families.sources import open_sources
from evohydra.families.stable_diffusion import StableDiffusion
from evohydra.families.vision_language import VisionLanguage
from evohydra.merging.checkpoints import SourceError
from evohydra.merging.finding import locate
from evohydra.recipe import Checkpoint
from evohydra.winner.formats.single_file import FILE, write_original
from tests import tiny_encoders, tiny_models, tiny_pipelines, tiny_vlms
from tests.commands import files

FAMILIES: dict[str, Family] = {
    "causal_lm": CausalLM(), "vision_language": VisionLanguage(), "sdxl": SDXL(), "encoder": Encoder(),
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        "causal_lm": tiny_models.save_model(root / "causal_lm", 1),
        "vision_language": tiny_vlms.save_vlm(root / "vision_language", "llava"),
        "sdxl": tiny_pipelines.save_sdxl(root / "sdxl", 1),
        "encoder": tiny_encoders.as_sentences(tiny_encoders.save(root / "encoder", 1), folder="0_Transformer"),
    }


def as_in_the_cache(model: Path, root: Path) -> Path:
    """A snapshot of links to blobs, which have numbers for names."""
    snapshot, blobs = root / "snapshots" / "main", root / "blobs"
    blobs.mkdir(parents=True)
    for number, file in enumerate(sorted(path for path in model.rglob("*") if path.is_file())):
        blob = blobs / f"{number:040x}"
        blob.write_bytes(file.read_bytes())
        link = snapshot / file.relative_to(model)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


@pytest.mark.parametrize("name", FAMILIES)
def test_links_are_read_and_copied_as_what_they_point_to(name: str, models: dict[str, Path], tmp_path: Path) -> None:
    family, snapshot = FAMILIES[name], as_in_the_cache(models[name], tmp_path)
    found = [open_sources((Checkpoint("one", str(each)),), None, family) for each in (models[name], snapshot)]
    assert found[0].models[0].fingerprint == found[1].models[0].fingerprint
    for at, each in enumerate(found):
        (tmp_path / f"copy{at}").mkdir()
        family.copy_files(each.directories["one"], tmp_path / f"copy{at}", torch.float32, each.overlay)
    assert files(tmp_path / "copy0") == files(tmp_path / "copy1") != {}
    assert not any(path.is_symlink() for path in (tmp_path / "copy1").rglob("*"))


def test_a_lora_behind_a_link_has_the_settings_beside_the_link(models: dict[str, Path], tmp_path: Path) -> None:
    """A blob has nothing beside it that says alpha, and the scale would be 1."""
    name, family = "unet/mid_block.attentions.0.proj_in.weight", SDXL()
    shapes = family.open(models["sdxl"], models["sdxl"]).shapes
    rows, columns = shapes[name]
    plain = tmp_path / "plain"
    plain.mkdir()
    module = name.removesuffix(".weight").replace("/", ".")
    save_file(
        {f"{module}.lora_A.weight": torch.ones(2, columns), f"{module}.lora_B.weight": torch.ones(rows, 2)},
        plain / "style.safetensors",
    )
    LoraConfig(r=2, lora_alpha=6).save_pretrained(plain)
    link = as_in_the_cache(plain, tmp_path) / "style.safetensors"
    assert read(locate(str(link)), shapes, "unet", 1.0)[name].scale == 3
    kept = Rules(adapters=(AddedAdapter(str(link), fuse=False),))
    sources = open_sources((Checkpoint("one", str(models["sdxl"])),), None, family, kept)
    (tmp_path / "winner").mkdir()
    family.copy_files(models["sdxl"], tmp_path / "winner", torch.float32, sources.overlay)
    assert load_file(tmp_path / "winner" / "adapters" / "style.safetensors").keys() == load_file(link).keys()


def test_a_single_file_behind_a_link(tmp_path: Path) -> None:
    family = StableDiffusion()
    folder = tiny_pipelines.save(tmp_path / "folder", tiny_pipelines.make_sd15, 1)
    (tmp_path / "single").mkdir()
    write_original(family.open(folder, folder), family.original, tmp_path / "single" / FILE)
    link = as_in_the_cache(tmp_path / "single", tmp_path) / FILE
    nodes = [Checkpoint("one", str(path), config=str(folder)) for path in (link, folder)]
    found = [open_sources((node,), None, family).models[0].fingerprint for node in nodes]
    assert found[0] == found[1]


BROKEN = {
    "causal_lm": "chat_template.jinja",
    "vision_language": "processor_config.json",
    "sdxl": "tokenizer/vocab.json",
    "encoder": "1_Pooling/config.json",
}


@pytest.mark.parametrize("kind", ["dangling", "loop", "pipe"])
@pytest.mark.parametrize("name", FAMILIES)
def test_what_cannot_be_read_is_refused_at_once(name: str, kind: str, models: dict[str, Path], tmp_path: Path) -> None:
    snapshot = as_in_the_cache(models[name], tmp_path)
    file = snapshot / BROKEN[name]
    file.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("nowhere" if kind == "dangling" else file.name)
    with pytest.raises(SourceError, match=rf"{file.name}: expected an ordinary file, or a link to one"):
        open_sources((Checkpoint("one", str(snapshot)),), None, FAMILIES[name])
