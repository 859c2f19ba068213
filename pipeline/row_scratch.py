"""The first reading of `gristmill dedup`: the texts of all input files as tables in the folder beside OUT.

Uncompressed, so that later steps map them into memory and a table is held by nobody but the worker that signs it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.executor import Executor
from pipeline.normalize import content_hash
from pipeline.raw import ReadLimits
from pipeline.row_files import TABLES, Fields, Part, RowFile, Rows, Tell, tell_nobody
from pipeline.row_lines import line_parts, line_rows
from pipeline.row_tables import table_parts, table_rows
from pipeline.stage import Progress
from storage.errors import InputError
from storage.schema import DOCUMENTS

TABLE_BYTES = 64 << 20
"""Bytes of text of a table in the folder; what a worker holds of it at a time."""

_BATCH_BYTES = 2 << 20
"""Bytes of text of a batch: what stays in a processor's cache from step to step."""

PARALLEL_BYTES = 32 << 20
"""Below so much input one process is done before others have started."""

MB = 1_000_000
"""Bytes of a step of the progress."""

SOURCE = "input"
"""Name of the only source."""

_IDENTITY = pa.schema(
    [
        pa.field(
            "id", pa.string()
        ),  # number of the part, number of the row in it: sorts as the input
        pa.field("row", pa.int64()),  # the latter
        pa.field("name", pa.string()),  # the row's own id as JSON
        pa.field("content_hash", pa.string()),
    ]
)
"""What is kept of each document beside its text."""


@dataclass(frozen=True)
class ReadRows:
    """The input as tables in the folder."""

    folder: Path
    tables: list[str]
    """Names of the tables, in order of the input: `<name>.documents` and `<name>.identities`."""
    counts: list[int]
    """Rows of each part, documents or not."""
    documents: list[int]
    """Documents of each part."""
    text_bytes: int

    def identities(self, columns: list[str]) -> pa.Table:
        """Columns of all documents, in order of the input."""
        tables = [
            read_table(self.folder / f"{name}.identities").select(columns) for name in self.tables
        ]
        empty = pa.schema([_IDENTITY.field(name) for name in columns]).empty_table()
        return pa.concat_tables([empty, *tables]).combine_chunks()


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How rows are read."""

    fields: Fields = field(default_factory=Fields)
    """Where text and id stand."""
    domain: str = "web"
    """"code": shingles of 24 characters instead of words."""
    limits: ReadLimits = field(default_factory=ReadLimits)


@dataclass(frozen=True)
class _ReadTask:
    parts: list[tuple[int, Part]]
    reading: Reading
    folder: Path


def cut_files(files: Sequence[RowFile]) -> list[Part]:
    """Cut files into parts, in order. Raises InputError for files that are not what they should be."""
    return [
        part
        for file in files
        for part in (table_parts if file.kind in TABLES else line_parts)(file, TABLE_BYTES)
    ]


def read_all(
    parts: list[Part], reading: Reading, folder: Path, executor: Executor, progress: Progress
) -> ReadRows:
    """Write the documents of all parts as tables. Raises InputError for damage, or a file without a document."""
    total = sum(part.num_bytes for part in parts)
    tasks = [_ReadTask(group, reading, folder) for group in _groups(parts)]
    records: dict[int, dict[str, Any]] = {}
    done = 0

    def tell(num_bytes: int) -> None:
        progress("read", done + num_bytes, total, "bytes")

    tell(0)
    is_here = total < PARALLEL_BYTES or executor.is_here or len(tasks) < 2
    finished = (
        (_read_task(task, tell) for task in tasks) if is_here else executor.map(_read_task, tasks)
    )
    for number, record in finished:
        records[number] = record
        done += record["num_bytes"]
        tell(0)
    ordered = [records[task.parts[0][0]] for task in tasks]
    counts = [count for record in ordered for count in record["parts"]]
    _check_each_file(parts, counts)
    return ReadRows(
        folder=folder,
        tables=[name for record in ordered for name in record["tables"]],
        counts=[num_rows for num_rows, _, _ in counts],
        documents=[num_documents for _, num_documents, _ in counts],
        text_bytes=sum(record["text_bytes"] for record in ordered),
    )


def _groups(parts: list[Part]) -> Iterator[list[tuple[int, Part]]]:
    """Small parts together: a task a file would drown in thousands of small ones."""
    group: list[tuple[int, Part]] = []
    size = 0
    for number, part in enumerate(parts):
        if group and size + part.num_bytes > TABLE_BYTES:
            yield group
            group, size = [], 0
        group.append((number, part))
        size += part.num_bytes
    if group:
        yield group


def _check_each_file(parts: list[Part], counts: list[tuple[int, int, str]]) -> None:
    """Raise InputError for a file with rows of which none is a document: it is something else, or the field is."""
    good: Counter[str] = Counter()
    first_bad: dict[str, str] = {}
    for part, (_, num_documents, problem) in zip(parts, counts, strict=True):
        good[part.file.name] += num_documents
        if problem:
            first_bad.setdefault(part.file.name, problem)
    for name, problem in first_bad.items():
        if not good[name]:
            raise InputError(
                f"{name}: expected documents, got none: {problem}; give --text-field if the text has another name, "
                "or leave the file out"
            )


def _read_task(task: _ReadTask, tell: Tell = tell_nobody) -> tuple[int, dict[str, Any]]:
    """Write the documents of some parts as tables, and their bad rows; give the first part's number and the counts."""
    first_part = task.parts[0][0]
    reading = task.reading
    parts: list[tuple[int, int, str]] = []
    begun = text_bytes = 0
    with (
        (task.folder / f"{first_part:08}.bad").open("wb") as bad_file,
        closing(_Tables(task)) as tables,
    ):
        for number, part in task.parts:
            found = (
                table_rows(part, reading.fields, reading.limits)
                if part.file.kind in TABLES
                else line_rows(
                    part, reading.fields, reading.limits, lambda n, at=begun: tell(at + n)
                )
            )
            first, num_documents, problem = 0, 0, ""
            for rows in found:
                for bad in rows.bad:
                    problem = problem or bad.detail
                    line = {"part": number, "row": first + bad.row}
                    line |= {"reason": bad.reason, "detail": bad.detail, **_shown(bad.record)}
                    bad_file.write(orjson.dumps(line) + b"\n")
                if rows.rows:
                    tables.add(number, first, rows)
                    text_bytes += pc.sum(pc.binary_length(rows.texts)).as_py()
                first += rows.count
                num_documents += len(rows.rows)
            parts.append((first, num_documents, problem))
            begun += part.num_bytes
    return first_part, {
        "tables": tables.names,
        "parts": parts,  # rows, documents and the first problem of each
        "text_bytes": text_bytes,
        "num_bytes": begun,
    }


