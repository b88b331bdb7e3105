"""From a plain configuration to a run.

Every user error that can be found without reading weights is raised before they are read, and all others before
anything is scored.
"""

import functools
import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from evohydra.assembly.automatic import AUTO, with_benchmark, with_search
from evohydra.assembly.backends import backend_of
from evohydra.assembly.begun import as_begun, check_before_texts, collapses
from evohydra.assembly.continuing import continued, over
from evohydra.assembly.foresight import beginning
from evohydra.assembly.generations import generation
from evohydra.assembly.guarding import (
    check_limits,
    counted,
    doubts_about_examples,
    guard_of,
    has_validation,
    limits_of,
)
from evohydra.assembly.merge_spaces import Located, baselines_of, located_in, space_of
from evohydra.assembly.mixture_methods import check_parts, with_same_baselines
from evohydra.assembly.mixtures import check_mixture
from evohydra.assembly.parts import (
    Parts,
    benchmarks_of,
    chosen_sources,
    found_sources,
    instantiate,
    opened_parts,
    shapes_of,
    worker_bytes,
)
from evohydra.assembly.process import device_of, set_up_process, suit_threads
from evohydra.assembly.prompts import doubts_about_prompts
from evohydra.assembly.ranges import with_ranges_for
from evohydra.assembly.reading import WHOLE, Reading
from evohydra.assembly.recorded import recorded
from evohydra.assembly.run_identities import run_identity
from evohydra.assembly.settings import Settings, check_several
from evohydra.assembly.sizes import fitted
from evohydra.assembly.stack_starts import known_starts, stack_points
from evohydra.assembly.statistics import (
    check_any_merges,
    check_statistics,
    gathered,
    reads_texts,
    unread,
)
from evohydra.assembly.warming import optimizer_of, warm_genomes, warmed
from evohydra.assembly.workers import WorkerMaker
from evohydra.audit.plan import audit_plan
from evohydra.families import Rules
from evohydra.families.sources import FoundSources
from evohydra.files import Plain
from evohydra.merging.statistics import NothingFound
from evohydra.recipe import Node
from evohydra.run import Run
from evohydra.scoring.benchmarks import Asking, Benchmark, BenchmarkError
from evohydra.scoring.benchmarks.fingerprints import datasets
from evohydra.scoring.executors import Executor
from evohydra.scoring.worker import Worker
from evohydra.searching.fitness import check_references
from evohydra.searching.identity import IDENTITY, SCORES
from evohydra.searching.masks import by_mask
from evohydra.searching.models import Models
from evohydra.searching.plan import SearchPlan, check_budget, known_points
from evohydra.spaces import Space
from evohydra.spaces.choice import defaults_of
from evohydra.winner.formats.lora import Lora
from evohydra.winner.publishing import check_base, check_push
from evohydra.winner.recipe_files import made_from
from evohydra.winner.unsearched import UnsearchedRecipe
from evohydra.winner.writer import WinnerForm

LIBRARIES = ("evohydra", "torch", "transformers", "tokenizers")  # that merge and run models, whatever scores them
LANGUAGES = {"japanese": "ja", "english": "en"}  # words for what a source is for (`purpose`), and the hub's codes
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assembled:
    """A run, and what it was made of."""

    run: Run | UnsearchedRecipe
    found: FoundSources
    parts: Parts


def make_run(
    plain: Plain, directory: Path, place: Plain, given: Sequence[str] = (), reading: Reading = WHOLE
) -> Run | UnsearchedRecipe:
    """A run from its configuration, see `assembled`; it begins with a line of what it will cost and can show."""
    made = assembled(plain, directory, place, given, reading)
    if not isinstance(made.run, Run):
        return made.run
    return replace(made.run, said=(*made.run.said, *beginning(made.run, made.parts, place)))


