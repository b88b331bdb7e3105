"""Rows that a mergekit configuration chooses token by token, and models without tokenizer files.

What is expected is what mergekit 0.1.5 gave for these configurations, row by row.
"""

import json
import shutil
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

EMBEDDINGS, CPU = "model.embed_tokens.weight", torch.device("cpu")
TOKENS = len(tiny_models.CHARACTERS)
WEIGHTS = {"one": 0.3, "plus": 0.6}
Rows = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, one with two tokens more, and the same without tokenizer files."""
    root = tmp_path_factory.mktemp("models")
    tiny_models.save_model(root / "one", 1)
    more = [*tiny_models.CHARACTERS, "!", "<|im_start|>"]
    tiny_models.save_model(root / "plus", 2, characters=more, vocab_size=TOKENS + 2)
    tiny_models.save_model(root / "two", 3)
    for name in ("one", "two"):
        shutil.copytree(root / name, root / f"bare_{name}", ignore=lambda _, names: [n for n in names if "token" in n])
    return root


def rows(directory: Path, name: str = EMBEDDINGS) -> Rows:
    """The rows of a model by token."""
    matrix = load_file(directory / "model.safetensors")[name]
    vocabulary = transformers.AutoTokenizer.from_pretrained(directory).get_vocab()
    return {token: matrix[row] for token, row in vocabulary.items() if row < len(matrix)}


def mean(one: torch.Tensor, plus: torch.Tensor) -> torch.Tensor:
    return (WEIGHTS["one"] * one + WEIGHTS["plus"] * plus) / sum(WEIGHTS.values())


def merged(root: Path, out: Path, **config: object) -> Path:
    whole: dict[str, object] = {
        "merge_method": "linear",
        "models": [{"model": str(root / name), "parameters": {"weight": weight}} for name, weight in WEIGHTS.items()],
        **config,
    }
    rebuild(read(yaml.safe_dump(whole).replace("ROOT", str(root)), CausalLM(), 10**9), out, {}, CPU)
    return out


@pytest.mark.parametrize(
    ("token", "chosen", "of_one", "of_plus"),
    [  # whose row: the token, another one's, a number, or zeros
        ("!", {"source": "ROOT/plus"}, ("plus", "!"), ("plus", "!")),
        ("!", {"source": {"model": {"path": "ROOT/plus"}}}, ("plus", "!"), ("plus", "!")),
        ("!", {"source": {"kind": "zero"}}, None, ("plus", "!")),
        ("!", {"source": {"kind": "zero"}, "force": True}, None, None),
        ("!", {"source": {"kind": "model_token", "model": "ROOT/one", "token": "b"}}, ("one", "b"), ("plus", "!")),
        ("!", {"source": {"kind": "model_token", "model": "ROOT/one", "token_id": 7}, "force": True},
         ("one", "4"), ("one", "4")),
        ("a", {"source": "ROOT/plus"}, ("one", "a"), ("plus", "a")),
        ("a", {"source": "ROOT/plus", "force": True}, ("plus", "a"), ("plus", "a")),
        ("<|im_end|>", {"source": {"kind": "model_token", "model": "ROOT/plus", "token": "<eos>"}},
         ("plus", "<eos>"), ("plus", "<eos>")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("multiple", [None, 16])
def test_rows_are_those_that_the_configuration_names(
    multiple: int | None, token: str, chosen: Any, of_one: Any, of_plus: Any, root: Path, tmp_path: Path
) -> None:
    padded = {"pad_to_multiple_of": multiple} if multiple else {}
    out = merged(root, tmp_path / "out", tokenizer={"source": "union", "tokens": {token: chosen}, **padded})
    for name in (EMBEDDINGS, "lm_head.weight"):
        theirs = {model: rows(root / model, name) for model in WEIGHTS}
        found = rows(out, name)
        picked = [theirs[at[0]][at[1]] if at else torch.zeros(16) for at in (of_one, of_plus)]
        torch.testing.assert_close(found.pop(token), mean(*picked))
        for other in set(found) & set(theirs["one"]):
            torch.testing.assert_close(found[other], mean(theirs["one"][other], theirs["plus"][other]))
        assert "<|im_start|>" in found
    new = token not in rows(root / "plus")
    count = TOKENS + 2 + new
    config = json.loads((out / "config.json").read_text())
    assert config["vocab_size"] == (-(-count // multiple) * multiple if multiple else count)
    recipe = json.loads((out / "recipe.json").read_text())
    again, promised = rebuild(recipe, tmp_path / "again", {}, CPU)
    assert again == promised


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"source": "ROOT/one"}, "the row of '!' is to be that of '!' in 'one', which has no such token"),
        ({"source": {"kind": "model_token", "model": "ROOT/one", "token_id": 99}}, "that of 99 in 'one'.* 47 rows"),
    ],
)
def test_rows_that_no_model_has_are_refused(chosen: Any, message: str, root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        merged(root, tmp_path / "out", tokenizer={"source": "union", "tokens": {"!": chosen}})


def of(root: Path, *names: str) -> dict[str, object]:
    return {"models": [{"model": str(root / name), "parameters": {"weight": 0.5}} for name in names]}


def plain_mean(root: Path, name: str) -> torch.Tensor:
    one, two = (load_file(root / each / "model.safetensors")[name] for each in ("one", "two"))
    return (one + two) / 2


@pytest.mark.parametrize("names", [("bare_one", "bare_two"), ("one", "bare_two"), ("bare_one", "two")])
def test_models_without_tokenizer_files_are_merged(
    names: tuple[str, str], root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = merged(root, tmp_path / "out", **of(root, *names))
    torch.testing.assert_close(load_file(out / "model.safetensors")[EMBEDDINGS], plain_mean(root, EMBEDDINGS))
    for name in names:
        said = f"source '{name}' has no tokenizer files: its rows are taken to be for the same tokens" in caplog.text
        assert said == name.startswith("bare")
    assert (out / "tokenizer.json").exists() == (not names[0].startswith("bare"))


def test_a_stack_of_models_without_tokenizer_files(root: Path, tmp_path: Path) -> None:
    slices = [{"sources": [{"model": str(root / f"bare_{name}"), "layer_range": [0, 2]}]} for name in ("one", "two")]
    config = {"merge_method": "passthrough", "slices": slices}
    rebuild(read(yaml.safe_dump(config), CausalLM(), 10**9), tmp_path / "out", {}, CPU)
    assert not (tmp_path / "out" / "tokenizer.json").exists()
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.config.num_hidden_layers == 4


def test_where_rows_are_matched_a_model_without_tokenizer_is_taken_to_have_the_bases(
    root: Path, tmp_path: Path
) -> None:
    out = merged(root, tmp_path / "out", **of(root, "one", "bare_two"), tokenizer_source="union")
    torch.testing.assert_close(load_file(out / "model.safetensors")[EMBEDDINGS], plain_mean(root, EMBEDDINGS))
    with pytest.raises(ValueError, match="source 'bare_one': expected a tokenizer to match rows by, got none"):
        merged(root, tmp_path / "other", **of(root, "bare_one", "two"), tokenizer_source="union")


def test_base_without_a_base_model_is_the_first_model(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = merged(root, tmp_path / "out", tokenizer_source="base")
    assert json.loads((out / "config.json").read_text())["vocab_size"] == TOKENS
    assert "the configuration names no base_model; the first model stands for it" in caplog.text
