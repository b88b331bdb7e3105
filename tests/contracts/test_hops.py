"""Paths through the layers of tiny models of every architecture, run in one live model and written as checkpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from evohydra.families import Overlay
from evohydra.families.causal_lm import CausalLM, LiveCausalLM
from evohydra.families.comparison import differing
from evohydra.merging.checkpoints import CheckpointReader, SourceError
from evohydra.merging.engine import Engine
from evohydra.recipe import Checkpoint, Group, Hop, LayerNames, Merge, Node, Stack
from evohydra.winner.checkpoint_files import write_weights
from tests import tiny_models
from tests.contracts.test_causal_lm import ARCHITECTURES
from tests.nearness import assert_near

FAMILY = CausalLM()
CPU = torch.device("cpu")
# Windows shorter than the sequences below, layers with and without windows, layers with and without experts.
WINDOWS: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 4},
    "phi3": {"sliding_window": 4},
    "mixtral": {"sliding_window": 4},
    "qwen2": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "qwen3": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2},
    "gemma2": {"sliding_window": 4},
    "gemma3": {"sliding_window": 4, "sliding_window_pattern": 2},
    "qwen2_moe": {"decoder_sparse_step": 2},
    "qwen3_moe": {"mlp_only_layers": [1]},
}
DEPTHS = {"one": 3, "two": 4}
ONE, TWO = Checkpoint("one", "-"), Checkpoint("two", "-")


def save(directory: Path, architecture: str, depth: int, seed: int, **changes: Any) -> Path:
    """A random model of `depth` layers with its tokenizer; norms and biases are random too."""
    config = ARCHITECTURES[architecture]()
    depth_key = config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    settings = {key: value for key, value in config.to_dict().items() if key != "layer_types"}
    settings |= {**WINDOWS.get(architecture, {}), depth_key: depth, **changes}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(type(config)(**settings))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape))
    model.generation_config = transformers.GenerationConfig(pad_token_id=0, eos_token_id=None)
    model.save_pretrained(directory)
    tiny_models.tokenizer().save_pretrained(directory)
    return directory


class World:
    """Two models of one architecture, the engine that reads them, and a live model for paths through both."""

    def __init__(self, directories: Mapping[str, Path]) -> None:
        self.directories = directories
        self.engine = Engine({n: CheckpointReader(path) for n, path in directories.items()}, device=CPU)
        self.layout = FAMILY.layout(directories["one"])
        self.live = self.new_live()

    def new_live(self) -> LiveCausalLM:
        return FAMILY.live_model(self.directories["one"], CPU, torch.float32, sources=self.directories)

    def path(self, *hops: tuple[int, int] | tuple[int, int, float], scaling: str = "branch") -> Stack:
        return Stack((ONE, TWO), tuple(Hop(*hop) for hop in hops), self.layout, scaling)

    def become(self, node: Node) -> torch.nn.Module:
        self.live.become(node, self.engine)
        return self.live.module

    def plain(self, path: Stack, directory: Path) -> Any:
        """The path written as a plain checkpoint, and read by transformers alone."""
        write_weights(path, self.engine, directory, torch.float32, 10**9)
        overlay = Overlay(config=FAMILY.path_config(self.directories, path))
        FAMILY.copy_files(self.directories["one"], directory, torch.float32, overlay)
        return transformers.AutoModelForCausalLM.from_pretrained(directory).eval()


@pytest.fixture(scope="module", params=ARCHITECTURES)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp(request.param)
    return World({name: save(root / name, request.param, DEPTHS[name], seed) for seed, name in enumerate(DEPTHS)})


@pytest.fixture
def llamas(tmp_path: Path) -> World:
    return World({name: save(tmp_path / name, "llama", DEPTHS[name], seed) for seed, name in enumerate(DEPTHS)})


def batch() -> tuple[Tensor, Tensor]:
    """Ids and mask, (3, 10) each, padded on the left by 0, 2 and 5."""
    tokens = torch.randint(2, 40, (3, 10), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(tokens)
    for row, padding in enumerate((0, 2, 5)):
        tokens[row, :padding] = mask[row, :padding] = 0
    return tokens, mask


@torch.inference_mode()
def logits(module: Any) -> Tensor:
    """(tokens, vocabulary) at what is not padding."""
    tokens, mask = batch()
    whole: Tensor = module(input_ids=tokens, attention_mask=mask, position_ids=positions(mask)).logits
    return whole[mask.bool()]


def positions(mask: Tensor) -> Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)


INTERLEAVED = ((0, 0), (1, 1), (0, 1), (1, 3), (1, 0), (0, 2))
REPEATED = ((0, 0), (0, 1), (0, 1), (0, 0), (0, 1), (0, 2))
SCALED = ((0, 0), (1, 1, 0.7), (0, 1, 1.4), (1, 3, 1.0), (0, 1, 0.5), (0, 2, 1.1))


def test_the_identity_path_is_the_source_itself(world: World) -> None:
    source = transformers.AutoModelForCausalLM.from_pretrained(world.directories["one"]).eval()
    expected = logits(source)
    assert_near(logits(world.become(world.path(*((0, n) for n in range(3))))), expected, source)
    assert (logits(world.become(world.path(*INTERLEAVED))) - expected).abs().max() > 0.01
    assert_near(logits(world.become(ONE)), expected, source)
    assert not differing(source, world.live.module)
    fresh = FAMILY.live_model(world.directories["one"], CPU, torch.float32)
    assert world.live.module.config.to_dict() == fresh.module.config.to_dict()


@pytest.mark.parametrize(
    "hops", [INTERLEAVED, REPEATED, ((0, 0), (0, 2)), SCALED], ids=["two", "again", "ends", "scaled"]
)
def test_cached_generation_equals_uncached(world: World, hops: Sequence[tuple[int, int]]) -> None:
    module = world.become(world.path(*hops))
    tokens, mask = batch()
    options = {"max_new_tokens": 8, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    cached, uncached = (
        module.generate(input_ids=tokens, attention_mask=mask, use_cache=cache, **options) for cache in (True, False)
    )
    assert torch.equal(cached.sequences, uncached.sequences)
    torch.testing.assert_close(cached.logits, uncached.logits, rtol=1e-4, atol=1e-4)
    assert len(cached.past_key_values.layers) == len(hops)
    assert uncached.past_key_values is None


@pytest.mark.parametrize("hops", [INTERLEAVED, REPEATED], ids=["two", "again"])
@torch.inference_mode()
def test_token_by_token_equals_the_whole_sequence(world: World, hops: Sequence[tuple[int, int]]) -> None:
    module = world.become(world.path(*hops))
    tokens, mask = batch()
    places = positions(mask)
    cache, steps = None, []
    for start, end in ((0, 3), *((n, n + 1) for n in range(3, tokens.shape[1]))):
        output = module(
            input_ids=tokens[:, start:end],
            attention_mask=mask[:, :end],
            position_ids=places[:, start:end],
            past_key_values=cache,
            use_cache=True,
        )
        cache = output.past_key_values
        steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, 1)[mask.bool()], logits(module), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scaling", ["branch", "stream"])
def test_a_path_is_the_plain_checkpoint_that_it_is_written_as(world: World, scaling: str, tmp_path: Path) -> None:
    path = world.path(*SCALED, scaling=scaling)
    module = world.become(path)
    written = world.plain(path, tmp_path)
    assert written.config.num_hidden_layers == len(SCALED)
    # Of a stream's length the norms' epsilon knows.
    tolerance = 1e-4 if scaling == "branch" else 2e-3
    torch.testing.assert_close(logits(written), logits(module), rtol=tolerance, atol=tolerance)
    assert FAMILY.verify(tmp_path, world.live).outputs < 1e-3
    unscaled = world.become(world.path(*(hop[:2] for hop in SCALED)))
    assert (logits(written) - logits(unscaled)).abs().max() > 0.01


def test_a_path_without_scales_is_the_same_bits_as_its_plain_checkpoint(world: World, tmp_path: Path) -> None:
    for place, path in enumerate((world.path(*INTERLEAVED), world.path(*REPEATED))):
        module = world.become(path)
        (tmp_path / str(place)).mkdir()
        assert_near(logits(world.plain(path, tmp_path / str(place))), logits(module), module)
        assert FAMILY.verify(tmp_path / str(place), world.live).same_bits


def test_a_form_with_the_settings_of_a_path_makes_a_live_model_of_its_depth(world: World) -> None:
    path = world.path(*INTERLEAVED)
    module = world.become(path)
    shapes = world.engine.shapes(path)
    overlay = Overlay(frozenset(shapes), FAMILY.path_config(world.directories, path))
    live = FAMILY.live_model(world.directories["one"], CPU, torch.float32, overlay)
    world.engine.merge_into(path, live.parameters)
    assert {name: tuple(p.shape) for name, p in live.parameters.items()} == dict(shapes)
    assert not differing(live.module, module)
    assert_near(logits(live.module), logits(module), module)


@pytest.mark.parametrize("scaling", ["branch", "stream"])
def test_a_scale_of_one_is_no_scale(world: World, scaling: str) -> None:
    expected = logits(world.become(world.path(*INTERLEAVED)))
    path = world.path(*((*hop, 1.0) for hop in INTERLEAVED), scaling=scaling)
    assert torch.equal(logits(world.become(path)), expected)
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in world.live.module.base_model.modules()]
    assert not any(hooks)


@pytest.mark.parametrize("scaling", ["branch", "stream"])
def test_a_scale_multiplies_what_it_says_and_nothing_else(world: World, scaling: str) -> None:
    """branch: what the MLP of the hop before adds; stream: the input of the hop."""
    seen: dict[str, Tensor] = {}
    unscaled = None
    for scale in (1.0, -0.5, 0.0):
        module = world.become(world.path((0, 0), (1, 1, scale), (0, 2), scaling=scaling))
        first, second, _ = layers_of(module)
        end = first.get_submodule("post_feedforward_layernorm" if world.layout.mlp.startswith("post_") else "mlp")
        end.register_forward_hook(lambda _, inputs, output: seen.update(mlp=output), prepend=True)
        first.register_forward_hook(lambda _, inputs, output: seen.update(after=output))
        second.register_forward_pre_hook(lambda _, inputs: seen.update(following=inputs[0]))
        assert torch.isfinite(logits(module)).all()
        unscaled = seen["after"] if unscaled is None else unscaled
        if scaling == "stream":
            assert torch.equal(seen["after"], unscaled)
            assert torch.equal(seen["following"], scale * unscaled)
        else:
            torch.testing.assert_close(seen["after"], unscaled + (scale - 1.0) * seen["mlp"].view_as(unscaled))
            assert torch.equal(seen["following"], seen["after"])
        assert seen["mlp"].abs().max() > 0.01


@pytest.mark.parametrize("scaling", ["branch", "stream"])
def test_the_first_scale_multiplies_the_embeddings(world: World, scaling: str) -> None:
    seen = []
    for scale in (1.0, -2.0):
        module = world.become(world.path((0, 0, scale), (0, 2), scaling=scaling))
        layers_of(module)[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        logits(module)
    assert torch.equal(seen[1], -2.0 * seen[0])


def layers_of(module: Any) -> Any:
    return next(each for each in module.base_model.children() if isinstance(each, torch.nn.ModuleList))


def test_a_run_changes_no_parameter_and_copies_none(world: World) -> None:
    live = world.new_live()
    live.become(world.path(*INTERLEAVED), world.engine)
    before = {name: tensor.clone() for name, tensor in live.parameters.items()}
    tokens, mask = batch()
    live.module.generate(input_ids=tokens, attention_mask=mask, max_new_tokens=4, do_sample=False)
    logits(live.module)
    assert all(torch.equal(tensor, before[name]) for name, tensor in live.parameters.items())
    reader = CheckpointReader(world.directories["one"])
    assert all(torch.equal(tensor, reader.read(name)) for name, tensor in live.parameters.items())
    memory = sum(parameter.nbytes for parameter in live.module.parameters())
    live.become(world.path(*INTERLEAVED, *INTERLEAVED[1:], *INTERLEAVED[1:]), world.engine)
    assert sum(parameter.nbytes for parameter in live.module.parameters()) == memory
    own = {parameter.data_ptr() for parameter in live.parameters.values()}
    hops = layers_of(live.module)
    for hop, twin in ((0, None), (1, 6), (2, 7)):  # hops 6 and 7 go through the layers of hops 1 and 2
        pointers = [parameter.data_ptr() for parameter in hops[hop].parameters()]
        assert pointers == [p.data_ptr() for p in hops[twin or hop].parameters()]
        assert (INTERLEAVED[hop][0] == 1) == own.isdisjoint(pointers)


# What follows depends on no architecture.


def test_a_merge_is_the_first_source_and_is_merged_once(llamas: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The joint hybrid: the merge in place, the path through it and another source."""
    third = save(llamas.directories["one"].parent / "three", "llama", 3, 7)
    directories = {**llamas.directories, "three": third}
    engine = Engine({name: CheckpointReader(path) for name, path in directories.items()}, device=CPU)
    live = FAMILY.live_model(directories["one"], CPU, torch.float32, sources=directories)
    merged: list[Node] = []
    into = engine.merge_into
    monkeypatch.setattr(engine, "merge_into", lambda node, tensors: (merged.append(node), into(node, tensors)))

    def mixed(weight: float) -> Merge:
        group = Group("all", tuple(engine.shapes(ONE)), {"weight": (weight, 1 - weight)})
        return Merge("linear", None, (ONE, Checkpoint("three", "-")), (group,))

    def hybrid(source: Node, *hops: tuple[int, int]) -> Stack:
        return Stack((source, TWO), tuple(Hop(*hop) for hop in hops), llamas.layout)

    outputs = []
    for path in (hybrid(mixed(0.3), *INTERLEAVED), hybrid(mixed(0.3), *REPEATED), hybrid(mixed(0.6), *REPEATED)):
        live.become(path, engine)
        outputs.append(logits(live.module))
        for name in ("model.norm.weight", "model.layers.1.mlp.up_proj.weight"):
            assert torch.equal(live.parameters[name], engine.tensor(path.sources[0], name))
    assert merged == [TWO, mixed(0.3), mixed(0.6)]
    assert not torch.equal(outputs[1], outputs[2])
    live.become(mixed(0.3), engine)
    whole = logits(live.module)
    live.become(hybrid(mixed(0.3), (0, 0), (0, 1), (0, 2)), engine)
    assert torch.equal(logits(live.module), whole)
    based = replace(mixed(0.3), base=Checkpoint("three", "-"))  # its base is none of the sources of the path
    expected = Stack((ONE, based), (Hop(0, 0), Hop(1, 1), Hop(1, 2)), llamas.layout)
    live = FAMILY.live_model(directories["one"], CPU, torch.float32, sources=llamas.directories)
    live.become(expected, engine)
    again = written(expected, engine, directories)
    assert not differing(again, live.module)
    assert_near(logits(live.module), logits(again), again)


