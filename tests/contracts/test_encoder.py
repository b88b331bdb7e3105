"""The family of encoders over tiny models of nine architectures, made from their configurations."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hydra.utils import instantiate
from safetensors.torch import load_file, save_file

from evohydra.families import Aligned, Rules
from evohydra.families.causal_lm import CausalLM
from evohydra.families.encoder import Encoder
from evohydra.merging.checkpoints import CheckpointReader, SourceError
from evohydra.merging.engine import Engine
from evohydra.merging.statistics import UNREAD, NothingFound
from evohydra.recipe import Checkpoint, Group, Merge, Node
from evohydra.spaces.grouping import Granularity, Location
from evohydra.winner.checkpoint_files import write_weights
from tests import tiny_encoders
from tests.contracts import discovery
from tests.contracts.test_methods import COUNT

FAMILY = Encoder()
CPU = torch.device("cpu")
HEADED = transformers.AutoModelForSequenceClassification
# By hand from the architectures: the parts of a name that tell where a tensor of a layer belongs.
NORMS = ("LayerNorm", "layer_norm", "attn_norm", "mlp_norm")
MLP = ("intermediate.", "ffn", "mlp.", ".output.dense")
ATTENTION = ("attention.", "attn.")
EDGES = {
    "embeddings": ("embeddings", "relative_attention_bias", "embedding_hidden_mapping_in", "encoder.LayerNorm"),
    "head": ("pooler", "final_norm", "classifier"),
}


@pytest.fixture(scope="module", params=tiny_encoders.ARCHITECTURES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models of one architecture on disk."""
    root = tmp_path_factory.mktemp(request.param)
    return tuple(tiny_encoders.save(root / name, seed, request.param) for seed, name in enumerate(("one", "two")))  # type: ignore[return-value]


def named(*directories: Path) -> dict[str, Path]:
    return dict(zip(("one", "two", "three"), directories, strict=False))


def aligned(directories: Mapping[str, Path], base: str | None = None, **rules: Any) -> Aligned:
    opened = {name: FAMILY.open(directory, directory) for name, directory in directories.items()}
    return FAMILY.align(directories, opened, base, Rules(**rules))


def average(found: Aligned) -> tuple[Merge, Engine]:
    models = tuple(Checkpoint(name, "-") for name in found.tensors)
    group = Group("all", tuple(found.tensors["one"].shapes), {"weight": (0.5, 0.5)})
    return Merge("linear", None, models, (group,)), Engine(found.tensors, device=CPU)


def written(node: Node, found: Aligned, directories: Mapping[str, Path], target: Path) -> Any:
    """The merge in `target`, and the live model that it was written from."""
    target.mkdir()
    engine = Engine(found.tensors, device=CPU)
    live = FAMILY.live_model(directories[found.files_from], CPU, torch.float32, found.overlay)
    live.become(node, engine)
    write_weights(node, engine, target, torch.float32, 20_000)
    FAMILY.copy_files(directories[found.files_from], target, torch.float32, found.overlay)
    assert FAMILY.verify(target, live).same_bits
    return live


def test_every_tensor_has_its_place(pair: tuple[Path, Path]) -> None:
    names = tuple(CheckpointReader(pair[0]).shapes)
    found = FAMILY.locations(pair[0], names)
    for name, location in found.items():
        layer = next((int(part) for part in name.split(".") if part.isdigit()), None)
        if layer is None:
            (expected,) = (module for module, parts in EDGES.items() if any(part in name for part in parts))
        elif any(part in name for part in NORMS):
            expected = "norms"
        elif any(part in name for part in ATTENTION):
            expected = "attention"
        else:
            assert any(part in name for part in MLP), name
            expected = "mlp"
        assert location == Location(expected, layer), name
    depth = 1 if "albert_layer_groups" in " ".join(names) else 2
    in_layers = {(at.module, at.layer) for at in found.values() if at and at.layer is not None}
    assert in_layers == {(module, layer) for module in ("attention", "mlp", "norms") for layer in range(depth)}
    groups = Granularity(layers="each", modules=True).group(found)
    assert {"layers.0.attention", "embeddings"} <= groups.keys()
    assert sum(map(len, groups.values())) == len(names)


