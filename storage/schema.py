"""Schemas of the Arrow shards in a lake: the contract between pipeline (writes) and model (reads).

Every shard is one Arrow IPC *file*. Its schema metadata carries `gristmill.kind` and `gristmill.format`; each field
carries a `comment`. Signatures also say how they were made (`gristmill.signature`). Text shards are lz4-compressed;
token shards are not, so that they can be memory-mapped.
"""

import pyarrow as pa

from storage.errors import CorruptError

FORMAT = 2
"""Version of the on-disk format; readers refuse any other."""

SIGNATURE_KEY = b"gristmill.signature"
"""Metadata of signatures: JSON with all that decides what they are (scheme, seed, num_perm, hash, ngram)."""

FATES_IN_ORDER: tuple[str, ...] = ("kept", "dropped", "duplicate", "quarantined", "forgotten")
"""Every document that was read ends in exactly one of these."""


def _field(name: str, type_: pa.DataType, comment: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, type_, nullable=nullable, metadata={"comment": comment})


def _schema(kind: str, fields: list[pa.Field]) -> pa.Schema:
    return pa.schema(fields, metadata={"gristmill.kind": kind, "gristmill.format": str(FORMAT)})


DOCUMENTS = _schema(
    "documents",
    [
        _field(
            "id", pa.string(), "32 hex digits: blake2b-128 of source, uri and input fingerprint"
        ),
        _field("text", pa.string(), "normalised text"),
        _field("source", pa.string(), "name of the recipe's source"),
        _field(
            "uri", pa.string(), "file:line, file#offset or archive!member, relative to the recipe"
        ),
        _field("domain", pa.string(), "code, poetry, science, chat, web, books, ..."),
        _field("license", pa.string(), "licence of the text, as the source states it"),
        _field("lang", pa.string(), "ISO 639 code of the main language; empty if not determined"),
        _field("lang_score", pa.float32(), "confidence of lang in [0, 1]"),
        _field("toxicity", pa.float32(), "score of the toxicity model in [0, 1]"),
        _field(
            "content_hash",
            pa.string(),
            "32 hex digits: blake2b-128 of the white-space-normalised text",
        ),
        _field("num_bytes", pa.int64(), "UTF-8 bytes of text"),
        _field("split", pa.string(), "train or validation; empty until decided"),
    ],
)

FATES = _schema(
    "fates",
    [
        _field("id", pa.string(), "document"),
        _field("uri", pa.string(), "where the document came from"),
        _field("source", pa.string(), "name of the recipe's source"),
        _field("domain", pa.string(), "domain of the document"),
        _field("fate", pa.string(), "kept, dropped, duplicate, quarantined or forgotten"),
        _field("stage", pa.string(), "stage that decided; null if kept", nullable=True),
        _field("rule", pa.string(), "rule that decided; null if kept", nullable=True),
        _field("value", pa.float64(), "what the rule measured", nullable=True),
        _field("threshold", pa.float64(), "what the rule allows", nullable=True),
        _field(
            "duplicate_of", pa.string(), "kept document that this one duplicates", nullable=True
        ),
        _field(
            "similarity", pa.float32(), "Jaccard similarity or containment with it", nullable=True
        ),
        _field("detail", pa.string(), "reason in words (quarantine)", nullable=True),
        _field(
            "copy_of",
            pa.string(),
            "document with the same text, whose fate this one shares; null if that one is kept",
            nullable=True,
        ),
    ],
)

CHANGES = _schema("changes", list(FATES))
"""New fates of documents that an earlier snapshot read; the newest row of a document holds, and `FATES` without one."""

DUPLICATES = _schema(
    "duplicates",
    [
        *DOCUMENTS,
        _field("duplicate_of", pa.string(), "kept document in whose favour this one was removed"),
        _field("similarity", pa.float32(), "Jaccard similarity or containment with it"),
        _field("rule", pa.string(), "near_duplicate, contained or exact"),
    ],
)
"""Documents that were removed as near-duplicates, whole: if the kept one is forgotten, the best of them comes back."""

TOMBSTONES = _schema(
    "tombstones",
    [
        _field(
            "id", pa.string(), "document whose rows in shards of versions before this one are void"
        ),
        _field(
            "content_hash",
            pa.string(),
            "hash of its text, which is not taken in again if forgotten; empty if it was not stored",
        ),
        _field(
            "reason",
            pa.string(),
            "forgotten, or displaced: its fate changed, and rows of this version say what holds",
        ),
    ],
)

HIDES = ("documents", "duplicates", "rejects", "signatures", "tokens")
"""Kinds of shards with one row a document, in which tombstones hide rows."""

