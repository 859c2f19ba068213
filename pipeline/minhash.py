"""From texts to what near-duplicates are found by: texts -> shingle hashes -> MinHash signatures -> band keys.

Two documents are near-duplicates when their sets of shingles overlap (Broder 1997). A shingle is a run of `ngram`
words, or of 24 characters where words do not tell: in code, and in scripts written without spaces. Signatures are
datasketch's (`affine32`, 128 permutations, seed 1) over the shingle hashes, bit for bit, so that its index, forest and
`LeanMinHash` work on stored rows. With the hash "sha1" they are those of datasketch's defaults over the shingles' bytes,
for whoever holds such signatures already. The work is done by the loops in `kernels/`, on Arrow's own bytes.

The definition, on any string without the characters of `characters.IGNORED_RANGES`, which are left out first
(`tests/pipeline/numpy_minhash.py` follows it in plain NumPy):
  fold(c)     casefold of the character if that is one character, else the first of its lower case
  word        longest run of characters that are alphanumeric, "_" or combining marks (`\\w` tears Devanagari apart)
  hash(word)  mix(sum of fold(c_i) * P^i), modulo 2^64
  shingle     mix(sum of v_j * Q^j) over `ngram` word hashes v_j, or over 24 folded characters that are no white space
  bytes       of a shingle: its folded words with one space between them, or its 24 folded characters, in UTF-8
  sha1        first four bytes of the SHA-1 of a shingle's bytes, as a little-endian number
  A text with fewer words (or characters) than that has one shingle of all of them; a text without any has none.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import kernels
from pipeline.characters import character_tables
from storage.errors import ConfigError, GristmillError
from storage.schema import SIGNATURE_KEY, SIGNATURES
from storage.shard import read_schema, verified_file
from storage.snapshot import Snapshot

if TYPE_CHECKING:  # dedup holds the config and calls these kernels; only the annotations look back
    from pipeline.dedup import DedupConfig

Hashes = NDArray[np.uint64]
Offsets = NDArray[np.int64]
Signatures = NDArray[np.uint32]
Hash = Literal["mix", "sha1"]

NUM_PERM = 128
"""Permutations of a signature. Never changes: in this scheme b_k depends on how many a_k are drawn before it."""
SEED = 1
"""Seed of the permutations, datasketch's default."""
BLOCK_BYTES = 1 << 18
"""Bytes of text that SHA-1 takes at a time."""
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
    filled = kernels.shingle_texts(
        data, begins, is_code(domains), ngram, character_tables(), multiplier(), hashes, counts
    )
    return hashes[:filled].copy(), np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])


def sign(hashes: Hashes, offsets: Offsets) -> Signatures:
    """MinHash signatures of documents, shape (documents, 128), from the low 32 bits of their shingle hashes.

    Row i equals `datasketch.MinHash(128, seed=1, hashfunc=int).update_batch(hashes[offsets[i]:offsets[i+1]] & 0xFFFFFFFF)`;
    a document without shingles has all rows at 0xFFFFFFFF. Repeated hashes do no harm.
    """
    signatures = np.full((len(offsets) - 1, NUM_PERM), EMPTY, np.uint32)
    kernels.sign(hashes, offsets, _permutations(), signatures)
    return signatures


def sign_texts(
    texts: pa.Array, domains: pa.Array, *, ngram: int = 5, hash: Hash = "mix"
) -> tuple[Signatures, NDArray[np.int64]]:
    """Give the signature of each text and the number of its distinct shingles, without keeping the shingles.

    With `hash="sha1"` row i equals `datasketch.MinHash(128, seed=1)` after `update` with the bytes of each shingle, at
    about a fifth of the speed.
    """
    data, begins = utf8(texts)
    codes = is_code(domains)
    signatures = np.full((len(texts), NUM_PERM), EMPTY, np.uint32)
    counts = np.empty(len(texts), np.int64)
    if hash == "mix":
        arguments = (ngram, character_tables(), multiplier(), _permutations(), signatures, counts)
        kernels.sign_texts(data, begins, codes, *arguments)
        return signatures, counts
    for rows in _blocks(begins):
        offsets = begins[rows.start : rows.stop + 1]
        _sign_sha1(data, offsets, codes[rows], ngram, signatures[rows], counts[rows])
    return signatures, counts


def _sign_sha1(
    data: NDArray[np.uint8],
    offsets: Offsets,
    is_code: NDArray[np.bool_],
    ngram: int,
    signatures: Signatures,
    counts: NDArray[np.int64],
) -> None:
    """Write signatures and numbers of distinct shingles; holds 24 bytes a shingle, and one or two a byte."""
    num_bytes = int(offsets[-1] - offsets[0])
    hashes, starts, ends = (np.empty(num_bytes + len(is_code), np.uint64) for _ in range(3))
    # Folding makes three bytes of two at most (U+023A), and hashing reads one block beyond.
    folded = np.empty(2 * num_bytes + 128, np.uint8)
    arguments = data, offsets, is_code, ngram, character_tables()
    kernels.shingle_texts(*arguments, multiplier(), hashes, counts)
    with_repeats = np.empty_like(counts)
    filled = kernels.fold_texts(*arguments, folded, starts, ends, with_repeats)
    kernels.sha1_starts(folded, starts[:filled], ends[:filled], hashes)
    bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(with_repeats)])
    kernels.sign(hashes, bounds, _permutations(), signatures)


