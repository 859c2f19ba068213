"""A shard is what was written, is described by its values alone, and is never read when damaged."""

import os
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.content import content_hash
from storage.errors import CorruptError, GristmillError, LakeError, NotFoundError
from storage.lake import Lake
from storage.schema import DOCUMENTS, EDGES, FATES, SCHEMAS
from storage.shard import describe_shard, open_shard, read_schema, scan_shard, write_shard

Maker = Callable[..., pa.Table]

VALUES = {
    pa.string(): st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    pa.binary(): st.binary(max_size=5),
    pa.bool_(): st.booleans(),
    pa.uint16(): st.integers(0, 2**16 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    # Adding zero makes -0.0 into 0.0: Arrow finds them equal, the hash does not.
    pa.float32(): st.floats(width=32, allow_nan=False).map(lambda x: x + 0.0),
    pa.float64(): st.floats(allow_nan=False).map(lambda x: x + 0.0),
    pa.list_(pa.uint32()): st.lists(st.integers(0, 2**32 - 1), max_size=4),
    pa.list_(pa.string(), 2): st.lists(st.text("ab", max_size=2), min_size=2, max_size=2),
    pa.struct([("x", pa.int32()), ("y", pa.string())]): st.fixed_dictionaries(
        {"x": st.none() | st.integers(0, 9), "y": st.none() | st.text("ab", max_size=2)}
    ),
}
"""The types that the schemas use or might use, each with its values."""


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """A table of up to 12 rows, nulls in it."""
    kinds = draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=4))
    rows = draw(st.integers(0, 12))
    columns = [
        pa.array(draw(st.lists(st.none() | VALUES[kind], min_size=rows, max_size=rows)), kind)
        for kind in kinds
    ]
    return pa.table(columns, names=[f"column{number}" for number in range(len(kinds))])


@given(table=tables(), data=st.data())
@settings(max_examples=150, deadline=None)
def test_the_content_hash_is_of_the_values_alone(table: pa.Table, data: st.DataObject) -> None:
    """Chunks, offsets, what lies under nulls, wide offsets, dictionaries and metadata do not matter."""
    expected = content_hash(table)
    cut = data.draw(st.integers(0, len(table)))
    chunked = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    assert content_hash(chunked) == expected
    padded = pa.concat_tables([table.slice(0, 1), table, table.slice(0, 1)]).combine_chunks()
    assert content_hash(padded.slice(min(len(table), 1), len(table))) == expected
    assert content_hash(table.replace_schema_metadata({"a": "b"})) == expected
    wide = {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}
    wide[pa.list_(pa.uint32())] = pa.large_list(pa.uint32())
    fields = [pa.field(field.name, wide.get(field.type, field.type)) for field in table.schema]
    assert content_hash(table.cast(pa.schema(fields))) == expected
    encoded = [
        column.dictionary_encode() if pa.types.is_string(column.type) else column
        for column in table.columns
    ]
    assert content_hash(pa.table(encoded, names=table.schema.names)) == expected


@given(one=tables(), other=tables())
@settings(max_examples=150, deadline=None)
def test_different_values_have_different_hashes(one: pa.Table, other: pa.Table) -> None:
    """Equal hashes if and only if names, types and values are equal, so no two values run into each other."""
    assert (content_hash(one) == content_hash(other)) == (
        one.schema.equals(other.schema) and one.equals(other)
    )


def test_the_content_hash_sees_every_border() -> None:
    """Cases in which the bytes alone would be the same."""
    arrays = [
        pa.array(["ab", "c"]),
        pa.array(["a", "bc"]),
        pa.array([b"ab", b"c"]),
        pa.array(["abc", None]),
        pa.array([None, "abc"]),
        pa.array(["abc", ""]),
        pa.array([[1], [2]], pa.list_(pa.uint16())),
        pa.array([[1, 2], []], pa.list_(pa.uint16())),
        pa.array([[1, 2], None], pa.list_(pa.uint16())),
        pa.array([[1], [2]], pa.list_(pa.uint32())),
        pa.array([0.0, -0.0]),
        pa.array([0.0, 0.0]),
        pa.array([0, 0]),
        pa.array([0, 0], pa.timestamp("s")),
        pa.array([False, False]),
        pa.nulls(2),
        pa.array([{"x": None}, {"x": None}], pa.struct([("x", pa.int64())])),
        pa.array([None, None], pa.struct([("x", pa.int64())])),
    ]
    hashes = {content_hash(pa.table({"x": array})) for array in arrays}
    hashes |= {
        content_hash(pa.table({"y": arrays[0]})),
        content_hash(pa.table({"x": arrays[0], "y": arrays[0]})),
    }
    assert len(hashes) == len(arrays) + 2


