"""What repeats in a text: lines, paragraphs and runs of words, by their hashes."""

import numpy as np

from pipeline.kernels.shingles import SHINGLE_BASE, table_size
from pipeline.kernels.units import ONE, TWO, ZERO, borrowing
from pipeline.scan import COLUMN

_MOST_TOP_RUN, _MOST_RUN = np.uint64(4), np.uint64(10)  # words
RUN_BASE = SHINGLE_BASE  # Q: the hash of words w_i is the sum of w_i * Q^(n - 1 - i)


@borrowing
def num_places(count):
    """Places of a table for so many keys, a quarter to a half of them taken."""
    return table_size(count // TWO + ONE)[0]


@borrowing
def _find_firsts(keys, count, scratch_slots, multiplier, firsts):
    """Write for each key the number of the first one that equals it; give how many equal an earlier one.

    Open addressing by a multiplier that is drawn anew in each process: no text can be made to fill one place.
    """
    size, shift = table_size(count // TWO + ONE)
    slots = scratch_slots[:size]
    slots[:] = 0
    num_repeats = ZERO
    for i in range(count):
        key = keys[i]
        place = key * multiplier >> shift
        held = np.uint64(slots[place])  # one more than the number of a key; zero marks a free place
        while held != ZERO and keys[held - ONE] != key:
            place = (place + ONE) & (size - ONE)
            held = np.uint64(slots[place])
        first = i if held == ZERO else held - ONE
        slots[place] = first + ONE
        firsts[i] = first
        num_repeats += np.uint64(first != i)
    return num_repeats


@borrowing
def count_repeats(parts, count, keys, slots, firsts, multiplier):
    """Give how many parts, of which there are hash and characters, equal an earlier one, and their characters."""
    for i in range(count):
        keys[i] = parts[i, 0]
    num_repeats = _find_firsts(keys, count, slots, multiplier, firsts) if count else ZERO
    num_chars = ZERO
    if num_repeats:
        for i in range(count):
            num_chars += parts[i, 1] if np.uint64(firsts[i]) != i else ZERO
    return num_repeats, num_chars


@borrowing
def _chars_in(words, starts, firsts, count, first, size):
    """Characters in the runs that equal the one numbered `first`, or in all that repeat an earlier one.

    Where runs overlap, characters count once.
    """
    num_chars = behind = ZERO
    for i in range(count):
        of_run = np.uint64(firsts[i])
        if of_run == first or (first == count and of_run != i):
            start = np.uint64(starts[i])
            num_chars += words[start + size, 1] - words[max(start, behind), 1]
            behind = start + size
    return num_chars


@borrowing
def count_runs(
    words, num_words, wanted, per_word, keys, slots, firsts, starts, times, multiplier, row
):
    """Write the characters in the most frequent runs of 2 to 4 words and in repeated runs of 5 to 10.

    Bit n of `wanted` asks for runs of n words, of `per_word` units each. A run of n + 1 repeats only where its first n
    do, so each length looks at what the one before has left.
    """
    n = np.uint64(2)
    while n <= _MOST_RUN and not wanted >> n & ONE:
        n += ONE
    if n > _MOST_RUN:
        return
    count = num_words
    for i in range(count):
        starts[i] = i
    while n <= _MOST_RUN and count > ZERO:
        size = n * per_word
        power = ONE
        for _ in range(size):
            power *= RUN_BASE
        while count > ZERO and np.uint64(starts[count - ONE]) + size > num_words:
            count -= ONE
        for i in range(count):
            start = np.uint64(starts[i])
            keys[i] = words[start + size, 0] - words[start, 0] * power
        if not _find_firsts(keys, count, slots, multiplier, firsts):
            return
        times[:count] = 0
        for i in range(count):
            times[firsts[i]] += 1
        if n <= _MOST_TOP_RUN:
            most, most_chars, best = TWO, ZERO, count
            for i in range(count):
                num_times = np.uint64(times[i])
                if num_times >= most:
                    start = np.uint64(starts[i])
                    num_chars = words[start + size, 1] - words[start, 1]
                    if num_times > most or num_chars > most_chars:
                        most, most_chars, best = num_times, num_chars, i
            if best < count:
                row[COLUMN.top_2 + n - TWO] = _chars_in(words, starts, firsts, count, best, size)
        else:
            row[COLUMN.duplicate_5 + n - np.uint64(5)] = _chars_in(
                words, starts, firsts, count, count, size
            )
        num_left = ZERO
        for i in range(count):
            if times[firsts[i]] > 1:
                starts[num_left] = starts[i]
                num_left += ONE
        count = num_left
        n += ONE
