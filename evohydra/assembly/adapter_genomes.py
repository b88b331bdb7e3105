"""What `backend.genomes=adapters` cannot be, said before a search: merges that are no sums of adapters."""

from dataclasses import replace
from typing import Literal

from evohydra.assembly.parts import Parts
from evohydra.assembly.settings import Settings
from evohydra.families.adaptable import adaptable
from evohydra.families.genome_adapters import INSTEAD, WANTED, doubled, parted, sum_of
from evohydra.families.sources import FoundSources
from evohydra.families.tensor_sets import HEADS
from evohydra.families.vllm_adapters import RANKS, Adapters
from evohydra.merging.checkpoints import SourceError, first_few
from evohydra.merging.group_methods import methods_of
from evohydra.merging.methods import resolve
from evohydra.recipe import Checkpoint, Merge, Node

Genomes = Literal["merged", "adapters"]
NESTED = f"{WANTED}: with generations or continue sources are merges themselves, expected adapters; {INSTEAD}"
LINEAR = "merge=linear or merge=task_arithmetic"


def check_settings(settings: Settings, found: FoundSources) -> None:
    """ValueError for what settings alone say that cannot be run as adapters, before weights are read."""
    if found.family.name != "causal_lm":
        raise ValueError(f"{WANTED} is for language models, the sources are of {found.family.name!r}; {INSTEAD}")
    if settings.merge.get("dataflow"):
        raise ValueError(f"{WANTED}: a path through layers is no adapter of the base; {INSTEAD}")
    if settings.all.get("continue"):
        raise ValueError(NESTED)
    if own := found.aligned.overlay.own:
        raise SourceError(f"{WANTED} expects one configuration, {', '.join(own)} has its own; {INSTEAD}")


def check_recipe(node: Node, parts: Parts) -> None:
    """ValueError where merges like `node` are no adapters of the base that layers can have; nothing is merged."""
    assert isinstance(node, Merge)
    if bent := [name for name in methods_of(node) if resolve(name).coefficients is None]:
        raise ValueError(f"{WANTED} expects {LINEAR}, {', '.join(bent)} makes no sum of adapters; {INSTEAD}")
    full = [
        model.name if isinstance(model, Checkpoint) else "a merge"
        for model in node.models
        if not (isinstance(model, Checkpoint) and model.adapter)
    ]
    if full:
        raise ValueError(
            f"{WANTED} expects sources that are adapters (model.sources.NAME.adapter), got {', '.join(full)} as a full "
            f"model; {INSTEAD}"
        )
    if not parts.engine.adapters.checkpoints(node):
        raise ValueError(f"{WANTED} expects adapters of one base that is no adapter itself; {INSTEAD}")
    changes, _ = parted(doubled_merge(node), parts.engine)
    opened = parts.sources
    if opened.base is None or not changes:
        raise ValueError(f"{WANTED}: no tensor that is searched is changed by factors of an adapter; {INSTEAD}")
    layers = adaptable(opened.directories[opened.files_from], tuple(opened.tensors[opened.files_from].shapes))
    if strange := sorted(set(changes) - set(layers)):
        raise ValueError(
            f"{WANTED}: adapters change {first_few(strange)}, which is no linear layer and no embedding of its own; "
            f"{INSTEAD}"
        )


def requests_of(parts: Parts, together: int) -> Adapters:
    """What vLLM is told of the sources' adapters; ValueError for what its LoRA requests cannot be."""
    opened = parts.sources
    assert opened.base is not None
    names = tuple(opened.tensors[opened.files_from].shapes)
    changes, whole = parted(sum_of(opened.base, opened.models, parts.engine), parts.engine)
    layers = adaptable(opened.directories[opened.files_from], names)
    edges = [name for name in changes if layers[name].embedding or HEADS.search(name)]
    for tensors, what in ((whole, "which adapters have trained whole"), (edges, "an embedding or a head")):
        if tensors:
            raise ValueError(
                f"{WANTED} with backend=vllm: LoRA requests change linear layers alone, and not {first_few(tensors)}, "
                f"{what}; {INSTEAD}, and so does backend=transformers"
            )
    rank = max(change.rank for change in changes.values())
    if rank > RANKS[-1]:
        raise ValueError(
            f"{WANTED} with backend=vllm: the ranks of the adapters add up to {rank}, vLLM takes {RANKS[-1]} at most; "
            f"{INSTEAD}, and so does backend=transformers"
        )
    return Adapters({name: layers[name].name for name in changes}, rank, together)


def doubled_merge(node: Merge) -> Merge:
    """The merge with twice the weights, see `doubled`."""
    return replace(node, groups=tuple(map(doubled, node.groups)))
