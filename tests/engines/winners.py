"""Winners as runs write them, of the zoo and of a real model, with problems that engines are asked."""

import json
from pathlib import Path

from tests.benchmarks import smollm2
from tests.commands import REPOSITORY, carried_out
from tests.engines.comparison import Reference

TEST = 500  # from where on problems are those of the test split
TASKS = REPOSITORY / "evohydra" / "scoring" / "benchmarks" / "tasks"
Winner = tuple[Reference, Path]  # and one of its sources
MODEL = "family: evohydra.families.causal_lm.CausalLM\npath: {path}\nbase: {base}\nlicence: apache-2.0\n"


def problems(task: str, count: int, prompt: str, reference: str) -> list[tuple[str, str]]:
    """The first test problems of one of the zoo's tasks, in these words."""
    lines = (TASKS / task / "problems.jsonl").read_text().splitlines()[TEST : TEST + count]
    return [(prompt.format(**row), reference.format(**row)) for row in map(json.loads, lines)]


def zoo(root: Path) -> Winner:
    """A merge of the zoo's models in float32; each problem has its reference."""
    weights = "{*/tiny_ja: 0.55, */tiny_math: 0.6}"
    given = ["model=tiny_ja+tiny_math", "benchmark=[]", f"merge.parameter.frozen={weights}", "tracker=none"]
    carried_out(given, root / "run")
    asked = problems("tiny_gsm_ja", 64, "問：{question}答：", "答えは{answer}です。")
    return Reference(root / "run" / "winner", asked, 8, 64), REPOSITORY / "evohydra" / "zoo" / "tiny_math"


def real(root: Path) -> Winner:
    """A merge of SmolLM2-135M-Instruct and two variants of it, in bfloat16; raises smollm2.Missing.

    Sixteen answers of at most 16 tokens, six references: of llama.cpp each token of these is a request.
    """
    base, variants = smollm2.prepare(root, None)
    conf = root / "conf" / "model"
    conf.mkdir(parents=True)
    for variant in variants:
        text = f"# @package model.sources.{variant.name}\n" + MODEL.format(path=variant, base=base)
        (conf / f"{variant.name}.yaml").write_text(text)
    given = [f"hydra.searchpath=[file://{conf.parent}]", "model=one+two", "benchmark=[]", "tracker=none", "threads=1"]
    carried_out([*given, "merge.parameter.frozen={*/one: 0.7, */two: 0.4}"], root / "run")
    asked = problems("tiny_gsm_en", 16, "Question: {question}\nAnswer:", " The answer is {answer}.")
    return Reference(root / "run" / "winner", asked, 16, 6), variants[0]


WINNERS = {"zoo": zoo, "SmolLM2-135M": real}
