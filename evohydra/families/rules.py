"""What is done where sources differ, and what is added to their merge."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Le

from evohydra.checks import check_fields, check_settings
from evohydra.families.token_rows import TokenRow
from evohydra.merging.checkpoints import SourceError

MOST_PADDING = 2**16  # rows: multiples of 64 or 128 are usual
AUTO = "auto"  # of `tokenizer`
CHOICES = ("same", "base", "allow")  # of `config`, besides names of sources


@dataclass(frozen=True)
class AddedAdapter:
    """A LoRA that is added after the merge: fused into its weights, or kept beside them; `sha256` is its file's."""

    path: str
    scale: float = 1.0
    fuse: bool = True
    sha256: str | None = None

    @classmethod
    def parse(cls, entry: object) -> "AddedAdapter":
        """An entry of the list `adapters` of a configuration; ValueError for anything else."""
        known = set(cls.__dataclass_fields__)
        if not isinstance(entry, Mapping) or not isinstance(entry.get("path"), str) or set(entry) - known:
            raise ValueError(f"adapters: expected {{path, scale, fuse}} for each, got {entry!r}")
        check_settings("adapters", cls, entry)
        return cls(entry["path"], float(entry.get("scale", 1.0)), entry.get("fuse", True), entry.get("sha256"))


@dataclass(frozen=True)
class Rules:
    """What to do where sources differ; the defaults refuse.

    tokenizer: "same" (all must agree), "base", "union", or the name of the source whose tokenizer the merge has. "auto"
    is what of these fits sources that agree but for padding (`padding_tokens`); `Aligned.tokenizer` says which.
    config: whose configuration the merge has where sources differ in what their layers are computed with: "same" (none
    may), "base", the name of a source, or "allow" (that of the source whose files it has in any case).
    missing: "error", or "base": the merge has the base's tensors, and sources that lack some take the base's.
    pad_vocabulary_to: embeddings and head get rows up to a multiple of it.
    texts: what models are asked with: tokens that stand there are no padding.
    tokens_only: they have rows for tokens only, before they are padded, as mergekit has them.
    tokens: rows that are chosen token by token; those that the tokenizer lacks are added to it.
    chat_template: that of the merge's tokenizer, as Jinja; None for its own.
    allow_other_base: sources on another base are a warning.
    allow_other_splitting: tokenizers with the same tokens that cut texts otherwise are a warning.
    components: of diffusion models, for each component "merge" or the name of the source that gives it; those that are
    not named are the family's to choose.
    adapters: of diffusion models, LoRAs for the merge, whatever it is a merge of.
    experts_per_token: the merge is a mixture of experts, one for each source, of which so many answer a token; None:
    it has the architecture of its sources.
    """

    tokenizer: str = "same"
    missing: Literal["error", "base"] = "error"
    pad_vocabulary_to: Annotated[int, Ge(1), Le(MOST_PADDING)] | None = None
    allow_other_base: bool = False
    components: Mapping[str, str] = field(default_factory=dict)
    adapters: tuple[AddedAdapter, ...] = ()
    config: str = "same"
    tokens_only: bool = False
    tokens: Mapping[str, TokenRow] = field(default_factory=dict)
    chat_template: str | None = None
    texts: tuple[str, ...] = ()
    allow_other_splitting: bool = False
    experts_per_token: Annotated[int, Ge(1)] | None = None

    def __post_init__(self) -> None:
        check_fields("", self, but=("adapters", "tokens"))
        if not self.tokenizer:
            raise ValueError("tokenizer: expected auto, same, base, union or the name of a source, got ''")
        if not self.config:
            raise ValueError("config: expected same, base, allow or the name of a source, got ''")

    def to_dict(self) -> dict[str, object]:
        """As recipe files hold them: without what is looked at before a recipe is made."""
        left_out = [
            "texts",
            "allow_other_splitting",
            *(["experts_per_token"] if self.experts_per_token is None else []),
        ]
        return {key: value for key, value in asdict(self).items() if key not in left_out}

    def check_unused(self, *keys: str, why: str) -> None:
        """ValueError where one of the `keys` is not at its default."""
        for key in keys:
            if getattr(self, key) != getattr(Rules(), key):
                raise ValueError(f"{key}: {why}, got {getattr(self, key)!r}")


def config_from(names: tuple[str, ...], base: str | None, rules: Rules, owner: str) -> str:
    """The source whose configuration the merge has: that of the tokenizer's `owner`, unless another is chosen."""
    if rules.config in ("same", "allow"):
        return owner
    if rules.config == "base" and base is None:
        raise SourceError("config=base, but the sources name no base model")
    chosen = base if rules.config == "base" else rules.config
    if chosen is None or chosen not in names:
        known = sorted({*names, *CHOICES} - ({"base"} if base is None else set()))
        raise SourceError(f"config: expected one of {known}, got {rules.config!r}")
    if rules.missing == "base" and chosen != base:
        raise SourceError(f"missing=base gives the merge the base's configuration, got config={rules.config}")
    return chosen


def tokenizer_from(names: tuple[str, ...], base: str | None, rules: Rules) -> str:
    """The source whose tokenizer, or the start of it, the merge has."""
    if rules.tokenizer == "base" and base is None:
        raise SourceError("tokenizer=base, but the sources name no base model")
    if rules.tokenizer not in ("same", "base", "union", *names):
        raise SourceError(
            f"tokenizer: expected auto, same, base, union or one of the sources {sorted(set(names) - {base})}, "
            f"got {rules.tokenizer!r}"
        )
    if rules.missing == "base" and rules.tokenizer in names and rules.tokenizer != base:
        raise SourceError(
            f"missing=base gives the merge the base's configuration, and tokenizer={rules.tokenizer} that of the "
            "source: choose tokenizer=base or union"
        )
    if base is not None and (rules.tokenizer in ("base", "union") or rules.missing == "base"):
        return base
    return rules.tokenizer if rules.tokenizer in names else names[0]
