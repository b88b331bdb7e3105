"""Settings that cannot work: each is refused before any evaluation, with what was expected and what came."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.searching.ledger import LedgerError
from evohydra.spaces.gene_spec import parse_spec
from evohydra.spaces.genes import integer
from tests.commands import built, carried_out, evohydra, json_lines, workspace
from tests.tiny_models import save_model


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, task and conf/ that every test of this file reads and none changes."""
    root = tmp_path_factory.mktemp("workspace")
    (root / "arguments.json").write_text(json.dumps([*workspace(root), "baselines=null", "budget=6", "top=1"]))
    (root / "conf" / "benchmark").mkdir()
    (root / "conf" / "benchmark" / "fussy.yaml").write_text(
        "# @package benchmark.fussy\n_target_: tests.fakes.fussy\n_partial_: true\nfamilies: [causal_lm]\nrefuses: ''\n"
    )
    return root


@pytest.fixture
def arguments(root: Path) -> list[str]:
    given: list[str] = json.loads((root / "arguments.json").read_text())
    return given


def without(arguments: Iterable[str], *parts: str) -> list[str]:
    return [each for each in arguments if not any(part in each for part in parts)]


def refused(arguments: list[str], directory: Path, expected: str, kind: type[Exception] = ValueError) -> None:
    """Building the parts fails with `expected` in the message, and leaves nothing behind."""
    with pytest.raises(kind, match=expected):
        built(arguments, directory)
    assert not directory.exists()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("device=tpu", r"device: expected auto, cpu or cuda, got 'tpu'"),
        ("dtype=float8", r"dtype: expected auto, float32, bfloat16 or float16, got 'float8'"),
        ("merge.parameter.frozen={nothing/*: 0.5}", r"no gene matches \['nothing/\*'\]; genes are embeddings/weight"),
        ("merge.parameter.genes.weight.high=-1", r"gene 'weight': expected finite low < high"),
        (
            "~merge.parameter.genes.weight.default",
            r"genes.weight: expected values for per and default, got none for default",
        ),
        (
            "merge.parameter.options.scaling={choices: [1, 2]}",
            r"genes.scaling: expected values for per and default, got none for default",
        ),
        ("merge.parameter.genes.weight.uniform=abc", r"genes.weight.uniform: expected a number.*share.*, got 'abc'"),
        ("+baselines.mine={density: 1}", r"baselines.mine: expected _target_, which says what it is, got .*density"),
        ("model.sources.one.family=abc", r"sources of different families cannot be merged: {'one': 'abc'"),
        ("+merge.parameter.genes.weight.hihg=1", r"genes.weight.hihg: there is no such setting; known are .*'high'"),
        ("+merge.parameter.options.lambda=1", r"no parameter \['lambda'\]; its parameters are .*'scaling'"),
        ("merge.parameter.granularity.layers=9", r"granularity.layers: 9 blocks, but the model has 2 layers"),
        (
            "merge.parameter.granularity.layers=some",
            r"granularity.layers: expected whole, each or a whole number of at least 1, got 'some'",
        ),
        ("merge.parameter.granularity.filters={x: q_porj}", r"filters.x: 'q_porj' matches no tensor"),
        ("merge.parameter.method=tise", r"there is none of that name"),
        ("+model.sources.two.pth=x", r"model.sources.two: unknown keys \['pth'\]; a source has \['adapter'"),
        ("model.sources.two.dtype=int8", r"dtype: expected .* got 'int8'"),
        ("benchmark.lm_eval.splits.test={start: 1.0, stop: 1.0}", r"'lm_eval': the test split is empty"),
        (
            "benchmark.lm_eval.splits.test={start: 0.3, stop: 0.7}",
            r"splits overlap: example \d+ of test is example \d+",
        ),
        ("benchmark.lm_eval.splits.test={start: 50, stop: 61}", r"reaches to example 61, but the task has 60"),
        ("benchmark.lm_eval.splits.test={start: 0.5, stop: 1.5}", r"must lie in \[0, 1\], got 1.5"),
        ("benchmark.lm_eval.task=smus", r"unknown lm-eval task 'smus'; close to it are \[.*'sums'"),
        ("benchmark.lm_eval.metric=acc", r"'lm_eval', search split: metric 'acc' is none of \['closeness', 'exact'\]"),
        ("benchmark.lm_eval.metric=null", r"'lm_eval', search split: metric None is none of \['closeness', 'exact'\]"),
        ("benchmark.lm_eval.filter=strict", r"'lm_eval', search split: filter 'strict' is none of \['none'\]"),
        ("benchmark.lm_eval.data_files=/no/such.jsonl", r"data_files: no such file: /no/such.jsonl"),
        ("budget=12.5", r"budget: expected a whole number of at least 1 or auto, got 12.5"),
        ("budget=5", r"budget=5 is smaller than the first generation of 6 genomes; raise the"),
        ("executor.retries=-1", r"executor.retries: expected a whole number of at least 0, got -1"),
        ("benchmark.lm_eval.batch_size=a", r"batch_size: expected a whole number of at least 1 or auto, got 'a'"),
        ("prefix_cache=never", r"prefix_cache: expected .*auto.*, got 'never'"),
        ("benchmark.lm_eval.prefix_cache=2", r"benchmark.lm_eval.prefix_cache: expected .*auto.*, got 2"),
        ("benchmark.lm_eval.batch_size=0", r"batch_size: expected a whole number of at least 1 or auto, got 0"),
        ("prefix_gb=x", r"prefix_gb: expected a number of at least 0 and at most 1000000, got 'x'"),
        ("cache_gb=-1", r"cache_gb: expected a number of at least 0 and at most 1000000, got -1"),
        ("shard_gb=0", r"shard_gb: expected a number of more than 0 and at most 1000000, got 0"),
        ("top=0", r"top: expected a whole number of at least 1, got 0"),
        ("seed=-1", r"seed: expected a whole number of at least 0 and at most 4294967295, got -1"),
        ("threads=1.5", r"threads: expected a whole number of at least 1 and at most 4096 or auto, got 1.5"),
        (
            "optimizer.population=6.5",
            r"optimizer.population: expected a whole number of at least 2 and at most 100000 or null, got 6.5",
        ),
        (
            "+merge.parameter.options.scaling={low: 0.5, high: 3, integer: true, default: 1}",
            r"gene 'scaling': expected a whole number as low of an integer, got 0.5",
        ),
        ("model.sources.two.path=null", r"model.sources.two.path: expected a text, got None"),
        ("model.sources.two.path=[a]", r"model.sources.two.path: expected a text, got \['a'\]"),
        ("model.sources.two.family=5", r"model.sources.two.family: expected a text, got 5"),
        ("+model.sources.two.adapter=5", r"model.sources.two.adapter: expected a text or null, got 5"),
        ("model.sources.two=null", r"model.sources.two: expected a mapping with path and family, got None"),
        ("+model.sources.three={path: /x}", r"/x: no such directory.* \(model.sources.three.family says which"),
        ("+model.sources.three={family: a.B}", r"model.sources.three: expected path and family, there is no path"),
        ("model.sources=null", r"model.sources: expected sources by name, .*got None"),
        ("threads=100000", r"threads: expected a whole number of at least 1 and at most 4096 or auto, got 100000"),
        ("shard_gb=1e300", r"shard_gb: expected a number of more than 0 and at most 1000000, got 1e\+300"),
        ("seed=99999999999", r"seed: expected a whole number of at least 0 and at most 4294967295, got 99999999999"),
        ("report=maybe", r"report: expected true or false, got 'maybe'"),
        (
            "optimizer.population=1",
            r"optimizer.population: expected a whole number of at least 2 and at most 100000 or null, got 1",
        ),
        ("optimizer.sigma=0", r"optimizer.sigma: expected a number of more than 0, got 0"),
        ("optimizer.mean=middle", r"optimizer.mean: expected a number of at least 0 and at most 1, got 'middle'"),
        ("+optimizer.sgima=0.1", r"optimizer.sgima: there is no such setting; known are .*'sigma'"),
        ("ablate=everything", r"ablate: expected genes, groups or null, got 'everything'"),
        (
            "start=[sources,nothing]",
            r"start: expected a list \(sources, uniform or a stack of mergekit .* each\) or null, got .*'nothing'",
        ),
        ("allow_other_base=perhaps", r"allow_other_base: expected true or false, got 'perhaps'"),
        (
            "optimizer.population=1000000000",
            r"optimizer.population: expected .* at most 100000 or null, got 1000000000",
        ),
        ("merge.parameter=5", r"merge.parameter: expected a mapping or null, got 5"),
        ("+merge.foo=1", r"merge: expected no other keys than compile, parameter, dataflow, got \['foo'\]"),
        ("+benchmark.more=5", r"benchmark.more: expected a mapping, got 5"),
        ("+baselines={ties: null}", r"baselines.ties: expected a mapping, got None"),
        ("+format.foo=1", r"format.foo: there is no such setting; known are \[\]"),
        ("warm_start=/no/such/run", r"warm_start: expected the directory of a run, got /no/such/run"),
        ("benchmark.lm_eval.splits.test.start=first", r"benchmark.lm_eval.splits.test.start: expected .*, got 'first'"),
        ("+executor.threads=2", r"executor.threads: there is no such setting; known are .*'retries'"),
        ("+benchmark.lm_eval.shots=3", r"'lm_eval': unknown options \['shots'\]; known are .*'num_fewshot'"),
    ],
)
def test_one_bad_setting(setting: str, expected: str, arguments: list[str], tmp_path: Path):
    refused([*arguments, setting], tmp_path / "run", expected)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            ["executor=processes", "executor.workers=0"],
            r"executor.workers: expected a whole number of at least 1 or auto",
        ),
        (["fitness=subset", "fitness.examples=0"], r"fitness.examples: expected a whole number of at least 1, got 0"),
        (
            ["fitness=full", "fitness.reject={before: 8}"],
            r"fitness.reject.before: there is no such setting; known are \['after', 'risk'\]",
        ),
        (
            ["optimizer=ga", "++optimizer.crossover.prob=5"],
            r"optimizer.crossover.prob: expected .* at most 1 or null, got 5",
        ),
        (["optimizer=ga", "++optimizer.crossover.foo=1"], r"optimizer.crossover.foo: there is no such setting"),
        (["optimizer=nsga2", "++optimizer.foo=1"], r"optimizer.foo: there is no such setting; known are .*'survival'"),
        (["optimizer=pso", "optimizer.w=heavy"], r"optimizer.w: expected a number of at least 0, got 'heavy'"),
        (["optimizer=de", "optimizer.mutation=[0.5,2]"], r"optimizer.mutation: expected a list .* or a number .*, got"),
        (
            ["fitness=full", "fitness.reject={risk: 1}"],
            r"fitness.reject.risk: expected a number of more than 0 and less than 1, got 1",
        ),
    ],
)
def test_bad_settings_of_parts(settings: list[str], expected: str, arguments: list[str], tmp_path: Path):
    refused([*arguments, *settings], tmp_path / "run", expected)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["fitness=auto", "fitness.full=1"], "fitness.full: expected a mapping.*got 1"),
        (["fitness=auto", "fitness.likelihood=null"], "fitness.likelihood: expected a mapping.*got None"),
        (["fitness=auto", "fitness.likelihood.examples=-1"], "fitness.likelihood.examples: expected .* got -1"),
        (["merge=dfs", "merge.dataflow.favour.ends=1e308"], r"merge.dataflow.favour.*1e\+308"),
        (
            ["merge=ties", "merge.parameter.genes.density.within=[]"],
            r"density.within: expected two numbers.*got \[\]",
        ),
        (["merge.parameter.genes.weight.alone=[]"], r"genes.weight.alone: expected a list of numbers.*got \[\]"),
        (["merge.parameter.genes.weight.alone=[1]"], r"genes.weight.alone: expected two numbers .*got \[1\]"),
        (
            ["optimizer=cmaes", "merge.parameter.genes.weight.widest=x"],
            "weight.widest: expected .*two numbers.*'x'",
        ),
        (["optimizer=bo", "merge.parameter.genes.weight.widest=[1]"], "genes.weight.widest: expected .*two numbers"),
        (["optimizer=optuna", "optimizer.storage=x"], "optimizer.storage: expected the URL of a database.*got 'x'"),
        (["optimizer=optuna", "optimizer.storage=nosql://me:hush@h/x"], r"got 'nosql://\(not shown\)@h/x'"),
        (
            ["optimizer=ga", "optimizer.algorithm=x"],
            "optimizer.algorithm: expected the name of a class .*'x'",
        ),
        (["model.sources.one.path=''"], "model.sources.one.path: expected a directory"),
        (["optimizer._partial_=x"], "_partial_: expected one of"),
        (["merge.parameter._convert_=x"], "_convert_: expected one of"),
    ],
)
def test_values_that_ended_in_a_traceback_or_in_silence(
    settings: list[str], expected: str, arguments: list[str], tmp_path: Path
):
    refused([*arguments, *settings], tmp_path / "run", expected)


