"""python -m evohydra.rebuild recipe.json OUT: the weights of a recipe, bit for bit, or those of a mergekit yaml."""

import argparse
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evohydra.checks.terminal import harmless, log_to_terminal
from evohydra.files import read_json, read_text
from evohydra.hub import MissingSourceError
from evohydra.winner.directories import check_replaceable

DEVICES = ("cpu", "cuda", "mps", "xpu")
MOST_YAML_BYTES = 10**6


@dataclass(frozen=True)
class Made:
    """A merge on disk: the fingerprint of its weights, and the one that its recipe promises, None where it has none."""

    path: Path
    weights: str
    promised: str | None

    @property
    def identical(self) -> bool | None:
        """Whether the weights are, bit for bit, those of the recipe; None where it promises none."""
        return None if self.promised is None else self.weights == self.promised


def make(
    file: Path,
    out: Path,
    paths: Mapping[str, str],
    device: str = "cpu",
    allowed: Collection[str] = (),
    overwrite: bool = False,
    statistics: Path | None = None,
) -> Made:
    """Write the merge of a recipe file or of a mergekit yaml to the directory `out`, see `rebuild`.

    `statistics` is where files are that methods weigh by; None: beside the recipe file, as the run has left them.
    """
    out = out.expanduser()
    out = out if out.name else out.absolute()  # of "." the name is needed
    check_replaceable(out, overwrite)
    if device.partition(":")[0] not in DEVICES:
        raise ValueError(f"device: expected one of {', '.join(DEVICES)}, got {device!r}")
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file; expected recipe.json of a run or of a winner, or a mergekit yaml"
        )
    of_mergekit = file.suffix in (".yaml", ".yml")
    content = read_text(file, MOST_YAML_BYTES) if of_mergekit else read_json(file)
    if not isinstance(content, str):
        _check_sources(content, paths)
    import torch

    from evohydra.winner.remaking import rebuild, rebuild_yaml  # takes seconds

    try:
        on = torch.device(device)
        if isinstance(content, str) and of_mergekit:
            return Made(out, *rebuild_yaml(content, out, paths, on, overwrite))
        beside = [folder / "statistics" for folder in file.absolute().parents[:3]]  # of a run, or of a sweep
        places = beside if statistics is None else [statistics.expanduser()]
        return Made(out, *rebuild(content, out, paths, on, allowed, overwrite, places))
    except MissingSourceError as error:
        raise MissingSourceError(f"{error}; --source NAME=PATH says where it is now") from error


def _check_sources(content: object, paths: Mapping[str, str]) -> None:
    """ValueError for paths of sources that a recipe file does not have, nor the recipes that it is made from.

    What else is wrong with the file is said by who reads all of it.
    """
    known, left = set(), [content]
    while left:
        part = left.pop()
        if isinstance(part, Mapping):
            if part.get("node") == "checkpoint" and isinstance(part.get("name"), str):
                known.add(part["name"])
            left += part.values()
        elif isinstance(part, list):
            left += part
    if known and (unknown := sorted(set(paths) - known)):
        raise ValueError(f"--source: the recipe has no source {unknown}; its sources are {sorted(known)}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m evohydra.rebuild", description="Make the merge of a recipe again.")
    parser.add_argument("recipe", type=Path, help="recipe.json of a run or of a winner, or a mergekit yaml")
    parser.add_argument("out", type=Path, help="directory to write; must not exist, or be empty")
    parser.add_argument("--source", action="append", default=[], metavar="NAME=PATH", help="where a source is now")
    told = "where the files are that some methods weigh sources by; default: statistics/ beside the recipe"
    parser.add_argument("--statistics", type=Path, metavar="DIRECTORY", help=told)
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT, if evohydra has written it")
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="MODULE",
        help="a package or module with code of your own that the recipe may name",
    )
    given = parser.parse_args(arguments)
    log_to_terminal()
    try:
        paths = dict(_moved(item) for item in given.source)
        made = make(given.recipe, given.out, paths, given.device, given.allow, given.overwrite, given.statistics)
    except (ArithmeticError, ValueError, OSError, RuntimeError, MemoryError) as error:
        sys.exit(harmless(f"rebuild: {error}"))
    print(f"wrote {made.path} (sha256 of the tensors {made.weights})")
    if made.identical is None:
        print("the recipe carries no fingerprint to compare with")
    elif made.identical:
        print("identical, bit for bit, to the weights of the recipe")
    else:
        sys.exit(harmless(f"rebuild: NOT identical: the recipe promises {made.promised}"))


def _moved(item: str) -> tuple[str, str]:
    """The name and the path of a --source; ValueError where it is not written so."""
    name, equals, path = item.partition("=")
    if not (name and equals and path):
        raise ValueError(f"--source: expected NAME=PATH, got {item!r}")
    return name, path


if __name__ == "__main__":
    main()
