"""Where experts of a mixture are asked: states of the base at prompts that each source answers best, layer by layer.

As `gate_mode: hidden` of mergekit (mergekit/moe/router.py), whose prompts for each expert are written by its user.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from evohydra.families import LiveModel
from evohydra.files import read_text
from evohydra.merging.engine import Engine
from evohydra.merging.statistics import StatisticsError
from evohydra.recipe import Checkpoint
from evohydra.scoring.benchmarks.token_texts import TokenText
from evohydra.scoring.gathering.sums import Sums, read
from evohydra.spaces.grouping import Location
from evohydra.spaces.mixture import ROUTER

SHORTEST = 1e-8  # of a direction: mergekit's bound, below which it is no direction


@dataclass(frozen=True)
class Asking:
    """How rows of routers are made.

    base: whose states they are. over: the "last" token of each prompt, or the mean of "all" (mergekit's `hidden_avg`).
    less_others: minus the mean of what is asked of other experts, as mergekit's `negative_prompts`. files: prompts of
    one's own by source, one a line; where there are none, prompts are chosen by what sources answer best.
    """

    base: Checkpoint
    over: str
    less_others: bool
    files: Mapping[str, Path]


def expert_states(
    live: LiveModel,
    engine: Engine,
    texts: Sequence[TokenText],
    sources: Sequence[Checkpoint],
    asking: Asking,
    locations: Mapping[str, Location | None],
) -> dict[Checkpoint, Sums]:
    """For each source the rows of all routers, (width,), of length 1 or 0, by the names of the routers.

    The row of layer l is the mean state that enters layer l of the base at the prompts for this source, less the mean
    of those for the others (`Asking`), divided by its length. It is 0 where these are the same, as they are below the
    first layer if all prompts end with the same token: experts then weigh the same there. StatisticsError where that
    is so in all layers.
    """
    if asking.files:
        read_by = {node: own_prompts(live, asking.files[node.name]) for node in sources}
    else:
        read_by = best_answered(live, engine, texts, sources)
    live.become(asking.base, engine)
    means = {node: _mean_states(live, prompts, asking.over) for node, prompts in read_by.items()}  # (layers, width)
    routers = {place.layer: name for name, place in locations.items() if place is not None and ROUTER.search(name)}
    found = {}
    for node, mean in means.items():
        others = [each for other, each in means.items() if other != node]
        rows = mean - torch.stack(others).mean(dim=0) if asking.less_others and others else mean
        lengths = rows.norm(dim=1, keepdim=True)
        if not bool(rows.isfinite().all()) or not bool((lengths > SHORTEST).any()):
            raise StatisticsError(
                f"rows of routers for the source {node.name!r}: its prompts and those of other sources have the same "
                "states in the base, or such that are no numbers; expected prompts that differ "
                "(merge.parameter.routers.statistics.files)"
            )
        rows = rows / lengths.clamp(min=SHORTEST)
        named = {routers[layer]: row for layer, row in enumerate(rows.float().cpu())}
        found[node] = Sums(
            {name: (torch.float32, tuple(row.shape)) for name, row in named.items()},
            iter(named.items()),
            {name: name for name in named},
        )
    return found


def best_answered(
    live: LiveModel, engine: Engine, texts: Sequence[TokenText], sources: Sequence[Checkpoint]
) -> dict[Checkpoint, list[tuple[int, ...]]]:
    """For each source the prompts that it answers better than the others: 1 / N of all, one at least.

    By the mean log-likelihood of the reference's tokens, less the highest of other sources; of equal ones the first.
    """
    likelihoods = torch.empty(len(sources), len(texts), dtype=torch.float64)
    for number, node in enumerate(sources):
        live.become(node, engine)
        likelihoods[number] = torch.tensor([_likelihood(live, text) for text in texts], dtype=torch.float64)
        if not bool(likelihoods[number].isfinite().all()):
            raise StatisticsError(
                f"rows of routers: the source {node.name!r} gives references log-likelihoods that are no numbers"
            )
    found = {}
    for number, node in enumerate(sources):
        others = torch.cat([likelihoods[:number], likelihoods[number + 1 :]])
        ahead = likelihoods[number] - others.max(dim=0).values if len(others) else likelihoods[number]
        order = sorted(range(len(texts)), key=lambda place: (-float(ahead[place]), place))
        found[node] = [_prompt(texts[place]) for place in sorted(order[: max(1, len(texts) // len(sources))])]
    return found


def own_prompts(live: LiveModel, file: Path) -> list[tuple[int, ...]]:
    """The lines of a file as tokens; ValueError for a file without any."""
    lines = [line for line in read_text(file).removeprefix("\ufeff").splitlines() if line.strip()]
    found = [tuple(live.tokenizer(line)["input_ids"]) for line in lines]
    if not found or not all(found):
        raise ValueError(f"{file}: expected a prompt on each line, of a token or more, got {len(lines)} such lines")
    return found


def _prompt(text: TokenText) -> tuple[int, ...]:
    prompt = text.tokens[: -text.answer]
    if not prompt:
        raise StatisticsError("rows of routers: expected examples with a prompt, got one that is a reference alone")
    return prompt


@torch.no_grad()
def _likelihood(live: LiveModel, text: TokenText) -> float:
    logits = read(live, text)[-text.answer - 1 : -1].float()
    answer = torch.tensor(text.tokens[-text.answer :], device=live.device)
    return float(logits.log_softmax(dim=-1).gather(1, answer.unsqueeze(1)).double().mean())


@torch.no_grad()
def _mean_states(live: LiveModel, prompts: Sequence[Sequence[int]], over: str) -> Tensor:
    """The mean over prompts of the states that enter each layer, (layers, width), in float64. One prompt at a time."""
    total: Tensor | float = 0.0
    for prompt in prompts:
        tokens = torch.tensor([list(prompt)], device=live.device)
        states = live.module(input_ids=tokens, use_cache=False, output_hidden_states=True).hidden_states[:-1]
        each = torch.stack([state[0] for state in states]).double()  # (layers, tokens, width)
        total = total + (each[:, -1] if over == "last" else each.mean(dim=1))
    assert isinstance(total, Tensor)
    return total / len(prompts)
