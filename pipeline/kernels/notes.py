"""From bytes to notes of where words begin and end, by which words, lines and paragraphs are told apart.

Of a text so far the loop keeps the hash `sum of c_i * P^(n - 1 - i)` of its n characters, modulo 2^64, and notes it
wherever a word begins or ends. So the hash of a word, a line or a paragraph is a difference of two notes, whatever lies
between; equal ones are equal but for chance (2^-64) and texts made for it, which so deceive nobody but their own rules.
"""

import numpy as np

from pipeline.kernels.repetition import RUN_BASE
from pipeline.kernels.units import ASCII, ONE, THREE, TWO, WORD_BASE, ZERO, borrowing, decode, mix64
from pipeline.scan import COLUMN
from pipeline.scan_tables import (
    BREAK,
    ELLIPSIS,
    KEPT,
    KIND,
    LAST_POINT,
    LENGTH_SALT,
    NOTABLE,
    SPACE,
    STOP,
    TALLIED,
)

BLOCK = np.uint64(255)  # bytes at a time: as many as a field of a tally can count
# Columns of a note: the hash and the number of the characters before, and what the last of them are.
HASH, PLACE, WHAT = range(3)
# What is seen of notable characters: in a row of dots, how many and where it ends; and in the line.
DOTS, DOTS_END, STOPS, BOILERPLATE = range(4)
_TALLY_COLUMNS = tuple(COLUMN._asdict()[name] for name in TALLIED)
_DOT = np.uint64(0x2E)
_LAST_POINT = np.uint64(LAST_POINT)


@borrowing
def _entry_of(pages, entries, point):
    """What `scan_tables.py` knows of a code point."""
    point = min(point, _LAST_POINT)
    page = np.uint64(pages[point >> np.uint64(8)])
    return entries[page << np.uint64(8) | point & np.uint64(0xFF)]


@borrowing
def _phrase_at(text, begin, end, at, phrases):
    """Number of the phrase whose rare letter is at `at`, in letters of either case, or how many phrases there are."""
    for k in range(len(phrases)):
        size, rare = phrases[k, 0], phrases[k, 1]
        if at - begin >= rare and end - at >= size - rare:
            start, i = at - rare, ZERO
            while i < size:
                letter = phrases[k, i + TWO]
                upper = ZERO if letter == np.uint64(0x20) else np.uint64(0x20)
                if np.uint64(text[start + i]) | upper != letter:
                    break
                i += ONE
            if i == size:
                return np.uint64(k)
    return np.uint64(len(phrases))


@borrowing
def _look_at(point, entry, place, text, begin, end, at, phrases, notable, row):
    """Count what a notable character, behind `place` others, is part of; `at` is the place of its last byte."""
    if point == _DOT:
        notable[DOTS] = notable[DOTS] + ONE if notable[DOTS_END] == place else ONE
        notable[DOTS_END] = place + ONE
        row[COLUMN.ellipses] += np.uint64(notable[DOTS] % THREE == ZERO)
    elif entry & ELLIPSIS:
        row[COLUMN.ellipses] += ONE
    elif entry & STOP:
        notable[STOPS] += ONE
    else:
        phrase = _phrase_at(text, begin, end, at, phrases)
        if phrase == ZERO:
            row[COLUMN.lorem_ipsum] += ONE
        elif phrase < np.uint64(len(phrases)):
            notable[BOILERPLATE] = ONE


@borrowing
def read_block(
    text,
    begin,
    end,
    at,
    state,
    ascii_entries,
    ascii_tallies,
    pages,
    entries,
    phrases,
    notes,
    count,
    notable,
    row,
):
    """Read on to the end of the line, or for a block; note where words begin and end, behind `count` earlier notes."""
    value, place, what = state
    tally, behind = ZERO, min(at + BLOCK, end)
    while at < behind:
        point = np.uint64(text[at])
        if point < ASCII:
            at += ONE
            entry = ascii_entries[point]
            tally += ascii_tallies[point]
        else:
            point, at = decode(text, at)
            entry = _entry_of(pages, entries, point)
            row[entry & KIND] += ONE
        # No branch on where a word ends, which no processor foresees: notes are overwritten where none does.
        notes[count, HASH], notes[count, PLACE], notes[count, WHAT] = value, place, what | entry
        count += np.uint64(((what ^ entry) & SPACE) != ZERO)
        value = value * WORD_BASE + point
        what = entry | what & entry >> KEPT
        if entry & NOTABLE:
            if entry & BREAK:
                place += ONE
                break
            _look_at(point, entry, place, text, begin, end, at - ONE, phrases, notable, row)
        place += ONE
    for field in range(len(_TALLY_COLUMNS)):
        row[_TALLY_COLUMNS[field]] += tally >> np.uint64(8 * field) & np.uint64(0xFF)
    if at >= end and not what & SPACE:
        notes[count, HASH], notes[count, PLACE], notes[count, WHAT] = value, place, what
        count += ONE
    return at, count, (value, place, what)


@borrowing
def _power(count, powers):
    """P^count."""
    power, factor = powers[count & np.uint64(0xFF)], powers[np.uint64(0xFF)] * WORD_BASE
    rest = count >> np.uint64(8)
    while rest:
        if rest & ONE:
            power *= factor
        factor *= factor
        rest >>= ONE
    return power


@borrowing
def hash_of(first, last, size, powers):
    """Hash of the `size` characters between two notes."""
    return mix64(last - first * _power(size, powers) + size * LENGTH_SALT)


@borrowing
def read_characters(text, begin, end, ascii_entries, pages, entries, units):
    """Write the sums of all characters but white space, as if each were a word; give their number."""
    count, at = ZERO, begin
    while at < end:
        point = np.uint64(text[at])
        if point < ASCII:
            at += ONE
            is_space = ascii_entries[point] & SPACE
        else:
            point, at = decode(text, at)
            is_space = _entry_of(pages, entries, point) & SPACE
        if not is_space:
            units[count + ONE, 0] = units[count, 0] * RUN_BASE + mix64(point + LENGTH_SALT)
            units[count + ONE, 1] = count + ONE
            count += ONE
    return count
