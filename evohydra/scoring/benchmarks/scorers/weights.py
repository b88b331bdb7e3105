"""Weights of scorers in safetensors files; pickles, as which most were published, are never loaded."""

import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from evohydra.scoring.benchmarks.contents import digest_of
from evohydra.scoring.benchmarks.frozen import fingerprints
from evohydra.scoring.benchmarks.scorers import ScorerError

CONVERT = (
    'python -c "import sys, torch; from safetensors.torch import save_file; w = torch.load(sys.argv[1], '
    "weights_only=True); save_file({k: t.contiguous() for k, t in w.get('state_dict', w).items()}, sys.argv[2])\" "
    "OLD.pth NEW.safetensors"
)


def read_weights(key: str, path: str | None) -> dict[str, Tensor]:
    """The tensors of the file `path`, the setting `key`; ScorerError where it is missing or no safetensors file."""
    if not path:
        raise ScorerError(f"{key}: expected a safetensors file, got none")
    file = Path(path).expanduser()
    if not file.is_file():
        raise ScorerError(f"{key}: no such file: {path}")
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ScorerError(
            f"{key}: {path} is not a safetensors file ({str(error)[:100]}). Pickles (.pth, .pt, .bin) can run code and "
            f"are not loaded; convert one once: {CONVERT}"
        ) from error


def linear_layers(key: str, tensors: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of each linear layer of the head that `tensors`, the setting `key`, are; down to one number.

    A linear head is called weight and bias, an MLP's layers are numbered. Raises ScorerError where it is no such chain.
    """
    weights = [name for name in tensors if name.endswith("weight")]
    names = sorted(weights, key=lambda name: [int(digits) for digits in re.findall(r"\d+", name)])
    biases = {name: name.removesuffix("weight") + "bias" for name in names}
    if not names or sorted([*biases, *biases.values()]) != sorted(tensors):
        raise ScorerError(f"{key}: expected weight and bias of linear layers, got {sorted(tensors)}")
    layers = [(tensors[name].float(), tensors[biases[name]].float()) for name in names]
    shapes = [tuple(weight.shape) for weight, _ in layers]
    fits = all(len(shape) == 2 for shape in shapes) and shapes[-1][0] == 1
    if not fits or any(after[1] != before[0] for before, after in itertools.pairwise(shapes)):
        raise ScorerError(f"{key}: expected linear layers one after the other down to 1 number, got {shapes}")
    return layers


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """A digest of the names, types, shapes and numbers of `tensors`, by two sums over the bits of each."""
    names = sorted(tensors)
    shapes = [[name, str(tensors[name].dtype), list(tensors[name].shape)] for name in names]
    return digest_of([shapes, fingerprints([tensors[name] for name in names])])


def text_rules(tokenizer: PreTrainedTokenizerBase) -> str:
    """A digest of how a tokenizer of transformers cuts texts."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return digest_of(sorted(tokenizer.get_vocab().items()))
    rules = json.loads(backend.to_str())
    return digest_of({key: value for key, value in rules.items() if key not in ("padding", "truncation")})  # of a call