def test_a_merge_of_equal_sources_is_the_source_bit_for_bit(pair: tuple[Path, Path]) -> None:
    found = aligned(named(pair[0], pair[0]))
    merge, engine = average(found)
    live = FAMILY.live_model(pair[0], CPU, torch.float32, found.overlay)
    live.become(merge, engine)
    for name, tensor in CheckpointReader(pair[0]).shapes.items():
        assert tuple(live.parameters[name].shape) == tensor
        assert torch.equal(live.parameters[name], CheckpointReader(pair[0]).read(name)), name
    assert not any(parameter.requires_grad for parameter in live.parameters.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_written_merge_loads_with_automodel_and_equals_the_average(
    dtype: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    found = aligned(named(*pair))
    merge, _ = average(found)
    live = written(merge, found, named(*pair), tmp_path / "out")
    merged = transformers.AutoModel.from_pretrained(tmp_path / "out", dtype=getattr(torch, dtype)).eval()
    one, two = (transformers.AutoModel.from_pretrained(path).eval() for path in pair)
    with torch.no_grad():
        for parameter, other in zip(one.parameters(), two.parameters(), strict=True):
            parameter.mul_(0.5).add_(0.5 * other)
        tokens = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")(["fish1 stone2", "cloud3"], padding=True)
        inputs = {key: torch.tensor(value) for key, value in tokens.items() if key != "token_type_ids"}
        expected = one(**inputs).last_hidden_state
        torch.testing.assert_close(live.module(**inputs).last_hidden_state, expected)
        close = {"float32": (1e-5, 1e-5), "bfloat16": (0.1, 0.15)}[dtype]
        torch.testing.assert_close(merged(**inputs).last_hidden_state.float(), expected, atol=close[0], rtol=close[1])
    live.become(merge.models[1], Engine(found.tensors, device=CPU))
    assert FAMILY.verify(tmp_path / "out", live).outputs > 0.01


@pytest.mark.parametrize("method", discovery.names("merge"))
def test_every_method_merges_encoders(method: str, tmp_path: Path) -> None:
    """At its defaults in every granularity; what is for paths or for mixtures is refused."""
    directories = named(*(tiny_encoders.save(tmp_path / name, n) for n, name in enumerate(("one", "two", "base"))))
    found = aligned({"one": directories["one"], "two": directories["two"], "base": directories["three"]}, "base")
    spec = discovery.composed(f"merge={method}", "optimizer=cmaes")["merge"]
    if spec.get("dataflow"):
        with pytest.raises(SourceError, match="merged in parameter space"):
            FAMILY.layout(directories["one"])
        return
    models = (Checkpoint("one", "-"), Checkpoint("two", "-"))[: COUNT.get(method, 2)]
    places = FAMILY.locations(directories["one"], tuple(found.tensors["one"].shapes))
    if "experts_per_token" in spec["parameter"]:
        with pytest.raises(ValueError, match="a mixture: expected tensors of experts"):
            instantiate(spec["parameter"])(models=models, base=Checkpoint("base", "-"), locations=places)
        return
    for layers, modules in (("whole", False), ("each", True), (2, False)):
        granularity = {**spec["parameter"]["granularity"], "layers": layers, "modules": modules}
        parameter = {**spec["parameter"], "granularity": granularity}
        parameter |= {"statistics": UNREAD} if "statistics" in parameter else {}
        space = instantiate(parameter)(models=models, base=Checkpoint("base", "-"), locations=places)
        live = FAMILY.live_model(directories["one"], CPU, torch.float32, found.overlay)
        live.become(space.default(), Engine(found.tensors, device=CPU, statistics=NothingFound()))
        assert all(parameter.isfinite().all() for parameter in live.parameters.values())


def test_names_of_other_releases_and_of_models_with_heads_are_the_same_tensors(tmp_path: Path) -> None:
    """BERT was published with a prefix, with gamma and beta, and with numbers of positions."""
    one = tiny_encoders.save(tmp_path / "one", 0)
    two = tiny_encoders.save(tmp_path / "two", 1)
    expected = average(aligned(named(one, two)))
    file = two / "model.safetensors"
    former = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = {f"bert.{name}": tensor for name, tensor in load_file(file).items()}
    tensors = {re.sub("LayerNorm.(weight|bias)", lambda found: former[found[0]], n): t for n, t in tensors.items()}
    tensors |= {"bert.embeddings.position_ids": torch.arange(40).unsqueeze(0), "cls.predictions.bias": torch.ones(41)}
    save_file(tensors, file, metadata={"format": "pt"})
    for order in ((one, two), (two, one)):
        found = aligned(named(*order))
        assert len(found.left_out) == 1
        assert "1 tensors of its head (BertModel) are not in the merge" in found.left_out[0]
        merge, engine = average(found)
        live = FAMILY.live_model(order[0], CPU, torch.float32, found.overlay)
        live.become(merge, engine)
        plain = {name.removeprefix("bert."): tensor for name, tensor in live.parameters.items()}
        assert plain.keys() == expected[1].shapes(expected[0]).keys()
        for name, tensor in plain.items():
            assert torch.equal(tensor, expected[1].tensor(expected[0], name)), name
        written(merge, found, named(*order), tmp_path / f"out_{order[0].name}")


def test_a_head_stays_where_all_have_the_same(tmp_path: Path) -> None:
    for architecture in tiny_encoders.ARCHITECTURES:
        directories = named(
            *(tiny_encoders.save(tmp_path / architecture / n, seed, architecture, kind=HEADED, num_labels=3)
              for seed, n in enumerate(("one", "two")))
        )  # fmt: skip
        found = aligned(directories)
        (said,) = found.left_out
        assert "the same head, which is merged with them (group head): only benchmarks that ask it score it" in said
        live = written(average(found)[0], found, directories, tmp_path / architecture / "out")
        merged = HEADED.from_pretrained(tmp_path / architecture / "out")
        assert type(merged) is type(live.whole)
        heads = [name for name in live.parameters if name.startswith(("classifier", "pre_classifier", "head."))]
        assert heads
        places = FAMILY.locations(directories["one"], tuple(live.parameters))
        assert all(places[name] == Location("head") for name in heads)
        halves = [load_file(directories[n] / "model.safetensors")[heads[0]] for n in ("one", "two")]
        torch.testing.assert_close(merged.state_dict()[heads[0]], (halves[0] + halves[1]) / 2)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"id2label": {0: "bad", 1: "fair", 2: "good"}}, "labels bad, fair, good"),
        ({"num_labels": 5}, "labels LABEL_0, LABEL_1, LABEL_2, LABEL_3, LABEL_4"),
        ({"kind": transformers.AutoModelForTokenClassification, "num_labels": 3}, "BertForTokenClassification"),
        ({"kind": transformers.AutoModelForMaskedLM}, "BertForMaskedLM"),
        ({"kind": transformers.AutoModel}, None),
    ],
)
def test_other_heads_leave_the_encoder_alone_and_say_so(
    other: dict[str, Any], expected: str | None, tmp_path: Path
) -> None:
    one = tiny_encoders.save(tmp_path / "one", 0, kind=HEADED, num_labels=3)
    two = tiny_encoders.save(tmp_path / "two", 1, **{"kind": HEADED, **other})
    directories = named(one, two)
    found = aligned(directories)
    said = " ".join(found.left_out)
    assert "source 'one': the 2 tensors of its head (BertForSequenceClassification" in said
    assert expected is None or expected in said
    assert ("the pooler is not in the merge, for there is none in two" in said) == (
        expected in ("BertForTokenClassification", "BertForMaskedLM")
    )
    live = written(average(found)[0], found, directories, tmp_path / "out")
    assert live.whole is live.module
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["BertModel"]
    assert not any("classifier" in name for name in CheckpointReader(tmp_path / "out").shapes)
    assert type(transformers.AutoModel.from_pretrained(tmp_path / "out")).__name__ == "BertModel"


