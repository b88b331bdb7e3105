"""The family of causal language models over tiny models of fourteen architectures, made from their configurations."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from evohydra.families import Rules
from evohydra.families.causal_lm import CausalLM
from evohydra.merging.checkpoints import CheckpointReader, SourceError
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Group, Merge
from evohydra.spaces.grouping import Location
from evohydra.winner.checkpoint_files import write_weights
from tests import tiny_models

COMMON = {"vocab_size": len(tiny_models.CHARACTERS), "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1}
LLAMA_LIKE = {
    **COMMON, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64,
}  # fmt: skip
ARCHITECTURES: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(**LLAMA_LIKE, tie_word_embeddings=False),
    "llama_tied": lambda: transformers.LlamaConfig(**LLAMA_LIKE, tie_word_embeddings=True),
    "mistral": lambda: transformers.MistralConfig(**LLAMA_LIKE, tie_word_embeddings=False),
    "qwen2": lambda: transformers.Qwen2Config(**LLAMA_LIKE, tie_word_embeddings=False),
    "qwen3": lambda: transformers.Qwen3Config(**LLAMA_LIKE, tie_word_embeddings=True),
    "gemma": lambda: transformers.GemmaConfig(**LLAMA_LIKE),
    "gpt2": lambda: transformers.GPT2Config(**COMMON, n_embd=16, n_layer=2, n_head=2, n_positions=64),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(
        **COMMON,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    ),
    "gemma2": lambda: transformers.Gemma2Config(**LLAMA_LIKE),
    "gemma3": lambda: transformers.Gemma3TextConfig(**LLAMA_LIKE),
    "phi3": lambda: transformers.Phi3Config(**{k: v for k, v in LLAMA_LIKE.items() if k != "head_dim"}),
    "olmo2": lambda: transformers.Olmo2Config(**LLAMA_LIKE),
    "mixtral": lambda: transformers.MixtralConfig(**LLAMA_LIKE, num_local_experts=3, num_experts_per_tok=2),
    "qwen2_moe": lambda: transformers.Qwen2MoeConfig(
        **LLAMA_LIKE,
        num_experts=3,
        num_experts_per_tok=2,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=12,
    ),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(
        **LLAMA_LIKE, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=8
    ),
}
# By hand from the architectures: the parts of a name that tell where a tensor of a layer belongs.
MODULES = {
    "attention": (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "c_attn",
        "attn.c_proj",
        "query_key",
        "attention.dense",
        "qkv_proj",
    ),
    "mlp": (
        "gate_proj",
        "up_proj",
        "down_proj",
        "c_fc",
        "mlp.c_proj",
        "dense_h_to_4h",
        "dense_4h_to_h",
        "gate_up_proj",
        "block_sparse_moe",
        "mlp.gate.",
        "shared_expert",
    ),
    "norms": ("layernorm", "q_norm", "k_norm", "ln_1", "ln_2"),
}
EDGES = {
    "embeddings": ("embed_tokens", "embed_in", "wte", "wpe"),
    "head": ("lm_head", "embed_out", "model.norm", "ln_f", "final_layer_norm"),
}
FAMILY = CausalLM()
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models of one architecture on disk."""
    root = tmp_path_factory.mktemp(request.param)
    for seed, name in enumerate(("one", "two")):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = transformers.AutoModelForCausalLM.from_config(ARCHITECTURES[request.param]())
            with torch.no_grad():
                for parameter in model.parameters():  # biases and norms differ too
                    parameter.add_(0.1 * torch.randn(parameter.shape))
        model.generation_config = transformers.GenerationConfig(pad_token_id=0, eos_token_id=1)
        model.save_pretrained(root / name)
        tiny_models.tokenizer().save_pretrained(root / name)
    return root / "one", root / "two"


def average(pair: tuple[Path, Path]) -> tuple[Merge, Engine]:
    readers = {name: CheckpointReader(path) for name, path in zip(("one", "two"), pair, strict=True)}
    models = tuple(Checkpoint(name, "-") for name in readers)
    group = Group("all", tuple(readers["one"].shapes), {"weight": (0.5, 0.5)})
    return Merge("linear", None, models, (group,)), Engine(readers, device=CPU)


