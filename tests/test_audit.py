"""The audit of a winner: its parts by functions, and a whole run with one."""

from types import SimpleNamespace
from typing import Any

import pytest

from evohydra.audit import gains
from evohydra.audit.asking import Asking
from evohydra.audit.course import counts
from evohydra.audit.findings import at_the_limit, audited
from evohydra.audit.plan import PARTS, audit_plan
from evohydra.audit.texts import errors, kind_of_error, near_duplicates, nearest
from evohydra.audit.verdict import verdict
from evohydra.scoring.benchmarks import GivenAnswer
from evohydra.scoring.benchmarks.answer_length import answer_length
from evohydra.scoring.benchmarks.lm_eval_asking import reworded
from evohydra.searching.doubts import ENOUGH, Doubts
from evohydra.searching.ledger import Record

GAIN = {"best_source": "ja", "difference": 0.12, "low": 0.08, "high": 0.16, "p": 0.001}
CHANGED = {"not_checked": {}, "unchanged": False, "winner": 0.5, "source": 0.4, "n": 100}


def audit(**parts: object) -> dict[str, object]:
    return {"at_the_limit": {}, "not_checked": [], **parts}


@pytest.mark.parametrize(
    ("answer", "expected", "kind"),
    [
        (GivenAnswer("答えは20", 0.0, cut=True), "答えは20です。", "cut at the limit"),
        (GivenAnswer("  ", 0.0), "答えは20です。", "empty"),
        (GivenAnswer("The answer is 20.", 0.0), "答えは20です。", "other language"),
        (GivenAnswer("答えは20です。", 0.0), "The answer is 20.", "other language"),
        (GivenAnswer("わかりません。", 0.0), "答えは20です。", "no number"),
        (GivenAnswer("20かも", 0.0, extracted="[invalid]"), "答えは20です。", "no number"),
        (GivenAnswer("答えは20個です。", 0.0), "答えは20です。", "right number, not accepted"),
        (GivenAnswer("答えは２0です。", 0.0), "答えは20です。", "right number, not accepted"),
        (GivenAnswer("答えは21です。", 0.0), "答えは20です。", "wrong content"),
        (GivenAnswer("Paris", 0.0), "Rome", "wrong content"),
        (GivenAnswer("It is 1,234.", 0.0), "1234", "right number, not accepted"),
        (GivenAnswer("12-1=11, so \u221211", 0.0), "11", "wrong content"),
        (GivenAnswer("12-1=11", 0.0), "11", "right number, not accepted"),
        (GivenAnswer("20", 0.0), "答えは20です。", "right number, not accepted"),
    ],
)
def test_kinds_of_errors(answer: GivenAnswer, expected: str, kind: str) -> None:
    assert kind_of_error(answer, expected) == kind
    assert errors([answer, GivenAnswer(expected, 1.0)], [("", expected)] * 2) == {kind: 1}


@pytest.mark.parametrize(
    ("text", "kind"),
    [("5は左にあります。", "wrong content"), ("右にあります。", "wrong content"), ("The 5.", "other language")],
)
def test_a_number_of_the_question_is_no_right_number(text: str, kind: str) -> None:
    asked = ("5はどこにありますか。", "5は右にあります。")
    assert errors([GivenAnswer(text, 0.0)], [asked]) == {kind: 1}
    assert kind_of_error(GivenAnswer("答えは8です", 0.0), "8です。", "3と5の合計は?") == "right number, not accepted"


def test_near_duplicates_are_found_by_their_ngrams() -> None:
    test = ["a quite long question about apples and pears", "something else altogether, at length", "short"]
    search = ["A quite long question about  apples and pears!", "unlike all of these"]
    found = near_duplicates(test, {"search": search, "shots": ["short"]})
    assert (found["search"]["near"], found["search"]["places"]) == (1, [0])
    assert found["shots"]["places"] == [2]
    assert nearest(test, []).tolist() == [0, 0, 0]
    assert nearest(["abcdefghij"], ["abcdefghijk"]) == pytest.approx([3 / 4])  # three and four 8-grams


def test_scores_by_difficulty() -> None:
    rows = gains.by_difficulty({"a": [1.0, 0.0, 1.0]}, {"x": {"a": [1.0, 0.0, 0.0]}, "y": {"a": [1.0, 1.0, 0.0]}})
    assert rows == [
        {"solved_by": 0, "examples": 1, "winner": 1.0},
        {"solved_by": 1, "examples": 1, "winner": 0.0},
        {"solved_by": 2, "examples": 1, "winner": 1.0},
    ]
    assert gains.by_difficulty({"a": [0.5]}, {"x": {"a": [1.0]}}) == []


