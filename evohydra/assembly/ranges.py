"""Ranges of genes that an optimizer may widen: those that search fixed ranges get none."""

from evohydra.assembly.settings import Spec
from evohydra.checks import check
from evohydra.files import Plain
from evohydra.searching.optimizers import WidensRanges
from evohydra.spaces.gene_spec import Pair


def with_ranges_for(merge: Spec, strategy: object) -> Spec:
    """`merge`, without `widest` of its genes where `strategy`, what makes the optimizer, does not widen ranges."""
    parameter = merge.get("parameter")
    if not isinstance(parameter, dict) or not isinstance(genes := parameter.get("genes"), dict):
        return merge
    if isinstance(getattr(strategy, "func", None), WidensRanges):
        return merge
    return {**merge, "parameter": {**parameter, "genes": {name: _fixed(name, gene) for name, gene in genes.items()}}}


def _fixed(name: str, gene: object) -> object:
    if not isinstance(gene, dict):
        return gene
    check(f"genes.{name}.widest", Pair | None, gene.get("widest"))
    fixed: Plain = {key: value for key, value in gene.items() if key != "widest"}
    return fixed