def test_the_content_hash_stays_the_same() -> None:
    """A hash of old: snapshots of other versions and machines must keep theirs."""
    table = pa.table(
        {
            "id": ["a", None, "b\u00e4"],
            "tokens": pa.array([[1, 2], [], None], pa.list_(pa.uint16())),
            "score": pa.array([0.5, None, -1.0], pa.float32()),
        }
    )
    assert content_hash(table) == "6938f3ed7e98cba314deaa4942e635f1"


def test_what_cannot_be_hashed_is_refused() -> None:
    """Rather than hashed in a way that may change."""
    with pytest.raises(GristmillError, match=r"expected text, numbers, lists or structs, got map<"):
        content_hash(pa.table({"x": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))}))


@given(rows=st.lists(st.lists(st.integers(0, 4095), max_size=6), max_size=8))
@settings(max_examples=25, deadline=None)
def test_tokens_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[list[int]]) -> None:
    """Written, described from the file alone, opened."""
    lake = Lake.open(tmp_path_factory.mktemp("lake"))
    table = pa.table(
        {
            "id": [str(n) for n in range(len(rows))],
            "domain": pa.array(["x"] * len(rows), pa.string()),
            "tokens": pa.array(rows, pa.list_(pa.uint16())),
            "num_bytes": pa.array([1] * len(rows), pa.int64()),
        }
    )
    shard = write_shard(lake, "data/tokens-train-00000.arrow", table, split="train", version=3)
    assert shard == describe_shard(lake, shard.path, split="train", version=3)
    assert (shard.kind, shard.rows, shard.num_tokens) == ("tokens", len(rows), sum(map(len, rows)))
    opened = open_shard(lake, shard)
    assert opened["tokens"].to_pylist() == rows and opened["tokens"].num_chunks == 1
    assert content_hash(opened) == shard.content_hash


def test_every_kind_of_shard_round_trips(lake: Lake) -> None:
    """Also with no rows, on a disk and in a bucket; nulls where they may be."""
    for kind, schema in SCHEMAS.items():
        empty = schema.empty_table()
        shard = write_shard(lake, f"data/{kind}-00000.arrow", empty)
        assert shard.kind == kind and open_shard(lake, shard).equals(empty)
    table = pa.Table.from_pylist(
        [{"id": "1", "uri": "u", "source": "s", "domain": "d", "fate": "kept"}], FATES
    )
    shard = write_shard(lake, "data/fates-00001.arrow", table)
    assert open_shard(lake, shard).to_pylist() == table.to_pylist()
    assert describe_shard(lake, shard.path) == shard


def test_equal_tables_give_equal_bytes(local_lake: Lake, documents: Maker) -> None:
    """Chunks, order of columns, other widths of the same values and missing metadata do not show."""
    table = documents([f"line {number}" for number in range(100)])
    first = write_shard(local_lake, "data/documents-00000.arrow", table)
    wide = table.set_column(
        1, "text", table["text"].cast(pa.large_string())
    ).replace_schema_metadata(None)
    chunked = pa.concat_tables([wide.slice(0, 33), wide.slice(33)]).select(table.schema.names[::-1])
    second = write_shard(local_lake, "data/documents-00001.arrow", chunked)
    assert replace(second, path=first.path) == first
    assert open_shard(local_lake, second).schema.equals(table.schema, check_metadata=True)


def test_a_shard_is_one_batch_and_only_text_is_compressed(
    local_lake: Lake, documents: Maker, tokens: Maker
) -> None:
    """A sample never crosses the edge of a batch, and tokens lie in the file as they are."""
    table = pa.concat_tables([documents(["a" * 10_000])] * 5)
    text = write_shard(local_lake, "data/documents-00000.arrow", table)
    assert text.num_bytes < 20_000
    rows = [[7] * 1000, [8] * 1000]
    flat = write_shard(local_lake, "data/tokens-train-00000.arrow", tokens(rows))
    assert np.array(rows, "<u2").tobytes() in local_lake.read_bytes(flat.path)
    for shard in (text, flat):
        with pa.ipc.open_file(str(local_lake.local_path(shard.path))) as file:
            assert file.num_record_batches == 1


