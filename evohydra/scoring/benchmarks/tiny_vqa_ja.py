"""The benchmark of the tiny VLM: questions in Japanese about pictures that ship with evohydra."""

from pathlib import Path
from typing import Any

from evohydra.checks import checked_by
from evohydra.scoring.benchmarks.visual_qa import VisualQA, check_visual, visual_qa

FILE = Path(__file__).parent / "tasks" / "tiny_vqa_ja" / "questions.parquet"


@checked_by(check_visual)
def tiny_vqa_ja(name: str, **options: Any) -> dict[str, VisualQA]:
    """Return the benchmark, by its name; `evohydra.zoo.scenes` made its file, and the options are `visual_qa`'s."""
    return visual_qa(name, data_files=str(FILE), **options)
