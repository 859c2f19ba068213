"""The first reading of `gristmill dedup`: the texts of all input files as tables in the folder beside OUT.

Uncompressed, so that later steps map them into memory and a table is held by nobody but the worker that signs it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.executor import Executor
from pipeline.normalize import content_hash
from pipeline.raw import ReadLimits
from pipeline.row_files import TABLES, Fields, Part, RowFile, Rows, Tell, tell_nobody
from pipeline.row_lines import line_parts, line_rows
from pipeline.row_tables import common_schema, table_parts, table_rows
from pipeline.stage import Progress
from storage.errors import InputError
from storage.schema import DOCUMENTS

TABLE_BYTES = 64 << 20
"""Bytes of text of a table in the folder; what a worker holds of it at a time."""

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


def cut_files(files: Sequence[RowFile], text_field: str) -> list[Part]:
    """Cut files into parts, in order. Raises InputError or ConfigError for files that are not what they should be."""
    tables = [file for file in files if file.kind in TABLES]
    if tables:
        common_schema(tables, text_field)
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
        progress("read", (done + num_bytes) // MB, total // MB, "MB")

    tell(0)
    is_here = total < PARALLEL_BYTES or executor.workers in (None, 1) or len(tasks) < 2
    finished = (
        (_read_task(task, tell) for task in tasks) if is_here else executor.map(_read_task, tasks)
    )
    for number, record in finished:
        records[number] = record
        done += record["num_bytes"]
        tell(0)
    ordered = [records[task.parts[0][0]] for task in tasks]
    _check_each_file(parts, ordered)
    return ReadRows(
        folder=folder,
        tables=[name for record in ordered for name in record["tables"]],
        counts=[count for record in ordered for count in record["counts"]],
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


def _check_each_file(parts: list[Part], records: list[dict[str, Any]]) -> None:
    """Raise InputError for a file with rows of which none is a document: it is something else, or the field is."""
    good: dict[str, int] = {}
    first_bad: dict[str, str] = {}
    counts = [numbers for record in records for numbers in record["documents"]]
    problems = [problem for record in records for problem in record["problems"]]
    for part, documents, problem in zip(parts, counts, problems, strict=True):
        good[part.file.name] = good.get(part.file.name, 0) + documents
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
    tables: list[str] = []
    counts: list[int] = []
    documents: list[int] = []
    problems: list[str] = []
    held: list[tuple[int, int, Rows]] = []
    num_bytes = text_bytes = 0

    def write_held() -> None:
        nonlocal num_bytes
        if any(len(rows.texts) for _, _, rows in held):
            name = f"{task.parts[0][0]:08}-{len(tables):05}"
            _write_tables(task, name, held)
            tables.append(name)
        held.clear()
        num_bytes = 0

    for number, part in task.parts:
        begun = sum(part.num_bytes for _, part in task.parts[: len(counts)])
        reading = task.reading
        found = (
            table_rows(part, reading.fields, reading.limits)
            if part.file.kind in TABLES
            else line_rows(part, reading.fields, reading.limits, lambda n, at=begun: tell(at + n))
        )
        first, good, problem = 0, 0, ""
        with (task.folder / f"{number:08}.bad").open("wb") as bad_file:
            for rows in found:
                for bad in rows.bad:
                    problem = problem or bad.detail
                    line = {"row": first + bad.row, "reason": bad.reason, "detail": bad.detail}
                    bad_file.write(orjson.dumps(line | _shown(bad.record)) + b"\n")
                if held and num_bytes + rows.texts.nbytes > TABLE_BYTES:
                    write_held()
                held.append((number, first, rows))
                num_bytes += rows.texts.nbytes
                text_bytes += pc.sum(pc.binary_length(rows.texts)).as_py() or 0
                first += rows.count
                good += len(rows.rows)
        counts.append(first)
        documents.append(good)
        problems.append(problem)
    write_held()
    return task.parts[0][0], {
        "tables": tables,
        "counts": counts,
        "documents": documents,
        "problems": problems,
        "text_bytes": text_bytes,
        "num_bytes": sum(part.num_bytes for _, part in task.parts),
    }


def _shown(record: bytes) -> dict[str, Any]:
    """A rejected row for a JSON line; one that is no text as the hex digits of its bytes, so that nothing is lost."""
    try:
        return {"record": record.decode()}
    except UnicodeDecodeError:
        return {"record": None, "record_hex": record.hex()}


def _write_tables(task: _ReadTask, name: str, held: list[tuple[int, int, Rows]]) -> None:
    with (
        new_table(task.folder / f"{name}.documents", DOCUMENTS) as documents,
        new_table(task.folder / f"{name}.identities", _IDENTITY) as identities,
    ):
        for part, first, rows in held:
            count = len(rows.texts)
            if not count:
                continue
            texts = rows.texts.cast(pa.string())
            numbers = [first + row for row in rows.rows]
            ids = pa.array([f"{part:012x}{number:020x}" for number in numbers], pa.string())
            hashes = content_hash(texts)
            lengths = pc.cast(pc.binary_length(texts), pa.int64())
            filled = {
                "id": ids,
                "text": texts,
                "source": pa.repeat(SOURCE, count),
                "domain": pa.repeat(task.reading.domain, count),
                "content_hash": hashes,
                "num_bytes": lengths,
            }
            empty = {pa.string(): pa.repeat("", count)}
            zero = {pa.float32(): pa.array(np.zeros(count, np.float32))}
            columns = [
                filled[column.name] if column.name in filled else (empty | zero)[column.type]
                for column in DOCUMENTS
            ]
            documents.write_batch(pa.RecordBatch.from_arrays(columns, schema=DOCUMENTS))
            columns = [ids, pa.array(numbers, pa.int64()), rows.names, hashes]
            identities.write_batch(pa.RecordBatch.from_arrays(columns, schema=_IDENTITY))


@contextmanager
def new_table(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatchFileWriter]:
    """Open a new table in the folder."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        yield writer


def read_table(path: Path) -> pa.Table:
    """A table of the folder, mapped into memory."""
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()
