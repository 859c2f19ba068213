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
    """Write which of `others`, a text's windows of ngrams[1] words, are its own, each once; give their number.

    It is -1 where all are, and then none is written. `windows` of ngrams[0] words, as wide as those in `template`, say
    where there is one; both in reading order, repeats and all. `table` is scratch.
    """
    slots, shift = template
    mask = np.uint64(len(slots)) - ONE
    width, other_width = (CHARACTERS, CHARACTERS) if by_character else ngrams
    free = num_own = ZERO  # words before `free` are a template's, or begin a window that is written
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
def guard_of(templates, widest, most_text, multiplier):
    """What `settle` keeps of the documents of a cluster beside their shingles; None without templates.

    A table of the templates, which documents have one, and their own shingles and n-grams, in the same places as all
    are in their arrays; with how many each has, see `_own_of`.
    """
    if templates is None:
        return None
    own, sizes = np.empty(most_text, np.uint64), np.empty((widest, 3), np.int64)
    own_grams, gram_sizes = np.empty(most_text, np.uint64), np.empty((widest, 3), np.int64)
    is_templated = np.empty(widest, np.bool_)
    return table_of(templates, multiplier), is_templated, own, sizes, own_grams, gram_sizes


@inlined
def keep_own(
    place, guard, ngrams, by_character, least_own, multiplier,
    windows, count, table, begin, gram_windows, num_grams, gram_table, gram_begin,
):  # fmt: skip
    """Keep which of a document's windows are its own; they are not yet distinct, and the tables are scratch."""
    template, is_templated, own, sizes, own_grams, gram_sizes = guard
    least = least_own[1 if by_character else 0]
    seen = windows, count, template, multiplier, by_character
    number = write_own(*seen, (ngrams[0], ngrams[0]), windows, count, table, own[begin:])
    is_templated[place] = number >= 0
    sizes[place] = number, least, 0
    out = own_grams[gram_begin:]
    number = write_own(*seen, ngrams, gram_windows, num_grams, gram_table, out)
    gram_sizes[place] = number, least, 0


@inlined
def are_alike(
    later, other, shorter, is_near, is_held, guard, thresholds, hashes, ends, grams, gram_ends
):
    """Whether two documents, near by Jaccard similarity or the shorter one held by the other, are so by what is their own.

    A document with too little of its own to tell may go (the later one) or is held (the shorter one).
    """
    _, is_templated, own, sizes, own_grams, gram_sizes = guard
    if not is_templated[later] and not is_templated[other]:
        return is_near, is_held
    if is_near:
        mine, is_short = _own_of(later, hashes, ends, own, sizes)
        theirs, _ = _own_of(other, hashes, ends, own, sizes)
        common = _num_held(mine, theirs)
        of = max(len(mine) + len(theirs) - common, 1)
        is_near = is_short or common / of >= thresholds[0]
    if is_held:
        longer = later + other - shorter
        mine, is_short = _own_of(shorter, grams, gram_ends, own_grams, gram_sizes)
        held = _num_held(mine, grams[gram_ends[longer, 0] : gram_ends[longer, 1]])
        is_held = is_short or held / max(len(mine), 1) >= thresholds[1]
    return is_near, is_held
