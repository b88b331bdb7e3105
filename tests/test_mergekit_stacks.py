"""Passthrough over layers of several models, in the style of published configurations.

What is expected is put together from the files by hand; mergekit 0.1.5 gave the same bits for each of these.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file

from evohydra.families.causal_lm import CausalLM
from evohydra.mergekit.reader import read
from evohydra.winner.remaking import rebuild
from tests import tiny_models

ZEROED = [{"filter": "o_proj", "value": 0.0}, {"filter": "down_proj", "value": 0.0}, {"value": 1.0}]
LATE = [{"filter": "layers.3", "value": 2.0}, {"value": 1.0}]  # a name in the model, not in what is written
# Name of the model, layers, and what multiplies which of their tensors.
Piece = tuple[str, int, int, Any]
STACKS: dict[str, tuple[str | None, list[Piece]]] = {
    "two models, interleaved": ("float16", [("s1", 0, 3, None), ("s2", 1, 3, None), ("s1", 2, 4, None)]),
    "ends in another model": (None, [("s1", 0, 3, None), ("s2", 1, 4, None)]),
    "one model, layers repeated": ("bfloat16", [("s1", 0, 3, None), ("s1", 1, 3, None), ("s1", 2, 4, None)]),
    "layers left out": ("bfloat16", [("s1", 0, 1, None), ("s1", 3, 4, None)]),
    "new layers that do nothing yet": (
        None, [("s1", 0, 2, None), ("s1", 1, 2, ZEROED), ("s1", 2, 4, None), ("s1", 3, 4, ZEROED)],
    ),
    "models of other depths": (None, [("s3", 0, 5, None), ("s1", 1, 4, None), ("s3", 4, 6, None)]),
    "a scale for all": (None, [("s1", 0, 3, 0.5), ("s2", 1, 4, 0.5)]),
    "a gradient": (None, [("s1", 0, 3, [1.0, 0.5]), ("s2", 1, 4, None)]),
    "filters by layer": (None, [("s1", 0, 3, LATE), ("s1", 1, 4, LATE)]),
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for seed, (name, layers) in enumerate({"s1": 4, "s2": 4, "s3": 6}.items()):
        tiny_models.save_model(root / name, seed, num_hidden_layers=layers)
    return root


def text(root: Path, pieces: list[Piece], **more: object) -> str:
    slices = [
        {"sources": [{"model": str(root / name), "layer_range": [start, stop]}
                     | ({"parameters": {"scale": scale}} if scale is not None else {})]}
        for name, start, stop, scale in pieces
    ]  # fmt: skip
    return yaml.safe_dump({"merge_method": "passthrough", "slices": slices, **more})


def scale_at(scale: Any, tensor: str, t: float) -> float:
    if scale is None:
        return 1.0
    if isinstance(scale, list) and isinstance(scale[0], dict):
        return float(next(each["value"] for each in scale if each.get("filter", "") in tensor))
    return float(scale[0] + t * (scale[1] - scale[0])) if isinstance(scale, list) else float(scale)


def expected(root: Path, pieces: list[Piece], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    files = {name: load_file(root / name / "model.safetensors") for name, *_ in pieces}
    found = {}
    for edge, (name, _, _, scale) in {
        "model.embed_tokens.weight": pieces[0], "model.norm.weight": pieces[-1], "lm_head.weight": pieces[-1],
    }.items():  # fmt: skip
        found[edge] = files[name][edge].to(dtype) * scale_at(scale, edge, 0.0)
    written = 0
    for name, start, stop, scale in pieces:
        for layer in range(start, stop):
            t = (layer - start) / (stop - start - 1) if stop - start > 1 else 1.0
            for tensor, value in files[name].items():
                if tensor.startswith(f"model.layers.{layer}."):
                    place = tensor.replace(f"layers.{layer}.", f"layers.{written}.")
                    found[place] = value.to(dtype) * scale_at(scale, tensor, t)
            written += 1
    return found


@pytest.mark.parametrize("kind", STACKS)
def test_layers_are_stacked_as_mergekit_stacks_them(kind: str, root: Path, tmp_path: Path) -> None:
    dtype, pieces = STACKS[kind]
    recipe = read(text(root, pieces, **({"dtype": dtype} if dtype else {})), CausalLM(), 10**9)
    rebuild(recipe, tmp_path / "out", {}, torch.device("cpu"))
    got, wanted = (
        load_file(tmp_path / "out" / "model.safetensors"),
        expected(root, pieces, getattr(torch, dtype or "float32")),
    )
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(got[name], tensor), name
    model, told = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert model.config.num_hidden_layers == sum(stop - start for _, start, stop, _ in pieces)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]


def test_new_layers_that_do_nothing_change_no_answer(root: Path, tmp_path: Path) -> None:
    _, pieces = STACKS["new layers that do nothing yet"]
    rebuild(read(text(root, pieces), CausalLM(), 10**9), tmp_path / "out", {}, torch.device("cpu"))
    tokens = torch.arange(3, 23)[None]
    grown, plain = (transformers.AutoModelForCausalLM.from_pretrained(path) for path in (tmp_path / "out", root / "s1"))
    torch.testing.assert_close(grown(tokens).logits, plain(tokens).logits, rtol=1e-5, atol=1e-6)


def test_the_configuration_is_the_bases(root: Path, tmp_path: Path) -> None:
    _, pieces = STACKS["two models, interleaved"]
    recipe = read(text(root, pieces, base_model=str(root / "s2")), CausalLM(), 10**9)
    assert (recipe["files_from"], recipe["config"]) == ("s2", "s2")
    rebuild(recipe, tmp_path / "out", {}, torch.device("cpu"))
    got, first = (load_file(path / "model.safetensors") for path in (tmp_path / "out", root / "s1"))
    assert torch.equal(got["model.embed_tokens.weight"], first["model.embed_tokens.weight"])


@pytest.mark.parametrize(
    ("pieces", "more", "message"),
    [
        ([("s1", 0, 3, None), ("s2", 1, 5, None)], {}, "layers 1 to 5 of .*s2, which has 4 layers"),
        ([("s3", 0, 3, None), ("s3", 1, 4, None), ("s1", 1, 4, None)], {"tokenizer_source": "union"}, "without scales"),
        ([("s3", 0, 3, None), ("s1", 1, 4, None)], {}, r"models of \[4, 6\] layers are stacked only without scales"),
    ],
)  # fmt: skip
def test_what_cannot_be_stacked_is_refused(pieces: list[Piece], more: Any, message: str, root: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read(text(root, pieces, **more), CausalLM(), 10**9)
