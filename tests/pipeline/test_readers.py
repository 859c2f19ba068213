"""Reading sound files: each format gives its documents, plain or compressed, with names that lead back to them."""

import bz2
import gzip
import json
import lzma
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.readers import (
    InputChangedError,
    ReadLimits,
    SourceConfig,
    find_inputs,
    fingerprint,
    read_input,
    read_rows,
)
from pipeline.row_csv import csv_rows
from pipeline.row_files import Fields, find_files, kind_of
from pipeline.row_lines import line_rows
from pipeline.row_scratch import cut_files
from pipeline.row_tables import table_rows
from pipeline.stage import RAW
from storage.errors import ConfigError, GristmillError

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def read(folder: Path, name: str, data: bytes, **source: Any) -> list[dict[str, Any]]:
    """Rows of one file of a folder, checked against what every reader promises."""
    (folder / name).write_bytes(data)
    config = SourceConfig(path=name, **source)
    (found,) = find_inputs(config, folder)
    batches = list(read_input(found, config, ReadLimits()))
    for batch in batches:
        assert batch.schema.equals(RAW)
        batch.validate(full=True)
    rows = pa.Table.from_batches(batches).to_pylist()
    assert rows
    assert len({row["uri"] for row in rows}) == len(rows)
    assert all((row["error"] is None) == (row["detail"] is None) for row in rows)
    return rows


def texts(rows: list[dict[str, Any]]) -> list[str]:
    assert [row["error"] for row in rows] == [None] * len(rows), rows
    return [row["text"] for row in rows]


@pytest.mark.parametrize("ending", COMPRESS)
def test_jsonl_gives_a_document_a_line(tmp_path: Path, ending: str) -> None:
    """Plain or compressed, blank lines left out, named by file and line."""
    data = b'{"text": "one"}\r\n\n{"text": "tw\\u00f6", "license": "MIT"}\n{"text": "three"}'
    rows = read(tmp_path, f"x.jsonl{ending}", COMPRESS[ending](data))
    assert texts(rows) == ["one", "tw\xf6", "three"]
    assert [row["uri"] for row in rows] == [f"x.jsonl{ending}:{n}" for n in (1, 3, 4)]
    assert [row["license"] for row in rows] == [None, "MIT", None]


@pytest.mark.parametrize("ending", COMPRESS)
def test_text_is_one_document(tmp_path: Path, ending: str) -> None:
    """A text file is one document, named by its path."""
    data = "Erster Absatz.\n\nZweiter: \u4e2d\u6587.\n".encode()
    (row,) = read(tmp_path, f"x.txt{ending}", COMPRESS[ending](data))
    assert (row["text"], row["uri"]) == (data.decode(), f"x.txt{ending}")


def test_text_can_be_cut_at_blank_lines(tmp_path: Path) -> None:
    """Each part holds at least split_bytes and ends at a blank line; the parts hold every line of the file."""
    stanzas = [f"stanza {i}\nof two lines" for i in range(20)]
    rows = read(tmp_path, "x.txt", "\n\n".join(stanzas).encode(), split_bytes=60)
    assert "\n\n".join(text.strip("\n") for text in texts(rows)) == "\n\n".join(stanzas)
    assert all(len(text.encode()) + 1 >= 60 for text in texts(rows)[:-1])
    assert [row["uri"] for row in rows][:2] == ["x.txt:1", "x.txt:10"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["x.jsonl", "x.txt", "x.csv"])
def test_byte_order_marks_are_believed(tmp_path: Path, name: str, encoding: str) -> None:
    """A file with a byte order mark reads like the same file in UTF-8."""
    data = {
        "x.jsonl": '{"text": "zw\xf6lf \U0001f600"}\n' * 3,
        "x.txt": "zw\xf6lf \U0001f600\n",
        "x.csv": "text\nzw\xf6lf \U0001f600\n",
    }[name]
    assert texts(read(tmp_path, name, data.encode(encoding))) == texts(
        read(tmp_path, name, data.encode())
    )


def test_named_encoding_is_used(tmp_path: Path) -> None:
    """A file without a mark is in the source's encoding; what it cannot hold costs only its own line."""
    data = '{"text": "zw\xf6lf"}\n'.encode("cp1252") + b'{"text": "\x81"}\n{"text": "ok"}\n'
    rows = read(tmp_path, "x.jsonl", data, encoding="cp1252")
    assert [(row["text"], row["error"]) for row in rows[::2]] == [("zw\xf6lf", None), ("ok", None)]
    assert rows[1]["error"] == "invalid_utf8"


