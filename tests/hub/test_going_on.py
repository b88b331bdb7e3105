"""Runs that go on, and winners that are made again, when branches have moved and sources are found elsewhere."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import snapshot_download
from safetensors.torch import save

from evohydra.families.causal_lm import CausalLM
from evohydra.families.sources import published_sources
from evohydra.hub.commits import commit_of
from evohydra.merging.checkpoints import SourceError
from evohydra.recipe import Checkpoint
from evohydra.searching.json_lines import LedgerError
from evohydra.winner.remaking import rebuild
from tests.commands import carried_out
from tests.hub.language_models import ABEL, ARITHMO, METAMATH, MISTRAL, SHISA
from tests.hub.repositories import PullRequest, Repository
from tests.hub.server import Hub

SMALL = [
    "optimizer=cmaes", "optimizer.population=4", "top=1", "tracker=none", "report=false", "threads=1", "fitness=full",
    "baselines=null", "benchmark=[tiny_gsm_ja]", "benchmark.tiny_gsm_ja.splits.search.stop=2",
    "benchmark.tiny_gsm_ja.splits.validation.stop=302",
    "benchmark.tiny_gsm_ja.splits.test.stop=502",
]  # fmt: skip
BOTH = ["model=shisa+arithmo", "merge=linear", *SMALL]


def files_of(hub: Hub, name: str) -> dict[str, bytes | Path]:
    repository = hub.repositories["models", name]
    return {n: c.source for n, c in repository.commits[repository.refs["main"]].items()}


def moved(hub: Hub) -> tuple[str, str]:
    """Put other weights on shisa's main; the commits before and after."""
    repository = hub.repositories["models", SHISA]
    shard = "model-00001-of-00002.safetensors"
    before = repository.refs["main"]
    return before, repository.commit({**files_of(hub, SHISA), shard: files_of(hub, ARITHMO)[shard]})


def run(directory: Path, *arguments: str, budget: int = 4) -> dict[str, Any]:
    return carried_out([*BOTH, f"budget={budget}", *arguments], directory)


