"""Shards: immutable Arrow IPC files of one record batch, each described by a `Shard` in the manifest.

Arrow files have no checksums, so the manifest carries them: `checksum` of the file's bytes guards against damage and is
verified on first open in a process; `content_hash` of the values says what the shard *is*, however it was compressed.
"""

import errno
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from storage.content import content_hash
from storage.disk import in_plain_words
from storage.errors import CorruptError, GristmillError, NotFoundError
from storage.lake import Lake
from storage.schema import FORMAT, SCHEMAS, check_format, tokens_schema

MAPPED = ("tokens", "signatures", "band_keys", "text_keys")
"""Kinds that are not compressed: they are read here and there through a memory map, and numbers like these hardly shrink."""

REMEDY = "put back a good copy of the file, or build the corpus anew under another name"
"""What to do about a damaged file of a snapshot, for messages."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """What a manifest says of one shard."""

    kind: str
    """documents, fates, rejects, signatures, band_keys, text_keys, edges, templates or tokens."""
    path: str
    """File, relative to the lake."""
    rows: int
    """Rows of its one record batch."""
    num_bytes: int
    """Size of the file."""
    checksum: str
    """SHA-256 of the file, 64 hex digits."""
    content_hash: str
    """Hash of the values, 32 hex digits; see `storage/content.py`."""
    split: str = ""
    """train or validation for tokens, else empty."""
    num_tokens: int = 0
    """Tokens in all rows; 0 for other kinds."""
    version: int = 0
    """Version of the snapshot that wrote it."""


def write_shard(
    lake: Lake,
    path: str,
    table: pa.Table,
    *,
    split: str = "",
    num_tokens: int = 0,
    version: int = 0,
) -> Shard:
    """Write a table as one shard and describe it; equal tables give equal bytes under one version of pyarrow.

    The kind comes from the table's metadata, or from the file's name (`documents-00000.arrow`). Columns are brought
    into the order and types of the kind's schema. Tokens are counted; `num_tokens`, if given, must agree. Raises
    GristmillError if a column is missing, unknown, of another type, or null where it may not be; LakeError if the lake
    cannot be written.
    """
    kind = _kind_of(table.schema) or Path(path).name.replace(".", "-").split("-")[0]
    batch = _one_batch(_conform(table, kind, path), path)
    options = pa.ipc.IpcWriteOptions(compression=None if kind in MAPPED else "lz4")
    with lake.writer(path) as temporary:
        with (
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_file(sink, batch.schema, options=options) as file,
        ):
            file.write_batch(batch)
        checksum, num_bytes = _digest(temporary)
    shard = _describe(path, batch, checksum, num_bytes, split=split, version=version)
    if num_tokens not in (0, shard.num_tokens):
        raise GristmillError(
            f"{path}: expected {num_tokens} tokens, the table has {shard.num_tokens}"
        )
    return shard


def describe_shard(lake: Lake, path: str, *, split: str = "", version: int = 0) -> Shard:
    """What `write_shard` gave for this finished file. Reads all of it. Raises NotFoundError, CorruptError."""
    file, where = lake.local_path(path), lake.where(path)
    checksum, num_bytes = _digest(file)
    table = _read(file, where)
    check_format(table.schema, _kind_of(table.schema), where)
    try:
        table.validate(full=True)
    except pa.ArrowInvalid as error:
        raise CorruptError(f"{where}: expected a sound Arrow file, got: {error}") from error
    batch = _one_batch(table, path)
    return _describe(path, batch, checksum, num_bytes, split=split, version=version)


def open_shard(lake: Lake, shard: Shard, columns: Sequence[str] | None = None) -> pa.Table:
    """The shard's table over a memory map: token columns are not copied, compressed ones are unpacked.

    With `columns` it has only these, and the others stay packed. Before a row is given out, the file's checksum is
    verified, once in each process. Raises CorruptError, naming the file, what was expected and what was found.
    """
    return _open(lake, shard, verified_file(lake, shard), columns)


def scan_shard(lake: Lake, shard: Shard, columns: Sequence[str]) -> pa.Table:
    """Some columns of a shard, unverified: to find out which shard to open. Raises CorruptError.

    Of a shard of texts, the texts are 98 %, and they need not be hashed to look for an id.
    """
    try:
        return _open(lake, shard, _file(lake, shard), columns)
    except CorruptError:
        return open_shard(lake, shard, columns)  # verified, so it says what is wrong


def verified_file(lake: Lake, shard: Shard) -> Path:
    """The shard's file on this machine, once its checksum is found to be right. Raises CorruptError."""
    file = _file(lake, shard)
    if not _is_verified(file, shard) and not lake.is_local:
        file.unlink()  # a download damaged on this machine; the bucket's own copy decides
        file = _file(lake, shard)
    if not _is_verified(file, shard):
        raise damaged_file(lake.where(shard.path), shard.checksum, _digest(file)[0])
    return file


def read_schema(lake: Lake, shard: Shard) -> pa.Schema:
    """The shard's schema, with what it says of itself; reads no row and verifies nothing. Raises CorruptError."""
    try:
        with _arrow_file(_file(lake, shard), lake.where(shard.path)) as content:
            return content.schema
    except CorruptError:
        verified_file(lake, shard)  # says what is wrong
        raise