@pytest.mark.parametrize("folder", ["", "0_Transformer"])
def test_sentence_transformers_layout_is_read_and_written(folder: str, tmp_path: Path) -> None:
    pooling = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    directories = named(
        *(tiny_encoders.as_sentences(tiny_encoders.save(tmp_path / n, seed), pooling, folder)
          for seed, n in enumerate(("one", "two")))
    )  # fmt: skip
    prompts = {"prompts": {"query": "fish1 "}, "default_prompt_name": "query"}
    for directory in directories.values():
        (directory / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    found = aligned(directories)
    out = tmp_path / "out"
    live = written(average(found)[0], found, directories, out)
    assert (live.sentence.pooling, live.sentence.prompt, live.longest) == (("cls",), "fish1 ", 32)
    again = FAMILY.live_model(out, CPU, torch.float32)
    assert again.sentence == live.sentence
    assert [module["path"] for module in json.loads((out / "modules.json").read_text())] == [
        "",
        "1_Pooling",
        "2_Normalize",
    ]
    assert json.loads((out / "1_Pooling" / "config.json").read_text())["pooling_mode_cls_token"] is True
    assert type(transformers.AutoModel.from_pretrained(out)).__name__ == "BertModel"
    assert FAMILY.dtype(directories["one"]) is torch.float32


def test_sources_that_pool_otherwise_are_refused_or_chosen(tmp_path: Path) -> None:
    one = tiny_encoders.as_sentences(tiny_encoders.save(tmp_path / "one", 0))
    two = tiny_encoders.as_sentences(tiny_encoders.save(tmp_path / "two", 1), {"pooling_mode": "cls"}, max_seq_length=8)
    plain = tiny_encoders.save(tmp_path / "plain", 2)
    with pytest.raises(
        SourceError, match=r"'two' has longest 8 where 'one' has 32, pooling \('cls',\) where 'one' has"
    ):
        aligned(named(one, two))
    directories = {**named(one, two), "three": plain}
    found = aligned(directories, config="two")
    assert found.files_from == "two"
    assert [said.partition(" has ")[0] for said in found.left_out] == ["source 'one'"]  # the plain one says nothing
    live = FAMILY.live_model(two, CPU, torch.float32, found.overlay)
    engine = Engine(found.tensors, device=CPU)
    for name, expected in {"one": (("mean",), 32), "two": (("cls",), 8), "three": (("cls",), 8)}.items():
        live.become(Checkpoint(name, "-"), engine)
        assert (live.sentence.pooling, live.longest) == expected
    live.become(average(found)[0].models[0], engine)
    merge = Merge("linear", None, (Checkpoint("one", "-"), Checkpoint("two", "-")),
                  (Group("all", tuple(found.tensors["one"].shapes), {"weight": (0.5, 0.5)}),))  # fmt: skip
    live.become(merge, engine)
    assert live.sentence.pooling == ("cls",)


def test_a_source_is_scored_under_its_own_configuration(tmp_path: Path) -> None:
    one = tiny_encoders.save(tmp_path / "one", 0)
    two = tiny_encoders.save(tmp_path / "two", 1, hidden_act="relu")
    directories = named(one, two)
    with pytest.raises(SourceError, match="hidden_act 'relu' where 'one' has 'gelu'"):
        aligned(directories)
    found = aligned(directories, config="allow")
    live = FAMILY.live_model(one, CPU, torch.float32, found.overlay)
    tokens = torch.arange(24).reshape(2, 12) + 5
    engine = Engine(found.tensors, device=CPU)
    for name in ("two", "one", "two"):
        live.become(Checkpoint(name, "-"), engine)
        with torch.inference_mode():
            expected = transformers.AutoModel.from_pretrained(directories[name]).eval()(tokens).last_hidden_state
            torch.testing.assert_close(live.module(tokens).last_hidden_state, expected)


def change(file: str, **changes: object) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        known = json.loads((directory / file).read_text())
        (directory / file).write_text(json.dumps({**known, **changes}))

    return apply


def add_module(kind: str, path: str = "") -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        file = directory / "modules.json"
        known = json.loads(file.read_text())
        file.write_text(json.dumps([*known, {"type": f"sentence_transformers.models.{kind}", "path": path}]))

    return apply


def prompt(directory: Path) -> None:
    """A default prompt that is nowhere."""
    (directory / "config_sentence_transformers.json").write_text('{"default_prompt_name": "query", "prompts": {}}')


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (add_module("Dense", "2_Dense"), "got Transformer, Pooling, Normalize, Dense: what others compute is not part"),
        (add_module("Pooling", "../elsewhere"), "expected the name of a folder beside it"),
        (lambda place: (place / "modules.json").write_text("{}"), "expected a list of modules"),
        (change("1_Pooling/config.json", pooling_mode="middle"), "expected pooling by cls, max, mean"),
        (change("1_Pooling/config.json", pooling_mode=[]), "expected pooling by cls, max, mean"),
        (change("1_Pooling/config.json", include_prompt="no"), "include_prompt: expected true or false, got 'no'"),
        (lambda place: (place / "1_Pooling" / "config.json").unlink(), "1_Pooling/config.json"),
        (lambda place: (place / "1_Pooling" / "config.json").write_text("[]"), "expected a JSON object"),
        (change("sentence_bert_config.json", max_seq_length="long"), "expected max_seq_length as 3 tokens or more"),
        (change("sentence_bert_config.json", max_seq_length=2), "expected max_seq_length as 3 tokens or more"),
        (prompt, "expected the text of the prompt 'query' among its prompts"),
        (change("config.json", is_decoder=True), "expected an encoder"),
        (change("config.json", num_hidden_layers=3), "expected the tensors of 3 layers"),
        (change("config.json", model_type="roberta", architectures=["RobertaModel"]), "different architectures"),
        (change("config.json", quantization_config={"quant_method": "awq"}), "quantised"),
        (lambda place: shutil.copyfile(place / "config.json", place / "model.safetensors"), "truncated or corrupt"),
    ],
)  # fmt: skip
def test_what_cannot_be_merged_is_refused_in_a_sentence(
    spoil: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    directories = named(
        *(tiny_encoders.as_sentences(tiny_encoders.save(tmp_path / n, s)) for s, n in enumerate(("one", "two")))
    )
    aligned(directories)
    spoil(directories["two"])
    with pytest.raises(SourceError, match=message):
        aligned(directories)


@pytest.mark.parametrize("architecture", ["roberta", "xlm_roberta", "mpnet"])
def test_positions_that_are_numbered_from_another_padding_token_are_refused_or_chosen(
    architecture: str, tmp_path: Path
) -> None:
    directories = named(*(tiny_encoders.save(tmp_path / n, s, architecture) for s, n in enumerate(("one", "two"))))
    change("config.json", pad_token_id=3)(directories["two"])
    with pytest.raises(SourceError, match="'two' has pad_token_id 3 where 'one' has 0"):
        aligned(directories)
    found = aligned(directories, config="one")
    assert "two" in found.overlay.own


@pytest.mark.parametrize("rule", ["base", "union", "two", "auto"])
def test_vocabularies_that_differ_are_matched_by_token(rule: str, tmp_path: Path) -> None:
    more = [*tiny_encoders.WORDS, "sand1", "sand2"]
    one, two, base = (
        tiny_encoders.save(tmp_path / n, seed, words=words, vocab_size=len(words) + 5)
        for seed, (n, words) in enumerate(
            {"one": tiny_encoders.WORDS, "two": more, "base": tiny_encoders.WORDS}.items()
        )
    )
    directories = {"one": one, "two": two, "base": base}
    if rule == "auto":
        with pytest.raises(SourceError, match="different tokenizers: 2 tokens differ"):
            aligned(directories, "base", tokenizer=rule)
        return
    found = aligned(directories, "base", tokenizer=rule)
    rows = {"base": 41, "union": 43, "two": 43}[rule]
    shapes = {name: source.shapes["embeddings.word_embeddings.weight"] for name, source in found.tensors.items()}
    assert shapes == dict.fromkeys(directories, (rows, 16))
    for name, source in found.tensors.items():  # nothing else has rows by token
        theirs = CheckpointReader(directories[name]).shapes
        assert {n for n, shape in source.shapes.items() if shape != theirs[n]} <= {"embeddings.word_embeddings.weight"}
    group = Group("all", tuple(found.tensors["one"].shapes), {"weight": (0.5, 0.5)})
    merge = Merge("linear", None, (Checkpoint("one", "-"), Checkpoint("two", "-")), (group,))
    live = written(merge, found, directories, tmp_path / "out")
    assert live.module.get_input_embeddings().num_embeddings == rows
    assert len(transformers.AutoTokenizer.from_pretrained(tmp_path / "out")) == rows


def test_paths_through_layers_are_refused(tmp_path: Path) -> None:
    directories = named(tiny_encoders.save(tmp_path / "one", 0), tiny_encoders.save(tmp_path / "two", 1))
    opened = {name: FAMILY.open(directory, directory) for name, directory in directories.items()}
    with pytest.raises(SourceError, match="encoders are merged in parameter space"):
        FAMILY.align_layers(directories, opened, "one", Rules())
    with pytest.raises(SourceError, match="encoders are merged in parameter space"):
        FAMILY.live_model(directories["one"], CPU, torch.float32, sources=directories)
    assert FAMILY.depth(directories["one"]) == 2


@pytest.mark.parametrize(
    ("architecture", "modules"),
    [("bert", ["query", "dense"]), ("modernbert", ["Wqkv"]), ("distilbert", ["q_lin", "lin1"])],
)
@pytest.mark.parametrize("headed", [False, True])
def test_adapters_are_merged_as_peft_merges_them(
    architecture: str, modules: list[str], headed: bool, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    kind, task = (HEADED, "SEQ_CLS") if headed else (transformers.AutoModel, "FEATURE_EXTRACTION")
    one = tiny_encoders.save(tmp_path / "one", 0, architecture, kind=kind)
    settings = peft.LoraConfig(task_type=task, r=2, target_modules=modules, init_lora_weights=False)
    trained = peft.get_peft_model(kind.from_pretrained(one), settings)
    for name, parameter in trained.named_parameters():  # a head is trained whole
        if "modules_to_save" in name:
            parameter.data.add_(1.0)
    trained.save_pretrained(tmp_path / "adapter")
    source = FAMILY.adapted(FAMILY.open(one, one), tmp_path / "adapter")
    found = FAMILY.align({"one": one}, {"one": source}, None, Rules())
    live = FAMILY.live_model(one, CPU, torch.float32, found.overlay)
    live.become(Checkpoint("one", "-"), Engine(found.tensors, device=CPU))
    merged = trained.merge_and_unload().eval()
    tokens = torch.arange(20).reshape(2, 10) + 5
    with torch.inference_mode():
        theirs, ours = merged(tokens), live.whole(tokens)
    torch.testing.assert_close(ours[0], theirs[0])
    if headed:
        plain = HEADED.from_pretrained(one).eval()
        assert not torch.allclose(plain(tokens).logits, ours.logits, atol=0.1)


def test_settings_of_heads_that_are_left_out_are_no_reason_to_refuse(tmp_path: Path) -> None:
    """ModernBERT's configuration says of its head for masked words what changes nothing in the encoder."""
    one = tiny_encoders.save(tmp_path / "one", 0, "modernbert")
    two = tiny_encoders.save(tmp_path / "two", 1, "modernbert", decoder_bias=False, sparse_prediction=True)
    found = aligned(named(one, two))
    assert not found.left_out
    assert not found.overlay.own
    other = tiny_encoders.save(tmp_path / "other", 1, "modernbert", local_attention=16)
    with pytest.raises(SourceError, match="local_attention 16 where 'one' has 128"):
        aligned(named(one, other))


def test_every_architecture_takes_more_rows(pair: tuple[Path, Path], tmp_path: Path) -> None:
    found = aligned(named(*pair), pad_vocabulary_to=32)
    live = written(average(found)[0], found, named(*pair), tmp_path / "out")
    changed = {
        name for name, each in live.parameters.items() if tuple(each.shape) != CheckpointReader(pair[0]).shapes[name]
    }
    (words,) = changed
    assert live.parameters[words].shape[0] == 64
    assert live.module.get_input_embeddings().weight is live.whole.get_input_embeddings().weight
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 64


@pytest.mark.parametrize("kind", [transformers.AutoModel, transformers.AutoModelForMaskedLM])
def test_an_encoder_is_no_language_model(kind: Any, tmp_path: Path) -> None:
    """transformers would make one of it, with a head that predicts words that it has seen."""
    one = tiny_encoders.save(tmp_path / "one", 0, kind=kind)
    with pytest.raises(SourceError, match=r"source 'one': expected a language model that writes texts, got .*'bert'"):
        CausalLM().align({"one": one}, {"one": CheckpointReader(one)}, None, Rules())
    file = one / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "is_decoder": True}))
    with pytest.raises(SourceError, match="expected an encoder"):
        aligned({"one": one})
