"""python -m tests.weights_worker: a digest of the merges of every method, to compare settings of the processor."""

import hashlib
import json

import numpy as np
import torch

from evohydra.recipe import Merge, Node
from tests.contracts.test_methods import METHODS, Memory, engine, space

SHAPES = {"matrix": (96, 80), "vector": (70001,), "cube": (5, 6, 7), "scalar": ()}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def sources(dtype: torch.dtype) -> dict[str, Memory]:
    """A base and three steps away from it, of whole numbers: what torch draws of others depends on the processor."""
    generator = torch.Generator().manual_seed(7)

    def drawn(shape: tuple[int, ...], scale: float) -> torch.Tensor:
        # The sum of four is a bell.
        return sum(torch.randint(-(2**20), 2**20, shape, generator=generator) for _ in range(4)) * (scale / 2**21)

    base = {name: drawn(shape, 1.0) for name, shape in SHAPES.items()}
    models = {"base": base}
    for model in ("one", "two", "three"):
        models[model] = {name: tensor + drawn(tensor.shape, 0.3) for name, tensor in base.items()}
    return {model: Memory({n: t.to(dtype) for n, t in tensors.items()}) for model, tensors in models.items()}


def digest(node: Node, tensors: dict[str, Memory]) -> str:
    """The bits of all tensors of a merge."""
    assert isinstance(node, Merge)
    total, merger = hashlib.sha256(), engine(tensors)
    for name in SHAPES:
        merged = merger.tensor(node, name) + 0.0  # -0 is 0
        total.update(merged.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:16]


def main() -> None:
    """Print them as JSON: for each method, of the default genome and two others; of 16-bit types, of the last."""
    from evohydra.spaces.grouping import Location

    locations = {name: Location("mlp", index % 2) for index, name in enumerate(SHAPES)}
    found: dict[str, str] = {}
    for name in METHODS:
        searched = space(name, locations)
        generator = np.random.default_rng(3)
        nodes = [searched.default(), *(searched.decode(generator.random(len(searched.names))) for _ in range(2))]
        for dtype in DTYPES:
            tensors = sources(dtype)
            chosen = nodes if dtype == torch.float32 else nodes[-1:]
            found[f"{name} {dtype}"] = " ".join(digest(node, tensors) for node in chosen)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
