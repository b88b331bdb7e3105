"""What sources make of texts: sums of inputs and of gradients, against plain autograd and transformers."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from evohydra.families.causal_lm import CausalLM
from evohydra.families.linear_layers import linear_layers
from evohydra.families.sources import OpenSources, open_sources
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Merge
from evohydra.scoring.benchmarks.token_texts import TokenText
from evohydra.scoring.gathering.behind_merges import sums_behind_merges
from evohydra.scoring.gathering.sums import Sums, gradient_sums, input_sums, parcels
from evohydra.spaces.parameter import ParameterSpace
from tests.contracts.test_causal_lm import ARCHITECTURES
from tests.tiny_models import save_trio, tokenizer

CPU, FAMILY = torch.device("cpu"), CausalLM()
TEXTS = [TokenText((3, 4, 5, 6, 7), 2), TokenText((9, 8, 7), 1)]
MOST = 10**9
LAYER = "model.layers.{}.self_attn.q_proj.weight"


def live_of(directory: Path):
    return FAMILY.live_model(directory, CPU, torch.float32)


def values(sums: Sums) -> dict[str, torch.Tensor]:
    """What is found of each tensor of checkpoints."""
    tensors = dict(sums.tensors)
    return {name: tensors[stored] for name, stored in sums.same.items()}


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> OpenSources:
    _, one, two = save_trio(tmp_path_factory.mktemp("trio"))
    return open_sources((Checkpoint("one", str(one)), Checkpoint("two", str(two))), None, FAMILY)


def test_sums_of_inputs_are_those_of_the_hidden_states(trio: OpenSources) -> None:
    """Queries read the normed state before their layer, the head the last one: transformers tells both."""
    directory = trio.directories["one"]
    live = live_of(directory)
    found = values(input_sums(live, TEXTS, squares=False, most_bytes=MOST, only=live.parameters.keys()))
    model = transformers.AutoModelForCausalLM.from_pretrained(directory)
    expected = {name: np.zeros((16, 16)) for name in (LAYER.format(0), LAYER.format(1), "lm_head.weight")}
    for text in TEXTS:
        with torch.no_grad():
            states = model(torch.tensor([text.tokens]), output_hidden_states=True).hidden_states
            read = [model.model.layers[n].input_layernorm(states[n])[0] for n in (0, 1)]
        for name, x in zip(expected, [*read, states[-1][0]], strict=True):
            expected[name] += x.double().numpy().T @ x.double().numpy() / 8  # tokens in all
    for name, each in expected.items():
        np.testing.assert_allclose(found[name].numpy(), each, rtol=1e-4, atol=1e-6)
    assert found["model.layers.0.mlp.down_proj.weight"].shape == (24, 24)
    assert "model.embed_tokens.weight" not in found


def test_layers_that_read_the_same_share_a_sum(trio: OpenSources) -> None:
    live = live_of(trio.directories["one"])
    sums = input_sums(live, TEXTS, squares=False, most_bytes=MOST, only=live.parameters.keys())
    assert len(sums.described) == 2 * 4 + 1  # attention, its output, MLP, its output; the head
    layer = "model.layers.1."
    assert sums.same[f"{layer}self_attn.v_proj.weight"] == f"{layer}self_attn.q_proj.weight"
    assert sums.same[f"{layer}mlp.up_proj.weight"] == f"{layer}mlp.gate_proj.weight"
    assert sums.same[f"{layer}self_attn.o_proj.weight"] == f"{layer}self_attn.o_proj.weight"
    assert sums.transposed == ()


def test_squares_are_the_diagonal_and_memory_changes_no_bit(trio: OpenSources) -> None:
    live = live_of(trio.directories["one"])
    found = [
        values(input_sums(live, TEXTS, squares=squares, most_bytes=most, only=live.parameters.keys()))
        for squares, most in ((False, MOST), (False, 1), (False, 6000), (True, MOST))
    ]
    for name, gram in found[0].items():
        assert torch.equal(gram, found[1][name])
        assert torch.equal(gram, found[2][name])
        torch.testing.assert_close(gram.diagonal(), found[3][name])
        assert torch.equal(gram, gram.T)


def test_gradients_are_those_of_the_log_likelihood(trio: OpenSources) -> None:
    directory = trio.directories["one"]
    live = live_of(directory)
    wanted = {name for name in live.parameters if "layers.1" in name or "embed" in name}
    found = [values(gradient_sums(live, TEXTS, most_bytes=most, only=wanted)) for most in (MOST, 1)]
    model = transformers.AutoModelForCausalLM.from_pretrained(directory)
    expected = {name: torch.zeros_like(tensor) for name, tensor in model.named_parameters() if name in wanted}
    for text in TEXTS:
        model.zero_grad()
        tokens = torch.tensor([text.tokens])
        labels = torch.where(torch.arange(len(text.tokens)) < len(text.tokens) - text.answer, -100, tokens)
        loss = model(tokens, labels=labels).loss * text.answer  # transformers gives the mean over the answer
        loss.backward()
        for name, parameter in model.named_parameters():
            if name in wanted:
                expected[name] += parameter.grad.square() / len(TEXTS)
    assert found[0].keys() == expected.keys() == wanted
    for name, each in expected.items():
        torch.testing.assert_close(found[0][name], each, rtol=1e-3, atol=1e-8)
        assert torch.equal(found[0][name], found[1][name])
    assert not any(parameter.requires_grad for parameter in live.module.parameters())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_inputs_that_never_occur_change_nothing(architecture: str, tmp_path: Path) -> None:
    """Of every architecture, whatever its layers are called, fused or transposed: what a sum says of a tensor is so.

    A step of a tensor along a direction that no input has leaves the logits; one along the commonest does not.
    """
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(ARCHITECTURES[architecture]())
    model.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    live = live_of(tmp_path)
    text = TEXTS[0]
    sums = input_sums(live, [text], squares=False, most_bytes=MOST, only=live.parameters.keys())
    found = values(sums)
    tokens = torch.tensor([text.tokens])
    with torch.no_grad():
        before = live.module(tokens).logits.clone()
        for name, gram in found.items():
            strengths, directions = torch.linalg.eigh(gram.double())
            tensor, changes = live.parameters[name], []
            for at in (0, -1):
                saved, direction = tensor.clone(), directions[:, at].float()
                turned = name in sums.transposed
                step = torch.outer(torch.randn(tensor.shape[1 if turned else 0]), direction)
                tensor.add_(step.T if turned else step, alpha=0.1)
                changes.append(float((live.module(tokens).logits - before).abs().max()))
                tensor.copy_(saved)
            if float(strengths[-1]) > 1e-6 and "gate.weight" not in name:  # routers choose, and may choose the same
                assert changes[0] < 0.02 * changes[1], (name, changes)
    assert {name for name in live.parameters if "attn" in name and "norm" not in name and "bias" not in name} <= (
        found.keys() | {name for name in live.parameters if live.parameters[name].dim() != 2}
    )
    embedded = [name for name in found if "embed" in name or "wte" in name or "wpe" in name]
    assert not [name for name in embedded if name != "embed_out.weight"]  # the head of GPT-NeoX is called so


def test_tied_heads_and_experts_in_one_tensor_have_none(tmp_path: Path) -> None:
    for name in ("llama_tied", "mixtral"):
        transformers.AutoModelForCausalLM.from_config(ARCHITECTURES[name]()).save_pretrained(tmp_path / name)
        tokenizer().save_pretrained(tmp_path / name)
    tied = {name for layer in linear_layers(live_of(tmp_path / "llama_tied")) for name in layer.names}
    assert not {name for name in tied if "lm_head" in name or "embed" in name}
    live = live_of(tmp_path / "mixtral")
    mixed = {name for layer in linear_layers(live) for name in layer.names}
    assert "lm_head.weight" in mixed
    assert not {name for name in mixed if ".experts." in name}
    assert any(".experts." in name for name in live.parameters)


def test_inputs_behind_merges_are_those_of_a_model_with_merged_layers_before(trio: OpenSources, tmp_path: Path) -> None:
    """By transformers: embeddings and layer 0 of the merge, layer 1 of the source."""
    engine = Engine(trio.tensors, device=CPU, dtype=torch.float32)
    locations = FAMILY.locations(trio.directories["one"], tuple(trio.tensors["one"].shapes))
    genes = {"weight": {"per": "source", "low": 0, "high": 1, "default": 1.0}}
    usual = ParameterSpace(
        models=trio.models, base=None, locations=locations, method="regmean_plus_plus", genes=genes, statistics="-"
    ).default()
    live = live_of(trio.directories["one"])
    with sums_behind_merges(live, engine, TEXTS, usual, trio.models, locations, tmp_path, 10**9) as sums:
        found = {node.name: values(sums(node)) for node in trio.models}
    assert list(tmp_path.iterdir()) == []
    merged = _merged(trio, usual, found)
    for node in trio.models:
        model = transformers.AutoModelForCausalLM.from_pretrained(trio.directories[node.name])
        own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        before = {name: merged[name] for name in own if "layers.0." in name or "embed" in name}
        model.load_state_dict(own | before)
        expected = np.zeros((16, 16))
        for text in TEXTS:
            with torch.no_grad():
                states = model(torch.tensor([text.tokens]), output_hidden_states=True).hidden_states
                x = model.model.layers[1].input_layernorm(states[1])[0].double().numpy()
            expected += x.T @ x / 8
        np.testing.assert_allclose(found[node.name][LAYER.format(1)].numpy(), expected, rtol=1e-3, atol=1e-5)
    held = live.parameters
    for name, tensor in merged.items():  # and what the pass leaves in memory is the merge by these sums
        torch.testing.assert_close(held[name], tensor, rtol=1e-4, atol=1e-5)


def _merged(trio: OpenSources, node: Merge, found: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The merge, by its formula."""
    made = {}
    for name in trio.tensors["one"].shapes:
        weights = [trio.tensors[each.name].read(name).double() for each in node.models]
        if name not in found["one"]:
            made[name] = (sum(weights) / 2).float()
            continue
        grams = [found[each.name][name].double() for each in node.models]
        grams = [0.9 * gram + 0.1 * torch.diag(gram.diagonal()) for gram in grams]
        pull = sum(gram @ weight.T for gram, weight in zip(grams, weights, strict=True))
        made[name] = torch.linalg.solve(sum(grams), pull).T.float()
    return made


def test_parcels() -> None:
    assert parcels("abcd", [2, 2, 5, 1], 4) == [["a", "b"], ["c"], ["d"]]
    assert parcels("", [], 4) == []
    assert parcels("ab", [9, 9], 1) == [["a"], ["b"]]
