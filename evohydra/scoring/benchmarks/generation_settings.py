"""Settings of generation that users give to a benchmark, checked before anything is generated."""

import difflib
import functools
import importlib.util
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from evohydra.checks import Count, Natural, Positive, Share, check
from evohydra.files import Plain

LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # lm-eval's names, the first wins
OF_TASKS = ("until", *LENGTHS)  # names that lm-eval's tasks have beside those of transformers
SETTING = re.compile(r'^        self\.([a-z]\w*) = kwargs\.pop\("\1"', re.MULTILINE)
NUCLEUS = Annotated[float, Gt(0), Le(1)]
KINDS: Plain = {
    **dict.fromkeys(LENGTHS, Count),
    "do_sample": bool | None,
    "epsilon_cutoff": Share,
    "eta_cutoff": Share,
    "length_penalty": float,
    "min_new_tokens": Natural | None,
    "min_p": Share | None,
    "no_repeat_ngram_size": Natural,
    "num_beams": Count,
    "num_return_sequences": Literal[1],  # one answer is scored
    "repetition_penalty": Positive,
    "return_dict_in_generate": Literal[False],
    "temperature": Annotated[float, Ge(0)],
    "top_k": Natural,
    "top_p": NUCLEUS,
    "typical_p": NUCLEUS,
    "until": Sequence[str] | str,
}
PENALTY = "repetition_penalty"
# With these alone every new token follows from the logits of its row, and from which tokens came before.
GREEDY = {"do_sample", "temperature", "top_p", "top_k", "num_beams", "use_cache", "attention_mask", PENALTY}
# Of generation_config.json what bears on greedy answers, with the values that change nothing.
NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "num_beams": (None, 1),
    "no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1.0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "bad_words_ids": (None,),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "suppress_tokens": (None,),
    "begin_suppress_tokens": (None,),
    "sequence_bias": (None,),
    "guidance_scale": (None, 1.0),
    "exponential_decay_length_penalty": (None,),
    "stop_strings": (None,),
    "max_time": (None,),
    "penalty_alpha": (None,),
    "watermarking_config": (None,),
    "num_beam_groups": (None, 1),
    "remove_invalid_values": (None, False),
    "renormalize_logits": (None, False),
    "num_return_sequences": (None, 1),
}


def beyond_greedy(of_model: object) -> dict[str, object]:
    """What a model's GenerationConfig, of generation_config.json, sets beside GREEDY that bears on greedy answers."""
    given = {key: getattr(of_model, key, None) for key in NEUTRAL}
    return {key: value for key, value in given.items() if value not in NEUTRAL[key]}


def over_task(key: str, given: Mapping[str, object], of_task: Mapping[str, object]) -> dict[str, object]:
    """The generation settings of an lm-eval task, with those `given` by the user over them; `key` names the latter.

    The length of answers gets the name that counts most in lm-eval, `max_gen_toks`: under another one the task's own
    length would win over the user's. ValueError for two names of it, and as in `check_generation`.
    """
    lengths = [name for name in LENGTHS if name in given]
    if len(lengths) > 1:
        raise ValueError(f"{key}: {' and '.join(lengths)} are names of the same length; give one")
    merged = {**of_task, **{LENGTHS[0] if name in LENGTHS else name: value for name, value in given.items()}}
    check_generation(key, given, merged, own=OF_TASKS)
    return merged


def check_kinds(key: str, given: Mapping[str, object]) -> None:
    """ValueError, which names `key`, for settings `given` by the user of a wrong type or out of range."""
    for name, value in given.items():
        if name in KINDS:
            check(f"{key}.{name}", KINDS[name], value)


def check_ahead(key: str, given: Mapping[str, object], own: Sequence[str] = ()) -> None:
    """What `check_generation` says of names and types, as far as it can be said without transformers."""
    if names := names_on_file():
        _check_names(key, given, {*names, *own})
    check_kinds(key, given)


@functools.cache
def names_on_file() -> frozenset[str]:
    """The settings that the file of transformers' GenerationConfig names; none where there is no such file."""
    found = importlib.util.find_spec("transformers")
    for place in (found.submodule_search_locations if found else None) or ():
        file = Path(place) / "generation" / "configuration_utils.py"
        if file.is_file():
            return frozenset(SETTING.findall(file.read_text()))
    return frozenset()


def _check_names(key: str, given: Iterable[str], known: Collection[str]) -> None:
    for name in given:
        if name not in known or name.startswith("_"):
            close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
            raise ValueError(f"{key}: there is no such setting: {name}{f'; close to it are {close}' if close else ''}")


def check_stops(name: str, task: str, of_task: Mapping[str, object]) -> None:
    """ValueError where a task's own stop strings are none, as `until: null` is."""
    if "until" in of_task:
        check(f"benchmark {name!r}, task {task}, generation_kwargs.until", Sequence[str] | str, of_task["until"])


def check_generation(
    key: str, given: Mapping[str, object], merged: Mapping[str, object], own: Sequence[str] = ()
) -> None:
    """ValueError, which names `key`, for settings `given` by the user that transformers' `generate` would not follow.

    merged: these over the benchmark's own. own: further names that the benchmark itself takes. Refused are unknown
    names, values out of range, and what has no effect beside the rest, such as a temperature where nothing is sampled.
    """
    from transformers import GenerationConfig  # takes a second

    _check_names(key, given, {*vars(GenerationConfig()), *own})
    check_kinds(key, given)
    if given.get("do_sample") and merged.get("temperature") == 0:
        raise ValueError(f"{key}: do_sample=true needs a temperature above 0, got 0; give temperature too")
    plain = {name: value for name, value in merged.items() if name not in own}
    if not plain.get("temperature", 1.0):
        del plain["temperature"]  # lm-eval's way to say: the likeliest token
    elif plain.get("do_sample") is None and "temperature" in plain:
        plain["do_sample"] = True  # as lm-eval reads it
    try:
        GenerationConfig(**plain).validate(strict=True, user_set_attributes={*given, "do_sample", "num_beams"})
    except (ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{key}: transformers refuses {dict(given)}: {reason}") from error