def test_every_tensor_has_its_place(pair: tuple[Path, Path]) -> None:
    names = tuple(CheckpointReader(pair[0]).shapes)
    locations = FAMILY.locations(pair[0], names)
    assert set(locations) == set(names)
    for name, location in locations.items():
        layer = next((int(part) for part in name.split(".") if part.isdigit()), None)
        known = EDGES if layer is None else MODULES
        expected = [module for module, parts in known.items() if any(part in name for part in parts)]
        assert len(expected) == 1, name
        assert location == Location(expected[0], layer), name
    in_layers = {(at.module, at.layer) for at in locations.values() if at and at.layer is not None}
    assert in_layers == {(module, layer) for module in MODULES for layer in (0, 1)}


def test_buffers_of_older_checkpoints_have_no_place() -> None:
    buffers = (
        "model.layers.0.self_attn.rotary_emb.inv_freq", "transformer.h.1.attn.bias", "transformer.h.1.attn.masked_bias",
        "gpt_neox.layers.0.attention.bias", "gpt_neox.layers.0.attention.rotary_emb.inv_freq",
    )  # fmt: skip
    assert set(FAMILY.locations(Path("-"), buffers).values()) == {None}
    kept = ("transformer.h.1.attn.c_attn.bias", "model.layers.0.self_attn.q_proj.bias")
    assert [at and at.module for at in FAMILY.locations(Path("-"), kept).values()] == ["attention", "attention"]


def test_the_live_models_parameters_are_the_checkpoints_tensors(pair: tuple[Path, Path]) -> None:
    reader = CheckpointReader(pair[0])
    live = FAMILY.live_model(pair[0], CPU, torch.float32)
    assert {name: tuple(p.shape) for name, p in live.parameters.items()} == dict(reader.shapes)
    for name, parameter in live.parameters.items():
        assert torch.equal(parameter, reader.read(name)), name
    assert not any(parameter.requires_grad for parameter in live.parameters.values())
    assert not live.module.training


def test_checkpoints_without_the_prefix_of_the_model_are_found_too(tmp_path: Path) -> None:
    """GPT-2 was published as h.0..., and transformers loads it as transformer.h.0...; buffers are left alone."""
    with torch.random.fork_rng():
        model = transformers.AutoModelForCausalLM.from_config(ARCHITECTURES["gpt2"]())
    model.save_pretrained(tmp_path)
    tiny_models.tokenizer().save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    published = {name.removeprefix("transformer."): tensor for name, tensor in saved.items()}
    buffer = {"h.0.attn.bias": torch.ones(1, 1, 8, 8)}
    save_file(published | buffer, tmp_path / "model.safetensors", metadata={"format": "pt"})
    live = FAMILY.live_model(tmp_path, CPU, torch.float32)
    assert set(live.parameters) == set(published)
    live.parameters["wte.weight"].zero_()
    assert not live.module.get_input_embeddings().weight.any()


def test_a_merge_in_place_answers_like_the_merged_checkpoint(pair: tuple[Path, Path]) -> None:
    recipe, engine = average(pair)
    live = FAMILY.live_model(pair[0], CPU, torch.float32)
    engine.merge_into(recipe, live.parameters)
    one, two = (transformers.AutoModelForCausalLM.from_pretrained(path) for path in pair)
    with torch.no_grad():
        for parameter, other in zip(one.parameters(), two.parameters(), strict=True):
            parameter.mul_(0.5).add_(0.5 * other)
        tokens = torch.arange(24).reshape(2, 12) + 2
        torch.testing.assert_close(live.module(tokens).logits, one.eval()(tokens).logits)


