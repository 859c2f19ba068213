"""`gristmill why`: fates, representatives, texts and clusters as a lake has them, and what hostile lakes can do to it."""

import fnmatch
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flows.document_search import MAX_CLUSTER, find_cluster, find_documents, nearest
from flows.recipe import load_recipe
from flows.why import document_facts
from pipeline.build import build
from pipeline.display import visible
from storage.catalog import resolve
from storage.lake import Lake
from storage.schema import DOCUMENTS, DUPLICATES, EDGES, FATES, REJECTS, tokens_schema
from storage.shard import write_shard
from storage.snapshot import Manifest, Snapshot, commit_snapshot

from .conftest import RECIPE, write_corpus

Command = Callable[..., Any]


def id_of(number: int) -> str:
    return f"{number:032x}"


def fate(number: int, fate: str = "kept", **columns: Any) -> dict[str, Any]:
    """A row of fates; `of` is the number of the document that it duplicates."""
    row: dict[str, Any] = dict.fromkeys(FATES.names)
    row |= {"id": id_of(number), "uri": f"a.jsonl:{number}", "source": "a", "domain": "web"}
    if fate == "duplicate":
        row |= {"stage": "near_duplicates", "rule": "near_duplicate", "similarity": 0.75}
        row["duplicate_of"] = id_of(columns.pop("of"))
    return row | {"fate": fate} | columns


def document(number: int, text: str, **columns: Any) -> dict[str, Any]:
    row = {"id": id_of(number), "text": text, "source": "a", "uri": f"a.jsonl:{number}", "domain": "web",
           "license": "CC0-1.0", "lang": "en", "lang_score": 0.9, "toxicity": 0.1, "content_hash": f"{number:032x}"[::-1],
           "num_bytes": len(text), "split": "train"}  # fmt: skip
    return row | columns


def publish(
    lake: Lake,
    fates: Sequence[dict[str, Any]],
    documents: Sequence[dict[str, Any]] = (),
    *,
    edges: Sequence[tuple[int, int, float, float]] = (),
    parent: Snapshot | None = None,
    status: str = "promoted",
    duplicates: Sequence[dict[str, Any]] = (),
    rejects: Sequence[dict[str, Any]] = (),
) -> Snapshot:
    """Publish the next snapshot of corpus `c` from rows."""
    version = parent.manifest.version + 1 if parent else 1
    folder = f"corpora/c/data/{version:016x}"
    tables = {
        "fates": pa.Table.from_pylist(list(fates), FATES),
        "documents": pa.Table.from_pylist(list(documents), DOCUMENTS),
        "edges": pa.Table.from_pylist(
            [
                {"id_a": id_of(a), "id_b": id_of(b), "jaccard": j, "containment": c}
                for a, b, j, c in edges
            ],
            EDGES,
        ),
        "tokens": pa.Table.from_pylist(
            [
                {"id": row["id"], "domain": "web", "tokens": [1, 2, 3], "num_bytes": 1}
                for row in documents
            ],
            tokens_schema(4096),
        ),
        "rejects": pa.Table.from_pylist(list(rejects), REJECTS),
        "duplicates": pa.Table.from_pylist(
            [
                {"duplicate_of": id_of(0), "similarity": 0.75, "rule": "near_duplicate"} | row
                for row in duplicates
            ],
            DUPLICATES,
        ),
    }  # fmt: skip
    shards = tuple(
        write_shard(lake, f"{folder}/{kind}-00000.arrow", table, version=version)
        for kind, table in tables.items()
        if len(table)
    )
    manifest = Manifest(
        name="c",
        version=version,
        build_id=f"{version:016x}",
        status=status,
        parent=parent.hash if parent else "",
        shards=(parent.manifest.shards if parent else ()) + shards,
    )
    return Snapshot(lake, commit_snapshot(lake, manifest))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.open(tmp_path / "lake")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with a corpus of near-copies, copies with an address in them, a bad line and a short text; its recipe beside it."""
    folder = tmp_path_factory.mktemp("why")
    recipe = write_corpus(folder / "corpus", documents=6)
    prose = (folder / "corpus/prose/0-000.txt").read_text()
    lines = [
        {"text": prose + "\n\nSeen by somebody@example.com on this very day."},
        {"text": prose.replace(".", "!") + " " + "x " * 3000},
        {"text": "hm"},
        {"text": "Mail me at one@example.com. " + prose},
    ]
    rows = [json.dumps(line) for line in lines]
    (folder / "corpus/copies.jsonl").write_text("\n".join(rows) + "\nno JSON\n")
    recipe.write_text(
        RECIPE.replace("[language]", '[[sources]]\npath = "copies.jsonl"\ndomain = "books"\n\n[language]')
    )  # fmt: skip
    build(load_recipe(str(recipe)).build, Lake.open(folder / "lake"), root=folder / "corpus")
    return folder


def why(built: Path, gristmill: Command, *arguments: object) -> Any:
    recipe = built / "corpus/tiny.toml"
    return gristmill("why", *arguments, "--lake", built / "lake", "--recipe", recipe)


def test_a_duplicate_names_what_it_duplicates(built: Path, gristmill: Command) -> None:
    """The kept document with the pair's figures, and the words in which the two differ; by uri and by id alike."""
    facts = why(built, gristmill, "prose/0-000.txt", "--json").json
    assert (facts["fate"], facts["stage"]) == ("duplicate", "near_duplicates")
    kept = facts["representative"]
    assert kept["uri"].startswith("copies.jsonl:")
    assert kept["fate"] == "kept"
    assert facts["similarity"] in (kept["jaccard"], kept["containment"])
    assert facts["diff"]["words"]["new"] == 0 < facts["diff"]["words"]["same"]
    assert why(built, gristmill, facts["id"][:8], "--json").json == facts
    plain = why(built, gristmill, facts["id"]).out
    assert kept["id"] in plain
    assert "[-" in plain


