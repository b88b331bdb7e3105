"""What passes over texts have found of the sources, in files that recipes know by their content."""

import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from evohydra.checks import check_entries, shown
from evohydra.files import Plain, check_plain_file
from evohydra.hub import SourceError
from evohydra.hub.hashes import sha256_of
from evohydra.merging.cache import Cache
from evohydra.merging.methods import Method
from evohydra.merging.signatures import STATISTICS
from evohydra.recipe import Checkpoint, Merge, Node, children

DIRECTORY = "statistics"  # of a run, where its files are unless the configuration names another place
UNREAD = "0" * 64  # in the place of a digest, where texts have still to be read
METADATA = "evohydra"  # among the metadata of a file: how it was made, as JSON
SHA256 = re.compile(r"[0-9a-f]{64}")
FILE_NAME = re.compile(r"[0-9a-f]{16}\.safetensors")
HOW: Plain = {"statistic": str, "source": str, "same": Mapping[str, str], "transposed": list[str]}
AS_WELL: Plain = {"key": Mapping[str, object], "tokens": int, "texts": str, "versions": object}


class Mapped(Protocol):
    """A safetensors file that is open."""

    def keys(self) -> Sequence[str]:
        """The names of its tensors."""
        ...

    def metadata(self) -> Mapping[str, str] | None:
        """What its header says beside them."""
        ...

    def get_tensor(self, name: str) -> Tensor:
        """One of its tensors, on the CPU."""
        ...


class StatisticsError(SourceError):
    """Statistics that a recipe needs and that are not there, or not those."""


@dataclass(frozen=True)
class Found:
    """What was found of one tensor of one source. transposed: its inputs belong to the first index of the tensor."""

    values: Tensor
    transposed: bool = False

    @property
    def nbytes(self) -> int:
        """The memory that it takes."""
        return self.values.nbytes


class Statistics(Protocol):
    """What was found of the sources, by the digest under which a recipe names it (see `digest_of`)."""

    def read(self, digest: str, source: str, name: str) -> Found | None:
        """Of the tensor `name` of a source; None where nothing was looked at. StatisticsError for unknown digests."""
        ...

    def told(self, node: Node) -> dict[str, dict[str, dict[str, str]]]:
        """For a recipe file: by the digests that `node` names, for each source the name of its file and the SHA-256."""
        ...


@dataclass(frozen=True)
class StatisticsFile:
    """A file of one source: where it is, and the SHA-256 of all its bytes."""

    path: Path
    sha256: str


Files = Mapping[str, StatisticsFile]  # by the names of sources


def digest_of(files: Files) -> str:
    """The digest by which a recipe names the statistics of its sources: of their names and files."""
    named = {name: file.sha256 for name, file in files.items()}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def unknown(digest: str) -> StatisticsError:
    """What to say of statistics that no file here is of."""
    return StatisticsError(
        f"the recipe names statistics of activations, {digest[:12]}, whose files are not known here. A recipe of such "
        "a merge is made again by evohydra rebuild, which looks for them; another search can have its winner's "
        "checkpoint as a source"
    )


class NothingFound:
    """Statistics of a pass that has found nothing of any tensor: for looking at a merge before there is one."""

    def read(self, digest: str, source: str, name: str) -> Found | None:
        """As `Statistics.read`; StatisticsError for another digest than `UNREAD`."""
        if digest != UNREAD:
            raise unknown(digest)
        return None

    def told(self, node: Node) -> dict[str, dict[str, dict[str, str]]]:
        """No files."""
        return {}


@dataclass
class StatisticsFiles:
    """Statistics in files, by their digests. A file is hashed before anything of it is read."""

    sets: Mapping[str, Files] = field(default_factory=dict)
    _open: dict[Path, "_Opened"] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, object]:
        return {"sets": self.sets, "_open": {}}

    def read(self, digest: str, source: str, name: str) -> Found | None:
        """As `Statistics.read`; StatisticsError also for files that are missing, or other ones than they were."""
        file = self._files(digest).get(source)
        if file is None:
            raise StatisticsError(
                f"statistics {digest[:12]}: none are of the source {source!r}, only of {sorted(self.sets[digest])}"
            )
        if file.path not in self._open:
            self._open[file.path] = _opened(source, file)
        return self._open[file.path].read(name)

    def _files(self, digest: str) -> Files:
        if digest not in self.sets:
            raise unknown(digest)
        return self.sets[digest]

    def told(self, node: Node) -> dict[str, dict[str, dict[str, str]]]:
        """As `Statistics.told`."""
        return {
            digest: {name: {"file": f.path.name, "sha256": f.sha256} for name, f in self._files(digest).items()}
            for digest in named_by(node)
        }


