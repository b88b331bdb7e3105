"""Rows of routers: states of the base at prompts for each expert, against plain transformers; random rows."""

from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor

from evohydra.families import LiveModel, Rules
from evohydra.families.causal_lm import CausalLM
from evohydra.families.sources import OpenSources, open_sources
from evohydra.merging.engine import Engine
from evohydra.merging.methods import resolve
from evohydra.merging.statistics import StatisticsError
from evohydra.recipe import Checkpoint
from evohydra.scoring.benchmarks.token_texts import TokenText
from evohydra.scoring.gathering.expert_states import Asking, best_answered, expert_states
from tests.tiny_models import save_trio

CPU, FLOAT32 = torch.device("cpu"), torch.float32
TEXTS = [TokenText((3 + n, 4, 5 + 2 * n, 6, 7 + n), 2) for n in range(5)]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> OpenSources:
    base, one, two = save_trio(tmp_path_factory.mktemp("trio"))
    models = (Checkpoint("one", str(one)), Checkpoint("two", str(two)))
    return open_sources(models, Checkpoint("base", str(base)), CausalLM(), Rules(experts_per_token=2))


@pytest.fixture
def live(sources: OpenSources) -> LiveModel:
    return CausalLM().live_model(sources.directories["one"], CPU, FLOAT32, sources.overlay)


def engine(sources: OpenSources) -> Engine:
    return Engine(sources.tensors, device=CPU, dtype=FLOAT32)


def rows(live: LiveModel, sources: OpenSources, **asked: object) -> dict[str, Tensor]:
    """The rows of all routers, (layers, width), by source."""
    assert sources.base is not None
    asking = Asking(**{"base": sources.base, "over": "last", "less_others": True, "files": {}, **asked})  # type: ignore[arg-type]
    places = CausalLM().locations(sources.directories["one"], tuple(sources.tensors["one"].shapes))
    found = expert_states(live, engine(sources), TEXTS, sources.models, asking, places)
    names = [f"model.layers.{number}.block_sparse_moe.gate.weight" for number in range(2)]
    made = {node.name: dict(sums.tensors) for node, sums in found.items()}
    return {name: torch.stack([each[router] for router in names]) for name, each in made.items()}


@torch.no_grad()
def plain_likelihoods(directory: Path) -> list[float]:
    """The mean log-likelihood of each reference, by the dense model."""
    model = transformers.AutoModelForCausalLM.from_pretrained(directory)
    found = []
    for text in TEXTS:
        labels = torch.tensor([text.tokens])
        labels[0, : -text.answer] = -100
        found.append(-float(model(torch.tensor([text.tokens]), labels=labels).loss))
    return found


@torch.no_grad()
def plain_states(sources: OpenSources, prompts: list[tuple[int, ...]], over: str) -> Tensor:
    """What enters each layer of the dense base, (layers, width), over prompts: mergekit's get_hidden_states."""
    model = transformers.AutoModelForCausalLM.from_pretrained(sources.directories["base"])
    states = [
        torch.stack(model(torch.tensor([prompt]), output_hidden_states=True).hidden_states[:-1])[:, 0]
        for prompt in prompts
    ]
    return torch.stack([each[:, -1] if over == "last" else each.mean(dim=1) for each in states]).mean(dim=0)


@pytest.mark.parametrize("over", ["last", "all"])
@pytest.mark.parametrize("less_others", [True, False])
def test_rows_are_those_of_mergekits_formula(
    over: str, less_others: bool, live: LiveModel, sources: OpenSources
) -> None:
    one, two = (plain_likelihoods(sources.directories[name]) for name in ("one", "two"))
    ahead = [a - b for a, b in zip(one, two, strict=True)]
    order = sorted(range(5), key=lambda place: ahead[place])
    chosen = {"one": sorted(order[-2:]), "two": sorted(order[:2])}  # 5 prompts for two experts
    prompts = {name: [TEXTS[place].tokens[:-2] for place in places] for name, places in chosen.items()}
    means = {name: plain_states(sources, each, over) for name, each in prompts.items()}
    found = rows(live, sources, over=over, less_others=less_others)
    for name, other in (("one", "two"), ("two", "one")):
        expected = means[name] - means[other] if less_others else means[name]
        expected = expected / expected.norm(dim=-1, keepdim=True)
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-5)


def test_prompts_are_those_that_a_source_answers_best(live: LiveModel, sources: OpenSources) -> None:
    found = best_answered(live, engine(sources), TEXTS, sources.models)
    chosen = [prompt for prompts in found.values() for prompt in prompts]
    assert [len(prompts) for prompts in found.values()] == [2, 2]
    assert len(set(chosen)) == 4  # two sources never share one
    assert set(chosen) <= {text.tokens[:-2] for text in TEXTS}


def test_prompts_of_ones_own(live: LiveModel, sources: OpenSources, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("3+4=\n\n1+1=\n")
    (tmp_path / "two.txt").write_text("答え\n")
    files = {name: tmp_path / f"{name}.txt" for name in ("one", "two")}
    prompts = [tuple(live.tokenizer(line)["input_ids"]) for line in ("3+4=", "1+1=")]
    expected = plain_states(sources, prompts, "last")
    found = rows(live, sources, files=files, less_others=False)["one"]
    torch.testing.assert_close(found, expected / expected.norm(dim=-1, keepdim=True), rtol=1e-4, atol=1e-5)
    (tmp_path / "two.txt").write_bytes(b"\xff\xfe\n")
    with pytest.raises(ValueError, match=r"two\.txt is damaged \(expected text in UTF-8"):
        rows(live, sources, files=files)
    (tmp_path / "two.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"two\.txt: expected a prompt on each line"):
        rows(live, sources, files=files)


def test_the_same_last_token_says_nothing_below_the_first_layer(
    live: LiveModel, sources: OpenSources, tmp_path: Path
) -> None:
    """The row there is 0, as mergekit's; above it is none. Prompts that are all the same are refused."""
    files = {name: tmp_path / f"{name}.txt" for name in ("one", "two")}
    for file, text in zip(files.values(), ("1+2=", "9="), strict=True):
        file.write_text(text)
    found = rows(live, sources, files=files)["one"]
    assert found[0].tolist() == [0.0] * 16
    assert float(found[1].norm()) == pytest.approx(1, abs=1e-5)
    files["two"] = files["one"]
    with pytest.raises(StatisticsError, match="have the same states in the base"):
        rows(live, sources, files=files)


def test_random_rows_have_length_1_and_differ() -> None:
    routers = [torch.zeros(3, 64) for _ in range(3)]
    function = resolve("random_router").function
    made = function(None, routers, weight=(1.0, 2.0, 0.0), streams=(1, 2, 3))
    torch.testing.assert_close(made.norm(dim=1), torch.tensor([1.0, 2.0, 0.0]))
    assert torch.equal(made, function(None, routers, weight=(1.0, 2.0, 0.0), streams=(1, 2, 3)))
    assert abs(float(made[0] @ made[1])) < 1
    assert not torch.equal(made[0], function(None, routers, weight=(1.0, 2.0, 0.0), streams=(4, 2, 3))[0])
    assert abs(float(made[0].mean())) < 0.05
    with pytest.raises(ValueError, match=r"a row for each of 2 models, got \(3, 64\)"):
        function(None, routers[:2], weight=(1.0, 1.0), streams=(1, 2))
