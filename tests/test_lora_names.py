"""LoRAs of FLUX and Stable Diffusion 3 under the names of the original code, as kohya, ComfyUI and LyCORIS write them.

What is expected is the formula on the original tensors, of which those of diffusers are parts; what diffusers itself
reads is compared with what it fuses.
"""

import re
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from evohydra.families.flux import Flux
from evohydra.families.lora import AdaptedPipeline
from evohydra.families.lora_names import ORIGINAL, places
from evohydra.families.sd3 import SD3
from evohydra.families.sdxl import SDXL
from evohydra.merging.checkpoints import SourceError
from tests import tiny_pipelines as tiny

RANK, ALPHA = 2, 3.0
FAMILIES: dict[str, Any] = {"flux": (Flux(), tiny.make_flux), "sd3": (SD3(), tiny.make_sd3)}
SPELLED = {
    "kohya": lambda module: "lora_unet_" + module.replace(".", "_"),
    "lycoris": lambda module: "lycoris_" + module.replace(".", "_"),
    "comfyui": lambda module: "diffusion_model." + module,
}


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pipelines")
    for name, (_, make) in FAMILIES.items():
        with torch.random.fork_rng():
            torch.manual_seed(7)
            make().save_pretrained(root / name)
    return {name: root / name for name in FAMILIES}


def opened(name: str, path: Path) -> Any:
    family = FAMILIES[name][0]
    return family.open(path, path)


def originals(source: Any, family: str) -> dict[str, list[str]]:
    """The original modules that the pipeline has, and the tensors of each in order."""
    strange = {"flux": r"joint_blocks|[txy]_embedder", "sd3": r"(double|single)_blocks|\w+_in\b"}[family]
    known = {name.removeprefix("transformer/").removesuffix(".weight") for name in source.shapes}
    found = {}
    for name, parts in ORIGINAL.items():
        if re.match(strange, name):
            continue
        for number in range(4) if ".N." in name else [0]:
            here = [each.replace(".N.", f".{number}.") for each in ([parts] if isinstance(parts, str) else parts)]
            if all(each in known for each in here) and len(source.shapes[f"transformer/{here[0]}.weight"]) == 2:
                found[name.replace(".N.", f".{number}.")] = [f"transformer/{each}.weight" for each in here]
    return found


def random_lora(source: Any, modules: dict[str, list[str]]) -> dict[str, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    made = {}
    for module, tensors in modules.items():
        rows = sum(source.shapes[each][0] for each in tensors)
        up = torch.randn(rows, RANK, generator=generator)
        made[module] = up, torch.randn(RANK, source.shapes[tensors[0]][1], generator=generator)
    return made


def saved(file: Path, factors: dict[str, tuple[Tensor, Tensor]], spelled: Any) -> Path:
    tensors = {}
    for module, (up, down) in factors.items():
        tensors[f"{spelled(module)}.lora_up.weight"] = up
        tensors[f"{spelled(module)}.lora_down.weight"] = down
        tensors[f"{spelled(module)}.alpha"] = torch.tensor(ALPHA)
    save_file(tensors, file)
    return file


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("names", SPELLED)
def test_original_modules_are_cut_into_those_of_diffusers(
    family: str, names: str, pipelines: dict[str, Path], tmp_path: Path
) -> None:
    source = opened(family, pipelines[family])
    modules = originals(source, family)
    assert len(modules) == {"flux": 10 + 3 + 6 + 2, "sd3": 10 + 7 + 4 + 2}[family]  # blocks, what comes before, behind
    factors = random_lora(source, modules)
    adapted = AdaptedPipeline(source, saved(tmp_path / "lora.safetensors", factors, SPELLED[names]), "transformer")
    expected = {}
    for module, tensors in modules.items():
        up, down = factors[module]
        whole = up @ down * (ALPHA / RANK)
        scale_and_shift = len(tensors) == 1 and source.shapes[tensors[0]][0] == 2 * source.shapes[tensors[0]][1]
        if scale_and_shift and "adaLN" in module:
            whole = torch.cat([whole[len(whole) // 2 :], whole[: len(whole) // 2]])
        for tensor in tensors:
            rows = source.shapes[tensor][0]
            expected[tensor], whole = source.read(tensor) + whole[:rows], whole[rows:]
        assert not len(whole)
    assert adapted.changed == expected.keys()
    for name in source.shapes:
        torch.testing.assert_close(adapted.read(name), expected.get(name, source.read(name)), rtol=1e-5, atol=1e-6)


def test_diffusers_fuses_kohyas_lora_of_flux_to_the_same(pipelines: dict[str, Path], tmp_path: Path) -> None:
    source = opened("flux", pipelines["flux"])
    attending = re.compile(r"double_blocks\.\d+\.(img|txt)_(attn|mlp|mod).*|single_blocks\.\d+\.(linear2|modulation).*")
    modules = {name: each for name, each in originals(source, "flux").items() if attending.fullmatch(name)}
    file = saved(tmp_path / "lora.safetensors", random_lora(source, modules), SPELLED["kohya"])
    pipeline = diffusers.FluxPipeline.from_pretrained(pipelines["flux"])
    pipeline.load_lora_weights(str(tmp_path), weight_name=file.name)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    adapted = AdaptedPipeline(source, file, "transformer")
    changed = 0
    for name, expected in pipeline.transformer.state_dict().items():
        torch.testing.assert_close(adapted.read(f"transformer/{name}"), expected, rtol=1e-5, atol=1e-6, msg=name)
        changed += f"transformer/{name}" in adapted.changed
    assert changed == len(adapted.changed) == sum(map(len, modules.values()))


def test_the_t5_of_flux_and_of_sd3_are_kohyas_third_encoder(pipelines: dict[str, Path]) -> None:
    for family, component in (("flux", "text_encoder_2"), ("sd3", "text_encoder_3")):
        known = places(opened(family, pipelines[family]).shapes, "transformer")
        place = known["lora_te3_encoder_block_0_layer_0_SelfAttention_q"]
        assert place.tensors == (f"{component}/encoder.block.0.layer.0.SelfAttention.q.weight",)


def test_a_unet_under_the_names_of_comfyui_and_lycoris(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        path, _ = tiny.save_pair(tmp_path)
    known = places(SDXL().open(path, path).shapes, "unet")
    for before in ("diffusion_model.input_blocks.4.1.proj_in", "lora_unet_input_blocks_4_1_proj_in"):
        assert known[before] == known["lycoris_down_blocks_1_attentions_0_proj_in"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"up": torch.ones(5, RANK)}, r"have the shape \(5, 2\), expected 96 rows, those of .*to_q.weight.* together"),
        ({"twice": torch.ones(32, RANK)}, r"expected one change of 'transformer/.*to_q.weight', got two"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    change: dict[str, Tensor], message: str, pipelines: dict[str, Path], tmp_path: Path
) -> None:
    source = opened("flux", pipelines["flux"])
    module, down = "diffusion_model.double_blocks.0.img_attn.qkv", torch.ones(RANK, 32)
    tensors = {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": change.get("up", torch.ones(96, RANK))}
    if "twice" in change:
        other = "transformer.transformer_blocks.0.attn.to_q"
        tensors |= {f"{other}.lora_A.weight": down.clone(), f"{other}.lora_B.weight": change["twice"]}
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(SourceError, match=message):
        AdaptedPipeline(source, tmp_path / "lora.safetensors", "transformer")