def _blocks(offsets: Offsets) -> Iterator[slice]:
    """Rows of about BLOCK_BYTES of text together, so that what is made of them stays in the cache."""
    first = 0
    while first < len(offsets) - 1:
        behind = int(np.searchsorted(offsets, offsets[first] + BLOCK_BYTES, side="right")) - 1
        behind = max(behind, first + 1)
        yield slice(first, behind)
        first = behind


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
    kernels.band_keys(np.ascontiguousarray(signatures), rows, places, keys)


def sign_documents(documents: pa.Table, config: "DedupConfig") -> pa.Table:
    """Give the SIGNATURES table of a DOCUMENTS table, row for row; its metadata says how it was made."""
    signatures, counts = [], []
    for batch in documents.select(["text", "domain"]).to_batches():
        values, sizes = sign_texts(
            batch["text"], batch["domain"], ngram=config.ngram, hash=config.hash
        )
        signatures.append(values)
        counts.append(sizes)
    item = SIGNATURES.field("signature").type
    lists = [
        pa.FixedSizeListArray.from_arrays(pa.array(part.ravel(), pa.uint32()), type=item)
        for part in signatures
    ]
    columns = [
        documents["id"],
        _joined(lists, item),
        _joined([pa.array(part, pa.int64()) for part in counts], pa.int64()),
    ]
    made = {SIGNATURE_KEY: json.dumps(_made(config), sort_keys=True)}
    schema = SIGNATURES.with_metadata((SIGNATURES.metadata or {}) | made)
    return pa.Table.from_arrays(columns, schema=schema)


def check_signatures(schema: pa.Schema, config: "DedupConfig", where: str) -> None:
    """Raise GristmillError unless a SIGNATURES table says that it was made as `config` asks; ConfigError if it could be.

    Values of signatures made differently agree by chance alone: joined, they would find nothing, without a word.
    """
    expected = _made(config)
    try:
        found = json.loads((schema.metadata or {})[SIGNATURE_KEY])
        differing = sorted(key for key in expected | found if expected.get(key) != found.get(key))
    except (KeyError, ValueError, TypeError) as error:
        raise GristmillError(
            f"{where}: expected signatures with {_in_words(expected)}, got some that do not say how they were made; "
            "another program or an older gristmill wrote them: build the corpus anew under another name"
        ) from error
    if not differing:
        return
    remedy, kind = "build the corpus anew under another name", GristmillError
    if {"hash", "ngram"}.issuperset(differing):
        kind = ConfigError
        keys = [f"dedup.{key} = {json.dumps(found.get(key))}" for key in differing]
        remedy = f"put {' and '.join(keys)} into the recipe, or {remedy}"
    raise kind(
        f"{where}: expected signatures with {_in_words(expected, differing)}, got "
        f"{_in_words(found, differing)}; the two cannot be compared: {remedy}"
    )


def check_published(snapshot: Snapshot, config: "DedupConfig") -> None:
    """Raise GristmillError unless new signatures can be joined with all that a snapshot holds.

    Reads no signature; but before a shard is said to be made otherwise, it is verified that it is not damaged.
    """
    for shard in snapshot.shards("signatures"):
        where = f"{snapshot.ref}, {snapshot.lake.where(shard.path)}"
        try:
            check_signatures(read_schema(snapshot.lake, shard), config, where)
        except GristmillError:
            verified_file(snapshot.lake, shard)
            raise


def _made(config: "DedupConfig") -> dict[str, Any]:
    """All that decides what a document's signature is."""
    return {
        "scheme": "affine32",
        "seed": SEED,
        "num_perm": NUM_PERM,
        "hash": config.hash,
        "ngram": config.ngram,
    }


def _in_words(made: dict[str, Any], keys: Iterable[str] | None = None) -> str:
    return ", ".join(f"{key} {made.get(key)!r}" for key in (made if keys is None else keys))


def read_signatures(table: pa.Table) -> Signatures:
    """View the signatures of a SIGNATURES table as an array (rows, 128); copies only if the table has several chunks."""
    column = _joined(table["signature"].chunks, table["signature"].type)
    if column.type.list_size != NUM_PERM:
        raise GristmillError(
            f"signatures: expected {NUM_PERM} values a document, got {column.type.list_size}; "
            "they were made with another scheme: build the corpus anew"
        )
    return column.flatten().to_numpy().reshape(-1, NUM_PERM)


def _joined(chunks: Sequence[pa.Array], kind: pa.DataType) -> Any:
    """All chunks as one; a single one is not copied."""
    return chunks[0] if len(chunks) == 1 else pa.concat_arrays([*chunks, pa.array([], kind)])


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
            f"texts: expected UTF-8, got an array that is none ({error}); "
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
def multiplier() -> int:
    """An odd number by which the kernels spread hashes over a table. No result depends on it."""
    return int.from_bytes(os.urandom(8)) | 1


@cache
def _permutations() -> tuple[Signatures, Signatures]:
    """Give (a, b) of h -> a h + b modulo 2^32, drawn in datasketch's order."""
    generator = np.random.RandomState(SEED)
    multipliers = generator.randint(0, 1 << 31, NUM_PERM, dtype=np.uint32) * np.uint32(2)
    return multipliers + np.uint32(1), generator.randint(0, 1 << 32, NUM_PERM, dtype=np.uint32)
