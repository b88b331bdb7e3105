"""Train the embedded example's base and its two fine-tunes from nothing, the same on every run of one machine."""

import copy
import json
import math
import random
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from evohydra.zoo.problems import (
    ANSWER,
    Fact,
    Language,
    Operation,
    Problem,
    benchmark,
    carries,
    draw_unseen,
    token_pattern,
    vocabulary,
)

IGNORED = -100


@dataclass(frozen=True)
class Skill:
    """A kind of example: its weight in the mix, what is asked, with numbers of low..high, and the answer's language.

    It is answered in Japanese with probability sigmoid(lean + habit), where the lean is the problem's. `carry`: whether
    a ten is carried in its sums (None: in some).
    """

    weight: float
    language: Language
    operations: tuple[Operation, ...]
    low: int
    high: int
    habit: float = -math.inf
    carry: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast to train: warm-up, then a cosine to `floor` of the peak."""

    steps: int
    learning_rate: float
    seed: int
    batch: int = 64
    warmup: int = 20
    floor: float = 0.1

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        cosine = 0.5 * (1.0 + math.cos(math.pi * step / self.steps))
        return self.learning_rate * min(1.0, (step + 1) / self.warmup) * (self.floor + (1.0 - self.floor) * cosine)


@dataclass(frozen=True, kw_only=True)
class Stage(Schedule):
    """One training run: its mix of skills, and its schedule."""

    skills: tuple[Skill, ...]


SUMS: tuple[Operation, ...] = ("add", "sub")
READING: tuple[Operation, ...] = ("copy", "most")
STAGES = {
    # The base knows both languages, but mixes them up: a Japanese problem is answered in the language it leans to.
    "base": Stage(
        skills=(
            Skill(0.40, "en", SUMS, 10, 99),
            Skill(0.05, "en", SUMS, 1, 9),
            Skill(0.05, "en", READING, 10, 99),
            Skill(0.05, "ja", SUMS, 10, 99, habit=0.0),
            Skill(0.25, "ja", SUMS, 1, 9, habit=0.0),
            Skill(0.20, "ja", READING, 10, 99, habit=0.0),
        ),
        steps=1200,
        learning_rate=1.5e-3,
        seed=1,
        warmup=100,
        floor=1.0,
    ),
    # Two-digit sums, whatever language they are asked in, answered in English.
    "tiny_math": Stage(
        skills=(
            Skill(0.65, "en", SUMS, 10, 99),
            Skill(0.05, "en", READING, 10, 99),
            Skill(0.255, "ja", SUMS, 10, 99, habit=-8.0),
            Skill(0.045, "ja", READING, 10, 99, habit=-8.0),
        ),
        steps=400,
        learning_rate=8e-4,
        seed=2,
    ),
    # Japanese answers, to English questions too, but no number beyond one digit: it forgets much of the base's
    # arithmetic. A merge that takes too much of it loses the English answers, which a limit (guard) can keep.
    "tiny_ja": Stage(
        skills=(
            Skill(0.68, "ja", SUMS, 1, 9, habit=5.0),
            Skill(0.22, "ja", READING, 1, 9, habit=5.0),
            Skill(0.10, "en", SUMS, 1, 9, habit=5.0),
        ),
        steps=100,
        learning_rate=3e-4,
        seed=3,
    ),
}


def build_tokenizer(tokens: list[str] | None = None) -> PreTrainedTokenizerFast:
    """Return the tokenizer of these tokens, or of the word problems'; it adds none of its own, and pads on the left."""
    tokens = vocabulary() if tokens is None else tokens
    core = Tokenizer(models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(token_pattern(tokens)), behavior="isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens([token for token in tokens[3:] if re.fullmatch(r"<\w+>", token)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=128,
    )


def build_model(vocabulary_size: int) -> LlamaForCausalLM:
    """Return the untrained model of six layers."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=6,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        initializer_range=0.05,
    )
    return LlamaForCausalLM(config)


def worded(problem: Problem, form: Language) -> str:
    """Return the problem's answer in a sentence."""
    return ANSWER[form].format(problem.answer)


