"""What people see of a run: progress, tables and pictures."""

from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 140  # where there is no terminal to fit into


def make_console() -> Console:
    """A console as wide as the terminal, or wide enough for every table."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def say(console: Console, text: str, wrapped: bool = False) -> None:
    """Print `text` as it is: names of files and models in it may look like markup of rich ("[/red]")."""
    console.print(Text(text), soft_wrap=not wrapped)


def near(path: Path) -> Path:
    """A path as people write it: from the current directory where it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
