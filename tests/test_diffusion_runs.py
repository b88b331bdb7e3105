"""Whole commands on tiny diffusion pipelines: the published recipe, a search with a base, and what is refused."""

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from evohydra.families.sdxl import SDXL
from evohydra.merging.checkpoints import SourceError
from evohydra.winner.remaking import rebuild
from tests import tiny_pipelines as tiny
from tests.commands import built, carried_out
from tests.test_simplex import ATTN, CONV

NAMES = ("sdxl_base", "sdxl_dpo", "juggernaut_xl", "jsdxl")
FUSSY = ["benchmark=[]", "+benchmark.x={_target_: tests.fakes.fussy, _partial_: true, families: [diffusion]}",
         "tracker=none", "baselines=null", "report=false", "audit=none"]  # fmt: skip


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Stand-ins for the four models: two whole ones, one of a UNet alone, and one in half precision."""
    root = tmp_path_factory.mktemp("sources")
    base = tiny.save_sdxl(root / "sdxl_base", 0)
    found = {"sdxl_base": base, "jsdxl": tiny.save_sdxl(root / "jsdxl", 1, base=base)}
    found["juggernaut_xl"] = tiny.save_sdxl(root / "juggernaut_xl", 2, base=base, dtype=torch.float16, variant="fp16")
    whole = tiny.save_sdxl(root / "whole", 3, base=base)
    (root / "sdxl_dpo").mkdir()
    found["sdxl_dpo"] = root / "sdxl_dpo"
    (whole / "unet").rename(root / "sdxl_dpo" / "unet")
    return found


def given(sources: dict[str, Path]) -> list[str]:
    paths = [f"model.sources.{name}.path={sources[name]}" for name in NAMES]
    return [*paths, "model.sources.sdxl_base.variant=null", "dtype=float32", "threads=1"]


def test_the_published_weights_are_made_without_a_search_and_again(sources: dict[str, Path], tmp_path: Path) -> None:
    run = built(["experiment=evo_ukiyoe_base", *given(sources)], tmp_path / "run")
    (tmp_path / "run").mkdir()
    run(Console(file=io.StringIO()))
    winner = tmp_path / "run" / "winner"
    ours = SDXL().open(winner, winner)
    theirs = [SDXL().open(sources[name], sources[name]) for name in NAMES]
    for name in (name for name in ours.shapes if name.startswith("unet/")):
        attention = any(part in name for part in ("to_q", "to_k", "to_v", "to_out.0"))
        expected = sum(w * each.read(name).float() for w, each in zip(ATTN if attention else CONV, theirs, strict=True))
        torch.testing.assert_close(ours.read(name), expected, msg=name)
    for component, owner in (("text_encoder", 3), ("text_encoder_2", 3), ("vae", 0)):
        for name in (name for name in ours.shapes if name.startswith(f"{component}/")):
            assert torch.equal(ours.read(name), theirs[owner].read(name)), name
    assert "without a search" in (winner / "README.md").read_text()
    assert "library_name: diffusers" in (winner / "README.md").read_text()
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    written, promised = rebuild(recipe, tmp_path / "again", {}, torch.device("cpu"))
    assert written == promised
    for file in winner.rglob("*.safetensors"):
        assert (tmp_path / "again" / file.relative_to(winner)).read_bytes() == file.read_bytes()


def test_task_vectors_on_a_base(sources: dict[str, Path], tmp_path: Path) -> None:
    arguments = ["model=juggernaut_xl+jsdxl", "merge=ties", "merge.parameter.granularity.preset=stages",
                 *(each for each in given(sources) if "sdxl_base" not in each and "sdxl_dpo" not in each),
                 f"model.sources.jsdxl.base={sources['sdxl_base']}", *FUSSY, "budget=6",
                 "optimizer.population=6"]  # fmt: skip
    summary = carried_out(arguments, tmp_path)
    assert summary["search"]["failed"] == 0
    genes = json.loads((tmp_path / "ledger.jsonl").read_text().splitlines()[0])["genes"]
    assert {gene.split("/")[0] for gene in genes} == {"down", "mid", "up", "rest"}
    recipe = json.loads((tmp_path / "recipe.json").read_text())
    assert recipe["family"] == "sdxl"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["merge=dfs"], "merge=dfs: a path through layers needs layers of one width in a row"),
        (["merge=linear+dfs"], "merge=dfs: a path through layers"),
        (["components={unet: nobody}"], r"components.unet: expected merge or a source that has it \(sdxl_base"),
        (["components={unett: merge}"], r"components: expected some of \[.*'unet', 'vae'\], got \['unett'\]"),
        (["components={scheduler: merge}"], "components.scheduler: expected the name of a source"),
        (["tokenizer=union"], "tokenizer: expected the default, for diffusion models have `components` instead"),
        (["adapters=[{path: /nowhere.safetensors}]"], "/nowhere.safetensors: no such directory or safetensors file"),
        (["merge.parameter.granularity.preset=mbw"], "granularity.preset: expected null or paper or stages or blocks"),
        (["format=shared"], "format=shared: expected paths"),
        (["model.sources.jsdxl.variant=fp16"], r"expected the weights model.fp16.safetensors .* \['none'\]"),
    ],
)  # fmt: skip
def test_what_is_refused(sources: dict[str, Path], tmp_path: Path, arguments: list[str], message: str) -> None:
    chosen = ["model=sdxl_base+jsdxl", "merge=simplex", *(each for each in given(sources) if "juggernaut" not in each
              and "dpo" not in each), *FUSSY, *arguments]  # fmt: skip
    with pytest.raises(ValueError, match=message):
        built(chosen, tmp_path)


def test_components_and_adapters_are_for_diffusion_models(tmp_path: Path) -> None:
    for argument in ("components={unet: merge}", "adapters=[{path: x}]"):
        with pytest.raises(SourceError, match="expected none, for these are no diffusion models"):
            built([argument, "tracker=none"], tmp_path)
