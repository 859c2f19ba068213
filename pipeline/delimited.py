"""Records out of CSV (RFC 4180): quoted fields over many lines, and going on after a quote that never closes."""

import csv
import re
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from pipeline.formats import Lines, has_surrogates, row_from_fields
from pipeline.raw import Problem, ReadLimits, Row, bad_row
from pipeline.source_config import SourceConfig


class CsvRecord(NamedTuple):
    """One record of a CSV file; the first one that comes names the columns."""

    number: int
    """Of its first line in the file, from 1."""
    fields: list[str]
    """Empty for a blank line, and for what is no record."""
    lines: list[bytes]
    """As they came, all that it took; of the header with the line `sep=;` before it."""
    problem: Problem | None = None
    """Why it is no record."""
    delimiter: str = ","


def csv_records(lines: Lines, max_bytes: int, text_field: str) -> Iterator[CsvRecord]:
    """Yield every record in order, every line in exactly one of them.

    The separator is the one that Excel's first line `sep=;` names, else the one of `, tab ; |` that makes `text_field` a
    column. An open quote swallows what follows: then the record's first line is bad and reading continues with the next
    one. A repeated header, as in files that were joined, is like a blank line. Memory: max_bytes.
    """
    # A limit of the whole process, and too low for texts (128 KiB); the lines are bounded here.
    csv.field_size_limit(max_bytes)
    feed = _CsvLines(lines, max_bytes)
    columns: list[str] = []
    before: list[bytes] = []
    named = ""
    delimiter = ","
    num_recoveries = 0
    while True:
        if not columns:
            first = feed.peek()
            if not before and (found := _SEPARATOR.fullmatch(first)):
                named, before = found[1].decode(), [first]
                next(feed)
            delimiter = _delimiter(feed.peek(), text_field, named)
        record, failure, stopped = _next_record(feed, delimiter)
        if feed.taken:
            number, line = feed.taken[0]
            taken = [line for _, line in feed.taken]
            if failure:
                num_recoveries += 1
                if num_recoveries <= _RECOVERIES and stopped is None:
                    feed.give_back()
                    del taken[1:]
                problem = Problem("bad_csv", f"expected a CSV record, got: {failure}", line)
                yield CsvRecord(number, [], taken, problem)
            elif not columns and record:
                columns = [name.strip() for name in record]
                yield CsvRecord(number, columns, [*before, *taken], delimiter=delimiter)
            else:
                is_header = [name.strip() for name in record] == columns
                yield CsvRecord(number, [] if is_header else record, taken)
        if stopped is not None:
            yield CsvRecord(stopped[0], [], [], stopped[1])
        elif not feed.taken:
            return


def read_csv(lines: Lines, uri: str, source: SourceConfig, limits: ReadLimits) -> Iterator[Row]:
    """Yield a document a record, uri `file:line` of its first line; memory: limits.max_document_bytes."""
    columns: list[str] = []
    for record in csv_records(lines, limits.max_document_bytes, source.text_field):
        where = f"{uri}:{record.number}"
        if record.problem:
            yield record.problem.row(where)
        elif not columns:
            columns = record.fields
            if source.text_field not in columns:
                yield _no_text_column(where, columns, source, b"\n".join(record.lines))
                return
        elif record.fields:
            yield _record_row(record.fields, columns, where, source)


def _next_record(
    feed: "_CsvLines", delimiter: str
) -> tuple[list[str], str, tuple[int, Problem] | None]:
    """Give (fields, what is wrong with them or "", the line that could not be read after them)."""
    feed.start()
    try:
        record, failure = next(csv.reader(feed, delimiter=delimiter, strict=True)), ""
    except StopIteration:
        record, failure = [], ""
    except csv.Error as error:
        record, failure = [], str(error)
    return record, failure, feed.take_problem()


def _record_row(record: list[str], columns: list[str], where: str, source: SourceConfig) -> Row:
    if len(record) != len(columns):
        return bad_row(
            where,
            "wrong_columns",
            f"expected {len(columns)} fields, got {len(record)}",
            " | ".join(record),
        )
    fields = dict(zip(columns, record, strict=True))
    text = fields[source.text_field]
    if has_surrogates(text):
        sample = text.encode("utf-8", "surrogateescape")
        return bad_row(where, "invalid_utf8", "expected UTF-8, got other bytes", sample)
    return row_from_fields(fields, where, source, sample=text)


def _no_text_column(where: str, columns: list[str], source: SourceConfig, line: bytes) -> Row:
    names = ", ".join(name[:40] for name in columns[:8])
    return bad_row(
        where,
        "missing_text",
        f"expected a first line that names a column {source.text_field!r}, got: {names}; name the column in the "
        "source's `text_field`",
        line,
    )


def _delimiter(line: bytes, text_field: str, named: str) -> str:
    """The separator of a file that begins with the line: `named`, if it is not empty."""
    text = line.decode("utf-8", "replace")
    names = {d: next(csv.reader([text], delimiter=d), []) for d in named or ",\t;|"}
    most = max(names, key=lambda delimiter: len(names[delimiter]))
    return next((d for d in names if text_field in [name.strip() for name in names[d]]), most)


_SEPARATOR = re.compile(rb'"?sep=([^"\r\n])"?\r?', re.IGNORECASE)
"""The line by which Excel is told what separates the fields of a file."""

_RECOVERIES = 100
"""Open quotes in one file after which the lines they swallowed are no longer read again: bounds the time."""


class _CsvLines:
    """Lines for csv.reader as strings with their ends; those of the current record can be taken back."""

    def __init__(self, lines: Lines, max_bytes: int) -> None:
        self._lines = lines
        self._again: list[tuple[int, bytes]] = []
        self._max_bytes = max_bytes
        self.taken: list[tuple[int, bytes]] = []
        self.num_bytes = 0
        self._problem: tuple[int, Problem] | None = None

    def __iter__(self) -> "_CsvLines":
        return self

    def __next__(self) -> str:
        if self.num_bytes > self._max_bytes:
            raise StopIteration
        if self._again:
            number, line = self._again.pop()
        else:
            number, item = next(self._lines)
            if isinstance(item, Problem):
                self._problem = number, item
                raise StopIteration
            line = item
        self.taken.append((number, line))
        self.num_bytes += len(line) + 1
        # Bytes that are not UTF-8 become lone surrogates, which are refused in the row they end in.
        return line.decode("utf-8", "surrogateescape") + "\n"

    def peek(self) -> bytes:
        """The line that comes next; empty if none does."""
        if not self._again:
            for number, item in self._lines:
                if isinstance(item, Problem):
                    self._lines = chain([(number, item)], self._lines)
                else:
                    self._again.append((number, item))
                break
        return self._again[-1][1] if self._again else b""

    def start(self) -> None:
        """A new record begins."""
        self.taken = []
        self.num_bytes = 0

    def take_problem(self) -> tuple[int, Problem] | None:
        """The problem that ended the current record, with its line, once."""
        problem, self._problem = self._problem, None
        return problem

    def give_back(self) -> None:
        """All lines of the current record but its first will come again."""
        self._again.extend(reversed(self.taken[1:]))
