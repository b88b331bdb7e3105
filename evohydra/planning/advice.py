"""One line each: which optimizer, which kind of fitness, how large splits and batches, how fine the genes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evohydra.planning.power import examples_for
from evohydra.spaces.genes import Axis

WORTH = 0.1  # a share of the scoring time that is worth a word
WANTED = 0.05  # a gain that most searches would be glad of
MANY, MOST = 32, 400  # genes up to which a Gaussian process was measured to be ahead; that it takes at most
FEW_GENOMES, SHORT = 60, 250  # budgets that it was measured with


@dataclass(frozen=True)
class Batches:
    """Prompts a forward pass: as chosen, as fit into the memory, and the share of the scoring time that these save."""

    chosen: int
    fitting: int
    saved: float


def kinds(axes: Sequence[Axis]) -> dict[str, int]:
    """How many genes there are of each kind."""
    return dict(Counter(axis.kind for axis in axes))


def suited(axes: Sequence[Axis], budget: int, objectives: int) -> tuple[str, str]:
    """The optimizer for such a search, and why, by what docs/optimizers.md measured."""
    genes, choices = len(axes), sum(axis.kind == "categorical" for axis in axes)
    if objectives > 1:
        return "nsga2", "several objectives; bo where there are few genomes"
    if choices > genes / 2:
        return "catcma", "most genes are choices"
    if genes <= MANY:
        if budget <= SHORT:
            return "bo", f"{genes} genes and {budget} genomes: a Gaussian process needs the fewest"
        return "cmaes", f"{genes} genes and {budget} genomes; bo with 60 to {SHORT} of them may do as well"
    if genes <= MOST:
        better = "bo" if budget <= SHORT else "cmaes"
        return better, f"{genes} genes; fewer, larger blocks are easier to search"
    return "sep_cmaes", f"{genes} genes: a full covariance of so many cannot be learnt from {budget} genomes"


def advice(
    *,
    axes: Sequence[Axis],
    budget: int,
    objectives: int,
    optimizer: str,
    sizes: Mapping[str, Mapping[str, int]],
    apart: Mapping[str, float],
    smallest: float | None,
    optimism: float,
    validated: bool,
    fitness: str,
    likely: bool,
    batches: Batches | None = None,
) -> list[str]:
    """One line each; nothing where all is well.

    sizes: examples by split and benchmark. fitness: the kind that is used; likely: whether that of likelihoods may be.
    batches: None where batches are of the size that fits.
    """
    said = []
    best, reason = suited(axes, budget, objectives)
    if optimizer != best:
        said.append(f"optimizer={best} suits ({reason}); {optimizer} is chosen")
    if smallest is None or smallest > WANTED:
        need = {name: examples_for(WANTED, d) for name, d in apart.items()}
        told = ", ".join(f"{count} of {name}" for name, count in need.items())
        seen = "no gain at all" if smallest is None else f"only gains of {smallest:.3f} and more"
        said.append(f"splits: the test split shows {seen}; one of {WANTED} takes {told}")
    if not validated:
        said.append(
            f"splits: without a validation split the best of {budget} genomes is taken at its word, which is up to "
            f"{optimism:.3f} too good"
        )
    elif any(sizes["validation"][name] * 4 < sizes["test"][name] for name in sizes["test"]) and optimism > WANTED:
        said.append("splits: validation is small beside test, and chooses the winner: move examples to it")
    if fitness in ("full", "subset") and likely:
        said.append("fitness=likelihood takes one forward pass an example, and writes no answers")
    elif fitness == "full" and min(sizes["search"].values(), default=0) > 400:
        said.append("fitness=irt or fitness=racing scores most genomes on a part of so many search examples")
    if batches is not None and batches.chosen > batches.fitting:
        said.append(
            f"batch_size={batches.chosen} may run out of memory: some {batches.fitting} prompts fit "
            "(batch_size=auto takes so many)"
        )
    elif batches is not None and batches.saved > WORTH:
        said.append(
            f"batch_size={batches.fitting} fits and saves {batches.saved:.0%} of the scoring time; "
            f"{batches.chosen} is chosen (batch_size=auto takes what fits)"
        )
    if len(axes) > max(budget / 4, 1) and best != "sep_cmaes":
        said.append(
            f"granularity: {len(axes)} genes for {budget} genomes; larger blocks (merge.parameter.granularity.layers) "
            "leave fewer"
        )
    return said
