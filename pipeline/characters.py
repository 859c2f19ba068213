"""What the kernels know of each character of Unicode: its folded form, and whether it is part of a word.

Built at start from this Python's own tables, so that it is what `str.casefold` and `str.isalnum` say.
"""

import re
import unicodedata
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

WORD, SPACE, UNSPACED = np.uint64(1), np.uint64(2), np.uint64(4)
"""Bits of a character's kind: part of a word, white space, part of a word of a script without spaces."""

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


@cache
def character_tables() -> tuple[NDArray[np.uint16], NDArray[np.uint32]]:
    """Give (pages, entries): the entry of code point c is `entries[256 * pages[c >> 8] + (c & 255)]`.

    An entry is the kind of a character, and eight times what is to be added to its code point to fold it, modulo 2^32.
    Most pages are alike then (no case, all letters), and the tables that a text needs stay in the L1 or L2 cache.
    """
    shifts = folds() - np.arange(_NUM_POINTS, dtype=np.uint32)
    return in_pages(shifts << np.uint32(3) | kinds())


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
    for first, behind in ((0, 0xD800), (0xE000, 0x40000), (0xE0000, 0xE0200)):  # those in use
        text = "".join(map(chr, range(first, behind)))
        part = table[first:behind]
        for kind, run_of_kind in ((SPACE, _SPACE_RUN), (WORD, _WORD_RUN)):
            for run in run_of_kind.finditer(text):
                part[run.start() : run.end()] = kind
    others = np.flatnonzero(table == 0)
    for point in others[(others < 0x20000) | (others >= 0xE0000) & (others < 0xE0200)].tolist():
        if unicodedata.category(chr(point))[0] == "M":
            table[point] = WORD
    for first, last in _UNSPACED_SCRIPTS:
        table[first : last + 1] |= np.where(table[first : last + 1] == WORD, UNSPACED, 0).astype(
            np.uint8
        )
    return table


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
