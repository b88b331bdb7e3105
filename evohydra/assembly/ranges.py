"""Ranges of genes that an optimizer may widen: those that search fixed ranges get none."""

from evohydra.assembly.settings import Spec
from evohydra.checks import check
from evohydra.files import Plain
from evohydra.searching.optimizers import WidensRanges
from evohydra.spaces.gene_spec import Pair


def with_ranges_for(merge: Spec, strategy: object) -> Spec:
    """`merge`, without `widest` of its genes where `strategy`, what makes the optimizer, does not widen ranges."""
    if isinstance(getattr(strategy, "func", None), WidensRanges):
        return merge
    return {**merge, "parameter": _all_fixed(merge.get("parameter"))} if merge.get("parameter") else merge


def _all_fixed(parameter: object) -> object:
    """A space without `widest` of its genes, nor of those of its candidates."""
    if not isinstance(parameter, dict):
        return parameter
    fixed = dict(parameter)
    if isinstance(genes := parameter.get("genes"), dict):
        fixed["genes"] = {name: _fixed(name, gene) for name, gene in genes.items()}
    if isinstance(candidates := parameter.get("candidates"), dict):
        fixed["candidates"] = {name: _all_fixed(each) for name, each in candidates.items()}
    return fixed


def _fixed(name: str, gene: object) -> object:
    if not isinstance(gene, dict):
        return gene
    check(f"genes.{name}.widest", Pair | None, gene.get("widest"))
    fixed: Plain = {key: value for key, value in gene.items() if key != "widest"}
    return fixed
