"""Ranges of genes that an optimizer may widen: those that search fixed ranges get none."""

from evohydra.assembly.parts_of_spaces import with_each
from evohydra.assembly.settings import Spec
from evohydra.checks import check
from evohydra.files import Plain
from evohydra.searching.optimizers import WidensRanges
from evohydra.spaces.gene_spec import Pair, parse_spec


def with_ranges_for(merge: Spec, strategy: object) -> Spec:
    """`merge`, without `widest` of its genes where `strategy`, which makes the optimizer, does not widen ranges."""
    if isinstance(getattr(strategy, "func", strategy), WidensRanges):
        return merge
    return with_each(merge, _all_fixed)


def _all_fixed(parameter: Plain) -> Plain:
    """A merge without `widest` of its genes."""
    fixed = dict(parameter)
    if isinstance(genes := parameter.get("genes"), dict):
        fixed["genes"] = {name: _fixed(name, gene) for name, gene in genes.items()}
    return fixed


def check_ranges(merge: Spec, strategy: object) -> None:
    """ValueError for a gene of `merge` whose range cannot become as wide as it says, where `strategy` widens ranges."""
    parameter = with_ranges_for(merge, strategy).get("parameter") or {}
    for name, fields in (parameter.get("genes") or {}).items():
        if isinstance(fields, dict) and fields.get("widest") is not None:
            parse_spec(name, fields).gene(name)


def _fixed(name: str, gene: object) -> object:
    if not isinstance(gene, dict):
        return gene
    check(f"genes.{name}.widest", Pair | None, gene.get("widest"))
    fixed: Plain = {key: value for key, value in gene.items() if key != "widest"}
    return fixed
