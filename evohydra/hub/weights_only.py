"""Pickled weights made into safetensors: torch reads them with a reader that knows tensors and nothing else."""

import json
import pickle
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from evohydra.files import all_on_disk, check_plain_file, read_json
from evohydra.files.tensors import NAMES, write_tensors
from evohydra.hub import SourceError
from evohydra.hub.hashes import record_beside, remembered_sha256, sha256_of

IMPORTS = re.compile(r"GLOBAL ([\w.]+)")
SHARD = re.compile(r"(.*-)\d{5}(-of-(\d{5}).*)")
SAFE = ".safetensors"
INDEX = re.compile(r"\.bin\.index(\.\w+)?\.json$")  # of shards, perhaps of a variant
# Of a training framework's checkpoint, whose other entries are its own and not read by anyone here.
STATE = "state_dict"
METADATA = "__metadata__"
CHUNK = 1 << 20
# What torch raises over files that are damaged or none of its own.
UNREADABLE = (
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    zipfile.BadZipFile,
)


def read_pickle(file: Path) -> dict[str, Tensor]:
    """The tensors of a pickled checkpoint, mapped from the file where it is of the kind that torch writes since 1.6.

    Raises SourceError for anything but tensors by name, with the name of what the pickle wanted to import, and for a
    file that is damaged. Nothing in it is run.
    """
    try:
        check_plain_file(file)
        _check_kind(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about protocols of pickle that it may not know: then it fails
            mapped = _can_be_mapped(file)
            loaded: object = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise SourceError(_refused(file, str(error))) from error
    except UNREADABLE as error:
        size = file.stat().st_size if file.exists() else 0
        raise SourceError(
            f"{file}: expected weights that torch can read, got {size} bytes that it cannot ({error})"
        ) from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get(STATE), Mapping):
        loaded = loaded[STATE]
    if not isinstance(loaded, Mapping) or not loaded:
        raise SourceError(f"{file}: expected a pickle of tensors by name, got {type(loaded).__name__}")
    for name, value in loaded.items():
        if not (isinstance(name, str) and isinstance(value, Tensor) and _plain(value)):
            raise SourceError(
                f"{file}: expected nothing but plain tensors by name, got {type(value).__name__} as {name!r}"
            )
        if name == METADATA:
            raise SourceError(f"{file}: a tensor is called {METADATA!r}, which safetensors keeps for something else")
        if value.dtype not in NAMES or value.is_quantized:
            raise SourceError(
                f"{file}: tensor {name!r} is of the type {value.dtype}, which is converted to nothing here"
            )
    if mapped:
        _check_lengths(file, list(loaded.values()))
    return {name: value.detach() for name, value in loaded.items()}


def _can_be_mapped(file: Path) -> bool:
    """Whether torch may map the file: an archive whose records are stored as they are. Others it would misread.

    Raises BadZipFile for a record that is not what its checksum says; torch looks at none. A checksum of 0 is none
    (`torch.serialization.set_crc32_options`).
    """
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if entry.CRC:
                with archive.open(entry) as record:
                    while record.read(CHUNK):
                        pass
        return all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())


def _check_kind(file: Path) -> None:
    """SourceError for files of other kinds that are often called like pickles."""
    with file.open("rb") as opened:
        head = opened.read(16)
    if head.startswith(b"version https:/"):
        raise SourceError(
            f"{file}: expected weights, got a pointer of Git LFS to them, {file.stat().st_size} bytes; fetch the "
            "weights with git lfs pull, or download the file again"
        )
    if head[8:10] in (b'{"', b"{ ") and int.from_bytes(head[:8], "little") < file.stat().st_size:
        raise SourceError(f"{file}: expected a pickle, got safetensors; call it {safe_name(file.name)}")


def _check_lengths(file: Path, tensors: Sequence[Tensor]) -> None:
    """SourceError where a tensor would reach beyond its record: torch looks at no lengths where it maps a file."""
    with zipfile.ZipFile(file) as archive:
        records = Counter(entry.file_size for entry in archive.infolist())
    storages = {storage.data_ptr(): storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}
    if lacking := Counter(size for size in storages.values() if size) - records:
        raise SourceError(
            f"{file}: the file is damaged: its tensors need more records of {next(iter(lacking))} bytes than it has"
        )


