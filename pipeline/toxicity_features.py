"""Hashed word and character n-grams of whole batches of text, on UTF-8 bytes, without a Python object per n-gram.

Texts are cleaned (case, punctuation, runs), cut into windows of about `WINDOW_BYTES` at line or word ends, and each
window's n-grams become rows of a table of weights. Used by `pipeline.toxicity` to score and by its trainer to learn.

The hash of bytes [a, b) is (P[b] - P[a]) * BASE**-a mod 2**64, where P is the running sum of byte * BASE**i: one pass
gives every substring's hash, whatever its length (Karp and Rabin 1987, with the base inverted instead of rolled).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

WINDOW_BYTES = 240
"""Bytes of cleaned text from which a window ends at the next line end; comments of the training sets have 80-240."""

BLOCK_BYTES = 1 << 17
"""Bytes hashed at once: a block's arrays of 64-bit numbers stay in the processor's second-level cache."""

CHAR_NGRAMS = (4, 5)
"""Lengths of character n-grams in bytes, the blanks at both ends of a word included; they never cross a word end.
On held-out comments (2, 3, 4) is worse, (3, 4, 5) and (3, 4, 5, 6) are the same."""

_SPACE, _NEWLINE = 32, 10
_DROPPED = 0
"""Byte that the cleaning table gives to what disappears (apostrophes)."""

_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xD6E8FEB86659FD93)
_BIGRAM = np.uint64(0xA24BAED4963EE407)


@dataclass(frozen=True)
class Windows:
    """Cleaned texts, cut: `data` holds all of them, each window ending in a blank."""

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    """First byte of each window, and the number of bytes at the end."""
    document: NDArray[np.int64]
    """Row of the text that each window is from."""


@dataclass(frozen=True)
class Grams:
    """N-grams of a block of windows."""

    windows: slice
    """Which windows the block holds."""
    rows: NDArray[np.uint32]
    """Hash of each n-gram, 32 bits; words, pairs of words and character n-grams follow each other by window."""
    window: NDArray[np.int64]
    """Window of each n-gram, counted from the block's first."""
    words: NDArray[np.uint64]
    """Hash of each word, 64 bits."""
    word_window: NDArray[np.int64]
    """Window of each word, counted from the block's first."""


