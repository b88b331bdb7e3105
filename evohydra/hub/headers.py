"""Headers in the place of weights: of a repository a plan reads what files say of themselves, and downloads no tensor.

In `headers_only` whatever is located on the hub has its small files whole. Large safetensors are stand-ins: the header
of the file, and behind it a hole as long as the numbers that are not there. Everything that reads shapes and types
works on them as on the files themselves. They lie in a room that vanishes with the plan, never in a cache.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from evohydra.hub import SourceError, folder_name
from evohydra.hub.listing import Listed, Listing, snapshot
from evohydra.hub.space import check_space

SMALL = 2**20  # bytes of safetensors that are not worth a stand-in
STAND_INS = ".stand-ins"  # marks a directory whose weights are headers alone


@dataclass
class Headers:
    """What was located.

    downloads: the bytes that a run would fetch, by file. no_room: sentences about disks that are full.
    """

    room: Path
    downloads: dict[str, int] = field(default_factory=dict)
    no_room: list[str] = field(default_factory=list)

    def beside(self, target: Path) -> Path:
        """A place in the room for what a run would make at `target`."""
        return self.room / "made" / target.parent.name / target.name

    def located(
        self, listing: Listing, files: Sequence[Listed], more: int, download: Callable[[Sequence[Listed]], Path]
    ) -> Path:
        """The directory of those files; `download` gives small ones, `more` are the bytes of a conversion.

        Raises huggingface_hub's errors.
        """
        try:
            check_space(listing, files, more, say=False)
        except SourceError as error:
            self.no_room.append(str(error))
        there = snapshot(listing.repository, listing.commit)
        lacking = [file for file in files if there is None or not (there / file.path).is_file()]
        self.downloads |= {f"{listing.repository}/{file.path}": file.size for file in lacking}
        stood_for = large(files)
        small = [file for file in files if file not in stood_for]
        return self.directory(listing, files, download(small) if small else there)

    def directory(self, listing: Listing, files: Sequence[Listed], small: Path | None) -> Path:
        """The files of a repository: links to those below `small`, stand-ins of the others."""
        made = self.room / folder_name(listing.repository) / listing.commit
        made.mkdir(parents=True, exist_ok=True)
        (made / STAND_INS).touch()
        for file in files:
            place = made / file.path
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.exists():
                continue
            if small is not None and (small / file.path).is_file():
                place.symlink_to((small / file.path).resolve())
            else:
                stand_in(place, *_header(listing, file))
        return made


_only: ContextVar[Headers | None] = ContextVar("headers_only", default=None)


@contextmanager
def headers_only(room: Path) -> Iterator[Headers]:
    """Have weights on the hub located by their headers alone, in `room`."""
    made = Headers(room)
    token = _only.set(made)
    try:
        yield made
    finally:
        _only.reset(token)


def wanted() -> Headers | None:
    """What is being located, where only headers are wanted; else None."""
    return _only.get()


def is_stand_in(place: Path) -> bool:
    """Whether the weights in a directory, or a single file, are headers alone."""
    return (place / STAND_INS).exists() or any((above / STAND_INS).exists() for above in place.parents[:3])


def large(files: Sequence[Listed]) -> list[Listed]:
    """The files of which headers are enough."""
    return [file for file in files if file.path.endswith(".safetensors") and file.size > SMALL]


def cached(listing: Listing, files: Sequence[Listed]) -> bool:
    """Whether the local cache holds all of these files."""
    there = snapshot(listing.repository, listing.commit)
    return there is not None and all((there / file.path).is_file() for file in files)


def stand_in(place: Path, header: bytes, size: int) -> None:
    """Write a file of `size` bytes that is a hole but for its first ones, the `header`."""
    with place.open("wb") as file:
        file.write(header)
        file.truncate(max(size, len(header)))


def _header(listing: Listing, file: Listed) -> tuple[bytes, int]:
    """The header of a safetensors file on the hub, by a request for its first bytes, and the size of the whole file."""
    import huggingface_hub

    found = huggingface_hub.HfApi().parse_safetensors_file_metadata(
        listing.repository, file.path, revision=listing.commit
    )
    tensors = {
        name: {"dtype": each.dtype, "shape": list(each.shape), "data_offsets": list(each.data_offsets)}
        for name, each in found.tensors.items()
    }
    end = max((each.data_offsets[1] for each in found.tensors.values()), default=0)
    text = json.dumps({"__metadata__": found.metadata, **tensors} if found.metadata else tensors).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, 8 + len(text) + end


def not_by_headers(where: str, names: Sequence[str]) -> SourceError:
    """Why a plan cannot say anything of pickles."""
    return SourceError(
        f"{where} holds pickles only ({', '.join(names)}), which say nothing of themselves before they are downloaded. "
        "Convert them first (python -m evohydra.convert OWNER/NAME DIRECTORY), and plan with the directory as "
        "model.sources.<name>.path"
    )