def _plain(tensor: Tensor) -> bool:
    """Whether it holds all of its numbers: not nested, not without data, and no few numbers repeated into many."""
    if tensor.is_nested or tensor.layout != torch.strided or tensor.device.type != "cpu":
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _refused(file: Path, message: str) -> str:
    if "Unsupported operand" in message:
        return (
            f"{file}: expected a pickle as torch.save writes it, got something else, or another protocol of pickle "
            f"than 2 (torch says: {_last_line(message)}). Nothing of it was run or converted"
        )
    found = IMPORTS.search(message)
    wanted = f"it wanted to import {found[1]}" if found else f"torch says: {_last_line(message)}"
    return f"{file}: refused, for the pickle holds more than tensors: {wanted}. Nothing of it was run or converted"


def _last_line(message: str) -> str:
    error = message.partition("WeightsUnpickler error:")[2].strip().splitlines()
    return error[0][:200] if error else message[:200]


def convert_file(file: Path, target: Path) -> None:
    """Write the tensors of a pickled checkpoint into a safetensors file, one after the other."""
    tensors = read_pickle(file)
    described = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(target, described, tensors.items())


def is_pickled_index(name: str) -> bool:
    """Whether a file of that name says which pickled shard holds which tensor."""
    return INDEX.search(name) is not None


def safe_name(name: str) -> str:
    """What a pickled file, or the index of several, is called as safetensors, by transformers and diffusers."""
    folder, slash, bare = name.rpartition("/")
    bare = INDEX.sub(rf"{SAFE}.index\1.json", bare)
    bare = re.sub(r"\.(bin|ckpt|pt|pth)$", SAFE, bare)
    if bare.startswith("pytorch_model"):
        bare = "model" + bare.removeprefix("pytorch_model")
    return f"{folder}{slash}{bare}"


def convert_files(root: Path, names: Sequence[str], target: Path) -> dict[str, dict[str, str]]:
    """Convert the pickles `names` below `root`, and their indices, into the same places below `target`.

    Returns, and writes as conversion.json, the SHA-256 of each file that was read and of each that was written.
    """
    hashes: dict[str, dict[str, str]] = {"from": {}, "to": {}}
    _check_whole(root, names)
    for name in names:
        hashes["from"][name] = remembered_sha256(root / name)
        convert_file(root / name, target / safe_name(name))
        hashes["to"][safe_name(name)] = sha256_of(target / safe_name(name))
    beside = {path for name in names for path in (root / name).parent.iterdir() if is_pickled_index(path.name)}
    for index in sorted(beside):
        name = index.relative_to(root).as_posix()
        (target / safe_name(name)).write_text(json.dumps(_renamed(read_json(index)), indent=2) + "\n")
    record_beside(target, hashes)
    all_on_disk(target)
    return hashes


def _check_whole(root: Path, names: Sequence[str]) -> None:
    """SourceError where a shard is missing, by the numbers in the names of the others, or by an index beside them."""
    expected: set[str] = set()
    for found in filter(None, map(SHARD.fullmatch, names)):
        expected |= {f"{found[1]}{number:05}{found[2]}" for number in range(1, int(found[3]) + 1)}
    for folder in {(root / name).parent for name in names}:
        for index in (path for path in folder.iterdir() if is_pickled_index(path.name)):
            below = folder.relative_to(root)
            shards = {(below / file).as_posix() for file in _weight_map(read_json(index)).values()}
            expected |= shards if shards & set(names) else set()  # else it is of another set of files
    if missing := sorted(expected - set(names)):
        raise SourceError(
            f"{root / missing[0]}: this shard is missing, of {len(expected)} that belong together; nothing was "
            "converted. Fetch it too"
        )


def _weight_map(index: Mapping[str, object]) -> Mapping[str, str]:
    where = index.get("weight_map")
    if not isinstance(where, Mapping) or not all(isinstance(file, str) for file in where.values()):
        raise SourceError("expected an index of pickled shards with a weight_map, got none")
    return where


def _renamed(index: Mapping[str, object]) -> dict[str, object]:
    """An index with the names of the safetensors; what it says else is of no use to anybody here."""
    return {
        "metadata": index.get("metadata") or {},
        "weight_map": {name: safe_name(file) for name, file in _weight_map(index).items()},
    }
