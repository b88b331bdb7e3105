"""The benchmark of the tiny encoders: topics of English and Japanese texts that ship with evohydra."""

from pathlib import Path
from typing import Any

from evohydra.scoring.benchmarks.embedding_classification import EmbeddingClassification, embedding_classification

FILE = Path(__file__).parent / "tasks" / "tiny_topics" / "texts.jsonl"


def tiny_topics(name: str, **options: Any) -> dict[str, EmbeddingClassification]:
    """Return the benchmark, by its name; `evohydra.zoo.topics` made its file, and the options are those of others."""
    return embedding_classification(name, data_files=str(FILE), columns={"text": "text", "label": "topic"}, **options)
