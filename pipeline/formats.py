"""Records out of UTF-8 text: whole texts and JSON lines. Each function takes bytes or lines and gives `Row`s."""

import json
from collections.abc import Iterator
from typing import Any

import orjson

from pipeline.fields import NoField, field_or_none, field_path, find_field, type_name
from pipeline.raw import Problem, ReadLimits, Row, bad_row, document_row
from pipeline.source_config import SourceConfig, is_domain

Lines = Iterator[tuple[int, bytes | Problem]]


def read_text(chunks: Iterator[bytes | Problem], uri: str, limits: ReadLimits) -> Iterator[Row]:
    """Yield a whole file as one document."""
    held: list[bytes] = []
    num_bytes = 0
    for chunk in chunks:
        if isinstance(chunk, Problem):
            yield Problem(chunk.rule, chunk.detail, b"".join(held)[:8000]).row(uri)
            return
        held.append(chunk)
        num_bytes += len(chunk)
        if num_bytes > limits.max_document_bytes:
            yield bad_row(
                uri,
                "too_long",
                f"expected a text of at most {limits.max_document_bytes} bytes, got more; set `split_bytes` for the "
                "source to cut it into documents, or raise read.max_document_bytes",
                b"".join(held)[:8000],
            )
            return
    yield _decoded_row(b"".join(held), uri, 1)


def read_text_in_parts(
    lines: Lines, uri: str, split_bytes: int, limits: ReadLimits
) -> Iterator[Row]:
    """Yield documents of at least `split_bytes`, cut where a blank line follows; the last may be shorter."""
    held: list[bytes] = []
    num_bytes = 0
    first = 1
    for number, line in lines:
        if isinstance(line, Problem):
            if held:
                yield from _part(held, uri, first)
            yield line.row(f"{uri}:{number}")
            held, num_bytes, first = [], 0, number + 1
            continue
        if not held:
            first = number
        is_blank = not line or line.isspace()
        if not held and is_blank:
            continue
        held.append(line)
        num_bytes += len(line) + 1
        if (is_blank and num_bytes >= split_bytes) or num_bytes > limits.max_document_bytes // 2:
            yield from _part(held, uri, first)
            held, num_bytes = [], 0
    if held:
        yield from _part(held, uri, first)


def _part(lines: list[bytes], uri: str, first: int) -> Iterator[Row]:
    data = b"\n".join(lines)
    if data and not data.isspace():
        yield _decoded_row(data, f"{uri}:{first}", first)


def _decoded_row(data: bytes, uri: str, first_line: int) -> Row:
    if problem := binary_problem(data):
        return problem.row(uri)
    try:
        return document_row(uri, data.decode())
    except UnicodeDecodeError as error:
        return bad_row(uri, "invalid_utf8", describe_utf8_error(data, error, first_line), data)


def describe_utf8_error(data: bytes, error: UnicodeDecodeError, first_line: int) -> str:
    """Say where `data`, which begins in line `first_line`, stops being UTF-8."""
    line = first_line + data.count(b"\n", 0, error.start)
    return (
        f"expected UTF-8, got the byte 0x{data[error.start]:02x} at offset {error.start} (line {line}); name the "
        "source's `encoding` if it is another"
    )


def binary_problem(data: bytes) -> Problem | None:
    """A Problem if bytes that should be text are not: more than 1 % control characters in the first 64 KiB."""
    head = data[: 1 << 16]
    controls = len(head) - len(head.translate(None, _CONTROLS))
    if controls * 100 <= len(head):
        return None
    detail = f"expected text, got {controls} control characters in the first {len(head)} bytes"
    if head.count(0) * 3 > len(head):
        detail += "; it looks like UTF-16 without a byte order mark: set `encoding` for the source"
    return Problem("binary", detail, data[:8000])


# All below space but tab, LF, VT, FF, CR and ESC, which texts do hold.
_CONTROLS = bytes(i for i in range(32) if i not in (9, 10, 11, 12, 13, 27))


