"""Train four LoRAs of the embedded example's base, each good at another skill, in three minutes of one core.

    python -m evohydra.zoo.train_loras DIRECTORY

`tiny_lora_plus` adds and `tiny_lora_minus` subtracts numbers of two digits, both in the languages that the base mixes
up; `tiny_lora_ja` answers Japanese problems in Japanese, `tiny_lora_en` English ones in English. A merge of all four
solves what none of them does: sums and differences, in the language of the question. Needs PEFT.
"""

import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from evohydra.zoo.problems import benchmark
from evohydra.zoo.train import READING, SUMS, Skill, Stage, build_tokenizer, train

BEGIN = Path(__file__).with_name("base")
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RANK, ALPHA = 2, 8
STAGES = {
    "tiny_lora_plus": Stage(
        skills=(Skill(0.5, "en", ("add",), 10, 99), Skill(0.5, "ja", ("add",), 10, 99, habit=0.0)),
        steps=150,
        learning_rate=6e-3,
        seed=21,
    ),
    "tiny_lora_minus": Stage(
        skills=(Skill(0.5, "en", ("sub",), 10, 99), Skill(0.5, "ja", ("sub",), 10, 99, habit=0.0)),
        steps=150,
        learning_rate=6e-3,
        seed=22,
    ),
    # One digit: it forgets much of the base's arithmetic.
    "tiny_lora_ja": Stage(
        skills=(Skill(0.75, "ja", SUMS, 1, 9, habit=5.0), Skill(0.25, "ja", READING, 1, 9, habit=5.0)),
        steps=60,
        learning_rate=4e-3,
        seed=23,
    ),
    "tiny_lora_en": Stage(
        skills=(Skill(0.75, "en", SUMS, 1, 9), Skill(0.25, "en", READING, 1, 9)),
        steps=60,
        learning_rate=4e-3,
        seed=24,
    ),
}


def main() -> None:
    """Train all four adapters into the directory given as the first argument."""
    out = Path(sys.argv[1])
    torch.set_num_threads(1)  # the order of a sum, and so its last bit, depends on how many there are
    torch.use_deterministic_algorithms(True)
    tokenizer = build_tokenizer()
    held_out = frozenset(problem.fact for problem in benchmark())
    for name, stage in STAGES.items():
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
