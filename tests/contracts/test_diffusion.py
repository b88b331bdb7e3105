"""The families of diffusion pipelines over tiny ones: merged in place, written, read by diffusers, drawn again."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from evohydra.families import Rules
from evohydra.families.comparison import apart
from evohydra.families.diffusion import Diffusion
from evohydra.families.flux import Flux
from evohydra.families.live_diffusion import LiveDiffusion
from evohydra.families.sd3 import SD3
from evohydra.families.sdxl import SDXL
from evohydra.families.sources import OpenSources, open_sources
from evohydra.families.stable_diffusion import StableDiffusion
from evohydra.merging.checkpoints import SourceError
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Group, Merge
from evohydra.spaces.grouping import Granularity
from evohydra.winner.formats.plain import Plain
from tests import tiny_pipelines as tiny

CPU = torch.device("cpu")
LINEAR = "linear"
KINDS: dict[str, tuple[Diffusion, Any]] = {
    "sdxl": (SDXL(), tiny.make_sdxl),
    "stable_diffusion": (StableDiffusion(), tiny.make_sd15),
}


@dataclass
class World:
    """Two pipelines of one family on disk, brought to the same tensors."""

    family: Diffusion
    paths: Mapping[str, Path]
    sources: OpenSources

    @property
    def engine(self) -> Engine:
        return Engine(self.sources.tensors, device=CPU, dtype=torch.float32)

    def live(self) -> LiveDiffusion:
        directory = self.sources.directories[self.sources.files_from]
        return self.family.live_model(directory, CPU, torch.float32, self.sources.overlay)

    def merged(self) -> tuple[str, ...]:
        names = tuple(self.sources.tensors["one"].shapes)
        places = self.family.locations(self.paths["one"], names, self.sources.copied)
        return tuple(name for name, place in places.items() if place)

    def average(self, weight: float = 0.25) -> Merge:
        group = Group("all", self.merged(), {"weight": (weight, 1 - weight)})
        return Merge(LINEAR, None, self.sources.models, (group,))


def opened(family: Diffusion, paths: Mapping[str, Path], **rules: Any) -> OpenSources:
    base = Checkpoint("base", str(paths["base"])) if "base" in paths else None
    models = tuple(Checkpoint(name, str(path)) for name, path in paths.items() if name != "base")
    return open_sources(models, base, family, Rules(**rules))


def pipeline(path: Path) -> Any:
    loaded = diffusers.DiffusionPipeline.from_pretrained(path)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="module", params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    family, make = KINDS[request.param]
    one, two = tiny.save_pair(tmp_path_factory.mktemp(request.param), make)
    paths = {"one": one, "two": two}
    return World(family, paths, opened(family, paths))


def test_a_source_draws_what_diffusers_draws(world: World) -> None:
    live = world.live()
    live.become(world.average(), world.engine)
    live.become(world.sources.models[0], world.engine)
    tiny.assert_the_same(live.pipeline, pipeline(world.paths["one"]))


@pytest.mark.parametrize("shift", [1, 3, 8], ids="{} numbers".format)
def test_weights_elsewhere_in_memory_draw_the_same_but_for_rounding(world: World, shift: int) -> None:
    """Mapped weights are not aligned as those in memory are; what this changes is far below the tolerance."""
    here, there = pipeline(world.paths["one"]), pipeline(world.paths["one"])
    for module in tiny.modules(there).values():
        for parameter in module.parameters():
            room = torch.empty(parameter.numel() + shift)
            room[shift:] = parameter.detach().reshape(-1)
            parameter.data = room[shift:].view(parameter.shape)
    tiny.assert_the_same(there, here)
    alone = [tiny.draw(each, ("a cat",)) for each in (there, here)]  # a batch of one is where it shows
    assert apart(*alone) <= tiny.allowed(here)


def test_the_denoiser_is_merged_and_all_else_is_the_first_ones(world: World) -> None:
    live = world.live()
    live.become(world.average(0.25), world.engine)
    one, two = (tiny.modules(pipeline(world.paths[name])) for name in ("one", "two"))
    for name, module in tiny.modules(live.pipeline).items():
        ours, first, second = module.state_dict(), one[name].state_dict(), two[name].state_dict()
        for key, tensor in ours.items():
            expected = 0.25 * first[key] + 0.75 * second[key] if name == world.family.denoiser else first[key]
            torch.testing.assert_close(tensor, expected, msg=f"{name} {key}")
    assert live.merged == {world.family.denoiser}


def test_the_written_winner_draws_the_same_pixels_and_is_an_ordinary_folder(world: World, tmp_path: Path) -> None:
    live, merge = world.live(), world.average()
    live.become(merge, world.engine)
    written = Plain().write(merge, world.engine, world.family, world.sources, tmp_path, torch.float32, 500_000)
    assert world.family.verify(tmp_path, live).same_bits
    loaded = pipeline(tmp_path)
    assert type(loaded).__name__ == world.family.pipeline
    tiny.assert_the_same(loaded, live.pipeline)
    assert list(tmp_path.glob("unet/diffusion_pytorch_model-00001-of-*.safetensors")), "several shards"
    again = opened(world.family, {"winner": tmp_path, "one": world.paths["one"]})
    assert again.models[0].fingerprint is not None
    assert len(written) == 64
    live.become(world.sources.models[0], world.engine)
    other = world.family.verify(tmp_path, live)
    assert other.weights
    assert other.outputs > other.rounding


def test_text_encoders_come_from_whom_the_configuration_names_with_their_tokenizers(world: World) -> None:
    sources = opened(world.family, world.paths, components={"text_encoder": "two", "vae": "merge"})
    assert sources.overlay.folders["text_encoder"].parent == world.paths["two"]
    assert sources.overlay.folders["tokenizer"].parent == world.paths["two"]
    assert sources.overlay.folders["scheduler"].parent == world.paths["one"]
    chosen = World(world.family, world.paths, sources)
    assert {name.split("/")[0] for name in chosen.merged()} == {world.family.denoiser, "vae"}
    live = chosen.live()
    live.become(chosen.average(), chosen.engine)
    theirs = pipeline(world.paths["two"]).text_encoder.state_dict()
    ours = live.pipeline.text_encoder.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def groups(world: World, **granularity: Any) -> dict[str, tuple[str, ...]]:
    names = tuple(world.sources.tensors["one"].shapes)
    places = world.family.locations(world.paths["one"], names, world.sources.copied)
    return Granularity(**granularity).group(places)


def test_the_papers_groups(world: World) -> None:
    found = groups(world, preset="paper")
    assert set(found) == {"attn", "conv"}
    for name in found["attn"]:
        assert any(part in name for part in ("to_q", "to_k", "to_v", "to_out.0"))
    for name in found["conv"]:
        assert not any(part in name for part in ("to_q", "to_k", "to_v", "to_out.0"))
    assert sorted([*found["attn"], *found["conv"]]) == sorted(world.merged())


def test_groups_of_stages_and_of_regular_expressions(world: World) -> None:
    found = groups(world, preset="stages", filters={"cross": r"attn2"})
    assert set(found) == {"down", "mid", "up", "rest", "cross"}
    assert all(name.startswith("unet/down_blocks.") for name in found["down"])
    assert {name.split("/")[1].split(".")[0] for name in found["rest"]} >= {"conv_in", "conv_out", "time_embedding"}
    with pytest.raises(ValueError, match=r"granularity.filters: \['up'\] are groups of preset=stages"):
        groups(world, preset="stages", filters={"up": "attn2"})


# The blocks of the original checkpoints, as in diffusers' own table of both layouts.
MBW = {
    "sdxl": {
        "IN00": "conv_in", "IN01": "down_blocks.0.resnets.0", "IN03": "down_blocks.0.downsamplers.0",
        "IN05": "down_blocks.1.attentions.1", "IN08": "down_blocks.2.attentions.1", "M00": "mid_block.attentions.0",
        "OUT00": "up_blocks.0.resnets.0", "OUT02": "up_blocks.0.upsamplers.0", "OUT05": "up_blocks.1.attentions.2",
        "OUT06": "up_blocks.2.resnets.0", "OUT08": "conv_out", "BASE": "add_embedding",
    },
    "stable_diffusion": {
        "IN00": "conv_in", "IN02": "down_blocks.0.attentions.1", "IN09": "down_blocks.2.downsamplers.0",
        "IN11": "down_blocks.3.resnets.1", "M00": "mid_block.resnets.1", "OUT02": "up_blocks.0.upsamplers.0",
        "OUT11": "up_blocks.3.attentions.2", "BASE": "time_embedding",
    },
}  # fmt: skip


def test_each_block_has_its_name_of_the_mbw_tools(world: World) -> None:
    found = groups(world, preset="blocks")
    inputs, outputs = {"sdxl": (9, 9), "stable_diffusion": (12, 12)}[world.family.name]
    expected = {*(f"IN{i:02d}" for i in range(inputs)), "M00", *(f"OUT{i:02d}" for i in range(outputs)), "BASE"}
    assert set(found) == expected
    for block, prefix in MBW[world.family.name].items():
        assert any(name.startswith(f"unet/{prefix}.") for name in found[block]), block
    assert set(groups(world, layers="each")) == expected
    assert len(groups(world, layers=3, edges=False)) == 3


def test_there_are_no_paths(world: World) -> None:
    with pytest.raises(SourceError, match="merge=dfs: a path through layers needs layers of one width in a row"):
        world.family.align_layers(world.paths, {}, "one", Rules())
    with pytest.raises(SourceError, match="skip connections"):
        world.family.depth(world.paths["one"])


@pytest.mark.parametrize(("family", "make"), [(SD3(), tiny.make_sd3), (Flux(), tiny.make_flux)], ids=["sd3", "flux"])
def test_transformer_pipelines(family: Diffusion, make: Any, tmp_path: Path) -> None:
    """Merged, written, read by diffusers, drawn; each block is a group."""
    one, two = tiny.save_pair(tmp_path, make)
    world = World(family, {"one": one, "two": two}, opened(family, {"one": one, "two": two}))
    assert "transformer_blocks.0" in groups(world, preset="blocks")
    assert set(groups(world, preset="paper")) == {"attn", "conv"}
    live, merge = world.live(), world.average()
    live.become(merge, world.engine)
    (tmp_path / "winner").mkdir()
    Plain().write(merge, world.engine, family, world.sources, tmp_path / "winner", torch.float32, 10**9)
    assert family.verify(tmp_path / "winner", live).same_bits
    live.become(world.sources.models[0], world.engine)
    tiny.assert_the_same(live.pipeline, pipeline(one))
    other = family.verify(tmp_path / "winner", live)
    assert other.weights
    assert other.outputs > other.rounding
    with pytest.raises(SourceError, match="a diffusion transformer has blocks of several kinds"):
        family.align_layers(world.paths, {}, "one", Rules())


@pytest.mark.parametrize("lacking", [("one", "two"), ("one",)], ids="+".join)
def test_stable_diffusion_3_without_its_third_text_encoder(lacking: tuple[str, ...], tmp_path: Path) -> None:
    """Its model_index.json then says null, and diffusers has to be told the same once more."""
    whole = dict(zip(("one", "two"), tiny.save_pair(tmp_path, tiny.make_sd3), strict=True))
    none: dict[str, Any] = {"text_encoder_3": None, "tokenizer_3": None}
    paths = dict(whole)
    for name in lacking:
        paths[name] = tmp_path / f"{name} without"
        diffusers.StableDiffusion3Pipeline.from_pretrained(whole[name], **none).save_pretrained(paths[name])
    world = World(SD3(), paths, opened(SD3(), paths))
    assert any("text_encoder_3=None, tokenizer_3=None)" in warning for warning in world.sources.warnings)
    live, merge = world.live(), world.average()
    live.become(merge, world.engine)
    (tmp_path / "winner").mkdir()
    Plain().write(merge, world.engine, SD3(), world.sources, tmp_path / "winner", torch.float32, 10**9)
    assert SD3().verify(tmp_path / "winner", live).same_bits
    written = diffusers.StableDiffusion3Pipeline.from_pretrained(tmp_path / "winner", **none)
    tiny.assert_the_same(live.pipeline, written)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prediction_type": "v_prediction"}, "prediction_type: expected the same of all sources, got .*v_prediction"),
        (
            {"attention_head_dim": (1, 2, 2)},
            r"'two': expected attention_head_dim as in 'one', \[2, 4, 4\]",
        ),
        ({"block_out_channels": (16, 16, 32)}, "unet of source 'two': expected block_out_channels as in 'one'"),
    ],
)
def test_denoisers_that_mean_something_else(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    one = tiny.save_sdxl(tmp_path / "one", 0)
    two = tiny.save_sdxl(tmp_path / "two", 1, **settings)
    with pytest.raises(SourceError, match=message):
        opened(SDXL(), {"one": one, "two": two})


def test_missing_components_and_pipelines_of_another_class(tmp_path: Path) -> None:
    one = tiny.save_sdxl(tmp_path / "one", 0)
    other = tiny.save(tmp_path / "other", tiny.make_sd15, 0)
    with pytest.raises(SourceError, match=r"expected pipelines of the class StableDiffusionXLPipeline, got .*'two'"):
        opened(SDXL(), {"one": one, "two": other})
    (one / "vae").rename(tmp_path / "vae")
    with pytest.raises(SourceError, match=r"names the components \['vae'\], expected a folder for each, got none"):
        opened(SDXL(), {"one": one})
    (one / "model_index.json").unlink()
    with pytest.raises(SourceError, match="expected a source that is a whole StableDiffusionXLPipeline"):
        opened(SDXL(), {"one": one})
    with pytest.raises(SourceError, match="expected a diffusers folder"):
        opened(SDXL(), {"one": tmp_path / "vae" / ".."})


def test_without_diffusers_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = tiny.save_sdxl(tmp_path / "one", 0)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ValueError, match=r"expected the package .*pip install -c constraints.txt -e '\.\[diffusion\]'"):
        opened(SDXL(), {"one": one})
