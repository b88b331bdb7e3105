"""Files of others are refused within bounds of time and little memory, in one sentence, whatever is in them."""

import json
import os
import resource
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from evohydra.checks.patterns import found_in, matches_whole
from evohydra.families.causal_lm import CausalLM
from evohydra.families.configurations import read_configuration
from evohydra.families.rules import MOST_PADDING, Rules
from evohydra.families.settings_files import check_files, differing_files
from evohydra.mergekit.yaml_files import load_documents
from evohydra.merging.adapters import Adapted, for_module
from evohydra.merging.checkpoints import CheckpointReader, SourceError, survey
from evohydra.spaces.grouping import Granularity
from evohydra.winner.recipe_files import RecipeFile
from tests.test_recipe import MERGE, json_data, replaced
from tests.tiny_models import save_model
from tests.waiting import HANGS

MORE_MEMORY = 1024**3
quick = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """No test of this file may take long, or much memory."""
    before, started = resource.getrlimit(resource.RLIMIT_AS), time.perf_counter()
    with open("/proc/self/statm") as sizes:
        now = int(sizes.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MORE_MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
    assert time.perf_counter() - started < HANGS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("hostile") / "model", 1)


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    for file in model.iterdir():
        (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    return tmp_path / "model"


def within(what: Callable[[], object], message: str) -> None:
    started = time.perf_counter()
    with pytest.raises(ValueError, match=message) as refused:
        what()
    assert time.perf_counter() - started < HANGS
    assert len(str(refused.value)) < 1500


SLOW = ["(a+)+b", "(a|aa)+$b", "(.*)*x{3}", r"(\w+\s?)*!", "(?:a?){40}a{40}c"]


@pytest.mark.parametrize("pattern", SLOW)
def test_slow_regular_expressions_end(pattern: str) -> None:
    """Each is refused by the clock, or is quick in this engine: none hangs."""
    started = time.perf_counter()
    for text in ("a" * 60, "a" * 3000 + " "):
        try:
            found_in(pattern, text, "here")
        except ValueError as error:
            assert str(error).startswith("here: ")  # noqa: PT017
    assert time.perf_counter() - started < HANGS


def test_one_that_is_slow_in_this_engine_is_named() -> None:
    within(
        lambda: matches_whole(r"(a|b|ab)*(a|b|ab)*(a|b|ab)*c|(x+x+)+y", "ab" * 200 + "x" * 60, "here"),
        "here: .*takes more than 1 s",
    )


@pytest.mark.parametrize(
    "pattern", ["(", "(?R)", "(?:(?:a{1000}){1000}){1000}", "a{1,99999}", "a" * 3000, "(" * 900 + ")" * 900]
)
def test_patterns_that_would_fill_memory_are_refused(pattern: str, copy: Path) -> None:
    within(lambda: Granularity(filters={"mine": pattern}), "granularity.filters.mine: ")
    with pytest.raises(ValueError, match="rank_pattern"):
        for_module({pattern: 3}, "model.layers.0.mlp", 1)


@pytest.mark.parametrize("padding", [10**9, MOST_PADDING + 1, 0, -1, True, 1.5, "8"])
def test_padding_without_bounds(padding: Any) -> None:
    with pytest.raises(ValueError, match="pad_vocabulary_to: expected a whole number"):
        Rules(pad_vocabulary_to=padding)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 10**9}, {"num_hidden_layers": 1e9}, {"num_hidden_layers": -(10**9)},
        {"vocab_size": 10**12}, {"hidden_size": 10**30}, {"text_config": {"num_hidden_layers": 10**9}},
        {"rope_scaling": [{"num_layers": 10**7}]},
    ],
    ids=str,
)  # fmt: skip
def test_absurd_sizes_in_a_configuration(changes: dict[str, Any], copy: Path) -> None:
    content = json.loads((copy / "config.json").read_text()) | changes
    (copy / "config.json").write_text(json.dumps(content))
    within(lambda: CausalLM().dtype(copy), "config.json: .*: expected at most")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer_config.json"])
def test_pipes_in_the_place_of_files(file: str, copy: Path) -> None:
    (copy / file).unlink()
    os.mkfifo(copy / file)
    reads: Callable[[], object] = (lambda: CheckpointReader(copy)) if "safe" in file else lambda: CausalLM().dtype(copy)
    within(reads, "expected an ordinary file")


@pytest.mark.parametrize("file", ["notes.txt", "chat_template.jinja", "tokenizer.model", "extra.json"])
def test_files_beside_the_weights_that_are_huge(file: str, copy: Path) -> None:
    """Sparse, so that they take no room; they must not be read into memory, either."""
    with (copy / file).open("wb") as made:
        made.truncate(40 * 10**9)
    within(lambda: check_files(copy), f"{file}: expected .* of at most 200 MB .*, got 40000 MB")


