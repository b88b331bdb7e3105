"""Texts as vectors of the live encoder, as sentence-transformers computes them."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from evohydra.families.live_encoder import LiveEncoder
from evohydra.families.sentences import POOLINGS
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.room import Room

Pooling = Literal["auto", "cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
assert set(get_args(Pooling)) == {"auto", *POOLINGS}
PACKAGES = ("transformers", "tokenizers", "torch")  # that vectors depend on
logger = logging.getLogger(__name__)


class Embedder:
    """Makes vectors of texts for the benchmark `name`; their tokens are kept, for all genomes have the same.

    `pooling` and `prompt` (what stands before every text) stand for those of the model's files, with "auto" and None
    they are those of the files.
    """

    def __init__(self, name: str, batch_size: int, pooling: Pooling, prompt: str | None) -> None:
        self._name, self._pooling, self._prompt = name, pooling, prompt
        self._room = Room(batch_size)
        self._live: LiveEncoder | None = None
        self._tokens: dict[tuple[object, ...], list[int]] = {}
        self._cut: set[int] = set()

    def __call__(self, live: object, texts: Sequence[str]) -> Tensor:
        """(texts, width), float32 on the CPU, each of length 1.

        Raises BenchmarkError for a model that is no encoder, FloatingPointError for vectors that are not numbers.
        """
        return torch.nn.functional.normalize(self._in_batches(live, texts, self._vectors, "vectors"), dim=1)

    def encoded(self, live: object, texts: Sequence[str]) -> Tensor:
        """The vectors as sentence-transformers gives them: of length 1 only where the model's files say so."""
        vectors = self._in_batches(live, texts, self._vectors, "vectors")
        normalized = isinstance(live, LiveEncoder) and live.sentence.normalized
        return torch.nn.functional.normalize(vectors, dim=1) if normalized else vectors

    def logits(self, live: object, texts: Sequence[str]) -> Tensor:
        """What the model's head makes of texts, (texts, labels), float32 on the CPU; raises as for vectors."""
        return self._in_batches(live, texts, self._logits, "logits")

    @torch.inference_mode()
    def _in_batches(
        self,
        live: object,
        texts: Sequence[str],
        compute: Callable[[LiveEncoder, Sequence[list[int]]], Tensor],
        what: str,
    ) -> Tensor:
        if not isinstance(live, LiveEncoder):
            raise BenchmarkError(f"benchmark {self._name!r}: expected an encoder, got {type(live).__name__}")
        if live is not self._live:
            self._live, self._tokens = live, {}
        longest = live.longest
        tokens = [self._tokens_of(live, text, longest) for text in texts]
        self._say_cuts(live, texts, tokens, longest)
        order = sorted(range(len(texts)), key=lambda at: -len(tokens[at]))
        text = f"a text of {len(tokens[order[0]])} tokens"
        parts = self._room.over(len(order), lambda rows: compute(live, [tokens[at] for at in order[rows]]), text)
        found = torch.cat(parts)
        if bad := int((~found.isfinite()).any(dim=1).sum()):
            raise FloatingPointError(f"the {what} of {bad} of {len(texts)} texts are not numbers")
        ordered = torch.empty_like(found)
        ordered[torch.tensor(order)] = found
        return ordered

    def _read(self, live: LiveEncoder, text: str) -> str:
        """The text as the tokenizer gets it."""
        whole = self._before(live) + text
        return whole.lower() if live.sentence.lower else whole

    def _before(self, live: LiveEncoder) -> str:
        return live.sentence.prompt if self._prompt is None else self._prompt

    def _tokens_of(self, live: LiveEncoder, text: str, longest: int) -> list[int]:
        key = (text, longest, live.sentence.lower, self._before(live))
        if key not in self._tokens:
            encoded = live.tokenizer(self._read(live, text), truncation=True, max_length=longest)
            self._tokens[key] = list(encoded["input_ids"])
        return self._tokens[key]

    def _say_cuts(self, live: LiveEncoder, texts: Sequence[str], tokens: Sequence[list[int]], longest: int) -> None:
        """Once for each length: how many texts the model does not read to their ends."""
        full = [at for at, each in enumerate(tokens) if len(each) == longest]
        if not full or longest in self._cut:
            return
        whole = [self._read(live, texts[at]) for at in full]
        longer = sum(len(each) > longest for each in live.tokenizer(whole, verbose=False)["input_ids"])
        if longer:
            self._cut.add(longest)
            logger.warning(
                "benchmark %s: %d of %d texts are cut: the model reads %d tokens",
                self._name,
                longer,
                len(texts),
                longest,
            )

    def _padded(self, live: LiveEncoder, tokens: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        # Padded behind the text, whatever the tokenizer does: positions are counted from the beginning.
        length = max(map(len, tokens))
        padding = live.tokenizer.pad_token_id or 0
        ids = torch.tensor([[*each, *[padding] * (length - len(each))] for each in tokens], device=live.device)
        mask = torch.tensor([[1] * len(each) + [0] * (length - len(each)) for each in tokens], device=live.device)
        return ids, mask

    def _logits(self, live: LiveEncoder, tokens: Sequence[list[int]]) -> Tensor:
        ids, mask = self._padded(live, tokens)
        logits: Tensor = live.whole(input_ids=ids, attention_mask=mask).logits.float().cpu()
        return logits

    def _vectors(self, live: LiveEncoder, tokens: Sequence[list[int]]) -> Tensor:
        ids, mask = self._padded(live, tokens)
        hidden = live.module(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        modes = live.sentence.pooling if self._pooling == "auto" else (self._pooling,)
        counted = mask.clone()
        if not live.sentence.prompt_pooled:
            counted[:, : self._prompt_length(live)] = 0
        if not bool(counted.any(dim=1).all()):
            raise BenchmarkError(f"benchmark {self._name!r}: a text without a token of its own has no vector")
        return torch.cat([pooled(mode, hidden, counted) for mode in modes], dim=1).cpu()

    def _prompt_length(self, live: LiveEncoder) -> int:
        """The tokens before the text; 0 without a prompt."""
        if not self._before(live):
            return 0
        tokens = self._tokens_of(live, "", live.longest)
        return len(tokens) - (tokens[-1] in live.tokenizer.all_special_ids)


def pooled(mode: str, hidden: Tensor, mask: Tensor) -> Tensor:
    """One vector for each text, (texts, width), of hidden states (texts, length, width) where `mask` is 1.

    `mode` is one of `POOLINGS`; ValueError for others.
    """
    counts, every = mask.unsqueeze(-1).to(hidden.dtype), torch.arange(len(hidden), device=hidden.device)
    if mode == "cls":
        return hidden[every, mask.argmax(dim=1)]
    if mode == "lasttoken":
        return hidden[every, mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)]
    if mode == "max":
        return hidden.masked_fill(counts == 0, -torch.inf).amax(dim=1)
    if mode == "weightedmean":
        counts = counts * torch.arange(1, mask.shape[1] + 1, device=mask.device).reshape(1, -1, 1)
    elif mode not in ("mean", "mean_sqrt_len_tokens"):
        raise ValueError(f"expected one of {', '.join(POOLINGS)}, got {mode!r}")
    total = counts.sum(dim=1)
    return (hidden * counts).sum(dim=1) / (total.sqrt() if mode == "mean_sqrt_len_tokens" else total)


def described(pooling: Pooling, prompt: str | None) -> Mapping[str, object]:
    """What vectors depend on beside model and texts, for an identity."""
    return {"pooling": pooling, "prompt": prompt}
