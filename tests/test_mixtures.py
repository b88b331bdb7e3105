"""Mixtures of experts: sources in a mixture's form, their merges in memory and on disk, and rows of routers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from evohydra.families import Rules
from evohydra.families.causal_lm import CausalLM
from evohydra.families.sources import OpenSources, open_sources
from evohydra.merging.checkpoints import SourceError
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Node, from_dict
from tests.commands import carried_out, python, workspace
from tests.test_bad_settings import refused, without
from tests.tiny_models import CHARACTERS, tokenizer

CPU, FLOAT32 = torch.device("cpu"), torch.float32
TOKENS = (torch.arange(40).reshape(2, 20) * 17 + 3) % len(CHARACTERS)
SIZES: dict[str, Any] = {
    "vocab_size": len(CHARACTERS), "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "pad_token_id": 0,
    "bos_token_id": None, "eos_token_id": 1, "head_dim": 8,
}  # fmt: skip
DENSE = {
    "llama": {"tie_word_embeddings": True, "rms_norm_eps": 1e-3},
    "mistral": {"sliding_window": 5, "rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
    "qwen3": {"attention_bias": True},
}
MIXTURES = {"llama": "mixtral", "mistral": "mixtral", "qwen3": "qwen3_moe"}
FEW = ["baselines=null", "budget=6", "top=1", "audit=none"]


def save(directory: Path, kind: str, seed: int, base: Path | None = None, **changes: object) -> Path:
    """A random model of this kind, or one near to that in `base`; its file leaves out what the class chooses."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = transformers.CONFIG_MAPPING[kind](**{**SIZES, **DENSE.get(kind, {}), **changes})
        model = transformers.AutoModelForCausalLM.from_config(config)
        if base is not None:
            model = transformers.AutoModelForCausalLM.from_pretrained(base)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    model.save_pretrained(directory)
    file = directory / "config.json"
    written = json.loads(file.read_text())
    usual = transformers.CONFIG_MAPPING[kind]().to_dict()
    file.write_text(json.dumps({k: v for k, v in written.items() if k == "model_type" or usual.get(k) != v}))
    tokenizer().save_pretrained(directory)
    return directory


def opened(root: Path, kind: str, per_token: int = 2, **changes: object) -> OpenSources:
    """A base and two sources as mixtures of two experts."""
    base = save(root / "base", kind, 0, **changes)
    places = {name: save(root / name, kind, seed, base) for seed, name in enumerate(("one", "two"), 1)}
    models = tuple(Checkpoint(name, str(place)) for name, place in places.items())
    return open_sources(models, Checkpoint("base", str(base)), CausalLM(), Rules(experts_per_token=per_token))


def logits(model: Any) -> Tensor:
    found: Tensor = model(TOKENS).logits
    return found


def live_in(sources: OpenSources) -> Any:
    return CausalLM().live_model(sources.directories[sources.files_from], CPU, FLOAT32, sources.overlay)


@pytest.mark.parametrize(
    ("kind", "per_token", "changes"),
    [
        *((kind, per_token, {}) for kind in DENSE for per_token in (1, 2)),
        # A window that no layer has, as its first one would be behind the last layer.
        ("qwen3", 2, {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 3}),
    ],
)
@torch.inference_mode()
def test_a_source_as_a_mixture_gives_the_same_answers(
    kind: str, per_token: int, changes: Mapping[str, object], tmp_path: Path
) -> None:
    """All experts are its MLP, and the weights of those that answer sum to 1: what upcycling promises."""
    sources = opened(tmp_path, kind, per_token, **changes)
    live, engine = live_in(sources), Engine(sources.tensors, device=CPU, dtype=FLOAT32)
    assert live.module.config.model_type == MIXTURES[kind]
    for node in (*sources.models, sources.base):
        assert node is not None
        live.become(node, engine)
        dense = transformers.AutoModelForCausalLM.from_pretrained(node.path)
        torch.testing.assert_close(logits(live.module), logits(dense), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "changes", "per_token", "expected"),
    [
        ("llama", {}, 3, "expected at least 1 and at most 2, the number of sources"),
        ("llama", {"attention_bias": True}, 2, "no place for biases that these llama models have"),
        ("llama", {"mlp_bias": True}, 2, "no place for biases that these llama models have"),
        (
            "qwen3",
            {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
            2,
            "qwen3_moe cannot compute as these qwen3 models do, with layer_types",
        ),
    ],
)
def test_what_has_no_form_is_refused(
    kind: str, changes: Mapping[str, object], per_token: int, expected: str, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=expected):
        opened(tmp_path, kind, per_token, **changes)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"architectures llama, mistral, qwen3, .*got 'olmo2'"):
        opened(tmp_path, "olmo2")


