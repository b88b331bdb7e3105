"""What a pipeline of diffusers draws from: text embeddings and initial noise, computed once a run."""

import contextlib
import functools
import inspect
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from evohydra.files import Plain
from evohydra.scoring.benchmarks.frozen import Watch
from evohydra.scoring.benchmarks.run_cache import RunCache


class KeptInputs:
    """Stands in for the pipeline's `encode_prompt` and `prepare_latents` while it draws.

    Each picture's embeddings and noise are computed alone, so that they do not depend on the batch, and kept in CPU
    memory within `max_bytes`: embeddings by the text, as long as no weight of a text encoder changes, noise by the seed
    of the picture's generator. Schedulers that draw more noise go on with that generator.
    """

    def __init__(self, pipeline: Any, max_bytes: int) -> None:
        self._pipeline = pipeline
        encoders = [part for name, part in pipeline.components.items() if name.startswith("text_encoder") and part]
        self._watch = Watch([parameter for part in encoders for parameter in part.parameters()])
        self._texts, self._noise = RunCache(max_bytes), RunCache(max_bytes)

    def begin_genome(self) -> None:
        """Another genome may be in the model; forgets the embeddings where text encoders have changed with it."""
        self._texts.begin_round()
        self._noise.begin_round()
        if self._watch.changed():
            self._texts.clear()

    @contextlib.contextmanager
    def standing_in(self) -> Iterator[None]:
        """Within this context the pipeline uses what is kept; it is as before after it."""
        methods = {"encode_prompt": self._encoded, "prepare_latents": self._drawn}
        try:
            for name, instead in methods.items():
                original = getattr(self._pipeline, name)
                self._pipeline.__dict__[name] = functools.partial(instead, original, inspect.signature(original))
            yield
        finally:
            for name in methods:
                self._pipeline.__dict__.pop(name, None)

    def _encoded(self, encode: object, signature: inspect.Signature, *given: Any, **named: Any) -> object:
        """What `encode` gives for a list of prompts (and of negative prompts)."""
        arguments = signature.bind(*given, **named).arguments
        parts = []
        for place in range(len(arguments["prompt"])):
            own = _of_picture(arguments, place)
            key = tuple((name, value[0]) for name, value in own.items() if isinstance(value, list))
            parts.append(self._texts.once(key, functools.partial(_on_cpu, encode, own), _size))
        return _together(parts, self._pipeline.device)

    def _drawn(self, prepare: object, signature: inspect.Signature, *given: Any, **named: Any) -> object:
        """What `prepare` gives for a list of generators."""
        arguments = signature.bind(*given, **named).arguments
        parts = []
        for place, generator in enumerate(arguments["generator"]):
            own = _of_picture(arguments, place) | {"batch_size": 1}
            key: Hashable = (generator.initial_seed(), own["height"], own["width"], own["dtype"])
            noise, state = self._noise.once(key, functools.partial(_noise, prepare, own), lambda kept: _size(kept[0]))
            generator.set_state(state)
            parts.append(noise)
        return _together(parts, self._pipeline.device)


def _of_picture(arguments: Mapping[str, object], place: int) -> dict[str, object]:
    """The arguments for one picture of a batch: of each list the item at `place`."""
    return {name: [value[place]] if isinstance(value, list) else value for name, value in arguments.items()}


def _on_cpu(method: Any, arguments: Mapping[str, object]) -> tuple[Tensor | None, ...] | Tensor:
    output = method(**arguments)
    if isinstance(output, Tensor):
        return output.cpu()
    return tuple(each if each is None else each.cpu() for each in output)


def _noise(prepare: object, arguments: Plain) -> tuple[object, Tensor]:
    """The noise of one picture, and the state in which drawing it leaves the generator."""
    noise = _on_cpu(prepare, arguments)
    return noise, arguments["generator"][0].get_state()


def _size(output: tuple[Tensor | None, ...] | Tensor) -> int:
    tensors = [output] if isinstance(output, Tensor) else output
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def _together(parts: Sequence[Any], device: torch.device) -> object:
    """One batch of all `parts`; what has no dimension for pictures (the position ids of Flux) is the same in all."""
    first = parts[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return (torch.cat(list(parts)) if len(first) == 1 else first).to(device)
    return tuple(_together(each, device) for each in zip(*parts, strict=True))
