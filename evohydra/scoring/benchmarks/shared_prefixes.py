"""Tokens that all prompts of a batch begin with: their keys and values are computed once for each model."""

import inspect
import itertools
import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer

from evohydra.families.proof import TOLERANCE

STEP = 32  # tokens: whole steps are shared, so that the batches of a split, whose own words differ, share the same ones
CHANGING = ("dynamic", "longrope")  # rotary angles that depend on the length of the whole text
logger = logging.getLogger(__name__)


class SharedPrefixes:
    """What a model keeps of the beginnings of prompts, until `begin`.

    Nothing is shared in a model that keeps more, or less, than the keys and values of every token in every layer
    (windows, recurrent layers), or whose rotary angles follow the length of the text. Before something is shared for
    the first time, its logits are compared with those without; where they differ, nothing is shared any more. Both are
    work of a worker's that no genome is charged with: hooks of the module (clocks, counters) do not see it.
    """

    def __init__(self, model: PreTrainedModel, wanted: bool) -> None:
        self._model = model
        known = inspect.signature(model.forward).parameters
        self._wanted = wanted and "past_key_values" in known
        self._last = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        self._counts = "position_ids" in known
        self._kept: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
        self._proven: dict[str, bool] = {}

    def begin(self) -> None:
        """Another model may be in the module."""
        self._kept = {}

    def length(self, kind: str, rows: Sequence[list[int]]) -> int:
        """How many tokens all rows begin with, in whole steps; 0 where nothing is shared.

        `kind`: what is asked, as in `holds`.
        """
        if not self._wanted or len(rows) < 2 or not self._proven.get(kind, True):
            return 0
        first, last = min(rows), max(rows)
        alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
        found = sum(1 for _ in alike) // STEP * STEP
        return found if found and self._keeps(tuple(rows[0][:found])) else 0

    def _keeps(self, prefix: tuple[int, ...]) -> bool:
        """Whether keys and values of `prefix` are there, computed if need be.

        It is the present model that says so: a source may be scored under a configuration of its own.
        """
        if prefix not in self._kept:
            self._kept[prefix] = self._computed(prefix) if self._suits() else []
        return bool(self._kept[prefix])

    @torch.no_grad()
    def _computed(self, prefix: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
        made = DynamicCache(config=self._model.config)
        tokens = torch.tensor([prefix], device=self._model.device)
        self._model.forward(tokens, past_key_values=made, use_cache=True, **self._last)
        whole = all(layer.get_seq_length() == len(prefix) for layer in made.layers)
        return [(layer.keys, layer.values) for layer in made.layers] if whole else []

    def _suits(self) -> bool:
        config = self._model.config.get_text_config(decoder=True)
        angles = getattr(config, "rope_parameters", None) or {}
        each = [angles, *(value for value in angles.values() if isinstance(value, Mapping))]
        layers = DynamicCache(config=config).layers
        plain = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
        return plain and not any(angle.get("rope_type") in CHANGING for angle in each)

    def cache(self, prefix: Sequence[int], rows: int, *, grows: bool) -> DynamicCache:
        """A cache for `rows` texts that begin with `prefix`, whose `length` was asked for.

        It may be changed: what is kept is not. With `grows` it takes up what comes, for the generation of texts;
        without, layers see the prefix and what they are given, and nothing is added.
        """
        cache = DynamicCache()
        cache.layers = []
        for keys, values in self._kept[tuple(prefix)]:
            layer = DynamicLayer() if grows else _Read()
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)
            cache.layers.append(layer)
        return cache

    def holds(self, kind: str, before: int, tokens: Tensor, mask: Tensor | None = None) -> bool:
        """Whether the last logits of a prompt, (1, length), are the same behind its first `before` tokens.

        mask: of a prompt that is padded on the left. It is asked once for each `kind`. Logits that are not numbers, or
        all the same, say nothing: with these a model fails, or cannot be wrong.
        """
        if kind not in self._proven:
            whole = self._last_logits(0, tokens, mask)
            behind = self._last_logits(before, *(moved(tokens, mask, before) if mask is not None else (tokens, None)))
            known = whole.isfinite()
            spread = float(whole[known].std()) if known.any() else 0.0
            if not spread or bool((whole.isnan() | (whole == torch.inf)).any()):
                return True
            apart = float((whole - behind)[known].abs().max()) / spread
            allowed = TOLERANCE.get(self._model.dtype, min(TOLERANCE.values()))
            self._proven[kind] = apart <= allowed and torch.equal(whole[~known], behind[~known])
            if not self._proven[kind]:
                logger.warning(
                    "prefix_cache: %s computes other logits with the keys and values of a shared beginning (they "
                    "differ by %.2g of their spread, expected at most %.2g). Each prompt is read whole",
                    type(self._model).__name__,
                    apart,
                    allowed,
                )
        return self._proven[kind]

    @torch.no_grad()
    def _last_logits(self, before: int, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """(1, vocabulary), float32."""
        given: dict[str, object] = {**self._last, "use_cache": bool(before)}
        if before:
            given["past_key_values"] = self.cache(tokens[0, :before].tolist(), 1, grows=False)
        if mask is not None:
            given["attention_mask"] = mask
            if self._counts:
                given["position_ids"] = (mask.cumsum(dim=-1) - 1).clamp(min=0)[:, before:]
        logits: Tensor = self._model.forward(tokens[:, before:], **given).logits
        return logits[:, -1].float()


class _Read(DynamicLayer):  # type: ignore[misc]
    """Keys and values that are there, and nothing is added to."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Those that are there, and these behind them: (rows, heads, tokens, width) each."""
        return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)


def rows_of(tokens: Tensor, mask: Tensor) -> list[list[int]]:
    """The prompts in a padded batch, (rows, length) with its mask, without the last token of each."""
    return [row[keep][:-1].tolist() for row, keep in zip(tokens.cpu(), mask.cpu().bool(), strict=True)]


def moved(tokens: Tensor, mask: Tensor, prefix: int) -> tuple[Tensor, Tensor]:
    """A batch that is padded on the left, (rows, length) with its mask, with the padding behind a shared beginning."""
    length = tokens.shape[1]
    padding = length - mask.sum(dim=1, keepdim=True)  # (rows, 1)
    at = torch.arange(length, device=tokens.device).expand_as(tokens)
    source = torch.where(at < prefix, at + padding, torch.where(at < prefix + padding, at - prefix, at))
    return tokens.gather(1, source), mask.gather(1, source)
