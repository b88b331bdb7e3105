"""Tiny SDXL pipelines under the names of the published ones, with the files that lie in their repositories."""

import json
from pathlib import Path

import diffusers
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from tests import tiny_pipelines
from tests.hub.repositories import Repository, folder
from tests.hub.server import Hub

SDXL, DPO = "stabilityai/stable-diffusion-xl-base-1.0", "mhdang/dpo-sdxl-text2image-v1"
JUGGERNAUT, JAPANESE = "RunDiffusion/Juggernaut-XL-v9", "stabilityai/japanese-stable-diffusion-xl"
LIGHTNING, LORA = "ByteDance/SDXL-Lightning", "sdxl_lightning_4step_lora.safetensors"
UNNEEDED = b"a file that nobody needs"
PIPELINE = b"raise SystemExit('code of a repository was run')\n"


def add_all(hub: Hub, root: Path) -> None:
    """The five repositories of EvoSDXL-JP."""
    base = tiny_pipelines.save_sdxl(root / "sdxl-float32", 0)
    _add_base(hub, root, base)
    _add_dpo(hub, root, base)
    _add_juggernaut(hub, root, base)
    _add_japanese(hub, root, base)
    _add_lightning(hub, root, base)


def _add(hub: Hub, name: str, at: Path, unneeded: tuple[str, ...], gated: bool = False) -> None:
    files = {**folder(at), **dict.fromkeys(unneeded, UNNEEDED), "README.md": f"# {name}\n".encode()}
    hub.add(Repository(name, gated=gated)).commit(files)


def _half(base: Path, at: Path, seed: int, step: float, both: bool = False) -> Path:
    """A step away from `base` in float16 with names that say so; where `both`, in float32 beside it."""
    kinds = [(torch.float16, "fp16")] + ([(torch.float32, None)] if both else [])
    for dtype, variant in kinds:
        tiny_pipelines.save_sdxl(at, seed, base=base, step=step, dtype=dtype, variant=variant)
    return at


def _add_base(hub: Hub, root: Path, base: Path) -> None:
    """Both types beside each other, a single file, other runtimes' models, and a VAE that no pipeline names."""
    at = _half(base, root / SDXL, 0, 0.0, both=True)
    others = (
        "sd_xl_base_1.0.safetensors",
        "unet/model.onnx",
        "vae_decoder/model.onnx",
        "unet/openvino_model.bin",
        "text_encoder/flax_model.msgpack",
        "vae_1_0/diffusion_pytorch_model.fp16.safetensors",
    )
    _add(hub, SDXL, at, others)


def _add_dpo(hub: Hub, root: Path, base: Path) -> None:
    """A UNet in float32 and nothing else."""
    made = tiny_pipelines.save_sdxl(root / "dpo-float32", 1, base=base)
    at = root / DPO / "unet"
    at.parent.mkdir(parents=True)
    (made / "unet").rename(at)
    _add(hub, DPO, at.parent, ())


def _add_juggernaut(hub: Hub, root: Path, base: Path) -> None:
    """Float16 only, and the single file for the WebUIs."""
    _add(
        hub, JUGGERNAUT, _half(base, root / JUGGERNAUT, 2, 0.3), ("Juggernaut-XL_v9_RunDiffusionPhoto_v2.safetensors",)
    )


def _add_japanese(hub: Hub, root: Path, base: Path) -> None:
    """Text encoders with a tokenizer of their own, in a pipeline whose class is the repository's own code."""
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(base)
    words = _japanese_words()
    rows = {
        "vocab_size": len(words),
        "bos_token_id": len(words) - 2,
        "eos_token_id": len(words) - 1,
        "pad_token_id": len(words) - 1,
    }
    with torch.random.fork_rng():
        torch.manual_seed(3)
        configs = [tiny_pipelines.text_config() for _ in range(2)]
        for config in configs:
            config.update(rows)
        parts = {"text_encoder": CLIPTextModel(configs[0]), "text_encoder_2": CLIPTextModelWithProjection(configs[1])}
    pipeline.register_modules(**parts, tokenizer=words, tokenizer_2=words)
    with torch.no_grad():
        for parameter in pipeline.unet.parameters():
            parameter.mul_(1.01)
    at = root / JAPANESE
    pipeline.save_pretrained(at)
    index = json.loads((at / "model_index.json").read_text())
    index["_class_name"] = ["pipeline", "JapaneseStableDiffusionXLPipeline"]
    (at / "model_index.json").write_text(json.dumps(index, indent=2))
    (at / "pipeline.py").write_bytes(PIPELINE)
    _add(hub, JAPANESE, at, ("japanese_stable_diffusion_xl.ckpt",), gated=True)


def _japanese_words() -> object:
    letters = [*map(chr, range(33, 127)), *map(chr, range(0x3041, 0x3097))]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), tiny_pipelines.START, tiny_pipelines.END]
    return type(tiny_pipelines.tokenizer())(vocab={t: i for i, t in enumerate(tokens)}, merges=[], model_max_length=77)


def _add_lightning(hub: Hub, root: Path, base: Path) -> None:
    """The LoRA of four steps among whole checkpoints of many times its size."""
    unet = diffusers.UNet2DConditionModel.from_pretrained(base / "unet")
    with torch.random.fork_rng():
        torch.manual_seed(4)
        unet.add_adapter(LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=["to_q", "to_k"]))
    at = root / LIGHTNING
    layers = {name: tensor.half() for name, tensor in get_peft_model_state_dict(unet).items()}
    diffusers.StableDiffusionXLPipeline.save_lora_weights(at, unet_lora_layers=layers, weight_name=LORA)
    _add(hub, LIGHTNING, at, ("sdxl_lightning_4step.safetensors", "sdxl_lightning_4step_unet.safetensors"))
