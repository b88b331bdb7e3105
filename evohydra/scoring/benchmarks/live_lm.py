"""lm-eval's HFLM over the live model, without what it repeats for each genome."""

import functools
from collections.abc import Mapping, Sequence

import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from torch.nn import functional

from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.generation_settings import GREEDY, beyond_greedy
from evohydra.scoring.benchmarks.room import Room
from evohydra.scoring.benchmarks.run_cache import RunCache
from evohydra.scoring.benchmarks.sampling import PromptStreams
from evohydra.scoring.benchmarks.scored_tokens import Text, padded, scored, texts_of
from evohydra.scoring.benchmarks.shared_prefixes import SharedPrefixes, moved, rows_of
from evohydra.scoring.benchmarks.stop_strings import StopStrings, StopTokens

DECODED = 2**16  # answers whose text is kept
BATCHES = 2**26  # bytes of batches of tokens that are kept on the device
MOST = 512  # prompts a forward pass where the user leaves it to lm-eval (auto); fewer where they do not fit
LIKELIHOOD, ANSWERS = "likelihood", "answers"  # in which tokens are shared


class LiveLM(HFLM):  # type: ignore[misc]
    """HFLM whose prompts are tokenized once a run, and whose stop strings cost next to nothing.

    It follows in-place changes of the module's parameters, and gives the answers of HFLM. Answers that are sampled
    follow from `sampling_seed`, example and repeat.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        tokenizer: object,
        batch_size: int | str,
        sampling_seed: int = 0,
        prefix_cache: bool = True,
    ) -> None:
        size = batch_size if isinstance(batch_size, int) else MOST
        super().__init__(pretrained=module, tokenizer=tokenizer, batch_size=size)
        self._room, self._shared = Room(size), SharedPrefixes(module, prefix_cache)
        self._streams = PromptStreams(sampling_seed)
        self._encoded: dict[object, list[int]] = {}
        self._batches = RunCache(BATCHES)
        self._stops: dict[tuple[str, ...], StopTokens] = {}
        self._prompts: tuple[str, ...] = ()  # of the batch that is answered next
        self.ends: dict[str, tuple[int, bool]] = {}  # by prompt, of the last call: tokens of the answer, at the limit?
        self._decode = functools.lru_cache(maxsize=DECODED)(super().tok_decode)

    def tok_encode(self, string: str, **options: object) -> list[int]:
        """The tokens of `string`; prompts do not change between genomes."""
        key = (string, *sorted(options.items()))
        if key not in self._encoded:
            self._encoded[key] = super().tok_encode(string, **options)
        return self._encoded[key]

    def tok_batch_encode(self, strings: Sequence[str], **options: object) -> tuple[Tensor, Tensor]:
        """The padded tokens and mask, (batch, length) each, on the model's device."""
        key = (tuple(strings), *sorted(options.items()))

        def encoded() -> tuple[Tensor, Tensor]:
            tokens, mask = super(LiveLM, self).tok_batch_encode(list(strings), **options)
            return tokens.to(self.device), mask.to(self.device)

        self._streams.batch(strings)
        self._prompts = tuple(strings)
        batch: tuple[Tensor, Tensor] = self._batches.once(key, encoded, lambda made: sum(each.nbytes for each in made))
        return batch

    def batches_kept(self) -> list[tuple[Tensor, Tensor]]:
        """The batches on the device: those of whole splits, as long as subsets of examples leave them room."""
        return self._batches.values()

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """The answers to `requests` by the model as it is now."""
        self._batches.begin_round()
        self._shared.begin()
        self.ends = {}
        self._streams.begin(requests)
        answers: list[str] = super().generate_until(requests, disable_tqdm=disable_tqdm)
        return answers

    def tok_decode(self, tokens: Sequence[int] | int | None, skip_special_tokens: bool = True) -> str:
        """The text of `tokens`; genomes of one search often give the same answers.

        BenchmarkError for None, which lm-eval gives where the tokenizer has no end of a text.
        """
        if tokens is None:
            raise BenchmarkError(
                "the tokenizer has no token for the end of a text (eos_token), with which answers end. Give it one in "
                "the model's tokenizer_config.json, which may be missing"
            )
        text: str = self._decode(tuple(tokens) if isinstance(tokens, list) else tokens, skip_special_tokens)
        return text

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[object, list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """For each request, (its texts, context, continuation): the log-probability, and whether it is the greedy one.

        The batches are those of HFLM; logits are computed where a continuation is.
        """
        self._shared.begin()
        texts, size = texts_of(requests, self.max_length), self._room.given
        found: dict[int, tuple[float, bool]] = {}
        for start in range(0, len(texts), size):
            batch = texts[start : start + size]
            tokens = padded([text.tokens for text in batch], self.device)
            before = self._shared.length(LIKELIHOOD, [text.tokens[: -text.scored] for text in batch])
            if before and not self._shared.holds(LIKELIHOOD, before, tokens[-1:, : len(batch[-1].tokens)]):
                before = 0
            compute = functools.partial(self._scored, batch, tokens, before)
            for part in self._room.over(len(batch), compute, f"a text of {tokens.shape[1]} tokens"):
                found.update((place, (value, greedy)) for place, value, greedy in part)
        return [found[place] for place in range(len(requests))]

    @torch.no_grad()
    def _scored(self, batch: Sequence[Text], tokens: Tensor, before: int, rows: slice) -> list[tuple[int, float, bool]]:
        """See `scored`, for some rows of a batch whose texts all begin with the same `before` tokens."""
        texts = batch[rows]
        positions = [len(text.tokens) - text.scored - before for text in texts]
        return scored(self.model, tokens[rows, before:], texts, positions, **self._behind(tokens, before, len(texts)))

    def _behind(self, tokens: Tensor, before: int, rows: int) -> dict[str, object]:
        """What a forward pass of `rows` texts gets, whose first `before` tokens are shared and not among its inputs."""
        if not before:
            return {"use_cache": False}
        cache = self._shared.cache(tokens[0, :before].tolist(), rows, grows=False)
        return {"use_cache": True, "past_key_values": cache}

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **options: object) -> Tensor:
        """(batch, longest prompt + longest answer); of prompts nobody needs the tokens again."""
        limit, mask = max_length - context.shape[1], options.pop("attention_mask")
        assert isinstance(mask, Tensor)
        if options.get("do_sample") is None and options.get("temperature", 0.0) == 0.0:
            options["do_sample"] = False
        if options.get("do_sample") is False and options.get("temperature", 0.0) == 0.0:
            options.pop("temperature", None)
        options |= asked_length(self.model, limit)
        before = self._shared_by(context, mask, options)
        if before:
            context, mask = moved(context, mask, before)

        def written(rows: slice) -> Tensor:
            stopping = StopStrings(self.tokenizer, self._stop_tokens(stop, context.device), context[rows].shape)
            with self._streams.drawing(options, rows):
                answers = self._generated(
                    context[rows], mask[rows], before, options, max_length=max_length, stopping_criteria=[stopping]
                )
            if not isinstance(answers, Tensor) or len(answers) != len(context[rows]):
                raise BenchmarkError(f"{_told(options)}: expected one answer for each prompt, a text, got others")
            self._note_ends(self._prompts[rows], answers[:, context.shape[1] :], limit, stopping)
            return answers

        what = f"a prompt of {context.shape[1]} tokens with an answer of up to {limit}"
        parts = self._room.over(len(context), written, what)
        longest = max(part.shape[1] for part in parts)
        filling = self.tokenizer.pad_token_id
        return torch.cat([functional.pad(part, (0, longest - part.shape[1]), value=filling) for part in parts])

    def _generated(
        self, tokens: Tensor, mask: Tensor, before: int, options: Mapping[str, object], **more: object
    ) -> object:
        """What transformers' `generate` gives for prompts whose first `before` tokens are shared."""
        settings = {"use_cache": True, **options, **more}
        if before:
            settings["past_key_values"] = self._shared.cache(tokens[0, :before].tolist(), len(tokens), grows=True)
        try:
            return self.model.generate(
                input_ids=tokens, attention_mask=mask, pad_token_id=self.tokenizer.pad_token_id, **settings
            )
        except (ValueError, TypeError) as error:
            raise BenchmarkError(f"{_told(options)}: transformers refuses them: {error}") from error

    def _shared_by(self, tokens: Tensor, mask: Tensor, options: Mapping[str, object]) -> int:
        """How many tokens all prompts of a padded batch begin with, if they are read once; 0 if each is read whole."""
        of_model = self.model.generation_config
        plain = options.keys() <= {*GREEDY, *asked_length(self.model, 0)} and options.get("use_cache", True)
        plain = plain and options.get("num_beams") in (None, 1) and of_model.cache_implementation is None
        if not plain or beyond_greedy(of_model):
            return 0
        kind = ANSWERS if bool(mask[-1].all()) else f"{ANSWERS} behind padding"
        before = self._shared.length(kind, rows_of(tokens, mask))
        return before if before and self._shared.holds(kind, before, tokens[-1:], mask[-1:]) else 0

    def _stop_tokens(self, stop: Sequence[str], device: torch.device) -> StopTokens:
        key = tuple(stop)
        if key not in self._stops:
            size = self.model.get_input_embeddings().num_embeddings
            self._stops[key] = StopTokens(self.tokenizer, key, size, device)
        return self._stops[key]

    def _note_ends(self, prompts: Sequence[str], answers: Tensor, limit: int, stopping: StopStrings) -> None:
        """Keep how answers, (batch, tokens), have ended: what generates fills up those that end early."""
        eos = self.model.generation_config.eos_token_id
        ends = [self.tokenizer.eos_token_id, self.tokenizer.pad_token_id, *(eos if isinstance(eos, list) else [eos])]
        ended = torch.isin(answers, torch.tensor([e for e in ends if e is not None], device=answers.device))
        counts = torch.where(ended.any(dim=1), ended.int().argmax(dim=1), answers.shape[1])
        cut = (counts >= limit) & ~stopping.done(len(answers))
        for prompt, count, at_limit in zip(prompts, counts.tolist(), cut.tolist(), strict=False):
            self.ends[prompt] = count, at_limit


def _told(options: Mapping[str, object]) -> str:
    plain = {key: value for key, value in options.items() if not isinstance(value, Tensor)}
    return f"generation_kwargs {plain} (of the task, or of the benchmark's options)"


def asked_length(module: transformers.PreTrainedModel, tokens: int) -> dict[str, int]:
    """What tells `generate` that answers have at most so many tokens, beside `max_length`.

    The model's generation_config.json may hold another number of new tokens, which counts more than `max_length`.
    """
    return {} if module.generation_config.max_new_tokens is None else {"max_new_tokens": tokens}