def assembled(
    plain: Plain, directory: Path, place: Plain, given: Sequence[str] = (), reading: Reading = WHOLE
) -> Assembled:
    """A run from its configuration; `place` is what trackers call it, and in which sweep (`group`) it is.

    `given` are the overrides that it was made with, as far as they are known. Where every gene is frozen and there is
    no benchmark, what writes that one recipe.
    """
    check_several(plain, given)
    check_mixture(plain)
    if plain.get("generations", 1) > 1:  # the others have been before, in directories of their own
        plain, given = generation(plain, plain["generations"], directory, given)
    plain, earlier = continued(plain, given)
    plain, said = with_benchmark(plain, given)
    settings = with_same_baselines(Settings.parse(plain))
    check_parts(settings.merge)
    if settings.push is not None:
        check_push(settings.push, swept=bool(place["group"]))
    set_up_process(settings.threads)
    device = device_of(settings.device, elsewhere=settings.elsewhere)
    found = found_sources(settings)
    settings, fits, kept = fitted(settings, found)
    merge = with_ranges_for(settings.merge, instantiate(settings.optimizer))
    located = located_in(found, nested=earlier.as_found())
    space = space_of(merge, located, found)
    _check_budget(settings, space)
    every = benchmarks_of(settings, found.family)
    backend = backend_of(settings)
    backend.check(settings, found, every, device)
    benchmarks = counted(settings.guard, every)
    names = [*located.recipes, *(model.name for model in found.models)]
    if located.recipes:  # whose names are not known ahead
        check_limits(settings.guard, list(every), names, paths=bool(settings.merge.get("dataflow")))
    limits = limits_of(settings.guard, every, names, based=found.base is not None)
    for doubt in doubts_about_examples(limits, every, settings.guard_examples):
        logger.warning("%s", doubt)
    settings, searched = with_search(settings, benchmarks, given)
    for doubt in doubts_about_prompts(chosen_sources(settings.model), found.directories, every):
        logger.warning("%s", doubt)
    baselines_of(settings, located)
    check_statistics(merge, benchmarks, nested=bool(earlier.earlier) or settings.generations > 1)
    form = _form(settings, found.rules, every)
    if settings.push is not None and isinstance(form.format, Lora) and found.base is not None:
        check_base(settings.push, found.base.path)
    instantiate(settings.executor)(make=_unmade, worker_bytes=0).close()  # its options are checked
    plan = replace(_plan(settings, benchmarks, space), validated=has_validation(every))
    if benchmarks:
        plan.check()
        check_references(plan.fitness, benchmarks)
        warm_genomes(settings, space)
        tensors = tuple(found.aligned.tensors[found.aligned.files_from].shapes)
        plan = replace(plan, warm=stack_points(settings.start or (), space, tensors))
    elif space.names:
        raise BenchmarkError("no benchmark: choose one or more, for example benchmark=[mgsm_ja]")

    opened = as_begun(reading.read(found), directory / IDENTITY)
    parts = opened_parts(settings, found, opened, every, device)
    suit_threads(settings.threads, shapes_of(parts))
    nodes = (*opened.models, *filter(None, [opened.base]))
    merged_in = str(parts.engine.dtype).removeprefix("torch.")
    nested = over(earlier, nodes, found.rules, merged_in, parts.engine.adapters.used)
    nested = replace(nested, collapsed=collapses(directory / IDENTITY))
    located = located_in(found, parts.sources, nested)
    parts.engine.statistics = NothingFound()  # what is wrong with genes is told before texts are read
    for usual in defaults_of(space_of(unread(merge), located, found)):
        form.format.check(usual, parts.family, parts.sources)
        backend.check_recipe(usual, parts)
        reading.probe(parts.engine.uncached(), usual)  # where workers are elsewhere, no tensor stays here
    if reading.gathers and reads_texts(merge):
        check_before_texts(directory / IDENTITY, run_identity(settings, parts, kept, nested, {}))
        trying = functools.partial(reading.probe, parts.engine.uncached())
        check_any_merges(space_of(unread(merge), located, found), trying)
    several, gathers = bool(place["group"]), reading.gathers
    statistics = gathered(merge, settings.baselines, parts, located, directory, gathers=gathers, swept=several)
    parts.engine.statistics = statistics.files
    space, settings = space_of(statistics.merge, located, found), replace(settings, baselines=statistics.baselines)
    made_from(space.default(), parts.sources.directories)  # warns now, not after the search
    make_executor = functools.partial(_executor, settings, parts)
    if not benchmarks:
        return Assembled(
            UnsearchedRecipe(directory, space.decode(np.empty(0)), form, make_executor, settings.push), found, parts
        )
    plan, identity = warmed(
        settings, replace(plan, space=space), run_identity(settings, parts, kept, nested, statistics.identity)
    )
    models = _models(settings, located, parts, reading)
    based = {"base": models.base} if models.base else {}
    run = Run(
        directory=directory,
        models=models,
        guard=guard_of(limits, every, {**models.sources, **based}, settings.guard_examples),
        plan=plan,
        benchmarks=benchmarks,
        make_executor=make_executor,
        make_tracker=lambda: instantiate(settings.tracker)(
            directory=directory,
            config=recorded(plain, identity, settings, given),
            **place,
        ),
        form=form,
        identity=identity,
        allow_other_versions=settings.allow_other_versions,
        push=settings.push,
        swept=place["name"] if place["group"] else None,
        report=settings.report,
        audit=audit_plan(settings.audit, settings.audit_examples, settings.answers),
        said=tuple(filter(None, [said, searched, fits, *statistics.said])),
        benchmark_options=tuple(settings.benchmark or ()),
        shared_scores=directory.parent / SCORES if place["group"] and settings.share_scores else None,
    )
    return Assembled(run, found, parts)


