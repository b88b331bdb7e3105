"""`python -m evohydra.rebuild` for merge_memory.py: the same command, which notes when each of its stages begins.

    python -m tests.benchmarks.rebuild_worker NOTES RECIPE OUT

Writes to NOTES a line of JSON for each stage: its name, the time, and the anonymous memory in bytes at that moment.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers

from evohydra import rebuild
from evohydra.winner.formats import plain
from tests.benchmarks.proc import status


def noting(notes: Path, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, whose call is noted as the beginning of a stage."""

    def noted(*arguments: Any, **keywords: Any) -> Any:
        note(notes, stage)
        return function(*arguments, **keywords)

    return noted


def note(notes: Path, stage: str) -> None:
    with notes.open("a") as file:
        file.write(json.dumps({"stage": stage, "time": time.time(), "anonymous": status("self")["RssAnon"]}) + "\n")


def main() -> None:
    notes = Path(sys.argv.pop(1))
    # transformers imports what it needs when it is asked for; these belong to the imports, not to the merge.
    transformers.AutoConfig, transformers.MODEL_FOR_CAUSAL_LM_MAPPING[transformers.MistralConfig]
    transformers.AutoTokenizer, transformers.PreTrainedTokenizerFast  # noqa: B018
    note(notes, "fingerprinting")
    plain.write_part = noting(notes, "merging", plain.write_part)  # type: ignore[attr-defined]
    plain.fingerprint = noting(notes, "reading back", plain.fingerprint)  # type: ignore[attr-defined]
    rebuild.main()
    note(notes, "done")


if __name__ == "__main__":
    main()
