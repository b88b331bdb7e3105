"""How a parameter of a merge method is searched, as it stands in conf/merge."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from annotated_types import MinLen
from pydantic import AllowInfNan

from evohydra.checks import Words, check_settings
from evohydra.files import Plain
from evohydra.merging.signatures import OF, Takes, check_of, signature_of
from evohydra.spaces.genes import Choice, Gene, Real, Value, integer, whole

Pair = Annotated[tuple[float, float], Words("two numbers")]
SHARE = "share"  # as the value of `uniform`, and of the default on a simplex: 1 / number of models

SEGMENT = "\0"  # in the shape of genes' names: any text without a /, as that of a group or of a source
Bound = Annotated[float, AllowInfNan(True), Words("a number")]  # .inf: none


@dataclass(frozen=True)
class GeneSpec:
    """How a parameter of a method is searched, as it stands in conf/merge.

    per: one gene for each "source" in each group, for each "group", or one for the whole "merge".
    low, high, log, integer or choices: its range. widest: the lowest and the highest value up to which a search may
    widen the range of a real number where its best genomes lie on the ends; null: none.
    default: the method's usual value.
    within: what the method allows at all, its lowest and its highest value; None: any number.
    alone: the values with which a merge is one of its sources; per source (its own, that of the others), per group one
    for each source. uniform: the value with which it is the average of the sources, `share` for 1 / N. Both None: the
    parameter does not bear on either. simplex: the values of all sources in a group are 0 or more and sum to 1; such a
    gene needs no range.
    """

    per: str
    default: Value
    low: float | None = None
    high: float | None = None
    widest: Pair | None = None
    log: bool = False
    integer: bool = False
    choices: Sequence[Value] | None = None
    within: Annotated[tuple[Bound, Bound], Words("two numbers")] | None = None
    alone: Annotated[Sequence[float], MinLen(1), Words("a list of numbers")] | None = None
    uniform: float | Literal["share"] | None = None
    simplex: bool = False

    def value(self, value: Value) -> Value:
        """`value` as a gene would give it: a real is a float, also where it is a whole number."""
        return value if self.choices is not None or self.integer else float(value)

    def gene(self, name: str) -> Gene:
        """The gene called `name`; ValueError where the range makes no sense."""
        if self.simplex:
            return Real(name, 0.0, 1.0)
        if self.choices is not None:
            return Choice(name, tuple(self.choices))
        if self.low is None or self.high is None:
            raise ValueError(f"gene {name!r}: expected low and high, or choices")
        for key, bound in (("low", self.low), ("high", self.high)):
            if self.integer and bound != int(bound):
                raise ValueError(f"gene {name!r}: expected a whole number as {key} of an integer, got {bound!r}")
            self.check(name, bound)
        if self.integer and self.log:
            raise ValueError(f"gene {name!r}: log: expected false, for an integer has no logarithmic range, got true")
        if self.widest is not None:
            return self._widening(name, float(self.low), float(self.high), self.widest)
        if self.integer:
            return integer(name, int(self.low), int(self.high))
        return Real(name, float(self.low), float(self.high), self.log)

    def _widening(self, name: str, low: float, high: float, widest: Sequence[float]) -> Real:
        if self.integer or len(widest) != 2 or not widest[0] <= low < high <= widest[1]:
            raise ValueError(
                f"gene {name!r}: widest: expected, for a real number, two numbers with [low, high] = [{low}, {high}] "
                f"between them, or null, got {list(widest)}" + (" for an integer" if self.integer else "")
            )
        for bound in widest:
            self.check(name, bound)
        return Real(name, float(widest[0]), float(widest[1]), self.log, begins=(low, high))

    def check(self, name: str, value: Value) -> None:
        """ValueError where the gene or the method has no use for `value`."""
        if self.integer and self.choices is None:
            whole(f"gene {name!r}", value)
        if self.within is not None and not self.within[0] <= float(value) <= self.within[1]:
            raise ValueError(f"gene {name!r}: expected values in {list(self.within)}, got {value}")


def parse_spec(name: str, fields: Plain) -> GeneSpec:
    """The description that `fields` are of the gene `name`; ValueError for others."""
    check_settings(f"genes.{name}", GeneSpec, fields)
    if missing := [key for key in ("per", "default") if key not in fields]:
        raise ValueError(f"genes.{name}: expected values for per and default, got none for {' and '.join(missing)}")
    spec = GeneSpec(**fields)
    if spec.simplex and (spec.per != "source" or spec.default != SHARE):
        raise ValueError(
            f"genes.{name}.simplex: expected per: source and default: {SHARE}, got {spec.per!r}, {spec.default!r}"
        )
    if spec.per == "source" and spec.alone is not None and len(spec.alone) != 2:
        raise ValueError(
            f"genes.{name}.alone: expected two numbers for a gene per source, that of the source which is alone and "
            f"that of the others, got {list(spec.alone)}"
        )
    if spec.integer and spec.choices is None:
        whole(f"genes.{name}.default", spec.default)
    elif spec.choices is None and not spec.simplex and isinstance(spec.default, bool | str):
        raise ValueError(f"genes.{name}.default: expected a finite number, got {spec.default!r}")
    if spec.per not in ("source", "group", "merge"):
        raise ValueError(f"genes.{name}.per: expected source, group or merge, got {spec.per!r}")
    return spec


def check_parameters(name: str, method: Takes, constants: Plain, specs: Mapping[str, GeneSpec]) -> None:
    """ValueError for values and genes that the merge method called `name` does not take, or lacks."""
    given = {*specs, *constants} - {"mask_seed"} - ({OF} & constants.keys())
    if unknown := sorted(given - method.parameters):
        raise ValueError(f"{name} has no parameter {unknown}; its parameters are {sorted(method.parameters)}")
    if lacking := sorted(method.required - given):
        raise ValueError(f"{name} needs a gene or option for {lacking}")
    for parameter, value in constants.items():
        method.check(parameter, value, parameter)
    if OF in constants:
        check_of(constants[OF])
    if not isinstance(constants.get("mask_seed", 0), int):
        raise ValueError(f"mask_seed: expected a whole number, got {constants['mask_seed']!r}")
    for parameter, spec in specs.items():
        if not spec.simplex:
            method.check(parameter, spec.default, f"genes.{parameter}.default")
        for choice in spec.choices or ():
            method.check(parameter, choice, f"genes.{parameter}.choices")


def check_genes(prefix: str, settings: Plain) -> None:
    """ValueError for genes, values and `frozen` of a space's `settings` that make no sense, whatever the tensors are.

    Whether a range may widen (`widest`) is looked at later: only some optimizers do it.
    """
    genes, options = settings.get("genes") or {}, settings.get("options") or {}
    constants: dict[str, object] = {}
    specs: dict[str, GeneSpec] = {}
    try:
        for name, fields in {"mask_seed": settings.get("mask_seed", 0), **options, **genes}.items():
            if isinstance(fields, Mapping):
                specs[name] = parse_spec(name, fields if name in genes else {"per": "merge", **fields})
                replace(specs[name], widest=None).gene(name)
            else:
                constants[name] = fields
        method = signature_of(str(settings["method"])) if "method" in settings else None
        if method is not None:
            check_parameters(settings["method"], method, constants, specs)
        filters = (settings.get("granularity") or {}).get("filters") or {}
        for pattern, value in (settings.get("frozen") or {}).items() if "/" not in "".join(filters) else ():
            _check_frozen(pattern, value, specs, method)
    except ValueError as error:
        raise ValueError(f"{prefix}: {error}") from None


def _check_frozen(pattern: str, value: Value, specs: Mapping[str, GeneSpec], method: Takes | None) -> None:
    """ValueError for a pattern that no name of a gene can match, and for a value that none of those may have."""
    by = {"merge": "merge/{}", "group": SEGMENT + "/{}", "source": SEGMENT + "/{}/" + SEGMENT}
    shapes = {name: by[spec.per].format(name) for name, spec in specs.items()}
    meant = [name for name, shape in shapes.items() if "[" in pattern or _meet(pattern, shape)]
    if not meant:
        known = [shape.replace(SEGMENT, "GROUP", 1).replace(SEGMENT, "SOURCE") for shape in shapes.values()]
        raise ValueError(f"frozen: no gene matches {[pattern]}; genes are {', '.join(known) or 'none'}")
    refused: dict[str, ValueError] = {}
    for name in meant:
        try:
            if method is not None:
                method.check(name, value, f"frozen: gene {pattern!r}")
            specs[name].check(pattern, value)
        except ValueError as error:
            refused[name] = error
    if len(refused) == len(meant):
        raise next((error for name, error in refused.items() if name in pattern), refused[meant[0]])


@functools.cache
def _meet(pattern: str, shape: str) -> bool:
    """Whether a pattern of a shell, with * and ? alone, can match a name of this shape, see `SEGMENT`."""
    if pattern[:1] == "*":
        return _meet(pattern[1:], shape) or (bool(shape) and _meet(pattern, shape[1:]))
    if shape[:1] == SEGMENT:
        return _meet(pattern, shape[1:]) or (pattern[:1] not in ("", "/") and _meet(pattern[1:], shape))
    if not (pattern and shape):
        return pattern == shape
    return pattern[0] in ("?", shape[0]) and _meet(pattern[1:], shape[1:])
