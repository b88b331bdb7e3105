"""Models whose outputs are not numbers have failed, whatever a metric makes of their answers."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def check_log_likelihoods(answers: Sequence[object]) -> None:
    """FloatingPointError where log-likelihoods among `answers`, alone or first of a tuple, are NaN or +inf.

    An answer with a token that the model rules out has -inf, which is a number here. Texts are left alone.
    """
    first = [answer[0] if isinstance(answer, tuple) else answer for answer in answers]
    found = [value for value in first if isinstance(value, float | int)]
    bad = sum(math.isnan(value) or value == math.inf for value in found)
    if bad:
        raise FloatingPointError(f"{bad} of {len(found)} log-likelihoods are not numbers")


def check_choices(examples: Sequence[Sequence[object]]) -> None:
    """FloatingPointError where all answers to an example, two or more of them, have a log-likelihood of -inf.

    A model that finds every choice impossible has chosen none, and the first would count as its choice.
    """
    chosen = [[answer[0] for answer in answers if isinstance(answer, tuple)] for answers in examples]
    bad = sum(len(values) > 1 and max(values) == -math.inf for values in chosen)
    if bad:
        raise FloatingPointError(f"the log-likelihoods of all choices are -inf in {bad} of {len(examples)} examples")


class LogitsWatch:
    """Counts the predictions of a next token by `module` whose logits are not numbers; it is read once a call.

    NaN and +inf are no numbers. -inf is one, for a token that the model rules out, unless it rules out all of them.
    While a text is generated such logits become zeros, lest the drawing of a token from them raises, which on a GPU
    ends the process. Nothing waits for the device before `check`.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self._bad: Tensor | None = None
        self._seen = 0
        module.register_forward_hook(self._look)

    def begin(self) -> None:
        """Forget what was counted."""
        self._bad, self._seen = None, 0

    def check(self) -> None:
        """FloatingPointError where there were such predictions since `begin`."""
        if self._bad is not None and (bad := int(self._bad)):
            raise FloatingPointError(f"the logits of {bad} of {self._seen} predictions are not numbers")

    def _look(self, _: torch.nn.Module, __: object, output: object) -> None:
        logits = getattr(output, "logits", None)
        if not isinstance(logits, Tensor) or logits.dim() != 3 or not logits.numel():
            return
        last = logits[:, -1, :]  # those before it are of the prompt, or are scored as log-likelihoods
        bad = ~last.amax(dim=-1).isfinite()  # the largest number is NaN where one of them is
        if getattr(output, "past_key_values", None) is not None:  # of a text that is generated
            last.masked_fill_(bad.unsqueeze(-1), 0.0)
        self._bad = bad.sum() if self._bad is None else self._bad + bad.sum()
        self._seen += len(bad)
