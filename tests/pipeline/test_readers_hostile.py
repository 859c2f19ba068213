"""Reading files made to break readers: nothing raises, nothing blocks, nothing vanishes, and the good records come through."""

import bz2
import gzip
import io
import json
import lzma
import os
import random
import resource
import socket
import subprocess
import sys
import tempfile
import textwrap
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pipeline.readers import FoundInput, ReadLimits, SourceConfig, find_inputs, read_input
from pipeline.stage import RAW

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "zst": zstandard.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}


def read_found(found: FoundInput, source: SourceConfig, limits: ReadLimits) -> list[dict[str, Any]]:
    """All rows of an input, checked against what every reader promises."""
    rows = []
    for batch in read_input(found, source, limits):
        assert batch.schema.equals(RAW)
        batch.validate(full=True)
        rows += batch.to_pylist()
    assert rows
    assert len({row["uri"] for row in rows}) == len(rows)
    for row in rows:
        assert (row["error"] is None) == (row["detail"] is None)
        assert row["error"] or row["text"].strip()
        assert row["error"] is None or len(row["text"] or "") <= 2000
    return rows


def read(
    folder: Path, name: str, data: bytes, limits: ReadLimits | None = None, **source: Any
) -> list[dict[str, Any]]:
    (folder / name).write_bytes(data)
    config = SourceConfig(path=name, **source)
    (found,) = find_inputs(config, folder)
    return read_found(found, config, limits or ReadLimits())


def outcome(rows: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    """(place behind the file's name, error) of each row."""
    return [(row["uri"].partition(":")[2], row["error"]) for row in rows]


BAD_LINES = {
    b'{"text": "caf\xe9"}': "invalid_utf8",
    b'{"text": "half a pair \\ud800"}': "lone_surrogate",
    b'{"text": "raw \x00 NUL"}': "bad_json",
    b'{"text": ': "bad_json",
    b"not json": "bad_json",
    b"3": "not_an_object",
    b'"a string"': "not_an_object",
    b"null": "not_an_object",
    b'["text"]': "not_an_object",
    b"[" * 200_000: "nested_too_deep",
    b'{"a":' * 200_000 + b"1" + b"}" * 200_000: "nested_too_deep",
    b'{"text": "x", "deep": ' + b"[" * 200_000 + b"]" * 200_000 + b"}": "nested_too_deep",
    b"{}": "missing_text",
    b'{"text": null}': "missing_text",
    b'{"Text": "another field"}': "missing_text",
    b'{"text": 5}': "wrong_type",
    b'{"text": ["x"]}': "wrong_type",
    b'{"text": NaN}': "wrong_type",
    b'{"text": "one", "text": "two"}': "duplicate_key",
    b'{"text": ""}': "empty",
    b'{"text": " \\n\\t"}': "empty",
    b'{"text": "\\u0000\\u001f\\ufeff\\u3000"}': "empty",
}


@pytest.mark.parametrize(("line", "rule"), BAD_LINES.items(), ids=lambda value: str(value)[:30])
def test_a_bad_line_costs_only_itself(tmp_path: Path, line: bytes, rule: str) -> None:
    """The lines around it are documents, and it is named by file and line."""
    rows = read(tmp_path, "x.jsonl", b'{"text": "before"}\n' + line + b'\n{"text": "after"}\n')
    assert outcome(rows) == [("1", None), ("2", rule), ("3", None)]


@pytest.mark.parametrize(
    "line",
    [
        b'{"text": "fine", "score": NaN, "other": -Infinity}',
        b'{"text": "fine", "number": ' + b"9" * 5000 + b"}",
        b'{"text": "fine", "meta": {"text": "another"}}',
        b'{"text": "fine", "note": "\\"text\\": \\"text\\""}',
        b'{"text": "fine", "license": 7}',
        b'{"text": "fine", "license": "half \\ud800"}',
    ],
)
def test_what_is_odd_elsewhere_in_a_record_costs_nothing(tmp_path: Path, line: bytes) -> None:
    """NaN, 5,000-digit integers and nested fields of the same name leave the text usable, if only by a second parser."""
    (row,) = read(tmp_path, "x.jsonl", line)
    expected = "lone_surrogate" if b"ud800" in line else None
    assert (row["error"], row["text"] if expected is None else "fine") == (None, "fine") or expected


def test_line_separators_of_unicode_are_no_line_ends(tmp_path: Path) -> None:
    """U+2028, U+2029, NEL, form feed and a lone CR lie inside records."""
    text = "a\u2028b\u2029c\u0085d\x0ce\rf"
    data = json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n"
    assert [row["text"] for row in read(tmp_path, "x.jsonl", data)] == [text]


def test_utf16_without_a_mark_is_named(tmp_path: Path) -> None:
    """The message says which option reads the file."""
    rows = read(tmp_path, "x.txt", "plain words".encode("utf-16-le"))
    assert rows[0]["error"] == "binary"
    assert "UTF-16" in rows[0]["detail"]
    assert read(tmp_path, "x.txt", "plain words".encode("utf-16-le"), encoding="utf-16-le")[0][
        "text"
    ]


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"", "empty"),
        (b"\n\n \n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (bytes(range(256)) * 50, "binary"),
        (b"good text, then \xff\xfe\n", "invalid_utf8"),
        (b"PK\x03\x04" + b"\0" * 100, "unsupported_type"),
        (b"%PDF-1.7\n1 0 obj", "unsupported_type"),
        (b"name.txt" + b"\0" * 249 + b"ustar\x0000" + b"\0" * 300, "unsupported_type"),
    ],
)
def test_files_that_are_no_text(tmp_path: Path, data: bytes, rule: str) -> None:
    """One row says why the file is no document."""
    for name in ("x.txt", "x.md", "noending"):
        assert [row["error"] for row in read(tmp_path, name, data)] == [rule]


