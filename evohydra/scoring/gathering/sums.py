"""What one model makes of texts, added up while it reads them: no activation is kept."""

import functools
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from evohydra.families import LiveModel
from evohydra.families.linear_layers import Linear, gradients_of, inputs_seen, linear_layers, shared_inputs
from evohydra.merging.kernels.fused import is_finite
from evohydra.merging.statistics import StatisticsError
from evohydra.scoring.benchmarks.token_texts import TokenText

Described = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
Each = TypeVar("Each")
ADDED = 8  # bytes of a number while it is added up, in float64


@dataclass(frozen=True)
class Sums:
    """What is to be written: names, types and shapes, then the tensors as they come, float32 and on the CPU.

    same: for each tensor of a checkpoint the one that stands for it. transposed: those whose inputs belong to their
    first index.
    """

    described: Described
    tensors: Iterator[tuple[str, Tensor]]
    same: Mapping[str, str]
    transposed: tuple[str, ...] = ()


def finite(sums: Sums, source: str) -> Sums:
    """The same; StatisticsError, naming the source, for the first tensor that is not finite when it comes."""

    def checked() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in sums.tensors:
            if not is_finite(tensor):
                raise StatisticsError(
                    f"statistics of the source {source!r}: what it finds of {name!r} in the texts is not finite. Its "
                    "weights are not, or what it computes is too large for the type; expected a source that reads the "
                    "prompts of the benchmark, or out_dtype=float32"
                )
            yield name, tensor

    return replace(sums, tensors=checked())


def read(live: LiveModel, text: TokenText) -> Tensor:
    """The logits, (tokens, vocabulary), of a model that reads one text alone: there is no padding."""
    tokens = torch.tensor([text.tokens], device=live.device)
    logits: Tensor = live.module(input_ids=tokens, use_cache=False).logits
    return logits[0]


def input_sums(
    live: LiveModel, texts: Sequence[TokenText], *, squares: bool, most_bytes: int, only: Collection[str]
) -> Sums:
    """Of the inputs x of linear layers the means of x x^T over all tokens of `texts`, (n, n), or of x^2, (n,).

    Layers that read the same inputs have one sum; `only` are the tensors that matter. Products of one text are float32
    at least, sums float64. As many layers are added up at once as have room in `most_bytes`; for the others the texts
    are read again.
    """
    layers = [layer for layer in linear_layers(live) if set(layer.names) & set(only)]
    with torch.no_grad():
        leads = shared_inputs(layers, lambda: read(live, texts[0]))
    first = {layer.names[0]: layer for layer in layers}
    same = {name: leads[layer.names[0]] for layer in layers for name in layer.names}
    wanted = [first[name] for name in dict.fromkeys(leads.values())]
    shapes = {layer.names[0]: (layer.width,) * (1 if squares else 2) for layer in wanted}
    sizes = [torch.Size(shapes[layer.names[0]]).numel() * ADDED for layer in wanted]
    return Sums(
        {name: (torch.float32, shape) for name, shape in shapes.items()},
        itertools.chain.from_iterable(
            _of_inputs(live, texts, part, shapes, squares=squares) for part in parcels(wanted, sizes, most_bytes)
        ),
        same,
        tuple(name for layer in layers if layer.transposed for name in layer.names),
    )


def _of_inputs(
    live: LiveModel,
    texts: Sequence[TokenText],
    layers: Sequence[Linear],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    squares: bool,
) -> Iterator[tuple[str, Tensor]]:
    sums = {
        layer.names[0]: torch.zeros(shapes[layer.names[0]], dtype=torch.float64, device=live.device) for layer in layers
    }

    def see(layer: Linear, inputs: Tensor) -> None:
        x = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        sums[layer.names[0]] += x.square().sum(dim=0) if squares else x.T @ x

    with torch.no_grad(), inputs_seen(layers, see):
        for text in texts:
            read(live, text)
    tokens = sum(len(text.tokens) for text in texts)
    for name in list(sums):
        yield name, (sums.pop(name) / tokens).float().cpu()


def gradient_sums(live: LiveModel, texts: Sequence[TokenText], *, most_bytes: int, only: Collection[str]) -> Sums:
    """Of the gradient of log p(reference | prompt) of each text the mean of its squares, entry by entry.

    The model's own parameters, those of `only`; each text takes a forward and a backward pass. Sums are float32 at
    least; as many tensors are added up at once as have room in `most_bytes`, with their gradients.
    """
    names = [name for name in live.parameters if name in only and live.parameters[name].is_floating_point()]
    sizes = [live.parameters[name].numel() * ADDED for name in names]
    add = functools.partial(_of_gradients, live, texts)
    return Sums(
        {name: (torch.float32, tuple(live.parameters[name].shape)) for name in names},
        itertools.chain.from_iterable(map(add, parcels(names, sizes, most_bytes))),
        {name: name for name in names},
    )


def _of_gradients(live: LiveModel, texts: Sequence[TokenText], names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    sums = {name: torch.zeros(live.parameters[name].shape, device=live.device) for name in names}
    with torch.enable_grad(), gradients_of(live, names) as taken:
        for text in texts:
            logits = read(live, text)[-text.answer - 1 : -1].float()
            answer = torch.tensor(text.tokens[-text.answer :], device=live.device)
            logits.log_softmax(dim=-1).gather(1, answer.unsqueeze(1)).sum().backward()  # type: ignore[no-untyped-call]
            for name, gradient in taken().items():
                sums[name] += gradient.float().square()
    for name in list(sums):
        yield name, (sums.pop(name) / len(texts)).cpu()


def parcels(items: Sequence[Each], sizes: Sequence[int], most: int) -> list[list[Each]]:
    """`items` in their order, in parts whose sizes add up to at most `most`; one that is larger is a part alone."""
    found: list[list[Each]] = []
    room = 0
    for item, size in zip(items, sizes, strict=True):
        if not found or size > room:
            found.append([])
            room = most
        found[-1].append(item)
        room -= size
    return found


Summed = Callable[[LiveModel, Sequence[TokenText], Collection[str]], Sums]


def summing(statistic: str, most_bytes: int) -> Summed:
    """How one model's sums of this kind are made."""
    if statistic == "gradient_squares":
        return lambda live, texts, only: gradient_sums(live, texts, most_bytes=most_bytes, only=only)
    squares = statistic == "input_squares"
    return lambda live, texts, only: input_sums(live, texts, squares=squares, most_bytes=most_bytes, only=only)
