"""The file generation_config.json: how a model generates where nobody says otherwise, checked before it is used."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from transformers import GenerationConfig

from evohydra.checks import Natural, Share, check, shown
from evohydra.families.settings_files import LOCAL
from evohydra.files import Plain, read_json
from evohydra.merging.checkpoints import SourceError

FILE = "generation_config.json"
MOST_TOKENS = 2**31 - 1
MOST_WORDS = 10_000  # of a list of tokens, or of lists of them
Length = Annotated[int, Ge(0), Le(MOST_TOKENS)]
Id = Annotated[int, Ge(-1), Le(MOST_TOKENS)]  # -1: none, in older models
Penalty = Annotated[float, Gt(0), Le(1000)]
Bias = Annotated[float, Ge(-(10**6)), Le(10**6)]
Cache = Literal[
    "dynamic",
    "static",
    "hybrid",
    "hybrid_chunked",
    "sliding_window",
    "offloaded",
    "offloaded_static",
    "offloaded_hybrid",
    "offloaded_hybrid_chunked",
]
KINDS: Plain = {
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), Id | Sequence[Id] | None),
    "decoder_start_token_id": Id | Sequence[Id] | None,
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id"), Natural | Sequence[Natural] | None),
    **dict.fromkeys(("suppress_tokens", "begin_suppress_tokens"), Sequence[Natural] | None),
    **dict.fromkeys(("max_length", "min_length", "min_new_tokens", "top_k"), Length | None),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size"), Length | None),
    **dict.fromkeys(("top_p", "min_p", "epsilon_cutoff", "eta_cutoff"), Share | None),
    **dict.fromkeys(("top_h", "typical_p"), Annotated[float, Gt(0), Le(1)] | None),
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty"), Penalty | None),
    "length_penalty": Annotated[float, Ge(-5), Le(5)] | None,  # an exponent of the length
    "guidance_scale": Annotated[float, Ge(-1000), Le(1000)] | None,
    "max_new_tokens": Annotated[int, Ge(1), Le(MOST_TOKENS)] | None,
    **dict.fromkeys(("do_sample", "use_cache", "renormalize_logits", "remove_invalid_values"), bool | None),
    **dict.fromkeys(("output_attentions", "output_hidden_states", "output_scores", "output_logits"), bool | None),
    "bad_words_ids": Sequence[Sequence[Natural]] | None,
    "cache_implementation": Cache | None,
    "disable_compile": bool | None,
    "early_stopping": bool | Literal["never"] | None,
    "num_beams": Annotated[int, Ge(1), Le(100)] | None,
    "num_beam_groups": Literal[1] | None,
    "num_return_sequences": Literal[1] | None,  # one answer is scored
    "temperature": Literal[0] | Annotated[float, Ge(1e-30), Le(10**6)] | None,
}
FLOATS = ("repetition_penalty", "encoder_repetition_penalty", "length_penalty", "temperature")
# What `generate` does otherwise than benchmarks expect, and why it cannot be had.
NOT_TAKEN = {
    "max_time": "answers would depend on how fast the machine is",
    "stop_strings": "answers end where the benchmark says",
    "max_cache_len": "the cache is as long as the texts are",
    "watermarking_config": "answers are not watermarked",
    "return_dict_in_generate": "answers alone are asked for",
    "is_assistant": "it is the model that is asked",
    "token_healing": "prompts are asked as they are",
    **dict.fromkeys(
        ("prompt_lookup_num_tokens", "assistant_early_exit", "speculation_type", "use_mtp"), "no tokens are guessed"
    ),
    **dict.fromkeys(
        ("penalty_alpha", "dola_layers", "diversity_penalty", "constraints", "force_words_ids", "custom_generate"),
        "this way of generating needs code that transformers no longer has",
    ),
    **dict.fromkeys(("compile_config", "cache_config", "continuous_batching_config"), "the file is not to choose it"),
}
OFF = ("return_dict_in_generate", "token_healing", "use_mtp", "is_assistant", "penalty_alpha", "diversity_penalty")  # 0


def generation_of(directory: Path) -> GenerationConfig:
    """How the model in a checkpoint's directory generates where nobody says otherwise."""
    return GenerationConfig.from_pretrained(directory, **LOCAL) if (directory / FILE).is_file() else GenerationConfig()


