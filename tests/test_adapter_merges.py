"""Adapters of one base merged as adapters: the numbers of merged copies, without the copies."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file

from evohydra.assembly.workers import of_adapters
from evohydra.families import Rules
from evohydra.families.causal_lm import CausalLM
from evohydra.families.sources import OpenSources, open_sources
from evohydra.merging.adapters import Adapted
from evohydra.merging.engine import Engine, MergeError
from evohydra.merging.low_rank import LowRank
from evohydra.recipe import Checkpoint, Group, Merge, Node
from evohydra.searching.identity import check_identity
from evohydra.searching.json_lines import LedgerError
from evohydra.winner.formats.plain import Plain
from evohydra.winner.recipe_files import recipe_file
from evohydra.winner.remaking import rebuild
from tests.reference.test_adapters import GPT2, LLAMA, gpt2, llama

CPU = torch.device("cpu")
FAMILY = CausalLM()
ANY_BASE = Rules(allow_other_base=True)  # the steps of random adapters are long
OF_LLAMA: dict[str, dict[str, Any]] = {
    "one": {"target_modules": LLAMA, "r": 4, "lora_alpha": 6},
    "two": {"target_modules": ["q_proj", "up_proj"], "r": 2, "lora_alpha": 6, "use_rslora": True},
    "three": {
        "target_modules": [*LLAMA, "embed_tokens"], "r": 3, "lora_alpha": 5, "rank_pattern": {"v_proj": 1},
        "alpha_pattern": {"down_proj": 9},
    },
}  # fmt: skip
OF_GPT2: dict[str, dict[str, Any]] = {
    "one": {"target_modules": GPT2, "r": 4, "lora_alpha": 6, "fan_in_fan_out": True},
    "two": {"target_modules": ["c_attn"], "r": 2, "lora_alpha": 3, "fan_in_fan_out": True},
}
WEIGHTS = {"linear": (0.7, 0.2, -0.4), "task_arithmetic": (0.9, 0.5, -0.3)}


def save_adapter(base: Any, settings: Mapping[str, Any], directory: Path, seed: int) -> Path:
    """An adapter of `base` with random factors, which PEFT writes; the base's own weights stay what they were."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **settings))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name or "modules_to_save" in name:
                    parameter.copy_(torch.randn(parameter.shape) * 0.3)
    model.save_pretrained(directory, save_embedding_layers=False)
    model.unload()
    return directory


def opened(root: Path, kinds: Mapping[str, Mapping[str, Any]], dtype: torch.dtype = torch.float32) -> OpenSources:
    """A base and its adapters, saved below `root`."""
    make = gpt2 if kinds is OF_GPT2 else llama
    for seed, (name, settings) in enumerate(kinds.items()):
        save_adapter(make(root / "base", dtype), settings, root / name, seed)
    base = Checkpoint("base", str(root / "base"))
    models = tuple(Checkpoint(name, str(root / "base"), adapter=str(root / name)) for name in kinds)
    return open_sources(models, base, FAMILY, ANY_BASE)


def merge(sources: OpenSources, method: str, **parameters: Any) -> Merge:
    names = tuple(sources.tensors["base"].shapes)
    weight = WEIGHTS.get(method, (0.5, 0.3, 0.2))[: len(sources.models)]
    group = Group("all", names, {"weight": weight, **parameters})
    return Merge(method, sources.base, sources.models, (group,), {"mask_seed": 0})


def merged(sources: OpenSources, node: Node, **how: Any) -> dict[str, torch.Tensor]:
    engine = Engine(sources.tensors, device=CPU, **how)
    return {name: engine.tensor(node, name).clone() for name in sources.tensors["base"].shapes}


@pytest.fixture(scope="module")
def of_llama(tmp_path_factory: pytest.TempPathFactory) -> OpenSources:
    return opened(tmp_path_factory.mktemp("llama"), OF_LLAMA)