def test_a_run_goes_on_at_the_commit_that_it_began_with_and_is_rebuilt_from_it(online: Hub, tmp_path: Path) -> None:
    first = run(tmp_path / "run")
    before, after = moved(online)
    for _ in range(2):  # said each time
        with pytest.raises(
            LedgerError, match=rf"It began with shisa at commit {before}: .*shisa\.revision={before} goes"
        ):
            run(tmp_path / "run", budget=8)
    later = run(tmp_path / "run", f"model.sources.shisa.revision={before}", budget=8)
    assert (first["evaluations"], later["evaluations"]) == (4, 8)
    lines = (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()
    assert len(lines) == 8
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert recipe["commits"]["shisa"] == before
    assert {model["name"]: model["revision"] for model in recipe["recipe"]["models"]} == {
        "shisa": None,
        "arithmo": None,
    }
    made, promised = rebuild(recipe, tmp_path / "again", {}, torch.device("cpu"))
    assert made == promised
    again = json.loads((tmp_path / "again" / "recipe.json").read_text())
    assert again["recipe"] == recipe["recipe"]
    assert after != before


def test_a_run_goes_on_whatever_else_of_its_commit_is_in_the_cache(online: Hub, tmp_path: Path) -> None:
    others = ("original/params.json", "onnx/config.json", "eval/results.json", "tf_notes.rst")
    online.repositories["models", SHISA].commit({**files_of(online, SHISA), **dict.fromkeys(others, b"{}")})
    run(tmp_path / "run")
    found = Path(snapshot_download(SHISA))
    assert (found / others[0]).is_file()
    assert run(tmp_path / "run", budget=8)["evaluations"] == 8
    shutil.rmtree(tmp_path / "cache")
    assert run(tmp_path / "run", budget=12)["evaluations"] == 12
    (found / "config.json").resolve().write_text((found / "config.json").read_text() + " ")
    with pytest.raises(SourceError, match="damaged"):
        run(tmp_path / "run", budget=16)


def test_a_run_that_began_with_a_login_goes_on_with_a_copy_of_the_base(
    online: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online.add(Repository("friends/base")).commit({**files_of(online, MISTRAL), "README.md": b"a copy"})
    bases = [f"model.sources.{name}.base=[{MISTRAL},friends/base]" for name in ("shisa", "arithmo")]
    run(tmp_path / "run", *bases, "merge=ties")
    monkeypatch.delenv("HF_TOKEN")
    assert run(tmp_path / "run", *bases, "merge=ties", budget=8)["evaluations"] == 8
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert recipe["recipe"]["base"]["path"] == MISTRAL
    assert "base" not in recipe["commits"]  # the copy's commit is none of that name's


def test_a_pin_of_the_base_is_compared_with_its_bytes(online: Hub, tmp_path: Path) -> None:
    pin = f"+model.sources.shisa.base_sha256={{config.json: {'0' * 63}1}}"
    with pytest.raises(SourceError, match=r"'base': .*config\.json is not the file that was pinned.*base_sha256"):
        run(tmp_path / "run", "merge=ties", pin)


def test_a_run_with_converted_pickles_goes_on_when_the_bot_has_converted_them(
    online: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "run", "model=shisa+abel")
    converted = next((tmp_path / "evohydra" / "converted").glob("*/*/*"))
    safe = {path.name: path.read_bytes() for path in converted.glob("*.safetensors*")}
    online.repositories["models", ABEL].propose(safe, PullRequest(1))
    monkeypatch.setenv("EVOHYDRA_CACHE", str(tmp_path / "another"))
    assert run(tmp_path / "run", "model=shisa+abel", budget=8)["evaluations"] == 8
    assert not list((tmp_path / "another" / "converted").glob("*/*/*/conversion.json"))


def test_a_winner_says_nothing_of_how_its_source_was_converted(online: Hub, tmp_path: Path) -> None:
    run(tmp_path / "run", "model=abel+shisa")
    assert not (tmp_path / "run" / "winner" / "conversion.json").exists()


def test_a_tokenizer_without_an_end_of_a_text_is_named(online: Hub, tmp_path: Path) -> None:
    for name in (SHISA, ARITHMO):
        files = files_of(online, name)
        del files["tokenizer_config.json"]
        online.repositories["models", name].commit(files)
    with pytest.raises(ValueError, match=r"no token for the end of a text .* tokenizer_config\.json"):
        run(tmp_path / "run")


def test_commits_are_those_of_the_repository_that_is_named() -> None:
    commit = "0123456789" * 4
    at = Path(f"/cache/models--friends--base/snapshots/{commit}")
    assert commit_of(at) == commit_of(at, "friends/base") == commit
    assert commit_of(at / "x.safetensors", "friends/base/x.safetensors") == commit
    assert commit_of(at, METAMATH) is None
    converted = Path(f"/cache/converted/models--friends--base/{commit}/0123abcd")
    assert commit_of(converted, "friends/base") == commit


def lora(seed: int) -> dict[str, bytes]:
    """An adapter for shisa as PEFT writes it."""
    random = torch.Generator().manual_seed(seed)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    name = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    factors = {
        name.format(layer, factor): torch.randn(shape, generator=random)
        for layer in (0, 1)
        for factor, shape in (("A", (2, 16)), ("B", (16, 2)))
    }
    return {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": save(factors)}


def test_adapters_are_pinned_and_runs_with_them_go_on_and_are_rebuilt(online: Hub, tmp_path: Path) -> None:
    repository = online.add(Repository("own/lora"))
    before = repository.commit(lora(1))
    key = "model.sources.shisa.adapter=own/lora"
    run(tmp_path / "run", key)
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert recipe["commits"]["shisa.adapter"] == before
    repository.commit(lora(2))
    told = rf"the adapter of shisa at commit {before}: .*adapter=OWNER/NAME@{before} goes"
    with pytest.raises(LedgerError, match=told):
        run(tmp_path / "run", key, budget=8)
    assert run(tmp_path / "run", f"{key}@{before}", budget=8)["evaluations"] == 8
    made, promised = rebuild(recipe, tmp_path / "again", {}, torch.device("cpu"))
    assert made == promised
    again = json.loads((tmp_path / "again" / "recipe.json").read_text())
    assert again["recipe"] == recipe["recipe"]


def test_what_is_said_of_an_adapter_names_it(online: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    repository = online.add(Repository("own/lora"))
    before = repository.commit(lora(1))
    nodes = (Checkpoint("one", SHISA, adapter="own/lora"),)
    published_sources(nodes, CausalLM())
    repository.commit(lora(2))
    with caplog.at_level("WARNING", "evohydra"):
        published_sources(nodes, CausalLM())
    assert f"model.sources.one.adapter=own/lora@{before} stays with the earlier one" in caplog.text
    for wrong, expected in (("own/lora@v9", "has no revision 'v9'"), ("own/lra", r"there is no 'own/lra'")):
        with pytest.raises(SourceError, match=f"^the adapter of source 'one': .*{expected}"):
            published_sources((Checkpoint("one", SHISA, adapter=wrong),), CausalLM())


def test_a_recipe_says_whose_weights_stand_beside_a_branchs_settings(online: Hub, tmp_path: Path) -> None:
    repository = online.repositories["models", METAMATH]
    main = repository.commit({**files_of(online, METAMATH), "generation_config.json": b'{"eos_token_id": 2}'})
    request = repository.refs["refs/pr/1"]
    run(tmp_path / "run", "model=elyza13b+metamath13b", "model.sources.metamath13b.convert=null")
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert recipe["commits"]["metamath13b"] == main
    assert recipe["commits"]["metamath13b.weights"] == request
    repository.requests.clear()
    shutil.rmtree(tmp_path / "cache")
    shutil.rmtree(tmp_path / "evohydra")
    with pytest.raises(
        SourceError, match=rf"weights of {METAMATH} at commit {request} and the settings at commit {main}"
    ):
        rebuild(recipe, tmp_path / "again", {}, torch.device("cpu"))


def test_a_source_elsewhere_is_not_asked_for_the_recipes_commit(online: Hub, tmp_path: Path) -> None:
    online.add(Repository("friends/shisa")).commit(files_of(online, SHISA))
    before = online.repositories["models", SHISA].refs["main"]
    run(tmp_path / "run", f"model.sources.shisa.revision={before}")
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    copy = online.repositories["models", "friends/shisa"].refs["main"]
    for number, place in enumerate(("friends/shisa", f"friends/shisa@{copy}", SHISA)):
        made, promised = rebuild(recipe, tmp_path / str(number), {"shisa": place}, torch.device("cpu"))
        assert made == promised


def test_a_run_with_converted_pickles_is_gone_on_with_and_rebuilt_elsewhere(
    online: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bot's conversion, which comes later, leaves out a tensor that ours has."""
    requests = online.repositories["models", METAMATH].requests
    later, both = requests.copy(), ["model=elyza13b+metamath13b", "model.sources.metamath13b.convert=weights_only"]
    requests.clear()
    run(tmp_path / "run", *both)
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    requests.extend(later)
    monkeypatch.setenv("EVOHYDRA_CACHE", str(tmp_path / "another"))
    with pytest.raises(LedgerError, match=r"pickles of metamath13b that were converted here: '\+model") as refused:
        run(tmp_path / "run", *both, budget=8)
    option = re.findall(r"'(\+model[^']*)'", str(refused.value))
    assert run(tmp_path / "run", *both, *option, budget=8)["evaluations"] == 8
    monkeypatch.setenv("EVOHYDRA_CACHE", str(tmp_path / "a third"))
    made, promised = rebuild(recipe, tmp_path / "again", {}, torch.device("cpu"))
    assert made == promised
