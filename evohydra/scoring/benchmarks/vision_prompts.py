"""A batch of questions about images -> the live model's answers."""

import functools
import inspect
from collections.abc import Hashable, Mapping, Sequence
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import BatchFeature

from evohydra.families import LiveModel
from evohydra.families.chat_templates import ChatTemplateError, rendered
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.sampling import may_sample, row_draws
from evohydra.scoring.benchmarks.vision_features import VisionFeatures
from evohydra.scoring.benchmarks.visual_options import LIMIT, ends_of

PLACES = ("{image}", "{question}")
ANSWER = "answer_mask"
NONE: Mapping[str, object] = MappingProxyType({})
KEPT = "logits_to_keep"  # what models of transformers call the number of last places that they give logits of


def processor_of(name: str, live: LiveModel) -> Any:
    """The processor of `live`. Raises BenchmarkError, about benchmark `name`, where it cannot take images."""
    try:
        processor = getattr(live, "processor", None)
    except ValueError as error:  # read late: the reason is that of the family
        raise BenchmarkError(f"benchmark {name!r} shows images: {error}") from error
    if getattr(processor, "image_processor", None) is None:
        raise BenchmarkError(
            f"benchmark {name!r} shows images, and the model has no image processor (preprocessor_config.json)"
        )
    return processor


def check_prompt(name: str, key: str, prompt: str) -> None:
    """BenchmarkError, about benchmark `name`, for a text without {image} and {question}, each once."""
    for place in PLACES:
        if prompt.count(place) != 1:
            raise BenchmarkError(f"benchmark {name!r}: {key}: expected {place} in it once, got {prompt!r}")


