"""Sources whose layers are computed with other settings: refused, or chosen, and each scored as it was published."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from evohydra.families import Aligned, Rules
from evohydra.families.causal_lm import CausalLM, LiveCausalLM
from evohydra.families.sources import OpenSources, open_sources
from evohydra.merging.checkpoints import CheckpointReader, SourceError
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Node
from evohydra.searching.scores import content
from evohydra.spaces.parameter import uniform_merge
from tests import tiny_models

FAMILY = CausalLM()
CPU = torch.device("cpu")
TOKENS = torch.arange(3, 33).reshape(1, 30)
# Other settings over the same shapes.
CHANGES: dict[str, dict[str, Any]] = {
    "rope_theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
    "rope_type": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
    "hidden_act": {"hidden_act": "gelu"},
    "rms_norm_eps": {"rms_norm_eps": 0.5},
    "num_attention_heads": {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 4},
}


def with_settings(model: Path, target: Path, changes: dict[str, Any]) -> Path:
    target.mkdir()
    for file in model.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    config = json.loads((model / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, **changes}))
    return target


def aligned(*directories: Path, **rules: Any) -> Aligned:
    named = dict(zip(("one", "two"), directories, strict=True))
    tensors = {name: CheckpointReader(path) for name, path in named.items()}
    return FAMILY.align(named, tensors, None, Rules(**rules))


def opened(one: Path, two: Path, base: Path | None = None, **rules: Any) -> OpenSources:
    models = (Checkpoint("one", str(one)), Checkpoint("two", str(two)))
    return open_sources(models, Checkpoint("base", str(base)) if base else None, FAMILY, Rules(**rules))


def live_of(sources: OpenSources) -> tuple[LiveCausalLM, Engine]:
    live = FAMILY.live_model(sources.directories[sources.files_from], CPU, torch.float32, sources.overlay)
    return live, Engine(sources.tensors, device=CPU, dtype=torch.float32, compile_kernels=False, cache_bytes=0)


def published(directory: Path) -> torch.Tensor:
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(TOKENS).logits  # type: ignore[no-any-return]


def logits(live: LiveCausalLM, engine: Engine, node: Node) -> torch.Tensor:
    live.become(node, engine)
    with torch.no_grad():
        return live.module(TOKENS).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("key", CHANGES)
def test_settings_that_differ_are_refused_with_their_values(key: str, trio: tuple[Path, ...], tmp_path: Path) -> None:
    _, one, two = trio
    aligned(one, two)
    other = with_settings(two, tmp_path / "other", CHANGES[key])
    with pytest.raises(SourceError, match=rf"'two' has .*{key} .* where 'one' has .*config=base.*config=allow"):
        aligned(one, other)


@pytest.mark.parametrize("key", CHANGES)
def test_each_source_is_scored_as_it_was_published(key: str, trio: tuple[Path, ...], tmp_path: Path) -> None:
    """And merges between them under the configuration that was chosen, whatever was scored before."""
    _, one, two = trio
    other = with_settings(two, tmp_path / "other", CHANGES[key])
    sources = opened(one, other, config="allow")
    live, engine = live_of(sources)
    first, second = sources.models
    merge = uniform_merge(sources.models, None, FAMILY.locations(one, tuple(sources.tensors["one"].shapes)))
    before = logits(live, engine, merge)
    for _ in range(2):
        torch.testing.assert_close(logits(live, engine, first), published(one), rtol=1e-5, atol=2e-6)
        torch.testing.assert_close(logits(live, engine, second), published(other), rtol=1e-5, atol=2e-6)
        assert torch.equal(logits(live, engine, merge), before)
    assert (published(other) - published(two)).abs().max() > 5e-5  # the setting matters
    assert any("scored with its own" in warning and key in warning for warning in sources.warnings)


@pytest.mark.parametrize("chosen", ["base", "two"])
def test_the_chosen_configuration_is_the_merges(chosen: str, trio: tuple[Path, ...], tmp_path: Path) -> None:
    base, one, two = trio
    changes = {**CHANGES["rms_norm_eps"], **CHANGES["hidden_act"]}
    places = {
        "one": one, "two": with_settings(two, tmp_path / "two", CHANGES["rms_norm_eps"]),
        "base": with_settings(base, tmp_path / "base", changes),
    }  # fmt: skip
    sources = opened(places["one"], places["two"], places["base"], config=chosen)
    assert sources.files_from == chosen
    (tmp_path / "out").mkdir()
    FAMILY.copy_files(places[chosen], tmp_path / "out", torch.float32, sources.overlay)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["rms_norm_eps"] == 0.5
    assert written["hidden_act"] == ("gelu" if chosen == "base" else "silu")


def test_a_configuration_and_a_tokenizer_of_two_sources(trio: tuple[Path, ...], tmp_path: Path) -> None:
    """The tokenizer's numbers of special tokens come with it."""
    base, one, _ = trio
    tokens = ["<eos>", "<pad>", *tiny_models.CHARACTERS[2:], "!"]
    ids = {"vocab_size": len(tokens), "eos_token_id": 0, "pad_token_id": 1}
    other = tiny_models.save_model(tmp_path / "two", 2, characters=tokens, **ids)
    sources = opened(one, with_settings(other, tmp_path / "other", {"rms_norm_eps": 0.5}), base, config="base",
                     tokenizer="two", allow_other_base=True)  # fmt: skip
    (tmp_path / "out").mkdir()
    FAMILY.copy_files(base, tmp_path / "out", torch.float32, sources.overlay)
    written = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    assert (written.rms_norm_eps, written.vocab_size) == (1e-6, len(tiny_models.CHARACTERS) + 1)
    assert (written.eos_token_id, written.pad_token_id) == (0, 1)
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == 0
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab()["!"] == len(tiny_models.CHARACTERS)
    live, _ = live_of(sources)
    assert live.module.generation_config.eos_token_id == 0  # type: ignore[union-attr]


