"""What can be said against a configuration before torch and the libraries of benchmarks are loaded."""

from collections.abc import Sequence

from evohydra.assembly.guarding import check_limits
from evohydra.assembly.mixtures import check_mixture
from evohydra.assembly.ranges import check_ranges
from evohydra.assembly.settings import AUTO, Settings, check_several
from evohydra.checks import resolved
from evohydra.files import Plain


def check_ahead(plain: Plain, given: Sequence[str]) -> None:
    """ValueError for the first setting that cannot work; `given` are the overrides of the command line.

    What needs sources, data or lm-eval itself is looked at later, see `runs.assembled`.
    """
    check_several(plain, given)
    check_mixture(plain)
    Settings.check_types(plain, given)
    if (plain.get("merge") or {}).get("parameter"):
        check_ranges(plain["merge"], resolved(str(plain["optimizer"].get("_target_"))))
    sources = (plain.get("model") or {}).get("sources") or {}
    if plain.get("continue"):  # whose sources are those of earlier runs
        return
    benchmarks = [name for name in plain.get("benchmark") or {} if name != AUTO]
    paths = bool((plain.get("merge") or {}).get("dataflow"))
    check_limits(plain.get("guard"), benchmarks, list(sources), paths=paths)
