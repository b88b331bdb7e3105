"""What code of one's own reads belongs to what scores depend on."""

from pathlib import Path

import pytest

from evohydra.assembly.own_code import own_code
from evohydra.scoring.benchmarks.read_files import named_files
from tests import tiny_models
from tests.contracts.test_identities import language

FILES = ("keys.json", "units.txt", "other.json", "lists/en.txt", "lists/deep/words.csv", "outputs/keys.json", "more.py")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("open('keys.json')", ["keys.json"]),
        ("Path(__file__).parent / 'lists' / 'en.txt'", ["lists/en.txt"]),
        ("Path(__file__).with_name('units.txt').read_text()", ["units.txt"]),
        ("open('lists/deep/words.csv')", ["lists/deep/words.csv"]),
        ("def f(language):\n    return open(f'lists/{language}.txt'), 'lists'", ["lists/en.txt", "units.txt"]),
        ("sorted(HERE.glob('*.json'))", ["keys.json", "other.json"]),
        ("import more\nx = '*' + '.' + f'{x:.2f}' + 'no file' + 'more.py'", []),
        ("x = 'ke' + 'ys.json'", []),
        ("this is no code", []),
        ("x = '\\0' + '" + "long" * 500 + "'", []),
    ],
)
def test_files_are_found_by_their_names(text: str, found: list[str], tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / "task" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "task" / name).write_text(name)
    assert named_files(text, tmp_path / "task") == sorted(tmp_path / "task" / name for name in found)


READING = [
    "sorted(HERE.rglob('*.val'))[0].read_text()",
    "open(HERE / ('words' + '.val')).read()",
    "(HERE / 'lists' / f'{1}' / 'words.val').read_text()",
    "[each.read_text() for each in HERE.iterdir() if each.is_file()]",
    "Path(__file__).with_suffix('.val').read_text()",
    "json.load(open('%s.val' % HERE))",
]


@pytest.mark.parametrize("reading", READING)
@pytest.mark.parametrize("changed", ["words.val", "lists/1/words.val", "linked/words.val"])
def test_all_that_lies_beside_the_code_of_a_task_counts_where_it_reads_files(
    reading: str, changed: str, tmp_path: Path
) -> None:
    root = tiny_models.save_task(tmp_path / "data")
    (tmp_path / "elsewhere").mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "lists" / "1").mkdir(parents=True)
    (root / "lists" / "circle").symlink_to(root)
    for name in ("words.val", "lists/1/words.val", "linked/words.val"):
        (root / name).write_text("a")
    (root / "scoring.py").write_text(f"{(root / 'scoring.py').read_text()}\n\ndef never():\n    return {reading}\n")
    before = language(root).identity()
    assert language(root).identity() == before
    (root / changed).write_text("b")
    assert language(root).identity() != before


def test_files_beside_code_that_reads_none_do_not_count(tmp_path: Path) -> None:
    root = tiny_models.save_task(tmp_path / "data")
    before = language(root).identity()
    assert set(before["splits"]["test"]["code"]) == {"scoring.py"}
    (root / "notes.json").write_text("{}")
    assert language(root).identity() == before


def test_a_file_that_code_of_ones_own_names_is_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "judge_by_table.py").write_text(
        "from pathlib import Path\n\n\ndef judge(answer):\n"
        "    return Path(__file__).with_name('table.json').read_text()\n"
    )
    for name in ("table.json", "notes.json"):
        (tmp_path / name).write_text("{}")
    before = own_code({"metric": "judge_by_table.judge"})
    assert set(before) == {"judge_by_table.py", "table.json"}
    (tmp_path / "notes.json").write_text("[]")
    assert own_code({"metric": "judge_by_table.judge"}) == before
    (tmp_path / "table.json").write_text("[]")
    assert own_code({"metric": "judge_by_table.judge"}) != before
