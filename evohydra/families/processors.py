"""Processors of vision-language models: read, and asked for the inputs of one picture."""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PretrainedConfig

from evohydra.checks.libraries import install_command
from evohydra.families.refusals import refused
from evohydra.families.tokenizer_files import check_tokenizer_files
from evohydra.families.tokenizers import LOCAL
from evohydra.merging.checkpoints import SourceError

SPECIAL = (
    "image_token_id",
    "image_token_index",
    "video_token_id",
    "video_token_index",
    "vision_start_token_id",
    "vision_end_token_id",
)
FILES = ("preprocessor_config.json", "processor_config.json")
EXTRA = install_command("evohydra[vision]")
SIDE = 32  # pixels


def check_image_processor(source: str, directory: Path) -> None:
    """Raise SourceError where a VLM came without the settings of its image processor."""
    if not any((directory / file).is_file() for file in FILES):
        raise SourceError(
            f"source {source!r} at {directory}: expected the files of an image processor ({' or '.join(FILES)}), got "
            "none; without them its pictures cannot be prepared"
        )


def load_processor(directory: Path, tokenizer: object = None) -> object:
    """The processor of a checkpoint directory, with another `tokenizer` if one is given.

    Raises SourceError where there is none, or where a package is missing that it needs (which extra has it).
    """
    check_tokenizer_files(directory)
    try:
        with refused(f"{directory}: expected a processor that transformers loads", but=(ImportError,)):
            processor = transformers.AutoProcessor.from_pretrained(directory, **LOCAL)
    except ImportError as error:
        needed = " ".join(str(error).split())[:160]
        raise SourceError(
            f"{directory}: its processor needs a package that is not installed: {EXTRA} brings what processors of "
            f"images need ({needed})"
        ) from error
    if tokenizer is not None:
        processor.tokenizer = tokenizer
    return processor


def image_inputs(
    processor: Any, config: PretrainedConfig, device: torch.device, dtype: torch.dtype
) -> dict[str, object]:
    """What `processor` makes of a fixed picture and the place for it in a text, on `device`."""
    from PIL import Image

    ramp = torch.arange(SIDE * SIDE * 3, dtype=torch.int64).reshape(SIDE, SIDE, 3)
    picture = Image.fromarray((ramp * 7919 % 256).to(torch.uint8).numpy())
    place = str(processor.image_token)
    if "vision_start_token_id" in config.to_dict():  # Qwen2-VL finds pictures by what stands before them
        edges = [config.vision_start_token_id, config.vision_end_token_id]
        start, end = processor.tokenizer.convert_ids_to_tokens(edges)
        place = f"{start}{place}{end}"
    inputs = processor(images=[picture], text=[place], return_tensors="pt")
    return dict(inputs.to(device, dtype))


def without_special(tokens: Tensor, config: PretrainedConfig) -> Tensor:
    """The tokens, but for those that stand for pictures: they are others."""
    special = [value for key, value in config.to_dict().items() if key in SPECIAL and value is not None]
    other = next(token for token in range(len(special) + 1) if token not in special)
    return tokens.masked_fill(torch.isin(tokens, torch.tensor(special, device=tokens.device)), other)
