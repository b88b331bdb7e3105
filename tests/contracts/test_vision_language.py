"""The family of vision-language models over tiny models of six architectures, merged with language models."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from evohydra.families import Aligned, Overlay, Rules
from evohydra.families.vision_language import LiveVisionLanguage, VisionLanguage
from evohydra.merging.checkpoints import CheckpointReader, TensorSource
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Group, Hop, Merge, Node, Stack
from evohydra.winner.checkpoint_files import write_weights
from tests import tiny_vlms
from tests.nearness import assert_near

FAMILY = VisionLanguage()
CPU = torch.device("cpu")
VLM, LM = Checkpoint("vlm", "-"), Checkpoint("lm", "-")
LINEAR = "linear"
PROCESSORS_WITHOUT_TORCHVISION = ("llava", "llava_next", "idefics3")


@dataclass
class World:
    """A VLM and a language model on disk, brought to the same tensors; `lm` comes first on purpose."""

    architecture: str
    directories: Mapping[str, Path]
    aligned: Aligned

    @property
    def engine(self) -> Engine:
        return Engine(self.aligned.tensors, device=CPU)

    def live(self, paths: bool = False) -> LiveVisionLanguage:
        sources = self.directories if paths else {}
        return FAMILY.live_model(self.directories["vlm"], CPU, torch.float32, self.aligned.overlay, sources)

    def merged_names(self) -> tuple[str, ...]:
        names = tuple(self.aligned.tensors["vlm"].shapes)
        return tuple(name for name, place in FAMILY.locations(self.directories["vlm"], names).items() if place)

    def average(self, weight: float = 0.5) -> Merge:
        return Merge(LINEAR, None, (LM, VLM), (Group("all", self.merged_names(), {"weight": (weight, 1 - weight)}),))

    def write(self, node: Node, target: Path) -> Path:
        target.mkdir()
        config = FAMILY.path_config(self.directories, node) if isinstance(node, Stack) else {}
        overlay = Overlay(
            self.aligned.overlay.names, {**self.aligned.overlay.config, **config}, self.aligned.overlay.tokenizer
        )
        write_weights(node, self.engine, target, torch.float32, 20_000)  # bytes: several shards
        FAMILY.copy_files(self.directories["vlm"], target, torch.float32, overlay)
        return target


def opened(directories: Mapping[str, Path]) -> dict[str, CheckpointReader]:
    return {name: CheckpointReader(path) for name, path in directories.items()}


@pytest.fixture(scope="module", params=tiny_vlms.CONFIGS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Both of the same depth, for merges."""
    root = tmp_path_factory.mktemp(request.param)
    lm = tiny_vlms.save_language_model(root / "lm", tiny_vlms.LANGUAGE[request.param])
    directories = {"lm": lm, "vlm": tiny_vlms.save_vlm(root / "vlm", request.param)}
    return World(request.param, directories, FAMILY.align(directories, opened(directories), None, Rules()))


