"""SHA-1 of many short byte strings, 64 at a time: what datasketch's default hash takes of each shingle.

Every step of SHA-1 (FIPS 180-4, section 6.1.2) needs the one before, so one string cannot use a processor's vectors;
many strings side by side can. Column i of the arrays below belongs to the i-th string of a group, and LLVM makes
vectors of every loop over the columns. Not for secrets.
"""

import numba
import numpy as np
from numba import types

from pipeline.kernels.compiling import compiled, read_only

_LANES = np.uint64(64)  # 26, 17 and 14 ns a block with 32, 64 and 128 of them, in 10, 20 and 40 KB
_BLOCK = np.uint64(64)  # bytes that one round of 80 steps takes in
_PADDING = np.uint64(9)  # bytes behind a string at least: a one bit, zeros, the length in 64 bits
_ENDED = np.int32(-9)  # bytes left from which not even padding is
_KINDS = np.uint64(
    4
)  # strings of one, two, three and more blocks: a group takes as long as its longest

# Constants of 20 steps each, named by how these mix.
_CHOOSE, _PARITY = np.uint32(0x5A827999), np.uint32(0x6ED9EBA1)
_MAJORITY, _PARITY_AGAIN = np.uint32(0x8F1BBCDC), np.uint32(0xCA62C1D6)

_inlined = numba.njit(nogil=True)


@_inlined
def _num_blocks(num_bytes):
    return (num_bytes + _PADDING + _BLOCK - np.uint64(1)) // _BLOCK


@_inlined
def _hash_group(data, begins, ends, members, count, arrays, out):
    """Hash `count` strings side by side; one that has ended no longer adds to its total."""
    words, state, total, left = arrays
    blocks = np.uint64(0)
    for lane in range(count):
        blocks = max(blocks, _num_blocks(ends[members[lane]] - begins[members[lane]]))
    for lane in range(_LANES):
        total[0, lane], total[1, lane] = np.uint32(0x67452301), np.uint32(0xEFCDAB89)
        total[2, lane], total[3, lane] = np.uint32(0x98BADCFE), np.uint32(0x10325476)
        total[4, lane] = np.uint32(0xC3D2E1F0)
    for block in range(blocks):
        for lane in range(count):
            first, end = begins[members[lane]] + block * _BLOCK, ends[members[lane]]
            left[lane] = np.int32(min(np.int64(end) - np.int64(first), np.int64(_BLOCK)))
            if left[lane] > _ENDED:
                _load(data, first, words, lane)
        _pad(words, left)
        for lane in range(count):
            num_bytes = ends[members[lane]] - begins[members[lane]]
            if block == _num_blocks(num_bytes) - np.uint64(1):
                words[14, lane] = np.uint32(num_bytes >> np.uint64(29))
                words[15, lane] = np.uint32(num_bytes << np.uint64(3))
        for k in range(np.uint64(5)):
            for lane in range(_LANES):
                state[k, lane] = total[k, lane]
        _steps(words, state)
        for k in range(np.uint64(5)):
            for lane in range(_LANES):
                more = state[k, lane] if left[lane] > _ENDED else np.uint32(0)
                total[k, lane] = np.uint32(total[k, lane] + more)
    for lane in range(count):
        first = total[0, lane]  # SHA-1 writes it with the highest byte in front
        low = (first & np.uint32(0xFF00)) << np.uint32(8) | (first & np.uint32(0xFF)) << np.uint32(
            24
        )
        high = first >> np.uint32(24) | (first >> np.uint32(8)) & np.uint32(0xFF00)
        out[members[lane]] = np.uint32(low | high)


@_inlined
def _load(data, first, words, lane):
    """Write 64 bytes into a column, the end of the string or not: a loop that ends with it would be guessed wrong."""
    for t in range(np.uint64(16)):
        at = first + np.uint64(4) * t
        high = np.uint32(data[at]) << np.uint32(24)
        high |= np.uint32(data[at + np.uint64(1)]) << np.uint32(16)
        low = np.uint32(data[at + np.uint64(2)]) << np.uint32(8)
        words[t, lane] = high | low | np.uint32(data[at + np.uint64(3)])


