"""Families: all that differs between kinds of models (causal language models, vision-language models, diffusion)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from evohydra.checkpoints import TensorSource
from evohydra.spaces.grouping import Location


class LiveModel(Protocol):
    """The one model of a run that evaluates every genome: its parameters are overwritten in place."""

    @property
    def module(self) -> torch.nn.Module:
        """The model itself."""
        ...

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it is."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The type of its parameters."""
        ...

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """Its parameters, by the name that each has in the checkpoints."""
        ...


class Family(Protocol):
    """A kind of model."""

    name: str

    def check(self, directories: Mapping[str, Path], sources: Mapping[str, TensorSource]) -> None:
        """Raise SourceError unless these sources can be merged with one another."""
        ...

    def without_added_tokens(self, tensors: TensorSource, reference: TensorSource) -> TensorSource:
        """`tensors` without what belongs to tokens behind the last one of `reference`."""
        ...

    def locations(self, directory: Path, names: tuple[str, ...]) -> dict[str, Location | None]:
        """Where each tensor sits; None: copied, never merged."""
        ...

    def live_model(self, directory: Path, device: torch.device, dtype: torch.dtype) -> LiveModel:
        """A model in memory with the architecture, buffers and tokenizer of `directory`."""
        ...

    def dtype(self, directory: Path) -> torch.dtype:
        """The floating-point type in which the model was published."""
        ...

    def copy_files(self, directory: Path, target: Path, dtype: torch.dtype) -> None:
        """Write all of a checkpoint but its weights: configuration, tokenizer and the like."""
        ...

    def verify(self, directory: Path, live: LiveModel) -> float:
        """The largest difference between the outputs of the checkpoint in `directory` and `live`, over the largest."""
        ...