def test_a_gain_that_one_tenth_makes_does_not_survive() -> None:
    source = {"a": [0.0] * 20}
    even = gains.without_tenths({"a": [1.0] * 20}, source)
    assert even == {"smallest": 1.0, "largest": 1.0, "above_0": 10, "of": 10}
    lucky = {"a": [1.0 if at % 10 == 3 else 0.0 for at in range(20)]}
    found = gains.without_tenths(lucky, source)
    assert found is not None
    assert (found["smallest"], found["above_0"]) == (0.0, 9)
    assert gains.without_tenths({"a": [1.0]}, {"a": [0.0]}) is None


def test_a_gain_of_one_tenth_is_called_so() -> None:
    found = {"smallest": -0.01, "largest": 0.1, "above_0": 9, "of": 10}
    said = " ".join(verdict(audit(tenths=found), GAIN))
    assert "Without some tenths of the examples there is no gain: 9 of 10 leave one" in said
    assert "survive" not in said


def test_answers_at_the_limit_are_counted_by_model_and_split() -> None:
    line = {"split": "test", "label": "ja", "ends": {"sums": [10, 4, 50]}}
    genomes = [{"split": "search", "label": f"genome {at}", "ends": {"sums": [5, at, 20]}} for at in range(2)]
    found = at_the_limit([line, *genomes, {"split": "test", "label": "old"}])
    assert found == {
        "test": {"ja": {"answers": 10, "share": 0.4, "mean_tokens": 5.0}},
        "search": {"genomes": {"answers": 10, "share": 0.1, "mean_tokens": 4.0}},
    }


def test_a_merge_with_random_masks_has_a_row_for_each_of_them() -> None:
    """Its own name would be one row more than was scored; where it has no masks, it has a row."""
    baselines = {"dare_ties": {"score": 0.5, "masks": {"0": 0.4, "1": 0.6}}, "ties": {"score": 0.5}}
    summary: Any = {"recipe_digest": "d", "validation": {"candidates": []}, "test": {"baselines": baselines}}
    labels = ["ja", "ties", "dare_ties", "dare_ties, mask seed 0", "dare_ties, mask seed 1"]
    lines = [{"split": "test", "label": each, "ends": {"sums": [10, 4, 50]}} for each in labels]
    found = at_the_limit(line for line in lines if counts(line, summary))
    assert [*found["test"]] == ["dare_ties, mask seed 0", "dare_ties, mask seed 1", "ja", "ties"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"difference": 0.1, "low": 0.05, "high": 0.15}, "holds at twice the length (+0.100, 95 % +0.050 to +0.150"),
        ({"difference": -0.01, "low": -0.1, "high": 0.1}, "vanishes at twice the length"),
        ({"difference": 0.05, "low": -0.01, "high": 0.1}, "is not settled at twice the length"),
        ({"unchanged": True, "difference": 0.1, "low": 0.05, "high": 0.15}, "(no answer reached the limit)"),
        ({"unchanged": True, "difference": -0.01, "low": -0.1, "high": 0.1}, "holds at twice the length (no answer"),
    ],
)
def test_the_verdict_follows_from_the_numbers(change: dict[str, object], said: str) -> None:
    assert said in " ".join(verdict(audit(length={**CHANGED, **change}), GAIN))


def test_the_verdict_says_what_was_not_checked_and_what_is_wrong() -> None:
    reasons = {"sums": "it has no second wording of its prompt (second_prompt)"}
    found = audit(
        wording={"not_checked": reasons, "unchanged": False},
        at_the_limit={"test": {"winner": {"answers": 10, "share": 0.5, "mean_tokens": 8.0}}},
        reload={"sums": {"score": 0.4, "before": 0.5, "other_answers": 3, "of": 10}},
        duplicates={"sums": {"search": {"near": 2, "of": 10, "largest": 0.9}}},
    )
    said = " ".join(verdict(found, GAIN))
    assert "It was not checked with another prompt on sums: it has no second wording" in said
    assert "cut at the limit of tokens: winner 50%" in said
    assert "(3 of 10 answers differ)" in said
    assert "2 of 10 are nearly the same as search examples" in said
    none = audit(duplicates={"sums": {"search": {"near": 0, "of": 10, "largest": 0.5}}})
    expected = "No test example of sums is nearly the same as one of the search examples (the nearest two share 50%"
    assert any(each.startswith(expected) for each in verdict(none, GAIN))
    assert "not told from none" in verdict(found, {**GAIN, "low": -0.01})[0]
    loss = verdict(found, {**GAIN, "difference": -0.12, "low": -0.16, "high": -0.08})[0]
    assert loss == "The gain of -0.120 (95 % -0.160 to -0.080) is a loss: the winner is worse than the best source, ja."
    assert "no gain to be audited" in verdict(found, {**GAIN, "difference": None})[0]


