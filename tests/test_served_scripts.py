"""What the measurements of vLLM take for granted, without vLLM."""

import pytest
import torch

from tests.benchmarks.lora_requests import side_by_side
from tests.benchmarks.throughput import lengths_of, options_of


def test_factors_side_by_side_are_the_weighted_sum_of_the_products() -> None:
    generator = torch.Generator().manual_seed(1)
    layer = "model.layers.0.mlp.up_proj"

    def adapter(rank: int) -> dict[str, torch.Tensor]:
        one, other = torch.randn(rank, 5, generator=generator), torch.randn(7, rank, generator=generator)
        return {f"{layer}.lora_A.weight": one, f"{layer}.lora_B.weight": other}

    factors, genome = [adapter(2), adapter(3)], (0.3, -1.5)
    found = side_by_side(factors, genome)
    product = found[f"{layer}.lora_B.weight"] @ found[f"{layer}.lora_A.weight"]
    products = [each[f"{layer}.lora_B.weight"] @ each[f"{layer}.lora_A.weight"] for each in factors]
    torch.testing.assert_close(product, genome[0] * products[0] + genome[1] * products[1])
    assert found[f"{layer}.lora_A.weight"].shape == (5, 5)


def test_options_of_an_engine() -> None:
    assert options_of("block_size=16,enforce_eager=false,dtype=bfloat16") == {
        "block_size": 16, "enforce_eager": False, "dtype": "bfloat16",
    }  # fmt: skip
    with pytest.raises(ValueError, match="expected NAME=VALUE, got 'eager'"):
        options_of("eager")


def test_uneven_answers_have_an_eighth_of_the_longest() -> None:
    lengths = lengths_of(64, 24, uneven=True)
    assert lengths.count(24) == 8
    assert max(lengths) == 24
    assert min(lengths) >= 1
    assert lengths_of(3, 5, uneven=False) == [5, 5, 5]
