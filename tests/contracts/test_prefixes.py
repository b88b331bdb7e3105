"""Paths that begin alike: the same answers with and without what is kept of it, for every architecture."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from evohydra.families.causal_lm import LiveCausalLM
from evohydra.families.prefixes import Kept, keys_of, most_kept
from evohydra.recipe import Checkpoint, Group, Hop, Merge, Stack
from tests.contracts.test_causal_lm import ARCHITECTURES
from tests.contracts.test_hops import CPU, DEPTHS, FAMILY, World, batch, positions, save

GENEROUS = 10**8  # bytes
A, B = (0, 0), (1, 1)
GENERATION = (
    (A, (0, 1), B, (1, 2), (0, 2)),
    (A, (0, 1), B, (0, 2)),
    (A, (0, 1), (0, 1), (0, 2)),
    (A, B, (1, 2), (0, 2)),
    (A, (0, 1), B, (1, 2), (1, 0), (0, 2)),
    (A, (0, 1), B, (1, 2), (0, 2)),
)
SHARED = 3 + 2 + 1 + 4 + 5  # of these the hops that an earlier one has in the same place, from the start


@pytest.fixture(scope="module", params=ARCHITECTURES)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp(request.param)
    return World({name: save(root / name, request.param, DEPTHS[name], seed) for seed, name in enumerate(DEPTHS)})


@pytest.fixture(scope="module")
def llamas(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("llamas")
    return World({name: save(root / name, "llama", DEPTHS[name], seed) for seed, name in enumerate(DEPTHS)})


def live_with(world: World, limit: int) -> LiveCausalLM:
    return FAMILY.live_model(
        world.directories["one"], CPU, torch.float32, sources=world.directories, prefix_bytes=limit
    )


@torch.inference_mode()
def answers(live: LiveCausalLM) -> list[Tensor]:
    """Logits of two batches as for log-likelihoods, then what is generated for another, with its logits."""
    tokens, mask = batch()
    found = [live.module(tokens, use_cache=False).logits, live.module(tokens[:2, :4], use_cache=False).logits]
    places = positions(mask)
    found.append(live.module(input_ids=tokens, attention_mask=mask, position_ids=places, use_cache=False).logits)
    generated = live.module.generate(
        input_ids=tokens,
        attention_mask=mask,
        max_new_tokens=6,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return [*found, generated.sequences, *generated.logits]


def run(world: World, live: LiveCausalLM, paths: Sequence[Stack], expected: bool = True) -> list[list[Tensor]]:
    if expected:
        live.expect(paths)
    results = []
    for path in paths:
        live.become(path, world.engine)
        results.append(answers(live))
    return results


def assert_same(found: list[list[Tensor]], expected: list[list[Tensor]]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert all(map(torch.equal, one, other))


@pytest.mark.parametrize("scaling", ["none", "branch", "stream"])
def test_answers_are_the_same_bits_with_and_without(world: World, scaling: str) -> None:
    scales = itertools.cycle([1.0] if scaling == "none" else [1.0, 0.8, 0.8, -0.5])
    paths = [
        Stack(
            (Checkpoint("one", "-"), Checkpoint("two", "-")),
            tuple(Hop(*hop, scale) for hop, scale in zip(hops, scales, strict=False)),
            world.layout,
            "branch" if scaling == "none" else scaling,
        )
        for hops in GENERATION
    ]
    without, live = live_with(world, 0), live_with(world, GENEROUS)
    expected = run(world, without, paths)
    assert_same(run(world, live, paths), expected)
    prefixes = live.paths.prefixes
    assert prefixes.reused > 0
    assert prefixes.computed + prefixes.reused == sum(tokens_of_answers() * len(path.hops) for path in paths)
    if scaling == "none":
        assert prefixes.reused == (30 + 8 + 30 + 30) * SHARED
    assert without.paths.prefixes.reused == without.paths.prefixes.nbytes == 0


def tokens_of_answers() -> int:
    """Tokens in forward passes: three for logits, then the prompts and five new tokens for each of three rows."""
    return 30 + 8 + 30 + 30 + 5 * 3


@pytest.mark.parametrize("limit", [1, 3_000, 10_000, 40_000])
def test_the_bound_is_kept_and_changes_no_bit(llamas: World, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [llamas.path(*hops) for hops in GENERATION]
    live = live_with(llamas, limit)
    prefixes = live.paths.prefixes
    add, seen = prefixes._add, []

    def watched(*arguments: Any) -> None:
        add(*arguments)
        storages = {at: n for kept in prefixes._kept.values() for at, n in kept.storages().items()}
        assert prefixes.nbytes == sum(storages.values()) <= limit
        seen.append(prefixes.nbytes)

    monkeypatch.setattr(prefixes, "_add", watched)
    assert_same(run(llamas, live, paths), run(llamas, live_with(llamas, 0), paths))
    assert (max(seen) > 0) == (prefixes.reused > 0) == (limit > 1)
    assert prefixes.nbytes == 0 or prefixes.reused < (30 + 8 + 30 + 30) * SHARED


def test_longer_beginnings_take_the_place_of_shorter_ones(llamas: World) -> None:
    """Hidden states of one batch of 30 tokens, 16 numbers of 4 bytes each, are all that there is room for."""
    paths = [llamas.path(*hops) for hops in ((A, (0, 1), B, (0, 2)), (A, (0, 1), B, (1, 1)), (A, (0, 2)))]
    live = live_with(llamas, 30 * 16 * 4)
    live.expect(paths)
    live.become(paths[0], llamas.engine)
    with torch.inference_mode():
        live.module(batch()[0], use_cache=False)
    (kept,) = live.paths.prefixes._kept.values()
    assert kept.depth == 3


@pytest.mark.parametrize("cached", [False, True], ids=["without caches", "with caches"])
@torch.inference_mode()
def test_what_is_kept_is_foretold(llamas: World, monkeypatch: pytest.MonkeyPatch, cached: bool) -> None:
    paths = [llamas.path(*hops) for hops in GENERATION]
    live, tokens = live_with(llamas, GENEROUS), batch()[0]
    prefixes, add, seen = live.paths.prefixes, live.paths.prefixes._add, []

    def watched(place: tuple[str, str], kept: Kept) -> None:
        add(place, kept)
        layers = sum(each.keys.nbytes + each.values.nbytes for each in kept.cache) / kept.depth
        seen.append((prefixes.nbytes, kept.hidden.nbytes, layers))

    monkeypatch.setattr(prefixes, "_add", watched)
    live.expect(paths)
    for path in paths:
        live.become(path, llamas.engine)
        live.module(tokens, use_cache=cached)
    states, layers = most_kept(paths)
    ((hidden, layer),) = {each[1:] for each in seen}
    assert (layer > 0) == cached
    assert max(each[0] for each in seen) == states * hidden + layers * layer


def test_nothing_is_kept_of_what_nothing_shares(llamas: World) -> None:
    paths = [llamas.path(*hops) for hops in GENERATION]
    live = live_with(llamas, GENEROUS)
    run(llamas, live, paths, expected=False)
    assert live.paths.prefixes.reused == live.paths.prefixes.nbytes == 0
    alone = [llamas.path(A, (0, 2)), llamas.path((0, 1), (0, 2)), llamas.path((0, 0, 0.5), (0, 2))]
    run(llamas, live, alone)
    assert live.paths.prefixes.reused == live.paths.prefixes.nbytes == 0
    run(llamas, live, paths)
    live.become(Checkpoint("one", "-"), llamas.engine)
    assert live.paths.prefixes.nbytes == 0
    assert_same([answers(live)], [answers(live_with(llamas, 0))])


def test_what_a_beginning_is(llamas: World) -> None:
    """Sources by content, layers and scales; in branch mode the scale of a hop acts in the hop before it."""
    one = keys_of(llamas.path(A, (0, 1, 0.5), (0, 2)))

    def shared(path: Stack) -> int:
        return sum(map(str.__eq__, one, keys_of(path)))

    assert shared(llamas.path(A, (0, 1, 0.5), (0, 2))) == 3
    assert shared(llamas.path(A, (0, 1, 0.5), (0, 2, 0.5))) == 1
    assert shared(llamas.path(A, (0, 1, 0.5), (0, 1))) == 2
    assert shared(llamas.path(A, (0, 1), (0, 2))) == 0
    assert shared(llamas.path(A, (0, 1, 0.5), (0, 2), scaling="stream")) == 0
    group = Group("all", tuple(llamas.engine.shapes(Checkpoint("one", "-"))), {"weight": (1.0,)})
    merge = Merge("linear", None, (Checkpoint("one", "-"),), (group,))
    assert shared(Stack((merge, Checkpoint("two", "-")), (Hop(0, 0), Hop(0, 1, 0.5), Hop(0, 2)), llamas.layout)) == 0


@pytest.mark.parametrize("hops", [(A, B, (0, 2)), (B, (1, 2), (1, 0))], ids=["its layers", "its embeddings"])
def test_another_merge_as_first_source_is_another_beginning(llamas: World, hops: Sequence[tuple[int, int]]) -> None:
    def hybrid(weight: float) -> Stack:
        group = Group("all", tuple(llamas.engine.shapes(Checkpoint("one", "-"))), {"weight": (weight,)})
        merge = Merge("linear", None, (Checkpoint("one", "-"),), (group,), {"normalize": False})
        return Stack((merge, Checkpoint("two", "-")), tuple(Hop(*hop) for hop in hops), llamas.layout)

    paths = [hybrid(1.0), hybrid(0.5), hybrid(1.0), hybrid(0.5)]
    live = live_with(llamas, GENEROUS)
    found = run(llamas, live, paths)
    assert_same(found, run(llamas, live_with(llamas, 0), paths))
    assert not torch.equal(found[0][0], found[1][0])
    assert live.paths.prefixes.reused == 2 * 3 * (30 + 8 + 30 + 30)


@torch.inference_mode()
def test_other_inputs_are_another_batch(llamas: World) -> None:
    paths = [llamas.path(*hops) for hops in GENERATION[:2]]
    without, live = live_with(llamas, 0), live_with(llamas, GENEROUS)
    tokens, mask = batch()
    given: dict[str, Any] = {"input_ids": tokens, "attention_mask": mask, "position_ids": positions(mask)}
    others: list[dict[str, Any]] = [
        {"input_ids": tokens.flip(0)},
        {"attention_mask": torch.ones_like(mask)},
        {"position_ids": positions(torch.ones_like(mask)).expand(3, -1).contiguous()},
    ]
    live.expect([*paths, *paths])
    live.become(paths[0], llamas.engine)
    live.module(**given, use_cache=False)
    for each in (live, without):
        each.become(paths[1], llamas.engine)
    for changed in others:
        expected = without.module(**(given | changed), use_cache=False).logits
        assert torch.equal(live.module(**(given | changed), use_cache=False).logits, expected)
    assert live.paths.prefixes.reused == 0
    assert torch.equal(live.module(**given).logits, without.module(**given).logits)  # with a cache
    assert live.paths.prefixes.reused == 0
    assert torch.equal(live.module(**given, use_cache=False).logits, without.module(**given, use_cache=False).logits)
    assert live.paths.prefixes.reused == 3 * 30


def test_a_pass_that_fails_leaves_the_path_as_it_was(llamas: World, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [llamas.path(*hops) for hops in GENERATION[:2]]
    expected = run(llamas, live_with(llamas, 0), paths)
    live = live_with(llamas, GENEROUS)
    live.expect(paths)
    live.become(paths[0], llamas.engine)
    answers(live)
    live.become(paths[1], llamas.engine)
    last = live.module.base_model.layers[-1]
    monkeypatch.setattr(last, "forward", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        live.module(batch()[0], use_cache=False)
    monkeypatch.undo()
    assert live.module.base_model.layers[-1] is last
    assert_same([answers(live)], expected[1:])
