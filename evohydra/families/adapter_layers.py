"""Genomes of adapters in a live model of transformers: the base stays, and PEFT's layers add what a genome changes."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from evohydra.checks.libraries import optional
from evohydra.families import LiveModel
from evohydra.families.genome_adapters import INSTEAD, WANTED, check_finite, parted, sum_of
from evohydra.merging.checkpoints import SourceError, first_few
from evohydra.merging.engine import Engine
from evohydra.merging.low_rank import LowRank
from evohydra.recipe import Checkpoint, Merge, Node

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

GENOME = "genome"  # the name of the adapter in PEFT's layers
INSTALL = "evohydra[adapters]"


class LiveAdapters:
    """A live model that can run a genome of adapters as the base with the genome's factors beside its layers.

    `live` is the model; merges of `models`, adapters of `base`, may come as `become_adapter`. The factors of a genome
    lie side by side (arXiv 2106.09685, eq. 3), of the sum of the ranks, in float32 as PEFT loads them. Tensors that an
    adapter trained whole are merged for each genome. After `become` the model is as if there were no layers of PEFT.

    Raises SourceError where an adapter changes a tensor that is no layer of its own, or that several layers share.
    """

    runs_adapters = True

    def __init__(self, live: LiveModel, engine: Engine, base: Checkpoint, models: Sequence[Checkpoint]) -> None:
        self.module, self.tokenizer, self.device, self.dtype = live.module, live.tokenizer, live.device, live.dtype
        self._live, self._base = live, base
        changes, self._whole = parted(sum_of(base, models, engine), engine)
        self._places = _places(live, changes)
        self._plain = {name: live.module.get_submodule(place) for name, place in self._places.items()}
        self._layers = _layers(live.module, {self._places[name]: change for name, change in changes.items()})
        self._downs: dict[str, Tensor] = {}  # that the layers hold, by the names of tensors
        self._beside, self._holds_base = True, False
        self._install(beside=False)

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """Its parameters by checkpoint name, see `LiveModel`; RuntimeError where a genome is there as an adapter."""
        if self._beside:
            raise RuntimeError(f"the merged weights of a genome that is run as an adapter are not there; {INSTEAD}")
        return self._live.parameters

    def become(self, node: Node, engine: Engine) -> None:
        """Make it the model that `node` describes by merging, see `LiveModel`."""
        self._install(beside=False)
        self._holds_base = False
        self._live.become(node, engine)

    def become_adapter(self, node: Merge, engine: Engine, ahead: Sequence[Merge] = ()) -> None:
        """Make it the base with the factors of `node`, alone; MergeError where they are not finite."""
        if not self._holds_base:
            self.become(self._base, engine)
            self._holds_base = True
        changes, whole = parted(node, engine)
        if strange := sorted({*changes, *whole} - {*self._places, *self._whole}):
            raise ValueError(f"{WANTED}: a genome changes what the adapters do not: {first_few(strange)}; {INSTEAD}")
        check_finite(node, changes)
        for name, tensor in engine.tensors(node, self._whole):
            self._live.parameters[name].copy_(tensor)
        for name, place in self._places.items():
            self._put(name, self._layers[place], changes.get(name))
        self._install(beside=True)

    def expect(self, recipes: Sequence[Node]) -> None:
        """Nothing is shared between recipes."""

    def _install(self, *, beside: bool) -> None:
        """Have PEFT's layers in the places of the model's own, or these again."""
        if beside != self._beside:
            for name, place in self._places.items():
                self.module.set_submodule(place, self._layers[place] if beside else self._plain[name])
        self._beside = beside

    @torch.no_grad()
    def _put(self, name: str, layer: "LoraLayer", change: LowRank | None) -> None:
        """Write the factors of a genome into a layer; what a genome of fewer adapters leaves is zero."""
        down, up = _factors(layer)
        rank = 0 if change is None else change.rank
        up[:, rank:].zero_()
        if change is not None:
            up[:, :rank].copy_(change.up)
            if self._downs.get(name) is not change.down:  # they are the sources', and stay while these do
                down[:rank].copy_(change.down)
                self._downs[name] = change.down


def _places(live: LiveModel, names: Mapping[str, LowRank]) -> dict[str, str]:
    """The places in the module of the layers whose weights these tensors are; SourceError where there is not one."""
    by_memory: dict[tuple[int, tuple[int, ...]], list[str]] = {}
    for place, module in live.module.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding | Conv1D):
            key = module.weight.data_ptr(), tuple(module.weight.shape)
            by_memory.setdefault(key, []).append(place)
    found = {}
    for name in names:
        tensor = live.parameters[name]
        places = by_memory.get((tensor.data_ptr(), tuple(tensor.shape)), [])
        if len(places) != 1:
            what = f"shared by {' and '.join(places)}" if places else "no weight of a linear layer or an embedding"
            raise SourceError(f"{WANTED}: {name!r}, which an adapter changes, is {what}; {INSTEAD}")
        found[name] = places[0]
    return found


def _layers(module: nn.Module, changes: Mapping[str, LowRank]) -> "dict[str, LoraLayer]":
    """Layers of PEFT, in their places in `module`, for changes of these ranks; SourceError where there is no change.

    Nothing that PEFT draws at random is kept, and the global generators are left as they were.
    """
    if not changes:
        raise SourceError(
            f"{WANTED}: expected adapters with factors, got none that changes a tensor by them; {INSTEAD}"
        )
    peft = optional("peft", WANTED, INSTALL, ", or choose backend.genomes=merged")
    usual = Counter(change.rank for change in changes.values()).most_common(1)[0][0]
    other = {place.replace(".", r"\."): change.rank for place, change in changes.items() if change.rank != usual}
    config = peft.LoraConfig(
        r=usual, lora_alpha=usual, rank_pattern=other, alpha_pattern=other, target_modules=[*changes]
    )
    gpus = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices=gpus), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Conv1D stores matrices the other way round changes no factor
        peft.inject_adapter_in_model(config, module, GENOME)
    vars(module).pop("peft_config", None)
    module.requires_grad_(False)
    found: dict[str, LoraLayer] = {place: module.get_submodule(place) for place in changes}
    for place, change in changes.items():
        layer = found[place]
        for parameter in _parameters(layer):
            parameter.data = parameter.data.float()  # PEFT makes them in the type of the weight
        down, up = _factors(layer)
        if (up.shape, down.shape, set(layer.scaling.values())) != (change.up.shape, change.down.shape, {1.0}):
            raise SourceError(f"{WANTED}: PEFT has made other factors of {place} than the adapters have; {INSTEAD}")
        if isinstance(layer.base_layer, nn.Embedding):
            layer.num_embeddings = layer.base_layer.num_embeddings  # which is asked of embeddings
    return found


def _parameters(layer: "LoraLayer") -> list[nn.Parameter]:
    """Both factors of a layer of PEFT, (r, in) and (out, r)."""
    if isinstance(layer.base_layer, nn.Embedding):
        return [layer.lora_embedding_A[GENOME], layer.lora_embedding_B[GENOME]]
    return [layer.lora_A[GENOME].weight, layer.lora_B[GENOME].weight]


def _factors(layer: "LoraLayer") -> tuple[Tensor, Tensor]:
    down, up = _parameters(layer)
    return down, up
