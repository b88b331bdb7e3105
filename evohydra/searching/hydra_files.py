"""Files of a run that Hydra writes by itself, configuration and command line: secrets do not stay in them."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import yaml

from evohydra.files import write_whole
from evohydra.searching.masking import MASK, looks_like_a_secret, names_a_secret, shown_override

WORD = "not_shown"  # MASK where Hydra reads the text again as an override: a plain word
VARIABLES = "env_set"  # of hydra.job
LEAST = 4  # characters of a secret that is looked for inside of other texts


def mask_hydra_files(
    run: Path, sweep: Path | None = None, known: Collection[str] = (), subdir: str | None = ".hydra"
) -> None:
    """Blot out secrets in what Hydra has written to `run`/`subdir`, and to `sweep`, the directory of a multirun.

    `known` are secrets of which it does not matter where they stand: values of variables of the environment.
    """
    own = sorted((run / subdir).glob("*.yaml")) if subdir else []
    files = [*own, *([sweep / "multirun.yaml"] if sweep else [])]
    read = {file: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files if file.is_file()}
    secrets = sorted({*known, *(text for data in read.values() for text in _secrets(data))}, key=len, reverse=True)
    for file, data in read.items():
        masked = _masked(data, secrets)
        if masked != data:
            write_whole(file, yaml.safe_dump(masked, sort_keys=False, allow_unicode=True).encode())


def _hidden(key: object) -> bool:
    """Whether nobody needs to read what is under a key: secrets, and variables of the environment."""
    return key == VARIABLES or names_a_secret(key)


def _secrets(data: object) -> Iterator[str]:
    """The secrets of a configuration that are long enough to be looked for."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            if _hidden(key):
                yield from (text for text in _texts(value) if len(text) >= LEAST)
            else:
                yield from _secrets(value)
    elif isinstance(data, list):
        for each in data:
            yield from _secrets(each)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _masked(data: object, secrets: list[str], key: object = "") -> object:
    if data and not isinstance(data, bool) and _hidden(key):
        return MASK
    if isinstance(data, Mapping):
        return {name: _masked(value, secrets, name) for name, value in data.items()}
    if isinstance(data, list):
        return [_masked(each, secrets) for each in data]
    if not isinstance(data, str):
        return data
    if "=" not in data and looks_like_a_secret(data, key):
        return MASK
    text = shown_override(data).replace(MASK, WORD) if "=" in data else data
    for secret in secrets:
        text = text.replace(secret, WORD)
    return text
