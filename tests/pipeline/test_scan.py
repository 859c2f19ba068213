"""What the compiled loop counts in texts is what Python counts on strings, to the last bit."""

import unicodedata
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.filters import MEASURES, wanted_by
from pipeline.scan import count_texts
from pipeline.scan_tables import (
    ALNUM,
    LETTER,
    PHRASES,
    SPACE,
    STOP_WORDS,
    character_tables,
)

from . import python_scan
from .python_scan import CharacterCounts

SPACES = [chr(point) for point in range(0x110000) if chr(point).isspace()]
MARKS = list(".!?\"')]\u2019\u201d;:#{-*\u2022\u2026\u3002\uff01\u0964\u06d4_|")
CHARACTERS = list("abK7\u00b2\u00bd\u00e9\u0130\u0436\u0300\u0939\u093f\u4e2d\u0e01\u3042\u200b\ufffd\x00\x81\U0001f600\U00020000\U000e0100")  # fmt: skip
PIECES = st.one_of(
    st.sampled_from([" ", " ", " ", "\n", "\n\n", "\n \n", *SPACES]),
    st.sampled_from([*MARKS, "...", "..", ". ", "- ", "* ", '." ']),
    st.sampled_from([*CHARACTERS, "the", "of", "und", "die", "one two three.\n", "a b c d e f "]),
    st.sampled_from([*PHRASES, "LOREM IPSUM", "Uses Cookies", "JavaScript", "terms  of use"]),
    st.builds(str.__mul__, st.sampled_from(["x", "\u00e9", "\u4e2d", "a "]), st.integers(0, 1100)),
    st.characters(codec="utf-8"),
)
TEXTS = st.one_of(
    st.lists(PIECES, max_size=60).map("".join),
    st.lists(st.sampled_from(["a", "bb", "ccc", "c'", "\n", "\u4e2d"]), max_size=80).map(" ".join),
    st.builds(lambda some, times: "".join(some) * times, st.lists(PIECES, max_size=6), st.integers(0, 40)),
)  # fmt: skip


def assert_as_on_strings(texts: list[str], array: pa.Array | None = None) -> None:
    """All kinds of characters, and what every rule measures."""
    array = pa.array(texts, pa.string()) if array is None else array
    counts = count_texts(array, np.full(len(texts), wanted_by(MEASURES)))
    measured = {rule: measure(counts).tolist() for rule, measure in MEASURES.items()}
    for row, text in enumerate(texts):
        expected = python_scan.scan(text).characters
        assert tuple(column[row] for column in counts[: len(expected)]) == expected
        values = {rule: values[row] for rule, values in measured.items()}
        nothing = {rule: None for rule, value in values.items() if value != value}
        assert values | nothing == python_scan.measure_text(text)


@given(
    st.lists(TEXTS, max_size=5),
    st.sampled_from([pa.string(), pa.large_string(), pa.string_view()]),
    st.integers(0, 3),
)
@settings(max_examples=300, deadline=None)
@example(
    ["- a", "-\ta", "- ", "* \n- x y", "... a\n...", "a.\n.. b", "a. ", "\n", ""], pa.string(), 1
)
@example(["\u3002", "a\u3002b", "a\u3002 ", "a.) b", "a.)!] b\u2026", "."], pa.string(), 0)
def test_counts_equal_those_on_strings(texts: list[str], kind: pa.DataType, cut: int) -> None:
    """Any texts, in any kind of Arrow array and as a part of a longer one."""
    around = ["\u00e9 before"] * cut
    array = pa.array([*around, *texts, *around], pa.string()).cast(kind).slice(cut, len(texts))
    assert_as_on_strings(texts, array)


@pytest.mark.parametrize("piece", [" ", "\n", "\n\n", ".", "... ", "\u00e9", "\u4e2d ", "\U0001f600", " use cookies a b.\n"])  # fmt: skip
def test_borders_of_blocks_do_not_show(piece: str) -> None:
    """The loop reads 255 bytes at a time; what lies across the border is counted as anywhere else."""
    texts = [f"{'x' * shift}{piece}{'word of mine. ' * 3}" for shift in range(240, 260)]
    texts += [f"{'ab ' * 167}{'y' * shift}{piece * 2}z z" for shift in range(16)]
    assert_as_on_strings(texts)


def test_long_words_and_lines() -> None:
    """Words and lines beyond the table of powers, and many that are all one."""
    texts = ["x" * size for size in (254, 255, 256, 257, 511, 512, 513, 100_000)]
    texts += [f"{text} a {text} {text}\n{text}\n{text[1:]} b." for text in texts]
    texts += ["the same " * 20_000, "same\n" * 20_000, "\u4e2d" * 9_000, "p\n\n" * 9_000, "a b c " * 9_000]  # fmt: skip
    texts.append(" ".join(map(str, range(40_000))))
    assert_as_on_strings(texts)


