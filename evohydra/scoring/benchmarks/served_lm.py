"""The live model of an inference engine as lm-eval asks it: same prompts, truncation and stop strings as in LiveLM."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from evohydra.families import LiveModel
from evohydra.families.serving import Served
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.generation_settings import GREEDY, LENGTHS, PENALTY, beyond_greedy
from evohydra.scoring.benchmarks.live_lm import LiveLM

AT_ONCE = 4096  # requests that an engine is given together; it makes its own batches of them
WHY = "choose backend=transformers, or greedy answers (generation_kwargs of the benchmark)"


def language_model(live: LiveModel, batch_size: int | str, sampling_seed: int = 0, prefix_cache: bool = True) -> LiveLM:
    """The live model for lm-eval: an engine's, or one of transformers."""
    if isinstance(live, Served):
        return ServedLM(live)
    return LiveLM(live.module, live.tokenizer, batch_size, sampling_seed, prefix_cache)


def greedy_settings(options: Mapping[str, object], given: object) -> tuple[float, list[int]]:
    """The penalty of repetition, and the tokens that end an answer; BenchmarkError for what an engine lacks.

    options: of `generate`, as lm-eval gives them. given: the model's GenerationConfig.
    """
    plain = {key: value for key, value in options.items() if not isinstance(value, Tensor)}
    sampled = plain.get("do_sample") or (plain.get("do_sample") is None and plain.get("temperature"))
    beams = plain.get("num_beams") not in (None, 1)
    if sampled or beams or (unknown := sorted(plain.keys() - GREEDY)):
        what = "sampled answers" if sampled else "beams" if beams else ", ".join(unknown)
        raise BenchmarkError(f"backend=vllm writes greedy answers, and has no {what} (generation_kwargs); {WHY}")
    for key, value in beyond_greedy(given).items():
        raise BenchmarkError(
            f"generation_config.json of the sources sets {key} to {value!r}, which backend=vllm cannot do; "
            "choose backend=transformers"
        )
    asked = plain.get(PENALTY, getattr(given, PENALTY, None))
    eos = getattr(given, "eos_token_id", None)
    ends = eos if isinstance(eos, list) else [eos]
    return 1.0 if asked is None else float(str(asked)), [token for token in ends if token is not None]


def check_greedy(benchmark: str, asked: Sequence[Mapping[str, object]], given: object) -> None:
    """BenchmarkError for generation_kwargs of a benchmark's splits that an engine lacks, see `greedy_settings`."""
    for kwargs in asked:
        try:
            greedy_settings({key: value for key, value in kwargs.items() if key not in ("until", *LENGTHS)}, given)
        except BenchmarkError as error:
            raise BenchmarkError(f"benchmark {benchmark!r}: {error}") from None


class ServedLM(LiveLM):
    """LiveLM, except that an engine computes: how prompts are made, cut and batched is the same code."""

    def __init__(self, live: Served) -> None:
        super().__init__(live.outline, live.tokenizer, AT_ONCE)
        self._device = torch.device("cpu")  # of tokens; the outline is nowhere
        self._served = live

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[object, list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """For each request, (its texts, context, continuation): the log-probability, and whether it is the greedy one.

        Tokens are cut as in HFLM: the last `max_length`, with the one that is predicted last.
        """
        texts = [(context + continuation)[-(self.max_length + 1) :] for _, context, continuation in requests]
        for (_, context, continuation), text in zip(requests, texts, strict=True):
            if not 0 < len(continuation) < len(text):
                raise BenchmarkError(
                    f"expected a context and a continuation of at most {self.max_length} tokens, got {len(context)} "
                    f"and {len(continuation)}"
                )
        self._check_room(max(map(len, texts), default=0), 1)
        told = self._served.engine.log_probabilities(texts)
        found = []
        for (_, _, continuation), each in zip(requests, told, strict=True):
            scored = each[-len(continuation) :]
            found.append((sum(value for value, _ in scored), all(largest for _, largest in scored)))
        return found

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **options: object) -> Tensor:
        """(batch, length of context + longest answer): prompts and answers in tokens, filled up at the end."""
        limit, mask = max_length - context.shape[1], options.get("attention_mask")
        prompts = [
            row[keep.bool()].tolist() if isinstance(keep, Tensor) else row.tolist()
            for row, keep in zip(context, mask if isinstance(mask, Tensor) else [None] * len(context), strict=True)
        ]
        self._check_room(max(map(len, prompts), default=0), limit)
        penalty, ends = greedy_settings(options, self.model.generation_config)
        answers = self._served.engine.answers(prompts, limit=limit, stop=stop, ends=ends, penalty=penalty)
        filling = self.tokenizer.pad_token_id
        longest = max((len(each.tokens) for each in answers), default=0)
        rows = [[*each.tokens, *[filling] * (longest - len(each.tokens))] for each in answers]
        ended = {*ends, filling}
        for prompt, each in zip(self._prompts, answers, strict=False):
            count = next((n for n, token in enumerate(each.tokens) if token in ended), len(each.tokens))
            self.ends[prompt] = count, each.at_limit and count >= limit
        return torch.cat([context, torch.tensor(rows, dtype=context.dtype).reshape(len(rows), longest)], dim=1)

    def _check_room(self, prompt: int, answer: int) -> None:
        if prompt + answer > self._served.engine.context:
            raise BenchmarkError(
                f"a prompt of {prompt} tokens and an answer of up to {answer} do not fit into backend.context, which "
                f"is {self._served.engine.context}: expected at least {prompt + answer}; a text of the model's whole "
                "length leaves no room for the token after it, and needs backend=transformers"
            )
