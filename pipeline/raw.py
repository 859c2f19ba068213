"""A raw record, the limits it must keep, and gathering records into RAW batches: what every reader is made of.

A reader is a generator of `Row`. It never raises for what a file holds: a record that cannot be used is a row with
`error`, a file that goes wrong half way is a `Problem` among its chunks, and both end as quarantined documents. What is
sound but no document (an empty file, a picture in a web archive) is a skipped row: counted by reason, never a fault.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from pipeline.extract import ExtractConfig
from pipeline.stage import RAW
from storage.errors import ConfigError

SAMPLE_CHARACTERS = 2000
"""Characters of a bad record that are kept to show it; the rejects shards hold as many."""

BATCH_BYTES = 16 << 20
"""UTF-8 bytes of text after which a batch is full; one longer document is a batch of its own."""

BATCH_ROWS = 8192
"""Rows after which a batch is full, for corpora of very short texts."""


@dataclass(frozen=True, kw_only=True)
class ReadLimits:
    """How much one input may ask of this machine; what asks for more is quarantined, not read."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}

    max_document_bytes: int = 16 << 20
    """Bytes of one document, of its line or of its record, decompressed. The longest books are about 10 MB."""
    max_ratio: float = 500.0
    """Decompressed bytes for each compressed one, over a whole file. Real text reaches 100, a bomb 1,000 and more."""
    max_window_bytes: int = 128 << 20
    """Memory that a zstd or xz stream may ask for to be decompressed; zstd's and xz's own tools allow as much."""
    max_bad_records: int = 1000
    """Bad lines at the start of a JSONL or CSV file, without a good one, after which the rest of it is given up."""
    html: ExtractConfig = field(default_factory=ExtractConfig)
    """How text is taken out of HTML pages."""

    def __post_init__(self) -> None:
        for name in ("max_document_bytes", "max_bad_records"):
            if getattr(self, name) < 1:
                raise ConfigError(f"read.{name}: expected at least 1, got {getattr(self, name)}")
        if self.max_document_bytes > 1 << 30:
            raise ConfigError(
                f"read.max_document_bytes: expected at most {1 << 30} (1 GiB: a document is held in memory several "
                f"times), got {self.max_document_bytes}"
            )
        if self.max_ratio < 1:
            raise ConfigError(f"read.max_ratio: expected at least 1, got {self.max_ratio}")
        if self.max_window_bytes < 1 << 20:
            raise ConfigError(
                f"read.max_window_bytes: expected at least {1 << 20} (1 MiB: streams made with ordinary settings "
                f"need more), got {self.max_window_bytes}"
            )


class Row(NamedTuple):
    """One record: a document if `error` is None, else something to skip or to quarantine."""

    uri: str
    text: str | None = None
    license: str | None = None
    domain: str | None = None
    error: str | None = None
    detail: str | None = None
    is_skipped: bool = False


@dataclass(frozen=True)
class Problem:
    """What is wrong with the bytes of an input from here on; it travels among the chunks or lines it concerns."""

    rule: str
    """One snake_case word."""
    detail: str
    """What was expected, what came."""
    sample: bytes = b""
    """The beginning of what could not be used."""
    cuts_record: bool = True
    """False if everything before it is whole, so that an unfinished last line is still a line."""

    def row(self, uri: str) -> Row:
        """The problem as a quarantined record."""
        return bad_row(uri, self.rule, self.detail, self.sample)


def bad_row(uri: str, rule: str, detail: str, sample: bytes | str | None = None) -> Row:
    """A quarantined record, with the beginning of it as far as it can be shown."""
    if isinstance(sample, bytes):
        sample = sample[: 4 * SAMPLE_CHARACTERS].decode("utf-8", "replace")
    elif sample is not None:
        # Lone surrogates, which Arrow refuses.
        sample = sample[:SAMPLE_CHARACTERS].encode("utf-8", "replace").decode()
    text = sample[:SAMPLE_CHARACTERS] if sample else None
    return Row(uri, text, None, None, rule, detail.encode("utf-8", "backslashreplace").decode())


def skipped_row(uri: str, reason: str, detail: str) -> Row:
    """A record that is no document, and no fault of its file either."""
    return bad_row(uri, reason, detail)._replace(is_skipped=True)


# White space of all scripts, controls, and what else normalisation takes out of a text.
_BLANK = "".join(
    c for c in map(chr, range(0x3001)) if c.isspace() or c < " " or "\x7f" <= c < "\xa0"
)
_BLANK += "\ufeff\ufffe\uffff"


def document_row(
    uri: str, text: str, *, license: str | None = None, domain: str | None = None
) -> Row:
    """A good record, or a skipped one if there is no text in it."""
    if not text.strip(_BLANK):
        return skipped_row(uri, "empty", "expected text, got none or only white space and controls")
    return Row(uri, text, license, domain)


def gather_batches(rows: Iterable[Row]) -> Iterator[pa.RecordBatch]:
    """Yield the rows in order as RAW batches of about BATCH_BYTES of text. Memory: one batch, twice."""
    held: list[Row] = []
    num_bytes = 0
    for row in rows:
        # Characters stand for bytes where a string is ASCII; elsewhere UTF-8 takes at most 4 for one.
        size = 0 if row.text is None else len(row.text) * (1 if row.text.isascii() else 3)
        if held and (num_bytes + size > BATCH_BYTES or len(held) >= BATCH_ROWS):
            yield _to_batch(held)
            held, num_bytes = [], 0
        held.append(row)
        num_bytes += size
    if held:
        yield _to_batch(held)


def _to_batch(rows: list[Row]) -> pa.RecordBatch:
    columns = [pa.array([row[i] for row in rows], field.type) for i, field in enumerate(RAW)]
    return pa.RecordBatch.from_arrays(columns, schema=RAW)
