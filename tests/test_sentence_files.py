"""Files of sentence-transformers that change vectors: the vectors are those of the library, or they are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer

from evohydra.families import Rules
from evohydra.families.encoder import Encoder
from evohydra.families.sources import open_sources
from evohydra.merging.checkpoints import SourceError
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint
from evohydra.scoring.benchmarks.embeddings import Embedder
from tests import tiny_encoders as tiny

CPU = torch.device("cpu")
TEXTS = [" ".join(tiny.WORDS[at : at + count]) for at, count in ((0, 3), (5, 9), (2, 30), (7, 1))]


def ours(directory: Path) -> torch.Tensor:
    family = Encoder()
    sources = open_sources((Checkpoint("one", str(directory)),), None, family, Rules())
    live = family.live_model(sources.directories["one"], CPU, torch.float32, sources.overlay)
    live.become(sources.models[0], Engine(sources.tensors, device=CPU, dtype=torch.float32))
    return Embedder("some", 8, "auto", None).encoded(live, TEXTS)


def theirs(directory: Path) -> torch.Tensor:
    return torch.from_numpy(SentenceTransformer(str(directory), device="cpu").encode(TEXTS))


def saved(tmp_path: Path, **said: Any) -> Path:
    return tiny.as_sentences(tiny.save(tmp_path / "model", 1), **said)


@pytest.mark.parametrize("key", ["tokenizer_args", "processor_kwargs"])
@pytest.mark.parametrize("longest", [None, 20])
def test_the_longest_text_may_be_an_argument_of_the_tokenizer(key: str, longest: int | None, tmp_path: Path) -> None:
    """It was read from max_seq_length alone."""
    directory = saved(tmp_path, max_seq_length=longest, **{key: {"model_max_length": 8}})
    torch.testing.assert_close(ours(directory), theirs(directory))


def test_what_the_library_writes_itself_is_read(tmp_path: Path) -> None:
    SentenceTransformer(str(saved(tmp_path)), device="cpu").save(str(tmp_path / "again"))
    said = json.loads((tmp_path / "again" / "sentence_bert_config.json").read_text())
    assert "transformer_task" in said
    torch.testing.assert_close(ours(tmp_path / "again"), theirs(tmp_path / "again"))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"config_args": {"hidden_act": "relu"}}, "config_args: expected only .* got 'hidden_act'"),
        ({"config_kwargs": {"position_embedding_type": "x"}}, "config_kwargs: .* got 'position_embedding_type'"),
        ({"tokenizer_args": {"padding_side": "left"}}, "tokenizer_args: .* got 'padding_side'"),
        ({"model_args": {"variant": "x"}}, "model_args: .* got 'variant'"),
        ({"model_kwargs": 3}, "model_kwargs: .* got 3"),
        ({"transformer_task": "fill-mask"}, "transformer_task: expected null or 'feature-extraction', got 'fill-mask'"),
        ({"processing_kwargs": {"text": {"max_length": 8}}}, "processing_kwargs: expected null or {}"),
        ({"modality_config": {"text": {"method": "get_text_features"}}}, "modality_config: expected texts as"),
    ],
)
def test_settings_of_the_encoder_that_are_not_followed_are_refused(
    said: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=rf"sentence_bert_config.json: {message}"):
        ours(saved(tmp_path, **said))


def test_arguments_that_change_no_vector_are_taken(tmp_path: Path) -> None:
    arguments = {
        "model_args": {"attn_implementation": "eager"},
        "tokenizer_args": {"use_fast": True},
        "config_args": {},
    }
    directory = saved(tmp_path, **arguments)
    torch.testing.assert_close(ours(directory), theirs(directory))


def test_vectors_of_tokens_that_are_normalized_are_refused(tmp_path: Path) -> None:
    directory = saved(tmp_path)
    modules = json.loads((directory / "modules.json").read_text())
    (directory / "modules.json").write_text(json.dumps([modules[0], modules[2], modules[1]]))
    with pytest.raises(SourceError, match="expected Normalize behind Pooling, got Transformer, Normalize, Pooling"):
        ours(directory)
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "2_Normalize").mkdir()
    (directory / "2_Normalize" / "config.json").write_text('{"module_input_name": "token_embeddings"}')
    with pytest.raises(SourceError, match="expected sentence_embedding to be normalized, got 'token_embeddings'"):
        ours(directory)


def test_vectors_that_are_cut_are_refused(tmp_path: Path) -> None:
    directory = saved(tmp_path)
    (directory / "config_sentence_transformers.json").write_text('{"truncate_dim": 4}')
    with pytest.raises(SourceError, match="truncate_dim: expected null, got 4"):
        ours(directory)