def test_opening_tokens_copies_nothing(local_lake: Lake, tokens: Maker) -> None:
    """The values of an open shard are the pages of the file."""
    table = tokens([list(range(4000))] * 100, vocab_size=1 << 17)
    shard = write_shard(local_lake, "data/tokens-train-00000.arrow", table)
    before = pa.total_allocated_bytes()
    opened = open_shard(local_lake, shard)
    flat = opened["tokens"].chunk(0).values.to_numpy()
    assert pa.total_allocated_bytes() - before < 10_000 < flat.nbytes
    assert flat.dtype == np.uint32 and not flat.flags.owndata


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.drop_columns(["text"]), "expected the columns id, text, source"),
        (
            lambda table: table.append_column("more", pa.array([1])),
            "expected the columns id, text, source",
        ),
        (
            lambda table: table.set_column(1, "text", pa.array([None], pa.string())),
            "expected no nulls in text",
        ),
        (
            lambda table: table.set_column(1, "text", pa.array([[1]])),
            "expected a table of kind 'documents'",
        ),
        (
            lambda table: table.set_column(10, "num_bytes", pa.array([0.5])),
            "expected a table of kind 'documents'",
        ),
    ],
)
def test_a_table_against_its_schema_is_refused(
    local_lake: Lake, documents: Maker, change: Callable[[pa.Table], pa.Table], words: str
) -> None:
    """And no file appears."""
    with pytest.raises(GristmillError, match=rf"documents-00000\.arrow: {words}"):
        write_shard(local_lake, "data/documents-00000.arrow", change(documents(["text"])))
    assert local_lake.list(temporary=True) == []


def test_a_wrong_count_of_tokens_is_refused(local_lake: Lake, tokens: Maker) -> None:
    """A caller that counts otherwise has a bug."""
    with pytest.raises(GristmillError, match="expected 4 tokens, the table has 3"):
        write_shard(local_lake, "data/tokens-train-00000.arrow", tokens([[1, 2, 3]]), num_tokens=4)


