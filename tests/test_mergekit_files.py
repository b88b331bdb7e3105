"""What else than weights mergekit's configurations give: configuration, tokenizer, types, and rows of no token.

What is expected here is what mergekit 0.1.5 wrote for these configurations.
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

from evohydra.families import Rules
from evohydra.families.causal_lm import CausalLM
from evohydra.families.declared import Source, checkpoints
from evohydra.families.sources import OpenSources, open_sources
from evohydra.mergekit.reader import read
from evohydra.merging.engine import Engine
from evohydra.recipe import Group, Merge, Parameter
from evohydra.winner.formats.plain import Plain
from evohydra.winner.remaking import rebuild
from evohydra.winner.writer import WinnerForm, WinnerWriter
from tests import tiny_models

EMBEDDINGS = "model.embed_tokens.weight"
TOKENS = len(tiny_models.CHARACTERS)
CPU = torch.device("cpu")


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models whose base has other settings than they, and a tokenizer with a chat template."""
    root = tmp_path_factory.mktemp("models")
    tiny_models.save_trio(root)
    change(root / "base" / "config.json", rms_norm_eps=1e-5)
    change(root / "base" / "generation_config.json", top_k=7)
    change(root / "base" / "tokenizer_config.json", chat_template="{{ messages }}")
    tiny_models.save_model(root / "half", 3, base=root / "one", dtype=torch.bfloat16)
    tiny_models.save_model(root / "wide", 4, vocab_size=TOKENS + 5)
    tiny_models.save_model(root / "wide2", 5, vocab_size=TOKENS + 5)
    tiny_models.save_model(root / "plus", 6, characters=[*tiny_models.CHARACTERS, "!"], vocab_size=TOKENS + 1)
    return root


def made(root: Path, out: Path, method: str, *models: str, base: str | None = None, **more: object) -> dict[str, Any]:
    """The tensors of a merge of these models by a configuration of mergekit."""
    own = {} if method == "slerp" else {"parameters": {"weight": 0.5}}
    listed = [{"model": str(root / name), **own} for name in models]
    config: dict[str, object] = {"merge_method": method, "models": listed, **more}
    if base is not None:
        config["base_model"] = str(root / base)
    rebuild(read(yaml.safe_dump(config).replace("ROOT", str(root)), CausalLM(), 10**9), out, {}, CPU)
    return load_file(out / "model.safetensors")


def config_of(directory: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / "config.json").read_text())
    return content


def test_configuration_and_tokenizer_are_the_bases(root: Path, tmp_path: Path) -> None:
    made(root, tmp_path / "out", "task_arithmetic", "one", "two", base="base")
    assert config_of(tmp_path / "out")["rms_norm_eps"] == 1e-5
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["top_k"] == 7
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == "{{ messages }}"
    made(root, tmp_path / "without", "linear", "two", "base")
    assert config_of(tmp_path / "without")["rms_norm_eps"] == 1e-6


@pytest.mark.parametrize(("base", "epsilon"), [("base", 1e-5), (None, 1e-6)])
def test_a_source_that_gives_the_tokenizer_gives_no_configuration(
    base: str | None, epsilon: float, root: Path, tmp_path: Path
) -> None:
    method = "linear" if base is None else "task_arithmetic"
    got = made(root, tmp_path / "out", method, "one", "plus", base=base, tokenizer={"source": "ROOT/plus"})
    written = config_of(tmp_path / "out")
    assert (written["rms_norm_eps"], written["vocab_size"]) == (epsilon, TOKENS + 1)
    assert "!" in transformers.AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab()
    assert len(got[EMBEDDINGS]) == TOKENS + 1


@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
def test_a_model_that_is_listed_twice_is_refused(method: str, root: Path, tmp_path: Path) -> None:
    base = "base" if method == "task_arithmetic" else None
    with pytest.raises(ValueError, match=r"one: listed twice.*each model once"):
        made(root, tmp_path / "out", method, "one", "two", "one", base=base)


