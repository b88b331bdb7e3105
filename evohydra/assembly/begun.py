"""Sources of a run that goes on: recipes name them as when it began, wherever the same was found now."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from evohydra.families.sources import OpenSources
from evohydra.files import read_json
from evohydra.hub.commits import PICKLE, commit_of
from evohydra.hub.hashes import converted_pin
from evohydra.recipe import Checkpoint
from evohydra.searching.identity import Identity, differences, listed, of_versions
from evohydra.searching.json_lines import LedgerError

LATER = (("search", "statistics"), ("search", "warm_start"))  # what is known only once sources have read texts
COLLAPSED = "of linear merges: one merge of their sources"
PLACES = ("path", "revision", "adapter", "convert")  # say where a source is, not what it holds


def as_begun(opened: OpenSources, file: Path) -> OpenSources:
    """The sources with the places that run.json has in `file`, where weights and settings are those that it names.

    Digests of recipes hold these places, and random masks follow from them. Without such a file, or with another one,
    they are as they were found.
    """
    try:
        known = read_json(file)
        search, contents = known["search"], known["scores"]["sources"]
        begun = {node["name"]: node for node in (*search["models"], *filter(None, [search["base"]]))}
    except (OSError, ValueError, KeyError, TypeError):
        return opened  # what is wrong with it is said where it is compared

    def placed(node: Checkpoint) -> Checkpoint:
        same = {"fingerprint": node.fingerprint, "settings": opened.settings[node.name]}
        was: Mapping[str, object] = begun.get(node.name, {})
        if contents.get(node.name) != same or not isinstance(was.get("path"), str):
            return node
        return replace(node, **{key: was.get(key) for key in PLACES})  # type: ignore[arg-type]

    base = placed(opened.base) if opened.base else None
    return replace(opened, models=tuple(map(placed, opened.models)), base=base)


def collapses(file: Path) -> bool:
    """Whether linear merges of linear merges are one merge: not where `file` is run.json of a run that merged them."""
    try:
        known = read_json(file)
        return bool(known["search"].get("linear_merges"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return True


def check_before_texts(file: Path, identity: Identity) -> None:
    """LedgerError where `file` is the run.json of a run with another identity, as far as that is known by now.

    So that no pass over texts is made for a run that is refused after it. What else is wrong with such a file is said
    where all is compared.
    """
    try:
        known = read_json(file)
    except (OSError, ValueError):
        return
    parts = {key: known.get(key) for key in ("scores", "search")}
    now = {key: identity.to_dict()[key] for key in parts}
    found = [each for each in differences(parts, now) if not of_versions(each[0]) and each[0][:2] not in LATER]
    if found:
        raise LedgerError(
            f"{file.parent} holds a run of another configuration or other data ({listed(found)}). Choose another name "
            "with run=NAME, or delete the directory"
        )


def commits_of(opened: OpenSources) -> dict[str, dict[str, str]]:
    """By name the commits of the hub that sources and their adapters were read from, as run.json has them."""
    places = {"commit": opened.paths, "adapter_commit": opened.adapters}
    found: dict[str, dict[str, str]] = {}
    for kind, paths in places.items():
        for name, path in paths.items():
            if commit := commit_of(path):
                found.setdefault(name, {})[kind] = commit
    for name, path in opened.paths.items():
        for file, hashed in converted_pin(path).items() if name in found else ():
            found[name][PICKLE] = f"{file}: {hashed}"
    return found