def test_csv_fields_hold_quotes_lines_and_formulas(tmp_path: Path) -> None:
    """Quoted fields over many lines and fields longer than 128 KiB are read, formulas are only text."""
    long = "word " * 100_000
    data = f'id,text,license\r\n1,"a ""quoted""\nline",MIT\r\n\r\n2,=cmd(),\r\n3,"{long}",x\r\n'
    rows = read(tmp_path, "x.csv", data.encode())
    assert texts(rows) == ['a "quoted"\nline', "=cmd()", long]
    assert [row["uri"] for row in rows] == ["x.csv:2", "x.csv:5", "x.csv:6"]
    assert [row["license"] for row in rows] == ["MIT", None, "x"]


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
def test_csv_separator_is_found(tmp_path: Path, separator: str) -> None:
    """The separator is the one that makes the text a column of its own."""
    data = separator.join(["id", "text"]) + "\n" + separator.join(["1", "hello"]) + "\n"
    assert texts(read(tmp_path, "x.csv", data.encode())) == ["hello"]


TABLE = pa.table(
    {"text": ["one", "two", "dr\xe9i"], "license": ["MIT", None, "MIT"], "n": [1, 2, 3]}
)
TEXT_TYPES = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.dictionary(pa.int32(), pa.string()),
]


def as_arrow(
    table: pa.Table, path: Path, *, stream: bool = False, compression: str | None = None
) -> bytes:
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as file, make(file, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=2)
    return path.read_bytes()


def as_parquet(table: pa.Table, path: Path) -> bytes:
    pq.write_table(table, path, row_group_size=2)
    return path.read_bytes()


@pytest.mark.parametrize("type_", TEXT_TYPES, ids=str)
@pytest.mark.parametrize("form", ["file", "stream", "lz4", "parquet"])
def test_tables_give_a_document_a_row(tmp_path: Path, form: str, type_: pa.DataType) -> None:
    """Parquet and Arrow files give the text column's values, whatever type of string it has."""
    table = TABLE.set_column(0, "text", TABLE["text"].cast(type_))
    other = tmp_path / "made"
    if form == "parquet":
        rows = read(tmp_path, "x.parquet", as_parquet(table, other))
    else:
        compression = "lz4" if form == "lz4" else None
        rows = read(
            tmp_path,
            "x.arrow",
            as_arrow(table, other, stream=form == "stream", compression=compression),
        )
    name = "x.parquet" if form == "parquet" else "x.arrow"
    assert texts(rows) == ["one", "two", "dr\xe9i"]
    assert [row["uri"] for row in rows] == [f"{name}#{i}" for i in range(3)]
    assert [row["license"] for row in rows] == ["MIT", None, "MIT"]


def test_nothing_says_what_a_file_is_but_its_first_bytes(tmp_path: Path) -> None:
    """A table or an archive under any name is recognised when the reader is left to be guessed."""
    made = as_parquet(TABLE, tmp_path / "made")
    assert texts(read(tmp_path, "part-0000", made)) == ["one", "two", "dr\xe9i"]
    assert texts(read(tmp_path, "x.jsonl", gzip.compress(b'{"text": "a"}\n'))) == ["a"]
    assert texts(read(tmp_path, "x.jsonl.gz", b'{"text": "not compressed after all"}\n')) == [
        "not compressed after all"
    ]


