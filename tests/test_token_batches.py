"""Batches of tokens on the device: those that each genome is asked stay there, within a bound on their bytes."""

import pytest
import torch
from lm_eval.api.instance import Instance
from torch import Tensor

from evohydra.families.causal_lm import CausalLM, LiveCausalLM
from evohydra.scoring.benchmarks.live_lm import LiveLM
from tests.tiny_models import save_trio

SPLIT = [f"{number}+1=" for number in range(8)]
BATCH = 2 * 16 * 4  # bytes: two prompts of four tokens each, and their masks


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> LiveCausalLM:
    _, one, _ = save_trio(tmp_path_factory.mktemp("models"))
    return CausalLM().live_model(one, torch.device("cpu"), torch.float32)


@pytest.fixture
def lm(live: LiveCausalLM, monkeypatch: pytest.MonkeyPatch) -> LiveLM:
    """One that keeps six batches of two prompts; a whole split is four of them."""
    monkeypatch.setattr("evohydra.scoring.benchmarks.live_lm.BATCHES", 6 * BATCH)
    return LiveLM(live.module, live.tokenizer, 2)


def asked(lm: LiveLM, prompts: list[str]) -> list[Tensor]:
    """What the model is given, batch by batch, when it is asked for answers to these prompts."""
    given: list[Tensor] = []
    generate = lm._model_generate

    def noted(context: Tensor, *arguments: object, **options: object) -> Tensor:
        given.append(context)
        return generate(context, *arguments, **options)

    settings = {"until": ["x"], "max_gen_toks": 2}
    requests = [
        Instance("generate_until", doc={}, arguments=(prompt, dict(settings)), idx=0, metadata=("t", place, 1))
        for place, prompt in enumerate(prompts)
    ]
    lm._model_generate = noted
    lm.generate_until(requests, disable_tqdm=True)
    lm._model_generate = generate
    return given


def bytes_kept(lm: LiveLM) -> int:
    return sum(tokens.nbytes + mask.nbytes for tokens, mask in lm.batches_kept())


def same(before: list[Tensor], after: list[Tensor]) -> bool:
    return [id(each) for each in before] == [id(each) for each in after]


def test_a_whole_split_is_put_on_the_device_once(lm: LiveLM) -> None:
    first = asked(lm, SPLIT)
    assert len(first) == 4
    assert bytes_kept(lm) == 4 * BATCH
    for _ in range(3):
        assert same(asked(lm, SPLIT), first)


def test_a_race_of_sixty_genomes_on_ever_other_examples_is_bounded(lm: LiveLM) -> None:
    first = asked(lm, SPLIT)  # the sources
    for genome in range(60):
        asked(lm, [f"{genome}+{step}=" for step in (1, 2)] * 2)
        assert bytes_kept(lm) <= 6 * BATCH
    again = asked(lm, SPLIT)
    assert [each.tolist() for each in again] == [each.tolist() for each in first]


def test_what_subsets_have_filled_makes_room_for_whole_splits(lm: LiveLM) -> None:
    """As for validation after a race: from the second candidate on nothing is put on the device again."""
    for genome in range(30):
        asked(lm, [f"{genome}+{step}=" for step in range(4)])
    assert bytes_kept(lm) > 2 * BATCH
    asked(lm, SPLIT)
    second = asked(lm, SPLIT)
    for _ in range(3):
        assert same(asked(lm, SPLIT), second)
    assert bytes_kept(lm) <= 6 * BATCH
