"""The shingles of texts that are their own, before `settle` and beside it: keys to find pages by, and all of a few texts."""

import numpy as np
from numba import types

from pipeline.kernels.compiling import compiled, read_only
from pipeline.kernels.shingles import num_slots, shingle, to_table
from pipeline.kernels.templates import table_of, write_own
from pipeline.kernels.units import (
    MODES,
    ONE,
    OUT64,
    ROWS,
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
            num_own = np.int64(to_table(out, num_others, table, multiplier))
        out[:num_own].sort()
        counts[row], by_character[row] = num_own, is_characters
        filled += num_own
    return filled


@compiled(
    *(*TEXT, ROWS, MODES, types.uint64, read_only(types.uint64), TABLES, types.uint64),
    *(types.UniTuple(types.int64, 2), types.Array(types.uint64, 2, "C"), types.int64[::1]),
)
def own_keys(
    text, begins, ends, is_code, ngram, templates, tables, multiplier, least_own, keys, counts
):
    """Write the lowest of each text's own shingles, if it has a template and `least_own` beside it; counts[i] of text i."""
    longest = np.uint64(0)
    for row in range(len(begins)):
        longest = max(longest, np.uint64(ends[row] - begins[row]))
    ascii_tables, powers = ascii_tables_of(tables), word_powers()
    values, windows = np.empty(longest + ONE, np.uint64), np.empty(longest + ONE, np.uint64)
    own, table = np.empty(longest + ONE, np.uint64), np.empty(num_slots(longest), np.uint64)
    template = table_of(templates, multiplier)
    for row in range(len(begins)):
        begin, end = np.uint64(begins[row]), np.uint64(ends[row])
        count, by_character = read_units(
            text, begin, end, is_code[row], tables, ascii_tables, powers, values
        )
        number = shingle(values, count, by_character, ngram, windows)
        num_own = write_own(
            *(windows, number, template, multiplier, by_character),
            *((ngram, ngram), windows, number, table, own),
        )
        counts[row] = 0
        if num_own >= least_own[1 if by_character else 0]:
            own[:num_own].sort()
            counts[row] = min(num_own, keys.shape[1])
            keys[row, : counts[row]] = own[: counts[row]]
