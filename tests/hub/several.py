"""Several command lines in one process, which imports libraries once: [[name, argument, ...], ...] as JSON on stdin.

What came is a JSON object a line: name, seconds, the summary of the run or the error.
"""

import json
import sys
import time
from pathlib import Path

from tests.commands import carried_out


def main() -> None:
    """Carry them out one after the other; a run lives in a directory of its name here."""
    for name, *arguments in json.load(sys.stdin):
        began = time.perf_counter()
        answer: dict[str, object] = {"name": name}
        try:
            answer["summary"] = carried_out(arguments, Path(name))
        except (ArithmeticError, ValueError, OSError, RuntimeError) as error:
            answer["error"] = f"{type(error).__name__}: {error}"
        print(json.dumps({**answer, "seconds": round(time.perf_counter() - began, 1)}), flush=True)


if __name__ == "__main__":
    main()
