"""The searches before the last one of several generations: each hands on recipes, and scores nothing on test."""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from evohydra.assembly.continuing import ALIKE, DECIDED, continued
from evohydra.assembly.generations import generation, room_of
from evohydra.assembly.reading import BEFORE_OTHERS, WHOLE, Reading
from evohydra.assembly.runs import Assembled, assembled
from evohydra.assembly.settings import Settings
from evohydra.files import Plain, write_json
from evohydra.recipe import Node
from evohydra.report import say
from evohydra.run import Run
from evohydra.searching.handed_on import KEPT
from evohydra.searching.keeping import check_rule, kept, parents
from evohydra.searching.ledger import Record
from evohydra.spaces.nested import tree

Configuration = tuple[Plain, list[str]]  # of a generation: its settings, and the overrides that made them


@dataclass(frozen=True)
class _Kept:
    """A recipe that is handed on: the number of its genome, its fitness, what it is, and as a tree of its parents."""

    genome: int
    fitness: float
    recipe: Node
    tree: Node


def hand_on(plain: Plain, directory: Path, place: Plain, given: Sequence[str], console: Console) -> None:
    """Carry out all generations of a run but the last one, or go on with them; nothing where there is one only.

    Each is an ordinary search in a directory of its own, which is asked for again even where it has ended: nothing is
    scored then, and what it hands on is the same. No weights are written, and nothing is scored on validation or test.
    Raises what any of them would raise before it scores anything, with the number of the generation.
    """
    Settings.check_types(plain)
    count = plain.get("generations", 1)
    if count == 1:
        return
    every = [generation(plain, number, directory, given) for number in range(1, count + 1)]
    with tempfile.TemporaryDirectory(prefix="evohydra-generations-") as room, _unsaid():
        _check_all(every, Path(room), place)
    for number, configuration in enumerate(every[:-1], 1):
        room_here = room_of(directory, number)
        made, run = _assembled(configuration, number, room_here, place)
        room_here.mkdir(parents=True, exist_ok=True)
        run = replace(run, said=(f"generation {number} of {count}", *run.said))
        with run.searched(console) as done:
            found = kept(list(done.ledger.records), plain["generations_keep"], plain["generations_sources"])
        recipes = [_kept(run, record) for record in found]
        write_json(room_here / KEPT, _handed_on(made, run, number, recipes, continued(*configuration)[0]))
        told = ", ".join(f"genome {record.index} ({record.fitness:.4f})" for record in found)
        say(console, f"generation {number} hands on {told} ({plain['generations_keep']})", wrapped=True)


def _check_all(every: Sequence[Configuration], room: Path, place: Plain) -> None:
    """ValueError for the first generation that could not begin; none of them is carried out.

    From the second one on the sources are recipes that nobody has found yet: random genomes of the generation before
    stand for them. Of sources headers are read, and the few tensors on which a merge is tried.
    """
    for number, (plain, overrides) in enumerate(every, 1):
        if number > 1:
            plain = {**plain, "continue": [str(room_of(room, number - 1))]}
        own = room_of(room, number)
        try:
            made, run = _assembled((plain, overrides), number, own, place, BEFORE_OTHERS)
            if number == len(every):
                return
            check_rule(plain["generations_keep"], run.plan.fitness)
        except ValueError as error:
            raise ValueError(f"generation {number} of {len(every)}: {error}") from error
        genomes = np.random.default_rng(0).random((plain["generations_sources"], len(run.plan.space.names)))
        stand_ins = [_made(run, index, 0.0, genome) for index, genome in enumerate(genomes)]
        own.mkdir()
        write_json(own / KEPT, _handed_on(made, run, number, stand_ins, continued(plain, overrides)[0]))


@contextmanager
def _unsaid() -> Iterator[None]:
    """Without the warnings that each generation gives once it begins."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _assembled(
    configuration: Configuration, number: int, room: Path, place: Plain, reading: Reading = WHOLE
) -> tuple[Assembled, Run]:
    """Generation `number` with its files in `room`."""
    named = {**place, "name": f"{place['name']} generation {number}", "group": None}
    plain, overrides = configuration
    made = assembled(plain, room, named, overrides, reading)
    if not isinstance(made.run, Run):
        raise ValueError("generations: expected genes to search and a benchmark, got none of both")
    return made, made.run


def _kept(run: Run, record: Record) -> _Kept:
    assert record.fitness is not None
    return _made(run, record.index, record.fitness, np.array(record.genome))


def _made(run: Run, index: int, fitness: float, genome: NDArray[np.float64]) -> _Kept:
    space = run.plan.space
    return _Kept(index, fitness, space.decode(genome), tree(space, genome))


def _handed_on(made: Assembled, run: Run, number: int, found: Sequence[_Kept], plain: Plain) -> dict[str, object]:
    """The content of the file of what a generation keeps."""
    sources: Mapping[str, Node] = run.models.sources
    rules = run.form.rules.to_dict()
    return {
        "recipes": [
            {
                "name": f"g{number}_{each.genome}",
                "genome": each.genome,
                "fitness": each.fitness,
                "parents": parents(each.tree, sources),
                "recipe": each.recipe.to_dict(),
            }
            for each in found
        ],
        "plain": {key: plain.get(key) for key in ("model", *ALIKE)},
        "file": {
            "dtype": str(made.parts.engine.dtype).removeprefix("torch."),
            "out_dtype": str(made.parts.out_dtype).removeprefix("torch."),
            **{key: rules[key] for key in DECIDED},
            **({"by_factors": True} if any(made.parts.engine.adapters.used(each.recipe) for each in found) else {}),
        },
    }
