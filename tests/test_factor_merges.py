"""Merges of the factors of adapters (`of: factors`), beside those that PEFT makes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file

from evohydra.families.sources import OpenSources
from evohydra.mergekit.writer import NotExpressible, to_yaml
from evohydra.merging.engine import Engine
from evohydra.merging.methods import resolve
from evohydra.recipe import Group, Merge, with_checkpoints
from evohydra.spaces.parameter import ParameterSpace
from evohydra.winner.formats.lora import Lora
from tests.reference.test_adapters import LLAMA
from tests.test_adapter_merges import CPU, FAMILY, OF_LLAMA, opened
from tests.test_format_lora import by_peft, live_model, logits, written

ALIKE: dict[str, dict[str, Any]] = {
    "one": {"target_modules": LLAMA, "r": 4, "lora_alpha": 6},
    "two": {"target_modules": LLAMA, "r": 4, "lora_alpha": 6},
    "three": {"target_modules": LLAMA, "r": 4, "lora_alpha": 6},
}
# What PEFT is asked for, and the same here: each tensor has one density.
ON_FACTORS: dict[str, tuple[dict[str, Any], tuple[float, ...], str, dict[str, Any]]] = {
    "linear": ({}, (0.7, 0.2, -0.4), "task_arithmetic", {"weight": (0.7, 0.2, -0.4)}),
    "ties": ({"density": 0.3}, (0.5, 0.5, 0.5), "ties", {"weight": (1.0,) * 3, "density": (0.3,) * 3, "scaling": 0.5}),
    "magnitude_prune": (
        {"density": 0.5},
        (0.9, 0.3, 0.6),
        "breadcrumbs",
        {"weight": (0.9, 0.3, 0.6), "density": (0.5,) * 3, "gamma": (0.0,) * 3},
    ),
}


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory) -> OpenSources:
    return opened(tmp_path_factory.mktemp("alike"), ALIKE)


def of_factors(sources: OpenSources, method: str, parameters: Mapping[str, Any], **options: Any) -> Merge:
    names = tuple(sources.tensors["base"].shapes)
    group = Group("all", names, parameters)
    return Merge(method, sources.base, sources.models, (group,), {"mask_seed": 0, "of": "factors", **options})


@torch.inference_mode()
def peft_logits(sources: OpenSources, kind: str, weights: tuple[float, ...], **how: Any) -> torch.Tensor:
    base = transformers.AutoModelForCausalLM.from_pretrained(sources.directories["base"])
    root = sources.directories["base"].parent
    model = peft.PeftModel.from_pretrained(base, root / "one", adapter_name="one")
    for name in ("two", "three"):
        model.load_adapter(root / name, adapter_name=name)
    model.add_weighted_adapter([*ALIKE], list(weights), "merged", combination_type=kind, **how)
    model.set_adapter("merged")
    found: torch.Tensor = model.eval()(torch.arange(2, 14)[None]).logits
    return found


@pytest.mark.parametrize("kind", ON_FACTORS)
def test_peft_merges_so(kind: str, alike: OpenSources, tmp_path: Path) -> None:
    """`add_weighted_adapter` of PEFT 0.21 gives the logits of our merge, and our adapter has the rank of one."""
    how, weights, method, parameters = ON_FACTORS[kind]
    node, engine = of_factors(alike, method, parameters), Engine(alike.tensors, device=CPU)
    engine.probe(node)
    ours = logits(live_model(node, alike, engine))
    torch.testing.assert_close(peft_logits(alike, kind, weights, **how), ours, rtol=1e-3, atol=1e-4)
    form = Lora()
    form.check(node, FAMILY, alike)
    adapter = written(node, alike, tmp_path / "adapter", form, engine)
    torch.testing.assert_close(by_peft(adapter, alike), ours, rtol=1e-3, atol=1e-4)
    ranks = {t.shape[0] for key, t in load_file(adapter / "adapter_model.safetensors").items() if ".lora_A" in key}
    assert ranks == {4}
    products = with_options(node, of="products")
    assert not torch.allclose(logits(live_model(products, alike, engine)), ours, rtol=0.01, atol=0.01)


def with_options(node: Merge, **options: Any) -> Merge:
    return Merge(node.method, node.base, node.models, node.groups, {**node.options, **options})


def test_masks_of_both_factors_are_drawn_apart(alike: OpenSources) -> None:
    """DARE keeps half of each factor; the same bits again, other bits with another seed of masks."""
    parameters = {"weight": (1.0, 0.0, 0.0), "density": (0.5, 1.0, 1.0)}
    node = of_factors(alike, "dare_ties", parameters, rescale="none")
    engine, name = Engine(alike.tensors, device=CPU), "model.layers.0.self_attn.q_proj.weight"
    found = engine.adapters.change(node, name, node.groups[0])
    assert found is not None
    assert found[1] is not None
    up, down = found[1].up != 0, found[1].down != 0
    assert 0.2 < up.float().mean() < 0.8
    assert 0.2 < down.float().mean() < 0.8
    assert not torch.equal(up.flatten()[: down.numel()], down.flatten()[: up.numel()])
    assert torch.equal(engine.tensor(node, name), engine.uncached().tensor(node, name))
    assert not torch.equal(engine.tensor(with_options(node, mask_seed=1), name), engine.tensor(node, name))


def test_an_adapter_by_itself_is_itself(alike: OpenSources) -> None:
    engine, name = Engine(alike.tensors, device=CPU), "model.layers.1.mlp.down_proj.weight"
    node = of_factors(alike, "ties", {"weight": (0.0, 1.0, 0.0), "density": (1.0,) * 3})
    torch.testing.assert_close(engine.tensor(node, name), alike.tensors["two"].read(name))


def test_groups_may_differ(alike: OpenSources) -> None:
    """As `merge=any` has it: factors in one group, products in the other one, whatever its method."""
    one, two = (f"model.layers.{layer}.mlp.up_proj.weight" for layer in (0, 1))
    given = {"weight": (1.0,) * 3, "density": (0.5,) * 3}
    groups = (Group("one", (one,), {**given, "of": "factors"}), Group("two", (two,), given))
    mixed = Merge("ties", alike.base, alike.models, groups, {"mask_seed": 0})
    engine = Engine(alike.tensors, device=CPU, dtype=torch.float32)
    engine.probe(mixed)
    live = {name: torch.empty(alike.tensors["base"].shapes[name]) for name in (one, two)}
    engine.merge_into(mixed, live)
    assert torch.equal(live[one], engine.tensor(of_factors(alike, "ties", given), one))
    assert torch.equal(live[two], engine.tensor(with_options(of_factors(alike, "ties", given), of="products"), two))
    assert not torch.allclose(live[one], engine.tensor(with_options(mixed, of="products"), two))


def test_mergekit_has_no_words_for_it(alike: OpenSources) -> None:
    """Its configuration of the same method would merge products."""
    node = of_factors(alike, "ties", {"weight": (1.0,) * 3, "density": (0.5,) * 3})
    with pytest.raises(NotExpressible, match="this recipe their factors"):
        to_yaml(node, "float32")
    assert "ties" in to_yaml(with_options(node, of="products"), "float32")


def test_what_has_no_factors_of_one_rank_is_refused(tmp_path: Path, alike: OpenSources) -> None:
    others = opened(tmp_path, OF_LLAMA)
    parameters = {"weight": (1.0,) * 3, "density": (1.0,) * 3}
    with pytest.raises(ValueError, match=r"of=factors: expected adapters of one rank, got 4 \(one\).*3 \(three\)"):
        Engine(others.tensors, device=CPU).probe(of_factors(others, "ties", parameters))
    node = of_factors(alike, "ties", parameters)
    full = with_checkpoints(node, {each.name: node.base for each in node.models} | {"base": node.base})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="of=factors: expected adapters of the base as sources"):
        Engine(alike.tensors, device=CPU).probe(full)
    with pytest.raises(ValueError, match="of=factors: regmean weighs inputs of layers, which factors are not"):
        Engine(alike.tensors, device=CPU).probe(of_factors(alike, "regmean", {"weight": (1.0,) * 3}))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"of": "factor"}, "of: expected products or factors"),
        ({"of": {"choices": ["products", "factors"], "default": "products"}}, r"ties has no parameter \['of'\]"),
    ],
)
def test_another_word_is_refused(options: Mapping[str, object], said: str, alike: OpenSources) -> None:
    genes = {"weight": {"per": "source", "low": 0.0, "high": 1.0, "default": 1.0}, "density": 1.0}
    with pytest.raises(ValueError, match=said):
        ParameterSpace(
            models=alike.models,
            base=alike.base,
            locations={"model.norm.weight": None},
            method="ties",
            genes=genes,
            options=options,
        )


def test_methods_cannot_have_a_parameter_of_this_name() -> None:
    with pytest.raises(ValueError, match="a parameter called of is taken"):
        resolve("tests.test_factor_merges:taken")


def taken(base: torch.Tensor | None, models: list[torch.Tensor], *, of: str = "") -> torch.Tensor:
    """A method that no recipe could give its parameter."""
    return models[len(of)]