def test_one_control_character_is_no_binary(tmp_path: Path) -> None:
    """A stray NUL leaves a text a text; normalisation takes it out."""
    assert read(tmp_path, "x.txt", b"some words " * 40 + b"\0 and more")[0]["error"] is None


def _line(number: int) -> bytes:
    words = random.Random(number).randbytes(1000).hex(" ", 4)
    return json.dumps({"text": f"document {number} {words}"}).encode() + b"\n"


LINES = b"".join(map(_line, range(200)))
"""450 kB of JSON lines that do not compress much: several blocks in any format but bzip2."""


@pytest.mark.parametrize("kind", COMPRESS)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.95])
def test_a_cut_archive_gives_what_came_before(tmp_path: Path, kind: str, share: float) -> None:
    """The records before the cut are documents, in order, and one row tells of the cut (all of this is one block of bzip2)."""
    packed = COMPRESS[kind](LINES)
    rows = read(tmp_path, f"x.jsonl.{kind}", packed[: int(len(packed) * share)])
    assert [row["error"] for row in rows] == [None] * (len(rows) - 1) + ["truncated_archive"]
    expected = [json.loads(line)["text"] for line in LINES.splitlines()]
    assert [row["text"] for row in rows[:-1]] == expected[: len(rows) - 1]
    if kind != "bz2":
        assert len(rows) > 200 * share - 70


