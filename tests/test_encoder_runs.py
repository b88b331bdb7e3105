"""Searches over encoders by the command: workers in processes, winners that others load, resuming, and refusals."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from tests import commands, tiny_encoders
from tests.commands import carried_out, evohydra, json_lines


def workspace(root: Path, *, architecture: str = "bert", layout: bool = True) -> list[str]:
    """Two tiny encoders on one base, and texts with labels; the command line of a search over their merges."""
    base = tiny_encoders.save(root / "base", 0, architecture)
    for seed, name in ((1, "one"), (2, "two")):
        place = tiny_encoders.save(root / name, seed, architecture, near=base, step=0.8)
        if layout:
            tiny_encoders.as_sentences(place, folder="0_Transformer")
    tiny_encoders.save_texts(root / "texts.jsonl")
    return [
        "model=local_encoder", "~model.sources.local_encoder",
        *(f"+model.sources.{name}={{path: {root / name}, base: {base}}}" for name in ("one", "two")),
        "benchmark=embedding_classification", f"benchmark.embedding_classification.data_files={root / 'texts.jsonl'}",
        "merge=task_arithmetic", "optimizer=cmaes", "optimizer.population=6", "budget=18", "tracker=none",
        "report=false", "threads=1", f"hydra.run.dir={root / 'out'}",
    ]  # fmt: skip


def test_a_search_by_command_in_processes(tmp_path: Path) -> None:
    """Its winner is loaded by AutoModel, and is no worse on search than the sources that it began with."""
    command = workspace(tmp_path)
    done = evohydra(*command, "executor=processes", "executor.workers=2", "report=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    lines = json_lines(tmp_path / "out" / "ledger.jsonl")
    assert len(lines) == 18
    assert summary["search"]["winner"]["score"] == max(line["fitness"] for line in lines)
    winner = tmp_path / "out" / "winner"
    model = transformers.AutoModel.from_pretrained(winner)
    assert type(model).__name__ == "BertModel"
    base = transformers.AutoModel.from_pretrained(tmp_path / "base")
    assert not torch.equal(model.encoder.layer[0].output.dense.weight, base.encoder.layer[0].output.dense.weight)
    assert json.loads((winner / "modules.json").read_text())[0]["path"] == ""
    assert (winner / "1_Pooling" / "config.json").is_file()
    card = (winner / "README.md").read_text()
    assert "pipeline_tag: feature-extraction" in card
    assert (tmp_path / "out" / "report.html").is_file()
    again = commands.python("-m", "evohydra.rebuild", winner / "recipe.json", tmp_path / "again", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (winner / "model.safetensors").read_bytes()


def test_a_run_goes_on_as_if_it_had_not_been_cut_short(tmp_path: Path) -> None:
    command = workspace(tmp_path, architecture="modernbert", layout=False)
    whole = carried_out([*command, "budget=18"], tmp_path / "whole")
    carried_out([*command, "budget=6"], tmp_path / "cut")
    assert carried_out([*command, "budget=18"], tmp_path / "cut")["search"] == whole["search"]
    scored = [{key: line[key] for key in ("genes", "fitness")} for line in json_lines(tmp_path / "whole/ledger.jsonl")]
    later = [{key: line[key] for key in ("genes", "fitness")} for line in json_lines(tmp_path / "cut/ledger.jsonl")]
    assert later == scored


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["fitness=likelihood"], "benchmark 'embedding_classification' has no likelihood of right answers"),
        (
            ["benchmark=tiny_gsm_ja"],
            r"scores models of the families \['causal_lm'\], the sources are of the family 'encoder'",
        ),
        (["merge=dfs"], "encoders are merged in parameter space: expected merge=METHOD"),
        (["merge=linear+dfs"], "encoders are merged in parameter space: expected merge=METHOD"),
        (["benchmark=[auto]"], "choose one that fits with benchmark=NAME: embedding_classification"),
        (["benchmark.embedding_classification.k=200"], "k: expected at most 36 references, got 200"),
        (["format=single_file"], "format=single_file"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(more: list[str], message: str, tmp_path: Path) -> None:
    command = workspace(tmp_path)
    if any(each.startswith("benchmark=") for each in more):
        command = [each for each in command if not each.startswith("benchmark")]
    with pytest.raises(ValueError, match=message):
        carried_out([*command, *more], tmp_path / "out")


def test_cheaper_kinds_of_fitness_search_encoders_too(tmp_path: Path) -> None:
    command = workspace(tmp_path, architecture="distilbert", layout=False)
    for kind in ("subset", "racing", "irt"):
        summary = carried_out([*command, f"fitness={kind}"], tmp_path / kind)
        assert summary["evaluations"] == 18
        assert 0 < summary["test"]["winner"]["score"] <= 1


def test_a_language_model_is_no_encoder(tmp_path: Path) -> None:
    command = [each for each in workspace(tmp_path) if not each.startswith("+model.sources.two")]
    with pytest.raises(ValueError, match="sources of different families cannot be merged"):
        carried_out([*command, "+model.sources.two={path: 'zoo://tiny_ja'}"], tmp_path / "out")


def test_pairs_in_order_are_searched_by_command(tmp_path: Path) -> None:
    command = [each for each in workspace(tmp_path) if not each.startswith("benchmark")]
    rows = [
        {"sentence1": f"fish{n % 12} cloud{n // 12}", "sentence2": f"fish{(n * 5) % 12} cloud{n // 12}", "score": n % 4}
        for n in range(100)
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    asked = ["benchmark=embedding_similarity", f"benchmark.embedding_similarity.data_files={tmp_path / 'pairs.json'}"]
    done = evohydra(*command, *asked, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert 0 < summary["test"]["winner"]["score"] < 1
    assert summary["data"]["embedding_similarity"]["test"]["examples"] == 30


def test_a_head_is_searched_and_written(tmp_path: Path) -> None:
    kind = transformers.AutoModelForSequenceClassification
    labels = {0: "stone", 1: "cloud", 2: "fish"}
    base = tiny_encoders.save(tmp_path / "base", 0, kind=kind, id2label=labels)
    command = workspace(tmp_path / "others")
    command = [each for each in command if not each.startswith(("+model", "hydra.run"))]
    for seed, name in ((1, "one"), (2, "two")):
        place = tiny_encoders.save(tmp_path / name, seed, kind=kind, near=base, step=2.0)
        command.append(f"+model.sources.{name}={{path: {place}, base: {base}}}")
    summary = carried_out([*command, "benchmark.embedding_classification.rule=head"], tmp_path / "out")
    winner = kind.from_pretrained(tmp_path / "out" / "winner").eval()
    assert winner.config.id2label == labels
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out" / "winner")
    with torch.inference_mode():
        assert winner(**tokenizer("fish1", return_tensors="pt", return_token_type_ids=False)).logits.shape == (1, 3)
    assert "vectors do not depend on it" in (tmp_path / "out" / "winner" / "README.md").read_text()
    assert summary["evaluations"] == 18
    with pytest.raises(ValueError, match="rule=head: expected a model with a head"):
        carried_out([*workspace(tmp_path / "bare"), "benchmark.embedding_classification.rule=head"], tmp_path / "no")
    assert not (tmp_path / "no" / "winner").exists()
