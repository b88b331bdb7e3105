"""Does an engine serve the model that was merged? Two recipes in turn, against the same models in transformers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from evohydra.families import LiveModel
from evohydra.families.serving import Answer, TextEngine
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Group, Merge, Node

PROMPTS, LENGTH, WRITTEN = 4, 24, 8
SHRUNK = 0.75  # of every weight: another model in each tensor, whose numbers stay small
# Of a token's log-probability, on average over a prompt: what rounding may make of it.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.1}
APART = 5  # tolerances, by which the two models have to differ, so that one cannot be taken for the other


TIMES = (1.0, 4.0, 16.0, 64.0)  # by which adapters are multiplied until their sums can be told apart


class ProofError(ValueError):
    """An engine whose models are not those that were merged, or models that prove nothing."""


@dataclass(frozen=True)
class Expected:
    """What transformers makes of a recipe: for each prompt the mean log-probability of a token, and a greedy answer.

    margins: of each token of an answer by how much its logit is larger than the next one.
    """

    likely: list[float]
    written: list[list[int]]
    margins: list[list[float]]


def recipes(source: Checkpoint, names: Sequence[str]) -> dict[str, Node]:
    """A source, and the same with smaller weights."""
    group = Group("all", tuple(names), {"weight": (SHRUNK,)})
    return {
        source.name: source,
        f"{SHRUNK} times {source.name}": Merge("linear", None, (source,), (group,), {"normalize": False}),
    }


def of_adapters(
    base: Checkpoint, models: Sequence[Checkpoint], live: LiveModel, engine: Engine
) -> tuple[dict[str, Node], dict[str, Expected]]:
    """Two sums of all adapters, and what they make of the prompts when they are merged.

    They are as near to the base as lets them be told apart: adapters that change little are multiplied.
    """
    names, nodes, known = tuple(engine.shapes(base)), dict[str, Node](), dict[str, Expected]()
    for times in TIMES:
        for size in (times, -times):
            group = Group("all", names, {"weight": (size,) * len(models)})
            nodes[f"{size:g} times the adapters"] = Merge("task_arithmetic", base, tuple(models), (group,))
        nodes = dict(list(nodes.items())[-2:])
        known = {name: expected(live, engine, node) for name, node in nodes.items()}
        if _apart(known) > APART * TOLERANCE[live.dtype]:
            break
    return nodes, known


def _apart(known: dict[str, Expected]) -> float:
    """The largest difference of a prompt's mean log-probability between two models."""
    one, other = known.values()
    return max(abs(a - b) for a, b in zip(one.likely, other.likely, strict=True))


def prompts(vocabulary: int) -> list[list[int]]:
    """Tokens from all over the vocabulary."""
    tokens = (torch.arange(PROMPTS * LENGTH) * 7919 + 11) % vocabulary
    found: list[list[int]] = tokens.reshape(PROMPTS, LENGTH).tolist()
    return found


@torch.inference_mode()
def expected(live: LiveModel, engine: Engine, node: Node) -> Expected:
    """What `node` makes of the prompts in transformers."""
    live.become(node, engine)
    module = live.module
    asked = prompts(module.get_input_embeddings().num_embeddings)  # type: ignore[operator]
    tokens = torch.tensor(asked, device=live.device)
    logits = module(input_ids=tokens).logits.float()
    likely = logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None]).mean(dim=(1, 2))
    margins = []
    for _ in range(WRITTEN):
        best = logits[:, -1].topk(2, dim=-1)
        margins.append((best.values[:, 0] - best.values[:, 1]).tolist())
        tokens = torch.cat([tokens, best.indices[:, :1]], dim=1)
        logits = module(input_ids=tokens).logits.float()
    written = tokens[:, LENGTH:].tolist()
    return Expected(likely.tolist(), written, [list(each) for each in zip(*margins, strict=True)])


def prove(
    served: TextEngine,
    engine: Engine,
    models: dict[str, Node],
    known: dict[str, Expected],
    dtype: torch.dtype,
    vocabulary: int,
    become: Callable[[Node, Engine], None] | None = None,
) -> float:
    """The largest difference of a prompt's mean log-probability; ProofError, with both numbers, where it is too large.

    The first model comes once more at the end: the one before it must have left nothing. become: how the engine becomes
    a model; None: by merging.
    """
    allowed, worst = TOLERANCE[dtype], 0.0
    apart = _apart(known)
    if not apart > APART * allowed:
        raise ProofError(
            f"backend=vllm: the models that it is tried with, {' and '.join(models)}, differ by {apart:.3g} per token, "
            f"where more than {APART * allowed:.3g} are needed to tell them apart. Choose backend=transformers"
        )
    asked = prompts(vocabulary)
    for name in [*models, next(iter(models))]:
        (become or served.become)(models[name], engine)
        told = served.log_probabilities(asked)
        for number, (each, wanted) in enumerate(zip(told, known[name].likely, strict=True)):
            got = sum(value for value, _ in each) / len(each)
            worst = max(worst, abs(got - wanted))
            if not abs(got - wanted) <= allowed:
                raise ProofError(
                    f"backend=vllm: vLLM does not serve the model that was merged: {name}, prompt {number}: expected a "
                    f"log-likelihood per token of {wanted:.6f} (transformers), got {got:.6f}, with a tolerance of "
                    f"{allowed:g}. Choose backend=transformers"
                )
        _check_written(name, served.answers(asked, limit=WRITTEN, stop=(), ends=(), penalty=1.0), known[name], allowed)
    return worst


def _check_written(name: str, answers: Sequence[Answer], wanted: Expected, allowed: float) -> None:
    for number, answer in enumerate(answers):
        got = answer.tokens
        for place, (token, margin) in enumerate(zip(wanted.written[number], wanted.margins[number], strict=True)):
            if got[place] == token:
                continue
            if margin > 2 * APART * allowed:
                raise ProofError(
                    f"backend=vllm: vLLM does not serve the model that was merged: {name}, prompt {number}, token "
                    f"{place} of the answer: expected {token} (transformers, by a margin of {margin:.4f} in logits), "
                    f"got {got[place]}. Choose backend=transformers"
                )
            break  # a near-tie, after which both write on from different texts
