"""Whether two texts are alike without what their sites put around every page: by their own shingles.

A shingle is a text's own if it shares no word (or character) with one that counts as a template's. Texts that differ in
a word here and there have no such shingles where they are all but a template; those with a passage of their own do.
"""

import numpy as np

from pipeline.kernels.shingles import CHARACTERS, table_size, to_table
from pipeline.kernels.units import ONE, ZERO, inlined


@inlined
def table_of(hashes, multiplier):
    """A table of distinct hashes, and how far right a hash is shifted to find its place."""
    size, shift = table_size(np.uint64(len(hashes)))
    slots = np.zeros(size, np.uint64)
    for i in range(len(hashes)):
        place = hashes[i] * multiplier >> shift
        while slots[place] != ZERO:
            place = (place + ONE) & (size - ONE)
        slots[place] = hashes[i]
    return slots, shift


@inlined
def write_own(
    windows, count, template, multiplier, by_character, ngrams, others, num_others, table, out
):
    """Write which of `others`, a text's windows of ngrams[1] words, are its own, each once; give their number, or -1 for all.

    `windows` of ngrams[0] words, as wide as those in `template`, say where there is one; both in reading order, repeats
    and all. `table` is scratch.
    """
    slots, shift = template
    mask = np.uint64(len(slots)) - ONE
    width, other_width = (CHARACTERS, CHARACTERS) if by_character else ngrams
    # Where the words behind the last template begin, or those behind the last window written.
    free = num_own = ZERO
    for place in range(count):
        slot = windows[place] * multiplier >> shift
        while slots[slot] != ZERO and slots[slot] != windows[place]:
            slot = (slot + ONE) & mask
        if slots[slot] != ZERO:
            while free + other_width <= place:
                out[num_own] = others[free]
                num_own += ONE
                free += ONE
            free = place + width
    if free == ZERO:
        return -1
    while free < num_others:
        out[num_own] = others[free]
        num_own += ONE
        free += ONE
    return np.int64(to_table(out, num_own, table, multiplier))


@inlined
def _own_of(place, hashes, ends, own, sizes):
    """The own shingles of a document of a cluster, sorted, and whether they are too few to tell.

    sizes[place] says how many there are in `own` (-1 for all in `hashes`), fewest that tell, and whether they are sorted.
    """
    begin, end = ends[place, 0], ends[place, 1]
    if not sizes[place, 2]:
        if sizes[place, 0] < 0:
            own[begin:end] = hashes[begin:end]
            sizes[place, 0] = end - begin
        own[begin : begin + sizes[place, 0]].sort()
        sizes[place, 2] = 1
    return own[begin : begin + sizes[place, 0]], sizes[place, 0] < sizes[place, 1]


@inlined
def _num_held(ordered, hashes):
    """How many of some distinct hashes are among sorted ones."""
    count = 0
    for i in range(len(hashes)):
        low, high = 0, len(ordered)
        while low < high:
            middle = (low + high) // 2
            if ordered[middle] < hashes[i]:
                low = middle + 1
            else:
                high = middle
        count += low < len(ordered) and ordered[low] == hashes[i]
    return count


@inlined
def is_own_alike(later, other, hashes, ends, own, sizes, threshold):
    """Whether the own shingles of two documents reach the Jaccard similarity, or the later one has too few to tell."""
    mine, is_short = _own_of(later, hashes, ends, own, sizes)
    if is_short:
        return True
    theirs, _ = _own_of(other, hashes, ends, own, sizes)
    common = _num_held(mine, theirs)
    return common / (len(mine) + len(theirs) - common) >= threshold


@inlined
def is_own_held(shorter, longer, hashes, ends, own, sizes, threshold):
    """Whether a document holds that share of another one's own n-grams, or these are too few to tell."""
    mine, is_short = _own_of(shorter, hashes, ends, own, sizes)
    held = _num_held(mine, hashes[ends[longer, 0] : ends[longer, 1]])
    return is_short or held / len(mine) >= threshold
