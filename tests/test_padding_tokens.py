"""tokenizer=auto: sources that agree but for padding are merged on the base's rows; other differences stay errors."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from evohydra.families import Rules
from evohydra.families.declared import Source, checkpoints, models
from evohydra.families.padding_tokens import padding_tokens
from evohydra.families.sources import OpenSources, find_sources, open_sources
from evohydra.families.vision_language import VisionLanguage
from evohydra.merging.checkpoints import SourceError
from evohydra.searching.json_lines import LedgerError
from evohydra.winner.remaking import rebuild
from tests import tiny_models, tiny_vlms
from tests.commands import built, carried_out, json_lines, workspace
from tests.test_tensor_sets import CPU, EMBEDDINGS, FAMILY, HEAD, merged

TOKENS = ["<unk>", *tiny_models.CHARACTERS[1:]]  # as Mistral's, without padding


def words(tokens: list[str] = TOKENS) -> PreTrainedTokenizerFast:
    data = json.loads(tiny_models.tokenizer(tokens).backend_tokenizer.to_str())
    data["model"]["unk_token"], data["added_tokens"] = "<unk>", []
    made = Tokenizer.from_str(json.dumps(data))
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", unk_token="<unk>")


def padded(name: str = "[PAD]", **options: Any) -> PreTrainedTokenizerFast:
    """As WizardMath's: the base's tokenizer, and a padding token behind it."""
    made = words()
    made.add_special_tokens({"pad_token": name}, **options)
    return made


def save(
    directory: Path, seed: int, tokenizer: PreTrainedTokenizerFast, base: Path | None = None, spare: int = 0, **ids: Any
) -> Path:
    """A tiny Mistral, a step away from `base`, with a row for each token and `spare` rows more."""
    rows = len(tokenizer) + spare
    config = MistralConfig(
        vocab_size=rows, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, bos_token_id=None, eos_token_id=1, **ids,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MistralForCausalLM(config)
        if base is not None:
            known = load_file(base / "model.safetensors")
            for name, tensor in model.state_dict().items():
                shared = min(len(tensor), len(known[name]))
                tensor[:shared] = known[name][:shared] + 0.1 * tensor[:shared]
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A base, a model that has its tokens (shisa), and one with a padding token and a row more (wizardmath)."""
    base = save(tmp_path / "base", 0, words())
    save(tmp_path / "one", 1, words(), base)
    save(tmp_path / "two", 2, padded(), base)
    return tmp_path


def opened(root: Path, based: bool = True, **rules: Any) -> OpenSources:
    chosen = Rules(**{"tokenizer": "auto", **rules})
    base = str(root / "base") if based else None
    sources = {name: Source(str(root / name), "-", base=base) for name in ("one", "two")}
    return open_sources(*checkpoints(sources, chosen), FAMILY, chosen)


def test_a_padding_token_of_one_source_is_left_out_with_a_line_that_says_so(published: Path) -> None:
    with pytest.raises(SourceError, match="embeddings of different sizes"):
        opened(published, tokenizer="same")
    sources = opened(published)
    (said,) = (each for each in sources.warnings if "tokenizer" in each)
    assert "the tokenizer of 'base' and its 47 rows" in said
    assert "left out as padding, for no prompt, template or setting names it: '[PAD]' of 'two'" in said
    two = load_file(published / "two" / "model.safetensors")
    for tensor in (EMBEDDINGS, HEAD):
        assert torch.equal(sources.tensors["two"].read(tensor), two[tensor][:-1])
    by_hand = merged(opened(published, tokenizer="base"), published / "by_hand")
    got = merged(sources, published / "got")
    assert all(torch.equal(tensor, by_hand[name]) for name, tensor in got.items())


def test_a_tokenizer_that_is_the_same_stays_the_first_sources(tmp_path: Path) -> None:
    base = save(tmp_path / "base", 0, words())
    for seed, name in enumerate(("one", "two"), 1):
        save(tmp_path / name, seed, words(), base)
    sources = opened(tmp_path)
    assert sources.files_from == "one"
    assert sources.overlay == opened(tmp_path, tokenizer="same").overlay
    assert not sources.warnings


