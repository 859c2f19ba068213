"""The loops behind `minhash.py`, compiled by numba: UTF-8 bytes and offsets in, hashes and signatures out.

No Python object per document or word, and no lock of the interpreter while they run. What they compute is written at
the top of `minhash.py`; `tests/pipeline/numpy_minhash.py` does the same slowly, with the same bits. All of them are in
this one file because numba looks only at a file's own age to tell whether what it keeps on disk is still right.

Integers are uint64 throughout: numba makes a float of a signed and an unsigned one, and adds a test for negative
indices to every access by a signed one.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import types

WORD, SPACE, UNSPACED = np.uint64(1), np.uint64(2), np.uint64(4)
"""Bits of a character's kind: part of a word, white space, part of a word of a script without spaces."""

_WORD_BASE = np.uint64(0x9E3779B97F4A7C15)  # P: odd, 2^64 / golden ratio
_SHINGLE_BASE = np.uint64(0xD6E8FEB86659FD93)  # Q: odd, Mix13-like; any odd constant would do
_CHARACTER_SALT = np.uint64(0xA0761D6478BD642F)  # keeps 24 characters from ever meeting 5 words
_CHARACTERS = np.uint64(24)  # as NeMo Curator; about five words of English
_PERMUTATIONS = np.uint64(128)

_ZERO, _ONE, _TWO, _THREE, _FOUR = (np.uint64(value) for value in range(5))
_ASCII = np.uint64(0x80)  # bytes from here on belong to a character of several bytes
_NUM_POWERS = np.uint64(256)  # longer words multiply on
_WINDOW_BLOCK = np.uint64(1024)  # 8 KiB of sums at a time: stay in L1
_SIGN_BLOCK = np.uint64(4096)  # 16 KiB of uint32: stay in L1
_FULL_BUCKET = np.uint64(32)  # chance gives 10 at most; a text made for it must not cost its square
_MIN_SLOTS = np.uint64(64)
_MAX_COUNT = np.uint64(1 << 17)  # hashes of the largest table, 4 MiB; sorting more takes no memory


def _bytes(dtype: types.Type) -> types.Array:
    return types.Array(dtype, 1, "C", readonly=True)


_TEXT = (_bytes(types.uint8), _bytes(types.int64))  # bytes, offsets
_MODES = _bytes(types.boolean)
_TABLES = types.Tuple((_bytes(types.uint16), _bytes(types.uint32)))
_PERMS = types.Tuple((_bytes(types.uint32), _bytes(types.uint32)))
_OUT64, _OUT32 = types.uint64[::1], types.uint32[:, ::1]


