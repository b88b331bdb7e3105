"""Vision-language models in whole runs, other names and settings of theirs, and sources that do not fit."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from evohydra.families import Aligned, Rules
from evohydra.families.declared import Source, common_family
from evohydra.families.vision_language import VisionLanguage
from evohydra.merging.checkpoints import CheckpointReader, SourceError
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Group, Hop, Merge, Stack, from_dict
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.winner.checkpoint_files import write_weights
from tests import tiny_models, tiny_vlms
from tests.commands import built, carried_out, python
from tests.contracts.test_vision_language import picture

FAMILY = VisionLanguage()
CPU = torch.device("cpu")
OURS, PLAIN = "evohydra.families.vision_language.VisionLanguage", "evohydra.families.causal_lm.CausalLM"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA, a Llama that it descends from, and another Llama; not to be written to."""
    root = tmp_path_factory.mktemp("llava")
    tiny_vlms.save_vlm(root / "vlm", "llava")
    tiny_vlms.save_language_model(root / "lm", "llama")
    tiny_vlms.save_language_model(root / "base", "llama", seed=3)
    tiny_models.save_task(root / "task")
    return root


def align(directories: Mapping[str, Path], rules: Rules | None = None, base: str | None = None) -> Aligned:
    readers = {name: CheckpointReader(path) for name, path in directories.items()}
    return FAMILY.align(directories, readers, base, rules or Rules())


def align_layers(directories: Mapping[str, Path], first: str = "vlm") -> Aligned:
    readers = {name: CheckpointReader(path) for name, path in directories.items()}
    return FAMILY.align_layers(directories, readers, first, Rules())


def arguments(root: Path, target: Path, merge: str, *more: str) -> list[str]:
    sources = {"lm": PLAIN, "vlm": OURS}  # the VLM comes second
    group = target / "conf" / "model"
    group.mkdir(parents=True)
    for name, family in sources.items():
        lines = [f"# @package model.sources.{name}", f"family: {family}", f"path: {root / name}",
                 "licence: apache-2.0"]  # fmt: skip
        (group / f"my_{name}.yaml").write_text("\n".join(lines) + "\n")
    return [
        "model=my_lm+my_vlm", f"hydra.searchpath=[file://{target / 'conf'}]", f"merge={merge}", "benchmark=lm_eval",
        "benchmark.lm_eval.task=sums", f"benchmark.lm_eval.include_path={root / 'task'}",
        "benchmark.lm_eval.metric=closeness", "tracker=none", "threads=1", "optimizer.population=4", "budget=8",
        "top=1", "batch_size=64", *more,
    ]  # fmt: skip


def check_winner(run: Path, target: Path) -> Any:
    """It loads as its own class, answers about a picture, and is made again from its recipe, bit for bit."""
    loaded = transformers.AutoModelForImageTextToText.from_pretrained(run / "winner").eval()
    assert isinstance(loaded, transformers.LlavaForConditionalGeneration)
    assert isinstance(transformers.AutoProcessor.from_pretrained(run / "winner"), transformers.LlavaProcessor)
    with torch.inference_mode():
        assert loaded(**picture("llava", loaded)).logits.isfinite().all()
    assert not (run / "winner" / "mergekit.yaml").exists()
    assert "mergekit has no words" in (run / "winner" / "README.md").read_text()
    done = python("-m", "evohydra.rebuild", run / "recipe.json", target / "again", cwd=target)
    assert "identical, bit for bit" in done.stdout, done.stderr
    return loaded


def test_a_merge_is_searched_with_texts_written_and_made_again(root: Path, tmp_path: Path) -> None:
    bases = [f"+model.sources.{name}.base={root / 'base'}" for name in ("lm", "vlm")]
    given = arguments(root, tmp_path, "task_arithmetic", *bases, "allow_other_base=true")
    summary = carried_out(given, tmp_path / "run")
    assert summary["evaluations"] == 8
    check_winner(tmp_path / "run", tmp_path)


def test_a_path_is_searched_with_texts_written_and_made_again(root: Path, tmp_path: Path) -> None:
    given = arguments(root, tmp_path, "dfs", "merge.dataflow.first=vlm", "merge.dataflow.repeats=2")
    carried_out(given, tmp_path / "run")
    found = from_dict(json.loads((tmp_path / "run" / "recipe.json").read_text())["recipe"])
    assert isinstance(found, Stack)
    assert found.sources[0] == replace(Checkpoint("vlm", str(root / "vlm")), fingerprint=found.sources[0].fingerprint)
    loaded = check_winner(tmp_path / "run", tmp_path)
    assert len(loaded.model.language_model.layers) == len(found.hops)


