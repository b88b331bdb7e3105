"""A recipe that leaves nothing to search: it is written, and no model is scored."""

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from evohydra.files import together
from evohydra.recipe import Node
from evohydra.report import say
from evohydra.scoring.executors import Executor
from evohydra.winner.publishing import push
from evohydra.winner.writer import RESULT, UNVERIFIED, WINNER, WinnerError, WinnerForm, write_winner


@dataclass(frozen=True)
class UnsearchedRecipe:
    """The only recipe of a space in which every gene is frozen, for a run without benchmarks."""

    directory: Path
    recipe: Node
    form: WinnerForm
    make_executor: Callable[[], Executor]
    push: str | None = None

    def __call__(self, console: Console) -> dict[str, Any]:
        """Write it as the winner of a run; returns a summary whose scores are not known.

        Raises WinnerError, with all written, where the checkpoint is not the live model.
        """
        with closing(self.make_executor()) as executor, together(self.directory, RESULT) as room:
            unverified = executor.ask(write_winner, self.form, self.directory, room, self.recipe, {}, None)
        target = self.directory / (UNVERIFIED if unverified else WINNER)
        for file, what in ((target, "the merged model"), (self.directory / "recipe.json", "how to make it again")):
            say(console, f"  {file}: {what}")
        if unverified:
            raise WinnerError(f"{unverified}; it is kept as {target}")
        if self.push is not None:
            say(console, f"  {push(target, self.push)}: the merged model on the hub")
        return {split: {"winner": {"score": math.nan}} for split in ("validation", "search")}
