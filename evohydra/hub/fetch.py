"""From a name on the hub to a directory with the files that a source needs, and with weights that are safetensors."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path

from evohydra.files import read_json
from evohydra.hub import SourceError, conversions, headers, in_words
from evohydra.hub.asking import ask, listing_of
from evohydra.hub.converting import (
    WEIGHTS_ONLY,
    conversion_directory,
    convert_directory,
    joined,
    made_before,
    same_pickles,
    settings_of,
    with_weights_of,
)
from evohydra.hub.hashes import check_downloaded, check_hashes
from evohydra.hub.listing import (
    PICKLE_SUFFIXES,
    Listed,
    Listing,
    cached_listing,
    folder_of,
    has_weights,
    lacking,
    needed,
    pickled,
    snapshot,
    variant_of,
)
from evohydra.hub.messages import broken_off, hub_errors, not_cached, unfinished
from evohydra.hub.progress import Bar
from evohydra.hub.space import WEIGHTS, check_space
from evohydra.hub.weights_only import is_pickled_index

logger = logging.getLogger(__name__)
CONFIGURED = ("config.json", "model_index.json", "adapter_config.json")  # one of them is in every model's repository
PIPELINE = "model_index.json"
PIN = "model.sources.<name>.revision="


@dataclass(frozen=True)
class Wish:
    """What is wanted of `repository` at `revision` (a branch, a tag, a commit; None: the main branch).

    patterns: of its files, see `listing.needed`. convert: "weights_only" if pickles may be converted where there are
    no safetensors. sha256: of files that are pinned. pin: behind it a user writes the commit that is to be read.
    """

    repository: str
    revision: str | None
    patterns: Sequence[str]
    convert: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)
    pin: str = PIN

    @property
    def weights(self) -> bool:
        """Whether weights are wanted at all."""
        return any(pattern.endswith(".safetensors") for pattern in self.patterns)


def fetch(wish: Wish) -> Path:
    """The directory of a repository's files: downloaded, or from the cache where the hub cannot be reached.

    Where a branch has pickles only, the files of the hub's own conversion are taken, else (if wished) converted ones.
    Raises SourceError where there is no such repository, it is gated, the disk has no room, or there are pickles only.
    """
    listing = listing_of(wish.repository, wish.revision)
    where = f"{wish.repository} at {listing.commit}"
    chosen = settings_of(listing.files, wish.patterns)
    pickles = lacking(listing.files, wish.patterns)
    if not (chosen or pickles):
        if not listing.certain:
            raise not_cached(wish.repository, wish.revision)
        raise SourceError(
            f"{where} on the hub has none of the files {list(wish.patterns)}; "
            f"it holds {[file.path for file in listing.files][:8]}"
        )
    _say_what_changed(wish, listing)
    if wish.weights and (pickles := _of_components(wish, listing, pickles, wish.revision)):
        return _without_safetensors(wish, listing, pickles)
    if wish.weights and not has_weights(chosen):
        if not listing.certain:
            return _without_safetensors(wish, listing, ())
        weights = [file.path for file in listing.files if file.path.endswith(WEIGHTS)]
        raise SourceError(
            f"{where}: expected weights such as {_example(wish)}, got {weights[:8] or 'none'}{_variants(wish, weights)}"
        )
    unknown = sorted(set(wish.sha256) - set(listing.etags()))
    if unknown and listing.certain:
        raise SourceError(f"{where}: model.sources.<name>.sha256 pins {unknown[0]}, a file that is not there")
    more = sum(file.size for file in chosen if file.path.endswith(PICKLE_SUFFIXES))  # asked for by name
    return _download(wish, listing, _of_components(wish, listing, chosen, wish.revision), wish.revision, more)


def _example(wish: Wish) -> str:
    return next(pattern for pattern in wish.patterns if pattern.endswith(".safetensors"))


def _variants(wish: Wish, weights: Sequence[str]) -> str:
    """Which variants there are of a pipeline's weights, where the wanted one is not."""
    found = sorted({name for path in weights if (name := variant_of(path))})
    if not found or "/" not in _example(wish):
        return ""
    return f". These are variants: model.sources.<name>.variant={found[0].removeprefix('.')} takes them"


def _of_components(
    wish: Wish, listing: Listing, chosen: tuple[Listed, ...], revision: str | None
) -> tuple[Listed, ...]:
    """Without weights in folders that model_index.json, where there is one, does not name: no pipeline loads them.

    `listing` is that of `revision`.
    """
    if not (chosen and (index := listing.named([PIPELINE]))):
        return chosen
    try:
        named = read_json(_download(wish, listing, index, revision) / PIPELINE)
    except ValueError as error:
        raise SourceError(f"{wish.repository} at {listing.commit}: {error}") from error
    used = {"", *(name for name, entry in named.items() if isinstance(entry, list) and any(entry))}
    return tuple(f for f in chosen if not f.path.endswith(WEIGHTS) or folder_of(f.path) in used)