def test_every_flipped_bit_is_found(local_lake: Lake, documents: Maker) -> None:
    """Wherever it is in the file; the message names file, both sums and what to do."""
    shard = write_shard(local_lake, "data/documents-00000.arrow", documents(["To be", "or not"]))
    file = local_lake.local_path(shard.path)
    sound = file.read_bytes()
    open_shard(local_lake, shard)
    for place in range(0, len(sound), 37):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        with pytest.raises(
            CorruptError,
            match=rf"{shard.path}: expected sha256 {shard.checksum}, got [0-9a-f]{{64}}.*put back",
        ):
            open_shard(local_lake, shard)
    for size in (0, 1, len(sound) // 2, len(sound) - 1):
        file.write_bytes(sound[:size])
        with pytest.raises(CorruptError, match="expected sha256"):
            open_shard(local_lake, shard)
    file.write_bytes(sound)
    assert len(open_shard(local_lake, shard)) == 2


@pytest.mark.parametrize("columns", [["id"], ["text", "id"], list(DOCUMENTS.names)])
def test_chosen_columns_are_those_of_the_whole_shard(
    local_lake: Lake, documents: Maker, columns: list[str]
) -> None:
    """In the order asked for; opened they are verified, and scanned they end as an error that says what is wrong."""
    shard = write_shard(local_lake, "data/documents-00000.arrow", documents(["To be", "or not"]))
    whole = open_shard(local_lake, shard)
    for read in (open_shard, scan_shard):
        assert read(local_lake, shard, columns).equals(whole.select(columns))
    file = local_lake.local_path(shard.path)
    sound = file.read_bytes()
    message = rf"{shard.path}: expected sha256 {shard.checksum}, got [0-9a-f]{{64}}"
    file.write_bytes(sound.replace(b"ARROW1", b"ARROW2"))
    for read in (open_shard, scan_shard):
        with pytest.raises(CorruptError, match=message):
            read(local_lake, shard, columns)
    with pytest.raises(CorruptError, match=message):
        read_schema(local_lake, shard)
    file.write_bytes(sound[:-100] + bytes([sound[-100] ^ 1]) + sound[-99:])
    with pytest.raises(CorruptError, match=message):
        open_shard(local_lake, shard, columns)


def test_a_shard_that_is_gone_is_named(lake: Lake, documents: Maker) -> None:
    """Another error than for a name that was never there: a manifest has promised it."""
    shard = write_shard(lake, "data/documents-00000.arrow", documents(["To be"]))
    lake.delete(shard.path)
    with pytest.raises(
        CorruptError, match=r"documents-00000\.arrow: expected the file that a manifest names"
    ):
        open_shard(lake, shard)
    with pytest.raises(NotFoundError, match="expected a file, found none"):
        describe_shard(lake, shard.path)


def test_what_the_system_refuses_is_no_damage(local_lake: Lake, documents: Maker) -> None:
    """No file descriptor left, say: the file is not to blame, and no good copy of it is asked for."""
    shard = write_shard(local_lake, "data/documents-00000.arrow", documents(["To be"]))
    open_shard(local_lake, shard)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(LakeError, match="cannot read it: too many open files") as refused:
            open_shard(local_lake, shard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not isinstance(refused.value, CorruptError)
    assert len(open_shard(local_lake, shard)) == 1


def test_a_checksum_is_verified_once(local_lake: Lake, tokens: Maker) -> None:
    """Not again while size and time of the file stay: shown by a change that hides both. Another sum is another shard."""
    shard = write_shard(local_lake, "data/tokens-train-00000.arrow", tokens([[258] * 100]))
    open_shard(local_lake, shard)
    file = local_lake.local_path(shard.path)
    status = file.stat()
    file.write_bytes(file.read_bytes().replace(b"\2\1" * 100, b"\3\1" * 100))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert open_shard(local_lake, shard)["tokens"].to_pylist() == [[259] * 100]
    with pytest.raises(CorruptError, match="expected sha256"):
        open_shard(local_lake, replace(shard, checksum="0" * 64))
    os.utime(file)
    with pytest.raises(CorruptError, match="expected sha256"):
        open_shard(local_lake, shard)


def test_a_damaged_download_is_fetched_again(
    s3_bucket: str, tmp_path: Path, documents: Maker
) -> None:
    """A bad copy on this machine is no damage to the lake; a bad object is."""
    lake = Lake.open(s3_bucket, cache=tmp_path)
    shard = write_shard(lake, "data/documents-00000.arrow", documents(["To be"]))
    file = lake.local_path(shard.path)
    file.write_bytes(b"half a download")
    assert open_shard(lake, shard)["text"].to_pylist() == ["To be"]
    lake.write_bytes(shard.path, b"other bytes")
    with pytest.raises(CorruptError, match="expected sha256"):
        open_shard(lake, shard)


def test_other_kinds_and_formats_are_refused(local_lake: Lake) -> None:
    """A sound file that is not what the manifest says it is, or of a format to come."""
    edges = write_shard(local_lake, "data/edges-00000.arrow", EDGES.empty_table())
    with pytest.raises(
        CorruptError, match="expected a 'fates' shard of format 2, got 'edges' of format 2"
    ):
        open_shard(local_lake, replace(edges, kind="fates"))
    with pytest.raises(CorruptError, match="expected 5 rows, got 0"):
        open_shard(local_lake, replace(edges, rows=5))
    marks = {"gristmill.kind": "edges", "gristmill.format": "3"}
    future = EDGES.empty_table().replace_schema_metadata(marks)
    with (
        local_lake.writer("data/edges-00001.arrow") as file,
        pa.ipc.new_file(str(file), future.schema) as sink,
    ):
        sink.write_table(future)
    with pytest.raises(
        CorruptError, match="got 'edges' of format 3; if a newer gristmill wrote it, upgrade"
    ):
        describe_shard(local_lake, "data/edges-00001.arrow")
    local_lake.write_bytes("data/edges-00002.arrow", b"ARROW1 not really")
    with pytest.raises(CorruptError, match=r"edges-00002\.arrow: expected an Arrow IPC file"):
        describe_shard(local_lake, "data/edges-00002.arrow")


def test_a_shard_on_a_full_disk_leaves_nothing(small_disk: Path, documents: Maker) -> None:
    """One plain message, no half of a file."""
    lake = Lake.open(small_disk / "lake")
    table = documents([os.urandom(1 << 20).hex()])
    with pytest.raises(
        LakeError, match=r"documents-00000\.arrow: cannot write it: the disk is full"
    ):
        write_shard(lake, "data/documents-00000.arrow", table)
    assert lake.list(temporary=True) == []
