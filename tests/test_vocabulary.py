"""Sources whose tokens are numbered differently, added or altogether others: every token keeps its row."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from evohydra.families import Rules
from evohydra.families.declared import Source, checkpoints
from evohydra.families.sources import OpenSources, open_sources
from evohydra.merging.checkpoints import SourceError
from evohydra.winner.remaking import rebuild
from tests import tiny_models
from tests.commands import built, carried_out, workspace
from tests.test_tensor_sets import CPU, EMBEDDINGS, FAMILY, HEAD, merged

TEXTS = {
    "base": ["the cat sat on the mat", "a bat and a rat", "the fat cat ate the rat"] * 3,
    "one": ["der hund lief über die brücke", "die katze und der hund"] * 3,
    "two": ["le chien et le chat", "une maison près du château"] * 3,
}


def words(texts: list[str]) -> Tokenizer:
    found = dict.fromkeys(word for text in texts for word in text.split())
    backend = Tokenizer(models.WordLevel({"<unk>": 0, **{w: i + 1 for i, w in enumerate(found)}}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return backend


def bpe(texts: list[str]) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet))
    return backend


def unigram(texts: list[str]) -> Tokenizer:
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=60, unk_token="<unk>", special_tokens=["<unk>"])
    backend.train_from_iterator(texts, trainer)
    return backend


def wordpiece(texts: list[str]) -> Tokenizer:
    backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    backend.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=60, special_tokens=["<unk>"]))
    return backend


KINDS = {"WordLevel": words, "BPE": bpe, "Unigram": unigram, "WordPiece": wordpiece}


def finished(backend: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", pad_token="<end>")


def save(directory: Path, seed: int, tokenizer: PreTrainedTokenizerFast, *, spare: int = 0, **changes: object) -> None:
    """A random model with a row for each token, and spare rows behind them."""
    end = tokenizer.eos_token_id
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        size = len(tokenizer) + spare
        model = LlamaForCausalLM(tiny_models.config(vocab_size=size, pad_token_id=end, eos_token_id=end, **changes))
    model.generation_config = transformers.GenerationConfig(pad_token_id=end, eos_token_id=end)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def opened(root: Path, **rules: Any) -> OpenSources:
    chosen = Rules(**rules, allow_other_base=True)
    sources = {name: Source(str(root / name), "-", base=str(root / "base")) for name in ("one", "two")}
    return open_sources(*checkpoints(sources, chosen), FAMILY, chosen)


def row(root: Path, name: str, token: str, tensor: str = EMBEDDINGS) -> torch.Tensor | None:
    """The row that a source on disk has for a token; None where it has none."""
    at = transformers.AutoTokenizer.from_pretrained(root / name).get_vocab().get(token)
    rows = load_file(root / name / "model.safetensors")[tensor]
    return rows[at] if at is not None and at < len(rows) else None


def expected_rows(root: Path, token: str, tensor: str) -> dict[str, torch.Tensor]:
    """By the rule, from the files alone: a row of its own, else the base's, else the mean of those who have it."""
    rows = {name: row(root, name, token, tensor) for name in ("one", "two", "base")}
    there = [each for each in rows.values() if each is not None]
    fallback = rows["base"] if rows["base"] is not None else torch.stack(there).mean(0)
    return {name: each if each is not None else fallback for name, each in rows.items()}


def check_rows(root: Path, sources: OpenSources, vocabulary: Mapping[str, int]) -> None:
    for tensor in (EMBEDDINGS, HEAD):
        read = {name: each.read(tensor) for name, each in sources.tensors.items()}
        for token in random.Random(1).sample(sorted(vocabulary), min(60, len(vocabulary))):
            for name, wanted in expected_rows(root, token, tensor).items():
                torch.testing.assert_close(read[name][vocabulary[token]], wanted, msg=f"{token!r} of {name}")