def cut_windows(texts: pa.Array, size: int | None = None) -> Windows:
    """Clean the texts and cut them into windows of `size` bytes (WINDOW_BYTES); an empty text has one empty window."""
    size = WINDOW_BYTES if size is None else size
    data, offsets = _clean(texts)
    lengths = np.diff(offsets)
    # A window may begin at each multiple of `size` in its text, moved on to the next line end, or, if that is
    # more than a window away, to the next blank.
    counts = np.maximum(1, -(-lengths // size))
    document = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    ideal = offsets[:-1][document] + number * size
    starts = ideal.copy()
    moved = number > 0
    ends = offsets[1:][document[moved]]
    line = _next(np.flatnonzero(data == _NEWLINE), ideal[moved] - 1, ends)
    blank = _next(np.flatnonzero(data <= _SPACE), ideal[moved] - 1, ends)
    starts[moved] = np.where(line - ideal[moved] > size, blank, line)
    # Two windows that moved to one place are one window, and none begins at its text's end.
    keep = np.ones(len(starts), bool)
    keep[1:] = starts[1:] > starts[:-1]
    keep &= ~moved | (starts < offsets[1:][document])
    keep[number == 0] = True
    return Windows(
        data=np.where(data == _NEWLINE, np.uint8(_SPACE), data),
        starts=np.append(starts[keep], len(data)),
        document=document[keep],
    )


def _next(
    places: NDArray[np.int64], after: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For each `after` the byte behind the first place at or after it, but not beyond `ends`."""
    found = np.searchsorted(places, after)
    known = np.append(places, np.iinfo(np.int64).max - 1)[found] + 1
    return np.minimum(known, ends)


def _clean(texts: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Lower-case words with one blank or line feed between them and at each text's end; offsets of the texts."""
    texts = texts.cast(pa.large_string())
    offsets = np.frombuffer(texts.buffers()[1], np.int64)[
        texts.offset : texts.offset + len(texts) + 1
    ]
    begin, end = (int(offsets[0]), int(offsets[-1])) if len(offsets) else (0, 0)
    source = texts.buffers()[2]
    raw = (
        np.frombuffer(source, np.uint8)[begin:end]
        if source is not None and end > begin
        else np.empty(0, np.uint8)
    )
    # A line feed behind each text keeps words of two texts apart.
    data = np.insert(_TABLE[raw], offsets[1:] - begin, np.uint8(_NEWLINE))
    offsets = offsets - begin + np.arange(len(offsets))
    _drop_symbols(data)
    data, offsets = _keep(data, offsets, data != _DROPPED)
    # Of a run of blanks the last is kept, or better the line end among them: comments are told apart by lines.
    blank = data <= _SPACE
    begins_text = np.zeros(len(data), bool)
    begins_text[offsets[:-1]] = True
    joined = np.zeros(len(data), bool)
    joined[1:] = blank[1:] & blank[:-1] & ~begins_text[1:]
    keep = np.ones(len(data), bool)
    keep[:-1] = ~joined[1:]
    runs = np.flatnonzero(blank & ~joined)
    if len(runs):
        line = np.minimum.reduceat(np.where(blank, data, np.uint8(255)), runs) == _NEWLINE
        data[np.flatnonzero(blank & keep)[line]] = _NEWLINE
    # Letters are repeated twice at most: "noooo" and "nooo" are one word.
    keep[2:] &= ~(
        (data[2:] == data[1:-1]) & (data[2:] == data[:-2]) & (data[2:] >= 97) & (data[2:] <= 122)
    )
    return _keep(data, offsets, keep)


def _keep(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], keep: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The bytes to keep and where each text now begins."""
    return data[keep], offsets - np.searchsorted(np.flatnonzero(~keep), offsets)


def _cleaning_table() -> NDArray[np.uint8]:
    """Byte -> letter in lower case, 0 for digits, itself above ASCII and for '*', a blank for all else."""
    table = np.full(256, _SPACE, np.uint8)
    letters = np.arange(97, 123, dtype=np.uint8)
    table[97:123] = table[65:91] = letters
    table[48:58] = ord("0")
    table[128:] = np.arange(128, 256)
    table[ord("*")] = ord("*")
    table[ord("'")] = table[ord("`")] = _DROPPED
    table[_NEWLINE] = _NEWLINE
    return table


_TABLE = _cleaning_table()


def _drop_symbols(data: NDArray[np.uint8]) -> None:
    """Blank out emoji (4-byte characters) and general punctuation (U+2000-207F); an apostrophe disappears."""
    for place in np.flatnonzero(data >= 0xF0)[:, None] + np.arange(4):
        data[place[place < len(data)]] = _SPACE
    three = np.flatnonzero(data[:-2] == 0xE2) if len(data) > 2 else np.empty(0, np.int64)
    three = three[(data[three + 1] == 0x80) | (data[three + 1] == 0x81)]
    apostrophe = (data[three + 1] == 0x80) & (data[three + 2] == 0x99)
    for step in range(3):
        data[three + step] = np.where(apostrophe, np.uint8(_DROPPED), np.uint8(_SPACE))


def grams(windows: Windows, *, words_only: bool = False) -> Iterator[Grams]:
    """The n-grams of all windows, block by block; with `words_only` single words and nothing else."""
    first = 0
    while first < len(windows.document):
        begin = windows.starts[first]
        last = int(np.searchsorted(windows.starts, begin + BLOCK_BYTES, side="right")) - 1
        last = min(max(last, first + 1), len(windows.document))
        yield _block(windows, slice(first, last), words_only)
        first = last


def _block(windows: Windows, chosen: slice, words_only: bool) -> Grams:
    starts = windows.starts[chosen.start : chosen.stop + 1]
    # A blank in front, so that the first word has one on both sides like all others.
    data = np.empty(int(starts[-1] - starts[0]) + 1, np.uint8)
    data[0] = _SPACE
    data[1:] = windows.data[starts[0] : starts[-1]]
    powers, inverse = _powers(1 << len(data).bit_length())
    sums = np.zeros(len(data) + 1, np.uint64)
    np.cumsum(data * powers[: len(data)], out=sums[1:])
    is_space = data == _SPACE
    owner = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    # Words: from behind a blank to the next one.
    edges = np.flatnonzero(is_space[1:] != is_space[:-1]) + 1
    begins, ends = edges[0::2], edges[1::2]
    words = _mixed((sums[ends] - sums[begins[: len(ends)]]) * inverse[begins[: len(ends)]])
    word_window = owner[begins[: len(ends)] - 1]
    rows, window = [words], [word_window]
    if not words_only:
        same = word_window[1:] == word_window[:-1]
        rows.append(_mixed(words[:-1] * _BIGRAM + words[1:])[same])
        window.append(word_window[1:][same])
        # Characters: a blank may stand at either end of an n-gram, nowhere inside. The second byte tells the window.
        blanks = np.concatenate(([0], np.cumsum(is_space)))
        for size in CHAR_NGRAMS:
            count = max(0, len(data) - size + 1)
            at = np.flatnonzero(blanks[size - 1 : size - 1 + count] == blanks[1 : 1 + count])
            rows.append(_mixed((sums[at + size] - sums[at]) * inverse[at] + np.uint64(size)))
            window.append(owner[at])
    return Grams(
        windows=chosen,
        rows=(np.concatenate(rows) >> np.uint64(32)).astype(np.uint32),
        window=np.concatenate(window),
        words=words,
        word_window=word_window,
    )


def _mixed(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread every bit over the upper half: the low bits of a sum mod 2**64 depend on low bits alone."""
    hashes = (hashes ^ (hashes >> np.uint64(32))) * _MIX
    return (hashes ^ (hashes >> np.uint64(29))) * _MIX


@cache
def _powers(count: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """BASE**i and BASE**-i mod 2**64 for i below `count`."""
    powers = np.full(count, _BASE)
    powers[0] = 1
    inverse = np.full(count, np.uint64(pow(int(_BASE), -1, 1 << 64)))
    inverse[0] = 1
    return np.multiply.accumulate(powers), np.multiply.accumulate(inverse)


def hash_words(words: list[str]) -> NDArray[np.uint64]:
    """The hashes that `Grams.words` has for these words, in order; cleaned as texts are, a phrase gives several."""
    windows = cut_windows(pa.array(words, pa.string()))
    return np.concatenate([block.words for block in grams(windows, words_only=True)])
