"""From a name on the hub to a directory with the files that a source needs, and with weights that are safetensors."""

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path

from evohydra.files import read_json
from evohydra.hub import SourceError, cache_directory, conversions, folder_name, in_words
from evohydra.hub.listing import Listed, Listing, folder_of, has_weights, lacking, list_files, needed, pickled
from evohydra.hub.messages import explained, hub_errors, unreachable
from evohydra.hub.progress import Bar
from evohydra.hub.space import WEIGHTS, check_space
from evohydra.hub.weights_only import RECORD, check_hashes, convert_files, is_pickled_index

logger = logging.getLogger(__name__)
CONFIGURED = ("config.json", "model_index.json", "adapter_config.json")  # one of them is in every model's repository
WEIGHTS_ONLY = "weights_only"
PIPELINE = "model_index.json"


@dataclass(frozen=True)
class Wish:
    """What is wanted of `repository` at `revision` (a branch, a tag, a commit; None: the main branch).

    patterns: of its files, see `listing.needed`. convert: "weights_only" if pickles may be converted where there are
    no safetensors. sha256: of files that are pinned.
    """

    repository: str
    revision: str | None
    patterns: Sequence[str]
    convert: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def weights(self) -> bool:
        """Whether weights are wanted at all."""
        return any(pattern.endswith(".safetensors") for pattern in self.patterns)


def fetch(wish: Wish) -> Path:
    """The directory of a repository's files: downloaded, or from the cache where the hub cannot be reached.

    Where a branch has pickles only, the files of the hub's own conversion are taken, else (if wished) converted ones.
    Raises SourceError where there is no such repository, it is gated, the disk has no room, or there are pickles only.
    """
    try:
        listing = list_files(wish.repository, wish.revision)
    except hub_errors() as error:
        if unreachable(error):
            return _cached(wish, error)
        raise explained(wish.repository, wish.revision, error) from error
    chosen = settings_of(listing.files, wish.patterns)
    pickles = lacking(listing.files, wish.patterns)
    if not (chosen or pickles):
        raise SourceError(
            f"{wish.repository} at {listing.commit} on the hub has none of the files {list(wish.patterns)}; "
            f"it holds {[file.path for file in listing.files][:8]}"
        )
    _say_what_changed(wish, listing, (*chosen, *pickles))
    if wish.weights and (pickles := _of_components(wish, listing, pickles)):
        return _without_safetensors(wish, listing, pickles)
    return _download(wish, listing, _of_components(wish, listing, chosen), wish.revision)


def _of_components(wish: Wish, listing: Listing, chosen: tuple[Listed, ...]) -> tuple[Listed, ...]:
    """Without weights in folders that model_index.json, where there is one, does not name: no pipeline loads them."""
    if not (chosen and (index := listing.named([PIPELINE]))):
        return chosen
    try:
        named = read_json(_download(wish, listing, index, wish.revision) / PIPELINE)
    except ValueError as error:
        raise SourceError(f"{wish.repository} at {listing.commit}: {error}") from error
    used = {"", *(name for name, entry in named.items() if isinstance(entry, list) and any(entry))}
    return tuple(f for f in chosen if not f.path.endswith(WEIGHTS) or folder_of(f.path) in used)


def _without_safetensors(wish: Wish, listing: Listing, pickles: Sequence[Listed]) -> Path:
    """The bot's conversion, else our own."""
    where = f"{wish.repository} at {listing.commit}"
    known = conversions.remembered(listing.repository, listing.commit)
    try:
        found: conversions.Conversion | None
        if known:
            found = conversions.Conversion(known[0], list_files(wish.repository, known[1]))
        else:
            found = conversions.find_conversion(listing, wish.patterns)
    except hub_errors() as error:
        raise explained(wish.repository, wish.revision, error) from error
    if found:
        chosen = _of_components(wish, found.listing, settings_of(found.listing.files, wish.patterns))
        logger.warning(
            "%s holds pickles only; the hub's own conversion into safetensors is taken instead (%s, commit %s). "
            "model.sources.<name>.revision=%s pins it",
            *(where, found.request, found.listing.commit, found.listing.commit),
        )
        conversions.remember(listing, found)
        _download(wish, listing, (), wish.revision)  # the branch's commit is known then without a network too
        return _download(wish, found.listing, chosen, found.listing.commit)
    if wish.convert != WEIGHTS_ONLY:
        raise SourceError(_only_pickles(where, [file.path for file in pickles]))
    return _converted(wish, listing, pickles)


