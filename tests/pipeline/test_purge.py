"""Purging: the bytes of forgotten documents leave the lake, everything else stays as it is, and a crash loses nothing."""

import os
import random
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from model.loader import Loader
from pipeline.build import BuildConfig, build
from pipeline.runs import hidden_documents
from pipeline.selection import Request
from storage import lake as lake_module
from storage.catalog import gc, resolve, resolve_tokenizer, verify, versions
from storage.errors import BusyError, NotFoundError
from storage.lake import Lake
from storage.purge import plan_purge, purge
from storage.schema import HIDES
from storage.snapshot import Snapshot

from .test_forget import check, config_of, fates_of, forget_now, prose, variant, write

GONE = ("family-2.txt", "other-1.txt", "short.txt")


def purge_now(lake: Lake) -> Snapshot:
    plan = plan_purge(lake, "tiny")
    assert plan is not None
    assert plan.is_needed
    return Snapshot(lake, purge(plan)[0])


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[BuildConfig, Path, Lake]:
    """tiny@1 without what will be forgotten, tiny@2 with it, tiny@3 forgets it."""
    root, lake = tmp_path / "recipe", Lake.open(tmp_path / "lake")
    config = config_of()
    write(root, {f"early-{i}": prose(50 + i) for i in range(4)})
    build(config, lake, root=root)
    write(root, {f"other-{i}": prose(100 + i) for i in range(6)})
    write(
        root, {f"family-{i}": variant(0, 2 * i) for i in range(3)} | {"short": "too short a text"}
    )
    build(config, lake, root=root)
    forget_now(lake, Request(uris=GONE))
    return config, root, lake


def logical(snapshot: Snapshot) -> dict[str, list[dict]]:
    """All that a reader gets of a snapshot, kind by kind."""
    rows = {
        kind: [row for s in snapshot.shards(kind) for row in snapshot.open(s).to_pylist()]
        for kind in ("documents", "duplicates", "tokens", "signatures", "rejects")
    }
    numbered = [
        id_
        for s in snapshot.shards("signatures")
        for id_ in snapshot.open_whole(s)["id"].to_pylist()
    ]
    hidden = set(hidden_documents(snapshot).tolist())
    keys = [row for s in snapshot.shards("band_keys") for row in snapshot.open(s).to_pylist()]
    found = [
        {"band": row["band"], "key": row["key"], "id": numbered[row["row"]]}
        for row in keys
        if row["row"] not in hidden
    ]
    return rows | {
        "band_keys": found,
        "fates": [row for table in snapshot.fates() for row in table.to_pylist()],
    }


