"""A snapshot exists or it does not, is what its hash says, and is never believed when damaged."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.catalog import read_manifest, resolve, verify, versions
from storage.errors import (
    ConfigError,
    ConflictError,
    CorruptError,
    GristmillError,
    LakeError,
    NotFoundError,
)
from storage.lake import Lake
from storage.schema import FATES_IN_ORDER
from storage.shard import Shard
from storage.snapshot import Input, Manifest, Snapshot, commit_snapshot, manifest_path

Publish = Callable[..., Snapshot]

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Any manifest that can be true."""
    version = draw(st.integers(1, 10**7))
    hexes = st.text("0123456789abcdef", min_size=4, max_size=4)
    shards = draw(
        st.lists(
            st.builds(
                Shard,
                kind=st.sampled_from(["documents", "tokens"]),
                path=st.text(min_size=1),
                rows=st.integers(0, 2**40),
                num_bytes=st.integers(0, 2**60),
                checksum=hexes,
                content_hash=hexes,
                split=st.sampled_from(["", "train", "validation"]),
                num_tokens=st.integers(0, 2**60),
                version=st.integers(1, version),
            ),
            max_size=3,
            unique_by=lambda shard: shard.path,
        )
    )
    inputs = draw(
        st.lists(
            st.builds(
                Input,
                source=st.text(),
                uri=st.text(),
                num_bytes=st.integers(0, 2**60),
                fingerprint=hexes,
                version=st.integers(1, version),
            ),
            max_size=2,
        )
    )
    funnel = {
        domain: dict(zip(FATES_IN_ORDER, counts, strict=True)) | {"read": sum(counts)}
        for domain, counts in draw(
            st.dictionaries(
                st.text(max_size=5), st.lists(st.integers(0, 9), min_size=5, max_size=5), max_size=2
            )
        ).items()
    }
    return Manifest(
        name=draw(NAMES),
        version=version,
        build_id=draw(hexes),
        status=draw(st.sampled_from(["promoted", "quarantined"])),
        parent=draw(hexes),
        recipe=draw(st.dictionaries(st.text(), JSON, max_size=3)),
        shards=tuple(shards),
        inputs=tuple(inputs),
        tokenizer=draw(st.none() | st.just({"path": "a", "checksum": "b"})),
        funnel=funnel,
        summary=draw(st.dictionaries(st.text(), JSON, max_size=3)),
        commit=draw(st.dictionaries(st.text(), JSON, max_size=2)),
    )


@given(manifest=manifests())
@settings(max_examples=100, deadline=None)
def test_a_manifest_is_read_as_it_was_written(manifest: Manifest) -> None:
    """Bytes to manifest to the same bytes; the bytes are ASCII JSON that anybody reads."""
    data = manifest.to_json()
    again = Manifest.from_json(data)
    assert again == manifest and again.to_json() == data and again.hash() == manifest.hash()
    assert json.loads(data.decode("ascii"))["hash"] == manifest.hash() == manifest.to_dict()["hash"]


def an_example() -> Manifest:
    shard = Shard(
        kind="fates",
        path="a/fates-00000.arrow",
        rows=3,
        num_bytes=9,
        checksum="c" * 64,
        content_hash="d" * 32,
        version=1,
    )
    counts = {"read": 3, "kept": 1, "dropped": 1, "duplicate": 1, "quarantined": 0, "forgotten": 0}
    return Manifest(
        name="poems",
        version=1,
        build_id="ab",
        status="promoted",
        recipe={"dedup": {"threshold": 0.7}},
        shards=(shard,),
        inputs=(Input(source="s", uri="u", num_bytes=1, fingerprint="f" * 32, version=1),),
        tokenizer={"path": "a/tokenizer.model", "checksum": "e" * 64},
        funnel={"poetry": counts},
        gates=[{"name": "removal", "value": 0.5, "limit": 0.9, "passed": True, "detail": ""}],
        summary={"text_bytes": 1},
        commit={"id": "1", "host": "here"},
    )