def test_the_longest_text_is_no_reason_to_refuse_but_is_said(trio: tuple[Path, ...], tmp_path: Path) -> None:
    _, one, two = trio
    longer = with_settings(two, tmp_path / "longer", {"max_position_embeddings": 128})
    sources = opened(one, longer)
    assert any("max_position_embeddings 128 where 'one' has 64" in warning for warning in sources.warnings)
    live, engine = live_of(sources)
    for node, length in zip(sources.models, (64, 128), strict=True):
        live.become(node, engine)
        assert live.module.config.max_position_embeddings == length  # type: ignore[union-attr]


def test_a_length_that_rotary_angles_depend_on_is_refused(trio: tuple[Path, ...], tmp_path: Path) -> None:
    yarn = {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}}
    one = with_settings(trio[1], tmp_path / "one", yarn)
    two = with_settings(trio[2], tmp_path / "two", {**yarn, "max_position_embeddings": 128})
    with pytest.raises(SourceError, match="'two' has max_position_embeddings 128 where 'one' has 64"):
        aligned(one, two)


def test_what_changes_no_number_may_differ(trio: tuple[Path, ...], tmp_path: Path, caplog: Any) -> None:
    harmless = {
        "hidden_act": "swish", "use_cache": False, "eos_token_id": [1, 2], "initializer_range": 0.5,
        "attention_dropout": 0.1, "_name_or_path": "x", "something_of_a_trainer": 3,
    }  # fmt: skip
    with caplog.at_level(logging.WARNING):
        found = aligned(trio[1], with_settings(trio[2], tmp_path / "other", harmless))
    assert not found.left_out
    assert not found.overlay.own


def test_equal_weights_under_another_configuration_are_another_model(trio: tuple[Path, ...], tmp_path: Path) -> None:
    same = with_settings(trio[1], tmp_path / "same", CHANGES["rms_norm_eps"])
    first, second = opened(trio[1], same, config="allow").models
    assert first.fingerprint == second.fingerprint
    assert content(first) != content(second)
    places = FAMILY.locations(trio[1], tuple(CheckpointReader(trio[1]).shapes))
    assert content(uniform_merge((first,), None, places)) == content(first)
    assert content(uniform_merge((second,), None, places)) != content(second)


def test_unknown_choices_are_errors_with_the_known_ones(trio: tuple[Path, ...]) -> None:
    with pytest.raises(
        SourceError, match=r"config: expected one of \['allow', 'base', 'one', 'same', 'two'\].*'three'"
    ):
        opened(trio[1], trio[2], trio[0], config="three")
    with pytest.raises(SourceError, match="config=base, but the sources name no base"):
        opened(trio[1], trio[2], config="base")


def test_a_source_on_paths_with_other_heads_is_scored_with_its_own(tmp_path: Path) -> None:
    """GPT-2 has no rotary angles that would fix the size of a head: shapes do not tell."""
    directories = {}
    for seed, (name, heads) in enumerate({"one": 2, "two": 4}.items()):
        torch.manual_seed(seed)
        config = transformers.GPT2Config(vocab_size=42, n_embd=16, n_layer=2, n_head=heads, n_positions=64)
        transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / name)
        tiny_models.tokenizer().save_pretrained(tmp_path / name)
        directories[name] = tmp_path / name
    models = tuple(Checkpoint(name, str(path)) for name, path in directories.items())
    sources = open_sources(models, None, FAMILY, layers_only="one")
    live = FAMILY.live_model(directories["one"], CPU, torch.float32, sources.overlay, sources=directories)
    engine = Engine(sources.tensors, device=CPU, dtype=torch.float32, compile_kernels=False, cache_bytes=0)
    for node in sources.models:
        torch.testing.assert_close(logits(live, engine, node), published(directories[node.name]), rtol=1e-5, atol=2e-6)
