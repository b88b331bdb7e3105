"""Qwen3-VL-MoE: experts that files hold in either order of their sides, or one by one as plain language models do."""

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from evohydra.families import Rules
from evohydra.families.vision_language import VisionLanguage
from evohydra.merging.checkpoints import CheckpointReader
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Group, Merge
from evohydra.winner.checkpoint_files import write_weights
from tests import tiny_models

CPU, FAMILY, ROWS = torch.device("cpu"), VisionLanguage(), 64
TEXT = {
    "vocab_size": ROWS, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 128, "head_dim": 8, "num_experts": 4,
    "num_experts_per_tok": 2, "moe_intermediate_size": 12, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
MROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
TOWER = {
    "depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4, "out_hidden_size": 16,
    "deepstack_visual_indexes": [0], "num_position_embeddings": 16,
}  # fmt: skip
PICTURES = {"image_token_id": 50, "video_token_id": 51, "vision_start_token_id": 52, "vision_end_token_id": 53}
CHARACTERS = [*tiny_models.CHARACTERS, *(f"<{n}>" for n in range(ROWS - len(tiny_models.CHARACTERS)))]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two VLMs as transformers writes them anew, the same with experts turned, as published, and a plain model."""
    root = tmp_path_factory.mktemp("models")
    seeing = transformers.Qwen3VLMoeConfig(
        text_config={**TEXT, "rope_parameters": MROPE}, vision_config=TOWER, **PICTURES
    )
    plain = transformers.Qwen3MoeConfig(**TEXT)
    for seed, name in enumerate(("one", "two", "plain")):
        kind = transformers.AutoModelForCausalLM if name == "plain" else transformers.AutoModelForImageTextToText
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = kind.from_config(plain if name == "plain" else seeing)
        targets = [name] if name == "plain" else [name, f"{name}_published"]
        for target in targets:
            model.save_pretrained(root / target)
            tiny_models.tokenizer(CHARACTERS).save_pretrained(root / target)
            if name != "plain":
                transformers.Qwen2VLImageProcessorPil(patch_size=4, merge_size=2).save_pretrained(root / target)
        if name != "plain":
            turn(root / targets[1] / "model.safetensors")
    return root


def turn(file: Path) -> None:
    tensors = {n: t.transpose(1, 2).contiguous() if ".experts." in n else t for n, t in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def language(directory: Path) -> dict[str, torch.Tensor]:
    """The parameters of the language part as transformers loads them."""
    kind = transformers.AutoModelForCausalLM if directory.name == "plain" else transformers.AutoModelForImageTextToText
    state = kind.from_pretrained(directory).state_dict()
    return {
        name.replace("language_model.", ""): tensor
        for name, tensor in state.items()
        if not name.startswith("model.visual")
    }


@pytest.mark.parametrize(
    "names",
    [("one", "two"), ("one_published", "two_published"), ("one", "two_published"), ("one_published", "two"),
     ("one", "plain"), ("one_published", "plain")],
    ids="+".join,
)  # fmt: skip
def test_experts_are_merged_with_their_like(names: tuple[str, str], root: Path, tmp_path: Path) -> None:
    directories = {name: root / name for name in names}
    readers = {name: CheckpointReader(path) for name, path in directories.items()}
    aligned = FAMILY.align(directories, readers, None, Rules(config="allow"))
    first = directories[names[0]]
    shapes = aligned.tensors[names[0]].shapes
    places = FAMILY.locations(first, tuple(shapes), aligned.copied)
    merged = tuple(name for name, place in places.items() if place is not None)
    assert sum(".experts." in name for name in merged) == 4
    nodes = tuple(Checkpoint(name, str(path)) for name, path in directories.items())
    node = Merge("linear", None, nodes, (Group("all", merged, {"weight": (0.25, 0.75)}),))
    engine = Engine(aligned.tensors, device=CPU, dtype=torch.float32, compile_kernels=False)
    live = FAMILY.live_model(first, CPU, torch.float32, aligned.overlay)
    live.become(node, engine)
    (tmp_path / "out").mkdir()
    FAMILY.copy_files(first, tmp_path / "out", torch.float32, aligned.overlay)
    write_weights(node, engine, tmp_path / "out", torch.float32, 10**9)
    one, two = (language(path) for path in directories.values())
    in_memory = {name.replace("language_model.", ""): tensor for name, tensor in live.module.state_dict().items()}
    for name, tensor in language(tmp_path / "out").items():
        torch.testing.assert_close(tensor, 0.25 * one[name] + 0.75 * two[name], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(in_memory[name], tensor, rtol=0, atol=0)
    assert not FAMILY.verify(tmp_path / "out", live).weights


def test_a_model_whose_parameters_have_other_shapes_is_refused(root: Path) -> None:
    """An elementwise merge of as many numbers would be written in another order without a word."""
    reader = CheckpointReader(root / "one")
    name = "model.language_model.layers.0.mlp.experts.down_proj"
    node = Merge("linear", None, (Checkpoint("one", "-"),), (Group("all", (name,), {"weight": (1.0,)}),))
    engine = Engine({"one": reader}, device=CPU, dtype=torch.float32, compile_kernels=False)
    with pytest.raises(ValueError, match=r"in the shape \(4, 12, 16\), the merge in \(4, 16, 12\)"):
        engine.merge_into(node, {name: torch.empty(4, 12, 16)})