def compiled(*signature: types.Type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function for the one signature that it is called with, or load what an earlier process compiled."""

    def compile_function(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            dispatcher = numba.njit(nogil=True, cache=True)(function)
        except RuntimeError as error:
            if "cannot cache function" not in str(error):
                raise
            # Neither this folder nor the user's cache can be written: each process compiles, for some seconds.
            dispatcher = numba.njit(nogil=True)(function)
        with _one_at_a_time(dispatcher.stats.cache_path):
            dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher

    return compile_function


@contextmanager
def _one_at_a_time(folder: str | None) -> Iterator[None]:
    """Let one process compile into the folder and the others wait for it: they find what it made."""
    if folder is None:
        yield
        return
    # Opened for reading, so that several users may share a folder.
    lock = os.open(Path(folder) / "gristmill-kernels.lock", os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


inlined = numba.njit(nogil=True)


@inlined
def _mix64(value):
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))


@inlined
def _mix32(value):
    value = np.uint32(np.uint32(value ^ (value >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    value = np.uint32(np.uint32(value ^ (value >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.uint32(value ^ (value >> np.uint32(16)))


@inlined
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


@inlined
def _entry(tables, point):
    """What `minhash.py` knows of a code point: its folded form * 8 + its kind."""
    pages, entries = tables
    page = np.uint64(pages[point >> np.uint64(8)])
    return np.uint64(
        entries[page << np.uint64(8) | point & np.uint64(0xFF)] + (point << _THREE)
    ) & np.uint64(0xFFFFFFFF)


@inlined
def _is_by_character(text, begin, end, tables):
    """Whether most word characters belong to scripts without spaces."""
    num_word = num_unspaced = _ZERO
    at = begin
    while at < end:
        point = np.uint64(text[at])
        if point < _ASCII:
            at += _ONE
        else:
            point, at = _decode(text, at)
        entry = _entry(tables, point)
        num_word += entry & WORD
        num_unspaced += entry & UNSPACED
    return _TWO * (num_unspaced // UNSPACED) > num_word // WORD


@inlined
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


@inlined
def _read_characters(text, begin, end, tables, out):
    """Write the folded characters of a text that are no white space; give their number."""
    count = _ZERO
    at = begin
    while at < end:
        point = np.uint64(text[at])
        if point < _ASCII:
            at += _ONE
        else:
            point, at = _decode(text, at)
        entry = _entry(tables, point)
        out[count] = entry >> _THREE
        count += np.uint64((entry & SPACE) == _ZERO)
    return count


@inlined
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


@inlined
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
    size, shift = _MIN_SLOTS, np.uint64(58)
    while size < _FOUR * count:
        size <<= _ONE
        shift -= _ONE
    for i in range(size):
        slots[i] = _ZERO
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


@inlined
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


@inlined
def _word_powers():
    powers = np.empty(_NUM_POWERS, np.uint64)
    power = _ONE
    for i in range(_NUM_POWERS):
        powers[i] = power
        power *= _WORD_BASE
    return powers


@inlined
def _ascii_tables(tables):
    """Folded word characters below 0x80, zero for all others; and all ones for word characters, zero for others."""
    letters, masks = np.zeros(_ASCII, np.uint64), np.zeros(_ASCII, np.uint64)
    for point in range(_ASCII):
        entry = _entry(tables, point)
        if entry & WORD:
            letters[point], masks[point] = entry >> _THREE, ~_ZERO
    return letters, masks


@inlined
def _longest(offsets):
    longest = 0
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    return longest


@inlined
def _num_slots(count):
    size = _MIN_SLOTS
    while size < _FOUR * min(count, _MAX_COUNT):
        size <<= _ONE
    return size


@inlined
def _shingle(text, begin, end, is_code, ngram, tables, ascii_tables, powers, values, out):
    """Write the shingle hashes of one text in reading order, repeats and all; give their number."""
    if not is_code:
        count, has_unspaced = _read_words(text, begin, end, tables, ascii_tables, powers, values)
        if not has_unspaced or not _is_by_character(text, begin, end, tables):
            return _windows(values, count, ngram, _ZERO, out)
    count = _read_characters(text, begin, end, tables, values)
    return _windows(values, count, _CHARACTERS, _CHARACTER_SALT, out)


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
        count = _shingle(
            text, begin, end, is_code[row], ngram, tables, ascii_tables, powers, values, out
        )
        count = _drop_repeats(out, count, slots, multiplier)
        _sort(out, count, values, slots)
        counts[row] = count
        filled += count
    return filled


@compiled(
    *(*_TEXT, _MODES, types.uint64, types.uint64, _TABLES, types.uint64),
    *(_OUT64, types.int64[::1], _OUT64, types.int64[::1]),
)
def compare_texts(
    text, offsets, is_code, ngram, other_ngram, tables, multiplier, hashes, ends, grams, gram_ends
):
    """Write the distinct shingle hashes of each text for two lengths of a shingle, words being read once.

    In reading order; sets of more than 2^17 are sorted. Characters have one length: there both are the same.
    """
    longest = np.uint64(_longest(offsets))
    ascii_tables, powers = _ascii_tables(tables), _word_powers()
    values, slots = np.empty(longest + _ONE, np.uint64), np.empty(_num_slots(longest), np.uint64)
    filled = gram_filled = _ZERO
    ends[0] = gram_ends[0] = 0
    for row in range(len(is_code)):
        begin, end = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        out, gram_out = hashes[filled:], grams[gram_filled:]
        by_character, number = is_code[row], _ZERO
        if not by_character:
            number, has_unspaced = _read_words(
                text, begin, end, tables, ascii_tables, powers, values
            )
            by_character = has_unspaced and _is_by_character(text, begin, end, tables)
        if by_character:
            number = _read_characters(text, begin, end, tables, values)
            count = _windows(values, number, _CHARACTERS, _CHARACTER_SALT, out)
            count = _drop_repeats(out, count, slots, multiplier)
            gram_out[:count] = out[:count]
            gram_count = count
        else:
            count = _windows(values, number, ngram, _ZERO, out)
            count = _drop_repeats(out, count, slots, multiplier)
            gram_count = _windows(values, number, other_ngram, _ZERO, gram_out)
            gram_count = _drop_repeats(gram_out, gram_count, slots, multiplier)
        filled += count
        gram_filled += gram_count
        ends[row + 1] = filled
        gram_ends[row + 1] = gram_filled


@compiled(*_TEXT, _MODES, types.uint64, _TABLES, types.uint64, _PERMS, _OUT32, types.int64[::1])
def sign_texts(text, offsets, is_code, ngram, tables, multiplier, permutations, signatures, counts):
    """Write the signature of each text and how many distinct shingles it has."""
    longest = np.uint64(_longest(offsets))
    ascii_tables, powers = _ascii_tables(tables), _word_powers()
    values, slots = np.empty(longest + _ONE, np.uint64), np.empty(_num_slots(longest), np.uint64)
    hashes, mixed = np.empty(longest + _ONE, np.uint64), np.empty(_SIGN_BLOCK + _FOUR, np.uint32)
    for row in range(len(is_code)):
        begin, end = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        count = _shingle(
            text, begin, end, is_code[row], ngram, tables, ascii_tables, powers, values, hashes
        )
        count = _drop_repeats(hashes, count, slots, multiplier)
        counts[row] = count
        _sign(hashes, _ZERO, count, permutations, mixed, signatures[row])


@compiled(_bytes(types.uint64), _bytes(types.int64), _PERMS, _OUT32)
def sign(hashes, offsets, permutations, signatures):
    """Write the signature of each document's hashes."""
    mixed = np.empty(_SIGN_BLOCK + _FOUR, np.uint32)
    for row in range(len(offsets) - 1):
        begin, end = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        _sign(hashes, begin, end, permutations, mixed, signatures[row])


@compiled(types.Array(types.uint32, 2, "C", readonly=True), types.uint64, types.uint64[:, ::1])
def band_keys(signatures, rows, keys):
    """Write the key of each band of `rows` values."""
    for document in range(len(signatures)):
        for band in range(keys.shape[1]):
            key = _mix64(np.uint64(band + 1))
            first = np.uint64(band) * rows
            for row in range(first, first + rows):
                key = (key ^ np.uint64(signatures[document, row])) * _WORD_BASE
                key ^= key >> np.uint64(29)
            keys[document, band] = _mix64(key)
