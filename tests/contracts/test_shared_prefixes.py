"""Beginnings that prompts share: read once, and every architecture gives the numbers that it gives without."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from lm_eval.api.instance import Instance
from torch import Tensor

from evohydra.families.causal_lm import CausalLM
from evohydra.merging.checkpoints import CheckpointReader
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Hop, Stack
from evohydra.scoring.benchmarks.live_lm import LiveLM
from evohydra.scoring.benchmarks.shared_prefixes import STEP, moved
from tests import tiny_models
from tests.contracts.test_causal_lm import ARCHITECTURES, COMMON, LLAMA_LIKE

SHORT = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": 32}
PHI = {key: value for key, value in LLAMA_LIKE.items() if key != "head_dim"}
OTHERS: dict[str, Callable[[], Any]] = {
    "opt": lambda: transformers.OPTConfig(
        **COMMON, hidden_size=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=16,
        max_position_embeddings=64,
    ),
    "bloom": lambda: transformers.BloomConfig(**COMMON, hidden_size=16, n_layer=2, n_head=2),
    "mpt": lambda: transformers.MptConfig(**COMMON, d_model=16, n_layers=2, n_heads=2, max_seq_len=64),
    "phi3 with longrope": lambda: transformers.Phi3Config(
        **PHI, rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0, **SHORT},
        original_max_position_embeddings=32,
    ),
    "mamba": lambda: transformers.MambaConfig(**COMMON, hidden_size=16, num_hidden_layers=2, state_size=4),
    "qwen3_next": lambda: transformers.Qwen3NextConfig(
        **LLAMA_LIKE, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=8, linear_num_key_heads=1,
        linear_num_value_heads=2, linear_key_head_dim=8, linear_value_head_dim=8,
        shared_expert_intermediate_size=8, layer_types=["linear_attention", "full_attention"],
    ),
    "windows": lambda: transformers.MistralConfig(**LLAMA_LIKE, sliding_window=16),
    "no windows": lambda: transformers.MistralConfig(**LLAMA_LIKE, sliding_window=None),
}  # fmt: skip
EVERY = {**ARCHITECTURES, **OTHERS}
# What keeps other things than the keys and values of all tokens, or whose angles follow the length of a text.
WHOLE = {"mistral", "windows", "gemma2", "gemma3", "mamba", "qwen3_next", "phi3 with longrope"}
BEGIN = "0+0=0 1+1=2 2+2=4 3+3=6 4+4=8 5+"  # more than a step, in characters
PROMPTS = [f"{BEGIN}{'?' * (3 * n % 11)}{n}+{7 * n % 10}=" for n in range(9)]
assert STEP <= len(BEGIN) < 2 * STEP


def model(architecture: str) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(6)
        config = EVERY[architecture]()
        config.tie_word_embeddings = False
        made = transformers.AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                if parameter.dim() > 1 and "conv" not in name:
                    parameter.mul_(8.0)  # answers that follow from the whole prompt
    made.generation_config = transformers.GenerationConfig(pad_token_id=0, eos_token_id=1)
    return made


class Passes:
    """The tokens that go through a model."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.tokens = 0

        def count(_: torch.nn.Module, inputs: tuple[object, ...], named: dict[str, object]) -> None:
            given = named.get("input_ids", inputs[0] if inputs else None)
            assert isinstance(given, Tensor)
            self.tokens += given.numel()

        module.register_forward_pre_hook(count, with_kwargs=True)


def lm(module: Any, *, shared: bool, size: int = 4) -> LiveLM:
    return LiveLM(module, tiny_models.tokenizer(), size, prefix_cache=shared)


def answers(asked: LiveLM, prompts: list[str] = PROMPTS, **more: Any) -> list[str]:
    settings = {"until": [], "do_sample": False, "max_gen_toks": 6, **more}
    each = [Instance("generate_until", {}, (p, dict(settings)), 0, metadata=("t", n, 1)) for n, p in enumerate(prompts)]
    found: list[str] = asked.generate_until(each, disable_tqdm=True)
    return found


def likelihoods(asked: LiveLM) -> list[tuple[float, bool]]:
    pairs = [(prompt, text) for prompt in PROMPTS for text in ("3", "12", "はい")]
    each = [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)]
    found: list[tuple[float, bool]] = asked.loglikelihood(each, disable_tqdm=True)
    return found


@pytest.mark.parametrize("architecture", EVERY)
def test_answers_and_likelihoods_are_those_without(architecture: str, caplog: pytest.LogCaptureFixture) -> None:
    module = model(architecture)
    passes = Passes(module)
    whole, shared = lm(module, shared=False), lm(module, shared=True)
    expected, tokens = (answers(whole), likelihoods(whole)), passes.tokens
    for _ in range(2):
        passes.tokens = 0
        found = answers(shared), likelihoods(shared)
        assert found[0] == expected[0]
        assert [greedy for _, greedy in found[1]] == [greedy for _, greedy in expected[1]]
        torch.testing.assert_close(
            torch.tensor([value for value, _ in found[1]]),
            torch.tensor([value for value, _ in expected[1]]),
            rtol=2e-5, atol=2e-5,
        )  # fmt: skip
    assert len(set(expected[0])) > 1
    assert len({value for value, _ in expected[1]}) > 20
    assert (passes.tokens < 0.7 * tokens) == (architecture not in WHOLE)
    assert ("prefix_cache" in caplog.text) == (architecture == "mpt")


