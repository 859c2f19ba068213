"""What the kernels of `pipeline/minhash.py` compute, in plain NumPy over blocks of Python strings: slower, same bits."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import sha1

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Offsets = NDArray[np.int64]
Signatures = NDArray[np.uint32]

NUM_PERM = 128
"""Permutations of a signature. Never changes: in this scheme b_k depends on how many a_k are drawn before it."""
SEED = 1
"""Seed of the permutations, datasketch's default."""
EMPTY = np.uint32(0xFFFFFFFF)
"""Value of a signature's rows where the document has no shingle."""
NUM_CHARACTERS = 24
"""Characters of a shingle in code and in scripts without spaces (as NeMo Curator; about five words of English)."""

_WORD_BASE = np.uint64(0x9E3779B97F4A7C15)  # P: odd, 2^64 / golden ratio
_SHINGLE_BASE = np.uint64(
    0xD6E8FEB86659FD93
)  # Q: odd, from Mix13-like multipliers; any odd constant would do
_CHARACTER_SALT = np.uint64(0xA0761D6478BD642F)  # keeps 24 characters from ever meeting 5 words
_BLOCK_CHARACTERS = (
    1 << 16
)  # 8 bytes each in a handful of arrays: fits L2; 2^15 to 2^17 measured equal
_BLOCK_HASHES = 1 << 14  # 64 KiB of uint32 and as much scratch; 2^13 to 2^15 measured equal

_WORD, _SPACE, _UNSPACED = 1, 2, 4
_UNSPACED_SCRIPTS = (
    (0x0E00, 0x0FFF),  # Thai, Lao, Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),  # Katakana extensions
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # half-width Katakana
    (0x20000, 0x3FFFF),  # Han, further planes
)


def shown(text: str) -> str:
    """The text without characters that show nothing."""
    return re.sub(
        "[\xad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]",
        "",
        text,
    )


def shingle(text: str, domain: str = "", *, ngram: int = 5) -> Hashes:
    """Give the distinct shingle hashes of one text, sorted."""
    return shingle_texts([text], [domain], ngram=ngram)[0]


def shingle_texts(
    texts: Sequence[str], domains: Sequence[str], *, ngram: int = 5
) -> tuple[Hashes, Offsets]:
    """Give the distinct shingle hashes of each text, sorted, in one flat array.

    Text i has `hashes[offsets[i] : offsets[i + 1]]`. In the domain "code", and where most word characters belong to a
    script without spaces, shingles are of 24 characters and `ngram` does not matter. One pass over the characters;
    holds 8 bytes a shingle, and a block's scratch.
    """
    texts = list(map(shown, texts))
    parts: list[Hashes] = [np.empty(0, np.uint64)] * len(texts)
    modes = np.fromiter(map(_is_by_character, texts, domains), np.bool_, len(texts))
    for by_character in (False, True):
        for rows in _blocks(np.flatnonzero(modes == by_character).tolist(), texts):
            hashes, counts = _shingle_block([texts[row] for row in rows], by_character, ngram)
            begin = 0
            for row, end in zip(rows, np.cumsum(counts).tolist(), strict=True):
                parts[row] = _distinct(hashes[begin:end])
                begin = end
    offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    return np.concatenate([np.empty(0, np.uint64), *parts]), offsets


def shingle_bytes(text: str, domain: str = "", *, ngram: int = 5) -> list[bytes]:
    """Give the bytes of each distinct shingle, sorted."""
    text = shown(text)
    kinds = [_kinds()[ord(character)] for character in text]
    letters = [chr(_folds()[ord(character)]) for character in text]
    if _is_by_character(text, domain):
        units = [letter for letter, kind in zip(letters, kinds, strict=True) if not kind & _SPACE]
        width, gap = NUM_CHARACTERS, ""
    else:
        parts = (
            letter if kind & _WORD else " " for letter, kind in zip(letters, kinds, strict=True)
        )
        units = [word for word in "".join(parts).split(" ") if word]
        width, gap = ngram, " "
    width = min(width, len(units))
    runs = {gap.join(units[i : i + width]) for i in range(len(units) - width + 1)} if units else ()
    return sorted(run.encode() for run in runs)


def sign_sha1(texts: Sequence[str], domains: Sequence[str], *, ngram: int = 5) -> Signatures:
    """Signatures of texts over the first four bytes of the SHA-1 of each shingle."""
    shingles = [
        shingle_bytes(text, domain, ngram=ngram)
        for text, domain in zip(texts, domains, strict=True)
    ]
    starts = b"".join(sha1(data).digest()[:4] for part in shingles for data in part)
    offsets = np.cumsum([0, *map(len, shingles)], dtype=np.int64)
    return sign(np.frombuffer(starts, "<u4").astype(np.uint64), offsets)


