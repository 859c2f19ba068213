"""Receipts of forgetting: what was asked, what went, and which snapshots, runs and checkpoints had seen it.

A receipt names documents by id, uri and hash and never holds their texts. It is written just before the snapshot is
published, under the name of its build: one without that snapshot belongs to a `forget` that was stopped.
"""

import getpass
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model.records import read_lines, read_object
from pipeline.display import plural
from pipeline.forget import Plan
from storage.catalog import read_manifest, versions
from storage.errors import GristmillError
from storage.lake import Lake
from storage.snapshot import Manifest, Snapshot
from storage.times import now

Row = dict[str, Any]


def receipt_path(name: str, version: int, build_id: str) -> str:
    """Where the receipt of a forgetting lies in the lake; the text beside it ends with .txt."""
    return f"corpora/{name}/receipts/{version:06}-{build_id}.json"


def write_receipt(
    plan: Plan, manifest: Manifest, restored: list[dict[str, str]], asked: Row, reason: str
) -> Row:
    """Find out who saw the documents, and write it down as JSON and as text; returns the receipt."""
    lake, name = plan.parent.lake, manifest.name
    documents = plan.selection.documents
    held = snapshots_with(lake, name, documents["id"].to_pylist())
    receipt = {
        "corpus": name,
        "snapshot": manifest.ref,
        "hash": manifest.hash(),
        "asked": asked,
        "reason": reason,
        "at": now(),
        "by": _who(),
        "documents": [
            {
                "id": row["id"],
                "uri": row["uri"],
                "content_hash": row["content_hash"] or None,
                "fate_before": row["fate"],
                "why": row["why"],
                "split": row["split"] or None,
                "snapshots": [f"{name}@{version}" for version in held.get(row["id"], [])],
            }
            for row in documents.to_pylist()
        ],
        "restored": restored,
        "snapshots": [
            f"{name}@{version}" for version in sorted({v for found in held.values() for v in found})
        ],
        "runs": runs_with(lake, name, held),
    }
    path = receipt_path(name, manifest.version, manifest.build_id)
    lake.write_bytes(path, (json.dumps(receipt, indent=2) + "\n").encode())
    lake.write_bytes(f"{path.removesuffix('.json')}.txt", receipt_text(receipt).encode())
    return receipt | {"path": path}


def snapshots_with(lake: Lake, name: str, ids: list[str]) -> dict[str, list[int]]:
    """The versions of a corpus that keep each document, or store it as a near-duplicate; ascending."""
    wanted = pa.array(sorted(ids), pa.string())
    in_shard: dict[str, pa.Table] = {}
    held: dict[str, list[int]] = {}
    for version in versions(lake, name):
        snapshot = Snapshot(lake, read_manifest(lake, name, version))
        for shard in (s for kind in ("documents", "duplicates") for s in snapshot.shards(kind)):
            if shard.path not in in_shard:
                table = snapshot.open_whole(shard, ["id"])
                in_shard[shard.path] = table.filter(pc.is_in(table["id"], wanted))
            table = in_shard[shard.path]
            visible = snapshot.visible(shard, table)
            for id_ in (table if visible is None else table.filter(visible))["id"].to_pylist():
                held.setdefault(id_, []).append(version)
    return {id_: sorted(set(found)) for id_, found in held.items()}


def runs_with(lake: Lake, name: str, held: Mapping[str, list[int]]) -> list[Row]:
    """The training runs on snapshots that keep one of the documents, and what their ledgers say of each.

    `saw` is "yes" or "no" where the ledger tells which samples every step took, up to `known_to_step`; "may have" where
    it does not reach to the newest checkpoint or cannot be read.
    """
    rows = []
    for run in lake.list_folders("runs"):
        path = f"runs/{run}/run.json"
        if not lake.exists(path):
            continue
        about = read_object(lake, path)
        corpus, _, version = str(about.get("snapshot", "")).partition("@")
        if corpus != name or not version.isdecimal():
            continue
        ids = sorted(id_ for id_, found in held.items() if int(version) in found)
        if ids:
            rows.append(
                {"run": run, "snapshot": about["snapshot"]} | _seen(lake, run, about, set(ids))
            )
    return rows


def _seen(lake: Lake, run: str, about: Row, ids: set[str]) -> Row:
    from model.checkpoint import checkpoint_steps  # late: torch, only where there are runs

    checkpoints = checkpoint_steps(lake, run)
    try:
        name, _, version = about["snapshot"].partition("@")
        snapshot = Snapshot(lake, read_manifest(lake, name, int(version)))
        samples, num_trained = _samples_of(snapshot, ids, int(about["model"]["seq_len"]))
        lines = read_lines(lake, f"runs/{run}/ledger.jsonl")
        steps = [row["step"] for row in lines if np.isin(row["samples"], samples).any()]
        known = max((row["step"] for row in lines), default=0)
    except (GristmillError, KeyError, TypeError, ValueError) as error:
        seen = [{"step": step, "saw": "may have"} for step in checkpoints]
        return {"saw": "may have", "why": str(error), "checkpoints": seen}
    first = min(steps, default=None)

    def saw(step: int) -> str:
        if first is not None and first <= step:
            return "yes"
        return "no" if step <= known or not num_trained else "may have"

    return {
        "saw": saw(max([*checkpoints, known])),
        "steps": len(steps),
        "first_step": first,
        "known_to_step": known,
        "checkpoints": [{"step": step, "saw": saw(step)} for step in checkpoints],
        "released_as": _releases(lake, name, run),
    }


