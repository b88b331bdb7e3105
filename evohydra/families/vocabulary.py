"""Vocabularies that differ: rows of embeddings and head by token, whatever row each source keeps a token in.

A row that a source lacks is the base's, else the mean of the rows of the sources that have the token; as in mergekit
(tokenizer/embed.py), but the mean never counts a source that lacks it, and a token of one source is not special. A row
that belongs to no token (padding) is the source's own, else that of the tokenizer's owner, else the mean of the
source's rows of tokens, as in mergekit: a row of zeros would win wherever all logits are negative.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from evohydra.checks import NOTHING
from evohydra.families.tensor_sets import LAYER
from evohydra.families.token_rows import TokenRow
from evohydra.merging.checkpoints import SourceError, TensorSource

EMBEDDING = re.compile(r"(embed|wte|wpe)")
# Embeddings and matrices at the edges of a model that have no row for each token.
NOT_OF_TOKENS = re.compile(r"wpe|position|token_type|relative|rel_embeddings|embeddings_project|pooler|classifier")


@dataclass(frozen=True)
class Vocabulary:
    """The row of each token, all below `rows`, the number of rows of the embeddings."""

    tokens: Mapping[str, int]
    rows: int


@dataclass(frozen=True)
class Rows:
    """Where the rows of one source come from.

    own: (rows,) its own row for each row of the merge, -1 where it has none; gifts: for donors by name, positions in
    the merge and their rows in the donor's tensors, (n,) each. A position with several donors gets their mean. named:
    (rows,) whether a row is a token's.
    """

    own: Tensor
    gifts: tuple[tuple[str, Tensor, Tensor], ...]
    named: Tensor


def embeddings_of(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The name of the input embeddings, the first matrix among the embeddings; None where there is none."""
    found = (
        name
        for name, shape in shapes.items()
        if len(shape) == 2
        and EMBEDDING.search(name)
        and not NOT_OF_TOKENS.search(name)
        and not LAYER.search(name)
        and "embed_out" not in name
    )
    return next(found, None)


def rows_of(tensors: TensorSource) -> int:
    """The number of rows of the input embeddings; 0 where there are none."""
    name = embeddings_of(tensors.shapes)
    return tensors.shapes[name][0] if name is not None else 0


def has_token_rows(name: str, shape: tuple[int, ...], rows: int) -> bool:
    """Whether a tensor has a row for each token: embeddings, the head and its bias."""
    if LAYER.search(name) or NOT_OF_TOKENS.search(name) or not shape or shape[0] != rows:
        return False
    return len(shape) == 2 or "lm_head" in name


def plan(
    vocabularies: Mapping[str, Vocabulary],
    target: Vocabulary,
    owner: str,
    base: str | None,
    padding: bool = True,
    chosen: Mapping[str, TokenRow] = NOTHING,
) -> dict[str, Rows]:
    """Where each source's rows come from in a merge with the vocabulary `target`, that of `owner` or made from it.

    Without `padding`, rows of no token are never those of a source. Rows of the tokens in `chosen` are what these say,
    whatever others would be given; SourceError for rows that no source has.
    """
    named = torch.zeros(target.rows, dtype=torch.bool)
    named[list(target.tokens.values())] = True
    own = {name: _own_rows(vocabulary, target, named, padding) for name, vocabulary in vocabularies.items()}
    rows = {name: Rows(own[name], _gifts(name, own, named, owner, base), named) for name in vocabularies}
    if not chosen:
        return rows
    forced = [target.tokens[token] for token, row in chosen.items() if row.force]
    given = [
        (row.source, target.tokens[token], _row_of(vocabularies, token, row))
        for token, row in chosen.items()
        if row.source is not None
    ]
    decided = torch.tensor([target.tokens[token] for token in chosen])
    return {name: _with_chosen(each, forced, decided, given) for name, each in rows.items()}


