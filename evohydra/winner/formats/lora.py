"""The winner as a PEFT adapter of the base: exact for sums of adapters, else the nearest of a rank."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from evohydra.families import Family, LiveModel, WritesCheckpoints
from evohydra.families.adaptable import Module, adaptable
from evohydra.families.causal_lm import CausalLM
from evohydra.families.comparison import Comparison
from evohydra.families.genome_adapters import doubled
from evohydra.families.loading import compared
from evohydra.families.sources import OpenSources
from evohydra.families.tensor_sets import HEADS
from evohydra.families.written import with_adapter
from evohydra.files import read_json
from evohydra.merging.adapters import AdapterFiles
from evohydra.merging.checkpoints import fingerprint, first_few
from evohydra.merging.engine import Engine
from evohydra.merging.low_rank import Adaptation, beside, factors_of
from evohydra.recipe import Checkpoint, Group, Merge, Node
from evohydra.winner.adapter_files import CUT, Adapter, unlike, write_adapter

logger = logging.getLogger(__name__)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Lora:
    """An adapter of at most `rank`; None: of the sum of the sources' ranks, which is exact for methods that are linear.

    Embeddings and heads that no product of small rank gives exactly are written whole (modules_to_save).
    """

    rank: int | None = None

    def __post_init__(self) -> None:
        if self.rank is not None and (isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1):
            raise ValueError(f"format.rank: expected null or a whole number from 1 on, got {self.rank!r}")

    def check(self, node: Node, family: Family, sources: OpenSources) -> None:
        """ValueError where merges like `node` are no adapters of the base, which names what cannot be one."""
        base = sources.base
        if not isinstance(family, CausalLM) or not isinstance(node, Merge) or base is None or base.adapter:
            raise ValueError(
                "format=lora: expected merges of adapters of one causal language model (model.sources.NAME.adapter and "
                f"base), got {'a merge' if isinstance(node, Merge) else 'a path'} of {family.name} models"
                f"{'' if base else ' without a base'}; format=plain writes all"
            )
        changed = {*sources.overlay.config} - {"tie_word_embeddings"}
        if changed or sources.overlay.tokenizer is not None:
            raise ValueError(
                "format=lora: expected merges with the base's vocabulary and tokenizer, got "
                f"{', '.join(sorted(changed)) or 'another tokenizer'} that the merge changes; format=plain writes all"
            )
        if not all(isinstance(model, Checkpoint) for model in node.models):
            raise ValueError(
                "format=lora: expected merges of adapters, or linear merges of linear merges of adapters (linear, "
                f"task_arithmetic), got {node.method} of recipes that are merges; format=plain writes all"
            )
        merges = Engine(sources.tensors, device=CPU, cache_bytes=0).adapters
        modules, exact, strange = _modules(sources), True, []
        for group, name in _merged(node):
            if (found := merges.change(node, name, doubled(group))) is not None and found[0] == 1:
                strange += [name] if found[1] is not None and name not in modules else []
                continue
            known = beside(*_parts(node, sources, name), CPU)
            if found is None and known is not None and known.change is None:
                continue  # the base's in all of them
            if name not in modules or (known is None and not _at_an_edge(name, modules[name])):
                strange.append(name)
            exact = exact and known is None
        if strange:
            raise ValueError(
                f"format=lora: an adapter cannot be what {node.method} makes of {len(strange)} tensors: "
                f"{first_few(strange)} (norms, biases, whatever the sources trained whole, and all where the base is "
                "multiplied: normalize=true). format=plain writes all; `python -m evohydra extract_lora` makes the "
                "adapter that is nearest to a model"
            )
        if not exact and self.rank is None:
            raise ValueError(
                f"format=lora: what {node.method} makes of adapters is no adapter of small rank: expected "
                "format.rank=NUMBER, to which it is cut, or a method that sums adapters (linear, task_arithmetic)"
            )

    def write(
        self,
        node: Node,
        engine: Engine,
        family: Family,
        sources: OpenSources,
        directory: Path,
        dtype: torch.dtype,
        shard_bytes: int,
    ) -> str:
        """The adapter; returns the fingerprint of its tensors. `dtype` is that of whole tensors, factors are float32.

        ValueError for a change that cannot be an adapter's.
        """
        base, modules, adapter = sources.base, _modules(sources), Adapter()
        assert base is not None
        if isinstance(node, Checkpoint) and node.adapter:  # one of the sources has won
            group = Group("all", tuple(engine.shapes(node)), {"weight": (1.0,)})
            node = Merge("task_arithmetic", base, (node,), (group,))
        groups = {name: group for group, name in _merged(node)} if isinstance(node, Merge) else {}
        for name in engine.shapes(node):
            found = engine.adapters.change(node, name, groups[name]) if name in groups else None
            module = modules.get(name)
            if found is not None and found[0] == 1:
                if found[1] is not None and module is not None:
                    adapter.put(name, module, found[1], self.rank)
                continue
            merged, before = engine.tensor(node, name).cpu(), engine.tensor(base, name).cpu()
            if not unlike(merged, before):
                continue
            if module is None:
                raise ValueError(f"format=lora: {name!r} changes, and is no linear layer and no embedding")
            if _at_an_edge(name, module):
                adapter.whole[module] = merged.to(dtype)
            else:
                delta = merged.float() - before.float()
                adapter.put_nearest(name, module, delta, self.rank or min(delta.shape))
        write_adapter(adapter, directory, modules, base.path, base.revision, "CAUSAL_LM")
        if left_out := self.left_out(directory):
            logger.warning("%s", left_out["said"])
        return fingerprint("adapter", AdapterFiles(directory))

    def left_out(self, directory: Path) -> Mapping[str, object]:
        """What the cut to `rank` costs: shares of the norm of the change, of all tensors and of the worst."""
        norms = _norms(directory)
        whole, left = (sum(each[at] ** 2 for each in norms.values()) ** 0.5 for at in (0, 1))
        shares = {name: out / change for name, (change, out) in norms.items() if change}
        if not shares or left < 1e-6 * whole:
            return {}
        worst = max(shares, key=lambda name: shares[name])
        said = (
            f"The adapter was cut to rank {self.rank}: it leaves out {100 * left / whole:.2g} % of the norm of the "
            f"change of {len(norms)} tensors, most in {worst} ({100 * shares[worst]:.2g} %). The scores are those of "
            "the merge before the cut"
        )
        return {"rank": self.rank, "share": left / whole, "worst": worst, "worst_share": shares[worst], "said": said}

    def verify(self, directory: Path, family: WritesCheckpoints, live: LiveModel) -> Comparison:
        """In what the base with the adapter in `directory` differs from `live`, beyond what the cut has left out."""
        assert isinstance(family, CausalLM)
        norms, twin = _norms(directory), with_adapter(family, directory, live.device, live.dtype)
        theirs, ours = twin.parameters, live.parameters
        apart = [
            name
            for name in theirs.keys() & ours.keys()
            if float((theirs[name].float() - ours[name].float()).norm())
            > 1.01 * norms.get(name, (0.0, 0.0))[1] + _roundings(ours[name])
        ]
        found_outputs = compared(twin, live)
        cut = any(left for _, left in norms.values())
        return replace(
            found_outputs,
            weights=tuple(sorted({*apart, *(theirs.keys() ^ ours.keys())})),
            rounding=float("inf") if cut else found_outputs.rounding,
        )


def _roundings(tensor: torch.Tensor) -> float:
    """How far apart, as a norm, two ways to the same tensor may be: a product of factors is added in float32."""
    eps = max(torch.finfo(tensor.dtype).eps / 2, 64 * torch.finfo(torch.float32).eps)
    return eps * float(tensor.float().norm())


def _merged(node: Merge) -> Iterator[tuple[Group, str]]:
    return ((group, name) for group in node.groups for name in group.tensors)


def _modules(sources: OpenSources) -> dict[str, Module]:
    assert sources.base is not None
    return adaptable(sources.directories[sources.base.name], tuple(sources.tensors[sources.files_from].shapes))


def _at_an_edge(name: str, module: Module) -> bool:
    return module.embedding or HEADS.search(name) is not None


def _parts(node: Merge, sources: OpenSources, name: str) -> tuple[Adaptation | None, list[Adaptation | None]]:
    base, *models = [
        factors_of(sources.tensors[each.name], name) if isinstance(each, Checkpoint) else None
        for each in (node.base, *node.models)
    ]
    return base, models


def _norms(directory: Path) -> dict[str, tuple[float, float]]:
    file = directory / CUT
    found = read_json(file) if file.is_file() else {}
    return {name: (each["change"], each["left_out"]) for name, each in found.items()}