def test_a_hybrid_is_searched_with_texts_written_and_made_again(root: Path, tmp_path: Path) -> None:
    carried_out(arguments(root, tmp_path, "linear+dfs", "merge.dataflow.repeats=2"), tmp_path / "run")
    check_winner(tmp_path / "run", tmp_path)


def test_a_benchmark_of_other_families_is_refused(root: Path, tmp_path: Path) -> None:
    given = [a for a in arguments(root, tmp_path, "linear") if not a.startswith("benchmark")]
    given += ["benchmark=fussy", "benchmark.fussy.families=[sdxl]"]
    (tmp_path / "conf" / "benchmark").mkdir()
    (tmp_path / "conf" / "benchmark" / "fussy.yaml").write_text(
        "# @package benchmark.fussy\n_target_: tests.fakes.fussy\n_partial_: true\nfamilies: [causal_lm]\nrefuses: ''\n"
    )
    with pytest.raises(BenchmarkError, match=r"\['sdxl'\], the sources are of the family 'vision_language'"):
        built(given, tmp_path / "run")


def test_the_family_of_a_vlm_takes_language_models() -> None:
    vlm, lm, other = Source("a", OURS), Source("b", PLAIN), Source("c", "elsewhere.Family")
    assert common_family({"lm": lm, "vlm": vlm}) == common_family({"vlm": vlm, "lm": lm}) == OURS
    assert common_family({"lm": lm, "too": lm}) == PLAIN
    for sources in ({"lm": lm, "other": other}, {"vlm": vlm, "lm": lm, "other": other}):
        with pytest.raises(SourceError, match="different families cannot be merged"):
            common_family(sources)


@pytest.mark.parametrize("architecture", ["llava", "llava_next"])
def test_names_of_newer_releases_are_kept(architecture: str, tmp_path: Path) -> None:
    """transformers writes language_model.model.layers.0... where it has read these, and the other where it has not."""
    tiny_vlms.save_vlm(tmp_path / "old", architecture)
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    lm = tiny_vlms.save_language_model(tmp_path / "lm", tiny_vlms.LANGUAGE[architecture])
    tensors = {}
    for name, tensor in load_file(tmp_path / "old" / "model.safetensors").items():
        if name.startswith("language_model.model."):
            tensors[name.replace("language_model.model.", "model.language_model.")] = tensor
        else:
            tensors[name.removeprefix("language_model.") if "lm_head" in name else f"model.{name}"] = tensor
    save_file(tensors, tmp_path / "new" / "model.safetensors", metadata={"format": "pt"})
    outputs = []
    for name in ("old", "new"):
        aligned = align({"lm": lm, "vlm": tmp_path / name})
        names = set(CheckpointReader(tmp_path / name).shapes)
        assert set(aligned.tensors["lm"].shapes) == names
        places = FAMILY.locations(tmp_path / name, tuple(names))
        group = Group("all", tuple(n for n, place in places.items() if place), {"weight": (0.5, 0.5)})
        models = (Checkpoint("lm", "-"), Checkpoint("vlm", "-"))
        live = FAMILY.live_model(tmp_path / name, CPU, torch.float32, aligned.overlay)
        assert set(live.parameters) == names
        live.become(Merge("linear", None, models, (group,)), Engine(aligned.tensors, device=CPU))
        with torch.inference_mode():
            outputs.append(live.module(**picture(architecture, live.module)).logits)
    assert torch.equal(*outputs)


def test_the_configuration_of_older_releases_has_no_part_for_the_language(tmp_path: Path) -> None:
    """Qwen2-VL was published with the settings of its decoder beside those of the whole."""
    vlm = tiny_vlms.save_vlm(tmp_path / "vlm", "qwen2_vl")
    config = json.loads((vlm / "config.json").read_text())
    text = config.pop("text_config")
    config |= {key: value for key, value in text.items() if key not in ("model_type", "dtype", "layer_types")}
    (vlm / "config.json").write_text(json.dumps(config))
    directories = {"vlm": vlm, "lm": tiny_vlms.save_language_model(tmp_path / "lm", "qwen2")}
    aligned = align_layers(directories)
    engine = Engine(aligned.tensors, device=CPU)
    live = FAMILY.live_model(vlm, CPU, torch.float32, aligned.overlay, directories)
    hops = tuple(Hop(*hop) for hop in ((0, 0), (1, 0), (1, 1), (0, 1)))
    path = Stack((Checkpoint("vlm", "-"), Checkpoint("lm", "-")), hops, FAMILY.layout(vlm))
    live.become(path, engine)
    (tmp_path / "winner").mkdir()
    write_weights(path, engine, tmp_path / "winner", torch.float32, 10**9)
    overlay = replace(aligned.overlay, config=FAMILY.path_config(directories, path))
    FAMILY.copy_files(vlm, tmp_path / "winner", torch.float32, overlay)
    assert "text_config" not in json.loads((tmp_path / "winner" / "config.json").read_text())
    assert FAMILY.verify(tmp_path / "winner", live).same_bits