def test_a_path_is_no_mixture(tmp_path: Path) -> None:
    """So a recipe file may say, of which nothing else would tell."""
    base = save(tmp_path / "base", "llama", 0)
    with pytest.raises(SourceError, match="expected a merge, got a path through layers, or a source alone"):
        open_sources((Checkpoint("one", str(base)),), None, CausalLM(), Rules(experts_per_token=1), layers_only="one")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, task and conf/, the arguments of a run, and runs with random and with hidden routers."""
    root = tmp_path_factory.mktemp("mixtures")
    arguments = [*workspace(root), *FEW]
    (root / "arguments.json").write_text(json.dumps(arguments))
    for merge in ("moe_random", "moe"):
        carried_out([*arguments, f"merge={merge}"], root / merge)
    return root


def recipe_of(run: Path) -> tuple[dict[str, Any], Node]:
    content: dict[str, Any] = json.loads((run / "recipe.json").read_text())
    return content, from_dict(content["recipe"])


@pytest.mark.parametrize("merge", ["moe_random", "moe"])
def test_the_winner_is_an_ordinary_mixtral_and_is_made_again(merge: str, root: Path, tmp_path: Path) -> None:
    winner = transformers.AutoModelForCausalLM.from_pretrained(root / merge / "winner")
    assert (type(winner).__name__, winner.config.num_local_experts) == ("MixtralForCausalLM", 2)
    made = python("-m", "evohydra.rebuild", root / merge / "winner" / "recipe.json", "out", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "identical, bit for bit" in made.stdout
    config = (root / merge / "winner" / "config.json").read_bytes()
    assert (tmp_path / "out" / "config.json").read_bytes() == config


@torch.inference_mode()
def test_a_winners_logits_are_those_of_its_parts(root: Path) -> None:
    """By hand, from the dense sources, the recipe's numbers and the rows that were written: no code of a mixture."""
    run = root / "moe"
    _, node = recipe_of(run)
    written = load_file(run / "winner" / "model.safetensors")
    dense = {name: load_file(root / name / "model.safetensors") for name in ("base", "one", "two")}
    groups = {name: group.parameters for group in node.groups for name in group.tensors}  # type: ignore[union-attr]

    def merged(name: str, own: str) -> Tensor:
        base, weights = dense["base"][own], groups[name]["weight"]
        assert isinstance(weights, tuple)
        return base + sum(w * (dense[k][own] - base) for k, w in zip(("one", "two"), weights, strict=True))

    model = transformers.LlamaForCausalLM.from_pretrained(root / "base")
    states = {name: merged(name, name) for name in written if ".block_sparse_moe." not in name}
    model.load_state_dict(states, strict=False)
    for number, layer in enumerate(model.model.layers):
        place = f"model.layers.{number}"
        projections = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
        experts = [
            {
                w: merged(f"{place}.block_sparse_moe.experts.{e}.{w}.weight", f"{place}.mlp.{own}.weight")
                for w, own in projections.items()
            }
            for e in range(2)
        ]
        layer.mlp.forward = _by_hand(experts, written[f"{place}.block_sparse_moe.gate.weight"])
    winner = transformers.AutoModelForCausalLM.from_pretrained(run / "winner")
    torch.testing.assert_close(logits(winner), logits(model), rtol=1e-4, atol=1e-5)
    assert (
        float((logits(winner) - logits(transformers.LlamaForCausalLM.from_pretrained(root / "one"))).abs().max()) > 0.1
    )