def test_without_a_base_the_merge_is_on_the_rows_that_all_have(published: Path) -> None:
    sources = opened(published, based=False)
    assert sources.files_from == "one"
    assert sources.tensors["two"].shapes[HEAD] == (47, 16)


def test_rows_of_no_token_are_padding_too(tmp_path: Path) -> None:
    base = save(tmp_path / "base", 0, words(), spare=1)
    save(tmp_path / "one", 1, words(), base, spare=17)
    save(tmp_path / "two", 2, words(), base)
    sources = opened(tmp_path)
    assert {each.shapes[HEAD][0] for each in sources.tensors.values()} == {48}
    (said,) = (each for each in sources.warnings if "tokenizer" in each)
    assert "48 rows of embeddings ('one' has 64; 'two' has 47)" in said
    assert "left out" not in said


def with_template() -> PreTrainedTokenizerFast:
    made = padded()
    made.chat_template = "{% for m in messages %}[PAD]{{ m.content }}{% endfor %}"
    return made


def end_of_text() -> PreTrainedTokenizerFast:
    made = padded()
    made.eos_token = "[PAD]"
    return made


def ordinary() -> PreTrainedTokenizerFast:
    made = words()
    made.add_tokens(["<|im_start|>"], special_tokens=True)
    return made


@pytest.mark.parametrize(
    ("tokenizer", "ids"),
    [(ordinary, {}), (with_template, {}), (end_of_text, {}), (padded, {"decoder_start_token_id": 47})],
    ids=["a token of chats", "a place in the template", "an end of a text", "a number in the configuration"],
)
def test_added_tokens_with_a_role_are_a_real_difference(tokenizer: Any, ids: dict[str, Any], tmp_path: Path) -> None:
    base = save(tmp_path / "base", 0, words())
    save(tmp_path / "one", 1, words(), base)
    save(tmp_path / "two", 2, tokenizer(), base, **ids)
    with pytest.raises(SourceError, match=r"different tokenizers: 1 tokens differ, .*=base, union or the name"):
        opened(tmp_path)


def test_tokens_of_other_numbers_are_a_real_difference(tmp_path: Path) -> None:
    base = save(tmp_path / "base", 0, words())
    save(tmp_path / "one", 1, words(["<unk>", "<eos>", *reversed(TOKENS[2:])]), base)
    save(tmp_path / "two", 2, padded(), base)
    with pytest.raises(SourceError, match=r"have different tokenizers: \d+ tokens differ"):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["[PAD]", "<pad>", "<|PAD|>", "<|filler|>"])
def test_padding_is_known_by_its_name_or_its_role(name: str, tmp_path: Path) -> None:
    assert padding_tokens(padded(name), tmp_path) == {name}
    only_named = words()
    only_named.add_tokens([name], special_tokens=True)
    assert padding_tokens(only_named, tmp_path) == (set() if name == "<|filler|>" else {name})


def test_a_path_has_the_rows_of_its_first_source(published: Path) -> None:
    sources = {name: Source(str(published / name), "-") for name in ("one", "two")}
    for first, rows in (("one", 47), ("two", 48)):
        found = find_sources(models(sources), None, FAMILY, Rules(tokenizer="auto"), layers_only=first)
        assert found.rules.tokenizer == first
        assert {each.shapes[HEAD][0] for each in found.aligned.tensors.values()} == {rows}


def test_a_vlm_keeps_its_rows_whatever_padding_its_language_models_have(tmp_path: Path) -> None:
    tiny_vlms.save_vlm(tmp_path / "vlm", "llava")
    tiny_vlms.save_language_model(tmp_path / "lm", "llama", vocab_size=len(tiny_models.CHARACTERS) + 1)
    sources = {name: Source(str(tmp_path / name), "-") for name in ("vlm", "lm")}
    auto = Rules(tokenizer="auto")
    assert find_sources(models(sources), None, VisionLanguage(), auto).rules.tokenizer == "same"
    own = PreTrainedTokenizerFast.from_pretrained(tmp_path / "lm")
    own.add_special_tokens({"pad_token": "[PAD]"})
    own.save_pretrained(tmp_path / "lm")
    found = find_sources(models(sources), None, VisionLanguage(), auto)
    assert found.rules.tokenizer == "vlm"
    assert any("'[PAD]' of 'lm'" in each for each in found.aligned.left_out)