def test_a_kept_document_says_where_it_lies(built: Path, gristmill: Command) -> None:
    """Shard, row, tokens and what it stands for are those of the lake."""
    kept = why(built, gristmill, "prose/0-000.txt", "--json").json["representative"]
    facts = why(built, gristmill, kept["uri"], "--json").json
    snapshot = resolve(Lake.open(built / "lake"), "tiny")
    [shard] = [s for s in snapshot.shards("documents") if s.path == facts["kept"]["shard"]]
    row = snapshot.open(shard).slice(facts["kept"]["row"], 1).to_pylist()[0]
    assert row["id"] == facts["id"]
    assert row["text"] == facts["text"]["text"]
    tokens = {
        found: len(values)
        for shard in snapshot.shards("tokens")
        for found, values in zip(*(snapshot.open(shard)[c].to_pylist() for c in ("id", "tokens")), strict=True)
    }  # fmt: skip
    assert facts["kept"]["num_tokens"] == tokens[row["id"]]
    fates = [row for s in snapshot.shards("fates") for row in snapshot.open(s).to_pylist()]
    expected = {row["id"] for row in fates if row["duplicate_of"] == facts["id"]}
    assert {other["id"] for other in facts["stands_for"]} == expected != set()


def test_a_dropped_document_names_the_rule(built: Path, gristmill: Command) -> None:
    """What was measured, what is allowed, and the text."""
    facts = why(built, gristmill, "copies.jsonl:3", "--json").json
    assert (facts["fate"], facts["rule"], facts["text"]["text"]) == ("dropped", "min_words", "hm")
    assert "measured 1, allowed at least 20" in facts["meaning"]
    assert facts["meaning"] in " ".join(why(built, gristmill, "copies.jsonl:3").out.split())


