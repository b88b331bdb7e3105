"""Fixtures of tests/test_mergekit_real.py: three tiny models, mergekit configurations, and what mergekit makes of them.

In evohydra's environment, from the root; PYTHON is that of an environment as install.sh makes it:

    OMP_NUM_THREADS=1 python -m tests.reference.mergekit.make_yaml_fixtures --mergekit-python PYTHON

yaml/ holds configurations written by hand, recipes/ recipes and the configuration that evohydra writes for each; in
both MODELS stands for the directory models/. merged.safetensors has the tensors `name/tensor` of each merge.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from evohydra.mergekit.writer import to_yaml
from evohydra.recipe import Checkpoint, Group, Merge, Parameter
from tests.tiny_models import save_model

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
DTYPE = "bfloat16"
BASE, ONE, TWO = (Checkpoint(name, f"MODELS/{name}") for name in ("base", "one", "two"))
# Parameters of the first group; the second has half of them and so on, so that every group is another merge.
RECIPES: Mapping[str, tuple[str, Checkpoint | None, Mapping[str, Parameter], Mapping[str, Parameter]]] = {
    "linear": ("linear:linear", None, {"weight": (0.25, 0.5)}, {"normalize": False}),
    "slerp": ("slerp:slerp", None, {"t": 0.75}, {}),
    "task_arithmetic": (
        "task_arithmetic:task_arithmetic", BASE, {"weight": (0.75, -0.5)}, {"normalize": False, "scaling": 0.5},
    ),
    "ties": (
        "ties:ties", BASE, {"weight": (0.75, 0.5), "density": (0.4, 0.8)}, {"normalize": True, "scaling": 0.75},
    ),
    "nuslerp": ("nuslerp:nuslerp", BASE, {"weight": (0.75, 0.5)}, {"nuslerp_flatten": False}),
    "nuslerp_plain": ("nuslerp:nuslerp", None, {"weight": (0.75, 0.25), "nuslerp_flatten": True}, {}),
    "multislerp": ("multislerp:multislerp", BASE, {"weight": (0.75, 0.5)}, {"normalize_weights": False}),
    "model_stock": ("model_stock:model_stock", BASE, {"filter_wise": True}, {}),
    "breadcrumbs": (
        "breadcrumbs:breadcrumbs", BASE, {"weight": (0.75, 0.5), "density": (0.4, 0.8), "gamma": (0.1, 0.05)}, {},
    ),
    "breadcrumbs_ties": (
        "breadcrumbs:breadcrumbs_ties", BASE, {"weight": (0.75, 0.5), "scaling": 0.5},
        {"density": (0.4, 0.8), "gamma": (0.1, 0.05)},
    ),
    "sce": ("sce:sce", BASE, {"select_topk": 0.8}, {}),
    "ramplus": ("ram:ramplus_tl", BASE, {"r": 0.5, "alpha": 0.75}, {"epsilon": 1e-3}),
}  # fmt: skip
FLOAT32 = {"sce"}  # variances of 16 bits are too often equal
GROUPS = 4


def make_models() -> None:
    """A base and two models that began as it, bfloat16."""
    shutil.rmtree(HERE / "models", ignore_errors=True)
    base = save_model(HERE / "models" / "base", 0, dtype=torch.bfloat16)
    for seed, name in ((1, "one"), (2, "two")):
        save_model(HERE / "models" / name, seed, base=base, dtype=torch.bfloat16)


def recipe(name: str) -> Merge:
    """A fixed recipe with several groups, each with tensors of every kind and layer."""
    method, base, parameters, options = RECIPES[name]
    tensors = sorted(load_file(HERE / "models" / "one" / "model.safetensors"))

    def scaled(value: Parameter, by: int) -> Parameter:
        if isinstance(value, bool):
            return value if by % 2 == 0 else not value
        return tuple(each / (by + 1) for each in value) if isinstance(value, tuple) else float(value) / (by + 1)

    groups = tuple(
        Group(f"group {i}", tuple(tensors[i::GROUPS]), {key: scaled(value, i) for key, value in parameters.items()})
        for i in range(GROUPS)
    )
    return Merge(f"evohydra.merging.methods.{method}", base, (ONE, TWO), groups, {"mask_seed": 0, **options})


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Make the fixtures of tests/test_mergekit_real.py.")
    parser.add_argument("--mergekit-python", required=True, help="the Python of an environment with mergekit")
    arguments = parser.parse_args()
    make_models()
    recipes = HERE / "recipes"
    recipes.mkdir(exist_ok=True)
    for name in RECIPES:
        (recipes / f"{name}.json").write_text(json.dumps(recipe(name).to_dict(), indent=1) + "\n")
        (recipes / f"{name}.yaml").write_text(to_yaml(recipe(name), "float32" if name in FLOAT32 else DTYPE))
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        for folder in ("yaml", "recipes"):
            for file in (HERE / folder).glob("*.yaml"):
                text = file.read_text().replace("MODELS/", f"{HERE / 'models'}/")
                (work / f"{folder}-{file.name}").write_text(text)
        subprocess.run(
            [arguments.mergekit_python, "-m", "tests.reference.mergekit.run_yaml", str(work)],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True,
        )  # fmt: skip
        merged = {
            f"{file.parent.name}/{name}": tensor
            for file in sorted(work.glob("*/model*.safetensors"))
            for name, tensor in load_file(file).items()
        }
        save_file(merged, HERE / "merged.safetensors")
        shutil.copy(work / "provenance.json", HERE / "merged.json")


if __name__ == "__main__":
    main()