def test_the_hash_is_of_what_it_is_not_of_where_and_when() -> None:
    """The commit, compressed sizes and file checksums are no part of it; all the rest is."""
    manifest = an_example()
    (shard,), (source,) = manifest.shards, manifest.inputs
    same = [
        replace(manifest, commit={"id": "2", "host": "there"}),
        replace(manifest, shards=(replace(shard, num_bytes=10, checksum="0" * 64),)),
        replace(manifest, recipe=dict(reversed(manifest.recipe.items()))),
    ]
    assert {other.hash() for other in same} == {manifest.hash()}
    different = [
        replace(manifest, name="prose"),
        replace(manifest, version=2),
        replace(manifest, build_id="cd"),
        replace(manifest, status="quarantined"),
        replace(manifest, parent="ab"),
        replace(manifest, recipe_fingerprint="ab"),
        replace(manifest, recipe={"dedup": {"threshold": 0.8}}),
        replace(manifest, code_version="2"),
        replace(manifest, shards=()),
        replace(manifest, shards=(replace(shard, content_hash="0" * 32),)),
        replace(manifest, shards=(replace(shard, split="train"),)),
        replace(manifest, inputs=(replace(source, fingerprint="0" * 32),)),
        replace(manifest, tokenizer=None),
        replace(manifest, funnel={}),
        replace(manifest, gates=[]),
        replace(manifest, summary={"text_bytes": 1.0}),
    ]
    hashes = {other.hash() for other in different} | {manifest.hash()}
    assert len(hashes) == len(different) + 1


def test_every_flipped_bit_of_a_manifest_is_found() -> None:
    """In every byte; the message names the file and what to do."""
    data = an_example().to_json()
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 7
        with pytest.raises(
            CorruptError, match=r"lake/000001\.json: expected .* put back a good copy"
        ):
            Manifest.from_json(bytes(damaged), "lake/000001.json")
    for size in range(0, len(data), 50):
        with pytest.raises(CorruptError, match=r"lake/000001\.json: expected a manifest in JSON"):
            Manifest.from_json(data[:size], "lake/000001.json")


@pytest.mark.parametrize("data", [b"[]", b"1", b"{}", b'"checksum"', b"\xff\xfe", b"[" * 100_000])
def test_other_json_is_no_manifest(data: bytes) -> None:
    """Whatever it holds, also nesting without end."""
    with pytest.raises(CorruptError, match="expected a manifest in JSON with its checksum, got"):
        Manifest.from_json(data)


def test_a_manifest_of_a_newer_gristmill_is_refused() -> None:
    """With the advice to upgrade, whatever its checksum covers."""
    body = json.loads(an_example().to_json()) | {"format": 2}
    with pytest.raises(
        CorruptError,
        match="expected a manifest of format 1, got 2; if a newer gristmill wrote it, upgrade",
    ):
        Manifest.from_json(json.dumps(body).encode())