def test_a_quarantined_record_names_file_and_line(built: Path, gristmill: Command) -> None:
    """And what is wrong with it."""
    facts = why(built, gristmill, "copies.jsonl:5", "--json").json
    assert facts["quarantine"]["file"] == "copies.jsonl"
    assert (facts["quarantine"]["unit"], facts["quarantine"]["at"]) == ("line", "5")
    plain = why(built, gristmill, "copies.jsonl:5").out
    assert "copies.jsonl, line 5" in plain
    assert "no JSON" in plain


def test_a_removed_text_is_read_again_as_the_build_read_it(built: Path) -> None:
    """Beyond the lake's sample of 2,000 characters, normalised, and with personal data replaced."""
    snapshot = resolve(Lake.open(built / "lake"), "tiny")
    rows = {
        row["uri"]: document_facts(snapshot, row["id"], built / "corpus")
        for shard in snapshot.shards("fates")
        for row in snapshot.open(shard).to_pylist()
        if row["source"] == "copies" and row["fate"] in ("duplicate", "dropped")
    }
    long = rows["copies.jsonl:2"]["text"]
    assert long["origin"] == "copies.jsonl, read again"
    assert long["is_whole"]
    assert long["text"].endswith("x x x")
    texts = [facts["text"]["text"] for facts in rows.values()]
    assert not any("@example.com" in text for text in texts)


def test_a_source_that_changed_is_not_read(built: Path, gristmill: Command, tmp_path: Path) -> None:
    """The lake's sample is shown, with the reason; the same where the file is gone."""
    folder = tmp_path / "copy"
    shutil.copytree(built, folder)
    file = folder / "corpus/copies.jsonl"
    file.write_text(file.read_text() + "\n")
    for reason in ("copies.jsonl has changed since it was read", "copies.jsonl is not there"):
        text = why(folder, gristmill, "copies.jsonl:2", "--json").json["text"]
        assert not text["is_whole"]
        assert len(text["text"]) == 2000
        assert reason in text["note"]
        file.unlink(missing_ok=True)


def test_a_file_or_pattern_lists_its_documents(built: Path, gristmill: Command) -> None:
    """A line each, and exit code 0: many were asked for."""
    answer = why(built, gristmill, "copies.jsonl", "--json")
    assert answer.code == 0
    assert [row["uri"] for row in answer.json["documents"]] == [
        f"copies.jsonl:{line}" for line in range(1, 6)
    ]
    pattern = why(built, gristmill, "prose/*-00[1-3].txt", "--json").json
    assert pattern["matched"] == "pattern"
    assert len(pattern["documents"]) == 3
    assert len(why(built, gristmill, "copies.*").out.splitlines()) == 6


# --- lakes made by hand ------------------------------------------------------------------------


def test_a_beginning_that_two_ids_share_is_refused(lake: Lake, gristmill: Command) -> None:
    """With both of them listed; one digit more decides."""
    publish(lake, [fate(0x10), fate(0x11)], [document(0x10, "a"), document(0x11, "b")])
    answer = gristmill("why", id_of(0x10)[:31], "--lake", lake.url)
    assert answer.code == 2
    assert "expected one document" in answer.err
    assert answer.out.count("a.jsonl:") == 2
    assert gristmill("why", id_of(0x10), "--lake", lake.url).code == 0


def test_a_content_hash_names_the_kept_document(lake: Lake) -> None:
    """Also one in the shards of removed duplicates."""
    snapshot = publish(
        lake,
        [fate(1), fate(2, "duplicate", of=1)],
        [document(1, "a", content_hash="ab" * 16)],
        duplicates=[document(2, "b", content_hash="cd" * 16)],
    )
    assert find_documents(snapshot, "AB" * 16).ids == (id_of(1),)
    assert find_documents(snapshot, "cd" * 16).how == "content hash"
    assert find_documents(snapshot, "ef" * 16).ids == ()