def test_a_model_that_computes_other_logits_behind_padding_reads_prompts_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """MPT counts distances by places, also over padding. The log says it, and no number is wrong."""
    module = model("mpt")
    with caplog.at_level(logging.WARNING):
        assert answers(lm(module, shared=True)) == answers(lm(module, shared=False))
    assert "prefix_cache: MptForCausalLM computes other logits with the keys and values of a shared beg" in caplog.text


def test_a_model_whose_logits_are_no_numbers_proves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    module = model("mpt")
    asked = lm(module, shared=True)
    kept = module.lm_head.weight.clone()
    module.lm_head.weight.data.fill_(float("nan"))
    answers(asked)
    module.lm_head.weight.data.copy_(kept)
    assert answers(asked) == answers(lm(module, shared=False))
    assert caplog.text.count("prefix_cache") == 1  # the next model is tried


@pytest.mark.parametrize("architecture", ["llama", "mpt"])
def test_genomes_are_charged_with_the_same_tokens_whichever_comes_first(architecture: str) -> None:
    """Ledgers hold them, and must not tell in which genome a worker began."""
    module = model(architecture)
    asked, passes = lm(module, shared=True), Passes(module)
    counts = []
    for _ in range(3):
        passes.tokens = 0
        answers(asked), likelihoods(asked)
        counts.append(passes.tokens)
    assert len(set(counts)) == 1


def test_another_model_in_the_module_has_its_own_beginning() -> None:
    module = model("llama")
    asked = lm(module, shared=True)
    first = answers(asked), likelihoods(asked)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.8)
    assert (answers(asked), likelihoods(asked)) != first
    assert answers(asked) == answers(lm(module, shared=False))


@pytest.mark.parametrize(
    ("settings", "of_model"),
    [
        ({"num_beams": 2}, {}),
        ({"no_repeat_ngram_size": 2}, {}),
        ({"use_cache": False}, {}),
        ({"cache_implementation": "static"}, {}),
        ({}, {"cache_implementation": "static"}),
        ({}, {"no_repeat_ngram_size": 2}),
        ({"repetition_penalty": 1.3}, {}),
        ({}, {"max_new_tokens": 20}),
        ({"do_sample": True, "temperature": 2.0, "top_k": 9}, {}),
    ],
    ids=str,
)
def test_settings_of_generation(settings: dict[str, Any], of_model: dict[str, Any]) -> None:
    """Those for which places or whole texts count read each prompt whole; with the others nothing differs either."""
    module = model("llama")
    for key, value in of_model.items():
        setattr(module.generation_config, key, value)
    passes = Passes(module)
    expected, tokens = answers(lm(module, shared=False), **settings), passes.tokens
    assert answers(lm(module, shared=True), **settings) == expected
    alone = {"repetition_penalty", "max_new_tokens", "do_sample"} & {*settings, *of_model}
    assert (passes.tokens - tokens < tokens) == bool(alone)


def test_prompts_without_a_shared_beginning_are_read_as_ever() -> None:
    module = model("llama")
    passes = Passes(module)
    prompts = [*PROMPTS, "1+2="]
    expected, tokens = answers(lm(module, shared=False, size=10), prompts), passes.tokens
    assert answers(lm(module, shared=True, size=10), prompts) == expected
    assert passes.tokens == 2 * tokens


def test_padding_goes_behind_the_beginning() -> None:
    tokens, mask = torch.tensor([[0, 0, 5, 6, 7], [5, 6, 8, 9, 4]]), torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    found, left = moved(tokens, mask, 2)
    assert found.tolist() == [[5, 6, 0, 0, 7], [5, 6, 8, 9, 4]]
    assert left.tolist() == [[1, 1, 0, 0, 1], [1, 1, 1, 1, 1]]


def test_paths_through_layers_share_beginnings_too(tmp_path: Path) -> None:
    """Beside hidden states that paths have in common (prefix_gb)."""
    places = {name: tiny_models.save_model(tmp_path / name, seed) for seed, name in enumerate("ab")}
    engine = Engine({name: CheckpointReader(place) for name, place in places.items()}, device=torch.device("cpu"))
    family = CausalLM()
    models, layout = tuple(Checkpoint(name, "-") for name in places), family.layout(places["a"])
    recipes = [
        Stack(models, tuple(Hop(*hop) for hop in hops), layout)
        for hops in (((0, 0), (1, 0), (0, 1)), ((0, 0), (1, 0), (1, 1), (0, 1)))
    ]
    found = []
    for shared in (False, True):
        live = family.live_model(places["a"], torch.device("cpu"), torch.float32, sources=places, prefix_bytes=10**7)
        asked, passes = lm(live.module, shared=shared), Passes(live.module)
        live.expect(recipes)
        numbers = []
        for recipe in (*recipes, models[1], models[0]):
            live.become(recipe, engine)
            numbers += [value for value, _ in likelihoods(asked)]
            answers(asked)
        found.append((torch.tensor(numbers), passes.tokens))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=2e-5, atol=2e-5)
    assert len(set(found[0][0].tolist())) > 60
    assert found[1][1] < 0.7 * found[0][1]


def test_a_model_under_another_configuration_says_itself_what_it_keeps() -> None:
    """A source may be scored under its own; that another one came first must not show."""
    module = model("no windows")
    asked, passes = lm(module, shared=True), Passes(module)
    module.config.sliding_window = 16
    likelihoods(asked)
    tokens, module.config.sliding_window = passes.tokens, None
    likelihoods(asked)
    assert passes.tokens - tokens < 0.7 * tokens
