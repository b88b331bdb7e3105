"""Held-out text: how well a model predicts it, byte by byte, whatever its tokenizer is."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from lm_eval.api.instance import Instance
from numpy.typing import NDArray

from evohydra.families import LiveModel
from evohydra.files import read_text
from evohydra.scoring.benchmarks import SPLITS, BenchmarkError, Lengths, Split
from evohydra.scoring.benchmarks.contents import digest_of, versions_of
from evohydra.scoring.benchmarks.likelihood import LOWEST
from evohydra.scoring.benchmarks.live_lm import LiveLM
from evohydra.scoring.benchmarks.lm_eval_identity import PACKAGES
from evohydra.scoring.benchmarks.not_numbers import check_log_likelihoods
from evohydra.scoring.benchmarks.served_lm import language_model
from evohydra.scoring.benchmarks.text_tables import TABLES, table_rows

COLUMN = "text"
LEAST = 2  # passages of a split: the spread of one is not known
BATCH = 16  # passages a forward pass: they are longer than prompts


class HeldOutText:
    """The passages of a file, dealt to the splits in turn.

    The score of a passage is its negative log-likelihood in nats, divided by the mean number of bytes (UTF-8) of the
    passages of its split. So the mean over a split is nats per byte, in which long passages count for more, and its
    exponential is the perplexity per byte. Texts longer than the context are read window by window, as lm-eval does.
    """

    families: tuple[str, ...] = ("causal_lm",)

    def __init__(self, name: str, passages: Sequence[str], examples: int, batch_size: int | str) -> None:
        """examples: passages of the search split, at most. BenchmarkError for too few passages."""
        self.name = name
        dealt = {split: list(passages[at :: len(SPLITS)]) for at, split in enumerate(SPLITS)}
        self._passages: Mapping[Split, list[str]] = {**dealt, "search": dealt["search"][:examples]}
        if len(passages) < LEAST * len(SPLITS) or len(self._passages["search"]) < LEAST:
            raise BenchmarkError(
                f"guard: text {name!r}: expected {LEAST * len(SPLITS)} different passages or more, of which search, "
                f"validation and test get a third each, and guard_examples of {LEAST} or more; got {len(passages)} "
                f"passages and guard_examples={examples}"
            )
        self._batch = min(batch_size, BATCH) if isinstance(batch_size, int) else BATCH
        self._lm: LiveLM | None = None
        self._live: LiveModel | None = None

    def size(self, split: Split) -> int:
        """The number of passages in `split`."""
        return len(self._passages[split])

    def identity(self) -> dict[str, object]:
        """What the numbers of a model depend on."""
        return {
            "kind": "held-out text",
            "per": "byte",
            "splits": {split: digest_of(self._passages[split]) for split in SPLITS},
            "versions": versions_of(PACKAGES),
        }

    def lengths(self, split: Split, tokens: Callable[[str], int]) -> Lengths:
        """How long the passages of `split` are, see `TellsLengths`; a model reads them, and writes nothing."""
        mean = float(np.mean([tokens(text) for text in self._passages[split]]))
        return Lengths(prompt=mean, reference=0.0, longest=0.0, limit=0, passes=1.0, writes=False)

    def __call__(self, live: LiveModel, split: Split, examples: Sequence[int] | None = None) -> NDArray[np.float64]:
        """(n,): nats of each passage, by the mean number of bytes of all passages of the split. Fewer are better."""
        if self._lm is None or self._live is not live:
            self._lm, self._live = language_model(live, self._batch, prefix_cache=False), live
        every = self._passages[split]
        sizes = np.array([len(text.encode()) for text in every], dtype=np.float64)
        places = list(range(len(every)) if examples is None else examples)
        asked = [Instance("loglikelihood_rolling", {}, (every[place],), 0) for place in places]
        found = self._lm.loglikelihood_rolling(asked, disable_tqdm=True)
        check_log_likelihoods(found)
        nats = -np.maximum(np.array(found, dtype=np.float64), LOWEST * sizes[places])
        numbers: NDArray[np.float64] = nats / sizes.mean()
        return numbers


def held_out_text(file: str, examples: int, batch_size: int | str) -> HeldOutText:
    """The passages of a file: of a text (.txt) what stands between blank lines, of a table the column `text`.

    Passages that come twice count once. BenchmarkError for files that are not there, not readable, or too short.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise BenchmarkError(f"guard: text: no such file: {file}")
    if path.suffix == ".txt":
        try:
            found = [passage.strip() for passage in re.split(r"\n\s*\n", read_text(path))]
        except (ValueError, OSError) as error:
            raise BenchmarkError(f"guard: text: {file} is not readable as text (UTF-8): {error}") from error
    elif path.suffix in TABLES:
        found = [row.text(COLUMN).strip() for row in table_rows(path.name, file, [COLUMN])]
    else:
        raise BenchmarkError(f"guard: text: expected a file .txt, {', '.join(TABLES)}, got {file}")
    return HeldOutText(path.name, [text for text in dict.fromkeys(found) if text], examples, batch_size)
