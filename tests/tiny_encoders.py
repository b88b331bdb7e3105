"""Tiny random encoders and texts with labels on disk, for tests."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<cls>", "<sep>", "<unk>", "<mask>"]
WORDS = [f"{kind}{number}" for kind in ("fish", "stone", "cloud") for number in range(12)]
COMMON = {
    "vocab_size": len(SPECIAL) + len(WORDS), "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 40, "pad_token_id": 0,
}  # fmt: skip
SMALL = {
    "vocab_size": COMMON["vocab_size"], "dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2,
    "max_position_embeddings": 40, "pad_token_id": 0,
}  # fmt: skip
IDS = {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
ARCHITECTURES: dict[str, Callable[..., Any]] = {
    "bert": lambda **changes: transformers.BertConfig(**{**COMMON, **changes}),
    "roberta": lambda **changes: transformers.RobertaConfig(**{**COMMON, **changes}),
    "xlm_roberta": lambda **changes: transformers.XLMRobertaConfig(**{**COMMON, **changes}),
    "distilbert": lambda **changes: transformers.DistilBertConfig(**{**SMALL, **changes}),
    "mpnet": lambda **changes: transformers.MPNetConfig(**{**COMMON, **changes}),
    "electra": lambda **changes: transformers.ElectraConfig(**{**COMMON, "embedding_size": 8, **changes}),
    "modernbert": lambda **changes: transformers.ModernBertConfig(**{**COMMON, **IDS, **changes}),
    "albert": lambda **changes: transformers.AlbertConfig(**{**COMMON, "embedding_size": 8, **changes}),
    "deberta_v2": lambda **changes: transformers.DebertaV2Config(
        **{**COMMON, "relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"], **changes}
    ),
}


def tokenizer(words: list[str] = WORDS, longest: int = 32) -> PreTrainedTokenizerFast:
    """Whole words, with a token before and one behind each text."""
    core = Tokenizer(models.WordLevel({token: n for n, token in enumerate([*SPECIAL, *words])}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(
        single="<cls> $A <sep>", special_tokens=[("<cls>", 1), ("<sep>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", cls_token="<cls>", sep_token="<sep>", unk_token="<unk>",
        mask_token="<mask>", model_max_length=longest,
    )  # fmt: skip


def save(
    directory: Path,
    seed: int,
    architecture: str = "bert",
    *,
    kind: Any = transformers.AutoModel,
    near: Path | None = None,
    step: float = 0.3,
    words: list[str] = WORDS,
    **changes: object,
) -> Path:
    """A random encoder, or a random step away from the one `near`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = ARCHITECTURES[architecture](**changes)
        model = kind.from_config(config) if near is None else kind.from_pretrained(near)
        with torch.no_grad():
            for parameter in model.parameters():  # biases and norms differ too
                parameter.add_(step * max(float(parameter.std()), 0.02) * torch.randn(parameter.shape))
    model.save_pretrained(directory)
    tokenizer(words).save_pretrained(directory)
    return directory


def as_sentences(directory: Path, pooling: dict[str, object] | None = None, folder: str = "", **said: object) -> Path:
    """Put the files of sentence-transformers beside an encoder, which moves into `folder`."""
    if folder:
        (directory / folder).mkdir()
        for file in [each for each in directory.iterdir() if each.is_file()]:
            file.rename(directory / folder / file.name)
    (directory / "1_Pooling").mkdir()
    config = {"word_embedding_dimension": 16, **(pooling or {"pooling_mode_mean_tokens": True})}
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(config))
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(
            ((folder, "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
        )
    ]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 32, "do_lower_case": False, **said})
    )
    return directory


def save_texts(file: Path, count: int = 120) -> Path:
    """Texts of three kinds of words, most of one kind, which is their label."""
    draw = random.Random(0)
    rows = []
    for number in range(count):
        label = ("fish", "stone", "cloud")[number % 3]
        own = [word for word in WORDS if word.startswith(label)]
        words = draw.choices(own, k=draw.randint(3, 6)) + draw.choices(WORDS, k=draw.randint(2, 6))
        draw.shuffle(words)
        rows.append({"text": " ".join(words), "label": label})
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
