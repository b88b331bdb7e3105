"""What is said below a picture that a run has left."""

from pathlib import Path

from evohydra.files import read_text

GRID = "pictures-"  # how the names of grids begin, see `evohydra.report.pictures`
MOST_BYTES = 100_000


def caption(path: Path) -> str:
    """Of a grid whose rows have numbers, with the prompts that these stand for."""
    if not path.stem.startswith(GRID):
        return f"{path.stem.replace('_', ' ')}."
    told = f"what models draw for prompts of the test split of {path.stem.removeprefix(GRID)}, and their scores."
    prompts = path.with_suffix(".txt")
    if not prompts.is_file():
        return told
    return f"{told} {'; '.join(read_text(prompts, MOST_BYTES).split(chr(10)))}".rstrip("; ") + "."
