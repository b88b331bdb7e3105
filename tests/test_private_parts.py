"""Every private part of another library is still there, and is used nowhere but in the module that says so."""

import ast
import importlib
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cmaes
import hydra.utils
import numpy as np
import pytest
import torch
from lm_eval import utils
from packaging.requirements import Requirement

import evohydra
from evohydra.checks.libraries import PrivateParts
from evohydra.families import private_transformers, single_files
from evohydra.merging import private_torch
from evohydra.scoring.benchmarks import mteb_data, private_lm_eval
from evohydra.searching.optimizers import lean, pymoo_singles
from evohydra.trackers import private_wandb
from tests.contracts.discovery import composed

PACKAGE = Path(evohydra.__file__).parent
MODULES = (
    private_transformers, single_files, private_torch, private_lm_eval, lean, pymoo_singles, mteb_data, private_wandb,
)  # fmt: skip
PARTS: list[PrivateParts] = [parts for module in MODULES for parts in module.PARTS]
# Of libraries, whose own modules begin with an underscore; `_` and `__x__` are no private names.
LIBRARIES = {"cmaes", "lm_eval", "transformers", "torch", "wandb", "diffusers", "peft", "datasets", "pymoo", "ribs"}
SPACES: dict[str, Any] = {"x_space": [[0, 1], [0, 1]], "z_space": [[0, 1, 2]], "c_space": [3]}


def task() -> Any:
    spec = composed("benchmark=tiny_gsm_ja")["benchmark"]["tiny_gsm_ja"]
    (benchmark,) = hydra.utils.instantiate(spec)("tiny_gsm_ja").values()
    made = benchmark._tasks["search"]
    made.build_all_requests(limit=1, rank=0, world_size=1)
    return made


# What has its private attributes only once it is made.
MADE: dict[str, Callable[[], Any]] = {
    "cmaes:CMA()": lambda: cmaes.CMA(mean=np.zeros(2), sigma=1.0),
    "cmaes:CMAwM()": lambda: cmaes.CMAwM(np.zeros(2), 1.0, np.tile([0.0, 1.0], (2, 1)), np.array([0.0, 0.5])),
    "cmaes:CatCMAwM()": lambda: cmaes.CatCMAwM(**SPACES),
    "cmaes:CatCMAwM.Solution()": cmaes.CatCMAwM.Solution,
    "torch.nn:Module()": torch.nn.Module,
    "lm_eval.api.task:Task()": task,
}


def owner(parts: PrivateParts) -> Any:
    """The object that is to have the names."""
    if parts.owner in MADE:
        return MADE[parts.owner]()
    module, _, inside = parts.owner.partition(":")
    found: Any = importlib.import_module(module)
    for name in filter(None, inside.split(".")):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("parts", PARTS, ids=lambda parts: parts.owner)
def test_what_is_private_is_still_there(parts: PrivateParts) -> None:
    assert not (sentences := list(parts.missing(owner(parts)))), "\n".join(sentences)


def test_a_template_is_compiled_once_and_not_for_each_example(monkeypatch: pytest.MonkeyPatch) -> None:
    made, compiled = task(), []
    compile_now = utils.env.compile
    utils.env.from_string.cache_clear()
    monkeypatch.setattr(
        utils.env, "compile", lambda *given, **more: compiled.append(given) or compile_now(*given, **more)
    )
    made.build_all_requests(limit=5, rank=0, world_size=1)
    assert len(made.instances) == 5
    assert len(compiled) == len(set(compiled)) > 0


def test_the_sentence_when_something_has_gone() -> None:
    parts = PrivateParts("cmaes", "0.9", "cmaes:CMA()", ("_mean", "_gone"))
    assert list(parts.missing(owner(parts))) == [
        f"cmaes {version('cmaes')} is installed, evohydra was written against cmaes 0.9: cmaes:CMA() has no '_gone' "
        "any more, which evohydra uses"
    ]


@pytest.mark.parametrize("library", sorted({parts.library for parts in PARTS}))
def test_the_bounds_are_those_of_the_versions_that_were_tried(library: str) -> None:
    """The upper bound of pyproject.toml admits the version that was tried, and not the next minor one."""
    (tested,) = {parts.tested for parts in PARTS if parts.library == library}
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    lines = [
        *project["dependencies"],
        *project["optional-dependencies"]["diffusion"],
        *project["optional-dependencies"]["mteb"],
        *project["optional-dependencies"]["strategies"],
    ]
    needed = [Requirement(line) for line in lines]
    major, minor, patch = map(int, tested.split("."))
    later = f"0.{minor}.{patch + 1}" if library == "lm-eval" else f"{major}.{minor + 1}.0"
    bounds = [each.specifier for each in needed if each.name == library]
    assert bounds
    for bound in bounds:
        assert tested in bound
        assert later not in bound


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def stored_on_self(node: ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id == "self"


def uses(file: Path) -> Iterator[str]:
    """Private modules and attributes of other libraries in `file`: what is not one's own has another owner."""
    tree = ast.parse(file.read_text())
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and stored_on_self(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in LIBRARIES:
            names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            yield from (f"{node.module}: {name}" for name in names if private(name))
        elif isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in own:
            on_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            inherited = isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "super"
            if not on_self and not inherited and ast.unparse(node) != "os._exit":  # which is documented
                yield f"{ast.unparse(node.value)}.{node.attr}"


def test_private_parts_are_used_in_their_modules_alone() -> None:
    theirs = {Path(str(module.__file__)) for module in MODULES}
    found = {str(file.relative_to(PACKAGE)): list(uses(file)) for file in PACKAGE.rglob("*.py") if file not in theirs}
    assert {file: names for file, names in found.items() if names} == {}
    assert list(uses(Path(str(private_wandb.__file__)))) == ["run._log_artifact"]


def test_the_attributes_that_lean_strategies_inherit_are_in_the_table() -> None:
    tree = ast.parse(Path(str(lean.__file__)).read_text())
    listed = {name for parts in lean.PARTS for name in parts.names}
    own = {"_root", "_decomposed", "_gap", "_resampling", "_adapt", "_begin", "_step"}
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and private(node.attr)}
    assert used - own <= listed
    overridden = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and private(node.name)}
    assert overridden - own <= listed
