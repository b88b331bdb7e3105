"""The names of the original Stable Diffusion checkpoints, which ComfyUI, the WebUIs and kohya's LoRAs have."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from evohydra.families.denoiser_blocks import Plan

UNET_EDGES = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
MIDDLE = {("resnets", 0): 0, ("attentions", 0): 1, ("resnets", 1): 2}
UNET_BLOCK = re.compile(r"(?:(down|up)_blocks\.(\d+)|mid_block)\.(\w+)\.(\d+)\.(.+)")
VAE_BLOCK = re.compile(r"(encoder|decoder)\.(?:(down|up)_blocks\.(\d+)|mid_block)\.(\w+)\.(\d+)\.(.+)")
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {
    "text_model.embeddings.token_embedding": "token_embedding",
    "text_model.final_layer_norm": "ln_final",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_projection.weight": "text_projection",
    "text_model.encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
STACKED = re.compile(r"(.*)\.self_attn\.(q|k|v)_proj\.(weight|bias)")


@dataclass(frozen=True)
class Piece:
    """An original tensor: `names` are those of which it consists, end to end; matrices may stand for convolutions."""

    names: tuple[str, ...]
    transposed: bool = False
    pixel: bool = False

    def shape(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
        """Its shape, where `shapes` are those of its parts."""
        first = shapes[self.names[0]]
        if self.transposed:
            return first[::-1]
        return (first[0] * len(self.names), *first[1:], *((1, 1) if self.pixel else ()))

    def made(self, parts: list[Tensor]) -> Tensor:
        """The tensor itself."""
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        if self.transposed:
            return whole.T.contiguous()
        return whole[..., None, None] if self.pixel else whole


def pieces(component: str, names: Collection[str]) -> Iterator[tuple[str, Piece]]:
    """The original tensors of a component by name, without what they begin with in a checkpoint's file."""
    plan, up = Plan.of(names), _ups(names)
    done = set()
    for name in names:
        if component == "unet":
            yield unet_name(name, plan), Piece((name,))
        elif component == "vae":
            yield (
                vae_name(name, up),
                Piece((name,), pixel=".attentions." in name and name.endswith("weight") and "norm" not in name),
            )
        elif component == "text_encoder_2":
            if found := STACKED.fullmatch(name):
                stacked = tuple(f"{found[1]}.self_attn.{each}_proj.{found[3]}" for each in "qkv")
                if stacked in done:
                    continue
                done.add(stacked)
                yield f"{_replaced(found[1], OPEN_CLIP)}.attn.in_proj_{found[3]}", Piece(stacked)
            else:
                yield _replaced(name, OPEN_CLIP), Piece((name,), transposed=name == "text_projection.weight")
        else:
            yield name, Piece((name,))


def unet_name(name: str, plan: Plan) -> str:
    """What a tensor or module of a UNet is called there."""
    found = UNET_BLOCK.fullmatch(name)
    if found is None:
        return _replaced(name, UNET_EDGES)
    direction, stage, part, number, rest = found[1], int(found[2] or 0), found[3], int(found[4]), found[5]
    rest = _replaced(rest, RESNET) if part == "resnets" else rest
    if direction is None:
        return f"middle_block.{MIDDLE[part, number]}.{rest}"
    if direction == "down":
        block, inside = plan.inputs(stage, part, number), {"resnets": "0", "attentions": "1", "downsamplers": "0"}[part]
        return f"input_blocks.{block}.{inside}.{rest.replace('conv.', 'op.') if part == 'downsamplers' else rest}"
    inside = {"resnets": "0", "attentions": "1", "upsamplers": "2" if stage in plan.attending else "1"}[part]
    return f"output_blocks.{plan.outputs(stage, part, number)}.{inside}.{rest}"


def vae_name(name: str, stages: int) -> str:
    """What a tensor of a VAE with so many stages is called there."""
    found = VAE_BLOCK.fullmatch(name)
    if found is None:
        return name.replace("conv_norm_out", "norm_out")
    side, direction, stage, part, number, rest = (
        found[1],
        found[2],
        int(found[3] or 0),
        found[4],
        int(found[5]),
        found[6],
    )
    if direction is None:
        if part == "attentions":
            return f"{side}.mid.attn_{number + 1}.{_replaced(rest, VAE_ATTENTION)}"
        return f"{side}.mid.block_{number + 1}.{rest}"
    place = stage if direction == "down" else stages - 1 - stage
    rest = rest.replace("conv_shortcut", "nin_shortcut")
    inside = {"resnets": f"block.{number}", "downsamplers": "downsample", "upsamplers": "upsample"}[part]
    return f"{side}.{direction}.{place}.{inside}.{rest}"


def _ups(names: Collection[str]) -> int:
    found = (VAE_BLOCK.fullmatch(name) for name in names)
    return 1 + max((int(each[3]) for each in found if each and each[2] == "up"), default=0)


def _replaced(name: str, words: Mapping[str, str]) -> str:
    for old, new in words.items():
        if name == old or name.startswith(f"{old}.") or f".{old}." in name or name.endswith(f".{old}"):
            name = name.replace(old, new, 1)
    return name
