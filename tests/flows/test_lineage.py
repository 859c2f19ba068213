"""The lineage graph shows what the lake holds, and is a graph whatever stands in it."""

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flows.lineage import MAX_SNAPSHOTS, lineage
from storage.catalog import read_manifest
from storage.lake import Lake
from storage.schema import FATES_IN_ORDER
from storage.snapshot import Input, Manifest, manifest_path

FUNNEL = dict.fromkeys(FATES_IN_ORDER, 0) | {"read": 9, "kept": 9}


def put_snapshot(lake: Lake, version: int, source: str = "books", **changes: Any) -> None:
    inputs = tuple(
        Input(source=source, uri=f"{v}.txt", num_bytes=1000, fingerprint="0" * 32, version=v)
        for v in range(1, version + 1)
    )
    told = {"status": "promoted", "funnel": {"web": FUNNEL}}
    manifest = Manifest(
        name="tiny", version=version, build_id="0" * 16, inputs=inputs, **told | changes
    )
    lake.write_bytes(manifest_path("tiny", version), manifest.to_json())


def test_arrows_lead_from_parent_to_child(tmp_path: Path) -> None:
    """A quarantined snapshot stands in the row of its time, and what comes next hangs on the one before it."""
    lake = Lake.open(tmp_path)
    put_snapshot(lake, 1)
    parent = read_manifest(lake, "tiny", 1).hash()
    put_snapshot(lake, 2, status="quarantined", parent=parent)
    put_snapshot(lake, 3, parent=parent)
    arrows = [line for line in lineage(lake, "tiny").splitlines() if line.startswith("v")]
    assert arrows == ["v1 --> v2", "v1 --> v3", "v2 ~~~ v3"]


def put(lake: Lake, path: str, **body: Any) -> None:
    lake.write_bytes(path, json.dumps(body).encode())


def test_sources_snapshots_runs_and_releases_are_joined(tmp_path: Path) -> None:
    """Each release hangs on its run, each run on its snapshot, each snapshot on the one before."""
    lake = Lake.open(tmp_path)
    put_snapshot(lake, 1)
    put_snapshot(lake, 2, status="quarantined")
    put(lake, "runs/tiny-1-a/run.json", snapshot="tiny@1")
    put(lake, "runs/tiny-1-a/result.json", steps=9, bits_per_byte=1.5)
    put(lake, "runs/by-hand/run.json", snapshot="tiny@2")
    put(lake, "runs/other/run.json", snapshot="elsewhere@1")
    put(lake, "corpora/tiny/releases/000001.json", release=1, run="tiny-1-a")
    lines = lineage(lake, "tiny").splitlines()
    assert (lines[0], lines[1], lines[-1]) == ("```mermaid", "graph TB", "```")
    assert 'i1["books<br/>1.00 kB"]:::source --> s1' in lines
    assert 's1["<b>tiny@1</b><br/>9 kept"]:::snapshot' in lines
    assert 's1 --> r1x0["tiny-1-a<br/>1.500 bits per byte"]:::run' in lines
    assert 'r1x0 --> r1x0r(["release 1"]):::release' in lines
    assert 's2["<b>tiny@2</b><br/>quarantined, 9 kept"]:::refused' in lines
    assert 's2 --> r2x0["by-hand<br/>not finished"]:::run' in lines
    assert not any("other" in line for line in lines)


def test_a_long_history_is_cut_and_says_so(tmp_path: Path) -> None:
    lake = Lake.open(tmp_path)
    for version in range(1, 13):
        put_snapshot(lake, version)
        for number in range(9):
            put(lake, f"runs/tiny-{version}-{number}/run.json", snapshot=f"tiny@{version}")
    graph = lineage(lake, "tiny")
    assert graph.count("direction LR") == MAX_SNAPSHOTS
    assert '["7 earlier snapshots"]):::source --> v8' in graph
    assert graph.count("6 more runs") == MAX_SNAPSHOTS
    assert len(graph) < 10_000


def test_damage_shows_and_ends_nothing(tmp_path: Path) -> None:
    lake = Lake.open(tmp_path)
    put_snapshot(lake, 1)
    put_snapshot(lake, 2)
    for path in (manifest_path("tiny", 1), "runs/a/run.json", "corpora/tiny/releases/000001.json"):
        lake.write_bytes(path, b"{")
    assert 's1["tiny@1<br/>damaged"]:::refused' in lineage(lake, "tiny")


def test_a_corpus_of_nothing_has_a_graph(tmp_path: Path) -> None:
    assert lineage(Lake.open(tmp_path), "tiny").startswith("```mermaid\ngraph TB\n")


@given(name=st.text(min_size=1, max_size=40))
def test_any_name_of_a_source_is_one_label(tmp_path_factory: Any, name: str) -> None:
    """Neither quotes, brackets, fences nor newlines of a name reach the graph as such."""
    lake = Lake.open(tmp_path_factory.mktemp("lake"))
    put_snapshot(lake, 1, source="x")
    plain = lineage(lake, "tiny").count("\n")
    put_snapshot(lake, 1, source=name)
    graph = lineage(lake, "tiny")
    assert graph.count("\n") == plain
    [label] = [line for line in graph.splitlines() if line.startswith("i1[")]
    inner = label.removeprefix('i1["').removesuffix('"]:::source --> s1').replace("<br/>", "")
    assert not set(inner) & set('"`<>[](){}|\\')
