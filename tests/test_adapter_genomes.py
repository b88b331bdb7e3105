"""Genomes of adapters that are scored as adapters: the numbers of merged ones, and refusals where that cannot be."""

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from evohydra.checks.libraries import optional
from evohydra.families.adapter_layers import LiveAdapters
from evohydra.families.causal_lm import CausalLM
from evohydra.families.sources import OpenSources, open_sources
from evohydra.merging.checkpoints import SourceError
from evohydra.merging.engine import Engine, MergeError
from evohydra.recipe import Checkpoint, Group, Merge
from evohydra.scoring.benchmarks.scored_tokens import logits_at
from evohydra.scoring.job import Job
from evohydra.scoring.measures import FROM_BASE
from evohydra.scoring.worker import Worker
from evohydra.searching.json_lines import LedgerError
from tests.commands import built, evohydra, json_lines, python
from tests.test_adapter_merges import ANY_BASE, OF_GPT2, OF_LLAMA, merge, opened

CPU = torch.device("cpu")
ZOO = ("tiny_lora_plus", "tiny_lora_carry", "tiny_lora_minus", "tiny_lora_ja")
LORAS = ["experiment=tiny_loras", "tracker=none", "report=false", "audit=none", "baselines=null", "threads=1"]
IN_PLACE = "backend.genomes=adapters"
WHOLE: dict[str, dict[str, Any]] = {
    "one": OF_LLAMA["one"],
    "two": {"target_modules": ["q_proj"], "r": 2, "lora_alpha": 3, "modules_to_save": ["norm", "lm_head"]},
}


def zoo() -> OpenSources:
    """The zoo's base and its LoRAs."""
    models = tuple(Checkpoint(name, "zoo://base", adapter=f"zoo://{name}") for name in ZOO)
    return open_sources(models, Checkpoint("base", "zoo://base"), CausalLM(), ANY_BASE)


def both(sources: OpenSources, dtype: torch.dtype = torch.float32) -> tuple[Any, LiveAdapters, Engine]:
    """A live model that merges, one that runs adapters, and the engine of both."""
    engine = Engine(sources.tensors, device=CPU, dtype=dtype)
    plain, live = (CausalLM().live_model(sources.directories["base"], CPU, dtype, sources.overlay) for _ in range(2))
    assert sources.base is not None
    return plain, LiveAdapters(live, engine, sources.base, sources.models), engine


@torch.inference_mode()
def logits(live: Any) -> torch.Tensor:
    """Of a fixed text, (1, 12, vocabulary), in float32."""
    tokens = (torch.arange(12) * 7 + 3) % live.module.get_input_embeddings().num_embeddings
    found: torch.Tensor = live.module(input_ids=tokens[None]).logits.float()
    return found


def weighed(node: Merge, *weights: float) -> Merge:
    (group,) = node.groups
    return replace(node, groups=(replace(group, parameters={**group.parameters, "weight": weights}),))


