"""Tables of all shapes: read by the batch whatever the file's own pieces are, and copied column for column."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.dedup_files import FileDedup, FileDedupResult, dedup_files
from pipeline.fields import NoField, find_field
from pipeline.readers import ReadLimits, SourceConfig, find_inputs, read_input
from pipeline.row_files import Fields, find_files, kind_of
from pipeline.row_scratch import Reading
from pipeline.table_batches import read_columns, read_rows
from storage.errors import ConfigError, InputError

TEXTS = [" ".join(f"w{(i * 7 + j) * (i + 3) % 997}" for j in range(40)) for i in range(20)]


def write(table: pa.Table, path: Path, rows: int = 7) -> None:
    """Write a table as its file's ending says, some rows a piece."""
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=rows, write_page_checksum=True)
        return
    new = pa.ipc.new_stream if path.suffix == ".arrows" else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)


def read(path: Path) -> pa.Table:
    """All of a table."""
    if path.suffix == ".parquet":
        return pq.read_table(path)
    with pa.OSFile(str(path)) as file:
        return (pa.ipc.open_stream if path.suffix == ".arrows" else pa.ipc.open_file)(
            file
        ).read_all()


def dedup(paths: list[Path], out: Path, text_field: str = "text") -> FileDedupResult:
    """`gristmill dedup` of files."""
    return dedup_files(
        FileDedup(
            files=find_files([str(path) for path in paths], kind_of(out) or "parquet"),
            out=out,
            rejected=out.with_name("rejected"),
            reading=Reading(fields=Fields(text_field)),
        )
    )


def documents(path: Path, **source: Any) -> list[dict[str, Any]]:
    """What a build reads of a file."""
    config = SourceConfig(path=path.name, **source)
    (found,) = find_inputs(config, path.parent)
    return [row for b in read_input(found, config, ReadLimits()) for row in b.to_pylist()]


def views(values: list[str]) -> pa.Array:
    return pa.array(values, pa.string_view())


COUNT = len(TEXTS)
COLUMNS: dict[str, pa.Array] = {
    "run_ends": pc.run_end_encode(pa.array(["a" if i < 9 else "b" for i in range(COUNT)])),
    "views in a list": pa.array([[f"a long value {i}"] for i in range(COUNT)], pa.list_(pa.string_view())),
    "views in a struct": pa.array([{"q": f"a long value {i}"} for i in range(COUNT)], pa.struct([("q", pa.string_view())])),
    "views in a map": pa.array([[("k", str(i))] for i in range(COUNT)], pa.map_(pa.string(), pa.string_view())),
    "list views": pa.array([[str(i)] for i in range(COUNT)], pa.list_view(pa.string())),
    "category": pa.array([f"c{i % 3}" for i in range(COUNT)]).dictionary_encode(),
    "category of views": pa.DictionaryArray.from_arrays(pa.array([i % 2 for i in range(COUNT)], pa.uint8()), views(["a", "b"])),
    "categories in a list": pa.array([[f"c{i % 3}"] for i in range(COUNT)]).cast(pa.list_(pa.dictionary(pa.int8(), pa.string()))),
    "uuid": pa.array([bytes([i]) * 16 for i in range(COUNT)], pa.uuid()),
    "nothing": pa.nulls(COUNT),
}  # fmt: skip


@pytest.mark.parametrize("out", ["out.arrow", "out.parquet"])
@pytest.mark.parametrize("name", COLUMNS)
def test_columns_of_every_type_are_copied(name: str, out: str, tmp_path: Path) -> None:
    """The rows that stay keep their values, in an Arrow file their types too."""
    table = pa.table({"text": [*TEXTS[:-2], TEXTS[0], TEXTS[1]], "x": COLUMNS[name]})
    write(table, tmp_path / "in.arrow")
    assert dedup([tmp_path / "in.arrow"], tmp_path / out).exact == 2
    found = read(tmp_path / out)
    found.validate(full=True)
    assert found.to_pylist() == table.slice(0, COUNT - 2).to_pylist()
    if out == "out.arrow":
        assert found.schema.equals(table.schema)


