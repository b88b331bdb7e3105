"""Tokenizers with one vocabulary that make other tokens of a text are not the same."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, processors
from transformers import ByT5Tokenizer, LlamaTokenizer, PreTrainedTokenizerFast

from evohydra.families import Rules
from evohydra.families.causal_lm import CausalLM
from evohydra.families.component_rules import check_same_tokenizers
from evohydra.families.declared import Source, checkpoints
from evohydra.families.declared import models as nodes
from evohydra.families.sources import OpenSources, find_sources, open_sources
from evohydra.families.splitting import check_splitting, unlike
from evohydra.merging.checkpoints import SourceError
from tests import tiny_models
from tests.commands import built, carried_out, python, workspace
from tests.hub.language_models import PIECES
from tests.test_padding_tokens import padded, words
from tests.test_padding_tokens import save as save_padded

MERGED = ("ab", "bc", "▁a")
VOCABULARY = {piece: number for number, piece in enumerate((*PIECES, *MERGED))}
Change = Callable[[dict[str, Any]], None]


def fast(change: Change = lambda data: None, **options: Any) -> PreTrainedTokenizerFast:
    """Llama's kind with three merges, whose tokenizer.json `change` has changed."""
    backend = Tokenizer(
        models.BPE(VOCABULARY, [("a", "b"), ("b", "c"), ("▁", "a")], unk_token="<unk>", byte_fallback=True)
    )
    data = json.loads(backend.to_str())
    data["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    }
    data["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ],
    }
    change(data)
    made = Tokenizer.from_str(json.dumps(data))
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **special, **options)


def without_normalizer(data: dict[str, Any]) -> None:
    data["normalizer"] = None


def compatible(data: dict[str, Any]) -> None:
    data["normalizer"]["normalizers"].append({"type": "NFKC"})


def digits(data: dict[str, Any]) -> None:
    data["pre_tokenizer"] = {"type": "Split", "pattern": {"String": "▁"}, "behavior": "Isolated", "invert": False}


def other_merges(data: dict[str, Any]) -> None:
    data["model"]["merges"].reverse()


def a_merge_less(data: dict[str, Any]) -> None:
    data["model"]["merges"].pop(1)


def without_bytes(data: dict[str, Any]) -> None:
    data["model"]["byte_fallback"] = False


def at_random(data: dict[str, Any]) -> None:
    data["model"]["dropout"] = 0.1


def save(root: Path, **tokenizers: PreTrainedTokenizerFast) -> Path:
    """A base, and a model for each of the tokenizers."""
    base = tiny_models.save_model(root / "base", 0, vocab_size=len(VOCABULARY))
    fast().save_pretrained(base)
    for seed, (name, each) in enumerate(tokenizers.items(), 1):
        each.save_pretrained(tiny_models.save_model(root / name, seed, base=base))
    return root


def opened(root: Path, *names: str, **rules: Any) -> OpenSources:
    chosen = Rules(**rules)
    sources = {name: Source(str(root / name), "-", base=str(root / "base")) for name in names}
    return open_sources(*checkpoints(sources, chosen), CausalLM(), chosen)


@pytest.mark.parametrize("choice", ["auto", "same"])
@pytest.mark.parametrize(
    ("change", "part", "text"),
    [
        (without_normalizer, "normalizer", "'a'"),
        (compatible, "normalizer", "'e\u0301'"),
        (digits, "pre_tokenizer", "'a'"),
        (other_merges, "merges", "'ab"),
        (a_merge_less, "merges", "'bc"),
        (without_bytes, "model.byte_fallback", ""),
        (at_random, "model.dropout", ""),
    ],
)
def test_one_vocabulary_that_is_cut_otherwise_is_refused(
    change: Change, part: str, text: str, choice: str, tmp_path: Path
) -> None:
    save(tmp_path, one=fast(), two=fast(change))
    told = rf"'two' and .* other tokens of the same text \({part}\): {text}.*tokenizer=base or the name of a source"
    with pytest.raises(SourceError, match=told):
        opened(tmp_path, "one", "two", tokenizer=choice)