def test_a_written_merge_loads_with_transformers_and_equals_the_live_model(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe, engine = average(pair)
    live = FAMILY.live_model(pair[0], CPU, torch.float32)
    engine.merge_into(recipe, live.parameters)
    write_weights(recipe, engine, tmp_path, torch.float32, 2_000)  # bytes: several shards
    FAMILY.copy_files(pair[0], tmp_path, torch.float32)
    assert FAMILY.verify(tmp_path, live).same_bits
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("12+3")["input_ids"] == tiny_models.tokenizer()("12+3")["input_ids"]
    engine.merge_into(recipe.models[1], live.parameters)
    other = FAMILY.verify(tmp_path, live)
    assert other.weights
    assert other.outputs > 0.01


@pytest.mark.parametrize("bare", ["one", "two"])
def test_sources_with_and_without_the_prefix_merge_to_the_same(
    pair: tuple[Path, Path], bare: str, tmp_path: Path
) -> None:
    recipe, engine = average(pair)
    expected = {name: engine.tensor(recipe, name) for name in engine.shapes(recipe)}
    directories = dict(zip(("one", "two"), pair, strict=True))
    shutil.copytree(directories[bare], tmp_path / bare)
    directories[bare] = tmp_path / bare
    file = tmp_path / bare / "model.safetensors"
    prefix = re.compile(r"^(model|transformer|gpt_neox)\.")
    tensors = {prefix.sub("", name): tensor.clone() for name, tensor in load_file(file).items()}
    file.unlink()
    save_file(tensors, file, metadata={"format": "pt"})
    aligned = FAMILY.align(directories, {n: CheckpointReader(path) for n, path in directories.items()}, None, Rules())
    live = FAMILY.live_model(directories["one"], CPU, torch.float32, aligned.overlay)
    group = Group("all", tuple(live.parameters), {"weight": (0.5, 0.5)})
    Engine(aligned.tensors, device=CPU).merge_into(Merge(recipe.method, None, recipe.models, (group,)), live.parameters)
    assert {prefix.sub("", name) for name in live.parameters} == {prefix.sub("", name) for name in expected}
    for name, tensor in expected.items():
        own = prefix.sub("", name) if bare == "one" else name
        torch.testing.assert_close(live.parameters[own], tensor)


def test_every_architecture_takes_more_rows(pair: tuple[Path, Path], tmp_path: Path) -> None:
    directories = dict(zip(("one", "two"), pair, strict=True))
    rules = Rules(pad_vocabulary_to=32)
    aligned = FAMILY.align(directories, {n: CheckpointReader(path) for n, path in directories.items()}, None, rules)
    group = Group("all", tuple(aligned.tensors["one"].shapes), {"weight": (0.5, 0.5)})
    recipe = Merge("linear", None, tuple(Checkpoint(n, "-") for n in directories), (group,))
    engine = Engine(aligned.tensors, device=CPU)
    live = FAMILY.live_model(pair[0], CPU, torch.float32, aligned.overlay)
    engine.merge_into(recipe, live.parameters)
    write_weights(recipe, engine, tmp_path, torch.float32, 10**9)
    FAMILY.copy_files(pair[0], tmp_path, torch.float32, aligned.overlay)
    assert FAMILY.verify(tmp_path, live).same_bits
    assert live.module(torch.tensor([[2, 3]])).logits.shape[-1] == 64
    assert {p.shape[0] for name, p in live.parameters.items() if "embed" in name or "wte" in name} == {64}


def test_experts_are_views_of_what_is_fused(tmp_path: Path) -> None:
    transformers.AutoModelForCausalLM.from_config(ARCHITECTURES["mixtral"]()).save_pretrained(tmp_path)
    tiny_models.tokenizer().save_pretrained(tmp_path)
    live = FAMILY.live_model(tmp_path, CPU, torch.float32)
    fused = live.module.get_parameter("model.layers.1.mlp.experts.gate_up_proj")
    live.parameters["model.layers.1.block_sparse_moe.experts.2.w3.weight"].fill_(7)
    assert (fused == 7).sum() == 24 * 16
    assert (fused[2, 24:] == 7).all()


def test_an_architecture_whose_tensors_are_computed_on_loading_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the inverse of loading computes new tensors, writing to them would not reach the model."""
    transformers.AutoModelForCausalLM.from_config(ARCHITECTURES["mistral"]()).save_pretrained(tmp_path)
    tiny_models.tokenizer().save_pretrained(tmp_path)
    monkeypatch.setattr(
        "evohydra.families.in_place.revert_weight_conversion", lambda _, named: {n: t * 1 for n, t in named.items()}
    )
    with pytest.raises(SourceError, match="21 parameters of the loaded model are no tensor of its files"):
        FAMILY.live_model(tmp_path, CPU, torch.float32)


def test_copied_files_name_the_type_that_was_written(pair: tuple[Path, Path], tmp_path: Path) -> None:
    FAMILY.copy_files(pair[0], tmp_path, torch.bfloat16)
    assert FAMILY.dtype(pair[0]) == torch.float32
    assert FAMILY.dtype(tmp_path) == torch.bfloat16
    assert not list(tmp_path.glob("*.safetensors*"))


def test_sources_that_do_not_fit_are_refused(trio: tuple[Path, Path, Path], tmp_path: Path) -> None:
    base, one, _ = trio
    wider = tiny_models.save_model(tmp_path / "wider", 1, intermediate_size=32)
    deeper = tiny_models.save_model(tmp_path / "deeper", 1, num_hidden_layers=3)
    renamed = tiny_models.save_model(tmp_path / "renamed", 1, characters=tiny_models.CHARACTERS[::-1])
    other = tmp_path / "other"
    transformers.AutoModelForCausalLM.from_config(ARCHITECTURES["gpt2"]()).save_pretrained(other)
    tiny_models.tokenizer().save_pretrained(other)

    def check(directory: Path) -> None:
        directories = {"first": one, "second": directory}
        FAMILY.align(directories, {name: CheckpointReader(path) for name, path in directories.items()}, None, Rules())

    check(base)
    for directory, message in (
        (wider, r"shape \(24, 16\) in 'first' and \(32, 16\) in 'second'|shape \(16, 24\)"),
        (deeper, "different tensors"),
        (renamed, "different tokenizers"),
        (other, "different architectures"),
    ):
        with pytest.raises(SourceError, match=message):
            check(directory)


OTHER_HEADS: dict[str, Callable[[], Any]] = {
    "head.weight": lambda: transformers.RwkvConfig(
        vocab_size=len(tiny_models.CHARACTERS), hidden_size=16, attention_hidden_size=16, num_hidden_layers=2,
        intermediate_size=24, context_length=64, bos_token_id=1, eos_token_id=1,
    ),
    "cls.predictions.decoder.weight": lambda: transformers.RemBertConfig(
        vocab_size=len(tiny_models.CHARACTERS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=64, input_embedding_size=8, output_embedding_size=12,
        is_decoder=True, pad_token_id=0, bos_token_id=1, eos_token_id=1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("head", OTHER_HEADS)
def test_heads_of_other_names_are_merged_and_written(head: str, tmp_path: Path) -> None:
    family, names = CausalLM(), ("one", "two")
    for seed, name in enumerate(names):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            transformers.AutoModelForCausalLM.from_config(OTHER_HEADS[head]()).save_pretrained(tmp_path / name)
        tiny_models.tokenizer().save_pretrained(tmp_path / name)
    directories = {name: tmp_path / name for name in names}
    readers = {name: CheckpointReader(path) for name, path in directories.items()}
    aligned = family.align(directories, readers, None, Rules())
    engine = Engine(aligned.tensors, device=torch.device("cpu"), dtype=torch.float32, compile_kernels=False)
    merged = tuple(aligned.tensors["one"].shapes)
    nodes = tuple(Checkpoint(name, str(path)) for name, path in directories.items())
    node = Merge("linear", None, nodes, (Group("all", merged, {"weight": (0.25, 0.75)}),))
    live = family.live_model(tmp_path / "one", torch.device("cpu"), torch.float32, aligned.overlay)
    live.become(node, engine)
    ones, twos = (readers[name].read(head) for name in names)
    torch.testing.assert_close(live.module.get_output_embeddings().weight, 0.25 * ones + 0.75 * twos)  # type: ignore[operator]
    assert not torch.equal(ones, twos)
    (tmp_path / "out").mkdir()
    family.copy_files(tmp_path / "one", tmp_path / "out", torch.float32, aligned.overlay)
    write_weights(node, engine, tmp_path / "out", torch.float32, 10**9)
    assert not family.verify(tmp_path / "out", live).weights