@pytest.mark.parametrize("kind", COMPRESS)
def test_a_damaged_archive_says_so(tmp_path: Path, kind: str) -> None:
    """Flipped bytes in the middle are found, by the format or by its checksum."""
    packed = bytearray(
        zstandard.ZstdCompressor(write_checksum=True).compress(LINES)
        if kind == "zst"
        else COMPRESS[kind](LINES)
    )
    for i in range(5):
        packed[len(packed) // 2 + i] ^= 0x55
    errors = [row["error"] for row in read(tmp_path, f"x.jsonl.{kind}", bytes(packed))]
    assert {"corrupt_archive", "truncated_archive"} & set(errors)


@pytest.mark.parametrize("kind", COMPRESS)
def test_members_in_a_row_are_one_file(tmp_path: Path, kind: str) -> None:
    """Also when a record begins in one member and ends in the next."""
    packed = b"".join(COMPRESS[kind](LINES[i : i + 9999]) for i in range(0, len(LINES), 9999))
    rows = read(tmp_path, f"x.jsonl.{kind}", packed)
    assert [row["error"] for row in rows] == [None] * 200


@pytest.mark.parametrize("kind", COMPRESS)
def test_garbage_behind_an_archive_is_reported(tmp_path: Path, kind: str) -> None:
    """All documents come through, also the last without a line end, and one row tells of the rest."""
    rows = read(tmp_path, f"x.jsonl.{kind}", COMPRESS[kind](LINES.rstrip()) + b"garbage behind it")
    assert [row["error"] for row in rows] == [None] * 200 + ["trailing_garbage"]


@pytest.mark.parametrize("kind", COMPRESS)
def test_an_archive_by_name_only(tmp_path: Path, kind: str) -> None:
    """Bytes that are neither the promised archive nor text are refused as a whole."""
    rows = read(tmp_path, f"x.jsonl.{kind}", random.Random(0).randbytes(5000).replace(b"\n", b" "))
    assert [row["error"] for row in rows] == ["corrupt_archive"]


def test_tiny_members_take_linear_time(tmp_path: Path) -> None:
    """20,000 gzip members of one line each are read in a second or two, not in minutes."""
    member = zlib.compressobj(1, zlib.DEFLATED, 31)
    packed = member.compress(b'{"text": "x"}\n') + member.flush()
    assert len(read(tmp_path, "x.jsonl.gz", packed * 20_000)) == 20_000


def test_padding_behind_an_archive_is_nothing(tmp_path: Path) -> None:
    """gzip and xz files may be padded with NUL bytes (tapes, block devices)."""
    assert len(read(tmp_path, "x.jsonl.gz", gzip.compress(LINES) + b"\0" * 1000)) == 200
    assert len(read(tmp_path, "x.jsonl.xz", lzma.compress(LINES) + b"\0" * 1000)) == 200


def bomb(kind: str, megabytes: int) -> bytes:
    """So many MiB of one letter."""
    packer = (
        zlib.compressobj(9, zlib.DEFLATED, 31)
        if kind == "gz"
        else zstandard.ZstdCompressor().compressobj()
    )
    return b"".join(packer.compress(b"A" * (1 << 20)) for _ in range(megabytes)) + packer.flush()


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_bombs_are_stopped(tmp_path: Path, kind: str) -> None:
    """600 MB of one character out of a small file are given up early, in little memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = bomb(kind, 600 if kind == "zst" else 200)
    rows = read(tmp_path, f"x.jsonl.{kind}", data)
    assert [row["error"] for row in rows] == ["bomb"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def test_a_bomb_behind_good_records_costs_no_record(tmp_path: Path) -> None:
    """What was read before the bomb went off is kept."""
    data = gzip.compress(b"".join(map(_line, range(9)))) + bomb("gz", 100)
    errors = [row["error"] for row in read(tmp_path, "x.jsonl.gz", data)]
    assert errors == [None] * 9 + ["bomb"]


def test_windows_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    """A zstd or xz stream that wants gigabytes to be unpacked is not given them."""
    limits = ReadLimits(max_window_bytes=1 << 20)
    parameters = zstandard.ZstdCompressionParameters(window_log=25, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = compressor.compress(LINES * 200) + compressor.flush()
    assert [row["error"] for row in read(tmp_path, "a.jsonl.zst", packed, limits)] == [
        "window_too_large"
    ]
    assert len(read(tmp_path, "b.jsonl.zst", packed)) == 200 * 200
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 32 << 20}]
    packed = lzma.compress(LINES, filters=filters)
    assert [row["error"] for row in read(tmp_path, "a.jsonl.xz", packed, limits)] == [
        "window_too_large"
    ]


@pytest.mark.parametrize("newline", [b"\n", b""])
def test_lines_beyond_the_limit_are_skipped(tmp_path: Path, newline: bytes) -> None:
    """A 64 MB line costs itself only, wherever it lies."""
    good = b'{"text": "good"}\n'
    long = b'{"text": "' + b"x" * (64 << 20) + b'"}'
    rows = read(tmp_path, "x.jsonl", good + long + newline + (good if newline else b""))
    assert outcome(rows) == [("1", None), ("2", "too_long"), *([("3", None)] if newline else [])]
    assert rows[1]["text"].startswith('{"text": "xxx')


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak")
def test_a_line_without_end_takes_little_memory(tmp_path: Path) -> None:
    """A sparse file of 256 MB is one line of NUL bytes, read by a process that stays below 300 MB."""
    with (tmp_path / "x.jsonl").open("wb") as file:
        file.truncate(1 << 28)
    code = """
        import sys, pathlib
        from pipeline.readers import ReadLimits, SourceConfig, find_inputs, read_input
        source = SourceConfig(path="x.jsonl")
        (found,) = find_inputs(source, pathlib.Path(sys.argv[1]))
        rows = [row for batch in read_input(found, source, ReadLimits()) for row in batch.to_pylist()]
        assert [row["error"] for row in rows] == ["too_long"], rows
        status = pathlib.Path("/proc/self/status").read_text()
        assert int(status.partition("VmHWM:")[2].split()[0]) < 300 << 10, status
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], check=True, timeout=120
    )


