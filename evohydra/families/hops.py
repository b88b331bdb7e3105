"""Paths through the layers of several models, run in one live model without copying weights."""

import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evohydra.checks.patterns import matches_whole
from evohydra.families import path_settings
from evohydra.families.layouts import POST_MLP
from evohydra.families.prefixes import Prefixes
from evohydra.families.tensor_sets import LAYER
from evohydra.files import Plain
from evohydra.merging.checkpoints import SourceError
from evohydra.merging.engine import Engine
from evohydra.merging.path_tensors import factors
from evohydra.merging.private_torch import children
from evohydra.recipe import Checkpoint, Hop, Node, Stack, checkpoints, digest


@dataclass
class LoadedLayers:
    """The layers of one model in memory, its tensors by checkpoint name, and the digest of what they hold.

    `config` is as the layers were built, whatever path runs.
    """

    layers: tuple[torch.nn.Module, ...]
    config: object
    parameters: Mapping[str, Tensor]
    holds: str | None = None

    def hold(self, node: Node, engine: Engine) -> None:
        """Write `node` into the tensors, unless they hold it already."""
        wanted = digest(node)
        if self.holds == wanted:
            return
        shapes = engine.shapes(node)
        for name, tensor in self.parameters.items():
            if shapes.get(name) != tuple(tensor.shape):
                raise ValueError(
                    f"{name}: expected shape {tuple(tensor.shape)}, as the model in memory has it, got "
                    f"{shapes.get(name)}"
                )
        self.holds = None  # a merge that fails halfway leaves no model
        engine.merge_into(node, self.parameters)
        self.holds = wanted


