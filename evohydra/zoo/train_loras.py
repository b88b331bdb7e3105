"""Train four LoRAs of the embedded example's base, each good at another skill, in three minutes of one core.

    python -m evohydra.zoo.train_loras DIRECTORY [NAME ...]

`tiny_lora_plus` adds numbers of two digits where no ten is carried, `tiny_lora_carry` where one is, `tiny_lora_minus`
subtracts; all three answer in either language, as the base does. `tiny_lora_ja` answers in Japanese, and calculates
worse. A merge of all four solves what none of them does: sums and differences, answered in Japanese. Needs PEFT.
"""

import math
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from evohydra.zoo.problems import Language, Operation, benchmark
from evohydra.zoo.train import READING, SUMS, Skill, Stage, build_tokenizer, train

BEGIN = Path(__file__).with_name("base")
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RANK, ALPHA = 2, 8
HABITS: dict[Language, float] = {"en": -math.inf, "ja": 0.0}  # of answers, by the language of questions: the base's


def sums(operation: Operation, seed: int, carry: bool | None = None) -> Stage:
    """One operation with numbers of two digits, asked in both languages."""
    skills = (Skill(0.5, language, (operation,), 10, 99, habit, carry) for language, habit in HABITS.items())
    return Stage(skills=tuple(skills), steps=150, learning_rate=6e-3, seed=seed)


STAGES = {
    "tiny_lora_plus": sums("add", 21, carry=False),
    "tiny_lora_carry": sums("add", 24, carry=True),
    "tiny_lora_minus": sums("sub", 22),
    # One digit: it forgets much of the base's arithmetic.
    "tiny_lora_ja": Stage(
        skills=(Skill(0.75, "ja", SUMS, 1, 9, habit=5.0), Skill(0.25, "ja", READING, 1, 9, habit=5.0)),
        steps=60,
        learning_rate=4e-3,
        seed=23,
    ),
}


def main() -> None:
    """Train all four adapters, or those of the other arguments, into the directory given as the first argument."""
    out = Path(sys.argv[1])
    torch.set_num_threads(1)  # the order of a sum, and so its last bit, depends on how many there are
    torch.use_deterministic_algorithms(True)
    tokenizer = build_tokenizer()
    held_out = frozenset(problem.fact for problem in benchmark())
    for name in sys.argv[2:] or STAGES:
        stage = STAGES[name]
        print(name, flush=True)
        torch.manual_seed(stage.seed)  # of the factors' first values
        config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, task_type="CAUSAL_LM")
        base = AutoModelForCausalLM.from_pretrained(BEGIN, dtype=torch.float32)
        model = get_peft_model(base, config)
        train(model, stage, tokenizer, held_out)
        model.peft_config["default"].base_model_name_or_path = "zoo://base"
        model.save_pretrained(out / name)


if __name__ == "__main__":
    main()
