"""Families: all that differs between kinds of models (causal language models, vision-language models, diffusion)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from evohydra.checkpoints import TensorSource
from evohydra.merge import Engine
from evohydra.recipe import Layout, Node, Stack
from evohydra.spaces.grouping import Location


@dataclass(frozen=True)
class Rules:
    """What to do where sources differ; the defaults refuse.

    tokenizer: "same" (all must agree), "base", "union", or the name of the source whose tokenizer the merge has.
    missing: "error", or "base": the merge has the base's tensors, and sources that lack some take the base's.
    pad_vocabulary_to: embeddings and head get rows up to a multiple of it.
    allow_other_base: sources on another base are a warning.
    """

    tokenizer: str = "same"
    missing: str = "error"
    pad_vocabulary_to: int | None = None
    allow_other_base: bool = False

    def __post_init__(self) -> None:
        if self.missing not in ("error", "base"):
            raise ValueError(f"missing: expected error or base, got {self.missing!r}")
        if not isinstance(self.tokenizer, str) or not self.tokenizer:
            raise ValueError(f"tokenizer: expected same, base, union or the name of a source, got {self.tokenizer!r}")
        multiple = self.pad_vocabulary_to
        if multiple is not None and (isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1):
            raise ValueError(f"pad_vocabulary_to: expected null or a whole number of at least 1, got {multiple!r}")
        if not isinstance(self.allow_other_base, bool):
            raise ValueError(f"allow_other_base: expected true or false, got {self.allow_other_base!r}")


@dataclass(frozen=True)
class Form:
    """How the merge differs from the checkpoint whose files it takes.

    names: of its tensors, None where they are the checkpoint's; config: keys of its configuration that change;
    tokenizer: the one it has instead of the checkpoint's, None for the checkpoint's own.
    """

    names: frozenset[str] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Any = None


PUBLISHED = Form()


@dataclass(frozen=True)
class Aligned:
    """Sources of which each holds the same tensors in the same shapes, whatever they held when they were published.

    `files_from` names the source that gives configuration and tokenizer, `form` what changes in them; `left_out` says
    in a sentence each what of the sources is not in the merge.
    """

    tensors: Mapping[str, TensorSource]
    files_from: str
    form: Form
    left_out: tuple[str, ...] = ()


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
        """Its parameters, by the name that each has in the checkpoints; views where several are one in memory."""
        ...

    def become(self, node: Node, engine: Engine) -> None:
        """Make this the model that `node` describes, in place; paths share the layers that they go through.

        Raises MergeError where a merged tensor is not finite, ValueError for a recipe that cannot be run.
        """
        ...

    def expect(self, recipes: Sequence[Node]) -> None:
        """Tell which recipes will be run next, in this order, so that what they share is computed once."""
        ...


class Family(Protocol):
    """A kind of model.

    takes: the families, as dotted names of their classes, whose models may be sources beside its own. scored_as: the
    names of families whose benchmarks its models can answer. known_to_mergekit: whether a configuration of mergekit
    can say what its merges are.
    """

    name: str
    takes: tuple[str, ...]
    scored_as: tuple[str, ...]
    known_to_mergekit: bool

    def align(
        self, directories: Mapping[str, Path], tensors: Mapping[str, TensorSource], base: str | None, rules: Rules
    ) -> Aligned:
        """The sources brought to the same tensors as far as `rules` allow; nothing is read before it is asked for.

        `base` is the name of the base among them. Raises SourceError, with what differs, where they cannot be merged.
        """
        ...

    def align_layers(
        self, directories: Mapping[str, Path], tensors: Mapping[str, TensorSource], first: str, rules: Rules
    ) -> Aligned:
        """Sources of which only layers are taken, but for `first`, which gives all else; they may differ in depth.

        Raises SourceError, with what differs, where a path cannot lead through the layers of all.
        """
        ...

    def locations(
        self, directory: Path, names: tuple[str, ...], copied: frozenset[str] = frozenset()
    ) -> dict[str, Location | None]:
        """Where each tensor sits; None: copied, never merged, as are those of `copied` (integers and booleans)."""
        ...

    def layout(self, directory: Path, names: Collection[str] | None = None) -> Layout:
        """How the tensors of its layers are called, among `names` (None: those of the checkpoint).

        Raises SourceError where its layers are not one plain list, or no rule says what ends their branches.
        """
        ...

    def depth(self, directory: Path) -> int:
        """The number of its layers."""
        ...

    def path_config(self, directories: Mapping[str, Path], path: Stack) -> dict[str, Any]:
        """The keys of config.json that change when `path` is written as a plain checkpoint; `directories` by name.

        Raises ValueError for a path that runs but cannot be written so, SourceError for layers that do not fit.
        """
        ...

    def live_model(
        self,
        directory: Path,
        device: torch.device,
        dtype: torch.dtype,
        form: Form = PUBLISHED,
        sources: Mapping[str, Path] = ...,
        prefix_bytes: int = 0,
    ) -> LiveModel:
        """A model in memory with the architecture, buffers and tokenizer of `directory`, but for what `form` changes.

        Its parameters hold arbitrary numbers where their shapes have changed. `sources` says by name where the sources
        of paths are, for a model that is to run some; `directory` is then the first source's. What paths share is
        kept within `prefix_bytes`. Raises SourceError where layers of the sources do not fit on one path.
        """
        ...

    def dtype(self, directory: Path) -> torch.dtype:
        """The floating-point type in which the model was published."""
        ...

    def copy_files(self, directory: Path, target: Path, dtype: torch.dtype, form: Form = PUBLISHED) -> None:
        """Write all of a checkpoint but its weights: configuration, tokenizer and the like, changed as `form` says."""
        ...

    def verify(self, directory: Path, live: LiveModel) -> float:
        """The largest difference between the outputs of the checkpoint in `directory` and `live`, over the largest."""
        ...
