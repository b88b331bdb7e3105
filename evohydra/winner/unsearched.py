"""A recipe that leaves nothing to search: it is written, and no model is scored."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from evohydra.files import write_json
from evohydra.recipe import Node
from evohydra.winner.checkpoint_files import whole_directory
from evohydra.winner.writer import WinnerWriter


@dataclass(frozen=True)
class FixedRecipe:
    """The only recipe of a space in which every gene is frozen, for a run without benchmarks."""

    directory: Path
    recipe: Node
    write: WinnerWriter

    def __call__(self, console: Console) -> dict[str, Any]:
        """Write it as the winner of a run; returns a summary whose scores are not known."""
        with whole_directory(self.directory / "winner") as directory:
            content = self.write(self.recipe, directory, self.directory.name, {}, None)
        write_json(self.directory / "recipe.json", content)
        for name, what in (("winner", "the merged model"), ("recipe.json", "how to make it again")):
            console.print(f"  {self.directory / name}: {what}", highlight=False, soft_wrap=True)
        return {split: {"winner": {"score": math.nan}} for split in ("validation", "search")}
