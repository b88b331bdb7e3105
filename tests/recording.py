"""The README's picture of a terminal: what a command really prints, as an SVG.

    python -m tests.recording evohydra/docs/terminal.svg python -m evohydra run=recorded

The command gets a terminal of its own, so that it prints as it does for people. Of a progress display the last state
before each new line is kept.
"""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 110  # columns
MOVES = re.compile(r"\x1b\[(\d+)A|(\n|\r|\x1b\[2K)|((?:[^\n\r\x1b]|\x1b(?!\[\d+A|\[2K))+)")  # up, where to, text


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
    """The lines as they stand at the end: what was drawn over is gone, and one state of a progress display stays."""
    lines, row, over = [""], 0, False
    for up, move, written in MOVES.findall(text):
        if up:
            row = max(0, row - int(up))
        elif move == "\n":
            row, over = row + 1, True
            lines += [""] * (row == len(lines))
        elif move:
            over = True  # what comes next takes the place of the line
        else:
            lines[row] = written if over else lines[row] + written
            over = False
    lines = [line if Text.from_ansi(line).plain.strip() else "" for line in lines]
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
