"""The loops behind `minhash.py`, compiled by numba: UTF-8 bytes and offsets in, hashes and signatures out.

No Python object per document or word, and no lock of the interpreter while they run. What they compute is written at
the top of `minhash.py`; `tests/pipeline/numpy_minhash.py` does the same slowly, with the same bits. All of them are in
this one file because numba looks only at a file's own age to tell whether what it keeps on disk is still right.

Integers are uint64 throughout: numba makes a float of a signed and an unsigned one, and adds a test for negative
indices to every access by a signed one.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numba
import numpy as np
from numba import types

from pipeline.compiling import compiled, read_only

WORD, SPACE, UNSPACED = np.uint64(1), np.uint64(2), np.uint64(4)
"""Bits of a character's kind: part of a word, white space, part of a word of a script without spaces."""

_WORD_BASE = np.uint64(0x9E3779B97F4A7C15)  # P: odd, 2^64 / golden ratio
_SHINGLE_BASE = np.uint64(0xD6E8FEB86659FD93)  # Q: odd, Mix13-like; any odd constant would do
_CHARACTER_SALT = np.uint64(0xA0761D6478BD642F)  # keeps 24 characters from ever meeting 5 words
_CHARACTERS = np.uint64(24)  # as NeMo Curator; about five words of English
_PERMUTATIONS = np.uint64(128)

_ZERO, _ONE, _TWO, _THREE, _FOUR = (np.uint64(value) for value in range(5))
_BLANK = np.uint64(0x20)
_ASCII = np.uint64(0x80)  # bytes from here on belong to a character of several bytes
_NUM_POWERS = np.uint64(256)  # longer words multiply on
_WINDOW_BLOCK = np.uint64(1024)  # 8 KiB of sums at a time: stay in L1
_SIGN_BLOCK = np.uint64(4096)  # 16 KiB of uint32: stay in L1
_FULL_BUCKET = np.uint64(32)  # chance gives 10 at most; a text made for it must not cost its square
_MIN_SLOTS = np.uint64(64)
_MAX_COUNT = np.uint64(1 << 17)  # hashes of the largest table, 4 MiB; sorting more takes no memory


_TEXT = (read_only(types.uint8), read_only(types.int64))  # bytes, offsets
_MODES = read_only(types.boolean)
_TABLES = types.Tuple((read_only(types.uint16), read_only(types.uint32)))
_PERMS = types.Tuple((read_only(types.uint32), read_only(types.uint32)))
_ROWS = read_only(types.int64)
_OUT64, _OUT32 = types.uint64[::1], types.uint32[:, ::1]

_inlined = numba.njit(nogil=True)


@_inlined
def _mix64(value):
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))