def test_a_text_beyond_the_limit_says_how_to_cut_it(tmp_path: Path) -> None:
    """One file too long for one document is refused, and cut into documents if the source says so."""
    limits = ReadLimits(max_document_bytes=10_000)
    data = b"a line of words\n\n" * 2000
    (row,) = read(tmp_path, "x.txt", data, limits)
    assert row["error"] == "too_long"
    assert "split_bytes" in row["detail"]
    assert len(read(tmp_path, "x.txt", data, limits, split_bytes=1000)) > 30


def test_json_over_many_lines_is_told_once(tmp_path: Path) -> None:
    """A pretty-printed array is one message with the remedy, not one for each line."""
    data = json.dumps([{"text": "a"}, {"text": "b"}], indent=2).encode()
    (row,) = read(tmp_path, "x.json", data)
    assert row["error"] == "not_json_lines"
    assert "jq" in row["detail"]


def test_a_file_of_another_kind_is_given_up(tmp_path: Path) -> None:
    """A JSONL source with a million lines of prose ends after max_bad_records, a good record keeps it going."""
    rows = read(tmp_path, "x.jsonl", b"prose\n" * 100_000, ReadLimits(max_bad_records=50))
    assert [row["error"] for row in rows] == ["bad_json"] * 50 + ["given_up"]
    rows = read(
        tmp_path, "x.jsonl", b'{"text": "a"}\n' + b"prose\n" * 100, ReadLimits(max_bad_records=50)
    )
    assert len(rows) == 101


def test_a_binary_file_by_another_name_is_given_up_soon(tmp_path: Path) -> None:
    """Random bytes called .jsonl are not a quarantined record for each of their thousands of lines."""
    rows = read(tmp_path, "x.jsonl", random.Random(0).randbytes(1 << 20))
    assert [row["error"] for row in rows][20:] == ["given_up"]
    rows = read(tmp_path, "x.jsonl", b"\0" * 2000 + b'\n{"text": "good"}\n')
    assert [row["error"] for row in rows] == ["bad_json", None]


def test_an_open_quote_costs_its_own_line(tmp_path: Path) -> None:
    """What it swallowed is read again."""
    good = b"".join(b"%d,fine text\n" % i for i in range(100))
    rows = read(tmp_path, "x.csv", b"id,text\n" + good + b'7,"never closed\n' + good)
    assert [row["error"] for row in rows] == [None] * 100 + ["bad_csv"] + [None] * 100


def test_csv_full_of_open_quotes_ends(tmp_path: Path) -> None:
    """Time stays bounded when every other line opens a quote."""
    data = b"id,text\n" + b'1,"a"b\n' * 5000 + b'2,"open\n'
    rows = read(tmp_path, "x.csv", data, ReadLimits(max_bad_records=100_000))
    assert {row["error"] for row in rows} == {"bad_csv"}


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (b"1,a,b", "wrong_columns"),
        (b"1", "wrong_columns"),
        (b"1,caf\xe9", "invalid_utf8"),
        (b"1,", "empty"),
        (b'1,"a"b', "bad_csv"),
        (b"1,a\rb", "bad_csv"),
        (b"1," + b"x" * 300_000, "too_long"),
    ],
)
def test_a_bad_csv_record_costs_only_itself(tmp_path: Path, line: bytes, rule: str) -> None:
    """Wrong numbers of fields, bytes, quotes and lengths."""
    data = b"id,text\n0,before\n" + line + b"\n2,after\n"
    rows = read(tmp_path, "x.csv", data, ReadLimits(max_document_bytes=200_000))
    assert [row["error"] for row in rows] == [None, rule, None]
    assert rows[1]["uri"] == "x.csv:3"


def test_a_csv_without_the_column_says_which_there_are(tmp_path: Path) -> None:
    """Schema drift is one message with the remedy."""
    (row,) = read(tmp_path, "x.csv", b"id,body\n1,a\n")
    assert (row["error"], "id, body" in row["detail"]) == ("missing_text", True)


def parquet_bytes(table: pa.Table, **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


def arrow_bytes(table: pa.Table, *, stream: bool = False) -> bytes:
    out = io.BytesIO()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=50)
    return out.getvalue()


