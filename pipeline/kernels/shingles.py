"""From words and characters to shingles: rolling windows, and sets of their hashes."""

import numpy as np
from numba import types

from pipeline.kernels.compiling import compiled
from pipeline.kernels.units import (
    FOUR,
    MODES,
    ONE,
    OUT64,
    TABLES,
    TEXT,
    TWO,
    ZERO,
    ascii_tables_of,
    inlined,
    longest_of,
    mix64,
    read_units,
    word_powers,
)

CHARACTERS = np.uint64(24)  # as NeMo Curator; about five words of English
CHARACTER_SALT = np.uint64(0xA0761D6478BD642F)  # keeps 24 characters from ever meeting 5 words
MAX_COUNT = np.uint64(1 << 17)  # hashes of the largest table, 4 MiB; sorting more takes no memory
_SHINGLE_BASE = np.uint64(0xD6E8FEB86659FD93)  # Q: odd, Mix13-like; any odd constant would do
_WINDOW_BLOCK = np.uint64(1024)  # 8 KiB of sums at a time: stay in L1
_FULL_BUCKET = np.uint64(32)  # chance gives 10 at most; a text made for it must not cost its square
_MIN_SLOTS = np.uint64(64)


@inlined
def _windows(values, count, width, salt, out):
    """Write the hash of every run of `width` values, or of all where there are fewer; give their number."""
    if count == ZERO:
        return ZERO
    width = min(width, count)
    number = count - width + ONE
    begin = ZERO
    while begin < number:
        end = min(begin + _WINDOW_BLOCK, number)
        for i in range(begin, end):
            out[i] = values[i] + salt
        power = ONE
        for j in range(ONE, width):
            power *= _SHINGLE_BASE
            for i in range(begin, end):
                out[i] += values[i + j] * power
        for i in range(begin, end):
            out[i] = mix64(out[i])
        begin = end
    return number


@inlined
def table_size(count):
    """Places of a table for so many hashes, and how far right a hash is shifted to find its own."""
    size, shift = _MIN_SLOTS, np.uint64(58)
    while size < FOUR * count:
        size <<= ONE
        shift -= ONE
    return size, shift


@inlined
def drop_repeats(hashes, count, slots, multiplier):
    """Move the first of each hash to the front, in any order; give their number.

    Open addressing at a load of 1/8 to 1/4. The multiplier is drawn anew in each process, so that no text can be made to
    fill one place of the table; the result does not depend on it.
    """
    if count > MAX_COUNT:
        hashes[:count].sort()
        num_distinct = ONE
        for i in range(ONE, count):
            is_new = hashes[i] != hashes[num_distinct - ONE]
            hashes[num_distinct] = hashes[i]
            num_distinct += np.uint64(is_new)
        return num_distinct
    size, shift = table_size(count)
    slots[:size] = ZERO
    num_distinct = ZERO
    has_zero = False  # zero marks a free place
    for i in range(count):
        value = hashes[i]
        if value == ZERO:
            if not has_zero:
                has_zero = True
                hashes[num_distinct] = value
                num_distinct += ONE
            continue
        place = value * multiplier >> shift
        held = slots[place]
        while held != ZERO and held != value:
            place = (place + ONE) & (size - ONE)
            held = slots[place]
        slots[place] = value
        hashes[num_distinct] = value
        num_distinct += np.uint64(held == ZERO)
    return num_distinct


@inlined
def _sort(hashes, count, scratch, starts):
    """Sort distinct hashes: into about as many buckets as there are hashes, by the leading bits, then to their places."""
    if count > MAX_COUNT or count < TWO:  # `drop_repeats` has sorted many already
        return
    buckets, shift = TWO, np.uint64(63)
    while buckets < count:
        buckets <<= ONE
        shift -= ONE
    for bucket in range(buckets + ONE):
        starts[bucket] = ZERO
    for i in range(count):
        starts[(hashes[i] >> shift) + ONE] += ONE
    fullest = ZERO
    for bucket in range(buckets):
        fullest = max(fullest, starts[bucket + ONE])
        starts[bucket + ONE] += starts[bucket]
    if fullest > _FULL_BUCKET:
        hashes[:count].sort()
        return
    for i in range(count):
        place = starts[hashes[i] >> shift]
        starts[hashes[i] >> shift] = place + ONE
        scratch[place] = hashes[i]
    for i in range(count):
        value, place = scratch[i], i
        while place > ZERO and hashes[place - ONE] > value:
            hashes[place] = hashes[place - ONE]
            place -= ONE
        hashes[place] = value


@inlined
def num_slots(count):
    return table_size(min(count, MAX_COUNT))[0]


@inlined
def shingle(values, count, by_character, ngram, out):
    """Write the shingle hashes of units in reading order, repeats and all; give their number."""
    if by_character:
        return _windows(values, count, CHARACTERS, CHARACTER_SALT, out)
    return _windows(values, count, ngram, ZERO, out)


@compiled(*TEXT, MODES, types.uint64, TABLES, types.uint64, OUT64, types.int64[::1])
def shingle_texts(text, offsets, is_code, ngram, tables, multiplier, hashes, counts):
    """Write the distinct shingle hashes of each text, sorted, one text behind the other; give how many in all."""
    longest = np.uint64(longest_of(offsets))
    ascii_tables, powers = ascii_tables_of(tables), word_powers()
    values, slots = np.empty(longest + ONE, np.uint64), np.empty(num_slots(longest), np.uint64)
    filled = ZERO
    for row in range(len(is_code)):
        begin, end = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        out = hashes[filled:]
        count, by_character = read_units(
            text, begin, end, is_code[row], tables, ascii_tables, powers, values
        )
        count = shingle(values, count, by_character, ngram, out)
        count = drop_repeats(out, count, slots, multiplier)
        _sort(out, count, values, slots)
        counts[row] = count
        filled += count
    return filled
