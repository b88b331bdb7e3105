"""python -m evohydra.convert MODEL OUT: pickled weights of a model as safetensors, read by what knows tensors only."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from evohydra.checks.terminal import harmless, log_to_terminal
from evohydra.hub import SourceError
from evohydra.hub.hashes import sha256_of
from evohydra.hub.listing import PICKLE_SUFFIXES, pickled

KINDS = ("diffusion", "language")


def convert(model: str, out: Path, revision: str | None = None, patterns: tuple[str, ...] = ()) -> dict[str, str]:
    """Convert a directory, a single file, or a repository of the hub; returns the SHA-256 of each file written.

    `patterns` are the files to keep beside weights, and what weights would be called as safetensors. Raises
    SourceError for pickles of more than tensors, for what holds no pickles, and where `out` is there already.
    """
    path = check_places(model, out)
    from evohydra.hub import fetch, local  # takes seconds
    from evohydra.hub.converting import convert_directory, settings_of
    from evohydra.hub.weights_only import safe_name

    if path.is_file():
        return _single(path, _free(out))
    source = path if path.is_dir() else fetch.fetch_pickled(fetch.Wish(model, revision, patterns))
    files = local.listed(source)
    found = pickled(files, patterns)
    pickles = [file.path for file in found]
    if not found:
        raise SourceError(
            f"{model}: expected pickled weights (such as pytorch_model.bin), got {[file.path for file in files[:5]]}"
        )
    beside = [file.path for file in settings_of(files, patterns, found)]
    convert_directory(source, beside, pickles, _free(out).absolute(), {})
    return {safe_name(name): sha256_of(out / safe_name(name)) for name in pickles}


def check_places(model: str, out: Path) -> Path:
    """Where a model is, if it is on this machine; SourceError where it cannot be converted to `out`."""
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise SourceError(f"{out} exists; give a directory that does not, or an empty one")
    path = Path(model).expanduser()
    named = model.count("/") == 1 and not (path.is_absolute() or model.startswith((".", "~")))
    if not (path.exists() or named):
        raise SourceError(f"{model}: no such file or directory; a model of the hub is called owner/name")
    if path.is_file() and path.suffix not in PICKLE_SUFFIXES:
        raise SourceError(f"{path}: expected a file {', '.join(PICKLE_SUFFIXES)}, got {path.suffix or 'no suffix'}")
    return path


def _wanted(kind: str) -> tuple[str, ...]:
    """The files of a kind of models."""
    from evohydra.families.causal_lm import CausalLM  # takes seconds
    from evohydra.families.sdxl import SDXL

    return (SDXL() if kind == "diffusion" else CausalLM()).wanted(None)


def _free(out: Path) -> Path:
    """The place, without the empty directory that may be there."""
    if out.exists():
        out.rmdir()
    return out


def _single(file: Path, out: Path) -> dict[str, str]:
    """One pickled file, such as an original .ckpt, into the directory `out`."""
    from evohydra.hub.converting import conversion_room
    from evohydra.hub.weights_only import convert_file, safe_name

    name = safe_name(file.name)
    with conversion_room(out.absolute()) as room:
        convert_file(file, room / name)
    return {name: sha256_of(out / name)}


def main(given: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m evohydra.convert", description=__doc__)
    parser.add_argument("model", help="a directory, a file (.bin, .ckpt, .pt, .pth), or owner/name on the hub")
    parser.add_argument("out", type=Path, help="directory to write; must not exist, or be empty")
    parser.add_argument("--revision", help="of a repository on the hub: a branch, a tag or a commit")
    parser.add_argument("--kind", choices=KINDS, default="language", help="of the model (default: language)")
    arguments = parser.parse_args(given)
    arguments.out = arguments.out.expanduser()
    log_to_terminal()
    try:
        check_places(arguments.model, arguments.out)
        hashes = convert(arguments.model, arguments.out, arguments.revision, _wanted(arguments.kind))
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(harmless(f"convert: {error}"))
    for name, hashed in hashes.items():
        print(f"{hashed}  {arguments.out / name}")


if __name__ == "__main__":
    main()
