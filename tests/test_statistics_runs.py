"""Runs whose merge methods weigh sources by their activations: the pass before the search, and its files."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from evohydra import rebuild, replay
from evohydra.assembly import composition
from evohydra.assembly.reading import AS_RECORDED
from evohydra.assembly.runs import make_run
from evohydra.hub.hashes import sha256_of
from evohydra.merging.statistics import StatisticsError, StatisticsFile, StatisticsFiles, digest_of, opened
from evohydra.scoring.gathering import course
from evohydra.searching.ledger import LedgerError
from tests.commands import built, carried_out, python, workspace
from tests.kill_repeatedly import content
from tests.test_bad_settings import refused, without

READING = ("regmean", "regmean_plus_plus", "activation", "fisher")
FEW = ["baselines=null", "budget=6", "top=1", "audit=none", "merge.parameter.statistics.prompts=5"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, task and conf/, the arguments of a run of each method, and that run."""
    root = tmp_path_factory.mktemp("statistics")
    arguments = [*workspace(root), *FEW]
    (root / "arguments.json").write_text(json.dumps(arguments))
    for merge in READING:
        carried_out([*arguments, f"merge={merge}"], root / merge)
    return root


@pytest.fixture
def arguments(root: Path) -> list[str]:
    given: list[str] = json.loads((root / "arguments.json").read_text())
    return given


def files_of(run: Path) -> list[Path]:
    return sorted((run / "statistics").glob("*.safetensors"))


def recipe_of(run: Path) -> dict[str, Any]:
    recipe: dict[str, Any] = json.loads((run / "recipe.json").read_text())
    return recipe


@pytest.mark.parametrize("merge", READING)
def test_a_run_knows_its_files_and_its_winner_is_made_again(merge: str, root: Path, tmp_path: Path) -> None:
    run, recipe = root / merge, recipe_of(root / merge)
    ((named, files),) = recipe["statistics"].items()
    assert recipe["recipe"]["options"]["statistics"] == named
    assert sorted(each["file"] for each in files.values()) == [file.name for file in files_of(run)]
    assert files.keys() == {"one", "two"}
    for name, each in files.items():
        _, how = opened(run / "statistics" / each["file"])
        assert (how["source"], how["key"]["prompts"]) == (name, 5)
    assert set(json.loads((run / "run.json").read_text())["search"]["statistics"].values()) == {
        each["sha256"] for each in files.values()
    }
    made = python("-m", "evohydra.rebuild", run / "winner" / "recipe.json", "out", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "identical, bit for bit" in made.stdout
    assert "search" not in recipe["statistics"]
    assert "`--statistics DIRECTORY` says where they are." in (run / "winner" / "README.md").read_text()


@pytest.mark.parametrize("merge", READING)
def test_a_merge_is_another_one_than_the_average(merge: str, root: Path) -> None:
    """At the defaults it is, for tensors of which something was found, none that weights alone can give."""
    one, two, winner = (
        load_file(place / "model.safetensors") for place in (root / "one", root / "two", root / merge / "winner")
    )
    name = "model.layers.1.mlp.up_proj.weight"
    group = next(each for each in recipe_of(root / merge)["recipe"]["groups"] if name in each["tensors"])
    first, second = group["parameters"]["weight"]
    average = (first * one[name] + second * two[name]) / (first + second)
    if first * second:
        assert float((winner[name] - average).abs().max()) > 1e-5  # an average has roundings of 1e-8
    norm = "model.layers.1.input_layernorm.weight"
    if merge != "fisher" and first * second:
        torch.testing.assert_close(winner[norm], (first * one[norm] + second * two[norm]) / (first + second))


def test_files_that_are_missing_changed_or_elsewhere(root: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    copy = Path(shutil.copytree(root / "regmean", tmp_path / "copy"))

    def rebuilt(*options: object) -> str:
        monkeypatch.setattr(
            "sys.argv", ["rebuild", str(copy / "recipe.json"), str(tmp_path / "out"), *map(str, options)]
        )
        try:
            rebuild.main()
        except SystemExit as ending:
            return str(ending.code)
        return capsys.readouterr().out

    moved = tmp_path / "moved"
    (copy / "statistics").rename(moved)
    lost = rebuilt("--overwrite")
    assert "statistics of the source 'one': expected the file" in lost
    assert "--statistics DIRECTORY says where it is now" in lost
    assert "identical" in rebuilt("--statistics", moved)
    file = moved / recipe_of(copy)["statistics"].popitem()[1]["two"]["file"]
    tensors, (_, how) = load_file(file), opened(file)
    first = next(iter(tensors))
    save_file({**tensors, first: tensors[first] * 2}, file, metadata={"evohydra": json.dumps(dict(how))})
    assert "statistics of the source 'two'" in (changed := rebuilt("--overwrite", "--statistics", moved))
    assert "has changed: expected the SHA-256" in changed
    file.write_bytes(b"nothing")
    assert "has changed" in rebuilt("--overwrite", "--statistics", moved)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda told: {"0" * 64: next(iter(told.values()))}, "expected the digest"),
        (
            lambda told: {key: {"one": {"file": "../../x", "sha256": "0" * 64}} for key in told},
            "expected the name of a",
        ),
        (lambda told: {key: {"one": {"file": "a"}} for key in told}, "sha256"),
        (lambda told: [], "statistics"),
        (lambda told: {}, "names statistics of activations"),
    ],
)
def test_a_damaged_recipe(change, expected: str, root: Path, tmp_path: Path) -> None:
    recipe = recipe_of(root / "regmean")
    (tmp_path / "recipe.json").write_text(json.dumps({**recipe, "statistics": change(recipe["statistics"])}))
    with pytest.raises(ValueError, match=expected):
        rebuild.make(tmp_path / "recipe.json", tmp_path / "out", {}, statistics=root / "regmean" / "statistics")
    assert not (tmp_path / "out").exists()


