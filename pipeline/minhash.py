"""From texts to what near-duplicates are found by: texts -> shingle hashes -> MinHash signatures -> band keys.

Two documents are near-duplicates when their sets of shingles overlap (Broder 1997). A shingle is a run of `ngram`
words, or of 24 characters where words do not tell: in code, and in scripts written without spaces. Signatures are
datasketch's (`affine32`, 128 permutations, seed 1) over the shingle hashes, bit for bit, so that its index, forest and
`LeanMinHash` work on stored rows. The work is done by the loops in `kernels.py`, on Arrow's own bytes.

The definition, on any string (`tests/pipeline/numpy_minhash.py` follows it in plain NumPy):
  fold(c)     casefold of the character if that is one character, else the first of its lower case
  word        longest run of characters that are alphanumeric, "_" or combining marks (`\\w` tears Devanagari apart)
  hash(word)  mix(sum of fold(c_i) * P^i), modulo 2^64
  shingle     mix(sum of v_j * Q^j) over `ngram` word hashes v_j, or over 24 folded characters that are no white space
  A text with fewer words (or characters) than that has one shingle of all of them; a text without any has none.
"""

import os
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from storage.errors import GristmillError
from storage.schema import SIGNATURES

if TYPE_CHECKING:  # dedup holds the config and calls these kernels; only the annotations look back
    from pipeline.dedup import DedupConfig

Hashes = NDArray[np.uint64]
Offsets = NDArray[np.int64]
Signatures = NDArray[np.uint32]

NUM_PERM = 128
"""Permutations of a signature. Never changes: in this scheme b_k depends on how many a_k are drawn before it."""
SEED = 1
"""Seed of the permutations, datasketch's default."""
EMPTY = np.uint32(0xFFFFFFFF)
"""Value of a signature's rows where the document has no shingle."""


def shingle(text: str, domain: str = "", *, ngram: int = 5) -> Hashes:
    """Give the distinct shingle hashes of one text, sorted."""
    return shingle_texts(pa.array([text]), pa.array([domain]), ngram=ngram)[0]


def shingle_texts(texts: pa.Array, domains: pa.Array, *, ngram: int = 5) -> tuple[Hashes, Offsets]:
    """Give the distinct shingle hashes of each text, sorted, in one flat array.

    Text i has `hashes[offsets[i] : offsets[i + 1]]`. In the domain "code", and where most word characters belong to a
    script without spaces, shingles are of 24 characters and `ngram` does not matter. One pass over the bytes; holds 8
    bytes a shingle, and 16 a byte of the longest text at most.
    """
    data, begins = utf8(texts)
    hashes = np.empty(begins[-1] - begins[0] + len(texts), np.uint64)  # touched as far as filled
    counts = np.empty(len(texts), np.int64)
    filled = kernels().shingle_texts(
        data, begins, is_code(domains), ngram, characters(), multiplier(), hashes, counts
    )
    return hashes[:filled].copy(), np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])


def sign(hashes: Hashes, offsets: Offsets) -> Signatures:
    """MinHash signatures of documents, shape (documents, 128), from the low 32 bits of their shingle hashes.

    Row i equals `datasketch.MinHash(128, seed=1, hashfunc=int).update_batch(hashes[offsets[i]:offsets[i+1]] & 0xFFFFFFFF)`;
    a document without shingles has all rows at 0xFFFFFFFF. Repeated hashes do no harm.
    """
    signatures = np.full((len(offsets) - 1, NUM_PERM), EMPTY, np.uint32)
    kernels().sign(hashes, offsets, _permutations(), signatures)
    return signatures


def sign_texts(
    texts: pa.Array, domains: pa.Array, *, ngram: int = 5
) -> tuple[Signatures, NDArray[np.int64]]:
    """Give the signature of each text and the number of its distinct shingles, without keeping the shingles."""
    data, begins = utf8(texts)
    signatures = np.full((len(texts), NUM_PERM), EMPTY, np.uint32)
    counts = np.empty(len(texts), np.int64)
    kernels().sign_texts(
        data,
        begins,
        is_code(domains),
        ngram,
        characters(),
        multiplier(),
        _permutations(),
        signatures,
        counts,
    )
    return signatures, counts


def band_keys(signatures: Signatures, *, bands: int, rows: int) -> Hashes:
    """Hash each band of `rows` consecutive values, shape (documents, bands); see `write_band_keys`."""
    keys = np.empty((bands, len(signatures)), np.uint64)
    write_band_keys(signatures, rows, np.arange(len(signatures)), keys)
    return keys.T