def test_code_is_read_as_it_is(tmp_path: Path) -> None:
    """A source tree gives a document a file of known ending; hidden and vendored folders are left out."""
    for name in ("a.py", "sub/b.rs", ".git/c.py", "node_modules/d.js", "picture.png"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(b"def f():\n\treturn 1\n")
    source = SourceConfig(path="tree", reader="code")
    assert source.domain == "code"
    found = find_inputs(source, tmp_path)
    assert [item.uri for item in found] == ["tree/a.py", "tree/sub/b.rs"]
    (batch,) = read_input(found[0], source, ReadLimits())
    assert batch["text"].to_pylist() == ["def f():\n\treturn 1\n"]


def test_records_may_name_their_domain(tmp_path: Path) -> None:
    """domain_field fills the domain; a domain that is no name is refused, not used."""
    data = b'{"text": "a", "kind": "poetry"}\n{"text": "b"}\n{"text": "c", "kind": "../../x"}\n'
    rows = read(tmp_path, "x.jsonl", data, domain_field="kind")
    assert [(row["domain"], row["error"]) for row in rows] == [
        ("poetry", None),
        (None, None),
        (None, "bad_domain"),
    ]


HAS_LETTERS = st.text(st.characters(codec="utf-8")).filter(lambda text: any(map(str.isalnum, text)))


@given(st.lists(HAS_LETTERS, min_size=1))
@settings(max_examples=40, deadline=None)
def test_jsonl_round_trip(tmp_path_factory: pytest.TempPathFactory, documents: list[str]) -> None:
    """Any texts come back as they were, escaped or not, compressed or not."""
    folder = tmp_path_factory.mktemp("round")
    lines = [
        json.dumps({"text": text}, ensure_ascii=i % 2 == 0) for i, text in enumerate(documents)
    ]
    data = "\n".join(lines).encode()
    assert texts(read(folder, "x.jsonl", data)) == documents
    assert texts(read(folder, "x.jsonl.zst", zstandard.compress(data))) == documents


def test_batches_are_bounded(tmp_path: Path) -> None:
    """No batch holds much more than 16 MiB of text, unless a single document does."""
    line = json.dumps({"text": "x" * 1_000_000}).encode() + b"\n"
    (tmp_path / "x.jsonl").write_bytes(line * 40)
    source = SourceConfig(path="x.jsonl")
    batches = list(read_input(find_inputs(source, tmp_path)[0], source, ReadLimits()))
    assert sum(len(batch) for batch in batches) == 40
    assert all(batch["text"].nbytes < 17 << 20 for batch in batches)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": " "}, "an empty string"),
        ({"path": "https://me:secret@example.org/x"}, "expected `path` to be local, got a URL"),
        ({"path": "x", "domain": "../x"}, "expected `domain` of lower-case letters"),
        ({"path": "x", "reader": "text", "text_field": "body"}, "`text_field` has no effect"),
        ({"path": "x", "encoding": "utf-9"}, "expected `encoding` to be a text encoding"),
        ({"path": "x", "encoding": "rot13"}, "expected `encoding` to be a text encoding"),
        ({"path": "x", "reader": "parquet", "encoding": "latin-1"}, "`encoding` has no effect"),
        ({"path": "x", "reader": "jsonl", "split_bytes": 5}, "`split_bytes` has no effect"),
        ({"path": "x", "split_bytes": -1}, "`split_bytes` of at least 0"),
    ],
)
def test_wrong_sources_are_refused(fields: dict[str, Any], message: str) -> None:
    """What cannot be meant is said at once, in the recipe's words."""
    with pytest.raises(ConfigError, match=message) as caught:
        SourceConfig(**fields)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_document_bytes": 0}, "read.max_document_bytes: expected at least 1"),
        ({"max_document_bytes": 1 << 40}, "at most 1073741824"),
        ({"max_ratio": 0.5}, "read.max_ratio: expected at least 1"),
        ({"max_window_bytes": 1}, "read.max_window_bytes"),
    ],
)
def test_wrong_limits_are_refused(fields: dict[str, Any], message: str) -> None:
    """Limits that no file could keep, or no machine hold, are refused."""
    with pytest.raises(ConfigError, match=message):
        ReadLimits(**fields)


@pytest.mark.parametrize(
    ("data", "error", "hint"),
    [
        (b'[{"text":"a"},{"text":"b"}]', "not_an_object", "got an array; `jq -c '.[]'`"),
        (b'[{"text":"a"},\n{"text":"b"}]', "not_json_lines", "`jq -c '.[]'`"),
        (b'{\n  "text": "a"\n}\n{\n  "text": "b"\n}\n', "not_json_lines", "`jq -c .`"),
        (b'{"text": "a",\n"n": 1}\n', "not_json_lines", "spread over lines"),
        (b'{"text":"a"},\n', "bad_json", "a comma or bracket of an array follows it"),
        (b'{"text":"a"}{"text":"b"}\n', "bad_json", "another value follows it"),
    ],
)
def test_json_that_is_not_lines_says_what_rewrites_it(
    data: bytes, error: str, hint: str, tmp_path: Path
) -> None:
    """Arrays, objects over lines, commas between lines, values one after another."""
    row = read(tmp_path, "a.json", data)[0]
    assert row["error"] == error
    assert hint in row["detail"]


MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", MARK + b'{"text":"a"}\r\n' + MARK + b'{"text":"b"}'),
        ("a.csv", MARK + b"id,text\r\n1,a\r\n" + MARK + b"id,text\r\n2,b\r\n"),
        ("a.csv", b"sep=;\r\nid;text\r\n1;a\r\n2;b\r\n"),
        ("a.csv", b'"sep=;"\nid;text\n1;a\n2;b'),
        ("a.csv", MARK + b"SEP=^\nid^text\n1^a\n2^b\n"),
        ("a.csv", b'"id";"text"\n"1";"a"\n"2";"b"\n'),
        ("a.tsv", "\ufeffid\ttext\r\n1\ta\r\n2\tb\r\n".encode("utf-16-le")),
        ("a.csv", b'"i\nd",text\n1,a\n2,b\n'),
    ],
)
def test_files_as_excel_and_cat_leave_them(name: str, data: bytes, tmp_path: Path) -> None:
    """Separators that a first line names, quoted headers, UTF-16, byte order marks and headers inside of joined files."""
    assert texts(read(tmp_path, name, data)) == ["a", "b"]


