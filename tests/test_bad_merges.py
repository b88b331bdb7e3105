"""Merges that cannot work: refused with what is wrong and where, in a run and in the rebuilding of a mergekit file."""

import json
import re
import shutil
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from evohydra import rebuild
from evohydra.recipe import from_dict
from evohydra.scoring.worker import probe
from tests.commands import REPOSITORY, built, carried_out, json_lines, workspace
from tests.test_bad_settings import refused, without
from tests.tiny_models import save_model

FILES = {file.stem: yaml.safe_load(file.read_text()) for file in sorted((REPOSITORY / "conf" / "merge").glob("*.yaml"))}
SPECS = {merge: spec for merge, spec in FILES.items() if "genes" in spec}  # the others are no merges of tensors
OF_ONE, OF_TWO = ("arcee_fusion", "nearswap", "passthrough"), ("nuslerp", "slerp")
READING = ("activation", "fisher", "regmean", "regmean_plus_plus")  # texts, before the search
WITHOUT_BASE = (
    *("geometric_median", "karcher", "linear", "multislerp", "nuslerp", "passthrough", "simplex", "slerp"),
    *READING,
)
ELECTING = (
    "breadcrumbs_ties",
    "core_space",
    "core_space_dare_ties",
    "dare_ties",
    "della",
    "knots",
    "knots_dare_ties",
    "ties",
)
SHARES = {
    "breadcrumbs": ("density", "gamma"), "breadcrumbs_ties": ("density", "gamma"), "dare_linear": ("density",),
    "dare_ties": ("density",), "della": ("density",), "della_linear": ("density",), "sce": ("select_topk",),
    "ties": ("density",), "knots": ("density",), "core_space": ("density",),
    "knots_dare_ties": ("density",), "core_space_dare_ties": ("density",), "pcb": ("density",),
    "regmean": ("alpha",), "regmean_plus_plus": ("alpha",),
    "boosted_consensus": ("boost",), "boosted_task_arithmetic": ("boost",), "boosted_ties": ("boost",),
}  # fmt: skip
NOT_NEGATIVE = {
    "consensus": "threshold", "geometric_median": "weight", "karcher": "weight", "nearswap": "t", "ramplus": "alpha",
    "wudi": "ridge",
}  # fmt: skip
ELSEWHERE = (
    "knots",
    "knots_dare_ties",
    "core_space",
    "core_space_dare_ties",
    "pcb",
    "boosted_consensus",
    "boosted_task_arithmetic",
    "boosted_ties",
    "regmean",
    "regmean_plus_plus",
)  # not in mergekit
TENSOR = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, task and conf/ that every test of this file reads and none changes."""
    root = tmp_path_factory.mktemp("workspace")
    (root / "arguments.json").write_text(json.dumps([*workspace(root), "baselines=null", "budget=6", "top=1"]))
    save_model(root / "three", 3, base=root / "base")
    return root


@pytest.fixture
def arguments(root: Path) -> list[str]:
    given: list[str] = json.loads((root / "arguments.json").read_text())
    return given


def of(count: int, arguments: list[str], root: Path) -> list[str]:
    """The command line with one, two or three of the models."""
    if count == 1:
        return [each.replace("local_one+local_two", "local_one") for each in without(arguments, ".two.")]
    third = {
        "path": root / "three",
        "base": root / "base",
        "family": "evohydra.families.causal_lm.CausalLM",
    }
    return [*arguments, *(f"+model.sources.three.{key}={value}" for key, value in third.items() if count == 3)]


def on(merge: str, arguments: list[str], root: Path) -> list[str]:
    """The command line of a merge of as many models as it takes."""
    return [*of(1 if merge in OF_ONE else 2, arguments, root), f"merge={merge}"]


def test_the_lists_of_this_file_are_whole():
    genes = {merge: spec["genes"] for merge, spec in SPECS.items()}
    ranges = {(merge, gene): spec for merge in genes for gene, spec in genes[merge].items() if isinstance(spec, dict)}
    bounded = {key: spec["within"] for key, spec in ranges.items() if "within" in spec}
    assert {key for key, within in bounded.items() if within == [0, 1]} == {
        (merge, gene) for merge, names in SHARES.items() for gene in names
    }
    assert {key for key, within in bounded.items() if within[1] == float("inf")} == set(NOT_NEGATIVE.items())


@pytest.mark.parametrize("value", [-0.5, 1.5])
@pytest.mark.parametrize(("merge", "gene"), [(merge, gene) for merge, genes in SHARES.items() for gene in genes])
def test_shares_outside_0_and_1(merge: str, gene: str, value: float, root: Path, arguments: list[str], tmp_path: Path):
    given = on(merge, arguments, root)
    message = rf"{gene}( must lie in|: expected a share) .*got .*{value}"
    refused([*given, f"++merge.parameter.genes.{gene}={value}"], tmp_path / "run", message)
    where, message = (
        "low" if value < 0 else "high",
        rf"gene '(.*/)?{gene}(/.*|\*)?': expected values in \[0, 1\], got {value}",
    )
    refused([*given, f"++merge.parameter.genes.{gene}.{where}={value}"], tmp_path / "run", message)
    refused([*given, f"merge.parameter.frozen={{*/{gene}*: {value}}}"], tmp_path / "run", message)


@pytest.mark.parametrize(("merge", "gene"), NOT_NEGATIVE.items())
def test_numbers_that_are_not_negative(merge: str, gene: str, root: Path, arguments: list[str], tmp_path: Path):
    given = on(merge, arguments, root)
    message = rf"{gene}( of model 1)?: expected a number of at least 0, got -0.5"
    refused([*given, f"++merge.parameter.genes.{gene}=-0.5"], tmp_path / "run", message)
    message = rf"gene '(.*/)?{gene}(/.*|\*)?': expected values in \[0, inf\], got -0.5"
    refused([*given, f"++merge.parameter.genes.{gene}.low=-0.5"], tmp_path / "run", message)
    refused([*given, f"merge.parameter.frozen={{*/{gene}*: -0.5}}"], tmp_path / "run", message)


@pytest.mark.parametrize(
    "merge", [merge for merge, spec in SPECS.items() if "weight" in spec["genes"] and merge not in NOT_NEGATIVE]
)
def test_weights_may_be_negative_elsewhere(merge: str, root: Path, arguments: list[str], tmp_path: Path):
    run = built([*on(merge, arguments, root), "++merge.parameter.genes.weight.low=-1"], tmp_path / "run")
    space = run.plan.space
    with closing(run.make_executor()) as executor:
        executor.ask(probe, space.decode(space.encode(space.default()) * 0 + 0.25))


@pytest.mark.parametrize(
    "merge", [merge for merge, spec in SPECS.items() if "weight" in spec["genes"] and merge not in ELECTING]
)
def test_weights_that_are_all_0(merge: str, root: Path, arguments: list[str], tmp_path: Path):
    given = [*on(merge, arguments, root), "++merge.parameter.genes.weight=0"]
    if merge in ("nuslerp", "pcb"):  # half way, as in mergekit; the base, since weights divide nothing
        built(given, tmp_path / "run")
        return
    if "normalize" in SPECS[merge].get("options", {}):
        given.append("merge.parameter.options.normalize=true")
    refused(given, tmp_path / "run", r"cannot normalize weights that sum to 0: \[0(\.0)?, 0(\.0)?\]")


@pytest.mark.parametrize("merge", ELECTING)
def test_where_no_sign_is_elected_the_base_stays(merge: str, root: Path, arguments: list[str], tmp_path: Path):
    """As in mergekit: entries are divided by the weights that agree, where there are any."""
    given = ["++merge.parameter.genes.weight=0", "merge.parameter.options.normalize=true"]
    run = built([*on(merge, arguments, root), *given], tmp_path / "run")
    expected = load_file(root / "base" / "model.safetensors")[TENSOR]
    with closing(run.make_executor()) as executor:
        made = executor.ask(lambda worker: worker.engine.tensor(run.plan.space.default(), TENSOR))
    assert torch.equal(made, expected)


@pytest.mark.parametrize(
    ("merge", "count", "message"),
    [
        *((merge, 2, rf"{merge} takes exactly 1 model, got 2") for merge in OF_ONE),
        *((merge, 1, rf"{merge} takes exactly 2 models, got 1") for merge in OF_TWO),
        *((merge, 3, rf"{merge} takes exactly 2 models, got 3") for merge in OF_TWO),
        ("model_stock", 1, r"model_stock takes at least 2 models, got 1"),
        ("consensus", 1, r"agree: expected a number of models from 1 to 1, got 2"),
    ],
)
def test_too_few_and_too_many_models(
    merge: str, count: int, message: str, root: Path, arguments: list[str], tmp_path: Path
):
    refused([*of(count, arguments, root), f"merge={merge}"], tmp_path / "run", message)


@pytest.mark.parametrize("merge", [merge for merge in SPECS if merge not in WITHOUT_BASE])
def test_methods_that_need_a_base(merge: str, root: Path, arguments: list[str], tmp_path: Path):
    given = without(on(merge, arguments, root), ".base=")
    refused(
        given, tmp_path / "run", r"this merge method needs the base model of its sources, and the sources name none"
    )


@pytest.mark.parametrize("merge", WITHOUT_BASE)
def test_methods_that_need_none(merge: str, root: Path, arguments: list[str], tmp_path: Path):
    built(without(on(merge, arguments, root), ".base="), tmp_path / "run")


@pytest.mark.parametrize("merge", ["della", "della_linear"])
@pytest.mark.parametrize("rescale", ["l1", "density"])
@pytest.mark.parametrize(("density", "epsilon"), [(0.5, 0.5), (0.9, 0.1), (0.1, 0.2), (0.5, -0.1), (0.5, 7)])
def test_an_epsilon_that_leaves_0_and_1(
    merge: str, rescale: str, density: float, epsilon: float, arguments: list[str], tmp_path: Path
):
    genes = [f"++merge.parameter.genes.density={density}", f"++merge.parameter.genes.epsilon={epsilon}"]
    given = [*arguments, f"merge={merge}", *genes, f"merge.parameter.options.rescale={rescale}"]
    message = rf"epsilon must keep density \+- epsilon in \(0, 1\), got epsilon {epsilon} at density {density}"
    refused(given, tmp_path / "run", message)


@pytest.mark.parametrize("density", [0, 1])
def test_any_epsilon_at_all_or_nothing(density: int, arguments: list[str], tmp_path: Path):
    built([*arguments, "merge=della", f"++merge.parameter.genes.density={density}",
           "++merge.parameter.genes.epsilon=7"], tmp_path / "run")  # fmt: skip


@pytest.mark.parametrize(
    ("merge", "change", "message"),
    [
        ("linear", "++genes.weight=much", r"weight: expected a finite number, got 'much'"),
        ("linear", "++genes.weight=true", r"weight: expected a finite number, got True"),
        ("linear", "++options.normalize=2", r"normalize: expected true or false, got 2"),
        ("ties", "++options.scaling=nan", r"scaling: expected a finite number, got nan"),
        ("ties", "++options.scaling=[1,2]", r"scaling: expected a finite number, got \[1, 2\]"),
        ("ties", "++genes.density.default=half", r"genes.density.default: expected a finite number, got 'half'"),
        ("ties", "++genes.density.low=none", r"genes.density.low: expected a number or null, got 'none'"),
        ("ties", "frozen={*/weight/*: inf}", r"frozen: expected a mapping .*, got .*inf"),
        ("dare_ties", "options.rescale=l2", r"rescale must be one of none, density, l1, got 'l2'"),
        ("dare_ties", "++mask_seed=first", r"mask_seed: expected a whole number or a mapping.*, got 'first'"),
        (
            "model_stock",
            "++genes.filter_wise.choices=[0,2]",
            r"genes.filter_wise.choices: expected true or false, got 2",
        ),
        ("karcher", "options.max_iter=2.5", r"max_iter: expected a whole number, got 2.5"),
        ("karcher", "options.tol=-1", r"tol: expected a number of at least 0, got -1"),
        ("geometric_median", "options.max_iter=-1", r"max_iter: expected a number of at least 0, got -1"),
        ("geometric_median", "options.nu=0", r"nu: expected a distance above 0, got 0"),
        ("multislerp", "++options.eps=0", r"eps: expected a number above 0, got 0"),
        ("ram", "options.epsilon=-1", r"epsilon: expected a number of at least 0, got -1"),
        ("consensus", "options.agree=3", r"agree: expected a number of models from 1 to 2, got 3"),
        ("iso_cts", "options.common=2", r"common: expected a share from 0 to 1, got 2"),
        ("tsv_m", "options.share=0", r"share: expected a number above 0 and up to 1, got 0"),
        (
            "linear",
            "++known_merges=nonsense",
            r"known_merges: expected a list .*, got 'nonsense'",
        ),
        ("linear", "++known_merges=[nonsense]", r"known_merges: expected a list of some of .*, got \['nonsense'\]"),
        ("linear", "++granularity.layer=each", r"granularity: expected the keys .*'layers'.*, got \['layer'\]"),
    ],
)
def test_values_that_make_no_sense(
    merge: str, change: str, message: str, root: Path, arguments: list[str], tmp_path: Path
):
    path = f"++merge.parameter.{change[2:]}" if change.startswith("++") else f"merge.parameter.{change}"
    refused([*on(merge, arguments, root), path], tmp_path / "run", message)


def test_a_list_of_another_length(arguments: list[str], tmp_path: Path):
    given = [*arguments, "merge=linear", "~merge.parameter.genes.weight", "+merge.parameter.options.weight=[1,2,3]"]
    refused(given, tmp_path / "run", r"weight: expected a value for each of 2 models, got \[1, 2, 3\]")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("merge.compile=nonsense", r"merge.compile: expected auto or true or false, got 'nonsense'"),
        ("out_dtype=nonsense", r"out_dtype: expected float32, bfloat16, float16 or null, got 'nonsense'"),
        ("dtype=nonsense", r"dtype: expected auto, float32, bfloat16 or float16, got 'nonsense'"),
    ],
)
def test_types_and_compiling(setting: str, message: str, arguments: list[str], tmp_path: Path):
    refused([*arguments, setting], tmp_path / "run", message)


@pytest.mark.parametrize("merge", ["task_arithmetic", "ties"])
def test_genomes_whose_merge_is_not_finite(merge: str, arguments: list[str], tmp_path: Path):
    """They get no fitness, the ledger says which tensor of which group and with which genes, the search goes on."""
    weights = "++merge.parameter.genes.weight={per: source, low: 0.01, high: 1.0e+6, log: true, default: 1.0}"
    given = [*arguments, f"merge={merge}", weights, "dtype=float16", "start=[]", "budget=18", "optimizer=random"]
    # Two genes, so that some genomes have small weights only, and one generation, which does not fail as a whole.
    given += ["merge.parameter.granularity.layers=whole", "merge.parameter.granularity.edges=false"]
    given.append("optimizer.population=18")
    summary = carried_out(given, tmp_path / "run")
    lines = json_lines(tmp_path / "run" / "ledger.jsonl")
    failed = [line for line in lines if line["error"] is not None]
    assert len(lines) == 18
    assert 0 < len(failed) < 18
    assert summary["search"]["failed"] == len(failed)
    assert all((line["fitness"], line["scores"]) == (None, {}) for line in failed)
    unmerged = [line for line in failed if "not numbers" not in line["error"]]  # others overflow in the model
    assert unmerged
    for line in unmerged:
        found = re.match(r"MergeError: '([\w., ]+)' of group '([\w.]+)' is not finite after (\S+) with", line["error"])
        assert found is not None, line["error"]
        assert found[3] == merge
        assert f"'weight': ({line['genes'][f'{found[2]}/weight/one']}, " in line["error"]
    again = carried_out(given, tmp_path / "run")
    assert json_lines(tmp_path / "run" / "ledger.jsonl") == lines
    assert again["recipe_digest"] == summary["recipe_digest"]


def test_a_default_whose_merge_is_not_finite_ends_the_run(arguments: list[str], tmp_path: Path):
    given = [*arguments, "++merge.parameter.genes.weight=1e38", "++merge.parameter.options.scaling=1e30"]
    message = r"'.*' of group 'embeddings' is not finite after .*task_arithmetic with .*'scaling': 1e\+30"
    refused(given, tmp_path / "run", message, ArithmeticError)


MERGEKIT: dict[str, Any] = {"merge_method": "ties", "base_model": "BASE", "dtype": "float32"}
BOTH = [{"model": "ONE", "parameters": {"weight": 1.0}}, {"model": "TWO", "parameters": {"weight": 1.0}}]


@pytest.mark.parametrize(
    ("method", "models", "parameters", "message"),
    [
        *(
            (method, BOTH, {gene: 1.5}, rf"{gene} must lie in \[0, 1\] for each of 2 models, got \[1.5, 1.5\]")
            for method, genes in SHARES.items() for gene in genes if method not in ("sce", *ELSEWHERE)
        ),
        ("sce", [], {"select_topk": -0.5}, r"select_topk: expected a share in \[0, 1\], got -0.5"),
        ("della", BOTH, {"density": 0.5, "epsilon": 0.6}, r"epsilon must keep density \+- epsilon in \(0, 1\)"),
        ("della", BOTH, {"density": 0.9}, r"epsilon must keep .*, got epsilon 0.15 at density 0.9"),
        ("linear", [], {"weight": 0}, r"cannot normalize weights that sum to 0: \[0.0, 0.0\]"),
        ("multislerp", [], {"weight": 0}, r"cannot normalize weights that sum to 0: \[0.0, 0.0\]"),
        ("sce", [], {"select_topk": 1.5}, r"select_topk: expected a share in \[0, 1\], got 1.5"),
        ("ramplus_tl", [], {"alpha": -1}, r"alpha: expected a number of at least 0, got -1.0"),
        ("nearswap", [], {"t": 0.1}, r"nearswap takes exactly 1 model, got 2"),
        ("nearswap", [{"model": "ONE"}], {"t": -0.1}, r"t: expected a number of at least 0, got -0.1"),
        ("nearswap", [{"model": "ONE"}], {}, r"nearswap needs t, and tensor 'lm_head.weight' has none"),
        ("arcee_fusion", [], {}, r"arcee_fusion takes exactly 1 model, got 2"),
        ("passthrough", [], {}, r"passthrough takes exactly 1 model, got 2"),
        ("nuslerp", [{"model": "ONE"}], {"weight": 1}, r"nuslerp takes exactly 2 models, got 1"),
        ("slerp", [], {"t": 0.5}, r"slerp takes exactly 2 models, got 3"),
        ("model_stock", [{"model": "ONE"}], {}, r"model_stock takes at least 2 models, got 1"),
        ("karcher", [], {"tol": -1}, r"tol: expected a number of at least 0, got -1.0"),
        ("linear", [], {"weight": float("nan")}, r"weight at tensor 'lm_head.weight': expected a finite .*, got nan"),
        ("ties", BOTH, {"lambda": float("inf")}, r"lambda at tensor 'lm_head.weight': expected a finite .*, got inf"),
        ("ties", BOTH, {"lambda": 1e39}, r"'.*' of group 'group 0' is not finite after ties .*'scaling': 1e\+39"),
    ],
)  # fmt: skip
def test_mergekit_files(
    method: str, models: Any, parameters: Any, message: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = {**MERGEKIT, "merge_method": method, "models": models or [{"model": "ONE"}, {"model": "TWO"}]}
    if method in ("linear", "multislerp", "passthrough", "karcher"):
        del config["base_model"]
    rebuilding({**config, "parameters": parameters}, root, tmp_path, monkeypatch, message)


def rebuilding(config: Any, root: Path, work: Path, monkeypatch: pytest.MonkeyPatch, expected: str) -> None:
    """The command ends with a message that `expected` matches, and without a directory."""
    text = yaml.safe_dump(config)
    for name in ("base", "one", "two"):
        text = text.replace(f" {name.upper()}\n", f" {root / name}\n")
    (work / "merge.yaml").write_text(text)
    monkeypatch.setattr(sys, "argv", ["rebuild", str(work / "merge.yaml"), str(work / "out")])
    with pytest.raises(SystemExit, match=f"^rebuild: .*{expected}"):
        rebuild.main()
    assert not (work / "out").exists()


def test_a_source_that_is_not_finite(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("base", "one", "two"):
        shutil.copytree(root / name, tmp_path / name)
    tensors = load_file(tmp_path / "two" / "model.safetensors")
    tensors[TENSOR][1, 2] = float("nan")
    save_file(tensors, tmp_path / "two" / "model.safetensors", metadata={"format": "pt"})
    message = f"source 'two': tensor '{TENSOR}' holds 1 NaN or infinite numbers"
    rebuilding({**MERGEKIT, "models": BOTH}, tmp_path, tmp_path, monkeypatch, message)


def test_a_good_mergekit_file_is_rebuilt(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        rebuilding({**MERGEKIT, "models": BOTH}, root, tmp_path, monkeypatch, "")
    written = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert from_dict(written["recipe"]).method == "ties"  # type: ignore[union-attr]
