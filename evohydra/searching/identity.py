"""What a run depends on, by content: to go on with it, and to share scores, both are compared with what is on file."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from evohydra.files import read_json, write_json
from evohydra.hub.commits import PICKLE
from evohydra.searching.json_lines import LedgerError
from evohydra.searching.masking import DIGEST, with_digests

Plain = Mapping[str, object]
Difference = tuple[tuple[str, ...], object, object]  # where, what it was, what it is now

# Every key of conf/config.yaml is in one of these three; `own` holds all others.
OF_SCORES = (
    "model", "benchmark", "tokenizer", "missing", "config", "pad_vocabulary_to", "components", "adapters", "device",
    "dtype", "out_dtype", "backend",
)  # fmt: skip
OF_THE_SEARCH = (
    "merge", "optimizer", "seed", "search", "fitness", "objective", "start", "warm_start", "warm_start_top",
    "guard", "guard_examples", "continue", "generations", "generations_keep", "generations_sources", "generations_then",
)  # fmt: skip
# What no score depends on, or (budget, top, pick) what may change when a run goes on.
INCIDENTAL = (
    "run", "budget", "top", "pick", "tracker", "executor", "threads", "cache_gb", "prefix_gb", "shard_gb", "batch_size",
    "prefix_cache", "baselines", "push", "report", "audit", "audit_examples",
    "answers", "ablate", "share_scores", "format", "allow_other_base", "allow_other_versions",
)  # fmt: skip
LEDGER, SCORES = "ledger.jsonl", "scores.jsonl"  # the files of a run that hold scores
ALLOW = "allow_other_versions=true"
EARLIER = "earlier_versions"
MIXTURE = "experts_per_token"
CHOSEN, COMMITS = "chosen", "commits"
IDENTITY = "run.json"
SHOWN = 12  # characters of a digest
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Alignment:
    """How the sources' tensors are brought to one shape, and what is added to their merge."""

    tokenizer: str
    missing: str
    pad_vocabulary_to: int | None
    components: Mapping[str, object]
    adapters: Sequence[Mapping[str, object]]
    config: str | None  # None is "same": runs that began before there was a choice go on
    experts_per_token: int | None = None  # None: no mixture, as before there were any


@dataclass(frozen=True)
class OfScores:
    """What the score of a recipe depends on.

    sources: by name the fingerprint of the tensors, and that of configuration and tokenizer. configured_by: the one
    that gives both to the merge. code: digests of the modules of one's own that merge or score. versions: of what runs
    models and merges them. benchmarks: what each says of itself (`Benchmark.identity`). workers: versions of what is in
    the Python of workers where that is another one (executor.python); None: there is none.
    """

    sources: Mapping[str, Mapping[str, object]]
    configured_by: str
    alignment: Alignment
    dtype: str
    out_dtype: str
    device: str
    backend: object
    code: Mapping[str, str]
    versions: Mapping[str, str | None]
    benchmarks: Mapping[str, Mapping[str, object]]
    workers: Mapping[str, str | None] | None = None


@dataclass(frozen=True)
class OfSearch:
    """What decides which recipes are scored.

    models, base: recipe nodes in the order of the genes; the digests of recipes in a ledger hold their paths. code:
    digests of the modules of one's own that search. own: keys of the user's own. Parts that score are made from their
    own settings, where such keys can only be referred to, so that scores do not depend on them by themselves; but a run
    with another value is another one until its user says so. search: None is "generations": runs that began before
    there was a choice go on. guard: the limits with the number of examples; None without any. statistics: SHA-256 of
    files of what passes over texts have found of the sources; None without any. linear_merges: what becomes of linear
    merges of sources that are linear merges themselves; None where no source is a recipe, and in runs that earlier
    versions began, which merge such sources.
    """

    models: Sequence[Mapping[str, object]]
    base: Mapping[str, object] | None
    merge: Plain
    optimizer: Plain
    seed: int
    fitness: Plain
    objective: Plain
    start: Sequence[str]
    warm_start: Mapping[str, str] | None
    search: str | None
    guard: Sequence[Mapping[str, object]] | None
    code: Mapping[str, str]
    own: Plain
    statistics: Mapping[str, str] | None = None
    linear_merges: str | None = None


