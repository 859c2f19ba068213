"""What earlier snapshots published, by key: sorted runs of band keys and of content hashes, merged as they grow.

A snapshot's shards name the runs that together hold everything published so far. A build adds one run; it merges those
before it that are not more than twice as large, so that there are `O(log n)` runs and each entry is rewritten
`O(log n)` times (the logarithmic method of Bentley and Saxe 1980; a log-structured merge tree of one level a size).
Documents are numbered through all signature shards of the chain: old shards never change, so numbers stay.
"""

from binascii import unhexlify
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.minhash import (
    EMPTY,
    Hashes,
    band_keys,
    check_published,
    check_signatures,
    read_signatures,
    utf8,
)
from pipeline.templates import stored_templates
from storage.errors import GristmillError
from storage.schema import BAND_KEYS, DOCUMENTS, TEMPLATES, TEXT_KEYS
from storage.shard import Shard
from storage.snapshot import Snapshot

if TYPE_CHECKING:  # dedup holds the config and reads these runs; only the annotations look back
    from pipeline.dedup import DedupConfig

Rows = NDArray[np.int64]

_ROWS_AT_A_TIME = 1 << 14  # of hex digits, half a megabyte

MERGED_AT_MOST = 2
"""A run is merged with the one before it while that is at most so many times as large."""