def check_generation_file(directory: Path, vocabulary: int) -> None:
    """SourceError, with file and key, for a `FILE` of a checkpoint's directory whose values `generate` cannot follow.

    vocabulary: the rows of the model's embeddings. A directory without the file is good.
    """
    file = directory / FILE
    try:
        if not file.exists():
            return
        data = read_json(file)
        for key, value in data.items():
            _check_value(f"{file}: {key}", key, value)
        if data.get("do_sample") and data.get("temperature") == 0:
            raise SourceError(f"{file}: temperature: expected more than 0 where do_sample is true, got 0")
        _check_decay(f"{file}: exponential_decay_length_penalty", data)
        for key, tokens in _tokens(data, file):
            _check_tokens(f"{file}: {key}", tokens, vocabulary)
    except (ValueError, OSError) as error:
        raise error if isinstance(error, SourceError) else SourceError(str(error)) from error


def _check_value(where: str, key: str, value: object) -> None:
    if key in NOT_TAKEN and value is not None and not (key in OFF and value == 0):
        raise SourceError(f"{where}: expected null, for {NOT_TAKEN[key]}, got {shown(value)}")
    if key in KINDS:
        check(where, KINDS[key], value)
        if key in FLOATS and type(value) is int and value not in (0, 1):
            raise SourceError(f"{where}: expected a number with a point, as transformers does, got {value}")
    elif callable(getattr(GenerationConfig, key, None)):
        raise SourceError(f"{where}: there is no such setting; it is a function of transformers")


def _tokens(data: Mapping[str, object], file: Path) -> Iterator[tuple[str, Sequence[int]]]:
    """Those lists of tokens of which `generate` looks up the scores, by key; of the right types."""
    for key in ("forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens"):
        value: Any = data.get(key)
        if value is not None:
            yield key, value if isinstance(value, list) else [value]
    if data.get("bad_words_ids") is not None:
        for word in _listed(f"{file}: bad_words_ids", data["bad_words_ids"]):
            yield "bad_words_ids", _listed(f"{file}: bad_words_ids", word)
    if data.get("sequence_bias") is not None:
        for tokens in _biased(f"{file}: sequence_bias", data["sequence_bias"]):
            yield "sequence_bias", tokens


def _listed(where: str, value: object) -> list[Any]:
    if not isinstance(value, list) or not 0 < len(value) <= MOST_WORDS:
        raise SourceError(f"{where}: expected a list of 1 to {MOST_WORDS}, got {shown(value)}")
    return value


def _biased(where: str, value: object) -> Iterator[Sequence[int]]:
    """The lists of tokens of which each has a number that is added to its score."""
    for pair in map(functools.partial(_listed, where), _listed(where, value)):
        if len(pair) != 2 or not isinstance(pair[1], float):
            raise SourceError(f"{where}: expected pairs of tokens and a number with a point, got {shown(pair)}")
        check(where, Sequence[Natural], pair[0])
        check(where, Bias, pair[1])
        yield _listed(where, pair[0])


def _check_decay(where: str, data: Mapping[str, object]) -> None:
    decay = data.get("exponential_decay_length_penalty")
    if decay is not None:
        if not isinstance(decay, list) or len(decay) != 2:
            raise SourceError(f"{where}: expected a length and a factor, got {shown(decay)}")
        check(where, Length, decay[0])
        check(where, Annotated[float, Gt(0), Le(10)], decay[1])
        if data.get("eos_token_id") is None:
            raise SourceError(f"{where}: expected eos_token_id beside it, got none")


def _check_tokens(where: str, tokens: Sequence[int], vocabulary: int) -> None:
    if max(tokens, default=0) >= vocabulary:
        raise SourceError(f"{where}: expected tokens below {vocabulary}, the size of the vocabulary, got {max(tokens)}")
