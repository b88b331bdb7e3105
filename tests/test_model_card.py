"""The winner's model card: what the hub reads in its front matter, and what people read below."""

from importlib.resources import files
from typing import Any

import pytest
from huggingface_hub import ModelCard

from evohydra.hub.licences import languages_of
from evohydra.recipe import Checkpoint, Group, Merge
from evohydra.winner.model_card import Kind, model_card

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


def kind(**changes: Any) -> Kind:
    known = {"library": "transformers", "task": "text-generation", "format": "plain", "licences": {"ja": "mit"}}
    return Kind(**(known | changes))


def card(found: dict[str, object] | None, **changes: object) -> ModelCard:
    return ModelCard(model_card("best", NODE, kind(**changes), found, "A note."))


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


def test_each_benchmark_is_named_beside_its_score() -> None:
    found = summary(benchmarks={"a": 0.25, "b": 0.75}) | {"data": {"a": {}, "b": {}}}
    text = card(found).text
    assert "## Scores on the test split of `a`, `b`" in text
    assert "| benchmark | winner |\n|---|---|\n| a | 0.250 |\n| b | 0.750 |\n" in text
    assert "| benchmark | winner |" not in card(summary()).text


def test_one_licence_of_all_sources_is_that_of_the_merge() -> None:
    data = card(None, licences={"ja": "apache-2.0", "math": "Apache-2.0"}).data
    assert (data.license, data.license_name) == ("apache-2.0", None)
    text = card(None, licences={"ja": "apache-2.0", "math": "apache-2.0"}).text
    assert "All sources are under apache-2.0, and so is the merge." in text


@pytest.mark.parametrize(("licences", "name", "follows"), [
    ({"ja": "mit"}, "licences-of-the-sources", "unknown: of math nothing is known"),
    ({"ja": "mit", "math": "apache-2.0"}, "licences-of-the-sources", "give the authors and licences of ja and math"),
    ({"ja": "mit", "math": "cc-by-nc-4.0"}, "licences-of-the-sources", "non-commercial: math (cc-by-nc-4.0) allow no"),
    ({"ja": "My Own!", "math": "my own!"}, "my-own", "not known here"),
])  # fmt: skip
def test_licences_that_disagree_are_other_and_what_follows_is_said(
    licences: dict[str, str], name: str, follows: str
) -> None:
    found = card(None, licences=licences)
    assert (found.data.license, found.data.license_name) == ("other", name)
    assert found.data.license_link == "README.md#licence"
    assert follows in found.text.partition("## Licence")[2]


def test_languages_data_sets_and_what_the_merge_is_of() -> None:
    data = card(None, languages=["ja", "en", "ja"], datasets=["owner/data"]).data
    assert (data.language, data.datasets, data.base_model_relation) == (["en", "ja"], ["owner/data"], "merge")
    assert languages_of("---\nlanguage: [ja, EN, '<b>', 3]\n---\n") == ("ja", "en")
    assert languages_of("---\nlanguage: ja\n---\n") == ("ja",)
    assert languages_of("no front matter") == ()


def test_an_adapter_of_the_hub_is_a_source_too() -> None:
    node = Merge("linear", None, (Checkpoint("a", "owner/model", adapter="owner/lora"), SOURCES[1]), NODE.groups)
    assert ModelCard(model_card("best", node, kind(), None, "")).data.base_model == ["owner/lora", "owner/model"]


@pytest.mark.parametrize(("model", "task", "asked"), [
    ("tiny_ja", "text-generation", "print"), ("tiny_topics_ja", "feature-extraction", "vectors"),
    ("tiny_vlm", "image-text-to-text", "model"),
])  # fmt: skip
def test_the_snippet_loads_and_asks_a_checkpoint(
    model: str, task: str, asked: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = snippet(card(None, task=task).text)
    monkeypatch.chdir(files("evohydra") / "zoo" / model)  # type: ignore[arg-type]
    names: dict[str, Any] = {}
    exec(code, names)
    assert asked in code
    assert sum(each.numel() for each in names["model"].parameters()) > 10_000
    if task == "text-generation":
        assert "YOUR PROMPT" in capsys.readouterr().out.replace(" ", "").replace("YOURPROMPT", "YOUR PROMPT")


def test_the_snippet_of_a_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    code = snippet(card(None, library="diffusers", task="text-to-image").text)
    monkeypatch.chdir(files("evohydra") / "zoo" / "tiny_digits_en")  # type: ignore[arg-type]
    names: dict[str, Any] = {}
    exec(code.partition('pipeline("YOUR')[0], names)
    assert type(names["pipeline"]).__name__ == "StableDiffusionXLPipeline"


def test_what_is_loaded_in_another_way_has_no_snippet() -> None:
    assert "## Use" not in card(None, library="pytorch").text
    assert "evohydra.winner.formats.shared . OUT" in card(None, format="shared").text


def snippet(text: str) -> str:
    return text.partition("```python\n")[2].partition("```")[0]


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
    assert "## Scores on the test split of `sums`" in text
    assert text.endswith("\n\nA note.\n")
    assert "without a search; no gradient step was taken" in card(None).text


def test_sources_of_one_path_differ_in_what_makes_them_others() -> None:
    sources = (
        Checkpoint("plain", "owner/model"),
        Checkpoint("tuned", "owner/model", adapter="owner/lora"),
        Checkpoint("rounded", "owner/model", dtype="bfloat16"),
        Checkpoint("half", "owner/model", revision="abc", variant="fp16"),
    )
    node = Merge("linear", None, sources, (Group("all", ("w",), {"weight": (0.25,) * 4}),))
    text = model_card("best", node, kind(licences={}), None, "")
    for row in (
        "| plain | owner/model | unknown |", "| tuned | owner/model, adapter owner/lora | unknown |",
        "| rounded | owner/model, converted to bfloat16 | unknown |",
        "| half | owner/model @ abc, variant fp16 | unknown |",
    ):  # fmt: skip
        assert row in text