def _without_safetensors(wish: Wish, listing: Listing, pickles: Sequence[Listed]) -> Path:
    """What was converted here before, else the bot's conversion, else our own.

    Where pickles are pinned it is these that are converted: nobody has pinned what the bot has made of them. Where
    safetensors are pinned, which the branch has not, they are the bot's if it has made any.
    """
    where, reason = f"{wish.repository} at {listing.commit}", " There is no conversion of the hub's own either."
    known = made_before(conversion_directory(wish.repository, listing.commit, wish.patterns))
    mine = known if known and wish.convert == WEIGHTS_ONLY else None
    if mine and not any(name.endswith(".safetensors") for name in wish.sha256):
        return mine
    if pinned := [file.path for file in pickles if file.path in wish.sha256]:
        reason = f" model.sources.<name>.sha256 pins {pinned[0]}, so that no conversion of the hub's own is taken."
    else:
        found = conversions.remembered(listing)
        if found is None and not listing.cached:
            try:
                found = ask(lambda: conversions.find_conversion(listing, wish.patterns))
            except hub_errors() as error:
                reason = f" Its pull requests could not be read ({type(error).__name__})."
        elif found is None:
            reason = " The hub was not asked whether it has a conversion of its own."
        if found:
            return _of_the_hubs_own(wish, listing, pickles, found)
    if mine:
        return mine
    if not pickles:
        raise not_cached(wish.repository, wish.revision)
    if wish.convert != WEIGHTS_ONLY:
        raise SourceError(
            f"{where}: expected safetensors, found only pickle files ({', '.join(file.path for file in pickles)}), "
            f"which can run code and which evohydra does not load as they are.{reason} "
            "model.sources.<name>.convert=weights_only converts them with a reader that refuses all but tensors"
        )
    return _converted(wish, listing, pickles)


def _of_the_hubs_own(wish: Wish, listing: Listing, pickles: Sequence[Listed], found: conversions.Conversion) -> Path:
    """The weights of the bot's pull request, with the branch's own settings, which may have been corrected since."""
    target = conversion_directory(wish.repository, listing.commit, wish.patterns, found.listing.commit)
    if only := headers.wanted():
        target = only.beside(target)
    offered = _of_components(wish, found.listing, settings_of(found.listing.files, wish.patterns), found.listing.commit)
    if not listing.certain:
        return made_before(target) or _download(wish, found.listing, offered, found.listing.commit)
    settings = _of_components(wish, listing, settings_of(listing.files, wish.patterns, pickles), wish.revision)
    folders = {folder_of(file.path) for file in pickles}
    of_bot = [f for f in offered if ".safetensors" in f.path and folder_of(f.path) in folders]
    etags, commit = found.listing.etags(), found.listing.commit
    removed = {f.path for f in offered} - {f.path for f in (*settings, *of_bot)}  # from the branch, since
    other = [*(file.path for file in settings if etags.get(file.path) != file.etag), *sorted(removed)]
    logger.warning(
        "%s at %s holds pickles only; the weights of the hub's own conversion into safetensors are taken instead "
        "(%s, commit %s)%s. %s%s pins them",
        *(wish.repository, listing.commit, found.request, commit),
        f", with the branch's own {other[0]}{' and others' if other[1:] else ''}, which differ" if other else "",
        *(wish.pin, listing.commit if other else commit),
    )
    branch = _download(wish, listing, settings if other else (), wish.revision)
    if other:
        weights = _download(wish, found.listing, of_bot, commit)
        made = joined(weights, [f.path for f in of_bot], branch, [f.path for f in settings], target)
    else:
        made = _download(wish, found.listing, (*settings, *of_bot), commit)
    if not only:
        conversions.remember(listing, found)
    return made


def _converted(wish: Wish, listing: Listing, pickles: Sequence[Listed]) -> Path:
    """The repository's files with its pickles converted, made once for each commit."""
    target = conversion_directory(wish.repository, listing.commit, wish.patterns)
    beside = _of_components(wish, listing, settings_of(listing.files, wish.patterns, pickles), wish.revision)
    settings = [file.path for file in beside]
    if other := same_pickles(target, {file.path: file.sha256 for file in pickles}):
        return with_weights_of(other, _download(wish, listing, beside, wish.revision), settings, target)
    if headers.wanted():
        raise headers.not_by_headers(f"{wish.repository} at {listing.commit}", [file.path for file in pickles])
    source = _pickled_files(wish, listing, pickles)
    logger.warning(
        "%s: converting %d pickle files (%s) into safetensors in %s; nothing in them is run",
        *(wish.repository, len(pickles), in_words(sum(file.size for file in pickles)), target),
    )
    return convert_directory(source, settings, [f.path for f in pickles], target, wish.sha256)