def test_the_newest_fate_counts(lake: Lake, gristmill: Command) -> None:
    """A later snapshot's row replaces an earlier one, which stays in the history; the chain leads to what is kept today."""
    first = publish(
        lake,
        [fate(1), fate(2, "duplicate", of=1)],
        [document(1, "one two three")],
        edges=[(1, 2, 0.75, 0.9)],
        duplicates=[document(2, "one two four")],
    )
    publish(
        lake,
        [fate(1, "duplicate", of=3), fate(3)],
        [document(3, "one two three five")],
        edges=[(1, 3, 0.8, 0.9)],
        parent=first,
    )
    facts = gristmill("why", id_of(1), "--lake", lake.url, "--json").json
    assert (facts["fate"], facts["decided_in"]) == ("duplicate", "c@2")
    assert [row["fate"] for row in facts["history"]] == ["kept", "duplicate"]
    assert facts["text"]["text"] == "one two three"
    removed = gristmill("why", id_of(2), "--lake", lake.url, "--json").json
    assert [link["id"] for link in removed["representative"]["chain"]] == [id_of(1), id_of(3)]
    assert removed["text"]["text"] == "one two four"
    assert [piece["op"] for piece in removed["diff"]["pieces"]] == ["same", "old", "new"]
    assert [member["depth"] for member in removed["cluster"]["members"]] == [0, 1, 2]
    assert gristmill("why", id_of(1), "--snapshot", "c@1", "--lake", lake.url, "--json").json["fate"] == "kept"  # fmt: skip


def test_the_runs_that_saw_a_document_are_named(lake: Lake, gristmill: Command) -> None:
    """Those of a snapshot that holds it, not of an earlier one or another corpus; damaged records are passed over."""
    first = publish(lake, [fate(1)], [document(1, "a")])
    publish(lake, [fate(2)], [document(2, "b"), document(3, "c", split="validation")], parent=first)
    for run, ref in (("one", "c@1"), ("two", "c@2"), ("other", "d@2"), ("odd", "c@x")):
        lake.write_bytes(f"runs/{run}/run.json", json.dumps({"snapshot": ref}).encode())
    lake.write_bytes("runs/damaged/run.json", b"{")
    seen = {
        number: gristmill("why", id_of(number), "--lake", lake.url, "--json").json["kept"]
        for number in (1, 2)
    }
    assert seen[1]["trained_on_by"] == ["one", "two"]
    assert seen[2]["trained_on_by"] == ["two"]
    assert "two" in gristmill("why", id_of(2), "--lake", lake.url).out


def test_a_document_of_two_corpora_is_that_of_the_newest(
    built: Path, gristmill: Command, tmp_path: Path
) -> None:
    """And the other is named."""
    folder = tmp_path / "two"
    shutil.copytree(built, folder)
    recipe = folder / "corpus/tiny.toml"
    other = recipe.with_name("other.toml")
    other.write_text(recipe.read_text().replace('"tiny"', '"other"'))
    build(load_recipe(str(other)).build, Lake.open(folder / "lake"), root=folder / "corpus")
    facts = why(folder, gristmill, "prose/0-001.txt", "--json").json
    assert (facts["corpus"], facts["elsewhere"]) == ("other", ["tiny@1"])
    there = why(folder, gristmill, "prose/0-001.txt", "--snapshot", "tiny", "--json").json
    assert (there["corpus"], there["elsewhere"], there["id"]) == ("tiny", [], facts["id"])


