"""Searches one after the other, each over recipes of the one before (generations)."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from evohydra.assembly import composition
from evohydra.assembly.composition import given_before
from evohydra.assembly.generations import generation
from evohydra.assembly.handing_on import hand_on
from evohydra.assembly.runs import make_run
from evohydra.files import Plain
from evohydra.rebuild import make
from evohydra.recipe import Checkpoint, Group, Hop, LayerNames, Merge, Node, Stack, children, from_dict
from evohydra.replay import replayed
from evohydra.report.gathering import gather
from evohydra.report.lineage import called, lineage, lineage_blocks
from evohydra.report.recipe_figures import recipe_figures
from evohydra.report.style import looking
from evohydra.run import Run
from evohydra.scoring.benchmarks.likelihood import likelihood_name
from evohydra.searching.keeping import kept, parents
from evohydra.searching.ledger import Record
from tests.commands import json_lines, workspace
from tests.test_continue import with_hydras_files

A, B, C = (Checkpoint(name, name) for name in "abc")
PLACE = {"name": "run", "group": None}


def record(index: int, scores: list[float], **more: Any) -> Record:
    named = {"task": scores} if scores else {}
    fitness = sum(scores) / len(scores) if scores else None
    return Record(**{"index": index, "generation": 0, "genome": [0.5], "genes": {}, "recipe": str(index),
                     "fitness": fitness, "scores": named, **more})  # fmt: skip


RECORDS = [
    record(0, [1, 1, 0, 0, 0, 0]),
    record(1, [1, 1, 1, 0, 0, 0]),  # the best
    record(2, [1, 1, 0, 0, 0, 0], recipe="0"),  # the same recipe as 0
    record(3, [0, 0, 0, 0, 1, 1]),  # solves others
    record(4, [0, 1, 1, 0, 0, 0]),
    record(5, []),
]


def test_which_genomes_are_handed_on() -> None:
    assert [each.index for each in kept(RECORDS, "best", 3)] == [1, 0, 3]
    assert [each.index for each in kept(RECORDS, "diverse", 2)] == [1, 3]
    assert [each.index for each in kept(RECORDS, "best", 9)] == [1, 0, 3, 4]  # different recipes that have a score
    # Of four, each example has one point to share: 4 gets 1/3 + 1/2 and leaves, then 0 gets 1/2 + 1/2 and leaves.
    assert [each.index for each in kept(RECORDS, "niche", 3)] == [1, 0, 3]
    assert [each.index for each in kept(RECORDS, "niche", 2)] == [1, 3]
    assert [each.index for each in kept(RECORDS[:1], "diverse", 3)] == [0]


def test_scores_are_compared_by_example() -> None:
    apart = [record(0, [1.0, 0.0]), record(1, [0.0, 1.0], examples={"task": [2, 3]})]
    assert [each.index for each in kept(apart, "best", 2)] == [0, 1]
    for rule in ("diverse", "niche"):
        with pytest.raises(ValueError, match="expected genomes that were all scored on the same examples"):
            kept(apart, rule, 2)  # type: ignore[arg-type]
    # The same examples in another order.
    turned = [record(0, [1.0, 0.0, 0.5]), record(1, [0.0, 0.4, 1.0], examples={"task": [1, 2, 0]}),
              record(2, [0.3, 1.0, 0.0])]  # fmt: skip
    assert [each.index for each in kept(turned, "diverse", 2)] == [0, 2]


def test_of_scores_of_two_kinds_those_that_all_have_are_compared() -> None:
    """A search by log-likelihoods scores some genomes by the metric, too, on other examples."""
    likely = likelihood_name("task", "token", "log")
    rows: list[tuple[list[float], dict[str, list[float]]]] = [
        ([-1.0, -2.0, -9.0], {}),
        ([-2.0, -1.5, -9.0], {"task": [1.0]}),
        ([-9.0, -9.0, -2.0], {}),
    ]
    found = [
        replace(
            record(at, values),
            scores={likely: values, **more},
            examples={likely: [0, 1, 2], **{name: [7] for name in more}},
        )
        for at, (values, more) in enumerate(rows)
    ]
    assert [each.index for each in kept(found, "best", 2)] == [0, 1]
    assert [each.index for each in kept(found, "diverse", 2)] == [0, 2]


def test_limits_come_first() -> None:
    broken = [record(0, [1.0, 1.0], limits={"a": -0.1}), record(1, [0.0, 0.5], limits={"a": 0.1})]
    assert [each.index for each in kept(broken, "best", 1)] == [1]


def test_how_much_comes_from_each_parent() -> None:
    sources: dict[str, Node] = {"a": A, "b": B}
    groups = (Group("x", ("t",), {"weight": (3.0, -1.0)}), Group("y", ("u",), {"weight": (1.0, 1.0)}))
    merge = Merge("task_arithmetic", C, (A, B), groups)
    assert parents(merge, sources) == pytest.approx({"a": 2 / 3, "b": 1 / 3})
    assert parents(Merge("slerp", None, (A, B), (Group("x", ("t",), {"t": 0.9}),)), sources) == {"a": 0.5, "b": 0.5}
    path = Stack((A, B, merge), (Hop(0, 0), Hop(0, 1), Hop(1, 1), Hop(2, 0)), LayerNames("l", "e", "a", "m"))
    assert parents(path, sources) == pytest.approx({"a": 0.5 + 0.25 * 2 / 3, "b": 0.25 + 0.25 / 3})
    assert parents(A, sources) == {"a": 1.0}


def plain_of(arguments: list[str]) -> Plain:
    return composition.composed(arguments)


def test_generations_share_the_budget_and_change_the_merge(tmp_path: Path) -> None:
    given = ["generations=3", "budget=20", "merge=ties", "merge.parameter.granularity.layers=whole", "model=tiny_ja",
             'generations_then=["merge=linear","optimizer.population=5 merge=slerp"]']  # fmt: skip
    plain = plain_of(given)
    made = [generation(plain, number, tmp_path, given) for number in (1, 2, 3)]
    assert [settings["budget"] for settings, _ in made] == [7, 7, 6]
    assert [settings["merge"]["parameter"]["method"] for settings, _ in made] == ["ties", "linear", "slerp"]
    assert [settings.get("continue") for settings, _ in made] == [
        None, [str(tmp_path / "generation_1")], [str(tmp_path / "generation_2")],
    ]  # fmt: skip
    assert made[0][1] == given
    assert all(not text.startswith(("model=", "merge=ties", "merge.par")) for text in made[1][1])
    assert all(settings["generations"] == 1 for settings, _ in made)
    # Without an entry of its own a generation has the last one's; without any nothing changes.
    given = ["generations=3", "budget=20", 'generations_then=["merge=linear"]', "+model.sources.tiny_ja.dtype=float32"]
    assert generation(plain_of(given), 2, tmp_path, given)[1] == [*given[:3], "merge=linear"]
    assert generation(plain_of(given), 3, tmp_path, given)[0]["merge"]["parameter"]["method"] == "linear"
    given = ["generations=2", "budget=auto", "optimizer=cmaes"]
    assert generation(plain_of(given), 2, tmp_path, given)[0]["budget"] == 102
    assert generation(plain_of(given), 2, tmp_path, given)[0]["merge"] == plain_of(given)["merge"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["generations=0"], "generations: expected a whole number of at least 1 and at most 10, got 0"),
        (["generations_keep=worst"], "generations_keep: expected best, diverse or niche, got 'worst'"),
        (["generations=9", "generations_sources=4"], "expected recipes with at most 1000 others in them, got 65536"),
        (
            ['generations_then=["seed=3"]'],
            r"generations_then: expected changes of merge and optimizer alone, got 'seed",
        ),
        (['generations_then=["merge=tis"]'], "generations_then: unknown merge tis"),
        (['generations_then=["merge=ties","merge=ties"]'], "generations_then: expected at most 1 entries"),
        (
            ["model=tiny_lora_ja+tiny_lora_plus", "format=lora", "tracker=none", 'generations_then=["merge=ties"]'],
            "generation 2 of 2: format=lora: expected merges of adapters, or .* got ties of recipes that are merges",
        ),
        (["backend.genomes=adapters"], r"backend\.genomes=adapters: with generations or continue sources are merges"),
        (["merge=dfs"], "a path through layers can only be searched in the last one"),
    ],
)
def test_what_does_not_fit_is_refused(given: list[str], message: str, tmp_path: Path) -> None:
    given = [*([] if any(each.startswith("generations=") for each in given) else ["generations=2"]), *given]
    with pytest.raises(ValueError, match=message):
        hand_on(plain_of(given), tmp_path, PLACE, given, Console(file=io.StringIO()))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["fitness=racing"], r"generation 1 of 3: generations_keep=diverse: expected a kind of fitness .* got racing"),
        (["fitness=irt", "generations_keep=niche"], r"generation 1 of 3: generations_keep=niche: .* got"),
        (["fitness=subset"], r"generation 1 of 3: generations_keep=diverse: .* got subset"),
        # Only an optimizer of a later generation has generations of 7.
        (
            ["budget=18", "optimizer.population=6", 'generations_then=["optimizer=cmaes optimizer.population=7"]'],
            r"generation 2 of 3: budget=6 is smaller than the first generation of 7 genomes",
        ),
        (
            ['generations_then=["merge=linear","merge=dfs merge.dataflow.first=nobody"]'],
            r"generation 3 of 3: .*nobody",
        ),
        (
            ['generations_then=["merge=slerp"]', "generations_sources=3"],
            "generation 2 of 3: slerp takes exactly 2 models, got 3",
        ),
    ],
)
def test_what_a_later_generation_would_refuse_is_refused_before_anything_is_scored(
    given: list[str], message: str, tmp_path: Path
) -> None:
    run, arguments = tmp_path / "run", [*workspace(tmp_path), "budget=18", "merge=linear", "generations=3", *given]
    with pytest.raises(ValueError, match=message):
        hand_on(plain_of(arguments), run, PLACE, arguments, Console(file=io.StringIO()))
    assert not run.exists()


@pytest.mark.parametrize("given", [["fitness=racing", "generations_keep=best"], ["fitness=full"]])
def test_what_can_begin_is_not_refused(given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(*_: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(Run, "searched", begin)
    arguments = [*workspace(tmp_path), "budget=18", "merge=linear", "generations=3", *given]
    with pytest.raises(InterruptedError):
        hand_on(plain_of(arguments), tmp_path / "run", PLACE, arguments, Console(file=io.StringIO()))


def carried_out(arguments: list[str], directory: Path) -> tuple[Any, str]:
    """A run of several generations in this process: its summary, and what the earlier ones said."""
    said = Console(file=io.StringIO(), width=200)
    hand_on(plain_of(arguments), directory, PLACE, arguments, said)
    return with_hydras_files(arguments, directory), said.file.getvalue()  # type: ignore[attr-defined]


def levels(node: Node) -> int:
    return 0 if isinstance(node, Checkpoint) else 1 + max(map(levels, children(node)))


def test_three_generations(tmp_path: Path) -> None:
    """Parameter space, again, and then paths through what they found; killed on the way."""
    arguments = [*workspace(tmp_path), "budget=18", "top=1", "baselines=null", "audit=none", "generations=3",
                 "generations_sources=2", "merge=linear",
                 'generations_then=["merge=linear","merge=dfs_slot merge.dataflow.repeats=1"]']  # fmt: skip
    run = tmp_path / "run"
    summary, said = carried_out(arguments, run)
    assert "generation 1 hands on genome" in said
    # Only the last generation looks at validation and test, and each has its share of the budget.
    for number in (1, 2):
        room = run / f"generation_{number}"
        assert {line["split"] for line in json_lines(room / "scores.jsonl")} == {"search"}
        assert len(json_lines(room / "ledger.jsonl")) == 6
        assert not list(room.glob("**/*.safetensors"))
        assert len(json.loads((room / "kept.json").read_text())["recipes"]) == 2
    assert len(json_lines(run / "ledger.jsonl")) == 6
    assert {line["split"] for line in json_lines(run / "scores.jsonl")} == {"search", "validation", "test"}
    content = json.loads((run / "recipe.json").read_text())
    node = from_dict(content["recipe"])
    assert isinstance(node, Stack)
    assert levels(node) == 2  # averages of averages are averages of the models
    handed_on = json.loads((run / "generation_2" / "kept.json").read_text())["recipes"]
    assert [levels(from_dict(each["recipe"])) for each in handed_on] == [1, 1]
    # It is made again from the original sources alone, bit for bit.
    assert make(run / "recipe.json", tmp_path / "again", {}).identical is True
    # Who comes from whom.
    (job,) = gather([run])
    models = {each.name: each for each in lineage(job)}
    assert [each.generation for each in models.values()] == [0] * (len(models) - 5) + [1, 1, 2, 2, 3]
    for each in models.values():
        assert all(models[name].generation == each.generation - 1 for name in each.parents)
        assert not each.generation or sum(each.parents.values()) == pytest.approx(1)
    assert set(called(job).values()) == {each.name for each in models.values() if each.generation == 2}
    rows = recipe_figures(from_dict(content["recipe"]), called(job))["path"].rows
    assert {row[2] for row in rows} <= set(called(job).values())  # the sources of the path have their names
    with looking("screen"):
        figure, table = lineage_blocks(job)
    assert figure.name == "lineage"  # type: ignore[union-attr]
    assert len(table.rows) == 5  # type: ignore[union-attr]
    made = make_run(plain_of(arguments), run, PLACE, given_before(run))
    assert isinstance(made, Run)
    assert replayed(made, Console(file=io.StringIO())) == 6  # the last generation follows from what is on file
    # Killed where generation 2 had scored two genomes: nothing but those in flight is scored again.
    before = {room: (room / "scores.jsonl").read_bytes() for room in (run, run / "generation_1", run / "generation_2")}
    ledger = run / "generation_2" / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:2]))
    (run / "generation_2" / "kept.json").unlink()
    for name in ("ledger.jsonl", "summary.json", "recipe.json"):
        (run / name).unlink()
    shutil.rmtree(run / "winner")
    again, _ = carried_out(arguments, run)
    assert again["recipe_digest"] == summary["recipe_digest"]
    assert [json.loads(line)["recipe"] for line in ledger.read_bytes().splitlines()] == [
        json.loads(line)["recipe"] for line in lines
    ]
    assert {room: (room / "scores.jsonl").read_bytes() for room in before} == before
    # Another seed is another run.
    with pytest.raises(ValueError, match="seed"):
        hand_on(plain_of([*arguments, "seed=5"]), run, PLACE, arguments, Console(file=io.StringIO()))