def test_a_tokenizer_that_is_chosen_by_name_is_that_of_all(tmp_path: Path) -> None:
    save(tmp_path, one=fast(), two=fast(without_normalizer))
    assert not opened(tmp_path, "one", "two", tokenizer="base").warnings
    assert opened(tmp_path, "one", "two", tokenizer="two").files_from == "two"


def test_padding_does_not_hide_that_a_tokenizer_cuts_otherwise(tmp_path: Path) -> None:
    base = save_padded(tmp_path / "base", 0, words())
    save_padded(tmp_path / "one", 1, words(), base)
    data = json.loads(padded().backend_tokenizer.to_str())
    data["normalizer"] = {"type": "Lowercase"}
    other = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(data)), eos_token="<eos>", unk_token="<unk>", pad_token="[PAD]"
    )
    save_padded(tmp_path / "two", 2, other, base)
    with pytest.raises(SourceError, match=r"other tokens of the same text \(normalizer\): 'Hello, World!' is"):
        opened(tmp_path, "one", "two", tokenizer="auto")


def test_a_path_through_layers_is_refused_too(tmp_path: Path) -> None:
    save(tmp_path, one=fast(), two=fast(without_normalizer))
    found = {name: Source(str(tmp_path / name), "-") for name in ("one", "two")}
    with pytest.raises(SourceError, match="other tokens of the same text"):
        find_sources(nodes(found), None, CausalLM(), Rules(tokenizer="auto"), layers_only="one")
    assert find_sources(nodes(found), None, CausalLM(), Rules(tokenizer="one"), layers_only="one").aligned


def truncated(data: dict[str, Any]) -> None:
    data["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    data["padding"] = {
        "strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "<unk>",
    }  # fmt: skip


def test_what_changes_no_token_is_no_difference(tmp_path: Path) -> None:
    template = fast(truncated, padding_side="left")
    template.chat_template = "{{ messages }}"
    save(tmp_path, one=fast(), two=template)
    assert not opened(tmp_path, "one", "two", tokenizer="auto").warnings


def sequence_of_one(data: dict[str, Any]) -> None:
    data["normalizer"] = {"type": "Sequence", "normalizers": [data["normalizer"]]}


def test_the_same_in_other_words_is_merged_with_a_line_that_says_so(tmp_path: Path) -> None:
    save(tmp_path, one=fast(), two=fast(sequence_of_one))
    (said,) = opened(tmp_path, "one", "two", tokenizer="auto").warnings
    assert "'two' and 'one' differ (normalizer): of all texts that were tried they make the same tokens" in said


def test_tokens_that_are_put_around_a_text_are_a_warning(tmp_path: Path) -> None:
    adding = fast()
    adding.backend_tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    save(tmp_path, one=fast(), two=adding)
    (said,) = opened(tmp_path, "one", "two", tokenizer="same").warnings
    token = VOCABULARY["▁a"]
    assert f"'a' is [1, {token}] in 'two' and [{token}] in 'one'. The merge has the one of 'one'" in said


def test_llamas_two_ways_after_a_special_token_are_a_warning() -> None:
    """Fine-tunes of one base differ in `legacy`: ordinary texts are the same tokens."""
    kinds = [LlamaTokenizer(VOCABULARY, [("a", "b")], legacy=legacy) for legacy in (True, False)]
    (said,) = check_splitting(dict(zip(("one", "two"), kinds, strict=True)), "one", "-")
    assert "(pre_tokenizer)" in said
    assert "'a</s>b' is" in said


def test_tokenizers_without_a_tokenizer_json_are_compared_by_what_they_do() -> None:
    class Lower(ByT5Tokenizer):
        def _tokenize(self, text: str) -> list[str]:
            return super()._tokenize(text.lower())

    plain = ByT5Tokenizer()
    assert unlike(copy.deepcopy(plain), plain) is None
    found = unlike(Lower(), plain)
    assert found is not None
    assert found.plain is not None
    assert found.plain.text == "Hello, World!"


