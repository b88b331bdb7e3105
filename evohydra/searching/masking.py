"""Secrets: how they are recognised, how they are blotted out where a configuration is shown, and how compared."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from evohydra.checks.terminal import harmless

MASK = "(not shown)"
DIGEST = "secret, scrypt"  # what comes before the digest of a secret
# The last word of a key that holds a secret; what begins with auth does too, but for authors.
LAST_WORDS = {
    "token", "key", "apikey", "password", "passwd", "passphrase", "passcode", "pwd", "secret", "secrets", "credential",
    "credentials", "passwords",
}  # fmt: skip
PLURALS = {"keys", "tokens"}  # of these only where a word like the following is before them
BEFORE_PLURALS = {"api", "access", "auth", "hf", "secret", "private"}
# Tokens of a vocabulary: begin, end, padding and the like.
OF_A_VOCABULARY = {
    "bos", "eos", "pad", "unk", "sep", "cls", "mask", "image", "video", "audio", "stop", "begin", "end", "start",
    "special", "next", "first", "last", "per",
}  # fmt: skip
# Keys of tables and of sorting.
OF_A_TABLE = {
    "sort", "group", "column", "row", "field", "primary", "foreign", "public", "cache", "dict", "image", "question",
    "answer", "text", "label", "target", "choice", "id", "index",
}  # fmt: skip
# Digests of content, which may look like a W&B key: commits, above all.
DIGESTS = {"revision", "commit", "sha", "sha1", "sha256", "hash", "digest", "fingerprint"}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_VALUE = re.compile(
    r"(?<![A-Za-z0-9])(hf_[A-Za-z0-9]{20,}|wandb_v\d_\w{20,}|sk-[\w-]{20,}|gh[pousr]_[A-Za-z0-9]{20,})(?![A-Za-z0-9])"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
# Behind / and @ it is a commit: a snapshot of the hub's cache, a revision.
_WANDB_KEY = re.compile(r"(?<![0-9A-Za-z/@])[0-9a-f]{40}(?![0-9A-Za-z])")
# key: value inside of braces; a value is quoted, or ends with the entry, or opens a list or an object.
_ENTRY = re.compile(
    r"""(?P<key>[\w.-]+)(?P<colon>\s*:\s*)(?P<value>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^,{}\[\]]+|)"""
)


def names_a_secret(key: object) -> bool:
    """Whether the value under `key` is a secret by its name: hf_token, WANDB_API_KEY; not tokenizer, max_new_tokens."""
    words = [word.lower() for word in _WORD.findall(str(key).rsplit(".", 1)[-1])]
    if not words:
        return False
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if (last == "token" and before in OF_A_VOCABULARY) or (last == "key" and before in OF_A_TABLE):
        return False
    if last in PLURALS:
        return before in BEFORE_PLURALS
    return last in LAST_WORDS or last.startswith("authoriz") or re.match("auth(?!or)", last) is not None


def looks_like_a_secret(value: object, key: object = "") -> bool:
    """Whether `value` is one, or holds one, whatever its key is called."""
    if not isinstance(value, str):
        return False
    words = [word.lower() for word in _WORD.findall(str(key))]
    of_content = bool(words) and (words[-1] in DIGESTS or "sha" in words)
    return _VALUE.search(value) is not None or (not of_content and _WANDB_KEY.search(value) is not None)


def without_secrets(config: object) -> object:
    """`config` as it may be shown: secrets are blotted out."""
    return _replaced(config, lambda _: MASK)


def with_digests(config: object) -> Any:
    """`config` as it is compared: in the place of each secret a digest, so that another secret is noticed."""
    return _replaced(config, _digest)


def _digest(value: object) -> str:
    """A slow one, so that a short password cannot be found by trying many."""
    text = json.dumps(value, sort_keys=True, default=str).encode()
    return f"{DIGEST} {hashlib.scrypt(text, salt=b'evohydra', n=2**14, r=8, p=1, dklen=16).hex()}"


def _replaced(config: object, instead: Any, key: object = "") -> object:
    if config and not isinstance(config, bool) and names_a_secret(key):
        return instead(config)
    if isinstance(config, Mapping):
        return {name: _replaced(value, instead, name) for name, value in config.items()}
    if isinstance(config, list | tuple):
        return [_replaced(value, instead) for value in config]
    return instead(config) if looks_like_a_secret(config, key) else config


MOST_LOGGED = 100_000  # characters of a message with its traceback


class MaskedLog(logging.Formatter):
    """Lines of another formatter with their secrets blotted out, tracebacks too, and nothing that moves a cursor."""

    def __init__(self, inner: logging.Formatter, secrets: Sequence[str]) -> None:
        super().__init__()
        self._inner, self._secrets = inner, secrets

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record."""
        return harmless(shown_text(self._inner.format(record), self._secrets), MOST_LOGGED)


def mask_logs(secrets: Sequence[str]) -> None:
    """Let no handler of the root logger write what looks like a secret, or is one of `secrets`."""
    for handler in logging.getLogger().handlers:
        if not isinstance(handler.formatter, MaskedLog):
            handler.setFormatter(MaskedLog(handler.formatter or logging.Formatter(), secrets))


def shown_text(text: str, secrets: Sequence[str] = ()) -> str:
    """A message with what looks like a secret, or is one of `secrets`, blotted out."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return _VALUE.sub(MASK, text)


def shown_overrides(overrides: Sequence[str]) -> dict[str, str]:
    """Overrides of a command line, each with its text as it may be shown; those that set nothing but a secret go."""
    return {text: shown_override(text) for text in overrides if not names_a_secret(_key(text))}


def _key(override: str) -> str:
    return override.lstrip("+~").split("=")[0]


def shown_override(override: str) -> str:
    """An override of a command line with its secrets blotted out."""
    start, equals, value = override.partition("=")
    key = _key(override)
    if value not in ("", "null") and names_a_secret(key):
        return f"{start}{equals}{MASK}"
    if looks_like_a_secret(value, key):
        value = MASK if _WANDB_KEY.search(value) else _VALUE.sub(MASK, value)
    hidden = False

    def mask(found: re.Match[str]) -> str:
        nonlocal hidden
        secret = found["value"].strip()
        if not names_a_secret(found["key"]):
            return found[0]
        hidden = hidden or not secret  # a list or an object: where it ends is not looked for
        return f"{found['key']}{found['colon']}{MASK if secret not in ('null', '') else secret}"

    masked = _ENTRY.sub(mask, value)
    return start + equals + (MASK if hidden else masked)
