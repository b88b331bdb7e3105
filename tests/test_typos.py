"""A misspelt value is told before torch, transformers, lm-eval's tasks or data sets are loaded: these take long."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.lm_eval_files import TASKS, _mentioned, _shipped, _texts, check_task
from evohydra.scoring.benchmarks.lm_eval_options import TaskOptions
from tests.commands import environment

OF_LM_EVAL = "benchmark=lm_eval benchmark.lm_eval.task=gsm8k"
OF_TEXT = "benchmark=lm_eval benchmark.lm_eval.task=wikitext"
OF_TWO = "benchmark=gsm8k_ja_search benchmark.gsm8k_ja_search"
TYPOS = {
    "benchmark=lm_eval benchmark.lm_eval.task=gsm8kk": "unknown lm-eval task 'gsm8kk'; close to it are ['gsm8k'",
    "benchmark=lm_eval": "benchmark.lm_eval: expected a value for task, got none",
    f"{OF_LM_EVAL} benchmark.lm_eval.metric=exact_matchh": "metric 'exact_matchh' is none of ['exact_match']",
    f"{OF_LM_EVAL} benchmark.lm_eval.filter=strict": "filter 'strict' is none of ['strict-match'",
    f"{OF_LM_EVAL} benchmark.lm_eval.num_fewshot=-1": "benchmark.lm_eval.num_fewshot: expected a whole number",
    f"{OF_LM_EVAL} benchmark.lm_eval.data_files=/nowhere.jsonl": "data_files: no such file: /nowhere.jsonl",
    f"{OF_LM_EVAL} benchmark.lm_eval.include_path=/nowhere": "include_path: no such directory: /nowhere",
    f"{OF_TEXT} benchmark.lm_eval.metric=perplexity": "'perplexity' is none of ['bits_per_byte'",
    "benchmark.tiny_gsm_ja.metric=exact_matchh": "metric 'exact_matchh' is none of ['exact_match', 'number_match']",
    f"{OF_TWO}.splits.test.task=mgsm_jaa": "splits.test.task: unknown lm-eval task 'mgsm_jaa'",
    "benchmark=jp_lmeh benchmark.jp_lmeh.metric=scores": "metric 'scores' is none of ['acc', 'balanced_acc', 'score']",
    "benchmark.tiny_gsm_ja.splits.search.start=x": "tiny_gsm_ja.splits.search.start: expected a whole number",
    "benchmark=mgsm_ja benchmark.mgsm_ja.generation_kwargs={max_gen_toks:x}": "max_gen_toks: expected a whole number",
    "merge.parameter.genes.weight.low=x": "genes.weight.low: expected a number or null, got 'x'",
    "merge.parameter.genes.weight.high=-1": "gene 'weight': expected finite low < high",
    "merge=ties merge.parameter.genes.density.high=2": "gene 'density': expected values in [0, 1], got 2",
    "merge.parameter.genes.weight.default=x": "genes.weight.default: expected a finite number, got 'x'",
    "merge.parameter.options.scaling={low:0,high:x,default:1}": "genes.scaling.high: expected a number",
    "merge=dfs merge.dataflow.repeats=x": "merge.dataflow.repeats: expected a whole number",
    "start=[source]": "start: expected a list (sources, uniform or a stack of mergekit (.yaml) each) or null",
    "optimizer.batch=x": "optimizer.batch: expected a whole number",
    "fitness=subset fitness.examples=-1": "fitness.examples: expected a whole number of at least 1, got -1",
    "fitness=irt fitness.precision=x": "fitness.precision: expected a number",
    "fitness=likelihood fitness.scale=lg": "fitness.scale: expected log or probability, got 'lg'",
    "guard=[{benchmark:nope,at_least:0.1}]": "guard[0]: expected one of the benchmarks of this run",
    "guard=[{measure:truncatd}]": "guard[0].measure: expected one of truncated",
    "guard=[{benchmark:tiny_gsm_ja,at_least:sources}]": "guard[0].at_least: expected",
    "tracker.mode=offlinee": "tracker.mode: expected auto, online, offline or disabled, got 'offlinee'",
    "executor=processes executor.workers=x": "executor.workers: expected a whole number of at least 1 or auto",
}  # fmt: skip
HEAVY = ("torch", "transformers", "datasets", "pandas", "lm_eval.tasks", "scipy.stats")
ASKED = """
import json, sys
from evohydra.__main__ import main
from evohydra.assembly import composition
from evohydra.assembly.ahead import check_ahead

told = {}
for line in json.loads(sys.argv[1]):
    try:
        check_ahead(composition.composed(line.split()), line.split())
    except ValueError as error:
        told[line] = str(error)
sys.argv = ["evohydra", "tracker.mode=offlinee"]
try:
    main()
except SystemExit as ending:
    told["the command"] = str(ending.code)
told["loaded"] = [name for name in HEAVY if name in sys.modules]
print(json.dumps(told))
""".replace("HEAVY", repr(HEAVY))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is said of each typo by one process, and which libraries it had loaded in the end."""
    asked = [sys.executable, "-c", ASKED, json.dumps([*TYPOS])]
    place = tmp_path_factory.mktemp("typos")
    done = subprocess.run(asked, cwd=place, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not list(place.glob("outputs/*"))
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("line", TYPOS)
def test_a_typo_is_told(line: str, told: dict[str, str]) -> None:
    assert TYPOS[line] in told.get(line, "nothing")


def test_nothing_large_is_loaded_for_it(told: dict[str, str]) -> None:
    assert told["the command"].startswith("evohydra: tracker.mode: expected auto")
    assert told["loaded"] == []


def test_what_files_leave_open_is_left_to_lm_eval(tmp_path: Path) -> None:
    """Functions give numbers by names of their own, and a task that is a class says nothing in its yaml."""
    (tmp_path / "own.yaml").write_text("task: own\nmetric_list:\n  - metric: !function scoring.numbers\n")
    (tmp_path / "made.yaml").write_text("task: made\nclass: !function tasks.Made\n")
    (tmp_path / "tagged.yaml").write_text("include: common\ntask: tagged\nmetric_list:\n  - metric: acc\n")
    (tmp_path / "common").write_text(
        "tag:\n  - some_tag\nfilter_list:\n  - {name: kept, filter: [{function: take_first}]}\n"
    )
    (tmp_path / "data.txt").write_bytes(b"no_task\n" * 2**18)  # no part of a yaml, by its size
    with pytest.raises(BenchmarkError, match="key: unknown lm-eval task 'no_task'"):
        check_task("key", "where", "no_task", TaskOptions(include_path=str(tmp_path)))
    options = TaskOptions(metric="length", include_path=str(tmp_path))
    check_task("key", "where", "own", options)
    check_task("key", "where", "made", options)
    check_task("key", "where", "some_tag", options)
    with pytest.raises(BenchmarkError, match=r"where: metric 'length' is none of \['acc'\]"):
        check_task("key", "where", "tagged", options)
    with pytest.raises(BenchmarkError, match=r"where: filter 'none' is none of \['kept'\]"):
        check_task("key", "where", "tagged", TaskOptions(filter="none", include_path=str(tmp_path)))


@pytest.mark.slow
def test_no_task_of_lm_eval_is_taken_for_a_typo() -> None:
    from lm_eval.tasks import TaskManager

    texts = {**_texts(TASKS), **_shipped()}
    words = b"\n".join(texts.values())
    known = TaskManager(include_path=[TASKS]).all_tasks
    assert len(known) > 10_000
    assert [name for name in known if name.encode() not in words] == []
    assert [name for name in known[::200] if not _mentioned(name, texts)] == []
