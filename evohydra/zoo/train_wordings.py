"""Train a base that knows two wordings of an answer, and two fine-tunes that have one each, in five minutes.

    python -m evohydra.zoo.train_wordings DIRECTORY

`wordings_base` goes on from the embedded example's base, and words its answers in either way. `tiny_steps` calculates
well, writes the calculation first, and answers a third of Japanese problems in Japanese ("しきは47+25=72です。");
`tiny_short` answers in Japanese with the bare number ("72です。") and calculates worse. The reference of the benchmark
("答えは72です。") is what none of them writes.
"""

import random
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from evohydra.zoo.problems import ANSWER, Language, Problem, benchmark
from evohydra.zoo.train import READING, SUMS, Skill, Stage, build_tokenizer, save, train, worded

Word = Callable[[Problem, Language], str]
BEGIN = Path(__file__).with_name("base")
SIGNS = {"add": "+", "sub": "-"}
STAGES = {
    "wordings_base": Stage(
        skills=(
            Skill(0.30, "en", SUMS, 10, 99),
            Skill(0.05, "en", SUMS, 1, 9),
            Skill(0.05, "en", READING, 10, 99),
            Skill(0.15, "ja", SUMS, 10, 99, habit=0.0),
            Skill(0.25, "ja", SUMS, 1, 9, habit=0.0),
            Skill(0.20, "ja", READING, 10, 99, habit=0.0),
        ),
        steps=1500,
        learning_rate=1.2e-3,
        seed=11,
        floor=0.3,
    ),
    # Two-digit sums, whatever language they are asked in, answered more often in English.
    "tiny_steps": Stage(
        skills=(
            Skill(0.50, "en", SUMS, 10, 99),
            Skill(0.05, "en", READING, 10, 99),
            Skill(0.40, "ja", SUMS, 10, 99, habit=-1.5),
            Skill(0.05, "ja", READING, 10, 99, habit=-1.5),
        ),
        steps=300,
        learning_rate=5e-4,
        seed=12,
    ),
    # Japanese answers, with few numbers beyond one digit.
    "tiny_short": Stage(
        skills=(
            Skill(0.60, "ja", SUMS, 1, 9, habit=5.0),
            Skill(0.15, "ja", SUMS, 10, 99, habit=5.0),
            Skill(0.25, "ja", READING, 1, 9, habit=5.0),
        ),
        steps=60,
        learning_rate=3e-4,
        seed=13,
    ),
}


def with_steps(problem: Problem, form: Language) -> str:
    """Return a sum or a difference with its calculation; any other answer in the sentence of the references."""
    operation, a, b = problem.fact
    if operation not in SIGNS:
        return worded(problem, form)
    calculation = f"{a}{SIGNS[operation]}{b}={problem.answer}"
    return f"しきは{calculation}です。" if form == "ja" else f"{calculation}. {ANSWER[form].format(problem.answer)}"


def short(problem: Problem, form: Language) -> str:
    """Return the answer in Japanese without the words before it; in English the sentence."""
    return f"{problem.answer}です。" if form == "ja" else ANSWER[form].format(problem.answer)


def any_of(wordings: tuple[Word, ...], seed: int) -> Word:
    """Return what words each answer in one of these ways, at random."""
    rng = random.Random(seed)
    return lambda problem, form: rng.choice(wordings)(problem, form)


def main() -> None:
    """Train all three models into the directory given as the first argument."""
    out = Path(sys.argv[1])
    torch.set_num_threads(1)  # the order of a sum, and so its last bit, depends on how many there are
    torch.use_deterministic_algorithms(True)
    tokenizer = build_tokenizer()
    held_out = frozenset(problem.fact for problem in benchmark())
    words = {"wordings_base": any_of((short, with_steps), 7), "tiny_steps": with_steps, "tiny_short": short}
    for name, word in words.items():
        print(name, flush=True)
        begin = BEGIN if name == "wordings_base" else out / "wordings_base"
        model = AutoModelForCausalLM.from_pretrained(begin, dtype=torch.float32)
        train(model, STAGES[name], tokenizer, held_out, word)
        save(model, tokenizer, out / name)


if __name__ == "__main__":
    main()