@given(
    counts=st.fixed_dictionaries({key: st.integers(0, 5) for key in ("read", *FATES_IN_ORDER)}),
)
def test_a_funnel_must_add_up(counts: dict[str, int]) -> None:
    """In every domain, exactly: each document that was read has one fate."""
    adds_up = counts["read"] == sum(counts[fate] for fate in FATES_IN_ORDER)
    good = {"read": 1, "kept": 1} | dict.fromkeys(FATES_IN_ORDER[1:], 0)
    fields: dict[str, Any] = {"name": "x", "version": 1, "build_id": "ab", "status": "promoted"}
    if adds_up:
        Manifest(**fields, funnel={"good": good, "poetry": counts})
    else:
        with pytest.raises(
            GristmillError, match=r"x@1: funnel of 'poetry': expected the fates of \d+ documents"
        ):
            Manifest(**fields, funnel={"good": good, "poetry": counts})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 0}, "expected a version from 1"),
        ({"status": "good"}, "expected the status promoted or quarantined, got 'good'"),
        ({"format": 2}, "expected a manifest of format 1, got 2"),
        ({"summary": {"x": float("nan")}}, "summary: expected text, finite numbers"),
        ({"summary": {"x": {1, 2}}}, "summary: expected text, finite numbers"),
        ({"tokenizer": {"path": "x"}}, "tokenizer: expected path and checksum"),
        ({"funnel": {"d": {"read": 0}}}, "funnel of 'd': expected counts of"),
        (
            {"funnel": {"d": dict.fromkeys(("read", *FATES_IN_ORDER), 0.0)}},
            "funnel of 'd': expected counts of",
        ),
        ({"shards": an_example().shards * 2}, "expected each shard once"),
        (
            {"shards": (replace(an_example().shards[0], version=2),)},
            "expected shards and inputs of versions 1 to 1",
        ),
    ],
)
def test_what_cannot_be_true_is_no_manifest(change: dict[str, Any], words: str) -> None:
    """Found when it is made, before anything is published."""
    with pytest.raises(GristmillError, match=f"poems@.*{words}"):
        replace(an_example(), **change)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a@1", "-a", "a b", "\u00e4", "a" * 101])
def test_a_name_must_fit_a_folder_and_a_reference(name: str) -> None:
    """Everywhere that a name comes from outside."""
    with pytest.raises(ConfigError, match="expected 1 to 100 letters"):
        manifest_path(name, 1)


# Commit and open


def test_a_snapshot_is_published_and_opened(lake: Lake, publish: Publish) -> None:
    """On a disk and in a bucket: references, shards, documents, tokenizer, hash."""
    published = publish(lake, texts=("To be", "or not"))
    snapshot = resolve(lake, "poems")
    assert snapshot.manifest == published.manifest and snapshot.ref == "poems@1"
    assert snapshot.hash == published.hash == read_manifest(lake, "poems", 1).hash()
    assert [shard.kind for shard in snapshot.manifest.shards] == ["documents", "fates", "tokens"]
    assert [table["text"].to_pylist() for table in snapshot.documents()] == [["To be", "or not"]]
    assert (
        snapshot.shards("tokens", split="validation") == snapshot.shards("tokens", version=2) == []
    )
    (shard,) = snapshot.shards("tokens", split="train", version=1)
    assert snapshot.open(shard)["tokens"].to_pylist() == [[1, 2, 3]] * 2
    assert snapshot.tokenizer_bytes() == b"a tokenizer"
    assert {"id", "created_at", "host", "pid"} <= snapshot.manifest.commit.keys()
    assert verify(lake) == []
    assert pickle.loads(pickle.dumps(snapshot)) == snapshot


def test_the_hash_is_the_same_in_every_lake(
    tmp_path_factory: pytest.TempPathFactory, publish: Publish
) -> None:
    """Built twice in different places, at different times."""
    lakes = [Lake.open(tmp_path_factory.mktemp("lake")) for _ in range(2)]
    first, second = (publish(lake) for lake in lakes)
    assert first.hash == second.hash and first.manifest.commit != second.manifest.commit


def test_publishing_again_gives_what_is_there(lake: Lake, publish: Publish) -> None:
    """A build that died between its commit and its end, and one that was overtaken by its twin."""
    first = publish(lake)
    assert publish(lake).manifest == first.manifest
    with pytest.raises(
        ConflictError, match=r"snapshots/000001\.json: expected to be the first to write it"
    ):
        publish(lake, code_version="another")
    assert read_manifest(lake, "poems", 1) == first.manifest and versions(lake, "poems") == [1]


def test_a_commit_id_is_never_used_twice(lake: Lake, publish: Publish) -> None:
    """A manifest made from a published one must not pass for it."""
    first = publish(lake)
    with pytest.raises(ConflictError):
        commit_snapshot(lake, replace(first.manifest, code_version="another"))