def test_names_of_files_that_are_no_text(copy: Path) -> None:
    (copy / os.fsdecode(b"\xff\xfe.json")).write_text("{}")
    within(lambda: check_files(copy), r"model: expected names of files in UTF-8, got '\\udcff\\udcfe.json'")


@pytest.mark.parametrize(
    "changes",
    [
        {"attn_implementation": "owner/kernel"},
        {"_attn_implementation": "flash_attention_2|owner/kernel@main:attention"},
        {"text_config": {"attn_implementation": {"": "owner/kernel"}}},
        {"experts_implementation": "owner/kernel"},
    ],
)
def test_code_of_the_hub_for_attention_is_not_run(changes: dict[str, Any], copy: Path) -> None:
    content = json.loads((copy / "config.json").read_text()) | changes
    (copy / "config.json").write_text(json.dumps(content))
    within(lambda: CausalLM().dtype(copy), "config.json: .*implementation: expected a way to")


def test_json_beside_the_weights_that_nothing_reads_may_be_deep(copy: Path, model: Path) -> None:
    (copy / "extra.json").write_text("[" * 300_000 + "]" * 300_000)
    assert differing_files(copy, model) == ["extra.json"]


@pytest.mark.parametrize(
    "text", ["[" * 10**6, '{"a":' * 10**5, "", "null", "[]", '{"a": 1', "{}x", '"\\ud800'], ids=len
)
@pytest.mark.parametrize("file", ["config.json", "model.safetensors.index.json", "adapter_config.json"])
def test_json_that_is_none(file: str, text: str, copy: Path) -> None:
    (copy / file).write_text(text)
    if file.endswith("index.json"):
        (copy / "model.safetensors").unlink()  # else nobody reads the index
    reads = {
        "config.json": lambda: read_configuration(copy, "model"),
        "model.safetensors.index.json": lambda: CheckpointReader(copy),
        "adapter_config.json": lambda: Adapted(CheckpointReader(copy), adapter(copy, {}, keep=text)),
    }
    within(reads[file], "adapter_config|config.json|index.json")


def adapter(root: Path, changes: dict[str, Any], keep: str | None = None) -> Path:
    """A LoRA on one module of the model in `root`."""
    directory = root / "adapter"
    directory.mkdir()
    module = "model.layers.0.mlp.up_proj"
    rows, columns = CheckpointReader(root).shapes[f"{module}.weight"]
    factors = {"lora_A.weight": torch.ones(2, columns), "lora_B.weight": torch.ones(rows, 2)}
    save_file(
        {f"base_model.model.{module}.{key}": value for key, value in factors.items()},
        directory / "adapter_model.safetensors",
    )
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, **changes}
    (directory / "adapter_config.json").write_text(json.dumps(config) if keep is None else keep)
    return directory


@pytest.mark.parametrize(
    "changes",
    [
        {"r": 0}, {"r": -1}, {"r": "2"}, {"r": None}, {"r": 1.5}, {"r": True}, {"lora_alpha": "a"},
        {"lora_alpha": None}, {"lora_alpha": float("inf")}, {"lora_alpha": float("nan")},
        {"rank_pattern": {"x": 0}}, {"rank_pattern": [1]},
        {"rank_pattern": {"(": 1}}, {"alpha_pattern": {"x": "y"}}, {"use_rslora": "yes"}, {"fan_in_fan_out": 3},
        {"peft_type": ["LORA"]}, {"rank_pattern": {"(?:a{999}){999}": 1}},
    ],
    ids=str,
)  # fmt: skip
def test_settings_of_adapters(changes: dict[str, Any], copy: Path) -> None:
    made = adapter(copy, changes)
    within(lambda: Adapted(CheckpointReader(copy), made), "adapter_config.json: expected a PEFT LoRA")


def test_a_good_adapter_is_read(copy: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    made = Adapted(CheckpointReader(copy), adapter(copy, {"r": 8, "rank_pattern": {"up_proj": 2}}))
    assert not torch.equal(made.read(name), CheckpointReader(copy).read(name))


LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "expected at most 100000 values"), ("a: &a [*a]", "contains itself"), ("[" * 5000, "too deep"),
        ("a: !!python/object/apply:os.abort []", "could not determine a constructor"), ("a: 2020-13-45", "mergekit"),
        ("? [a]\n: b", "mergekit"), ("a: [", "mergekit"), ("a: \x00", "mergekit"), ("a: " + "9" * 5000, "mergekit"),
    ],
    ids=range(9),
)  # fmt: skip
def test_yaml_that_grows(text: str, message: str) -> None:
    within(lambda: load_documents(text), message)


