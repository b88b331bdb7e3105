"""What people see of a run: progress, tables and pictures."""

from rich.console import Console

WIDTH = 140  # where there is no terminal to fit into


def make_console() -> Console:
    """A console as wide as the terminal, or wide enough for every table."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)