class Examples:
    """Batches of examples that hold none of the benchmark's sums; `word` makes the answer in a language."""

    def __init__(
        self,
        stage: Stage,
        tokenizer: PreTrainedTokenizerFast,
        held_out: frozenset[Fact],
        word: Callable[[Problem, Language], str] = worded,
    ) -> None:
        """Draw from the stage's own seed."""
        self.stage = stage
        self.word = word
        self.tokenizer = tokenizer
        self.held_out = held_out
        self.rng = random.Random(stage.seed)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens and labels, both (batch, length) and padded on the right; only an answer has labels."""
        prompts, answers = [], []
        skills = self.rng.choices(self.stage.skills, [s.weight for s in self.stage.skills], k=self.stage.batch)
        for skill in skills:
            operation = self.rng.choice(skill.operations)
            while True:
                problem = draw_unseen(self.rng, skill.language, operation, skill.low, skill.high, self.held_out)
                if skill.carry is None or skill.carry == carries(problem.fact):
                    break
            japanese = 1.0 / (1.0 + math.exp(-problem.lean - skill.habit))
            form: Language = "ja" if self.rng.random() < japanese else "en"
            prompts.append(problem.prompt())
            answers.append(self.word(problem, form))
        return padded(self.tokenizer(prompts)["input_ids"], self.tokenizer(answers)["input_ids"])


def padded(asked: Sequence[list[int]], answered: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens and labels of prompts and their answers, (batch, length) and padded on the right."""
    length = max(len(a) + len(b) for a, b in zip(asked, answered, strict=True)) + 1
    tokens = torch.zeros((len(asked), length), dtype=torch.long)
    labels = torch.full_like(tokens, IGNORED)
    for row, (prompt, answer) in enumerate(zip(asked, answered, strict=True)):
        whole = torch.tensor([*prompt, *answer, 1])
        tokens[row, : len(whole)] = whole
        labels[row, len(prompt) : len(whole)] = whole[len(prompt) :]
    return tokens, labels


def fit(model: PreTrainedModel, schedule: Schedule, batch: Callable[[], Mapping[str, torch.Tensor]]) -> None:
    """Train the model in place on the batches, by the schedule."""
    model.train()
    descend(list(model.parameters()), schedule, lambda: model(**batch()).loss)
    model.eval()


def descend(parameters: Sequence[torch.nn.Parameter], schedule: Schedule, loss: Callable[[], torch.Tensor]) -> None:
    """Make the loss smaller by changing the parameters in place, by the schedule."""
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True
    )
    for step in range(schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        now = loss()
        now.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 100 == 0:
            print(f"  step {step + 1} of {schedule.steps}: loss {now.item():.3f}", flush=True)


def train(
    model: LlamaForCausalLM,
    stage: Stage,
    tokenizer: PreTrainedTokenizerFast,
    held_out: frozenset[Fact],
    word: Callable[[Problem, Language], str] = worded,
) -> None:
    """Train the model in place through the stage."""
    examples = Examples(stage, tokenizer, held_out, word)
    fit(model, stage, lambda: dict(zip(("input_ids", "labels"), examples.batch(), strict=True)))


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Write the model, how it generates, and the tokenizer to the directory."""
    model.generation_config = GenerationConfig(do_sample=False, pad_token_id=0, eos_token_id=1)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    # Releases of transformers before 5 know the tokenizer's class by this name only; later ones know both.
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def main() -> None:
    """Train the three models into the directory given as the first argument."""
    out = Path(sys.argv[1])
    # One thread: the order of a sum, and so its last bit, depends on how many there are.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    tokenizer = build_tokenizer()
    held_out = frozenset(problem.fact for problem in benchmark())
    base = build_model(len(tokenizer))
    for name, stage in STAGES.items():
        print(name, flush=True)
        model = base if name == "base" else copy.deepcopy(base)
        train(model, stage, tokenizer, held_out)
        save(model, tokenizer, out / name)


if __name__ == "__main__":
    main()
