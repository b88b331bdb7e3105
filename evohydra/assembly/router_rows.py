"""How rows of routers are made (merge=moe): the settings of the pass before the search."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from evohydra.assembly.merge_spaces import Located
from evohydra.checks import Count
from evohydra.files import Plain
from evohydra.hub.hashes import sha256_of
from evohydra.scoring.gathering.expert_states import Asking

OF_ROUTERS: Plain = {
    "prompts": Count, "directory": str | None, "over": Literal["last", "all"], "less_others": bool,
    "files": Mapping[str, str] | None,
}  # fmt: skip
NO_BASE = (
    "rows of routers are states of the base; expected sources with one (model.sources.NAME.base), got sources without"
)


def asking_of(settings: Plain, located: Located) -> Asking:
    """How rows of routers are made, as the `settings` of their pass say.

    ValueError without a base, and for files that are missing or of other sources.
    """
    if located.base is None:
        raise ValueError(f"merge=moe: {NO_BASE}")
    files = {name: Path(file) for name, file in (settings["files"] or {}).items()}
    names = [model.name for model in located.models]
    where = "merge.parameter.routers.statistics.files"
    if files and sorted(files) != sorted(names):
        raise ValueError(f"{where}: expected a file for each source ({', '.join(names)}), got {sorted(files)}")
    if lost := [str(file) for file in files.values() if not file.is_file()]:
        raise ValueError(f"{where}: expected files with a prompt on each line, got {lost[0]}, which is none")
    return Asking(located.base, settings["over"], settings["less_others"], files)


def by_content(asking: Asking) -> Plain:
    """What rows depend on beside sources and the benchmarks' texts, as JSON data."""
    prompts = {name: sha256_of(file) for name, file in asking.files.items()}
    return {"base": asking.base.fingerprint, "over": asking.over, "less_others": asking.less_others, "files": prompts}
