"""Rows of embeddings and head that a configuration chooses token by token."""

from collections.abc import Mapping
from dataclasses import dataclass

from evohydra.checks import check_entries, shown


@dataclass(frozen=True)
class TokenRow:
    """The row of a token in sources that lack it, with `force` in all.

    It is that of `token` in `source`: a string, the number of a row, None for the token itself. Without a source it is
    zeros.
    """

    source: str | None = None
    token: str | int | None = None
    force: bool = False

    @classmethod
    def parse(cls, entry: object, where: str) -> "TokenRow":
        """An entry of a recipe file; ValueError, which says `where`, for anything else."""
        kinds = {"source": str | None, "token": str | int | None, "force": bool}
        entries = check_entries(where, entry, {}, kinds)
        row = cls(**entries)  # type: ignore[arg-type]
        if row.source is None and row.token is not None:
            raise ValueError(f"{where}: expected a source for the row of {shown(row.token)}, got none")
        return row


def parse_rows(entries: Mapping[str, object], where: str) -> dict[str, TokenRow]:
    """The rows that a recipe file chooses, by token."""
    return {token: TokenRow.parse(entry, f"{where}[{shown(token)}]") for token, entry in entries.items()}
