"""An encoder in memory: how it is loaded, what texts become vectors by, and what two are compared by."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from evohydra.families.own_settings import OwnSettings
from evohydra.families.private_transformers import from_config, no_init_weights
from evohydra.families.refusals import refused
from evohydra.families.sentences import SentenceSettings
from evohydra.families.tokenizers import LOCAL
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Node, Stack

transformers.utils.logging.disable_progress_bar()
NO_PATHS = "encoders are merged in parameter space: expected merge=METHOD, got a path through layers (dfs)"


@dataclass
class LiveEncoder:
    """An encoder in memory, its tokenizer, and its parameters by checkpoint name.

    module is the encoder without a head, whole the model with it, where there is one, else the same. sentence: how
    texts become vectors now, which is the merge's way but for sources of another (`sentences`, by name).
    """

    module: torch.nn.Module
    whole: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    parameters: Mapping[str, Tensor]
    own: OwnSettings
    merged: SentenceSettings
    sentences: Mapping[str, SentenceSettings]
    sentence: SentenceSettings

    def become(self, node: Node, engine: Engine) -> None:
        """Make this the model that `node` describes, in place; a source under its own configuration.

        Raises MergeError where a merged tensor is not finite, ValueError for a path.
        """
        if isinstance(node, Stack):
            raise ValueError(NO_PATHS)
        name = node.name if isinstance(node, Checkpoint) else None
        self.own.install(name)
        self.sentence = self.merged if name is None else self.sentences.get(name, self.merged)
        engine.merge_into(node, self.parameters)

    def expect(self, recipes: Sequence[Node]) -> None:
        """Nothing of what recipes share is kept."""

    @property
    def longest(self) -> int:
        """The most tokens of a text that the model reads: as files say, and as there are positions."""
        config = self.module.config
        known = [
            self.sentence.longest,
            self.tokenizer.model_max_length,
            getattr(config, "max_position_embeddings", None),
        ]
        for name, each in self.module.named_modules():
            if name.endswith("position_embeddings") and isinstance(each, torch.nn.Embedding):
                known.append(each.num_embeddings - (0 if each.padding_idx is None else each.padding_idx + 1))
        return int(min(length for length in known if length))


@torch.inference_mode()
def outputs(live: LiveEncoder, tokens: Tensor) -> list[Tensor]:
    """The last hidden states of tokens (texts, length), and what a head makes of them where there is one."""
    found = [live.module(input_ids=tokens).last_hidden_state]
    return found if live.whole is live.module else [*found, live.whole(input_ids=tokens).logits]


def load(
    home: Path,
    config: PretrainedConfig,
    device: torch.device,
    dtype: torch.dtype,
    headed: bool,
    pooler: Mapping[str, bool],
) -> PreTrainedModel:
    """A model that is only read from, and written to in place."""
    kind = transformers.AutoModelForSequenceClassification if headed else transformers.AutoModel
    with refused(f"{home}: expected an encoder that transformers loads"), _no_reports():
        module = kind.from_pretrained(home, config=config, dtype=dtype, **({} if headed else pooler), **LOCAL)
    return module.to(device).eval().requires_grad_(False)


def like(
    module: PreTrainedModel,
    config: PretrainedConfig,
    device: torch.device,
    dtype: torch.dtype,
    pooler: Mapping[str, bool],
) -> PreTrainedModel:
    """A model of the class and vocabulary of `module`, with arbitrary weights, that computes as `config` says."""
    config.vocab_size = module.config.vocab_size
    with no_init_weights(), device:
        return from_config(type(module), config, dtype=dtype, **pooler).requires_grad_(False)


def with_pooler(kind: type, wanted: bool) -> dict[str, bool]:
    """What makes a model of the class `kind` with a pooler or without; nothing where it never has any."""
    return {"add_pooling_layer": wanted} if "add_pooling_layer" in inspect.signature(kind).parameters else {}


@contextmanager
def _no_reports() -> Iterator[None]:
    """transformers lists tensors that it does not use, heads that are left out knowingly among them."""
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(before)
