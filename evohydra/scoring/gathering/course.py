"""The pass of each source over the prompts of benchmarks, one source after the other."""

import copy
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from evohydra.families import LiveModel
from evohydra.merging.engine import Engine
from evohydra.merging.methods import Statistic
from evohydra.merging.statistics import Files, StatisticsError, StatisticsFile
from evohydra.recipe import Checkpoint, Merge
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.token_texts import GivesTexts, TokenText
from evohydra.scoring.gathering.behind_merges import sums_behind_merges
from evohydra.scoring.gathering.expert_states import Asking, expert_states
from evohydra.scoring.gathering.files import Wanted
from evohydra.scoring.gathering.sums import finite, summing
from evohydra.spaces.grouping import Location

logger = logging.getLogger(__name__)
SHOWN = 3  # sources in a message


@dataclass(frozen=True)
class Course:
    """What is to be gathered, and from what.

    sources: with the file that each shall have. prompts: of the search split of each benchmark, the first ones.
    most_bytes: for sums. usual: the merge at its usual values, behind whose layers `merged_inputs` are. asking: how
    rows of routers are made, of `expert_states`.
    """

    statistic: Statistic
    sources: Mapping[Checkpoint, Wanted]
    make_live: Callable[[], LiveModel]
    engine: Engine
    benchmarks: Mapping[str, GivesTexts]
    prompts: int
    most_bytes: int
    locations: Mapping[str, Location | None]
    usual: Callable[[], Merge]
    asking: Asking | None = None


def gathered(course: Course) -> tuple[Files, int]:
    """The files of all sources, and how many of them had to be made. A pass that was killed goes on with the next.

    That is so where sources read by themselves; behind merged layers, and for rows of routers, they read together, and
    are read again together.
    """
    found = {node: wanted.found() for node, wanted in course.sources.items()}
    missing = [node for node, file in found.items() if file is None]
    made: dict[Checkpoint, StatisticsFile] = {node: file for node, file in found.items() if file is not None}
    if missing:
        live = course.make_live()
        texts = texts_of(course, live)
        if course.statistic == "merged_inputs":
            made = _behind_merges(course, live, texts)
        elif course.asking is not None:
            made = _states(course, course.asking, live, texts)
        else:
            made |= {node: _by_itself(course, live, texts, node) for node in missing}
    return {node.name: made[node] for node in course.sources}, len(missing)


def on_file(course: Course) -> Files:
    """The files of all sources; StatisticsError where one is not there."""
    found = {node.name: wanted.found() for node, wanted in course.sources.items()}
    if missing := [name for name, file in found.items() if file is None]:
        node = next(each for each in course.sources if each.name == missing[0])
        raise StatisticsError(
            f"statistics of the source {missing[0]!r}: {course.sources[node].path} is missing, which the search began "
            "with. The run makes it again, but its recipes are those of the old file only if both are the same, bit "
            "for bit"
        )
    return {name: file for name, file in found.items() if file is not None}


def texts_of(course: Course, live: LiveModel) -> list[TokenText]:
    """The first `prompts` examples of the search split of each benchmark, as the live model reads them."""
    found: list[TokenText] = []
    for name, benchmark in course.benchmarks.items():
        twin = copy.copy(benchmark)  # what it keeps of this live model goes with it
        read = twin.texts(live, "search", range(min(course.prompts, twin.size("search"))))
        if short := [place for place, text in enumerate(read) if text.answer < 1]:
            raise BenchmarkError(
                f"benchmark {name!r}: example {short[0]} of the search split has no prompt with a reference behind it"
            )
        found += read
    return found


def digest_of_texts(texts: Sequence[TokenText]) -> str:
    """SHA-256 of the tokens."""
    plain = [[list(text.tokens), text.answer] for text in texts]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


def _by_itself(course: Course, live: LiveModel, texts: Sequence[TokenText], node: Checkpoint) -> StatisticsFile:
    live.become(node, course.engine)
    merged = {name for name, place in course.locations.items() if place is not None}
    sums = finite(summing(course.statistic, course.most_bytes)(live, texts, merged), node.name)
    return course.sources[node].write(sums, sum(len(text.tokens) for text in texts), digest_of_texts(texts))


def _behind_merges(course: Course, live: LiveModel, texts: Sequence[TokenText]) -> dict[Checkpoint, StatisticsFile]:
    tokens, digest = sum(len(text.tokens) for text in texts), digest_of_texts(texts)
    usual = course.usual()
    first = next(iter(course.sources.values()))
    with sums_behind_merges(
        live, course.engine, texts, usual, list(course.sources), course.locations, first.directory, course.most_bytes
    ) as found:
        return {node: course.sources[node].write(found(node), tokens, digest) for node in course.sources}


def _states(
    course: Course, asking: Asking, live: LiveModel, texts: Sequence[TokenText]
) -> dict[Checkpoint, StatisticsFile]:
    tokens, digest = sum(len(text.tokens) for text in texts), digest_of_texts(texts)
    found = expert_states(live, course.engine, texts, list(course.sources), asking, course.locations)
    return {node: course.sources[node].write(rows, tokens, digest) for node, rows in found.items()}
