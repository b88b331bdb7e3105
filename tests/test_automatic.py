"""benchmark=auto: what sources are for decides what they are scored on, or an error says what to choose from."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from evohydra.assembly.automatic import with_benchmark, with_search
from evohydra.assembly.settings import Settings
from evohydra.scoring.benchmarks import BenchmarkError
from tests import tiny_studio
from tests.commands import evohydra, files, json_lines
from tests.test_composition import CONF, composed

ZOO = sorted(file.stem for file in (CONF / "model").glob("tiny_*.yaml"))


def plain(*overrides: str) -> Any:
    return OmegaConf.to_container(composed(*overrides), resolve=True)


def chosen(*overrides: str) -> list[str]:
    return list(with_benchmark(plain(*overrides), overrides)[0]["benchmark"])


@pytest.mark.parametrize(
    ("models", "benchmark"),
    [
        ("tiny_ja+tiny_math", "tiny_gsm_ja"),
        ("tiny_math", "tiny_gsm_ja"),
        ("tiny_vlm+tiny_ja_lm", "tiny_vqa_ja"),
        ("tiny_topics_en+tiny_topics_ja", "tiny_topics"),
        ("tiny_steps+tiny_short", "tiny_gsm_ja_wordings"),
        ("tiny_digits_en+tiny_digits_ja", "tiny_digits_ja"),
        ("shisa+wizardmath", "gsm8k_ja_search"),
        ("arithmo+abel+shisa", "gsm8k_ja_search"),
        ("elyza13b+metamath13b", "gsm8k_ja_search"),
        ("shisa+llava16_mistral", "ja_vg_vqa_500"),
        ("sdxl_base+sdxl_dpo+juggernaut_xl+jsdxl", "ja_prompts"),
    ],
)
def test_sources_get_the_benchmark_of_what_they_are_for(models: str, benchmark: str) -> None:
    assert chosen(f"model={models}") == [benchmark]
    given: Any = OmegaConf.to_container(composed(f"model={models}", f"benchmark=[{benchmark}]").benchmark)
    auto: Any = OmegaConf.to_container(composed(f"model={models}").benchmark)
    assert auto[benchmark] == given[benchmark]


def test_the_search_is_on_gsm8k_ja_and_the_test_on_mgsm_ja() -> None:
    settings, said = with_benchmark(plain("model=shisa+wizardmath"))
    assert settings["benchmark"]["gsm8k_ja_search"]["splits"]["test"]["task"] == "mgsm_ja"
    assert said == "benchmark=auto: gsm8k_ja_search, for sources of japanese, mathematics"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["model=local+shisa"],
            r"local does not say what it is for \(model.sources.local.purpose=\[mathematics\], .*\); .*: gsm8k_ja",
        ),
        (["model=wizardmath+abel"], "none is known for sources of mathematics; .*gsm8k_ja_search, mgsm_ja, .*lm_eval"),
        (["model=llava16_mistral+local"], "local does not say .*: ja_vg_vqa_500, .*lm_eval_multimodal"),
        (
            ["model=shisa+wizardmath", "benchmark.tiny_gsm_ja.metric=number_match"],
            r"benchmark\.tiny_gsm_ja\.metric: benchmark=auto has chosen 'gsm8k_ja_search'.*tiny_gsm_ja chooses",
        ),
        (["model.sources.tiny_ja.purpose=zoo"], r"model.sources.tiny_ja.purpose: expected .*got 'zoo'"),
        (["benchmark.auto.choices.tiny_gsm_ja=7"], r"benchmark.auto.choices"),
        (["model.sources=7"], r"model.sources: expected sources by name"),
    ],
)
def test_what_fits_no_benchmark_names_those_to_choose_from(given: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_benchmark(plain(*given), given)


def test_a_purpose_on_the_command_line_counts() -> None:
    assert chosen("model=local+shisa", "model.sources.local.purpose=[mathematics]") == ["gsm8k_ja_search"]


def test_options_of_the_chosen_one_hold_and_others_can_be_added() -> None:
    given = ["benchmark=[auto,jp_lmeh]", "model=shisa+abel", "benchmark.gsm8k_ja_search.limit=4"]
    settings, _ = with_benchmark(plain(*given), given)
    assert sorted(settings["benchmark"]) == ["gsm8k_ja_search", "jp_lmeh"]
    assert settings["benchmark"]["gsm8k_ja_search"]["limit"] == 4


def test_a_benchmark_that_is_chosen_by_name_is_left_alone() -> None:
    settings = plain("benchmark=[mgsm_ja]", "model=local+shisa")
    assert with_benchmark(settings) == (settings, None)


def test_a_table_of_ones_own_may_name_only_what_is_there() -> None:
    with pytest.raises(BenchmarkError, match="expected the settings of 'mine' beside the choices"):
        chosen("+benchmark.auto.choices.mine=[japanese]", "model=shisa")


def test_every_source_says_what_it_is_for() -> None:
    for file in sorted((CONF / "model").glob("*.yaml")):
        source = yaml.safe_load(file.read_text())
        assert {"purpose", "prompt"} <= set(source), file
        assert source["purpose"] or file.stem == "local"
        assert ("zoo" in (source["purpose"] or [])) == (file.stem in ZOO)


def test_a_run_says_what_was_chosen_and_keeps_that_alone(tmp_path: Path) -> None:
    small = [f"benchmark.tiny_gsm_ja.splits.{split}" for split in ("search", "validation", "test")]
    cut = [f"{at}={{start: {20 * n}, stop: {20 * n + 20}}}" for n, at in enumerate(small)]
    arguments = [*cut, "budget=4", "optimizer.population=4", "top=1", "baselines=null", "report=false", "run=a"]
    first = evohydra(*arguments, "tracker=none", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "benchmark=auto: tiny_gsm_ja, for sources of japanese, mathematics, zoo" in first.stdout
    run = tmp_path / "outputs" / "a"
    assert list(json.loads((run / "run.json").read_text())["scores"]["benchmarks"]) == ["tiny_gsm_ja"]
    assert list(json.loads((run / "settings.json").read_text())["config"]["benchmark"]) == ["tiny_gsm_ja"]
    before, ledger = files(run / "winner"), json_lines(run / "ledger.jsonl")
    named = evohydra(*arguments, "benchmark=[tiny_gsm_ja]", "tracker=none", cwd=tmp_path)  # as before there was auto
    assert named.returncode == 0, named.stderr
    assert json_lines(run / "ledger.jsonl") == ledger
    assert files(run / "winner").keys() == before.keys()


class Judged:
    """A benchmark without references."""

    name, families = "judged", ("causal_lm",)


class Referred(Judged):
    """One with references."""

    def __init__(self, complete: bool | None = True) -> None:
        self.complete_references = complete

    def check_references(self) -> None: ...

    def size(self, split: Any) -> int:
        return 4

    def log_likelihoods(self, live: Any, split: Any, examples: Any, per: Any) -> Any: ...


@pytest.mark.parametrize(
    ("given", "benchmark", "kind", "budget"),
    [
        ([], Referred(), "likelihood", 130),
        ([], Judged(), "full", 130),
        ([], Referred(False), "full", 130),
        ([], Referred(None), "full", 130),
        (["optimizer=cmaes"], Referred(), "full", 204),
        (["optimizer=random", "budget=7"], Referred(), "full", 7),
        (["fitness=irt"], Referred(), "irt", 130),
        ([], None, "full", 130),
        (["optimizer=cmaes", "fitness=likelihood"], Referred(), "likelihood", 204),
    ],
)
def test_the_optimizer_and_the_benchmark_decide_on_fitness_and_budget(
    given: list[str], benchmark: Any, kind: str, budget: int
) -> None:
    settings, said = with_search(Settings.parse(plain(*given)), {"a": benchmark} if benchmark else {}, given)
    assert settings.fitness == plain(f"fitness={kind}")["fitness"]
    assert settings.genomes == budget
    assert ("budget=auto" in (said or "")) == (not any(each.startswith("budget=") for each in given))
    assert (f"fitness=auto: {kind}" in (said or "")) == (not any(each.startswith("fitness=") for each in given))


def test_options_of_the_fitness_that_is_chosen_hold_and_others_are_refused() -> None:
    given = ["fitness.likelihood.examples=7"]
    settings, _ = with_search(Settings.parse(plain(*given)), {"a": Referred()}, given)  # type: ignore[dict-item]
    assert settings.fitness["examples"] == 7
    given = ["fitness.full.reject={after: 8, risk: 0.01}"]
    with pytest.raises(ValueError, match=r"fitness\.full\.reject: fitness=auto has chosen likelihood"):
        with_search(Settings.parse(plain(*given)), {"a": Referred()}, given)  # type: ignore[dict-item]


def test_why_likelihood_does_not_fit_is_said() -> None:
    _, said = with_search(Settings.parse(plain()), tiny_studio.benchmarks())
    assert said is not None
    assert "fitness=auto: full" in said
    assert "gives no probability" in said
