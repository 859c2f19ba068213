"""Texts as their shingles' bytes, for hash functions that take bytes: folded words with one space between them."""

import numpy as np
from numba import types

from pipeline.characters import IGNORED, SPACE, UNSPACED, WORD
from pipeline.kernels.compiling import compiled
from pipeline.kernels.shingles import CHARACTERS
from pipeline.kernels.units import (
    ASCII,
    FOUR,
    MODES,
    ONE,
    OUT64,
    TABLES,
    TEXT,
    THREE,
    TWO,
    ZERO,
    decode,
    entry_of,
    inlined,
    is_by_character,
)

_BLANK = np.uint64(0x20)


@inlined
def _encode(point, out, filled):
    """Write a character in UTF-8; give where the next one goes."""
    if point < ASCII:
        out[filled] = point
        return filled + ONE
    last = ASCII | point & np.uint64(0x3F)
    if point < np.uint64(0x800):
        out[filled], out[filled + ONE] = np.uint64(0xC0) | point >> np.uint64(6), last
        return filled + TWO
    third = ASCII | point >> np.uint64(6) & np.uint64(0x3F)
    if point < np.uint64(0x10000):
        out[filled] = np.uint64(0xE0) | point >> np.uint64(12)
        out[filled + ONE], out[filled + TWO] = third, last
        return filled + THREE
    out[filled] = np.uint64(0xF0) | point >> np.uint64(18)
    out[filled + ONE] = ASCII | point >> np.uint64(12) & np.uint64(0x3F)
    out[filled + TWO], out[filled + THREE] = third, last
    return filled + FOUR


@inlined
def _fold(text, begin, end, by_character, tables, folded, filled, starts):
    """Write a text's folded words with a space behind each, or its folded characters that are no white space.

    Gives their number, where the bytes end, and whether a character of a script without spaces came.
    """
    count = was_unit = unspaced = ZERO
    has_gaps = ZERO if by_character else ONE  # between words, not between characters
    at = begin
    while at < end:
        point = np.uint64(text[at])
        if point < ASCII:
            at += ONE
        else:
            point, at = decode(text, at)
        entry = entry_of(tables, point)
        if entry == IGNORED:
            continue
        unspaced |= entry & UNSPACED
        is_unit = np.uint64((entry & SPACE) == ZERO) if by_character else entry & WORD
        # No branch on where a word ends: what does not count is overwritten.
        starts[count] = filled
        count += is_unit & ~(was_unit & has_gaps)
        if point < ASCII:
            folded[filled] = entry >> THREE if is_unit else _BLANK
            filled += is_unit | was_unit & has_gaps
        elif is_unit:
            filled = _encode(entry >> THREE, folded, filled)
        else:
            folded[filled] = _BLANK
            filled += was_unit & has_gaps
        was_unit = is_unit
    folded[filled] = _BLANK
    filled += was_unit & has_gaps
    starts[count] = filled
    return count, filled, unspaced != ZERO


@compiled(
    *(*TEXT, MODES, types.uint64, TABLES), *(types.uint8[::1], OUT64, OUT64, types.int64[::1])
)
def fold_texts(text, offsets, is_code, ngram, tables, folded, begins, ends, counts):
    """Write folded texts and where in them each shingle begins and ends, repeats and all; give how many there are.

    `begins` has room for one more than there are.
    """
    filled = number = ZERO
    for row in range(len(is_code)):
        begin, end = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        width, gap, by_character = ngram, ONE, is_code[row]
        first = filled
        starts = begins[number:]  # of words; the last shingle begins before the last of them
        count, filled, has_unspaced = _fold(
            text, begin, end, by_character, tables, folded, first, starts
        )
        if not by_character and has_unspaced and is_by_character(text, begin, end, tables):
            by_character = True
            count, filled, _ = _fold(text, begin, end, by_character, tables, folded, first, starts)
        if by_character:
            width, gap = CHARACTERS, ZERO
        width = min(width, count)
        counts[row] = count - width + ONE if count else ZERO
        for i in range(np.uint64(counts[row])):
            ends[number + i] = starts[i + width] - gap
        number += np.uint64(counts[row])
    return number
