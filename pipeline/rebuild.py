"""The policy "rebuild": what a corpus keeps does not depend on which documents came in which build, or in what order.

Published documents have no precedence: a new one that goes before them by priority (`dedup.py`) displaces them, and
what had been removed in favour of these competes again. In the verified graph of all documents ever taken in, whether
one is kept follows from those before it alone. So what may change is found by going on from the new documents: whoever
has lost the kept document that it duplicated is decided anew, among all that are kept, until nobody else goes. All
others stay as they are, and the whole is the kept set of one build of everything.

That is exact as long as no bucket is larger than the engine compares (`similarity.py`), and of documents that every
build judged alike: filters and forgetting come before it. What `forget` brings back displaces nothing by itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dedup import INHERITS, DedupConfig, NearDuplicates, NewDocuments, near_duplicates
from pipeline.executor import Executor
from pipeline.minhash import sign_documents
from pipeline.runs import Published
from storage.schema import DOCUMENTS, DUPLICATES
from storage.snapshot import Snapshot

AGAIN = pa.schema([*DOCUMENTS, pa.field("duplicate_of", pa.string())])
"""Documents of earlier snapshots that compete again: displaced ones, and those removed in favour of one (duplicate_of)."""

PART_BYTES = 64 << 20
"""Text of documents that compete again, in one part: as much as a shard has by default."""


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """What `near_duplicates` found among all that compete, and who they are beside the new documents."""

    found: NearDuplicates
    """`removed` has documents that compete again, too; `inherits` says which split each kept document must have."""
    again: Sequence[pa.Table]
    """AGAIN, each published document with the split it had."""
    signatures: Sequence[pa.Table]
    """SIGNATURES of these, row for row."""


def rebuild(
    new: NewDocuments,
    published: Published,
    duplicates_of: Callable[[pa.Array], pa.Table],
    config: DedupConfig,
    *,
    probes: NewDocuments | None = None,
    folder: Path | None = None,
    executor: Executor | None = None,
) -> Rebuilt:
    """Find near-duplicates among new documents and published ones, none of which has precedence.

    `duplicates_of` gives the DUPLICATES that were removed in favour of documents with these ids. A kept document that
    is like a displaced one inherits its split; not that of one that an earlier build displaced. Costs as much as
    `near_duplicates`; where documents are displaced twice as much again, and once more for each time that those which
    come back displace others. Holds the texts of documents that compete again.
    """
    again: list[pa.Table] = []
    signatures: list[pa.Table] = []
    gone = np.empty(0, np.int64)
    while True:
        competing = NewDocuments(
            documents=[*new.documents, *(table.select(DOCUMENTS.names) for table in again)],
            signatures=[*new.signatures, *signatures],
            sources=new.sources,
        )
        left = published.without(gone) if len(gone) else published
        found = near_duplicates(
            competing, left, config, probes=probes, folder=folder, executor=executor
        )
        if not len(found.displaced):
            if again:
                again_signed = list(zip(again, signatures, strict=True))
                alike = _like_displaced(competing, found, again_signed, config, folder, executor)
                found = replace(found, inherits=_inherited(found, again, alike))
            return Rebuilt(found=found, again=again, signatures=signatures)
        numbers = found.displaced.to_numpy()
        gone = np.union1d(gone, numbers)
        displaced = pa.concat_tables(
            [t.select(DOCUMENTS.names) for t in published.documents(numbers)]
        )
        displaced = displaced.append_column("duplicate_of", pa.nulls(len(displaced), pa.string()))
        removed = duplicates_of(displaced["id"].combine_chunks()).select(AGAIN.names)
        parts = _cut(pa.concat_tables([displaced.cast(AGAIN), removed.cast(AGAIN)]))
        again += parts
        signatures += [sign_documents(part, config) for part in parts]


def _cut(table: pa.Table) -> list[pa.Table]:
    """Stretches of about PART_BYTES of text."""
    numbers = np.cumsum(table["num_bytes"].to_numpy()) // PART_BYTES
    cuts = np.flatnonzero(numbers[1:] != numbers[:-1]) + 1
    return [table.slice(a, b - a) for a, b in pairwise([0, *cuts.tolist(), len(table)])]


def duplicates_of(snapshot: Snapshot, ids: pa.Array) -> pa.Table:
    """The stored near-duplicates that were removed in favour of documents with these ids."""
    found = [DUPLICATES.empty_table()]
    for shard in snapshot.shards("duplicates"):
        table = snapshot.open(shard)
        found.append(table.filter(pc.is_in(table["duplicate_of"], value_set=ids)).cast(DUPLICATES))
    return pa.concat_tables(found)


def _like_displaced(
    competing: NewDocuments,
    found: NearDuplicates,
    again: Sequence[tuple[pa.Table, pa.Table]],
    config: DedupConfig,
    folder: Path | None,
    executor: Executor | None,
) -> set[tuple[str, str]]:
    """Pairs of a kept document that competed and a displaced one that is like it, whichever goes before the other.

    Who goes behind was not compared with it: it was removed.
    """
    is_old = [pc.is_null(table["duplicate_of"]) for table, _ in again]
    olds, signed = (
        [pair[i].filter(mask) for pair, mask in zip(again, is_old, strict=True)] for i in (0, 1)
    )
    old = pa.concat_tables(olds)
    published = Published.of_tables(old.select(DOCUMENTS.names), pa.concat_tables(signed))
    without = pa.concat_arrays(
        [c for column in (found.removed["id"], old["id"]) for c in column.chunks]
    )
    kept = [t.filter(pc.invert(pc.is_in(t["id"], value_set=without))) for t in competing.documents]
    edges = near_duplicates(
        replace(competing, documents=kept),
        published,
        replace(config, policy="append"),
        folder=folder,
        executor=executor,
    ).edges
    pairs: set[tuple[str, str]] = set()
    for one, other in (("id_a", "id_b"), ("id_b", "id_a")):
        found_here = edges.filter(pc.is_in(edges[other], value_set=old["id"].combine_chunks()))
        pairs |= set(zip(found_here[one].to_pylist(), found_here[other].to_pylist(), strict=True))
    same_text = dict(zip(old["content_hash"].to_pylist(), old["id"].to_pylist(), strict=True))
    for table in kept:
        rows = table.filter(pc.is_in(table["content_hash"], old["content_hash"].combine_chunks()))
        for row in rows.select(["id", "content_hash"]).to_pylist():
            pairs.add((row["id"], same_text[row["content_hash"]]))
    return pairs


def _inherited(
    found: NearDuplicates, again: Sequence[pa.Table], alike: set[tuple[str, str]]
) -> pa.Table:
    """INHERITS: who is like a displaced document (`alike`) has its split, and so has who comes back for one.

    Of several, one that validates decides: what was held out must not be trained on.
    """
    rows = [row for t in again for row in t.select(["id", "split", "duplicate_of"]).to_pylist()]
    split_of = {row["id"]: row["split"] for row in rows if row["duplicate_of"] is None}
    removed = set(found.removed["id"].to_pylist())
    pairs = alike | {(row["id"], row["duplicate_of"] or row["id"]) for row in rows}
    chosen: dict[str, dict[str, str]] = {}
    for id_, other in sorted(pairs, key=lambda pair: (split_of[pair[1]] != "validation", pair)):
        if id_ not in removed:
            chosen.setdefault(id_, {"id": id_, "split_of": other, "split": split_of[other]})
    return pa.Table.from_pylist(list(chosen.values()), INHERITS).sort_by("id")