def test_stages_of_a_race_may_grow_without_bounds(arguments: list[str], tmp_path: Path):
    built([*arguments, "fitness=racing", "fitness.growth=1e308"], tmp_path / "run")


@pytest.mark.parametrize("fitness", [["subset", "examples"], ["racing", "first"], ["irt", "first"]])
def test_more_examples_than_there_are(
    fitness: list[str], arguments: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    kind, key = fitness
    more = [f"fitness.{key}=1000", *(["fitness.most=1000"] if kind == "irt" else [])]
    built([*without(arguments, "fitness="), f"fitness={kind}", *more], tmp_path / "run")
    (said,) = {record.message for record in caplog.records if "examples" in record.message}
    assert said == f"fitness.{key}=1000: lm_eval has 24 search examples; all are taken"


WEIGHT = "++merge.parameter.genes.weight={per: source, default: 1, integer: true"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            [f"{WEIGHT}, low: 0.5, high: 2}}"],
            r"gene 'weight': expected a whole number as low .* 0.5",
        ),
        ([f"{WEIGHT}, low: 1, high: 4, log: true}}"], r"gene 'weight': log: expected false, for an int"),
        (
            [f"{WEIGHT.replace('default: 1', 'default: 0.5')}, low: 0, high: 2}}"],
            r"genes.weight.default: expected a whole number, got 0.5",
        ),
        (
            [f"{WEIGHT}, low: 0, high: 2}}", "merge.parameter.frozen={head/weight/*: 0.5}"],
            r"gene 'head/weight/\*': expected a whole number, got 0.5",
        ),
        (
            ["merge.parameter.granularity.layers=1.7"],
            r"granularity.layers: expected whole, each or .*, got 1.7",
        ),
        (["budget=true"], r"budget: expected a whole number of at least 1 or auto, got True"),
        (["top=1.5"], r"top: expected a whole number of at least 1, got 1.5"),
        (["seed=1.5"], r"seed: expected a whole number of at least 0 and at most 4294967295, got 1.5"),
        (["warm_start_top=2.5"], r"warm_start_top: expected a whole number of at least 1, got 2.5"),
        (["pad_vocabulary_to=8.5"], r"pad_vocabulary_to: expected a whole .* of at least 1 or null, got 8.5"),
        (
            ["benchmark.lm_eval.batch_size=64.5"],
            r"benchmark.lm_eval.batch_size: expected a whole .*, got 64.5",
        ),
        (["benchmark.lm_eval.limit=5.5"], r"benchmark.lm_eval.limit: expected a whole number of .*, got 5.5"),
        (
            ["benchmark.lm_eval.num_fewshot=0.5"],
            r"benchmark.lm_eval.num_fewshot: expected a whole .*, got 0.5",
        ),
        (["optimizer=grid", "optimizer.points=2.5"], r"optimizer.points: expected a whole number of .*, got 2.5"),
        (["optimizer=m2n2", "optimizer.archive=20.5"], r"optimizer.archive: expected a whole number of .*, got 20.5"),
        (["optimizer=map_elites", "optimizer.cells=4.5"], r"optimizer.cells: expected a whole number of .*, got 4.5"),
        (["fitness=racing", "fitness.most=10.5"], r"fitness.most: expected a whole number of .*, got 10.5"),
        (["fitness=racing", "fitness.first=8.5"], r"fitness.first: expected a whole number of .*, got 8.5"),
        (["fitness=racing", "fitness.survivors=2.5"], r"fitness.survivors: expected a whole number of .*, got 2.5"),
        (["fitness=irt", "fitness.dimensions=1.5"], r"fitness.dimensions: expected a whole number of .*, got 1.5"),
        (
            ["fitness=full", "fitness.reject={after: 4.5}"],
            r"fitness.reject.after: expected a whole number of .*, got 4.5",
        ),
        (["merge=dfs_network", "merge.dataflow.scales.hidden=2.5"], r"dataflow.scales.hidden: expected a whole number"),
        (["merge=dfs", "merge.dataflow.repeats=2.5"], r"repeats: expected a whole number of .*, got 2.5"),
        (["merge=dfs", "merge.dataflow.max_hops=3.5"], r"max_hops: expected a whole number of .*, got 3.5"),
    ],
)
def test_numbers_that_have_to_be_whole(settings: list[str], expected: str, arguments: list[str], tmp_path: Path):
    given = without(arguments, *(["optimizer.population"] if settings[0].startswith("optimizer=") else []))
    refused([*given, *settings], tmp_path / "run", expected)


