"""What code of one's own reads belongs to what scores depend on."""

from pathlib import Path

import pytest

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


def test_a_file_that_the_code_of_a_task_reads_changes_its_identity(tmp_path: Path) -> None:
    root = tiny_models.save_task(tmp_path / "data")
    (root / "bonus.json").write_text("{}")
    (root / "notes.json").write_text("{}")
    code = (root / "scoring.py").read_text()
    reading = "from pathlib import Path\n\nBONUS = (Path(__file__).parent / 'bonus.json').read_text()\n"
    (root / "scoring.py").write_text(reading + code)
    before = language(root).identity()
    (root / "notes.json").write_text("[]")
    assert language(root).identity() == before
    (root / "bonus.json").write_text("[]")
    after = language(root).identity()
    assert after != before
    assert set(after["splits"]["test"]["code"]) == {"bonus.json", "scoring.py"}
