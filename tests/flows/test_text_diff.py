"""The word diff: its pieces are the two texts, whatever they are; long texts too; folding loses nothing but equal words."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.text_diff import MAX_WORDS, compare_texts, count_changes, fold

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "the", ",", "\n", "\u6f22"]), max_size=60)


def words(text: str) -> list[str]:
    """A text without its white space, which a diff does not compare, a character each."""
    return [c for c in text if not c.isspace()]


def joined(pieces: list[tuple[str, str]], *kinds: str) -> str:
    return "".join(text for kind, text in pieces if kind in kinds)


@given(WORDS, WORDS)
def test_pieces_are_the_two_texts(old: list[str], new: list[str]) -> None:
    """What is the same and what is new are the new text; what is the same and what is old, the words of the old one."""
    a, b = " ".join(old), " ".join(new)
    pieces = compare_texts(a, b)
    assert words(joined(pieces, "same", "new")) == words(b)
    assert words(joined(pieces, "same", "old")) == words(a)


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_texts_can_be_compared(old: str, new: str) -> None:
    """Of whatever characters."""
    pieces = compare_texts(old, new)
    assert words(joined(pieces, "same", "new")) == words(new)
    assert words(joined(pieces, "same", "old")) == words(old)


@given(WORDS)
def test_white_space_does_not_count(text: list[str]) -> None:
    """Texts with the same words differ in nothing."""
    pieces = compare_texts(" ".join(text), "\n ".join(text))
    assert {kind for kind, _ in pieces} <= {"same"}


def test_edits_of_a_long_text_are_found() -> None:
    """A book with a word in a hundred replaced: as many changes, and nothing else."""
    rng = random.Random(0)
    old = [f"w{rng.randrange(2000)}" for _ in range(60_000)]
    new = list(old)
    edited = rng.sample(range(60_000), 600)
    for at in edited:
        new[at] = f"x{at}"
    pieces = compare_texts(" ".join(old), " ".join(new))
    assert count_changes(pieces) == {"same": 59_400, "old": 600, "new": 600}
    assert joined(pieces, "same", "new") == " ".join(new)


@pytest.mark.parametrize("unit", ["a ", "a b ", "\u6f22", "\n"])
def test_endless_repetition_ends(unit: str) -> None:
    """Texts in which no word is unique are compared as far as time allows, and still add up."""
    rng = random.Random(0)
    old, new = unit * 40_000, "".join(rng.choice(unit + " ") for _ in range(40_000))
    pieces = compare_texts(old, new)
    assert words(joined(pieces, "same", "new")) == words(new)
    assert words(joined(pieces, "same", "old")) == words(old)


def test_what_is_not_compared_is_said() -> None:
    """Beyond MAX_WORDS."""
    pieces = compare_texts("a " * (MAX_WORDS + 1), "a " * (MAX_WORDS + 5))
    assert pieces[-1] == ("skip", "only the first 100,000 words of each were compared")
    assert count_changes(pieces) == {"same": MAX_WORDS, "old": 0, "new": 0}


def test_folding_shortens_what_is_long() -> None:
    """Equal words far from a change are counted instead, as is the middle of a long change."""
    equal = " ".join(f"w{n}" for n in range(100)) + " "
    pieces = [("same", equal), ("old", "x "), ("same", equal), ("new", equal), ("same", "end")]
    assert fold(pieces) == [
        ("skip", "88 equal words"),
        ("same", " ".join(f"w{n}" for n in range(88, 100)) + " "),
        ("old", "x "),
        ("same", " ".join(f"w{n}" for n in range(12)) + " "),
        ("skip", "76 equal words"),
        ("same", " ".join(f"w{n}" for n in range(88, 100)) + " "),
        ("new", " ".join(f"w{n}" for n in range(20)) + " "),
        ("skip", "60 words in this one alone"),
        ("new", " ".join(f"w{n}" for n in range(80, 100)) + " "),
        ("same", "end"),
    ]


def test_lone_equal_words_amid_changes_are_no_match() -> None:
    """A 'the' that two different sentences share says nothing."""
    pieces = compare_texts(
        "one two three the four five six", "seven eight nine the ten eleven twelve"
    )
    assert [kind for kind, _ in pieces] == ["old", "new"]
