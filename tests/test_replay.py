"""Lines of a ledger are not believed: what was changed after it was written is named, and nothing goes on from it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evohydra.searching.json_lines import JsonLines, LedgerError, sealed, unsealed, whole_lines
from tests.commands import carried_out, json_lines, workspace, write_lines

Entry = dict[str, Any]


def test_a_line_and_its_check_sum(tmp_path: Path) -> None:
    entry = {"text": 'a "check": 1 , }', "number": 0.1, "ja": "答え"}
    line = sealed(entry)
    assert json.loads(line)["text"] == entry["text"]
    assert unsealed(line) == entry
    for place in range(len(line) - 1):
        with pytest.raises(ValueError, match=r"check|JSON|Expecting|control|codec|delimiter|escape|Extra"):
            unsealed(line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda line: line.replace(b"0.5", b"0.9"), "its check sum does not fit: it was changed"),
        (lambda line: json.dumps({"fitness": 0.5}).encode(), "it has no 'check': an earlier version"),
        (lambda line: line.replace(b'"fitness"', b'"fitness" '), "its check sum does not fit"),
    ],
)
def test_a_changed_line_is_named(tmp_path: Path, change: Callable[[bytes], bytes], expected: str) -> None:
    file = tmp_path / "ledger.jsonl"
    lines = [sealed({"fitness": value}) for value in (0.25, 0.5, 0.75)]
    file.write_bytes(lines[0] + change(lines[1][:-1]) + b"\n" + lines[2])
    for read in (whole_lines, JsonLines):
        with pytest.raises(LedgerError, match=f"ledger.jsonl: line 2 is damaged .{expected}"):
            read(file)


def test_what_earlier_versions_wrote_is_read_but_not_continued(tmp_path: Path) -> None:
    file = tmp_path / "ledger.jsonl"
    file.write_text('{"fitness": 0.5}\n{"fitness": 0.')
    assert whole_lines(file) == [{"fitness": 0.5}]
    with pytest.raises(LedgerError, match=r"line 1 is damaged .it has no 'check'"):
        JsonLines(file)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    root = tmp_path_factory.mktemp("begun")
    arguments = [*workspace(root), "baselines=null", "top=1", "budget=12"]
    carried_out(arguments, root / "run")
    return arguments, root / "run"


def first(values: dict[str, list[float]], change: Callable[[list[float]], object]) -> dict[str, Any]:
    return {name: change(list(each)) for name, each in values.items()}


CHANGES: dict[str, tuple[Callable[[Entry], Entry], str]] = {
    "fitness": (lambda e: e | {"fitness": 0.99}, "has fitness 0.99, where its genome and its scores give"),
    "infinite": (lambda e: e | {"fitness": float("inf")}, "has fitness inf, where a number was expected"),
    "a text": (lambda e: e | {"fitness": "0.5"}, "has fitness '0.5', where a number was expected"),
    "none": (lambda e: e | {"fitness": None}, "has fitness None, where a number was expected"),
    "too few": (lambda e: e | {"scores": first(e["scores"], lambda s: s[:-1])}, "that do not fit the examples"),
    "no scores": (lambda e: e | {"scores": {}}, "has scores {} that do not fit the examples"),
    "nan": (lambda e: e | {"scores": first(e["scores"], lambda s: [float("nan"), *s[1:]])}, "do not fit the examples"),
    "a score": (lambda e: e | {"scores": first(e["scores"], lambda s: [s[0] + 1, *s[1:]])}, "has scores "),
    "recipe": (lambda e: e | {"recipe": "ab" * 32}, "has recipe 'abab"),
    "genes": (lambda e: e | {"genes": {"w": 1.0}}, "has genes {'w': 1.0}"),
    "generation": (lambda e: e | {"generation": 5}, "has generation 5, where its genome and its scores give 1"),
    "a failure": (
        lambda e: e | {"fitness": None, "scores": {}, "error": "MergeError: no"},
        "has error 'MergeError: no'",
    ),
    "examples": (lambda e: e | {"examples": {"lm_eval": [0] * 24}}, "that do not fit the examples"),
    "objectives": (lambda e: e | {"objectives": {"a": 1.0}}, "has objectives {'a': 1.0}"),
    "error bar": (lambda e: e | {"error_bar": 0.1}, "has error_bar 0.1"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_line_with_another_content_is_refused(begun: tuple[list[str], Path], name: str) -> None:
    """Also one whose check sum was made anew."""
    arguments, run = begun
    change, expected = CHANGES[name]
    file, before = run / "ledger.jsonl", (run / "ledger.jsonl").read_bytes()
    entries = json_lines(file)
    entries[8] = change(entries[8])
    write_lines(file, entries)
    changed = file.read_bytes()
    try:
        with pytest.raises(LedgerError, match=r"ledger.jsonl: line 9 has ") as raised:
            carried_out([*arguments, "budget=18"], run)
        assert expected in str(raised.value)
        assert "Delete this line and all after it" in str(raised.value)
        assert file.read_bytes() == changed
        file.write_bytes(b"".join(before.splitlines(keepends=True)[:8]))  # as the message says
        carried_out(arguments, run)
        assert file.read_bytes() == before
    finally:
        file.write_bytes(before)


def test_without_scores_on_file_what_follows_from_the_genomes_is_compared(
    begun: tuple[list[str], Path], tmp_path: Path
) -> None:
    arguments, run = begun
    (tmp_path / "run.json").write_bytes((run / "run.json").read_bytes())
    entries = json_lines(run / "ledger.jsonl")
    write_lines(tmp_path / "ledger.jsonl", entries)
    carried_out(arguments, tmp_path)
    (tmp_path / "scores.jsonl").unlink()
    write_lines(tmp_path / "ledger.jsonl", [*entries[:3], entries[3] | {"recipe": entries[4]["recipe"]}, *entries[4:]])
    with pytest.raises(LedgerError, match="line 4 has recipe"):
        carried_out(arguments, tmp_path)


@pytest.mark.parametrize("searched", [["fitness=racing", "fitness.first=3"], ["fitness=irt", "fitness.calibrate=6",
                         "fitness.first=4", "fitness.most=8"]], ids=lambda s: s[0])  # fmt: skip
def test_estimates_are_made_again(tmp_path: Path, searched: list[str]) -> None:
    arguments = [*workspace(tmp_path), *searched, "baselines=null", "top=1", "budget=18"]
    carried_out(arguments, tmp_path / "run")
    file = tmp_path / "run" / "ledger.jsonl"
    before, entries = file.read_bytes(), json_lines(file)
    carried_out(arguments, tmp_path / "run")
    assert file.read_bytes() == before
    place = next(at for at, entry in enumerate(entries) if entry["error_bar"] is not None)
    entries[place]["fitness"] += 0.01
    write_lines(file, entries)
    with pytest.raises(LedgerError, match=f"line {place + 1} has fitness"):
        carried_out(arguments, tmp_path / "run")
