"""Families: all that differs between kinds of models (causal language models, vision-language models, diffusion)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from evohydra.families.comparison import Comparison
from evohydra.families.rules import AddedAdapter as AddedAdapter
from evohydra.families.rules import Rules as Rules
from evohydra.merging.checkpoints import TensorSource
from evohydra.merging.engine import Engine
from evohydra.recipe import LayerNames, Node, Stack
from evohydra.spaces.grouping import Location


class Fused(Protocol):
    """What is added to a tensor of the merge."""

    def added_to(self, tensor: Tensor) -> Tensor:
        """A new tensor: the sum, in the type and on the device of `tensor`."""
        ...


ADAPTERS = "adapters"  # the folder of those that are kept beside a written merge


@dataclass(frozen=True)
class Overlay:
    """How the merge differs from the checkpoint whose files it takes.

    names: of its tensors, None where they are the checkpoint's; config: keys of its configuration that change (of
    diffusion models, of its scheduler's);
    tokenizer: the one it has instead of the checkpoint's, None for the checkpoint's own. folders: for models of several
    components where the files of each are, and merged: which of them recipes change. fused: what is added to the
    merge's tensors, by name, before they are used or written. kept: files of adapters that are loaded beside them, and
    their scales. adapters: all that were added, as a recipe file lists them. own: the directories of those sources, by
    name, that are scored under their own configuration. chosen: whether the configuration was chosen for layers that
    were published with other settings.
    """

    names: frozenset[str] | None = None
    config: Mapping[str, object] = field(default_factory=dict)
    tokenizer: Any = None
    folders: Mapping[str, Path] = field(default_factory=dict)
    merged: frozenset[str] = frozenset()
    fused: Mapping[str, Fused] = field(default_factory=dict)
    kept: Mapping[Path, float] = field(default_factory=dict)
    adapters: tuple[AddedAdapter, ...] = ()
    own: Mapping[str, Path] = field(default_factory=dict)
    chosen: bool = False


@dataclass(frozen=True)
class Part:
    """Tensors that are written into one folder: of the model those whose names begin with `prefix`, without it.

    stem: how their files are called, without shard and suffix.
    """

    prefix: str = ""
    stem: str = "model"


PUBLISHED = Overlay()


@dataclass(frozen=True)
class Aligned:
    """Sources of which each holds the same tensors in the same shapes, whatever they held when they were published.

    `files_from` names the source that gives configuration and tokenizer, `overlay` what changes in them; `left_out`
    says in a sentence each what of the sources is not in the merge; `copied` are the tensors that all have from one of
    them. `tokenizer` is the rule that was used, never "auto".
    """

    tensors: Mapping[str, TensorSource]
    files_from: str
    overlay: Overlay
    left_out: tuple[str, ...] = ()
    copied: frozenset[str] = frozenset()
    tokenizer: str = "same"


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


class OpensSources(Protocol):
    """How source models are found, read and brought to the same tensors.

    takes: the families, as dotted names of their classes, whose models may be sources beside its own.
    """

    takes: tuple[str, ...]

    def wanted(self, variant: str | None) -> tuple[str, ...]:
        """Patterns of the files of a repository that are needed, of those with weights the `variant`'s."""
        ...

    def open(self, path: Path, directory: Path, variant: str | None = None) -> TensorSource:
        """The tensors at `path`, as published; `directory` is the same, or says what a single file holds.

        Raises SourceError for what is missing, truncated or inconsistent.
        """
        ...

    def adapted(self, tensors: TensorSource, adapter: Path) -> TensorSource:
        """The tensors with a LoRA merged in as they are read; SourceError where it is not one for them."""
        ...

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

    def layout(self, directory: Path, names: Collection[str] | None = None) -> LayerNames:
        """How the tensors of its layers are called, among `names` (None: those of the checkpoint).

        Raises SourceError where its layers are not one plain list, or no rule says what ends their branches.
        """
        ...

    def depth(self, directory: Path) -> int:
        """The number of its layers."""
        ...

    def dtype(self, path: Path) -> torch.dtype:
        """The floating-point type in which the model at `path` was published."""
        ...


class RunsModels(Protocol):
    """How a model is held in memory. scored_as: the names of families whose benchmarks its models can answer."""

    scored_as: tuple[str, ...]

    def live_model(
        self,
        directory: Path,
        device: torch.device,
        dtype: torch.dtype,
        overlay: Overlay = PUBLISHED,
        sources: Mapping[str, Path] = ...,
        prefix_bytes: int = 0,
    ) -> LiveModel:
        """A model in memory with architecture, buffers and tokenizer of `directory`, but for what `overlay` changes.

        Its parameters hold arbitrary numbers where their shapes have changed. `sources` says by name where the sources
        of paths are, for a model that is to run some; `directory` is then the first source's. What paths share is
        kept within `prefix_bytes`. Raises SourceError where layers of the sources do not fit on one path.
        """
        ...


class WritesCheckpoints(Protocol):
    """How a merge is laid out in files.

    known_to_mergekit: whether a configuration of mergekit can say what its merges are. library: the package that loads
    them. task: what they do, in the words of the hub.
    """

    known_to_mergekit: bool
    library: str
    task: str

    def path_config(self, directories: Mapping[str, Path], path: Stack, chosen: bool = False) -> dict[str, object]:
        """The keys of config.json that change when `path` is written as a plain checkpoint; `directories` by name.

        With `chosen` layers are taken that were published with other settings, to be computed as the path's say. Raises
        ValueError for a path that runs but cannot be written so, SourceError for layers that do not fit.
        """
        ...

    def parts(self, overlay: Overlay) -> tuple[Part, ...]:
        """How the weights of a merge are laid out in files."""
        ...

    def copy_files(self, directory: Path, target: Path, dtype: torch.dtype, overlay: Overlay = PUBLISHED) -> None:
        """Write all of a checkpoint but its weights: configuration, tokenizer and so on, changed as `overlay` says."""
        ...

    def verify(self, directory: Path, live: LiveModel) -> Comparison:
        """In what the checkpoint in `directory`, read back, differs from `live`: in weights, and in outputs."""
        ...


@runtime_checkable
class MakesMixtures(Protocol):
    """A family whose models have a form as mixtures of experts."""

    def upcycled(
        self, directories: Mapping[str, Path], aligned: Aligned, experts: int, experts_per_token: int
    ) -> Aligned:
        """Aligned sources as mixtures of `experts`, of which each is the source's own and so many answer a token.

        Raises SourceError for sources that have no such form.
        """
        ...


@runtime_checkable
class Family(OpensSources, RunsModels, WritesCheckpoints, Protocol):
    """A kind of model; all that differs between kinds is in its three protocols."""

    name: str
