"""A misspelt value is told before torch, transformers, lm-eval's tasks or data sets are loaded: these take long."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evohydra.assembly.ahead import check_ahead
from evohydra.assembly.composition import composed
from evohydra.merging.signatures import signature_of
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.generation_settings import names_on_file
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
    "+benchmark.tiny_gsm_ja.generation_kwargs={max_gen_tokss:4}": "no such setting: max_gen_tokss; close to it are",
    "benchmark=tiny_vqa_ja benchmark.tiny_vqa_ja.generation_kwargs={num_beems:2}": "there is no num_beems, known are",
    "+merge.parameter.options.lambda=1": "task_arithmetic has no parameter ['lambda']; its parameters are",
    "merge=ties +merge.parameter.options.scalin=1": "ties has no parameter ['scalin']; its parameters are",
    "merge=ties merge.parameter.options.normalize=x": "normalize: expected true or false, got 'x'",
    "merge.parameter.method=tise": "merge method 'tise': there is none of that name, known are",
    "merge=ties merge.parameter.frozen={embeddings/wieght/*:0.5}": "frozen: no gene matches ['embeddings/wieght/*']",
    "merge=ties merge.parameter.frozen={layers.*/weight/*:x}": "frozen: gene 'layers.*/weight/*': expected a finite",
    "merge=ties merge.parameter.frozen={nothing/weight:1}": "frozen: no gene matches ['nothing/weight']",
    "merge=ties merge.parameter.frozen={*/density/*:2}": "gene '*/density/*': expected values in [0, 1], got 2",
    "merge.parameter.genes.weight.widest=[0.5,1]": "gene 'weight': widest: expected, for a real number, two numbers",
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
    "guard=[{measure:truncated,at_most:2}]": "guard[0].at_most: expected a share, from 0 to 1, such as 0.02, got 2",
    "guard=[{measure:mean_tokens,at_most:-1}]": "guard[0].at_most: expected a number of tokens, 0 or more, got -1",
    "guard=[{measure:distance,at_most:nan}]": "guard[0]: expected",
    "tracker.mode=offlinee": "tracker.mode: expected auto, online, offline or disabled, got 'offlinee'",
    "executor=processes executor.workers=x": "executor.workers: expected a whole number of at least 1 or auto",
}  # fmt: skip
COMMANDS = {
    "plan budget=abc": "evohydra: budget: expected a whole number of at least 1 or auto, got 'abc'",
    "plan workers=none": "evohydra: workers: expected a number from 1 on, got 'none'",
    "plan gpu=abacus": "evohydra: gpu: expected one of l4",
    "plan optimizer=foo": "evohydra: unknown optimizer foo. Known: bipop, bo,",
    "evaluate tinyja": "evaluate: tinyja: expected a directory, a file",
    "evaluate tiny_ja benchmark=tiny_gsm_jaa": "evaluate: unknown benchmark tiny_gsm_jaa",
    "evaluate tiny_ja split=tst": "evaluate: split: expected one of search, validation, test, got 'tst'",
    "evaluate tiny_ja budget=3": "evaluate: budget: expected an option for one model that is scored",
    "evaluate tiny_ja batch_size=abc": "evaluate: batch_size: expected a whole number of at least 1 or auto, got 'abc'",
    "evaluate tiny_ja dtype=int8": "evaluate: dtype: expected auto, float32, bfloat16 or float16, got 'int8'",
    "merge missing.json out": "rebuild: missing.json: no such file; expected recipe.json",
    "merge missing.json out --source abc": "rebuild: --source: expected NAME=PATH, got 'abc'",
    "merge missing.json out --device tpu": "rebuild: device: expected one of cpu, cuda, mps, xpu, got 'tpu'",
    "replay outputs/none": "replay: expected the directory of a run, got ",
    "convert missing out": "convert: missing: no such file or directory; a model of the hub is called owner/name",
    "report outputs/none": "no such directory: outputs/none",
}
HEAVY = ("torch", "transformers", "datasets", "pandas", "lm_eval.tasks", "scipy.stats")
ASKED = """
import contextlib, io, json, sys
from evohydra.__main__ import main
from evohydra.assembly import composition
from evohydra.assembly.ahead import check_ahead

told, of_runs, of_commands = {}, *map(json.loads, sys.argv[1:])
for line in of_runs:
    try:
        check_ahead(composition.composed(line.split()), line.split())
    except ValueError as error:
        told[line] = str(error)
for line in ["tracker.mode=offlinee", *of_commands]:
    said = io.StringIO()
    sys.argv = ["evohydra", *line.split()]
    try:
        with contextlib.redirect_stderr(said):
            main()
    except SystemExit as ending:
        told[line] = said.getvalue() + str(ending.code)
told["loaded"] = [name for name in HEAVY if name in sys.modules]
print(json.dumps(told))
""".replace("HEAVY", repr(HEAVY))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is said of each typo by one process, and which libraries it had loaded in the end."""
    asked = [sys.executable, "-c", ASKED, json.dumps([*TYPOS]), json.dumps([*COMMANDS])]
    place = tmp_path_factory.mktemp("typos")
    done = subprocess.run(asked, cwd=place, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not list(place.glob("outputs/*"))
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("line", TYPOS)
def test_a_typo_is_told(line: str, told: dict[str, str]) -> None:
    assert TYPOS[line] in told.get(line, "nothing")


@pytest.mark.parametrize("line", COMMANDS)
def test_a_typo_of_another_command_is_told(line: str, told: dict[str, str]) -> None:
    assert COMMANDS[line] in told.get(line, "nothing")


def test_nothing_large_is_loaded_for_it(told: dict[str, str]) -> None:
    assert told["tracker.mode=offlinee"].startswith("evohydra: tracker.mode: expected auto")
    assert told["loaded"] == []


@pytest.mark.parametrize("name", ["tiny_vqa_ja", "ja_vg_vqa_search"])
def test_a_setting_of_generation_is_told_for_questions_about_images_too(name: str) -> None:
    line = [f"benchmark={name}", f"+benchmark.{name}.generation_kwargs.num_beems=2"]
    with pytest.raises(ValueError, match=r"generation_kwargs: there is no such setting: num_beems; close to it are"):
        check_ahead(composed(line), line)


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


def test_files_say_what_libraries_take() -> None:
    """What is read from files without loading them is what they are when they are loaded."""
    from transformers import GenerationConfig

    from evohydra.merging.methods import known_methods, resolve

    assert names_on_file() == {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    for name in known_methods():
        method, on_file = resolve(name), signature_of(name)
        assert on_file is not None
        assert (method.parameters, method.required) == (on_file.parameters, on_file.required)
        assert (method.per_model, method.kinds) == (on_file.per_model, on_file.kinds)
    said = []
    for read in (signature_of, resolve):
        with pytest.raises(ValueError, match="there is none of that name") as caught:
            read("nonesuch")
        said.append(str(caught.value))
    assert said[0] == said[1]


@pytest.mark.slow
def test_no_task_of_lm_eval_is_taken_for_a_typo() -> None:
    from lm_eval.tasks import TaskManager

    texts = {**_texts(TASKS), **_shipped()}
    words = b"\n".join(texts.values())
    known = TaskManager(include_path=[TASKS]).all_tasks
    assert len(known) > 10_000
    assert [name for name in known if name.encode() not in words] == []
    assert [name for name in known[::200] if not _mentioned(name, texts)] == []