def sign(hashes: Hashes, offsets: Offsets) -> Signatures:
    """MinHash signatures of documents, shape (documents, 128), from the low 32 bits of their shingle hashes.

    Row i equals `datasketch.MinHash(128, seed=1, hashfunc=int).update_batch(hashes[offsets[i]:offsets[i+1]] & 0xFFFFFFFF)`;
    a document without shingles has all rows at 0xFFFFFFFF. Repeated hashes do no harm.
    """
    multipliers, addends = _permutations()
    signatures = np.full((len(offsets) - 1, NUM_PERM), EMPTY, np.uint32)
    mixed = _mix32(hashes.astype(np.uint32))
    # A segment is the part of a document that lies in one block. Documents without shingles have no segment:
    # reduceat gives the next element, not the identity, for an empty one.
    documents = np.flatnonzero(np.diff(offsets))
    starts = np.unique(
        np.concatenate([offsets[documents], np.arange(0, len(hashes), _BLOCK_HASHES)])
    )
    owners = documents[np.searchsorted(offsets[documents], starts, side="right") - 1]
    product = np.empty(_BLOCK_HASHES, np.uint32)
    for begin in range(0, len(hashes), _BLOCK_HASHES):
        block = mixed[begin : begin + _BLOCK_HASHES]
        scratch = product[: len(block)]
        low, high = np.searchsorted(starts, [begin, begin + _BLOCK_HASHES])
        segments = starts[low:high] - begin
        minima = np.empty((NUM_PERM, len(segments)), np.uint32)
        for k in range(NUM_PERM):
            np.multiply(block, multipliers[k], out=scratch)
            np.add(scratch, addends[k], out=scratch)
            np.minimum.reduceat(scratch, segments, out=minima[k])
        rows = owners[low:high]  # each document once: the assignment below loses nothing
        signatures[rows] = np.minimum(signatures[rows], minima.T)
    return signatures


def band_keys(signatures: Signatures, *, bands: int, rows: int) -> Hashes:
    """Hash each band of `rows` consecutive values, shape (documents, bands).

    Equal keys mean equal bands, up to 64-bit collisions that verification sorts out. A multiply-mix of the values, never
    their sum: minima of long documents are small numbers, and sums of small numbers collide (LSHBloom's trap).
    """
    keys = np.empty((len(signatures), bands), np.uint64)
    for band in range(bands):
        # The salt is mixed: xor of small band numbers with small minima would make bands collide.
        key = _mix64(np.full(len(signatures), band + 1, np.uint64))
        for row in range(band * rows, (band + 1) * rows):
            key = (key ^ signatures[:, row]) * _WORD_BASE
            key ^= key >> np.uint64(29)
        keys[:, band] = _mix64(key)
    return keys


def _is_by_character(text: str, domain: str) -> bool:
    """Whether words do not tell: code, or mostly a script without spaces."""
    if domain == "code":
        return True
    if text.isascii():
        return False
    num_word = num_unspaced = 0
    for begin in range(0, len(text), _BLOCK_CHARACTERS):
        points, _ = _code_points([text[begin : begin + _BLOCK_CHARACTERS]])
        kinds = _kinds()[points]
        num_word += np.count_nonzero(kinds & _WORD)
        num_unspaced += np.count_nonzero(kinds & _UNSPACED)
    return bool(2 * num_unspaced > num_word)


def _blocks(rows: Sequence[int], texts: Sequence[str]) -> Iterator[list[int]]:
    """Group rows into runs of about a block of characters; a longer text is a run of its own."""
    block: list[int] = []
    size = 0
    for row in rows:
        if block and size + len(texts[row]) > _BLOCK_CHARACTERS:
            yield block
            block, size = [], 0
        block.append(row)
        size += len(texts[row]) + 1
    if block:
        yield block


def _shingle_block(
    texts: Sequence[str], by_character: bool, ngram: int
) -> tuple[Hashes, NDArray[np.int64]]:
    """Give the shingle hashes of texts in reading order, repeats and all, and how many each text has."""
    read = _read_characters if by_character else _read_words
    if len(texts) == 1 and len(texts[0]) > _BLOCK_CHARACTERS:
        parts = [read([piece]) for piece in _pieces(texts[0])]
        values = np.concatenate([values for values, _ in parts])
        counts = np.array([len(values)], np.int64)
    else:
        values, counts = read(texts)
    if by_character:
        return _windows(values, counts, NUM_CHARACTERS, _CHARACTER_SALT)
    return _windows(values, counts, ngram, np.uint64(0))


def _pieces(text: str) -> Iterator[str]:
    """Cut a long text behind white space, where no word crosses, into pieces of a block or as little more as can be."""
    begin = 0
    while begin < len(text):
        end = begin + _BLOCK_CHARACTERS
        if end < len(text):
            cut = max(text.rfind(" ", begin, end), text.rfind("\n", begin, end))
            if cut < 0:
                cuts = [cut for cut in (text.find(" ", end), text.find("\n", end)) if cut >= 0]
                cut = min(cuts, default=len(text))
            end = cut + 1
        yield text[begin:end]
        begin = end


def _code_points(texts: Sequence[str]) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """Give the code points of all texts, a newline after each, and the index behind each text."""
    joined = "\n".join([*texts, ""])
    ends = np.cumsum([len(text) + 1 for text in texts], dtype=np.int64)
    if joined.isascii():
        return np.frombuffer(joined.encode("ascii"), np.uint8), ends
    return np.frombuffer(joined.encode("utf-32-le"), np.dtype("<u4")), ends