def test_nothing_is_published_before_its_files_are_there(lake: Lake, publish: Publish) -> None:
    """A missing or short shard, a missing tokenizer, a missing version before."""
    first = publish(lake).manifest
    second = replace(first, version=2, parent=first.hash())
    shard = first.shards[0]
    gone = replace(shard, path=shard.path.replace("00000.arrow", "00001.arrow"))
    for wrong in (gone, replace(shard, num_bytes=1)):
        with pytest.raises(
            LakeError, match=r"documents-0000.\.arrow: expected a shard of .* nothing was published"
        ):
            commit_snapshot(lake, replace(second, shards=(wrong,)))
    with pytest.raises(
        CorruptError, match=r"other\.model: expected the file that a manifest names"
    ):
        commit_snapshot(lake, replace(second, tokenizer={"path": "other.model", "checksum": "0"}))
    with pytest.raises(ConflictError, match="poems@3: expected version 2 to exist"):
        commit_snapshot(lake, replace(second, version=3))
    assert versions(lake, "poems") == [1]


def test_a_damaged_tokenizer_is_refused(local_lake: Lake, publish: Publish) -> None:
    """By name; and so is a missing one."""
    snapshot = publish(local_lake)
    assert snapshot.manifest.tokenizer is not None
    local_lake.write_bytes(snapshot.manifest.tokenizer["path"], b"a tokeniser")
    with pytest.raises(CorruptError, match=r"tokenizer\.model: expected sha256"):
        snapshot.tokenizer_bytes()
    local_lake.delete(snapshot.manifest.tokenizer["path"])
    with pytest.raises(
        CorruptError, match=r"tokenizer\.model: expected the file that a manifest names"
    ):
        snapshot.tokenizer_bytes()


def test_what_a_snapshot_lacks_is_named(local_lake: Lake, publish: Publish) -> None:
    """No tokenizer, no shards of a kind."""
    snapshot = publish(local_lake, tokenizer=None)
    with pytest.raises(NotFoundError, match="poems@1: expected a tokenizer"):
        snapshot.tokenizer_bytes()
    with pytest.raises(
        NotFoundError, match="expected shards of kind 'edges', it has documents, fates, tokens"
    ):
        snapshot.as_hf("edges")


COMMITTER = """
import pickle, sys
from dataclasses import replace
from storage.catalog import read_manifest, versions
from storage.errors import ConflictError
from storage.snapshot import commit_snapshot

lake, manifest, writer = pickle.loads(bytes.fromhex(sys.stdin.readline()))
print("ready", flush=True)
sys.stdin.readline()
acknowledged = conflicts = 0
while acknowledged < 5:
    version = versions(lake, "poems")[-1] + 1
    parent = read_manifest(lake, "poems", version - 1).hash()
    mine = replace(manifest, version=version, parent=parent, code_version=f"{writer}/{acknowledged}")
    try:
        commit_snapshot(lake, mine)
    except ConflictError:
        conflicts += 1
        continue
    acknowledged += 1
    print(version, mine.code_version)
print("conflicts", conflicts, flush=True)
"""


def test_no_acknowledged_commit_is_lost(lake: Lake, publish: Publish) -> None:
    """Three processes add five versions each: the versions are theirs, each once, in a chain of parents."""
    manifest = publish(lake).manifest
    writers = []
    for number in range(3):
        writers.append(
            subprocess.Popen(
                [sys.executable, "-c", COMMITTER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert writers[-1].stdin is not None
        writers[-1].stdin.write(pickle.dumps((lake, manifest, number)).hex() + "\n")
        writers[-1].stdin.flush()
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    told = []
    for writer in writers:
        told += writer.stdout.read().splitlines()
        assert writer.wait() == 0
        writer.stdin.close()
        writer.stdout.close()
    acknowledged = {int(line.split()[0]): line.split()[1] for line in told if line[0].isdigit()}
    assert len(acknowledged) == 15 and versions(lake, "poems") == list(range(1, 17))
    assert {v: read_manifest(lake, "poems", v).code_version for v in acknowledged} == acknowledged
    assert verify(lake) == []
