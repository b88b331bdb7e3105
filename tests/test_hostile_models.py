"""Damage to what libraries read of a model (tokenizers, diffusers folders, LoRAs, shared checkpoints) is a sentence."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from evohydra.families import tokenizers
from evohydra.families.causal_lm import CausalLM
from evohydra.families.loading import compared
from evohydra.families.lora import read
from evohydra.families.sdxl import SDXL
from evohydra.families.sources import open_sources
from evohydra.merging.checkpoints import SourceError
from evohydra.recipe import Checkpoint
from evohydra.scoring.benchmarks.prompts import Prompt
from evohydra.scoring.benchmarks.scorers.similarity import similarity
from evohydra.winner.formats import shared
from tests import tiny_pipelines, tiny_scorers
from tests.test_hostile_files import _bounded as _bounded  # time and memory
from tests.test_recipe import json_data, replaced
from tests.tiny_models import save_model

CPU = torch.device("cpu")
instead_of_values = json_data | st.sampled_from([10**9, -(10**9), 10**30, 1.5, "auto", ["x"], [1, 2, 3, 4]])


def some(examples: int) -> settings:
    """So many examples, for each loads a model; with --hypothesis-profile=long forty times as many."""
    more = settings.default.max_examples // settings.get_profile("quick").max_examples
    silent = [HealthCheck.function_scoped_fixture]
    return settings(max_examples=examples * more, deadline=None, suppress_health_check=silent)


def sentence(what: Callable[[], object]) -> str | None:
    """What is said as it is refused; None where it is not."""
    try:
        what()
    except ValueError as error:
        said = str(error)
        assert 0 < len(said) < 1500
        assert "\n" not in said
        return said
    return None


def damage(file: Path, at: int, instead: object, what: Callable[[], object]) -> str | None:
    """`sentence` of `what` with the value number `at` in a JSON file replaced; the file is then as it was."""
    good = file.read_text()
    try:
        file.write_text(json.dumps(replaced(json.loads(good), at, instead)))
        return sentence(what)
    finally:
        file.write_text(good)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("hostile") / "model", 1)


@some(30)
@given(
    file=st.sampled_from(["tokenizer.json", "tokenizer_config.json"]), at=st.integers(0, 120), instead=instead_of_values
)
def test_any_damage_to_a_tokenizer(model: Path, file: str, at: int, instead: object) -> None:
    def use() -> None:
        one = tokenizers.load(model)
        known = {"one": tokenizers.vocabulary(one, 64)}
        tokenizers.check_comparable({"one": one})
        tokenizers.union({"one": one}, known, "one")

    damage(model / file, at, instead, use)


def test_tokens_with_absurd_ids(model: Path, tmp_path: Path) -> None:
    """To write such a tokenizer its library counts to a thousand millions."""
    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["model"]["vocab"]["7"] = 10**9
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(SourceError, match="ids are at most 10000000, got 1000000000"):
        tokenizers.load(tmp_path)


@some(20)
@given(file=st.sampled_from(["config.json", "generation_config.json"]), at=st.integers(0, 40), instead=json_data)
def test_any_damage_to_what_a_live_model_is_made_of(model: Path, file: str, at: int, instead: object) -> None:
    def use() -> None:
        opened = open_sources((Checkpoint("one", str(model)),), None, CausalLM())
        CausalLM().live_model(model, CPU, torch.float32, opened.overlay)

    damage(model / file, at, instead, use)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.save_sdxl(tmp_path_factory.mktemp("hostile") / "sdxl", 1)


SETTINGS = (
    "model_index.json", "scheduler/scheduler_config.json", "unet/config.json", "vae/config.json",
    "text_encoder/config.json", "text_encoder_2/config.json",
)  # fmt: skip


@some(8)
@given(file=st.sampled_from(SETTINGS), at=st.integers(0, 60), instead=instead_of_values)
def test_any_damage_to_a_diffusers_folder(pipeline: Path, file: str, at: int, instead: object) -> None:
    def use() -> None:
        opened = open_sources((Checkpoint("one", str(pipeline)),), None, SDXL())
        SDXL().live_model(pipeline, CPU, torch.float32, opened.overlay)

    damage(pipeline / file, at, instead, use)


@pytest.mark.parametrize(
    ("file", "key"),
    [("scheduler/scheduler_config.json", "num_train_timesteps"), ("unet/config.json", "layers_per_block"),
     ("unet/config.json", "transformer_layers_per_block"), ("text_encoder/config.json", "num_hidden_layers")],
)  # fmt: skip
def test_absurd_sizes_in_a_diffusers_folder(pipeline: Path, file: str, key: str) -> None:
    content = json.loads((pipeline / file).read_text())
    at = 1 + sum(1 for _ in values_before(content, key))
    said = damage(pipeline / file, at, 10**9, lambda: open_sources((Checkpoint("one", str(pipeline)),), None, SDXL()))
    assert said is not None
    assert f"{key}: expected at most 10000, got 1000000000" in said


def values_before(content: dict[str, object], key: str) -> Iterator[object]:
    """Every value, also those inside of others, before that of `key`."""

    def inside(value: object) -> Iterator[object]:
        yield value
        for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from inside(each)

    for name, value in content.items():
        if name == key:
            return
        yield from inside(value)


MODULE = "unet.mid_block.attentions.0.proj_in"
TENSOR = "unet/mid_block.attentions.0.proj_in.weight"


@pytest.fixture(scope="module")
def lora(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("lora")
    rows, columns = SDXL().open(pipeline, pipeline).shapes[TENSOR]
    factors = {"lora_A.weight": torch.ones(2, columns), "lora_B.weight": torch.ones(rows, 2)}
    save_file({f"{MODULE}.{key}": value for key, value in factors.items()}, directory / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "lora_alpha": 6,
        "use_rslora": False,
        "alpha_pattern": {"x": 1},
        "unet.lora_alpha": 3.0,
        "unet.alpha_pattern": {"proj_in": 4},
    }
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory


@some(40)
@given(at=st.integers(0, 12), instead=instead_of_values)
def test_any_damage_to_the_settings_of_a_diffusion_lora(pipeline: Path, lora: Path, at: int, instead: object) -> None:
    shapes = {TENSOR: SDXL().open(pipeline, pipeline).shapes[TENSOR]}

    def use() -> None:
        change = read(lora, shapes, "unet", 1.0)[TENSOR]
        assert change.delta(CPU).isfinite().all()

    damage(lora / "adapter_config.json", at, instead, use)


@pytest.mark.parametrize(
    "factor",
    [torch.tensor(1.0), torch.ones(2), torch.ones(2, 32, dtype=torch.int64), torch.full((2, 32), torch.nan),
     torch.full((2, 32), torch.inf), torch.ones(0, 32)],
    ids=["number", "vector", "integers", "nan", "inf", "rank 0"],
)  # fmt: skip
def test_factors_that_are_none(pipeline: Path, lora: Path, tmp_path: Path, factor: torch.Tensor) -> None:
    shapes = {TENSOR: SDXL().open(pipeline, pipeline).shapes[TENSOR]}
    stored = load_file(lora / "adapter_model.safetensors") | {f"{MODULE}.lora_A.weight": factor}
    save_file(stored, tmp_path / "adapter_model.safetensors")
    assert sentence(lambda: read(tmp_path, shapes, "unet", 1.0)) is not None


@some(30)
@given(seed=st.integers(0, 10**6))
def test_any_damage_to_the_bytes_of_a_diffusion_lora(pipeline: Path, lora: Path, seed: int, tmp_path: Path) -> None:
    shapes = {TENSOR: SDXL().open(pipeline, pipeline).shapes[TENSOR]}
    content, generator = bytearray((lora / "adapter_model.safetensors").read_bytes()), random.Random(seed)
    if generator.random() < 0.3:
        del content[generator.randrange(len(content)) :]
    else:
        content[generator.randrange(300)] = generator.randrange(256)
    (tmp_path / "adapter_model.safetensors").unlink(missing_ok=True)  # the file of another example may still be mapped
    (tmp_path / "adapter_model.safetensors").write_bytes(content)
    sentence(lambda: read(tmp_path, shapes, "unet", 1.0))


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the released form of EvoLLM-JP-v1-10B, with a path of three hops through two layers."""
    from tests.contracts.test_hops import save

    directory = save(tmp_path_factory.mktemp("hostile") / "shared", "mistral", 2, 0)
    stored = load_file(directory / "model.safetensors")
    path = {shared.PATH: torch.tensor([0, 1, 1]), shared.SCALES: torch.tensor([1.0, 0.5, 1.0])}
    (directory / "model.safetensors").unlink()
    save_file(stored | path, directory / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((directory / "config.json").read_text()) | shared.RELEASED | {"num_hops": 3}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@some(20)
@given(at=st.integers(0, 40), instead=instead_of_values)
def test_any_damage_to_a_shared_checkpoint(released: Path, at: int, instead: object) -> None:
    damage(released / "config.json", at, instead, lambda: shared.load(released, CPU, torch.float32))


@pytest.mark.parametrize(
    "damaged",
    [{shared.PATH: torch.tensor([0.0, 1.5, 1.0])}, {shared.PATH: torch.tensor([True, False, True])},
     {shared.SCALES: torch.tensor([1, 2, 3])}, {shared.SCALES: torch.tensor([1.0, torch.nan, 1.0])},
     {shared.PATH: torch.tensor([0, 1, 2**60])}],
    ids=["halves", "truths", "whole scales", "nan", "far"],
)  # fmt: skip
def test_paths_that_are_none(damaged: dict[str, torch.Tensor], released: Path, tmp_path: Path) -> None:
    whole = shared.load(released, CPU, torch.float32)
    assert compared(whole, shared.load(released, CPU, torch.float32)).same_bits
    for file in released.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").unlink()
    stored = load_file(released / "model.safetensors") | damaged
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert sentence(lambda: shared.load(tmp_path, CPU, torch.float32)) is not None


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_scorers.save(tmp_path_factory.mktemp("hostile") / "clip", tiny_scorers.clip_config())


READ_BY_SCORERS = ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")


@some(10)
@given(file=st.sampled_from(READ_BY_SCORERS), at=st.integers(0, 120), instead=instead_of_values)
def test_any_damage_to_a_scorer_of_pictures(scorer: Path, file: str, at: int, instead: object) -> None:
    def use() -> None:
        scores = similarity(str(scorer))([Image.new("RGB", (16, 16))], [Prompt("a", "")])
        assert np.isfinite(scores).all()

    damage(scorer / file, at, instead, use)
