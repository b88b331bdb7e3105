"""The command: compose the configuration, build the parts, run."""

import functools
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from evohydra import composition

if TYPE_CHECKING:
    from evohydra.families import Family
    from evohydra.families.sources import OpenSources
    from evohydra.run import Run
    from evohydra.spaces import Space
    from evohydra.winner.unsearched import FixedRecipe

logger = logging.getLogger(__name__)

# What a run's results do not depend on, or (budget, top) what may change when it goes on.
INCIDENTAL = (
    "run",
    "budget",
    "top",
    "pick",
    "tracker",
    "executor",
    "device",
    "threads",
    "cache_gb",
    "prefix_gb",
    "shard_gb",
    "baselines",
    "report",
    "ablate",
)


def build(config: DictConfig, directory: Path) -> "Run | FixedRecipe":
    """All parts of a run; every user error that can be found before an evaluation is raised here.

    Where every gene is frozen and there is no benchmark, what writes that one recipe.
    """
    import numpy as np

    from evohydra.families import AddedAdapter, Rules, sources
    from evohydra.merging.engine import Engine
    from evohydra.run import Run, baseline_nodes, search_sizes
    from evohydra.scoring.benchmarks import BenchmarkError
    from evohydra.search.warm_start import best_genomes
    from evohydra.search.warm_start import identity as warm_identity
    from evohydra.spaces.parameter import uniform_merge
    from evohydra.trackers import Guarded, without_secrets
    from evohydra.winner.formats import Format
    from evohydra.winner.unsearched import FixedRecipe
    from evohydra.winner.writer import WinnerWriter

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    chosen = {name: sources.parse(name, fields) for name, fields in plain["model"]["sources"].items()}
    family = _instantiate({"_target_": sources.common_family(chosen)})
    _set_threads(plain["threads"])
    chosen_rules = {key: plain[key] for key in ("tokenizer", "missing", "pad_vocabulary_to", "allow_other_base")}
    added = tuple(AddedAdapter.parse(each) for each in plain["adapters"] or ())
    rules = Rules(**chosen_rules, components=plain["components"] or {}, adapters=added)
    merging, path = plain["merge"].get("parameter"), plain["merge"].get("dataflow")
    models, base = sources.checkpoints(chosen, rules) if merging else (sources.models(chosen), None)
    differing = sources.disagreement(chosen) if merging else None
    first_on_path = (path or {}).get("first") or models[0].name
    opened = sources.open_sources(
        models, base, family, rules, (differing,) if differing else (), None if merging else first_on_path
    )
    first = opened.directories[opened.files_from]
    device = _device(plain["device"])
    published = opened.paths[opened.models[0].name]
    dtype = family.dtype(published) if plain["dtype"] == "auto" else sources.parse_dtype(plain["dtype"])
    out_dtype = sources.parse_dtype(plain["out_dtype"], "out_dtype", "null") if plain["out_dtype"] else dtype

    engine = Engine(
        opened.tensors,
        device=device,
        dtype=dtype,
        compile_kernels=_compile(plain["merge"]["compile"], opened.tensors[opened.files_from].shapes, plain["budget"]),
        cache_bytes=int(plain["cache_gb"] * 1024**3),
    )
    shapes = engine.shapes(opened.models[0])
    locations = family.locations(first, tuple(shapes), opened.copied)
    parts = {"models": opened.models, "base": opened.base, "locations": locations}
    space = _space(plain["merge"], parts, family, opened)
    engine.probe(space.default())
    written_as: Format = _instantiate(plain["format"])
    written_as.check(space.default(), family, opened)
    alike = all(engine.shapes(model) == shapes for model in opened.models)
    uniform = uniform_merge(opened.models, opened.base, locations) if alike else None
    baselines = {name: _instantiate(spec)(**parts) for name, spec in (plain.get("baselines") or {}).items()}
    live_model = functools.partial(
        family.live_model,
        first,
        device,
        out_dtype,
        opened.form,
        sources={model.name: opened.directories[model.name] for model in opened.models} if path else {},
        prefix_bytes=int(plain["prefix_gb"] * 1024**3),
    )
    writer = functools.partial(
        WinnerWriter,
        sources=opened,
        licences={name: source.licence for name, source in chosen.items()},
        family=family,
        engine=engine,
        rules=rules,
        format=written_as,
        shard_bytes=int(plain["shard_gb"] * 1e9),
    )
    if not plain.get("benchmark") and not space.names:
        return FixedRecipe(directory, space.decode(np.empty(0)), writer(live=live_model()))
    if not plain.get("benchmark"):
        raise BenchmarkError("no benchmark: choose one or more, for example benchmark=[mgsm_ja]")
    benchmarks = {}
    for name, spec in plain["benchmark"].items():
        benchmarks.update(_instantiate(spec)(name))
    for benchmark in benchmarks.values():
        if not set(family.scored_as) & set(benchmark.families):
            raise BenchmarkError(
                f"benchmark {benchmark.name!r} scores models of the families {list(benchmark.families)}, the sources "
                f"are of the family {family.name!r}"
            )
    objective = _instantiate(plain["objective"])
    objective.check(tuple(benchmarks), space.default())
    identity = without_secrets({key: value for key, value in plain.items() if key not in INCIDENTAL})
    identity["model"] = {
        model.name: model.to_dict() for model in (*opened.models, *([opened.base] if opened.base else []))
    }
    identity["adapters"] = [asdict(each) for each in opened.form.adapters]
    identity |= {"device": device.type, "dtype": str(dtype), "out_dtype": str(out_dtype)}
    warm = np.empty((0, len(space.names)))
    if plain["warm_start"]:
        earlier = Path(plain["warm_start"])
        warm = best_genomes(earlier, space, plain["warm_start_top"])
        identity["warm_start"] = warm_identity(earlier, warm, plain["benchmark"])
    del identity["merge"]["compile"]  # changes no bit
    live = live_model()
    return Run(
        directory=directory,
        sources=opened,
        live=live,
        engine=engine,
        space=space,
        uniform=uniform,
        baselines=baseline_nodes(baselines, engine),
        benchmarks=benchmarks,
        objective=objective,
        pick=_instantiate(plain["pick"]),
        make_optimizer=lambda axes, start: _instantiate(plain["optimizer"])(axes=axes, seed=plain["seed"], start=start),
        executor=_instantiate(plain["executor"]),
        tracker=Guarded(
            lambda: _instantiate(plain["tracker"])(
                directory=directory, config=without_secrets(plain), **_place_in_sweep(directory, plain["seed"])
            )
        ),
        budget=plain["budget"],
        seed=plain["seed"],
        top=plain["top"],
        fitness=_instantiate(plain["fitness"])(sizes=search_sizes(benchmarks), seed=plain["seed"]),
        report=plain["report"],
        ablate=plain["ablate"],
        start=_start(plain["start"] or []),
        warm=warm,
        write=writer(live=live),
        identity=identity,
    )


