"""Files of rows as people have them (JSON lines, lines of text, CSV, Parquet, Arrow): read for texts, copied row by row.

What `row_lines.py`, `row_csv.py` and `row_tables.py` share. `gristmill dedup` reads each file twice: once for its texts, once for the
rows that stay, as they are. A file is cut into parts that can be read side by side. Unlike in a build, a file that is
damaged or not what its ending says ends the work with InputError, because a result that silently lacks half a file
helps nobody; a row that cannot be used is a `BadRow`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, cast

import pyarrow as pa

from pipeline.source_config import READER_ENDINGS, SourceConfig, inner_ending, show_path
from pipeline.sources import find_inputs
from storage.errors import ConfigError, InputError

Kind = Literal["jsonl", "text", "csv", "parquet", "arrow"]

KINDS: dict[Kind, str] = {
    "jsonl": "JSON lines",
    "text": "lines of text",
    "csv": "CSV",
    "parquet": "a Parquet table",
    "arrow": "an Arrow table",
}
"""What each kind is called in messages."""

TABLES: tuple[Kind, ...] = ("parquet", "arrow")
"""Kinds with columns: either can be written as the other."""

Tell = Callable[[int], None]
"""Told how many bytes of a part have been read."""


def tell_nobody(num_bytes: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True, kw_only=True)
class RowFile:
    """One input file, as it was when the work began."""

    path: Path
    name: str
    """The path as text that is safe to print."""
    kind: Kind
    num_bytes: int
    stamp: tuple[int, ...]
    """Device, inode, size and time of change: between two readings they must not change."""

    @property
    def first_row(self) -> int:
        """Number of its first row, for people: lines count from 1, CSV's header is row 1, rows of tables from 0."""
        return 0 if self.kind in TABLES else 2 if self.kind == "csv" else 1


@dataclass(frozen=True, kw_only=True)
class Part:
    """A piece of a file that can be read by itself: bytes, row groups or record batches from `begin` to `end`."""

    file: RowFile
    begin: int = 0
    end: int | None = None
    """None: the whole file, as a stream."""
    num_bytes: int
    """Bytes in the file, for the progress."""


class Fields(NamedTuple):
    """Where a row's text and name stand."""

    text: str = "text"
    id: str = "id"


class BadRow(NamedTuple):
    """A row that cannot be used."""

    row: int
    """Number from 0 in its batch, or part."""
    reason: str
    """One snake_case word."""
    detail: str
    """What was expected, what came."""
    record: bytes
    """The row as it stands in the file; of tables, its text as far as there is one."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Some consecutive rows of a part."""

    count: int
    """All of them: documents, bad rows and blank lines."""
    rows: Sequence[int]
    """Numbers of the documents, from 0 in this batch."""
    texts: pa.Array
    """Their texts (string or large_string), valid UTF-8."""
    names: pa.Array
    """Their ids as JSON (string); null where a row has none."""
    bad: Sequence[BadRow] = ()


def kind_of(path: Path) -> Kind | None:
    """The kind of rows that a file's ending promises, None if it promises none. Raises ConfigError for other kinds."""
    ending = inner_ending(path.name)
    for name, endings in READER_ENDINGS.items():
        if ending in endings:
            if name in KINDS:
                return cast(Kind, name)
            if name != "code":  # source code may well be lines of text
                raise ConfigError(
                    f"{show_path(path)}: expected .jsonl, .txt (a document a line), .csv, .parquet or .arrow, got {ending}; "
                    "convert it first"
                )
    return None


def find_files(patterns: Sequence[str], kind: Kind) -> list[RowFile]:
    """The files that paths, folders and globs name, in the order given, those of a folder or glob sorted; each once.

    Of a folder, files with an ending of the kind, at any depth. Raises InputError for what is not there or no readable
    file, ConfigError for a file of another kind (tables of both kinds go together).
    """
    found: dict[tuple[int, ...], RowFile] = {}
    for pattern in patterns:
        for path in _matches(pattern, kind):
            own = kind_of(path) or kind
            if own != kind and not (own in TABLES and kind in TABLES):
                raise ConfigError(
                    f"{show_path(path)}: expected {KINDS[kind]}, as OUT is to be, got {KINDS[own]}; give OUT the "
                    f"ending {inner_ending(path.name)}, or convert one of them first"
                )
            stamp = _stamp(path)
            file = RowFile(
                path=path.absolute(),
                name=show_path(path),
                kind=own,
                num_bytes=stamp[2],
                stamp=stamp,
            )
            found.setdefault(stamp[:2], file)
    return list(found.values())


def _matches(pattern: str, kind: Kind) -> list[Path]:
    try:
        source = SourceConfig(path=pattern, name="FILE", reader=kind)
        inputs = find_inputs(source, Path())
    except (ConfigError, InputError) as error:
        words = str(error).replace("source 'FILE': ", "").replace("sources: ", "")
        raise InputError(f"{show_path(pattern)}: {words}") from error
    for found in inputs:
        if found.problem:
            raise InputError(f"{found.uri}: {found.detail}")
    return [found.path for found in inputs]


def _stamp(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def check_unchanged(file: RowFile) -> None:
    """Raise InputError if a file is not what it was."""
    try:
        is_same = _stamp(file.path) == file.stamp
    except OSError:
        is_same = False
    if not is_same:
        raise changed(file)


def changed(file: RowFile) -> InputError:
    """The error for a file that somebody writes to meanwhile."""
    return InputError(
        f"{file.name}: expected a file that stays as it is, but it changed while it was read; run the same command "
        "again when nobody writes to it"
    )


def damaged(file: RowFile, detail: str) -> InputError:
    """The error for a file that cannot be read to its end."""
    return InputError(
        f"{file.name}: {detail}; get a sound copy of it, or take out by hand what can be read: nothing was written"
    )
