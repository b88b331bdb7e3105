"""A search that learns nothing is said to while it goes on, with the likely cause."""

import logging

from evohydra.searching.ledger import Record
from evohydra.searching.scores import ScoreStore

logger = logging.getLogger(__name__)
ENOUGH = 8  # genomes with a fitness, after which a search is looked at once
SAME = 1e-12


class Doubts:
    """Watches the first genomes of a search; `store` holds what they were scored by."""

    def __init__(self, store: ScoreStore) -> None:
        self._store = store
        self._fitness: list[float] = []

    def __call__(self, record: Record) -> None:
        """Take note of a genome; warns at the ENOUGH-th one that has a fitness, and then no more."""
        if record.fitness is None or len(self._fitness) >= ENOUGH:
            return
        self._fitness.append(record.fitness)
        if len(self._fitness) == ENOUGH:
            for doubt in self.found():
                logger.warning("%s", doubt)

    def found(self) -> list[str]:
        """What is odd about all genomes so far, in sentences."""
        lines = [
            line
            for line in self._store.entries("search")
            if line["label"].startswith("genome ") and line["error"] is None
        ]
        written = sum(counts[0] for line in lines for counts in line.get("ends", {}).values())
        cut = sum(counts[1] for line in lines for counts in line.get("ends", {}).values())
        broken = {line["broken"] for line in lines if line.get("broken")}
        doubts = []
        if written and cut == written:
            doubts.append(
                f"All {written} answers of the first genomes were cut at the limit of tokens. Likely the limit is too "
                "low, or models do not write their end of a text: look at generation_kwargs (max_gen_toks, until), and "
                "at the prompt"
            )
        if broken and all(line.get("broken") for line in lines):
            doubts.append(
                f"Of all genomes so far {' and '.join(sorted(broken))}. Likely the prompt is not what models were "
                "trained on (chat_template, prompt_format), or answers begin with a stop string (until)"
            )
        if max(self._fitness) - min(self._fitness) <= SAME:
            doubts.append(
                f"The first {len(self._fitness)} genomes all have the fitness {self._fitness[0]:.4f}, by which a "
                "search learns nothing. Likely the metric does not read the answers (form, language, filter), the "
                "benchmark is far too easy or too hard, or the genes change nothing. `evohydra evaluate MODEL "
                "--answers FILE` shows answers"
            )
        return doubts