def save_differing(root: Path) -> None:
    """A base, and two models of which the second has a padding token more."""
    save(root / "base", 0, words())
    for seed, name in enumerate(("one", "two"), 1):
        save(root / name, seed, words() if name == "one" else padded(), root / "base")


def test_a_run_keeps_what_was_chosen_and_its_recipe_says_it(tmp_path: Path) -> None:
    arguments = [*workspace(tmp_path), "baselines=null", "budget=6", "top=1"]
    save_differing(tmp_path)
    carried_out(arguments, tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "run.json").read_text())
    assert kept["scores"]["alignment"]["tokenizer"] == "base"
    recipe = json.loads((tmp_path / "run" / "winner" / "recipe.json").read_text())
    assert recipe["tokenizer"] == "base"
    assert "'[PAD]' of 'two'" in (tmp_path / "run" / "winner" / "README.md").read_text().replace("\\", "")
    written, promised = rebuild(recipe, tmp_path / "again", {}, CPU)
    assert written == promised
    carried_out([*arguments, "tokenizer=base", "budget=8"], tmp_path / "run")  # the same by its name
    with pytest.raises(LedgerError, match="tokenizer was 'base', is now 'union'"):
        carried_out([*arguments, "tokenizer=union"], tmp_path / "run")


def test_a_run_of_equal_tokenizers_goes_on_as_before(tmp_path: Path) -> None:
    arguments = [*workspace(tmp_path), "baselines=null", "top=1"]
    carried_out([*arguments, "tokenizer=same", "budget=6"], tmp_path / "run")  # the default of earlier versions
    kept = (tmp_path / "run" / "run.json").read_bytes()
    assert carried_out([*arguments, "budget=8"], tmp_path / "run")["evaluations"] == 8
    assert (tmp_path / "run" / "run.json").read_bytes() == kept


def test_paths_are_searched_over_sources_that_differ_in_padding(tmp_path: Path) -> None:
    arguments = [*workspace(tmp_path), "baselines=null", "top=1", "merge=dfs", "merge.dataflow.repeats=1"]
    save_differing(tmp_path)
    summary = carried_out([*arguments, "budget=6"], tmp_path / "run")
    assert summary["test"]["sources"]["two"]["score"] is not None
    recipe = json.loads((tmp_path / "run" / "winner" / "recipe.json").read_text())
    assert recipe["tokenizer"] == "one"
    written, promised = rebuild(recipe, tmp_path / "again", {}, CPU)
    assert written == promised


def test_a_run_that_cannot_be_merged_begins_nothing(tmp_path: Path) -> None:
    arguments = workspace(tmp_path)
    tiny_models.save_model(tmp_path / "two", 2, characters=[*tiny_models.CHARACTERS, "é"], vocab_size=48)
    with pytest.raises(SourceError, match=r"different tokenizers: 1 tokens differ, the first is 'é'"):
        built([*arguments, "allow_other_base=true"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_workers_elsewhere_choose_the_same(tmp_path: Path) -> None:
    arguments = [*workspace(tmp_path), "baselines=null", "budget=6", "top=1"]
    save_differing(tmp_path)
    carried_out(arguments, tmp_path / "local")
    carried_out([*arguments, "executor=processes", "executor.workers=2", "executor.threads=1"], tmp_path / "workers")
    local, workers = (json_lines(tmp_path / name / "ledger.jsonl") for name in ("local", "workers"))
    assert [line["scores"] for line in local] == [line["scores"] for line in workers]
    cards = [(tmp_path / name / "winner" / "README.md").read_text() for name in ("local", "workers")]
    assert all("left out as padding, for no prompt, template or setting names it" in card for card in cards)
    recipes = [json.loads((tmp_path / name / "recipe.json").read_text()) for name in ("local", "workers")]
    assert [recipe["tokenizer"] for recipe in recipes] == ["base", "base"]
