"""How beautiful a picture is held to be: a linear head or an MLP on CLIP features (LAION's aesthetic predictors)."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from evohydra.scoring.benchmarks.prompts import Prompt
from evohydra.scoring.benchmarks.scorers import ScorerError
from evohydra.scoring.benchmarks.scorers.similarity import Embedder, located
from evohydra.scoring.benchmarks.scorers.weights import linear_layers, read_weights, weights_digest


def aesthetic(path: str | None = None, head: str | None = None, revision: str | None = None) -> "Aesthetic":
    """A scorer by the CLIP in `path` and the weights of `head`, a safetensors file; LAION's heads want CLIP ViT-L/14.

    Raises ScorerError where either is missing, or the head was made for other features.
    """
    layers = linear_layers("head", read_weights("head", head))
    embedder = Embedder(located(path, revision))
    if layers[0][0].shape[1] != embedder.width:
        raise ScorerError(
            f"head: {head} was made for {layers[0][0].shape[1]} features, the CLIP in {path} gives {embedder.width}"
        )
    return Aesthetic(embedder, layers)


class Aesthetic:
    """The head's number for the unit vector of a picture, in LAION's about 1 to 10; the prompt plays no part."""

    name = "aesthetic"

    def __init__(self, embedder: Embedder, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        self._embedder, self._layers = embedder, layers

    def identity(self) -> dict[str, object]:
        """Its CLIP and its head."""
        head = {f"{row} {place}": each for row, pair in enumerate(self._layers) for place, each in enumerate(pair)}
        return {"model": self._embedder.identity(), "head": weights_digest(head)}

    def to(self, device: torch.device) -> None:
        """Move to `device`."""
        self._embedder.to(device)
        self._layers = [(weight.to(device), bias.to(device)) for weight, bias in self._layers]

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[Prompt]) -> NDArray[np.float64]:
        """(n,) scores of the pictures."""
        features = self._embedder.images(images)  # (n, width)
        for weight, bias in self._layers:  # LAION's MLP has dropout, but no activations, between its layers
            features = torch.nn.functional.linear(features, weight, bias)
        scores: NDArray[np.float64] = features[:, 0].double().cpu().numpy()
        return scores
