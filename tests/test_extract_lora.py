"""`python -m evohydra.extract_lora`: the adapter that is nearest to a model, and what it leaves out."""

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

from evohydra.extract_lora import LEAVE, LOW_RANK, WHOLE, Row, extract, main, table
from tests.reference.test_adapters import LLAMA, gpt2, llama
from tests.test_adapter_merges import save_adapter

TOKENS = torch.arange(2, 14)[None]


def load(path: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(path).eval()


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(TOKENS).logits
    return found


def tuned(root: Path, *, tied: bool = False, norms: bool = True) -> tuple[Path, Path]:
    """A base, and a model all of whose weights differ from it; `norms` says whether those do."""
    base = llama(root / "base")
    if tied:
        config = transformers.LlamaConfig(**{**base.config.to_dict(), "tie_word_embeddings": True})
        base = transformers.LlamaForCausalLM(config)
        base.save_pretrained(root / "base")
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for name, parameter in base.named_parameters():
            if norms or "norm" not in name:
                parameter.add_(0.1 * max(float(parameter.std()), 0.1) * torch.randn(parameter.shape))
    base.save_pretrained(root / "model")
    return root / "model", root / "base"


def by_kind(rows: list[Row]) -> dict[str, Row]:
    return {row.kind: row for row in rows}


@pytest.mark.parametrize("make", [llama, gpt2])
def test_an_adapter_that_was_merged_in_is_found_again(make: Any, tmp_path: Path) -> None:
    model = make(tmp_path / "base")
    targets = LLAMA if make is llama else ["c_attn", "c_proj"]
    settings = {"target_modules": targets, "r": 3, "lora_alpha": 1, "fan_in_fan_out": make is gpt2}
    adapter = save_adapter(model, settings, tmp_path / "adapter", 4)
    base = load(tmp_path / "base")
    peft.PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(tmp_path / "model")
    rows = extract(str(tmp_path / "model"), str(tmp_path / "base"), tmp_path / "out", 3)
    assert {row.form for row in rows} == {"rank 3"}
    assert {row.kind for row in rows} == set(targets)
    assert all(row.left_out < 1e-4 * row.change for row in rows)
    found = peft.PeftModel.from_pretrained(load(tmp_path / "base"), tmp_path / "out")
    expected = logits(load(tmp_path / "model"))
    torch.testing.assert_close(logits(found.eval()), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True` and a tied layer:UserWarning")
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("edges", [LOW_RANK, WHOLE])
def test_at_full_rank_it_is_the_model(tied: bool, edges: str, tmp_path: Path) -> None:
    """Also where the head is the embeddings, which PEFT adapts each for itself."""
    model, base = tuned(tmp_path, tied=tied, norms=False)
    rows = by_kind(extract(str(model), str(base), tmp_path / "out", 1000, edges))
    assert all(row.left_out < 1e-4 * row.change for row in rows.values())
    assert rows["embed_tokens"].form == (WHOLE if edges == WHOLE else f"rank {load(base).config.hidden_size}")
    found = peft.PeftModel.from_pretrained(load(base), tmp_path / "out").eval()
    torch.testing.assert_close(logits(found), logits(load(model)), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(logits(load(base)), logits(load(model)), atol=1e-2)


def test_small_changes_in_16_bits_are_found(tmp_path: Path) -> None:
    """Fine-tuning moves weights by less than the roundings of the largest one."""
    base = llama(tmp_path / "base", torch.bfloat16)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for name, parameter in base.named_parameters():
            if "q_proj" in name or name == "model.norm.weight":
                parameter.add_(0.008 * torch.randn(parameter.shape).bfloat16())
    base.save_pretrained(tmp_path / "model")
    rows = by_kind(extract(str(tmp_path / "model"), str(tmp_path / "base"), tmp_path / "out", 2))
    assert {name: row.form for name, row in rows.items()} == {"q_proj": "rank 2", "norm": LEAVE}


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    model, base = tuned(tmp_path)
    rows = by_kind(extract(str(model), str(base), tmp_path / "out", 2, LEAVE))
    after, before = load(model).state_dict(), load(base).state_dict()
    names = [name for name in after if "q_proj" in name]
    values = [torch.linalg.svdvals((after[name] - before[name]).double()) for name in names]
    expected = sum(float(each[2:].square().sum()) for each in values) ** 0.5
    assert rows["q_proj"].left_out == pytest.approx(expected, rel=1e-4)
    assert (rows["q_proj"].tensors, rows["q_proj"].form) == (len(names), "rank 2")
    for kind in ("norm", "input_layernorm", "embed_tokens", "lm_head"):
        assert rows[kind].form == LEAVE
        assert rows[kind].left_out == rows[kind].change > 0
    told = table([*rows.values()])
    assert "as in the base, for no adapter changes them here: " in told
    assert f"q_proj {len(names):>26}"[:6] in told
    # Nearer to the model than the base is.
    found = peft.PeftModel.from_pretrained(load(base), tmp_path / "out").eval()
    wanted = logits(load(model))
    assert float((logits(found) - wanted).norm()) < float((logits(load(base)) - wanted).norm())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, base = map(str, tuned(tmp_path))

    def said(*arguments: str) -> str:
        try:
            main(arguments)
        except SystemExit as ending:
            return str(ending.code)
        return capsys.readouterr().out

    out = f"out={tmp_path / 'out'}"
    assert "wrote " in said(model, base, "rank=2", out)
    assert "exists" in said(model, base, "rank=2", out)
    assert "wrote " in said(model, base, "rank=3", out, "--overwrite")
    assert said(model, base, "rank=two", out) == "extract_lora: rank: expected a whole number from 1 on, got 'two'"
    assert said(model, base, "rank=0", out) == "extract_lora: rank: expected a whole number from 1 on, got 0"
    assert "expected out=DIR, the directory to write" in said(model, base, "rank=2")
    assert "expected out=DIR, rank=NUMBER or edges=CHOICE, got 'ranks=2'" in said(model, base, "ranks=2", out)
    assert "edges: expected one of low_rank, whole, leave, got 'all'" in said(model, base, "edges=all", out)
    for one in (model, base):
        assert "is one of the two models" in said(model, base, f"out={one}", "--overwrite")
    same = said(base, base, f"out={tmp_path / 'other'}")
    assert "differs from" in same
    assert "in nothing that an adapter could change" in same
    assert not (tmp_path / "other").exists()
