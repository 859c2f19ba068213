"""Files without their duplicates: the rows that stay are the input's own, and which ones, the engine says."""

import bz2
import csv
import errno
import fcntl
import gzip
import io
import json
import lzma
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import row_scratch
from pipeline.dedup import DedupConfig, NewDocuments, near_duplicates
from pipeline.dedup_files import FileDedup, FileDedupResult, dedup_files
from pipeline.display import visible
from pipeline.executor import Executor
from pipeline.minhash import sign_documents
from pipeline.raw import ReadLimits
from pipeline.row_files import Fields, Kind, find_files, kind_of
from pipeline.row_scratch import Reading
from storage.errors import BusyError, ConfigError, GristmillError, InputError
from storage.schema import DOCUMENTS

SHARED = Path(__file__).parents[3] / "shared/data/neardup"


def work_on(paths: Sequence[Path], out: Path, **changes: Any) -> FileDedup:
    """What to do with some files; fields of the work by name."""
    kind = kind_of(out)
    assert kind is not None
    work = FileDedup(
        files=find_files([str(path) for path in paths], kind),
        out=out,
        rejected=out.with_name(f"{out.name}.rejected.jsonl"),
        pairs=out.with_name("pairs.jsonl"),
    )
    return replace(work, **changes)


def run(paths: Sequence[Path], out: Path, **changes: Any) -> FileDedupResult:
    """Take the duplicates out of some files."""
    return dedup_files(work_on(paths, out, **changes))