def test_the_length_of_answers_is_the_users_by_any_of_its_names(arguments: list[str], tmp_path: Path):
    def identity(length: str) -> object:
        wanted = f"benchmark.lm_eval.generation_kwargs={{{length}}}"
        return built([*arguments, wanted], tmp_path / "run").benchmarks["lm_eval"].identity()

    expected = identity("max_gen_toks: 3")
    assert expected != identity("max_gen_toks: 4")
    for name in ("max_new_tokens", "max_tokens", "max_completion_tokens"):
        assert identity(f"{name}: 3") == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            "max_new_tokens: 3, max_gen_toks: 4",
            "max_gen_toks and max_new_tokens are names of the same length; give one",
        ),
        ("max_new_tokens: long", "max_new_tokens: expected a whole number of at least 1, got 'long'"),
        ("max_gen_toks: 0", "max_gen_toks: expected a whole number of at least 1, got 0"),
        ("temprature: 0.5", r"there is no such setting: temprature; close to it are .'temperature'"),
        ("temperature: -1, do_sample: true", "temperature: expected a number of at least 0, got -1"),
        ("top_p: 0, do_sample: true", "top_p: expected a number of more than 0 and at most 1, got 0"),
        ("num_beams: 0", "num_beams: expected a whole number of at least 1, got 0"),
        ("num_return_sequences: 2", "num_return_sequences: expected 1, got 2"),
        ("until: 5", "until: expected a list .a text each. or a text, got 5"),
        ("temperature: 0.7", r"transformers refuses .*`do_sample=True`"),  # the task says do_sample: false
        ("do_sample: true, temperature: 0", "do_sample=true needs a temperature above 0, got 0"),
        ("early_stopping: true", "transformers refuses .*num_beams"),
    ],
)
def test_generation_settings_that_make_no_sense(settings: str, expected: str, arguments: list[str], tmp_path: Path):
    refused([*arguments, f"benchmark.lm_eval.generation_kwargs={{{settings}}}"], tmp_path / "run", expected)