@_inlined
def _pad(words, left):
    """Put a one bit and zeros behind the strings; `left` bytes of the block are theirs, none if it is below zero."""
    for t in range(np.int32(16)):
        for lane in range(_LANES):
            rest = left[lane] - np.int32(4) * np.int32(t)
            kept = np.uint64(8) * np.uint64(min(max(rest, np.int32(0)), np.int32(4)))
            one = np.uint32(np.uint64(0x80000000) >> kept) if rest >= 0 else np.uint32(0)
            mask = np.uint32(np.uint64(0xFFFFFFFF00000000) >> kept)
            words[t, lane] = words[t, lane] & mask | one


@_inlined
def _steps(words, state):
    """All 80 steps of one block of each column, five at a time: after five, every value is back in its place."""
    for t in range(np.uint64(16), np.uint64(80)):
        for lane in range(_LANES):
            early = words[t - np.uint64(14), lane] ^ words[t - np.uint64(16), lane]
            late = words[t - np.uint64(3), lane] ^ words[t - np.uint64(8), lane]
            words[t, lane] = _rotate(late ^ early, 1)
    five = np.uint64(5)
    for t in range(np.uint64(0), np.uint64(20), five):
        _five_steps(words, state, t, _CHOOSE)
    for t in range(np.uint64(20), np.uint64(40), five):
        _five_steps(words, state, t, _PARITY)
    for t in range(np.uint64(40), np.uint64(60), five):
        _five_steps(words, state, t, _MAJORITY)
    for t in range(np.uint64(60), np.uint64(80), five):
        _five_steps(words, state, t, _PARITY_AGAIN)


@_inlined
def _five_steps(words, state, t, constant):
    for lane in range(_LANES):
        a, b, c, d = state[0, lane], state[1, lane], state[2, lane], state[3, lane]
        e = state[4, lane]
        e = _step(a, _mix(constant, b, c, d), e, constant, words[t, lane])
        b = _rotate(b, 30)
        d = _step(e, _mix(constant, a, b, c), d, constant, words[t + np.uint64(1), lane])
        a = _rotate(a, 30)
        c = _step(d, _mix(constant, e, a, b), c, constant, words[t + np.uint64(2), lane])
        e = _rotate(e, 30)
        b = _step(c, _mix(constant, d, e, a), b, constant, words[t + np.uint64(3), lane])
        d = _rotate(d, 30)
        a = _step(b, _mix(constant, c, d, e), a, constant, words[t + np.uint64(4), lane])
        c = _rotate(c, 30)
        state[0, lane], state[1, lane], state[2, lane], state[3, lane] = a, b, c, d
        state[4, lane] = e


@_inlined
def _step(a, mixed, e, constant, word):
    return np.uint32(_rotate(a, 5) + mixed + e + constant + word)


@_inlined
def _rotate(word, bits):
    return np.uint32(word << np.uint32(bits)) | np.uint32(word >> np.uint32(32 - bits))


@_inlined
def _mix(constant, b, c, d):
    if constant == _CHOOSE:
        return d ^ (b & (c ^ d))
    if constant == _MAJORITY:
        return (b & c) | (d & (b | c))
    return b ^ c ^ d


@compiled(
    read_only(types.uint8), read_only(types.uint64), read_only(types.uint64), types.uint64[::1]
)
def sha1_starts(data, begins, ends, out):
    """Write the first four bytes of the SHA-1 of each data[begins[i]:ends[i]], as one little-endian number.

    Strings may overlap and be of any length. `O(bytes)`: 17 ns a block of 64 bytes, of which a string takes one if it has
    at most 55 bytes; holds 25 KB.
    """
    if len(ends) and max(ends) + _BLOCK > len(data):
        raise ValueError("sha1_starts: expected 64 bytes behind the last string")
    arrays = (
        np.empty((80, _LANES), np.uint32),
        np.empty((5, _LANES), np.uint32),
        np.empty((5, _LANES), np.uint32),
        np.empty(_LANES, np.int32),
    )
    members, counts = np.empty((_KINDS, _LANES), np.uint64), np.zeros(_KINDS, np.uint64)
    for i in range(len(begins)):
        kind = min(_num_blocks(ends[i] - begins[i]), _KINDS) - np.uint64(1)
        members[kind, counts[kind]] = i
        counts[kind] += np.uint64(1)
        if counts[kind] == _LANES:
            _hash_group(data, begins, ends, members[kind], _LANES, arrays, out)
            counts[kind] = np.uint64(0)
    for kind in range(_KINDS):
        _hash_group(data, begins, ends, members[kind], counts[kind], arrays, out)
