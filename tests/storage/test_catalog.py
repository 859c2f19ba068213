"""The catalog finds what is there, says what is wrong, and removes only what nothing reaches."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.catalog import gc, list_corpora, read_manifest, resolve, verify, versions
from storage.errors import ConfigError, CorruptError, LakeError, NotFoundError
from storage.lake import Lake
from storage.snapshot import Snapshot, manifest_path

Publish = Callable[..., Snapshot]

DAY = 86400.0


def grow(lake: Lake, publish: Publish, count: int, *, quarantined: tuple[int, ...] = ()) -> None:
    """Publish that many versions of a corpus, each holding the shards of those before."""
    snapshot = None
    for version in range(1, count + 1):
        status = "quarantined" if version in quarantined else "promoted"
        snapshot = publish(lake, parent=snapshot, status=status)


def test_references_find_snapshots(lake: Lake, publish: Publish) -> None:
    """A name alone is the newest promoted one; a quarantined one is found by its number."""
    grow(lake, publish, 3, quarantined=(3,))
    assert versions(lake, "poems") == [1, 2, 3] and list_corpora(lake) == ["poems"]
    for ref, version in {"poems": 2, "poems@latest": 2, "poems@1": 1, "poems@3": 3}.items():
        snapshot = resolve(lake, ref)
        assert snapshot.ref == f"poems@{version}" and snapshot.manifest == read_manifest(
            lake, "poems", version
        )
    assert verify(lake) == [] == verify(lake, "poems@3")


def test_what_is_not_there_is_answered_with_what_is(lake: Lake, publish: Publish) -> None:
    """An empty lake, a misspelt name, a version too many, nothing promoted."""
    with pytest.raises(
        NotFoundError, match=r"poems: expected a corpus in .*, but it holds none yet"
    ):
        resolve(lake, "poems")
    grow(lake, publish, 2, quarantined=(1, 2))
    with pytest.raises(NotFoundError, match=r"which holds poems; did you mean 'poems'\?"):
        resolve(lake, "peoms@2")
    with pytest.raises(NotFoundError, match=r"which holds poems$"):
        resolve(lake, "zzz")
    with pytest.raises(NotFoundError, match="poems@7: expected one of poems@1, poems@2 in"):
        resolve(lake, "poems@7")
    with pytest.raises(
        NotFoundError,
        match=r"none of poems@1, poems@2 passed its gates; .*'gristmill inspect poems@2'",
    ):
        resolve(lake, "poems@latest")


@pytest.mark.parametrize(
    "ref", ["poems@", "poems@newest", "poems@0", "poems@-1", "poems@1.5", "@1", "@", "", "../x@1"]
)
def test_what_is_no_reference_is_refused(local_lake: Lake, ref: str) -> None:
    """Wrong usage, exit code 2."""
    with pytest.raises(ConfigError, match="expected"):
        resolve(local_lake, ref)


def test_strange_files_in_a_lake_are_no_corpora(local_lake: Lake, publish: Publish) -> None:
    """What others put there is neither found nor collected nor in the way."""
    publish(local_lake)
    strange = [
        "corpora/.trash/snapshots/000001.json",
        "corpora/poems/snapshots/notes.txt",
        "corpora/poems/snapshots/2.json",
        "corpora/poems/snapshots/old/000002.json",
        "corpora/readme",
        "notes",
    ]
    for path in strange:
        local_lake.write_bytes(path, b"")
    assert list_corpora(local_lake) == ["poems"] and versions(local_lake, "poems") == [1]
    assert verify(local_lake) == [] and gc(local_lake, min_age_s=-60) == []
    assert all(map(local_lake.exists, strange))


def test_a_manifest_under_another_name_is_refused(local_lake: Lake, publish: Publish) -> None:
    """A file copied by hand would be a second snapshot with the first one's hash."""
    publish(local_lake)
    local_lake.write_bytes(
        manifest_path("poems", 2), local_lake.read_bytes(manifest_path("poems", 1))
    )
    with pytest.raises(
        CorruptError, match=r"expected the manifest of poems@2, got that of poems@1"
    ):
        resolve(local_lake, "poems")


# verify


