"""What files of sentence-transformers may say that changes vectors: what is not followed here is refused."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from evohydra.checks import shown
from evohydra.files import Plain
from evohydra.merging.checkpoints import SourceError

# Arguments for model, tokenizer and configuration, as they were called until version 5 and since, and those of each
# that change no vector but for rounding.
ARGUMENTS: Mapping[tuple[str, str], Collection[str]] = {
    ("model_args", "model_kwargs"): {
        "attn_implementation",
        "torch_dtype",
        "dtype",
        "trust_remote_code",
        "use_safetensors",
        "low_cpu_mem_usage",
    },
    ("tokenizer_args", "processor_kwargs"): {"model_max_length", "trust_remote_code", "use_fast"},
    ("config_args", "config_kwargs"): {"trust_remote_code", "attn_implementation", "torch_dtype", "dtype"},
}
TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}
# Settings of the encoder by the values that are followed; others say nothing of vectors.
FOLLOWED: Mapping[str, Sequence[object]] = {
    "transformer_task": ("feature-extraction",),
    "module_output_name": ("token_embeddings",),
    "processing_kwargs": ({},),
    "query_length": (),
    "document_length": (),
    "query_expansion": (False, {}),
    "tokenizer_name_or_path": (),
}
VECTOR = "sentence_embedding"


def check_encoder(file: Path, said: Plain) -> object:
    """The longest text, as the settings `said` in the encoder's own file have it; SourceError for what is not followed.

    The tokenizer's argument model_max_length goes before max_seq_length, as in sentence-transformers.
    """
    modalities = said.get("modality_config")
    if modalities is not None and (not isinstance(modalities, Mapping) or modalities.get("text") != TEXT):
        raise SourceError(f"{file}: modality_config: expected texts as {TEXT}, got {shown(modalities)}")
    for key, values in FOLLOWED.items():
        value = said.get(key)
        if value is not None and value not in values:
            raise SourceError(
                f"{file}: {key}: expected {_words(values)}, got {shown(value)}, which is not followed here"
            )
    longest = said.get("max_seq_length")
    for keys, harmless in ARGUMENTS.items():
        for key in keys:
            arguments = said.get(key) or {}
            strange = sorted(set(arguments) - set(harmless)) if isinstance(arguments, Mapping) else [arguments]
            if strange:
                raise SourceError(
                    f"{file}: {key}: expected only {', '.join(sorted(harmless))}, got {shown(strange[0])}, which is "
                    "not followed here; put it into config.json or tokenizer_config.json"
                )
            longest = arguments.get("model_max_length", longest)
    return longest


def check_order(file: Path, kinds: Sequence[str]) -> None:
    """SourceError where vectors of tokens are normalized before they are pooled."""
    if "Normalize" in kinds and "Pooling" in kinds[kinds.index("Normalize") :]:
        raise SourceError(
            f"{file}: expected Normalize behind Pooling, got {', '.join(kinds)}: vectors of tokens are not normalized "
            "here"
        )


def check_normalize(file: Path, said: Plain) -> None:
    """SourceError for a module that normalizes anything but the text's vector."""
    given, made = said.get("module_input_name", VECTOR), said.get("module_output_name")
    if given != VECTOR or made not in (None, VECTOR):
        raise SourceError(f"{file}: expected {VECTOR} to be normalized, got {shown(given)} (as {shown(made)})")


def check_width(file: Path, said: Plain) -> None:
    """SourceError where vectors are cut."""
    if said.get("truncate_dim") is not None:
        raise SourceError(
            f"{file}: truncate_dim: expected null, got {shown(said['truncate_dim'])}: vectors are not cut here"
        )


def _words(values: Sequence[object]) -> str:
    return " or ".join(["null", *map(shown, values)])