def _row_of(vocabularies: Mapping[str, Vocabulary], token: str, row: TokenRow) -> int:
    assert row.source is not None
    theirs = vocabularies.get(row.source)
    if theirs is None:
        raise SourceError(
            f"tokens: the row of {token!r}: expected one of the sources {sorted(vocabularies)}, got {row.source!r}"
        )
    wanted = token if row.token is None else row.token
    found = wanted if isinstance(wanted, int) else theirs.tokens.get(wanted, -1)
    if not 0 <= found < theirs.rows:
        raise SourceError(
            f"tokens: the row of {token!r} is to be that of {wanted!r} in {row.source!r}, which has no such token, or "
            f"no row for it (it has {theirs.rows} rows)"
        )
    return found


def _with_chosen(rows: Rows, forced: list[int], decided: Tensor, given: list[tuple[str, int, int]]) -> Rows:
    own = rows.own.clone()
    own[forced] = -1
    gifts = []
    for donor, at, theirs in rows.gifts:
        kept = ~torch.isin(at, decided)
        gifts.append((donor, at[kept], theirs[kept]))
    for donor, position, row in given:
        if own[position] < 0:
            gifts.append((donor, torch.tensor([position]), torch.tensor([row])))
    return Rows(own, tuple(gifts), rows.named)


def _own_rows(vocabulary: Vocabulary, target: Vocabulary, named: Tensor, with_padding: bool) -> Tensor:
    rows = torch.full((target.rows,), -1)
    unnamed = torch.ones(vocabulary.rows, dtype=torch.bool)
    unnamed[list(vocabulary.tokens.values())] = False
    shared = min(vocabulary.rows, target.rows) if with_padding else 0
    padding = (~named[:shared] & unnamed[:shared]).nonzero().flatten()
    rows[padding] = padding
    both = [(at, vocabulary.tokens[token]) for token, at in target.tokens.items() if token in vocabulary.tokens]
    if both:
        positions, sources = torch.tensor(both).T
        rows[positions] = sources
    return rows


def _gifts(
    name: str, own: Mapping[str, Tensor], named: Tensor, owner: str, base: str | None
) -> tuple[tuple[str, Tensor, Tensor], ...]:
    lacking = own[name] < 0
    from_base = own[base] >= 0 if base is not None else torch.zeros_like(lacking)
    gifts = []
    for donor, rows in own.items():
        gives = lacking & (rows >= 0) & torch.where(named, ~from_base | (donor == base), donor == owner)
        if gives.any():
            at = gives.nonzero().flatten()
            gifts.append((donor, at, rows[at]))
    return tuple(gifts)


class TokenRows:
    """The source `name` of `sources` with the rows of the merge's vocabulary, taken together when a tensor is read."""

    def __init__(self, name: str, sources: Mapping[str, TensorSource], rows: Rows) -> None:
        self._sources, self._tensors, self._rows = sources, sources[name], rows
        size = len(rows.own)
        before = rows_of(self._tensors)
        self._by_token = {n for n, shape in self._tensors.shapes.items() if has_token_rows(n, shape, before)}
        self._unmoved = bool((rows.own == torch.arange(size)).all())
        self.shapes: Mapping[str, tuple[int, ...]] = {
            n: (size, *shape[1:]) if n in self._by_token else shape for n, shape in self._tensors.shapes.items()
        }

    def read(self, name: str) -> Tensor:
        """The tensor `name`, in the source's own type; padding that no source has is the mean of its tokens' rows."""
        tensor = self._tensors.read(name)
        if name not in self._by_token:
            return tensor
        own, gifts = self._rows.own, self._rows.gifts
        if self._unmoved:
            return tensor[: len(own)]
        rows = tensor[own.clamp(min=0)]
        rows[own < 0] = 0
        if gifts:
            positions = torch.unique(torch.cat([at for _, at, _ in gifts]))
            total = torch.zeros((len(positions), *tensor.shape[1:]))  # float32, as merges are
            donors = torch.zeros(len(positions))
            for donor, at, theirs in gifts:
                places = torch.searchsorted(positions, at)
                total[places] += self._sources[donor].read(name)[theirs].float()
                donors[places] += 1
            mean = total / donors.reshape(-1, *[1] * (tensor.dim() - 1))
            rows[positions] = mean.to(tensor.dtype)
        padding = own < 0
        for _, at, _ in gifts:
            padding[at] = False
        padding &= ~self._rows.named
        if padding.any():
            rows[padding] = rows[self._rows.named].float().mean(dim=0).to(rows.dtype)
        return rows
