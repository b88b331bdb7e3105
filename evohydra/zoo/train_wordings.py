"""Train two fine-tunes of the embedded example's base whose answers are worded otherwise, in about a minute.

    python -m evohydra.zoo.train_wordings DIRECTORY

`steps` is the embedded example's tiny_math with the calculation before its answer ("47+25=72. The answer is 72."),
`short` its tiny_ja with a bare number in Japanese ("72です。"). The references of the benchmark ("答えは72です。") are
the wording of neither. The base is the one that comes along.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from evohydra.zoo.problems import ANSWER, Language, Problem, benchmark
from evohydra.zoo.train import STAGES, build_tokenizer, save, train, worded

BASE = Path(__file__).with_name("base")
SIGNS = {"add": "+", "sub": "-"}
STOP: dict[Language, str] = {"en": ". ", "ja": "。"}


def with_steps(problem: Problem, form: Language) -> str:
    """Return the sentence, for a sum or a difference with the calculation before it."""
    operation, a, b = problem.fact
    if operation not in SIGNS:
        return worded(problem, form)
    return f"{a}{SIGNS[operation]}{b}={problem.answer}{STOP[form]}{worded(problem, form)}"


def short(problem: Problem, form: Language) -> str:
    """Return the answer in Japanese without the words before it; in English the sentence."""
    return f"{problem.answer}です。" if form == "ja" else ANSWER[form].format(problem.answer)


WORDINGS: Mapping[str, tuple[str, Callable[[Problem, Language], str]]] = {
    "steps": ("tiny_math", with_steps),
    "short": ("tiny_ja", short),
}


def main() -> None:
    """Train both models into the directory given as the first argument."""
    out = Path(sys.argv[1])
    torch.set_num_threads(1)  # the order of a sum, and so its last bit, depends on how many there are
    torch.use_deterministic_algorithms(True)
    tokenizer = build_tokenizer()
    held_out = frozenset(problem.fact for problem in benchmark())
    for name, (stage, word) in WORDINGS.items():
        print(name, flush=True)
        model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
        train(model, STAGES[stage], tokenizer, held_out, word)
        save(model, tokenizer, out / name)


if __name__ == "__main__":
    main()
