"""Duplicates out of files that anybody has, by the engine of the builds, without a lake: `gristmill dedup`.

First reading: the texts go, as they are, into tables in a folder beside OUT. Exact copies are found by hash, the rest
is signed, `near_duplicates` says which documents go. Second reading: the rows that stay are copied to OUT as they are,
in the order of the input. Everything is written in the folder, then takes its final names, OUT last.
"""

import errno
import fcntl
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.dedup import DedupConfig, NewDocuments, Published, exact_duplicates, near_duplicates
from pipeline.duplicate_pairs import Found, pairs_of, write_pairs
from pipeline.executor import Executor
from pipeline.minhash import sign_documents
from pipeline.prepare import compile_loops
from pipeline.row_csv import header_bytes, kept_records
from pipeline.row_files import TABLES, Part, RowFile
from pipeline.row_lines import kept_lines, line_writer
from pipeline.row_scratch import (
    PARALLEL_BYTES,
    SOURCE,
    Reading,
    ReadRows,
    cut_files,
    new_table,
    read_all,
    read_table,
)
from pipeline.row_targets import TableTarget, kept_batches, table_target, table_writer
from pipeline.stage import Progress, no_progress
from storage.disk import Disk, raise_for_machine
from storage.errors import BusyError, GristmillError, LakeError
from storage.lake import Lake
from storage.published import after_publishing, warn
from storage.schema import DOCUMENTS
from storage.snapshot import Snapshot


@dataclass(frozen=True, kw_only=True)
class FileDedup:
    """What to do; the files have been found and their names checked."""

    files: Sequence[RowFile]
    out: Path
    """Where the kept rows go; its ending says how they are compressed."""
    rejected: Path
    """Where rows go that cannot be used, as JSON lines; not written if there are none."""
    pairs: Path | None = None
    """Where to list what was removed and for what: .jsonl, .csv or .parquet."""
    reading: Reading = field(default_factory=Reading)
    against: Snapshot | None = None
    """Documents that it holds go too."""
    config: DedupConfig = field(default_factory=DedupConfig)


@dataclass(frozen=True, kw_only=True)
class FileDedupResult:
    """What became of the rows: documents = kept + exact + near_duplicate + contained; other rows: rejected, blank."""

    documents: int
    """Rows with a text."""
    kept: int
    """Those that are in OUT."""
    exact: int
    """Removed as copies but for white space."""
    near_duplicate: int
    """Removed by Jaccard similarity."""
    contained: int
    """Removed because they lie in a longer one."""
    kept_apart: int
    """Pairs that only their templates make alike (`dedup.template_share`)."""
    in_snapshot: int
    """Of the removed ones, those whose duplicate is a document of the snapshot."""
    rejected: int
    """Rows that cannot be used."""
    blank: int
    """Lines without anything but white space; they are in no file."""
    with_id: int
    """Documents that have an id."""
    repeated_ids: int
    """Documents whose id another one before them has."""
    marked_pairs: int
    """Rows of PAIRS as .csv in which a cell is not written as it is, see `write_pairs`."""
    text_bytes: int
    """UTF-8 bytes of all texts."""
    scratch_bytes: int
    """Disk that the folder beside OUT took."""
    seconds: dict[str, float]
    """Of each step: read, exact, sign, near_duplicates, write."""