def test_whole_bounds_of_an_integer_may_be_written_as_reals():
    gene = parse_spec("w", {"per": "merge", "low": 0.0, "high": 2.0, "integer": True, "default": 1}).gene("merge/w")
    assert gene == integer("merge/w", 0, 2)
    with pytest.raises(ValueError, match=r"gene 'w': low: expected a whole number, got 0\.5"):
        integer("w", 0.5, 2)  # type: ignore[arg-type]


def test_no_benchmark(arguments: list[str], tmp_path: Path):
    refused([*without(arguments, "benchmark"), "benchmark=[]"], tmp_path / "run", r"no benchmark: choose one or more")


@pytest.mark.parametrize("merge", ["ties", "dare_ties", "dare_linear"])
@pytest.mark.parametrize("change", ["genes.density.high=1.5", "genes.density.low=-0.5", "frozen={*/density/two: 2}"])
def test_densities_are_shares(merge: str, change: str, arguments: list[str], tmp_path: Path):
    expected = r"gene '(.*/)?density(/two)?': expected values in \[0, 1\], got (1.5|-0.5|2)"
    refused([*arguments, f"merge={merge}", f"++merge.parameter.{change}"], tmp_path / "run", expected)


def test_every_gene_frozen(arguments: list[str], tmp_path: Path):
    with pytest.raises(ValueError, match="nothing to search: every gene is frozen"):
        carried_out([*arguments, "merge.parameter.frozen={*: 0.5}"], tmp_path / "run")
    assert json_lines(tmp_path / "run" / "ledger.jsonl") == []


