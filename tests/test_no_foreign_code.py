"""Code that checkpoints bring along (`auto_map`) never runs, wherever one is loaded, and nobody is asked whether to."""

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import evohydra
from evohydra.families import pipeline_files
from evohydra.families.causal_lm import CausalLM
from evohydra.families.processors import load_processor
from evohydra.families.vision_language import VisionLanguage
from evohydra.scoring.benchmarks.scorers import ScorerError
from evohydra.scoring.benchmarks.scorers.similarity import Embedder
from tests import tiny_pipelines, tiny_scorers
from tests.tiny_models import save_model
from tests.tiny_vlms import save_vlm

LOADS = re.compile(r"\.from_pretrained$|\bAuto\w+\.from_config$")
PACKAGE = Path(evohydra.__file__).parent
CPU = torch.device("cpu")
CODE = """
from pathlib import Path
Path(__file__).with_name("it_ran").write_text("")
Path({marker!r}).write_text("")
class Mine:
    pass
"""
AUTO_CLASSES = (
    "AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoProcessor",
    "AutoImageProcessor",
)  # fmt: skip


def plant(directory: Path, marker: Path) -> None:
    """Put code beside every file of settings in `directory`, and the request to run it into each."""
    settings = [*directory.rglob("config.json"), *directory.rglob("*_config.json")]
    assert settings
    for file in settings:
        content = json.loads(file.read_text())
        content["auto_map"] = dict.fromkeys(AUTO_CLASSES, "mine.Mine")
        content["auto_map"]["AutoTokenizer"] = ["mine.Mine", "mine.Mine"]
        if "tokenizer" in file.name:
            content["tokenizer_class"] = "Mine"
        if file.name == "preprocessor_config.json":
            content |= {"image_processor_type": "Mine", "processor_class": "Mine"}
        file.write_text(json.dumps(content))
        (file.parent / "mine.py").write_text(CODE.format(marker=str(marker)))


def causal(root: Path) -> Callable[[], object]:
    directory = save_model(root / "model", 1)
    return lambda: CausalLM().live_model(directory, CPU, torch.float32)


def unknown(root: Path) -> Callable[[], object]:
    directory = save_model(root / "model", 1)
    content = json.loads((directory / "config.json").read_text()) | {"model_type": "mine", "architectures": ["Mine"]}
    (directory / "config.json").write_text(json.dumps(content))
    return lambda: CausalLM().dtype(directory)


def vision(root: Path) -> Callable[[], object]:
    directory = save_vlm(root / "model", "llava")
    return lambda: VisionLanguage().live_model(directory, CPU, torch.float32)


def processor(root: Path) -> Callable[[], object]:
    directory = save_vlm(root / "model", "llava")
    return lambda: load_processor(directory)


def pipeline(root: Path) -> Callable[[], object]:
    directory = tiny_pipelines.save_sdxl(root / "model", 1)
    return lambda: pipeline_files.tokenizer(directory / "tokenizer")


def encoder(root: Path) -> Callable[[], object]:
    directory = tiny_pipelines.save_sdxl(root / "model", 1)
    return lambda: pipeline_files.shapes(directory / "text_encoder")


def scorer(root: Path) -> Callable[[], object]:
    directory = tiny_scorers.save(root / "model", tiny_scorers.clip_config())
    return lambda: Embedder(directory)


@pytest.mark.parametrize("make", [causal, unknown, vision, processor, pipeline, encoder, scorer])
def test_code_of_a_checkpoint_does_not_run(
    make: Callable[[Path], Callable[[], object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, marker = make(tmp_path), tmp_path / "it_ran_here"
    plant(tmp_path / "model", marker)
    asked = []
    monkeypatch.setattr("builtins.input", lambda *prompt: asked.append(prompt) or "y")
    try:
        load()
    except (ValueError, ScorerError) as refused:  # a refusal will do, if it is a sentence
        said = str(refused)
        assert said
    assert asked == []
    assert not marker.exists()
    assert list(tmp_path.rglob("it_ran")) == []


@pytest.mark.parametrize(
    "name", ["pipeline", "PreTrainedModel", "logging", "AutoModel", "no_such", "DiffusionPipeline"]
)
@pytest.mark.parametrize("key", ["_class_name", "architectures"])
def test_what_is_no_class_of_models_is_not_called(key: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({key: name if key == "_class_name" else [name]}))
    if (key, name) == ("architectures", "PreTrainedModel"):
        return
    with pytest.raises(ValueError, match="expected a class of models of"):
        pipeline_files.class_of(tmp_path)


def loads(tree: ast.AST) -> list[ast.Call]:
    """Calls by which transformers or diffusers load something from files, or choose a class by a configuration."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    return [call for call in calls if LOADS.search(ast.unparse(call.func))]


def test_every_place_that_loads_says_that_no_code_runs() -> None:
    """Schedulers of diffusers have no code of their own to bring along, and do not know the word."""
    files = [file for file in PACKAGE.rglob("*.py") if "zoo" not in file.parts]
    calls = [(file.name, call) for file in files for call in loads(ast.parse(file.read_text()))]
    assert len(calls) > 12
    without = {
        f"{name}: {ast.unparse(call)}"
        for name, call in calls
        if not any(
            (each.arg is None and ast.unparse(each.value).endswith("LOCAL"))
            or (each.arg == "trust_remote_code" and ast.unparse(each.value) == "False")
            for each in call.keywords
        )
    }
    assert without == {"pipeline_files.py: kind.from_pretrained(folder, **changes)"}