@dataclass(frozen=True)
class Identity:
    """Both parts; run.json holds them.

    chosen: what `auto` has chosen of options that decide how answers are rounded (batch_size), empty where the user
    has. Of these a run that goes on may have others if its user says so. commits: by name of which commits of the hub
    sources were read, for whoever has to find them again; what they hold is compared, not their names.
    """

    scores: OfScores
    search: OfSearch
    chosen: Mapping[str, int] = field(default_factory=dict)
    commits: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON data, with digests in the place of secrets."""
        plain = _plain(self)
        return {key: value for key, value in plain.items() if value or key not in (CHOSEN, COMMITS)}

    def score_key(self, benchmark: str, split: str) -> str:
        """A digest of all that the scores on one split of one benchmark depend on beside recipe and examples.

        Other benchmarks and other splits are no part of it, so that runs which differ in these share scores.
        """
        scores = self.to_dict()["scores"]
        asked = scores.pop("benchmarks")[benchmark]
        splits = asked.pop("splits", {})
        key = {**scores, "benchmark": asked, "split": split, "examples": splits.get(split)}
        return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def _plain(of: Identity | OfScores) -> dict[str, Any]:
    found: dict[str, Any] = with_digests(json.loads(json.dumps(asdict(of))))
    alignment = found.get("scores", found)["alignment"]
    if alignment[MIXTURE] is None:  # scores of earlier versions have no such key
        del alignment[MIXTURE]
    return found


def check_same_scores(of_driver: OfScores, of_worker: OfScores) -> None:
    """LedgerError where a worker has read other things than the driver when the run began."""
    found = differences(_plain(of_driver), _plain(of_worker), ("scores",))
    if of_driver.workers is not None:  # whose versions are compared among `workers`
        found = [each for each in found if not of_versions(each[0]) or each[0][1] == "workers"]
    if found:
        raise LedgerError(
            "a worker that began now has found other sources, data or code than the run began with "
            f"({listed(found)}). What it would score is not recorded. Give the files their old content to go on, or "
            "choose another name with run=NAME"
        )


def own_keys(plain: Plain) -> dict[str, object]:
    """What a configuration has besides evohydra's keys."""
    known = {*OF_SCORES, *OF_THE_SEARCH, *INCIDENTAL}
    return {key: value for key, value in plain.items() if key not in known}


def check_identity(path: Path, identity: Mapping[str, object], *, allow_other_versions: bool = False) -> None:
    """Write `identity` where no run has begun; LedgerError where a run with another one has.

    A run that goes on with other versions of libraries has them in its file from then on, and in `earlier_versions` a
    list of what they were before: its scores are from both.
    """
    current = json.loads(json.dumps(identity))
    if not path.is_file():
        scored = [file for file in map(path.with_name, (LEDGER, SCORES)) if file.is_file() and file.stat().st_size]
        if scored:
            raise LedgerError(
                f"{scored[0]} holds scores, but {path.name} beside it, which says what they are scores of, is missing. "
                "Choose another name with run=NAME, or delete the directory"
            )
        write_json(path, current)
        return
    try:
        known = read_json(path)
    except ValueError as error:
        raise LedgerError(
            f"{error}, so that nothing says what was scored here. Choose another name with "
            "run=NAME, or delete the directory"
        ) from error
    earlier = known.pop(EARLIER, [])
    if "scores" in current and "scores" not in known:
        raise LedgerError(
            f"{path.parent} holds a run of an earlier version of evohydra, which did not write down what data it was "
            "scored on. Choose another name with run=NAME, or delete the directory"
        )
    _check_chosen(path.parent, known.pop(CHOSEN, {}), current.get(CHOSEN, {}))
    commits = known.pop(COMMITS, {})
    found = differences(known, {key: value for key, value in current.items() if key not in (CHOSEN, COMMITS)})
    others = [each for each in found if not of_versions(each[0])]
    shown = listed(others or found)
    if others:
        raise LedgerError(
            f"{path.parent} holds a run of another configuration or other data ({shown}). "
            f"{_earlier_commits(others, commits, current.get(COMMITS, {}))}"
            "Choose another name with run=NAME, or delete the directory"
        )
    if found and not allow_other_versions:
        raise LedgerError(
            f"{path.parent} holds a run with other versions of libraries ({shown}). Install those, choose another name "
            f"with run=NAME, or go on all the same with {ALLOW}"
        )
    if found:
        was = {".".join(at): version for at, version, _ in found}
        write_json(path, {**current, **({COMMITS: commits} if commits else {}), EARLIER: [*earlier, was]})


