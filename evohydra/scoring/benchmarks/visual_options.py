"""How questions about images are asked, how long answers may be, and how they have ended."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from evohydra.checks import Count
from evohydra.files import Plain
from evohydra.scoring.benchmarks import Change
from evohydra.scoring.benchmarks.images import MAX_PIXELS

# The paper's: beam search, and long answers.
GENERATION = {"do_sample": False, "num_beams": 5, "repetition_penalty": 1.5, "max_new_tokens": 512}
LIMIT = "max_new_tokens"


@dataclass(frozen=True)
class VQAOptions:
    """How questions are asked and scored.

    metric is a function (`Metric`) as package.module:function. prompt is a text with {image} and {question}, None the
    processor's chat template, which `system_prompt` may begin. generation_kwargs are merged over the paper's. shuffle
    is the seed of the order in which splits are cut, limit caps the images of each split. cache_gb bounds the decoded
    and preprocessed images in memory, features_gb the vision features. sampling_seed: where answers are sampled, their
    random numbers follow from it and the example. second_prompt: as prompt, in other words, for the audit of a winner.
    """

    metric: str = "evohydra.scoring.benchmarks.rouge:rouge_l"
    prompt: str | None = None
    second_prompt: str | None = None
    system_prompt: str | None = None
    generation_kwargs: Plain = field(default_factory=dict)
    batch_size: Count = 4
    limit: Count | None = None
    shuffle: int | None = None
    cache_gb: Annotated[float, Ge(0)] = 4.0
    features_gb: Annotated[float, Ge(0)] = 8.0
    max_pixels: Count = MAX_PIXELS
    sampling_seed: int = 0


def lacking(change: Change, generation: Plain, second_prompt: str | None) -> str | None:
    """Why questions cannot be asked with this change; None where they can."""
    if change == "length" and not isinstance(generation.get(LIMIT), int):
        return f"its generation_kwargs have no {LIMIT}"
    if change == "wording" and not second_prompt:
        return "it has no second wording of its prompt (second_prompt)"
    return None


def doubled(generation: Plain) -> dict[str, object]:
    """What differs where answers may be twice as long."""
    return {LIMIT: 2 * int(generation[LIMIT])}


def ends_of(tokens: Tensor, ends: Collection[int], limit: int | None) -> list[tuple[int, bool | None]]:
    """Of answers, (batch, tokens): how many tokens each has before one of `ends`, and whether it reached the limit.

    Answers that end early are filled up with such tokens. limit: None where it is not known.
    """
    ended = torch.isin(tokens, torch.tensor(sorted(ends), dtype=tokens.dtype, device=tokens.device))
    counts = torch.where(ended.any(dim=1), ended.int().argmax(dim=1), tokens.shape[1])
    return [(int(count), None if limit is None else int(count) >= limit) for count in counts]