def test_a_model_that_is_listed_twice_in_a_slice_is_refused(root: Path) -> None:
    source = {"model": str(root / "one"), "layer_range": [0, 2]}
    config = {"merge_method": "linear", "parameters": {"weight": 1}, "slices": [{"sources": [source, source]}]}
    with pytest.raises(ValueError, match="one: listed twice"):
        read(yaml.safe_dump(config), CausalLM(), 10**9)


@pytest.mark.parametrize("models", [("half", "two"), ("two", "half")])
def test_mixed_types_without_dtype_are_promoted(models: tuple[str, str], root: Path, tmp_path: Path) -> None:
    got = made(root, tmp_path / "out", "linear", *models)
    half, two = (load_file(root / name / "model.safetensors") for name in ("half", "two"))
    for name, tensor in got.items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, (half[name].float() + two[name]) / 2)
    assert config_of(tmp_path / "out")["dtype"] == "float32"


def slerp(one: torch.Tensor, two: torch.Tensor, t: float) -> torch.Tensor:
    angle = torch.acos((one * two).sum() / one.norm() / two.norm())
    return (torch.sin((1 - t) * angle) * one + torch.sin(t * angle) * two) / torch.sin(angle)


@pytest.mark.parametrize("multiple", [None, 16])
def test_rows_of_no_token_are_dropped_and_new_ones_are_means(multiple: int | None, root: Path, tmp_path: Path) -> None:
    """Where rows are matched by token; the angle of slerp is then between what is merged, means included."""
    tokenizer = {"source": "base", **({"pad_to_multiple_of": multiple} if multiple else {})}
    got = made(
        root, tmp_path / "out", "slerp", "wide", "wide2", base="wide", parameters={"t": 0.3}, tokenizer=tokenizer
    )
    for name in (EMBEDDINGS, "lm_head.weight"):
        one, two = (load_file(root / each / "model.safetensors")[name][:TOKENS] for each in ("wide", "wide2"))
        if multiple:
            missing = -TOKENS % multiple
            one, two = (torch.cat([each, each.mean(dim=0).expand(missing, -1)]) for each in (one, two))
        torch.testing.assert_close(got[name], slerp(one, two, 0.3), rtol=1e-5, atol=1e-7)


def test_a_gpt2_of_negative_logits_does_not_answer_with_padding(tmp_path: Path) -> None:
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        model = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=TOKENS, n_embd=8, n_layer=1, n_head=1, n_positions=32)
        )
        with torch.no_grad():  # the last hidden state is always 1, and all rows point away from it
            model.transformer.ln_f.weight.zero_()
            model.transformer.ln_f.bias.fill_(1.0)
            model.transformer.wte.weight.sub_(1.0)
        model.save_pretrained(tmp_path / name)
        tiny_models.tokenizer().save_pretrained(tmp_path / name)
    made(tmp_path, tmp_path / "out", "linear", "one", "two", tokenizer={"source": "ROOT/one", "pad_to_multiple_of": 64})
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert merged.config.vocab_size == 64
    logits = merged(torch.tensor([[3, 4]])).logits[0, -1]
    assert logits.max() < 0
    assert int(logits.argmax()) < TOKENS


PARAMETERS: dict[str, dict[str, Parameter]] = {
    "linear": {"weight": (0.5, 0.25)}, "slerp": {"t": 0.25}, "karcher": {"weight": (1.0, 1.0)},
    "task_arithmetic": {"weight": (0.5, 0.25)}, "ties": {"weight": (0.5, 0.25), "density": (0.5, 0.75)},
    "nuslerp": {"weight": (0.5, 0.25)}, "multislerp": {"weight": (0.5, 0.25)}, "arcee_fusion": {},
}  # fmt: skip
ON_BASE = ("task_arithmetic", "ties", "arcee_fusion")


def halved(values: dict[str, Parameter]) -> dict[str, Parameter]:
    """Other parameters of the same kind."""
    return {key: tuple(v / 2 for v in value) if isinstance(value, tuple) else value for key, value in values.items()}