@_inlined
def _mix32(value):
    value = np.uint32(np.uint32(value ^ (value >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    value = np.uint32(np.uint32(value ^ (value >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.uint32(value ^ (value >> np.uint32(16)))


@_inlined
def _decode(text, at):
    """Code point that starts at `at`, of two to four bytes, and where the next one starts."""
    first = np.uint64(text[at])
    second = np.uint64(text[at + _ONE]) & np.uint64(0x3F)
    if first < np.uint64(0xE0):
        return (first & np.uint64(0x1F)) << np.uint64(6) | second, at + _TWO
    third = np.uint64(text[at + _TWO]) & np.uint64(0x3F)
    if first < np.uint64(0xF0):
        high = (first & np.uint64(0x0F)) << np.uint64(12)
        return high | second << np.uint64(6) | third, at + _THREE
    fourth = np.uint64(text[at + _THREE]) & np.uint64(0x3F)
    high = (first & np.uint64(0x07)) << np.uint64(18) | second << np.uint64(12)
    return high | third << np.uint64(6) | fourth, at + _FOUR


@_inlined
def _entry(tables, point):
    """What `minhash.py` knows of a code point: its folded form * 8 + its kind."""
    pages, entries = tables
    page = np.uint64(pages[point >> np.uint64(8)])
    return np.uint64(
        entries[page << np.uint64(8) | point & np.uint64(0xFF)] + (point << _THREE)
    ) & np.uint64(0xFFFFFFFF)


@_inlined
def _read_entry(text, at, tables):
    """The entry of the character that starts at `at`, and where the next one starts."""
    point = np.uint64(text[at])
    if point < _ASCII:
        return _entry(tables, point), at + _ONE
    point, at = _decode(text, at)
    return _entry(tables, point), at


@_inlined
def _is_by_character(text, begin, end, tables):
    """Whether most word characters belong to scripts without spaces."""
    num_word = num_unspaced = _ZERO
    at = begin
    while at < end:
        entry, at = _read_entry(text, at, tables)
        num_word += entry & WORD
        num_unspaced += entry & UNSPACED
    return _TWO * (num_unspaced // UNSPACED) > num_word // WORD


@_inlined
def _read_words(text, begin, end, tables, ascii_tables, powers, out):
    """Write the word hashes of a text; give their number and whether a character of a script without spaces came."""
    ascii_letters, ascii_masks = ascii_tables
    count = position = value = was_letter = unspaced = _ZERO
    power, at = _ONE, begin
    while at < end:
        # No branch on where a word ends, which no processor foresees. The masks are all ones in a word, else zero;
        # every letter's sum is written, and overwritten by the next one's unless a word ended between.
        behind = min(end, at + _NUM_POWERS - position) if position < _NUM_POWERS else at
        while at < behind:
            byte = np.uint64(text[at])
            if byte >= _ASCII:
                break
            mask = ascii_masks[byte]
            out[count] = value
            count -= was_letter & ~mask
            value = (value + ascii_letters[byte] * powers[position]) & mask
            position = (position + _ONE) & mask
            was_letter = mask
            at += _ONE
        if at >= end:
            break
        # Here stands a character of several bytes, or a word goes beyond the table of powers.
        if position == _NUM_POWERS:
            power = powers[_NUM_POWERS - _ONE]
        point, at = np.uint64(text[at]), at + _ONE
        if point >= _ASCII:
            point, at = _decode(text, at - _ONE)
        entry = _entry(tables, point)
        unspaced |= entry & UNSPACED
        out[count] = value
        if entry & WORD:
            power = powers[position] if position < _NUM_POWERS else power * _WORD_BASE
            value += (entry >> _THREE) * power
            position += _ONE
            was_letter = ~_ZERO
        else:
            count -= was_letter
            value = position = was_letter = _ZERO
    if was_letter:
        out[count] = value
        count += _ONE
    for i in range(count):
        out[i] = _mix64(out[i])
    return count, unspaced != _ZERO


@_inlined
def _read_characters(text, begin, end, tables, out):
    """Write the folded characters of a text that are no white space; give their number."""
    count = _ZERO
    at = begin
    while at < end:
        entry, at = _read_entry(text, at, tables)
        out[count] = entry >> _THREE
        count += np.uint64((entry & SPACE) == _ZERO)
    return count


@_inlined
def _windows(values, count, width, salt, out):
    """Write the hash of every run of `width` values, or of all where there are fewer; give their number."""
    if count == _ZERO:
        return _ZERO
    width = min(width, count)
    number = count - width + _ONE
    begin = _ZERO
    while begin < number:
        end = min(begin + _WINDOW_BLOCK, number)
        for i in range(begin, end):
            out[i] = values[i] + salt
        power = _ONE
        for j in range(_ONE, width):
            power *= _SHINGLE_BASE
            for i in range(begin, end):
                out[i] += values[i + j] * power
        for i in range(begin, end):
            out[i] = _mix64(out[i])
        begin = end
    return number


@_inlined
def _table_size(count):
    """Places of a table for so many hashes, and how far right a hash is shifted to find its own."""
    size, shift = _MIN_SLOTS, np.uint64(58)
    while size < _FOUR * count:
        size <<= _ONE
        shift -= _ONE
    return size, shift


@_inlined
def _drop_repeats(hashes, count, slots, multiplier):
    """Move the first of each hash to the front, in any order; give their number.

    Open addressing at a load of 1/8 to 1/4. The multiplier is drawn anew in each process, so that no text can be made to
    fill one place of the table; the result does not depend on it.
    """
    if count > _MAX_COUNT:
        hashes[:count].sort()
        num_distinct = _ONE
        for i in range(_ONE, count):
            is_new = hashes[i] != hashes[num_distinct - _ONE]
            hashes[num_distinct] = hashes[i]
            num_distinct += np.uint64(is_new)
        return num_distinct
    size, shift = _table_size(count)
    slots[:size] = _ZERO
    num_distinct = _ZERO
    has_zero = False  # zero marks a free place
    for i in range(count):
        value = hashes[i]
        if value == _ZERO:
            if not has_zero:
                has_zero = True
                hashes[num_distinct] = value
                num_distinct += _ONE
            continue
        place = value * multiplier >> shift
        held = slots[place]
        while held != _ZERO and held != value:
            place = (place + _ONE) & (size - _ONE)
            held = slots[place]
        slots[place] = value
        hashes[num_distinct] = value
        num_distinct += np.uint64(held == _ZERO)
    return num_distinct


@_inlined
def _sort(hashes, count, scratch, starts):
    """Sort distinct hashes: into about as many buckets as there are hashes, by the leading bits, then to their places."""
    if count > _MAX_COUNT or count < _TWO:  # `_drop_repeats` has sorted many already
        return
    buckets, shift = _TWO, np.uint64(63)
    while buckets < count:
        buckets <<= _ONE
        shift -= _ONE
    for bucket in range(buckets + _ONE):
        starts[bucket] = _ZERO
    for i in range(count):
        starts[(hashes[i] >> shift) + _ONE] += _ONE
    fullest = _ZERO
    for bucket in range(buckets):
        fullest = max(fullest, starts[bucket + _ONE])
        starts[bucket + _ONE] += starts[bucket]
    if fullest > _FULL_BUCKET:
        hashes[:count].sort()
        return
    for i in range(count):
        place = starts[hashes[i] >> shift]
        starts[hashes[i] >> shift] = place + _ONE
        scratch[place] = hashes[i]
    for i in range(count):
        value, place = scratch[i], i
        while place > _ZERO and hashes[place - _ONE] > value:
            hashes[place] = hashes[place - _ONE]
            place -= _ONE
        hashes[place] = value


@_inlined
def _sign(hashes, begin, end, permutations, mixed, out):
    """Take minima of all permutations over hashes[begin:end] into `out`, which starts at the largest number.

    The inner loop runs over the permutations, whose number LLVM knows: it becomes vectors alone, without a scalar rest
    for documents of any length. Four hashes at a time, so that each minimum is loaded and stored once for four.
    """
    multipliers, addends = permutations
    while begin < end:
        count = min(end - begin, _SIGN_BLOCK)
        for i in range(count):
            mixed[i] = _mix32(np.uint32(hashes[begin + i]))
        for i in range(count, count + _FOUR):
            mixed[i] = mixed[_ZERO]  # a repeat does no harm
        for i in range(_ZERO, count, _FOUR):
            first, second = mixed[i], mixed[i + _ONE]
            third, fourth = mixed[i + _TWO], mixed[i + _THREE]
            for k in range(_PERMUTATIONS):
                a, b = multipliers[k], addends[k]
                one, two = np.uint32(first * a + b), np.uint32(second * a + b)
                three, four = np.uint32(third * a + b), np.uint32(fourth * a + b)
                one = one if one < two else two
                three = three if three < four else four
                one = one if one < three else three
                out[k] = one if one < out[k] else out[k]
        begin += count


@_inlined
def _word_powers():
    powers = np.empty(_NUM_POWERS, np.uint64)
    power = _ONE
    for i in range(_NUM_POWERS):
        powers[i] = power
        power *= _WORD_BASE
    return powers


@_inlined
def _ascii_tables(tables):
    """Folded word characters below 0x80, zero for all others; and all ones for word characters, zero for others."""
    letters, masks = np.zeros(_ASCII, np.uint64), np.zeros(_ASCII, np.uint64)
    for point in range(_ASCII):
        entry = _entry(tables, point)
        if entry & WORD:
            letters[point], masks[point] = entry >> _THREE, ~_ZERO
    return letters, masks


@_inlined
def _longest(offsets):
    longest = 0
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    return longest


@_inlined
def _num_slots(count):
    return _table_size(min(count, _MAX_COUNT))[0]


@_inlined
def _read_units(text, begin, end, is_code, tables, ascii_tables, powers, values):
    """Write what shingles are made of, word hashes or characters; give their number, and whether they are characters."""
    if not is_code:
        count, has_unspaced = _read_words(text, begin, end, tables, ascii_tables, powers, values)
        if not has_unspaced or not _is_by_character(text, begin, end, tables):
            return count, False
    return _read_characters(text, begin, end, tables, values), True


@_inlined
def _shingle(values, count, by_character, ngram, out):
    """Write the shingle hashes of units in reading order, repeats and all; give their number."""
    if by_character:
        return _windows(values, count, _CHARACTERS, _CHARACTER_SALT, out)
    return _windows(values, count, ngram, _ZERO, out)


@compiled(*_TEXT, _MODES, types.uint64, _TABLES, types.uint64, _OUT64, types.int64[::1])
def shingle_texts(text, offsets, is_code, ngram, tables, multiplier, hashes, counts):
    """Write the distinct shingle hashes of each text, sorted, one text behind the other; give how many in all."""
    longest = np.uint64(_longest(offsets))
    ascii_tables, powers = _ascii_tables(tables), _word_powers()
    values, slots = np.empty(longest + _ONE, np.uint64), np.empty(_num_slots(longest), np.uint64)
    filled = _ZERO
    for row in range(len(is_code)):
        begin, end = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        out = hashes[filled:]
        count, by_character = _read_units(
            text, begin, end, is_code[row], tables, ascii_tables, powers, values
        )
        count = _shingle(values, count, by_character, ngram, out)
        count = _drop_repeats(out, count, slots, multiplier)
        _sort(out, count, values, slots)
        counts[row] = count
        filled += count
    return filled


@compiled(*_TEXT, _MODES, types.uint64, _TABLES, types.uint64, _PERMS, _OUT32, types.int64[::1])
def sign_texts(text, offsets, is_code, ngram, tables, multiplier, permutations, signatures, counts):
    """Write the signature of each text and how many distinct shingles it has."""
    longest = np.uint64(_longest(offsets))
    ascii_tables, powers = _ascii_tables(tables), _word_powers()
    values, slots = np.empty(longest + _ONE, np.uint64), np.empty(_num_slots(longest), np.uint64)
    hashes, mixed = np.empty(longest + _ONE, np.uint64), np.empty(_SIGN_BLOCK + _FOUR, np.uint32)
    for row in range(len(is_code)):
        begin, end = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        count, by_character = _read_units(
            text, begin, end, is_code[row], tables, ascii_tables, powers, values
        )
        count = _shingle(values, count, by_character, ngram, hashes)
        count = _drop_repeats(hashes, count, slots, multiplier)
        counts[row] = count
        _sign(hashes, _ZERO, count, permutations, mixed, signatures[row])


@compiled(read_only(types.uint64), read_only(types.int64), _PERMS, _OUT32)
def sign(hashes, offsets, permutations, signatures):
    """Write the signature of each document's hashes."""
    mixed = np.empty(_SIGN_BLOCK + _FOUR, np.uint32)
    for row in range(len(offsets) - 1):
        begin, end = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        _sign(hashes, begin, end, permutations, mixed, signatures[row])


@compiled(
    types.Array(types.uint32, 2, "C", readonly=True), types.uint64, _ROWS, types.uint64[:, ::1]
)
def band_keys(signatures, rows, places, keys):
    """Write the key of each band of `rows` values, keys[band, places[document]]; nothing where the place is negative."""
    for document in range(len(signatures)):
        place = places[document]
        if place < 0:
            continue
        for band in range(keys.shape[0]):
            key = _mix64(np.uint64(band + 1))
            first = np.uint64(band) * rows
            for row in range(first, first + rows):
                key = (key ^ np.uint64(signatures[document, row])) * _WORD_BASE
                key ^= key >> np.uint64(29)
            keys[band, place] = _mix64(key)


@_inlined
def _encode(point, out, filled):
    """Write a character in UTF-8; give where the next one goes."""
    if point < _ASCII:
        out[filled] = point
        return filled + _ONE
    last = _ASCII | point & np.uint64(0x3F)
    if point < np.uint64(0x800):
        out[filled], out[filled + _ONE] = np.uint64(0xC0) | point >> np.uint64(6), last
        return filled + _TWO
    third = _ASCII | point >> np.uint64(6) & np.uint64(0x3F)
    if point < np.uint64(0x10000):
        out[filled] = np.uint64(0xE0) | point >> np.uint64(12)
        out[filled + _ONE], out[filled + _TWO] = third, last
        return filled + _THREE
    out[filled] = np.uint64(0xF0) | point >> np.uint64(18)
    out[filled + _ONE] = _ASCII | point >> np.uint64(12) & np.uint64(0x3F)
    out[filled + _TWO], out[filled + _THREE] = third, last
    return filled + _FOUR


@_inlined
def _fold(text, begin, end, by_character, tables, folded, filled, starts):
    """Write a text's folded words with a space behind each, or its folded characters that are no white space.

    Gives their number, where the bytes end, and whether a character of a script without spaces came.
    """
    count = was_unit = unspaced = _ZERO
    has_gaps = _ZERO if by_character else _ONE  # between words, not between characters
    at = begin
    while at < end:
        point = np.uint64(text[at])
        if point < _ASCII:
            at += _ONE
        else:
            point, at = _decode(text, at)
        entry = _entry(tables, point)
        unspaced |= entry & UNSPACED
        is_unit = np.uint64((entry & SPACE) == _ZERO) if by_character else entry & WORD
        # No branch on where a word ends: what does not count is overwritten.
        starts[count] = filled
        count += is_unit & ~(was_unit & has_gaps)
        if point < _ASCII:
            folded[filled] = entry >> _THREE if is_unit else _BLANK
            filled += is_unit | was_unit & has_gaps
        elif is_unit:
            filled = _encode(entry >> _THREE, folded, filled)
        else:
            folded[filled] = _BLANK
            filled += was_unit & has_gaps
        was_unit = is_unit
    folded[filled] = _BLANK
    filled += was_unit & has_gaps
    starts[count] = filled
    return count, filled, unspaced != _ZERO


@cache
def fold_texts() -> Callable[..., Any]:
    """`_fold_texts`, compiled when it is asked for: most never need it, and each loop takes its time at every start."""
    outputs = types.uint8[::1], _OUT64, _OUT64, types.int64[::1]
    return compiled(*_TEXT, _MODES, types.uint64, _TABLES, *outputs)(_fold_texts)


def _fold_texts(text, offsets, is_code, ngram, tables, folded, begins, ends, counts):
    """Write folded texts and where in them each shingle begins and ends, repeats and all; give how many there are.

    `begins` has room for one more than there are.
    """
    filled = number = _ZERO
    for row in range(len(is_code)):
        begin, end = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        width, gap, by_character = ngram, _ONE, is_code[row]
        first, starts = (
            filled,
            begins[number:],
        )  # where each word begins; the last shingle begins before the last
        count, filled, has_unspaced = _fold(
            text, begin, end, by_character, tables, folded, first, starts
        )
        if not by_character and has_unspaced and _is_by_character(text, begin, end, tables):
            by_character = True
            count, filled, _ = _fold(text, begin, end, by_character, tables, folded, first, starts)
        if by_character:
            width, gap = _CHARACTERS, _ZERO
        width = min(width, count)
        counts[row] = count - width + _ONE if count else _ZERO
        for i in range(np.uint64(counts[row])):
            ends[number + i] = starts[i + width] - gap
        number += np.uint64(counts[row])
    return number


# --- clusters ----------------------------------------------------------------------------------
# From here on numbers of documents and places are int64, as NumPy's own.

_PUBLISHED, _PROBE = np.uint8(0), np.uint8(2)  # roles and rules: see similarity.py
_EXACT, _NEAR, _CONTAINED, _CONTAINS = np.uint8(0), np.uint8(1), np.uint8(2), np.uint8(3)


@_inlined
def _root(parents, node):
    while parents[node] != node:
        parents[node] = parents[parents[node]]  # halves the path: later walks are short
        node = parents[node]
    return node


@_inlined
def _join(parents, one, other):
    """The smaller root stays the root, so that a component is named by its smallest member."""
    one, other = _root(parents, one), _root(parents, other)
    if one < other:
        parents[other] = one
    else:
        parents[one] = other


@compiled(read_only(types.uint64), _ROWS, types.int64[::1])
def link_equal(keys, order, parents):
    """Join nodes whose keys are equal; `order` sorts the keys, and holds the nodes that have one."""
    for i in range(1, len(order)):
        if keys[order[i]] == keys[order[i - 1]]:
            _join(parents, order[i], order[i - 1])


@compiled(_ROWS, _ROWS, types.int64[::1])
def link_pairs(ones, others, parents):
    """Join nodes by pairs."""
    for i in range(len(ones)):
        _join(parents, ones[i], others[i])


@compiled(types.int64[::1])
def find_roots(parents):
    """Replace each node's parent by the smallest node of its component."""
    for node in range(len(parents)):
        parents[node] = parents[parents[node]]  # parents are smaller, and done


@compiled(read_only(types.uint8), _ROWS, _ROWS, _ROWS, types.uint8[::1])
def copy_texts(data, begins, sizes, places, out):
    """Copy stretches of bytes to their places."""
    for i in range(len(begins)):
        begin, place = begins[i], places[i]
        out[place : place + sizes[i]] = data[begin : begin + sizes[i]]


@_inlined
def _num_held(hashes, begin, end, slots, shift, multiplier, least):
    """How many of the distinct hashes hashes[begin:end] are in a table; too few, once they can no more be `least`."""
    mask = (_ONE << (np.uint64(64) - shift)) - _ONE
    count = 0
    while begin < end:
        behind = min(begin + 64, end)
        for i in range(begin, behind):
            value = hashes[i]
            place = value * multiplier >> shift
            held = slots[place]
            while held != value and held != _ZERO:
                place = (place + _ONE) & mask
                held = slots[place]
            count += held == value and value != _ZERO
        begin = behind
        if count + end - begin < least:
            return count
    return count


@_inlined
def _num_common(hashes, ends, node, other, num_raw, slots, spare, multiplier, least):
    """Size of the intersection of two sets, or a number below `least` if it is smaller.

    `slots` holds the set of `node`, made of `num_raw` hashes; one of more than _MAX_COUNT is sorted instead.
    """
    begin, end = ends[node, 0], ends[node, 1]
    first, last = ends[other, 0], ends[other, 1]
    if num_raw <= _MAX_COUNT:
        shift = _table_size(num_raw)[1]
        return _num_held(hashes, first, last, slots, shift, multiplier, least)
    if np.uint64(last - first) <= _MAX_COUNT:
        size, shift = _table_size(np.uint64(last - first))
        spare[:size] = _ZERO
        for i in range(first, last):
            place = hashes[i] * multiplier >> shift
            while spare[place] != _ZERO:
                place = (place + _ONE) & (size - _ONE)
            spare[place] = hashes[i]
        return _num_held(hashes, begin, end, spare, shift, multiplier, least)
    count = 0  # both are sorted: a set of so many came of more
    while begin < end and first < last:
        one, another = hashes[begin], hashes[first]
        count += one == another
        begin += one <= another
        first += another <= one
    return count


@_inlined
def _number_buckets(keys, begin, end, slots, ids, buckets, multiplier):
    """Number distinct keys from 0: buckets[i] is the number of keys[begin + i]."""
    size, shift = _table_size(np.uint64(end - begin))
    slots[:size] = _ZERO
    count = 0
    for i in range(end - begin):
        key = max(keys[begin + i], _ONE)  # zero marks a free place
        place = key * multiplier >> shift
        while slots[place] != _ZERO and slots[place] != key:
            place = (place + _ONE) & (size - _ONE)
        if slots[place] == _ZERO:
            slots[place], ids[place] = key, count
            count += 1
        buckets[i] = ids[place]


@_inlined
def _choose(found, count, num_shared, at_most, counts):
    """Bring those to the front that share the most buckets, of equals the first by priority; `counts` is scratch."""
    found[:count].sort()
    counts[:] = 0
    for i in range(count):
        counts[min(num_shared[found[i]], len(counts) - 1)] += 1
    fewest, room = len(counts) - 1, at_most
    while counts[fewest] < room:
        room -= counts[fewest]
        fewest -= 1
    chosen = 0
    for i in range(count):
        shared = min(num_shared[found[i]], len(counts) - 1)
        if shared > fewest or (shared == fewest and room > 0):
            room -= shared == fewest
            found[chosen] = found[i]
            chosen += 1


@compiled(
    *(*_TEXT, _ROWS, _MODES, types.UniTuple(types.uint64, 2), _TABLES, types.uint64),
    *(types.Array(types.uint64, 2, "C", readonly=True), read_only(types.uint64), _ROWS, _ROWS),
    *(read_only(types.uint8), types.UniTuple(types.float64, 2), types.UniTuple(types.int64, 3)),
    *(types.int64[:, ::1], types.float64[:, ::1], types.uint8[::1], types.int64[::1]),
)
def settle(
    text,
    begins,
    ends,
    is_code,
    ngrams,
    tables,
    multiplier,
    content,
    keys,
    key_ends,
    clusters,
    roles,
    thresholds,
    limits,
    pairs,
    similarities,
    rules,
    best,
):
    """Go through each cluster by priority and decide who goes; give the numbers of edges and of compared pairs.

    Node i has the text text[begins[i] : ends[i]], the content hash content[i] and the bucket keys
    keys[key_ends[i] : key_ends[i + 1]]; cluster c has the nodes clusters[c] to clusters[c + 1], by priority. An edge is
    written as pairs (earlier, later), similarities (Jaccard, containment) and rules; best[i] becomes the edge by which
    node i goes, or -1. `limits` are members of a bucket, candidates and edges of a document.
    """
    threshold, containment_threshold = thresholds
    max_members, max_candidates, max_edges = limits
    most_bytes = most_text = most_keys = widest = 0
    for c in range(len(clusters) - 1):
        begin, end = clusters[c], clusters[c + 1]
        num_bytes = end - begin
        for node in range(begin, end):
            most_bytes = max(most_bytes, ends[node] - begins[node])
            num_bytes += ends[node] - begins[node]
        most_text = max(most_text, num_bytes)
        most_keys = max(most_keys, key_ends[end] - key_ends[begin])
        widest = max(widest, end - begin)
    longest = np.uint64(most_bytes)
    ascii_tables, powers = _ascii_tables(tables), _word_powers()
    values = np.empty(longest + _ONE, np.uint64)
    # Distinct hashes of the cluster's documents, and where those of each begin and end; touched as far as filled.
    hashes, hash_ends = np.empty(most_text, np.uint64), np.empty((widest, 2), np.int64)
    grams, gram_ends = np.empty(most_text, np.uint64), np.empty((widest, 2), np.int64)
    slots, gram_slots = (
        np.empty(_num_slots(longest), np.uint64),
        np.empty(_num_slots(longest), np.uint64),
    )
    spare = np.empty(_num_slots(longest) if longest > _MAX_COUNT else _ONE, np.uint64)
    num_places = _table_size(np.uint64(most_keys))[0]
    bucket_slots, bucket_ids = np.empty(num_places, np.uint64), np.empty(num_places, np.int64)
    bucket_of = np.empty(most_keys, np.int64)
    # Kept documents of each bucket, as lists: the newest entry; the one before an entry, and its document.
    newest, num_members = np.empty(most_keys, np.int64), np.empty(most_keys, np.int64)
    before, member = np.empty(most_keys, np.int64), np.empty(most_keys, np.int64)
    seen_by, num_shared = np.empty(widest, np.int64), np.empty(widest, np.int64)
    found, counts = np.empty(widest, np.int64), np.empty(256, np.int64)
    num_edges = num_pairs = 0
    for c in range(len(clusters) - 1):
        start, size = clusters[c], clusters[c + 1] - clusters[c]
        first_key = key_ends[start]
        _number_buckets(
            keys, first_key, key_ends[start + size], bucket_slots, bucket_ids, bucket_of, multiplier
        )
        newest[: key_ends[start + size] - first_key] = -1
        num_members[: key_ends[start + size] - first_key] = 0
        seen_by[:size] = -1
        num_entries = num_hashes = num_grams = 0
        for i in range(size):
            node = start + i
            best[node] = -1
            key_begin, key_end = key_ends[node] - first_key, key_ends[node + 1] - first_key
            # Candidates: kept documents that share a bucket, and how many buckets.
            num_found = 0
            if roles[node] != _PUBLISHED:
                for k in range(key_begin, key_end):
                    entry = newest[bucket_of[k]]
                    while entry >= 0:
                        other = member[entry]
                        if seen_by[other] != i:
                            seen_by[other] = i
                            num_shared[other] = 0
                            found[num_found] = other
                            num_found += 1
                        num_shared[other] += 1
                        entry = before[entry]
            if num_found > max_candidates:
                _choose(found, num_found, num_shared, max_candidates, counts)
                num_found = max_candidates
            num_pairs += num_found
            # The sets of this document, and tables of them.
            begin, end = np.uint64(begins[node]), np.uint64(ends[node])
            out, gram_out = hashes[num_hashes:], grams[num_grams:]
            count, by_character = _read_units(
                text, begin, end, is_code[node], tables, ascii_tables, powers, values
            )
            raw = _shingle(values, count, by_character, ngrams[0], out)
            gram_raw = _shingle(values, count, by_character, ngrams[1], gram_out)
            hash_ends[i, 0], gram_ends[i, 0] = num_hashes, num_grams
            num_hashes += np.int64(_drop_repeats(out, raw, slots, multiplier))
            num_grams += np.int64(_drop_repeats(gram_out, gram_raw, gram_slots, multiplier))
            hash_ends[i, 1], gram_ends[i, 1] = num_hashes, num_grams
            num_own = hash_ends[i, 1] - hash_ends[i, 0]
            highest, first_edge = -1.0, num_edges
            for j in range(num_found):
                other = found[j]
                rule, jaccard, containment = _EXACT, 1.0, 1.0
                twin = start + other
                if content[node, 0] != content[twin, 0] or content[node, 1] != content[twin, 1]:
                    num_other = hash_ends[other, 1] - hash_ends[other, 0]
                    # J = c / (m + n - c) reaches t from c = t (m + n) / (1 + t) on; one less, for the rounding.
                    least = np.int64(threshold * (num_own + num_other) / (1.0 + threshold)) - 1
                    common = _num_common(
                        hashes, hash_ends, i, other, raw, slots, spare, multiplier, least
                    )
                    jaccard = common / max(num_own + num_other - common, 1)
                    is_shorter = num_own <= num_other  # of equally long ones, the later
                    shorter = i if is_shorter else other
                    num_shorter = gram_ends[shorter, 1] - gram_ends[shorter, 0]
                    least = np.int64(containment_threshold * num_shorter) - 1
                    if jaccard >= threshold:
                        least = 0  # it is written down, whatever it is
                    containment = _num_common(
                        grams, gram_ends, i, other, gram_raw, gram_slots, spare, multiplier, least
                    ) / max(num_shorter, 1)
                    if jaccard >= threshold:
                        rule = _NEAR
                    elif containment >= containment_threshold:
                        rule = _CONTAINED if is_shorter else _CONTAINS
                        common = _num_common(
                            hashes, hash_ends, i, other, raw, slots, spare, multiplier, 0
                        )
                        jaccard = common / max(num_own + num_other - common, 1)
                    else:
                        continue
                similarity = containment if rule == _CONTAINED else jaccard
                is_best = rule != _CONTAINS and (
                    similarity > highest or (similarity == highest and twin < pairs[best[node], 0])
                )
                if num_edges - first_edge == max_edges:
                    if not is_best:
                        continue
                    num_edges -= 1  # the best is always there
                pairs[num_edges, 0], pairs[num_edges, 1] = twin, node
                similarities[num_edges, 0], similarities[num_edges, 1] = jaccard, containment
                rules[num_edges] = rule
                if is_best:
                    highest = similarity
                    best[node] = num_edges
                num_edges += 1
            if best[node] >= 0 or roles[node] == _PROBE:
                # Nobody will be compared with it.
                num_hashes, num_grams = hash_ends[i, 0], gram_ends[i, 0]
                continue
            for k in range(key_begin, key_end):
                bucket = bucket_of[k]
                if num_members[bucket] < max_members:
                    num_members[bucket] += 1
                    before[num_entries], member[num_entries] = newest[bucket], i
                    newest[bucket] = num_entries
                    num_entries += 1
    return num_edges, num_pairs