REJECTS = _schema(
    "rejects",
    [
        _field("id", pa.string(), "document that was not kept"),
        _field("uri", pa.string(), "where it came from"),
        _field("domain", pa.string(), "domain of the document"),
        _field("fate", pa.string(), "dropped, duplicate or quarantined"),
        _field("stage", pa.string(), "stage that decided"),
        _field("rule", pa.string(), "rule that decided"),
        _field("value", pa.float64(), "what the rule measured", nullable=True),
        _field("threshold", pa.float64(), "what the rule allows", nullable=True),
        _field(
            "duplicate_of", pa.string(), "kept document that this one duplicates", nullable=True
        ),
        _field("similarity", pa.float32(), "similarity with it", nullable=True),
        _field("detail", pa.string(), "reason in words (quarantine)", nullable=True),
        _field("text", pa.string(), "the first 2,000 characters of its text"),
    ],
)

SIGNATURES = _schema(
    "signatures",
    [
        _field("id", pa.string(), "document"),
        _field(
            "signature",
            pa.list_(pa.field("item", pa.uint32(), nullable=False), 128),
            "MinHash in datasketch's affine32 scheme, 128 permutations, seed 1; the schema's metadata says of what",
        ),
        _field("num_shingles", pa.int64(), "distinct shingles of the document"),
    ],
)

BAND_KEYS = _schema(
    "band_keys",
    [
        _field("band", pa.uint16(), "number of the band"),
        _field("key", pa.uint64(), "hash of the band's rows; rows are sorted by (band, key, row)"),
        _field(
            "row",
            pa.uint32(),
            "number of the document: its row in all signature shards of the chain, in their order",
        ),
    ],
)

TEXT_KEYS = _schema(
    "text_keys",
    [
        _field("key", pa.uint64(), "first half of content_hash; rows are sorted by all columns"),
        _field("rest", pa.uint64(), "second half of content_hash"),
        _field("id_high", pa.uint64(), "first half of the document's id"),
        _field("id_low", pa.uint64(), "second half of the id"),
    ],
)

EDGES = _schema(
    "edges",
    [
        _field("id_a", pa.string(), "smaller id of a verified near-duplicate pair"),
        _field("id_b", pa.string(), "larger id"),
        _field("jaccard", pa.float32(), "exact Jaccard similarity of their shingle sets"),
        _field(
            "containment", pa.float32(), "share of the smaller one's 3-grams that the other holds"
        ),
    ],
)

TEMPLATES = _schema(
    "templates",
    [
        _field(
            "source",
            pa.string(),
            "name of the recipe's source; rows are sorted by it, then by the other",
        ),
        _field("shingle", pa.uint64(), "hash of a shingle that many of its documents have"),
    ],
)
"""What a site puts around its pages (`pipeline/templates.py`); the newest shard alone says all."""


def tokens_schema(vocab_size: int) -> pa.Schema:
    """Schema of a token shard; 16 bits a token as long as the vocabulary allows."""
    token = pa.uint16() if vocab_size <= 1 << 16 else pa.uint32()
    return _schema(
        "tokens",
        [
            _field("id", pa.string(), "document"),
            _field("domain", pa.string(), "domain of the document"),
            _field(
                "tokens",
                pa.list_(pa.field("item", token, nullable=False)),
                "the document's tokens, beginning with BOS; one flat buffer over all rows",
            ),
            _field("num_bytes", pa.int64(), "UTF-8 bytes of the document's text"),
        ],
    )


SCHEMAS = {
    "documents": DOCUMENTS,
    "duplicates": DUPLICATES,
    "fates": FATES,
    "changes": CHANGES,
    "tombstones": TOMBSTONES,
    "rejects": REJECTS,
    "signatures": SIGNATURES,
    "band_keys": BAND_KEYS,
    "text_keys": TEXT_KEYS,
    "edges": EDGES,
    "templates": TEMPLATES,
}
"""Schema of each kind of shard; of token shards `tokens_schema` gives it."""


def check_format(schema: pa.Schema, kind: str, where: str) -> None:
    """Raise CorruptError unless a shard says that it is of `kind` and of the format this code reads."""
    metadata = schema.metadata or {}
    found = (
        metadata.get(b"gristmill.kind", b"?").decode(),
        metadata.get(b"gristmill.format", b"?").decode(),
    )
    if found != (kind, str(FORMAT)):
        raise CorruptError(
            f"{where}: expected a '{kind}' shard of format {FORMAT}, got '{found[0]}' of format {found[1]}; "
            "if a newer gristmill wrote it, upgrade; otherwise build the snapshot again"
        )
