"""What a configuration says, by name and with types: the keys of conf/config.yaml."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import StringConstraints

from evohydra.audit.plan import Part
from evohydra.checks import Count, CountOrAuto, Seed, Words, check, check_below, check_entries
from evohydra.files import Plain
from evohydra.searching.handed_on import Rule

Spec = Plain  # of a part: what makes it (`_target_`), and its options
Gigabytes = Annotated[float, Ge(0), Le(10**6)]
DType = Literal["float32", "bfloat16", "float16"]
Threads = Annotated[int, Ge(1), Le(4096)] | Literal["auto"]
PARTS = ("merge", "optimizer", "fitness", "objective", "pick", "tracker", "executor", "backend", "format")
StackFile = Annotated[str, StringConstraints(pattern=r"\.ya?ml$"), Words("a stack of mergekit (.yaml)")]
AUTO = "auto"
MOST_GENERATIONS = 10
PARTS_OF_MERGE = {"parameter": Spec | None, "dataflow": Spec | None}


def check_several(plain: Plain, given: Sequence[str]) -> None:
    """ValueError where `given`, overrides, choose one source and no merge: most likely a name was forgotten."""
    sources = (plain.get("model") or {}).get("sources") or {}
    chosen = [text.removeprefix("model=") for text in given if text.startswith("model=")]
    if (
        chosen
        and len(sources) == 1
        and not any(text.startswith(("merge=", "experiment=", "continue=")) for text in given)
    ):
        name = chosen[-1]
        raise ValueError(
            f"model={name}: expected two sources or more, joined by + (model={name}+OTHER), got one. To search how far "
            "one model should be from its base, name the merge, too: merge=task_arithmetic"
        )


@dataclass(frozen=True)
class Settings:
    """The settings of a run, see conf/config.yaml; `all` is the whole configuration, other keys included."""

    all: Plain
    model: Spec
    merge: Spec
    optimizer: Spec
    fitness: Spec
    objective: Spec
    pick: Spec
    tracker: Spec
    executor: Spec
    format: Spec
    budget: CountOrAuto
    seed: Seed
    search: Literal["generations", "steady"]
    top: Count
    start: Sequence[Literal["sources", "uniform"] | StackFile] | None
    warm_start: str | None
    warm_start_top: Count
    tokenizer: str
    missing: str
    config: str
    pad_vocabulary_to: Count | None
    allow_other_base: bool
    components: Mapping[str, str] | None
    adapters: Sequence[Plain] | None
    allow_other_versions: bool
    device: Literal["auto", "cpu", "cuda"]
    dtype: Literal["auto"] | DType
    out_dtype: DType | None
    push: str | None
    report: bool
    guard: Sequence[Plain] | None
    guard_examples: Count
    audit: bool | Literal["all", "none"] | Sequence[Part]
    audit_examples: Count
    answers: Count | Literal["all"]
    ablate: Literal["genes", "groups"] | None
    threads: Threads
    batch_size: CountOrAuto
    prefix_cache: Literal["auto"] | bool
    cache_gb: Gigabytes
    share_scores: bool
    prefix_gb: Gigabytes
    shard_gb: Annotated[float, Gt(0), Le(10**6)]
    benchmark: Plain | None = None  # Spec by name
    baselines: Plain | None = None
    backend: Spec | None = None
    generations: Annotated[int, Ge(1), Le(MOST_GENERATIONS)] = 1
    generations_keep: Rule = "diverse"
    generations_sources: Annotated[int, Ge(1), Le(20)] = 3
    generations_then: Sequence[str] = ()

    @property
    def genomes(self) -> int:
        """The budget, after `auto` has become a number."""
        assert isinstance(self.budget, int)
        return self.budget

    @property
    def elsewhere(self) -> bool:
        """Whether workers may be on other machines than the command."""
        return self.executor.get("address") is not None

    @classmethod
    def check_types(cls, plain: Plain, given: Sequence[str] = ()) -> None:
        """ValueError for the first setting that is of another type than its own, or out of range.

        Those of parts (`optimizer.sigma`) for the parts that `given`, overrides, name.
        """
        for each in fields(cls):
            if each.name in plain:
                check(each.name, each.type, plain[each.name])
        for key, spec in _named(plain, given):
            check_below(spec, key)

    @classmethod
    def parse(cls, plain: Plain) -> "Settings":
        """The settings of a configuration; ValueError for the first one that is of another type, or out of range."""
        cls.check_types(plain)
        known = {each.name: plain[each.name] for each in fields(cls) if each.name in plain}
        for group in ("benchmark", "baselines"):
            for name, spec in (known.get(group) or {}).items():
                check(f"{group}.{name}", Spec, spec)
        check_entries("merge", plain["merge"], {"compile": Literal["auto"] | bool}, PARTS_OF_MERGE)
        check_below(plain)
        return cls(all=plain, **known)


def _named(plain: Plain, given: Sequence[str]) -> Iterator[tuple[str, Spec]]:
    """The parts that overrides choose, or give an option of, by their keys; none of what `auto` may choose."""
    keys = {text.lstrip("+~").partition("=")[0] for text in given}
    known = {name: spec for name in PARTS if isinstance(spec := plain.get(name), Mapping)}
    several = plain.get("benchmark") or {}
    benchmarks = {f"benchmark.{name}": spec for name, spec in several.items() if isinstance(spec, Mapping)}
    chosen = benchmarks if "benchmark" in keys and AUTO not in several else {}
    for name, spec in {**known, **benchmarks}.items():
        if name in chosen or any(key == name or key.startswith(f"{name}.") for key in keys):
            yield name, spec