def test_a_tied_head_and_one_of_its_own_merge_to_one_of_its_own(root: Path, tmp_path: Path) -> None:
    tied = tiny_vlms.save_vlm(tmp_path / "vlm", "llava", tie_word_embeddings=True)
    aligned = align({"lm": root / "lm", "vlm": tied})
    assert aligned.overlay.config == {"tie_word_embeddings": False}
    live = FAMILY.live_model(tied, CPU, torch.float32, aligned.overlay)
    engine = Engine(aligned.tensors, device=CPU)
    live.become(Checkpoint("lm", "-"), engine)
    lm = transformers.AutoModelForCausalLM.from_pretrained(root / "lm")
    assert torch.equal(live.module.lm_head.weight[: tiny_vlms.PLAIN], lm.lm_head.weight)
    (tmp_path / "winner").mkdir()
    write_weights(Checkpoint("lm", "-"), engine, tmp_path / "winner", torch.float32, 10**9)
    FAMILY.copy_files(tied, tmp_path / "winner", torch.float32, aligned.overlay)
    assert FAMILY.verify(tmp_path / "winner", live).same_bits


@pytest.mark.parametrize("rules", [Rules(pad_vocabulary_to=48), Rules(tokenizer="union"), Rules(tokenizer="vlm")])
def test_vocabularies_by_rule(rules: Rules, root: Path, tmp_path: Path) -> None:
    """A language model with its tokens at other places, and some that the VLM lacks."""
    lm = shutil.copytree(root / "lm", tmp_path / "lm")
    if rules.tokenizer != "same":
        strange = [*tiny_models.CHARACTERS[:3], *tiny_models.CHARACTERS[:2:-1]]
        strange[10] = "ß"
        tiny_models.tokenizer(strange).save_pretrained(lm)
        with pytest.raises(SourceError, match="different tokenizers"):
            align({"lm": lm, "vlm": root / "vlm"})
    aligned = align({"lm": lm, "vlm": root / "vlm"}, rules)
    rows = {48: 96}.get(rules.pad_vocabulary_to or 0, tiny_vlms.ROWS)
    live = FAMILY.live_model(root / "vlm", CPU, torch.float32, aligned.overlay)
    engine = Engine(aligned.tensors, device=CPU)
    live.become(Checkpoint("lm", "-"), engine)
    assert live.module.get_input_embeddings().num_embeddings == rows
    embeddings = next(name for name in live.parameters if "embed_tokens" in name)
    own = live.tokenizer.get_vocab()
    theirs = transformers.AutoTokenizer.from_pretrained(lm).get_vocab()
    plain = CheckpointReader(lm).read("model.embed_tokens.weight")
    for token in ("a", "7", *(["ß"] if rules.tokenizer == "union" else [])):
        assert torch.equal(live.parameters[embeddings][own[token]], plain[theirs[token]])
    (tmp_path / "winner").mkdir()
    write_weights(Checkpoint("lm", "-"), engine, tmp_path / "winner", torch.float32, 10**9)
    FAMILY.copy_files(root / "vlm", tmp_path / "winner", torch.float32, aligned.overlay)
    assert FAMILY.verify(tmp_path / "winner", live).same_bits
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "winner").get_vocab() == own


def test_rotary_angles_and_windows_are_the_vlms_and_said_to_be(tmp_path: Path) -> None:
    """LLaVA 1.6 is built on another Mistral (rotary base 1e6, no window) than the Japanese models are."""
    vlm = tiny_vlms.save_vlm(tmp_path / "vlm", "llava_next", sliding_window=None,
                             rope_parameters={"rope_type": "default", "rope_theta": 1e6})  # fmt: skip
    lm = tiny_vlms.save_language_model(tmp_path / "lm", "mistral", sliding_window=8)
    directories = {"vlm": vlm, "lm": lm}
    expected = [
        "source 'lm' was trained with a rotary base of 10000.0, the merge has that of 'vlm', 1000000.0",
        "source 'lm' was trained with a sliding window of 8, the merge has that of 'vlm', None",
    ]
    assert list(align(directories).left_out) == expected
    assert list(align_layers(directories).left_out) == expected
    FAMILY.live_model(vlm, CPU, torch.float32, sources=directories)