def _samples_of(snapshot: Snapshot, ids: set[str], seq_len: int) -> tuple[np.ndarray, int]:
    """Numbers of the training samples that take a token from one of the documents, and how many documents train."""
    from model.loader import Loader  # late: torch

    wanted = pa.array(sorted(ids), pa.string())
    rows_in = {}
    for shard in snapshot.shards("tokens", split="train"):
        is_wanted = pc.is_in(snapshot.open_whole(shard, ["id"])["id"], wanted)
        rows_in[shard.path] = np.flatnonzero(is_wanted.to_numpy())
    num_trained = sum(map(len, rows_in.values()))
    found = [np.empty(0, np.int64)]
    loader = Loader(snapshot, batch_size=1, seq_len=seq_len, seed=0) if num_trained else None
    for stream, end in zip(loader.streams, loader.ends, strict=True) if loader else ():
        num_windows = stream.num_windows(seq_len)
        for place in np.flatnonzero(np.isin(stream.rows, rows_in[stream.path])):
            begin, stop = int(stream.starts[place]), int(stream.starts[place + 1])
            # A window reads seq_len tokens and the one after; see Stream.row_ranges.
            first = max(-(-(begin - seq_len) // seq_len), 0)
            last = min((stop - 1) // seq_len, num_windows - 1)
            found.append(np.arange(first, last + 1) + int(end) - num_windows)
    return np.unique(np.concatenate(found)), num_trained


def _releases(lake: Lake, name: str, run: str) -> list[int]:
    bodies = [
        read_object(lake, entry.path)
        for entry in lake.list(f"corpora/{name}/releases")
        if entry.path.endswith(".json")
    ]
    return sorted(body["release"] for body in bodies if body.get("run") == run)


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # no name for this number, as in some containers
        user = str(os.getuid())
    return f"{user}@{os.uname().nodename}"


def receipt_text(receipt: Row, at_most: int | None = None) -> str:
    """The receipt for people; of its documents, and of those that came back, only so many if asked for."""
    documents, runs = receipt["documents"], receipt["runs"]
    lines = [
        f"forgotten in {receipt['snapshot']} ({receipt['hash']})",
        f"at {receipt['at']} by {receipt['by']}"
        + (f": {receipt['reason']}" if receipt["reason"] else ""),
        "asked for: " + json.dumps({k: v for k, v in receipt["asked"].items() if v}),
        "",
        plural(len(documents), "document") + ":",
    ]
    lines += _first(at_most, [f"  {_document_sentence(row)}" for row in documents])
    back = (
        f"{row['id']}  {row['uri']}, in place of {row['in_place_of']}"
        for row in receipt["restored"]
    )
    lines += _first(at_most, [f"came back: {sentence}" for sentence in back])
    lines += ["", "snapshots that contain them: " + (", ".join(receipt["snapshots"]) or "none")]
    if not runs:
        lines.append("training runs on these snapshots: none")
    for row in runs:
        lines.append(f"run {row['run']} on {row['snapshot']}: {_run_sentence(row)}")
        for checkpoint in row["checkpoints"]:
            lines.append(f"  checkpoint of step {checkpoint['step']}: {_SAW[checkpoint['saw']]}")
    return "\n".join(lines) + "\n"


_SAW = {"yes": "saw them", "no": "did not see them", "may have": "may have seen them"}


def _first(at_most: int | None, lines: list[str]) -> list[str]:
    left = 0 if at_most is None else len(lines) - at_most
    return lines if left <= 0 else [*lines[:at_most], f"  ... and {left:,} more"]


def _document_sentence(row: Row) -> str:
    same = ", the same text as one that was asked for" if row["why"] == "same_text" else ""
    where = ", ".join(row["snapshots"]) or "no snapshot"
    return f"{row['id']}  {row['uri']}  was {row['fate_before']}; in {where}{same}"


def _run_sentence(row: Row) -> str:
    if "why" in row:
        return f"may have seen them ({row['why']})"
    if row["saw"] == "yes":
        released = "".join(f", is release {number}" for number in row["released_as"])
        return f"saw them first at step {row['first_step']}, in {plural(row['steps'], 'step')} of {row['known_to_step']}{released}"
    return f"{_SAW[row['saw']]} up to step {row['known_to_step']}"