def _shown(record: bytes) -> dict[str, Any]:
    """A rejected row for a JSON line; one that is no text as the hex digits of its bytes, so that nothing is lost."""
    try:
        return {"record": record.decode()}
    except UnicodeDecodeError:
        return {"record": None, "record_hex": record.hex()}


class _Tables:
    """Writes documents as tables of about TABLE_BYTES; of their texts it holds a batch."""

    def __init__(self, task: _ReadTask) -> None:
        self.names: list[str] = []
        self._task = task
        self._held: list[tuple[int, int, Rows]] = []
        self._held_bytes = self._table_bytes = 0
        self._files = ExitStack()
        self._writers: list[tuple[pa.Schema, pa.RecordBatchFileWriter]] = []

    def add(self, part: int, first: int, rows: Rows) -> None:
        """Take some rows of a part, the first of which has the index `first` in it."""
        num_bytes = rows.texts.nbytes
        if self._writers and self._table_bytes + num_bytes > TABLE_BYTES:
            self.close()
        if not self._writers:
            self._open()
        self._held.append((part, first, rows))
        self._held_bytes += num_bytes
        self._table_bytes += num_bytes
        if self._held_bytes >= _BATCH_BYTES:
            self._flush()

    def close(self) -> None:
        """End the table that is being written."""
        self._flush()
        self._files.close()
        self._writers.clear()
        self._table_bytes = 0

    def _open(self) -> None:
        name = f"{self._task.parts[0][0]:08}-{len(self.names):05}"
        self.names.append(name)
        for ending, schema in (("documents", DOCUMENTS), ("identities", _IDENTITY)):
            table = new_table(self._task.folder / f"{name}.{ending}", schema)
            self._writers.append((schema, self._files.enter_context(table)))

    def _flush(self) -> None:
        if self._held:
            batch = _batch(self._held, self._task.reading.domain)
            for schema, writer in self._writers:
                writer.write_batch(batch.select(schema.names).cast(schema))
        self._held.clear()
        self._held_bytes = 0


def _batch(held: list[tuple[int, int, Rows]], domain: str) -> pa.RecordBatch:
    """The columns of both tables."""
    texts = pa.concat_arrays([rows.texts.cast(pa.string()) for _, _, rows in held])
    numbers = [first + row for _, first, rows in held for row in rows.rows]
    parts = [part for part, _, rows in held for _ in rows.rows]
    ids = [f"{part:012x}{number:020x}" for part, number in zip(parts, numbers, strict=True)]
    nothing = pa.repeat("", len(texts))
    zero = pa.repeat(pa.scalar(0.0, pa.float32()), len(texts))
    columns = {
        "id": pa.array(ids, pa.string()),
        "row": pa.array(numbers, pa.int64()),
        "name": pa.concat_arrays([rows.names for _, _, rows in held]),
        "text": texts,
        "source": pa.repeat(SOURCE, len(texts)),
        "domain": pa.repeat(domain, len(texts)),
        "content_hash": content_hash(texts),
        "num_bytes": pc.cast(pc.binary_length(texts), pa.int64()),
    }
    for field_ in DOCUMENTS:
        columns.setdefault(field_.name, zero if field_.type == pa.float32() else nothing)
    return pa.record_batch(columns)


@contextmanager
def new_table(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatchFileWriter]:
    """Open a new table in the folder."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        yield writer


def read_table(path: Path) -> pa.Table:
    """A table of the folder, mapped into memory."""
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()
