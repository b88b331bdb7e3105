"""What families of models with a tokenizer share: rows, tokenizer and files beside the weights, and comparing two."""

import copy
import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from evohydra.families import LiveModel, Overlay, Part, Rules, tokenizers
from evohydra.families.comparison import Comparison, apart, differing, rounding
from evohydra.families.configurations import read_configuration
from evohydra.families.vocabulary import embeddings_of
from evohydra.hub.hashes import RECORD
from evohydra.merging.adapters import Adapted
from evohydra.merging.checkpoints import CheckpointReader, SourceError, TensorSource

NOWHERE: Mapping[str, Path] = MappingProxyType({})
# All of a checkpoint directory that is neither weights nor documentation.
SIDE_FILES = ("*.json", "*.jinja", "*.model", "vocab.txt", "merges.txt")
# Of these the ones of a tokenizer, which another tokenizer brings itself.
OF_TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.jinja",
)
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
NOT_COPIED = ("config.json", "*.safetensors.index.json", "recipe.json", "adapter_config.json", RECORD)


class OneDirectory:
    """What families have in common whose models are a directory with all tensors under the model's own names."""

    library = "transformers"

    def wanted(self, variant: str | None) -> tuple[str, ...]:
        """All configurations, tokenizers and safetensors files."""
        _no_variant(variant)
        return ("*.json", "*.txt", "*.model", "*.jinja", "additional_chat_templates/*.jinja", "*.safetensors")

    def open(self, path: Path, directory: Path, variant: str | None = None) -> TensorSource:
        """The tensors of the directory; SourceError for a file."""
        _no_variant(variant)
        if path.is_file():
            raise SourceError(f"{path}: expected the directory of a checkpoint, got a file")
        return CheckpointReader(path)

    def adapted(self, tensors: TensorSource, adapter: Path) -> TensorSource:
        """The tensors with an adapter of PEFT's format."""
        tied = isinstance(tensors, CheckpointReader) and _ties_its_head(tensors.directory)
        return Adapted(tensors, adapter, embeddings_of(tensors.shapes) if tied else None)

    def parts(self, overlay: Overlay) -> tuple[Part, ...]:
        """One part."""
        return (Part(),)


def _ties_its_head(directory: Path) -> bool:
    """Whether the configuration ties head and embeddings; of one that cannot be read others will say so."""
    try:
        config = read_configuration(directory, "model")
    except SourceError:
        return False
    return bool(getattr(config, "tie_word_embeddings", False))


def _no_variant(variant: str | None) -> None:
    if variant is not None:
        raise SourceError(f"variant: only files of diffusion models have variants, got {variant!r}")


def check_rules(rules: Rules) -> None:
    """SourceError for rules that have a meaning for diffusion models only."""
    try:
        rules.check_unused("components", "adapters", why="expected none, for these are no diffusion models")
    except ValueError as error:
        raise SourceError(str(error)) from error


def fit_rows(module: Any, overlay: Overlay, device: torch.device) -> None:
    """Give `module` as many rows of embeddings and head as `overlay` says; new ones hold arbitrary numbers."""
    if "vocab_size" in overlay.config:
        # The rows will be written over: no need to draw new ones from the distribution of the old.
        module.resize_token_embeddings(overlay.config["vocab_size"], mean_resizing=False)
        module.to(device).requires_grad_(False)


def tokenizer_of(directory: Path, overlay: Overlay) -> object:
    """The tokenizer of `overlay`, or else of the checkpoint; it pads with the end of a text where it has no padding."""
    own = tokenizers.load(directory) if overlay.tokenizer is None else copy.deepcopy(overlay.tokenizer)
    if own.pad_token_id is None:
        own.pad_token = own.eos_token
    return own


def names_of(directory: Path, overlay: Overlay) -> Collection[str]:
    """The names of the tensors of the checkpoint as `overlay` changes it."""
    return overlay.names if overlay.names is not None else CheckpointReader(directory).shapes.keys()


def copy_side_files(
    directory: Path, target: Path, tokenizer: PreTrainedTokenizerBase | None, replaced: Collection[str]
) -> None:
    """All of a checkpoint but weights and config.json; a `tokenizer`, if any, in the place of the files `replaced`."""
    left_out = NOT_COPIED if tokenizer is None else (*NOT_COPIED, *replaced)
    for pattern in SIDE_FILES:
        for file in directory.glob(pattern):
            if not any(file.match(each) for each in left_out):
                shutil.copyfile(file, target / file.name)
    if tokenizer is not None:
        tokenizer.save_pretrained(target)


def token_ids(theirs: PretrainedConfig, ours: PretrainedConfig) -> dict[str, Any]:
    """The numbers of special tokens in a configuration, where another one says otherwise."""
    ids = {key: getattr(theirs, key, None) for key in TOKEN_IDS}
    return {key: value for key, value in ids.items() if value != getattr(ours, key, None)}


def write_config(directory: Path, target: Path, dtype: torch.dtype, changes: Mapping[str, object]) -> None:
    """The config.json of `directory` with the type of the weights and `changes`, written into `target`."""
    config = json.loads((directory / "config.json").read_text())
    config.pop("torch_dtype", None)
    config |= {"dtype": str(dtype).removeprefix("torch."), **changes}
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def compared(written: LiveModel, live: LiveModel) -> Comparison:
    """The weights of both, and their outputs on the same fixed pattern of tokens, (2, 32)."""
    tokens = pattern(live)
    outputs = distance(written, {"input_ids": tokens}, live, {"input_ids": tokens})
    return Comparison(differing(written.module, live.module), outputs, rounding([live.module], live.dtype))


def pattern(live: LiveModel) -> Tensor:
    """Tokens from all over the vocabulary, (2, 32), the same for every model of its size."""
    vocabulary = live.module.get_input_embeddings().num_embeddings  # type: ignore[operator]
    tokens: Tensor = (torch.arange(64, device=live.device).reshape(2, 32) * 7919 + 11) % vocabulary
    return tokens


@torch.inference_mode()
def distance(
    written: LiveModel, inputs: Mapping[str, object], live: LiveModel, same_inputs: Mapping[str, object]
) -> float:
    """The largest difference between the logits of both, over the largest logit of `live`."""
    return apart(written.module(**inputs).logits, live.module(**same_inputs).logits)
