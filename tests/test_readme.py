"""Every command line that README and guide show composes, and every link leads somewhere."""

import re
import shlex
import unicodedata
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from evohydra.assembly import composition
from tests.tiny_models import save_source

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "evohydra" / "docs").glob("*.md"))]
FENCED = re.compile(r"^```\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^    (\S.*)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
RUN = ["python", "-m", "evohydra"]


def lines_of(page: Path) -> list[list[str]]:
    """The words of each line of its examples, of those that a shell would read."""
    text = page.read_text(encoding="utf-8")
    shown = [line for block in FENCED.findall(text) for line in block.splitlines()] + INDENTED.findall(text)
    return [words for line in shown if (words := words_of(line))]


def words_of(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # not for a shell
        return []


def is_search(words: list[str]) -> bool:
    return words[:3] == RUN and (len(words) < 4 or "=" in words[3] or words[3] == "-m")


LINES = lines_of(ROOT / "README.md")
COMMANDS = sorted({tuple(words[3:]) for page in PAGES for words in lines_of(page) if is_search(words)})


def test_there_are_commands_to_check():
    assert len([words for words in LINES if is_search(words)]) >= 7
    assert len(COMMANDS) >= 30


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_command_composes(arguments: tuple[str, ...], tmp_path: Path):
    composition.register()
    overrides = [argument for argument in arguments if argument != "-m"]
    if "-m" in arguments:  # one job of the sweep
        overrides = [argument.split(",")[0] for argument in overrides]
    for name in ("mine", "other"):
        save_source(tmp_path / "conf", name)
    overrides = [each.replace("/my/conf", str(tmp_path / "conf")) for each in overrides if each != "..."]
    if not any(each.startswith("hydra.searchpath=") for each in overrides):
        overrides.append(f"hydra.searchpath=[file://{tmp_path / 'conf'}]")
    with initialize_config_dir(composition.conf_dir(), version_base="1.3"):
        config = compose("config", overrides)
    assert config.model.sources
    assert config.merge.get("parameter") or config.merge.get("dataflow")


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


def test_every_page_of_the_guide_is_named_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES[2:] if f"evohydra/docs/{page.name}" not in text] == []