def written(path: Stack, engine: Engine, directories: Mapping[str, Path]) -> Any:
    target = directories["one"].parent / "written"
    target.mkdir()
    write_weights(path, engine, target, torch.float32, 10**9)
    overlay = Overlay(config=FAMILY.path_config(directories, path))
    FAMILY.copy_files(directories["one"], target, torch.float32, overlay)
    return transformers.AutoModelForCausalLM.from_pretrained(target).eval()


def test_a_source_of_another_depth_is_scored_as_a_whole_too(world: World) -> None:
    one, two = (transformers.AutoModelForCausalLM.from_pretrained(world.directories[n]).eval() for n in ("one", "two"))
    assert_near(logits(world.become(TWO)), logits(two), two)
    assert_near(logits(world.become(world.path((0, 0), (0, 1), (0, 2)))), logits(one), one)
    assert_near(logits(world.become(ONE)), logits(one), one)


def test_layers_may_differ_in_heads_and_width_in_memory_but_not_in_a_checkpoint(tmp_path: Path) -> None:
    directories = {"one": save(tmp_path / "one", "llama", 3, 0)}
    directories["two"] = save(tmp_path / "two", "llama", 4, 1, num_attention_heads=4, num_key_value_heads=4,
                              intermediate_size=40)  # fmt: skip
    world = World(directories)
    path = world.path(*INTERLEAVED)
    module = world.become(path)
    tokens, mask = batch()
    cached, uncached = (
        module.generate(input_ids=tokens, attention_mask=mask, use_cache=use, max_new_tokens=6, do_sample=False)
        for use in (True, False)
    )
    assert torch.equal(cached, uncached)
    with pytest.raises(ValueError, match="source 1 has other intermediate_size, num_attention_heads, num_key_value"):
        FAMILY.path_config(directories, path)
    assert FAMILY.path_config(directories, world.path((0, 0), (0, 0))) == {"num_hidden_layers": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 32}, "hidden_size 32 where '.*one' has 16"),
        ({"head_dim": 4, "num_attention_heads": 4}, "head_dim 4 where '.*one' has 8"),
        ({"rms_norm_eps": 1e-3}, "rms_norm_eps 0.001 where '.*one' has 1e-06"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' where '.*one' has 'silu'"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, "rope_parameters .*500000.0.* where"),
    ],
)
def test_layers_that_do_not_fit_are_refused_before_anything_runs(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    directories = {
        "one": save(tmp_path / "one", "llama", 2, 0),
        "two": save(tmp_path / "two", "llama", 2, 1, **changes),
    }
    with pytest.raises(SourceError, match=f"layers of source 'two' do not fit on a path with those of .*{message}"):
        FAMILY.live_model(directories["one"], CPU, torch.float32, sources=directories)


def test_rotary_angles_that_depend_on_the_longest_length_need_the_same_one(tmp_path: Path) -> None:
    """Others do not, nor does a layer depend on what transformers does not know."""
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 64}
    for name, rotary in (("plain", None), ("yarn", yarn)):
        directories = {
            each: save(tmp_path / name / each, "llama", 2, 0, max_position_embeddings=length, remark=each,
                       **({"rope_parameters": rotary} if rotary else {}))
            for each, length in (("one", 128), ("two", 256))
        }  # fmt: skip
        if rotary is None:
            World(directories)
    with pytest.raises(SourceError, match=r"max_position_embeddings 256 where '.*one' has 128$"):
        World(directories)


