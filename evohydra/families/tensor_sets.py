"""Sources of a language model brought to the same set of tensors: names, tied heads, missing tensors."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from evohydra.merging.checkpoints import SourceError, TensorSource, first_few
from evohydra.merging.low_rank import Adaptation, factors_of

# Tensors that transformers computes as it loads, and that older releases stored.
BUFFERS = re.compile(
    r"rotary_emb\.(inv_freq|cos_cached|sin_cached)$|\b(attn|attention)\.(masked_)?bias$|\b(position|token_type)_ids$"
)
LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks|albert_layer_groups)\.(\d+)\.(.*)")
HEADS = re.compile(r"^(lm_head|embed_out|head|cls\.predictions\.decoder)\.weight$")


class Renamed:
    """Tensors under other names: `names` gives each one's name in `tensors`; those without a new name are gone."""

    def __init__(self, tensors: TensorSource, names: Mapping[str, str]) -> None:
        self._tensors, self._names = tensors, names
        self.shapes: Mapping[str, tuple[int, ...]] = {new: tensors.shapes[old] for new, old in sorted(names.items())}

    def read(self, name: str) -> Tensor:
        """The tensor that is now called `name`."""
        return self._tensors.read(self._names[name])

    def factors(self, name: str) -> Adaptation | None:
        """What the tensor that is now called `name` is made of."""
        return factors_of(self._tensors, self._names[name])


class Completed:
    """Tensors, and those named in `extra` from another source."""

    def __init__(self, tensors: TensorSource, other: TensorSource, extra: frozenset[str]) -> None:
        self._tensors, self._other, self._extra = tensors, other, extra
        shapes = {**tensors.shapes, **{name: other.shapes[name] for name in extra}}
        self.shapes: Mapping[str, tuple[int, ...]] = dict(sorted(shapes.items()))

    def read(self, name: str) -> Tensor:
        """The tensor `name`, wherever it comes from."""
        return (self._other if name in self._extra else self._tensors).read(name)

    def factors(self, name: str) -> Adaptation | None:
        """What the tensor `name` is made of, wherever it comes from."""
        return factors_of(self._other if name in self._extra else self._tensors, name)


def with_common_names(sources: Mapping[str, TensorSource], prefix: str) -> dict[str, TensorSource]:
    """The sources under the names of the first one, from which theirs may differ by `prefix` at the beginning."""
    reference = next(iter(sources.values()))
    wanted = {name.removeprefix(prefix): name for name in reference.shapes}
    headless = not any(name.startswith(prefix) for name in reference.shapes)
    renamed: dict[str, TensorSource] = {}
    for source, tensors in sources.items():
        ours = {}
        for old in tensors.shapes:
            bare = old.removeprefix(prefix)
            # One that the first source lacks is spelled as that source would.
            spelled = bare if headless or HEADS.search(bare) else f"{prefix}{bare}"
            ours[wanted.get(bare, spelled)] = old
        clash = len(ours) < len(tensors.shapes) or ours.keys() == tensors.shapes.keys()
        renamed[source] = tensors if clash else Renamed(tensors, ours)
    return renamed


def without_buffers(sources: Mapping[str, TensorSource]) -> dict[str, TensorSource]:
    """The sources without buffers that only some of them hold: transformers computes these again."""
    common = set.intersection(*(set(tensors.shapes) for tensors in sources.values()))
    return {
        name: _without(tensors, lambda t: bool(BUFFERS.search(t)) and t not in common)
        for name, tensors in sources.items()
    }