@pytest.fixture
def written(root: Path, tmp_path: Path) -> Any:
    """Writes a winner on a base, with or without files of its own; gives its directory."""

    def write(
        same_files: bool, method: str = "task_arithmetic", files_from: str = "allow", by_layer: bool = False
    ) -> Path:
        for name in ("base", "one", "two"):
            shutil.copytree(root / name, tmp_path / name)
        if same_files:
            for file in ("config.json", "generation_config.json", "tokenizer_config.json"):
                shutil.copy(tmp_path / "one" / file, tmp_path / "base" / file)
            change(tmp_path / "base" / "config.json", transformers_version="4.0.0")
        change(tmp_path / "two" / "config.json", rms_norm_eps=1e-4)
        rules = Rules(config=files_from)
        named = {name: Source(str(tmp_path / name), "", str(tmp_path / "base")) for name in ("one", "two")}
        sources: OpenSources = open_sources(*checkpoints(named), CausalLM(), rules)
        live = CausalLM().live_model(sources.directories["one"], CPU, torch.float32, sources.overlay)
        engine = Engine(sources.tensors, device=CPU, dtype=torch.float32, compile_kernels=False, cache_bytes=0)
        names, values = tuple(sources.tensors["one"].shapes), PARAMETERS[method]
        groups = (Group("all", names, values),)
        if by_layer:
            upper = tuple(name for name in names if "layers.1." in name)
            lower = tuple(name for name in names if name not in upper)
            groups = (Group("lower", lower, values), Group("upper", upper, halved(values)))
        models = sources.models[:1] if method == "arcee_fusion" else sources.models
        node = Merge(method, sources.base if method in ON_BASE else None, models, groups)
        form = WinnerForm({}, rules, Plain(), 10**9)
        (tmp_path / "winner").mkdir()
        WinnerWriter(sources, CausalLM(), live, engine, form)(node, tmp_path / "winner", "run", {}, None)
        return tmp_path / "winner"

    return write


EPSILONS = {"allow": 1e-6, "two": 1e-4, "base": 1e-5}


@pytest.mark.parametrize("by_layer", [False, True])
@pytest.mark.parametrize(
    ("method", "files_from"),
    [
        ("linear", "allow"), ("linear", "two"), ("karcher", "two"), ("slerp", "two"), ("task_arithmetic", "allow"),
        ("task_arithmetic", "two"), ("task_arithmetic", "base"), ("ties", "allow"), ("arcee_fusion", "allow"),
    ],
)  # fmt: skip
def test_the_winners_configuration_names_the_model_whose_files_it_has(
    method: str, files_from: str, by_layer: bool, written: Any, tmp_path: Path
) -> None:
    """mergekit takes them from base_model; what is merged on has then to stand at the slices."""
    winner = written(False, method, files_from, by_layer)
    text = (winner / "mergekit.yaml").read_text()
    assert "mergekit takes" not in text + (winner / "README.md").read_text()
    rebuild(read(text, CausalLM(), 10**9), tmp_path / "again", {}, CPU)
    for place in (winner, tmp_path / "again"):
        assert config_of(place)["rms_norm_eps"] == EPSILONS[files_from]
    ours, theirs = (load_file(each / "model.safetensors") for each in (winner, tmp_path / "again"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("method", ["nuslerp", "multislerp"])
def test_where_mergekit_cannot_be_told_whose_files_to_take_it_is_said(method: str, written: Any) -> None:
    winner = written(False, method, "two")
    for content in ((winner / "mergekit.yaml").read_text(), (winner / "README.md").read_text()):
        assert "mergekit takes config.json from one or two, where they are" in content


def test_the_winners_configuration_is_all_where_the_files_are_the_same(written: Any) -> None:
    winner = written(same_files=True)
    assert "mergekit takes" not in (winner / "mergekit.yaml").read_text() + (winner / "README.md").read_text()
