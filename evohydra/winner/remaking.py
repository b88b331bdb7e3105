"""The weights of a recipe again, bit for bit; those of a mergekit yaml."""

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from evohydra.families.causal_lm import CausalLM
from evohydra.families.declared import BASE
from evohydra.families.sources import OpenSources, open_sources
from evohydra.files import read_json, write_json
from evohydra.hub.commits import PICKLE
from evohydra.mergekit.documents import Document, documents
from evohydra.mergekit.reader import read_document, source_references
from evohydra.merging.checkpoints import SourceError
from evohydra.merging.engine import Engine
from evohydra.merging.finding import at_revision
from evohydra.merging.kernels.compilation import worth_compiling
from evohydra.merging.statistics import StatisticsFiles, located
from evohydra.recipe import Checkpoint, checkpoints, from_dict, merges_something, with_checkpoints
from evohydra.winner.directories import ArtifactError, check_replaceable, list_files, room, whole_directory
from evohydra.winner.recipe_files import RecipeFile

SHARD_BYTES = 5 * 10**9  # of a mergekit configuration's merge


def rebuild(
    content: object,
    target: Path,
    paths: Mapping[str, str],
    device: torch.device,
    allowed: Collection[str] = (),
    overwrite: bool = False,
    statistics: Sequence[Path] = (),
) -> tuple[str, str | None]:
    """Write the merge of a recipe file's content to `target`; `paths` says where sources are that have moved.

    Sources that were winners of runs themselves are made again from theirs first, for as long as it takes, in a room
    beside `target`; nothing is written elsewhere. `allowed` are the modules from outside that the user trusts. With
    `overwrite` what evohydra wrote to `target` is replaced. `statistics` are directories in which the files are that
    methods weigh by. Returns the fingerprint of what was written and the one
    that the recipe promises. Raises ValueError for a recipe that makes no sense, or sources that are not those of the
    recipe, ArtifactError for a target that may not be replaced.
    """
    recipe = RecipeFile.parse(content)
    return _Maker(device, allowed, tuple(statistics)).make(recipe, target, paths, overwrite=overwrite), recipe.weights


@dataclass(frozen=True)
class _Maker:
    """Makes recipes on `device`, with code from outside in the modules that the user has `allowed`.

    statistics: the directories in which files are that methods weigh by.
    """

    device: torch.device
    allowed: Collection[str]
    statistics: tuple[Path, ...] = ()

    def make(self, recipe: RecipeFile, target: Path, paths: Mapping[str, str], *, overwrite: bool = False) -> str:
        """Write `recipe`, and before it what it is made from."""
        check_replaceable(target, overwrite)
        recipe.check_names(self.allowed)
        known = recipe.source_names()
        if unknown := sorted(set(paths) - known):
            raise ValueError(f"--source: the recipe has no source {unknown}; its sources are {sorted(known)}")
        with contextlib.ExitStack() as until_then:
            here = dict(paths)
            for number, (name, its_recipe) in enumerate(recipe.made_from.items()):
                if name not in paths:
                    beside = until_then.enter_context(room(target, purpose=f".source{number}"))
                    below = {key: path for key, path in paths.items() if key in its_recipe.source_names()}
                    made = beside / "checkpoint"  # no name of the recipe's becomes a path
                    self.make(its_recipe, made, below)
                    here[name] = str(made)
            return self._write(recipe, target, here, overwrite)

    def _write(self, recipe: RecipeFile, target: Path, paths: Mapping[str, str], overwrite: bool) -> str:
        node, files_from = recipe.node, recipe.files_from
        family, written_as = recipe.parts(self.allowed)
        named = {checkpoint.name: checkpoint for checkpoint in checkpoints(node)}
        moved = {
            name: _elsewhere(c, paths[name]) if name in paths else _at_commits(recipe, c) for name, c in named.items()
        }
        models = tuple(c for name, c in moved.items() if name != BASE)
        layers_only = None if merges_something(node) else files_from
        try:
            pinned = {name: _converted(recipe, name) for name in named if name not in paths}
            opened = open_sources(models, moved.get(BASE), family, recipe.rules, layers_only=layers_only, pinned=pinned)
        except SourceError as error:
            raise type(error)(f"{error}{_joined(recipe, named.values(), paths)}") from error
        compile_kernels = worth_compiling(opened.tensors[files_from].shapes, 1)
        engine = Engine(
            opened.tensors,
            device=self.device,
            dtype=recipe.dtype,
            compile_kernels=compile_kernels,
            cache_bytes=0,
            by_factors=recipe.by_factors,
            statistics=StatisticsFiles(located(recipe.statistics, self.statistics)),
        )
        _check_apart(target, opened)
        with whole_directory(target, overwrite=overwrite) as directory:
            written = written_as.write(node, engine, family, opened, directory, recipe.out_dtype, recipe.shard_bytes)
            # What was still open is now known: what the sources hold, and what the merge of these sources is.
            found = {c.name: c for c in (*opened.models, *([opened.base] if opened.base else []))}
            again = recipe.made_from
            node = with_checkpoints(
                node,
                {
                    name: replace(
                        c,
                        path=named[name].path if name in again else c.path,
                        revision=named[name].revision,
                        adapter=named[name].adapter,
                    )
                    for name, c in found.items()
                },
            )
            content = {**recipe.content, "recipe": node.to_dict(), "weights": recipe.weights or written}
            write_json(directory / "recipe.json", content)
            list_files(directory)
        return written


