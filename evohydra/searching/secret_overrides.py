"""Secrets on a command line, or taken from the environment by a configuration: refused before they reach a file."""

import re
from collections.abc import Iterator, Mapping, Sequence

from evohydra.searching.masking import looks_like_a_secret, names_a_secret, shown_override, shown_text

DIRECTORIES = ("PWD", "OLDPWD")  # of a shell: directories, not passwords
LEAST = 8  # characters of a variable's value that is looked for inside of other texts
ENVIRONMENT = "hydra.job.env_set"
FROM_VARIABLE = re.compile(r"\$\{\s*oc\.env\s*:\s*([^},\s]+)")
WAY = (
    "give it as a variable of the environment before the command (HF_TOKEN=... evohydra ...), or log in once "
    "(`hf auth login`, `wandb login`); libraries find it there"
)


def check_overrides(arguments: Sequence[str], variables: Mapping[str, str]) -> None:
    """ValueError, without the secret, for the first argument of a command line that carries one.

    Hydra writes its command line to files. `variables` are those of the environment: whose values are secrets too.
    """
    for argument in arguments:
        key, equals, value = argument.lstrip("+~").partition("=")
        if not equals or argument.startswith("--"):
            continue
        if key.startswith(ENVIRONMENT):
            raise ValueError(f"{key}: expected no variable of the environment here, which is written to files; {WAY}")
        named = [
            name
            for name in FROM_VARIABLE.findall(value)
            if names_a_secret(name) or looks_like_a_secret(variables.get(name, ""), name)
        ]
        if shown_override(argument) != argument or named or _holds_one(value, secret_values(variables)):
            raise ValueError(f"{key}: expected no secret here, for overrides are written to files; {WAY}")


def check_configuration(plain: object, variables: Mapping[str, str]) -> None:
    """ValueError, without the secret, where a resolved configuration holds the value of a secret variable.

    And where a key itself is a secret, by its looks: only values are blotted out in files.
    """
    secrets = secret_values(variables)
    for key, value in _texts(plain, ""):
        if _holds_one(value, secrets):
            raise ValueError(
                f"{key}: expected no secret, got the value of a variable of the environment that holds one; the "
                f"configuration is written to files: {WAY}"
            )
    if any(looks_like_a_secret(name) for name in _names(plain)):
        raise ValueError(f"expected no secret as the name of a key, which is written to files; {WAY}")


def check_names(names: Mapping[str, object], variables: Mapping[str, str]) -> None:
    """ValueError where Hydra has called a directory or a file of a run by a secret; `names` are by their keys."""
    secrets = secret_values(variables)
    for key, name in names.items():
        if _holds_one(str(name), secrets) or looks_like_a_secret(str(name)):
            raise ValueError(
                f"{key}: expected no secret in the name of a directory or file, got {shown_text(str(name), secrets)}; "
                "what is called so holds nothing but what Hydra wrote: delete it, and take another name"
            )


def check_swept(sweeper: object, variables: Mapping[str, str]) -> None:
    """ValueError, without the secret, where the resolved settings of Hydra's sweeper hold one."""
    secrets = secret_values(variables)
    for key, value in _texts(sweeper, "hydra.sweeper"):
        if _holds_one(value, secrets) or shown_override(f"{key}={value}") != f"{key}={value}":
            raise ValueError(f"{key}: expected no secret among what is swept, for it is shown and written; {WAY}")


def secret_values(variables: Mapping[str, str]) -> list[str]:
    """The values of variables that are secrets by their names or looks, and long enough to be told from other text."""
    return [
        value
        for name, value in variables.items()
        if len(value) >= LEAST
        and name not in DIRECTORIES
        and (names_a_secret(name) or looks_like_a_secret(value, name))
    ]


def _holds_one(text: str, secrets: Sequence[str]) -> bool:
    return any(secret in text for secret in secrets)


def _names(data: object) -> Iterator[str]:
    """All keys of a configuration."""
    for value in data.values() if isinstance(data, Mapping) else data if isinstance(data, list | tuple) else ():
        yield from _names(value)
    yield from map(str, data) if isinstance(data, Mapping) else ()


def _texts(data: object, key: str) -> Iterator[tuple[str, str]]:
    """Each text of a configuration, keys too, and where it is."""
    if isinstance(data, Mapping):
        for name, value in data.items():
            yield key, str(name)
            yield from _texts(value, f"{key}.{name}".lstrip("."))
    elif isinstance(data, list | tuple):
        for number, value in enumerate(data):
            yield from _texts(value, f"{key}[{number}]")
    elif data is not None and not isinstance(data, bool):
        yield key, str(data)