def test_a_forgotten_text_is_not_shown(lake: Lake, gristmill: Command) -> None:
    """Though an older shard may still hold it."""
    first = publish(lake, [fate(1)], [document(1, "private matters")])
    publish(lake, [fate(1, "forgotten", stage="forget", rule="id")], parent=first)
    answer = gristmill("why", id_of(1), "--lake", lake.url)
    assert "forgotten" in answer.out
    assert "private" not in answer.out


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=14))
def test_a_cluster_is_all_that_is_connected(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, int]]
) -> None:
    """The same as by following each link in turn, whichever of edges and fates says it."""
    edges = [(a, b, 0.5, 0.5) for a, b in pairs[::2] if a < b]
    owner = {a: b for a, b in pairs[1::2] if a != b}
    fates = [
        fate(n, "duplicate", of=owner[n]) if n in owner else fate(n) for n in range(13)
    ]  # fmt: skip
    lake = Lake.open(tmp_path_factory.mktemp("cluster"))
    snapshot = publish(lake, fates, edges=edges)
    links = [(a, b) for a, b, *_ in edges] + list(owner.items())
    expected = {0}
    for _ in range(13):
        expected |= {b for a, b in links if a in expected} | {a for a, b in links if b in expected}
    cluster = find_cluster(snapshot, id_of(0))
    assert set(cluster.ids) == {id_of(n) for n in expected}
    assert len(cluster.ids) == len(expected)
    facts = document_facts(snapshot, id_of(0), None)
    assert {member["id"] for member in facts["cluster"]["members"]} == set(cluster.ids)


def test_a_huge_cluster_is_cut(lake: Lake, gristmill: Command) -> None:
    """A page copied many times: 20 rows and a count, of at most MAX_CLUSTER."""
    count = MAX_CLUSTER + 500
    fates = [fate(0), *(fate(n, "duplicate", of=0) for n in range(1, count))]
    publish(lake, fates, [document(0, "a")])
    shown = gristmill("why", id_of(count - 1), "--lake", lake.url).out
    assert f"at least {MAX_CLUSTER:,} documents" in shown
    assert len(shown.splitlines()) < 50
    assert (
        shown.count("a.jsonl:10499") == 2
    )  # in the headline and in the cluster, though far down there


HOSTILE = "\x1b[2J\x1b]0;pwned\x07\x9b31m\u202eevil\u2066\u200b \r\x00 [bold]markup[/bold]\n"


def test_nothing_hostile_reaches_the_terminal(lake: Lake, gristmill: Command) -> None:
    """Control and direction characters in texts, uris and details are shown as what they are, and not obeyed."""
    text = f"one two three four {HOSTILE} five"
    rows = [
        fate(1, uri=f"{HOSTILE}:1", source=HOSTILE),
        fate(2, "duplicate", of=1, uri=f"{HOSTILE}:2"),
        fate(3, "quarantined", stage="read", rule="bad_json", detail=HOSTILE, uri=f"{HOSTILE}#3"),
        fate(4, "dropped", stage="quality", rule="min_words", value=1.0, threshold=2.0),
    ]
    reject = {name: rows[3].get(name) for name in REJECTS.names} | {"text": text}
    publish(
        lake,
        rows,
        [document(1, text, license=HOSTILE)],
        edges=[(1, 2, 0.75, 0.9)],
        duplicates=[document(2, f"{HOSTILE} one two three {HOSTILE}")],
        rejects=[reject],
    )
    for number in range(1, 5):
        answer = gristmill("why", id_of(number), "--lake", lake.url)
        assert answer.code == 0, answer.err
        assert visible(answer.out) == answer.out
        assert "[bold]" in answer.out or number == 4
    listed = gristmill("why", "*evil*", "--lake", lake.url)
    assert (listed.code, visible(listed.out)) == (0, listed.out)
    unknown = gristmill("why", HOSTILE + "?", "--lake", lake.url)
    assert (unknown.code, visible(unknown.err)) == (2, unknown.err)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (id_of(0xABC)[:-1] + "0", "nearest: 0+abc \\(the first 31 characters agree\\)"),
        ("a.jsonl:99", "nearest: a.jsonl:2748"),
        ("zz", "none of the 1 fates in c@1"),
        ("0ab", "give at least 6 digits"),
    ],
)
def test_an_unknown_document_is_refused_with_the_nearest(
    lake: Lake, gristmill: Command, word: str, expected: str
) -> None:
    """And with how many were searched."""
    publish(lake, [fate(0xABC)], [document(0xABC, "a")])
    answer = gristmill("why", word, "--lake", lake.url)
    assert answer.code == 2
    assert re.search(expected, answer.err)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (" ", "got an empty text"),
        ("a" * 5000, "expected at most 4,096 characters, got 5,000"),
        ("*[z-a]*", "none of the 1 fates"),
        ("\udcff.txt", "none of the 1 fates"),
    ],
)
def test_what_names_no_document_is_refused(
    lake: Lake, gristmill: Command, word: str, expected: str
) -> None:
    """Whatever it is made of: nothing, too much, a range that is none, bytes that are no text."""
    publish(lake, [fate(1)])
    answer = gristmill("why", word, "--lake", lake.url)
    assert answer.code == 2
    assert expected in answer.err