def _commits(recipe: RecipeFile) -> Mapping[str, object]:
    commits = recipe.content.get("commits")
    return commits if isinstance(commits, Mapping) else {}


def _at_commits(recipe: RecipeFile, checkpoint: Checkpoint) -> Checkpoint:
    """At the commits that the recipe keeps of a checkpoint and its adapter, for branches move."""
    commits = _commits(recipe)
    commit, of_adapter = commits.get(checkpoint.name), commits.get(f"{checkpoint.name}.adapter")
    if commit and not Path(checkpoint.path).exists():
        checkpoint = replace(checkpoint, revision=str(commit))
    if of_adapter and checkpoint.adapter and not Path(checkpoint.adapter).exists():
        checkpoint = replace(checkpoint, adapter=f"{at_revision(checkpoint.adapter)[0]}@{of_adapter}")
    return checkpoint


def _converted(recipe: RecipeFile, name: str) -> dict[str, str]:
    """A pickle that the recipe was made from, by its SHA-256: with this pin it is converted, as it was then."""
    file, _, hashed = str(_commits(recipe).get(f"{name}.{PICKLE}") or "").rpartition(": ")
    return {file: hashed} if file else {}


def _elsewhere(checkpoint: Checkpoint, place: str) -> Checkpoint:
    """At another place, which may be OWNER/NAME@REVISION; the recipe's revision is one of its own repository alone."""
    path, revision = at_revision(place)
    return replace(
        checkpoint, path=path, revision=revision or (checkpoint.revision if path == checkpoint.path else None)
    )


def _joined(recipe: RecipeFile, named: Iterable[Checkpoint], paths: Mapping[str, str]) -> str:
    """Which weights of pull requests the recipe was made with; nobody fetches those that a recipe alone names."""
    commits = _commits(recipe)
    of = {c: commits[f"{c.name}.weights"] for c in named if f"{c.name}.weights" in commits and c.name not in paths}
    return "".join(
        f". The recipe was made with the weights of {c.path} at commit {commit} and the settings at commit "
        f"{commits.get(c.name)}: with both in one directory, --source {c.name}=DIRECTORY takes them"
        for c, commit in of.items()
    )


def _check_apart(target: Path, opened: OpenSources) -> None:
    """ArtifactError where writing `target` would replace a source, or something in one."""
    place = target.resolve()
    for name, path in [*opened.paths.items(), *opened.directories.items()]:
        source = path.resolve()
        if source == place or source.is_relative_to(place) or place.is_relative_to(source):
            raise ArtifactError(f"{target} is where the source {name!r} is ({path}); give another directory")


def rebuild_yaml(
    text: str, target: Path, paths: Mapping[str, str], device: torch.device, overwrite: bool = False
) -> tuple[str, str | None]:
    """Write what a mergekit YAML is for to `target`, see `rebuild`; merges that it needs are made beside it first.

    `paths` may name sources of any of these merges. The recipe file of the result contains theirs. Raises ValueError
    for what has no counterpart here.
    """
    *before, last = documents(text)
    with contextlib.ExitStack() as until_then:
        made = {
            str(each.name): until_then.enter_context(room(target, purpose=f".merge{number}")) / f"merge{number}"
            for number, each in enumerate(before, 1)  # no name of the file's becomes a path
        }
        known = frozenset[str]().union(*(_own_sources(each, made) for each in (*before, last)))
        if unknown := sorted(set(paths) - known):
            raise ValueError(f"--source: the configuration has no source {unknown}; its sources are {sorted(known)}")
        for each in before:
            content, here = _of_document(each, made, paths)
            rebuild(content, made[str(each.name)], here, device)
        content, here = _of_document(last, made, paths)
        return rebuild(content, target, here, device, overwrite=overwrite)


def _own_sources(document: Document, made: Mapping[str, Path]) -> set[str]:
    """The names of its sources but those that the file makes itself."""
    places = {name: str(path) for name, path in made.items()}
    named = source_references(document.with_paths(places))
    return {name for name, reference in named.items() if reference not in places.values()}


def _of_document(
    document: Document, made: Mapping[str, Path], paths: Mapping[str, str]
) -> tuple[dict[str, object], dict[str, str]]:
    """The recipe file of a merge, and by the names of its sources where those are that the file makes or that moved."""
    places = {name: str(path) for name, path in made.items()}
    moved = {name: path for name, path in paths.items() if name in _own_sources(document, made)}
    content = read_document(document.with_paths(places), CausalLM(), SHARD_BYTES, moved)
    node = from_dict(content["recipe"])
    own = {path: name for name, path in places.items()}
    named = {each.name: each for each in checkpoints(node)}
    here = {name: each.path for name, each in named.items() if each.path in own}
    called = {name: replace(each, path=own.get(each.path, each.path)) for name, each in named.items()}
    recipes = {name: read_json(Path(path) / "recipe.json") for name, path in here.items()}
    more = {"made_from": recipes} if recipes else {}
    return {**content, "recipe": with_checkpoints(node, called).to_dict(), **more}, {**here, **moved}
