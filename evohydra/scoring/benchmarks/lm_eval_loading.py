"""Finding lm-eval's tasks by name, and their data, on the hub or in local files."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager

from evohydra.files import Plain
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.hub_data import as_they_are_now, check_commit, why_unread
from evohydra.scoring.benchmarks.lm_eval_files import TASKS, check_data
from evohydra.scoring.benchmarks.private_lm_eval import Kind, compile_templates_once

Member = Plain  # {task: a name, or the members of a group that is written out}, with settings of its own
SPLIT_KEYS = ("training_split", "validation_split", "test_split", "fewshot_split")
LOCAL = (
    "local JSON, JSON-lines or parquet files with the same columns, for example "
    "benchmark.<name>.data_files=/data/test.jsonl (for one split: benchmark.<name>.splits.test.data_files), or a copy "
    "of the data set's repository: benchmark.<name>.data_dir=/data/NAME"
)
OF_GROUPS = ("task", "group", "group_alias", "aggregate_metric_list", "tag", "metadata")  # not handed to their members
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """The leaf tasks of a name; by_size: they are a group whose score lm-eval weights by their numbers of examples."""

    tasks: Mapping[str, Task]
    by_size: bool


def load_tasks(
    task: str, data_files: str | Mapping[str, str] | None, data_dir: str | None, include_path: str | None
) -> Loaded:
    """The leaf tasks of `task`; BenchmarkError where there is no such task, or its data cannot be had."""
    check_data(data_files, data_dir, include_path)
    compile_templates_once()
    include = [TASKS, *([Path(include_path).resolve()] if include_path else [])]
    manager = TaskManager(include_path=include, include_defaults=False)
    if task not in manager.task_index:
        logger.info("reading lm-eval's own tasks to find %r; this takes a while", task)
        manager = TaskManager(include_path=include, include_defaults=True)
        if task not in manager.task_index:
            raise BenchmarkError(f"unknown lm-eval task {task!r}; lm-eval ls tasks lists those that there are")
    entry = manager.task_index[task]
    overrides = _local_data(data_files, entry.cfg, entry.yaml_path)
    if data_dir is not None:
        overrides |= {"dataset_path": str(Path(data_dir).resolve()), "custom_dataset": None}
        given = (entry.cfg or {}).get("dataset_kwargs") or {}  # the files that it names are those of another place
        overrides["dataset_kwargs"] = {key: value for key, value in given.items() if key != "data_files"} or None
    members = _members(manager, {"task": task, **overrides})
    try:
        with as_they_are_now(*(_data_set(manager, member) for member in members)):
            loaded = manager.load([{"group": "evohydra", "task": members}])
    except Exception as error:  # of the libraries that read and fetch data, each with kinds of its own
        if isinstance(error, KeyError) and error.args == (None,):  # lm-eval's search for the name of an aggregation
            raise BenchmarkError(
                f"lm-eval task {task!r}: a metric of its metric_list that lm-eval does not know says neither "
                "aggregation (aggregation: mean) nor higher_is_better (true or false)"
            ) from error
        if isinstance(error, KeyError) and isinstance(data_files, Mapping):
            raise BenchmarkError(
                f"data_files: lm-eval task {task!r} reads the split {error}, and there are files for "
                f"{sorted(data_files)} alone; give one for it too"
            ) from error
        given = data_files or data_dir or (entry.cfg or {}).get("dataset_path")
        what = f"the data set {given}" if given else "its data set"
        raise BenchmarkError(f"lm-eval task {task!r}: {why_unread(what, error, LOCAL)}") from error
    for name, found in loaded["tasks"].items():
        revision = (found.get_config("dataset_kwargs") or {}).get("revision")
        check_commit(name, found.get_config("dataset_path"), revision, (getattr(found, "dataset", None) or {}).values())
    return Loaded(dict(loaded["tasks"]), _weighted_by_size(manager, {"task": task}))


def _members(manager: TaskManager, member: Member, above: tuple[str, ...] = ()) -> list[dict[str, object]]:
    """What `member`, {task: name or list, ...}, means as tasks alone: lm-eval would rename all tasks of a group or tag.

    `above` are the groups that it is in; BenchmarkError where it is one of them.
    """
    name = _name(member)
    if name in above:
        raise BenchmarkError(f"lm-eval group {name!r} is a member of itself: {' > '.join((*above, name))}")
    inside, _ = _inside(manager, member)
    if not inside:
        entry = manager.task_index.get(name)
        return [{**(_local_data(None, entry.cfg, entry.yaml_path) if entry is not None else {}), **member}]
    common = {key: value for key, value in member.items() if key not in OF_GROUPS}
    return [task for each in inside for task in _members(manager, {**each, **common}, (*above, name))]


def _data_set(manager: TaskManager, member: Mapping[str, object]) -> object:
    """Where a task has its data from: the hub, a kind of files, or a directory on this machine."""
    entry = manager.task_index.get(str(member["task"]))
    return member.get("dataset_path") or ((entry.cfg or {}).get("dataset_path") if entry else None)


def _weighted_by_size(manager: TaskManager, member: Member) -> bool:
    """Whether lm-eval weights the tasks of a group, or of one inside it, by their numbers of examples."""
    inside, rules = _inside(manager, member)
    given = rules if isinstance(rules, list) else [rules] if rules else []
    own = any(not isinstance(each, Mapping) or each.get("weight_by_size", True) for each in given)
    return bool(inside) and (own or any(_weighted_by_size(manager, each) for each in inside))


def _name(member: Member) -> str:
    return str(member["task"] if isinstance(member["task"], str) else member.get("group", "a group without a name"))


def _inside(manager: TaskManager, member: Member) -> tuple[list[Member], object]:
    """The members of a group or tag, none of a task, and how lm-eval makes one score of a group's."""
    rules = None
    if not isinstance(member["task"], str):  # a group that is written out where it is named
        found, rules = member["task"], member.get("aggregate_metric_list")
    else:
        entry = manager.task_index.get(member["task"])
        found = ()
        if entry is not None and entry.kind is Kind.TAG:
            found = sorted(entry.tags)
        elif entry is not None and entry.kind is Kind.GROUP:
            found, rules = (entry.cfg or {}).get("task") or (), (entry.cfg or {}).get("aggregate_metric_list")
    return [{"task": each} if isinstance(each, str) else each for each in found], rules


