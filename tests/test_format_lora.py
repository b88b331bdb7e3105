"""Winners as PEFT adapters: loaded by PEFT on the base, they answer as the merged model does."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from evohydra.families.sources import OpenSources, open_sources
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Merge, Node
from evohydra.winner.formats.lora import Lora
from tests.test_adapter_merges import ANY_BASE, CPU, FAMILY, OF_GPT2, OF_LLAMA, merge, opened

TOKENS = torch.arange(2, 14)[None]
WHOLE = {
    "one": OF_LLAMA["one"],
    "two": {"target_modules": ["q_proj"], "r": 2, "lora_alpha": 3, "modules_to_save": ["lm_head"]},
}  # fmt: skip


def written(node: Node, sources: OpenSources, directory: Path, form: Lora, engine: Engine) -> Path:
    directory.mkdir()
    form.write(node, engine, FAMILY, sources, directory, torch.float32, 10**9)
    return directory


def live_model(node: Node, sources: OpenSources, engine: Engine, dtype: torch.dtype = torch.float32) -> Any:
    live = FAMILY.live_model(sources.directories[sources.files_from], CPU, dtype, sources.overlay)
    live.become(node, engine)
    return live


@torch.inference_mode()
def by_peft(adapter: Path, sources: OpenSources, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    base = transformers.AutoModelForCausalLM.from_pretrained(sources.directories["base"], dtype=dtype)
    logits: torch.Tensor = peft.PeftModel.from_pretrained(base, adapter).eval()(TOKENS).logits
    return logits


@torch.inference_mode()
def logits(live: Any) -> torch.Tensor:
    found: torch.Tensor = live.module(TOKENS).logits
    return found


@pytest.fixture(scope="module")
def of_llama(tmp_path_factory: pytest.TempPathFactory) -> OpenSources:
    return opened(tmp_path_factory.mktemp("llama"), OF_LLAMA)


def of_small_steps(root: Path, size: float) -> OpenSources:
    """Adapters of a base of 16 bits whose second factors are `size` of the usual."""
    sources = opened(root, {name: OF_LLAMA[name] for name in ("one", "two")}, torch.bfloat16)
    for name in ("one", "two"):
        file = root / name / "adapter_model.safetensors"
        save_file({key: t * (size if "lora_B" in key else 1) for key, t in load_file(file).items()}, file)
    models = tuple(replace(each, fingerprint=None) for each in sources.models)
    return open_sources(models, Checkpoint("base", str(root / "base")), FAMILY, ANY_BASE)


@pytest.mark.parametrize("kind", ["ranks, rslora, patterns, embeddings", "GPT-2", "a head trained whole"])
@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
def test_peft_gives_the_logits_of_the_merge(kind: str, method: str, of_llama: OpenSources, tmp_path: Path) -> None:
    others = {"GPT-2": OF_GPT2, "a head trained whole": WHOLE}
    sources = opened(tmp_path, others[kind]) if kind in others else of_llama
    node, engine = merge(sources, method), Engine(sources.tensors, device=CPU, dtype=torch.float32)
    form = Lora()
    form.check(node, FAMILY, sources)
    adapter = written(node, sources, tmp_path / "adapter", form, engine)
    live = live_model(node, sources, engine)
    expected = logits(live)
    torch.testing.assert_close(by_peft(adapter, sources), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert form.verify(adapter, FAMILY, live).same_bits
    assert form.left_out(adapter) == {}
    plain = Checkpoint("base", str(sources.directories["base"]))
    live.become(plain, engine)
    assert not torch.allclose(logits(live), expected, rtol=0.01, atol=0.01)
    assert not form.verify(adapter, FAMILY, live).same_bits


def test_the_files(of_llama: OpenSources, tmp_path: Path) -> None:
    engine = Engine(of_llama.tensors, device=CPU, dtype=torch.float32)
    adapter = written(merge(of_llama, "linear"), of_llama, tmp_path / "adapter", Lora(), engine)
    config = json.loads((adapter / "adapter_config.json").read_text())
    tensors = load_file(adapter / "adapter_model.safetensors")
    ranks = {key.split(".lora_A")[0]: t.shape[0] for key, t in tensors.items() if ".lora_A" in key}
    layer = "base_model.model.model.layers.0"
    assert ranks[f"{layer}.self_attn.q_proj"] == 4 + 2 + 3
    assert ranks[f"{layer}.self_attn.v_proj"] == 4 + 1
    assert ranks[f"{layer}.mlp.up_proj"] == 2
    assert config["target_modules"] == ["down_proj", "embed_tokens", "q_proj", "up_proj", "v_proj"]
    assert config["alpha_pattern"] == config["rank_pattern"]
    assert config["lora_alpha"] == config["r"]
    assert config["base_model_name_or_path"] == str(of_llama.directories["base"])
    assert {t.dtype for t in tensors.values()} == {torch.float32}


def test_peft_finds_the_base_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the sources called it: relative paths begin elsewhere there, and zoo:// is ours alone."""
    assert opened(tmp_path, {"one": OF_LLAMA["one"]}).base
    monkeypatch.chdir(tmp_path)
    sources = open_sources((Checkpoint("one", "./base", adapter="one"),), Checkpoint("base", "base"), FAMILY, ANY_BASE)
    engine = Engine(sources.tensors, device=CPU, dtype=torch.float32)
    adapter = written(merge(sources, "linear", weight=(1.0,)), sources, tmp_path / "adapter", Lora(), engine)
    monkeypatch.chdir("/")
    model = peft.AutoPeftModelForCausalLM.from_pretrained(adapter, dtype=torch.float32).eval()
    assert torch.equal(by_peft(adapter, sources), model(TOKENS).logits)
    assert peft.PeftConfig.from_pretrained(adapter).base_model_name_or_path == str(tmp_path / "base")


