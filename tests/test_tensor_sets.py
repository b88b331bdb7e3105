"""Sources that hold other tensors than one another: names, ties, buffers, types, and the base they come from."""

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from evohydra.families import Rules
from evohydra.families.causal_lm import CausalLM
from evohydra.families.declared import Source, checkpoints
from evohydra.families.in_place import check_all_used
from evohydra.families.sources import OpenSources, open_sources
from evohydra.merging.checkpoints import SourceError
from evohydra.merging.engine import Engine
from evohydra.merging.finding import ZOO
from evohydra.merging.relatedness import check_kinship
from evohydra.recipe import Group, Merge
from evohydra.winner.checkpoint_files import write_weights
from evohydra.winner.remaking import rebuild
from tests.commands import carried_out, workspace
from tests.tiny_models import config, save_model, save_trio

FAMILY = CausalLM()
CPU = torch.device("cpu")
EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"
Change = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]


def store(directory: Path, change: Change, **config: object) -> None:
    """Change a model on disk."""
    file = directory / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in change(load_file(file)).items()}
    file.unlink()
    save_file(tensors, file, metadata={"format": "pt"})
    settings = directory / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | config))


def opened(root: Path, rules: Rules = Rules(), *, base: bool = True) -> OpenSources:  # noqa: B008  (it is frozen)
    sources = {
        name: Source(str(root / name), "-", base=str(root / "base") if base else None) for name in ("one", "two")
    }
    return open_sources(*checkpoints(sources, rules), FAMILY, rules)


def average(sources: OpenSources) -> Merge:
    places = FAMILY.locations(Path("-"), tuple(sources.tensors["one"].shapes), sources.copied)
    group = Group("all", tuple(name for name, place in places.items() if place), {"weight": (0.5, 0.5)})
    return Merge("linear", sources.base, sources.models, (group,))


def merged(sources: OpenSources, root: Path) -> dict[str, torch.Tensor]:
    """The average on disk, which must equal the live model."""
    engine = Engine(sources.tensors, device=CPU)
    directory = sources.directories[sources.files_from]
    live = FAMILY.live_model(directory, CPU, torch.float32, sources.overlay)
    engine.merge_into(average(sources), live.parameters)
    root.mkdir()
    write_weights(average(sources), engine, root, torch.float32, 10**9)
    FAMILY.copy_files(directory, root, torch.float32, sources.overlay)
    assert FAMILY.verify(root, live).same_bits
    return load_file(root / "model.safetensors")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save_trio(tmp_path)
    return tmp_path


@pytest.fixture
def tied(tmp_path: Path) -> Path:
    save_trio(tmp_path, tie_word_embeddings=True)
    return tmp_path


