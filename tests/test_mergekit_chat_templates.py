"""Chat templates that mergekit configurations ask for: by name, written out, or the one that most models have."""

import json
from pathlib import Path
from typing import Any

import jinja2
import pytest
import torch
import transformers
import yaml

from evohydra.families.causal_lm import CausalLM
from evohydra.mergekit.chat_templates import NAMED
from evohydra.mergekit.reader import read
from evohydra.winner.remaking import rebuild
from tests import tiny_models

RENDERED = json.loads((Path(__file__).parent / "reference" / "mergekit" / "chat_templates.json").read_text())
SAID = {
    "u": ("user", " Hi\nthere "),
    "a": ("assistant", "Yes. "),
    "s": ("system", "Be kind "),
    "c": ("user_context", "ctx"),
}
WRITTEN_OUT = "{% for message in messages %}{{ message.content }};{% endfor %}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models with one chat template, one with another, one with none, and one without a tokenizer."""
    root = tmp_path_factory.mktemp("models")
    templates = {
        "one": "ONE {{ messages }}",
        "two": " TWO {{ messages }}",
        "three": "TWO {{ messages }}\n",
        "none": None,
    }
    for seed, (name, template) in enumerate(templates.items()):
        tiny_models.save_model(root / name, seed)
        if template is not None:
            file = root / name / "tokenizer_config.json"
            file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": template}))
    tiny_models.save_model(root / "bare", 9)
    for file in (root / "bare").glob("*token*"):
        file.unlink()
    return root


def written(root: Path, out: Path, template: object, *models: str, **more: object) -> Any:
    listed = [{"model": str(root / name), "parameters": {"weight": 1}} for name in models]
    config: dict[str, object] = {"merge_method": "linear", "models": listed, "chat_template": template, **more}
    rebuild(read(yaml.safe_dump(config), CausalLM(), 10**9), out, {}, torch.device("cpu"))
    return transformers.AutoTokenizer.from_pretrained(out)


@pytest.mark.parametrize("name", NAMED)
def test_a_name_gives_the_text_that_mergekits_template_gives(name: str) -> None:
    tokenizer = tiny_models.tokenizer()
    tokenizer.bos_token = "<s>"
    tokenizer.chat_template = NAMED[name]
    for case, expected in RENDERED[name].items():
        who, _, prompt = case.partition(" ")
        messages = [dict(zip(("role", "content"), SAID[letter], strict=True)) for letter in who]
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=bool(prompt))
        except jinja2.TemplateError:
            text = "error TemplateError"
        assert text == expected, case


def test_a_named_template_is_written_with_the_tokenizer(root: Path, tmp_path: Path) -> None:
    tokenizer = written(root, tmp_path / "out", "chatml", "one", "two")
    said = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert said == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    again, promised = rebuild(
        json.loads((tmp_path / "out" / "recipe.json").read_text()), tmp_path / "again", {}, torch.device("cpu")
    )
    assert again == promised
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "again").chat_template == tokenizer.chat_template


@pytest.mark.parametrize(
    ("template", "models", "more", "expected"),
    [
        ("auto", ("one", "two", "three"), {}, "TWO {{ messages }}"),
        ("auto", ("one", "two", "three"), {"tokenizer_source": "union"}, "TWO {{ messages }}"),
        ("auto", ("one", "two", "none"), {}, "ONE {{ messages }}"),  # as often: the first
        ("auto", ("none", "two"), {}, "TWO {{ messages }}"),
        ("auto", ("two", "bare"), {}, "TWO {{ messages }}"),
        ("auto", ("none",), {}, None),
        (None, ("one", "two"), {}, "ONE {{ messages }}"),
        (WRITTEN_OUT, ("one", "two"), {}, WRITTEN_OUT),
    ],
)
def test_which_template_is_written(
    template: object, models: tuple[str, ...], more: Any, expected: str | None, root: Path, tmp_path: Path
) -> None:
    assert written(root, tmp_path / "out", template, *models, **more).chat_template == expected


def test_a_stack_of_layers_has_the_template_too(root: Path, tmp_path: Path) -> None:
    slices = [{"sources": [{"model": str(root / name), "layer_range": [0, 2]}]} for name in ("one", "two")]
    config = {"merge_method": "passthrough", "slices": slices, "chat_template": WRITTEN_OUT}
    rebuild(read(yaml.safe_dump(config), CausalLM(), 10**9), tmp_path / "out", {}, torch.device("cpu"))
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == WRITTEN_OUT


def test_without_a_tokenizer_there_is_nothing_to_write_it_to(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bare: expected a tokenizer that transformers loads"):
        written(root, tmp_path / "out", "chatml", "bare", "one")
