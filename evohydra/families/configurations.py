"""Configurations of models, as transformers reads them, after a look at what they say."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import transformers
from transformers import PretrainedConfig

from evohydra.checks import shown
from evohydra.families.settings_files import LOCAL
from evohydra.files import check_plain_file, read_json
from evohydra.merging.checkpoints import SourceError

LAYERS = re.compile(r"num(_\w+)?_layers|n_layers?|depths?|layers_per_block")
MOST_LAYERS = 10_000
MOST = 2**31 - 1  # of any whole number: rows, widths, positions, seeds


def read_configuration(directory: Path, kind: str) -> PretrainedConfig:
    """The configuration in a checkpoint's directory; SourceError, with the `kind` of model expected, for others."""
    check_configuration(directory)
    try:
        return transformers.AutoConfig.from_pretrained(directory, **LOCAL)
    except Exception as error:  # whatever a class of transformers raises where it finds another type than it expects
        raise SourceError(
            f"{directory}: expected the config.json of a {kind} that transformers knows; models that need code of "
            f"their own are not loaded ({type(error).__name__}: {str(error)[:500]})"
        ) from error


def check_configuration(directory: Path) -> None:
    """SourceError for files that are no ordinary ones, and for a config.json with sizes that no model has.

    Libraries make lists as long as such a number says before they look at any tensor.
    """
    try:
        for file in sorted(directory.glob("*.json")):
            check_plain_file(file)
        file = directory / "config.json"
        if file.exists():
            for key, value in _numbers(read_json(file)):
                most = MOST_LAYERS if LAYERS.fullmatch(key) else MOST
                if abs(value) > most:
                    raise ValueError(f"{file}: {key}: expected at most {most}, got {shown(value)}")
    except (ValueError, OSError) as error:
        raise SourceError(str(error)) from error


def _numbers(data: object, key: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(data, Mapping):
        for name, value in data.items():
            yield from _numbers(value, str(name))
    elif isinstance(data, list):
        for value in data:
            yield from _numbers(value, key)
    elif isinstance(data, int | float) and not isinstance(data, bool) and data == data:  # not NaN
        yield key, data if isinstance(data, int) else int(min(max(data, -1e300), 1e300))