def dedup_files(
    work: FileDedup, executor: Executor | None = None, progress: Progress = no_progress
) -> FileDedupResult:
    """Write the rows of `work.files` that are no duplicates to `work.out`; which ones stay, `pipeline/dedup.py` says.

    Of exact copies (equal but for white space) the first in the input stays. OUT, PAIRS and the rejected rows appear
    when all is done, or not at all. Memory: some 500 bytes a document (most of it while copies are sought), 64 MiB of
    text a worker, and what `near_duplicates` takes. Raises InputError for files that cannot be read to their end, or
    that hold no document at all.
    """
    seconds: dict[str, float] = {}
    folders = sorted({file.path.parent for file in work.files})
    with (
        _disk_in_plain_words(work.out),
        _folder_beside(work.out) as folder,
        (executor or Executor()).ready(Lake.open(folder), *folders) as executor,
    ):
        compile_loops(work.config, executor, progress, filters=False)
        with _timed(seconds, "read"):
            target = _table_target(work, folder)
            parts = cut_files(work.files, work.reading.fields.text, work.reading.limits)
            rows = read_all(parts, work.reading, folder, executor, progress)
        with _timed(seconds, "exact"):
            exact = _exact(work, rows)
        with _timed(seconds, "sign"):
            documents, signatures = _sign_all(work, rows, exact, executor, progress)
        scratch_bytes = sum(file.stat().st_size for file in folder.iterdir())
        with _timed(seconds, "near_duplicates"):
            new = NewDocuments(documents=documents, signatures=signatures, sources=[SOURCE])
            published = Published.of(work.against) if work.against is not None else None
            config = replace(work.config, policy="append")  # nothing leaves the snapshot
            near = near_duplicates(
                new, published, config, progress, folder=folder, executor=executor
            )
        found = Found(
            files=[part.file for part in parts],
            first_rows=_first_rows(parts, rows.counts),
            identities=rows.identities(["id", "row", "name"]),
            against=work.against,
        )
        pairs = pairs_of(found, exact, near.removed)
        with _timed(seconds, "write"):
            made, marked = [(folder / "out", work.out)], 0
            _write(work, target, parts, rows, pairs, folder / "out", progress)
            if work.pairs is not None:
                made.append((folder / "pairs", work.pairs))
                marked = write_pairs(found, pairs, folder / "pairs", work.pairs.suffix.lower())
            num_rejected = _gather_rejected(parts, found.first_rows, folder)
            if num_rejected:
                made.append((folder / "rejected", work.rejected))
            rules = Counter(pairs["rule"].to_pylist())
            names = found.identities["name"].combine_chunks().drop_null()
            _publish(made)
            if not num_rejected:  # of an earlier result in this place
                with after_publishing(f"removing {work.rejected}", "it is of an earlier result"):
                    work.rejected.unlink(missing_ok=True)
    num_documents = len(found.identities)
    return FileDedupResult(
        documents=num_documents,
        kept=num_documents - len(pairs),
        exact=rules["exact"],
        near_duplicate=rules["near_duplicate"],
        contained=rules["contained"],
        kept_apart=near.num_templated,
        in_snapshot=pc.sum(pairs["in_snapshot"]).as_py() or 0,
        rejected=num_rejected,
        blank=sum(rows.counts) - num_documents - num_rejected,
        with_id=len(names),
        repeated_ids=len(names) - len(names.unique()),
        marked_pairs=marked,
        text_bytes=rows.text_bytes,
        scratch_bytes=scratch_bytes,
        seconds=seconds,
    )


# --- which go ----------------------------------------------------------------------------------


def _exact(work: FileDedup, rows: ReadRows) -> pa.Table:
    """Exact copies of documents before them, or of the snapshot's: (id, duplicate_of)."""
    keys = rows.identities(["id", "content_hash"])
    keys = keys.append_column("domain", pa.repeat(work.reading.domain, len(keys)))
    keys = keys.append_column("source_rank", pa.array(np.zeros(len(keys), np.int32)))
    published = None
    if work.against is not None:
        tables = [table.select(["id", "content_hash"]) for table in work.against.documents()]
        published = pa.concat_tables(tables) if tables else None
    return exact_duplicates(keys, published)


def _sign_all(
    work: FileDedup, rows: ReadRows, exact: pa.Table, executor: Executor, progress: Progress
) -> tuple[list[pa.Table], list[pa.Table]]:
    """The tables without exact copies, and their signatures, all of them mapped into memory."""
    stays = _stays(rows, exact["id"])
    tasks, begin = [], 0
    for name in rows.tables:
        end = begin + len(read_table(rows.folder / f"{name}.identities"))
        tasks.append((rows.folder / name, stays[begin:end], work.config))
        begin = end
    if rows.text_bytes < PARALLEL_BYTES:
        executor = Executor()
    progress("sign", 0, rows.text_bytes, "bytes")
    done = 0
    for num_bytes in executor.map(_sign_task, tasks):
        done += num_bytes
        progress("sign", done, rows.text_bytes, "bytes")
    documents = [read_table(rows.folder / f"{name}.documents") for name in rows.tables]
    signatures = [read_table(rows.folder / f"{name}.signatures") for name in rows.tables]
    return documents, signatures


def _sign_task(task: tuple[Path, NDArray[np.bool_], DedupConfig]) -> int:
    """Take the exact copies out of a table and sign the rest; gives the bytes of text that the table had."""
    path, stays, config = task
    file = path.with_name(f"{path.name}.documents")
    table = read_table(file)
    num_bytes = pc.sum(table["num_bytes"]).as_py()
    if not stays.all():
        with new_table(smaller := file.with_suffix(".smaller"), DOCUMENTS) as writer:
            writer.write_table(table.filter(pa.array(stays)))
        smaller.replace(file)
        table = read_table(file)
    signatures = sign_documents(table, config)
    with new_table(path.with_name(f"{path.name}.signatures"), signatures.schema) as writer:
        writer.write_table(signatures)
    return num_bytes


# --- second reading ----------------------------------------------------------------------------


def _table_target(work: FileDedup, folder: Path) -> TableTarget | None:
    """What OUT is to be, if the files are tables."""
    tables = [file for file in work.files if file.kind in TABLES]
    if not tables:
        return None
    return table_target(tables, work.out.name, work.reading.fields.text, folder / "tried")