@contextmanager
def no_more_files() -> Iterator[None]:
    """As many files are open as this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(held[0] + 1, 3), hard))
    try:
        with suppress(OSError):
            while True:
                held.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.csv", "a.parquet", "a.arrow"])
def test_too_many_open_files_are_no_damage(name: str, tmp_path: Path) -> None:
    """Files are opened again and again: what fails then is this process, and no sound input is quarantined for it."""
    path = tmp_path / name
    table = pa.table({"text": ["a"]})
    if name.endswith(".parquet"):
        pq.write_table(table, path)
    elif name.endswith(".arrow"):
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        path.write_bytes({"a.jsonl": b'{"text":"a"}\n', "a.csv": b"text\na\n"}.get(name, b"a\n"))
    config = SourceConfig(path=name)
    [found] = find_inputs(config, tmp_path)
    kind = kind_of(path)
    assert kind is not None
    work = cut_files(find_files([str(path)], kind), "text", ReadLimits())[0]
    first = {"parquet": table_rows, "arrow": table_rows, "csv": csv_rows}.get(kind, line_rows)
    for attempt in (
        lambda: list(read_input(found, config, ReadLimits())),
        lambda: fingerprint(path),
        lambda: find_inputs(SourceConfig(path="."), tmp_path),
        lambda: list(first(work, Fields(), ReadLimits())),
    ):
        with (
            no_more_files(),
            pytest.raises(GristmillError, match="too many open files; raise 'ulimit -n'"),
        ):
            attempt()
        attempt()


def changed_while_read(path: Path, source: SourceConfig, data: bytes) -> list[str]:
    """Texts that come out of a file that is written over, in place, after its first record was read."""
    (found,) = find_inputs(source, path.parent)
    seen = fingerprint(path)
    rows = read_rows(found, source, ReadLimits(), seen)
    texts = [next(rows).text]
    with path.open("r+b") as file:
        file.write(data)
    return [*texts, *(row.text for row in rows)]


def test_bytes_that_change_while_they_are_read_are_told(tmp_path: Path) -> None:
    """Of text the bytes that were used are hashed, of a table what lies there afterwards, with the file's times."""
    lines = b"".join(b'{"text": "%s %07d"}\n' % (b"x" * 200, n) for n in range(20_000))
    (tmp_path / "a.jsonl").write_bytes(lines)
    with pytest.raises(InputChangedError, match="not those that were found"):
        changed_while_read(
            tmp_path / "a.jsonl", SourceConfig(path="a.jsonl"), lines.replace(b"x 0", b"y 0")
        )
    (tmp_path / "a.jsonl").write_bytes(lines)
    # What is written over bytes that were used already changes nothing of what was read.
    texts = changed_while_read(tmp_path / "a.jsonl", SourceConfig(path="a.jsonl"), b"other")
    assert len(texts) == 20_000
    table = pa.table({"text": [f"{n} text" for n in range(50)]})
    pq.write_table(table, tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    source = SourceConfig(path="a.parquet")
    (found,) = find_inputs(source, tmp_path)
    rows = read_rows(found, source, ReadLimits(), fingerprint(tmp_path / "a.parquet"))
    assert len(list(rows)) == 50
    with pytest.raises(InputChangedError):
        changed_while_read(tmp_path / "a.parquet", source, data[:9] + b"\0" + data[10:])


def test_a_file_is_read_as_far_as_it_was_found(tmp_path: Path) -> None:
    """What is appended afterwards is no part of it; what is missing afterwards makes it another file."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "one"}\n')
    source = SourceConfig(path="a.jsonl")
    (found,) = find_inputs(source, tmp_path)
    seen = fingerprint(path)
    with path.open("ab") as file:
        file.write(b'{"text": "two"}\n')
    assert [row.text for row in read_rows(found, source, ReadLimits(), seen)] == ["one"]
    assert fingerprint(path, found.num_bytes) == seen != fingerprint(path)
    path.write_bytes(b'{"text":')
    with pytest.raises(InputChangedError):
        list(read_rows(found, source, ReadLimits(), seen))
    path.unlink()
    with pytest.raises(InputChangedError, match="No such file"):
        list(read_rows(found, source, ReadLimits(), seen))
