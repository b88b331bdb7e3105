"""The example of docs/add_a_family.md, run from outside of the package exactly as the page prints it."""

import atexit
import functools
import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import evohydra
from evohydra.families import OpensSources, RunsModels, WritesCheckpoints
from tests import commands
from tests.commands import json_lines
from tests.warm import Warm

PAGE = (Path(evohydra.__file__).parent / "docs" / "add_a_family.md").read_text()
BLOCKS = {
    kind: re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) for kind in ("python", "yaml", "sh")
}
MORE = ("tracker=none", "report=false", "threads=1")


@functools.cache
def warm(root: Path) -> Warm:
    """What starts commands of a user who has the directory on the path of modules."""
    made = Warm(commands.environment(PYTHONPATH=f"{root}:{commands.REPOSITORY}"))
    atexit.register(made.close)
    return made


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the page's two files, after its first command."""
    root = tmp_path_factory.mktemp("outside")
    (root / "conf" / "experiment").mkdir(parents=True)
    (root / "points.py").write_text(BLOCKS["python"][0])
    (root / "conf" / "experiment" / "points.yaml").write_text(BLOCKS["yaml"][0])
    run(root, "points.py")
    return root


def ended(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python ARGUMENTS`, to its end."""
    if arguments[0] == "-m":
        return warm(root).run(arguments[1], list(arguments[2:]), root)
    return commands.python(*arguments, cwd=root, fresh=True, PYTHONPATH=warm(root).environment["PYTHONPATH"])


def run(root: Path, *arguments: str) -> str:
    """What a command prints that ends well."""
    done = ended(root, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def command(root: Path) -> list[str]:
    """The page's own."""
    (line,) = (line for line in BLOCKS["sh"][0].splitlines() if line.startswith("python -m evohydra "))
    return [word.strip('"') for word in line.replace("$PWD", str(root)).split()[1:]]


def test_the_page_has_one_file_and_one_yaml_and_names_every_member() -> None:
    assert [len(BLOCKS[kind]) for kind in ("python", "yaml", "sh")] == [1, 1, 2]
    table = PAGE[PAGE.index("| protocol |") : PAGE.index("`OneDirectory`")]
    for protocol in (OpensSources, RunsModels, WritesCheckpoints):
        members = {name for name in vars(protocol) if not name.startswith("_")} | set(protocol.__annotations__)
        assert members
        assert members <= set(re.findall(r"`(\w+)`", table)), protocol


@pytest.fixture(scope="module")
def printed(place: Path) -> str:
    """What the page's command prints; its run is in outputs/points."""
    return run(place, *command(place), *MORE, "executor=processes", "executor.workers=2")


def test_the_page_s_command_finds_a_better_network(place: Path, printed: str) -> None:
    out = place / "outputs" / "points"
    summary = json.loads((out / "summary.json").read_text())
    test = summary["test"]
    best = max(test["sources"][name]["score"] for name in ("left", "right"))
    assert test["winner"]["score"] > best  # by how much depends on the processor
    assert "winner" in printed
    winner = load_file(out / "winner" / "model.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in winner.items()} == {
        name: tuple(tensor.shape) for name, tensor in load_file(place / "left" / "model.safetensors").items()
    }
    lines = json_lines(out / "ledger.jsonl")
    assert len(lines) == 60
    run(place, *command(place), *MORE, "budget=66")
    assert json_lines(out / "ledger.jsonl")[:54] == lines[:54]  # the last generation was cut short


@pytest.mark.usefixtures("printed")
def test_its_recipe_is_rebuilt_where_its_code_is_allowed(place: Path) -> None:
    (line,) = BLOCKS["sh"][1].splitlines()
    words = line.split()[1:]
    refused = ended(place, *words[:-2])
    assert refused.returncode != 0
    assert "if you have read and trust the code of 'points', say --allow points" in refused.stderr + refused.stdout
    assert not (place / "again").exists()
    assert "identical, bit for bit" in run(place, *words)


def test_the_example_is_a_family_and_refuses_in_sentences(place: Path) -> None:
    (place / "broken").mkdir()
    save_file({"layers.0.weight": torch.ones(1)}, place / "broken" / "model.safetensors")
    (place / "broken" / "config.json").write_text('{"width": "wide"}')
    code = (
        "import points, torch; from pathlib import Path; from evohydra.families import Family, LiveModel; "
        "family = points.Points(); print(isinstance(family, Family)); "
        "live = family.live_model(Path('left'), torch.device('cpu'), torch.float32); print(sorted(live.parameters))"
    )
    printed = run(place, "-c", code)
    assert printed.splitlines() == ["True", str(sorted(load_file(place / "left" / "model.safetensors")))]
    for more, message in {
        "model.sources.right.path=broken": "expected width, a whole number, got 'wide'",
        "merge=dfs": "points: expected merge=METHOD, got a path through layers",
        "fitness=likelihood": "benchmark 'sides' has no likelihood of right answers",
    }.items():
        done = ended(place, *command(place)[:-1], *MORE, more, "run=other")
        assert done.returncode != 0
        assert message in done.stderr + done.stdout