@pytest.mark.parametrize("ending", [".arrow", ".arrows", ".parquet"])
def test_categories_of_several_files_become_one(ending: str, tmp_path: Path) -> None:
    """Each file has a dictionary of its own, together longer than their index: the index grows, no value changes."""
    expected = []
    for number in range(2):
        texts = [f"{number} {i} {TEXTS[i % COUNT]} {i * 7919 % 997}" for i in range(100)]
        names = pa.array([f"{number}-{i}" for i in range(100)]).dictionary_encode()
        names = names.cast(pa.dictionary(pa.int8(), pa.string()))
        table = pa.table({"text": texts, "x": names})
        write(table, tmp_path / f"{number}{ending}", rows=100)
        expected += table.to_pylist()
    paths = [tmp_path / f"{number}{ending}" for number in range(2)]
    result = dedup(paths, tmp_path / f"out{ending}")
    kept = read(tmp_path / f"out{ending}")
    assert result.kept == len(kept)
    assert [row for row in expected if row in kept.to_pylist()] == kept.to_pylist()
    assert pa.types.is_dictionary(kept.schema.field("x").type)


def test_what_out_cannot_hold_is_told_before_the_work(tmp_path: Path) -> None:
    """A union cannot be in a Parquet file; the message names the column, and nothing is written."""
    union = pa.UnionArray.from_sparse(pa.array([0] * COUNT, pa.int8()), [pa.array(range(COUNT))])
    write(pa.table({"text": TEXTS, "either": union}), tmp_path / "in.arrow")
    with pytest.raises(ConfigError, match=r"in\.arrow: .* got 'either' of type sparse_union"):
        dedup([tmp_path / "in.arrow"], tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["in.arrow"]
    assert dedup([tmp_path / "in.arrow"], tmp_path / "out.arrow").documents == COUNT


def test_files_that_differ_in_width_alone_go_together(tmp_path: Path) -> None:
    """int32 and int64, string and large_string and category, in another order: one schema that holds all values."""
    tables = [
        pa.table({"text": TEXTS[:5], "n": pa.array(range(5), pa.int32())}),
        pa.table({"n": pa.array([2**40] * 5), "text": pa.array(TEXTS[5:10], pa.large_string())}),
        pa.table({"text": pa.array(TEXTS[10:15]).dictionary_encode(), "n": pa.nulls(5)}),
    ]
    for number, table in enumerate(tables):
        write(table, tmp_path / f"{number}.parquet")
    paths = [tmp_path / f"{number}.parquet" for number in range(3)]
    dedup(paths, tmp_path / "out.parquet")
    assert read(tmp_path / "out.parquet").to_pylist() == [r for t in tables for r in t.to_pylist()]
    write(pa.table({"text": TEXTS[:2], "n": ["a", "b"]}), tmp_path / "3.parquet")
    with pytest.raises(InputError, match=r"3\.parquet: .* column 'n': string, not int32"):
        dedup([paths[0], tmp_path / "3.parquet"], tmp_path / "out.parquet")


TEXT_TYPES = {
    "string": pa.array(TEXTS),
    "large": pa.array(TEXTS, pa.large_string()),
    "view": views(TEXTS),
    "bytes": pa.array([text.encode() for text in TEXTS]),
    "category": pa.array(TEXTS).dictionary_encode(),
    "category of views": pa.DictionaryArray.from_arrays(pa.array(range(COUNT)), views(TEXTS)),
    "run ends": pc.run_end_encode(pa.array(TEXTS)),
    "json": pa.array([f'"{text}"' for text in TEXTS], pa.json_()),
}


@pytest.mark.parametrize("name", TEXT_TYPES)
def test_texts_of_every_type_are_read(name: str, tmp_path: Path) -> None:
    """By a build and by dedup."""
    write(pa.table({"text": TEXT_TYPES[name]}), tmp_path / "in.arrow")
    assert [row["error"] for row in documents(tmp_path / "in.arrow")] == [None] * COUNT
    assert dedup([tmp_path / "in.arrow"], tmp_path / "out.arrow").kept == COUNT


@pytest.mark.parametrize("ending", [".arrow", ".parquet"])
def test_one_large_piece_is_read_by_the_batch(ending: str, tmp_path: Path) -> None:
    """A row group or record batch of 96 MB comes in slices of a few MiB, the longest texts together or not."""
    sizes = [100] * 3000 + [1_000_000] * 96
    table = pa.table({"text": ["x" * size for size in sizes], "n": range(len(sizes))})
    write(table, tmp_path / f"in{ending}", rows=1 << 20)
    kind = "parquet" if ending == ".parquet" else "arrow"
    with (tmp_path / f"in{ending}").open("rb") as file:
        read_sizes = [
            pc.binary_length(texts).to_pylist()
            for (texts,) in read_columns(file, kind, [("text",)])
        ]
        assert [size for piece in read_sizes for size in piece] == sizes
        assert max(map(sum, read_sizes)) <= 64 << 20
        pieces = list(read_rows(file, kind))
    assert max(piece.nbytes for piece in pieces) <= 64 << 20
    assert pa.Table.from_batches(pieces).equals(table)


def test_a_changed_page_is_told(tmp_path: Path) -> None:
    """A page with a checksum is verified in a build and by dedup; the message names the file, and what to do."""
    path = tmp_path / "in.parquet"
    pq.write_table(
        pa.table({"text": TEXTS}), path, compression="none", write_page_checksum=True, use_dictionary=False
    )  # fmt: skip
    data = path.read_bytes()
    path.write_bytes(data.replace(TEXTS[5].encode(), b"z" + TEXTS[5][1:].encode(), 1))
    bad = documents(path)
    assert [row["error"] for row in bad] == ["corrupt_table"]
    assert "CRC" in bad[0]["detail"] and "sound copy" in bad[0]["detail"]
    with pytest.raises(InputError, match=r"in\.parquet: .*CRC.*sound copy"):
        dedup([path], tmp_path / "out.parquet")


@pytest.mark.parametrize("ending", [".arrow", ".parquet"])
def test_texts_in_structs(ending: str, tmp_path: Path) -> None:
    """`data.text` names the field of a struct, a column of that very name wins; a null struct is a null text."""
    data = [{"text": text, "n": i} for i, text in enumerate(TEXTS[:-1])] + [None]
    write(pa.table({"data": data}), tmp_path / f"in{ending}")
    rows = documents(tmp_path / f"in{ending}", text_field="data.text")
    assert [row["text"] for row in rows] == [*TEXTS[:-1], None]
    assert "got null" in rows[-1]["detail"]
    result = dedup([tmp_path / f"in{ending}"], tmp_path / f"out{ending}", "data.text")
    assert (result.kept, result.rejected) == (COUNT - 1, 1)
    assert read(tmp_path / f"out{ending}")["data"].to_pylist() == data[:-1]
    (row,) = documents(tmp_path / f"in{ending}")
    assert "did you mean 'data.text'" in row["detail"]


def test_texts_in_objects(tmp_path: Path) -> None:
    """Lines are read by a dotted name too, and a key that comes twice on the way to it is refused."""
    lines = [
        '{"data": {"text": "one of them"}, "text": "a title", "meta": {"license": "CC0"}}',
        '{"data": {"text": null}}',
        '{"data": null}',
        '{"data": {"text": "one"}, "data": {"text": "two"}}',
        '{"data.text": "another one", "data": 1}',
    ]
    (tmp_path / "in.jsonl").write_text("".join(line + "\n" for line in lines))
    rows = documents(tmp_path / "in.jsonl", text_field="data.text", license_field="meta.license")
    expected = [None, "missing_text", "missing_text", "duplicate_key", None]
    assert [row["error"] for row in rows] == expected
    assert (rows[0]["text"], rows[0]["license"]) == ("one of them", "CC0")
    assert "got null" in rows[1]["detail"] and "'data', got null" in rows[2]["detail"]
    result = dedup([tmp_path / "in.jsonl"], tmp_path / "out.jsonl", "data.text")
    assert (tmp_path / "out.jsonl").read_text().splitlines() == [lines[0], lines[4]]
    assert result.rejected == 3


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"a": {"b": 1}}, 1),
        ({"a.b": 1, "a": {"b": 2}}, 1),
        ({"a": {"b": None}}, None),
        ({"a": {}}, "expected the field 'a.b', got: a"),
        ({"a": None}, "expected an object in the field 'a', got null"),
        ({"a": [{"b": 1}]}, "expected an object in the field 'a', got an array"),
        ({"x": {"b": 1}}, "did you mean 'x.b'"),
    ],
)
def test_dotted_fields(record: dict[str, Any], expected: Any) -> None:
    """A field of the very name wins; what is missing or in the way is named."""
    if isinstance(expected, str):
        with pytest.raises(NoField, match=expected):
            find_field(record, "a.b")
    else:
        assert find_field(record, "a.b") == expected


def test_prefixes_cannot_blow_up(tmp_path: Path) -> None:
    """100,000 values that each repeat all of the one before them are decoded a few at a time."""
    table = pa.table({"text": ["x" * 1_000_000] * 2000})
    pq.write_table(
        table, tmp_path / "in.parquet", use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"}
    )  # fmt: skip
    rows = documents(tmp_path / "in.parquet")
    assert rows[-1]["error"] == "bomb"
    assert len(rows) < 100