def _by_hand(experts: list[dict[str, Tensor]], router: Tensor) -> Any:
    def forward(x: Tensor) -> Tensor:
        shares = (x @ router.T).softmax(dim=-1)  # of two experts both answer
        outputs = [(torch.nn.functional.silu(x @ e["w1"].T) * (x @ e["w3"].T)) @ e["w2"].T for e in experts]
        return sum(shares[..., [k]] * output for k, output in enumerate(outputs))  # type: ignore[return-value]

    return forward


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["merge=moe+dfs"], "merge=moe: expected no path beside it"),
        (["merge=moe", "generations=2", "budget=12"], r"merge=moe: expected models as sources.*generations"),
        (["merge=moe", "continue=outputs/earlier"], r"merge=moe: expected models as sources.*continue"),
        (
            ["merge=moe", "merge.parameter.experts_per_token=3"],
            "expected at least 1 and at most 2, the number of sources",
        ),
        (
            ["merge=moe", "merge.parameter.routers.statistics.files={one: a.txt}"],
            r"routers\.statistics\.files: expected a file for each source \(one, two\), got \['one'\]",
        ),
        (
            ["merge=moe", "merge.parameter.routers.statistics.files={one: a.txt, two: b.txt}"],
            r"routers\.statistics\.files: expected files with a prompt on each line, got a\.txt, which is none",
        ),
        (["merge=moe", "+merge.parameter.routers.statistics.memory_gb=1"], r"statistics: expected no other keys than"),
        (
            ["merge=moe", "merge@merge.parameter.shared=activation"],
            "merge=moe: shared: expected a method that goes by weights alone, got activation",
        ),
        (["merge=moe", "format=lora"], "format=lora: expected merges with the base's vocabulary"),
    ],
)
def test_what_mixtures_are_not_combined_with(settings: list[str], expected: str, root: Path, tmp_path: Path) -> None:
    arguments = json.loads((root / "arguments.json").read_text())
    refused([*arguments, *settings], tmp_path / "run", expected)


def test_a_mixture_is_no_source_of_another_search(root: Path, tmp_path: Path) -> None:
    """Its recipe names tensors that the dense sources have not."""
    arguments = json.loads((root / "arguments.json").read_text())
    mine = [each for each in arguments if not each.startswith("model")]
    settings = [f"continue={root / 'moe_random'}", "merge=task_arithmetic"]
    refused([*mine, *settings], tmp_path / "run", "moe_random found a mixture of experts")


def test_models_without_a_base_are_refused(root: Path, tmp_path: Path) -> None:
    arguments = json.loads((root / "arguments.json").read_text())
    refused([*without(arguments, ".base="), "merge=moe"], tmp_path / "run", "base")


def test_sources_score_as_they_do_by_themselves(root: Path, tmp_path: Path) -> None:
    """A mixture's run has the models that its winner is compared with in its own form; they are the same models."""
    arguments = json.loads((root / "arguments.json").read_text())
    plain = carried_out([*arguments, "merge=task_arithmetic"], tmp_path / "plain")["test"]
    mixed = json.loads((root / "moe" / "summary.json").read_text())["test"]
    assert {name: each["score"] for name, each in plain["sources"].items()} == {
        name: pytest.approx(each["score"]) for name, each in mixed["sources"].items()
    }
    assert mixed["uniform"]["score"] == pytest.approx(plain["uniform"]["score"])


def test_baselines_are_those_that_are_the_dense_merges(root: Path, tmp_path: Path) -> None:
    """With random masks, or by activations, experts of one merge would differ: such a one is left out, with a word."""
    arguments = without(json.loads((root / "arguments.json").read_text()), "baselines")
    more = ["+merge@baselines.activation=activation"]
    plain = carried_out([*arguments, "merge=task_arithmetic"], tmp_path / "plain")["test"]["baselines"]
    mixed = carried_out([*arguments, *more, "merge=moe_random"], tmp_path / "mixed")["test"]["baselines"]
    assert set(plain) == {"ties", "dare_ties"}
    assert set(mixed) == {"ties"}
    assert mixed["ties"]["score"] == pytest.approx(plain["ties"]["score"])


def test_a_plan_tells_the_size_of_the_mixture(root: Path, tmp_path: Path) -> None:
    arguments = json.loads((root / "arguments.json").read_text())
    made = python("-m", "evohydra.plan", *arguments, "merge=moe", "calibrate=false", "json=plan.json", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    written = load_file(root / "moe" / "winner" / "model.safetensors")
    expected = sum(tensor.numel() for tensor in written.values())
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["merge"]["parameters"] == expected
    assert plan["memory"]["worker"]["parts"]["model"] == 4 * expected
    stored = sum(tensor.numel() for tensor in load_file(root / "one" / "model.safetensors").values())
    assert plan["memory"]["mapped_sources"] == 4 * 3 * stored
    assert any("before the search each source reads" in each for each in plan["not_checked"])
