"""The searches before the last one of several generations: each hands on recipes, and scores nothing on test."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from evohydra.assembly.continuing import ALIKE, DECIDED, continued
from evohydra.assembly.generations import generation, room_of
from evohydra.assembly.runs import Assembled, assembled
from evohydra.assembly.settings import Settings
from evohydra.files import Plain, write_json
from evohydra.recipe import Node
from evohydra.report import say
from evohydra.run import Run
from evohydra.searching.handed_on import KEPT
from evohydra.searching.keeping import kept, parents
from evohydra.searching.ledger import Record
from evohydra.winner.unsearched import UnsearchedRecipe


def hand_on(plain: Plain, directory: Path, place: Plain, given: Sequence[str], console: Console) -> None:
    """Carry out all generations of a run but the last one, or go on with them; nothing where there is one only.

    Each is an ordinary search in a directory of its own, which is asked for again even where it has ended: nothing is
    scored then, and what it hands on is the same. No weights are written, and nothing is scored on validation or test.
    """
    Settings.check_types(plain)
    count = plain.get("generations", 1)
    if count == 1:
        return
    every = [generation(plain, number, directory, given) for number in range(1, count + 1)]
    for number, (settings, overrides) in enumerate(every[:-1], 1):
        room = room_of(directory, number)
        named = {**place, "name": f"{place['name']} generation {number}", "group": None}
        made = assembled(settings, room, named, overrides)
        if isinstance(made.run, UnsearchedRecipe):
            raise ValueError("generations: expected genes to search and a benchmark, got none of both")
        room.mkdir(parents=True, exist_ok=True)
        run = replace(made.run, said=(f"generation {number} of {count}", *made.run.said))
        with run.searched(console) as done:
            found = kept(list(done.ledger.records), plain["generations_keep"], plain["generations_sources"])
        write_json(room / KEPT, _handed_on(made, run, number, found, continued(settings, overrides)[0]))
        told = ", ".join(f"genome {record.index} ({record.fitness:.4f})" for record in found)
        say(console, f"generation {number} hands on {told} ({plain['generations_keep']})", wrapped=True)


def _handed_on(made: Assembled, run: Run, number: int, found: Sequence[Record], plain: Plain) -> dict[str, object]:
    """The content of the file of what a generation keeps."""
    nodes = [run.plan.space.decode(np.array(record.genome)) for record in found]
    sources: Mapping[str, Node] = run.models.sources
    rules = run.form.rules.to_dict()
    return {
        "recipes": [
            {
                "name": f"g{number}_{record.index}",
                "genome": record.index,
                "fitness": record.fitness,
                "parents": parents(node, sources),
                "recipe": node.to_dict(),
            }
            for record, node in zip(found, nodes, strict=True)
        ],
        "plain": {key: plain.get(key) for key in ("model", *ALIKE)},
        "file": {
            "dtype": str(made.parts.engine.dtype).removeprefix("torch."),
            "out_dtype": str(made.parts.out_dtype).removeprefix("torch."),
            **{key: rules[key] for key in DECIDED},
            **({"by_factors": True} if any(map(made.parts.engine.adapters.used, nodes)) else {}),
        },
    }
