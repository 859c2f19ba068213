"""What was removed and for what, as people read it: the rows of `gristmill dedup --pairs`."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.dedup import NearDuplicates
from pipeline.row_files import RowFile
from storage.snapshot import Snapshot

PAIRS_ENDINGS = (".jsonl", ".csv", ".parquet")
"""How a list of pairs may be written."""

PAIRS = pa.schema(
    [
        pa.field("id", pa.string()),  # of the removed row; file:row where it has none
        pa.field("file", pa.string()),
        pa.field("row", pa.int64()),  # lines from 1, rows of tables from 0
        pa.field("duplicate_of", pa.string()),  # id of the kept one
        pa.field("duplicate_of_file", pa.string()),  # of a snapshot's document, its uri
        pa.field("duplicate_of_row", pa.int64()),  # null for a snapshot's document
        pa.field("snapshot", pa.string()),  # name@version, where the kept one is there
        pa.field("rule", pa.string()),  # exact, near_duplicate or contained
        pa.field("jaccard", pa.float32()),
        pa.field("containment", pa.float32()),
    ]
)
"""A list of pairs as a table."""

_BATCH = 10_000
"""Rows turned into Python objects at a time."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """Where each document stands in the input; ids are those of `dedup_files`."""

    files: Sequence[RowFile]
    """File of each part."""
    first_rows: Sequence[int]
    """Number of each part's first row in its file."""
    identities: pa.Table
    """id, and name: the row's own id as JSON, sorted by id."""
    against: Snapshot | None


def pairs_of(found: Found, exact: pa.Table, near: NearDuplicates) -> pa.Table:
    """One row for each removed document, sorted by id: id, duplicate_of (kept), rule, jaccard, containment, in_snapshot.

    A copy of a document that was itself removed stands with the one that is kept: the measures are the same, because
    copies have the same shingles.
    """
    removed = near.removed
    edges = pc.binary_join_element_wise(near.edges["id_a"], near.edges["id_b"], " ")
    is_first = pc.less(removed["id"], removed["duplicate_of"])
    first = pc.if_else(is_first, removed["id"], removed["duplicate_of"])
    second = pc.if_else(is_first, removed["duplicate_of"], removed["id"])
    edge = pc.index_in(pc.binary_join_element_wise(first, second, " "), edges.combine_chunks())
    columns = ["id", "duplicate_of", "rule"]
    measures = {name: near.edges[name].take(edge) for name in ("jaccard", "containment")}
    near_pairs = pa.table({**{name: removed[name] for name in columns}, **measures})

    via = pc.index_in(exact["duplicate_of"], removed["id"].combine_chunks())
    ones = pa.array(np.ones(len(exact), np.float32))
    copies = pa.table(
        {
            "id": exact["id"],
            "duplicate_of": pc.coalesce(
                near_pairs["duplicate_of"].take(via), exact["duplicate_of"]
            ),
            "rule": pc.coalesce(near_pairs["rule"].take(via), pa.scalar("exact")),
            "jaccard": pc.coalesce(near_pairs["jaccard"].take(via), ones),
            "containment": pc.coalesce(near_pairs["containment"].take(via), ones),
        }
    )
    pairs = pa.concat_tables([near_pairs, copies]).combine_chunks().sort_by("id")
    ours = pc.is_in(pairs["duplicate_of"], found.identities["id"].combine_chunks())
    return pairs.append_column("in_snapshot", pc.invert(ours))


def write_pairs(found: Found, pairs: pa.Table, path: Path, ending: str) -> None:
    """Write the pairs in the order of the input as .jsonl, .csv or .parquet (PAIRS)."""
    uris = _uris(found, pairs)
    batches = (_rows(found, batch, uris) for batch in pairs.to_batches(_BATCH))
    if ending == ".parquet":
        with pq.ParquetWriter(path, PAIRS) as writer:
            for rows in batches:
                for row in rows:
                    row |= {name: _as_text(row[name]) for name in ("id", "duplicate_of")}
                writer.write_table(pa.Table.from_pylist(rows, PAIRS))
    elif ending == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, PAIRS.names)
            table.writeheader()
            for rows in batches:
                table.writerows(rows)
    else:
        with path.open("wb") as file:
            for rows in batches:
                file.writelines(orjson.dumps(row) + b"\n" for row in rows)


def _uris(found: Found, pairs: pa.Table) -> dict[str, str]:
    """Where the snapshot's documents came from, of those that are named."""
    uris: dict[str, str] = {}
    if found.against is not None:
        wanted = pairs.filter(pairs["in_snapshot"])["duplicate_of"].combine_chunks()
        for table in found.against.documents():
            named = table.select(["id", "uri"]).filter(pc.is_in(table["id"], wanted))
            uris |= zip(named["id"].to_pylist(), named["uri"].to_pylist(), strict=True)
    return uris


def _rows(found: Found, batch: pa.RecordBatch, uris: dict[str, str]) -> list[dict[str, Any]]:
    ids = found.identities["id"].combine_chunks()
    names = found.identities["name"].combine_chunks()

    def own_names(column: pa.Array) -> list[str | None]:
        return names.take(pc.index_in(column, ids)).to_pylist()

    rows = []
    for pair, name, other in zip(
        batch.to_pylist(), own_names(batch["id"]), own_names(batch["duplicate_of"]), strict=True
    ):
        file, row = _place(found, pair["id"])
        removed = {"id": _name(name, file, row), "file": file, "row": row}
        if pair["in_snapshot"]:
            assert found.against is not None
            identity = pair["duplicate_of"]
            kept = {
                "duplicate_of": identity,
                "duplicate_of_file": uris.get(identity),
                "duplicate_of_row": None,
                "snapshot": found.against.ref,
            }
        else:
            file, row = _place(found, pair["duplicate_of"])
            kept = {
                "duplicate_of": _name(other, file, row),
                "duplicate_of_file": file,
                "duplicate_of_row": row,
                "snapshot": None,
            }
        measures = {name: round(pair[name], 6) for name in ("jaccard", "containment")}
        rows.append({**removed, **kept, "rule": pair["rule"], **measures})
    return rows


def _place(found: Found, identity: str) -> tuple[str, int]:
    """File and row of a document."""
    part = int(identity[:12], 16)
    return found.files[part].name, found.first_rows[part] + int(identity[12:], 16)


def _name(name: str | None, file: str, row: int) -> Any:
    """A row's own id, or its place."""
    return f"{file}:{row}" if name is None else orjson.loads(name)


def _as_text(name: Any) -> str:
    return name if isinstance(name, str) else orjson.dumps(name).decode()