def test_a_source_that_has_won_is_its_own_adapter(of_llama: OpenSources, tmp_path: Path) -> None:
    engine = Engine(of_llama.tensors, device=CPU, dtype=torch.float32)
    node = of_llama.models[1]
    adapter = written(node, of_llama, tmp_path / "adapter", Lora(), engine)
    live = live_model(node, of_llama, engine)
    torch.testing.assert_close(by_peft(adapter, of_llama), logits(live), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("method", "more"), [("ties", {"density": 0.3}), ("linear", {})])
def test_a_cut_says_what_it_costs(method: str, more: dict[str, Any], of_llama: OpenSources, tmp_path: Path) -> None:
    engine = Engine(of_llama.tensors, device=CPU, dtype=torch.float32)
    density = {name: (value,) * 3 for name, value in more.items()}
    node, form = merge(of_llama, method, **density), Lora(2)
    form.check(node, FAMILY, of_llama)
    adapter = written(node, of_llama, tmp_path / "adapter", form, engine)
    name = "model.layers.0.self_attn.q_proj.weight"
    change = engine.tensor(node, name).double() - of_llama.tensors["base"].read(name).double()
    values = torch.linalg.svdvals(change)
    cut = json.loads((adapter / "left_out.json").read_text())[name]
    assert cut["change"] == pytest.approx(float(change.norm()), rel=1e-4)
    assert cut["left_out"] == pytest.approx(float(values[2:].norm()), rel=1e-4)
    told = form.left_out(adapter)
    assert told["rank"] == 2
    assert 0.01 < float(str(told["share"])) < 1
    assert "cut to rank 2" in str(told["said"])
    live = live_model(node, of_llama, engine)
    assert form.verify(adapter, FAMILY, live).weights == ()
    live.parameters[name].mul_(1.5)
    assert form.verify(adapter, FAMILY, live).weights == (name,)


def test_small_changes_in_16_bits_are_kept(tmp_path: Path) -> None:
    """Fine-tuning moves weights by less than the roundings of the largest one: these changes are no roundings."""
    sources = of_small_steps(tmp_path, 4e-4)
    node, engine = merge(sources, "ties", density=(1.0,) * 2), Engine(sources.tensors, device=CPU, dtype=torch.bfloat16)
    name = "model.layers.0.self_attn.q_proj.weight"
    change = engine.tensor(node, name).float() - sources.tensors["base"].read(name).float()
    assert 0 < float(change.abs().max()) < 4 * 2**-7 * float(sources.tensors["base"].read(name).abs().max())
    form = Lora(16)
    form.check(node, FAMILY, sources)
    adapter = written(node, sources, tmp_path / "adapter", form, engine)
    tensors = load_file(adapter / "adapter_model.safetensors")
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    product = tensors[f"{layer}.lora_B.weight"] @ tensors[f"{layer}.lora_A.weight"]
    left = json.loads((adapter / "left_out.json").read_text())[name]["left_out"]
    assert float((product - change).norm()) <= left + 1e-3 * float(change.norm())
    live = live_model(node, sources, engine, torch.bfloat16)
    assert form.verify(adapter, FAMILY, live).weights == ()
    live.become(Checkpoint("base", ""), engine)  # an adapter that changes nothing would be told
    assert name in form.verify(adapter, FAMILY, live).weights


def test_what_cannot_be_an_adapter_is_named(of_llama: OpenSources, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"what ties makes of adapters is no adapter of small rank: .*format.rank=NUM"):
        Lora().check(merge(of_llama, "ties", density=(0.3,) * 3), FAMILY, of_llama)
    with pytest.raises(ValueError, match=r"makes of 5 tensors: .*all where the base is multiplied: normalize=true"):
        Lora().check(merge(of_llama, "linear", normalize=False), FAMILY, of_llama)
    of_norms = {"target_modules": ["q_proj"], "r": 2, "lora_alpha": 3, "modules_to_save": ["norm"]}
    sources = opened(tmp_path, {"one": OF_LLAMA["one"], "two": of_norms})
    with pytest.raises(ValueError, match=r"what linear makes of 5 tensors: 'model.layers.0.input_layernorm"):
        Lora(4).check(merge(sources, "linear"), FAMILY, sources)
    plain = tuple(Checkpoint(name, str(tmp_path / "base")) for name in ("one", "two"))
    whole = open_sources(plain, None, FAMILY, ANY_BASE)
    with pytest.raises(ValueError, match=r"expected merges of adapters of one .* got a merge .* without a base"):
        Lora().check(Merge("linear", None, whole.models, ()), FAMILY, whole)
    for rank in (0, True, 2.5):
        with pytest.raises(ValueError, match=r"format.rank: expected null or a whole number from 1 on, got"):
            Lora(rank)  # type: ignore[arg-type]
