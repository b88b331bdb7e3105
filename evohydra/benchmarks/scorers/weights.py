"""Weights of scorers in safetensors files; pickles, as which most were published, are never loaded."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from evohydra.benchmarks.scorers import ScorerError

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
