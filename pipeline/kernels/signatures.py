"""From texts or shingles to MinHash signatures, and from these to the keys of their bands."""

import numpy as np
from numba import types

from pipeline.kernels.compiling import compiled, read_only
from pipeline.kernels.shingles import distinct, num_places, shingle
from pipeline.kernels.units import (
    FOUR,
    MODES,
    ONE,
    ROWS,
    TABLES,
    TEXT,
    THREE,
    TWO,
    WORD_BASE,
    ZERO,
    ascii_tables_of,
    inlined,
    longest_of,
    mix32,
    mix64,
    read_units,
    word_powers,
)

_NUM_PERMUTATIONS = np.uint64(128)
_SIGN_BLOCK = np.uint64(4096)  # 16 KiB of uint32: stay in L1
_PERMUTATIONS = types.Tuple((read_only(types.uint32), read_only(types.uint32)))
_SIGNATURES = types.uint32[:, ::1]


@inlined
def _sign(hashes, begin, end, permutations, mixed, out):
    """Take minima of all permutations over hashes[begin:end] into `out`, which starts at the largest number.

    The inner loop runs over the permutations, whose number LLVM knows: it becomes vectors alone, without a scalar rest
    for documents of any length. Four hashes at a time, so that each minimum is loaded and stored once for four.
    """
    multipliers, addends = permutations
    while begin < end:
        count = min(end - begin, _SIGN_BLOCK)
        for i in range(count):
            mixed[i] = mix32(np.uint32(hashes[begin + i]))
        for i in range(count, count + FOUR):
            mixed[i] = mixed[ZERO]  # a repeat does no harm
        for i in range(ZERO, count, FOUR):
            first, second = mixed[i], mixed[i + ONE]
            third, fourth = mixed[i + TWO], mixed[i + THREE]
            for k in range(_NUM_PERMUTATIONS):
                a, b = multipliers[k], addends[k]
                one, two = np.uint32(first * a + b), np.uint32(second * a + b)
                three, four = np.uint32(third * a + b), np.uint32(fourth * a + b)
                one = one if one < two else two
                three = three if three < four else four
                one = one if one < three else three
                out[k] = one if one < out[k] else out[k]
        begin += count


@compiled(
    *TEXT, MODES, types.uint64, TABLES, types.uint64, _PERMUTATIONS, _SIGNATURES, types.int64[::1]
)
def sign_texts(text, offsets, is_code, ngram, tables, multiplier, permutations, signatures, counts):
    """Write the signature of each text and how many distinct shingles it has."""
    longest = np.uint64(longest_of(offsets))
    ascii_tables, powers = ascii_tables_of(tables), word_powers()
    values, places = np.empty(longest + ONE, np.uint64), np.empty(num_places(longest), np.uint32)
    hashes, mixed = np.empty(longest + ONE, np.uint64), np.empty(_SIGN_BLOCK + FOUR, np.uint32)
    for row in range(len(is_code)):
        begin, end = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        count, by_character = read_units(
            text, begin, end, is_code[row], tables, ascii_tables, powers, values
        )
        count = shingle(values, count, by_character, ngram, hashes)
        count = distinct(hashes, count, places, values, multiplier)
        counts[row] = count
        _sign(hashes, ZERO, count, permutations, mixed, signatures[row])


@compiled(read_only(types.uint64), read_only(types.int64), _PERMUTATIONS, _SIGNATURES)
def sign(hashes, offsets, permutations, signatures):
    """Write the signature of each document's hashes."""
    mixed = np.empty(_SIGN_BLOCK + FOUR, np.uint32)
    for row in range(len(offsets) - 1):
        begin, end = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        _sign(hashes, begin, end, permutations, mixed, signatures[row])


@compiled(
    types.Array(types.uint32, 2, "C", readonly=True), types.uint64, ROWS, types.uint64[:, ::1]
)
def band_keys(signatures, rows, places, keys):
    """Write the key of each band of `rows` values, keys[band, places[document]]; nothing where the place is negative."""
    for document in range(len(signatures)):
        place = places[document]
        if place < 0:
            continue
        for band in range(keys.shape[0]):
            key = mix64(np.uint64(band + 1))
            first = np.uint64(band) * rows
            for row in range(first, first + rows):
                key = (key ^ np.uint64(signatures[document, row])) * WORD_BASE
                key ^= key >> np.uint64(29)
            keys[band, place] = mix64(key)
