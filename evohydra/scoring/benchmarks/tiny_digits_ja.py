"""The benchmark of the tiny diffusion models: Japanese prompts that ask for a handwritten digit."""

from typing import Any

from evohydra.scoring.benchmarks.prompts import Prompt
from evohydra.scoring.benchmarks.text_to_image import TextToImage, text_to_image
from evohydra.zoo.digit_captions import SPLITS, benchmark_captions


def tiny_digits_ja(name: str, **options: Any) -> dict[str, TextToImage]:
    """Return the benchmark's scorers by name; the options are `text_to_image`'s.

    No two of training, search, validation and test share a phrasing. `Prompt.label` is the digit.
    """
    prompts = [
        Prompt(text, topic=split, label=str(digit))
        for split in SPLITS
        if split != "train"
        for text, digit in benchmark_captions(split)
    ]
    return text_to_image(name, prompts=prompts, **options)
