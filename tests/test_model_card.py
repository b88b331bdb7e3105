"""The winner's model card: what the hub reads in its front matter, and what people read below."""

import pytest
from huggingface_hub import ModelCard

from evohydra.recipe import Checkpoint, Group, Merge
from evohydra.winner.model_card import model_card

SOURCES = (
    Checkpoint("ja", "owner/ja", revision="abc", fingerprint="f" * 64),
    Checkpoint("math", "zoo://tiny_math"),
)
NODE = Merge("linear", None, SOURCES, (Group("all", ("w",), {"weight": (0.5, 0.5)}),))


def summary(**winner: object) -> dict[str, object]:
    score = {"score": 0.5, "low": 0.4, "high": 0.6, "n": 100} | winner
    return {
        "test": {"winner": score, "sources": {"ja": score}, "base": None, "uniform": None, "baselines": {}},
        "validation": {"winner": {"score": 0.55}},
        "search": {"winner": {"score": 0.6}},
        "gain": {"best_source": "ja", "difference": 0.1, "low": 0.0, "high": 0.2, "p": 0.05},
        "evaluations": 40,
        "data": {"sums": {}},
    }


def card(found: dict[str, object] | None) -> ModelCard:
    return ModelCard(model_card("best", NODE, {"ja": "mit"}, found, "A note.", "transformers", "text-generation"))


def test_the_front_matter_is_what_the_hub_reads() -> None:
    data = card(summary()).data
    assert (data.base_model, data.tags, data.library_name) == (["owner/ja"], ["merge", "evohydra"], "transformers")
    assert data.pipeline_tag == "text-generation"
    (result,) = data.eval_results
    assert (result.dataset_name, result.dataset_split, result.metric_value) == ("sums", "test", 0.5)
    assert result.task_type == "text-generation"


def test_each_benchmark_has_its_own_score() -> None:
    results = card(summary(benchmarks={"a": 0.25, "b": 0.75})).data.eval_results
    assert {result.dataset_name: result.metric_value for result in results} == {"a": 0.25, "b": 0.75}


@pytest.mark.parametrize("found", [None, summary(score=None, error="ValueError: no answer")])
def test_without_scores_there_is_no_model_index(found: dict[str, object] | None) -> None:
    data = card(found).data
    assert data.eval_results is None
    assert data.base_model == ["owner/ja"]


def test_what_people_read() -> None:
    text = card(summary()).text
    assert text.lstrip().startswith(
        "# best\n\nThe best merge that [evohydra](https://pypi.org/project/evohydra/) found"
    )
    assert "| ja | owner/ja @ abc | mit | `ffffffffffffffff` |\n| math | zoo://tiny_math | unknown | `` |\n" in text
    assert "| winner | 0.500 | 0.400 to 0.600 | 100 |" in text
    assert "The winner was chosen on validation (0.550) from the best genomes of the search (0.600)." in text
    assert text.endswith("The merge falls under the licences of all of its sources.\n\nA note.\n")
    assert "without a search; no gradient step was taken" in card(None).text


def test_sources_of_one_path_differ_in_what_makes_them_others() -> None:
    sources = (
        Checkpoint("plain", "owner/model"),
        Checkpoint("tuned", "owner/model", adapter="owner/lora"),
        Checkpoint("rounded", "owner/model", dtype="bfloat16"),
        Checkpoint("half", "owner/model", revision="abc", variant="fp16"),
    )
    node = Merge("linear", None, sources, (Group("all", ("w",), {"weight": (0.25,) * 4}),))
    text = model_card("best", node, {}, None, "", "transformers", "text-generation")
    for row in (
        "| plain | owner/model | unknown |", "| tuned | owner/model, adapter owner/lora | unknown |",
        "| rounded | owner/model, converted to bfloat16 | unknown |",
        "| half | owner/model @ abc, variant fp16 | unknown |",
    ):  # fmt: skip
        assert row in text