def _read_words(texts: Sequence[str]) -> tuple[Hashes, NDArray[np.int64]]:
    """Give the hash of each word of the texts, and how many words each text has."""
    points, ends = _code_points(texts)
    is_word = (_kinds()[points] & _WORD).astype(np.bool_)
    edges = np.flatnonzero(
        np.diff(is_word, prepend=False)
    )  # the last character is a newline: edges come in pairs
    starts, lengths = edges[0::2], edges[1::2] - edges[0::2]
    letters = _folds()[points[is_word]]
    firsts = np.cumsum(lengths) - lengths
    positions = np.arange(len(letters)) - np.repeat(firsts, lengths)
    powers = _powers(_WORD_BASE, int(lengths.max(initial=0)))
    counts = np.diff(np.searchsorted(starts, ends), prepend=0)
    if not len(firsts):
        return np.empty(0, np.uint64), counts
    return _mix64(np.add.reduceat(letters * powers[positions], firsts)), counts


def _read_characters(texts: Sequence[str]) -> tuple[Hashes, NDArray[np.int64]]:
    """Give the folded characters of the texts without white space, and how many each text has."""
    points, ends = _code_points(texts)
    kept = np.flatnonzero((_kinds()[points] & _SPACE) == 0)
    counts = np.diff(np.searchsorted(kept, ends), prepend=0)
    return _folds()[points[kept]].astype(np.uint64), counts


def _windows(
    values: Hashes, counts: NDArray[np.int64], width: int, salt: np.uint64
) -> tuple[Hashes, NDArray[np.int64]]:
    """Hash every run of `width` values inside each text, or all values where a text has fewer."""
    pad = width - 1
    # Zeros behind each text keep windows apart and make the one window of a short text come out right.
    padded = np.zeros(len(values) + pad * len(counts), np.uint64)
    padded[np.arange(len(values)) + np.repeat(np.arange(len(counts)) * pad, counts)] = values
    rolled = padded[: len(padded) - pad].copy()
    scratch = np.empty_like(rolled)
    for j, power in enumerate(_powers(_SHINGLE_BASE, width)[1:], 1):
        np.multiply(padded[j : j + len(rolled)], power, out=scratch)
        rolled += scratch
    num_windows = np.maximum(counts - pad, np.minimum(counts, 1))
    firsts = np.cumsum(counts + pad) - (counts + pad) - (np.cumsum(num_windows) - num_windows)
    rolled = rolled[np.arange(num_windows.sum()) + np.repeat(firsts, num_windows)]
    return _mix64(rolled + salt), num_windows


def _distinct(hashes: Hashes) -> Hashes:
    """Sort and drop repeats; `np.unique` does the same at thrice the cost for short arrays."""
    ordered = np.sort(hashes)
    return (
        ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered
    )


def _powers(base: np.uint64, count: int) -> Hashes:
    """Give base^0 ... base^(count - 1) modulo 2^64."""
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.multiply.accumulate(factors)


def _mix64(values: Hashes) -> Hashes:
    """Spread every bit over the word (MurmurHash3's finalizer, Appleby 2008; public domain)."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))


def _mix32(values: Signatures) -> Signatures:
    """Do the same for 32 bits, as datasketch's affine32 does before its permutations."""
    values = (values ^ (values >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    values = (values ^ (values >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))


@cache
def _permutations() -> tuple[Signatures, Signatures]:
    """Give (a, b) of h -> a h + b modulo 2^32, drawn in datasketch's order."""
    generator = np.random.RandomState(SEED)
    multipliers = generator.randint(0, 1 << 31, NUM_PERM, dtype=np.uint32) * np.uint32(2)
    return multipliers + np.uint32(1), generator.randint(0, 1 << 32, NUM_PERM, dtype=np.uint32)


@cache
def _kinds() -> NDArray[np.uint8]:
    """Table of what each code point is: bits _WORD, _SPACE, _UNSPACED."""
    kinds = np.zeros(0x110000, np.uint8)
    for point in _assigned():
        character = chr(point)
        if character == "_" or character.isalnum() or unicodedata.category(character)[0] == "M":
            kinds[point] |= _WORD
        elif character.isspace():
            kinds[point] |= _SPACE
    for first, last in _UNSPACED_SCRIPTS:
        kinds[first : last + 1] |= _UNSPACED * (kinds[first : last + 1] & _WORD)
    return kinds


@cache
def _folds() -> NDArray[np.uint32]:
    """Table of fold(c) by code point."""
    folds = np.arange(0x110000, dtype=np.uint32)
    for point in range(0x20000):  # no case beyond the second plane
        character = chr(point)
        folded = character.casefold()
        folds[point] = ord(folded if len(folded) == 1 else character.lower()[0])
    return folds


def _assigned() -> Iterator[int]:
    """Code points of the planes in use: 4 to 13 are unassigned, 15 and 16 are private."""
    yield from range(0x40000)
    yield from range(0xE0000, 0xE0200)