def _pickled_files(wish: Wish, listing: Listing, pickles: Sequence[Listed]) -> Path:
    """The pickles, downloaded, with all that stands beside weights, where there is room for their conversion too."""
    beside = _of_components(wish, listing, settings_of(listing.files, wish.patterns, pickles), wish.revision)
    more = sum(file.size for file in (*pickles, *beside) if file.path.endswith(WEIGHTS))
    indices = [f for f in needed(listing.files, wish.patterns) if is_pickled_index(f.path)]
    return _download(wish, listing, (*beside, *indices, *pickles), wish.revision, more)


def fetch_pickled(wish: Wish) -> Path:
    """The directory of a repository's pickled weights, whether it has safetensors too or not; else as `fetch`."""
    listing = listing_of(wish.repository, wish.revision)
    pickles = pickled(listing.files, wish.patterns)
    if not pickles:
        raise SourceError(f"{wish.repository} at {listing.commit} on the hub holds no pickled weights")
    return _pickled_files(wish, listing, pickles)


def _say_what_changed(wish: Wish, listing: Listing) -> None:
    """A warning where a branch holds other files than when it was last downloaded."""
    earlier = None if listing.cached else snapshot(wish.repository, wish.revision)
    if earlier is None or earlier.name == listing.commit:
        return
    known = cached_listing(wish.repository, earlier.name)
    if known is None:
        return
    now, was = (
        {f.path: f.etag for f in (*settings_of(files, wish.patterns), *pickled(files, wish.patterns))}
        for files in (listing.files, known.files)
    )
    names = now.keys() | was.keys() if known.certain else now.keys() & was.keys()
    if changed := sorted(name for name in names if now.get(name) != was.get(name)):
        logger.warning(
            "%s has changed on the hub: it was at %s when it was last downloaded, and is at %s now, which is taken "
            "(%s%s). %s%s stays with the earlier one",
            *(wish.repository, earlier.name, listing.commit, changed[0]),
            *(" and others" if len(changed) > 1 else "", wish.pin, earlier.name),
        )


def _download(wish: Wish, listing: Listing, files: Sequence[Listed], revision: str | None, more: int = 0) -> Path:
    """Those files, at their commit, where there is room for them and for `more` bytes of a conversion."""
    where = f"{wish.repository} at {listing.commit}"
    check_hashes(where, {f.path: f.sha256 for f in files}, wish.sha256)
    if listing.cached:
        return _cached(where, listing, files)
    if (only := headers.wanted()) and headers.large(files) and not headers.cached(listing, files):
        try:
            return only.located(listing, files, more, lambda small: _fetched(wish, listing, small, revision))
        except hub_errors() as error:
            raise broken_off(wish.repository, error) from error
    if files:
        check_space(listing, files, more)
    return _fetched(wish, listing, files, revision)


def _fetched(wish: Wish, listing: Listing, files: Sequence[Listed], revision: str | None) -> Path:
    """Those files in the cache, downloaded where they are not there."""
    import huggingface_hub

    where = f"{wish.repository} at {listing.commit}"
    names = [escape(file.path) for file in files or listing.named(CONFIGURED)]
    try:
        found = Path(
            huggingface_hub.snapshot_download(wish.repository, revision=revision, allow_patterns=names, tqdm_class=Bar)
        )
    except hub_errors() as error:
        raise broken_off(wish.repository, error) from error
    if found.name != listing.commit:
        raise SourceError(f"{wish.repository} changed on the hub while it was downloaded; run the same command again")
    if absent := [file.path for file in files if not (found / file.path).is_file()]:
        raise SourceError(f"{wish.repository}: {absent[0]} was not downloaded to {found}; run the same command again")
    check_downloaded(where, found, files)
    return found


def _cached(where: str, listing: Listing, files: Sequence[Listed]) -> Path:
    """Those files in the cache; SourceError where some of them are not there."""
    found = snapshot(listing.repository, listing.commit)
    missing = [file.path for file in files if not (found and (found / file.path).is_file())]
    if missing or found is None:
        raise unfinished(where, missing, len(files))
    if not listing.certain:
        logger.warning("%s: nothing in the local cache says whether all files of %s are there", where, found)
    check_downloaded(where, found, files)
    return found