class Paths:
    """Runs recipes in a model: whole models in place, paths by hops.

    `decoder` is its part with the layers, without a head, and `parameters` are the tensors that recipes write.

    A hop is a copy of a layer that shares the layer's parameters, but has a place in the cache, and maybe a scale, of
    its own. The decoder is the slot for the first source of a path, which gives all that is outside of layers. Other
    sources have slots of their own: `sources` says where their files are, by name, and `load` makes a decoder for such
    files, with its tensors under their names among those given. Hidden states that paths share are kept within
    `prefix_bytes`.
    """

    def __init__(
        self,
        decoder: Any,
        parameters: Mapping[str, Tensor],
        sources: Mapping[str, Path],
        load: Callable[[Path, Collection[str]], tuple[Any, Mapping[str, Tensor]]],
        prefix_bytes: int = 0,
    ) -> None:
        self._decoder, self._parameters = decoder, parameters
        self._sources, self._load = sources, load
        self._slots: dict[tuple[str, str | int], LoadedLayers] = {}
        self._main: LoadedLayers | None = (
            None  # not before a path asks for layers: other models may have none in a list
        )
        self._attribute = ""
        self.prefixes = Prefixes(decoder, prefix_bytes)

    def expect(self, recipes: Sequence[Node]) -> None:
        """Tell which recipes will be run next, in this order."""
        self.prefixes.expect([recipe for recipe in recipes if isinstance(recipe, Stack)])

    def become(self, node: Node, engine: Engine) -> None:
        """Make it the model that `node` describes.

        Raises MergeError and ValueError as `Engine.merge_into` does, and ValueError for a path that cannot be run.
        """
        self.prefixes.follow(None)
        if isinstance(node, Stack):
            self._run(node, engine)
        elif self._sources and not self._fits(engine.shapes(node)):
            self._run_whole(node, engine)
        else:
            if self._main is not None:
                self._main.holds = None
                self._install(self._main.layers, path_settings.of_model(self._main.config))
            engine.merge_into(node, self._parameters)
            if self._main is not None:
                self._main.holds = digest(node)

    def _host(self) -> LoadedLayers:
        """The decoder as it came, before any path."""
        if self._main is None:
            self._attribute, layers = _list_of_layers(self._decoder)
            self._main = LoadedLayers(layers, copy.deepcopy(self._decoder.config), self._parameters)
        return self._main

    def _fits(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        same = all(shapes.get(name) == tuple(tensor.shape) for name, tensor in self._parameters.items())
        return same and self._depth(shapes) == self._depth(self._parameters)

    def _depth(self, names: Iterable[str]) -> int:
        """The number of layers in the list that holds the decoder's; a model may have other lists, of other parts."""
        ours = {name[: layer.start(1)] for name in self._parameters if (layer := LAYER.search(name))}
        layers = (layer for name in names if (layer := LAYER.search(name)) and name[: layer.start(1)] in ours)
        return 1 + max((int(layer[1]) for layer in layers), default=-1)

    def _run_whole(self, node: Node, engine: Engine) -> None:
        """A source with other layers than the decoder's, in its place: as the path through all of them."""
        slot = self._slot(0, node, engine)
        outside = {name: tensor for name, tensor in self._parameters.items() if not LAYER.search(name)}
        self._host().holds = None
        engine.merge_into(node, outside)
        hops = [Hop(0, layer) for layer in range(len(slot.layers))]
        settings = path_settings.of_hops([slot.config], hops)
        self._check_types(settings)
        self._install([_hop(slot.layers[hop.layer], number) for number, hop in enumerate(hops)], settings)

    def _run(self, path: Stack, engine: Engine) -> None:
        _check_plain_models(path.sources)
        used = {0, *(hop.source for hop in path.hops)}
        first = digest(path.sources[0])
        slots = {}
        for number in sorted(used):
            source = path.sources[number]
            own = number == 0 or digest(source) == first
            slots[number] = self._host() if own else self._slot(number, source, engine)
        for number, hop in enumerate(path.hops):
            if hop.layer >= len(slots[hop.source].layers):
                raise ValueError(f"hop {number}: source {hop.source} has no layer {hop.layer}")
        settings = path_settings.of_hops({number: slot.config for number, slot in slots.items()}, path.hops)
        self._check_types(settings)
        self._host().hold(path.sources[0], engine)
        before, after = factors(path)
        end = POST_MLP.removesuffix(".weight") if matches_whole(path.layout.mlp, POST_MLP, "layout.mlp") else "mlp"
        hops = [_hop(slots[hop.source].layers[hop.layer], number) for number, hop in enumerate(path.hops)]
        for number, hop_module in enumerate(hops):
            if before[number] != 1.0:
                hop_module.register_forward_pre_hook(_scaling_of_input(before[number]))
            if after[number] != 1.0:
                hop_module.get_submodule(end).register_forward_hook(_scaling_of_output(after[number]))
        self._install(hops, settings)
        self.prefixes.follow(path, self._attribute)

    def _slot(self, number: int, node: Node, engine: Engine) -> LoadedLayers:
        """The slot of a source that is not the decoder's, loaded when it is first asked for; it holds `node`."""
        own = files_of(node)
        files = next((each for each in (own, *(c.name for c in checkpoints(node))) if each in self._sources), own)
        key = ("checkpoint", files) if isinstance(node, Checkpoint) else ("merge", number)
        if key not in self._slots:
            if files not in self._sources:
                raise ValueError(f"a path needs layers of {files!r}, known are those of {sorted(self._sources)}")
            decoder, named = self._load(self._sources[files], engine.shapes(node).keys())
            inside = {name: tensor for name, tensor in named.items() if LAYER.search(name)}
            self._slots[key] = LoadedLayers(_list_of_layers(decoder)[1], decoder.config, inside)
        self._slots[key].hold(node, engine)
        return self._slots[key]

    def _check_types(self, settings: Plain) -> None:
        """The first source makes masks and rotary angles, so it has to know every kind of layer."""
        known = getattr(self._host().config, "layer_types", None) or []
        if strange := sorted(set(settings.get("layer_types", ())) - set(known)):
            raise ValueError(f"the path has layers of type {', '.join(strange)}, which the first source has none of")

    def _install(self, layers: Sequence[torch.nn.Module], settings: Mapping[str, object]) -> None:
        setattr(self._decoder, self._attribute, torch.nn.ModuleList(layers))
        for key, value in settings.items():
            setattr(self._decoder.config, key, value)


def _check_plain_models(sources: Sequence[Node]) -> None:
    if any(isinstance(source, Stack) for source in sources):
        raise ValueError("a path through the layers of a path cannot be run; write the inner one as a checkpoint first")


def files_of(node: Node) -> str:
    """The name of the checkpoint whose configuration a merge has."""
    _check_plain_models([node])
    while not isinstance(node, Checkpoint):
        node = node.sources[0] if isinstance(node, Stack) else node.base or node.models[0]
    return node.name


def _list_of_layers(decoder: Any) -> tuple[str, tuple[torch.nn.Module, ...]]:
    """The layers of a decoder, and its attribute that holds them; they know their places."""
    lists = {
        name: tuple(child)
        for name, child in decoder.named_children()
        if isinstance(child, torch.nn.ModuleList) and len(child) == decoder.config.num_hidden_layers
    }
    placed = {name: layers for name, layers in lists.items() if all(map(_knows_its_place, range(len(layers)), layers))}
    if len(placed) != 1:
        raise SourceError(
            f"{type(decoder).__name__}: expected {decoder.config.num_hidden_layers} layers in one list, each with its "
            f"number as layer_idx, got lists called {sorted(lists)}"
        )
    return placed.popitem()


def _knows_its_place(number: int, layer: torch.nn.Module) -> bool:
    places = [vars(part)["layer_idx"] for part in layer.modules() if "layer_idx" in vars(part)]
    return bool(places) and all(place == number for place in places)


def _hop(layer: torch.nn.Module, number: int) -> torch.nn.Module:
    """A copy of a layer for hop `number` of a path, with the same parameters and buffers."""
    twin = type(layer).__new__(type(layer))
    # Parameters, buffers, children, hooks: tables of its own, of the same content.
    vars(twin).update({name: value.copy() if isinstance(value, dict) else value for name, value in vars(layer).items()})
    for name, child in children(layer).items():
        children(twin)[name] = None if child is None else _hop(child, number)
    if "layer_idx" in vars(twin):
        vars(twin)["layer_idx"] = number
    return twin


def _scaling_of_input(scale: float) -> Callable[..., tuple[object, ...]]:
    return lambda _, inputs: (inputs[0] * scale, *inputs[1:])


def _scaling_of_output(scale: float) -> Callable[..., Tensor]:
    return lambda _, inputs, output: output * scale
