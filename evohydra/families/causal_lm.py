"""Causal language models: decoders of transformers whose layers are a list."""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

from evohydra.checkpoints import CheckpointReader, SourceError, TensorSource, check_compatible
from evohydra.families import LiveModel
from evohydra.spaces.grouping import EMBEDDINGS, HEAD, Location

transformers.utils.logging.disable_progress_bar()
LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.(.*)")
EMBEDDING = re.compile(r"(embed|wte|wpe)")
ATTENTION = re.compile(r"attn|attention")
NORM = re.compile(r"norm|(^|\.)ln_")
BUFFERS = re.compile(r"rotary_emb\.inv_freq$|\b(attn|attention)\.(masked_)?bias$")
# No network here, and no code that a checkpoint brings along; transformers would ask at the terminal whether to run it.
LOCAL = {"local_files_only": True, "trust_remote_code": False}
# All of a checkpoint directory that is neither weights nor documentation.
SIDE_FILES = ("*.json", "*.jinja", "*.model", "vocab.txt", "merges.txt")
NOT_COPIED = ("config.json", "*.safetensors.index.json", "recipe.json", "adapter_config.json")


@dataclass(frozen=True)
class LiveCausalLM:
    """A causal language model in memory, its tokenizer, and its parameters by checkpoint name."""

    module: torch.nn.Module
    tokenizer: Any
    device: torch.device
    dtype: torch.dtype
    parameters: Mapping[str, Tensor]


