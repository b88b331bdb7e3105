"""recipe.json: all that is needed to make a checkpoint again, as plain data that runs no code of its own."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, cast

import torch

from evohydra.checks import Count, Words, check_entries, shown
from evohydra.checks.libraries import versions
from evohydra.families import AddedAdapter, Family, Rules
from evohydra.families.names import FAMILIES
from evohydra.families.rules import AUTO
from evohydra.families.sources import parse_dtype
from evohydra.families.token_rows import parse_rows
from evohydra.files import Plain, read_json
from evohydra.merging.group_methods import METHOD, method_of, methods_of
from evohydra.merging.methods import check_method, resolve
from evohydra.merging.signatures import OF, STATISTICS, check_of
from evohydra.merging.statistics import Files, parse_told
from evohydra.recipe import FORMAT, MOST_LEVELS, Checkpoint, Merge, Node, Parameter, checkpoints, children, from_dict
from evohydra.winner.formats import FORMATS, Format

NUMBER = Annotated[int, Words(f"{FORMAT}")]
OBJECT = Mapping[str, object]
REQUIRED: Plain = {
    "format": NUMBER, "family": str, "files_from": str, "dtype": str | None, "out_dtype": str, "shard_bytes": Count,
    "tokenizer": str, "recipe": object,
}  # fmt: skip
OPTIONAL: Plain = {
    "written_as": str, "missing": str, "pad_vocabulary_to": int | None, "allow_other_base": bool, "config": str,
    "tokens_only": bool, "tokens": Mapping[str, object], "chat_template": str | None,
    "components": Mapping[str, str], "adapters": list[object], "warnings": list[str], "weights": str | None,
    "commits": Mapping[str, str], "written_with": Mapping[str, Count | None], "by_factors": bool,
    "left_out": OBJECT, "made_from": Mapping[str, object], "winner_unverified": str, "search": OBJECT,
    "versions": OBJECT, "statistics": OBJECT, "experts_per_token": Count,
}  # fmt: skip
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecipeFile:
    """What a recipe file says, with the types of every field looked at; nothing that it names has been imported.

    `made_from` are the files of those sources that recipes made, by name, `content` is the file as it was read,
    `weights` the fingerprint that it promises. `dtype` is that of the merge, None for the sources' own, `shard_bytes`
    the most in one file of weights. `written_with` are settings of the format, `by_factors` says whether adapters are
    merged as adapters where the method allows it (which files of earlier versions do not say, and mean no).
    `statistics` are the files that methods weigh by, by their digests, with names alone as paths.
    """

    node: Node
    family: str
    written_as: str
    files_from: str
    dtype: torch.dtype | None
    out_dtype: torch.dtype
    shard_bytes: int
    rules: Rules
    content: Mapping[str, object]
    weights: str | None = None
    made_from: Mapping[str, "RecipeFile"] = field(default_factory=dict)
    written_with: Mapping[str, int | None] = field(default_factory=dict)
    by_factors: bool = False
    statistics: Mapping[str, Files] = field(default_factory=dict)

    @classmethod
    def parse(cls, content: object, where: str = "recipe file", level: int = 0) -> "RecipeFile":
        """A recipe file from its content.

        ValueError, which says at which place below `where`, for another format, for keys that are missing or not known
        and for values of other types.
        """
        if not isinstance(content, Mapping) or content.get("format") != FORMAT:
            got = content.get("format") if isinstance(content, Mapping) else content
            raise ValueError(f"{where}: expected a recipe file of format {FORMAT}, got {shown(got)}")
        if level > MOST_LEVELS:
            raise ValueError(f"{where[:200]}: expected at most {MOST_LEVELS} runs that began with each other, got more")
        entries: Plain = check_entries(where, content, REQUIRED, OPTIONAL)
        node = from_dict(entries["recipe"])
        names = _names(node, where)
        made_from = entries.get("made_from", {})
        for key, given in (("files_from", [entries["files_from"]]), ("made_from", made_from)):
            if unknown := [name for name in given if name not in names]:
                raise ValueError(
                    f"{where}.{key}: the recipe has no source {shown(unknown[0])}; its sources are {names}"
                )
        return cls(
            node=node,
            family=entries["family"],
            written_as=entries.get("written_as", "plain"),
            files_from=entries["files_from"],
            dtype=parse_dtype(entries["dtype"], "dtype", "null") if entries["dtype"] is not None else None,
            out_dtype=parse_dtype(entries["out_dtype"], "out_dtype", "one of a recipe file"),
            shard_bytes=entries["shard_bytes"],
            rules=_rules(entries),
            content=content,
            weights=entries.get("weights"),
            made_from={
                name: cls.parse(each, f"{where}.made_from.{name}", level + 1) for name, each in made_from.items()
            },
            written_with=entries.get("written_with", {}),
            by_factors=entries.get("by_factors", False),
            statistics=parse_told(entries.get("statistics", {}), f"{where}.statistics"),
        )

    def source_names(self) -> set[str]:
        """The names of all sources, and of those that made its sources."""
        below = (each.source_names() for each in self.made_from.values())
        return {checkpoint.name for checkpoint in checkpoints(self.node)}.union(*below)

    def check_names(self, allowed: Collection[str]) -> None:
        """ValueError where it, or one that it is made from, names code that is not ours, nor of a module of `allowed`.

        Nothing is imported but our own modules.
        """
        for name in sorted(_methods(self.node)):
            check_method(name, allowed)
        FAMILIES.check(self.family, allowed)
        FORMATS.check(self.written_as, allowed)
        for each in self.made_from.values():
            each.check_names(allowed)

    def parts(self, allowed: Collection[str]) -> tuple[Family, Format]:
        """Its family, and the format that it is written in.

        ValueError as `check_names`, and for parameters that a merge's method has not, or cannot take.
        """
        self.check_names(allowed)
        _check_parameters(self.node)
        return cast(Family, FAMILIES.make(self.family, allowed)), cast(
            Format, FORMATS.make(self.written_as, allowed, self.written_with)
        )


def _names(node: Node, where: str) -> list[str]:
    """The names of the sources; ValueError where one name stands for two."""
    found: dict[str, Checkpoint] = {}
    for checkpoint in checkpoints(node):
        if found.setdefault(checkpoint.name, checkpoint) != checkpoint:
            raise ValueError(f"{where}: expected one checkpoint called {checkpoint.name!r}, got two that differ")
    return sorted(found)


def _rules(entries: Plain) -> Rules:
    keys = ("missing", "pad_vocabulary_to", "tokens_only", "components", "chat_template", "experts_per_token")
    chosen = {key: entries[key] for key in keys if key in entries}
    chosen["tokens"] = parse_rows(entries.get("tokens", {}), "tokens")
    config = entries.get("config", "allow")  # there was no choice when the first ones were written
    adapters = tuple(map(AddedAdapter.parse, entries.get("adapters", ())))
    if entries["tokenizer"] == AUTO:
        raise ValueError(
            "tokenizer: expected same, base, union or a source's name, whichever was used: a recipe leaves no choice, "
            "got 'auto'"
        )
    # A recipe has been accepted already, whatever its sources descend from.
    return Rules(
        tokenizer=entries["tokenizer"],
        config=config,
        **chosen,
        adapters=adapters,
        allow_other_base=True,
        allow_other_splitting=True,
    )


def _methods(node: Node) -> set[str]:
    own = set(methods_of(node)) if isinstance(node, Merge) else set()
    return own.union(*map(_methods, children(node)))


def _check_parameters(node: Node) -> None:
    for child in children(node):
        _check_parameters(child)
    if isinstance(node, Merge):
        random = any("streams" in resolve(each).supplied for each in methods_of(node))
        seed = node.options.get("mask_seed", None if random else 0)
        if type(seed) is not int:
            raise ValueError(f"options: mask_seed: expected a whole number for {node.method}, got {seed!r}")
        _check_given("options", node.method, node.options, len(node.models))
        for group in node.groups:
            own = {name: value for name, value in group.parameters.items() if name != METHOD}
            _check_given(f"group {group.name!r}", method_of(node, group), own, len(node.models))


def _check_given(where: str, name: str, given: Mapping[str, Parameter], models: int) -> None:
    method = resolve(name)
    if STATISTICS in given and method.reads is None:
        raise ValueError(f"{where}: {name} reads no statistics, got {given[STATISTICS]!r}")
    if unknown := sorted(set(given) - method.parameters - {"mask_seed", STATISTICS, OF}):
        raise ValueError(f"{where}: {name} has no parameter {unknown}; its parameters are {sorted(method.parameters)}")
    if not isinstance(named := given.get(STATISTICS, ""), str):
        raise ValueError(f"{where}: {STATISTICS}: expected a digest, got {named!r}")
    if OF in given:
        check_of(given[OF])
    for key, value in given.items():
        method.check(key, value, f"{where}: {key}")
        if key in method.per_model and (not isinstance(value, tuple) or len(value) != models):
            raise ValueError(f"{where}: {key}: expected a list of {models}, one for each model, got {value!r}")


def recipe_file(
    node: Node,
    family: Family,
    files_from: str,
    format: object,
    dtype: torch.dtype | None,
    out_dtype: torch.dtype,
    shard_bytes: int,
    search: Mapping[str, object],
) -> dict[str, object]:
    """A recipe as self-contained JSON data; `files_from` gives configuration and tokenizer.

    It is merged in `dtype` and written in `out_dtype` by `format`, an `evohydra.winner.formats.Format`.
    """
    return {
        "format": FORMAT,
        "family": FAMILIES.name_of(family),
        "files_from": files_from,
        "written_as": FORMATS.name_of(format),
        **({"written_with": vars(format)} if vars(format) else {}),
        "dtype": str(dtype).removeprefix("torch.") if dtype else None,
        "out_dtype": str(out_dtype).removeprefix("torch."),
        "shard_bytes": shard_bytes,
        "recipe": node.to_dict(),
        "search": dict(search),
        "versions": versions(),
    }


def made_from(node: Node, directories: Mapping[str, Path]) -> dict[str, object]:
    """The recipe files of those checkpoints below `node` that recipes made, by name: what a run before has found.

    A recipe.json that is none of ours, or of other weights, says nothing of the checkpoint; the former is warned of.
    """
    found: dict[str, object] = {}
    for checkpoint in checkpoints(node):
        file = directories[checkpoint.name] / "recipe.json"
        if checkpoint.adapter is None and checkpoint.dtype is None and file.exists():
            try:
                recipe = RecipeFile.parse(read_json(file), str(file))
            except ValueError as error:
                logger.warning("source %s: %s says nothing of how it was made: %s", checkpoint.name, file, error)
                continue
            if recipe.weights == checkpoint.fingerprint:  # else another has been put in its place
                found[checkpoint.name] = recipe.content
    return found