def test_a_run_goes_on_with_its_files_and_a_pass_that_was_killed_with_the_next_source(
    root: Path, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, given = tmp_path / "run", [*arguments, "merge=activation"]
    by_itself, read = course._by_itself, []

    def killed(*of: Any) -> StatisticsFile:
        if read:
            raise KeyboardInterrupt
        read.append(of[-1].name)
        return by_itself(*of)

    monkeypatch.setattr(course, "_by_itself", killed)
    with pytest.raises(KeyboardInterrupt):
        built(given, run)
    (first,) = files_of(run)
    before = first.stat().st_mtime_ns

    def second(*of: Any) -> StatisticsFile:
        read.append(of[-1].name)
        return by_itself(*of)

    monkeypatch.setattr(course, "_by_itself", second)
    carried_out(given, run)
    assert read == ["one", "two"]
    assert first.stat().st_mtime_ns == before
    assert not list((run / "statistics").glob(".*partial"))
    carried_out([*given, "budget=12"], run)  # goes on, and reads nothing again
    assert read == ["one", "two"]
    assert recipe_of(run)["statistics"] == recipe_of(root / "activation")["statistics"]


def test_other_statistics_are_another_run(arguments: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    carried_out([*arguments, "merge=activation"], run)
    file = files_of(run)[0]
    tensors, (_, how) = load_file(file), opened(file)
    first = next(iter(tensors))
    save_file({**tensors, first: tensors[first] * 2}, file, metadata={"evohydra": json.dumps(dict(how))})
    file.with_name(f"{file.name}.sha256").write_text(f"{sha256_of(file)}  {file.name}\n")
    with pytest.raises(LedgerError, match=r"another configuration or other data .*statistics"):
        carried_out([*arguments, "merge=activation", "budget=12"], run)
    file.write_bytes(b"{}")
    with pytest.raises(StatisticsError, match="expected statistics of activations as evohydra writes them"):
        built([*arguments, "merge=activation"], run)


def test_several_workers_read_the_drivers_files(arguments: list[str], root: Path, tmp_path: Path) -> None:
    workers = ["executor=processes", "executor.workers=2"]
    carried_out([*arguments, "merge=regmean", *workers], tmp_path / "regmean")
    expected, found = content(root / "regmean"), content(tmp_path / "regmean")
    assert [key for key in expected if expected[key] != found.get(key)] == []


def test_a_named_directory_is_shared_and_what_is_elsewhere_changes_no_run(
    arguments: list[str], root: Path, tmp_path: Path
) -> None:
    place = tmp_path / "kept"
    named = [*arguments, "merge=activation", f"merge.parameter.statistics.directory={place}"]
    run = built([*named, "merge.parameter.statistics.memory_gb=0.000001"], tmp_path / "run")
    stamps = {file: file.stat().st_mtime_ns for file in place.glob("*.safetensors")}
    assert len(stamps) == 2
    assert not files_of(tmp_path / "run")
    again = built([*named, "seed=2"], tmp_path / "again")
    assert {file: file.stat().st_mtime_ns for file in place.glob("*.safetensors")} == stamps
    assert run.identity.search.statistics == again.identity.search.statistics
    usual = built([*arguments, "merge=activation"], root / "activation").identity.to_dict()
    assert run.identity.to_dict() == usual
    fewer = built([*named, "merge.parameter.statistics.prompts=4"], tmp_path / "fewer")
    assert len(list(place.glob("*.safetensors"))) == 4
    assert fewer.identity.search.statistics != run.identity.search.statistics


def test_another_run_is_refused_before_its_sources_read_texts(arguments: list[str], root: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(root / "activation", tmp_path / "run"))
    before = files_of(run)
    more = ["merge=activation", "budget=12", "merge.parameter.statistics.prompts=6"]
    with pytest.raises(LedgerError, match=r"another configuration .*statistics.prompts was 5, is now 6"):
        built([*arguments, *more], run)
    assert files_of(run) == before


def scaled(source: Path, target: Path, by: float) -> Path:
    """A copy of a model whose feed-forward weights are multiplied."""
    shutil.copytree(source, target)
    weights = load_file(source / "model.safetensors")
    changed = {name: tensor * by if ".mlp." in name else tensor for name, tensor in weights.items()}
    save_file(changed, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_weights_that_no_genome_can_have_are_told_before_texts_are_read(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evohydra.assembly.runs.gathered", None)  # is not called
    zero = "merge.parameter.frozen={*/weight/*: 0.0}"
    plain = "++merge.parameter.genes.weight={per: source, simplex: false, low: 0.0, high: 1.0, default: 1.0}"
    for given, message in (
        ([zero], "frozen: expected weights of 0 or more that sum to 1"),
        ([zero, plain], "weights that sum to 0"),
        (["~merge.parameter.genes.weight", "+merge.parameter.options.weight=[-1.0,3.0]"], "weight of model 1"),
    ):
        with pytest.raises(ValueError, match=message):
            built([*arguments, "merge=regmean", *given], tmp_path / "run")


def test_jobs_of_a_sweep_share_files(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[object] = []
    before = course.gathered

    def counting(of: course.Course) -> object:
        found, count = before(of)
        passes.append(count)
        return found, count

    monkeypatch.setattr("evohydra.assembly.statistics.gathered_by", counting)
    plain = composition.composed([*arguments, "merge=activation", "tracker=none"])
    place = {"name": "job", "group": "sweep", "strategy": "cmaes"}
    for seed in (1, 2):
        make_run({**plain, "seed": seed}, tmp_path / "sweep" / str(seed), place)
    assert passes == [2, 0]
    assert len(files_of(tmp_path / "sweep")) == 2
    assert not (tmp_path / "sweep" / "1" / "statistics").exists()
    # A proof of one job, which knows of no sweep, finds them, and makes none.
    alone = {**place, "group": None}
    make_run({**plain, "seed": 1}, tmp_path / "sweep" / "1", alone, reading=AS_RECORDED)
    assert passes == [2, 0]
    # A job that has files of its own, as earlier versions left them, goes on with these.
    (tmp_path / "sweep" / "2").mkdir()
    (tmp_path / "sweep" / "statistics").rename(tmp_path / "sweep" / "2" / "statistics")
    make_run({**plain, "seed": 2}, tmp_path / "sweep" / "2", place)
    assert passes == [2, 0, 0]


def test_files_behind_merges_belong_to_all_sources(arguments: list[str], root: Path, tmp_path: Path) -> None:
    """What one source reads behind merged layers is another thing beside another second source."""
    named = [*arguments, "merge=regmean_plus_plus", f"merge.parameter.statistics.directory={tmp_path / 'kept'}"]
    built(named, tmp_path / "run")
    before = {file: file.read_bytes() for file in (tmp_path / "kept").glob("*.safetensors")}
    (tmp_path / "kept" / ".gathering-killed").mkdir()
    other = scaled(root / "two", tmp_path / "other", 1.5)
    built([*named, f"model.sources.two.path={other}"], tmp_path / "beside")
    assert {file: file.read_bytes() for file in before} == before
    assert len(list((tmp_path / "kept").glob("*.safetensors"))) == 4
    assert not list((tmp_path / "kept").glob(".gathering-*"))


def test_a_file_under_the_name_of_another(arguments: list[str], tmp_path: Path) -> None:
    built([*arguments, "merge=activation"], tmp_path / "run")
    one, two = files_of(tmp_path / "run")
    shutil.copy(one, two)
    with pytest.raises(StatisticsError, match=r"was made of something else than its name says \(.*fingerprint.*differ"):
        built([*arguments, "merge=activation"], tmp_path / "run")


def test_a_shared_file_whose_numbers_have_changed(arguments: list[str], tmp_path: Path) -> None:
    """A run that never saw it before notices, too."""
    given = [*arguments, "merge=activation", f"merge.parameter.statistics.directory={tmp_path / 'kept'}"]
    built(given, tmp_path / "run")
    file = min((tmp_path / "kept").glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(StatisticsError, match=rf"{file.name} is not as it was written: expected its SHA-256"):
        built(given, tmp_path / "other")
    file.with_name(f"{file.name}.sha256").unlink()
    with pytest.raises(StatisticsError, match=r"without both files, the run makes them again"):
        built(given, tmp_path / "other")
    file.unlink()
    built(given, tmp_path / "other")


@pytest.mark.parametrize("merge", ["activation", "regmean_plus_plus"])
def test_sources_that_overflow_are_named_before_the_search(
    merge: str, arguments: list[str], root: Path, tmp_path: Path
) -> None:
    large = scaled(root / "two", tmp_path / "large", 1e20)
    with pytest.raises(StatisticsError, match=r"source 'two': what it finds of .*mlp.* is not finite"):
        built([*arguments, f"merge={merge}", f"model.sources.two.path={large}"], tmp_path / "run")
    assert not list((tmp_path / "run" / "statistics").glob(".*"))


def test_replay_makes_no_files_and_other_searches_do_not_go_on_from_such_a_recipe(
    root: Path, tmp_path: Path, capsys
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(root / "regmean", copy)
    made = python("-m", "evohydra", *json.loads((root / "arguments.json").read_text()), "merge=regmean",
                  f"hydra.run.dir={copy}", cwd=tmp_path)  # fmt: skip
    assert made.returncode == 0, made.stderr
    replay.main([str(copy)])
    assert "ok: 6 genomes" in capsys.readouterr().out
    own = without(json.loads((root / "arguments.json").read_text()), "parameter.statistics")
    with pytest.raises(StatisticsError, match="whose files are not known here"):
        built([*own, f"continue={copy}", "merge=linear"], tmp_path / "next")
    with pytest.raises(ValueError, match="which are gathered of checkpoints alone"):
        built([*own, f"continue={copy}", "merge=regmean"], tmp_path / "next")
    files_of(copy)[0].unlink()
    with pytest.raises(SystemExit, match="is missing, which the search began with"):
        replay.main([str(copy)])
    assert len(files_of(copy)) == 1


def test_a_baseline_reads_texts_too(arguments: list[str], tmp_path: Path) -> None:
    given = [*without(arguments, "parameter.statistics", "baselines=null"), "merge=linear"]
    baselines = ["+merge@baselines.regmean=regmean", "++baselines.regmean.statistics.prompts=5"]
    run = built([*given, *baselines], tmp_path / "run")
    assert "regmean" in run.models.baselines
    assert run.identity.search.statistics is None


def test_a_group_may_choose_such_a_method(arguments: list[str], tmp_path: Path) -> None:
    """Of merge=any: its recipe names the statistics in the group, and is made again from the files."""
    given = [*without(arguments, "parameter.statistics"), "merge=any", "merge.parameter.granularity.layers=whole"]
    more = ["+merge@merge.parameter.candidates.activation=activation", "merge.parameter.frozen={layers/*: activation}"]
    few = ["merge.parameter.candidates.activation.statistics.prompts=5", "optimizer=random"]
    run = tmp_path / "run"
    carried_out([*given, *more, *few], run)
    recipe = recipe_of(run)
    group = next(each for each in recipe["recipe"]["groups"] if each["name"] == "layers")
    method = group["parameters"].get("method", recipe["recipe"]["method"])
    assert (method, group["parameters"]["statistics"]) == ("activation", *recipe["statistics"])
    made = rebuild.make(run / "recipe.json", tmp_path / "out", {})
    assert made.identical
    space = built([*given, *more, *few], run).plan.space
    node = space.decode(np.full(len(space.names), 0.3))
    assert space.decode(space.encode(node)) == node


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["merge=regmean", "generations=2"], "expected models as sources|expected a merge method that goes by weights"),
        (["merge=regmean", "benchmark=[]"], "no benchmark|its sources read prompts of a benchmark"),
        (["merge=regmean", "merge.parameter.statistics=null"], "statistics: expected prompts, directory, memory_gb"),
        (["merge=regmean", "merge.parameter.statistics.prompts=0"], "prompts: expected a whole number of at least 1"),
        (["merge=regmean", "+merge.parameter.statistics.prompt=1"], "prompt"),
        (["merge=regmean", f"merge.parameter.statistics.directory={__file__}"], "directory: expected a directory, or"),
        (["merge=linear", "++merge.parameter.statistics.prompts=2"], "merge=linear: it reads no statistics"),
    ],
)
def test_settings_that_cannot_work(settings: list[str], expected: str, arguments: list[str], tmp_path: Path) -> None:
    given = without(arguments, "parameter.statistics", *(["benchmark"] if "benchmark=[]" in settings else []))
    refused([*given, *settings], tmp_path / "run", expected)


def test_statistics_by_their_digests(tmp_path: Path) -> None:
    files = {"one": StatisticsFile(tmp_path / "a", "0" * 64)}
    known = StatisticsFiles({digest_of(files): files})
    with pytest.raises(StatisticsError, match="whose files are not known here"):
        known.read("f" * 64, "one", "x")
    with pytest.raises(StatisticsError, match="none are of the source 'two'"):
        known.read(digest_of(files), "two", "x")
    with pytest.raises(StatisticsError, match="a is missing; the merge needs the file with the SHA-256 000"):
        known.read(digest_of(files), "one", "x")
    assert digest_of(files) != digest_of({"two": files["one"]})
