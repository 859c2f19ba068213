"""The shingles of texts that are their own, for whoever wants to see what `settle` saw."""

import numpy as np
from numba import types

from pipeline.kernels.compiling import compiled, read_only
from pipeline.kernels.shingles import drop_repeats, num_slots, shingle
from pipeline.kernels.templates import table_of, write_own
from pipeline.kernels.units import (
    MODES,
    ONE,
    OUT64,
    TABLES,
    TEXT,
    ascii_tables_of,
    longest_of,
    read_units,
    word_powers,
)


@compiled(
    *(*TEXT, MODES, types.UniTuple(types.uint64, 2), read_only(types.uint64), TABLES, types.uint64),
    *(OUT64, types.int64[::1], types.boolean[::1]),
)
def own_texts(
    text, offsets, is_code, ngrams, templates, tables, multiplier, hashes, counts, by_character
):
    """Write each text's own shingles of ngrams[1] words, sorted, one text behind the other; give how many in all.

    `templates` are of ngrams[0] words. by_character[i] tells what the shingles of text i are of.
    """
    longest = np.uint64(longest_of(offsets))
    ascii_tables, powers = ascii_tables_of(tables), word_powers()
    values, windows = np.empty(longest + ONE, np.uint64), np.empty(longest + ONE, np.uint64)
    others, table = np.empty(longest + ONE, np.uint64), np.empty(num_slots(longest), np.uint64)
    template = table_of(templates, multiplier)
    filled = 0
    for row in range(len(is_code)):
        begin, end = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        count, is_characters = read_units(
            text, begin, end, is_code[row], tables, ascii_tables, powers, values
        )
        number = shingle(values, count, is_characters, ngrams[0], windows)
        num_others = shingle(values, count, is_characters, ngrams[1], others)
        out = hashes[filled:]
        num_own = write_own(
            *(windows, number, template, multiplier, is_characters),
            *(ngrams, others, num_others, table, out),
        )
        if num_own < 0:
            out[:num_others] = others[:num_others]
            num_own = np.int64(drop_repeats(out, num_others, table, multiplier))
        out[:num_own].sort()
        counts[row], by_character[row] = num_own, is_characters
        filled += num_own
    return filled
