"""LoRAs of diffusion models: the numbers are diffusers' own, in sources, fused into merges, and kept beside them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

from evohydra.families import AddedAdapter, Rules
from evohydra.families.lora import AdaptedPipeline
from evohydra.families.original_layout import Plan, unet_name
from evohydra.families.sdxl import SDXL
from evohydra.families.sources import OpenSources, open_sources
from evohydra.merging.checkpoints import SourceError
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Group, Merge
from evohydra.winner.formats.plain import Plain
from tests import tiny_pipelines as tiny

FAMILY = SDXL()
CPU = torch.device("cpu")
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "ff.net.0.proj", "conv1", "conv_shortcut", "conv"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return tiny.save_pair(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def lora(pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA as diffusers writes it, over attention, feed-forward layers and convolutions of several kinds."""
    return save_lora(tmp_path_factory.mktemp("lora"), pair[0], 3)


def load(path: Path) -> Any:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(path)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_lora(directory: Path, path: Path, seed: int) -> Path:
    pipeline = load(path)
    config = LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS, init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipeline.unet.add_adapter(config)
    diffusers.StableDiffusionXLPipeline.save_lora_weights(
        directory,
        unet_lora_layers=get_peft_model_state_dict(pipeline.unet),
        unet_lora_adapter_metadata=config.to_dict(),
    )
    return directory / "pytorch_lora_weights.safetensors"


def as_kohya(tensors: Mapping[str, Tensor], alpha: float, original: bool) -> dict[str, Tensor]:
    """The same LoRA under the names of kohya's scripts."""
    renamed: dict[str, Tensor] = {}
    plan = Plan.of([name.removeprefix("unet.") for name in tensors if name.startswith("unet.")])
    for name, tensor in tensors.items():
        module, part = name.rsplit(".lora_", 1)
        inner = module.removeprefix("unet.")
        key = "lora_unet_" + (unet_name(inner, plan) if original else inner).replace(".", "_")
        renamed[f"{key}.alpha"] = torch.tensor(alpha)
        renamed[f"{key}.lora_{'down' if part.startswith('A') else 'up'}.weight"] = tensor
    return renamed