def test_verify_names_everything_that_is_wrong(lake: Lake, publish: Publish) -> None:
    """Damaged, missing and swapped files, each once, and progress up to the last byte."""
    grow(lake, publish, 3)
    first, _, third = (read_manifest(lake, "poems", version) for version in (1, 2, 3))
    data = bytearray(lake.read_bytes(first.shards[0].path))
    data[100] ^= 1
    lake.write_bytes(first.shards[0].path, bytes(data))
    lake.delete(first.shards[1].path)
    assert third.tokenizer is not None
    lake.write_bytes(third.tokenizer["path"], b"another tokenizer")
    calls: list[tuple] = []
    problems = verify(lake, progress=lambda *call: calls.append(call))
    assert len(problems) == 3
    damaged, missing, tokenizer = problems
    assert f"{first.shards[0].path}: expected sha256 {first.shards[0].checksum}, got" in damaged
    assert f"{first.shards[1].path}: expected the file that a manifest names, found none" in missing
    assert f"{third.tokenizer['path']}: expected sha256" in tokenizer
    total = sum(shard.num_bytes for shard in third.shards)
    assert calls[-1] == ("verify", total, total, "bytes") and len(calls) == 12
    assert verify(lake, "poems@3") == problems and len(verify(lake, "poems@1")) == 2


def test_verify_goes_on_after_a_damaged_manifest(local_lake: Lake, publish: Publish) -> None:
    """Which breaks the chain of parents, and so does a missing one."""
    grow(local_lake, publish, 4)
    local_lake.write_bytes(manifest_path("poems", 1), b"{}")
    local_lake.delete(manifest_path("poems", 3))
    problems = verify(local_lake)
    assert len(problems) == 4
    assert "000001.json: expected a manifest in JSON" in problems[0]
    assert "poems@2: expected its parent" in problems[1]
    assert "000003.json: expected a file, found none" in problems[2]
    assert "poems@4: expected its parent" in problems[3]
    assert "expected a manifest in JSON" in verify(local_lake, "poems@1")[0]


def test_verify_checks_what_runs_refer_to(local_lake: Lake, publish: Publish) -> None:
    """A run whose snapshot is gone or was built again; one that has not begun says nothing."""
    snapshot = publish(local_lake)
    runs = {
        "good": {"snapshot": "poems@1", "snapshot_hash": snapshot.hash},
        "other": {"snapshot": "poems@1", "snapshot_hash": "0" * 64},
        "lost": {"snapshot": "poems@2"},
        "strange": {"snapshot": "../poems@1"},
    }
    for run, body in runs.items():
        local_lake.write_bytes(f"runs/{run}/run.json", json.dumps(body).encode())
    local_lake.write_bytes("runs/new/metrics.jsonl", b"")
    lost, other, strange = verify(local_lake)
    assert "run lost: " in lost and "000002.json: expected a file, found none" in lost
    assert f"run other: expected poems@1 with hash {'0' * 64}, got {snapshot.hash}" in other
    assert "run strange: " in strange and "expected JSON with the run's snapshot" in strange


# gc


def put(lake: Lake, path: str, *, age_s: float) -> str:
    """Write a file of a local lake that looks as old as that."""
    lake.write_bytes(path, b"data")
    assert lake.root is not None
    then = time.time() - age_s
    os.utime(lake.root / path, (then, then))
    return path


def make_old(lake: Lake, *, age_s: float = 2 * DAY) -> None:
    """Let all files of a local lake look as old as that."""
    assert lake.root is not None
    then = time.time() - age_s
    for entry in lake.list(temporary=True):
        os.utime(lake.root / entry.path, (then, then))


def test_gc_removes_what_nothing_reaches_and_nothing_else(
    local_lake: Lake, publish: Publish
) -> None:
    """Old builds that came to nothing, leftovers of killed writers, work of finished builds."""
    lake = local_lake
    grow(lake, publish, 2)
    lake.write_bytes("corpora/poems/reports/000001.html", b"")
    lake.write_bytes("runs/r/run.json", b'{"snapshot": "poems@1"}')
    lake.write_bytes("runs/r/checkpoints/step-000100/model.safetensors", b"")
    make_old(lake)
    before = lake.list(temporary=True)
    garbage = [
        put(lake, "corpora/poems/data/dead/documents-00000.arrow", age_s=2 * DAY),
        put(lake, "corpora/poems/work/dead/read/00000.arrow", age_s=2 * DAY),
        put(lake, "corpora/poems/work/0000000000000001/read/00000.json", age_s=2 * DAY),
        put(
            lake,
            "corpora/poems/data/0000000000000001/.documents-00000.arrow.0123456789ab.tmp",
            age_s=2 * DAY,
        ),
        put(lake, "corpora/poems/snapshots/.000003.json.0123456789ab.tmp", age_s=2 * DAY),
        put(lake, "corpora/unborn/data/dead/documents-00000.arrow", age_s=2 * DAY),
        put(lake, "runs/r/checkpoints/.state.json.0123456789ab.tmp", age_s=2 * DAY),
    ]
    found = gc(lake, dry_run=True)
    assert [entry.path for entry in found] == sorted(garbage) and all(
        entry.num_bytes == 4 for entry in found
    )
    assert set(garbage) <= {entry.path for entry in lake.list(temporary=True)}
    assert gc(lake) == found and gc(lake) == []
    left = [entry for entry in lake.list(temporary=True) if not entry.path.startswith("locks/")]
    condemned = [entry for entry in left if "/condemned/" in entry.path]
    assert [e.path for e in condemned] == [
        f"corpora/{c}/condemned/dead.json" for c in ("poems", "unborn")
    ]
    assert [e for e in left if e not in condemned] == before and verify(lake) == []
    assert lake.root is not None and not (lake.root / "corpora/poems/data/dead").exists()