@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
@pytest.mark.parametrize("normalize", [True, False])
def test_the_numbers_are_those_of_merged_copies(method: str, normalize: bool, of_llama: OpenSources) -> None:
    more = {"scaling": 0.8} if method == "task_arithmetic" else {}
    node = merge(of_llama, method, normalize=normalize, **more)
    copies = merged(of_llama, node, dtype=torch.float32, by_factors=False)
    for name, tensor in merged(of_llama, node, dtype=torch.float32).items():
        torch.testing.assert_close(tensor, copies[name], rtol=1e-5, atol=1e-5, msg=name)
    plain = of_llama.tensors["base"].read("model.layers.0.self_attn.q_proj.weight")
    assert not torch.allclose(copies["model.layers.0.self_attn.q_proj.weight"], plain, atol=0.01)


@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
def test_where_matrices_are_stored_as_their_transposes(method: str, tmp_path: Path) -> None:
    sources = opened(tmp_path, OF_GPT2)
    node = merge(sources, method)
    copies = merged(sources, node, by_factors=False)
    for name, tensor in merged(sources, node).items():
        torch.testing.assert_close(tensor, copies[name], rtol=1e-5, atol=1e-5, msg=name)


def test_16_bits_are_rounded_once(tmp_path: Path) -> None:
    """Merged copies are rounded before they are merged: the exact sum is as near, or nearer."""
    sources = opened(tmp_path, OF_LLAMA, torch.bfloat16)
    node = merge(sources, "task_arithmetic")
    exact = merged(sources, node, dtype=torch.float32)
    ours, copies = (merged(sources, node, dtype=torch.bfloat16, by_factors=each) for each in (True, False))
    for name, tensor in ours.items():
        assert tensor.dtype == torch.bfloat16
        if "embed" not in name:  # whose product PEFT rounds before it adds it
            assert torch.equal(tensor, exact[name].bfloat16()), name
        torch.testing.assert_close(copies[name].float(), exact[name], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("transposed", "embedding"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_a_change_is_the_same_bits_in_the_models_memory(
    dtype: torch.dtype, transposed: bool, embedding: bool, scale: float
) -> None:
    generator = torch.Generator().manual_seed(3)
    up, down, weight = (torch.randn(shape, generator=generator) for shape in ((6, 2), (2, 9), (6, 9)))
    weight = (weight.T if transposed else weight).contiguous().to(dtype)
    change, before = LowRank(up, down, scale, transposed, embedding), weight.clone()
    made, out = change.added_to(weight), torch.empty_like(weight)
    written = change.added_to(weight, out=out)
    assert torch.equal(written, made)
    assert (written is out) == (dtype == torch.float32 or embedding)  # all else is a sum in float32 that is rounded
    assert torch.equal(weight, before)
    product = up.double() @ down.double()
    expected = weight.double() + scale * (product.T if transposed else product)
    torch.testing.assert_close(
        made.double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps * 8
    )


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
def test_no_adapted_copy_is_ever_made(cache_bytes: int, of_llama: OpenSources, monkeypatch: pytest.MonkeyPatch) -> None:
    live = FAMILY.live_model(of_llama.directories["base"], CPU, torch.float32, of_llama.overlay)
    node = merge(of_llama, "linear")
    expected = merged(of_llama, node, dtype=torch.float32)
    engine = Engine(of_llama.tensors, device=CPU, dtype=torch.float32, cache_bytes=cache_bytes)
    monkeypatch.setattr(Adapted, "read", lambda *_: pytest.fail("an adapted tensor was made"))
    live.become(node, engine)
    live.become(node, engine)
    assert all(torch.equal(live.parameters[name], tensor) for name, tensor in expected.items())


def test_other_methods_merge_what_the_adapters_make(of_llama: OpenSources) -> None:
    node = merge(of_llama, "ties", density=(0.5,) * 3)
    ours, copies = (merged(of_llama, node, dtype=torch.float32, by_factors=each) for each in (True, False))
    assert all(torch.equal(tensor, copies[name]) for name, tensor in ours.items())


def test_a_part_that_was_trained_whole_is_merged_as_a_tensor(tmp_path: Path) -> None:
    whole = {"target_modules": ["q_proj"], "r": 2, "lora_alpha": 3, "modules_to_save": ["norm"]}
    sources = opened(tmp_path, {"one": OF_LLAMA["one"], "two": whole})
    node = merge(sources, "task_arithmetic")
    engine = Engine(sources.tensors, device=CPU)
    (group,) = node.groups
    assert engine.adapters.change(node, "model.norm.weight", group) is None
    assert engine.adapters.change(node, "model.layers.0.self_attn.q_proj.weight", group) is not None
    copies = merged(sources, node, by_factors=False)
    for name, tensor in merged(sources, node).items():
        torch.testing.assert_close(tensor, copies[name], rtol=1e-5, atol=1e-5, msg=name)


def test_adapters_of_two_bases_are_merged_as_tensors(of_llama: OpenSources, tmp_path: Path) -> None:
    model = llama(tmp_path / "other")
    adapter = save_adapter(model, OF_LLAMA["two"], tmp_path / "adapter", 5)
    other = Checkpoint("other", str(tmp_path / "other"), adapter=str(adapter))
    base, one = of_llama.base, replace(of_llama.models[0], fingerprint=None)
    assert base is not None
    sources = open_sources((one, other), replace(base, fingerprint=None), FAMILY, ANY_BASE)
    node = merge(sources, "linear")
    ours, copies = (merged(sources, node, by_factors=each) for each in (True, False))
    name = "model.layers.0.self_attn.q_proj.weight"
    assert Engine(sources.tensors, device=CPU).adapters.change(node, name, node.groups[0]) is None
    assert all(torch.equal(tensor, copies[name]) for name, tensor in ours.items())


def test_a_merge_that_is_not_finite_is_told(of_llama: OpenSources) -> None:
    node = merge(of_llama, "task_arithmetic", scaling=1e39)
    with pytest.raises(MergeError, match=r"of group 'all' is not finite after task_arithmetic"):
        merged(of_llama, node, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"expected a weight for each of 3 models"):
        merged(of_llama, merge(of_llama, "linear", weight=(1.0,)))


def test_recipes_of_earlier_versions_are_made_again_from_copies(of_llama: OpenSources, tmp_path: Path) -> None:
    """They do not say `by_factors`, and promise the bits of merged copies."""
    node = merge(of_llama, "linear")
    written = recipe_file(node, FAMILY, "base", Plain(), torch.float32, torch.float32, 10**9, {})
    content = written | {"tokenizer": "same", "weights": None}
    for name, more in {"earlier": {}, "now": {"by_factors": True}}.items():
        rebuild(content | more, tmp_path / name, {}, CPU)
        expected = merged(of_llama, node, dtype=torch.float32, by_factors=bool(more))
        made = load_file(tmp_path / name / "model.safetensors")
        assert all(torch.equal(made[tensor], expected[tensor]) for tensor in expected), name
    with pytest.raises(ValueError, match=r"written_with"):
        rebuild(content | {"written_with": {"rank": "all"}}, tmp_path / "bad", {}, CPU)
    with pytest.raises(ValueError, match=r"written_as: 'plain' could not be made"):
        rebuild(content | {"written_with": {"rank": 3}}, tmp_path / "bad", {}, CPU)


def test_a_search_that_merged_copies_does_not_go_on_by_factors(of_llama: OpenSources, tmp_path: Path) -> None:
    """A run of an earlier version: its scores are of merges with other roundings."""
    engine, any_method = Engine(of_llama.tensors, device=CPU), {"candidates": {"a": {"method": "ties"}}}
    now = {name: {"parameter": spec} for name, spec in {"linear": {"method": "linear"}, "any": any_method}.items()}
    assert of_adapters(now["any"], of_llama, engine) == of_adapters({"dataflow": {}}, of_llama, engine) == {}
    any_method["candidates"]["b"] = {"method": "task_arithmetic"}
    identities: list[dict[str, object]] = []
    for before in ({}, of_adapters(now["any"], of_llama, engine), of_adapters(now["linear"], of_llama, engine)):
        identities.append({"scores": {"versions": before}, "search": {}})
    check_identity(tmp_path / "run.json", identities[0])
    with pytest.raises(LedgerError, match=r"merges of adapters was None, is now 'by factors, rounded once \(earlier"):
        check_identity(tmp_path / "run.json", identities[1])
    assert identities[1] == identities[2]