def _space(merge: Mapping[str, Any], parts: Mapping[str, Any], family: "Family", opened: "OpenSources") -> "Space":
    """The space of merges, of paths, or of both, as far as they are configured."""
    from evohydra.spaces.hybrid import HybridSpace

    merges = _instantiate(merge["parameter"])(**parts) if merge.get("parameter") else None
    if not merge.get("dataflow"):
        if merges is None:
            raise ValueError("nothing to search: choose merge=METHOD, merge=dfs or merge=METHOD+dfs")
        return cast("Space", merges)
    directories = [opened.directories[model.name] for model in opened.models]
    paths = _instantiate(merge["dataflow"])(
        models=opened.models,
        layers=[family.depth(directory) for directory in directories],
        layout=family.layout(opened.directories[opened.files_from], tuple(opened.tensors[opened.files_from].shapes)),
    )
    return HybridSpace(merges, paths) if merges else paths


def _instantiate(spec: Mapping[str, Any]) -> Any:
    missing = sorted(key for key, value in spec.items() if value == "???")
    if missing:
        raise ValueError(f"{spec['_target_']}: expected a value for {', '.join(missing)}, got none; give it one")
    return hydra.utils.instantiate(dict(spec))


def _start(start: list[str]) -> list[str]:
    unknown = sorted(set(start) - {"sources", "uniform"})
    if unknown:
        raise ValueError(f"start: expected sources, uniform, both or none of them, got {unknown}")
    return start


def _compile(wanted: str | bool, shapes: Mapping[str, tuple[int, ...]], merges: int) -> bool:
    from evohydra.merging.engine import worth_compiling

    if wanted not in ("auto", True, False):
        raise ValueError(f"merge.compile: expected auto, true or false, got {wanted!r}")
    return worth_compiling(shapes, merges) if wanted == "auto" else bool(wanted)


def _set_threads(threads: int | str) -> None:
    import torch

    if threads != "auto":
        torch.set_num_threads(int(threads))


def _device(name: str) -> Any:
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device: expected auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda, but torch finds no CUDA device here; use device=auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _place_in_sweep(directory: Path, seed: int) -> dict[str, Any]:
    """What trackers call a run: alone by its directory, in a multirun by what tells it apart from the other jobs."""
    from evohydra.report.gathering import strategy_of, telling

    settings = HydraConfig.get()
    optimizer = str(settings.runtime.choices["optimizer"])
    if settings.mode != RunMode.MULTIRUN:
        return {"name": directory.name, "group": None, "strategy": optimizer}
    swept = composition.swept(settings)
    strategy = strategy_of(swept) or optimizer
    group = Path(settings.sweep.dir).name
    return {"name": f"{strategy} seed={seed}", "group": group, "strategy": strategy, "differing": telling(swept)}


def _quiet() -> None:
    """One progress display is enough; the libraries below have their own."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name in ("lm_eval", "transformers", "datasets", "huggingface_hub", "matplotlib", "wandb"):
        logging.getLogger(name).setLevel(logging.ERROR)


@hydra.main(version_base="1.3", config_path=composition.conf_dir(), config_name="config")
def job(config: DictConfig) -> float:
    """One run; returns the winner's score on validation (on search where there is none), larger is better."""
    _quiet()
    from evohydra.report import make_console

    settings = HydraConfig.get()
    try:
        summary = build(config, Path(settings.runtime.output_dir))(make_console())
    except (ValueError, OSError, RuntimeError) as error:
        logger.info("the run ended with an error", exc_info=True)
        if settings.mode == RunMode.MULTIRUN or os.environ.get("HYDRA_FULL_ERROR"):
            raise
        sys.exit(f"evohydra: {type(error).__name__}: {error}\n(details in {settings.runtime.output_dir}/evohydra.log)")
    validation = summary["validation"]["winner"]["score"]
    return float(summary["search"]["winner"]["score"] if validation is None else validation)


def main() -> None:
    """The console script, and python -m evohydra."""
    composition.register()
    _quiet()  # launchers hand the environment on to processes of their own
    try:
        job()
    except SystemExit as ending:
        if ending.code == 1:  # Hydra could not compose the configuration, and has said so
            for hint in composition.explain(sys.argv[1:]):
                print(hint, file=sys.stderr)
        raise
    finally:
        from evohydra.report import comparison, make_console

        comparison.report_sweeps(make_console())


if __name__ == "__main__":
    main()
