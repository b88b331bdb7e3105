"""What was run: the command, what was merged and how it was searched, and on which machine, as far as a run says it."""

import shlex
from collections.abc import Iterator, Mapping

from evohydra.files import Plain
from evohydra.report.blocks import Block, Table
from evohydra.report.gathering import Job, overrides_of
from evohydra.searching.masking import shown_overrides

VERSIONS = ("evohydra", "python", "torch", "transformers", "lm-eval", "diffusers")
NUMBERS = {"merge": "dtype", "model": "out_dtype", "on": "device"}
COMMAND = ("python", "-m", "evohydra")


def origin_blocks(job: Job) -> Iterator[Block]:
    """A table of a run's origin."""
    rows = [(name, text) for name, text in _facts(job) if text]
    yield Table(("what", "was"), rows, "", words=True)


def _facts(job: Job) -> Iterator[tuple[str, str]]:
    summary, begun = job.summary or {}, job.begun.identity
    scores, search = (_mapping(begun.get(part)) for part in ("scores", "search"))
    yield "command", shlex.join([*COMMAND, *shown_overrides(overrides_of(job.directory)).values()])
    models = [each for each in search.get("models") or () if isinstance(each, Mapping)]
    yield "sources", "; ".join(map(_source, models))
    base = _mapping(search.get("base"))
    yield "base", _source(base) if base else ""
    yield "merge", _merge(_mapping(search.get("merge")), job)
    yield "optimizer", _named(search.get("optimizer"))
    yield "fitness", _named(search.get("fitness"))
    yield "benchmarks", _benchmarks(_mapping(summary.get("data"))) or ", ".join(job.benchmarks)
    budget = summary.get("budget") or job.config.get("budget")
    yield "genomes", f"{len(job.records)} of {budget}" if isinstance(budget, int) else str(len(job.records))
    if "examples_scored" in summary:
        yield "examples scored", f"{summary['examples_scored']:,}, {summary['tokens']:,} tokens through the model"
    yield "seconds", _seconds(_mapping(summary.get("seconds")))
    yield "seed", str(job.seed)
    yield "numbers", ", ".join(f"{name} {_plain(scores[key])}" for name, key in NUMBERS.items() if key in scores)
    yield "machine", str(summary.get("machine") or "")
    found = _mapping(summary.get("versions") or scores.get("versions"))
    yield "versions", ", ".join(f"{name} {found[name]}" for name in VERSIONS if name in found)


def _seconds(spent: Plain) -> str:
    told = {"merge": "merging", "evaluate": "scoring", "forward": "of it in forward passes", "other": "all else"}
    return ", ".join(f"{words} {spent[part]:.0f}" for part, words in told.items() if part in spent)


def _plain(kind: object) -> str:
    return str(kind).removeprefix("torch.")


def _mapping(data: object) -> Plain:
    return dict(data) if isinstance(data, Mapping) else {}


def _source(node: Plain) -> str:
    """A source as its recipe has it: its name, and where it came from."""
    if node.get("node", "checkpoint") != "checkpoint":
        return f"{node.get('name')}: a recipe of an earlier search"
    told = f"{node.get('name')}: {node.get('path')}"
    told += f" at {node['revision']}" if node.get("revision") else ""
    return f"{told} with adapter {node['adapter']}" if node.get("adapter") else told


def _merge(merge: Plain, job: Job) -> str:
    parts = [str(_mapping(part).get("method") or name) for name, part in merge.items() if isinstance(part, Mapping)]
    genes = job.records[0].dimension if job.records else 0
    return f"{' + '.join(parts)}, {genes} genes" if parts and genes else " + ".join(parts)


def _named(spec: object) -> str:
    """A part of the configuration by the class that makes it, with its plain settings."""
    settings = _mapping(spec)
    kind = str(settings.get("_target_", "")).rpartition(".")[2]
    told = [
        f"{key}={value}" for key, value in settings.items() if key[0] != "_" and isinstance(value, str | int | float)
    ]
    return f"{kind} ({', '.join(told)})" if told else kind


def _benchmarks(data: Plain) -> str:
    """The benchmarks with the sizes of their splits."""
    told = []
    for name, splits in data.items():
        sizes = [f"{split} {_mapping(of).get('examples')}" for split, of in _mapping(splits).items()]
        told.append(f"{name} ({', '.join(sizes)})")
    return "; ".join(told)
