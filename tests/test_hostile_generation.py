"""What a model's generation_config.json says is followed, or refused with file and key before the search."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evohydra.families.causal_lm import CausalLM, LiveCausalLM
from evohydra.families.generation_files import FILE, KINDS, NOT_TAKEN
from evohydra.families.sources import open_sources
from evohydra.families.vision_language import VisionLanguage
from evohydra.merging.checkpoints import SourceError
from evohydra.recipe import Checkpoint
from tests import tiny_models, tiny_vlms
from tests.test_hostile_files import _bounded as _bounded  # time and memory
from tests.test_hostile_models import sentence, some
from tests.test_taken_options import benchmark
from tests.waiting import HANGS

CPU = torch.device("cpu")
ENDS = {"eos_token_id": 1, "pad_token_id": 0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save_model(tmp_path_factory.mktemp("generation") / "model", 1)


@pytest.fixture(autouse=True)
def _as_it_was(model: Path) -> Iterator[None]:
    before = (model / FILE).read_bytes()
    yield
    (model / FILE).write_bytes(before)


def opened(model: Path, **values: object) -> LiveCausalLM:
    (model / FILE).write_text(json.dumps(ENDS | values))
    found = open_sources((Checkpoint("one", str(model)),), None, CausalLM())
    return CausalLM().live_model(model, CPU, torch.float32, found.overlay)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("num_beams", 1_000_000, "at least 1 and at most 100 or null, got 1000000"),
        ("num_return_sequences", 4, "expected 1 or null, got 4"),
        ("forced_eos_token_id", 10**9, "expected tokens below 47, the size of the vocabulary, got 1000000000"),
        ("forced_bos_token_id", -1, "at least 0"),
        ("bad_words_ids", [[5], [47]], "expected tokens below 47, .* got 47"),
        ("bad_words_ids", [[]], "expected a list of 1 to 10000, got"),
        ("bad_words_ids", "ab", "expected a list"),
        ("suppress_tokens", [3, 50], "expected tokens below 47, .* got 50"),
        ("sequence_bias", [[[3], 1]], "expected pairs of tokens and a number with a point"),
        ("sequence_bias", [[[99], 1.0]], "expected tokens below 47"),
        ("repetition_penalty", 0, "expected a number of more than 0"),
        ("repetition_penalty", 2, "expected a number with a point"),
        ("length_penalty", 1e308, "at least -5 and at most 5"),
        ("temperature", -1.0, "expected 0, a number of at least"),
        ("top_p", 1.5, "at least 0 and at most 1"),
        ("exponential_decay_length_penalty", [1], "expected a length and a factor"),
        ("exponential_decay_length_penalty", [1, 1e308], "at most 10"),
        ("stop_strings", ["a"], "expected null, for answers end where the benchmark says"),
        ("max_time", 0.5, "expected null, for answers would depend on how fast the machine is"),
        ("return_dict_in_generate", True, "expected null"),
        ("max_length", "x", "expected a whole number"),
        ("validate", 1, "there is no such setting; it is a function of transformers"),
        ("to_dict", 1, "there is no such setting"),
    ],
)
def test_a_value_that_cannot_be_followed_is_named(model: Path, key: str, value: object, reason: str) -> None:
    with pytest.raises(SourceError, match=rf"^{model / FILE}: {key}: .*{reason}"):
        opened(model, **{key: value})


def test_the_file_of_another_source_is_not_asked(model: Path, tmp_path: Path) -> None:
    """Files come from the base; what only another source says counts for nothing, and is no reason to refuse it."""
    other = tiny_models.save_model(tmp_path / "other", 2)
    (other / FILE).write_text(json.dumps({"num_beams": 10**6}))
    open_sources((Checkpoint("one", str(model)), Checkpoint("two", str(other))), None, CausalLM())
    with pytest.raises(SourceError, match="num_beams"):
        open_sources((Checkpoint("two", str(other)), Checkpoint("one", str(model))), None, CausalLM())


@pytest.mark.parametrize(
    "values",
    [
        {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "bos_token_id": 2, "eos_token_id": [1, 3]},
        {"max_length": 4096, "_from_model_config": True, "transformers_version": "4.31.0.dev0"},
        {"pad_token_id": -1, "temperature": 1e-06, "repetition_penalty": 1.05, "top_k": 1},
        {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True, "no_repeat_ngram_size": 3},
        {"chat_format": "chatml", "max_window_size": 6144, "user_token_id": 195, "trust_remote_code": False},
        {"cache_implementation": "hybrid", "suppress_tokens": [3], "begin_suppress_tokens": [4], "output_scores": None},
        {"diversity_penalty": 0.0, "num_beam_groups": 1, "penalty_alpha": None, "constraints": None},
    ],
)
def test_what_real_models_have_is_followed(model: Path, values: dict[str, object]) -> None:
    live = opened(model, **values)
    made: Any = live.module.generate(input_ids=torch.tensor([[5, 6]]), max_length=8)  # type: ignore[operator]
    assert made.shape[1] <= 8


instead = st.sampled_from(
    [None, True, False, -1, 0, 1, 2, 46, 47, 10**6, 10**9, 10**30, -1.0, 0.0, 1e-300, 0.5, 1.0, 2.0, 1e308, "", "x",
     [], [3], [47], [-1], [[3]], [[3, 4]], [[[3], 1.0]], [2, 1.1], ["x"], {}, {"3": 1.0}, [[]], "static"]
)  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
@some(60)
@given(values=st.dictionaries(st.sampled_from(sorted({*KINDS, *NOT_TAKEN})), instead, min_size=1, max_size=3))
def test_any_values_are_followed_or_one_sentence(model: Path, values: dict[str, object]) -> None:
    made: list[LiveCausalLM] = []
    if sentence(lambda: made.append(opened(model, **values))) is not None:
        return
    begin = time.monotonic()
    fixed = {"max_length": 8, "max_new_tokens": 6, "pad_token_id": 0, "use_cache": True, "do_sample": False}
    written: Any = made[0].module.generate(input_ids=torch.tensor([[5, 6]]), **fixed)  # type: ignore[operator]
    assert written.shape[0] == 1
    assert time.monotonic() - begin < HANGS


def test_the_length_of_answers_is_the_benchmark_s(model: Path, tmp_path: Path) -> None:
    """In transformers the file's number of new tokens counts more than the length that lm-eval asks for."""
    tiny_models.save_task(tmp_path)
    answers = []
    for values in ({}, {"max_new_tokens": 1}, {"max_new_tokens": 30}):
        live = opened(model, suppress_tokens=[1], **values)
        answers.append(
            benchmark("sums", tmp_path, generation_kwargs={"max_gen_toks": 5}).answers(live, "search", [0, 1])
        )
    assert answers[0] == answers[1] == answers[2]
    assert len(answers[0][0]) > 1


def test_the_file_of_a_vision_language_model_is_looked_at(tmp_path: Path) -> None:
    directory = tiny_vlms.save_vlm(tmp_path / "vlm", "llava")
    open_sources((Checkpoint("one", str(directory)),), None, VisionLanguage())
    (directory / FILE).write_text(json.dumps({"num_beams": 10**6}))
    with pytest.raises(SourceError, match=rf"^{directory / FILE}: num_beams: "):
        open_sources((Checkpoint("one", str(directory)),), None, VisionLanguage())
