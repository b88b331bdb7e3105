"""What the measurements of vLLM take for granted, without vLLM."""

import pytest

from tests.benchmarks.throughput import lengths_of, options_of


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