def _check_budget(settings: Settings, space: Space) -> None:
    """ValueError for a budget below one generation, before data are read; one that is `auto` is chosen later."""
    if settings.benchmark and settings.budget != AUTO and space.names:
        start, _ = known_points(space, settings.start or ())
        with closing(instantiate(settings.optimizer)(axes=space.axes, seed=settings.seed, start=start)) as optimizer:
            check_budget(settings.genomes, optimizer)


def _unmade() -> Worker:
    raise AssertionError("a worker before the sources are read")


def _form(settings: Settings, rules: Rules, benchmarks: Mapping[str, Benchmark]) -> WinnerForm:
    """How the winner is written."""
    sources = chosen_sources(settings.model)
    return WinnerForm(
        {name: source.licence for name, source in sources.items()},
        rules,
        instantiate(settings.format),
        int(settings.shard_gb * 1e9),
        {name: [LANGUAGES[word] for word in each.purpose or () if word in LANGUAGES] for name, each in sources.items()},
        datasets(benchmarks),
    )


def _plan(settings: Settings, benchmarks: Mapping[str, Benchmark], space: Space) -> SearchPlan:
    """The search, without a warm start."""
    sizes = {name: benchmark.size("search") for name, benchmark in benchmarks.items()}
    return SearchPlan(
        space=space,
        sizes=sizes,
        objective=instantiate(settings.objective),
        pick=instantiate(settings.pick),
        fitness=instantiate(settings.fitness)(sizes=sizes, seed=settings.seed),
        make_optimizer=functools.partial(optimizer_of, settings, None),
        budget=settings.genomes,
        seed=settings.seed,
        top=settings.top,
        start=known_starts(settings.start or ()),
        warm=np.empty((0, len(space.names))),
        ablate=settings.ablate,
        validated=False,
        steady=settings.search == "steady",
    )


def _executor(settings: Settings, parts: Parts) -> Executor:
    """The executor with its workers; people are asked in one process only."""
    backend = backend_of(settings)
    needed = worker_bytes(parts) + backend.more_bytes
    several = {"together": backend.together} if backend.together > 1 else {}
    made: Executor = instantiate(settings.executor)(make=WorkerMaker(parts), worker_bytes=needed, **several)
    asking = [name for name, each in parts.benchmarks.items() if isinstance(each, Asking) and each.asks]
    if asking and made.workers > 1:
        made.close()
        raise BenchmarkError(f"benchmark {asking[0]!r} asks people, which one worker has to do: choose executor=local")
    return made


def _models(settings: Settings, located: Located, parts: Parts, reading: Reading) -> Models:
    """The models that a winner is compared with."""
    opened, engine = parts.sources, parts.engine.uncached()
    alike = len({tuple(sorted(engine.shapes(model).items())) for model in opened.models}) == 1
    several = len(located.models) > 1  # of one model the average is that model
    baselines: dict[str, Node] = {}
    for name, space in baselines_of(settings, located).items():
        try:
            reading.probe(engine, space.default())
            baselines[name] = space.default()
        except ValueError as reason:
            logger.warning("baseline %s is left out: %s", name, reason)
    return Models(
        sources={**located.recipes, **{model.name: model for model in opened.models}},
        base=opened.base,
        uniform=located.average() if alike and several else None,
        baselines=baselines,
        files_from=opened.files_from,
        masks={name: masks for name, node in baselines.items() if (masks := by_mask(node))},
    )
