"""Purging: the bytes of forgotten documents leave the lake, with the snapshots that cannot be read without them.

Shards never change, so those that the newest snapshot needs and that still hold forgotten rows are written anew without
them, into a snapshot that says the same in every other way. Then the older snapshots that name the old files are
dropped, each with a record that says so, and the files go. In this order, so that after a crash at any point every
snapshot that exists can be read, and the same command goes on.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storage.catalog import (
    collect,
    dropped_versions,
    next_version,
    paths_of_dropped,
    read_manifest,
    training_runs,
    unreachable,
    versions,
)
from storage.fence import build_folder, dropped_path
from storage.lake import Entry, Lake
from storage.published import after_publishing
from storage.schema import HIDES
from storage.seal import sealed
from storage.shard import Shard, verified_file, write_shard
from storage.snapshot import Manifest, Snapshot, commit_snapshot
from storage.times import now
from storage.tombstones import renumber_band_keys

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int | None, str], None]


@dataclass(frozen=True, kw_only=True)
class PurgePlan:
    """What purging a corpus comes to."""

    newest: Snapshot
    """The snapshot that stays, or in whose place the rewritten one comes."""
    rewrite: tuple[str, ...]
    """Paths of its shards that hold forgotten rows, and of the band keys that go with them."""
    drop: tuple[int, ...]
    """Versions that name a file with forgotten rows, ascending; with the newest, if that is rewritten."""
    runs: tuple[tuple[str, int], ...]
    """Training runs on the versions that are dropped: they can be sampled and evaluated, but not gone on with."""

    leftover: tuple[Entry, ...]
    """Files of snapshots that were dropped before, which a purge that was killed did not come to remove."""
    files: tuple[Entry, ...]
    """All files that it will remove, sorted by path."""

    @property
    def is_needed(self) -> bool:
        """Whether anything is to be done."""
        return bool(self.rewrite or self.drop or self.leftover)


def plan_purge(lake: Lake, name: str) -> PurgePlan | None:
    """Look for forgotten rows in the shards of all snapshots of a corpus; None if it has forgotten nothing.

    Opens every shard of documents, tokens, signatures, duplicates and samples once.
    """
    manifests = [read_manifest(lake, name, version) for version in versions(lake, name)]
    promoted = [manifest for manifest in manifests if manifest.status == "promoted"]
    if not promoted:
        return None
    newest = Snapshot(lake, promoted[-1])
    stones = newest.forgotten()
    if not len(stones):
        return None
    forgotten = _ids_of(stones, manifests, lake)
    holds: dict[str, bool] = {}
    for manifest in manifests:
        snapshot = Snapshot(lake, manifest)
        for shard in manifest.shards:
            if shard.kind in HIDES and shard.path not in holds:
                found = pc.is_in(snapshot.open_whole(shard, ["id"])["id"], value_set=forgotten)
                holds[shard.path] = bool(pc.any(found).as_py())
    rewrite = [shard for shard in newest.manifest.shards if holds.get(shard.path)]
    # They number documents through all shards of signatures.
    is_renumbered = any(shard.kind == "signatures" for shard in rewrite)
    keys = newest.shards("band_keys") if is_renumbered else []
    drop = [
        manifest.version
        for manifest in manifests
        if any(holds.get(shard.path) for shard in manifest.shards)
    ]
    paths = tuple(shard.path for shard in (*rewrite, *keys))
    leftover = _leftover(lake, name)
    goes = unreachable(lake, name, float("inf")) if drop else leftover
    goes += _files_that_go(newest, manifests, paths, drop)
    return PurgePlan(
        newest=newest,
        rewrite=paths,
        drop=tuple(drop),
        runs=tuple(
            (run, version)
            for run, corpus, version in training_runs(lake)
            if corpus == name and version in drop
        ),
        leftover=tuple(leftover),
        files=tuple(sorted(goes, key=lambda entry: entry.path)),
    )


def _files_that_go(
    newest: Snapshot, manifests: Sequence[Manifest], rewrite: Sequence[str], drop: Sequence[int]
) -> list[Entry]:
    """Files that only versions to be dropped name. What follows a newest one that is rewritten shares its other shards."""
    stays = {path for m in manifests if m.version not in drop for path in m.paths()}
    if rewrite:
        stays |= {shard.path for shard in newest.manifest.shards} - set(rewrite)
    gone = {path for m in manifests if m.version in drop for path in m.paths()} - stays
    folder = f"corpora/{newest.manifest.name}/data"
    return [entry for entry in newest.lake.list(folder) if entry.path in gone]


def _ids_of(stones: pa.Table, manifests: Sequence[Manifest], lake: Lake) -> pa.Array:
    """Ids of the forgotten documents, and of those with their texts in snapshots that no gate let pass."""
    ids, hashes = (stones[name].combine_chunks() for name in ("id", "content_hash"))
    found = set(ids.to_pylist())
    for manifest in manifests:
        snapshot = Snapshot(lake, manifest)
        for shard in manifest.shards if manifest.status != "promoted" else ():
            if shard.kind in ("documents", "duplicates") and shard.version == manifest.version:
                table = snapshot.open_whole(shard, ["id", "content_hash"])
                same = pc.is_in(table["content_hash"], value_set=hashes)
                found |= set(table["id"].filter(same).to_pylist())
    return pa.array(sorted(found), pa.string())


def _leftover(lake: Lake, name: str) -> list[Entry]:
    paths: set[str] = set()
    for version, about in dropped_versions(lake, name).items():
        paths |= {*about["paths"], *paths_of_dropped(name, version)}
    return [entry for entry in unreachable(lake, name, float("inf")) if entry.path in paths]


def purge(plan: PurgePlan, *, progress: Progress | None = None) -> tuple[Manifest, list[Entry]]:
    """Carry it out; the caller holds the corpus's build lock. Returns the snapshot that stays and the files removed.

    What `publish_purged` and then `drop_older` do.
    """
    stays = publish_purged(plan, progress=progress)
    return stays, drop_older(plan, stays)


def publish_purged(plan: PurgePlan, *, progress: Progress | None = None) -> Manifest:
    """Publish the newest snapshot without the forgotten rows, if it holds any; returns the snapshot that stays.

    A training run on a snapshot that goes must not be at work, and no file that stays may be damaged: BusyError or
    CorruptError is raised before anything is touched.
    """
    lake = plan.newest.lake
    for run, _ in plan.runs:
        with lake.lock(f"run-{run}", doing=f"purging what run '{run}' trains on"):
            pass
    _check_sound(plan.newest)
    return _rewrite(plan, progress) if plan.rewrite else plan.newest.manifest


def drop_older(plan: PurgePlan, stays: Manifest) -> list[Entry]:
    """Drop the versions with forgotten rows in favour of the one that stays; returns the files removed."""
    lake, newest = plan.newest.lake, plan.newest.manifest
    removed = []
    if plan.drop:
        # Files of builds that did not end may hold the texts as they were read.
        removed = collect(lake, newest.name, unreachable(lake, newest.name, float("inf")))
    for version in plan.drop:
        _drop(lake, read_manifest(lake, newest.name, version), stays)
    with after_publishing("removing downloads", f"remove {lake.cache}"):
        lake.delete_downloads()
    return removed + collect(lake, newest.name, _leftover(lake, newest.name))


def _check_sound(snapshot: Snapshot) -> None:
    """Raise CorruptError unless all that a snapshot needs is as it was written: other copies of it are about to go."""
    for shard in snapshot.manifest.shards:
        verified_file(snapshot.lake, shard)
    if snapshot.manifest.tokenizer is not None:
        snapshot.tokenizer_bytes()


_NOTE = (
    "this snapshot read nothing: it is the one before it, without the bytes of what was forgotten"
)


def _rewrite(plan: PurgePlan, progress: Progress | None) -> Manifest:
    """Publish the newest snapshot again, its affected shards without the rows that do not count."""
    snapshot, before = plan.newest, plan.newest.manifest
    lake, name = snapshot.lake, before.name
    what = json.dumps({"purge": snapshot.hash}).encode()
    build_id = blake2b(what, digest_size=8).hexdigest()
    folder = f"corpora/{name}/data/{build_folder(lake, name, build_id)}"
    affected = set(plan.rewrite)
    shards: list[Shard] = []
    masks = [
        (shard.rows, snapshot.visible(shard) if shard.path in affected else None)
        for shard in snapshot.shards("signatures")
    ]
    done = 0
    for shard in before.shards:
        if shard.path not in affected:
            shards.append(shard)
            continue
        table = snapshot.open(shard)
        if shard.kind == "band_keys":
            table = renumber_band_keys(table, masks)
        if len(table) or shard.kind == "band_keys":
            # Of one kind and version there may be several, and of one number several versions.
            path = f"{folder}/{Path(shard.path).stem}-of-{shard.version:06}.arrow"
            shards.append(write_shard(lake, path, table, split=shard.split, version=shard.version))
        done += 1
        if progress is not None:
            progress("purge", done, len(affected), "shards")
    tokenizer = before.tokenizer
    if tokenizer is not None:
        path = f"{folder}/tokenizer.model"
        lake.write_bytes(path, snapshot.tokenizer_bytes())
        tokenizer = tokenizer | {"path": path}
    # Their version is that of the rows, not of this snapshot, so `commit_snapshot` does not know them as new.
    lake.sync_names([shard.path for shard in shards if shard.path.startswith(folder)])
    about = ("forget", "notes")  # of that snapshot alone
    figures = {key: value for key, value in before.summary.items() if key not in about}
    manifest = replace(
        before,
        version=next_version(lake, name),
        parent=snapshot.hash,
        build_id=build_id,
        shards=tuple(shards),
        tokenizer=tokenizer,
        funnel={},
        gates=[],
        summary=figures | {"purge": {"shards": len(affected)}, "notes": [_NOTE]},
        commit={},
    )
    _check_sound(Snapshot(lake, manifest))
    return commit_snapshot(lake, manifest)


def _drop(lake: Lake, manifest: Manifest, stays: Manifest) -> None:
    """Write down that a snapshot was dropped, which ends it, then take its manifest and pages away."""
    record: dict[str, Any] = {
        "format": 1,
        "snapshot": manifest.ref,
        "hash": manifest.hash(),
        "parent": manifest.parent,
        "dropped_at": now(),
        "why": "it held documents that were forgotten",
        "in_its_place": stays.ref,
        "tokenizer": manifest.tokenizer and manifest.tokenizer["checksum"],
        "paths": manifest.paths(),
    }
    lake.write_bytes(dropped_path(manifest.name, manifest.version), sealed(record))
    for path in sorted(paths_of_dropped(manifest.name, manifest.version)):
        lake.delete(path)
    logger.info("dropped %s: %s", manifest.ref, record["why"])
