"""What people see of a run: progress, tables and pictures."""

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
