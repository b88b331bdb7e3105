"""python -m evohydra.rebuild recipe.json OUT: the weights of a recipe, bit for bit, or those of a mergekit yaml."""

import argparse
import contextlib
import json
import pkgutil
import re
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from evohydra.families import AddedAdapter, Family, Rules
from evohydra.families.causal_lm import CausalLM
from evohydra.families.sources import BASE, open_sources, parse_dtype
from evohydra.files import write_json
from evohydra.mergekit.reader import read as read_mergekit
from evohydra.merging.engine import Engine, worth_compiling
from evohydra.recipe import FORMAT, Node, checkpoints, from_dict, merges_something, with_checkpoints
from evohydra.winner.checkpoint_files import whole_directory
from evohydra.winner.formats import Format

PLAIN = "evohydra.winner.formats.plain.Plain"
SHARD_BYTES = 5 * 10**9  # of a mergekit configuration's merge


def rebuild(
    recipe: dict[str, Any], target: Path, paths: dict[str, str], device: torch.device
) -> tuple[str, str | None]:
    """Write the merge of a recipe file's content to `target`; `paths` says where sources are that have moved.

    Sources that were winners of runs themselves are made again from theirs first, for as long as it takes. Returns the
    fingerprint of what was written and the one that the recipe promises. Raises ValueError for a recipe that makes no
    sense, or sources that are not those of the recipe.
    """
    known = _source_names(recipe)
    if unknown := sorted(set(paths) - known):
        raise ValueError(f"--source: the recipe has no source {unknown}; its sources are {sorted(known)}")
    with contextlib.ExitStack() as until_then:
        here = dict(paths)
        for name, its_recipe in recipe.get("made_from", {}).items():
            if name not in paths:
                target.parent.mkdir(parents=True, exist_ok=True)
                room = until_then.enter_context(TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent))
                below = {key: path for key, path in paths.items() if key in _source_names(its_recipe)}
                rebuild(its_recipe, Path(room) / name, below, device)
                here[name] = str(Path(room) / name)
        return _rebuild(recipe, target, here, device)


def _source_names(recipe: Any) -> set[str]:
    """The names of all sources of a recipe file and of those that made its sources."""
    node = _parsed(recipe)
    below = (_source_names(each) for each in recipe.get("made_from", {}).values())
    return {checkpoint.name for checkpoint in checkpoints(node)}.union(*below)


def _parsed(recipe: object) -> Node:
    if not isinstance(recipe, dict) or recipe.get("format") != FORMAT:
        got = repr(recipe.get("format")) if isinstance(recipe, dict) else type(recipe).__name__
        raise ValueError(f"expected a recipe file of format {FORMAT}, got {got}")
    try:
        return from_dict(recipe["recipe"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a whole recipe file: {error!r}") from error


def _now(written_as: str) -> str:
    """Where a format is that stood elsewhere when the recipe was written."""
    return re.sub(r"^evohydra\.formats\.", "evohydra.winner.formats.", written_as)


def _rebuild(
    recipe: dict[str, Any], target: Path, paths: dict[str, str], device: torch.device
) -> tuple[str, str | None]:
    node = _parsed(recipe)
    try:
        out_dtype = parse_dtype(recipe["out_dtype"], "out_dtype", "null")
        dtype = parse_dtype(recipe["dtype"], "dtype", "null") if recipe["dtype"] else None
        family: Family = pkgutil.resolve_name(recipe["family"])()
        written_as: Format = pkgutil.resolve_name(_now(recipe.get("written_as", PLAIN)))()
        shard_bytes, files_from = int(recipe["shard_bytes"]), recipe["files_from"]
        # A recipe has been accepted already, whatever its sources descend from.
        chosen = {
            key: recipe[key] for key in ("missing", "pad_vocabulary_to", "tokens_only", "components") if key in recipe
        }
        adapters = tuple(map(AddedAdapter.parse, recipe.get("adapters", ())))
        config = recipe.get("config", "allow")  # there was no choice when the first ones were written
        rules = Rules(tokenizer=recipe["tokenizer"], config=config, **chosen, adapters=adapters, allow_other_base=True)
    except (KeyError, ImportError, AttributeError, TypeError) as error:
        raise ValueError(f"not a whole recipe file: {error!r}") from error
    named = {checkpoint.name: checkpoint for checkpoint in checkpoints(node)}
    if files_from not in named:
        raise ValueError(f"files_from: the recipe has no source {files_from!r}; its sources are {sorted(named)}")
    moved = {name: replace(c, path=paths.get(name, c.path)) for name, c in named.items()}
    models = tuple(c for name, c in moved.items() if name != BASE)
    layers_only = None if merges_something(node) else files_from
    opened = open_sources(models, moved.get(BASE), family, rules, layers_only=layers_only)
    compile_kernels = worth_compiling(opened.tensors[files_from].shapes, 1)
    engine = Engine(opened.tensors, device=device, dtype=dtype, compile_kernels=compile_kernels, cache_bytes=0)
    with whole_directory(target) as directory:
        written = written_as.write(node, engine, family, opened, directory, out_dtype, shard_bytes)
        # What was still open is now known: what the sources hold, and what the merge of these sources is.
        found = {c.name: c for c in (*opened.models, *([opened.base] if opened.base else []))}
        made = recipe.get("made_from", {})
        node = with_checkpoints(
            node, {name: replace(c, path=named[name].path) if name in made else c for name, c in found.items()}
        )
        promised = recipe.get("weights")
        write_json(directory / "recipe.json", {**recipe, "recipe": node.to_dict(), "weights": promised or written})
    return written, promised


def _read(path: Path) -> Any:
    """The content of a recipe file; a mergekit configuration as one."""
    if path.suffix in (".yaml", ".yml"):
        return read_mergekit(path.read_text(), CausalLM(), SHARD_BYTES)
    return json.loads(path.read_text())


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m evohydra.rebuild", description="Make the merge of a recipe again.")
    parser.add_argument("recipe", type=Path, help="recipe.json of a run or of a winner, or a mergekit yaml")
    parser.add_argument("out", type=Path, help="directory to write; must not exist, or be empty")
    parser.add_argument("--source", action="append", default=[], metavar="NAME=PATH", help="where a source is now")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    arguments = parser.parse_args()
    if arguments.out.exists() and not (arguments.out.is_dir() and not any(arguments.out.iterdir())):
        sys.exit(f"rebuild: {arguments.out} exists; give a directory that does not, or an empty one")
    try:
        recipe = _read(arguments.recipe)
        paths = dict(item.split("=", 1) for item in arguments.source)
        written, promised = rebuild(recipe, arguments.out, paths, torch.device(arguments.device))
    except (ArithmeticError, ValueError, OSError, RuntimeError) as error:
        sys.exit(f"rebuild: {error}")
    print(f"wrote {arguments.out} (sha256 of the tensors {written})")
    if promised is None:
        print("the recipe carries no fingerprint to compare with")
    elif written == promised:
        print("identical, bit for bit, to the weights of the recipe")
    else:
        sys.exit(f"rebuild: NOT identical: the recipe promises {promised}")


if __name__ == "__main__":
    main()
