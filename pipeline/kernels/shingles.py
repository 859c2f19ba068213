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
    WORD_BASE,
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
SHINGLE_BASE = np.uint64(0xD6E8FEB86659FD93)  # Q: odd, Mix13-like; any odd constant would do
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
            power *= SHINGLE_BASE
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
def num_slots(count):
    """Places of the largest table for a text of so many units."""
    return table_size(min(count, MAX_COUNT))[0]


@inlined
def num_places(count):
    """Places that `distinct` needs for a text of so many units."""
    return TWO * num_slots(count)


@inlined
def distinct(hashes, count, places, spare, multiplier):
    """Move each hash to the front once, in any order (sorted, if more than MAX_COUNT came); give their number.

    Without a branch that depends on a hash, which no processor foresees. All write their number to their place of a
    table that is not cleared, and one that finds its own there is kept. Those that find another hash there, five of a
    hundred or so, go to a table of their own, and so on. `spare` is scratch for them.

    The multiplier is drawn anew in each process, so that no text can be made to fill one place; what is kept does not
    depend on it.
    """
    if count > MAX_COUNT:
        return _sort_distinct(hashes, count)
    kept, left = ZERO, count
    source = hashes
    while left:
        shift = table_size(TWO * left)[1]
        for i in range(left):
            places[source[i] * multiplier >> shift] = i
        crowded = ZERO
        for i in range(left):
            value = source[i]
            owner = np.uint64(places[value * multiplier >> shift])  # never before i
            held = source[owner]
            hashes[kept] = value
            kept += np.uint64(owner == i)
            spare[crowded] = value
            crowded += np.uint64(held != value)
        source, left = spare, crowded
        multiplier *= WORD_BASE  # another one, or they would meet again
    return kept


@inlined
def _sort_distinct(hashes, count):
    hashes[:count].sort()
    num_distinct = ONE
    for i in range(ONE, count):
        is_new = hashes[i] != hashes[num_distinct - ONE]
        hashes[num_distinct] = hashes[i]
        num_distinct += np.uint64(is_new)
    return num_distinct


@inlined
def to_table(hashes, count, slots, multiplier):
    """The same as `distinct`, and a table of the hashes: open addressing at a load of 1/8 to 1/4, none of more."""
    if count > MAX_COUNT:
        return _sort_distinct(hashes, count)
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
    if count > MAX_COUNT or count < TWO:  # `distinct` has sorted many already
        return
    buckets, shift = TWO, np.uint64(63)
    while buckets < count:
        buckets <<= ONE
        shift -= ONE
    for bucket in range(buckets + ONE):
        starts[bucket] = ZERO
    for i in range(count):
        starts[(hashes[i] >> shift) + ONE] += np.uint32(1)
    fullest = ZERO
    for bucket in range(buckets):
        fullest = max(fullest, np.uint64(starts[bucket + ONE]))
        starts[bucket + ONE] += starts[bucket]
    if fullest > _FULL_BUCKET:
        hashes[:count].sort()
        return
    for i in range(count):
        place = np.uint64(starts[hashes[i] >> shift])
        starts[hashes[i] >> shift] = place + ONE
        scratch[place] = hashes[i]
    for i in range(count):
        value, place = scratch[i], i
        while place > ZERO and hashes[place - ONE] > value:
            hashes[place] = hashes[place - ONE]
            place -= ONE
        hashes[place] = value


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
    values, places = np.empty(longest + ONE, np.uint64), np.empty(num_places(longest), np.uint32)
    filled = ZERO
    for row in range(len(is_code)):
        begin, end = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        out = hashes[filled:]
        count, by_character = read_units(
            text, begin, end, is_code[row], tables, ascii_tables, powers, values
        )
        count = shingle(values, count, by_character, ngram, out)
        count = distinct(out, count, places, values, multiplier)
        _sort(out, count, values, places)
        counts[row] = count
        filled += count
    return filled
