"""Sampled answers that repeat themselves: each answer draws from a stream of its own, whatever its batch and worker."""

import hashlib
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from torch import Tensor
from torch.overrides import TorchFunctionMode

from evohydra.files import Plain

DRAWS = 1  # of identity: another way to draw gives other answers


def may_sample(options: Mapping[str, object]) -> bool:
    """Whether generation with these options can draw tokens at random (temperature alone asks for it, too)."""
    wanted = options.get("do_sample")
    return bool(wanted) or (wanted is None and bool(options.get("temperature")))


def stream(*key: object) -> np.random.Generator:
    """Random numbers that follow from `key` alone, in every process."""
    digest = hashlib.sha256("\0".join(map(str, key)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16])))


@contextmanager
def own_randomness(*key: object) -> Iterator[None]:
    """Inside, the global generators of Python, NumPy and torch follow from `key`; afterwards they are as before.

    For benchmarks of one's own: a model's scores do not depend on what was scored before it in the same process.
    """
    seed = int(stream(*key).integers(2**32))
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002


class PromptStreams:
    """The streams of the requests of one call to lm-eval's generate_until, found again by their prompts.

    lm-eval sorts requests and cuts them into batches of texts alone. Equal texts stay in their order, so that the n-th
    request with a text is the n-th time that a batch has it.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._waiting: dict[str, deque[tuple[object, ...]]] = {}
        self._batch: list[tuple[object, ...]] = []

    def begin(self, requests: Sequence[Instance], before: Sequence[Instance] = ()) -> None:
        """A call begins, with lm-eval's instances: a request that is to be answered n times is there n times.

        before: those that earlier calls have asked, where `requests` are only a part of all.
        """
        repeats = Counter(map(_asked, before))
        self._waiting = defaultdict(deque)
        for request in requests:
            asked = _asked(request)
            self._waiting[request.args[0]].append((self._seed, *asked, repeats[asked]))
            repeats[asked] += 1

    def batch(self, prompts: Sequence[str]) -> None:
        """The next answers are to these prompts."""
        waiting = self._waiting
        self._batch = [waiting[prompt].popleft() if waiting.get(prompt) else () for prompt in prompts]

    def drawing(self, options: Mapping[str, object], rows: slice = slice(None)) -> AbstractContextManager[object]:
        """For the generation of the answers to `rows` of the last batch, with its options."""
        return row_draws(self._batch[rows]) if options.get("do_sample") is not False else nullcontext()


def _asked(request: Instance) -> tuple[object, ...]:
    return request.args[0], request.doc_id, request.idx


def row_draws(keys: Sequence[tuple[object, ...]]) -> AbstractContextManager[object]:
    """Inside, torch.multinomial draws for row i from the stream of `keys[i]`.

    Several rows in turn may belong to one key (num_return_sequences). Tokens come by inverting the distribution
    function at one uniform number each, so that rounding of the probabilities moves a token only at its edge.
    """
    return _RowDraws([stream(*key) for key in keys])


class _RowDraws(TorchFunctionMode):
    def __init__(self, streams: Sequence[np.random.Generator]) -> None:
        super().__init__()
        self._streams = streams

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Plain | None = None,
    ) -> object:
        named = kwargs or {}
        if func in (torch.multinomial, Tensor.multinomial):
            return self._multinomial(*args, **named)
        return func(*args, **named)

    def _multinomial(
        self, input: Tensor, num_samples: int, replacement: bool = False, *, generator: torch.Generator | None = None
    ) -> Tensor:
        rows = input.reshape(-1, input.shape[-1])
        assert len(rows) % len(self._streams) == 0, "rows that belong to no answer"
        each = len(rows) // len(self._streams) * num_samples
        uniform = np.array([numbers.random(each) for numbers in self._streams]).reshape(len(rows), num_samples)
        drawn = drawn_at(rows, torch.from_numpy(uniform).to(rows.device), replacement=replacement)
        return drawn.reshape(*input.shape[:-1], num_samples)


def drawn_at(weights: Tensor, uniform: Tensor, *, replacement: bool) -> Tensor:
    """(rows, draws) categories of (rows, categories) weights at `uniform` numbers in [0, 1), (rows, draws) in float64.

    Raises RuntimeError, as torch.multinomial does, for weights that are no distribution. Without replacement, a row
    with fewer categories of positive weight than draws gets others, the first ones first.
    """
    left = weights.to(torch.float64, copy=True)
    sums = left.sum(-1)
    if not bool(((left >= 0).all(-1) & torch.isfinite(sums) & (sums > 0)).all()):
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0, or a row of zeros")
    free = torch.ones_like(left, dtype=torch.bool)
    found = []
    for numbers in torch.split(uniform, 1, dim=-1):  # (rows, 1)
        sums = left.cumsum(-1)
        last = torch.where(left > 0, 1, 0).flip(-1).argmax(-1, keepdim=True)  # the last positive one, from the end
        at = torch.searchsorted(sums, numbers * sums[:, -1:], right=True).minimum(left.shape[-1] - 1 - last)
        at = torch.where(sums[:, -1:] > 0, at, free.to(torch.int8).argmax(-1, keepdim=True))
        found.append(at)
        if not replacement:
            left.scatter_(-1, at, 0.0)
            free.scatter_(-1, at, False)
    return torch.cat(found, dim=-1)