class Asker:
    """Asks `live`, a vision-language model, in its processor's chat format or in that of `prompt`.

    Raises BenchmarkError for a model without an image processor, one without a chat template where no prompt is given,
    and a prompt that lacks {image} or {question}.
    """

    def __init__(
        self,
        name: str,
        live: LiveModel,
        prompt: str | None,
        system_prompt: str | None,
        generation: Mapping[str, object],
        feature_bytes: int,
    ) -> None:
        self.live = live
        self._name, self._prompt, self._system = name, prompt, system_prompt
        self._processor = processor_of(name, live)
        self._check_prompt()
        self.features = VisionFeatures(live.module, feature_bytes)
        self._generation = {**generation, "pad_token_id": self._pad_token()}

    def text(self, question: str, prompt: str | None = None) -> str:
        """The prompt for `question`, or that of another `prompt`, with the processor's own token for the image."""
        prompt = prompt or self._prompt
        if prompt is not None:
            image = str(getattr(self._processor, "image_token", "<image>"))
            before, after = prompt.split("{question}", 1)
            return before.replace("{image}", image) + question + after.replace("{image}", image)
        content = [{"type": "image"}, {"type": "text", "text": question}]
        system = [{"role": "system", "content": [{"type": "text", "text": self._system}]}] if self._system else []
        messages = [*system, {"role": "user", "content": content}]
        make = functools.partial(self._processor.apply_chat_template, add_generation_prompt=True, tokenize=False)
        try:
            return rendered(self._processor, messages, lambda: str(make(messages)), add_generation_prompt=True)
        except ChatTemplateError as error:
            raise BenchmarkError(
                f"benchmark {self._name!r}: {error}; benchmark.{self._name}.prompt, a text with {{image}} and "
                "{question}, asks without it"
            ) from error

    def beginnings(self, question: str) -> tuple[str, ...]:
        """What answers may begin with: nothing, or a blank where the prompt ends in one of ASCII's other characters."""
        last = self.text(question)[-1:]
        return ("", " ") if last.isascii() and not last.isspace() else ("",)

    def inputs(
        self, questions: Sequence[str], images: Sequence[Image.Image], prompt: str | None = None
    ) -> BatchFeature:
        """What the model is given for a batch, on the CPU; prompts (of another `prompt`) are padded on the left."""
        return self._processed([self.text(question, prompt) for question in questions], images, padding_side="left")

    def answered(self, questions: Sequence[str], images: Sequence[Image.Image], answers: Sequence[str]) -> BatchFeature:
        """What the model is given for a batch with its `answers`, on the CPU, padded on the right.

        `ANSWER` (n, tokens) beside the processor's entries: where the tokens of the answers are.
        """
        texts = [self.text(question) for question in questions]
        whole = [text + answer for text, answer in zip(texts, answers, strict=True)]
        inputs = self._processed(whole, images, padding_side="right")
        prompts = self._processed(texts, images, padding_side="right")["attention_mask"].sum(dim=1, keepdim=True)
        places = torch.arange(inputs["input_ids"].shape[1])
        inputs[ANSWER] = (places >= prompts) & inputs["attention_mask"].bool()
        if not inputs[ANSWER].any(dim=1).all():
            empty = answers[int((~inputs[ANSWER].any(dim=1)).nonzero()[0])]
            raise BenchmarkError(
                f"benchmark {self._name!r}: the model's tokenizer has no token of its own for the answer {empty!r} "
                "behind the prompt, so that it has no likelihood; expected references of one token or more"
            )
        return inputs

    def _processed(self, texts: Sequence[str], images: Sequence[Image.Image], padding_side: str) -> BatchFeature:
        begin = self.live.tokenizer.bos_token
        begun = begin is not None and texts[0].startswith(begin)  # by the chat template
        try:
            return self._processor(
                text=list(texts),
                images=[[image] for image in images],
                padding=True,
                padding_side=padding_side,
                return_tensors="pt",
                **({"add_special_tokens": False} if begun else {}),
            )
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise BenchmarkError(
                f"benchmark {self._name!r}: the model's processor refuses a question or its image "
                f"({type(error).__name__}: {str(error)[:300]}); the first prompt of the batch is {texts[0][:300]!r}"
            ) from error

    def answers(
        self,
        key: Hashable,
        inputs: BatchFeature,
        draws: Sequence[tuple[object, ...]],
        changes: Mapping[str, object] = NONE,
    ) -> tuple[list[str], list[tuple[int, bool | None]]]:
        """The model's answers to `inputs`, and how each has ended, see `ends_of`; the same `key` means the same images.

        draws: for each answer what the random numbers follow from, where it is sampled. changes: of the generation.
        """
        generation = {**self._generation, **changes}
        given = inputs.to(self.live.device, dtype=self.live.dtype)  # floating-point entries alone get the type
        drawing = row_draws(draws) if may_sample(self._generation) else nullcontext()
        with self.features.batch(key), torch.no_grad(), drawing:
            tokens = self.live.module.generate(**given, **generation)  # type: ignore[operator]
        new = tokens[:, given["input_ids"].shape[1] :]
        texts = [text.strip() for text in self.live.tokenizer.batch_decode(new, skip_special_tokens=True)]
        limit = generation.get(LIMIT)
        return texts, ends_of(new, self._end_tokens(), limit if isinstance(limit, int) else None)

    def _end_tokens(self) -> set[int]:
        """With which answers end, or are filled up."""
        of_model = getattr(self.live.module.generation_config, "eos_token_id", None)
        several = of_model if isinstance(of_model, list) else [of_model]
        tokens = {self.live.tokenizer.eos_token_id, self._generation["pad_token_id"], *several}
        return {int(str(token)) for token in tokens if token is not None}

    def log_probabilities(self, key: Hashable, inputs: BatchFeature) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(n,) both: of what `answered` gives the log-probability of each answer, and of how many tokens it is the sum.

        `key` as for `answers`.
        """
        given = dict(inputs.to(self.live.device, dtype=self.live.dtype))
        answer = given.pop(ANSWER)
        length = answer.shape[1]
        kept = length - int(answer.any(dim=0).nonzero().min()) + 1  # from the token before the first answer on
        if KEPT in inspect.signature(self.live.module.forward).parameters:
            given[KEPT] = kept
        with self.features.batch(key), torch.no_grad():
            logits = self.live.module(**given).logits[:, -kept:-1].float()
        tokens, asked = given["input_ids"][:, 1 - kept :], answer[:, 1 - kept :]
        found = logits.log_softmax(dim=-1).gather(-1, tokens[..., None])[..., 0]
        sums = found.double().where(asked, 0.0).sum(dim=1)
        return sums.cpu().numpy(), asked.sum(dim=1).cpu().numpy()

    def _check_prompt(self) -> None:
        if self._prompt is not None:
            check_prompt(self._name, "prompt", self._prompt)
        elif getattr(self._processor, "chat_template", None) is None:
            raise BenchmarkError(
                f"benchmark {self._name!r}: the model's processor has no chat template; give benchmark.{self._name}"
                ".prompt, a text with {image} and {question}"
            )

    def _pad_token(self) -> int | None:
        tokenizer = self.live.tokenizer
        token: int | None = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        return token
