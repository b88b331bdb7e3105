"""Train the tiny encoders from nothing, the same on every run of one machine: a base, and one for each language."""

import copy
import json
import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast

from evohydra.zoo.topics import LANGUAGES, TOPICS, Language, benchmark, draw_unseen, vocabulary, words_of
from evohydra.zoo.train import IGNORED, Schedule, descend, fit

MASKED = 0.25  # of all words
SHARPNESS = 10.0  # of cosines between texts and topics


@dataclass(frozen=True, kw_only=True)
class Stage(Schedule):
    """One training run: the languages of its texts, and the share of texts in the other one, which have no topic."""

    languages: tuple[Language, ...]
    foreign: float = 0.0


STAGES = {
    # The base fills in masked words of both languages, and has seen no topic.
    "topics_base": Stage(languages=("en", "ja"), steps=60, learning_rate=2e-3, seed=1),
    # Each of its fine-tunes tells topics apart in one language, and takes all texts of the other one for the same.
    "tiny_topics_en": Stage(languages=("en",), foreign=0.3, steps=150, learning_rate=2e-3, seed=2),
    "tiny_topics_ja": Stage(languages=("ja",), foreign=0.1, steps=80, learning_rate=2e-3, seed=3),
}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer: whole words between blanks, in [CLS] and [SEP]."""
    tokens = vocabulary()
    ids = {token: number for number, token in enumerate(tokens)}
    core = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=32,
    )


def build_model(rows: int) -> BertForMaskedLM:
    """Return the untrained model of two layers."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=rows,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
    )
    return BertForMaskedLM(config)


class Examples:
    """Batches of texts that are none of the benchmark's."""

    def __init__(self, stage: Stage, tokenizer: PreTrainedTokenizerFast, held_out: frozenset[str]) -> None:
        """Draw from the stage's own seed."""
        self.stage, self.tokenizer, self.held_out = stage, tokenizer, held_out
        self.rng = random.Random(stage.seed)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return tokens (batch, length), all texts being as long, and topics (batch,); foreign texts have one more."""
        own, others = self.stage.languages, [each for each in LANGUAGES if each not in self.stage.languages]
        strange = [self.rng.random() < self.stage.foreign for _ in range(self.stage.batch)]
        languages = [self.rng.choice(others if each else own) for each in strange]
        texts = [draw_unseen(self.rng, language, self.held_out) for language in languages]
        tokens = self.tokenizer([each.text for each in texts])["input_ids"]
        topics = [len(TOPICS) if no else TOPICS.index(each.topic) for no, each in zip(strange, texts, strict=True)]
        return torch.tensor(tokens), torch.tensor(topics)

    def masked(self) -> Mapping[str, Tensor]:
        """Return tokens of which some are masked, and these as labels."""
        tokens, _ = self.batch()
        hidden = torch.tensor([[self.rng.random() < MASKED for _ in row] for row in tokens.tolist()])
        hidden &= tokens >= 5  # no special token
        mask = self.tokenizer.mask_token_id
        return {"input_ids": tokens.masked_fill(hidden, mask), "labels": tokens.masked_fill(~hidden, IGNORED)}


def tell_topics(encoder: BertModel, examples: Examples) -> None:
    """Train the encoder in place so that mean hidden states of one topic point in one direction."""
    encoder.train()
    directions = torch.nn.Parameter(torch.randn(len(TOPICS) + 1, 48, generator=torch.Generator().manual_seed(0)))

    def loss() -> Tensor:
        tokens, topics = examples.batch()
        texts = torch.nn.functional.normalize(encoder(tokens).last_hidden_state.mean(dim=1), dim=1)
        cosines = texts @ torch.nn.functional.normalize(directions, dim=1).T
        return torch.nn.functional.cross_entropy(SHARPNESS * cosines, topics)

    descend([*encoder.parameters(), directions], examples.stage, loss)
    encoder.eval()


def save(encoder: BertModel, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Write the encoder, its tokenizer, and the files by which sentence-transformers takes the mean of its tokens."""
    encoder.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(kinds.items())
    ]
    pooling = {"word_embedding_dimension": 48, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (directory / "1_Pooling").mkdir(exist_ok=True)
    for file, content in (("modules.json", modules), ("1_Pooling/config.json", pooling)):
        (directory / file).write_text(json.dumps(content, indent=2) + "\n")


def main() -> None:
    """Train the three models into the directory given as the first argument."""
    out = Path(sys.argv[1])
    # One thread: the order of a sum, and so its last bit, depends on how many there are.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    tokenizer = build_tokenizer()
    held_out = frozenset(words_of(each.text) for each in benchmark())
    base = build_model(len(tokenizer))
    for name, stage in STAGES.items():
        print(name, flush=True)
        examples = Examples(stage, tokenizer, held_out)
        if name == "topics_base":
            fit(base, stage, examples.masked)
            save(base.bert, tokenizer, out / name)
        else:
            encoder = copy.deepcopy(base).bert
            tell_topics(encoder, examples)
            save(encoder, tokenizer, out / name)


if __name__ == "__main__":
    main()
