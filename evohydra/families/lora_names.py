"""What modules of diffusion models are called in LoRAs: by diffusers, PEFT, kohya's scripts, ComfyUI and LyCORIS."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from evohydra.families.denoiser_blocks import Plan
from evohydra.families.original_layout import unet_name

ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
KOHYA = {
    "lora_te1_": ("text_encoder",),
    "lora_te2_": ("text_encoder_2",),
    "lora_te3_": ("text_encoder_3", "text_encoder_2"),  # the T5 of SD3, and of FLUX, which has two encoders
    "lora_te_": ("text_encoder",),
}
OF_DENOISER = ("diffusion_model.", "model.diffusion_model.")  # before dotted names
OF_KOHYA = ("lora_unet_", "lycoris_")  # before names with underscores
# The original modules of transformers; N is the number of a block, a list names the parts of one, from its first row.
ORIGINAL: Mapping[str, str | tuple[str, ...]] = {
    # FLUX
    "double_blocks.N.img_attn.qkv": tuple(f"transformer_blocks.N.attn.to_{each}" for each in "qkv"),
    "double_blocks.N.txt_attn.qkv": tuple(f"transformer_blocks.N.attn.add_{each}_proj" for each in "qkv"),
    "double_blocks.N.img_attn.proj": "transformer_blocks.N.attn.to_out.0",
    "double_blocks.N.txt_attn.proj": "transformer_blocks.N.attn.to_add_out",
    "double_blocks.N.img_mlp.0": "transformer_blocks.N.ff.net.0.proj",
    "double_blocks.N.img_mlp.2": "transformer_blocks.N.ff.net.2",
    "double_blocks.N.txt_mlp.0": "transformer_blocks.N.ff_context.net.0.proj",
    "double_blocks.N.txt_mlp.2": "transformer_blocks.N.ff_context.net.2",
    "double_blocks.N.img_mod.lin": "transformer_blocks.N.norm1.linear",
    "double_blocks.N.txt_mod.lin": "transformer_blocks.N.norm1_context.linear",
    "single_blocks.N.linear1": (
        *(f"single_transformer_blocks.N.attn.to_{each}" for each in "qkv"),
        "single_transformer_blocks.N.proj_mlp",
    ),
    "single_blocks.N.linear2": "single_transformer_blocks.N.proj_out",
    "single_blocks.N.modulation.lin": "single_transformer_blocks.N.norm.linear",
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    # Stable Diffusion 3
    "joint_blocks.N.x_block.attn.qkv": tuple(f"transformer_blocks.N.attn.to_{each}" for each in "qkv"),
    "joint_blocks.N.x_block.attn2.qkv": tuple(f"transformer_blocks.N.attn2.to_{each}" for each in "qkv"),
    "joint_blocks.N.context_block.attn.qkv": tuple(f"transformer_blocks.N.attn.add_{each}_proj" for each in "qkv"),
    "joint_blocks.N.x_block.attn.proj": "transformer_blocks.N.attn.to_out.0",
    "joint_blocks.N.x_block.attn2.proj": "transformer_blocks.N.attn2.to_out.0",
    "joint_blocks.N.context_block.attn.proj": "transformer_blocks.N.attn.to_add_out",
    "joint_blocks.N.x_block.mlp.fc1": "transformer_blocks.N.ff.net.0.proj",
    "joint_blocks.N.x_block.mlp.fc2": "transformer_blocks.N.ff.net.2",
    "joint_blocks.N.context_block.mlp.fc1": "transformer_blocks.N.ff_context.net.0.proj",
    "joint_blocks.N.context_block.mlp.fc2": "transformer_blocks.N.ff_context.net.2",
    "joint_blocks.N.x_block.adaLN_modulation.1": "transformer_blocks.N.norm1.linear",
    "joint_blocks.N.context_block.adaLN_modulation.1": "transformer_blocks.N.norm1_context.linear",
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    # Both
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
# Modulations of two parts, scale and shift, which the original has the other way round; others have three or six.
SWAPPED = re.compile(r"final_layer\.adaLN_modulation\.1|joint_blocks\.\d+\.context_block\.adaLN_modulation\.1")


@dataclass(frozen=True)
class Place:
    """The tensors that a module of a LoRA is, one below the other; `swapped`: its halves are the other way round."""

    tensors: tuple[str, ...]
    swapped: bool = False


def places(shapes: Mapping[str, tuple[int, ...]], denoiser: str) -> dict[str, Place]:
    """Where modules are among the tensors of a pipeline, called component/name, by all names that LoRAs give them."""
    modules = {_module(name): name for name in shapes if name.endswith(".weight")}
    modules |= {module.replace(".text_model.", "."): name for module, name in modules.items()}  # recent transformers
    found = {module: Place((tensor,)) for module, tensor in modules.items()}
    inside = {m.removeprefix(f"{denoiser}."): t for m, t in modules.items() if m.startswith(f"{denoiser}.")}
    plan = Plan.of([f"{name}." for name in inside])
    dotted = {name: Place((tensor,)) for name, tensor in inside.items()}
    if plan.up:
        dotted |= {unet_name(name, plan): Place((tensor,)) for name, tensor in inside.items()}
    dotted = {**dict(_original(inside, shapes)), **dotted}
    for name, place in dotted.items():
        underscored = name.replace(".", "_")
        found |= {prefix + name: place for prefix in OF_DENOISER} | {each + underscored: place for each in OF_KOHYA}
        found.setdefault(f"{denoiser}.{name}", place)
    for prefix, components in KOHYA.items():
        component = next((each for each in components if any(m.startswith(f"{each}.") for m in modules)), None)
        for module, tensor in modules.items():
            if component is not None and module.startswith(f"{component}."):
                found[prefix + module.removeprefix(f"{component}.").replace(".", "_")] = Place((tensor,))
    return found


def plain(module: str, denoiser: str) -> str:
    """The name of today of a module in diffusers' or PEFT's files, with its component."""
    name = module.replace(".processor.", ".").removeprefix("base_model.model.")
    name = name + ".0" if name.endswith("to_out") else name
    return name if name.startswith((f"{denoiser}.", *(f"{each}." for each in ENCODERS))) else f"{denoiser}.{name}"


def _original(inside: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, Place]]:
    """The original names of a transformer's modules."""
    numbers = sorted({found[1] for name in inside if (found := re.match(r"\w*transformer_blocks\.(\d+)\.", name))})
    for name, parts in ORIGINAL.items():
        wanted = (parts,) if isinstance(parts, str) else parts
        for number in numbers if ".N." in name else [""]:
            here = [each.replace(".N.", f".{number}.") for each in wanted]
            if all(each in inside for each in here):
                tensors = tuple(inside[each] for each in here)
                original = name.replace(".N.", f".{number}.")
                rows, width = (*shapes[tensors[0]], 0)[:2]
                yield original, Place(tensors, bool(SWAPPED.fullmatch(original)) and rows == 2 * width)


def _module(name: str) -> str:
    return name.removesuffix(".weight").replace("/", ".", 1)
