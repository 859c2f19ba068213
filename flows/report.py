"""Collects from a lake what the report of a snapshot shows, and writes the page there."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from model.records import read_lines, read_object
from pipeline.report import render_report
from storage.lake import Lake
from storage.snapshot import Snapshot

SAMPLES_A_DOMAIN = 3
"""Kept documents shown of each domain."""
MAX_DUPLICATES = 12
"""Duplicate pairs shown, spread evenly over their similarities."""
MAX_SAMPLE_SHARDS = 8
"""Document shards searched for samples; the hash decides, so a corpus's first shards are as good as any."""

Row = dict[str, Any]


def write_report(lake: Lake, snapshot: Snapshot, run: str | None) -> str:
    """Write the page of a snapshot, and of the run trained on it if there is one; return its path in the lake."""
    manifest = snapshot.manifest
    path = f"corpora/{manifest.name}/reports/{manifest.version:06}.html"
    lake.write_bytes(path, render(lake, snapshot, run).encode())
    return path


def render(lake: Lake, snapshot: Snapshot, run: str | None) -> str:
    """The page as HTML; reads the snapshot's rejects and a few of its document shards."""
    rejects = read_rejects(snapshot)
    return render_report(
        manifest=snapshot.manifest.to_dict(),
        rejects=rejects,
        samples=kept_samples(snapshot),
        duplicates=duplicate_pairs(snapshot, rejects),
        run=read_run(lake, run) if run else None,
    )


def read_rejects(snapshot: Snapshot) -> list[Row]:
    """The samples of removed documents that this snapshot (not its parents) carries."""
    shards = snapshot.shards("rejects", version=snapshot.manifest.version)
    return [row for shard in shards for row in snapshot.open(shard).to_pylist()]


def kept_samples(snapshot: Snapshot) -> list[Row]:
    """A few kept documents of each domain: those with the lowest content hash, so the same ones every time."""
    newest_first = sorted(snapshot.shards("documents"), key=lambda s: (-s.version, s.path))
    best: dict[str, list[Row]] = {}
    for shard in newest_first[:MAX_SAMPLE_SHARDS]:
        table = snapshot.open(shard)
        for domain in sorted(pc.unique(table["domain"]).to_pylist()):
            mine = table.filter(pc.equal(table["domain"], domain))
            lowest = pc.select_k_unstable(mine, SAMPLES_A_DOMAIN, [("content_hash", "ascending")])
            best.setdefault(domain, []).extend(
                mine.take(lowest).select(["domain", "uri", "text", "content_hash"]).to_pylist()
            )
    return [
        row
        for _, rows in sorted(best.items())
        for row in sorted(rows, key=lambda row: row["content_hash"])[:SAMPLES_A_DOMAIN]
    ]


def duplicate_pairs(snapshot: Snapshot, rejects: Sequence[Row]) -> list[Row]:
    """Removed near-duplicates (a) beside the kept documents that they duplicate (b), with both texts."""
    near = [row for row in rejects if row["duplicate_of"] and row["stage"] == "near_duplicates"]
    near.sort(key=lambda row: (row["similarity"] or 0.0, row["id"]))
    if len(near) > MAX_DUPLICATES:
        last = len(near) - 1
        near = [near[i * last // (MAX_DUPLICATES - 1)] for i in range(MAX_DUPLICATES)]
    kept = _documents(snapshot, {row["duplicate_of"] for row in near})
    return [
        {
            "uri_a": row["uri"],
            "text_a": row["text"],
            "uri_b": kept[row["duplicate_of"]]["uri"],
            "text_b": kept[row["duplicate_of"]]["text"],
            "similarity": row["similarity"],
            "rule": row["rule"],
        }
        for row in near
        if row["duplicate_of"] in kept
    ]


def _documents(snapshot: Snapshot, ids: set[str]) -> dict[str, Row]:
    """Kept documents by id; stops reading shards once all are found."""
    found: dict[str, Row] = {}
    wanted = pa.array(sorted(ids), pa.string())
    for shard in reversed(snapshot.shards("documents")):
        if len(found) == len(ids):
            break
        table = snapshot.open(shard, ["id", "uri", "text"])
        rows = table.filter(pc.is_in(table["id"], value_set=wanted)).to_pylist()
        found.update((row["id"], row) for row in rows)
    return found


def read_run(lake: Lake, run: str) -> Row:
    """What a training run left in the lake, in the shape that `render_report` takes."""
    folder = f"runs/{run}"
    about = read_object(lake, f"{folder}/run.json")
    metrics = read_lines(lake, f"{folder}/metrics.jsonl")
    return {
        "name": run,
        "config": about["config"],
        "snapshot": about["snapshot"],
        "metrics": [row for row in metrics if "domains" not in row],
        "evaluations": [row for row in metrics if "domains" in row],
        "samples": read_lines(lake, f"{folder}/samples.jsonl"),
    }
