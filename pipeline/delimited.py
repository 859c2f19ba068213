"""Records out of CSV (RFC 4180): quoted fields over many lines, and going on after a quote that never closes."""

import csv
from collections.abc import Iterator

from pipeline.formats import Lines, has_surrogates, row_from_fields
from pipeline.raw import Problem, ReadLimits, Row, bad_row
from pipeline.source_config import SourceConfig


def read_csv(lines: Lines, uri: str, source: SourceConfig, limits: ReadLimits) -> Iterator[Row]:
    """Yield a document a record, uri `file:line` of its first line; the first record names the columns.

    The separator is the one of `, tab ; |` that makes `text_field` a column. An open quote swallows what follows: then
    the record's first line is bad and reading goes on with the next one. Memory: limits.max_document_bytes.
    """
    # A limit of the whole process, and too low for texts (128 KiB); the lines are bounded here.
    csv.field_size_limit(limits.max_document_bytes)
    feed = _CsvLines(lines, limits.max_document_bytes)
    columns: list[str] | None = None
    delimiter = ","
    num_recoveries = 0
    while True:
        record, failure, stopped = _next_record(feed, delimiter)
        if feed.taken:
            number, line = feed.taken[0]
            where = f"{uri}:{number}"
            if failure:
                yield bad_row(where, "bad_csv", f"expected a CSV record, got: {failure}", line)
                num_recoveries += 1
                if num_recoveries <= _RECOVERIES and stopped is None:
                    feed.give_back()
            elif columns is None and record:
                delimiter, columns = _header(line, source.text_field)
                if source.text_field not in columns:
                    yield _no_text_column(where, columns, source, line)
                    return
            elif columns is not None and record:
                yield _record_row(record, columns, where, source)
        if stopped is not None:
            yield stopped[1].row(f"{uri}:{stopped[0]}")
        elif not feed.taken:
            return


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


def _header(line: bytes, text_field: str) -> tuple[str, list[str]]:
    """Give (separator, names of the columns)."""
    text = line.decode("utf-8", "replace")
    names: list[str] = []
    for delimiter in ",\t;|":
        names = [name.strip() for name in next(csv.reader([text], delimiter=delimiter), [])]
        if text_field in names:
            return delimiter, names
    return ",", [name.strip() for name in next(csv.reader([text]), [])]


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
