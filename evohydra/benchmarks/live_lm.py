"""lm-eval's HFLM over the live model, without what it repeats for each genome."""

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from lm_eval.models.huggingface import HFLM
from torch import Tensor

LOOK_BACK = 2  # tokens more than a stop string has, as in lm-eval


class LiveLM(HFLM):  # type: ignore[misc]
    """HFLM whose prompts are tokenized once a run, and whose stop strings cost next to nothing.

    It follows in-place changes of the module's parameters, and gives the answers of HFLM.
    """

    def __init__(self, module: torch.nn.Module, tokenizer: Any, batch_size: int | str) -> None:
        super().__init__(pretrained=module, tokenizer=tokenizer, batch_size=batch_size)
        self._encoded: dict[Any, list[int]] = {}
        self._encoded_batches: dict[Any, tuple[Tensor, Tensor]] = {}
        self._completing: dict[tuple[str, ...], frozenset[int]] = {}

    def tok_encode(self, string: str, **options: Any) -> list[int]:
        """The tokens of `string`; prompts do not change between genomes."""
        key = (string, *sorted(options.items()))
        if key not in self._encoded:
            self._encoded[key] = super().tok_encode(string, **options)
        return self._encoded[key]

    def tok_batch_encode(self, strings: Sequence[str], **options: Any) -> tuple[Tensor, Tensor]:
        """The padded tokens and mask, (batch, length) each, on the model's device."""
        key = (tuple(strings), *sorted(options.items()))
        if key not in self._encoded_batches:
            tokens, mask = super().tok_batch_encode(list(strings), **options)
            self._encoded_batches[key] = (tokens.to(self.device), mask.to(self.device))
        return self._encoded_batches[key]

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **options: Any) -> Tensor:
        key = tuple(stop)
        if key not in self._completing:
            self._completing[key] = _completing_tokens(self.tokenizer, key)
        stopping = _StopStrings(self.tokenizer, key, self._completing[key], context.shape)
        if options.get("do_sample") is None and options.get("temperature", 0.0) == 0.0:
            options["do_sample"] = False
        if options.get("do_sample") is False and options.get("temperature", 0.0) == 0.0:
            options.pop("temperature", None)
        generated: Tensor = self.model.generate(
            input_ids=context,
            max_length=max_length,
            stopping_criteria=transformers.StoppingCriteriaList([stopping]),
            pad_token_id=self.tokenizer.pad_token_id,
            use_cache=True,
            **options,
        )
        return generated


class _StopStrings(transformers.StoppingCriteria):  # type: ignore[misc]
    """Ends each row at its first stop string; decodes only rows whose new token may complete one."""

    def __init__(self, tokenizer: Any, stop: Sequence[str], completes: frozenset[int], shape: torch.Size) -> None:
        self._tokenizer, self._stop, self._completes, self._prompt = tokenizer, stop, completes, shape[1]
        self._done = [False] * shape[0]
        self._window = max((len(tokenizer.encode(s, add_special_tokens=False)) for s in stop), default=0) + LOOK_BACK

    def __call__(self, input_ids: Tensor, scores: Any, **options: Any) -> Tensor:
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if not self._done[row] and token in self._completes:
                recent = input_ids[row, self._prompt :][-self._window :]
                text = self._tokenizer.decode(recent)
                self._done[row] = any(stop in text for stop in self._stop)
        return torch.tensor(self._done, device=input_ids.device)


def _completing_tokens(tokenizer: Any, stop: Sequence[str]) -> frozenset[int]:
    """Tokens whose text may hold the last character of a stop string (or a part of any character)."""
    last = {string[-1] for string in stop if string} | {"\ufffd"}
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return frozenset(token for token, text in enumerate(texts) if last.intersection(text))
