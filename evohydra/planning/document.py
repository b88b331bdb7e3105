"""A plan as JSON data, for scripts. Keys are added and never change their meaning within a `version`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from evohydra.files import Plain
from evohydra.planning.advice import kinds
from evohydra.planning.cost import Cost
from evohydra.planning.fit import Fit
from evohydra.planning.memory import Held
from evohydra.planning.outlook import Outlook
from evohydra.searching.fitness.expected import Between

VERSION = 2


def document(
    fit: Fit,
    found: Outlook,
    sizes: Mapping[str, Mapping[str, int]],
    *,
    chosen: Plain,
    advice: Sequence[str],
    lacking: Sequence[str],
    optimizer: str,
    suited: str,
) -> dict[str, object]:
    """Everything that a plan says. fits: whether all of it has room, `lacking` says where not."""
    memory = found.memory
    held = {
        "driver": memory.driver, "worker": memory.worker, "gpu": memory.gpu, "disk": memory.disk,
        "inside_engine": memory.inside,
    }  # fmt: skip
    return {
        "version": VERSION,
        "fits": not lacking,
        "lacking": list(lacking),
        "chosen": dict(chosen),
        "sources": {name: asdict(each) for name, each in fit.sources.items()},
        "merge": {
            "family": fit.family,
            "files_from": fit.files_from,
            "tokenizer": fit.tokenizer,
            "dtype": fit.dtype,
            "parameters": fit.parameters,
            "tensors_merged": fit.merged,
            "tensors_copied": fit.copied,
        },
        "doubts": list(fit.left_out),
        "not_checked": list(fit.not_checked),
        "licences": {"sources": dict(fit.licences.each), "together": list(fit.licences.together)},
        "genes": {"count": len(fit.axes), "kinds": kinds(fit.axes), "such_as": list(fit.examples_of_genes)},
        "optimizer": {"chosen": optimizer, "suited": suited},
        "examples": {split: dict(each) for split, each in sizes.items()},
        "work": {
            "genomes": found.work.course.genomes,
            "generations": len(found.work.course.generations),
            "stages": {
                stage.name: {"models": stage.models, "examples": {n: _between(b) for n, b in stage.examples.items()}}
                for stage in found.work.stages
            },
            "assumed": found.work.assumed,
        },
        "cost": {
            "measured": found.measured,
            "device": found.device.name,
            "seconds": [_cost(each, found.device.gpu) for each in found.wall],
            "processor_seconds": [_cost(each, False) for each in found.processor] if found.measured else None,
        },
        "memory": {
            "measured": memory.measured,
            "mapped_sources": memory.mapped,
            "download": memory.download,
            **{name: _held(each) for name, each in held.items()},
        },
        "power": {
            "disagreement": dict(found.apart.values),
            "measured_on": found.apart.measured,
            "smallest_gain": found.smallest,
            "smallest_gain_with_twice_the_test": found.doubled,
            "smallest_gain_with_four_times_the_test": found.fourfold,
            "optimism_of_best_on_search": found.optimism,
            "optimism_of_choice_on_validation": found.optimism_of_choice,
        },
        "advice": list(advice),
    }


def _between(value: Between) -> dict[str, float]:
    return {"low": round(value.low, 3), "likely": round(value.likely, 3), "high": round(value.high, 3)}


def _cost(each: Cost, gpu: bool) -> dict[str, object]:
    known = not each.unknown
    return {
        "workers": each.workers,
        "total": _between(each.total) if known else None,
        "gpu_hours": _between(each.total.times(each.workers / 3600)) if gpu and known else None,
        "stages": {name: _between(value) for name, value in each.stages.items()},
        "tokens": round(each.tokens) if known else None,
        "forward_passes": round(each.passes) if known else None,
        "unknown": list(each.unknown),
    }


def _held(each: Held | None) -> dict[str, object] | None:
    if each is None:
        return None
    return {"total": each.total, "room": each.room, "fits": each.fits, "parts": dict(each.parts)}