def test_the_zoos_loras_give_the_logits_of_merged_ones() -> None:
    """Genome after genome, with a merge of another kind between them."""
    sources = zoo()
    plain, live, engine = both(sources)
    node = merge(sources, "task_arithmetic")
    last = None
    for weights in ((1.0, 0.5, 0.25, 0.8), (0.0, 0.0, 1.0, 0.0), (0.3, -0.2, 0.9, 2.0)):
        plain.become(weighed(node, *weights), engine)
        live.become_adapter(weighed(node, *weights), engine)
        found, expected = logits(live), logits(plain)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert not torch.equal(found, expected)  # nothing was merged
        assert last is None or not torch.allclose(found, last, atol=0.1)
        last = found
        with pytest.raises(
            RuntimeError, match="the merged weights of a genome that is run as an adapter are not there"
        ):
            live.parameters  # noqa: B018
        ties = merge(sources, "ties", density=(0.5,) * 4, weight=(1.0,) * 4)
        plain.become(ties, engine)
        live.become(ties, engine)
        assert all(torch.equal(tensor, plain.parameters[name]) for name, tensor in live.parameters.items())
        torch.testing.assert_close(logits(live), logits(plain), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kinds", [OF_LLAMA, OF_GPT2, WHOLE], ids=["llama", "gpt2", "whole"])
@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
def test_all_that_adapters_have(kinds: Mapping[str, Mapping[str, Any]], method: str, tmp_path: Path) -> None:
    """Ranks, rslora, patterns, embeddings and heads that are or were tied, Conv1D, parts that were trained whole."""
    sources = opened(tmp_path, kinds)
    plain, live, engine = both(sources)
    node = merge(sources, method)
    for genome in (node, weighed(node, *(0.4,) * len(kinds))):
        plain.become(genome, engine)
        live.become_adapter(genome, engine)
        torch.testing.assert_close(logits(live), logits(plain), rtol=1e-3, atol=1e-3)
        at, tokens = (torch.tensor([0, 0]), torch.tensor([3, 7])), torch.arange(12)[None]
        with torch.inference_mode():  # of some places alone, which goes by the head's layer
            (found, expected) = (next(logits_at(each.module, tokens, at))[1] for each in (live, plain))  # type: ignore[arg-type]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    live.become(sources.models[0], engine)
    plain.become(sources.models[0], engine)
    assert all(torch.equal(tensor, plain.parameters[name]) for name, tensor in live.parameters.items())
    torch.testing.assert_close(logits(live), logits(plain), rtol=1e-5, atol=1e-5)
    assert live.module.state_dict().keys() == plain.module.state_dict().keys()


def test_in_16_bits_only_the_base_is_rounded(tmp_path: Path) -> None:
    sources = opened(tmp_path, OF_LLAMA, torch.bfloat16)
    exact, _, precise = both(sources)
    plain, live, engine = both(sources, torch.bfloat16)
    node = merge(sources, "task_arithmetic")
    exact.become(node, precise)
    plain.become(node, engine)
    live.become_adapter(node, engine)
    expected = logits(exact)
    assert (logits(live) - expected).norm() < 1.5 * (logits(plain) - expected).norm()
    assert (logits(live) - expected).norm() < 0.05 * expected.norm()


def test_what_a_genome_leaves_as_it_is(tmp_path: Path) -> None:
    """A genome of fewer adapters, and one that leaves tensors to the base, after one of all."""
    sources = opened(tmp_path, OF_LLAMA)
    plain, live, engine = both(sources)
    node = merge(sources, "task_arithmetic")
    (group,) = node.groups
    some = tuple(name for name in group.tensors if "mlp" in name)
    fewer = Merge(
        "task_arithmetic", sources.base, sources.models[1:], (Group("all", group.tensors, {"weight": (1, 2)}),)
    )
    for genome in (replace(node, groups=(replace(group, tensors=some),)), fewer, node):
        live.become_adapter(node, engine)
        live.become_adapter(genome, engine)
        plain.become(genome, engine)
        torch.testing.assert_close(logits(live), logits(plain), rtol=1e-3, atol=1e-3)


def test_genomes_that_are_no_adapters(tmp_path: Path) -> None:
    sources = opened(tmp_path, OF_LLAMA)
    plain, live, engine = both(sources)
    with pytest.raises(MergeError, match=r"is not finite after task_arithmetic, as an adapter"):
        live.become_adapter(merge(sources, "task_arithmetic", scaling=1e39), engine)
    with pytest.raises(ValueError, match=r"is 0\.5 times the base's and no adapter of it; backend\.genomes=merged"):
        live.become_adapter(merge(sources, "linear", normalize=False), engine)
    good = merge(sources, "linear")
    live.become_adapter(good, engine)
    plain.become(good, engine)
    torch.testing.assert_close(logits(live), logits(plain), rtol=1e-3, atol=1e-3)
    assert sources.base is not None
    with pytest.raises(SourceError, match=r"expected adapters with factors"):
        LiveAdapters(CausalLM().live_model(sources.directories["base"], CPU, torch.float32), engine, sources.base, ())


def test_injecting_draws_nothing(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    both(opened(tmp_path, {"two": OF_LLAMA["two"]}))
    assert torch.equal(before, torch.random.get_rng_state())


class Told:
    """A live model that says how it was asked to become what it is."""

    runs_adapters = True

    def __init__(self, live: LiveAdapters) -> None:
        self._live, self.became = live, list[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._live, name)

    def become(self, *given: Any) -> None:
        self.became.append("merged")
        self._live.become(*given)

    def become_adapter(self, *given: Any) -> None:
        self.became.append("adapter")
        self._live.become_adapter(*given)


def itself(worker: Worker) -> Worker:
    """The worker, which is in this process."""
    return worker


def test_which_jobs_are_scored_as_adapters(tmp_path: Path) -> None:
    """Genomes of the search; what is scored for validation and test is merged, as it is written."""
    run = built([*LORAS, "budget=8", "benchmark=tiny_gsm_ja", IN_PLACE], tmp_path / "run")
    with closing(run.make_executor()) as executor:
        worker = executor.ask(itself)
        told = Told(worker.live)  # type: ignore[arg-type]
        worker.live = told  # type: ignore[assignment]
        genome, other = run.plan.space.default(), next(iter(run.models.baselines.values()), None)
        source = next(iter(run.models.sources.values()))
        assert isinstance(genome, Merge)
        assert other is None
        some = {"tiny_gsm_ja": [0, 1, 2]}
        for recipe, split, examples, way in (
            (genome, "search", some, "adapter"),
            (genome, "validation", some, "merged"),
            (genome, "test", some, "merged"),
            (source, "search", some, "merged"),
            (replace(genome, method="ties"), "search", some, "merged"),
            (genome, "search", {FROM_BASE: [0]}, "merged"),
        ):
            found = worker.evaluate(Job(recipe, split, examples))  # type: ignore[arg-type]
            assert told.became.pop() == way
            assert not told.became
            assert (found.error is None) == ("ties" not in str(recipe.to_dict().get("method"))), found.error
        assert worker.written(genome, "tiny_gsm_ja", "search", [0]).answers
        assert told.became == ["merged"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["merge=ties"], "expects merge=linear or merge=task_arithmetic, ties makes no sum of adapters"),
        (["merge=any"], "expects merge=linear or merge=task_arithmetic, .* makes no sum of adapters"),
        (["merge=linear", "merge.parameter.options.normalize=false"], "times the base's and no adapter of it"),
        (["model=tiny_lora_ja+tiny_math"], r"expects sources that are adapters .*, got tiny_math as a full model"),
        (
            ["merge=task_arithmetic+dfs", "optimizer=random", "optimizer.population=8"],
            "a path through layers is no adapter of the base",
        ),
        (["model=tiny_topics_en+tiny_topics_ja", "benchmark=tiny_topics"], "is for language models"),
    ],
)
def test_what_cannot_be_scored_as_adapters_is_said_ahead(tmp_path: Path, given: list[str], words: str) -> None:
    plain = ["format=plain", *given, "budget=12", IN_PLACE]
    with pytest.raises(ValueError, match=rf"backend\.genomes=adapters.*{words}.*; backend\.genomes=merged scores all"):
        built([*LORAS, *plain], tmp_path / "run")


