"""python -m evohydra.rebuild recipe.json OUT: the weights of a recipe, bit for bit, or those of a mergekit yaml."""

import argparse
import json
import pkgutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from evohydra.artifacts import FORMAT, whole_directory, write_weights
from evohydra.families import Family, Rules
from evohydra.families.causal_lm import CausalLM
from evohydra.files import write_json
from evohydra.merge import Engine, worth_compiling
from evohydra.mergekit_reader import read as read_mergekit
from evohydra.recipe import checkpoints, from_dict, with_checkpoints
from evohydra.sources import BASE, open_sources, parse_dtype

SHARD_BYTES = 5 * 10**9  # of a mergekit configuration's merge


def rebuild(
    recipe: dict[str, Any], target: Path, paths: dict[str, str], device: torch.device
) -> tuple[str, str | None]:
    """Write the merge of a recipe file's content to `target`; `paths` says where sources are that have moved.

    Returns the fingerprint of what was written and the one that the recipe promises. Raises ValueError for a recipe
    that makes no sense, or sources that are not those of the recipe.
    """
    if not isinstance(recipe, dict) or recipe.get("format") != FORMAT:
        got = repr(recipe.get("format")) if isinstance(recipe, dict) else type(recipe).__name__
        raise ValueError(f"expected a recipe file of format {FORMAT}, got {got}")
    try:
        node, out_dtype = from_dict(recipe["recipe"]), parse_dtype(recipe["out_dtype"], "out_dtype", "null")
        dtype = parse_dtype(recipe["dtype"], "dtype", "null") if recipe["dtype"] else None
        family: Family = pkgutil.resolve_name(recipe["family"])()
        shard_bytes, files_from = int(recipe["shard_bytes"]), recipe["files_from"]
        # A recipe has been accepted already, whatever its sources descend from.
        chosen = {key: recipe[key] for key in ("missing", "pad_vocabulary_to") if key in recipe}
        rules = Rules(tokenizer=recipe["tokenizer"], **chosen, allow_other_base=True)
    except (KeyError, ImportError, AttributeError, TypeError) as error:
        raise ValueError(f"not a whole recipe file: {error!r}") from error
    named = {checkpoint.name: checkpoint for checkpoint in checkpoints(node)}
    if files_from not in named:
        raise ValueError(f"files_from: the recipe has no source {files_from!r}; its sources are {sorted(named)}")
    unknown = sorted(set(paths) - set(named))
    if unknown:
        raise ValueError(f"--source: the recipe has no source {unknown}; its sources are {sorted(named)}")
    moved = {name: replace(c, path=paths.get(name, c.path)) for name, c in named.items()}
    models = tuple(c for name, c in moved.items() if name != BASE)
    opened = open_sources(models, moved.get(BASE), family, rules)
    compile_kernels = worth_compiling(opened.tensors[files_from].shapes, 1)
    engine = Engine(opened.tensors, device=device, dtype=dtype, compile_kernels=compile_kernels, cache_bytes=0)
    with whole_directory(target) as directory:
        written = write_weights(node, engine, directory, out_dtype, shard_bytes)
        family.copy_files(opened.directories[files_from], directory, out_dtype, opened.form)
        # What was still open is now known: what the sources hold, and what the merge of these sources is.
        found = {
            checkpoint.name: checkpoint for checkpoint in (*opened.models, *([opened.base] if opened.base else []))
        }
        node = with_checkpoints(node, found)
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