def test_every_character_is_what_python_says() -> None:
    """Space, letter or digit, and letter, as `str` has it, for all of Unicode."""
    pages, entries = character_tables()
    points = [point for point in range(0x40000) if not 0xD800 <= point < 0xE000]
    known = entries[256 * pages[np.array(points) >> 8].astype(int) + (np.array(points) & 255)]
    characters = list(map(chr, points))
    assert ((known & SPACE) != 0).tolist() == list(map(str.isspace, characters))
    assert ((known & ALNUM) != 0).tolist() == list(map(str.isalnum, characters))
    is_letter = [c.isalnum() and not c.isdecimal() for c in characters]
    assert ((known & LETTER) != 0).tolist() == is_letter
    later = [chr(p) for p in range(0x40000, 0x110000) if chr(p).isspace() or chr(p).isalnum()]
    assert later == []


def test_every_character_in_text() -> None:
    """Texts with 128 characters each, in words and alone, of all that Unicode has and some that it has not."""
    firsts = [
        *range(0, 0xD800, 128),
        *range(0xE000, 0x20100, 128),
        *range(0x32300, 0x32500, 128),
        0xE0000,
        0x10FF80,
    ]
    assert_as_on_strings(
        ["".join(f"{chr(p)} a{chr(p)}. " for p in range(first, first + 128)) for first in firsts]
    )


@given(st.text(st.sampled_from("ab\u00e9\u0436\u0300\u0905\u4e2d\u0e01\u3042 7\n.-+\ufffd\x81\U0001f600"), max_size=60))  # fmt: skip
@settings(deadline=None)
def test_characters_are_counted_by_kind(text: str) -> None:
    """Every character is of one kind, and the kinds agree with Python's own tables."""
    counts = count_texts(pa.array([text]), np.zeros(1, np.uint64))
    kinds = CharacterCounts(*(int(column[0]) for column in counts[: len(CharacterCounts._fields)]))
    assert counts.chars.tolist() == [sum(kinds)] == [len(text)]
    assert kinds.digits == sum(map(str.isdecimal, text))
    assert kinds.spaces == sum(map(str.isspace, text))
    assert kinds.latin + kinds.letters + kinds.spaceless == sum(map(str.isalpha, text))
    assert kinds.marks == sum(unicodedata.combining(c) > 0 for c in text)
    assert kinds.spaceless == sum(c in "\u4e2d\u0e01\u3042" for c in text)
    assert kinds.broken == sum(c in "\ufffd\x81" for c in text)


@pytest.mark.parametrize("language", STOP_WORDS)
def test_all_stop_words_are_known(language: str) -> None:
    """A text of a language's stop words has all of them, and none in capitals."""
    words = STOP_WORDS[language]
    texts = pa.array([" ".join(words), " ".join(words).upper()])
    counts = count_texts(texts, np.full(2, wanted_by(["min_stop_words"])))
    assert counts.stop_words.tolist() == [len(set(words)), 0]


# -- repetition, by tuples and sets -----------------------------------------------------------------


def slow_duplicate(words: list[str], n: int) -> int:
    """Characters in repeated n-grams."""
    seen: set[tuple[str, ...]] = set()
    inside: set[int] = set()
    for start in range(len(words) - n + 1):
        gram = tuple(words[start : start + n])
        if gram in seen:
            inside.update(range(start, start + n))
        seen.add(gram)
    return sum(len(words[i]) for i in inside)


def slow_top(words: list[str], n: int) -> int:
    """Characters in the most frequent n-gram, of these the longest, of these the first."""
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    counts = Counter(grams)
    if max(counts.values(), default=0) < 2:
        return 0
    best = max(counts, key=lambda gram: (counts[gram], sum(map(len, gram))))
    inside = {i + k for i, other in enumerate(grams) if other == best for k in range(n)}
    return sum(len(words[i]) for i in inside)


@given(st.lists(st.sampled_from(["a", "bb", "ccc", "dddd", "\u00e9\u00e9"]), max_size=60))
@settings(max_examples=200, deadline=None)
def test_repetition_equals_the_obvious_way(words: list[str]) -> None:
    """Hashes of runs find the repeats that tuples of words find."""
    every = np.full(1, wanted_by(MEASURES))
    counts = count_texts(pa.array([" ".join(words)]), every)
    for n in (2, 3, 4):
        assert getattr(counts, f"top_{n}").tolist() == [slow_top(words, n)]
    for n in range(5, 11):
        assert getattr(counts, f"duplicate_{n}").tolist() == [slow_duplicate(words, n)]