def test_a_budget_below_one_generation_is_told_before_data_are_read(arguments: list[str], tmp_path: Path):
    (tmp_path / "data.jsonl").write_text("no JSON")
    data = f"++benchmark.lm_eval.data_files={tmp_path}/data.jsonl"
    with pytest.raises(ValueError, match="budget=5 is smaller than the first generation"):
        carried_out([*arguments, data, "budget=5"], tmp_path / "run")


def test_a_budget_below_one_generation(arguments: list[str], tmp_path: Path):
    with pytest.raises(ValueError, match=r"budget=5 is smaller than the first generation of 6 genomes; raise the"):
        carried_out([*arguments, "budget=5"], tmp_path / "run")
    assert json_lines(tmp_path / "run" / "ledger.jsonl") == []
    assert carried_out([*arguments, "budget=6"], tmp_path / "run")["evaluations"] == 6  # the directory is not spoilt


@pytest.mark.parametrize("merge", ["task_arithmetic", "ties", "dare_ties", "dare_linear"])
def test_task_vectors_need_a_base(merge: str, arguments: list[str], tmp_path: Path):
    given = [*without(arguments, ".base="), f"merge={merge}"]
    refused(given, tmp_path / "run", r"needs the base model of its sources")


@pytest.mark.parametrize("merge", ["linear", "slerp"])
def test_averages_need_no_base(merge: str, arguments: list[str], tmp_path: Path):
    summary = carried_out([*without(arguments, ".base="), f"merge={merge}"], tmp_path / "run")
    assert summary["test"]["base"] is None
    assert summary["test"]["winner"]["score"] is not None