def write_band_keys(
    signatures: Signatures, rows: int, places: NDArray[np.int64], keys: Hashes
) -> None:
    """Hash each band of `rows` consecutive values of document i into keys[:, places[i]], unless that is negative.

    Equal keys mean equal bands, up to 64-bit collisions that verification sorts out. A multiply-mix of the values, never
    their sum: minima of long documents are small numbers, and sums of small numbers collide (LSHBloom's trap).
    """
    kernels().band_keys(np.ascontiguousarray(signatures), rows, places, keys)


def sign_documents(documents: pa.Table, config: "DedupConfig") -> pa.Table:
    """Give the SIGNATURES table of a DOCUMENTS table, row for row."""
    signatures, counts = [], []
    for batch in documents.select(["text", "domain"]).to_batches():
        values, sizes = sign_texts(batch["text"], batch["domain"], ngram=config.ngram)
        signatures.append(values)
        counts.append(sizes)
    flat = np.concatenate([np.empty(0, np.uint32), *(part.ravel() for part in signatures)])
    num_shingles = np.concatenate([np.empty(0, np.int64), *counts])
    item = SIGNATURES.field("signature").type
    columns = [
        documents["id"],
        pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.uint32()), type=item),
        pa.array(num_shingles, pa.int64()),
    ]
    return pa.Table.from_arrays(columns, schema=SIGNATURES)


def read_signatures(table: pa.Table) -> Signatures:
    """View the signatures of a SIGNATURES table as an array (rows, 128); copies only if the table has several chunks."""
    column = table["signature"].combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # a table without rows has no chunk to combine
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if column.type.list_size != NUM_PERM:
        raise GristmillError(
            f"signatures: expected {NUM_PERM} values a document, got {column.type.list_size}; "
            "they were made with another scheme: build the corpus anew"
        )
    return column.flatten().to_numpy().reshape(-1, NUM_PERM)


def utf8(texts: pa.Array) -> tuple[NDArray[np.uint8], Offsets]:
    """View the bytes of an Arrow array of texts, and where each begins; a null is empty."""
    if not pa.types.is_string(texts.type) and not pa.types.is_large_string(texts.type):
        texts = texts.cast(pa.large_string())
    if texts.null_count:
        texts = pc.fill_null(texts, "")
    try:
        texts.validate(full=True)  # the kernels trust offsets and continuation bytes
    except pa.ArrowInvalid as error:
        raise GristmillError(
            f"shingles: expected texts in UTF-8, got an array that is none ({error}); "
            "read the source again, its broken records are then quarantined"
        ) from error
    _, offsets, data = texts.buffers()
    width = np.int32 if pa.types.is_string(texts.type) else np.int64
    begins = np.zeros(1, np.int64)
    if len(texts):  # an array without rows need not have offsets
        window = slice(texts.offset, texts.offset + len(texts) + 1)
        begins = np.frombuffer(offsets, width)[window].astype(np.int64)
    return np.frombuffer(data or b"", np.uint8), begins


def is_code(domains: pa.Array) -> NDArray[np.bool_]:
    """Whether each document's domain is "code"."""
    found = pc.fill_null(pc.equal(domains, "code"), False)
    return found.to_numpy(zero_copy_only=False)


@cache
def kernels() -> Any:
    """The compiled loops. Imported late: numba takes a third of a second, and most commands do not need it."""
    from pipeline import kernels

    return kernels


@cache
def characters() -> tuple[NDArray[np.uint16], NDArray[np.uint32]]:
    """The tables of all characters; late for the same reason."""
    from pipeline.characters import character_tables

    return character_tables()


@cache
def multiplier() -> int:
    """An odd number by which the kernels spread hashes over a table. No result depends on it."""
    return int.from_bytes(os.urandom(8)) | 1


@cache
def _permutations() -> tuple[Signatures, Signatures]:
    """Give (a, b) of h -> a h + b modulo 2^32, drawn in datasketch's order."""
    generator = np.random.RandomState(SEED)
    multipliers = generator.randint(0, 1 << 31, NUM_PERM, dtype=np.uint32) * np.uint32(2)
    return multipliers + np.uint32(1), generator.randint(0, 1 << 32, NUM_PERM, dtype=np.uint32)
