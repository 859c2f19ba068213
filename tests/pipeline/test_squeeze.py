"""Content hashes, made by a loop over bytes, are those of their definition."""

from hashlib import blake2b

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.normalize import content_hash

from .numpy_minhash import shown

SPACES = [chr(point) for point in range(0x110000) if chr(point).isspace()]


def defined(texts: list[str]) -> list[str]:
    """The definition: blake2b-128 of the words, as `str.split` finds them, joined by single spaces, of what shows."""
    words = (" ".join(shown(text).split()).encode() for text in texts)
    return [blake2b(text, digest_size=16).hexdigest() for text in words]


PIECES = st.one_of(st.sampled_from(SPACES), st.characters(codec="utf-8"), st.just("word"))


@given(texts=st.lists(st.lists(PIECES).map("".join)), begin=st.integers(0, 3), wide=st.booleans())
def test_content_hash_is_its_definition(texts: list[str], begin: int, wide: bool) -> None:
    """On any texts, in any slice of an array, with offsets of either width."""
    array = pa.array(texts, pa.large_string() if wide else pa.string())
    assert content_hash(array.slice(begin)).to_pylist() == defined(texts[begin:])


def test_content_hash_knows_every_character() -> None:
    """What is white space to Python is white space here, and nothing else is."""
    points = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    texts = [f"a{chr(point)}b {chr(point)}" for point in points]
    assert content_hash(pa.array(texts)).to_pylist() == defined(texts)
    assert len(SPACES) == 29