def save_fitting(directory: Path, architecture: str = "llama", **changes: Any) -> dict[str, Path]:
    return {"lm": tiny_vlms.save_language_model(directory / "lm", architecture, **changes)}


def test_language_models_that_do_not_fit_are_refused(root: Path, tmp_path: Path) -> None:
    vlm = {"vlm": root / "vlm"}
    wide = save_fitting(tmp_path / "wide", hidden_size=32)
    deep = save_fitting(tmp_path / "deep", num_hidden_layers=3)
    other = save_fitting(tmp_path / "other", "qwen2")
    broad = save_fitting(tmp_path / "broad", intermediate_size=40)
    for directories, message in (
        (wide, "source 'lm': expected a language model with hidden_size 16, as that of 'vlm' has, got 32"),
        (deep, "source 'lm': expected a language model with num_hidden_layers 2, as that of 'vlm' has, got 3"),
        (other, r"source 'lm': expected a language model of the architecture in 'vlm' \(llama\), got 'qwen2'"),
        (broad, "shape"),
    ):
        with pytest.raises(SourceError, match=message):
            align(vlm | directories)
        if directories is deep:
            align_layers(vlm | directories)
        else:
            with pytest.raises(
                SourceError, match="layer 0 of source 'lm' does not fit" if directories is broad else message
            ):
                align_layers(vlm | directories)


def test_vlms_that_do_not_fit_are_refused(root: Path, tmp_path: Path) -> None:
    lm = {"lm": root / "lm"}
    with pytest.raises(
        SourceError, match=r"expected a vision-language model .* among the sources, got \{'lm': 'llama'\}"
    ):
        align(lm)
    idefics = tiny_vlms.save_vlm(tmp_path / "idefics", "idefics3")
    with pytest.raises(SourceError, match="vision-language models of different architectures"):
        align({**lm, "vlm": root / "vlm", "other": idefics})
    with pytest.raises(SourceError, match=r"expected merge.dataflow.first=vlm, got 'lm'"):
        align_layers({**lm, "vlm": root / "vlm"}, "lm")
    blind = shutil.copytree(root / "vlm", tmp_path / "blind")
    for file in blind.glob("*process*"):
        file.unlink()
    with pytest.raises(SourceError, match=r"'vlm' at .*blind: expected the files of an image processor"):
        align({**lm, "vlm": blind})
    with pytest.raises(SourceError, match=r"'vlm' at .*blind: expected the files of an image processor"):
        align_layers({**lm, "vlm": blind})
    quantised = shutil.copytree(root / "vlm", tmp_path / "quantised")
    config = json.loads((quantised / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (quantised / "config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match="source 'vlm': expected weights in a floating-point type, got a quantised"):
        align({**lm, "vlm": quantised})
    for rules, message in (
        (Rules(missing="base"), "missing: the merge has the tensors of 'vlm'"),
        (Rules(tokenizer="lm"), "tokenizer: expected auto, same, union or 'vlm'"),
    ):
        with pytest.raises(SourceError, match=message):
            align({**lm, "vlm": root / "vlm"}, rules)


def test_encoders_with_decoders_are_refused(root: Path, tmp_path: Path) -> None:
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    blip = transformers.Blip2Config(
        vision_config=small | {"image_size": 8, "patch_size": 4},
        qformer_config=small | {"encoder_hidden_size": 16, "vocab_size": 64},
        text_config=transformers.T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2),
    )
    blip.save_pretrained(tmp_path / "blip")
    florence = transformers.Florence2Config()
    florence.save_pretrained(tmp_path / "florence")
    for name in ("blip", "florence"):
        shutil.copy(root / "vlm" / "model.safetensors", tmp_path / name / "model.safetensors")
        with pytest.raises(SourceError, match="source 'vlm': expected a model whose language part is a decoder, got"):
            align({"vlm": tmp_path / name, "lm": root / "lm"})


def test_a_missing_package_is_named_with_the_extra_that_has_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ImportError("SomeProcessor requires the Torchvision library but it was not found")

    live = FAMILY.live_model(root / "vlm", CPU, torch.float32)
    shutil.copytree(root / "vlm", tmp_path / "copy")
    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", fail)
    with pytest.raises(SourceError, match=r"pip install -c constraints.txt -e '\.\[vision\]'.*Torchvision"):
        _ = live.processor
    assert FAMILY.verify(tmp_path / "copy", live).same_bits  # on a text alone
    monkeypatch.undo()
    assert type(live.processor).__name__ == "LlavaProcessor"