def test_windows_that_differ_are_refused(tmp_path: Path) -> None:
    directories = {
        "one": save(tmp_path / "one", "mistral", 2, 0),
        "two": save(tmp_path / "two", "mistral", 2, 1, sliding_window=None),
    }
    with pytest.raises(SourceError, match=r"sliding_window None where '.*one' has 4"):
        FAMILY.live_model(directories["one"], CPU, torch.float32, sources=directories)


def test_kinds_of_layers_that_the_first_source_lacks_are_refused(tmp_path: Path) -> None:
    types = {"one": ["full_attention"] * 3, "two": ["full_attention", "sliding_attention"] * 2}
    changes = {"use_sliding_window": True, "sliding_window": 4}
    world = World({n: save(tmp_path / n, "qwen2", DEPTHS[n], 0, layer_types=types[n], **changes) for n in types})
    world.become(world.path((0, 0), (1, 2)))
    with pytest.raises(ValueError, match="layers of type sliding_attention, which the first source has none of"):
        world.become(world.path((0, 0), (1, 1)))


def test_paths_that_cannot_run_say_why(llamas: World) -> None:
    inner = llamas.path((0, 0), (0, 1))
    with pytest.raises(ValueError, match="hop 1: source 1 has no layer 4"):
        llamas.become(llamas.path((0, 0), (1, 4)))
    with pytest.raises(ValueError, match="a path through the layers of a path"):
        llamas.become(Stack((inner, TWO), (Hop(0, 0),), llamas.layout))
    alone = FAMILY.live_model(llamas.directories["one"], CPU, torch.float32)
    with pytest.raises(ValueError, match="needs layers of 'two', known are those of"):
        alone.become(llamas.path(*INTERLEAVED), llamas.engine)
    other = FAMILY.live_model(llamas.directories["two"], CPU, torch.float32, sources=llamas.directories)
    with pytest.raises(ValueError, match=r"expected shape \(.*\), as the model in memory has it, got None"):
        other.become(llamas.path(*INTERLEAVED), llamas.engine)
    untied = llamas.path((0, 0, 2.0), (0, 1))
    assert FAMILY.path_config(llamas.directories, untied) == {"num_hidden_layers": 2}


