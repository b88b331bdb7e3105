"""Which runs have scores that can be compared: not those that had other content under the same options."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evohydra.families.declared import BASE
from evohydra.files import Plain
from evohydra.searching.identity import EARLIER, Difference, differences, listed

REFERENCE = re.compile(r"\$\{([\w.]+)\}")  # to another option
# What a configuration says of where a source is; of what its base is, every source says a part.
OF_SOURCE = ("path", "revision", "adapter", "dtype", "variant", "config", "convert", "sha256")
OF_BASE = ("base", "base_revision", "base_variant", "convert")
MEASURES = ("metric", "measure", "filter")  # of a benchmark: scores by two of these are two kinds of numbers
DOCUMENTS = "documents"  # of a split: the examples, apart from how they are asked
# Which options decide on a part of the identity of scores, if it is not a matter of itself; the model decides on all.
DECIDED_BY = {
    "configured_by": ("tokenizer", "config", "missing"),
    "alignment": ("tokenizer", "missing", "config", "pad_vocabulary_to", "components", "adapters"),
    "dtype": ("dtype", "device"),
    "out_dtype": ("out_dtype", "dtype", "device"),
    "device": ("device", "dtype"),
    "backend": ("backend",),
}


@dataclass(frozen=True)
class Begun:
    """What a run has begun with: its identity (run.json; empty if it has none) and its configuration."""

    identity: Plain
    config: Plain

    def option(self, key: str) -> object:
        """The value of an option, and those that it refers to as ${other.key}."""
        value = self.config.get(key)
        return value, [self._at(path) for path in REFERENCE.findall(json.dumps(value, default=str))]

    def source(self, name: str) -> object:
        """What its options say of the source `name`."""
        sources = _mapping(_mapping(self.config.get("model")).get("sources"))
        if name == BASE:
            based = [_mapping(each) for each in sources.values() if _mapping(each).get(BASE)]
            return [[each.get(key) for key in OF_BASE] for each in based]
        return [_mapping(sources.get(name)).get(key) for key in OF_SOURCE]

    def _at(self, path: str) -> object:
        found: object = self.config
        for key in path.split("."):
            found = _mapping(found).get(key)
        return found


def not_chosen(one: Begun, other: Begun) -> list[Difference]:
    """In what the scores of two runs cannot be compared: content that differs where no option says so.

    That are weights, settings and code of what has the same name in both, versions, and devices. Scores on other test
    examples, of another benchmark or by another metric are never compared. Empty where one of them has no identity.
    """
    if "scores" not in one.identity or "scores" not in other.identity:
        return []
    return [found for found in differences(one.identity, other.identity) if not _chosen(found, one, other)]


def groups(runs: Sequence[Begun]) -> list[int]:
    """For each run the number of its group, from 0: the runs of one can be compared with each other."""
    found: list[list[Begun]] = []
    numbers = []
    for run in runs:
        fits = (n for n, members in enumerate(found) if not any(not_chosen(member, run) for member in members))
        number = next(fits, len(found))
        if number == len(found):
            found.append([])
        found[number].append(run)
        numbers.append(number)
    return numbers


def told(one: Begun, other: Begun) -> str:
    """In words what makes the scores of `other` others than those of `one`."""
    return listed(not_chosen(one, other))


def _chosen(found: Difference, one: Begun, other: Begun) -> bool:
    """Whether a difference of two identities is one that their options make, or one that no score depends on."""
    (part, *at), was, now = found
    both = was is not None and now is not None
    if part == EARLIER:
        return False
    if part == "search":
        if at[0] == "warm_start":
            return _options_differ(one, other, "warm_start", "warm_start_top")
        return at[0] != "code" or not both
    if part != "scores":
        return True
    match at:
        case ["sources", name, *_]:
            return len(at) == 2 or one.source(name) != other.source(name)
        case ["benchmarks", _, *rest]:
            return _of_benchmark_chosen(rest, one, other)
        case ["versions", *_]:
            return False
        case ["code", *_]:
            return not both
    return _options_differ(one, other, "model", *DECIDED_BY.get(at[0], ()))


def _of_benchmark_chosen(at: Sequence[str], one: Begun, other: Begun) -> bool:
    """The same for what a benchmark says of itself."""
    if not at or at[0] == "versions" or at[0] in MEASURES:
        return False
    if at[0] == "splits":
        if at[1:2] not in (["test"], []):
            return True
        if at[2:3] in ([], [DOCUMENTS]):
            return False
    return _options_differ(one, other, "benchmark")


def _options_differ(one: Begun, other: Begun, *keys: str) -> bool:
    return any(one.option(key) != other.option(key) for key in keys)


def _mapping(value: object) -> Plain:
    return value if isinstance(value, Mapping) else {}
