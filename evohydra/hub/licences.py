"""Licences and languages of sources, by their cards, and what licences mean together: an aid, and no legal advice."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from evohydra.hub.cards import card_beside

FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(\n|\Z)", re.DOTALL)
LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
OUR_OWN = "apache-2.0"  # of the models that come with evohydra
PERMISSIVE = ("apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "unlicense", "isc", "zlib",
              "wtfpl", "afl-3.0", "ecl-2.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "openmdw")  # fmt: skip
# By the beginning of the hub's names.
SHARE_ALIKE = ("cc-by-sa", "cc-by-nc-sa", "gpl", "agpl", "lgpl", "gfdl", "odbl", "osl", "eupl", "mpl", "epl")
USE_LIMITS = ("openrail", "creativeml-openrail", "bigscience", "bigcode-openrail", "openrail++", "gemma", "llama",
              "stabilityai", "tii-falcon", "deepseek", "qwen", "faipl", "intel-research")  # fmt: skip
NAMED = {"llama2": "Llama 2", "llama3": "Llama", "llama3.1": "Llama", "llama3.2": "Llama", "llama3.3": "Llama",
         "llama4": "Llama", "gemma": "Gemma"}  # fmt: skip


@dataclass(frozen=True)
class Licences:
    """The licence of each source (None: unknown), and what follows for a merge of all, in a sentence each."""

    each: Mapping[str, str | None]
    together: tuple[str, ...]


def languages_of(text: str) -> tuple[str, ...]:
    """The codes of languages in a card's front matter."""
    told = _front_matter(text).get("language")
    codes = told if isinstance(told, list) else [told]
    return tuple(code.lower() for code in codes if isinstance(code, str) and LANGUAGE.fullmatch(code))


def common(each: Mapping[str, str | None]) -> str | None:
    """The licence that all sources have, as the hub names it; None where they differ, and where one is not known."""
    names = {licence.lower() if licence else None for licence in each.values()}
    return next(iter(names)) if len(names) == 1 else None


def known_to_the_hub(licence: str) -> bool:
    """Whether it is one of the licences that cards name by these words, rather than as `other`."""
    return _known(licence)


def _front_matter(text: str) -> Mapping[str, object]:
    found = FRONT_MATTER.match(text.lstrip("\ufeff"))
    try:
        data = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        return {}
    return data if isinstance(data, Mapping) else {}


def of_card(text: str) -> str | None:
    """The `license` of a card's front matter; `license_name` where that is "other"; None where there is none."""
    data = _front_matter(text)
    told = data.get("license") or data.get("licence")
    told = told[0] if isinstance(told, list) and told else told
    if told == "other":
        told = data.get("license_name") or "other"
    return str(told).strip().lower() if isinstance(told, str) and told.strip() else None


def of_directory(place: Path) -> str | None:
    """The licence that README.md in a directory names."""
    card = card_beside(place)
    return of_card(card) if card else None


def together(each: Mapping[str, str | None]) -> Licences:
    """What the licences of all sources mean for a merge of them."""
    known = {name: licence.lower() for name, licence in each.items() if licence}
    said = []
    if unknown := sorted(name for name, licence in each.items() if not licence or licence in ("other", "unknown")):
        said.append(f"unknown: of {_and(unknown)} nothing is known; without a licence nobody may publish a merge")
    if found := _with(known, lambda text: "-nc" in text or "non-commercial" in text or "noncommercial" in text):
        said.append(f"non-commercial: {found} allow no commercial use, and so no commercial use of the merge")
    if found := _with(known, lambda text: "-nd" in text):
        said.append(f"no derivatives: {found} do not allow to publish a merge")
    sharing = {name: text for name, text in known.items() if text.startswith(SHARE_ALIKE)}
    if sharing:
        said.append(f"share-alike: {_listed(sharing)} want a published merge under the same licence")
    if len(kinds := sorted(set(sharing.values()))) > 1:
        said.append(f"{_and(kinds)} each want the merge for themselves: it may not be possible to publish it at all")
    if sharing and any(text.startswith(USE_LIMITS) for text in known.values()):
        said.append("share-alike beside limits of use: the former allows no further limits, which the latter hand on")
    if found := _with(known, lambda text: text.startswith(USE_LIMITS)):
        said.append(f"limits of use: {found} have terms of their own, which a merge hands on")
    if names := sorted({NAMED[text] for text in known.values() if text in NAMED}):
        said.append(f"naming: {_and(names)} have to be named with the merge, some in its name")
    if named := sorted(name for name, text in known.items() if not text.startswith(("cc0", "unlicense", "wtfpl"))):
        said.append(f"naming: give the authors and licences of {_and(named)} with the merge")
    other = {n: t for n, t in known.items() if not _known(t) and t not in ("other", "unknown")}
    if other:
        said.append(f"not known here: {_listed(other)}; read them")
    return Licences(dict(each), tuple(said))


def _known(text: str) -> bool:
    return text in PERMISSIVE or text.startswith((*SHARE_ALIKE, *USE_LIMITS, "cc-by"))


def _with(known: Mapping[str, str], has: Callable[[str], bool]) -> str | None:
    found = {name: text for name, text in known.items() if has(text)}
    return _listed(found) if found else None


def _listed(found: Mapping[str, str]) -> str:
    return _and([f"{name} ({text})" for name, text in sorted(found.items())])


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