def test_gc_spares_a_build_younger_than_a_day(local_lake: Lake, publish: Publish) -> None:
    """Its newest file counts, wherever it is: the build may go on and use its old shards again."""
    lake = local_lake
    publish(lake)
    make_old(lake)
    old = put(lake, "corpora/poems/data/young/documents-00000.arrow", age_s=5 * DAY)
    put(lake, "corpora/poems/work/young/tokens/00000.json", age_s=0.9 * DAY)
    assert gc(lake) == [] and lake.exists(old)
    put(lake, "corpora/poems/work/young/tokens/00000.json", age_s=1.1 * DAY)
    assert next(entry.path for entry in gc(lake)) == old and not lake.exists(old)


def test_gc_spares_a_corpus_that_is_being_built(local_lake: Lake) -> None:
    """However old its files: it may be a build of last week that goes on just now."""
    old = put(local_lake, "corpora/poems/data/dead/documents-00000.arrow", age_s=9 * DAY)
    other = put(local_lake, "corpora/prose/data/dead/documents-00000.arrow", age_s=9 * DAY)
    with local_lake.lock("build-poems", doing="building 'poems'"):
        assert [entry.path for entry in gc(local_lake)] == [other]
        assert local_lake.exists(old)
    assert [entry.path for entry in gc(local_lake)] == [old]


def test_gc_spares_a_corpus_whose_manifests_a_run_misses(
    local_lake: Lake, publish: Publish
) -> None:
    """Manifests that were lost by hand are no reason to remove the data of a trained model."""
    lake = local_lake
    shard = publish(lake).manifest.shards[0].path
    lake.write_bytes("runs/r/run.json", b'{"snapshot": "poems@1"}')
    lake.delete(manifest_path("poems", 1))
    make_old(lake)
    assert gc(lake) == [] and lake.exists(shard)
    lake.delete_prefix("runs/r")
    assert shard in [entry.path for entry in gc(lake)]


@pytest.mark.parametrize("damaged", ["corpora/prose/snapshots/000001.json", "runs/r/run.json"])
def test_gc_removes_nothing_while_it_cannot_know(
    local_lake: Lake, publish: Publish, damaged: str
) -> None:
    """A damaged manifest or run no longer says what it reaches."""
    publish(local_lake, "poems")
    publish(local_lake, "prose")
    local_lake.write_bytes(damaged, b"{")
    garbage = put(local_lake, "corpora/poems/data/dead/documents-00000.arrow", age_s=2 * DAY)
    with pytest.raises(CorruptError, match=damaged):
        gc(local_lake)
    assert local_lake.exists(garbage)


def test_gc_collects_in_a_bucket(s3_bucket: str, tmp_path: Path, publish: Publish) -> None:
    """As on a disk; ages are the bucket's."""
    lake = Lake.open(s3_bucket, cache=tmp_path)
    publish(lake)
    lake.write_bytes("corpora/poems/data/dead/documents-00000.arrow", b"")
    assert gc(lake) == []
    assert [entry.path for entry in gc(lake, min_age_s=-60)] == [
        "corpora/poems/data/dead/documents-00000.arrow"
    ]
    assert verify(lake) == []


def test_a_read_only_lake_can_be_used(
    small_disk: Path, remount: Callable[[Path, str], None], publish: Publish
) -> None:
    """Everything that does not write: find, open, verify, and ask what gc would do."""
    lake = Lake.open(small_disk / "lake")
    publish(lake)
    remount(small_disk, "ro")
    snapshot = resolve(lake, "poems")
    assert [table["text"].to_pylist() for table in snapshot.documents()] == [["To be", "or not"]]
    assert snapshot.tokenizer_bytes() and verify(lake) == [] and gc(lake, dry_run=True) == []
    with pytest.raises(LakeError, match="mounted read-only"):
        gc(lake)
