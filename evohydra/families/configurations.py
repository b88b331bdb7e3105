"""Configurations of models, as transformers reads them, after a look at what they say."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import transformers
from transformers import PretrainedConfig

from evohydra.checks import shown
from evohydra.families.refusals import refused
from evohydra.families.settings_files import LOCAL
from evohydra.files import check_plain_file, read_json
from evohydra.merging.checkpoints import SourceError

# Of these numbers libraries make lists, or as many steps of noise.
LAYERS = re.compile(r"num(_\w+)?_layers|n_layers?|depths?|(\w+_)?layers_per_block|num_train_timesteps")
MOST_LAYERS = 10_000
IMPLEMENTATION = re.compile(r"_?(attn|attention|experts)_implementation\w*")
MOST = 2**31 - 1  # of any whole number: rows, widths, positions, seeds


def read_configuration(directory: Path, kind: str) -> PretrainedConfig:
    """The configuration in a checkpoint's directory; SourceError, with the `kind` of model expected, for others."""
    check_configuration(directory)
    with refused(
        f"{directory}: expected the config.json of a {kind} that transformers knows; models that need code of their "
        "own are not loaded"
    ):
        return transformers.AutoConfig.from_pretrained(directory, **LOCAL)


def check_configuration(directory: Path) -> None:
    """SourceError for files that are no ordinary ones, and for a config.json with sizes that no model has.

    Libraries make lists as long as such a number says before they look at any tensor.
    """
    try:
        for file in sorted(directory.glob("*.json")):
            check_plain_file(file)
        file = directory / "config.json"
        if file.exists():
            check_content(file, read_json(file))
    except (ValueError, OSError) as error:
        raise SourceError(str(error)) from error


def check_content(file: Path, data: object) -> None:
    """SourceError for a number in the content of a configuration that no model has, and for code that it names."""
    for key, named in _implementations(data):
        if "/" in named:
            raise SourceError(
                f"{file}: {key}: expected a way to compute that comes with transformers, as sdpa or eager, got "
                f"{shown(named)}, code of a repository, which is not run; take the key away"
            )
    for key, value in _numbers(data):
        most = MOST_LAYERS if LAYERS.fullmatch(key) else MOST
        if abs(value) > most:
            raise SourceError(f"{file}: {key}: expected at most {most}, got {shown(value)}")


def _implementations(data: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Names of code for attention and experts, which transformers also takes from repositories of the hub."""
    if isinstance(data, Mapping):
        for name, value in data.items():
            yield from _implementations(value, key or (str(name) if IMPLEMENTATION.fullmatch(str(name)) else ""))
    elif isinstance(data, list):
        for value in data:
            yield from _implementations(value, key)
    elif key and isinstance(data, str):
        yield key, data


def _numbers(data: object, key: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(data, Mapping):
        for name, value in data.items():
            yield from _numbers(value, str(name))
    elif isinstance(data, list):
        for value in data:
            yield from _numbers(value, key)
    elif isinstance(data, int | float) and not isinstance(data, bool) and data == data:  # not NaN
        yield key, data if isinstance(data, int) else int(min(max(data, -1e300), 1e300))
