"""A table: a checkpoint in other engines beside transformers, on problems in JSON lines (question, answer).

python -m tests.engines CHECKPOINT PROBLEMS --vllm PYTHON --engines PYTHON [--engine llama.cpp ...]
                        [--prompt TEXT] [--reference TEXT] [--count 64] [--first 0] [--tokens 8]
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.engines import answering
from tests.engines.comparison import Reference, compare, table


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="A checkpoint in other engines beside transformers.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("problems", type=Path)
    parser.add_argument("--vllm", default=sys.executable, help="a Python with vLLM")
    parser.add_argument("--engines", default=sys.executable, help="a Python with the other engines")
    parser.add_argument("--engine", nargs="*", choices=answering.ENGINES, default=list(answering.ENGINES))
    parser.add_argument("--prompt", default="問：{question}答：")
    parser.add_argument("--reference", default="答えは{answer}です。")
    for name, default in (("count", 64), ("first", 0), ("tokens", 8), ("likely", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    lines = given.problems.read_text().splitlines()[given.first : given.first + given.count]
    rows = [json.loads(line) for line in lines]
    asked = [(given.prompt.format(**row), given.reference.format(**row)) for row in rows]
    reference = Reference(given.checkpoint, asked, given.tokens, given.likely)
    found = []
    for engine in given.engine:
        python = given.vllm if engine == "vllm" else given.engines
        with tempfile.TemporaryDirectory() as room:
            reference.ask(Path(room))
            found.append(compare(engine, python, reference, Path(room)))
    print(table(found))


if __name__ == "__main__":
    main()
