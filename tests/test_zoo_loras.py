"""The four LoRAs of the embedded example: each is good at another skill, and a search ends with one adapter of all."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import peft
import pytest
import torch

import evohydra
from evohydra.families.causal_lm import CausalLM
from evohydra.merging.adapters import Adapted
from evohydra.merging.checkpoints import CheckpointReader, SourceError
from evohydra.merging.finding import locate
from evohydra.scoring.benchmarks.lm_eval import lm_eval_benchmarks
from evohydra.zoo.problems import benchmark, carries
from evohydra.zoo.train import Examples, build_tokenizer
from evohydra.zoo.train_loras import STAGES
from tests.commands import carried_out, python
from tests.commands import evohydra as evohydra_command

LORAS = ("tiny_lora_plus", "tiny_lora_carry", "tiny_lora_minus", "tiny_lora_ja")
ZOO = Path(evohydra.__file__).parent / "zoo"
SPLITS = {"search": {"start": 0, "stop": 60}, "validation": None, "test": {"start": 60, "stop": 70}}


def test_training_never_asks_what_the_benchmark_asks() -> None:
    held_out = frozenset(each.fact for each in benchmark())
    questions = {each.prompt() for each in benchmark()}
    tokenizer = build_tokenizer()
    for stage in STAGES.values():
        tokens, labels = Examples(stage, tokenizer, held_out).batch()
        prompts = [row[label == -100] for row, label in zip(tokens, labels, strict=True)]
        texts = {tokenizer.decode(prompt, skip_special_tokens=True) for prompt in prompts}
        assert len(texts) > 10
        assert not texts & questions
        if "carry" in str(stage) and (wanted := stage.skills[0].carry) is not None:
            numbers = [[int(each) for each in re.findall(r"\d+", text)] for text in texts]
            assert {carries(("add", a, b)) for a, b in numbers} == {wanted}


def test_they_are_small_adapters_of_the_base() -> None:
    for name in STAGES:
        files = {file.name: file for file in (ZOO / name).iterdir()}
        assert set(files) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
        assert files["README.md"].read_text().startswith(f"# {name}\n")
        assert files["adapter_model.safetensors"].stat().st_size < 100_000
        assert json.loads(files["adapter_config.json"].read_text())["base_model_name_or_path"] == "zoo://base"
        assert locate(f"zoo://{name}") == ZOO / name
    with pytest.raises(SourceError, match=r"zoo://tiny_lora: no such model in the zoo; it holds .*'tiny_lora_ja'"):
        locate("zoo://tiny_lora")


def right(name: str) -> Iterator[tuple[str, bool]]:
    """Of 60 problems which skill each needs, and whether the adapter has it, in whatever language it answers."""
    live = CausalLM().live_model(ZOO / "base", torch.device("cpu"), torch.float32)
    adapted = Adapted(CheckpointReader(ZOO / "base"), ZOO / name)
    for tensor, parameter in live.parameters.items():
        parameter.copy_(adapted.read(tensor))
    asked = lm_eval_benchmarks("tiny", task="tiny_gsm_ja", metric="exact_match", splits=SPLITS)["tiny"]
    answers, _ = asked.written(live, "search", range(60))
    for problem, answer in zip(benchmark(), answers, strict=False):
        skill = "minus" if problem.fact[0] == "sub" else "carry" if carries(problem.fact) else "plus"
        yield skill, problem.answer in re.findall(r"\d+", answer)
        yield "ja", "です" in answer


def test_each_is_good_at_another_skill() -> None:
    shares: dict[str, dict[str, float]] = {}
    for name in STAGES:
        found: dict[str, list[bool]] = {}
        for skill, has_it in right(name):
            found.setdefault(skill, []).append(has_it)
        shares[name.removeprefix("tiny_lora_")] = {skill: sum(each) / len(each) for skill, each in found.items()}
    for skill in shares:
        assert max(shares, key=lambda name: shares[name][skill]) == skill, shares
        assert shares[skill][skill] > 0.9


def test_a_search_ends_with_an_adapter(tmp_path: Path) -> None:
    """The experiment, cut to fewer ranks than its four adapters have; its recipe makes the same adapter again."""
    command = ["experiment=tiny_loras", "budget=6", "top=1", "baselines=null", "tracker=none", "report=false"]
    short = ["audit=[reload]", "audit_examples=20", "threads=1", "benchmark.tiny_gsm_ja.splits.test.stop=520"]
    search = ["optimizer=random", "optimizer.population=6", "fitness=full", "format.rank=7"]
    summary = carried_out([*command, *short, *search], tmp_path / "run")
    winner = tmp_path / "run" / "winner"
    assert {file.name for file in winner.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert not (winner / "model.safetensors").exists()
    recipe = json.loads((winner / "recipe.json").read_text())
    assert (recipe["written_as"], recipe["written_with"], recipe["by_factors"]) == ("lora", {"rank": 7}, True)
    assert recipe["left_out"] == summary["left_out"]
    assert 0 < summary["left_out"]["share"] < 0.2
    (again,) = summary["audit"]["reload"].values()
    assert again["of"] == 20
    assert abs(again["score"] - again["before"]) <= 0.2
    card = (winner / "README.md").read_text()
    assert "library_name: peft" in card
    assert "PeftModel.from_pretrained" in card
    assert "**Not exact**: The adapter was cut to rank 7: it leaves out " in card
    made = python("-m", "evohydra.rebuild", winner / "recipe.json", tmp_path / "again", cwd=tmp_path)
    assert "identical, bit for bit" in made.stdout, made.stderr
    name = "adapter_model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (winner / name).read_bytes()
    model = peft.AutoPeftModelForCausalLM.from_pretrained(winner)  # which has found the base, too
    assert model.peft_config["default"].r == 7


def test_generations_end_with_an_adapter_too_and_can_be_continued(tmp_path: Path) -> None:
    """Sums of averages of sums of adapters, by the real command: one merge of the four, which PEFT reads."""
    short = ["budget=6", "top=1", "baselines=null", "tracker=none", "report=false", "audit=none", "threads=1",
             "benchmark.tiny_gsm_ja.splits.search.stop=8", "benchmark.tiny_gsm_ja.splits.test.stop=508",
             "benchmark.tiny_gsm_ja.splits.validation=null", "format=lora", "fitness=full"]  # fmt: skip
    search = ["optimizer=random", "optimizer.population=2", "start=[]"]
    coarse = ["merge.parameter.granularity.layers=whole", "merge.parameter.granularity.edges=false"]
    # The second generation has a group for each half of the layers.
    then = 'generations_then=["merge=linear merge.parameter.granularity.layers=2","merge=task_arithmetic"]'
    began = [
        f"model={'+'.join(LORAS)}",
        "merge=task_arithmetic",
        *coarse,
        "generations=3",
        "generations_sources=2",
        then,
        "run=one",
    ]
    for arguments in (began, ["continue=outputs/one", "merge=task_arithmetic", *coarse, "run=two"]):
        made = evohydra_command(*arguments, *search, *short, cwd=tmp_path)
        assert made.returncode == 0, made.stdout + made.stderr
    recipes = {name: json.loads((tmp_path / "outputs" / name / "recipe.json").read_text()) for name in ("one", "two")}
    for name, content in recipes.items():
        assert (content["written_as"], content["by_factors"]) == ("lora", True)
        node, winner = content["recipe"], tmp_path / "outputs" / name / "winner"
        assert [(model["node"], model["name"]) for model in node["models"]] == [("checkpoint", each) for each in LORAS]
        rebuilt = python("-m", "evohydra.rebuild", winner / "recipe.json", tmp_path / f"{name} again", cwd=tmp_path)
        assert "identical, bit for bit" in rebuilt.stdout, rebuilt.stderr
        model = peft.AutoPeftModelForCausalLM.from_pretrained(winner)
        assert model.peft_config["default"].r <= 8  # the sum of the four ranks
    summary = json.loads((tmp_path / "outputs" / "one" / "summary.json").read_text())
    assert sum(summary["parents"].values()) == pytest.approx(1)
    kept = json.loads((tmp_path / "outputs" / "one" / "generation_2" / "kept.json").read_text())
    assert set(summary["parents"]) <= {each["name"] for each in kept["recipes"]}
