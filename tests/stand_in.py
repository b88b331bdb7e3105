"""An engine for tests, in the place of vLLM: it computes with transformers, one text at a time."""

from collections.abc import Sequence
from pathlib import Path

import torch

from evohydra.families.causal_lm import CausalLM
from evohydra.families.serving import Answer, EngineError, Served
from evohydra.merging.engine import Engine
from evohydra.recipe import Node
from evohydra.scoring.worker import Worker
from tests.commands import built, workspace


class StandIn:
    """A `TextEngine`. stale: it never becomes another model than the first. dead: it fails when it is asked."""

    def __init__(self, directory: Path, context: int = 64, *, stale: bool = False, dead: bool = False) -> None:
        self._live = CausalLM().live_model(directory, torch.device("cpu"), torch.float32)
        self.context, self.seconds, self.tokens = context, 0.0, 0
        self._stale, self._dead, self._became, self._seen, self._bad = stale, dead, 0, 0, 0

    def become(self, node: Node, engine: Engine) -> None:
        if not self._stale or not self._became:
            self._live.become(node, engine)
        self._became += 1

    def log_probabilities(self, texts: Sequence[Sequence[int]]) -> list[list[tuple[float, bool]]]:
        found = []
        for text in texts:
            told = self._logits(text).log_softmax(-1)[:-1]
            after = torch.tensor(text[1:])
            values = told.gather(-1, after[:, None])[:, 0].tolist()
            found.append(list(zip(values, (told.argmax(-1) == after).tolist(), strict=True)))
        return found

    def answers(
        self, prompts: Sequence[Sequence[int]], *, limit: int, stop: Sequence[str], ends: Sequence[int], penalty: float
    ) -> list[Answer]:
        assert penalty == 1.0
        return [self._answer(list(prompt), limit, stop, ends) for prompt in prompts]

    def _answer(self, text: list[int], limit: int, stop: Sequence[str], ends: Sequence[int]) -> Answer:
        written: list[int] = []
        while len(written) < limit:
            written.append(int(self._logits([*text, *written])[-1].argmax()))
            shown = self._live.tokenizer.decode(written)  # type: ignore[attr-defined]
            if written[-1] in ends or any(string in shown for string in stop):
                return Answer(tuple(written), False)
        return Answer(tuple(written), True)

    @torch.inference_mode()
    def _logits(self, text: Sequence[int]) -> torch.Tensor:
        if self._dead:
            raise EngineError("the stand-in has failed")
        logits: torch.Tensor = self._live.module(input_ids=torch.tensor([list(text)])).logits[0].float()
        self.tokens += len(text)
        self._seen += 1
        self._bad += int(not logits[-1].isfinite().all())
        return logits

    def not_numbers(self) -> tuple[int, int]:
        found, self._bad, self._seen = (self._bad, self._seen), 0, 0
        return found


def served(directory: Path, engine: StandIn) -> Served:
    """A live model whose recipes the stand-in runs."""
    cpu = torch.device("cpu")

    def whole():  # type: ignore[no-untyped-def]
        return CausalLM().live_model(directory, cpu, torch.float32)

    live = whole()
    return Served(live.module.to("meta"), live.tokenizer, engine, cpu, torch.float32, whole)


def worker(tmp_path: Path, made: StandIn | None) -> Worker:
    """That of a run on tiny models; its model is the stand-in's, if any."""
    run = built([*workspace(tmp_path), "budget=6"], tmp_path / "run")
    plain = run.make_executor().ask(lambda worker: worker)
    if made is None:
        return plain
    live = served(tmp_path / "one", made)
    first = plain.sources.models[0]
    return Worker(plain.engine, live, plain.benchmarks, plain.sources, plain.family, first)
