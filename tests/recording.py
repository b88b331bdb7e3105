"""The README's picture of a terminal: what a command really prints, as an SVG.

    python -m tests.recording evohydra/docs/terminal.svg python -m evohydra run=recorded

The command gets a terminal of its own, so that it prints as it does for people. Of a progress display the last state
before each new line is kept.
"""

import os
import pty
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 110  # columns


def recorded(command: list[str]) -> str:
    """All that a command prints to a terminal, control sequences included; its error where it fails."""
    ours, its = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(WIDTH), "LINES": "40", "TERM": "xterm-256color"}
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment, close_fds=True)
    os.close(its)
    said = bytearray()
    while True:
        try:
            some = os.read(ours, 65536)
        except OSError:  # its end of the terminal is closed
            break
        if not some:
            break
        said += some
    if process.wait() != 0:
        sys.exit(said.decode(errors="replace"))
    return said.decode(errors="replace")


def last_state(text: str) -> str:
    """The lines as they stand at the end: what was drawn over is gone, and one state of a progress bar stays."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        states = [state for state in line.split("\r") if Text.from_ansi(state).plain.strip()]
        lines.append(states[-1] if states else "")
    kept = [line for line, after in zip(lines, [*lines[1:], ""], strict=True) if line or after]
    return "\n".join(kept)


def main() -> None:
    """The command."""
    target, *command = sys.argv[1:]
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    console.print(f"[bold green]$[/] {' '.join(part for part in command if not part.startswith('run='))}")
    console.print(Text.from_ansi(last_state(recorded(command))))
    Path(target).write_text(console.export_svg(title="evohydra"), encoding="utf-8")


if __name__ == "__main__":
    main()
