"""What a text is made of for the loops: characters, folded; words as hashes; which of the two its shingles are of.

Integers are uint64 throughout: numba makes a float of a signed and an unsigned one, and adds a test for negative
indices to every access by a signed one.
"""

import numba
import numpy as np
from numba import types

from pipeline.characters import IGNORED, SPACE, UNSPACED, WORD
from pipeline.kernels.compiling import read_only

TEXT = (read_only(types.uint8), read_only(types.int64))  # bytes, offsets
MODES = read_only(types.boolean)
TABLES = types.Tuple((read_only(types.uint16), read_only(types.uint32)))
ROWS = read_only(types.int64)
OUT64 = types.uint64[::1]

ZERO, ONE, TWO, THREE, FOUR = (np.uint64(value) for value in range(5))
ASCII = np.uint64(0x80)  # bytes from here on belong to a character of several bytes
WORD_BASE = np.uint64(0x9E3779B97F4A7C15)  # P: odd, 2^64 / golden ratio
_NUM_POWERS = np.uint64(256)  # longer words multiply on

inlined = numba.njit(nogil=True)
borrowing = numba.njit(nogil=True, _nrt=False, forceinline=True)  # pyright: ignore[reportCallIssue]
"""For functions that are called for each line of a text and too long for LLVM to inline by itself. They make no arrays.

Without `_nrt=False`, which numba's own modules use, it counts the users of each array that it hands over, and that
costs more than the line."""


@inlined
def mix64(value):
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))


@inlined
def mix32(value):
    value = np.uint32(np.uint32(value ^ (value >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    value = np.uint32(np.uint32(value ^ (value >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.uint32(value ^ (value >> np.uint32(16)))


@inlined
def decode(text, at):
    """Code point that starts at `at`, of two to four bytes, and where the next one starts."""
    first = np.uint64(text[at])
    second = np.uint64(text[at + ONE]) & np.uint64(0x3F)
    if first < np.uint64(0xE0):
        return (first & np.uint64(0x1F)) << np.uint64(6) | second, at + TWO
    third = np.uint64(text[at + TWO]) & np.uint64(0x3F)
    if first < np.uint64(0xF0):
        high = (first & np.uint64(0x0F)) << np.uint64(12)
        return high | second << np.uint64(6) | third, at + THREE
    fourth = np.uint64(text[at + THREE]) & np.uint64(0x3F)
    high = (first & np.uint64(0x07)) << np.uint64(18) | second << np.uint64(12)
    return high | third << np.uint64(6) | fourth, at + FOUR


@inlined
def entry_of(tables, point):
    """What `minhash.py` knows of a code point: its folded form * 8 + its kind."""
    pages, entries = tables
    page = np.uint64(pages[point >> np.uint64(8)])
    return np.uint64(
        entries[page << np.uint64(8) | point & np.uint64(0xFF)] + (point << THREE)
    ) & np.uint64(0xFFFFFFFF)


@inlined
def read_entry(text, at, tables):
    """The entry of the character that starts at `at`, and where the next one starts."""
    point = np.uint64(text[at])
    if point < ASCII:
        return entry_of(tables, point), at + ONE
    point, at = decode(text, at)
    return entry_of(tables, point), at


@inlined
def is_by_character(text, begin, end, tables):
    """Whether most word characters belong to scripts without spaces."""
    num_word = num_unspaced = ZERO
    at = begin
    while at < end:
        entry, at = read_entry(text, at, tables)
        num_word += entry & WORD
        num_unspaced += entry & UNSPACED
    return TWO * (num_unspaced // UNSPACED) > num_word // WORD


@inlined
def _read_words(text, begin, end, tables, ascii_tables, powers, out):
    """Write the word hashes of a text; give their number and whether a character of a script without spaces came."""
    ascii_letters, ascii_masks = ascii_tables
    count = position = value = was_letter = unspaced = ZERO
    power, at = ONE, begin
    while at < end:
        # No branch on where a word ends, which no processor foresees. The masks are all ones in a word, else zero;
        # every letter's sum is written, and overwritten by the next one's unless a word ended between.
        behind = min(end, at + _NUM_POWERS - position) if position < _NUM_POWERS else at
        while at < behind:
            byte = np.uint64(text[at])
            if byte >= ASCII:
                break
            mask = ascii_masks[byte]
            out[count] = value
            count -= was_letter & ~mask
            value = (value + ascii_letters[byte] * powers[position]) & mask
            position = (position + ONE) & mask
            was_letter = mask
            at += ONE
        if at >= end:
            break
        # Here stands a character of several bytes, or a word goes beyond the table of powers.
        if position == _NUM_POWERS:
            power = powers[_NUM_POWERS - ONE]
        point, at = np.uint64(text[at]), at + ONE
        if point >= ASCII:
            point, at = decode(text, at - ONE)
        entry = entry_of(tables, point)
        if entry == IGNORED:
            continue
        unspaced |= entry & UNSPACED
        out[count] = value
        if entry & WORD:
            power = powers[position] if position < _NUM_POWERS else power * WORD_BASE
            value += (entry >> THREE) * power
            position += ONE
            was_letter = ~ZERO
        else:
            count -= was_letter
            value = position = was_letter = ZERO
    if was_letter:
        out[count] = value
        count += ONE
    for i in range(count):
        out[i] = mix64(out[i])
    return count, unspaced != ZERO


@inlined
def _read_characters(text, begin, end, tables, out):
    """Write the folded characters of a text that are no white space; give their number."""
    count = ZERO
    at = begin
    while at < end:
        entry, at = read_entry(text, at, tables)
        out[count] = entry >> THREE
        count += np.uint64((entry & SPACE) == ZERO)
    return count


@inlined
def word_powers():
    powers = np.empty(_NUM_POWERS, np.uint64)
    power = ONE
    for i in range(_NUM_POWERS):
        powers[i] = power
        power *= WORD_BASE
    return powers


@inlined
def ascii_tables_of(tables):
    """Folded word characters below 0x80, zero for all others; and all ones for word characters, zero for others."""
    letters, masks = np.zeros(ASCII, np.uint64), np.zeros(ASCII, np.uint64)
    for point in range(ASCII):
        entry = entry_of(tables, point)
        if entry & WORD:
            letters[point], masks[point] = entry >> THREE, ~ZERO
    return letters, masks


@inlined
def longest_of(offsets):
    longest = 0
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    return longest


@inlined
def read_units(text, begin, end, is_code, tables, ascii_tables, powers, values):
    """Write what shingles are made of, word hashes or characters; give their number, and whether they are characters."""
    if not is_code:
        count, has_unspaced = _read_words(text, begin, end, tables, ascii_tables, powers, values)
        if not has_unspaced or not is_by_character(text, begin, end, tables):
            return count, False
    return _read_characters(text, begin, end, tables, values), True