def test_without_peft(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(module: str, *given: str) -> Any:
        return optional("no_such_peft" if module == "peft" else module, *given)

    monkeypatch.setattr("evohydra.assembly.backends.optional", missing)
    words = r"backend\.genomes=adapters: expected the package evohydra\[adapters\] to be installed"
    with pytest.raises(ValueError, match=words):
        built([*LORAS, "budget=8", IN_PLACE], tmp_path / "run")


def test_workers_elsewhere_need_peft(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def seen(python: str, more: Sequence[str] = ()) -> dict[str, str | None]:
        return dict.fromkeys(more)

    monkeypatch.setattr("evohydra.assembly.backends.versions_in", seen)
    monkeypatch.setattr("evohydra.assembly.runs.as_begun", None)  # what comes when weights are read
    given = ["budget=8", IN_PLACE, "executor=processes", "executor.python=/other/python"]
    with pytest.raises(ValueError, match=r"the Python of the workers, executor\.python=/other/python, has no peft"):
        built([*LORAS, *given], tmp_path / "run")


def test_the_command_finds_the_winner_that_merging_finds(tmp_path: Path) -> None:
    """Equal genomes, for they are drawn at random; scores within rounding; equal bits of the winner, and no mixing."""
    splits = [f"benchmark.tiny_gsm_ja.splits.{split}" for split in ("validation.stop=320", "test.stop=520")]
    drawn = ["optimizer=random", "optimizer.population=8", "budget=8", "top=2", "answers=1"]
    command = [*LORAS, *splits, *drawn]
    ledgers, winners = [], []
    for name, more in (("merged", []), ("adapters", [IN_PLACE])):
        ended = evohydra(*command, *more, f"run={name}", cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr
        assert "winner: the merged model, as a PEFT adapter" in " ".join(ended.stdout.split())
        run = tmp_path / "outputs" / name
        ledgers.append(json_lines(run / "ledger.jsonl"))
        winners.append((run / "winner" / "adapter_model.safetensors").read_bytes())
        replayed = python("-m", "evohydra.replay", f"outputs/{name}", cwd=tmp_path)
        assert "ok: 8 genomes" in replayed.stdout, replayed.stderr
    for one, other in zip(*ledgers, strict=True):
        assert one["recipe"] == other["recipe"]
        assert one["fitness"] == pytest.approx(other["fitness"], abs=1e-4)
    assert winners[0] == winners[1]
    tests = [
        [
            line["scores"]
            for line in json_lines(tmp_path / "outputs" / name / "scores.jsonl")
            if line["split"] != "search"
        ]
        for name in ("merged", "adapters")
    ]
    assert tests[0] == tests[1]  # both are of merged models, bit for bit
    assert json.loads((tmp_path / "outputs" / "adapters" / "run.json").read_text())["scores"]["versions"]["peft"]
    for name, more in (("merged", [IN_PLACE]), ("adapters", [])):
        ended = evohydra(*command, *more, f"run={name}", cwd=tmp_path)
        assert ended.returncode == 1
        assert "holds a run of another configuration" in ended.stderr
        assert "backend" in ended.stderr


def test_a_plan_says_what_it_takes_genomes_for(tmp_path: Path) -> None:
    told = python("-m", "evohydra.plan", *LORAS, "budget=8", IN_PLACE, cwd=tmp_path)
    assert "transformers (as if genomes were merged" in " ".join(told.stdout.split()), told.stderr
    (said,) = [each for each in built([*LORAS, "budget=8", IN_PLACE], tmp_path / "run").said if "plan:" in each]
    assert said.endswith("(as if genomes were merged: what backend.genomes=adapters takes is not planned)")


def test_the_ways_have_identities_of_their_own(tmp_path: Path) -> None:
    runs = [built([*LORAS, "budget=8", *more], tmp_path / "run") for more in ([], [IN_PLACE])]
    one, other = (run.identity.to_dict() for run in runs)
    assert one["scores"]["backend"] is None  # runs that began before there was a choice go on
    assert other["scores"]["backend"] == {"name": "transformers", "genomes": "adapters"}
    keys = {run.identity.score_key("tiny_gsm_ja", "test") for run in runs}
    assert len(keys) == 2
    runs[0].ledger().close()
    with pytest.raises(LedgerError, match="another configuration"):
        runs[1].ledger()