def test_slerp_takes_two_sources(root: Path, arguments: list[str], tmp_path: Path):
    three = save_model(tmp_path / "three", 3, base=root / "base")
    third = [f"+model.sources.three.{key}={value}" for key, value in {
        "path": three, "base": root / "base", "family": "evohydra.families.causal_lm.CausalLM"}.items()]  # fmt: skip
    refused([*arguments, *third, "merge=slerp"], tmp_path / "run", r"slerp takes exactly 2 models, got 3")


def test_sources_of_different_families(arguments: list[str], tmp_path: Path):
    other = "model.sources.two.family=elsewhere.Family"
    refused([*arguments, other], tmp_path / "run", r"different families cannot be merged: .*'two': 'elsewhere.Family'")


def test_a_benchmark_of_another_family(arguments: list[str], tmp_path: Path):
    given = [*without(arguments, "benchmark"), "benchmark=fussy", "benchmark.fussy.families=[sdxl]"]
    expected = r"'fussy' scores models of the families \['sdxl'\], the sources are of the family 'causal_lm'"
    refused(given, tmp_path / "run", expected, BenchmarkError)


def test_the_same_text_at_different_places_overlaps(root: Path, arguments: list[str], tmp_path: Path):
    rows = (root / "task" / "sums.jsonl").read_text().splitlines()
    rows[40] = rows[2]  # of test and of search, where examples are taken as they come
    data = tmp_path / "twice.jsonl"
    data.write_text("\n".join(rows) + "\n")
    given = [*arguments, f"benchmark.lm_eval.data_files={data}", "benchmark.lm_eval.shuffle=null"]
    refused(given, tmp_path / "run", r"example 4 of test is example 2 of search", BenchmarkError)