def _local_data(
    data_files: str | Mapping[str, str] | None, config: Plain | None, yaml: Path | None
) -> dict[str, object]:
    """Overrides that make the task read local files: those given, or those that lie beside its yaml."""
    if data_files is None:
        given = (config or {}).get("dataset_kwargs") or {}
        if yaml is None or not given.get("data_files"):
            return {}
        return {"dataset_kwargs": {**given, "data_files": _beside(yaml.parent, given["data_files"])}}
    files = dict(data_files) if isinstance(data_files, Mapping) else _every_split(data_files, config)
    absolute = {split: str(Path(file).resolve()) for split, file in files.items()}
    kind = "parquet" if all(file.endswith(".parquet") for file in absolute.values()) else "json"
    absent = _without_file(files, config)
    return {"dataset_path": kind, "dataset_name": None, "dataset_kwargs": {"data_files": absolute}, **absent}


def _without_file(files: Collection[str], config: Plain | None) -> dict[str, None]:
    """Overrides that take splits without a file from the task; BenchmarkError where it has then nothing to score."""
    named = {key: split for key in SPLIT_KEYS if isinstance(split := (config or {}).get(key), str)}
    scored = [named[key] for key in ("test_split", "validation_split") if key in named]
    if named and scored and not set(scored) & set(files):
        raise BenchmarkError(
            f"data_files: expected a file for {' or '.join(scored)}, by which the task is scored, got {sorted(files)}"
        )
    return {key: None for key, split in named.items() if split.partition("[")[0] not in files}


def _beside(directory: Path, files: object) -> object:
    """The files of a task's yaml, in any form that datasets takes, where relative ones lie in its `directory`."""
    if isinstance(files, Mapping):
        return {split: _beside(directory, each) for split, each in files.items()}
    if isinstance(files, list | tuple):
        return [_beside(directory, each) for each in files]
    return files if "://" in str(files) else str(directory / str(files))


def _every_split(file: str, config: Plain | None) -> dict[str, str]:
    return {split: file for key in SPLIT_KEYS if (split := (config or {}).get(key))} or {"test": file}


def unequal(name: str, sizes: Mapping[str, int]) -> str | None:
    """That tasks of a group count the same here, where lm-eval weights them; None where that is no difference."""
    if len(set(sizes.values())) < 2:
        return None
    weights = ", ".join(f"{each}: {size / sum(sizes.values()):.4g}" for each, size in sizes.items())
    return (
        f"benchmark {name!r}: its {len(sizes)} tasks count the same in the search and in the winner's score. lm-eval "
        f"weights the tasks of this group by their numbers of examples; for that give objective=weighted and "
        f"'objective.weights={{{weights}}}'"
    )
