"""What `evohydra --help` says: lines and comments of the yaml files of conf/, which explain themselves."""

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from evohydra.assembly.composition import conf_dir

USAGE = """\
evohydra: evolutionary search for the best way to merge existing models.

  python -m evohydra                                           the embedded example
  python -m evohydra model=shisa+wizardmath optimizer=cmaes    sources are joined by +
  python -m evohydra -m optimizer=cmaes,de,random seed=1,2,3   compare search strategies
  python -m evohydra run=NAME                                  name a run, or go on with it
  python -m evohydra --help merge                              what can be chosen: any group below
  python -m evohydra --help merge=ties                         the options of one choice

Other commands, each with --help: {commands}

Groups, GROUP=CHOICE, with their defaults:
{groups}

Options, KEY=VALUE, with their defaults:
{options}

--cfg job shows the whole configuration of a command line, --hydra-help the options of Hydra itself."""
PACKAGE = "# @package"
SENTENCE = re.compile(r".*?\.(?=\s+[A-Z]|\s*$)")
WIDTH = 118


def usage(commands: Sequence[str]) -> str:
    """The page of `--help`: `commands` are the names of those beside a search."""
    lines = (Path(conf_dir()) / "config.yaml").read_text(encoding="utf-8").splitlines()
    chosen = lines[lines.index("defaults:") + 1 : lines.index("")]
    groups = [line.replace("- ", "", 1) for line in chosen if "_self_" not in line and "@" not in line]
    options = lines[lines.index("") + 1 : lines.index("hydra:")]
    told = ("\n".join(f"  {line.strip()}" for line in groups), "\n".join(f"  {line}".rstrip() for line in options))
    return USAGE.format(commands=", ".join(sorted(commands)), groups=told[0], options=told[1].rstrip())


def topic(asked: str, overrides: Sequence[str] = ()) -> str:
    """What can be chosen of the group `asked`, a line each; of `group=choice` its yaml, which says what its keys mean.

    Directories of `hydra.searchpath=[file://...]` among the `overrides` count. ValueError for what there is not.
    """
    group, _, choice = asked.partition("=")
    places = [Path(conf_dir()), *_search_paths(overrides)]
    files = {file.stem: file for place in places for file in sorted((place / group).glob("*.yaml"))}
    if not group.replace("_", "").isalpha() or not files:
        known = sorted(each.name for each in places[0].iterdir() if each.is_dir())
        raise ValueError(f"--help {asked}: expected one of {', '.join(known)}, alone or with =CHOICE")
    if not choice:
        width = max(map(len, files))
        left = WIDTH - len(group) - width - 3
        told = {name: textwrap.shorten(_purpose(file), left, placeholder=" ...") for name, file in files.items()}
        return "\n".join(f"{group}={name:<{width}}  {purpose}".rstrip() for name, purpose in told.items())
    if missing := [name for name in choice.split("+") if name not in files]:
        raise ValueError(f"--help {asked}: there is no {missing[0]}; known are {', '.join(files)}")
    return "\n".join(files[name].read_text(encoding="utf-8").rstrip() for name in choice.split("+"))


def _search_paths(overrides: Sequence[str]) -> list[Path]:
    given = [text.partition("=")[2] for text in overrides if text.startswith("hydra.searchpath=")]
    return [Path(place) for text in given for place in re.findall(r"file://([^,\]]+)", text)]


def _purpose(file: Path) -> str:
    """The first sentence of the first comment that has lines of its own."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith(PACKAGE)]
    first = next((number for number, line in enumerate(lines) if line.startswith("#")), None)
    if first is None:
        return ""
    last = next((number for number in range(first, len(lines)) if not lines[number].startswith("#")), len(lines))
    text = " ".join(line.removeprefix("#").strip() for line in lines[first:last])
    found = SENTENCE.match(text)
    return found.group() if found else text
