"""SHA-1 of many strings side by side against the standard library's, one string at a time."""

from hashlib import sha1

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.sha1 import sha1_starts

BEHIND = 64


def starts_of(data: bytes, places: list[tuple[int, int]]) -> list[int]:
    """The hashes of data[begin:end] by the compiled loop."""
    begins = np.array([begin for begin, _ in places], np.uint64)
    ends = np.array([end for _, end in places], np.uint64)
    out = np.empty(len(places), np.uint64)
    padded = np.frombuffer(data + b"\xa5" * BEHIND, np.uint8)
    sha1_starts(padded, begins, ends, out)
    return out.tolist()


def expected(data: bytes, places: list[tuple[int, int]]) -> list[int]:
    """The same by hashlib."""
    return [int.from_bytes(sha1(data[begin:end]).digest()[:4], "little") for begin, end in places]


@pytest.mark.parametrize("order", [1, -1])
def test_every_length_through_several_blocks(order: int) -> None:
    """All lengths to 400 bytes, with their padding in the last block or one more, in groups of mixed lengths."""
    data = np.random.default_rng(0).bytes(700)
    places = [(length % 300, length % 300 + length) for length in range(401)][::order]
    assert starts_of(data, places) == expected(data, places)


@given(
    st.binary(max_size=300),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=200),
)
@settings(max_examples=100, deadline=None)
def test_overlapping_strings_in_any_order(data: bytes, pairs: list[tuple[int, int]]) -> None:
    """Strings may overlap, repeat, be empty, and fill no group, one, or several."""
    places = [(min(pair), max(pair)) for pair in pairs if max(pair) <= len(data)]
    assert starts_of(data, places) == expected(data, places)


def test_a_long_string_among_short_ones() -> None:
    """A megabyte does not change its neighbours, and the length is written in bits."""
    data = np.random.default_rng(1).bytes(1 << 20)
    places = (
        [(i, i + 30) for i in range(100)] + [(3, len(data))] + [(i, i + 250) for i in range(70)]
    )
    assert starts_of(data, places) == expected(data, places)


def test_data_that_ends_with_the_last_string_is_refused() -> None:
    """A block is read whole, so it must lie within the data."""
    with pytest.raises(ValueError, match="expected 64 bytes behind the last string"):
        sha1_starts(
            np.zeros(90, np.uint8),
            np.zeros(1, np.uint64),
            np.full(1, 27, np.uint64),
            np.zeros(1, np.uint64),
        )
