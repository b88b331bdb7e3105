"""Searching on examples that are drawn anew for each generation (arXiv 2403.13187, section 4.1: batches of 200)."""

from pathlib import Path

from evohydra.searching.fitness.order import drawn
from tests.commands import carried_out, json_lines, workspace


def test_the_draw_repeats_itself_and_differs_between_generations() -> None:
    sizes = {"many": 100, "few": 3}
    first = drawn(sizes, 10, seed=1, generation=0)
    assert first == drawn(sizes, 10, seed=1, generation=0)
    assert first["few"] == [0, 1, 2]
    assert len(set(first["many"])) == 10
    assert first["many"] == sorted(first["many"])
    assert first != drawn(sizes, 10, seed=1, generation=1)
    assert first != drawn(sizes, 10, seed=2, generation=0)
    seen = {place for generation in range(60) for place in drawn(sizes, 10, 1, generation)["many"]}
    assert seen == set(range(100))


def test_a_run_scores_each_generation_on_its_own_examples(tmp_path: Path) -> None:
    arguments = [*workspace(tmp_path), "fitness=subset", "fitness.examples=4", "budget=18", "top=1", "baselines=null"]
    summary = carried_out(arguments, tmp_path / "run")
    lines = json_lines(tmp_path / "run" / "ledger.jsonl")
    assert all(len(line["scores"]["lm_eval"]) == 4 for line in lines)
    # The best of each generation, whose scores cannot be compared with those of others, is a candidate.
    best = [max(lines[at : at + 6], key=lambda line: line["fitness"])["index"] for at in (0, 6, 12)]
    assert sorted(each["index"] for each in summary["validation"]["candidates"]) == best
    winner = next(each for each in summary["validation"]["candidates"] if each["index"] == summary["search"]["index"])
    assert winner["validation"] == max(each["validation"] for each in summary["validation"]["candidates"])
    # The same command again replays the run.
    assert carried_out(arguments, tmp_path / "run")["recipe_digest"] == summary["recipe_digest"]
    assert json_lines(tmp_path / "run" / "ledger.jsonl") == lines
