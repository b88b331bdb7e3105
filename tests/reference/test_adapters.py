"""LoRA adapters applied on read against PEFT's merge_and_unload, on tiny Llama and GPT-2 models."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from evohydra.families.causal_lm import CausalLM
from evohydra.families.sources import open_sources
from evohydra.families.vision_language import VisionLanguage
from evohydra.merging.adapters import Adapted
from evohydra.merging.checkpoints import CheckpointReader, SourceError
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint
from tests import tiny_models, tiny_vlms

LLAMA = ["q_proj", "v_proj", "down_proj"]
GPT2 = ["c_attn", "c_fc", "c_proj"]
ADAPTERS: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": LLAMA, "r": 4, "lora_alpha": 6},
    "rank-stabilised": {"target_modules": LLAMA, "r": 4, "lora_alpha": 6, "use_rslora": True},
    "patterns": {
        "target_modules": LLAMA, "r": 4, "lora_alpha": 6,
        "rank_pattern": {"v_proj": 2, r"layers\.1\.mlp\.down_proj": 3},
        "alpha_pattern": {"model.layers.0.self_attn.q_proj": 11, "down_proj": 5},
    },
    "patterns, rank-stabilised": {
        "target_modules": LLAMA, "r": 4, "lora_alpha": 6, "use_rslora": True, "rank_pattern": {"v_proj": 2},
        "alpha_pattern": {"v_proj": 9},
    },
    "head": {"target_modules": ["lm_head", "o_proj"], "r": 2, "lora_alpha": 2},
    "embeddings": {"target_modules": ["embed_tokens", "q_proj"], "r": 2, "lora_alpha": 3},
    "trained whole": {"target_modules": ["q_proj"], "r": 2, "lora_alpha": 3, "modules_to_save": ["lm_head", "norm"]},
    "all linear": {"target_modules": "all-linear", "r": 2, "lora_alpha": 3},
    "GPT-2": {"target_modules": GPT2, "r": 4, "lora_alpha": 6, "fan_in_fan_out": True},
    "GPT-2, patterns": {
        "target_modules": GPT2, "r": 4, "lora_alpha": 6, "fan_in_fan_out": True, "rank_pattern": {"attn.c_proj": 2},
        "alpha_pattern": {"c_fc": 1},
    },
}  # fmt: skip


def llama(directory: Path, dtype: torch.dtype = torch.float32) -> Any:
    saved = tiny_models.save_model(directory, 3, dtype=dtype)
    return transformers.AutoModelForCausalLM.from_pretrained(saved, dtype=dtype)


def gpt2(directory: Path, dtype: torch.dtype = torch.float32) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=20, n_embd=16, n_layer=2, n_head=2, n_positions=32, bos_token_id=None, eos_token_id=1
            )
        )
    model.to(dtype).save_pretrained(directory)
    return model


def adapter(
    root: Path, settings: dict[str, Any], make: Callable[..., Any], dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    """Save a base and an adapter of random weights below `root`; the state that PEFT merges them to."""
    with torch.random.fork_rng():
        torch.manual_seed(9)
        model = peft.get_peft_model(make(root / "base", dtype), peft.LoraConfig(task_type="CAUSAL_LM", **settings))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name or "modules_to_save" in name:
                    parameter.copy_(torch.randn(parameter.shape))
    model.save_pretrained(root / "adapter", save_embedding_layers=False)
    state: dict[str, torch.Tensor] = model.merge_and_unload().state_dict()
    return state


@pytest.mark.parametrize("kind", ADAPTERS)
def test_adapted_tensors_are_those_that_peft_merges(kind: str, tmp_path: Path) -> None:
    expected = adapter(tmp_path, ADAPTERS[kind], gpt2 if kind.startswith("GPT") else llama)
    plain = CheckpointReader(tmp_path / "base")
    adapted = Adapted(plain, tmp_path / "adapter")
    assert adapted.shapes == plain.shapes
    changed = set()
    for name in adapted.shapes:
        torch.testing.assert_close(adapted.read(name), expected[name], rtol=1e-5, atol=1e-5)
        if not torch.equal(adapted.read(name), plain.read(name)):
            changed.add(name)
    parts = [re.split(r"\.lora_|\.weight", key.split("base_model.model.")[1]) for key in adapted.adapter.shapes]
    targets = {part[0] + ".weight" for part in parts}
    assert changed == targets


def test_the_adapted_tensor_has_the_type_of_the_checkpoint(tmp_path: Path) -> None:
    expected = adapter(tmp_path, ADAPTERS["plain"], llama)
    weights = tmp_path / "base" / "model.safetensors"
    save_file({name: t.bfloat16() for name, t in load_file(weights).items()}, weights, metadata={"format": "pt"})
    name = "model.layers.1.self_attn.q_proj.weight"
    result = Adapted(CheckpointReader(tmp_path / "base"), tmp_path / "adapter").read(name)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), expected[name], rtol=0.02, atol=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "all"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "target_parameters"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights=pissa_niter_4"),
        ({"peft_type": "LOHA"}, "got 'LOHA'; merge it with PEFT"),
        ({"peft_type": "IA3", "r": None, "lora_alpha": None}, "got 'IA3'; merge it with PEFT"),
        ({"kasa_config": {"beta": 0.1}}, "kasa_config"),
        ({"monteclora_config": {"num_samples": 2}}, "monteclora_config"),
        ({"r": None}, None),
    ],
)
def test_adapters_of_another_kind_are_refused(change: dict[str, Any], message: str | None, tmp_path: Path) -> None:
    adapter(tmp_path, ADAPTERS["plain"], llama)
    file = tmp_path / "adapter" / "adapter_config.json"
    config = json.loads(file.read_text()) | change
    if message is None:
        del config["r"]
    file.write_text(json.dumps(config))
    with pytest.raises(SourceError, match=message or "LoRA configuration"):
        Adapted(CheckpointReader(tmp_path / "base"), tmp_path / "adapter")


def test_a_target_that_the_checkpoint_lacks_is_an_error(tmp_path: Path) -> None:
    adapter(tmp_path, ADAPTERS["plain"], llama)
    gpt2(tmp_path / "other")
    with pytest.raises(SourceError, match=r"self_attn\.q_proj|mlp\.down_proj"):
        Adapted(CheckpointReader(tmp_path / "other"), tmp_path / "adapter")


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("factors", [torch.float32, torch.bfloat16])
def test_adapted_tensors_are_bit_for_bit_those_of_merge_and_unload(
    kind: str, dtype: torch.dtype, factors: torch.dtype, tmp_path: Path
) -> None:
    make = gpt2 if kind.startswith("GPT") else llama
    adapter(tmp_path, ADAPTERS[kind], make, dtype)
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name: t.to(factors) for name, t in load_file(weights).items()}, weights)
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=dtype)
    merged = peft.PeftModel.from_pretrained(base, str(tmp_path / "adapter")).merge_and_unload().state_dict()
    adapted = Adapted(CheckpointReader(tmp_path / "base"), tmp_path / "adapter")
    for name in adapted.shapes:
        read = adapted.read(name)
        assert read.dtype == merged[name].dtype == dtype
        assert torch.equal(read, merged[name]), name


@pytest.mark.parametrize("change", ["dropped", "added"])
def test_the_checkpoint_may_have_another_prefix_than_the_adapted_model(change: str, tmp_path: Path) -> None:
    adapter(tmp_path, ADAPTERS["patterns"], llama)
    before = Adapted(CheckpointReader(tmp_path / "base"), tmp_path / "adapter")
    expected = {name: before.read(name).clone() for name in before.shapes}

    def renamed(name: str) -> str:
        return name.removeprefix("model.") if change == "dropped" else f"language.{name}"

    weights = tmp_path / "base" / "model.safetensors"
    save_file({renamed(name): t for name, t in load_file(weights).items()}, weights, metadata={"format": "pt"})
    after = Adapted(CheckpointReader(tmp_path / "base"), tmp_path / "adapter")
    for name, tensor in expected.items():
        assert torch.equal(after.read(renamed(name)), tensor)


def test_an_adapter_of_another_model_is_refused_by_its_shapes(tmp_path: Path) -> None:
    adapter(tmp_path, ADAPTERS["plain"], llama)
    tiny_models.save_model(tmp_path / "wider", 1, hidden_size=32)
    with pytest.raises(SourceError, match=r"expected a product of shape \(24, 32\)|shape \(32,"):
        Adapted(CheckpointReader(tmp_path / "wider"), tmp_path / "adapter")


def test_tensors_that_are_no_factors_and_have_no_target_are_refused(tmp_path: Path) -> None:
    adapter(tmp_path, ADAPTERS["plain"], llama)
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file(load_file(weights) | {"base_model.model.extra.lora_magnitude_vector.weight": torch.ones(2)}, weights)
    with pytest.raises(SourceError, match=r"target 'extra\.lora_magnitude_vector\.weight' is not in"):
        Adapted(CheckpointReader(tmp_path / "base"), tmp_path / "adapter")


def test_an_adapter_of_a_resized_vocabulary_is_refused(tmp_path: Path) -> None:
    adapter(tmp_path, ADAPTERS["plain"], llama)
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file(load_file(weights) | {"base_model.model.lm_head.weight": torch.ones(99, 16)}, weights)
    with pytest.raises(SourceError, match=r"lm_head.weight' has shape \(99, 16\), expected \(47, 16\)"):
        Adapted(CheckpointReader(tmp_path / "base"), tmp_path / "adapter")


def test_a_pickled_adapter_is_not_loaded(tmp_path: Path) -> None:
    adapter(tmp_path, ADAPTERS["plain"], llama)
    (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(SourceError, match="never loaded"):
        Adapted(CheckpointReader(tmp_path / "base"), tmp_path / "adapter")


TIED: dict[str, dict[str, Any]] = {
    "embeddings whole": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "head whole": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "both whole": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    "both whole, tied": {
        "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True,
    },
}  # fmt: skip
FACTORS: dict[str, dict[str, Any]] = {
    "embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "both": {"target_modules": ["embed_tokens", "lm_head"]},
    "both, tied": {"target_modules": ["embed_tokens", "lm_head"], "ensure_weight_tying": True},
    "factors and whole": {"target_modules": ["embed_tokens"], "modules_to_save": ["lm_head"]},
}  # fmt: skip


def tied_llama(directory: Path, dtype: torch.dtype = torch.float32) -> Any:
    saved = tiny_models.save_model(directory, 3, dtype=dtype, tie_word_embeddings=True)
    return transformers.AutoModelForCausalLM.from_pretrained(saved, dtype=dtype)


def running(directory: Path, stored: bool) -> Any:
    """The adapted model as it is run here; with a head in the file that is the embeddings where it is `stored`."""
    if stored:
        weights = directory / "base" / "model.safetensors"
        tensors = load_file(weights)
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, weights, metadata={"format": "pt"})
    family = CausalLM()
    node = Checkpoint("one", str(directory / "base"), adapter=str(directory / "adapter"))
    sources = open_sources((node,), None, family)
    engine = Engine(sources.tensors, device=torch.device("cpu"), dtype=torch.float32, compile_kernels=False)
    live = family.live_model(sources.directories["one"], torch.device("cpu"), torch.float32, sources.overlay)
    live.become(sources.models[0], engine)
    return live.module


@pytest.mark.parametrize("kind", TIED)
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tied_embeddings_become_what_peft_makes_of_them(kind: str, stored: bool, tmp_path: Path) -> None:
    """A module that is trained whole is tied no longer."""
    adapter(tmp_path, {"r": 2, "lora_alpha": 3, **TIED[kind]}, tied_llama)
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    merged = peft.PeftModel.from_pretrained(base, str(tmp_path / "adapter")).merge_and_unload()
    module = running(tmp_path, stored)
    for ours, theirs in (
        (module.get_input_embeddings(), merged.get_input_embeddings()),
        (module.get_output_embeddings(), merged.get_output_embeddings()),
    ):
        assert torch.equal(ours.weight, theirs.weight)
    assert module.config.tie_word_embeddings == merged.config.tie_word_embeddings


@pytest.mark.parametrize("kind", FACTORS)
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_factors_of_tied_embeddings_are_added_where_peft_runs_them(kind: str, stored: bool, tmp_path: Path) -> None:
    """To embeddings or head alone, as in training; merge_and_unload would add them to the one parameter of both."""
    adapter(tmp_path, {"r": 2, "lora_alpha": 3, **FACTORS[kind]}, tied_llama)
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    trained = peft.PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    tokens = torch.arange(3, 30)[None]
    with torch.inference_mode():
        expected = trained(tokens).logits
        plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")(tokens).logits
        got = running(tmp_path, stored)(tokens).logits
    assert not torch.allclose(expected, plain, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("change", [{"r": 8}, {"rank_pattern": {"v_proj": 2}}])
def test_a_rank_that_is_not_the_factors_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    adapter(tmp_path, ADAPTERS["plain"], llama)
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(SourceError, match=r"_proj' have rank 4, its adapter_config\.json says [28]"):
        Adapted(CheckpointReader(tmp_path / "base"), tmp_path / "adapter")


@pytest.mark.parametrize(("make", "wrong"), [(gpt2, False), (llama, True)])
def test_how_matrices_are_stored_is_the_models_to_say(make: Callable[..., Any], wrong: bool, tmp_path: Path) -> None:
    """PEFT corrects a wrong fan_in_fan_out by the kind of module; a square matrix has no shape that would tell."""
    targets = ["c_proj"] if make is gpt2 else ["q_proj", "o_proj"]
    settings = {"target_modules": targets, "r": 2, "lora_alpha": 3, "fan_in_fan_out": not wrong}
    expected = adapter(tmp_path, settings, make)
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"fan_in_fan_out": wrong}))
    adapted = Adapted(CheckpointReader(tmp_path / "base"), tmp_path / "adapter")
    assert any(len(shape) == 2 and shape[0] == shape[1] for shape in adapted.shapes.values())
    for name in adapted.shapes:
        torch.testing.assert_close(adapted.read(name), expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("trained_on", "said"),
    [("owner/other", True), ("somewhere/BASE/", False), (None, False), ("elsewhere/base", False)],
)
def test_an_adapter_of_another_base_is_said(trained_on: str | None, said: bool, tmp_path: Path) -> None:
    adapter(tmp_path, ADAPTERS["plain"], llama)
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": trained_on}))
    node = Checkpoint("one", str(tmp_path / "base"), adapter=str(tmp_path / "adapter"))
    warnings = open_sources((node,), None, CausalLM()).warnings
    assert any("was trained on owner/other, and is applied to" in warning for warning in warnings) == said


def older(name: str) -> str:
    """A module of a vision-language model as releases before 4.52 called it."""
    renamed = re.sub(r"^base_model\.model\.model\.language_model\.", "base_model.model.language_model.model.", name)
    return re.sub(r"^base_model\.model\.model\.(vision_tower|multi_modal_projector)", r"base_model.model.\1", renamed)


@pytest.mark.parametrize("named", ["now", "before"])
@pytest.mark.parametrize("kind", tiny_vlms.CONFIGS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_adapters_of_vision_language_models_find_their_modules(kind: str, named: str, tmp_path: Path) -> None:
    """Modules are called as transformers calls them today, or did when the adapter was trained; files otherwise."""
    if named == "before" and not kind.startswith("llava"):
        pytest.skip("its modules were always called so, or in other ways")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForImageTextToText.from_config(tiny_vlms.CONFIGS[kind](dict(tiny_vlms.TEXT)))
        model.save_pretrained(tmp_path / "base")
        made = peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=3, target_modules="all-linear"))
        for name, weight in made.named_parameters():
            if "lora" in name:
                torch.nn.init.normal_(weight, std=0.2)
    made.save_pretrained(str(tmp_path / "adapter"))
    made.merge_and_unload().save_pretrained(tmp_path / "merged")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    if named == "before":
        save_file({older(name): tensor for name, tensor in load_file(weights).items()}, weights)
    base, expected = CheckpointReader(tmp_path / "base"), CheckpointReader(tmp_path / "merged")
    adapted = VisionLanguage().adapted(base, tmp_path / "adapter")
    assert adapted.shapes == expected.shapes == base.shapes
    changed = 0
    for name in adapted.shapes:
        torch.testing.assert_close(adapted.read(name), expected.read(name), rtol=1e-5, atol=1e-6)
        changed += not torch.equal(adapted.read(name), base.read(name))
    assert changed == len(load_file(weights)) / 2
