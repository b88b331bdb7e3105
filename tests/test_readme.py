"""Every command that README and guide show is one that exists and composes, and every link leads somewhere."""

import importlib.util
import re
import shlex
import textwrap
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from evohydra.__main__ import COMMANDS as BESIDE_A_SEARCH
from evohydra.assembly import composition
from evohydra.assembly.automatic import with_benchmark
from evohydra.assembly.settings import Settings
from tests.tiny_models import save_source

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "evohydra" / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(GUIDE.glob("*.md"))]
BLOCK = re.compile(r"^```(?:sh)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^    (\S.*)$", re.MULTILINE)
SPAN = re.compile(r"`(python -m [^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
RUN = ["python", "-m", "evohydra"]
OF_THE_READER = ("KEY=VALUE", "merge=mine")  # what stands for options of the reader's own
OF_INDEXES = re.compile(r"pip install [^`\n]*evohydra\[")


def lines_of(page: Path) -> list[list[str]]:
    """The words of each line of its examples, and of each command inside of a sentence, that a shell would read."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    shown = [line for block in BLOCK.findall(text) for line in block.splitlines()]
    return [words for line in [*shown, *INDENTED.findall(text), *SPAN.findall(text)] if (words := words_of(line))]


def words_of(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # not for a shell
        return []


def is_search(words: list[str]) -> bool:
    return words[:3] == RUN and (len(words) < 4 or "=" in words[3] or words[3] in ("-m", "..."))


def is_complete(words: list[str]) -> bool:
    return not any(
        (word.partition("=")[2] == "NAME" and word != "run=NAME") or word in OF_THE_READER or "$PWD" in word
        for word in words
    )


LINES = lines_of(ROOT / "README.md")
SHOWN = [words for page in PAGES for words in lines_of(page)]
COMMANDS = sorted({tuple(words[3:]) for words in SHOWN if is_search(words) and is_complete(words)})
MODULES = sorted({tuple(words[2:]) for words in SHOWN if words[:2] == RUN[:2] and not is_search(words)})


def test_there_are_commands_to_check():
    assert len([words for words in LINES if is_search(words)]) >= 7
    assert len(COMMANDS) >= 60
    assert len(MODULES) >= 40


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of configuration with the two models that the pages call mine and other, and their task."""
    root = tmp_path_factory.mktemp("conf")
    page = (GUIDE / "your_models.md").read_text(encoding="utf-8")
    task = next(part for part in page.split("\n\n") if part.startswith("    task: problems"))
    (root / "tasks").mkdir()
    (root / "tasks" / "problems.yaml").write_text(textwrap.dedent(task))
    for name in ("mine", "other"):
        save_source(root, name)
    return root


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_command_composes_and_passes_what_is_checked_before_anything_is_loaded(
    arguments: tuple[str, ...], conf: Path
) -> None:
    composition.register()
    overrides = [argument for argument in arguments if argument not in ("-m", "...")]
    if "-m" in arguments:  # one job of the sweep
        overrides = [each if "=[" in each else each.split(",")[0] for each in overrides]
    for place, here in (("/my/conf", conf), ("/my/tasks", conf / "tasks"), ("/data/MMMU", conf)):
        overrides = [each.replace(place, str(here)) for each in overrides]
    if not any(each.startswith("hydra.searchpath=") for each in overrides):
        overrides.append(f"hydra.searchpath=[file://{conf}]")
    with initialize_config_dir(composition.conf_dir(), version_base="1.3"):
        config = compose("config", overrides)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    assert plain["model"]["sources"]
    assert plain["merge"].get("parameter") or plain["merge"].get("dataflow")
    if "..." in arguments:  # not the whole command
        Settings.check_types(plain, overrides)
    else:
        Settings.parse(with_benchmark(plain, overrides)[0])


@pytest.mark.parametrize("words", MODULES, ids=" ".join)
def test_a_module_that_is_run_exists_and_has_the_flags_that_are_given(words: tuple[str, ...]) -> None:
    module, *arguments = words
    if module == "evohydra" and arguments[0].startswith("--"):
        return  # Hydra's own flags
    starts = "__main__"
    if module == "evohydra":
        assert arguments[0] in BESIDE_A_SEARCH
        module, starts = BESIDE_A_SEARCH[arguments[0]], "def main("
    found = importlib.util.find_spec(module)
    if found is not None and found.submodule_search_locations:
        found, starts = importlib.util.find_spec(f"{module}.__main__"), ""
    assert found is not None, module
    assert found.origin is not None, module
    source = Path(found.origin).read_text(encoding="utf-8")
    assert starts in source
    for flag in (each for each in arguments if each.startswith("--") and len(each) > 2):
        assert f'"{flag}"' in source, f"{module} has no {flag}"


def test_nothing_says_that_evohydra_is_on_an_index() -> None:
    said = [*PAGES, *(ROOT / "evohydra").rglob("*.py"), *(ROOT / "conf").rglob("*.yaml")]
    assert [str(file) for file in said if OF_INDEXES.search(file.read_text(encoding="utf-8"))] == []


def test_the_newcomers_commands_are_those_of_ci():
    script = (ROOT / ".ci" / "run").read_text()
    newcomer = [" ".join(line) for line in LINES if line[:2] == ["pip", "install"] and "&&" in line]
    assert len(newcomer) == 2
    for command in newcomer:
        install, run = (part.strip() for part in command.split("&&"))
        assert install.replace(".[test]", "'.[test]'") in script
        assert re.search(rf"^{re.escape(run)}\b", script, re.MULTILINE)


def anchor(heading: str) -> str:
    """What a heading is called in a link, as on GitHub."""
    kept = (c for c in heading.lower() if c in " -_" or unicodedata.category(c)[0] in "LN")
    return "".join(kept).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, place = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{page.name}: {link}"
        if place:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert place in {anchor(heading) for heading in headings}, f"{page.name}: {link}"


def test_every_page_is_named_in_the_guide_and_the_guide_in_the_readme() -> None:
    index = (GUIDE / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in GUIDE.glob("*.md") if f"]({page.name})" not in index] == ["README.md"]
    assert "](evohydra/docs/README.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_an_empty_line_ends_each_table(page: Path) -> None:
    """Without one the text below would be a row of it."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    pairs = zip(text.splitlines(), text.splitlines()[1:], strict=False)
    assert [below for row, below in pairs if row.startswith("|") and below and not below.startswith("|")] == []
