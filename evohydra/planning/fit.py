"""Whether sources fit together, what is merged and what is copied: what was found without reading their numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evohydra.hub.licences import Licences
from evohydra.spaces.genes import Axis


@dataclass(frozen=True)
class Published:
    """A source as its files have it: numbers of parameters, types of its tensors, tokens, what it is made of."""

    path: str
    parameters: int
    types: Mapping[str, int]
    tensors: int
    tokens: int | None = None
    other_tokens: int | None = None  # of its tokens those that the merge's tokenizer lacks or has elsewhere
    chat_template: bool | None = None
    same_chat_template: bool | None = None
    adapter: str | None = None


@dataclass(frozen=True)
class Fit:
    """The sources together.

    merged, copied: tensors of the merge. left_out: sentences about what is not in the merge, and about what differs.
    not_checked: what only reading all numbers tells. genes: by kind.
    """

    family: str
    files_from: str
    tokenizer: str
    sources: Mapping[str, Published]
    merged: int
    copied: int
    parameters: int
    dtype: str
    left_out: Sequence[str]
    not_checked: Sequence[str]
    licences: Licences
    axes: Sequence[Axis]
    examples_of_genes: Sequence[str]
