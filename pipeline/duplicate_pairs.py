"""What was removed and for what, as people read it: the rows of `gristmill dedup --pairs`."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.display import visible
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
    """id, row in its part, and name (the row's own id as JSON), sorted by id."""
    against: Snapshot | None


def pairs_of(found: Found, exact: pa.Table, near: pa.Table) -> pa.Table:
    """One row a removed document, sorted by id: id, duplicate_of (kept), rule, jaccard, containment, in_snapshot.

    `exact` has (id, duplicate_of), `near` is `pipeline.dedup.REMOVED`. A copy of a document that was itself removed
    stands with the one that is kept: the measures are the same, because copies have the same shingles.
    """
    via = pc.index_in(exact["duplicate_of"], near["id"].combine_chunks())
    one = pa.scalar(1.0, pa.float32())
    values = {"duplicate_of": exact["duplicate_of"], "rule": pa.scalar("exact")}
    values |= {"jaccard": one, "containment": one}
    copies = {name: pc.coalesce(near[name].take(via), value) for name, value in values.items()}
    pairs = pa.concat_tables(
        [near.select(["id", *values]), pa.table({"id": exact["id"], **copies})],
        promote_options="permissive",
    )
    pairs = pairs.combine_chunks().sort_by("id")
    ours = pc.is_in(pairs["duplicate_of"], found.identities["id"].combine_chunks())
    return pairs.append_column("in_snapshot", pc.invert(ours))


def write_pairs(found: Found, pairs: pa.Table, path: Path, ending: str) -> int:
    """Write the pairs in the order of the input as .jsonl, .csv or .parquet (PAIRS).

    Returns the number of rows that do not stand there letter by letter: as CSV is opened in spreadsheets and on
    terminals, cells that would be a formula begin with ', and control characters are shown (`display.visible`).
    """
    changed = 0
    removed = _places(found, pairs["id"])
    kept = _places(found, pairs["duplicate_of"])
    uris = _uris(found, pairs)
    batches = (
        _columns(found, pairs.slice(at, _BATCH), removed.slice(at, _BATCH), kept.slice(at, _BATCH), uris)
        for at in range(0, len(pairs), _BATCH)
    )  # fmt: skip
    if ending == ".parquet":
        with pq.ParquetWriter(path, PAIRS) as writer:
            for columns in batches:
                for name in ("id", "duplicate_of"):
                    columns[name] = [_as_text(value) for value in columns[name]]
                writer.write_table(pa.table(columns, schema=PAIRS))
    elif ending == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(PAIRS.names)
            for columns in batches:
                for row in zip(*columns.values(), strict=True):
                    cells = list(map(_as_cell, row))
                    changed += any(
                        c != _as_text(v) for c, v in zip(cells, row, strict=True) if v is not None
                    )
                    table.writerow(cells)
    else:
        with path.open("wb") as file:
            for columns in batches:
                for row in zip(*columns.values(), strict=True):
                    file.write(orjson.dumps(dict(zip(columns, row, strict=True))) + b"\n")
    return changed


def _uris(found: Found, pairs: pa.Table) -> dict[str, str]:
    """Where the snapshot's documents came from, of those that are named."""
    uris: dict[str, str] = {}
    if found.against is not None:
        wanted = pairs.filter(pairs["in_snapshot"])["duplicate_of"].combine_chunks()
        for table in found.against.documents():
            named = table.select(["id", "uri"]).filter(pc.is_in(table["id"], wanted))
            uris |= zip(named["id"].to_pylist(), named["uri"].to_pylist(), strict=True)
    return uris


def _places(found: Found, ids: pa.ChunkedArray) -> pa.Table:
    """Part, row in its file, and name of documents of the input; null for those of a snapshot."""
    at = pc.index_in(ids, found.identities["id"].combine_chunks())
    known = found.identities.take(at)
    parts = [
        None if id_ is None else int(id_, 16)
        for id_ in pc.utf8_slice_codeunits(known["id"], 0, 12).to_pylist()
    ]
    parts = pa.array(parts, pa.int64())
    rows = pc.add(pa.array(found.first_rows, pa.int64()).take(parts), known["row"])
    return pa.table({"part": parts, "row": rows, "name": known["name"]})


def _columns(
    found: Found, pairs: pa.Table, removed: pa.Table, kept: pa.Table, uris: dict[str, str]
) -> dict[str, list[Any]]:
    """The columns of PAIRS as Python objects."""
    ids, files, rows = _names(found, removed)
    other_ids, other_files, other_rows = _names(found, kept)
    snapshots: list[str | None] = [None] * len(pairs)
    if found.against is not None:
        for i, identity in enumerate(pairs["duplicate_of"].to_pylist()):
            if other_files[i] is None:
                other_ids[i], other_files[i] = identity, uris.get(identity)
                snapshots[i] = found.against.ref
    return {
        "id": ids,
        "file": files,
        "row": rows,
        "duplicate_of": other_ids,
        "duplicate_of_file": other_files,
        "duplicate_of_row": other_rows,
        "snapshot": snapshots,
        "rule": pairs["rule"].to_pylist(),
        "jaccard": [round(value, 6) for value in pairs["jaccard"].to_pylist()],
        "containment": [round(value, 6) for value in pairs["containment"].to_pylist()],
    }


def _names(found: Found, places: pa.Table) -> tuple[list[Any], list[str | None], list[int | None]]:
    """Ids (a row without one goes by its place), files and rows."""
    rows = places["row"].to_pylist()
    files = [
        None if part is None else found.files[part].name for part in places["part"].to_pylist()
    ]
    ids = [
        f"{file}:{row}" if name is None else orjson.loads(name)
        for name, file, row in zip(places["name"].to_pylist(), files, rows, strict=True)
    ]
    return ids, files, rows


def _as_text(name: Any) -> str:
    return name if isinstance(name, str) else orjson.dumps(name).decode()


# Also behind what other spreadsheets, or other locales, take for the end of a cell.
_FORMULA = re.compile(r"(?:^|(?<=[\t\n\r,;|]))(?=[\s\"']*[=+\-@\uff0b\uff0d\uff1d\uff20])")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


def _as_cell(value: Any) -> str:
    """A value as a cell that no spreadsheet runs and no terminal obeys; empty for none."""
    if value is None:
        return ""
    text = visible(_as_text(value))
    return text if _NUMBER.fullmatch(text) else _FORMULA.sub("'", text)