def test_yaml_with_some_aliases_is_read() -> None:
    assert load_documents("a: &a [1, 2]\nb: [*a, *a]") == [{"a": [1, 2], "b": [[1, 2], [1, 2]]}]


def as_file() -> dict[str, Any]:
    return {
        "format": 2, "family": "causal_lm", "files_from": "one", "written_as": "plain", "dtype": None,
        "out_dtype": "float32", "shard_bytes": 10**9, "tokenizer": "same", "recipe": MERGE.to_dict(), "search": {},
        "versions": {}, "missing": "error", "pad_vocabulary_to": None, "allow_other_base": False, "components": {},
        "adapters": [], "warnings": [], "weights": "ab", "made_from": {},
    }  # fmt: skip


@quick
@given(at=st.integers(0, 60), instead=json_data)
def test_any_damage_to_a_recipe_file_is_a_sentence(at: int, instead: object) -> None:
    damaged = replaced(json.loads(json.dumps(as_file())), at, instead)
    assert_a_sentence(lambda: RecipeFile.parse(damaged).check_names(()))


def assert_a_sentence(what: Callable[[], object]) -> None:
    """Nothing is raised, or what commands show in one line."""
    try:
        what()
    except ValueError as error:
        assert 0 < len(str(error)) < 1500  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017


@quick
@given(at=st.integers(0, 40), instead=json_data)
def test_any_damage_to_a_configuration_is_a_sentence(model: Path, at: int, instead: object, tmp_path: Path) -> None:
    damaged = replaced(json.loads((model / "config.json").read_text()), at, instead)
    (tmp_path / "config.json").write_text(json.dumps(damaged))
    try:
        read_configuration(tmp_path, "model")
    except SourceError as error:
        assert 0 < len(str(error)) < 1500  # noqa: PT017


@quick
@given(at=st.integers(0, 10), instead=json_data)
def test_any_damage_to_an_adapter_is_a_sentence(
    model: Path, at: int, instead: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("adapter")
    for name in ("config.json", "model.safetensors"):
        (root / name).write_bytes((model / name).read_bytes())
    good = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "rank_pattern": {"a": 1}, "alpha_pattern": {}}
    made = adapter(root, {}, keep=json.dumps(replaced(good, at, instead)))
    assert_a_sentence(lambda: survey("one", Adapted(CheckpointReader(root), made)))


@quick
@given(data=st.data())
def test_any_damage_to_weights_is_a_sentence(model: Path, data: st.DataObject, tmp_path: Path) -> None:
    content = bytearray((model / "model.safetensors").read_bytes())
    kind = data.draw(st.sampled_from(["cut", "length", "byte"]))
    if kind == "cut":
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    elif kind == "length":
        content[:8] = struct.pack("<Q", data.draw(st.integers(0, 2**64 - 1)))
    else:
        (length,) = struct.unpack("<Q", content[:8])
        content[data.draw(st.integers(8, 7 + length))] = data.draw(st.integers(0, 255))
    (tmp_path / "model.safetensors").unlink(missing_ok=True)  # the file of another example may still be mapped
    (tmp_path / "model.safetensors").write_bytes(content)
    assert_a_sentence(lambda: survey("one", CheckpointReader(tmp_path)))


@quick
@given(at=st.integers(0, 20), instead=json_data)
def test_any_damage_to_an_index_is_a_sentence(model: Path, at: int, instead: object, tmp_path: Path) -> None:
    if not (tmp_path / "one.safetensors").exists():
        (tmp_path / "one.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    where = dict.fromkeys(load_file(model / "model.safetensors"), "one.safetensors")
    index = replaced({"metadata": {"total_size": 1}, "weight_map": where}, at, instead)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_a_sentence(lambda: survey("one", CheckpointReader(tmp_path)))


@quick
@given(
    text=st.text(max_size=40)
    | st.binary(max_size=40).map(lambda raw: raw.decode("latin-1"))
    | json_data.map(yaml.safe_dump)
)
def test_any_yaml_is_read_or_refused(text: str) -> None:
    try:
        load_documents(text)
    except ValueError as error:
        assert str(error).startswith("not a mergekit configuration")  # noqa: PT017


def test_this_python_has_a_bound_for_digits() -> None:
    """What keeps numbers of a million digits from taking minutes."""
    assert 0 < sys.get_int_max_str_digits() <= 4300