def _only_pickles(where: object, names: Sequence[str]) -> str:
    return (
        f"{where}: expected safetensors, found only pickle files ({', '.join(names)}), which can run code and which "
        "evohydra does not load as they are. There is no conversion of the hub's own either. "
        "model.sources.<name>.convert=weights_only converts them with a reader that refuses all but tensors"
    )


def _converted(wish: Wish, listing: Listing, pickles: Sequence[Listed]) -> Path:
    """The repository's files with its pickles converted, made once for each commit."""
    if known := _converted_before(wish, listing.commit):
        return known
    target = conversion_directory(wish, listing.commit)
    source = _pickled_files(wish, listing, pickles)
    logger.warning(
        "%s: converting %d pickle files (%s) into safetensors in %s; nothing in them is run",
        wish.repository,
        len(pickles),
        in_words(sum(file.size for file in pickles)),
        target,
    )
    beside = _of_components(wish, listing, settings_of(listing.files, wish.patterns, pickles))
    return convert_directory(source, [f.path for f in beside], [f.path for f in pickles], target, wish.sha256)


def _converted_before(wish: Wish, commit: str) -> Path | None:
    """The conversion of a commit that was made earlier; SourceError where it was made from others than the pinned."""
    target = conversion_directory(wish, commit)
    if not (target / RECORD).is_file():
        return None
    check_hashes(target, read_json(target / RECORD)["from"], wish.sha256)
    return target


def _pickled_files(wish: Wish, listing: Listing, pickles: Sequence[Listed]) -> Path:
    """The pickles, downloaded, with all that stands beside weights, where there is room for their conversion too."""
    beside = _of_components(wish, listing, settings_of(listing.files, wish.patterns, pickles))
    more = sum(file.size for file in (*pickles, *beside) if file.path.endswith(WEIGHTS))
    indices = [f for f in needed(listing.files, wish.patterns) if is_pickled_index(f.path)]
    return _download(wish, listing, (*beside, *indices, *pickles), wish.revision, more)


def fetch_pickled(wish: Wish) -> Path:
    """The directory of a repository's pickled weights, whether it has safetensors too or not; else as `fetch`."""
    try:
        listing = list_files(wish.repository, wish.revision)
    except hub_errors() as error:
        raise explained(wish.repository, wish.revision, error) from error
    pickles = pickled(listing.files, wish.patterns)
    if not pickles:
        raise SourceError(f"{wish.repository} at {listing.commit} on the hub holds no pickled weights")
    return _pickled_files(wish, listing, pickles)


def settings_of(files: Sequence[Listed], patterns: Sequence[str], pickles: Sequence[Listed] = ()) -> tuple[Listed, ...]:
    """What `patterns` find, without indices of pickles, and without weights in the folders of `pickles`."""
    replaced = {folder_of(file.path) for file in pickles}
    found = (file for file in needed(files, patterns) if not is_pickled_index(file.path))
    return tuple(f for f in found if not (f.path.endswith(WEIGHTS) and folder_of(f.path) in replaced))


def conversion_directory(wish: Wish, commit: str) -> Path:
    """Where the conversion of a repository's pickles at a commit is kept, of the files that `wish` is about."""
    about = hashlib.sha256(str(tuple(wish.patterns)).encode()).hexdigest()[:8]
    return cache_directory() / "converted" / folder_name(wish.repository) / commit / about