def read_json(path: Path) -> list[Any]:
    """The rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def names_in(folder: Path) -> list[str]:
    """What lies in a folder, hidden or not."""
    return sorted(path.name for path in folder.iterdir())


def documents(seed: int = 0, count: int = 12) -> list[str]:
    """Texts with exact copies, near-duplicates and contained ones among them."""
    rng = random.Random(seed)
    texts = [" ".join(f"w{rng.randrange(5000)}" for _ in range(60)) for _ in range(count)]
    texts += [text.replace(" ", "\n ", 3) for text in texts[: count // 3]]  # equal but for space
    texts += [f"{text} and a tail" for text in texts[count // 4 : count // 2]]
    texts += [" ".join(text.split()[:30]) for text in texts[count // 2 : count]]
    rng.shuffle(texts)
    return texts


def json_lines(texts: Sequence[str]) -> list[bytes]:
    """A line a text, each written a little differently."""
    forms: list[Callable[[Any], str]] = [
        json.dumps,
        lambda row: json.dumps(row, ensure_ascii=False, separators=(",", ":")),
        lambda row: "  " + json.dumps(row, indent=None, sort_keys=True) + " \t",
    ]
    return [forms[i % 3]({"text": text, "n": i, "é": [i]}).encode() for i, text in enumerate(texts)]


def engine_keeps(texts: Sequence[str], config: DedupConfig) -> list[int]:
    """Numbers of the texts that stay, by the engine itself."""
    first: dict[str, int] = {}
    for number, text in enumerate(texts):
        first.setdefault(" ".join(text.split()), number)
    empty = {field.name: "" if field.type == pa.string() else 0 for field in DOCUMENTS}
    rows = [
        empty | {"id": f"{i:032x}", "text": texts[i], "domain": "web", "source": "one"}
        | {"content_hash": blake2b(text.encode(), digest_size=16).hexdigest()}
        for text, i in first.items()
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, DOCUMENTS)
    signatures = [sign_documents(table, config)]
    new = NewDocuments(documents=[table], signatures=signatures, sources=["one"])
    removed = set(near_duplicates(new, None, config).removed["id"].to_pylist())
    return [i for i in first.values() if f"{i:032x}" not in removed]


CELLS = st.text(st.sampled_from('ab ,;|\t"\n\u00e9='), max_size=8)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(CELLS, st.sampled_from(["x y z", 'q "u" o', "a,b;c", "two\nlines\r\nof", ""])),
        max_size=12,
    ),
    delimiter=st.sampled_from(",;\t|"),
    ends=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    mark=st.booleans(),
)
def test_kept_records_of_csv_are_the_inputs_own(
    rows: list[tuple[str, str]], delimiter: str, ends: str, quoting: Any, mark: bool
) -> None:
    """OUT is the header and the first record of each text, byte for byte, whatever separates and quotes them."""

    def written(some: Sequence[tuple[str, str]]) -> bytes:
        made = io.StringIO()
        writer = csv.writer(made, delimiter=delimiter, lineterminator=ends, quoting=quoting)
        writer.writerows([("id", "text"), *some])
        return made.getvalue().encode()

    with tempfile.TemporaryDirectory() as name:
        path, out = Path(name, "in.csv"), Path(name, "out.csv.gz")
        path.write_bytes((b"\xef\xbb\xbf" if mark else b"") + written(rows))
        if not rows:
            return
        result = run([path], out, config=DedupConfig(enabled=False))
        kept = {" ".join(text.split()): (id_, text) for id_, text in reversed(rows)}
        kept = [row for row in rows if kept.pop(" ".join(row[1].split()), None)]
        assert gzip.decompress(out.read_bytes()) == written(kept)
        assert (result.documents, result.kept, result.blank) == (len(rows), len(kept), 0)


def test_csv_as_excel_and_people_leave_it(tmp_path: Path) -> None:
    """A line `sep=;`, a file without a last line end, joined files with their headers, bad records, UTF-16."""
    excel, other = tmp_path / "a.csv", tmp_path / "b.csv.zst"
    excel.write_bytes(
        b'sep=;\r\nid;text;n\r\n1;"long; with\r\n""quotes""";9\r\n\r\n4;bad\r\n5;\xff;1\r\n6;"open\r\n'
        b"\xef\xbb\xbfid;text;n\r\n7;last;1"
    )
    other.write_bytes(zstandard.compress(b'id;text;n\n8;"long;  with ""quotes""";8\n9;new;""'))
    out = tmp_path / "out.csv"
    result = run([excel, other], out)
    assert out.read_bytes() == (
        b'sep=;\r\nid;text;n\r\n1;"long; with\r\n""quotes""";9\r\n7;last;1\n9;new;""\n'
    )
    [pair] = read_json(tmp_path / "pairs.jsonl")
    assert (pair["id"], pair["row"], pair["duplicate_of"], pair["duplicate_of_row"]) == (
        "8",
        2,
        "1",
        2,
    )
    bad = read_json(out.with_name("out.csv.rejected.jsonl"))
    assert [row["reason"] for row in bad] == ["wrong_columns", "invalid_utf8", "bad_csv"]
    assert [row["row"] for row in bad] == [4, 5, 6]
    assert (result.documents, result.rejected, result.blank) == (4, 3, 2)
    wide = tmp_path / "wide.tsv"
    wide.write_bytes("id\ttext\r\n1\ta\r\n2\ta\r\n".encode("utf-16"))
    run([wide], tmp_path / "wide.out.tsv")
    assert (tmp_path / "wide.out.tsv").read_bytes() == b"id\ttext\r\n1\ta\r\n"


