"""What lm-eval's files say of a task, read without lm-eval, which takes ten seconds: so that a typo is told at once.

Where they leave something open, nothing is said here: lm-eval itself says it later.
"""

import difflib
import functools
import importlib.util
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import yaml

from evohydra.files import Plain
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.lm_eval_options import TaskOptions

TASKS = Path(__file__).parent / "tasks"
NOT_YAML = {".py", ".pyc", ".md", ".sh", ".json", ".jsonl", ".parquet"}  # files without a suffix are included by others
NAMED = re.compile(rb"^(?:task|group|tag):[ \t]*['\"]?([^\s'\"#\[]+)", re.MULTILINE)
MOST = 2**20  # bytes of a file that others include
FUNCTION = object()  # the value of a key that is a function
Texts = Mapping[Path, bytes]


class _Loader(yaml.SafeLoader):
    """Reads a task's yaml, in which functions are not looked at."""


_Loader.add_constructor("!function", lambda loader, node: FUNCTION)


def check_task(key: str, where: str, task: str, options: TaskOptions) -> None:
    """BenchmarkError where there is no such task, or it lacks the metric or the filter of the options.

    key: the setting that names the task; where: the benchmark and its split, for messages.
    """
    include = Path(options.include_path) if options.include_path else None
    own = {**_texts(TASKS), **(_texts(include) if include else {})}
    texts: Texts = own if _mentioned(task, own) else {**own, **_shipped()}
    if texts is not own and not _mentioned(task, texts):
        close = difflib.get_close_matches(task, _names(texts), n=8, cutoff=0.5)
        raise BenchmarkError(
            f"{key}: unknown lm-eval task {task!r}; close to it are {close}, evohydra's own are {_names(own)}, and "
            "`lm-eval ls tasks` lists those of lm-eval"
        )
    for found in _settings(task, texts):
        metrics, filters = _metrics(found), _filters(found)
        wanted = options.metric or (metrics[0] if metrics and len(metrics) == 1 else None)
        if metrics is not None and wanted not in metrics:
            raise BenchmarkError(f"{where}: metric {wanted!r} is none of {metrics}")
        if filters is not None and options.filter not in (None, *filters):
            raise BenchmarkError(f"{where}: filter {options.filter!r} is none of {filters}")


def check_data(data_files: str | Mapping[str, str] | None, data_dir: str | None, include_path: str | None) -> None:
    """BenchmarkError for files and directories of the user that are not there."""
    for file in [data_files] if isinstance(data_files, str) else (data_files or {}).values():
        if not Path(file).is_file():
            raise BenchmarkError(f"data_files: no such file: {file}")
    for key, directory in (("data_dir", data_dir), ("include_path", include_path)):
        if directory is not None and not Path(directory).is_dir():
            raise BenchmarkError(f"{key}: no such directory: {directory}")


def _texts(directory: Path) -> dict[Path, bytes]:
    """Everything below it that may be part of a task's yaml; data may lie there too, and are not read."""
    found = {}
    for file in sorted(directory.rglob("*")):
        with suppress(OSError):  # lm-eval leaves such files out, too
            small = file.suffix == ".yaml" or (file.suffix not in NOT_YAML and file.stat().st_size <= MOST)
            if small and file.is_file():
                found[file] = file.read_bytes()
    return found


@functools.cache
def _shipped() -> Texts:
    """The files of the tasks that come with lm-eval."""
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None
    assert spec.origin is not None
    return _texts(Path(spec.origin).parent / "tasks")


def _mentioned(task: str, texts: Texts) -> bool:
    """Whether a file has this word: a task of a name that is in none of them does not exist."""
    word = re.compile(rb"(?<![\w-])" + re.escape(task.encode()) + rb"(?![\w-])")
    return any(task.encode() in text and word.search(text) for text in texts.values())


def _names(texts: Texts) -> list[str]:
    return sorted({name.decode(errors="replace") for text in texts.values() for name in NAMED.findall(text)})


def _settings(name: str, texts: Texts, above: tuple[str, ...] = ()) -> Iterator[Plain]:
    """What yamls say of a task, or of those of a group, where it is clear which ones they are."""
    line = re.compile(rb"^(?:task|group):[ \t]*['\"]?" + re.escape(name.encode()) + rb"['\"]?[ \t\r]*(?:#.*)?$", re.M)
    files = [file for file, text in texts.items() if name.encode() in text and line.search(text)]
    found = _read(files[0]) if len(files) == 1 and name not in above else None
    if found is None or "class" in found:
        return
    if "group" not in found:
        yield found
        return
    for member in found["task"] if isinstance(found.get("task"), list) else ():
        if isinstance(member, str):
            yield from _settings(member, texts, (*above, name))


def _read(file: Path, above: tuple[Path, ...] = ()) -> Plain | None:
    """A yaml with those that it includes; None for one that cannot be read."""
    try:
        found = yaml.load(file.read_bytes(), Loader=_Loader)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    if not isinstance(found, dict) or file in above:
        return None
    included = found.pop("include", [])
    merged: dict[str, object] = {}
    for each in included if isinstance(included, list) else [included]:
        inside = _read(file.parent / str(each), (*above, file))
        if inside is None:
            return None
        merged.update(inside)
    return {**merged, **found}


def _metrics(settings: Plain) -> list[str] | None:
    """The metrics of a task; None where lm-eval alone knows them: functions may give any number by name."""
    from lm_eval.api import metrics  # noqa: F401  makes them known
    from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY, METRIC_REGISTRY

    given = settings.get("metric_list")
    if given is None:
        usual = DEFAULT_METRIC_REGISTRY.get(settings.get("output_type", "generate_until"))
        return sorted(usual) if usual else None
    entries = [each.get("metric") if isinstance(each, Mapping) else None for each in given]
    if not all(isinstance(each, str) for each in entries):
        return None
    known = sorted({str(each) for each in entries})
    return known if settings.get("process_results") or all(each in METRIC_REGISTRY for each in known) else None


def _filters(settings: Plain) -> list[str] | None:
    """The filters of a task."""
    given = settings.get("filter_list")
    if given is None:
        return ["none"]
    names = [each.get("name") if isinstance(each, Mapping) else None for each in given]
    return [str(each) for each in names] if all(isinstance(each, str) for each in names) else None