def with_common_head(
    sources: Mapping[str, TensorSource], ties: Mapping[str, bool], embeddings: str
) -> tuple[dict[str, TensorSource], bool]:
    """The sources with a head each, or without where in all of them it is the embeddings; and whether it is so.

    `ties`: what each configuration says. A stored head that equals the embeddings is then no head of its own; one that
    differs is, as transformers treats it. A source whose head is neither stored nor tied stays without.
    """
    heads = {name: next(filter(HEADS.search, tensors.shapes), None) for name, tensors in sources.items()}
    tied = {
        name: ties[name] and (head is None or _equal(sources[name], head, embeddings)) for name, head in heads.items()
    }
    label = next(filter(None, heads.values()), None)
    if all(tied.values()) or label is None:
        return {name: _without(tensors, lambda t: bool(HEADS.search(t))) for name, tensors in sources.items()}, True
    headed: dict[str, TensorSource] = {}
    for name, tensors in sources.items():
        lacks = heads[name] is None and ties[name]
        headed[name] = Renamed(tensors, {**{t: t for t in tensors.shapes}, label: embeddings}) if lacks else tensors
    return headed, False


def check_heads(sources: Mapping[str, TensorSource], ties: Mapping[str, bool], directories: Mapping[str, Path]) -> None:
    """Raise SourceError for a source without a head whose configuration does not tie it to the embeddings."""
    for name, tensors in sources.items():
        if not ties[name] and not any(map(HEADS.search, tensors.shapes)):
            raise SourceError(
                f"source {name!r} at {directories[name]}: expected a head (lm_head.weight), for its config.json does "
                f"not tie the head to the embeddings; got {len(tensors.shapes)} tensors without one"
            )


def check_layers(sources: Mapping[str, TensorSource], first: str) -> None:
    """Raise SourceError where a source has a layer that the configuration of `first` describes none like."""
    known = layers_of(sources[first])
    kinds = list(known.values())
    if not kinds:
        raise SourceError(f"source {first!r}: expected layers as a list (model.layers.0, ...), got no such tensors")
    for name, tensors in sources.items():
        for number, layer in layers_of(tensors).items():
            if layer not in kinds:
                like = known.get(number, kinds[0])
                part = next(p for p in sorted({*layer, *like}) if layer.get(p) != like.get(p))
                raise SourceError(
                    f"layer {number} of source {name!r} does not fit between those of {first!r}: expected {part} "
                    f"{like.get(part, 'to be absent')}, got {layer.get(part, 'none')}"
                )


def layers_of(tensors: TensorSource) -> dict[int, dict[str, tuple[int, ...]]]:
    """For each layer the shapes of its tensors, by the rest of their names."""
    found: dict[int, dict[str, tuple[int, ...]]] = {}
    for name, shape in tensors.shapes.items():
        if (place := LAYER.search(name)) is not None:
            found.setdefault(int(place[1]), {})[place[2]] = shape
    return dict(sorted(found.items()))


def _equal(tensors: TensorSource, one: str, other: str) -> bool:
    first, second = tensors.read(one), tensors.read(other)
    return first.dtype == second.dtype and torch.equal(first, second)


def completed(
    sources: Mapping[str, TensorSource], base: str | None, missing: str
) -> tuple[dict[str, TensorSource], tuple[str, ...]]:
    """With missing="base" sources with exactly the base's tensors, and what was left out; else the same sources.

    Raises SourceError where there is no base.
    """
    if missing != "base":
        return dict(sources), ()
    if base is None:
        raise SourceError("missing=base, but the sources name no base model to copy tensors from")
    reference = sources[base]
    wanted = set(reference.shapes)
    left_out = []
    done: dict[str, TensorSource] = {}
    for name, tensors in sources.items():
        extra = sorted(set(tensors.shapes) - wanted)
        absent = frozenset(wanted - set(tensors.shapes))
        if extra:
            left_out.append(
                f"{len(extra)} tensors of source {name!r} are not in the base and left out: {first_few(extra)}"
            )
        if absent:
            left_out.append(
                f"{len(absent)} tensors that source {name!r} lacks are copied from the base: "
                f"{first_few(sorted(absent))}"
            )
        kept = _without(tensors, lambda t: t not in wanted)
        done[name] = Completed(kept, reference, absent) if absent else kept
    return done, tuple(left_out)


def _without(tensors: TensorSource, gone: Callable[[str], bool]) -> TensorSource:
    kept = {name: name for name in tensors.shapes if not gone(name)}
    return tensors if len(kept) == len(tensors.shapes) else Renamed(tensors, kept)