@pytest.mark.parametrize(
    ("second", "error", "message"),
    [
        ("id,text,x\n1,a,b\n", InputError, "expected the columns of .*a.csv, 'id,text', got 'id,text,x'"),
        ("id;text\n1;a\n", InputError, "got 'id;text'"),
        ("id,body\n1,a\n", ConfigError, "expected one column 'text', got: id, body; name the column with --text-field"),
    ],
)  # fmt: skip
def test_csv_files_of_different_columns_are_refused(
    second: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    """One header stands for all of OUT."""
    (tmp_path / "a.csv").write_text("id,text\n1,a\n")
    (tmp_path / "b.csv").write_text(second)
    with pytest.raises(error, match=message):
        run([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_byte_order_marks_inside_of_joined_files(tmp_path: Path) -> None:
    """`cat a.jsonl b.jsonl`: the mark of the second file is not part of a line."""
    mark = b"\xef\xbb\xbf"
    for ending, lines in (
        ("jsonl", [b'{"text": "a"}\n', b'{"text": "b"}\n']),
        ("txt", [b"a\n", b"b\n"]),
    ):
        path, out = tmp_path / f"in.{ending}", tmp_path / f"out.{ending}"
        path.write_bytes(mark + lines[0] + mark + lines[1] + mark + lines[0])
        assert run([path], out).kept == 2
        assert out.read_bytes() == b"".join(lines)


def test_pairs_as_csv_run_in_no_spreadsheet(tmp_path: Path) -> None:
    """Cells that would be formulas begin with ', control characters are shown; numbers and other forms are exact."""
    formulas = [
        "=cmd|' /C calc'!A0",
        "+1+1",
        "-x",
        "@SUM(A1)",
        "\t=1",
        '"=1',
        "a;=1",
        "\uff1d1",
        "a\n=2",
    ]
    shown = ["x\x1b[31m", "\r=1", "a\u202eb"]
    same = ["-5", -5, 1.5, "a-b", "a=b", True, "me@example.org", ";"]
    ids = [*formulas, *shown, *same]
    path = tmp_path / "in.jsonl"
    rows = [{"id": "kept", "text": "one text"}, *({"id": i, "text": "one  text"} for i in ids)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run([path], tmp_path / "out.jsonl", pairs=tmp_path / "pairs.csv")
    assert result.marked_pairs == len(formulas) + len(shown)
    with (tmp_path / "pairs.csv").open(newline="") as file:
        found = [row["id"] for row in csv.DictReader(file)]
    for cell in found[: len(formulas)]:
        assert not re.search('(^|[\t\n;,|])["\\s]*[=+@\uff1d-]', cell)
        assert cell.replace("'", "") in {formula.replace("'", "") for formula in formulas}
    assert found[len(formulas) : -len(same)] == [visible(text) for text in shown]
    assert found[-len(same) :] == ["-5", "-5", "1.5", "a-b", "a=b", "true", "me@example.org", ";"]
    run([path], tmp_path / "out.jsonl")
    assert [row["id"] for row in read_json(tmp_path / "pairs.jsonl")] == ids


WORDS = st.lists(st.sampled_from(["a", "b", "cd", "é"]), max_size=14)
TEXTS = st.lists(st.one_of(WORDS.map(" ".join), WORDS.map("\u2003 ".join)), max_size=25)


@settings(max_examples=40)
@given(texts=TEXTS, cuts=st.lists(st.integers(0, 25), max_size=3), rows=st.data())
def test_kept_lines_are_the_engines_and_the_inputs_own(
    texts: list[str], cuts: list[int], rows: st.DataObject
) -> None:
    """OUT is the lines whose texts the engine keeps, byte for byte, in order; PAIRS is the rest, each with a kept one.

    Cut into files in any way and in any order of them, the same texts stay.
    """
    config = DedupConfig(threshold=0.5, ngram=2, containment_ngram=2, containment=0.9)
    lines = json_lines(texts)
    bounds = [0, *sorted(min(cut, len(lines)) for cut in cuts), len(lines)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = []
        for number, (begin, end) in enumerate(pairwise(bounds)):
            files.append(folder / f"{number}.jsonl")
            files[-1].write_bytes(b"\n".join(lines[begin:end]))  # without a last line feed
        out = folder / "out.jsonl"
        result = run(files, out, config=config)
        kept = [lines[i] for i in engine_keeps(texts, config)]
        assert out.read_bytes() == b"".join(line + b"\n" for line in kept)
        pairs = read_json(folder / "pairs.jsonl")
        places = [(f, r) for f in files for r in range(1, len(f.read_bytes().splitlines()) + 1)]
        kept_numbers = set(engine_keeps(texts, config))
        kept_places = {(str(f), r) for i, (f, r) in enumerate(places) if i in kept_numbers}
        assert {(p["duplicate_of_file"], p["duplicate_of_row"]) for p in pairs} <= kept_places
        gone = {(str(f), r) for i, (f, r) in enumerate(places) if i not in kept_numbers}
        assert {(p["file"], p["row"]) for p in pairs} == gone
        assert result.documents == len(texts) == result.kept + len(pairs)

        shuffled = rows.draw(st.permutations(files))
        run(shuffled, folder / "again.jsonl", config=config)
        texts_of = [
            sorted(" ".join(row["text"].split()) for row in read_json(path))
            for path in (out, folder / "again.jsonl")
        ]
        assert texts_of[0] == texts_of[1]


def test_parts_and_workers_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files in one piece, in many, or read by two processes: the same bytes in OUT and PAIRS."""
    lines = [
        line + b"\r\n" * (i % 2) + b"\n" * (1 - i % 2)
        for i, line in enumerate(json_lines(documents()))
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + b"".join(lines[:20]))
    (tmp_path / "b.jsonl").write_bytes(b"\n \n".join(lines[20:]))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b"".join(lines[5:])))
    paths = [tmp_path / name for name in ("a.jsonl", "b.jsonl", "c.jsonl.gz")]
    outcomes = []
    for size, workers in ((1 << 20, 1), (900, 1), (900, 2)):
        monkeypatch.setattr(row_scratch, "TABLE_BYTES", size)
        monkeypatch.setattr(row_scratch, "PARALLEL_BYTES", 0)
        out = tmp_path / f"{size}-{workers}" / "out.jsonl"
        out.parent.mkdir()
        result = dedup_files(work_on(paths, out), Executor(workers=workers))
        pairs = (out.parent / "pairs.jsonl").read_bytes()
        outcomes.append((out.read_bytes(), pairs, replace(result, seconds={}, scratch_bytes=0)))
        assert names_in(out.parent) == ["out.jsonl", "pairs.jsonl"]
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert outcomes[0][2].blank > 0
    assert not outcomes[0][0].startswith(b"\xef\xbb\xbf")


COMPRESSIONS = {
    "": (bytes, bytes),
    ".gz": (gzip.compress, gzip.decompress),
    ".zst": (zstandard.compress, lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data)),
    ".bz2": (bz2.compress, bz2.decompress),
    ".xz": (lzma.compress, lzma.decompress),
}  # fmt: skip


@pytest.mark.parametrize("ending", COMPRESSIONS)
def test_compressed_lines(ending: str, tmp_path: Path) -> None:
    """Each compression is read and written; twice the same file, also in time."""
    compress, decompress = COMPRESSIONS[ending]
    texts = [text.replace("\n", " ") for text in documents()]
    data = "".join(f"{text}\n" for text in texts).encode()
    (tmp_path / f"in.txt{ending}").write_bytes(compress(data))
    out = tmp_path / f"out.txt{ending}"
    result = run([tmp_path / f"in.txt{ending}"], out)
    lines = decompress(out.read_bytes()).decode().splitlines()
    assert lines == [texts[i] for i in engine_keeps(texts, DedupConfig())]
    assert 0 < result.kept < len(texts)
    before = out.read_bytes()
    run([tmp_path / f"in.txt{ending}"], out)
    assert out.read_bytes() == before


def write_arrow(table: pa.Table, path: Path, *, stream: bool = False) -> None:
    """Write a table in small batches as an Arrow file or stream."""
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table as its file's ending says, in small pieces."""
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=7, compression="zstd")
    else:
        write_arrow(table, path, stream=path.suffix == ".arrows")


def read_table(path: Path) -> pa.Table:
    """Read any of these."""
    if path.suffix == ".parquet":
        return pq.read_table(path)
    with pa.memory_map(str(path)) as file:
        is_stream = path.suffix == ".arrows"
        return (pa.ipc.open_stream if is_stream else pa.ipc.open_file)(file).read_all()


def table_of(texts: Sequence[str], text_type: pa.DataType | None = None) -> pa.Table:
    """A table with columns of many types."""
    text = pa.array(texts, pa.string())
    columns = {
        "key": pa.array([f"k{i}" for i in range(len(texts))], pa.large_string()),
        "body": text.dictionary_encode() if text_type == "dictionary" else text.cast(text_type or pa.string()),
        "n": pa.array(range(len(texts)), pa.int16()),
        "tags": pa.array([[str(i), None] for i in range(len(texts))], pa.list_(pa.field("element", pa.string()))),
        "at": pa.array([None] * len(texts), pa.timestamp("us", "UTC")),
    }  # fmt: skip
    return pa.table(columns).replace_schema_metadata({"made": "by a test"})


@pytest.mark.parametrize("ending", [".parquet", ".arrow", ".arrows", ".feather"])
@pytest.mark.parametrize(
    "text_type", [pa.string(), pa.large_string(), pa.string_view(), "dictionary"]
)
def test_tables_keep_schema_and_rows(ending: str, text_type: Any, tmp_path: Path) -> None:
    """OUT has the columns, types and metadata of the input, and the rows that stay; it may be of another kind."""
    texts = documents()
    table = table_of(texts, text_type)
    write_table(table, tmp_path / f"in{ending}")
    other = ".arrow" if ending == ".parquet" else ".parquet"
    for out in (tmp_path / f"out{ending}", tmp_path / f"other{other}"):
        reading = Reading(fields=Fields("body", "key"))
        result = run([tmp_path / f"in{ending}"], out, reading=reading)
        found = read_table(out)
        expected = [table.to_pylist()[i] for i in engine_keeps(texts, DedupConfig())]
        assert found.schema.equals(table.schema, check_metadata=True)
        assert found.to_pylist() == expected
        assert result.with_id == len(texts)
        pairs = read_json(tmp_path / "pairs.jsonl")
        assert {p["id"] for p in pairs} | set(found["key"].to_pylist()) == set(
            table["key"].to_pylist()
        )
        assert all(table["key"][pair["row"]].as_py() == pair["id"] for pair in pairs)


def test_ids_of_any_kind(tmp_path: Path) -> None:
    """Ids are told as they are; a row without one is named by its place; one that comes twice is counted."""
    ids: list[Any] = ["a", 7, 2**64 - 1, 1.5, None, {"x": 1}, "a", ...]
    lines = [
        {"text": f"the very same text {i // 2}"} | ({} if v is ... else {"id": v})
        for i, v in enumerate(ids)
    ]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = run([path], tmp_path / "out.jsonl")
    named = [(p["id"], p["duplicate_of"]) for p in read_json(tmp_path / "pairs.jsonl")]
    assert named == [(7, "a"), (1.5, 2**64 - 1), ({"x": 1}, f"{path}:5"), (f"{path}:8", "a")]
    assert (result.with_id, result.repeated_ids) == (6, 1)


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_forms_of_pairs(ending: str, tmp_path: Path) -> None:
    """PAIRS says the same in each form."""
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(json_lines(documents())))
    run([tmp_path / "in.jsonl"], tmp_path / "out.jsonl", pairs=tmp_path / f"p{ending}")
    path = tmp_path / f"p{ending}"
    if ending == ".parquet":
        rows = pq.read_table(path).to_pylist()
    elif ending == ".csv":
        rows = list(csv.DictReader(path.read_text().splitlines()))
    else:
        rows = read_json(path)
    assert {row["rule"] for row in rows} == {"exact", "near_duplicate", "contained"}
    for row in rows:
        jaccard, containment = float(row["jaccard"]), float(row["containment"])
        assert {
            "exact": jaccard == containment == 1,
            "near_duplicate": 0.7 <= jaccard <= 1,
            "contained": jaccard < 0.7 and containment >= 0.98,
        }[row["rule"]]
        assert row["id"] == f"{row['file']}:{row['row']}"


def test_copy_of_a_removed_document_names_the_kept_one(tmp_path: Path) -> None:
    """Where the first of two copies goes for a longer text, the second goes for that one too, by the same rule."""
    text = " ".join(f"w{i}" for i in range(80))
    rows = [
        {"id": 1, "text": text},
        {"id": 2, "text": f"{text}\n"},
        {"id": 3, "text": f"{text} more"},
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run([tmp_path / "in.jsonl"], tmp_path / "out.jsonl")
    first, second = read_json(tmp_path / "pairs.jsonl")
    assert (first["duplicate_of"], second["duplicate_of"]) == (3, 3)
    assert first["rule"] == second["rule"] == "near_duplicate"
    assert first["jaccard"] == second["jaccard"] == pytest.approx(76 / 77, abs=1e-6)


BAD_LINES = {
    b"{bad json": "bad_json",
    b'{"id": 1}': "missing_text",
    b'{"text": null}': "missing_text",
    b'{"text": 5}': "wrong_type",
    b"[1]": "not_an_object",
    b'{"text": "\xff\xfe"}': "invalid_utf8",
    b'{"text": "\\ud800"}': "lone_surrogate",
    b'{"text": "a", "text": "b"}': "duplicate_key",
    b"[" * 100_000: "nested_too_deep",
    b'{"text": "' + b"long " * 50_000 + b'"}': "too_long",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=BAD_LINES.values())
def test_bad_lines_are_told(line: bytes, tmp_path: Path) -> None:
    """A row that cannot be used is in the file of rejected rows, with place and reason; the others stay as they are."""
    good = json_lines([f"text {i} of its own words {i} {i}" for i in range(4)])
    (tmp_path / "in.jsonl").write_bytes(b"\n".join([*good[:2], line, *good[2:]]))
    reading = Reading(limits=ReadLimits(max_document_bytes=200_000))
    result = run([tmp_path / "in.jsonl"], tmp_path / "out.jsonl", reading=reading)
    (told,) = read_json(tmp_path / "out.jsonl.rejected.jsonl")
    assert (told["reason"], told["row"]) == (BAD_LINES[line], 3)
    assert result.rejected == 1 and result.documents == 4
    assert (tmp_path / "out.jsonl").read_bytes() == b"".join(row + b"\n" for row in good)
    if BAD_LINES[line] != "too_long":
        record = told["record"]
        assert (bytes.fromhex(told["record_hex"]) if record is None else record.encode()) == line


def test_unusual_texts_are_documents(tmp_path: Path) -> None:
    """Empty texts, one word, NUL, NaN in another field: nothing is wrong with them."""
    lines = [
        b'{"text": ""}',
        b'{"text": " \\n"}',
        b'{"text": "one"}',
        b'{"text": "nul \\u0000 within"}',
        b'{"x": NaN, "text": "not a number elsewhere"}',
        b'{"meta": {"text": 1}, "text": "a text deeper down"}',
    ]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    result = run([tmp_path / "in.jsonl"], tmp_path / "out.jsonl")
    assert (result.documents, result.exact, result.rejected) == (6, 1, 0)
    assert (tmp_path / "out.jsonl").read_bytes() == b"".join(
        line + b"\n" for line in (lines[0], *lines[2:])
    )


def damaged_files() -> dict[str, bytes]:
    """Files that cannot be read to their end, or are something else, by name."""
    lines = b"\n".join(json_lines(documents()) * 50)
    with tempfile.TemporaryDirectory() as folder:
        made = {}
        for ending in (".parquet", ".arrow", ".arrows"):
            write_table(
                table_of(documents()).rename_columns(["id", "text", "n", "tags", "at"]),
                Path(folder, f"x{ending}"),
            )
            made[ending] = Path(folder, f"x{ending}").read_bytes()
    return {
        "cut.jsonl.gz": gzip.compress(lines)[:-30],
        "cut.jsonl.zst": zstandard.compress(lines)[:-30],
        "binary.jsonl": random.Random(0).randbytes(5000),
        "array.json": json.dumps([{"text": "a"}], indent=1).encode(),
        "field.jsonl": b'{"body": "a text"}\n',
        "cut.parquet": made[".parquet"][:-30],
        "text.parquet": b"this is no table",
        "cut.arrow": made[".arrow"][:-30],
        "cut.arrows": made[".arrows"][:-8],
    }  # fmt: skip


@pytest.mark.parametrize("name", damaged_files())
def test_damaged_files_end_the_work(name: str, tmp_path: Path) -> None:
    """A file that cannot be read to its end, or holds no document, is named, and nothing is written."""
    path = tmp_path / name
    path.write_bytes(damaged_files()[name])
    with pytest.raises(InputError, match=name):
        run([path], tmp_path / f"out{path.suffixes[0]}")
    assert names_in(tmp_path) == [name]


def test_files_that_do_not_fit_together(tmp_path: Path) -> None:
    """Other kinds and other columns are refused with what differs; a pipe is not waited for."""
    table = table_of(["a text"])
    write_table(table, tmp_path / "a.parquet")
    write_table(table.drop_columns(["n"]), tmp_path / "b.parquet")
    (tmp_path / "c.jsonl").write_text('{"text": "x"}\n')
    os.mkfifo(tmp_path / "d.jsonl")
    reading = Reading(fields=Fields("body", "key"))
    with pytest.raises(
        InputError, match=r"b.parquet: expected the columns of .*'n': none, not int16"
    ):
        run(
            [tmp_path / "a.parquet", tmp_path / "b.parquet"],
            tmp_path / "o.parquet",
            reading=reading,
        )
    with pytest.raises(ConfigError, match="expected one column 'text', got: key, body"):
        run([tmp_path / "a.parquet"], tmp_path / "o.parquet")
    for name, kind in (("c.jsonl", "parquet"), ("a.parquet", "jsonl")):
        with pytest.raises(ConfigError, match=f"{name}: expected"):
            find_files([str(tmp_path / name)], _kind(kind))
    with pytest.raises(InputError, match="named pipe"):
        find_files([str(tmp_path / "d.jsonl")], "jsonl")
    with pytest.raises(InputError, match=r"nothing\.jsonl"):
        find_files([str(tmp_path / "nothing.jsonl")], "jsonl")


def _kind(name: str) -> Kind:
    found = kind_of(Path(f"x.{name}"))
    assert found is not None
    return found


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_small_file_that_stands_for_a_huge_table_is_refused(ending: str, tmp_path: Path) -> None:
    """One long text and many rows that name it: refused before it is unpacked; few rows are fine."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), ["abcd " * 40_000])
    path = tmp_path / f"in{ending}"
    write_table(pa.table({"text": texts}), path)
    with pytest.raises(InputError, match="times the file's size"):
        run([path], tmp_path / f"out{ending}", reading=Reading(limits=ReadLimits(max_ratio=50)))
    (tmp_path / "few").mkdir()
    few = tmp_path / "few" / f"in{ending}"
    write_table(pa.table({"text": texts.slice(0, 5)}), few)
    assert run([few], tmp_path / f"out{ending}").exact == 4


@pytest.mark.parametrize("ending", [".jsonl", ".txt", ".parquet"])
def test_no_documents(ending: str, tmp_path: Path) -> None:
    """Nothing in, nothing out, and that is no error."""
    path = tmp_path / f"in{ending}"
    if ending == ".parquet":
        write_table(table_of([]).rename_columns(["id", "text", "n", "tags", "at"]), path)
    else:
        path.write_text("\n\n" if ending == ".txt" else "")
    result = run([path], tmp_path / f"out{ending}")
    assert (result.documents, result.kept) == (0, 0)
    if ending == ".parquet":
        assert read_table(tmp_path / "out.parquet").num_rows == 0
    else:
        assert (tmp_path / f"out{ending}").read_bytes() == b""


def test_stop_leaves_nothing_and_runs_again(tmp_path: Path) -> None:
    """Stopped in any step, OUT and PAIRS are as they were, and the same work then ends as if nothing had been."""
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(json_lines(documents())))
    work = work_on([tmp_path / "in.jsonl"], tmp_path / "out.jsonl")
    steps: list[str] = []
    dedup_files(work, progress=lambda stage, done, total, unit: steps.append(stage))
    expected = (tmp_path / "out.jsonl").read_bytes()
    (tmp_path / "out.jsonl").write_bytes(b"of before")
    (tmp_path / "pairs.jsonl").unlink()
    assert {"read", "sign", "write"} <= set(steps)
    for step in sorted(set(steps)):

        def stop(stage: str, done: int, total: int | None, unit: str, step: str = step) -> None:
            if stage == step:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            dedup_files(work, progress=stop)
        assert (tmp_path / "out.jsonl").read_bytes() == b"of before"
        assert names_in(tmp_path) == ["in.jsonl", "out.jsonl"]
    dedup_files(work)
    assert (tmp_path / "out.jsonl").read_bytes() == expected


def test_folder_of_a_killed_process_is_taken_over_and_of_a_living_one_not(tmp_path: Path) -> None:
    """What a killed process left beside OUT does no harm; while one works on OUT, another is refused."""
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(json_lines(documents())))
    left = tmp_path / ".out.jsonl.dedup"
    (left / "near-x").mkdir(parents=True)
    (left / "near-x" / "y").write_text("old")
    (left / "00000000-00000.documents").write_text("half a table")
    descriptor = os.open(left, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(BusyError, match="another 'gristmill dedup' is writing it"):
        run([tmp_path / "in.jsonl"], tmp_path / "out.jsonl")
    os.close(descriptor)
    assert run([tmp_path / "in.jsonl"], tmp_path / "out.jsonl").kept > 0
    assert names_in(tmp_path) == ["in.jsonl", "out.jsonl", "pairs.jsonl"]


def test_file_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    """Between the two readings a row number would come to mean another row."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join(json_lines(documents())))

    def write_to_it(stage: str, done: int, total: int | None, unit: str) -> None:
        if stage == "sign":
            path.write_bytes(b"\n".join(json_lines(documents(1))))

    with pytest.raises(GristmillError, match=r"in\.jsonl: expected a file that stays as it is"):
        dedup_files(work_on([path], tmp_path / "out.jsonl"), progress=write_to_it)
    assert names_in(tmp_path) == ["in.jsonl"]


def test_code_is_compared_by_characters(tmp_path: Path) -> None:
    """Names joined differently are other words, but the same characters in the domain "code"."""
    line = " ".join(f"al{i} be{i}" for i in range(40))
    joined = line.replace(" be", "be")  # of two words each time one
    (tmp_path / "in.txt").write_text(f"{line}\n{joined}\n")
    words = run([tmp_path / "in.txt"], tmp_path / "out.txt")
    characters = run([tmp_path / "in.txt"], tmp_path / "out.txt", reading=Reading(domain="code"))
    assert (words.kept, characters.kept) == (2, 1)


@pytest.mark.skipif(
    not SHARED.exists(), reason="real documents, too large for the repository, are not beside it"
)
def test_real_documents_with_known_pairs(tmp_path: Path) -> None:
    """Of two documents with a Jaccard similarity of 0.8 and more, never both stay."""
    docs, known = (
        lzma.decompress((SHARED / f"{name}.jsonl.xz").read_bytes()) for name in ("docs", "pairs")
    )
    (tmp_path / "in.jsonl").write_bytes(docs)
    run([tmp_path / "in.jsonl"], tmp_path / "out.jsonl")
    kept = {row["id"] for row in read_json(tmp_path / "out.jsonl")}
    pairs = [json.loads(line) for line in known.splitlines()]
    both = [pair for pair in pairs if pair["jaccard_w5"] >= 0.8 and {pair["a"], pair["b"]} <= kept]
    assert len(pairs) > 500
    assert not both


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "out.jsonl: the disk is full; beside OUT itself the work needs about"),
        (errno.EIO, "cannot be read or written: Input/output error"),
    ],
)
def test_a_disk_that_fails_in_the_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    """When all is written and only has to be made durable: in words that speak of no lake, and nothing is left."""
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(json_lines(documents())))

    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(GristmillError, match=message):
        run([tmp_path / "in.jsonl"], tmp_path / "out.jsonl")
    assert names_in(tmp_path) == ["in.jsonl"]


def test_a_full_disk_is_told_and_kills_nobody(tmp_path: Path) -> None:
    """A real one, where the keys would lie in a file that is mapped into memory: no SIGBUS, and nothing is left."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(small)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk takes root")
    try:
        texts = [f"some text {i} of its own with words {i * 3} and {i * 7}" for i in range(6000)]
        (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
        command = [sys.executable, "-m", "flows.cli", "dedup", tmp_path / "in.jsonl", "-q", "-o"]
        done = subprocess.run([*command, small / "out.jsonl"], capture_output=True, text=True)
        assert (done.returncode, names_in(small)) == (1, [])
        assert "out.jsonl: the disk is full" in done.stderr
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)