@pytest.fixture(params=KINDS)
def different(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Three models of three vocabularies; two of them have added tokens of their own."""
    for seed, (name, texts) in enumerate(TEXTS.items()):
        tokenizer = finished(KINDS[request.param](texts))
        if name == "one":
            tokenizer.add_tokens(
                [AddedToken("<|one|>", special=True, lstrip=True), AddedToken("zwei", single_word=True)]
            )
        if name == "two":
            tokenizer.add_tokens([AddedToken("<|two|>", special=True)])
        save(tmp_path / name, seed, tokenizer)
    return tmp_path


def shuffled(seed: int) -> list[str]:
    return ["<pad>", "<eos>", *random.Random(seed).sample(tiny_models.CHARACTERS[2:], len(tiny_models.CHARACTERS) - 2)]


@pytest.mark.parametrize("tokenizer", ["base", "one", "two", "union"])
def test_shuffled_vocabularies_give_the_merge_of_the_unshuffled(tokenizer: str, tmp_path: Path) -> None:
    tiny_models.save_trio(tmp_path / "plain")
    expected = merged(opened(tmp_path / "plain"), tmp_path / "expected")
    orders = {"base": shuffled(1), "one": shuffled(2), "two": shuffled(3)}
    at = {token: index for index, token in enumerate(tiny_models.CHARACTERS)}
    for name, order in orders.items():
        model = LlamaForCausalLM.from_pretrained(tmp_path / "plain" / name)
        with torch.no_grad():
            for matrix in (model.model.embed_tokens.weight, model.lm_head.weight):
                matrix.copy_(matrix[[at[token] for token in order]].clone())
        model.save_pretrained(tmp_path / name)
        tiny_models.tokenizer(order).save_pretrained(tmp_path / name)
    with pytest.raises(SourceError, match="'one' and 'two' have different tokenizers"):
        opened(tmp_path)
    got = merged(opened(tmp_path, tokenizer=tokenizer), tmp_path / "got")
    after = transformers.AutoTokenizer.from_pretrained(tmp_path / "got")
    assert after.get_vocab() == {t: i for i, t in enumerate(orders["base" if tokenizer == "union" else tokenizer])}
    back = [after.get_vocab()[token] for token in tiny_models.CHARACTERS]
    for name, tensor in expected.items():
        assert torch.equal(got[name][back] if name in (EMBEDDINGS, HEAD) else got[name], tensor), name


@pytest.mark.parametrize("tokenizer", ["base", "one", "two"])
def test_the_merge_has_the_tokenizer_of_a_source_and_its_rows_by_token(different: Path, tokenizer: str) -> None:
    sources = opened(different, tokenizer=tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(different / tokenizer)
    check_rows(different, sources, theirs.get_vocab())
    got = merged(sources, different / "got")
    ours = transformers.AutoTokenizer.from_pretrained(different / "got")
    assert ours.get_vocab() == theirs.get_vocab()
    assert len(got[EMBEDDINGS]) == len(got[HEAD]) == len(theirs)
    for texts in TEXTS.values():
        assert ours(texts)["input_ids"] == theirs(texts)["input_ids"]
    config = json.loads((different / "got" / "config.json").read_text())
    assert config["vocab_size"] == len(theirs)
    assert config["eos_token_id"] == ours.eos_token_id
    generation = json.loads((different / "got" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == ours.eos_token_id


def test_the_union_has_every_token_and_its_rows(different: Path) -> None:
    sources = opened(different, tokenizer="union")
    merged(sources, different / "got")
    ours = transformers.AutoTokenizer.from_pretrained(different / "got")
    theirs = {name: transformers.AutoTokenizer.from_pretrained(different / name) for name in TEXTS}
    assert set(ours.get_vocab()) == set().union(*(each.get_vocab() for each in theirs.values()))
    assert sorted(ours.get_vocab().values()) == list(range(len(ours)))
    assert theirs["base"].get_vocab().items() <= ours.get_vocab().items()
    check_rows(different, sources, ours.get_vocab())
    # Added tokens keep their properties, and are still found in a text.
    properties = {info.content: info for info in ours.added_tokens_decoder.values()}
    for name, token in (("one", "<|one|>"), ("one", "zwei"), ("two", "<|two|>")):
        before = next(i for i in theirs[name].added_tokens_decoder.values() if i.content == token)
        assert str(properties[token]) == str(before), token
        assert ours.get_vocab()[token] in ours(f"the cat {token} sat")["input_ids"]
    assert set(properties) == {"<end>", "<|one|>", "zwei", "<|two|>", *(["<unk>"] if "<unk>" in properties else [])}
    # A text of any source is spelled with tokens that give it back.
    for texts in TEXTS.values():
        for text in texts:
            ids = ours(text)["input_ids"]
            assert "<unk>" not in ours.convert_ids_to_tokens(ids)
            assert ours.decode(ids) == text
    for name in ("one", "two"):  # and tokens that only this source had are used
        used = {token for text in TEXTS[name] for token in ours.tokenize(text)}
        assert used - set(theirs["base"].get_vocab())
    assert ours.eos_token == "<end>"


def test_added_tokens_behind_the_bases_last_are_cut_or_kept(tmp_path: Path) -> None:
    plain, longer = tiny_models.tokenizer(), tiny_models.tokenizer()
    longer.add_tokens(["<|user|>"], special_tokens=True)
    for name, seed, tokenizer in (("base", 0, plain), ("one", 1, longer), ("two", 2, plain)):
        save(tmp_path / name, seed, tokenizer)
    with pytest.raises(SourceError, match=r"different sizes: .*'one': 48.*tokenizer=base leaves out"):
        opened(tmp_path)
    cut = opened(tmp_path, tokenizer="base")
    one = load_file(tmp_path / "one" / "model.safetensors")
    assert torch.equal(cut.tensors["one"].read(HEAD), one[HEAD][:-1])
    for tokenizer in ("union", "one"):
        kept = opened(tmp_path, tokenizer=tokenizer)
        for name in ("one", "two", "base"):  # no base has it, only this one source
            assert torch.equal(kept.tensors[name].read(HEAD)[-1], one[HEAD][-1])
    merged(opened(tmp_path, tokenizer="union"), tmp_path / "got")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "got")("a<|user|>")["input_ids"][-1] == 47


def test_rows_without_a_token_are_the_sources_own_then_the_owners_then_their_mean(tmp_path: Path) -> None:
    tokenizer = tiny_models.tokenizer()
    for name, seed, spare in (("base", 0, 4), ("one", 1, 0), ("two", 2, 2)):
        save(tmp_path / name, seed, tokenizer, spare=spare)
    files = {name: load_file(tmp_path / name / "model.safetensors") for name in ("base", "one", "two")}
    sources = opened(tmp_path, tokenizer="base", pad_vocabulary_to=8)
    rows = {name: each.read(EMBEDDINGS) for name, each in sources.tensors.items()}
    assert {len(each) for each in rows.values()} == {56}
    assert torch.equal(rows["base"][:51], files["base"][EMBEDDINGS])
    assert torch.equal(rows["one"][:47], files["one"][EMBEDDINGS])
    assert torch.equal(rows["one"][47:51], files["base"][EMBEDDINGS][47:51])
    assert torch.equal(rows["two"][:49], files["two"][EMBEDDINGS])
    assert torch.equal(rows["two"][49:51], files["base"][EMBEDDINGS][49:51])
    for each in rows.values():
        assert torch.equal(each[51:], each[:47].mean(dim=0).expand(5, -1))
    of_two = opened(tmp_path, tokenizer="two").tensors
    assert torch.equal(of_two["one"].read(EMBEDDINGS)[47:], files["two"][EMBEDDINGS][47:49])
    assert torch.equal(of_two["base"].read(EMBEDDINGS), files["base"][EMBEDDINGS][:49])
    got = merged(sources, tmp_path / "got")
    assert json.loads((tmp_path / "got" / "config.json").read_text())["vocab_size"] == len(got[HEAD]) == 56


def test_padding_goes_with_the_same_tokenizer_too(tmp_path: Path) -> None:
    tiny_models.save_trio(tmp_path)
    got = merged(opened(tmp_path, pad_vocabulary_to=16), tmp_path / "got")
    plain = merged(opened(tmp_path), tmp_path / "plain")
    assert len(got[HEAD]) == 48
    assert torch.equal(got[HEAD][:47], plain[HEAD])
    torch.testing.assert_close(got[HEAD][47], got[HEAD][:47].mean(dim=0), rtol=1e-5, atol=1e-7)
    assert got[HEAD][47].any()


def test_tied_models_have_one_matrix_of_rows(tmp_path: Path) -> None:
    for seed, (name, texts) in enumerate(TEXTS.items()):
        save(tmp_path / name, seed, finished(bpe(texts)), tie_word_embeddings=True)
    got = merged(opened(tmp_path, tokenizer="union"), tmp_path / "got")
    assert HEAD not in got
    assert len(got[EMBEDDINGS]) == len(transformers.AutoTokenizer.from_pretrained(tmp_path / "got"))


def test_means_are_of_those_who_have_the_token_whatever_their_type(tmp_path: Path) -> None:
    plain, longer = tiny_models.tokenizer(), tiny_models.tokenizer()
    longer.add_tokens(["<|user|>"])
    for name, seed, tokenizer in (("base", 0, plain), ("one", 1, longer), ("two", 2, longer)):
        save(tmp_path / name, seed, tokenizer)
    half = LlamaForCausalLM.from_pretrained(tmp_path / "two", dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "two")
    sources = opened(tmp_path, tokenizer="union")
    one, two = (sources.tensors[name].read(EMBEDDINGS) for name in ("one", "two"))
    assert (one.dtype, two.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(sources.tensors["base"].read(EMBEDDINGS)[47], (one[47] + two[47].float()) / 2)


@pytest.mark.parametrize(
    ("kind", "other", "tokenizer", "message"),
    [
        ("BPE", "Unigram", "union", r"\['two'\].* spell them as bytes|tokens cannot be matched by their strings"),
        ("BPE", "Unigram", "base", "tokens cannot be matched by their strings"),
        ("WordLevel", "WordPiece", "union", "tokenizer=union needs tokenizers of one kind, got .*'two': 'WordPiece'"),
    ],
)
def test_tokenizers_that_cannot_be_compared(
    kind: str, other: str, tokenizer: str, message: str, tmp_path: Path
) -> None:
    for seed, (name, texts) in enumerate(TEXTS.items()):
        save(tmp_path / name, seed, finished(KINDS[other if name == "two" else kind](texts)))
    with pytest.raises(SourceError, match=message):
        opened(tmp_path, tokenizer=tokenizer)


def test_an_unknown_source_as_tokenizer(tmp_path: Path) -> None:
    tiny_models.save_trio(tmp_path)
    with pytest.raises(SourceError, match=r"one of the sources \['one', 'two'\], got 'three'"):
        opened(tmp_path, tokenizer="three")
    with pytest.raises(SourceError, match="missing=base gives the merge the base's configuration, and tokenizer=one"):
        opened(tmp_path, tokenizer="one", missing="base")


@pytest.mark.parametrize("tokenizer", ["union", "one", "base"])
def test_a_run_and_its_rebuilding_from_the_recipe_alone(tokenizer: str, tmp_path: Path) -> None:
    arguments = [*workspace(tmp_path), "baselines=null", "budget=6", "pad_vocabulary_to=4", f"tokenizer={tokenizer}"]
    orders = {"base": shuffled(1), "one": [*shuffled(2), "ö"], "two": [*shuffled(3), "ü", "ß"]}
    for seed, (name, order) in enumerate(orders.items()):
        save(tmp_path / name, seed, tiny_models.tokenizer(order))
    carried_out([*arguments, "allow_other_base=true"], tmp_path / "run")
    recipe = json.loads((tmp_path / "run" / "winner" / "recipe.json").read_text())
    assert (recipe["tokenizer"], recipe["pad_vocabulary_to"]) == (tokenizer, 4)
    written, promised = rebuild(recipe, tmp_path / "again", {}, CPU)
    assert written == promised
    winner, again = (tmp_path / "run" / "winner", tmp_path / "again")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (winner / name).read_text() == (again / name).read_text()
    model = LlamaForCausalLM.from_pretrained(winner)
    size = {"union": 52, "one": 48, "base": 48}[tokenizer]
    assert model.config.vocab_size == model.lm_head.out_features == size
    assert (tmp_path / "run" / "ledger.jsonl").is_file()


def test_a_different_tokenizer_is_refused_before_anything_is_evaluated(tmp_path: Path) -> None:
    arguments = workspace(tmp_path)
    tiny_models.save_model(tmp_path / "two", 2, base=tmp_path / "base", characters=shuffled(5))
    with pytest.raises(SourceError, match="tokenizer=base, union or the name of a source"):
        built(arguments, tmp_path / "run")
    assert not (tmp_path / "run").exists()