class CausalLM:
    """The family of everything that AutoModelForCausalLM loads without remote code."""

    name = "causal_lm"

    def check(self, directories: Mapping[str, Path], sources: Mapping[str, TensorSource]) -> None:
        """Raise SourceError for different tensors, shapes, architectures or (of the rows that there are) tokens."""
        configs = {name: _config(directory) for name, directory in directories.items()}
        types = {name: config.model_type for name, config in configs.items()}
        if len(set(types.values())) > 1:
            raise SourceError(f"sources of different architectures: {types}")
        try:
            check_compatible(sources)
        except SourceError as error:
            if len({_rows(tensors) for tensors in sources.values()} - {0}) > 1:
                raise SourceError(
                    f"{error}; tokenizer=base leaves out tokens that a source added to its base's"
                ) from error
            raise
        rows = _rows(next(iter(sources.values())))
        vocabularies = {
            name: {token: row for token, row in _vocabulary(directory).items() if row < rows}
            for name, directory in directories.items()
        }
        (first, reference), *others = vocabularies.items()
        for name, vocabulary in others:
            if vocabulary != reference:
                differing = sorted(
                    token
                    for token in vocabulary.keys() | reference.keys()
                    if vocabulary.get(token) != reference.get(token)
                )
                token = differing[0]
                raise SourceError(
                    f"sources {first!r} and {name!r} have different tokenizers: {len(differing)} tokens differ, the "
                    f"first is {token!r} with id {reference.get(token)} and {vocabulary.get(token)}"
                )

    def without_added_tokens(self, tensors: TensorSource, reference: TensorSource) -> TensorSource:
        """`tensors` without the rows of embeddings and head behind the last one of `reference`."""
        return _FirstRows(tensors, _rows(reference))

    def locations(self, directory: Path, names: tuple[str, ...]) -> dict[str, Location | None]:
        """Where each tensor sits, from its name; buffers have no place and are copied."""
        return {name: _location(name) for name in names}

    def dtype(self, directory: Path) -> torch.dtype:
        """The type that the configuration names, float32 where it names none."""
        dtype = _config(directory).dtype
        return dtype if isinstance(dtype, torch.dtype) else torch.float32

    def live_model(self, directory: Path, device: torch.device, dtype: torch.dtype) -> LiveCausalLM:
        """The checkpoint's own model and tokenizer, in evaluation mode."""
        module = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, **LOCAL)
        module.to(device).eval().requires_grad_(False)
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory, **LOCAL)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        return LiveCausalLM(module, tokenizer, device, dtype, _by_checkpoint_name(module, directory))

    def copy_files(self, directory: Path, target: Path, dtype: torch.dtype) -> None:
        """Configuration (with `dtype`), generation configuration and tokenizer files."""
        for pattern in SIDE_FILES:
            for file in directory.glob(pattern):
                if not any(file.match(left_out) for left_out in NOT_COPIED):
                    shutil.copyfile(file, target / file.name)
        config = json.loads((directory / "config.json").read_text())
        config.pop("torch_dtype", None)
        config["dtype"] = str(dtype).removeprefix("torch.")
        (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    @torch.inference_mode()
    def verify(self, directory: Path, live: LiveModel) -> float:
        """The largest difference of logits between the written and the live model, over the largest logit.

        Both see the same fixed pattern of tokens, (2, 32).
        """
        vocabulary = live.module.get_input_embeddings().num_embeddings  # type: ignore[operator]
        tokens = (torch.arange(64, device=live.device).reshape(2, 32) * 7919 + 11) % vocabulary
        expected = live.module(tokens).logits.float()
        written = self.live_model(directory, live.device, live.dtype)
        difference = (written.module(tokens).logits.float() - expected).abs().max()
        return float(difference / expected.abs().max())


def _by_checkpoint_name(module: Any, directory: Path) -> dict[str, Tensor]:
    """The parameters under their names on disk; transformers renames some as it loads (GPT-NeoX's and GPT-2's)."""
    known = CheckpointReader(directory).shapes
    prefix = f"{module.base_model_prefix}."
    named = revert_weight_conversion(module, dict(module.named_parameters()))
    found = {name if name in known else name.removeprefix(prefix): tensor for name, tensor in named.items()}
    missing = sorted(set(found) - set(known))
    if missing:
        raise SourceError(
            f"{directory}: {len(missing)} parameters of the loaded model have no tensor of their own in its files, "
            f"the first is {missing[0]!r}; architectures whose tensors are fused on loading cannot be merged in place"
        )
    return found


def _config(directory: Path) -> Any:
    try:
        return transformers.AutoConfig.from_pretrained(directory, **LOCAL)
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(
            f"{directory}: expected the config.json of a causal language model that transformers knows; models that "
            f"need code of their own are not loaded ({error})"
        ) from error


def _vocabulary(directory: Path) -> dict[str, int]:
    try:
        vocabulary: dict[str, int] = transformers.AutoTokenizer.from_pretrained(directory, **LOCAL).get_vocab()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{directory}: expected a tokenizer that transformers loads ({error})") from error
    return vocabulary


def _rows(tensors: TensorSource) -> int:
    """The number of rows of the input embeddings, the first matrix among the embeddings; 0 where there is none."""
    return next((shape[0] for name, shape in tensors.shapes.items() if _is_vocabulary(name, shape)), 0)


def _is_vocabulary(name: str, shape: tuple[int, ...]) -> bool:
    location = _location(name)
    positions = re.search(r"wpe|position", name)
    return location is not None and location.layer is None and len(shape) == 2 and not positions


class _FirstRows:
    """Tensors whose embeddings and head are cut to their first rows."""

    def __init__(self, tensors: TensorSource, rows: int) -> None:
        self._tensors, self._rows = tensors, rows
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: (min(rows, shape[0]), *shape[1:]) if _is_vocabulary(name, shape) else shape
            for name, shape in tensors.shapes.items()
        }

    def read(self, name: str) -> Tensor:
        """The tensor `name`, cut where it has a row for each token."""
        tensor = self._tensors.read(name)
        return tensor[: self._rows] if _is_vocabulary(name, tuple(tensor.shape)) else tensor


def _location(name: str) -> Location | None:
    if BUFFERS.search(name):
        return None
    layer = LAYER.search(name)
    if layer is None:
        return Location(EMBEDDINGS if EMBEDDING.search(name) and "embed_out" not in name else HEAD)
    rest = layer.group(2)
    if NORM.search(rest.rsplit(".", 1)[0].rsplit(".", 1)[-1]):
        return Location("norms", int(layer.group(1)))
    return Location("attention" if ATTENTION.search(rest) else "mlp", int(layer.group(1)))
