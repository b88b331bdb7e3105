"""lm-eval's HFLM over the live model, without what it repeats for each genome."""

import functools
from collections.abc import Mapping, Sequence

import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.run_cache import RunCache
from evohydra.scoring.benchmarks.sampling import PromptStreams

DECODED = 2**16  # answers whose text is kept
BATCHES = 2**26  # bytes of batches of tokens that are kept on the device
LOOK_BACK = 2  # tokens more than a stop string has, as in lm-eval


class LiveLM(HFLM):  # type: ignore[misc]
    """HFLM whose prompts are tokenized once a run, and whose stop strings cost next to nothing.

    It follows in-place changes of the module's parameters, and gives the answers of HFLM. Answers that are sampled
    follow from `sampling_seed`, example and repeat.
    """

    def __init__(
        self, module: torch.nn.Module, tokenizer: object, batch_size: int | str, sampling_seed: int = 0
    ) -> None:
        super().__init__(pretrained=module, tokenizer=tokenizer, batch_size=batch_size)
        self._streams = PromptStreams(sampling_seed)
        self._encoded: dict[object, list[int]] = {}
        self._batches = RunCache(BATCHES)
        self._stops: dict[tuple[str, ...], _StopTokens] = {}
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

    def _model_call(self, inps: Tensor, attn_mask: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """(batch, length, vocabulary) logits, without the cache that nothing would read."""
        if attn_mask is not None or labels is not None or self.mixed_precision_dtype is not None:
            called: Tensor = super()._model_call(inps, attn_mask, labels)
            return called
        with torch.no_grad():
            logits: Tensor = self.model(inps, use_cache=False).logits
        return logits

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **options: object) -> Tensor:
        key = tuple(stop)
        if key not in self._stops:
            size = self.model.get_input_embeddings().num_embeddings
            self._stops[key] = _StopTokens(self.tokenizer, key, size, context.device)
        stopping = _StopStrings(self.tokenizer, self._stops[key], context.shape)
        if options.get("do_sample") is None and options.get("temperature", 0.0) == 0.0:
            options["do_sample"] = False
        if options.get("do_sample") is False and options.get("temperature", 0.0) == 0.0:
            options.pop("temperature", None)
        options |= asked_length(self.model, max_length - context.shape[1])
        settings = {"use_cache": True, **options}
        try:
            with self._streams.drawing(options):
                generated: object = self.model.generate(
                    input_ids=context,
                    max_length=max_length,
                    stopping_criteria=transformers.StoppingCriteriaList([stopping]),
                    pad_token_id=self.tokenizer.pad_token_id,
                    **settings,
                )
        except (ValueError, TypeError) as error:
            raise BenchmarkError(f"{_told(options)}: transformers refuses them: {error}") from error
        if not isinstance(generated, Tensor) or len(generated) != len(context):
            raise BenchmarkError(f"{_told(options)}: expected one answer for each prompt, a text, got others")
        self._note_ends(generated[:, context.shape[1] :], max_length - context.shape[1], stopping)
        return generated

    def _note_ends(self, answers: Tensor, limit: int, stopping: "_StopStrings") -> None:
        """Keep how answers, (batch, tokens), have ended: what generates fills up those that end early."""
        eos = self.model.generation_config.eos_token_id
        ends = [self.tokenizer.eos_token_id, self.tokenizer.pad_token_id, *(eos if isinstance(eos, list) else [eos])]
        ended = torch.isin(answers, torch.tensor([e for e in ends if e is not None], device=answers.device))
        counts = torch.where(ended.any(dim=1), ended.int().argmax(dim=1), answers.shape[1])
        cut = (counts >= limit) & ~stopping.done(len(answers))
        for prompt, count, at_limit in zip(self._prompts, counts.tolist(), cut.tolist(), strict=False):
            self.ends[prompt] = count, at_limit


def _told(options: Mapping[str, object]) -> str:
    plain = {key: value for key, value in options.items() if not isinstance(value, Tensor)}
    return f"generation_kwargs {plain} (of the task, or of the benchmark's options)"


def asked_length(module: transformers.PreTrainedModel, tokens: int) -> dict[str, int]:
    """What tells `generate` that answers have at most so many tokens, beside `max_length`.

    The model's generation_config.json may hold another number of new tokens, which counts more than `max_length`.
    """
    return {} if module.generation_config.max_new_tokens is None else {"max_new_tokens": tokens}


class _StopTokens:
    """What tokens mean for stop strings: tables (vocabulary,) of booleans on the model's device.

    holds: the token's text holds a whole stop string; completes: it may hold the last character of one (or a part of
    a character, which could be that).
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str], size: int, device: torch.device
    ) -> None:
        self.stop = tuple(stop)  # an empty one is in every text, and ends an answer at its first token, as in lm-eval
        self.window = LOOK_BACK + max((len(tokenizer.encode(s, add_special_tokens=False)) for s in stop), default=0)
        last = {string[-1] for string in self.stop if string} | {"\ufffd"}
        texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
        texts += [""] * (size - len(texts))
        self.holds = torch.tensor([any(string in text for string in self.stop) for text in texts], device=device)
        self.completes = torch.tensor([bool(last.intersection(text)) for text in texts], device=device)


class _StopStrings(transformers.StoppingCriteria):  # type: ignore[misc]
    """Ends each row at its first stop string; decodes only rows whose new token may complete one."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, tokens: _StopTokens, shape: torch.Size) -> None:
        self._tokenizer, self._tokens, self._prompt = tokenizer, tokens, shape[1]
        self._done = torch.zeros(shape[0], dtype=torch.bool, device=tokens.holds.device)

    def done(self, rows: int) -> Tensor:
        """(rows,): which answers have had a stop string; of beams none is known."""
        return self._done if len(self._done) == rows else torch.zeros(rows, dtype=torch.bool, device=self._done.device)

    def __call__(self, input_ids: Tensor, scores: object, **options: object) -> Tensor:
        new = input_ids[:, -1]
        beams = len(new) != len(self._done)  # which change places; what has had its stop string is no running beam
        done = torch.zeros_like(new, dtype=torch.bool) if beams else self._done
        done |= self._tokens.holds[new]
        unsure = self._tokens.completes[new] & ~done
        for row in unsure.nonzero().flatten().tolist():
            text = self._tokenizer.decode(input_ids[row, self._prompt :][-self._tokens.window :])
            done[row] = any(string in text for string in self._tokens.stop)
        return done
