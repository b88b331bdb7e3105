"""Genomes of adapters as LoRA requests of vLLM: those that are asked the same are one batch, with an adapter each."""

import itertools
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import pad

from evohydra.families.genome_adapters import check_finite, parted
from evohydra.merging.engine import Engine
from evohydra.merging.low_rank import LowRank
from evohydra.recipe import Merge, digest

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM takes as max_lora_rank (MaxLoRARanks of vllm/config/lora.py)
MEMORY = Path("/dev/shm")
BATCHED = 2048  # tokens of a step


@dataclass(frozen=True)
class Adapters:
    """What vLLM is told of genomes that come as adapters.

    modules: by the names of tensors, those of the layers. rank: the largest sum of ranks. together: genomes in a batch.
    """

    modules: Mapping[str, str]
    rank: int
    together: int

    @property
    def targets(self) -> list[str]:
        """The last parts of the layers' names."""
        return sorted({place.rpartition(".")[2] for place in self.modules.values()})

    @property
    def options(self) -> dict[str, object]:
        """The arguments of `vllm.LLM`."""
        return {
            "enable_lora": True,
            "max_loras": self.together,
            "max_cpu_loras": self.together,
            "max_lora_rank": next(each for each in RANKS if each >= self.rank),
            "lora_target_modules": self.targets,  # a head among them takes no log-likelihoods of prompts (0.32.0)
            "max_num_batched_tokens": BATCHED,
        }


class Asks(Protocol):
    """vLLM, as far as requests with adapters need it."""

    def add(self, number: int, directory: Path) -> object:
        """Load the adapter in a directory; what requests with it carry."""
        ...

    def remove(self, number: int) -> None:
        """Forget it."""
        ...

    def told(self, texts: Sequence[Sequence[int]], asked: object, carried: Sequence[object]) -> list[object]:
        """What is told of each text, with the adapter that it carries."""
        ...

    def not_numbers(self) -> tuple[int, int]:
        """See `TextEngine`."""
        ...


@dataclass
class _Genome:
    """A genome that is loaded: its number, what its requests carry, and what was told of it ahead, by the question.

    failure: why it is none.
    """

    number: int
    carried: object
    failure: Exception | None = None
    ahead: dict[object, list[object]] = field(default_factory=dict)


class Genomes:
    """The genomes that vLLM holds as adapters: at most `together`, of which one is asked.

    What one is asked, those that come after it are asked in the same batch, and the answers are kept until they are
    asked it themselves. Where predictions of a batch of several are not numbers, each is asked alone: whose they are
    has to be known.
    """

    def __init__(self, adapters: Adapters, dtype: torch.dtype, vllm: Asks) -> None:
        self.adapters, self._dtype, self._vllm = adapters, dtype, vllm
        self._held: dict[str, _Genome] = {}  # in the order in which they are asked
        self._now: _Genome | None = None
        self._alone = False
        self._numbers = itertools.count(1)

    def holds(self, node: Merge) -> bool:
        """Whether it is one of those that are loaded."""
        return digest(node) in self._held

    def load(self, nodes: Sequence[Merge], engine: Engine) -> None:
        """Take these genomes in the place of those before; of more than `together` the first ones."""
        self.drop()
        for node in nodes[: self.adapters.together]:
            if (key := digest(node)) in self._held:
                continue
            number, carried, failure = next(self._numbers), None, None
            try:
                changes, _ = parted(node, engine)
                check_finite(node, changes)
                with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as room:
                    write(Path(room), changes, self.adapters, self._dtype)
                    carried = self._vllm.add(number, Path(room))
            except (ArithmeticError, ValueError) as reason:
                failure = reason
            self._held[key] = _Genome(number, carried, failure)

    def ask_next(self, node: Merge) -> None:
        """Questions are of this genome from now on; raises what made it none."""
        key = digest(node)
        for other in list(itertools.takewhile(lambda each: each != key, self._held)):
            self._forget(other)
        self._now = self._held[key]
        if self._now.failure is not None:
            raise self._now.failure

    def told(self, texts: Sequence[Sequence[int]], asked: object, question: object) -> list[object]:
        """What is told of each text; `question` tells what is asked from all else."""
        assert self._now is not None
        if question in self._now.ahead:
            return self._now.ahead.pop(question)
        lanes = [each for each in self._held.values() if each.failure is None]
        lanes = [self._now] if self._alone else lanes
        found = self._vllm.told([*texts] * len(lanes), asked, [each.carried for each in lanes for _ in texts])
        if len(lanes) > 1 and self._vllm.not_numbers()[0]:
            self._alone = True
            return self.told(texts, asked, question)
        for place, lane in enumerate(lanes):
            lane.ahead[question] = found[place * len(texts) : (place + 1) * len(texts)]
        return self._now.ahead.pop(question)

    def drop(self) -> None:
        """Hold none."""
        for key in list(self._held):
            self._forget(key)
        self._now, self._alone = None, False

    def _forget(self, key: str) -> None:
        genome = self._held.pop(key)
        if genome.failure is None:
            self._vllm.remove(genome.number)


def write(directory: Path, changes: Mapping[str, LowRank], adapters: Adapters, dtype: torch.dtype) -> None:
    """An adapter in PEFT's format with one rank, to which smaller ones are filled up by zeros, and the scale 1."""
    rank = max(change.rank for change in changes.values())
    tensors: dict[str, Tensor] = {}
    for name, change in changes.items():
        more, place = rank - change.rank, f"base_model.model.{adapters.modules[name]}"
        tensors[f"{place}.lora_A.weight"] = pad(change.down, (0, 0, 0, more)).to(dtype).cpu().contiguous()
        tensors[f"{place}.lora_B.weight"] = pad(change.up, (0, more)).to(dtype).cpu().contiguous()
    save_file(tensors, directory / "adapter_model.safetensors", {"format": "pt"})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank, "bias": "none"}
    (directory / "adapter_config.json").write_text(json.dumps({**config, "target_modules": adapters.targets}))
