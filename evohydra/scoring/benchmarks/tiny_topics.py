"""The benchmark of the tiny encoders: topics of English and Japanese texts that ship with evohydra."""

from collections.abc import Mapping
from pathlib import Path

from evohydra.files import Plain
from evohydra.scoring.benchmarks.embedding_classification import EmbeddingClassification, embedding_classification

FILE = Path(__file__).parent / "tasks" / "tiny_topics" / "texts.jsonl"


def tiny_topics(
    name: str, *, splits: Mapping[str, Plain | None], references: Plain, **options: object
) -> dict[str, EmbeddingClassification]:
    """Return the benchmark, by its name; `evohydra.zoo.topics` made its file, and the options are those of others."""
    columns = {"text": "text", "label": "topic"}
    return embedding_classification(
        name, splits=splits, references=references, data_files=str(FILE), columns=columns, **options
    )