TABLE = pa.table({"text": [f"document {i}" for i in range(200)]})


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow"])
def test_tables_of_the_wrong_kind(tmp_path: Path, name: str) -> None:
    """No text column, two of them, or one of numbers: one row for the file."""
    write = parquet_bytes if name == "x.parquet" else arrow_bytes
    drift = {
        "missing_text": pa.table({"body": ["a"]}),
        "wrong_type": pa.table({"text": [1, 2]}),
    }
    for rule, table in drift.items():
        assert [(row["uri"], row["error"]) for row in read(tmp_path, name, write(table))] == [
            (name, rule)
        ]
    twice = pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    assert [row["error"] for row in read(tmp_path, "x.arrow", arrow_bytes(twice))] == [
        "missing_text"
    ]


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow"])
def test_bad_values_in_tables_cost_only_themselves(tmp_path: Path, name: str) -> None:
    """Nulls, empty strings, bytes that are not UTF-8 and texts beyond the limit, in one column."""
    values = [b"before", None, b"caf\xe9", b"", b"x" * 5000, b"after"]
    table = pa.table({"text": pa.array(values, pa.binary()).view(pa.string())})
    data = parquet_bytes(table) if name == "x.parquet" else arrow_bytes(table)
    rows = read(tmp_path, name, data, ReadLimits(max_document_bytes=4000))
    assert [row["error"] for row in rows] == [
        None,
        "missing_text",
        "invalid_utf8",
        "empty",
        "too_long",
        None,
    ]


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow"])
def test_cut_tables_are_told(tmp_path: Path, name: str) -> None:
    """A file without its end is refused, whatever its ending promised."""
    data = parquet_bytes(TABLE) if name == "x.parquet" else arrow_bytes(TABLE)
    for size in (0, 5, len(data) // 2, len(data) - 1):
        errors = [row["error"] for row in read(tmp_path, name, data[:size])]
        assert errors == ["corrupt_table"]


def test_a_cut_arrow_stream_gives_what_came_before(tmp_path: Path) -> None:
    """Arrow itself loses the missing batches without a word; here the end mark is asked for."""
    data = arrow_bytes(TABLE, stream=True)
    whole = read(tmp_path, "x.arrow", data)
    assert [row["error"] for row in whole] == [None] * 200
    at_batch_end = data[: data.rindex(b"\xff\xff\xff\xff", 0, len(data) - 8)]
    rows = read(tmp_path, "x.arrow", at_batch_end)
    assert [row["error"] for row in rows] == [None] * 150 + ["truncated_archive"]


def test_a_dictionary_cannot_blow_up(tmp_path: Path) -> None:
    """A table of a few kilobytes that stands for 100 GB of text is given up."""
    values = pa.array(["x" * 1_000_000])
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), values)
    data = parquet_bytes(pa.table({"text": column}), compression="zstd")
    assert len(data) < 100_000
    rows = read(tmp_path, "x.parquet", data)
    assert rows[-1]["error"] == "bomb"
    assert len(rows) < 100


def test_a_page_cannot_blow_up(tmp_path: Path) -> None:
    """A Parquet column that says it unpacks 500-fold is not unpacked."""
    table = pa.table({"text": ["x" * 1_000_000] * 100})
    data = parquet_bytes(table, compression="zstd", use_dictionary=False)
    assert len(data) < 100_000
    assert [row["error"] for row in read(tmp_path, "x.parquet", data)] == ["bomb"]


def test_false_offsets_and_indices_are_found(tmp_path: Path) -> None:
    """An Arrow file whose offsets or dictionary indices lead outside is refused; unchecked it would crash us."""
    offsets = pa.array([0, 5, 1 << 30, 10], pa.int32()).buffers()[1]
    text = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"0123456789")])
    bad_index = pa.DictionaryArray.from_arrays(pa.array([0, 99]), pa.array(["a"]), safe=False)
    for column in (text, bad_index):
        data = arrow_bytes(pa.table({"text": column}))
        assert [row["error"] for row in read(tmp_path, "x.arrow", data)] == ["corrupt_table"]


SEEDS = {
    "x.jsonl": LINES,
    "x.jsonl.gz": gzip.compress(LINES[:100_000]) + gzip.compress(LINES[100_000:]),
    "x.jsonl.zst": zstandard.compress(LINES),
    "x.jsonl.xz": lzma.compress(LINES),
    "x.csv": b"id,text\n" + b'1,"a ""quoted""\ntext"\n' * 100,
    "x.parquet": parquet_bytes(TABLE, row_group_size=50),
    "x.arrow": arrow_bytes(TABLE),
}


