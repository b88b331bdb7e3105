"""evohydra from Python: the same runs, merges and scores as from the command line."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import evohydra
from evohydra.library.commands import carried_out, override
from evohydra.scoring.statistics import interval
from evohydra.searching.json_lines import in_use
from tests.commands import REPOSITORY, environment, json_lines, python, workspace
from tests.commands import evohydra as command

NUMBERS = st.floats(-1e9, 1e9, allow_nan=False)
TEXTS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=12)
PLAIN = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | NUMBERS | TEXTS


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("library")


@pytest.fixture(scope="module")
def options(root: Path) -> list[str]:
    """The command line of a short run on tiny models below `root`."""
    return [*workspace(root), "merge=ties", "budget=12", "top=2", "report=true", "tracker=none"]


@pytest.fixture(autouse=True)
def users(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment and the directory of somebody who calls evohydra."""
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(root)


@pytest.fixture(scope="module")
def run(root: Path, options: list[str]) -> evohydra.Run:
    """A finished run that was begun from Python."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name, value in environment().items():
            patch.setenv(name, value)
        return evohydra.search(*options, run="mine", show=False, seed=3)


@given(value=PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(TEXTS.filter(bool), PLAIN, max_size=3))
def test_an_option_is_read_as_the_value_that_was_given(value: object):
    (read,) = OverridesParser.create().parse_overrides([override("key", value)])
    assert read.value() == value


def test_the_name_of_an_option_is_written_as_people_write_it():
    assert override("model", "tiny_ja+tiny_math") == "model=tiny_ja+tiny_math"
    assert override("benchmark", ["mgsm_ja", "tiny_gsm_ja"]) == "benchmark=[mgsm_ja, tiny_gsm_ja]"
    assert override("dtype", None) == "dtype=null"


def test_what_is_no_value_of_an_option_is_refused():
    with pytest.raises(TypeError, match=r"merge: expected a text, .*got <function"):
        override("merge", override)
    with pytest.raises(ValueError, match=r"optimizer.sigma: expected a finite number, got nan"):
        override("optimizer.sigma", float("nan"))


def test_a_search_is_the_command(run: evohydra.Run, options: list[str], root: Path):
    done = command(*options, "run=theirs", "seed=3", cwd=root)
    assert done.returncode == 0, done.stderr
    for file in ("recipe.json", "run.json"):
        assert (run.directory / file).read_bytes() == (root / "outputs/theirs" / file).read_bytes()
    ours, theirs = (json_lines(root / "outputs" / name / "ledger.jsonl") for name in ("mine", "theirs"))
    assert [{**line, "seconds": None} for line in ours] == [{**line, "seconds": None} for line in theirs]


def test_a_run_tells_its_scores(run: evohydra.Run):
    summary = json.loads((run.directory / "summary.json").read_text())
    assert run.state == "finished"
    assert run.winner.score == summary["test"]["winner"]["score"]
    assert run.winner.validation == summary["validation"]["winner"]["score"]
    assert run.winner.genes == json_lines(run.directory / "ledger.jsonl")[run.winner.index]["genes"]
    assert {"source one", "source two", "base", "uniform merge"} <= set(run.others)
    assert run.gain == summary["gain"]
    assert f"{run.winner.score:.3f}" in repr(run)
    assert (run.winner.path / "model.safetensors").is_file()
    shown = run._repr_html_()
    assert "<table>" in shown
    assert "data:image/png;base64" in shown


def test_genomes_are_a_table(run: evohydra.Run):
    lines = json_lines(run.directory / "ledger.jsonl")
    table = run.genomes()
    assert list(table["fitness"]) == [line["fitness"] for line in lines]
    assert list(table["index"]) == list(range(len(lines)))
    gene = next(iter(lines[0]["genes"]))
    assert list(table[f"gene.{gene}"]) == [line["genes"][gene] for line in lines]


def test_the_function_search_is_not_hidden_by_a_package():
    """A package of the same name would take its place as soon as anything of it is imported."""
    code = (
        "import evohydra, pkgutil, importlib\n"
        "for each in ('evohydra.run', 'evohydra.evaluation', 'evohydra.rebuild'): importlib.import_module(each)\n"
        "print([callable(getattr(evohydra, name)) for name in ('search', 'load', 'merge', 'evaluate')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.strip() == "[True, True, True, True]"


def test_the_same_name_goes_on(run: evohydra.Run, options: list[str]):
    arguments = [text for text in options if not text.startswith("budget=")]
    before = json_lines(run.directory / "ledger.jsonl")
    longer = evohydra.search(*arguments, run="mine", show=False, seed=3, budget=18)
    assert json_lines(longer.directory / "ledger.jsonl")[:12] == before
    assert len(longer.genomes()) == 18


def test_a_wrong_option_is_the_command_s_sentence(root: Path):
    with pytest.raises(evohydra.RunError, match=r"unknown merge tise. Known: .*ties"):
        evohydra.search(merge="tise", run="wrong", show=False)
    with pytest.raises(evohydra.RunError, match=r"budget: expected .* got 'many'"):
        evohydra.search(budget="many", run="wrong", show=False)


def test_a_run_that_has_not_ended_has_genomes_and_no_winner(run: evohydra.Run, tmp_path: Path):
    for file in ("run.json", "settings.json", "ledger.jsonl", "scores.jsonl"):
        (tmp_path / file).write_bytes((run.directory / file).read_bytes())
    begun = evohydra.load(tmp_path)
    assert len(begun.genomes()) >= 12
    with pytest.raises(evohydra.RunError, match=r"has no winner \(ended early"):
        _ = begun.winner
    assert "ended early" in repr(begun)
    assert "ended early" in begun._repr_html_()


def test_load_names_what_is_no_run(tmp_path: Path, root: Path, run: evohydra.Run):
    with pytest.raises(ValueError, match="there is none"):
        evohydra.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="expected the directory of one run"):
        evohydra.load(tmp_path)
    with pytest.raises(ValueError, match=r"it holds the runs .*mine"):
        evohydra.load(run.directory.parent)


def test_merge_writes_the_winner_again(run: evohydra.Run, tmp_path: Path):
    made = evohydra.merge(run.directory / "recipe.json", tmp_path / "again")
    assert made.identical
    winner, again = (load_file(at / "model.safetensors") for at in (run.winner.path, made.path))
    assert all(bool((winner[name] == again[name]).all()) for name in winner)


def test_merge_takes_mergekits_files(root: Path, tmp_path: Path):
    (tmp_path / "linear.yaml").write_text(
        f"models:\n- {{model: {root}/one, parameters: {{weight: 1.0}}}}\n"
        f"- {{model: {root}/two, parameters: {{weight: 0.0}}}}\nmerge_method: linear\ndtype: float32\n"
    )
    made = evohydra.merge(tmp_path / "linear.yaml", tmp_path / "out")
    assert made.identical is None
    one, merged = (load_file(at / "model.safetensors") for at in (root / "one", made.path))
    assert all(bool((one[name] == merged[name]).all()) for name in one)


def of_task(options: list[str]) -> list[str]:
    return [text for text in options if text.lstrip("+").startswith(("benchmark", "batch_size", "hydra.searchpath"))]


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_model_scores_alone_what_it_scores_in_a_run(name: str, run: evohydra.Run, options: list[str], root: Path):
    """Example by example, on test; `one` is scored there as the source that gives the files, `two` as another one."""
    lines = json_lines(run.directory / "scores.jsonl")
    in_run = next(line["scores"] for line in lines if line["label"] == name and line["split"] == "test")
    found = evohydra.evaluate(root / name, *of_task(options), answers=True)
    assert found.scores == in_run
    assert found.score == interval(in_run).score
    assert [answer.score for answer in found.answers] == next(iter(in_run.values()))
    assert all(answer.question and answer.answer is not None for answer in found.answers)


def test_the_written_winner_scores_what_the_run_says(run: evohydra.Run, options: list[str]):
    found = evohydra.evaluate(run.winner.path, *of_task(options))
    assert found.score == pytest.approx(run.winner.score, abs=1e-9)


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        ("nowhere", [], r"nowhere: expected a directory, a file, OWNER/NAME of the hub, or one of .*tiny_ja"),
        ("tiny_ja", ["merge=ties"], r"merge: expected an option for one model"),
        ("tiny_ja", ["revision=main"], r"revision: tiny_ja is a name of conf/model"),
        ("tiny_ja", ["benchmark=tiny_vqa_ja"], r"scores models of the families \['vision_language'\]"),
        ("tiny_ja", ["benchmark=tiny_gsm"], r"unknown benchmark tiny_gsm. Known: .*tiny_gsm_ja"),
        ("tiny_ja", ["benchmark=[]"], r"no benchmark: choose one"),
        ("tiny_ja", ["batch_size=many"], r"batch_size"),
    ],
)
def test_evaluate_names_what_it_cannot_do(model: str, given: list[str], message: str):
    with pytest.raises(ValueError, match=message):
        evohydra.evaluate(model, *given)


def test_evaluate_says_how_an_adapter_is_given(tmp_path: Path):
    """Such as the winner of a search with format=lora."""
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "/models/base"}')
    with pytest.raises(ValueError, match=rf"an adapter of /models/base.*evaluate /models/base adapter={tmp_path}"):
        evohydra.evaluate(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"an adapter that cannot be read: .*adapter_config\.json is damaged"):
        evohydra.evaluate(str(tmp_path))


def test_evaluate_wants_a_split_that_there_is():
    with pytest.raises(ValueError, match="split: expected one of search, validation, test, got 'dev'"):
        evohydra.evaluate("tiny_ja", split="dev")


def test_evaluate_wants_a_model_and_no_run(run: evohydra.Run):
    with pytest.raises(ValueError, match=r"got the directory of a run; its model is .*winner"):
        evohydra.evaluate(run.directory)


def test_the_commands(run: evohydra.Run, options: list[str], root: Path, tmp_path: Path):
    scores, answers = tmp_path / "scores.json", tmp_path / "answers.jsonl"
    asked = ["evaluate", str(root / "one"), *of_task(options), "split=validation"]
    done = command(*asked, "--json", str(scores), "--answers", str(answers), cwd=root)
    assert done.returncode == 0, done.stderr
    kept = json.loads(scores.read_text())
    assert f"{kept['score']:.3f}" in done.stdout
    assert kept["split"] == "validation"
    values = next(iter(kept["scores"].values()))
    assert [json.loads(line)["score"] for line in answers.read_text().splitlines()] == values
    merged = command("merge", str(run.directory / "recipe.json"), str(tmp_path / "out"), cwd=root)
    assert "identical, bit for bit" in merged.stdout
    assert command("report", str(run.directory), cwd=root).returncode == 0
    refused = command("evaluate", "nowhere", cwd=root)
    assert refused.returncode == 1
    assert refused.stderr.startswith("evaluate: nowhere: expected")


def test_the_version_is_ours(tmp_path: Path):
    assert command("--version", cwd=tmp_path).stdout.strip() == f"evohydra {evohydra.__version__}"


def test_to_import_evohydra_imports_nothing_heavy():
    code = "import sys, evohydra; print(sorted({'torch', 'hydra', 'transformers', 'pandas'} & set(sys.modules)))"
    done = python("-c", code, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def heeding() -> Iterator[None]:
    """Ctrl-C counts, also where tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeding")
