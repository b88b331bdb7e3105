"""Which family a model belongs to, as its files say."""

import functools
from pathlib import Path

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from evohydra.families.configurations import read_configuration
from evohydra.families.encoder_parts import is_encoder
from evohydra.families.names import FAMILIES
from evohydra.families.pipeline_files import pipeline_class
from evohydra.families.sentences import MODULES, backbone_of
from evohydra.files import read_json
from evohydra.merging.checkpoints import SourceError
from evohydra.merging.finding import locate

ADAPTER = "adapter_config.json"
FILES = ("config.json", "model_index.json", MODULES, "0_*/config.json")
PIPELINES = {
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusionPipeline": "stable_diffusion",
    "StableDiffusion3Pipeline": "sd3",
    "FluxPipeline": "flux",
}


@functools.lru_cache(maxsize=256)
def family_at(path: str, revision: str | None = None) -> str:
    """The family, as a dotted name, of the model at `path`: its model_index.json or config.json says which.

    Raises SourceError where there is no such model, and for one of a kind that no family of evohydra takes.
    """
    place = locate(path, revision, weights=False, wanted=FILES)
    if place.is_file():
        raise SourceError(f"{path}: a single file does not say to which family its model belongs")
    return FAMILIES.place_of(_name(place))


def _name(directory: Path) -> str:
    kind = pipeline_class(directory)
    if kind is not None:
        if kind not in PIPELINES:
            raise SourceError(f"{directory}: expected a pipeline of the class {' or '.join(PIPELINES)}, got {kind}")
        return PIPELINES[kind]
    _check_no_adapter(directory)
    read = read_configuration(backbone_of(directory), "model")
    config = type(read)
    if config in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return "vision_language"
    if is_encoder(read):
        return "encoder"
    if config in MODEL_FOR_CAUSAL_LM_MAPPING:
        return "causal_lm"
    raise SourceError(
        f"{directory}: expected a language model, with or without images, or an encoder, got {read.model_type!r}"
    )


def _check_no_adapter(directory: Path) -> None:
    """SourceError, which says how it is given, for an adapter in the place of the model that it is for."""
    if (backbone_of(directory) / "config.json").exists() or not (directory / ADAPTER).is_file():
        return
    try:
        config = read_json(directory / ADAPTER)
    except (OSError, ValueError) as reason:
        raise SourceError(f"{directory}: expected a model, got an adapter that cannot be read: {reason}") from reason
    base = config.get("base_model_name_or_path")
    raise SourceError(
        f"{directory}: expected a model, got an adapter of {base or 'another model'}: give that model, and the adapter "
        f"beside it, as in `python -m evohydra evaluate {base or 'MODEL'} adapter={directory} benchmark=NAME`, or "
        "model.sources.NAME.path and model.sources.NAME.adapter in a search"
    )
