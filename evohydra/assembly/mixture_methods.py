"""Which merge methods mean the same for a mixture of experts as for dense models."""

import logging
from dataclasses import replace

from evohydra.assembly.mixtures import per_token
from evohydra.assembly.parts_of_spaces import specs
from evohydra.assembly.settings import Settings
from evohydra.files import Plain
from evohydra.merging.methods import resolve
from evohydra.merging.signatures import STREAMS

logger = logging.getLogger(__name__)
READS = "what it reads in texts is gathered of dense layers alone"
MASKS = "its random masks would be others in each expert of the mixture's form, in which it is scored here"


def check_parts(merge: Plain) -> None:
    """ValueError for a mixture with a part, other than its routers, whose method reads texts."""
    for part in ("shared", "experts") if per_token(merge) is not None else ():
        for spec in specs(merge["parameter"].get(part)):
            if resolve(str(spec["method"])).reads is not None:
                raise ValueError(
                    f"merge=moe: {part}: expected a method that goes by weights alone, got {spec['method']}: {READS}"
                )


def with_same_baselines(settings: Settings) -> Settings:
    """The settings of a mixture's search without baselines that would be other models than the dense merges.

    In a mixture's form all experts of a dense merge have to be its MLP. What depends on names of tensors (masks) or on
    layers (activations) gives each expert something else. A warning names each that is left out.
    """
    if per_token(settings.merge) is None:
        return settings
    kept = {}
    for name, spec in (settings.baselines or {}).items():
        methods = [resolve(str(each["method"])) for each in specs(spec)]
        reason = MASKS if any(STREAMS in each.supplied for each in methods) else None
        reason = READS if any(each.reads is not None for each in methods) else reason
        if reason is None:
            kept[name] = spec
        else:
            logger.warning("baseline %s is left out: %s", name, reason)
    return replace(settings, baselines=kept or None)
