"""What a search keeps of a genome that is done: the same values, in little memory however many genes and examples."""

import json
import tracemalloc
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evohydra.recipe import Checkpoint
from evohydra.scoring.job import Evaluation, Job
from evohydra.searching.fitness.rejection import _lowest_of
from evohydra.searching.json_lines import JsonLines, LedgerError
from evohydra.searching.kept import Index, PackedPlaces, PackedScores, Span, Spill
from evohydra.searching.ledger import Ledger, Record
from evohydra.searching.scores import ScoreStore
from tests.commands import json_lines

GENES = 1000


def record(index: int, genes: int = GENES) -> Record:
    drawn = np.random.default_rng(index)
    genome = drawn.random(genes).tolist()
    return Record(
        index=index,
        generation=index // 4,
        genome=genome,
        genes={f"group{at}.weight": value for at, value in enumerate(genome)},
        recipe=f"{index:064x}",
        fitness=0.5,
        scores={"right": (drawn.random(100) < 0.5).astype(float).tolist(), "any": drawn.random(5).tolist()},
        seconds={"merge": 0.25, "evaluate": 1.5},
        examples={"right": list(range(100)), "any": [70000, 3, 5, 7, 9]},
    )


def test_a_record_is_what_it_was_during_a_search_and_after_it(tmp_path: Path) -> None:
    made = [record(index, 6) for index in range(5)]
    with closing(Ledger(tmp_path, {})) as ledger:
        for each in made:
            ledger.add(each)
        assert ledger.records == made
        assert ledger.same(made[3].recipe)[0] == made[3]
        assert ledger.records[2].by_place() == made[2].by_place()
    kept = ledger.records[4]
    assert (list(kept.genome), dict(kept.genes), dict(kept.seconds)) == (made[4].genome, made[4].genes, made[4].seconds)
    assert np.array(kept.genome).tolist() == made[4].genome
    assert kept.genome[1:3] == made[4].genome[1:3]
    assert kept != made[3]
    assert json_lines(tmp_path / "ledger.jsonl") == [json.loads(json.dumps(asdict(each))) for each in made]


def test_the_lowest_scores_are_known_without_a_look_at_each_record(tmp_path: Path) -> None:
    """What early rejection asks for at each genome, of as many records as there were when it was asked."""
    made = [record(index, 2) for index in range(40)]
    made[7] = replace(made[7], fitness=None, scores={}, error="ValueError: not finite")
    with closing(Ledger(tmp_path, {})) as ledger:
        for each in made:
            ledger.add(each)
        for count in range(41):
            for name in ("right", "any", "other"):
                known = [min(each.scores[name]) for each in made[:count] if name in each.scores]
                assert ledger.records.lowest(name, count) == (min(known) if known else None)
        spans = [Span(ledger.records, 0, count) for count in (0, 3, 40)]
        assert [_lowest_of(span, "any") for span in spans] == [_lowest_of(list(span), "any") for span in spans]


@given(st.lists(st.one_of(st.sampled_from([0.0, -0.0, 1.0, 255.0, 256.0, -1.0, 0.5]), st.floats(allow_nan=False))))
def test_packed_scores_are_the_same_bits(values: list[float]) -> None:
    packed = PackedScores({"task": values, "none": []})
    assert np.array(packed["task"]).tobytes() == np.array(values, dtype=float).tobytes()
    assert (list(packed), len(packed), packed["none"]) == (["task", "none"], 2, [])
    assert packed == {"task": values, "none": []}
    with pytest.raises(KeyError):
        packed["other"]


def test_packed_places() -> None:
    places = {"one": [3, 1, 70000], "two": range(4)}
    assert PackedPlaces(places) == {"one": [3, 1, 70000], "two": [0, 1, 2, 3]}


def test_memory_does_not_grow_with_genes(tmp_path: Path) -> None:
    """A record of 1000 genes is 100 kB in memory, and nearly nothing once it is told, with its 1000 scores."""
    with closing(Ledger(tmp_path, {})) as ledger, closing(ScoreStore(tmp_path / "scores.jsonl", {})) as store:
        for index in range(20):
            ledger.add(record(index))
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for index in range(20, 120):
            ledger.add(record(index))
            job = Job(Checkpoint(str(index), "-"), "search")
            store.keep(f"genome {index}", job, Evaluation({"task": [0.25] * 1000}, {"merge": 0.5}))
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (after - before) / 100 < 1000
        assert store.find("genome 40", Job(Checkpoint("40", "-"), "search")) is not None


def test_numbers_of_a_digest_are_found_in_their_order() -> None:
    """With many that begin with the same bytes, and tables that are made anew on the way."""
    drawn = np.random.default_rng(1)
    digests = [bytes([int(one), *[0] * 7]) for one in drawn.integers(0, 9, 500)]
    index, known = Index(), dict[bytes, list[int]]()
    for number, digest in enumerate(digests):
        index.add(digest, number)
        known.setdefault(digest, []).append(number)
        assert list(index.numbers(digest)) == known[digest]
    assert {digest: list(index.numbers(digest)) for digest in known} == known
    assert list(index.numbers(bytes([9, *[0] * 7]))) == []


def test_recipes_that_begin_alike_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evohydra.searching.ledger._start", lambda recipe: b"always..")
    monkeypatch.setattr("evohydra.searching.scores._short", lambda *parts: b"always..")
    made = [record(index, 2) for index in range(3)]
    jobs = [Job(Checkpoint(str(index), "-"), "search") for index in range(3)]
    with closing(Ledger(tmp_path, {})) as ledger, closing(ScoreStore(tmp_path / "scores.jsonl", {})) as store:
        for each, job in zip(made, jobs, strict=True):
            ledger.add(each)
            assert store.find("a", job) is None
            store.keep("a", job, Evaluation({"task": [float(each.index)]}, {"merge": 0.5}))
        assert [ledger.same(each.recipe) == [each] for each in made] == [True] * 3
        assert [found.scores["task"] for job in jobs if (found := store.find("b", job))] == [[0.0], [1.0], [2.0]]
    assert [line["label"] for line in json_lines(tmp_path / "scores.jsonl")] == ["a"] * 3 + ["b"] * 3


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spill = Spill(tmp_path)
    spill.append(b"first")
    monkeypatch.setattr("evohydra.searching.kept.os.pwrite", lambda file, content, at: len(content) - 1)
    with pytest.raises(OSError, match="No space left on device; all lines so far are whole: make room"):
        spill.append(b"second")
    monkeypatch.undo()
    spill.append(b"third")
    assert list(spill) == [b"first", b"third"]
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_a_growing_list() -> None:
    whole = list(range(10))
    part = Span(whole, 2, 6)
    whole += [10, 11]
    assert (list(part), len(part), part[-1], list(part[1:3]), list(part[::2])) == ([2, 3, 4, 5], 4, 5, [3, 4], [2, 4])
    with pytest.raises(IndexError):
        part[4]


def test_a_line_that_was_changed_meanwhile_is_named(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    with closing(JsonLines(file, in_memory=False)) as lines:
        for number in range(3):
            lines.append({"number": number})
        assert [entry["number"] for entry in lines.entries] == [0, 1, 2]
        assert lines.entries[1:] == [{"number": 1}, {"number": 2}]
        file.write_bytes(file.read_bytes().replace(b'"number": 1', b'"number": 7'))
        with pytest.raises(LedgerError, match="line 2 is damaged"):
            lines.read(1)
        lines.keep([True, False, True])
        assert [entry["number"] for entry in lines.entries] == [0, 2]
        lines.cut(1)
        lines.append({"number": 9})
        assert [entry["number"] for entry in lines.entries] == [0, 9]