def test_the_verdict_says_what_a_sceptic_asks() -> None:
    """What the winner has lost, how much is form, and the gain on the same examples without the change."""
    rows = [
        {"solved_by": 0, "examples": 50, "winner": 0.6},
        {"solved_by": 1, "examples": 30, "winner": 0.9},
        {"solved_by": 2, "examples": 10, "winner": 0.5},
    ]
    wrong = {"of": 100, "wrong": 30, "wrong content": 20}
    errors = {"sums": {"winner": wrong, "ja": {**wrong, "empty": 4, "right number, not accepted": 6}}}
    found = audit(best_source="ja", difficulty=rows, errors=errors, wording={**CHANGED, "difference": 0.1, "low": 0.05,
                  "high": 0.15, "before": 0.2})  # fmt: skip
    said = verdict(found, GAIN)
    assert "The winner solves 60% of the 50 examples that no source solves." in said
    assert "The winner fails on 20% of the 40 that a source solves." in said  # 3 of 30, and 5 of 10
    assert any("are wrong in form" in each for each in said)
    assert any("0 of the winner's 100 answers to sums, and 10 of ja's, are wrong" in each for each in said)
    assert "100 examples; without the change +0.200 on these" in said[0]
    errors = {"sums": {"winner": wrong, "ja": wrong}}
    assert not any("form" in each for each in verdict(audit(best_source="ja", errors=errors), GAIN))


@pytest.mark.parametrize(("examples", "before"), [(2, 0.5), (4, None)])
def test_the_gain_without_a_change_is_of_the_examples_that_were_asked(examples: int, before: float | None) -> None:
    def ask(recipe: Any, name: str, split: str, places: Any, change: str) -> tuple[list[GivenAnswer], str | None]:
        return [GivenAnswer("", float(recipe == "merge"), tokens=1, cut=False) for _ in places], None

    class Four(Counted):
        def size(self, split: str) -> int:
            return 4

    models: Any = {"winner": "merge", "ja": "source"}
    benchmarks: Any = {"sums": Four()}
    asking = Asking(audit_plan(["wording"], examples, 8), benchmarks, models, ask)
    scores = {"winner": {"sums": [1.0, 1.0, 1.0, 1.0]}, "ja": {"sums": [1.0, 0.0, 0.0, 0.0]}}
    found: Any = audited(asking.plan, asking, scores, ["ja"], "ja", [])
    assert found["wording"]["n"] == examples
    assert found["wording"].get("before") == before


def test_a_second_wording_takes_the_place_of_the_last_question() -> None:
    doc = {"question": "1+1?", "answer": "2"}
    assert reworded("sums", "Q: 1+1? A: 2\n\nQ: 1+1? A:", "Q: 1+1? A:", doc, "What is {question}") == (
        "Q: 1+1? A: 2\n\nWhat is 1+1?"
    )
    with pytest.raises(ValueError, match=r"second_prompt: expected names of fields of sums, .*got \['text'\]"):
        reworded("sums", "Q: 1+1? A:", "Q: 1+1? A:", doc, "{text}")
    with pytest.raises(ValueError, match="is not found in its own prompt"):
        reworded("sums", "other", "Q: 1+1? A:", doc, "{question}")


class Counted:
    """A benchmark whose models write answers of some tokens."""

    name, families = "sums", ("causal_lm",)

    def __init__(self, reason: str | None = None) -> None:
        self._reason = reason

    def size(self, split: str) -> int:
        return 3

    def identity(self) -> dict[str, object]:
        return {"kind": "counted"}

    def __call__(self, live: object, split: str, examples: object = None) -> Any:
        raise AssertionError

    def ends(self) -> tuple[int, int, int]:
        return 0, 0, 0

    def lacks(self, change: str) -> str | None:
        return self._reason

    def shots(self) -> list[str]:
        return []

    def asked(self, live: object, split: str, examples: Any, change: str = "none") -> list[GivenAnswer]:
        return [GivenAnswer("", 1.0, tokens=5 + place) for place in examples]


def test_the_length_of_answers_is_a_score_of_its_own() -> None:
    live: Any = None
    (made,) = answer_length("length", of=lambda name: {name: Counted()}).values()
    assert made(live, "test").tolist() == [-5.0, -6.0, -7.0]
    assert made(live, "test", [2]).tolist() == [-7.0]
    assert made.identity() == {"kind": "counted", "counted": "tokens"}
    with pytest.raises(ValueError, match=r"benchmark\.length\.of: expected one benchmark whose models write answers"):
        answer_length("length", of=lambda name: {name: Counted("its models choose")})


