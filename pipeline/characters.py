"""What the kernels know of each character of Unicode: its folded form, and whether it is part of a word.

Built at start from this Python's own tables, so that it is what `str.casefold` and `str.isalnum` say. Characters that
show nothing are in no word and end none: texts that differ in them alone are the same text.
"""

import re
import unicodedata
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

WORD, SPACE, UNSPACED = np.uint64(1), np.uint64(2), np.uint64(4)
"""Bits of a character's kind: part of a word, white space, part of a word of a script without spaces."""

IGNORED = SPACE
"""Entry of a character that is left out wherever texts are compared: white space that folds to zero, as no other does."""

IGNORED_RANGES = (
    (0x00AD, 0x00AD),  # soft hyphen
    (0x034F, 0x034F),  # combining grapheme joiner
    (0x061C, 0x061C),  # Arabic letter mark
    (0x180B, 0x180F),  # Mongolian variation selectors and vowel separator
    (0x200B, 0x200F),  # zero width space, joiners, direction marks
    (0x202A, 0x202E),  # direction embeddings and overrides
    (0x2060, 0x206F),  # word joiner, invisible operators, isolates
    (0xFE00, 0xFE0F),  # variation selectors
    (0xFEFF, 0xFEFF),  # byte order mark
)
"""What Unicode calls default ignorable in the basic plane, but for fillers, which take the room of a letter. Stored texts
keep them: Persian, Indic scripts and emoji need joiners."""

_UNSPACED_SCRIPTS = (
    (0x0E00, 0x0FFF),  # Thai, Lao, Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),  # Katakana extensions
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # half-width Katakana
    (0x20000, 0x3FFFF),  # Han, further planes
)

Entry = TypeVar("Entry", np.uint32, np.uint64)

_NUM_POINTS = 0x110000
_WORD_RUN = re.compile(r"\w+")  # alphanumeric or "_"
_SPACE_RUN = re.compile(r"\s+")
_OTHER_RUN = re.compile(r"[^\w\s]+")


@cache
def character_tables() -> tuple[NDArray[np.uint16], NDArray[np.uint32]]:
    """Give (pages, entries): the entry of code point c is `entries[256 * pages[c >> 8] + (c & 255)]`.

    An entry is the kind of a character, and eight times what is to be added to its code point to fold it, modulo 2^32.
    Most pages are alike then (no case, all letters), and the tables that a text needs stay in the L1 or L2 cache.
    """
    points = np.arange(_NUM_POINTS, dtype=np.uint32)
    entries = (folds() - points) << np.uint32(3) | kinds()
    for first, last in IGNORED_RANGES:
        entries[first : last + 1] = np.uint32(IGNORED) - (points[first : last + 1] << np.uint32(3))
    return in_pages(entries)


def in_pages(entries: NDArray[Entry]) -> tuple[NDArray[np.uint16], NDArray[Entry]]:
    """A table of code points as (pages, entries), each page of 256 that differs from the others once."""
    different: dict[bytes, int] = {}  # np.unique over rows takes five times as long
    pages = [
        different.setdefault(page.tobytes(), len(different)) for page in entries.reshape(-1, 256)
    ]
    return np.array(pages, np.uint16), np.frombuffer(b"".join(different), entries.dtype)


def kinds() -> NDArray[np.uint8]:
    """Table of what each code point is: bits WORD, SPACE, UNSPACED."""
    table = np.zeros(_NUM_POINTS, np.uint8)
    for first, text in _in_use():
        part = table[first : first + len(text)]
        for kind, run_of_kind in ((SPACE, _SPACE_RUN), (WORD, _WORD_RUN)):
            for run in run_of_kind.finditer(text):
                part[run.start() : run.end()] = kind
    table[_marks()] = WORD
    for first, last in _UNSPACED_SCRIPTS:
        table[first : last + 1] |= np.where(table[first : last + 1] == WORD, UNSPACED, 0).astype(
            np.uint8
        )
    return table


@cache
def _marks() -> list[int]:
    """Code points of combining marks."""
    return [
        first + at
        for first, text in _in_use()
        if first != 0x20000  # ideographs
        for run in _OTHER_RUN.finditer(text)
        for at in range(*run.span())
        if unicodedata.category(text[at])[0] == "M"
    ]


def _in_use() -> list[tuple[int, str]]:
    """Runs of the code points that are in use, each with its first one."""
    borders = ((0, 0xD800), (0xE000, 0x20000), (0x20000, 0x40000), (0xE0000, 0xE0200))
    return [(first, "".join(map(chr, range(first, behind)))) for first, behind in borders]


@cache
def unsettled_table() -> tuple[NDArray[np.uint16], NDArray[np.uint32]]:
    """Give (pages, entries) as `character_tables`: not zero for characters at which normalisation may have work to do.

    Controls that it drops; characters that canonical composition replaces, or may join with the one before: marks of all
    kinds, and the vowels and final consonants of Hangul.
    """
    table = np.zeros(_NUM_POINTS, np.uint32)
    table[_marks()] = 1
    for first, last in ((0x00, 0x08), (0x0B, 0x0C), (0x0E, 0x1F), (0x7F, 0x9F), (0x1160, 0x11FF), (0xFFFE, 0xFFFF)):  # fmt: skip
        table[first : last + 1] = 1
    for _, text in _in_use():
        for begin in range(0, len(text), 64):
            some = text[begin : begin + 64]
            if not unicodedata.is_normalized("NFC", some):
                for character in some:
                    table[ord(character)] |= not unicodedata.is_normalized("NFC", character)
    return in_pages(table)


def folds() -> NDArray[np.uint32]:
    """Table of fold(c): the casefold of the character if that is one character, else the first of its lower case."""
    table = np.arange(_NUM_POINTS, dtype=np.uint32)
    for first in range(0, 0x20000, 64):  # no case beyond the second plane
        text = "".join(map(chr, range(first, first + 64)))
        if text.casefold() == text:  # most runs of characters have no case at all
            continue
        for character in text:
            folded = character.casefold()
            table[ord(character)] = ord(folded if len(folded) == 1 else character.lower()[0])
    return table