def test_an_interrupt_reaches_the_run(tmp_path: Path):
    """The command ends itself, as at a terminal, and is waited for; also where another thread takes the signal."""
    ready, ended = tmp_path / "ready", tmp_path / "ended"
    code = (
        "import pathlib, signal, sys, time\n"
        f"signal.signal(signal.SIGINT, lambda *_: (pathlib.Path({str(ended)!r}).touch(), sys.exit(130)))\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "time.sleep(30)\n"
    )

    def interrupt() -> None:
        while not ready.exists():
            time.sleep(0.1)
        signal.raise_signal(signal.SIGINT)  # in this thread, so it does not wake the one that waits

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        carried_out([sys.executable, "-c", code], show=False)
    assert ended.exists()


@pytest.mark.slow
def test_the_page_runs_as_it_stands(tmp_path: Path):
    page = (REPOSITORY / "evohydra/docs/library.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    (tmp_path / "page.py").write_text(code)
    done = python("page.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Run('outputs/from-python', finished, winner 0." in done.stdout
    assert (tmp_path / "merged-again" / "model.safetensors").is_file()


def test_a_search_ends_with_the_process_that_waits_for_it(options: list[str], root: Path):
    """It is interrupted, and the same call goes on: nobody else holds the run."""
    code = f"import evohydra\nevohydra.search(*{[*options, 'budget=400']!r}, run='orphan', show=False)"
    caller = subprocess.Popen([sys.executable, "-c", code], cwd=root, env=environment(), stdin=subprocess.DEVNULL)
    directory, until = root / "outputs" / "orphan", time.monotonic() + 600
    while not json_lines(directory / "ledger.jsonl"):
        assert caller.poll() is None
        assert time.monotonic() < until
        time.sleep(0.1)
    caller.kill()
    caller.wait()
    while in_use(directory):
        assert time.monotonic() < until
        time.sleep(0.1)
    now = len(json_lines(directory / "ledger.jsonl"))
    assert 0 < now < 400
    run = evohydra.search(*options, run="orphan", show=False, budget=now + 6)
    assert len(run.genomes()) == now + 6