def missing_file(where: str) -> CorruptError:
    """The error for a file that a manifest names and the lake does not hold."""
    return CorruptError(f"{where}: expected the file that a manifest names, found none; {REMEDY}")


def damaged_file(where: str, expected: str, found: str) -> CorruptError:
    """The error for a file whose SHA-256 is not the one in the manifest."""
    return CorruptError(
        f"{where}: expected sha256 {expected}, got {found}: it changed after it was written; {REMEDY}"
    )


def _file(lake: Lake, shard: Shard) -> Path:
    try:
        return lake.local_path(shard.path)
    except NotFoundError as error:
        raise missing_file(lake.where(shard.path)) from error


def _open(lake: Lake, shard: Shard, file: Path, columns: Sequence[str] | None) -> pa.Table:
    where = lake.where(shard.path)
    table = _read(file, where, columns)
    check_format(table.schema, shard.kind, where)
    if len(table) != shard.rows:
        raise CorruptError(f"{where}: expected {shard.rows} rows, got {len(table)}; {REMEDY}")
    return table


def _kind_of(schema: pa.Schema) -> str:
    return (schema.metadata or {}).get(b"gristmill.kind", b"").decode()


def _conform(table: pa.Table, kind: str, path: str) -> pa.Table:
    """The table in its kind's schema; one of a kind that has none keeps its own and is marked with the kind."""
    schema = SCHEMAS.get(kind)
    if kind == "tokens" and "tokens" in table.schema.names:
        item = getattr(table.schema.field("tokens").type, "value_type", None)
        schema = tokens_schema(1 << 16 if item == pa.uint16() else 1 << 17)
    if schema is None:
        marks = {"gristmill.kind": kind, "gristmill.format": str(FORMAT)}
        return table.replace_schema_metadata((table.schema.metadata or {}) | marks)
    if sorted(table.schema.names) != sorted(schema.names):
        raise GristmillError(
            f"{path}: expected the columns {', '.join(schema.names)}; got {', '.join(table.schema.names)}"
        )
    try:
        table = table.select(schema.names)
        nulls = [
            field.name
            for field, column in zip(schema, table.columns, strict=True)
            if not field.nullable and column.null_count
        ]
        if nulls:
            raise GristmillError(f"{path}: expected no nulls in {', '.join(nulls)}, got some")
        return table.cast(_with_own_metadata(schema, table.schema))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, ValueError) as error:
        raise GristmillError(f"{path}: expected a table of kind '{kind}': {error}") from error


def _with_own_metadata(schema: pa.Schema, other: pa.Schema) -> pa.Schema:
    """The schema, and what gristmill says in the other's metadata; not what other libraries leave there (pandas)."""
    metadata = dict(schema.metadata or {})
    for key, value in sorted((other.metadata or {}).items()):
        if key.startswith(b"gristmill."):
            metadata.setdefault(key, value)
    return schema.with_metadata(metadata)


def _one_batch(table: pa.Table, path: str) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    if not batches:
        return pa.RecordBatch.from_arrays(
            [pa.array([], field.type) for field in table.schema], schema=table.schema
        )
    if len(batches) > 1:
        raise GristmillError(
            f"{path}: expected a table that fits one record batch (2 GiB of text), got {table.nbytes} bytes in "
            f"{len(batches)} batches; write smaller shards"
        )
    return batches[0]


def _describe(
    path: str, batch: pa.RecordBatch, checksum: str, num_bytes: int, *, split: str, version: int
) -> Shard:
    kind = _kind_of(batch.schema)
    return Shard(
        kind=kind,
        path=path,
        rows=batch.num_rows,
        num_bytes=num_bytes,
        checksum=checksum,
        content_hash=content_hash(batch),
        split=split,
        num_tokens=len(batch["tokens"].flatten()) if kind == "tokens" else 0,
        version=version,
    )


_verified: set[tuple[str, str, int, int]] = set()
"""(file, checksum, size, time of change) that this process has verified; a file that changed is verified again."""


def _is_verified(file: Path, shard: Shard) -> bool:
    status = file.stat()
    key = (str(file), shard.checksum, status.st_size, status.st_mtime_ns)
    if key not in _verified:
        if status.st_size != shard.num_bytes or _digest(file)[0] != shard.checksum:
            return False
        _verified.add(key)
    return True


def _digest(file: Path) -> tuple[str, int]:
    with in_plain_words(file, "read"), file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return digest, stream.tell()


def _read(file: Path, where: str, columns: Sequence[str] | None = None) -> pa.Table:
    if columns is None:
        with _arrow_file(file, where) as content:
            return content.read_all()
    with _arrow_file(file, where) as content:
        fields = [content.schema.names.index(name) for name in columns]
    with _arrow_file(file, where, pa.ipc.IpcReadOptions(included_fields=fields)) as content:
        return content.read_all().select(columns)


@contextmanager
def _arrow_file(
    file: Path, where: str, options: pa.ipc.IpcReadOptions | None = None
) -> Iterator[pa.ipc.RecordBatchFileReader]:
    try:
        yield pa.ipc.open_file(pa.memory_map(str(file)), options=options)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
            with in_plain_words(where, "read"):  # the disk's fault, not the file's
                raise
        raise CorruptError(
            f"{where}: expected an Arrow IPC file, got: {error}; {REMEDY}"
        ) from error
