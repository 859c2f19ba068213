"""The computed shuffle is a permutation, for any size and in any order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.permutation import permute


@given(size=st.integers(1, 3000), key=st.integers(0, 2**63))
def test_every_position_has_one_image(size: int, key: int) -> None:
    images = permute(np.arange(size), size, key)
    assert np.array_equal(np.sort(images), np.arange(size))


@pytest.mark.parametrize("size", [1, 2, 2**16 - 1, 2**16, 2**16 + 1, 100_003])
def test_sizes_around_powers_of_two(size: int) -> None:
    assert np.array_equal(np.sort(permute(np.arange(size), size, 7)), np.arange(size))


def test_an_image_depends_on_size_and_key_alone() -> None:
    """Not on which positions are asked for together; other keys, also those that look alike, give other orders."""
    whole = permute(np.arange(1000), 1000, 1, "poetry", 2)
    some = np.array([999, 3, 500])
    assert np.array_equal(permute(some, 1000, 1, "poetry", 2), whole[some])
    for key in [(2, "poetry", 2), (1, "poetry", 3), (1, "poet", 2), (1, 2), (12,)]:
        assert (permute(np.arange(1000), 1000, *key) != whole).mean() > 0.99


def test_neighbours_part() -> None:
    """The mean distance of neighbours' images is that of random numbers, a third of the size."""
    size = 10_000
    distance = np.abs(np.diff(permute(np.arange(size), size, 3))).mean() / size
    assert abs(distance - 1 / 3) < 0.02


def test_huge_sizes_cost_nothing() -> None:
    images = permute(np.arange(1000), 10**15, 5)
    assert len(set(images.tolist())) == 1000 and images.max() < 10**15