def test_an_unreachable_data_set_names_the_way_out(root: Path, arguments: list[str], tmp_path: Path):
    (tmp_path / "remote.yaml").write_text(
        (root / "task" / "sums.yaml").read_text().replace("task: sums", "task: remote")
        .replace("dataset_path: json", "dataset_path: nobody/nothing-of-the-kind")
        .replace("dataset_kwargs: {data_files: {test: sums.jsonl}}\n", "")
    )  # fmt: skip
    (tmp_path / "scoring.py").write_text((root / "task" / "scoring.py").read_text())
    given = [*without(arguments, "include_path"), f"benchmark.lm_eval.include_path={tmp_path}"]
    expected = r"lm-eval task 'remote': the data set .* could not be read from the hub .*benchmark\.<name>\.data_files="
    refused([*given, "benchmark.lm_eval.task=remote"], tmp_path / "run", expected, BenchmarkError)


def test_a_directory_of_another_configuration(arguments: list[str], tmp_path: Path):
    carried_out(arguments, tmp_path / "run")
    before = (tmp_path / "run" / "ledger.jsonl").read_bytes()
    with pytest.raises(LedgerError, match=r"another configuration or other data \(benchmark 'lm_eval', .*is now 5"):
        carried_out([*arguments, "benchmark.lm_eval.limit=5"], tmp_path / "run")
    base = next(argument.split("=", 1)[1] for argument in arguments if "two.base=" in argument)
    save_model(tmp_path / "other", 9, base=Path(base))
    with pytest.raises(LedgerError, match=r"sources.two.fingerprint has changed \(SHA-256 [0-9a-f]+, now [0-9a-f]+\)"):
        carried_out([*arguments, f"model.sources.two.path={tmp_path / 'other'}"], tmp_path / "run")
    assert (tmp_path / "run" / "ledger.jsonl").read_bytes() == before


@pytest.mark.parametrize("family", ["abc", "collections.OrderedDict", "evohydra.families.causal_lm.nothing"])
def test_a_family_that_is_none(family: str, arguments: list[str], tmp_path: Path):
    given = [f"model.sources.{name}.family={family}" for name in ("one", "two")]
    refused([*arguments, *given], tmp_path / "run", family.split(".")[0])


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("genes.density.default=no", r"baselines.ties: genes.density.default: expected a finite number, got 'no'"),
        ("options.normalize=abc", r"baselines.ties: normalize: expected true or false, got 'abc'"),
    ],
)
def test_settings_of_a_baseline(
    setting: str, expected: str, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Before any tensor is read."""
    monkeypatch.setattr("evohydra.families.sources.survey", lambda *_: pytest.fail("tensors are read"))
    given = [*without(arguments, "baselines"), "~merge@baselines.dare_ties", f"baselines.ties.{setting}"]
    refused(given, tmp_path / "run", expected)


def test_the_command_ends_with_the_message_alone(arguments: list[str], tmp_path: Path):
    process = evohydra(*arguments, "device=tpu", "run=r", cwd=tmp_path)
    assert process.returncode != 0
    message = "evohydra: device: expected auto, cpu or cuda, got 'tpu'"
    assert re.search(f"^{re.escape(message)}$", process.stderr, re.MULTILINE)
    assert "Traceback" not in process.stderr


def test_an_option_of_what_auto_chooses_is_met_with_its_whole_name(arguments: list[str], tmp_path: Path):
    process = evohydra(*arguments, "fitness=auto", "fitness.examples=3", cwd=tmp_path)
    assert process.returncode != 0
    assert "unknown option 'fitness.examples'; did you mean 'fitness.likelihood.examples'?" in process.stderr


def test_an_unknown_option_is_met_with_the_nearest(arguments: list[str], tmp_path: Path):
    process = evohydra(*arguments, "budgte=3", cwd=tmp_path)
    assert process.returncode != 0
    assert "unknown option 'budgte'; did you mean 'budget'?" in process.stderr
    assert not list(tmp_path.iterdir())
