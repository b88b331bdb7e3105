"""Evolutionary search over recipes that merge existing models.

import evohydra

run = evohydra.search(model="tiny_ja+tiny_math", merge="ties", budget=60)
run.winner.score, run.genomes()
"""

from importlib.metadata import version

from evohydra.library import evaluate, load, merge, search
from evohydra.library.runs import Run, RunError, Winner

__version__ = version("evohydra")
__all__ = ["Run", "RunError", "Winner", "__version__", "evaluate", "load", "merge", "search"]