def test_a_snapshot_that_no_gate_let_pass_is_looked_at_when_named(
    lake: Lake, gristmill: Command
) -> None:
    """By default it is not, and the message says so."""
    first = publish(lake, [fate(1)], [document(1, "a")])
    publish(lake, [fate(2)], [document(2, "b")], parent=first, status="quarantined")
    unknown = gristmill("why", id_of(2), "--lake", lake.url)
    assert unknown.code == 2
    assert "--snapshot c@2" in unknown.err
    assert gristmill("why", id_of(2), "--snapshot", "c@2", "--lake", lake.url, "--json").json["fate"] == "kept"  # fmt: skip


def test_a_lake_without_snapshots_is_refused(lake: Lake, gristmill: Command) -> None:
    """With what to do."""
    answer = gristmill("why", "abcdef", "--lake", lake.url)
    assert answer.code == 2
    assert "it holds none yet" in answer.err


@pytest.mark.parametrize("kind", ["fates", "documents", "edges", "tokens"])
def test_a_damaged_shard_is_named(lake: Lake, gristmill: Command, kind: str) -> None:
    """With the checksum that was expected; nothing of it is shown."""
    edges = [(1, 2, 0.5, 0.5)]
    snapshot = publish(lake, [fate(1), fate(2)], [document(1, "some text")], edges=edges)
    file = lake.local_path(snapshot.shards(kind)[0].path)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    answer = gristmill("why", id_of(1), "--lake", lake.url)
    assert answer.code == 1
    assert f"{kind}-00000.arrow: expected sha256" in answer.err
    assert "some text" not in answer.out


GLOBS = st.text("ab-]![*?^\\\\", max_size=8)


@pytest.fixture(scope="module")
def uris(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """A snapshot of short uris full of signs that patterns are made of."""
    signs = [a + b for a in "ab-]![*?^\\" for b in ("", *"ab-]![^\\")]
    rows = [fate(number, uri=uri) for number, uri in enumerate(signs)]
    return publish(Lake.open(tmp_path_factory.mktemp("globs")), rows)


@example(glob="[!]")
@given(GLOBS.filter(lambda glob: re.search(r"[*?[]", glob)))
def test_patterns_match_what_fnmatch_matches(uris: Snapshot, glob: str) -> None:
    """Of a pattern that is no uri itself; a matching uri is the one that Python's fnmatch matches."""
    found = find_documents(uris, glob)
    if found.how in ("pattern", ""):
        rows = [row for shard in uris.shards("fates") for row in uris.open(shard).to_pylist()]
        expected = {row["id"] for row in rows if fnmatch.fnmatchcase(row["uri"], glob)}
        assert set(found.ids) == expected


@settings(max_examples=25)
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12))
def test_any_uri_finds_its_document(tmp_path_factory: pytest.TempPathFactory, uri: str) -> None:
    """By itself, and by itself as the file of a line; no character of it is a pattern's or an expression's."""
    lake = Lake.open(tmp_path_factory.mktemp("uri"))
    rows = [fate(1, uri=uri), fate(2, uri=f"{uri}x:7"), fate(3, uri="other")]
    snapshot = publish(lake, rows)
    if not uri.startswith("./"):
        assert id_of(1) in find_documents(snapshot, uri).ids
        assert find_documents(snapshot, f"{uri}x").ids == (id_of(2),)
    assert nearest(snapshot, f"{uri}x:7")