def test_text_encoders_whose_tokenizers_cut_otherwise_are_not_merged(tmp_path: Path) -> None:
    folders = {}
    for name, each in {"one": fast(), "two": fast(without_normalizer), "three": fast(sequence_of_one)}.items():
        each.save_pretrained(tmp_path / name / "tokenizer")
        folders[name] = {"tokenizer": tmp_path / name / "tokenizer"}
    with pytest.raises(SourceError, match=r"other tokens of the same text .*components.text_encoder=SOURCE copies it"):
        check_same_tokenizers(["text_encoder"], folders, ["one", "two"])
    (said,) = check_same_tokenizers(["text_encoder"], folders, ["one", "three"])
    assert "make the same tokens" in said
    assert not check_same_tokenizers(["unet"], folders, ["one", "two"])


TURN = "<|end_of_turn|>"


def save_with_turn(root: Path, template: str | None = None) -> None:
    """A base, and two models of which the second pads with a token that may stand in prompts."""
    save_padded(root / "base", 0, words())
    turning = padded(TURN)
    turning.chat_template = template
    for seed, (name, each) in enumerate({"one": words(), "two": turning}.items(), 1):
        save_padded(root / name, seed, each, root / "base")


def test_a_padding_token_in_a_prompt_of_the_configuration_is_not_left_out(tmp_path: Path) -> None:
    arguments = [*workspace(tmp_path), "baselines=null", "budget=6", "top=1"]
    save_with_turn(tmp_path)
    run = built(arguments, tmp_path / "run")
    assert run.form.rules.tokenizer == "base"  # no prompt names it
    prompt = f"'User: {{question}}{TURN}Assistant:'"
    for given in (f"+model.sources.two.prompt={prompt}", f"+model.sources.one.prompt={prompt}"):
        with pytest.raises(SourceError, match=re.escape(f"1 tokens differ, the first is {TURN!r}")):
            built([*arguments, given], tmp_path / "run")
    with pytest.raises(SourceError, match="different tokenizers: 1 tokens differ"):
        built([*arguments, f"benchmark.lm_eval.prompt_format='{{question}}{TURN}'"], tmp_path / "run")


def test_a_template_that_says_pad_token_names_it(tmp_path: Path) -> None:
    save_with_turn(tmp_path, "{% for m in messages %}{{ m.content }}{{ pad_token }}{% endfor %}")
    with pytest.raises(SourceError, match="different tokenizers: 1 tokens differ"):
        opened(tmp_path, "one", "two", tokenizer="auto")


def test_the_recipe_of_a_run_with_prompts_can_be_read(tmp_path: Path) -> None:
    arguments = [*workspace(tmp_path), "baselines=null", "budget=6", "top=1"]
    carried_out([*arguments, "+model.sources.two.prompt='Q: {question}'"], tmp_path / "run")
    assert "texts" not in json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert (tmp_path / "run" / "winner" / "mergekit.yaml").is_file()


def test_a_merge_that_mergekit_makes_is_made_with_a_warning(tmp_path: Path) -> None:
    """mergekit looks at no tokenizer unless it is asked to; nothing is scored here, so that no score is wrong."""
    save(tmp_path, one=fast(), two=fast(without_normalizer))
    models = "".join(f"  - {{model: {tmp_path / name}, parameters: {{weight: 0.5}}}}\n" for name in ("one", "two"))
    (tmp_path / "merge.yaml").write_text(f"merge_method: linear\nmodels:\n{models}dtype: float32\n")
    done = python("-m", "evohydra.rebuild", tmp_path / "merge.yaml", tmp_path / "made", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = " ".join((done.stdout + done.stderr).split())
    assert "differ (normalizer): 'a' is" in said
    assert (tmp_path / "made" / "model.safetensors").is_file()