def without_prefix(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("bare", [["two"], ["one"], ["base"], ["one", "base"], ["one", "two", "base"]])
def test_names_with_and_without_the_prefix_are_matched(root: Path, bare: list[str]) -> None:
    expected = merged(opened(root), root / "expected")
    for name in bare:
        store(root / name, without_prefix)
    got = merged(opened(root), root / "got")
    assert set(got) == set(without_prefix(expected) if "one" in bare else expected)
    for name, tensor in without_prefix(expected).items():
        assert torch.equal(without_prefix(got)[name], tensor)


def test_a_tied_head_that_is_stored_all_the_same_is_left_out(tied: Path) -> None:
    expected = merged(opened(tied), tied / "expected")
    assert HEAD not in expected
    store(tied / "two", lambda t: t | {HEAD: t[EMBEDDINGS]})
    got = merged(opened(tied), tied / "got")
    assert set(got) == set(expected)
    assert all(torch.equal(got[name], expected[name]) for name in got)


@pytest.mark.parametrize("untied", ["one", "two", "base"])
def test_a_tied_source_gives_its_embeddings_as_head_where_another_has_one(tied: Path, untied: str) -> None:
    before = {name: load_file(tied / name / "model.safetensors") for name in ("one", "two", "base")}
    head = before[untied][EMBEDDINGS] * 2 + 1
    store(tied / untied, lambda t: t | {HEAD: head}, tie_word_embeddings=False)
    got = merged(opened(tied), tied / "got")
    heads = {name: before[name][EMBEDDINGS] for name in before} | {untied: head}
    torch.testing.assert_close(got[HEAD], (heads["one"] + heads["two"]) / 2)
    torch.testing.assert_close(got[EMBEDDINGS], (before["one"][EMBEDDINGS] + before["two"][EMBEDDINGS]) / 2)
    assert json.loads((tied / "got" / "config.json").read_text())["tie_word_embeddings"] is False


def test_a_head_of_its_own_counts_even_where_the_configuration_ties_it(tied: Path) -> None:
    store(tied / "two", lambda t: t | {HEAD: t[EMBEDDINGS] + 1})
    got = merged(opened(tied), tied / "got")
    torch.testing.assert_close(got[HEAD], got[EMBEDDINGS] + 0.5)


def test_a_head_that_is_neither_stored_nor_tied_is_refused(root: Path) -> None:
    store(root / "two", lambda t: {name: tensor for name, tensor in t.items() if name != HEAD})
    with pytest.raises(SourceError, match=r"source 'two' at .*two: expected a head \(lm_head.weight\)"):
        opened(root)


BIASES = [f"model.layers.{layer}.self_attn.q_proj.bias" for layer in (0, 1)]


def with_biases(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return tensors | {name: torch.full((16,), 1.0 + i) for i, name in enumerate(BIASES)}


def test_tensors_that_only_some_sources_have_are_named(root: Path) -> None:
    store(root / "two", with_biases)
    with pytest.raises(
        SourceError, match=r"2 of 'two' are missing from 'one' and 'base': 'model.*0.self_attn.q_proj.b"
    ):
        opened(root)


def test_missing_tensors_come_from_the_base(root: Path) -> None:
    lost = "model.layers.0.mlp.up_proj.weight"
    store(root / "two", lambda t: {name: tensor for name, tensor in t.items() if name != lost})
    with pytest.raises(SourceError, match=r"1 of 'one' and 'base' are missing from 'two'"):
        opened(root)
    sources = opened(root, Rules(missing="base"))
    base, one = (load_file(root / name / "model.safetensors") for name in ("base", "one"))
    torch.testing.assert_close(merged(sources, root / "got")[lost], (one[lost] + base[lost]) / 2)
    assert sources.warnings == (f"1 tensors that source 'two' lacks are copied from the base: {lost!r}",)


def test_a_missing_head_comes_from_the_base_too(root: Path) -> None:
    store(root / "two", lambda t: {name: tensor for name, tensor in t.items() if name != HEAD})
    base, one = (load_file(root / name / "model.safetensors") for name in ("base", "one"))
    got = merged(opened(root, Rules(missing="base")), root / "got")
    torch.testing.assert_close(got[HEAD], (one[HEAD] + base[HEAD]) / 2)


def test_tensors_that_the_base_lacks_are_left_out_with_a_warning(root: Path) -> None:
    store(root / "two", with_biases)
    sources = opened(root, Rules(missing="base"))
    assert sources.files_from == "base"
    assert not set(BIASES) & set(merged(sources, root / "got"))
    assert "2 tensors of source 'two' are not in the base and left out" in sources.warnings[0]


def test_missing_tensors_need_a_base(root: Path) -> None:
    with pytest.raises(SourceError, match="missing=base, but the sources name no base"):
        opened(root, Rules(missing="base"), base=False)


def test_buffers_and_integers_are_copied_and_never_merged(root: Path) -> None:
    buffers = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
        "model.layers.0.self_attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool),
        "model.anything.position": torch.arange(5),
        "model.layers.1.mlp.mask": torch.tensor([True, False]),
    }
    for name in ("base", "one", "two"):
        store(root / name, lambda t: t | buffers)
    sources = opened(root)
    group = average(sources).groups[0]
    assert not set(buffers) & set(group.tensors)
    got = merged(sources, root / "got")
    for name, buffer in buffers.items():
        assert torch.equal(got[name], buffer)


def test_buffers_that_only_some_sources_hold_are_left_out(root: Path) -> None:
    expected = merged(opened(root), root / "expected")
    store(root / "two", lambda t: t | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    assert set(merged(opened(root), root / "got")) == set(expected)


def test_sources_of_different_types_and_in_shards_are_merged_in_float32(root: Path) -> None:
    tensors = {}
    for name, dtype in (("one", torch.bfloat16), ("two", torch.float16)):
        store(root / name, lambda t: {n: each.to(dtype) for n, each in t.items()})  # noqa: B023  (called at once)
        tensors[name] = load_file(root / name / "model.safetensors")
    halves = {f"part-{i}.safetensors": sorted(tensors["two"])[i::2] for i in (0, 1)}
    (root / "two" / "model.safetensors").unlink()
    for file, names in halves.items():
        save_file({name: tensors["two"][name] for name in names}, root / "two" / file, metadata={"format": "pt"})
    where = {name: file for file, names in halves.items() for name in names}
    (root / "two" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    got = merged(opened(root), root / "got")
    for name, tensor in got.items():
        torch.testing.assert_close(tensor, (tensors["one"][name].float() + tensors["two"][name].float()) / 2)


def test_quantised_checkpoints_are_refused(root: Path) -> None:
    store(root / "two", lambda t: t, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(SourceError, match="source 'two': expected weights in a floating-point type, got a quantised"):
        opened(root)


def test_a_source_of_another_base_is_refused_with_numbers(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_model(root / "two", 77)
    with pytest.raises(
        SourceError, match=r"source 'two' does not look like .* cosine .* is -?0\.\d+ \(expected at least"
    ):
        opened(root)
    with caplog.at_level(logging.WARNING):
        sources = opened(root, Rules(allow_other_base=True))
    assert len(sources.warnings) == 1
    assert sources.warnings[0] in caplog.text
    assert len(merged(sources, root / "got")) == 21


def test_tensors_that_the_model_has_not_are_told(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the family: whole layers are an error, for the winner would lack them without a word."""
    module = LlamaForCausalLM(config())
    known = list(module.state_dict())
    check_all_used(module, [*known, "model.layers.0.self_attn.rotary_emb.inv_freq"], known)
    assert not caplog.records
    check_all_used(module, [*known, "model.layers.0.mask", "extra.weight"], known)
    assert "2 tensors of the sources are no part of the model" in caplog.text
    deeper = [*known, "model.layers.2.mlp.up_proj.weight", "model.layers.12.mlp.up_proj.weight"]
    with pytest.raises(SourceError, match=r"2 tensors .*model\.layers\.12.*Configuration and weights do not belong"):
        check_all_used(module, deeper, known)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_no_angle_is_no_kinship(bad: float) -> None:
    shapes = {f"layers.{i}.weight": (4, 4) for i in range(3)}

    class Filled:
        def __init__(self, number: float) -> None:
            self.shapes, self._number = shapes, number

        def read(self, name: str) -> torch.Tensor:
            return torch.full((4, 4), self._number if name == "layers.1.weight" else 1.0)

    sources = {"one": Filled(bad), "base": Filled(1.0)}
    with pytest.raises(SourceError, match="'one' cannot be compared with the base: 1 of 3 matrices have no angle"):
        check_kinship(sources, "base", allow=False)
    assert check_kinship({"one": Filled(1.0), "base": Filled(1.0)}, "base", allow=False) == ()
    assert len(check_kinship(sources, "base", allow=True)) == 1


def test_a_named_disagreement_on_the_base_is_a_warning_where_it_is_allowed(root: Path) -> None:
    save_model(root / "other", 0)
    named = {name: Source(str(root / name), "-", base=str(root / b)) for name, b in (("one", "base"), ("two", "other"))}
    with pytest.raises(
        SourceError, match=r"disagree on their base model: one on .*base, two on .*other.*allow_other_base"
    ):
        checkpoints(named)
    assert checkpoints(named, Rules(allow_other_base=True))[1].path == str(root / "base")  # type: ignore[union-attr]


def test_a_base_is_one_whatever_its_path_is_called(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    (root / "link").symlink_to(root / "base")
    for paths in (("./base", str(root / "base")), ("base", "link"), ("zoo://base", str(ZOO / "base"))):
        named = {str(number): Source("one", "-", base=path) for number, path in enumerate(paths)}
        assert checkpoints(named)[1].path == paths[0]  # type: ignore[union-attr]
    for other in ("owner/base", "two", "zoo://tiny_ja"):
        with pytest.raises(SourceError, match="disagree on their base model"):
            checkpoints({"1": Source("one", "-", base="./base"), "2": Source("one", "-", base=other)})


def test_warnings_reach_the_model_card_and_the_recipe_which_can_be_rebuilt(tmp_path: Path) -> None:
    arguments = [*workspace(tmp_path), "baselines=null", "budget=6", "allow_other_base=true", "missing=base"]
    store(tmp_path / "two", with_biases)
    save_model(tmp_path / "other", 0)
    carried_out([*arguments, f"model.sources.two.base={tmp_path / 'other'}"], tmp_path / "run")
    card = (tmp_path / "run" / "winner" / "README.md").read_text()
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert "## Warnings" in card
    assert len(recipe["warnings"]) == 2
    for warning, words in zip(recipe["warnings"], ("disagree on their base model", "left out"), strict=True):
        assert words in warning
        assert warning in card
    written, promised = rebuild(recipe, tmp_path / "again", {}, CPU)
    assert written == promised


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("missing", "skip"),
        ("tokenizer", 3),
        ("pad_vocabulary_to", 0),
        ("pad_vocabulary_to", "8"),
        ("allow_other_base", 1),
    ],
)
def test_rules_that_make_no_sense_are_refused(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{key}: expected .* got {value!r}"):
        Rules(**{key: value})  # type: ignore[arg-type]