def test_gains_of_changed_prompts_count_benchmarks_as_the_fitness_does() -> None:
    """Weights 3 and 0: of a gain of 0.5 in one benchmark alone and none in the other, 1.5 and not 0.25."""

    def ask(recipe: Any, name: str, split: str, examples: Any, change: str) -> tuple[list[GivenAnswer], str | None]:
        scores = [1.0, 1.0, 0.5] if recipe == "merge" and name == "sums" else [0.5, 0.5, 0.0]
        return [GivenAnswer("", score, tokens=1, cut=False) for score in scores], None

    def found(weights: Any) -> Any:
        models: Any = {"winner": "merge", "ja": "source"}
        benchmarks: Any = {"sums": Counted(), "length": Counted()}
        return Asking(audit_plan("all", 3, 8), benchmarks, models, ask, weights).changed("wording", "ja")["difference"]

    assert found(None) == pytest.approx(0.25)
    assert found({"sums": 3.0, "length": 0.0}) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([{"ends": {"a": [4, 4, 32]}, "broken": None}], "All 4 answers of the first genomes were cut at the limit"),
        ([{"ends": {}, "broken": "all answers are empty"}], "Of all genomes so far all answers are empty. Likely"),
    ],
)
def test_a_search_that_learns_nothing_is_warned_of(
    lines: list[dict[str, Any]], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept = [{"label": "genome 0", "error": None, **line} for line in lines]
    store: Any = SimpleNamespace(entries=lambda _: kept)
    doubts = Doubts(store)
    for index in range(ENOUGH + 2):
        doubts(Record(index, 0, [0.0], {}, "r", None if index == 0 else 0.5, {}))
    assert sum(said in each for each in caplog.messages) == 1
    assert sum("all have the fitness 0.5000" in each for each in caplog.messages) == 1
    caplog.clear()
    learning = Doubts(SimpleNamespace(entries=lambda _: []))  # type: ignore[arg-type]
    for index in range(ENOUGH):
        learning(Record(index, 0, [0.0], {}, "r", index / 10, {}))
    assert not caplog.messages


class Drawn:
    """A benchmark whose models draw."""

    name, families, album = "drawn", ("diffusion",), "drawn"

    def size(self, split: str) -> int:
        return 3

    def examples(self, split: str) -> list[SimpleNamespace]:
        texts = {"search": ["a red boat on a wide lake", "b", "c"], "test": ["A red boat on a wide lake", "d", "e"]}
        return [SimpleNamespace(text=text) for text in texts[split]]


def test_prompts_of_pictures_are_compared_and_what_is_not_checked_is_said() -> None:
    asking = Asking(audit_plan(["duplicates"], 10, 8), {"drawn": Drawn()}, {}, lambda *_: ([], None))  # type: ignore[dict-item]
    scores = {"winner": {"drawn": [1.0, 0.5, 0.5]}, "ja": {"drawn": [0.0, 0.5, 0.5]}}
    found: Any = audited(asking.plan, asking, scores, ["ja"], "ja", [])
    assert (found["duplicates"]["drawn"]["search"]["near"], found["duplicates"]["drawn"]["search"]["of"]) == (1, 3)
    assert found["duplicates"]["drawn"]["gain_without"]["difference"] == 0.0
    said, of_scorer = found["not_checked"]
    assert said.startswith("Of drawn length, wording and errors were not checked: its models draw pictures.")
    assert of_scorer.startswith("One scorer judged the pictures of drawn in the search and on test.")


def test_options() -> None:
    assert audit_plan("all", 5, 8).parts == PARTS
    assert audit_plan("none", 5, 8).parts == audit_plan(False, 5, 8).parts == ()
    assert audit_plan(["tenths"], 5, "all").answers is None


def test_difficulty_is_of_scores_without_weights() -> None:
    """A benchmark that counts 0.7 has scores of 0 and 1.4 in the fitness, and is solved or not all the same."""
    asking = Asking(audit_plan(["difficulty"], 10, 8), {}, {}, lambda *_: ([], None))
    plain = {"winner": {"a": [1.0, 0.0]}, "ja": {"a": [0.0, 0.0]}}
    weighted = {name: {"a": [1.4 * value for value in each["a"]]} for name, each in plain.items()}
    found = audited(asking.plan, asking, weighted, ["ja"], "ja", [], plain)
    assert found["difficulty"] == [{"solved_by": 0, "examples": 2, "winner": 0.5}]