def stored_texts(lake: Lake) -> Iterator[str]:
    """Every text in any Arrow file below the lake, whether a manifest names it or not."""
    import pyarrow as pa

    assert lake.root is not None
    for path in sorted(lake.root.rglob("*.arrow")):
        with pa.memory_map(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
        if "text" in table.column_names:
            yield from table["text"].to_pylist()


def test_the_bytes_are_gone_and_all_else_is_the_same(
    corpus: tuple[BuildConfig, Path, Lake],
) -> None:
    """No file holds the texts, ids lie in no row, and every reader gets what it got before."""
    config, root, lake = corpus
    gone = {"too short a text", variant(0, 4), prose(101)}
    assert gone <= set(stored_texts(lake))
    before = resolve(lake, "tiny")
    forgotten = set(before.forgotten()["id"].to_pylist())
    after = purge_now(lake)
    assert after.ref == "tiny@4"
    assert resolve(lake, "tiny").hash == after.hash
    assert not gone & set(stored_texts(lake))
    for shard in after.manifest.shards:
        if shard.kind in HIDES:
            assert not forgotten & set(after.open_whole(shard)["id"].to_pylist())
    blank = dict.fromkeys(("forget", "purge", "notes"))
    assert after.manifest.summary | blank == before.manifest.summary | blank
    check(after, forgotten)
    # tiny@1 never held any of it, and stays.
    assert versions(lake, "tiny") == [1, 4]
    assert resolve(lake, "tiny@1").manifest.version == 1
    assert not verify(lake)
    assert plan_purge(lake, "tiny") is not None
    assert not plan_purge(lake, "tiny").is_needed  # pyright: ignore[reportOptionalMemberAccess]
    assert not gc(lake, min_age_s=0)
    # What was forgotten is blocked still, and near-duplicates of all that is left are found.
    like = {f"like-{i}": f"{prose(i)} two more" for i in (52, 104)}
    write(root, {"again": prose(101), "new": prose(500), **like})
    result = build(config, lake, root=root)
    assert (result.snapshot, result.documents["forgotten"]) == ("tiny@5", 1)
    fates = fates_of(resolve(lake, "tiny"))
    for uri, original in (("like-52.txt", "early-2.txt"), ("like-104.txt", "other-4.txt")):
        assert fates[uri]["duplicate_of"] == fates[original]["id"]
    assert not verify(lake)


def test_readers_and_batches_are_those_of_the_snapshot_before(
    corpus: tuple[BuildConfig, Path, Lake],
) -> None:
    """Rows, fates and every batch of an epoch stay, token for token."""
    _, _, lake = corpus
    before = resolve(lake, "tiny")
    rows = logical(before)
    loader = Loader(before, batch_size=3, seq_len=16, seed=1)
    batches = [loader.batch(k) for k in range(20)]
    after = purge_now(lake)
    assert logical(after) == rows
    again = Loader(after, batch_size=3, seq_len=16, seed=1)
    assert again.samples_per_epoch == loader.samples_per_epoch
    for k, batch in enumerate(batches):
        assert batch.tokens_BT.equal(again.batch(k).tokens_BT)


def test_a_dropped_snapshot_says_so(corpus: tuple[BuildConfig, Path, Lake]) -> None:
    """Whoever asks for it is told why it is gone; its tokenizer is that of the one in its place."""
    _, _, lake = corpus
    model = resolve(lake, "tiny@2").tokenizer_bytes()
    hash_ = resolve(lake, "tiny@2").hash
    body = f'{{"snapshot": "tiny@2", "snapshot_hash": "{hash_}"}}'
    lake.write_bytes("runs/old/run.json", body.encode())
    plan = plan_purge(lake, "tiny")
    assert plan is not None
    assert plan.runs == (("old", 2),)
    purge(plan)
    with pytest.raises(
        NotFoundError, match=r"gc --purge' dropped it on .* in its place there is tiny@4"
    ):
        resolve(lake, "tiny@2")
    assert resolve_tokenizer(lake, "tiny@2").tokenizer_bytes() == model
    assert not verify(lake)
    assert not gc(lake, min_age_s=0)


def test_a_run_at_work_is_not_robbed(corpus: tuple[BuildConfig, Path, Lake]) -> None:
    """While a run trains on a snapshot that would go, nothing is touched."""
    _, _, lake = corpus
    lake.write_bytes("runs/old/run.json", b'{"snapshot": "tiny@2", "snapshot_hash": ""}')
    plan = plan_purge(lake, "tiny")
    assert plan is not None
    with (
        lake.lock("run-old", doing="training run 'old'"),
        pytest.raises(BusyError, match="already training run 'old'"),
    ):
        purge(plan)
    assert versions(lake, "tiny") == [1, 2, 3]
    assert not verify(lake)


def test_a_quarantined_snapshot_with_the_text_goes_too(tmp_path: Path) -> None:
    """It is no ancestor of anything, but its files hold the text under an id of their own."""
    root, lake = tmp_path / "recipe", Lake.open(tmp_path / "lake")
    config = config_of()
    write(root, {f"early-{i}": prose(50 + i) for i in range(4)})
    build(config, lake, root=root)
    strict = replace(config, gates=replace(config.gates, min_documents=1000))
    write(root, {"late": prose(60)})
    assert build(strict, lake, root=root).status == "quarantined"
    (root / "late.txt").rename(root / "moved.txt")
    build(config, lake, root=root)
    forget_now(lake, Request(uris=("moved.txt",)))
    assert prose(60) in set(stored_texts(lake))
    after = purge_now(lake)
    assert prose(60) not in set(stored_texts(lake))
    assert versions(lake, "tiny") == [1, 5]
    assert after.ref == "tiny@5"
    assert not verify(lake)


def test_nothing_forgotten_nothing_purged(tmp_path: Path) -> None:
    """A corpus that never forgot is left alone."""
    root, lake = tmp_path / "recipe", Lake.open(tmp_path / "lake")
    write(root, {f"early-{i}": prose(50 + i) for i in range(4)})
    build(config_of(), lake, root=root)
    assert plan_purge(lake, "tiny") is None


def test_killed_anywhere_no_snapshot_is_broken(
    corpus: tuple[BuildConfig, Path, Lake], tmp_path: Path
) -> None:
    """SIGKILL at a file operation: all that exists can be read, and the same command comes to the same end."""
    _, _, lake = corpus
    assert lake.root is not None
    count = [0]

    def counting(_operation: str, _path: str) -> None:
        count[0] += 1

    shutil.copytree(lake.root, tmp_path / "whole")
    lake_module.on_file_operation = counting
    try:
        expected = purge_now(Lake.open(tmp_path / "whole")).hash
    finally:
        lake_module.on_file_operation = None
    texts = sorted(set(stored_texts(Lake.open(tmp_path / "whole"))))
    for point in [1, count[0], *random.Random(0).sample(range(2, count[0]), 14)]:
        place = tmp_path / f"killed-{point}"
        shutil.copytree(lake.root, place)
        assert killed_at(place, point)
        killed = Lake.open(place)
        assert not verify(killed), f"killed at {point}"
        plan = plan_purge(killed, "tiny")
        assert plan is not None
        purge(plan)
        assert resolve(killed, "tiny").hash == expected, f"killed at {point}"
        assert versions(killed, "tiny") == [1, 4]
        assert sorted(set(stored_texts(killed))) == texts, f"killed at {point}"
        assert not verify(killed)


def killed_at(place: Path, point: int) -> bool:
    """Purge in a fork that is killed before its file operation number `point`; whether it was."""
    child = os.fork()
    if not child:
        count = [0]

        def kill(_operation: str, _path: str) -> None:
            count[0] += 1
            if count[0] == point:
                os.kill(os.getpid(), signal.SIGKILL)

        lake_module.on_file_operation = kill
        try:
            purge_now(Lake.open(place))
        finally:
            os._exit(3)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)