@pytest.fixture(scope="module", params=tiny_vlms.CONFIGS)
def deep(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A language model that is deeper than the VLM, for paths."""
    root = tmp_path_factory.mktemp(request.param)
    lm = tiny_vlms.save_language_model(root / "lm", tiny_vlms.LANGUAGE[request.param], num_hidden_layers=3)
    directories = {"lm": lm, "vlm": tiny_vlms.save_vlm(root / "vlm", request.param)}
    return World(request.param, directories, FAMILY.align_layers(directories, opened(directories), "vlm", Rules()))


def picture(architecture: str, module: Any) -> dict[str, Any]:
    """A question about a picture, made by hand, for a `module` of the architecture."""
    config = module.config
    generator = torch.Generator().manual_seed(3)
    words, special = [7, 9, 11], tiny_vlms.PLAIN
    if architecture.startswith("qwen"):
        # 4 x 4 patches of 2 frames, 4 x 4 pixels and 3 channels; 2 x 2 of them become one token
        pixels = {"pixel_values": torch.randn(16, 3 * 2 * 4 * 4, generator=generator),
                  "image_grid_thw": torch.tensor([[1, 4, 4]])}  # fmt: skip
        ids = [config.vision_start_token_id, *[config.image_token_id] * 4, config.vision_end_token_id]
    elif architecture == "llava_next":
        pixels = {"pixel_values": torch.randn(1, 5, 3, 16, 16, generator=generator),
                  "image_sizes": torch.tensor([[32, 32]])}  # fmt: skip
        ids = [special] * (16 + 8 * 8 + 8)
    elif architecture == "llava":
        pixels, ids = {"pixel_values": torch.randn(1, 3, 16, 16, generator=generator)}, [special] * 16
    else:
        pixels, ids = {"pixel_values": torch.randn(1, 1, 3, 16, 16, generator=generator)}, [special] * 4
    tokens = torch.tensor([[5, *ids, *words]])
    kinds = {"mm_token_type_ids": (tokens == config.image_token_id).int()} if architecture.startswith("qwen") else {}
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), **pixels, **kinds}


@torch.inference_mode()
def seen(architecture: str, module: Any) -> Tensor:
    """(length, vocabulary) logits about a picture."""
    logits: Tensor = module(**picture(architecture, module)).logits[0]
    return logits


@torch.inference_mode()
def read(module: Any) -> Tensor:
    """(2, length, vocabulary) logits on texts."""
    logits: Tensor = module(input_ids=torch.arange(24).reshape(2, 12) + 2).logits
    return logits


def published(directory: Path) -> Any:
    return transformers.AutoModelForImageTextToText.from_pretrained(directory).eval()


def test_only_the_language_part_has_places(world: World) -> None:
    names = tuple(CheckpointReader(world.directories["vlm"]).shapes)
    places = FAMILY.locations(world.directories["vlm"], names)
    assert set(places) == set(names)
    module = published(world.directories["vlm"])
    head = module.get_output_embeddings().weight.numel()
    language = head + sum(p.numel() for p in module.get_decoder().parameters())
    shapes = CheckpointReader(world.directories["vlm"]).shapes
    assert sum(torch.Size(shapes[name]).numel() for name, place in places.items() if place) == language
    assert {place.layer for place in places.values() if place} == {None, 0, 1}
    assert {place.module for place in places.values() if place} == {"attention", "mlp", "norms", "embeddings", "head"}
    kept = next(name for name, place in places.items() if place)
    assert FAMILY.locations(world.directories["vlm"], names, frozenset({kept}))[kept] is None


def test_the_language_model_gets_the_rest_of_the_vlm(world: World) -> None:
    assert world.aligned.files_from == "vlm"
    assert world.aligned.overlay.config == {}
    assert world.aligned.left_out == ()
    vlm, lm = world.aligned.tensors["vlm"], world.aligned.tensors["lm"]
    own = CheckpointReader(world.directories["vlm"])
    assert vlm.shapes == lm.shapes == own.shapes
    merged = set(world.merged_names())
    for name in own.shapes:
        assert torch.equal(vlm.read(name), own.read(name))
        assert torch.equal(lm.read(name), own.read(name)) == (name not in merged), name
    plain = CheckpointReader(world.directories["lm"])
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        ours = next(each for each in own.shapes if each.endswith(name.removeprefix("model.")))
        assert torch.equal(lm.read(ours)[: tiny_vlms.PLAIN], plain.read(name))
        assert torch.equal(lm.read(ours)[tiny_vlms.PLAIN :], own.read(ours)[tiny_vlms.PLAIN :])


def test_the_live_models_parameters_are_the_checkpoints_tensors(world: World) -> None:
    live = world.live()
    reader = CheckpointReader(world.directories["vlm"])
    assert {name: tuple(p.shape) for name, p in live.parameters.items()} == dict(reader.shapes)
    for name, parameter in live.parameters.items():
        assert torch.equal(parameter, reader.read(name)), name
    memory = {p.data_ptr() for p in live.module.parameters()}
    assert all(parameter.data_ptr() in memory for parameter in live.parameters.values())
    assert not live.module.training


def test_a_merge_in_place_is_the_average_that_torch_makes(world: World) -> None:
    live = world.live()
    live.become(world.average(), world.engine)
    expected = published(world.directories["vlm"])
    lm = transformers.AutoModelForCausalLM.from_pretrained(world.directories["lm"]).eval()
    unmerged = seen(world.architecture, expected)
    with torch.no_grad():
        theirs = dict(lm.model.named_parameters())
        for name, parameter in expected.get_decoder().named_parameters():
            rows = len(theirs[name])
            parameter[:rows].mul_(0.5).add_(0.5 * theirs[name])
        expected.lm_head.weight[: tiny_vlms.PLAIN].mul_(0.5).add_(0.5 * lm.lm_head.weight)
    torch.testing.assert_close(read(live.module), read(expected))
    torch.testing.assert_close(seen(world.architecture, live.module), seen(world.architecture, expected))
    assert (seen(world.architecture, live.module) - unmerged).abs().max() > 0.01


def test_the_winner_is_a_checkpoint_of_the_vlms_own_class(world: World, tmp_path: Path) -> None:
    live = world.live()
    live.become(world.average(0.3), world.engine)
    target = world.write(world.average(0.3), tmp_path / "winner")
    assert set(CheckpointReader(target).shapes) == set(CheckpointReader(world.directories["vlm"]).shapes)
    assert FAMILY.verify(target, live).same_bits
    loaded, loading = transformers.AutoModelForImageTextToText.from_pretrained(target, output_loading_info=True)
    assert not any(loading.values())
    assert type(loaded) is type(published(world.directories["vlm"]))
    assert_near(seen(world.architecture, loaded.eval()), seen(world.architecture, live.module), live.module)
    options = {"max_new_tokens": 6, "do_sample": False}
    about = picture(world.architecture, loaded)
    assert torch.equal(loaded.generate(**about, **options), live.module.generate(**about, **options))
    live.become(LM, world.engine)
    other = FAMILY.verify(target, live)
    assert other.weights
    assert other.outputs > 0.001


def test_the_winner_has_the_vlms_processor(world: World, tmp_path: Path) -> None:
    target = world.write(world.average(), tmp_path / "winner")
    for file in world.directories["vlm"].glob("*process*"):
        assert (target / file.name).read_text() == file.read_text()
    if world.architecture not in PROCESSORS_WITHOUT_TORCHVISION:
        pytest.importorskip("torchvision")
    text = "<image>12+3" if "qwen" not in world.architecture else "<|vision_start|><|image_pad|><|vision_end|>12+3"
    pixels = torch.arange(24 * 24 * 3).reshape(24, 24, 3).remainder(251).to(torch.uint8).numpy()
    ours, theirs = (
        processor(images=[pixels], text=[text], return_tensors="pt")
        for processor in (transformers.AutoProcessor.from_pretrained(target), world.live().processor)
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    live = world.live()
    live.become(world.average(), world.engine)
    options = {"max_new_tokens": 4, "do_sample": False}
    assert torch.equal(published(target).generate(**ours, **options), live.module.generate(**theirs, **options))


def test_two_vlms_merge_and_the_first_gives_the_tower(world: World, tmp_path: Path) -> None:
    other = tiny_vlms.save_vlm(tmp_path / "other", world.architecture, seed=5)
    directories = {"lm": world.directories["lm"], "other": other, "vlm": world.directories["vlm"]}
    aligned = FAMILY.align(directories, opened(directories), None, Rules())
    assert aligned.files_from == "other"
    merged = set(world.merged_names())
    for name in aligned.tensors["vlm"].shapes:
        owner = directories["vlm" if name in merged else "other"]
        assert torch.equal(aligned.tensors["vlm"].read(name), CheckpointReader(owner).read(name))
    head = next(name for name in merged if name.endswith("lm_head.weight"))
    rows = CheckpointReader(other).read(head)[tiny_vlms.PLAIN :]
    assert torch.equal(aligned.tensors["lm"].read(head)[tiny_vlms.PLAIN :], rows)  # not the mean of both VLMs


def test_the_tower_is_that_of_the_sources_as_they_are_read(world: World) -> None:
    """Adapters and types may change it on the way from its files; it is written with the first recipe."""

    class Doubled:
        def __init__(self, tensors: TensorSource) -> None:
            self.shapes, self._tensors = tensors.shapes, tensors

        def read(self, name: str) -> Tensor:
            return 2 * self._tensors.read(name)

    readers = {name: Doubled(reader) for name, reader in opened(world.directories).items()}
    aligned = FAMILY.align(world.directories, readers, None, Rules())
    live = world.live()
    for node in (world.average(), VLM, LM):
        live.become(node, Engine(aligned.tensors, device=CPU))
        for name in set(live.parameters) - set(world.merged_names()):
            assert torch.equal(live.parameters[name], readers["vlm"].read(name))


def test_a_base_without_rows_for_pictures_is_completed_too(world: World, tmp_path: Path) -> None:
    base = tiny_vlms.save_language_model(tmp_path / "base", tiny_vlms.LANGUAGE[world.architecture], seed=8)
    directories = {**world.directories, "base": base}
    aligned = FAMILY.align(directories, opened(directories), "base", Rules())
    assert aligned.files_from == "vlm"
    assert aligned.tensors["base"].shapes == aligned.tensors["vlm"].shapes
    group = Group("all", world.merged_names(), {"weight": (1.0, 1.0)})
    merge = Merge("task_arithmetic", Checkpoint("base", "-"), (LM, VLM), (group,))
    live = FAMILY.live_model(directories["vlm"], CPU, torch.float32, aligned.overlay)
    live.become(merge, Engine(aligned.tensors, device=CPU))
    own = CheckpointReader(directories["vlm"])
    for name, parameter in live.parameters.items():
        if name not in world.merged_names():
            assert torch.equal(parameter, own.read(name))
    head = next(name for name in own.shapes if name.endswith("lm_head.weight"))
    assert torch.equal(live.parameters[head][tiny_vlms.PLAIN :], own.read(head)[tiny_vlms.PLAIN :])


INTERLEAVED = ((0, 0), (1, 1), (1, 2), (0, 1), (1, 0), (0, 1))
SCALED = ((0, 0), (1, 1, 0.7), (1, 2, 1.4), (0, 0, 0.5), (0, 1, 1.1))


def path(world: World, hops: Any, first: Node = VLM, scaling: str = "branch") -> Stack:
    layout = FAMILY.layout(world.directories["vlm"], tuple(world.aligned.tensors["vlm"].shapes))
    return Stack((first, LM), tuple(Hop(*hop) for hop in hops), layout, scaling)


def test_a_path_lies_in_the_language_part(deep: World) -> None:
    live = deep.live(paths=True)
    own = published(deep.directories["vlm"])
    live.become(path(deep, ((0, 0), (0, 1))), deep.engine)
    assert torch.equal(seen(deep.architecture, live.module), seen(deep.architecture, own))
    live.become(path(deep, INTERLEAVED), deep.engine)
    assert (seen(deep.architecture, live.module) - seen(deep.architecture, own)).abs().max() > 0.01
    assert len(live.module.get_decoder().layers) == 6
    live.become(VLM, deep.engine)
    assert torch.equal(seen(deep.architecture, live.module), seen(deep.architecture, own))
    tower = {n: p for n, p in own.named_parameters() if "vis" in n}
    assert tower
    for name, parameter in tower.items():
        assert torch.equal(live.module.get_parameter(name), parameter)


@pytest.mark.parametrize("scaling", ["branch", "stream"])
def test_a_path_is_the_checkpoint_that_it_is_written_as(deep: World, scaling: str, tmp_path: Path) -> None:
    live = deep.live(paths=True)
    scaled = path(deep, SCALED, scaling=scaling)
    live.become(scaled, deep.engine)
    target = deep.write(scaled, tmp_path / "winner")
    loaded = published(target)
    assert loaded.config.get_text_config().num_hidden_layers == len(SCALED)
    tolerance = 1e-4 if scaling == "branch" else 2e-3
    for expected, got in ((read(live.module), read(loaded)),
                          (seen(deep.architecture, live.module), seen(deep.architecture, loaded))):  # fmt: skip
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
    assert FAMILY.verify(target, live).outputs < 1e-3


def test_a_path_without_scales_is_the_same_bits_as_its_checkpoint(deep: World, tmp_path: Path) -> None:
    live = deep.live(paths=True)
    live.become(path(deep, INTERLEAVED), deep.engine)
    loaded = published(deep.write(path(deep, INTERLEAVED), tmp_path / "winner"))
    assert_near(seen(deep.architecture, loaded), seen(deep.architecture, live.module), live.module)
    assert FAMILY.verify(tmp_path / "winner", live).same_bits


def test_cached_generation_about_a_picture_equals_uncached(deep: World) -> None:
    live = deep.live(paths=True)
    live.become(path(deep, INTERLEAVED), deep.engine)
    options = {"max_new_tokens": 6, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    about = picture(deep.architecture, live.module)
    cached, uncached = (live.module.generate(**about, use_cache=cache, **options) for cache in (True, False))
    assert torch.equal(cached.sequences, uncached.sequences)
    torch.testing.assert_close(cached.logits, uncached.logits, rtol=1e-4, atol=1e-4)


def test_a_deeper_language_model_is_scored_as_a_whole(deep: World) -> None:
    """It speaks with its own embeddings and head, and sees through the VLM's tower."""
    live = deep.live(paths=True)
    live.become(LM, deep.engine)
    lm = transformers.AutoModelForCausalLM.from_pretrained(deep.directories["lm"]).eval()
    torch.testing.assert_close(read(live.module)[..., : tiny_vlms.PLAIN], read(lm), rtol=1e-4, atol=1e-4)
    assert seen(deep.architecture, live.module).isfinite().all()
    live.become(VLM, deep.engine)
    assert_near(read(live.module), read(published(deep.directories["vlm"])), live.module)


def test_a_hybrid_is_a_path_through_the_merge_and_a_source(world: World, tmp_path: Path) -> None:
    live = world.live(paths=True)
    hybrid = path(world, ((0, 0), (1, 1, 0.8), (0, 1)), first=world.average(0.4))
    live.become(hybrid, world.engine)
    loaded = published(world.write(hybrid, tmp_path / "winner"))
    expected = seen(world.architecture, loaded)
    torch.testing.assert_close(seen(world.architecture, live.module), expected, rtol=1e-4, atol=1e-4)
    assert FAMILY.verify(tmp_path / "winner", live).outputs < 1e-4


def test_hidden_states_that_paths_share_are_kept_for_pictures_too(deep: World) -> None:
    """The same bits with and without, and fewer layers run."""
    outputs = []
    recipes = [path(deep, INTERLEAVED), path(deep, (*INTERLEAVED[:4], (0, 0), (0, 1)))]
    for limit in (0, 10**8):
        live = FAMILY.live_model(
            deep.directories["vlm"], CPU, torch.float32, deep.aligned.overlay, deep.directories, limit
        )
        live.expect(recipes)
        for recipe in recipes:
            live.become(recipe, deep.engine)
            about = picture(deep.architecture, live.module)
            with torch.inference_mode():
                outputs.append(live.module(**about, use_cache=False).logits)
    assert torch.equal(outputs[0], outputs[2])
    assert torch.equal(outputs[1], outputs[3])
    assert live.paths.prefixes.reused == 4 * about["input_ids"].numel()
