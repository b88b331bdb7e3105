"""A dress rehearsal: published experiments from empty caches, as they are typed, against the stand-in of the hub.

Budgets are a few genomes, limits a few examples, pictures are small; all else is as published. What this cannot show is
listed in evohydra/docs/sources.md.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import transformers

from evohydra.merging.checkpoints import SourceError
from tests import commands, tiny_scorers
from tests.commands import json_lines
from tests.hub import data_sets
from tests.hub.commands import evohydra, surroundings
from tests.hub.language_models import ABEL, ROWS
from tests.hub.server import Hub

SMALL = ["budget=4", "optimizer.population=4", "top=1", "tracker=none", "report=false", "threads=1"]
LIMITED = ["benchmark.gsm8k_ja_search.limit=2", *SMALL]
PUBLISHED = {
    "jp": ["experiment=evollm_jp", *LIMITED],
    "dfs": ["experiment=evollm_jp_dfs", "model.sources.local.path=jp/winner", "fitness.examples=2", *LIMITED],
    "13b": ["model=elyza13b+metamath13b", "merge=dare_ties+dfs", "optimizer=cmaes", *LIMITED],
    "arithmo": ["model=shisa+arithmo+abel", "merge=ties", "tracker=none", *LIMITED],
    "vlm": ["experiment=evovlm_jp", "benchmark.ja_vg_vqa_search.data_files=vg/search.jsonl",
            "benchmark.ja_vg_vqa_search.limit=2", *SMALL],
    "wild": ["model=shisa+llava16_mistral", "merge=dare_ties", "benchmark=[ja_vlm_bench_in_the_wild]",
             "optimizer=cmaes", "fitness=full", "dtype=bfloat16", *SMALL],
    "jnli": ["model=shisa+arithmo", "merge=ties", "benchmark=lm_eval", "benchmark.lm_eval.task=jp_lmeh_jnli",
             "benchmark.lm_eval.metric=score", "benchmark.lm_eval.limit=2", *SMALL],
    "ukiyoe": ["experiment=evo_ukiyoe_base", "threads=1"],
    "sdxl": ["experiment=evosdxl_jp", "benchmark.ja_prompts.scorers.clip.path=clip", "benchmark.ja_prompts.limit=2",
             "benchmark.ja_prompts.height=16", "benchmark.ja_prompts.width=16", *SMALL],
}  # fmt: skip
UNNEEDED = (
    "consolidated",
    "original/",
    ".onnx",
    ".msgpack",
    ".ckpt",
    "sd_xl_base_1.0",
    "_unet.",
    "Juggernaut-XL_v9",
    "vae_1_0",
    "sdxl_lightning_4step.safetensors",
    "pipeline.py",
    "README",
)


def several(hub: Hub, home: Path, names: list[str], **changes: str) -> dict[str, dict[str, Any]]:
    """What came of these experiments, carried out in one process whose caches are below `home`."""
    lines = json.dumps([[name, *PUBLISHED[name]] for name in names])
    (home / "lines.json").write_text(lines)
    came: dict[str, dict[str, Any]] = {}
    with (
        (home / "lines.json").open() as stdin,
        (home / "stderr.txt").open("w+") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "tests.hub.several"],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=home,
            env=commands.environment(**{**surroundings(hub, home), **changes}),
        ) as process,
    ):
        before = len(hub.asked)
        for line in process.stdout or ():
            answer = json.loads(line)
            name = answer["name"]
            came[name] = {**answer, "requests": len(hub.asked) - before}
            before = len(hub.asked)
            print(_row(" ".join(PUBLISHED[name]), came[name]))
    failed = {name: came.get(name, {}).get("error", (home / "stderr.txt").read_text()) for name in names}
    assert not {name: why for name, why in failed.items() if "summary" not in came.get(name, {})}
    return came


def _row(typed: str, came: dict[str, Any]) -> str:
    """A row of the table in evohydra/docs/sources.md."""
    tested = ((came.get("summary") or {}).get("test") or {}).get("winner") or {}
    what = (
        f"{came['summary']['evaluations']} genomes, winner on {tested['n']} examples"
        if tested
        else came.get("error", "winner")
    )
    return f"| `{typed}` | {what} | {came['seconds']} | {came['requests']} |"


def prepared(home: Path) -> Path:
    """What a user brings along: pictures with questions, and a CLIP that judges."""
    (home / "vg").mkdir(parents=True)
    rows = []
    for number in range(6):
        (home / "vg" / f"{number}.png").write_bytes(data_sets.picture(number))
        rows.append({"image": f"{number}.png", "image_id": number, "question": "何色ですか？", "answer": "赤です"})
    (home / "vg" / "search.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny_scorers.save(home / "clip", tiny_scorers.clip_config())
    return home


def scores(came: dict[str, Any]) -> object:
    """All scores on search and test."""
    return {split: came["summary"][split] for split in ("search", "test") if split in came["summary"]}


def test_the_line_that_everybody_types(hub: Hub, tmp_path: Path) -> None:
    line = ["model=shisa+wizardmath", "optimizer=cmaes"]
    began = time.perf_counter()
    done = evohydra(hub, tmp_path, *line, *LIMITED, "run=first")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "outputs" / "first" / "summary.json").read_text())
    came = {"summary": summary, "seconds": round(time.perf_counter() - began, 1), "requests": len(hub.asked)}
    print(_row(" ".join(line), came))
    assert set(summary["test"]["sources"]) == {"shisa", "wizardmath"}
    assert summary["test"]["winner"]["n"] == 2
    recipe = json.loads((tmp_path / "outputs" / "first" / "recipe.json").read_text())
    revisions = {model["name"]: model["revision"] for model in recipe["recipe"]["models"]}
    assert revisions == {"shisa": None, "wizardmath": "3a3082632fd2f75def2e54ae3286b4360c8d6aa2"}
    winner = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "outputs" / "first" / "winner")
    assert winner.config.vocab_size == ROWS
    assert not [name for name in hub.files() if name.endswith(".bin")]
    hub.asked.clear()
    again = evohydra(hub, tmp_path, *line, *LIMITED, "run=second", HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again.stderr
    assert not hub.asked
    assert json.loads((tmp_path / "outputs" / "second" / "summary.json").read_text())["test"] == summary["test"]


@pytest.mark.slow
def test_the_same_line_with_no_option_at_all(hub: Hub, tmp_path: Path) -> None:
    done = evohydra(hub, tmp_path, "model=shisa+wizardmath", "optimizer=cmaes")
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "outputs").iterdir()
    assert (run / "winner" / "recipe.json").is_file()
    assert list((run / "wandb").iterdir())
    summary = json.loads((run / "summary.json").read_text())
    assert summary["evaluations"] == summary["budget"] == len(json_lines(run / "ledger.jsonl"))


@pytest.mark.parametrize("names", [("jp", "dfs", "13b", "arithmo"), ("vlm", "wild", "ukiyoe", "sdxl")], ids="+".join)
def test_published_experiments_run_as_they_are_typed(hub: Hub, tmp_path: Path, names: tuple[str, ...]) -> None:
    home = prepared(tmp_path / "home")
    came = several(hub, home, [*names])
    for name in names:
        assert (home / name / "winner" / "recipe.json").is_file()
        assert name == "ukiyoe" or came[name]["summary"]["test"]["winner"]["n"] == (4 if name == "wild" else 2)
    got = hub.files()
    assert len(got) > 20
    assert not [name for name in got if any(part in name for part in UNNEEDED) and name != "README.md"]
    pickles = {name for name in got if name.endswith(".bin")}
    assert pickles == ({f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)} if "jp" in names else set())


def test_settings_of_a_benchmark_that_is_not_chosen_are_named(hub: Hub, tmp_path: Path) -> None:
    line = ["experiment=evovlm_jp", "benchmark=[ja_vlm_bench_in_the_wild]", *SMALL, "run=first"]
    refused = evohydra(hub, tmp_path, *line)
    assert refused.returncode == 1
    assert "benchmark.ja_vg_vqa_search: there are settings (batch_size, cache_gb, " in refused.stderr
    done = evohydra(hub, tmp_path, *line, "~benchmark.ja_vg_vqa_search")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_all_of_them_run_offline_from_the_cache(hub: Hub, tmp_path: Path) -> None:
    home = prepared(tmp_path / "home")
    first = several(hub, home, [*PUBLISHED])
    del first["jnli"]  # its data set is a pattern of files on the hub, which datasets looks up each time
    for name in first:
        (home / name).rename(home / f"{name}-online")
    (home / "jp-online").rename(home / "jp")  # the second run's source
    hub.asked.clear()
    again = several(hub, home, [name for name in first if name != "jp"], HF_HUB_OFFLINE="1")
    (home / "jp").rename(home / "jp-online")
    again |= several(hub, home, ["jp"], HF_HUB_OFFLINE="1")
    assert not hub.asked
    assert {name: scores(came) for name, came in again.items()} == {name: scores(came) for name, came in first.items()}


@pytest.mark.slow
def test_search_strategies_are_compared_on_the_line_that_everybody_types(hub: Hub, tmp_path: Path) -> None:
    sweep = [
        "-m",
        "model=shisa+wizardmath",
        "optimizer=cmaes,de,random",
        "budget=16",
        "top=1",
        "tracker=none",
        "threads=1",
    ]
    done = evohydra(hub, tmp_path, *sweep, "benchmark.gsm8k_ja_search.limit=2", "run=sweep")
    assert done.returncode == 0, done.stderr
    for job in range(3):
        assert (tmp_path / "outputs" / "sweep" / str(job) / "winner" / "recipe.json").is_file()
    assert (tmp_path / "outputs" / "sweep" / "report.html").is_file()
    assert len([name for name in hub.files() if name.endswith(".safetensors")]) == 6


@pytest.mark.parametrize(
    ("arguments", "login", "expected"),
    [
        (["model=shisa+abel", "model.sources.abel.convert=null"], True, "model.sources.abel.convert=weights_only"),
        (["model=shisa+wizardmath"], False, "https://huggingface.co/mistralai/Mistral-7B-v0.1"),
        (["model=shisa+abel", "model.sources.abel.path=GAIR/Abel-7B-02"], True, f"Near names on the hub: {ABEL}"),
    ],
    ids=["pickles", "gated", "wrong name"],
)
def test_what_is_not_to_be_had_is_refused_with_what_to_do(
    online: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], login: bool, expected: str
) -> None:
    if not login:
        monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(SourceError) as refused:
        commands.built([*arguments, "tracker=none", "threads=1"], tmp_path / "run")
    assert expected in str(refused.value)
