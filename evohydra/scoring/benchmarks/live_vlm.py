"""lm-eval's multimodal model over the live model, without what it repeats for each genome."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.hf_vlms import HFMultimodalLM

from evohydra.families import LiveModel
from evohydra.scoring.benchmarks.images import digest
from evohydra.scoring.benchmarks.live_lm import MOST, asked_length
from evohydra.scoring.benchmarks.room import Room
from evohydra.scoring.benchmarks.run_cache import RunCache
from evohydra.scoring.benchmarks.sampling import PromptStreams, may_sample
from evohydra.scoring.benchmarks.vision_features import VisionFeatures
from evohydra.scoring.benchmarks.vision_prompts import processor_of

CACHE_BYTES = 4 * 1024**3  # of preprocessed images, and of vision features again


class LiveMultimodalLM(HFMultimodalLM):  # type: ignore[misc]
    """HFMultimodalLM (hf-multimodal) on a model in memory; images are preprocessed and encoded once a run.

    Answers that are sampled follow from `sampling_seed`, example and repeat. Raises BenchmarkError for a model without
    an image processor.
    """

    def __init__(self, name: str, live: LiveModel, batch_size: int | str, sampling_seed: int = 0) -> None:
        self._streams = PromptStreams(sampling_seed)
        self._room = Room(batch_size if isinstance(batch_size, int) else MOST)
        self._live_processor = processor_of(name, live)
        self._encoded = RunCache(CACHE_BYTES)
        self._features = VisionFeatures(live.module, CACHE_BYTES)
        self._key: object = None
        super().__init__(pretrained=live.module, tokenizer=None, batch_size=batch_size, convert_img_format=True)

    def _create_tokenizer(self, *_: object, **__: object) -> None:
        """The live model's own; lm-eval's version cannot take a processor for a model in memory."""
        self.processor = self._live_processor
        self.tokenizer = self.processor.tokenizer

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """The answers to `requests` by the model as it is now."""
        self._encoded.begin_round()
        self._features.begin_genome()
        prompts = [request.args[0] for request in requests]
        order = sorted(range(len(requests)), key=lambda at: (-len(self.tok_encode(prompts[at])), prompts[at]))
        asked = [requests[at] for at in order]  # as lm-eval sorts them: these are its batches

        def some(rows: slice) -> list[str]:
            self._streams.begin(asked[rows], asked[: rows.start])
            found: list[str] = super(LiveMultimodalLM, self).generate_until(asked[rows], disable_tqdm=disable_tqdm)
            return found

        parts = self._room.over(len(asked), some, "a prompt with its images")
        answers = dict(zip(order, itertools.chain.from_iterable(parts), strict=True))
        return [answers[at] for at in range(len(requests))]

    def tok_batch_multimodal_encode(self, strings: Sequence[str], images: Sequence[Any], **options: object) -> object:
        """The processor's tensors for a batch, on the model's device."""
        self._streams.batch(strings)
        shown = tuple(digest(image) for group in images for image in group)
        self._key = (tuple(strings), tuple(map(len, images)), shown, *sorted(options.items()))

        def encode() -> object:
            return (
                super(LiveMultimodalLM, self)
                .tok_batch_multimodal_encode(list(strings), [list(group) for group in images], **options)
                .to("cpu")
            )

        kept = self._encoded.once(self._key, encode, lambda encoding: sum(each.nbytes for each in encoding.values()))
        return type(kept)({name: tensor.to(self.device) for name, tensor in kept.items()})

    def _model_multimodal_generate(self, inputs: Any, max_length: int, stop: list[str], **options: object) -> object:
        may = {"do_sample": False} if not may_sample(options) else options
        options |= asked_length(self.model, max_length - inputs["input_ids"].shape[1])
        with self._features.batch(self._key), torch.no_grad(), self._streams.drawing(may):
            return super()._model_multimodal_generate(inputs, max_length, stop, **options)

    def tok_batch_encode(self, strings: Sequence[str], *given: object, **options: object) -> object:
        """The padded tokens and mask of prompts without an image."""
        self._streams.batch(strings)
        return super().tok_batch_encode(list(strings), *given, **options)

    def _model_generate(self, context: Any, max_length: int, *given: object, **options: object) -> object:
        with self._streams.drawing(options):
            options |= asked_length(self.model, max_length - context.shape[1])
            return super()._model_generate(context, max_length, *given, **options)
