"""Strings at which answers end, looked for while a model writes, at next to no cost."""

from collections.abc import Sequence

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedTokenizerBase

LOOK_BACK = 2  # tokens more than a stop string has, as in lm-eval


class StopTokens:
    """What tokens mean for stop strings: tables (vocabulary,) of booleans on the model's device.

    holds: the token's text holds a whole stop string; completes: it may hold the last character of one (or a part of
    a character, which could be that).
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str], size: int, device: torch.device
    ) -> None:
        self.stop = tuple(stop)  # an empty one is in every text, and ends an answer at its first token, as in lm-eval
        self.window = LOOK_BACK + max((len(tokenizer.encode(s, add_special_tokens=False)) for s in stop), default=0)
        last = {string[-1] for string in self.stop if string} | {"\ufffd"}
        texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
        texts += [""] * (size - len(texts))
        self.holds = torch.tensor([any(string in text for string in self.stop) for text in texts], device=device)
        self.completes = torch.tensor([bool(last.intersection(text)) for text in texts], device=device)


class StopStrings(transformers.StoppingCriteria):  # type: ignore[misc]
    """Ends each row at its first stop string; decodes only rows whose new token may complete one."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, tokens: StopTokens, shape: torch.Size) -> None:
        self._tokenizer, self._tokens, self._prompt = tokenizer, tokens, shape[1]
        self._done = torch.zeros(shape[0], dtype=torch.bool, device=tokens.holds.device)

    def done(self, rows: int) -> Tensor:
        """(rows,): which answers have had a stop string; of beams none is known."""
        return self._done if len(self._done) == rows else torch.zeros(rows, dtype=torch.bool, device=self._done.device)

    def __call__(self, input_ids: Tensor, scores: object, **options: object) -> Tensor:
        """(rows,): which answers have ended, of (rows, tokens) prompts with what is written so far."""
        new = input_ids[:, -1]
        beams = len(new) != len(self._done)  # which change places; what has had its stop string is no running beam
        done = torch.zeros_like(new, dtype=torch.bool) if beams else self._done
        done |= self._tokens.holds[new]
        unsure = self._tokens.completes[new] & ~done
        for row in unsure.nonzero().flatten().tolist():
            text = self._tokenizer.decode(input_ids[row, self._prompt :][-self._tokens.window :])
            done[row] = any(string in text for string in self._tokens.stop)
        return done
