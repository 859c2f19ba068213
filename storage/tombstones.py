"""What tombstones do to tables: shards never change, so a reader leaves out the rows that no longer count.

A tombstone of version v hides the rows of its document in shards of versions before v. Rows of v itself count: a document
that was displaced or came back is written again by the version that says so.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.schema import FATES, TOMBSTONES


def join_tombstones(tables: Iterable[tuple[int, pa.Table]]) -> pa.Table:
    """One table of the tombstones of several versions, each row with its `version`."""
    found = [TOMBSTONES.append(pa.field("version", pa.int64())).empty_table()]
    for version, table in tables:
        versions = pa.array([version] * len(table), pa.int64())
        found.append(table.append_column("version", versions))
    return pa.concat_tables(found).combine_chunks()


def hidden_ids(tombstones: pa.Table, versions: Iterable[int]) -> dict[int, pa.Array]:
    """By version of a shard, the ids of the rows that do not count in it; versions where all do are left out."""
    if not len(tombstones):
        return {}
    found = {
        version: tombstones.filter(pc.greater(tombstones["version"], version))["id"]
        for version in versions
    }
    return {version: ids.combine_chunks() for version, ids in found.items() if len(ids)}


def visible_rows(table: pa.Table, hidden: pa.Array) -> pa.BooleanArray | None:
    """Which rows of a table with an `id` count, None for all of them."""
    is_hidden = pc.is_in(table["id"], value_set=hidden).combine_chunks()
    return pc.invert(is_hidden) if pc.any(is_hidden).as_py() else None


def renumber_band_keys(
    keys: pa.Table, masks: Sequence[tuple[int, pa.BooleanArray | None]]
) -> pa.Table:
    """Band keys after rows were taken out of signatures: without those documents, the others numbered anew.

    `masks` are the number of rows, and which of them stay, of all shards of signatures in order. The order of
    (band, key, row) stays.
    """
    if all(mask is None for _, mask in masks):
        return keys
    counts = np.concatenate(
        [
            np.ones(rows, np.bool_) if mask is None else mask.to_numpy(zero_copy_only=False)
            for rows, mask in masks
        ]
    )
    rows = keys["row"].to_numpy()
    numbers = pa.array((np.cumsum(counts) - 1)[rows].astype(np.uint32))
    column = keys.schema.get_field_index("row")
    keys = keys.set_column(column, keys.schema.field(column), numbers)
    return keys.filter(pa.array(counts[rows]))


def overlay_changes(fates: Iterable[pa.Table], changes: Sequence[pa.Table]) -> Iterator[pa.Table]:
    """Fates as they hold now: each row that later versions changed in its newest form. `changes` are the oldest first."""
    if not changes:
        yield from fates
        return
    rows = pa.concat_tables(list(reversed(changes))).cast(FATES)
    rows = rows.take(pc.index_in(pc.unique(rows["id"]), rows["id"].combine_chunks()))
    ids = rows["id"].combine_chunks()
    for table in fates:
        places = pc.index_in(table["id"], ids)
        own = pa.array(range(len(table)), pa.int64())
        order = pc.if_else(pc.is_valid(places), pc.add(places.cast(pa.int64()), len(table)), own)
        yield pa.concat_tables([table, rows]).take(order)