def stored(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return {
        name.replace(".lora.down.", ".lora_A.").replace(".lora.up.", ".lora_B."): t
        for name, t in load_file(file).items()
    }


def fused(path: Path, file: Path, scale: float = 1.0) -> Any:
    pipeline = load(path)
    pipeline.load_lora_weights(str(file.parent), weight_name=file.name)
    pipeline.fuse_lora(lora_scale=scale)
    pipeline.unload_lora_weights()
    return pipeline


def check_equal(tensors: Any, pipeline: Any) -> int:
    """How many tensors are those of the pipeline, which all must be."""
    count = 0
    for component, module in tiny.modules(pipeline).items():
        for name, expected in module.state_dict().items():
            key = f"{component}/{name}" if f"{component}/{name}" in tensors.shapes else f"{component}/text_model.{name}"
            torch.testing.assert_close(tensors.read(key), expected, rtol=1e-6, atol=1e-7, msg=key)
            count += 1
    return count


def test_a_source_with_a_lora_is_what_diffusers_fuses(pair: tuple[Path, Path], lora: Path) -> None:
    plain = FAMILY.open(pair[0], pair[0])
    adapted = AdaptedPipeline(plain, lora, "unet")
    assert check_equal(adapted, fused(pair[0], lora)) > 600
    changed = [name for name in plain.shapes if not torch.equal(plain.read(name), adapted.read(name))]
    assert {name.split("/")[0] for name in changed} == {"unet"}
    assert {len(plain.shapes[name]) for name in changed} == {2, 4}
    sources = open_sources((Checkpoint("one", str(pair[0]), adapter=str(lora)),), None, FAMILY, Rules())
    bare = open_sources((Checkpoint("one", str(pair[0])),), None, FAMILY)
    assert sources.models[0].fingerprint != bare.models[0].fingerprint


@pytest.mark.parametrize("original", [False, True], ids=["diffusers' modules", "original modules"])
def test_names_of_kohya(pair: tuple[Path, Path], lora: Path, tmp_path: Path, original: bool) -> None:
    renamed = as_kohya(stored(lora), 6.0, original)
    save_file(renamed, tmp_path / "kohya.safetensors")
    plain = FAMILY.open(pair[0], pair[0])
    ours = AdaptedPipeline(plain, tmp_path / "kohya.safetensors", "unet")
    expected = AdaptedPipeline(plain, lora, "unet")
    for name in plain.shapes:
        assert torch.equal(ours.read(name), expected.read(name)), name
    if not original:  # diffusers reads attention, feed-forward and convolutions of that kind
        check_equal(ours, fused(pair[0], tmp_path / "kohya.safetensors"))


@pytest.mark.parametrize("module", ["text_encoder.text_model.encoder.layers.1.self_attn.q_proj",
                                    "text_encoder.encoder.layers.1.self_attn.q_proj",
                                    "lora_te1_text_model_encoder_layers_1_self_attn_q_proj"])  # fmt: skip
def test_text_encoders_by_the_formula(pair: tuple[Path, Path], tmp_path: Path, module: str) -> None:
    """W + 0.5 * alpha / r * B A, in float32 (diffusers 0.42 loads none of these with transformers 5)."""
    down, up = torch.randn(2, 16), torch.randn(16, 2)
    factors = {f"{module}.lora_down.weight": down, f"{module}.lora_up.weight": up, f"{module}.alpha": torch.tensor(3.0)}
    save_file(factors, tmp_path / "text.safetensors")
    sources = opened(pair, AddedAdapter(str(tmp_path / "text.safetensors"), 0.5))
    (name,) = sources.overlay.fused
    assert name == "text_encoder/text_model.encoder.layers.1.self_attn.q_proj.weight"
    live = FAMILY.live_model(pair[0], CPU, torch.float32, sources.overlay)
    for node in (*sources.models, average(sources)):  # what is copied is written, and added to, once
        live.become(node, Engine(sources.tensors, device=CPU, dtype=torch.float32))
    expected = sources.tensors["one"].read(name) + up @ down * (0.5 * 3 / 2)
    torch.testing.assert_close(live.parameters[name], expected, msg=name)


def test_older_names_and_no_alpha(pair: tuple[Path, Path], tmp_path: Path) -> None:
    module = "mid_block.attentions.0.transformer_blocks.0.attn1"
    down, up = torch.randn(2, 32), torch.randn(32, 2)
    old = {
        f"unet.{module}.processor.to_out_lora.down.weight": down,
        f"unet.{module}.processor.to_out_lora.up.weight": up,
    }
    save_file(old, tmp_path / "old.safetensors")
    plain = FAMILY.open(pair[0], pair[0])
    name = f"unet/{module}.to_out.0.weight"
    torch.testing.assert_close(AdaptedPipeline(plain, tmp_path, "unet").read(name), plain.read(name) + up @ down)


def opened(pair: tuple[Path, Path], *adapters: AddedAdapter) -> OpenSources:
    nodes = (Checkpoint("one", str(pair[0])), Checkpoint("two", str(pair[1])))
    return open_sources(nodes, None, FAMILY, Rules(adapters=adapters))


def average(sources: OpenSources) -> Merge:
    names = tuple(sources.tensors["one"].shapes)
    places = FAMILY.locations(sources.directories["one"], names, sources.copied)
    group = Group("all", tuple(n for n in names if places[n]), {"weight": (0.4, 0.6)})
    return Merge("linear", None, sources.models, (group,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_fused_into_candidates_and_winner(
    pair: tuple[Path, Path], lora: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    sources = opened(pair, AddedAdapter(str(lora), 0.5))
    without = opened(pair)
    engine = Engine(sources.tensors, device=CPU, dtype=torch.float32)
    merge = average(sources)
    live = FAMILY.live_model(pair[0], CPU, dtype, sources.overlay)
    for node in (sources.models[1], merge, merge):  # again and again: nothing is added twice
        live.become(node, engine)
    (tmp_path / "plain").mkdir()
    (tmp_path / "fused").mkdir()
    Plain().write(merge, engine, FAMILY, without, tmp_path / "plain", dtype, 10**9)
    written = Plain().write(merge, engine, FAMILY, sources, tmp_path / "fused", dtype, 10**9)
    reader = FAMILY.open(tmp_path / "fused", tmp_path / "fused")
    assert all(torch.equal(reader.read(name), live.parameters[name]) for name in live.parameters)
    assert written
    if dtype == torch.float32:
        check_equal(reader, fused(tmp_path / "plain", lora, 0.5))
        assert FAMILY.verify(tmp_path / "fused", live).same_bits


def test_kept_beside_the_weights(pair: tuple[Path, Path], lora: Path, tmp_path: Path) -> None:
    style = save_lora(tmp_path / "style", pair[0], 4).rename(tmp_path / "style.safetensors")
    sources = opened(pair, AddedAdapter(str(lora)), AddedAdapter(str(style), 0.7, fuse=False))
    engine = Engine(sources.tensors, device=CPU, dtype=torch.float32)
    merge = average(sources)
    live = FAMILY.live_model(pair[0], CPU, torch.float32, sources.overlay)
    live.become(merge, engine)
    live.become(merge, engine)
    (tmp_path / "winner").mkdir()
    Plain().write(merge, engine, FAMILY, sources, tmp_path / "winner", torch.float32, 10**9)
    assert (tmp_path / "winner" / "adapters" / "style.safetensors").read_bytes() == style.read_bytes()
    assert FAMILY.verify(tmp_path / "winner", live).same_bits
    bare = load(tmp_path / "winner")
    assert tiny.apart(bare, live.pipeline) > 10 * tiny.allowed(live.pipeline)
    bare.load_lora_weights(str(tmp_path / "winner" / "adapters"), weight_name="style.safetensors", adapter_name="a0")
    bare.set_adapters(["a0"], [0.7])
    assert tiny.apart(bare, live.pipeline) <= tiny.allowed(live.pipeline)


def test_another_file_in_its_place_is_noticed(pair: tuple[Path, Path], lora: Path) -> None:
    known = opened(pair, AddedAdapter(str(lora))).overlay.adapters[0]
    assert opened(pair, AddedAdapter.parse(json.loads(json.dumps(known.__dict__)))).overlay.adapters == (known,)
    with pytest.raises(SourceError, match="is not the one of the recipe"):
        opened(pair, AddedAdapter(str(lora), sha256="0" * 64))


def test_a_lora_for_another_architecture(pair: tuple[Path, Path], lora: Path, tmp_path: Path) -> None:
    other = tiny.save_sdxl(tmp_path / "other", 0, block_out_channels=(16, 64, 64))
    with pytest.raises(SourceError, match=r"have shapes .* expected a product of shape .*another architecture"):
        AdaptedPipeline(FAMILY.open(other, other), lora, "unet")
    with pytest.raises(SourceError, match=r"of its targets are not in the model.*expected a LoRA for this"):
        opened(pair, AddedAdapter(str(save_lora_of_sd15(tmp_path))))


def save_lora_of_sd15(root: Path) -> Path:
    module = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    save_file({f"{module}.lora_{part}.weight": torch.ones(size)
               for part, size in (("down", (2, 16)), ("up", (16, 2)))}, root / "sd15.safetensors")  # fmt: skip
    return root / "sd15.safetensors"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["unet.mid_block.resnets.0.conv1.hada_w1_a"], "expected the factors of a plain LoRA, got also"),
        (["unet.mid_block.attentions.0.proj_in.lora_A.weight"], "expected both factors"),
        (["unet.mid_block.attentions.0.proj_in.dora_scale"], "got also"),
        ([], "expected a LoRA for this architecture"),
    ],
)
def test_files_that_are_no_plain_lora(pair: tuple[Path, Path], tmp_path: Path, names: list[str], message: str) -> None:
    save_file(dict.fromkeys(names, torch.ones(2, 32)), tmp_path / "strange.safetensors")
    with pytest.raises(SourceError, match=message):
        AdaptedPipeline(FAMILY.open(pair[0], pair[0]), tmp_path / "strange.safetensors", "unet")


@pytest.mark.parametrize("entry", ["x.safetensors", {"path": 3}, {"path": "x", "scale": True}, {"path": "x", "fuse": 1},
                                   {"path": "x", "weight": 1.0}, {"path": "x", "scale": float("nan")}])  # fmt: skip
def test_wrong_entries(entry: Any) -> None:
    with pytest.raises(ValueError, match=r"adapters(\.scale|\.fuse)?: expected"):
        AddedAdapter.parse(entry)


def test_the_part_of_a_lora_for_an_encoder_that_is_not_merged_is_named(pair: tuple[Path, Path], tmp_path: Path) -> None:
    pipeline = load(pair[1])
    config = LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj"], init_lora_weights=False)
    unet = LoraConfig(r=2, lora_alpha=2, target_modules=["to_q"], init_lora_weights=False)
    pipeline.text_encoder.add_adapter(config)
    pipeline.unet.add_adapter(unet)
    diffusers.StableDiffusionXLPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(pipeline.unet),
        text_encoder_lora_layers=get_peft_model_state_dict(pipeline.text_encoder),
    )
    lora = str(tmp_path / "pytorch_lora_weights.safetensors")
    nodes = (Checkpoint("one", str(pair[0])), Checkpoint("two", str(pair[1]), adapter=lora))

    def said(**components: str) -> list[str]:
        warnings = open_sources(nodes, None, FAMILY, Rules(components=components)).warnings
        return [warning for warning in warnings if "LoRA" in warning]

    (sentence,) = said()
    assert "the LoRA of source 'two' changes its text_encoder too, which all have from 'one'" in sentence
    assert not said(text_encoder="merge")
    assert not said(text_encoder="two")


@pytest.mark.parametrize("setting", [{"init_lora_weights": "pissa"}, {"use_dora": True}, {"kasa_config": {"x": 1}}])
@pytest.mark.parametrize("beside", [True, False])
def test_loras_that_change_the_base_too_are_refused(
    setting: dict[str, Any], beside: bool, lora: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """PiSSA takes a part out of the base's weights: without that the product alone is another model."""
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, **setting}
    metadata = {"lora_adapter_metadata": json.dumps({f"unet.{key}": value for key, value in settings.items()})}
    save_file(stored(lora), tmp_path / "adapter_model.safetensors", metadata={} if beside else metadata)
    if beside:
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    tensors = FAMILY.open(pair[0], pair[0])
    (name,) = setting
    with pytest.raises(SourceError, match=rf"only plain LoRA adapters are supported, got \['{name}"):
        AdaptedPipeline(tensors, tmp_path, FAMILY.denoiser)
