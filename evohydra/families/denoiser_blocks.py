"""Where in a denoiser a tensor sits: blocks as MBW tools name them, stages, attention."""

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from evohydra.spaces.grouping import Location

# The paper's two groups (arXiv 2403.13187; see docs/diffusion.md).
ATTENTION = re.compile(r"to_q|to_k|to_v|to_out\.0")
BASE, REST = "BASE", "rest"
UNET = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.")
TRANSFORMER = re.compile(r"((?:single_)?transformer_blocks)\.(\d+)\.")


@dataclass(frozen=True)
class Plan:
    """How many residual blocks each stage of a UNet has, on the way down and on the way up; none: a transformer.

    attending: the stages on the way up that have attention.
    """

    down: tuple[int, ...]
    up: tuple[int, ...]
    attending: frozenset[int] = frozenset()

    @classmethod
    def of(cls, names: Collection[str]) -> "Plan":
        """The plan of the denoiser that holds the tensors `names`."""
        known = {(m[1], int(m[2]), m[3], m[4]) for m in map(UNET.match, names) if m}
        stages = Counter((direction, stage) for direction, stage, part, _ in known if part == "resnets")
        down, up = (tuple(stages[each, n] for n in range(len(stages)) if stages[each, n]) for each in ("down", "up"))
        attending = frozenset(s for direction, s, part, _ in known if direction == "up" and part == "attentions")
        return cls(down, up, attending)

    def inputs(self, stage: int, part: str, number: int) -> int:
        """The number of the block on the way down: conv_in is the first, and each downsampler is one."""
        before = 1 + sum(count + 1 for count in self.down[:stage])
        return before + (self.down[stage] if part == "downsamplers" else number)

    def outputs(self, stage: int, part: str, number: int) -> int:
        """The number of the block on the way up: upsamplers belong to the one before them."""
        return sum(self.up[:stage]) + (self.up[stage] - 1 if part == "upsamplers" else number)


@dataclass(frozen=True)
class Place:
    """A block's name and the stage that it belongs to; `order` sorts blocks as an image passes through them."""

    block: str
    stage: str
    order: tuple[int, int]


def place(name: str, plan: Plan) -> Place:
    """The block of a tensor of a denoiser.

    Of a UNet IN00 is conv_in, M00 the middle; what follows the last block (conv_norm_out, conv_out) belongs to it, as
    in the first MBW tools. Blocks of a transformer keep their own names. Embeddings of time and the like are BASE.
    """
    if found := UNET.match(name):
        where = int(found[2]), found[3], int(found[4])
        if found[1] == "down":
            return Place(f"IN{plan.inputs(*where):02d}", "down", (0, plan.inputs(*where)))
        return Place(f"OUT{plan.outputs(*where):02d}", "up", (2, plan.outputs(*where)))
    if name.startswith("mid_block."):
        return Place("M00", "mid", (1, 0))
    if plan.up and name.startswith("conv_in."):
        return Place("IN00", REST, (0, 0))
    if plan.up and name.startswith(("conv_norm_out.", "conv_out.")):
        return Place(f"OUT{sum(plan.up) - 1:02d}", REST, (2, sum(plan.up) - 1))
    if found := TRANSFORMER.match(name):
        return Place(f"{found[1]}.{found[2]}", found[1], (int(found[1].startswith("single")), int(found[2])))
    return Place(BASE, REST, (-1, 0))


def locations(names: Collection[str], denoiser: str, copied: Collection[str]) -> dict[str, Location | None]:
    """Where the tensors of components sit ("<component>/<name>"), but for those that are copied.

    Text encoders and what else is merged beside the denoiser are groups of their own.
    """
    inside = [name.split("/", 1)[1] for name in names if name.startswith(f"{denoiser}/")]
    plan = Plan.of(inside)
    places = {name: place(name, plan) for name in inside}
    order = sorted({each.order: each.block for each in places.values() if each.block != BASE}.items())
    layers = {block: number for number, (_, block) in enumerate(order)}
    found: dict[str, Location | None] = {}
    for name in names:
        component, inner = name.split("/", 1)
        if name in copied:
            found[name] = None
        elif component != denoiser:
            presets = {"paper": component, "stages": component, "blocks": BASE}
            found[name] = Location(component, presets=presets)
        else:
            at, attention = places[inner], bool(ATTENTION.search(inner))
            presets = {"paper": "attn" if attention else "conv", "stages": at.stage, "blocks": at.block}
            module = BASE if at.block == BASE else "attention" if attention else "others"
            found[name] = Location(module, layers.get(at.block), at.block, presets)
    return found