def _write(
    work: FileDedup,
    target: TableTarget | None,
    parts: list[Part],
    rows: ReadRows,
    pairs: pa.Table,
    path: Path,
    progress: Progress,
) -> None:
    """Copy the rows that stay to a file in the folder."""
    reading = work.reading
    is_csv = work.files[0].kind == "csv"
    text_field, limits = reading.fields.text, reading.limits
    total = sum(part.num_bytes for part in parts)
    done = 0

    def tell(num_bytes: int) -> None:
        progress("write", done + num_bytes, total, "bytes")

    with (
        table_writer(path, target) if target is not None else line_writer(path, work.out.name)
    ) as write:
        if is_csv:
            write(header_bytes(work.files, text_field, limits))
        for part, is_kept in zip(parts, _masks(rows, pairs), strict=True):
            tell(0)
            kept = (
                kept_batches(part, is_kept, target)
                if target is not None
                else kept_records(part, is_kept, text_field, limits, tell)
                if is_csv
                else kept_lines(part, is_kept, limits, tell)
            )
            for piece in kept:
                write(piece)
            done += part.num_bytes
    tell(0)


def _masks(rows: ReadRows, pairs: pa.Table) -> Iterator[NDArray[np.bool_]]:
    """Which rows of each part stay."""
    stays = _stays(rows, pairs["id"])
    numbers = rows.identities(["row"])["row"].to_numpy()
    begin = 0
    for count, num_documents in zip(rows.counts, rows.documents, strict=True):
        mine = slice(begin, begin + num_documents)
        mask = np.zeros(count, np.bool_)
        mask[numbers[mine]] = stays[mine]
        begin += num_documents
        yield mask


def _stays(rows: ReadRows, removed: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Whether each document is not among the removed ones, in order of the input."""
    ids = rows.identities(["id"])["id"]
    return pc.invert(pc.is_in(ids, removed.combine_chunks())).to_numpy()


def _first_rows(parts: Sequence[Part], counts: Sequence[int]) -> list[int]:
    """Number of each part's first row in its file, as people count."""
    first_rows: list[int] = []
    for number, part in enumerate(parts):
        if number and parts[number - 1].file == part.file:
            first_rows.append(first_rows[-1] + counts[number - 1])
        else:
            first_rows.append(part.file.first_row)
    return first_rows


def _gather_rejected(parts: Sequence[Part], first_rows: Sequence[int], folder: Path) -> int:
    """Write the bad rows of all parts as one file, with file and row; gives their number."""
    count = 0
    with (folder / "rejected").open("wb") as target:
        for path in sorted(folder.glob("*.bad")):
            with path.open("rb") as lines:
                for line in lines:
                    bad = orjson.loads(line)
                    part = bad.pop("part")
                    row = first_rows[part] + bad.pop("row")
                    place = {"file": parts[part].file.name, "row": row}
                    target.write(orjson.dumps(place | bad) + b"\n")
                    count += 1
    return count


# --- files -------------------------------------------------------------------------------------


def _publish(made: Sequence[tuple[Path, Path]]) -> None:
    """Give finished files their names, the first one last."""
    for source, target in reversed(made):
        disk = Disk(target.parent, lambda operation, path: None)
        inode = None
        try:
            with disk.writer(target.name) as temporary:
                shutil.move(source, temporary)  # a copy if it is another disk
                inode = temporary.stat().st_ino
        except LakeError as error:
            if target.exists() and target.stat().st_ino == inode:  # only its sync has failed
                warn(f"{target}: written, but may not survive a power cut: {error}")
                continue
            # Its words are of a lake, where 'gristmill gc' makes room; those of `_disk_in_plain_words` fit here.
            raise error.__cause__ or error from None


@contextmanager
def _folder_beside(out: Path) -> Iterator[Path]:
    """A folder of our own for the work, removed in the end; what a killed process left in it is removed first."""
    folder = out.parent / f".{out.name}.dedup"
    while True:
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), folder.stat()):
                break
        except BlockingIOError:
            os.close(descriptor)
            raise BusyError(
                f"{out}: another 'gristmill dedup' is writing it; wait for it, or stop it first"
            ) from None
        except FileNotFoundError:
            pass  # its holder has just removed it: make it anew
        os.close(descriptor)
    try:
        _empty(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


@contextmanager
def _disk_in_plain_words(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise GristmillError(
                f"{out}: the disk is full; beside OUT itself the work needs about the size of the texts and 600 bytes "
                "a document there until it is done: free some space, or give an OUT on a larger disk"
            ) from error
        raise_for_machine(error, error.filename or out)
        raise GristmillError(
            f"{error.filename or out}: cannot be read or written: {error.strerror or error}"
        ) from error


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    pa.default_memory_pool().release_unused()  # a third of a gigabyte for a million documents
    seconds[step] = time.perf_counter() - start