def test_a_scale_of_embeddings_that_are_the_head_is_no_plain_checkpoint(tmp_path: Path) -> None:
    world = World({name: save(tmp_path / name, "llama_tied", 2, seed) for seed, name in enumerate(DEPTHS)})
    with pytest.raises(ValueError, match=r"the scale 2.0 of its first hop would multiply the embeddings"):
        FAMILY.path_config(world.directories, world.path((0, 0, 2.0), (0, 1)))


def test_a_merge_that_fails_leaves_no_model_behind(llamas: World) -> None:
    expected = logits(llamas.become(llamas.path(*REPEATED)))
    group = Group("all", tuple(llamas.engine.shapes(ONE)), {"weight": (float("nan"), 1.0)})
    broken = Merge("linear", None, (ONE, ONE), (group,))
    with pytest.raises((ArithmeticError, ValueError)):
        llamas.become(Stack((broken, TWO), (Hop(0, 0), Hop(1, 1)), llamas.layout))
    assert torch.equal(logits(llamas.become(llamas.path(*REPEATED))), expected)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            lambda: transformers.T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=47),
            "expected a decoder whose layers are a plain list, got 't5', an encoder with a decoder",
        ),
        (
            lambda: transformers.OPTConfig(
                hidden_size=16,
                ffn_dim=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                vocab_size=47,
                word_embed_proj_dim=16,
            ),
            r"opt: no path can be laid .*; expected an output of its MLP in layer 0, a tensor .*, got '",
        ),
        (
            lambda: transformers.BloomConfig(hidden_size=16, n_layer=1, n_head=2, vocab_size=47),
            "bloom: no path can be laid .*; expected input embeddings called embed_tokens, embed_in or wte, got ",
        ),
        (
            lambda: transformers.MambaConfig(hidden_size=16, num_hidden_layers=1, vocab_size=47, state_size=4),
            "mamba: no path can be laid .*; expected .*, got ",
        ),
    ],
    ids=["t5", "opt", "bloom", "mamba"],
)
def test_architectures_that_no_rule_fits_are_refused(config: Any, message: str, tmp_path: Path) -> None:
    made = config()
    auto = transformers.AutoModelForSeq2SeqLM if made.is_encoder_decoder else transformers.AutoModelForCausalLM
    auto.from_config(made).save_pretrained(tmp_path)
    with pytest.raises(SourceError, match=message):
        FAMILY.layout(tmp_path)


