"""Log-probabilities of given tokens: the logits of other positions are not computed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.room import LOGITS


@dataclass(frozen=True)
class Text:
    """What a model reads, and what is scored of it.

    asked: by the places of their requests the tokens that are to come at the end of the text, the last one behind it.
    scored: how many of the last positions that concerns.
    """

    tokens: list[int]
    scored: int
    asked: tuple[tuple[int, list[int]], ...]


def texts_of(requests: Sequence[tuple[object, list[int], list[int]]], longest: int) -> list[Text]:
    """The texts for requests (words, context, continuation), in the order in which lm-eval makes batches of them.

    Requests that differ in their last token alone are of one text. A text keeps the last `longest` tokens of what is
    read. BenchmarkError for a continuation without a token, or of more than a model reads.
    """
    same: dict[tuple[int, ...], list[int]] = {}
    for place, (_, context, continuation) in enumerate(requests):
        if not context or not 0 < len(continuation) <= longest:
            raise BenchmarkError(
                f"expected a context and a continuation of at most {longest} tokens, got {len(context)} and "
                f"{len(continuation)}"
            )
        same.setdefault((*context, *continuation[:-1]), []).append(place)
    found = []
    for read, places in same.items():
        first = max(places, key=lambda place: len(requests[place][2]))
        order = (-len(read), (*read, requests[first][2][-1]))
        asked = tuple((place, requests[place][2]) for place in places)
        found.append((order, Text(list(read[-longest:]), len(requests[first][2]), asked)))
    return [text for _, text in sorted(found, key=lambda each: each[0])]


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """(rows, length) tokens, with zeros behind shorter rows; a causal model does not see these."""
    length = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (length - len(row))] for row in rows], device=device)


def scored(
    model: PreTrainedModel, tokens: Tensor, texts: Sequence[Text], positions: Sequence[int], **options: object
) -> list[tuple[int, float, bool]]:
    """For each request of `texts` its place, its log-probability, and whether it is the greedy continuation.

    tokens: (texts, length) what goes through the model, with `options`. positions: by text, where the first of its
    scored positions is in `tokens`.
    """
    at: list[int] = []
    wanted: list[int] = []
    rows: list[int] = []
    columns: list[int] = []
    lengths, places = [], []
    for row, (text, first) in enumerate(zip(texts, positions, strict=True)):
        rows += [row] * text.scored
        columns += range(first, first + text.scored)
        for place, continuation in text.asked:
            at += range(len(rows) - len(continuation), len(rows))
            wanted += continuation
            lengths.append(len(continuation))
            places.append(place)
    device = tokens.device
    where, ids = torch.tensor(at, device=device), torch.tensor(wanted, device=device)
    chosen = torch.tensor(rows, device=device), torch.tensor(columns, device=device)
    values: Tensor | None = None
    greedy = torch.zeros_like(ids, dtype=torch.bool)
    for start, logits in logits_at(model, tokens, chosen, **options):
        logs = logits.log_softmax(dim=-1)
        inside = (where >= start) & (where < start + len(logs))
        values = torch.zeros(len(ids), dtype=logs.dtype, device=device) if values is None else values
        values[inside] = logs[where[inside] - start, ids[inside]]
        greedy[inside] = logs.argmax(dim=-1)[where[inside] - start] == ids[inside]
        del logits, logs  # before the next ones are made
    assert values is not None
    parts = zip(places, torch.split(values.cpu(), lengths), torch.split(greedy.cpu(), lengths), strict=True)
    return [(place, float(value.sum()), bool(same.all())) for place, value, same in parts]


def logits_at(
    model: PreTrainedModel, tokens: Tensor, at: tuple[Tensor, Tensor], **options: object
) -> Iterator[tuple[int, Tensor]]:
    """The logits `at` rows and columns, (n,) both, of a batch: at most LOGITS at once, with the number of the first.

    Only hidden states of these positions go through the head. What models do behind it (scales, caps) is left to them:
    for all logits but the first ones they are run with a single token, and get the hidden states in front of the head.
    """
    head = model.get_output_embeddings()
    if head is None:
        yield 0, model(tokens, **options).logits[at]
        return
    most = max(1, LOGITS // head.weight.shape[0])
    hidden = tokens.new_zeros(0)

    def narrow(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        nonlocal hidden
        if not len(hidden):
            assert inputs[0].shape[:2] == tokens.shape, "hidden states of other positions than those of the batch"
            hidden = inputs[0][at]
        return (hidden[start : start + most].unsqueeze(0), *inputs[1:])

    start = 0
    while start < len(at[0]):
        hook = head.register_forward_pre_hook(narrow)
        try:
            logits: Tensor = model(tokens, **options).logits if not start else model(tokens[:1, :1]).logits
        finally:
            hook.remove()
        yield start, logits[0]
        del logits
        start += most