def read_jsonl(lines: Lines, uri: str, source: SourceConfig) -> Iterator[Row]:
    """Yield a document a line; blank lines are none. Of a key that occurs twice the meaning is unknown: refused."""
    is_first = True
    for number, line in lines:
        where = f"{uri}:{number}"
        if isinstance(line, Problem):
            yield line.row(where)
            continue
        if not line or line.isspace():
            continue
        if is_first and line.strip() in (b"[", b"{", b"[{"):
            yield bad_row(
                uri,
                "not_json_lines",
                "expected one JSON object a line, got JSON spread over lines; `jq -c '.[]'` or `jq -c .` rewrites it",
                line,
            )
            return
        is_first = False
        yield _json_row(line, where, source)


def _json_row(line: bytes, where: str, source: SourceConfig) -> Row:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        record = _parse_again(line, error)
    if isinstance(record, Problem):
        return record.row(where)
    if not isinstance(record, dict):
        return bad_row(
            where, "not_an_object", f"expected a JSON object, got {type_name(record)}", line
        )
    if (key := repeated_key(line, record, source.text_field)) is not None:
        return bad_row(
            where, "duplicate_key", f"expected the field {key!r} once, got it again", line
        )
    return row_from_fields(record, where, source, sample=line)


def row_from_fields(
    record: dict[str, Any], where: str, source: SourceConfig, sample: bytes | str | None = None
) -> Row:
    """The row of a record with named fields; `sample` shows it if it is bad."""
    try:
        text = find_field(record, source.text_field)
    except NoField as error:
        return bad_row(where, "missing_text", str(error), sample)
    if not isinstance(text, str):
        rule = "missing_text" if text is None else "wrong_type"
        detail = f"expected a string in the field {source.text_field!r}, got {type_name(text)}"
        return bad_row(where, rule, detail, sample)
    if has_surrogates(text):
        return bad_row(
            where, "lone_surrogate", "expected Unicode text, got half of a surrogate pair", text
        )
    license_ = field_or_none(record, source.license_field)
    domain = field_or_none(record, source.domain_field)
    if domain is not None and not (isinstance(domain, str) and is_domain(domain)):
        return bad_row(
            where,
            "bad_domain",
            f"expected lower-case letters, digits, - and _ in {source.domain_field!r}, got {str(domain)[:80]!r}",
            text,
        )
    if not isinstance(license_, str) or not license_.strip() or has_surrogates(license_):
        license_ = None
    return document_row(where, text, license=license_ and license_[:200], domain=domain)


def has_surrogates(text: str) -> bool:
    """Whether a string holds lone surrogates, which no UTF-8 and no Arrow array can."""
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _parse_again(line: bytes, first_error: orjson.JSONDecodeError) -> Any:
    """The value of a line that orjson refused: NaN, Infinity and integers of any length are sound elsewhere in it."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return Problem(
            "invalid_utf8",
            describe_utf8_error(line, error, 1).replace(" (line 1)", ""),
            line[:8000],
        )
    try:
        # float: Python refuses integers of more than 4,300 digits, and no number here is a text.
        return json.loads(text, parse_int=float)
    except RecursionError:
        return Problem(
            "nested_too_deep", "expected at most 1,000 levels of brackets, got more", line[:8000]
        )
    except ValueError:
        return Problem("bad_json", f"expected a JSON object, got: {first_error}", line[:8000])


def repeated_key(line: bytes, record: dict[str, Any], name: str) -> str | None:
    """The first key on the way to a field that its object holds more than once, which a parser does not tell."""
    try:
        steps = field_path(record, name)
    except NoField:
        return None
    # A key that occurs once in the line cannot be there twice; more occurrences may also lie deeper, or in a text.
    keys = (json.dumps(step, ensure_ascii=False).encode("utf-8", "surrogatepass") for step in steps)
    if all(line.count(key) == 1 for key in keys):
        return None
    try:
        pairs = json.loads(line, object_pairs_hook=_Pairs, parse_int=float)
    except (ValueError, RecursionError):
        return None
    for step in steps:
        values = [value for key, value in pairs if key == step]
        if len(values) > 1:
            return step
        pairs = values[0]
    return None


class _Pairs(list[tuple[str, Any]]):
    """The keys and values of an object as they stand."""