def found_of(
    known: Statistics | None, method: Method, node: Merge, name: str, given: Plain, cache: Cache, device: torch.device
) -> tuple[Found | None, ...]:
    """What was found of the tensor `name` of each model, on `device`, for a method that reads some; `given`: genes.

    ValueError where the recipe names no statistics that are known, or has other sources than checkpoints.
    """
    if STATISTICS not in method.supplied:
        return ()
    digest, who = given.get(STATISTICS), method.function.__name__
    if known is None or not isinstance(digest, str):
        raise ValueError(
            f"{who} needs what a pass over texts finds of its sources ({method.reads}), and the recipe names none that "
            f"is known here, got statistics={digest!r}"
        )
    found: list[Found | None] = []
    for model in node.models:
        if not isinstance(model, Checkpoint):
            raise ValueError(
                f"{who} needs what a pass over texts finds of its sources, which is made of checkpoints alone; "
                "expected no recipes among the sources"
            )
        read = functools.partial(_on, device, known, digest, model.name, name)
        found.append(cache.kept((STATISTICS, digest, model.name, name), read))
    if any(each is None for each in found) and any(found):
        raise ValueError(f"{name!r}: expected statistics of all sources or of none, got those of some")
    return tuple(found)


def _on(device: torch.device, known: Statistics, digest: str, source: str, name: str) -> Found | None:
    found = known.read(digest, source, name)
    return found and Found(found.values.to(device), found.transposed)


def named_by(node: Node) -> list[str]:
    """The digests of all statistics that a recipe names."""
    found: list[str] = []
    if isinstance(node, Merge):
        given = [node.options, *(group.parameters for group in node.groups)]
        found = [str(each[STATISTICS]) for each in given if STATISTICS in each]
    return list(dict.fromkeys([*found, *(digest for child in children(node) for digest in named_by(child))]))


@dataclass(frozen=True)
class _Opened:
    tensors: Mapped
    same: Mapping[str, str]
    transposed: frozenset[str]

    def read(self, name: str) -> Found | None:
        stored = self.same.get(name)
        return None if stored is None else Found(self.tensors.get_tensor(stored), name in self.transposed)


def _opened(source: str, file: StatisticsFile) -> _Opened:
    place = f"statistics of the source {source!r}: {file.path}"
    if not file.path.is_file():
        raise StatisticsError(f"{place} is missing; the merge needs the file with the SHA-256 {file.sha256}")
    check_plain_file(file.path)
    if (found := sha256_of(file.path)) != file.sha256:
        raise StatisticsError(f"{place} has changed: expected the SHA-256 {file.sha256}, got {found}")
    tensors, how = opened(file.path)
    return _Opened(tensors, how["same"], frozenset(how["transposed"]))


def opened(path: Path) -> tuple[Mapped, Plain]:
    """The tensors of a file of statistics, mapped, and how it was made; StatisticsError for other files."""
    try:
        tensors = cast(Mapped, safe_open(path, framework="pt", device="cpu"))
        how: Plain = check_entries(str(path), json.loads((tensors.metadata() or {})[METADATA]), HOW, AS_WELL)
        if unknown := sorted(set(how["same"].values()) - set(tensors.keys())):
            raise ValueError(f"it has no tensor {shown(unknown[0])}")
    except (SafetensorError, KeyError, ValueError, OSError, RecursionError) as error:
        raise StatisticsError(f"{path}: expected statistics of activations as evohydra writes them: {error}") from error
    return tensors, how


def located(told: Mapping[str, Files], directories: Sequence[Path]) -> dict[str, dict[str, StatisticsFile]]:
    """Files that are known by their names, at their places; StatisticsError, with where was looked, without one."""
    found: dict[str, dict[str, StatisticsFile]] = {}
    for digest, files in told.items():
        found[digest] = {}
        for source, file in files.items():
            places = [directory / file.path for directory in directories]
            there = next((place for place in places if place.is_file()), None)
            if there is None:
                raise StatisticsError(
                    f"statistics of the source {source!r}: expected the file {file.path} with the SHA-256 "
                    f"{file.sha256}, which the run has made, in {' or '.join(map(str, directories)) or 'a directory'}; "
                    "--statistics DIRECTORY says where it is now"
                )
            found[digest][source] = StatisticsFile(there, file.sha256)
    return found


def parse_told(content: object, where: str) -> dict[str, dict[str, StatisticsFile]]:
    """What a recipe file says of statistics (see `told`), with paths that are names alone; ValueError for all else."""
    told: Plain = check_entries(where, {"statistics": content}, {"statistics": Mapping[str, Mapping[str, object]]})
    found: dict[str, dict[str, StatisticsFile]] = {}
    for digest, files in told["statistics"].items():
        found[digest] = {}
        for name, each in files.items():
            at = f"{where}.{shown(digest)}.{shown(name)}"
            entries: Plain = check_entries(at, each, {"file": str, "sha256": str})
            if not FILE_NAME.fullmatch(entries["file"]) or not SHA256.fullmatch(entries["sha256"]):
                raise ValueError(
                    f"{at}: expected the name of a file (16 hexadecimal digits) and its SHA-256, got {shown(each)}"
                )
            found[digest][name] = StatisticsFile(Path(entries["file"]), entries["sha256"])
        if digest != digest_of(found[digest]):
            raise ValueError(
                f"{where}: expected the digest {digest_of(found[digest])} of these files, got {shown(digest)}"
            )
    return found