@dataclass(frozen=True)
class BandRun:
    """Band keys of published documents, sorted within each band."""

    keys: Hashes
    """Shape (bands, entries), ascending in each band."""
    rows: NDArray[np.uint32]
    """Number of the document of each key, ascending among equal keys; the same shape."""
    hidden: Rows = field(default_factory=lambda: np.empty(0, np.int64))
    """Numbers of documents that do not count any more, ascending."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """Documents that earlier snapshots published, found by their band keys."""

    runs: Callable[["DedupConfig"], Sequence[BandRun]]
    """All their band keys, each document in one run."""
    documents: Callable[[Rows], Iterable[pa.Table]]
    """DOCUMENTS tables of those with the given numbers, which ascend; in their order."""
    num_shingles: Callable[[Rows], Rows]
    """Distinct shingles of those with the given numbers, which ascend."""
    copies: Callable[[Hashes], tuple[Rows, Rows]]
    """Those with one of some distinct content hashes, shape (m, 2): their numbers, and the index of the hash of each."""
    templates: Callable[[], pa.Table] = TEMPLATES.empty_table
    """The TEMPLATES stored with them."""

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Published":
        """Everything that a snapshot and its ancestors hold."""
        return cls(
            runs=lambda config: band_runs(snapshot, config),
            documents=lambda rows: take_documents(snapshot, rows),
            num_shingles=lambda rows: take_num_shingles(snapshot, rows),
            copies=lambda hashes: find_copies(snapshot, hashes),
            templates=lambda: stored_templates(snapshot),
        )

    @classmethod
    def of_tables(cls, documents: pa.Table, signatures: pa.Table) -> "Published":
        """A DOCUMENTS table that is in memory, and the SIGNATURES of its rows."""

        def runs(config: "DedupConfig") -> list[BandRun]:
            return [_as_run(band_key_run([signatures], config), config.bands)]

        def copies(hashes: Hashes) -> tuple[Rows, Rows]:
            places = {hash_.tobytes(): place for place, hash_ in enumerate(hashes)}
            content = hex_words(documents["content_hash"])
            owners = np.array([places.get(hash_.tobytes(), -1) for hash_ in content], np.int64)
            return np.flatnonzero(owners >= 0), owners[owners >= 0]

        def take(rows: Rows) -> Iterator[pa.Table]:
            start = 0
            for batch in documents.to_batches():
                first, last = np.searchsorted(rows, [start, start + len(batch)])
                chosen = pa.array(rows[first:last] - start)
                yield pa.Table.from_batches([batch]).take(chosen)
                start += len(batch)

        return cls(
            runs=runs,
            documents=take,
            num_shingles=lambda rows: signatures["num_shingles"].to_numpy()[rows],
            copies=copies,
        )

    def without(self, rows: Rows) -> "Published":
        """All but the documents with these numbers, which ascend."""

        def runs(config: "DedupConfig") -> list[BandRun]:
            return [replace(r, hidden=np.union1d(r.hidden, rows)) for r in self.runs(config)]

        def copies(hashes: Hashes) -> tuple[Rows, Rows]:
            found, owners = self.copies(hashes)
            stays = ~np.isin(found, rows)
            return found[stays], owners[stays]

        return replace(self, runs=runs, copies=copies)


def band_key_run(
    signatures: Sequence[pa.Table], config: "DedupConfig", first_row: int = 0
) -> pa.Table:
    """Give the BAND_KEYS table of SIGNATURES tables, sorted by (band, key, row).

    `row` counts on from `first_row` through the tables in the order given. Documents without shingles have no key: they
    are alike in nothing. `O(n log n)`. Raises GristmillError for signatures made otherwise than `config` asks.
    """
    keys, rows = [np.empty((0, config.bands), np.uint64)], [np.empty(0, np.uint32)]
    for number, table in enumerate(signatures):
        check_signatures(table.schema, config, f"signatures, table {number}")
        values = read_signatures(table)
        places = np.flatnonzero((values != EMPTY).any(axis=1))
        keys.append(band_keys(values[places], bands=config.bands, rows=config.rows))
        rows.append((places + first_row).astype(np.uint32))
        first_row += len(table)
    if first_row > 1 << 32:
        raise GristmillError(
            f"band keys: expected at most 2^32 documents in a corpus, got {first_row}; divide it into several"
        )
    all_keys, all_rows = np.concatenate(keys), np.concatenate(rows)
    return _sorted_run([(all_keys[:, band], all_rows) for band in range(config.bands)])


def text_key_run(documents: Sequence[pa.Table]) -> pa.Table:
    """Give the TEXT_KEYS table of DOCUMENTS tables, sorted by (key, rest, id)."""
    names = ["content_hash", "id"]
    tables = [table.select(names) for table in documents]
    empty = pa.schema([DOCUMENTS.field(name) for name in names]).empty_table()
    return _text_keys(pa.concat_tables([empty, *tables]))


def next_runs(
    parent: Snapshot | None,
    signatures: Sequence[pa.Table],
    documents: Sequence[pa.Table],
    config: "DedupConfig",
) -> tuple[dict[str, pa.Table], list[str]]:
    """Give the runs that a snapshot with these new documents adds, by kind, and the paths of those it replaces."""
    if parent is None:
        return {
            "band_keys": band_key_run(signatures, config),
            "text_keys": text_key_run(documents),
        }, []
    before = sum(shard.rows for shard in parent.shards("signatures"))
    run, old = band_key_run(signatures, config, before), parent.shards("band_keys")
    if _is_made_otherwise(parent, config):
        runs, band_shards = [*_runs_anew(parent, config), _as_run(run, config.bands)], old
    else:
        band_shards = _to_merge(old, len(run))
        runs = [_as_run(table, config.bands) for table in (*map(parent.open, band_shards), run)]
    if len(runs) > 1:
        run = _sorted_run(
            [
                (
                    np.concatenate([one.keys[band] for one in runs]),
                    np.concatenate([one.rows[band] for one in runs]),
                )
                for band in range(config.bands)
            ]
        )
    texts = text_key_run(documents)
    text_shards = _to_merge(parent.shards("text_keys"), len(texts))
    if text_shards:
        order = [(name, "ascending") for name in ("key", "rest", "id_high", "id_low")]
        texts = pa.concat_tables([*map(parent.open, text_shards), texts]).sort_by(order)
    replaced = [shard.path for shard in (*band_shards, *text_shards)]
    return {"band_keys": run, "text_keys": texts}, replaced


def band_runs(snapshot: Snapshot, config: "DedupConfig") -> list[BandRun]:
    """The runs of a snapshot, memory-mapped; one made anew from its signatures if its recipe had other bands.

    Raises GristmillError if its signatures cannot be compared with what `config` asks for.
    """
    check_published(snapshot, config)
    if _is_made_otherwise(snapshot, config):
        runs = _runs_anew(snapshot, config)
    else:
        shards = snapshot.shards("band_keys")
        runs = [_as_run(snapshot.open(shard), config.bands) for shard in shards]
    hidden = hidden_documents(snapshot)
    return [replace(run, hidden=hidden) for run in runs]


def hidden_documents(snapshot: Snapshot) -> Rows:
    """Numbers of the documents that tombstones hide, ascending; reads ids only where there may be some."""
    found, start = [np.empty(0, np.int64)], 0
    for shard in snapshot.shards("signatures"):
        visible = snapshot.visible(shard)
        if visible is not None:
            found.append(np.flatnonzero(~visible.to_numpy(zero_copy_only=False)) + start)
        start += shard.rows
    return np.concatenate(found)


def published_copies(snapshot: Snapshot, content_hashes: pa.ChunkedArray) -> pa.Table:
    """Published documents with one of these content hashes, as (id, content_hash). `O(m log n)` for m hashes."""
    wanted = np.unique(hex_words(content_hashes), axis=0)
    ids, owners = _look_up(snapshot, wanted)
    table = pa.table({"id": ids, "content_hash": words_hex(wanted[owners])})
    return table.filter(pc.invert(pc.is_in(table["id"], value_set=_not_kept(snapshot))))


def find_copies(snapshot: Snapshot, content_hashes: Hashes) -> tuple[Rows, Rows]:
    """Published documents with one of these hashes, which are distinct: their numbers, and the index of the hash of each.

    `O(m log n)`; where there are any, one look at the ids of all signatures, which lie memory-mapped.
    """
    ids, owners = _look_up(snapshot, content_hashes)
    numbers, found, start = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for shard in snapshot.shards("signatures") if len(ids) else ():
        table = snapshot.open_whole(shard)
        places = pc.index_in(table["id"], value_set=ids).to_numpy()
        is_found = ~np.isnan(places) if places.dtype.kind == "f" else np.ones(len(places), np.bool_)
        visible = snapshot.visible(shard, table)
        if visible is not None:
            is_found &= visible.to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(is_found)
        numbers.append(rows + start)
        found.append(owners[places[rows].astype(np.int64)])
        start += shard.rows
    return np.concatenate(numbers), np.concatenate(found)


def _look_up(snapshot: Snapshot, wanted: Hashes) -> tuple[pa.Array, Rows]:
    """Ids that the runs of texts hold for distinct content hashes, and the index of the hash of each."""
    ids, owners_of = [np.empty((0, 2), np.uint64)], [np.empty(0, np.int64)]
    for shard in snapshot.shards("text_keys"):
        table = snapshot.open(shard)
        if not len(table):
            continue
        keys, rest, high, low = (_column(table, name) for name in TEXT_KEYS.names)
        places, owners = _ranges(keys, wanted[:, 0])
        is_equal = rest[places] == wanted[owners, 1]
        places, owners = places[is_equal], owners[is_equal]
        ids.append(np.stack([high[places], low[places]], axis=1))
        owners_of.append(owners)
    return words_hex(np.concatenate(ids)), np.concatenate(owners_of)


def _not_kept(snapshot: Snapshot) -> pa.Array:
    """Ids that have a tombstone and were not kept again since."""
    ids, versions = snapshot.tombstones["id"].combine_chunks(), snapshot.tombstones["version"]
    for version in pc.unique(versions).to_pylist():
        for shard in snapshot.shards("documents", version=version):
            again = snapshot.open(shard)["id"].combine_chunks()
            ids = ids.filter(pc.invert(pc.is_in(ids, value_set=again)))
    return ids


def take_documents(snapshot: Snapshot, rows: Rows) -> Iterator[pa.Table]:
    """The documents with these numbers, which ascend, a table a shard; shards without any stay closed."""
    start = 0
    # The shards of a part are written together, row for row: numbering signatures numbers documents.
    for shard in snapshot.shards("documents"):
        first, last = np.searchsorted(rows, [start, start + shard.rows])
        if last > first:
            yield snapshot.open_whole(shard).take(pa.array(rows[first:last] - start))
        start += shard.rows


def take_num_shingles(snapshot: Snapshot, rows: Rows) -> Rows:
    """Numbers of distinct shingles of the documents with these numbers, which ascend."""
    found, start = [np.empty(0, np.int64)], 0
    for shard in snapshot.shards("signatures"):
        first, last = np.searchsorted(rows, [start, start + shard.rows])
        if last > first:
            counts = snapshot.open_whole(shard)["num_shingles"].to_numpy()
            found.append(counts[rows[first:last] - start])
        start += shard.rows
    return np.concatenate(found)


def find_keys(run: BandRun, band: int, keys: Hashes, at_most: int) -> tuple[Rows, Rows]:
    """Where distinct keys occur in a band of a run: (numbers of documents, index of the key of each).

    At most so many documents a key, the first published. `O(m log n)` for m keys.
    """
    if not len(run.hidden):
        places, owners = _ranges(run.keys[band], keys, at_most)
        return run.rows[band][places].astype(np.int64), owners
    places, owners = _ranges(run.keys[band], keys)
    rows = run.rows[band][places].astype(np.int64)
    counts = run.hidden[np.searchsorted(run.hidden[:-1], rows)] != rows
    rows, owners = rows[counts], owners[counts]
    within = np.arange(len(owners)) - np.searchsorted(owners, owners)
    return rows[within < at_most], owners[within < at_most]


def hex_words(column: pa.ChunkedArray | pa.Array) -> Hashes:
    """Read 32 hex digits as two uint64, shape (rows, 2). Raises GristmillError for anything else."""
    words, filled = np.empty((len(column), 2), np.uint64), 0
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        for begin in range(0, len(chunk), _ROWS_AT_A_TIME):
            part = chunk[begin : begin + _ROWS_AT_A_TIME]
            data, begins = utf8(part)
            try:
                values = unhexlify(data[begins[0] : begins[-1]].data)
                words[filled : filled + len(part)] = np.frombuffer(values, ">u8").reshape(-1, 2)
            except ValueError as error:
                raise GristmillError(
                    "expected ids and content hashes of 32 hex digits, got others; this is a bug"
                ) from error
            filled += len(part)
    return words


def words_hex(words: Hashes) -> pa.Array:
    """What `hex_words` read, as text."""
    digits = words.astype(">u8").tobytes().hex()
    offsets = pa.array(np.arange(0, len(digits) + 1, 32, dtype=np.int32))
    buffers = [None, offsets.buffers()[1], pa.py_buffer(digits.encode())]
    return pa.Array.from_buffers(pa.string(), len(words), buffers)


def _ranges(keys: Hashes, wanted: Hashes, at_most: int | None = None) -> tuple[Rows, Rows]:
    """Places of sorted keys that equal one of `wanted`, and which of those each equals."""
    first = np.searchsorted(keys, wanted, "left")
    counts = np.searchsorted(keys, wanted, "right") - first
    if at_most is not None:
        counts = np.minimum(counts, at_most)
    owners = np.repeat(np.arange(len(wanted)), counts)
    within = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    return first[owners] + within, owners


def _to_merge(shards: Sequence[Shard], size: int) -> list[Shard]:
    """The last runs that are not much larger than what comes; oldest first."""
    first = len(shards)
    while first and shards[first - 1].rows <= MERGED_AT_MOST * size:
        first -= 1
        size += shards[first].rows
    return list(shards[first:])


def _sorted_run(bands: Sequence[tuple[Hashes, NDArray[np.uint32]]]) -> pa.Table:
    """The BAND_KEYS table of unsorted (keys, rows) of each band, rows ascending."""
    keys, rows = [np.empty(0, np.uint64)], [np.empty(0, np.uint32)]
    for band_keys_, band_rows in bands:
        order = np.argsort(band_keys_, kind="stable")  # stable: rows ascend within equal keys
        keys.append(band_keys_[order])
        rows.append(band_rows[order])
    sizes = [len(part) for part in keys[1:]]
    numbers = np.repeat(np.arange(len(sizes), dtype=np.uint16), sizes)
    columns = [numbers, np.concatenate(keys), np.concatenate(rows)]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=BAND_KEYS)


def _as_run(table: pa.Table, bands: int) -> BandRun:
    shape = (bands, -1) if len(table) else (bands, 0)
    return BandRun(_column(table, "key").reshape(shape), _column(table, "row").reshape(shape))


def _column(table: pa.Table, name: str) -> NDArray[Any]:
    """A column of numbers; a view of the memory map where the table has one batch, as shards have."""
    column = table[name]
    return column.chunk(0).to_numpy() if column.num_chunks == 1 else column.to_numpy()


def _runs_anew(snapshot: Snapshot, config: "DedupConfig") -> list[BandRun]:
    tables = [snapshot.open_whole(shard) for shard in snapshot.shards("signatures")]
    return [_as_run(band_key_run(tables, config), config.bands)]


def _is_made_otherwise(snapshot: Snapshot, config: "DedupConfig") -> bool:
    """Whether the recipe's bands have changed since the snapshot was built; all its runs were made with its own."""
    section: dict[str, Any] = snapshot.manifest.recipe.get("dedup", {})
    return any(
        section.get(name, getattr(config, name)) != getattr(config, name)
        for name in ("bands", "rows")
    )


def _text_keys(table: pa.Table) -> pa.Table:
    words = np.concatenate([hex_words(table["content_hash"]), hex_words(table["id"])], axis=1)
    order = np.lexsort(words.T[::-1])
    columns = [pa.array(np.ascontiguousarray(column)) for column in words[order].T]
    return pa.Table.from_arrays(columns, schema=TEXT_KEYS)
