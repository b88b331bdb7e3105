"""How near a picture is to its prompt: the cosine of their features in a CLIP, SigLIP or like model of transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

from evohydra.families.configurations import check_configuration
from evohydra.families.refusals import refused
from evohydra.families.settings_files import LOCAL
from evohydra.families.tokenizer_files import check_tokenizer_files
from evohydra.merging.checkpoints import SourceError
from evohydra.scoring.benchmarks.contents import digest_of
from evohydra.scoring.benchmarks.prompts import Prompt
from evohydra.scoring.benchmarks.scorers import ScorerError
from evohydra.scoring.benchmarks.scorers.weights import text_rules, weights_digest


def similarity(path: str | None = None, template: str = "{prompt}", revision: str | None = None) -> "Similarity":
    """A scorer by the model in `path`, a directory or a hub id that was downloaded before.

    `template` wraps each prompt, as "{prompt}の写真". For Japanese prompts take a model that reads Japanese. Raises
    ScorerError where there is no such model, or it does not embed both pictures and texts.
    """
    if "{prompt}" not in template:
        raise ScorerError(f"template: expected a text with {{prompt}}, got {template!r}")
    return Similarity("similarity", Embedder(located(path, revision)), template)


class Similarity:
    """Cosines of features, in [-1, 1], times `scale`."""

    def __init__(self, name: str, embedder: "Embedder", template: str = "{prompt}", scale: float = 1.0) -> None:
        self.name, self.embedder = name, embedder
        self._template, self._scale = template, scale
        self._texts: dict[str, Tensor] = {}

    def identity(self) -> dict[str, Any]:
        """Its model, template and scale."""
        return {"model": self.embedder.identity(), "template": self._template, "scale": self._scale}

    def to(self, device: torch.device) -> None:
        """Move to `device`."""
        self.embedder.to(device)
        self._texts.clear()

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[Prompt]) -> NDArray[np.float64]:
        """(n,) cosines of pictures and prompts."""
        for prompt in prompts:
            if prompt.text not in self._texts:  # features of prompts are the same for all genomes
                text = self._template.format(prompt=prompt.text)
                self._texts[prompt.text] = self.embedder.texts([text])[0]
        texts = torch.stack([self._texts[prompt.text] for prompt in prompts])  # (n, width)
        cosines = (self.embedder.images(images) * texts).sum(dim=-1)
        scores: NDArray[np.float64] = (cosines.double() * self._scale).cpu().numpy()
        return scores


UNREADABLE = "cannot be loaded as a model of transformers with safetensors weights, tokenizer and image processor"


class Embedder:
    """A model of transformers that maps pictures and texts to unit vectors of one space."""

    def __init__(self, directory: Path) -> None:
        try:
            with refused(f"{directory}: {UNREADABLE}"):
                check_configuration(directory)
                check_tokenizer_files(directory)
                config = AutoConfig.from_pretrained(directory, **LOCAL)
                self.model = AutoModel.from_pretrained(directory, **LOCAL, use_safetensors=True)
                self._image_processor: Any = AutoImageProcessor.from_pretrained(directory, **LOCAL)
                self._tokenizer: Any = AutoTokenizer.from_pretrained(directory, **LOCAL)
        except SourceError as error:
            raise ScorerError(f"{error}. Code that comes with a model is not run") from error
        if not callable(getattr(self.model, "get_image_features", None)) or not callable(
            getattr(self.model, "get_text_features", None)
        ):
            raise ScorerError(
                f"{directory}: expected a model that embeds pictures and texts, as CLIP and SigLIP, got one of type "
                f"{config.model_type!r}"
            )
        self.model.eval().requires_grad_(False)
        # SigLIP was trained on texts padded to their full length, and is wrong on others.
        text = getattr(config, "text_config", config)
        self._length = int(getattr(text, "max_position_embeddings", self._tokenizer.model_max_length))
        self._padding = "max_length" if config.model_type.startswith("siglip") else True
        self._try(directory)

    def _try(self, directory: Path) -> None:
        """ScorerError where it cannot embed a picture and a text: settings of one file may not fit those of another."""
        try:
            with refused(f"{directory}: expected a model that embeds a picture and a text"):
                found = [self.images([Image.new("RGB", (8, 8))]), self.texts(["a"])]
        except SourceError as error:
            raise ScorerError(str(error)) from error
        if found[0].shape != found[1].shape or not all(vectors.isfinite().all() for vectors in found):
            raise ScorerError(
                f"{directory}: expected finite vectors of pictures and texts of one length, got "
                f"{[tuple(vectors.shape) for vectors in found]}"
            )

    def identity(self) -> dict[str, object]:
        """Digests of its weights, and of how it reads pictures and texts."""
        return {
            "weights": weights_digest(self.model.state_dict()),
            "processors": digest_of([self._image_processor.to_dict(), text_rules(self._tokenizer)]),
        }

    @property
    def width(self) -> int:
        """The number of features."""
        return len(self.images([Image.new("RGB", (8, 8))])[0])

    def to(self, device: torch.device) -> None:
        """Move to `device`."""
        self.model.to(device)

    @torch.inference_mode()
    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """(n, width) unit vectors of pictures."""
        inputs = self._image_processor(images=list(images), return_tensors="pt")
        return _unit(self.model.get_image_features(pixel_values=self._placed(inputs["pixel_values"])))

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """(n, width) unit vectors of texts; what is longer than the model reads is cut off."""
        inputs = self._tokenizer(
            list(texts), padding=self._padding, truncation=True, max_length=self._length, return_tensors="pt"
        )
        known = {key: self._placed(inputs[key]) for key in ("input_ids", "attention_mask") if key in inputs}
        return _unit(self.model.get_text_features(**known))

    def _placed(self, tensor: Tensor) -> Tensor:
        parameter = next(self.model.parameters())
        return tensor.to(parameter.device, parameter.dtype if tensor.is_floating_point() else None)


def located(path: str | None, revision: str | None = None) -> Path:
    """The directory of the model `path`; ScorerError where there is none here. Nothing is downloaded."""
    if not path:
        raise ScorerError("path: expected the directory of a model, or a hub id that was downloaded before, got none")
    directory = Path(path).expanduser()
    if directory.is_dir():
        return directory
    if directory.is_absolute() or path.startswith((".", "~")) or path.count("/") != 1:
        raise ScorerError(f"path: {path}: no such directory (and not a hub id of the form owner/name)")
    try:
        return Path(snapshot_download(path, revision=revision, local_files_only=True))
    except (OSError, ValueError) as error:
        raise ScorerError(
            f"path: {path}: no such directory, and not downloaded from the hub before; run `hf download {path}`"
        ) from error


def _unit(features: Any) -> Tensor:
    vectors: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return torch.nn.functional.normalize(vectors.float(), dim=-1)