def _earlier_commits(
    found: Sequence[Difference], was: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]
) -> str:
    """Which commits of changed sources the run began with, and how to go on with them; empty where none is known."""
    told = ""
    for name in dict.fromkeys(at[2] for at, _, _ in found if at[:2] == ("scores", "sources") and len(at) > 2):
        before, after = was.get(name, {}), now.get(name, {})
        for kind, commit in before.items():
            if kind == PICKLE and commit != after.get(kind):
                key = "<name>.base_sha256" if name == "base" else f"{name}.sha256"
                told += (
                    f"It began with pickles of {name} that were converted here: '+model.sources.{key}={{{commit}}}' "
                )
                told += "takes them again. "
            elif commit != after.get(kind):
                what = name if kind == "commit" else f"the adapter of {name}"
                told += f"It began with {what} at commit {commit}: {_key(name, kind)}{commit} goes on with that. "
    return told


def _key(name: str, kind: str) -> str:
    """Behind which a user writes the commit of a source, or of its adapter."""
    if kind == "adapter_commit":
        return f"model.sources.{name}.adapter=OWNER/NAME@"
    return "model.sources.<name>.base_revision=" if name == "base" else f"model.sources.{name}.revision="


def _check_chosen(run: Path, was: Mapping[str, object], now: Mapping[str, object]) -> None:
    """LedgerError where `auto` chooses otherwise than when the run began; what the user chooses is not looked at."""
    for key in sorted(was.keys() & now.keys()):
        if was[key] != now[key]:
            raise LedgerError(
                f"{run} holds a run for which {key}=auto has chosen {was[key]}, here it would choose {now[key]}, with "
                f"which answers may be rounded otherwise. Give {key}={was[key]} to go on as it began, or another name "
                "with run=NAME"
            )


def differences(known: object, current: object, at: tuple[str, ...] = ()) -> list[Difference]:
    """Where two identities differ."""
    if isinstance(known, dict) and isinstance(current, dict):
        keys = sorted(known.keys() | current.keys())
        return [found for key in keys for found in differences(known.get(key), current.get(key), (*at, key))]
    return [] if known == current else [(at, known, current)]


def listed(found: Sequence[Difference]) -> str:
    """The first differences in words."""
    return "; ".join(_told(*each) for each in sorted(found, key=lambda each: each[0])[:5])


def of_versions(at: tuple[str, ...]) -> bool:
    """Whether a difference is one of the versions of libraries."""
    return at[:2] in (("scores", "versions"), ("scores", "workers")) or (
        at[:2] == ("scores", "benchmarks") and at[3:4] == ("versions",)
    )


def _told(at: tuple[str, ...], was: Any, now: Any) -> str:
    where, what = "", at[1:] if at[0] in ("scores", "search") else at
    if at[:2] == ("scores", "versions"):
        what = at[2:]
    if at[:2] == ("scores", "benchmarks"):
        where, what = f"benchmark {at[2]!r}: ", at[3:]
        if what[:1] == ("splits",) and len(what) > 1:
            where, what = f"benchmark {at[2]!r}, {what[1]} split: ", what[2:]
        elif what[:1] == ("versions",):
            what = what[1:]
    if not what and (was is None or now is None):
        return f"{where}it was {'not ' * (was is None)}there, and is {'not ' * (now is None)}there now"
    if not what:
        return f"{where}what it says of itself has changed"
    name = ".".join(what)
    if any(isinstance(each, str) and each.startswith(DIGEST) for each in (was, now)):
        return f"{where}{name} has changed (a secret)"
    if all(isinstance(each, str) and _DIGEST.fullmatch(each) for each in (was, now)):
        if was[:SHOWN] == now[:SHOWN]:
            return f"{where}{name} was {was}, is now {now}"  # somebody has written into the file
        return f"{where}{name} has changed (SHA-256 {was[:SHOWN]}, now {now[:SHOWN]})"
    return f"{where}{name} was {_short(was)}, is now {_short(now)}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