def test_layouts_follow_the_names_that_tensors_have_in_a_run(tmp_path: Path) -> None:
    """GPT-2 was published without the prefix that transformers writes; a norm's weight ends the branches of Gemma2."""
    directory = save(tmp_path / "gpt2", "gpt2", 2, 0)
    names = [name.removeprefix("transformer.") for name in CheckpointReader(directory).shapes]
    layout = FAMILY.layout(directory, names)
    assert (layout.layers, layout.embeddings) == ("h", r"wpe\.weight|wte\.weight")
    assert layout.mlp == r"mlp\.c_proj\.bias|mlp\.c_proj\.weight"
    assert FAMILY.depth(directory) == 2
    gemma = FAMILY.layout(save(tmp_path / "gemma2", "gemma2", 2, 0))
    assert (gemma.attention, gemma.offset) == (r"post_attention_layernorm\.weight", 1.0)
    moe = FAMILY.layout(save(tmp_path / "moe", "qwen2_moe", 2, 0))
    assert moe.mlp.split("|") == [
        r"mlp\.down_proj\.weight", r"mlp\.experts\.\d+\.down_proj\.weight", r"mlp\.shared_expert\.down_proj\.weight"
    ]  # fmt: skip


def test_models_that_no_path_leads_through_merge_as_ever(tmp_path: Path) -> None:
    """OPT's layers are not where its base model runs them from."""
    config = transformers.OPTConfig(
        hidden_size=16, ffn_dim=16, num_hidden_layers=2, num_attention_heads=2, vocab_size=47, word_embed_proj_dim=16
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tiny_models.tokenizer().save_pretrained(tmp_path)
    engine = Engine({"one": CheckpointReader(tmp_path)}, device=CPU)
    live = FAMILY.live_model(tmp_path, CPU, torch.float32)
    weights = [tensor for name, tensor in live.parameters.items() if name.endswith("layers.1.fc2.weight")]
    weights[0].zero_()
    live.become(ONE, engine)
    assert weights[0].any()
    with pytest.raises(SourceError, match="expected 2 layers in one list, each with its number as layer_idx, got"):
        live.become(Stack((ONE,), (Hop(0, 0),), LayerNames("model.decoder.layers", "", "", "")), engine)
