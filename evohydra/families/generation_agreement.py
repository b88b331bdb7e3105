"""Where sources generate with other settings than the one whose generation_config.json all of them are asked with."""

from collections.abc import Mapping
from pathlib import Path

from evohydra.families.agreement import told_of
from evohydra.families.generation_files import FILE, KINDS
from evohydra.files import Plain, read_json
from evohydra.merging.checkpoints import SourceError

# What changes no answer, or what benchmarks and tokenizers say themselves.
ELSEWHERE = {
    "bos_token_id", "pad_token_id", "decoder_start_token_id", "max_length", "max_new_tokens", "use_cache",
    "output_attentions", "output_hidden_states", "output_scores", "output_logits", "cache_implementation",
    "disable_compile",
}  # fmt: skip
TOKENS = {"eos_token_id", "forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens",
          "bad_words_ids", "sequence_bias"}  # fmt: skip
COMPARED = ({*KINDS, "sequence_bias"} - ELSEWHERE) - TOKENS
# As good as nothing, for transformers' own defaults.
NONE: Mapping[str, object] = {
    "do_sample": False, "repetition_penalty": 1.0, "encoder_repetition_penalty": 1.0, "length_penalty": 1.0,
    "temperature": 1.0, "top_p": 1.0, "top_k": 50, "typical_p": 1.0, "num_beams": 1, "num_return_sequences": 1,
    "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0, "min_length": 0, "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0, "renormalize_logits": False, "remove_invalid_values": False, "early_stopping": False,
}  # fmt: skip


def otherwise_generating(directories: Mapping[str, Path], owner: str, same_tokens: bool) -> tuple[str, ...]:
    """In a sentence each, which sources' files say other settings than that of `owner`, which all are asked with.

    same_tokens: whether numbers of tokens mean the same in all.
    """
    said = {name: _settings(directory, same_tokens) for name, directory in directories.items()}
    ours = said[owner]
    sentences = []
    for name, theirs in said.items():
        keys = {key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key)}
        if keys:
            found = {key: (theirs.get(key), ours.get(key)) for key in keys}
            sentences.append(
                f"source {name!r} generates with {told_of(found, owner)} ({FILE}): all are asked with the latter, the "
                "source itself too, unless the benchmark says otherwise (generation_kwargs)"
            )
    return tuple(sentences)


def _settings(directory: Path, same_tokens: bool) -> Plain:
    file = directory / FILE
    try:
        data = read_json(file) if file.exists() else {}
    except (ValueError, OSError) as error:
        raise SourceError(str(error)) from error
    found = {
        key: value
        for key in COMPARED | (TOKENS if same_tokens else set())
        if (value := data.get(key)) is not None and value != NONE.get(key)
    }
    if isinstance(found.get("eos_token_id"), int):
        found["eos_token_id"] = [found["eos_token_id"]]
    ends = found.get("eos_token_id")
    if isinstance(ends, list) and all(isinstance(end, int) for end in ends):
        found["eos_token_id"] = sorted(ends)
    return found
