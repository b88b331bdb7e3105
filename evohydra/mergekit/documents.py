"""Several merges in one file, of which later ones name earlier ones as their models (mergekit-multi)."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evohydra.files import Plain
from evohydra.mergekit.configuration import whole
from evohydra.mergekit.yaml_files import load_documents

# The keys at which a model stands.
logger = logging.getLogger(__name__)
MODELS = ("model", "base_model", "tokenizer_source", "source", "path")


@dataclass(frozen=True)
class Document:
    """A merge, what it is called in its file, and which others it needs."""

    name: str | None
    config: Plain
    needs: frozenset[str]

    def with_paths(self, paths: Mapping[str, str]) -> Plain:
        """The configuration with the paths of those merges in the place of their names."""
        return {key: _replaced(key, value, paths) for key, value in self.config.items()}


def documents(text: str) -> list[Document]:
    """The merges of a file, each behind those that it needs; the last one is what the file is for.

    That is the one without a name, or else the only one that no other needs. ValueError for names that stand for two,
    for merges that need each other, and where more than one could be the last.
    """
    configs = [whole(each) for each in load_documents(text) if each is not None]
    if len(configs) < 2:
        return [Document(None, config, frozenset()) for config in configs or [whole(None)]]
    names = [config.get("name") for config in configs]
    if bad := [name for name in names if not isinstance(name, str | None)]:
        raise ValueError(f"name: expected a text, got {bad[0]!r}")
    if twice := sorted({str(name or "no name") for name in names if names.count(name) > 1}):
        raise ValueError(
            f"several merges in one file: expected a name of its own for each but the last, got {twice} twice"
        )
    known = frozenset(name for name in names if name is not None)
    found = [
        Document(name, {key: value for key, value in config.items() if key != "name"}, _needed(config, known))
        for name, config in zip(names, configs, strict=True)
    ]
    return _in_order(found)


def _in_order(found: Sequence[Document]) -> list[Document]:
    needed = frozenset[str]().union(*(each.needs for each in found))
    unnamed = [each for each in found if each.name is None]
    last = unnamed or [each for each in found if each.name not in needed]
    if len(last) != 1:
        raise ValueError(
            "several merges in one file: expected one without a name, or one that no other needs, to be written, got "
            f"{sorted(str(each.name) for each in last) or 'none'}"
        )
    by_name = {each.name: each for each in found}
    order: list[Document] = []

    def add(each: Document, above: tuple[str | None, ...]) -> None:
        if each.name in above:
            raise ValueError(f"several merges in one file: {each.name!r} needs itself: {' > '.join(map(str, above))}")
        if each not in order:
            for name in sorted(each.needs):
                add(by_name[name], (*above, each.name))
            order.append(each)

    add(last[0], ())
    if unneeded := sorted(str(each.name) for each in found if each not in order):
        logger.warning("merges %s are needed by no other, and are not made", unneeded)
    return order


def _needed(value: object, known: frozenset[str], key: str = "") -> frozenset[str]:
    if isinstance(value, Mapping):
        return frozenset[str]().union(*(_needed(each, known, str(name)) for name, each in value.items()))
    if isinstance(value, list):
        return frozenset[str]().union(*(_needed(each, known, key) for each in value))
    named = _name(value) if key in MODELS and isinstance(value, str) else None
    return frozenset({named} & known) if named is not None else frozenset()


def _replaced(key: str, value: object, paths: Mapping[str, str]) -> object:
    if isinstance(value, Mapping):
        return {name: _replaced(str(name), each, paths) for name, each in value.items()}
    if isinstance(value, list):
        return [_replaced(key, each, paths) for each in value]
    if key in MODELS and isinstance(value, str) and (name := _name(value)) in paths:
        return paths[name] + value.removeprefix(name)
    return value


def _name(reference: str) -> str:
    """The model of a reference, without revision and adapter."""
    return reference.partition("+")[0].partition("@")[0]
