"""Log-likelihoods without the logits that nobody asks for, against lm-eval's HFLM."""

import random
from typing import Any

import pytest
import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch import Tensor

from evohydra.scoring.benchmarks import BenchmarkError, scored_tokens
from evohydra.scoring.benchmarks.live_lm import LiveLM
from tests import tiny_models
from tests.contracts.test_causal_lm import ARCHITECTURES, LLAMA_LIKE

# Models that do more behind the head: caps, scales.
BEHIND = {
    "gemma2": ARCHITECTURES["gemma2"],
    "cohere": lambda: transformers.CohereConfig(
        **{**LLAMA_LIKE, "bos_token_id": 1}, logit_scale=0.3, tie_word_embeddings=False
    ),
    "granite": lambda: transformers.GraniteConfig(**LLAMA_LIKE, logits_scaling=0.2),
}
PLAIN = {name: ARCHITECTURES[name] for name in ("llama", "gpt2", "mixtral")}
CONTEXTS = [f"{'x' * (7 * n % 19)}{n}+{n}=" for n in range(11)]
CHOICES = ["0", "1", "12", "120 no", "121 no"]  # of one token and of several, with a beginning in common


def model(make: Any, **changes: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        config = make()
        for key, value in changes.items():
            setattr(config, key, value)
        made = transformers.AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.mul_(4.0)
    return made


def asked() -> list[Instance]:
    pairs = [(context, choice) for context in CONTEXTS for choice in CHOICES]
    random.Random(0).shuffle(pairs)
    return [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)]


@pytest.mark.parametrize("most", [1, 3, 2**26], ids="at most {} positions at once".format)
@pytest.mark.parametrize("architecture", {**PLAIN, **BEHIND})
def test_log_likelihoods_are_those_of_hflm(architecture: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module, words = model({**PLAIN, **BEHIND}[architecture]), tiny_models.tokenizer()
    monkeypatch.setattr(scored_tokens, "LOGITS", most * len(tiny_models.CHARACTERS))
    expected = HFLM(pretrained=module, tokenizer=words, batch_size=6).loglikelihood(asked(), disable_tqdm=True)
    found = LiveLM(module, words, 6).loglikelihood(asked(), disable_tqdm=True)
    torch.testing.assert_close(*(torch.tensor([value for value, _ in each]) for each in (found, expected)))
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert len({value for value, _ in found}) == len(found)


def test_texts_longer_than_a_model_reads_are_cut_as_hflm_cuts_them() -> None:
    module, words = model(PLAIN["llama"]), tiny_models.tokenizer()
    pairs = [("x" * 80 + "1+2=", "3"), ("1+2=", "y" * 64), ("y" * 30, "z" * 34), ("y" * 30, "z" * 35)]
    each = [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)]
    expected = HFLM(pretrained=module, tokenizer=words, batch_size=2).loglikelihood(each, disable_tqdm=True)
    found = LiveLM(module, words, 2).loglikelihood(each, disable_tqdm=True)
    torch.testing.assert_close(*(torch.tensor([value for value, _ in each]) for each in (found, expected)))
    with pytest.raises(BenchmarkError, match="a continuation of at most 64 tokens, got 4 and 65"):
        LiveLM(module, words, 2).loglikelihood([Instance("loglikelihood", {}, ("1+2=", "y" * 65), 0)])


def test_no_more_logits_are_asked_for_than_there_are_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of 512 prompts and a vocabulary of 262144 asked for 13.9 GB at once."""
    vocabulary = 4096
    module, words = model(PLAIN["llama"], vocab_size=vocabulary, max_position_embeddings=256), tiny_models.tokenizer()
    monkeypatch.setattr(scored_tokens, "LOGITS", 20 * vocabulary)
    made: list[int] = []
    module.get_output_embeddings().register_forward_hook(lambda _, __, out: made.append(out.numel()))
    lm = LiveLM(module, words, 512)
    pairs = [(f"{'x' * 90}{n}=", f"{n}0") for n in range(10, 40)]
    lm.loglikelihood([Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)], disable_tqdm=True)
    assert max(made) == 20 * vocabulary
    assert sum(made) == (30 * 3 + 1 + 2) * vocabulary  # what all begin with is read once, and tried once
    made.clear()
    lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, ("x" * 200,), 0)], disable_tqdm=True)
    assert max(made) == 20 * vocabulary
    made.clear()
    settings = {"until": [], "do_sample": False, "max_gen_toks": 3}
    lm.generate_until([Instance("generate_until", {}, (p, settings), 0) for p, _ in pairs], disable_tqdm=True)
    assert max(made) == 30 * vocabulary  # the last position of each


def test_a_model_without_a_head_of_its_own_gives_all_logits() -> None:
    module, words = model(PLAIN["llama"]), tiny_models.tokenizer()
    expected = LiveLM(module, words, 6).loglikelihood(asked(), disable_tqdm=True)
    module.get_output_embeddings = lambda: None
    found = LiveLM(module, words, 6).loglikelihood(asked(), disable_tqdm=True)
    torch.testing.assert_close(*(torch.tensor([value for value, _ in each]) for each in (found, expected)))


def test_logits_that_are_no_numbers_are_seen_wherever_they_are() -> None:
    module, words = model(PLAIN["llama"]), tiny_models.tokenizer()
    with torch.no_grad():
        module.get_output_embeddings().weight[3] = float("nan")
    found = LiveLM(module, words, 6).loglikelihood(asked(), disable_tqdm=True)
    assert bool(Tensor([value for value, _ in found]).isnan().all())