@pytest.mark.parametrize("name", SEEDS)
def test_random_damage_is_survived(tmp_path: Path, name: str) -> None:
    """Bytes changed, cut out or put in, anywhere: rows come back, each with a name of its own."""
    for seed in range(40):
        chance = random.Random(seed)
        data = bytearray(SEEDS[name])
        for _ in range(chance.choice([1, 3, 30])):
            at = chance.randrange(len(data))
            if chance.random() < 0.6:
                data[at] = chance.choice([0, 127, 255, chance.randrange(256)])
            elif chance.random() < 0.5:
                del data[at : at + chance.choice([1, 8, 500])]
            else:
                data[at:at] = chance.choice([b'"', b"\n", b"\xff" * 8, chance.randbytes(20)])
            if not data:
                break
        read(tmp_path, name, bytes(data))


def test_things_that_are_no_files_are_quarantined_and_never_block(tmp_path: Path) -> None:
    """A pipe, a socket, a device, a directory and dangling, looping and escaping links, all called x.jsonl."""
    outside = tmp_path / "outside"
    tree = tmp_path / "tree"
    outside.mkdir()
    tree.mkdir()
    (outside / "secret.jsonl").write_text('{"text": "secret"}\n')
    (tree / "good.jsonl").write_text('{"text": "good"}\n')
    (tree / "inside.jsonl").symlink_to("good.jsonl")
    os.mkfifo(tree / "pipe.jsonl")
    (tree / "directory.jsonl").mkdir()
    (tree / "dangling.jsonl").symlink_to("nothing")
    (tree / "loop.jsonl").symlink_to("loop.jsonl")
    (tree / "secret.jsonl").symlink_to(outside / "secret.jsonl")
    (tree / "outside").symlink_to(outside)
    (tree / "again").symlink_to(tree)
    (tree / "null.jsonl").symlink_to("/dev/zero")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tree / "socket.jsonl"))
    listener.close()
    expected = {
        "good.jsonl": None,
        "inside.jsonl": None,
        "pipe.jsonl": "pipe",
        "directory.jsonl": "directory",
        "dangling.jsonl": "dangling_link",
        "loop.jsonl": "symlink_loop",
        "secret.jsonl": "outside_tree",
        "null.jsonl": "outside_tree",
        "socket.jsonl": "socket",
    }
    for path in ("tree/*.jsonl", "tree/**/*.jsonl", "tree"):
        source = SourceConfig(path=path, reader="jsonl")
        found = find_inputs(source, tmp_path)
        rows = [row for item in found for row in read_found(item, source, ReadLimits())]
        errors = {row["uri"].removeprefix("tree/").partition(":")[0]: row["error"] for row in rows}
        if path == "tree":
            # Walked into like any folder: it is empty. The link to a folder outside is told.
            assert errors == {k: v for k, v in expected.items() if k != "directory.jsonl"} | {
                "outside": "outside_tree"
            }
        else:
            assert errors == expected
        assert "secret" not in {row["text"] for row in rows}


def test_a_file_that_goes_or_changes_after_it_was_found(tmp_path: Path) -> None:
    """Gone, replaced by a link or by a pipe: one row, no block, no look behind the link."""
    source = SourceConfig(path="*.jsonl")
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a"}\n')
    (found,) = find_inputs(source, tmp_path)
    path.unlink()
    assert [row["error"] for row in read_found(found, source, ReadLimits())] == ["unreadable"]
    path.symlink_to("/etc/passwd")
    assert [row["error"] for row in read_found(found, source, ReadLimits())] == ["unreadable"]
    path.unlink()
    os.mkfifo(path)
    assert [row["error"] for row in read_found(found, source, ReadLimits())] == ["unreadable"]


def test_a_file_without_permission_is_told() -> None:
    """Unreadable files are quarantined, not skipped."""
    with (
        tempfile.TemporaryDirectory() as name,
        ExitStack() as stack,
    ):  # not within a folder of root's alone
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "x.jsonl").write_text('{"text": "a"}\n')
        (folder / "x.jsonl").chmod(0)
        if os.geteuid() == 0:  # root reads everything, so be another user meanwhile
            stack.callback(os.setresuid, 0, 0, 0)
            os.setresuid(65534, 65534, 0)
        source = SourceConfig(path="*.jsonl")
        assert [item.problem for item in find_inputs(source, folder)] == ["unreadable"]