def convert_directory(
    source: Path, settings: Sequence[str], pickles: Sequence[str], target: Path, pinned: Mapping[str, str]
) -> Path:
    """Make `target`, whole or not at all: the pickles below `source` converted, and its settings beside them.

    Another process that was faster has made the same. Raises SourceError for pickles of more than tensors, for files
    that are not the pinned ones, and where the disk is full.
    """
    room = target.with_name(f".{target.name}.{os.getpid()}.partial")
    shutil.rmtree(room, ignore_errors=True)
    try:
        room.mkdir(parents=True)
        for name in settings:
            (room / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, room / name)
        hashes = convert_files(source, pickles, room)
        check_hashes(source, hashes["from"], pinned)
        if not (target / RECORD).is_file():
            room.rename(target)
    except OSError as error:
        raise SourceError(
            f"could not write the conversion of {source} to {target} ({error}); nothing is left"
        ) from error
    finally:
        shutil.rmtree(room, ignore_errors=True)
    return target


def _say_what_changed(wish: Wish, listing: Listing, chosen: Sequence[Listed]) -> None:
    """A warning where a branch holds other files than when it was last downloaded."""
    earlier = _cached_commit(wish)
    if earlier is None or earlier.name == listing.commit:
        return
    changed = [f.path for f in chosen if (earlier / f.path).resolve().name not in (f.etag, f.sha256)]
    if changed:
        logger.warning(
            "%s has changed on the hub: it was at %s when it was last downloaded, and is at %s now, which is taken "
            "(%s%s). model.sources.<name>.revision=%s stays with the earlier one",
            wish.repository,
            earlier.name,
            listing.commit,
            changed[0],
            " and others" if len(changed) > 1 else "",
            earlier.name,
        )


def _cached_commit(wish: Wish) -> Path | None:
    """The folder of the commit that the cache knows for the revision, whatever it holds; its name is the commit."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(
            huggingface_hub.snapshot_download(
                wish.repository, revision=wish.revision, allow_patterns=[], local_files_only=True
            )
        )
    except LocalEntryNotFoundError:
        return None


def _cached(wish: Wish, error: Exception) -> Path:
    """What the cache holds, where the hub cannot be asked."""
    earlier = _cached_commit(wish)
    if earlier is None:
        raise explained(wish.repository, wish.revision, error) from error
    known = conversions.remembered(wish.repository, earlier.name)
    if known and wish.weights and (there := earlier.parent / known[1]).is_dir():
        return there
    if converted := _converted_before(wish, earlier.name):
        return converted
    names = [path.relative_to(earlier).as_posix() for path in earlier.rglob("*") if path.is_file()]
    found = needed([Listed(name, 0, None, name) for name in names], wish.patterns)
    if not found or (wish.weights and not has_weights(found)):
        raise explained(wish.repository, wish.revision, error) from error
    linked = {name: earlier / name for name in names if (earlier / name).is_symlink()}  # to files called by their hash
    check_hashes(earlier, {name: path.resolve().name for name, path in linked.items()}, wish.sha256)
    return earlier


def _download(wish: Wish, listing: Listing, files: Sequence[Listed], revision: str | None, more: int = 0) -> Path:
    """Those files, at their commit, where there is room for them and for `more` bytes of a conversion."""
    import huggingface_hub

    check_hashes(f"{wish.repository} at {listing.commit}", {f.path: f.sha256 for f in files}, wish.sha256)
    if files:
        check_space(listing, files, more)
    names = [escape(file.path) for file in files or listing.named(CONFIGURED)]
    try:
        found = Path(
            huggingface_hub.snapshot_download(wish.repository, revision=revision, allow_patterns=names, tqdm_class=Bar)
        )
    except hub_errors() as error:
        raise explained(wish.repository, wish.revision, error) from error
    if found.name != listing.commit:
        raise SourceError(f"{wish.repository} changed on the hub while it was downloaded; run the same command again")
    if absent := [file.path for file in files if not (found / file.path).is_file()]:
        raise SourceError(f"{wish.repository}: {absent[0]} was not downloaded to {found}; run the same command again")
    return found
