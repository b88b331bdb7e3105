"""The shape of the package: imports go one way, few modules know Hydra, and modules are short and documented."""

import ast
import graphlib
from pathlib import Path

import pytest

import evohydra

PACKAGE = Path(evohydra.__file__).parent
HYDRA = {"hydra", "omegaconf"}
MAY_KNOW_HYDRA = {
    "evohydra.__main__",
    "evohydra.assembly.parts",
    "evohydra.assembly.composition",
    "evohydra.report.sweep_callback",
}
# From the bottom up: a module imports from its own level and from those below it. Every package and every module of
# the root stands here. CONTRIBUTING says what each holds.
LEVELS = (
    ("recipe", "files", "checks", "pages"),
    ("hub",),
    ("merging",),
    ("spaces",),
    ("families",),
    ("scoring", "mergekit"),
    ("searching",),
    ("report", "trackers", "audit"),
    ("winner",),
    ("run", "rebuild", "convert", "extract_lora", "planning"),
    ("assembly",),
    ("evaluation", "library", "plan"),
    ("__main__", "replay"),
)
ASIDE = {"evohydra", "evohydra.zoo"}  # the package itself, and the scripts that made the models that come along
LEVEL = {f"evohydra.{name}": level for level, names in enumerate(LEVELS) for name in names}


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# The files of tasks are lm-eval's, which runs them as scripts of their own.
FILES = {module_name(file): file for file in sorted(PACKAGE.rglob("*.py")) if "tasks" not in file.parts}


def imported(file: Path) -> set[str]:
    """The modules that `file` imports anywhere, in functions too; of our own packages the deepest that is named."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                found.add(inside if inside in FILES else str(node.module))
    return found


IMPORTS = {name: imported(file) for name, file in FILES.items()}


def level(module: str) -> int | None:
    return next((LEVEL[at] for at in LEVEL if module == at or module.startswith(f"{at}.")), None)


def test_every_package_and_module_of_the_root_has_its_level() -> None:
    assert {name for name in FILES if name.count(".") <= 1} == set(LEVEL) | ASIDE
    assert IMPORTS["evohydra.run"] >= {"evohydra.searching.driver", "evohydra.searching.ledger", "rich.console"}


def test_imports_go_one_way() -> None:
    upwards = [
        f"{module} imports {other}"
        for module, others in IMPORTS.items()
        for other in others
        if (here := level(module)) is not None and (there := level(other)) is not None and there > here
    ]
    assert not upwards


def test_kinds_of_fitness_know_nothing_that_scores_or_writes() -> None:
    """They yield what they want scored, and the search loop carries it out."""
    kinds = [name for name in FILES if name.startswith("evohydra.searching.fitness")]
    assert len(kinds) > 8
    search = tuple(f"evohydra.searching.{name}" for name in ("scheduler", "rounds", "scores", "driver"))
    scoring = (*search, "evohydra.scoring.worker", "evohydra.scoring.executors")
    assert [(name, other) for name in kinds for other in IMPORTS[name] if other.startswith(scoring)] == []
    assert [name for name in kinds if "Ledger" in FILES[name].read_text()] == []


def test_no_modules_import_each_other() -> None:
    """Over the whole package, also imports that are made late or for types alone."""
    graph = {module: sorted(others & set(FILES)) for module, others in IMPORTS.items()}
    try:
        list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail(f"a cycle of imports: {error.args[1]}")


def test_hydra_is_known_at_the_edge_only() -> None:
    knowing = {module for module, others in IMPORTS.items() if HYDRA & {other.split(".")[0] for other in others}}
    assert knowing == MAY_KNOW_HYDRA


def test_only_families_and_benchmarks_know_transformers() -> None:
    knowing = {module for module, others in IMPORTS.items() if "transformers" in {o.split(".")[0] for o in others}}
    outside = {
        module for module in knowing if not module.startswith(("evohydra.families", "evohydra.scoring.benchmarks"))
    }
    made = (
        "train",
        "train_loras",
        "train_vlm",
        "train_sdxl",
        "train_topics",
        "train_wordings",
        "digit_tokenizer",
    )  # what made the tiny models
    assert outside <= {f"evohydra.zoo.{name}" for name in made}


@pytest.mark.parametrize("module", FILES)
def test_modules_are_short_and_say_what_they_hold(module: str) -> None:
    text = FILES[module].read_text()
    assert len(text.splitlines()) < 330
    assert (ast.get_docstring(ast.parse(text)) or "").strip()


def test_tests_say_what_they_test() -> None:
    for file in Path(__file__).parent.rglob("*.py"):
        text = file.read_text()
        assert not text or ast.get_docstring(ast.parse(text)), file
