"""What is done where sources differ, and what is added to their merge."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class AddedAdapter:
    """A LoRA that is added after the merge: fused into its weights, or kept beside them; `sha256` is its file's."""

    path: str
    scale: float = 1.0
    fuse: bool = True
    sha256: str | None = None

    @classmethod
    def parse(cls, entry: Any) -> "AddedAdapter":
        """An entry of the list `adapters` of a configuration; ValueError for anything else."""
        known = set(cls.__dataclass_fields__)
        if not isinstance(entry, Mapping) or not isinstance(entry.get("path"), str) or set(entry) - known:
            raise ValueError(f"adapters: expected {{path, scale, fuse}} for each, got {entry!r}")
        scale, fuse = entry.get("scale", 1.0), entry.get("fuse", True)
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale):
            raise ValueError(f"adapters: expected a finite number as scale, got {scale!r}")
        if not isinstance(fuse, bool):
            raise ValueError(f"adapters: expected true or false as fuse, got {fuse!r}")
        return cls(entry["path"], float(scale), fuse, entry.get("sha256"))


@dataclass(frozen=True)
class Rules:
    """What to do where sources differ; the defaults refuse.

    tokenizer: "same" (all must agree), "base", "union", or the name of the source whose tokenizer the merge has.
    config: whose configuration the merge has where sources differ in what their layers are computed with: "same" (none
    may), "base", the name of a source, or "allow" (that of the source whose files it has in any case).
    missing: "error", or "base": the merge has the base's tensors, and sources that lack some take the base's.
    pad_vocabulary_to: embeddings and head get rows up to a multiple of it.
    allow_other_base: sources on another base are a warning.
    components: of diffusion models, for each component "merge" or the name of the source that gives it; those that are
    not named are the family's to choose.
    adapters: of diffusion models, LoRAs for the merge, whatever it is a merge of.
    """

    tokenizer: str = "same"
    missing: str = "error"
    pad_vocabulary_to: int | None = None
    allow_other_base: bool = False
    components: Mapping[str, str] = field(default_factory=dict)
    adapters: tuple[AddedAdapter, ...] = ()
    config: str = "same"

    def __post_init__(self) -> None:
        if not isinstance(self.config, str) or not self.config:
            raise ValueError(f"config: expected same, base, allow or the name of a source, got {self.config!r}")
        if self.missing not in ("error", "base"):
            raise ValueError(f"missing: expected error or base, got {self.missing!r}")
        if not isinstance(self.tokenizer, str) or not self.tokenizer:
            raise ValueError(f"tokenizer: expected same, base, union or the name of a source, got {self.tokenizer!r}")
        multiple = self.pad_vocabulary_to
        if multiple is not None and (isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1):
            raise ValueError(f"pad_vocabulary_to: expected null or a whole number of at least 1, got {multiple!r}")
        if not isinstance(self.allow_other_base, bool):
            raise ValueError(f"allow_other_base: expected true or false, got {self.allow_other_base!r}")
        if not isinstance(self.components, Mapping) or not all(isinstance(v, str) for v in self.components.values()):
            raise ValueError(f"components: expected merge or the name of a source for each, got {self.components!r}")

    def check_unused(self, *keys: str, why: str) -> None:
        """ValueError where one of the `keys` is not at its default."""
        for key in keys:
            if getattr(self, key) != getattr(Rules(), key):
                raise ValueError(f"{key}: {why}, got {getattr(self, key)!r}")
