"""Duplicates against brute force: candidates by datasketch's LSH, similarities by Python sets, the kept set by a loop."""

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from datasketch import LeanMinHash, MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import nodes
from pipeline.dedup import (
    DedupConfig,
    NearDuplicates,
    NewDocuments,
    exact_duplicates,
    near_duplicates,
)
from pipeline.executor import Executor
from pipeline.minhash import read_signatures, sign_documents
from pipeline.runs import BandRun, Published, band_key_run, next_runs, published_copies
from pipeline.similarity import MAX_CANDIDATES
from storage.errors import ConfigError, GristmillError
from storage.lake import Lake
from storage.schema import DOCUMENTS
from storage.shard import write_shard
from storage.snapshot import Manifest, Snapshot, commit_snapshot

from .edits import Editor

CONFIG = DedupConfig()
SOURCES = ("first", "second")


def table_of(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Make a DOCUMENTS table of rows that name what matters (text, and perhaps id, domain, source, split)."""
    empty = {field.name: "" if field.type == pa.string() else 0 for field in DOCUMENTS}
    filled = []
    for row in rows:
        text_hash = blake2b(" ".join(row["text"].split()).encode(), digest_size=16).hexdigest()
        defaults = {"domain": "web", "source": "first", "content_hash": text_hash}
        name = repr(sorted((defaults | row).items())).encode()
        identity = {"id": blake2b(name, digest_size=16).hexdigest()}
        filled.append(empty | defaults | identity | row)
    return pa.Table.from_pylist(filled, DOCUMENTS)


def find(
    tables: Sequence[pa.Table], published: Published | None = None, config: DedupConfig = CONFIG
) -> NearDuplicates:
    """Sign the tables and look for near-duplicates."""
    return near_duplicates(new_of(tables, config), published, config)


def new_of(tables: Sequence[pa.Table], config: DedupConfig = CONFIG) -> NewDocuments:
    """The tables with their signatures."""
    signatures = [sign_documents(table, config) for table in tables]
    return NewDocuments(documents=tables, signatures=signatures, sources=SOURCES)


def publish(tables: Sequence[pa.Table], config: DedupConfig = CONFIG) -> Published:
    """What snapshots made of these tables hold."""
    everything, first, runs = pa.concat_tables(tables), 0, []
    for table in tables:
        run = band_key_run([sign_documents(table, config)], config, first)
        shape = (config.bands, len(run) // config.bands)
        runs.append(BandRun(*(run[name].to_numpy().reshape(shape) for name in ("key", "row"))))
        first += len(table)
    whole = Published.of_tables(everything, sign_documents(everything, config))
    return replace(whole, runs=lambda _: runs)


def without(table: pa.Table, found: NearDuplicates) -> pa.Table:
    """The documents that were not removed."""
    removed = set(found.removed["id"].to_pylist())
    return table.filter(pa.array([i not in removed for i in table["id"].to_pylist()], pa.bool_()))


def grams(text: str, n: int) -> set[tuple[str, ...]]:
    """Word n-grams as sets of tuples; a shorter text is one gram."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + n]) for i in range(max(len(words) - n + 1, min(len(words), 1)))}


def similarity(a: str, b: str) -> tuple[float, float]:
    """Jaccard similarity of 5-grams, and the share of b's 3-grams that a holds; equal texts are alike, empty or not."""
    if a.split() == b.split():
        return 1.0, 1.0
    one, other, few, fewer = grams(a, 5), grams(b, 5), grams(a, 3), grams(b, 3)
    jaccard = len(one & other) / len(one | other) if one | other else 0.0
    return jaccard, len(few & fewer) / len(fewer) if fewer else 0.0


def slow(table: pa.Table, published: pa.Table | None = None) -> dict[str, tuple[str, float, str]]:
    """What must be removed: id -> (kept, similarity, rule), one document after the other in order of priority."""
    everything = pa.concat_tables([published, table]) if published is not None else table
    rows = {row["id"]: row for row in everything.to_pylist()}
    lsh = MinHashLSH(num_perm=128, params=(CONFIG.bands, CONFIG.rows))
    signed = sign_documents(everything, CONFIG)
    sketches = {
        i: LeanMinHash(seed=1, hashvalues=values, scheme="affine32")
        for i, values in zip(rows, read_signatures(signed), strict=True)
        if grams(rows[i]["text"], 5)
    }
    for i, sketch in sketches.items():
        lsh.insert(i, sketch)
    kept = published["id"].to_pylist() if published is not None else []
    order = sorted(
        table.to_pylist(),
        key=lambda row: (
            -len(grams(row["text"], 5)),
            SOURCES.index(row["source"]),
            row["content_hash"],
            row["id"],
        ),
    )
    removed: dict[str, tuple[str, float, str]] = {}
    for row in order:
        near = set(lsh.query(sketches[row["id"]])) if row["id"] in sketches else set()
        reasons = []
        for place, other in enumerate(kept):
            jaccard, contained = similarity(rows[other]["text"], row["text"])
            longer = len(grams(rows[other]["text"], 5)) >= len(grams(row["text"], 5))
            if rows[other]["content_hash"] == row["content_hash"]:
                reasons.append((1.0, -place, other, "exact"))
            elif other in near and jaccard >= CONFIG.threshold:
                reasons.append((jaccard, -place, other, "near_duplicate"))
            elif other in near and longer and contained >= CONFIG.containment:
                reasons.append((contained, -place, other, "contained"))
        if reasons:
            best = max(reasons)
            removed[row["id"]] = (best[2], best[0], best[3])
        else:
            kept.append(row["id"])
    return removed


def as_dict(found: NearDuplicates) -> dict[str, tuple[str, Any, str]]:
    """The removed documents in the form of `slow`."""
    return {
        row["id"]: (row["duplicate_of"], pytest.approx(row["similarity"]), row["rule"])
        for row in found.removed.to_pylist()
    }


@st.composite
def corpora(draw: st.DrawFn, max_size: int = 14) -> list[dict[str, Any]]:
    """Documents that are mostly edits, parts and extensions of each other."""
    seed = draw(st.integers(0, 2**32))
    generator = random.Random(seed)
    vocabulary = [f"w{i}" for i in range(draw(st.sampled_from([3, 30, 500])))]
    editor = Editor(vocabulary, generator)
    texts: list[list[str]] = [editor.some(0, 60)]
    for _ in range(draw(st.integers(0, max_size - 1))):
        edit = generator.choice(["replace", "replace", "cut", "extend", "new", "case", "same"])
        texts.append(editor.edited(generator.choice(texts), edit))
    return [
        {"text": " ".join(text), "id": f"{i:032x}", "source": generator.choice(SOURCES)}
        for i, text in enumerate(texts)
    ]


@given(corpora())
@settings(max_examples=150, deadline=None)
def test_removed_documents_are_those_of_brute_force(rows: list[dict[str, Any]]) -> None:
    """The same documents go, for the same kept one, with the same similarity and rule."""
    table = table_of(rows)
    assert slow(table) == as_dict(find([table]))


@given(corpora(), st.integers(0, 2**32), st.integers(0, 14))
@settings(max_examples=60, deadline=None)
def test_order_and_sharding_do_not_matter(rows: list[dict], seed: int, cut: int) -> None:
    """Any order of the documents in any batches gives the same tables."""
    shuffled = random.Random(seed).sample(rows, len(rows))
    one = find([table_of(rows)])
    other = find([table_of(shuffled[:cut]), table_of(shuffled[cut:])])
    assert one.removed.equals(other.removed)
    assert one.edges.equals(other.edges)
    assert one.inherits.equals(other.inherits)


@given(corpora(20), st.integers(0, 20), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_append_only_adds(rows: list[dict], cut: int, seed: int) -> None:
    """What is published stays; new documents go as brute force says, in whatever order they come."""
    old = table_of(rows[:cut])
    old = without(old, find([old]))
    new = table_of(random.Random(seed).sample(rows[cut:], len(rows[cut:])))
    # The build removes exact copies of published texts before.
    exact = exact_duplicates(keys_of(new), old)["id"].to_pylist()
    new = new.filter(pa.array([i not in exact for i in new["id"].to_pylist()], pa.bool_()))
    middle = len(old) // 2
    found = find([new], publish([old.slice(0, middle), old.slice(middle)]))
    assert slow(new, old) == as_dict(found)


@given(corpora(20))
@settings(max_examples=60, deadline=None)
def test_every_edge_is_true_and_ends_at_a_kept_document(rows: list[dict]) -> None:
    """Edges carry exact similarities; no edge joins two kept documents unless it records a containment."""
    table = table_of(rows)
    found = find([table])
    texts = {row["id"]: row["text"] for row in table.to_pylist()}
    removed = set(found.removed["id"].to_pylist())
    for edge in found.edges.to_pylist():
        a, b = edge["id_a"], edge["id_b"]
        assert a < b
        assert len({a, b} & removed) == 1
        assert edge["jaccard"] == pytest.approx(similarity(texts[a], texts[b])[0])
        shorter = min(a, b, key=lambda i: (len(grams(texts[i], 5)), i not in removed))
        longer = b if shorter == a else a
        assert edge["containment"] == pytest.approx(similarity(texts[longer], texts[shorter])[1])
    pairs = set(zip(found.edges["id_a"].to_pylist(), found.edges["id_b"].to_pylist(), strict=True))
    for row in found.removed.to_pylist():
        a, b = sorted((row["id"], row["duplicate_of"]))
        assert (a, b) in pairs
        assert row["duplicate_of"] not in removed


def sentence(low: int, high: int) -> str:
    """Words that occur nowhere else."""
    return " ".join(f"word{i}" for i in range(low, high))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_longer_text_stays_beside_the_published_one_it_contains(split: str) -> None:
    """Under `append` the new text is kept, the edge recorded, and the split shared."""
    old = table_of([{"text": sentence(0, 100), "split": split}])
    new = table_of([{"text": sentence(0, 130)}, {"text": sentence(0, 190)}])
    longer = new["id"][1].as_py()
    config = replace(CONFIG, bands=64, rows=1)  # finds a pair of Jaccard similarity 0.5 for certain
    found = find([new], publish([old], config), config)
    # The first is a duplicate of the published one, whose words make up more than 0.7 of it.
    assert found.removed["id"].to_pylist() == [new["id"][0].as_py()]
    inherited = {"id": longer, "split_of": old["id"][0].as_py(), "split": split}
    assert found.inherits.to_pylist() == [inherited]
    edges = {(edge["id_a"], edge["id_b"]): edge for edge in found.edges.to_pylist()}
    edge = edges[min(longer, old["id"][0].as_py()), max(longer, old["id"][0].as_py())]
    assert edge["containment"] == 1.0
    assert edge["jaccard"] == pytest.approx(96 / 186)


def test_validation_wins_where_a_text_contains_published_ones_of_both_splits() -> None:
    """Training never sees a validation text inside a longer one."""
    old = table_of(
        [
            {"text": sentence(0, 100), "split": "train"},
            {"text": sentence(100, 180), "split": "validation"},
            {"text": sentence(180, 300), "split": "train"},
        ]
    )
    config = replace(CONFIG, bands=128, rows=1)
    found = find([table_of([{"text": sentence(0, 300)}])], publish([old], config), config)
    assert found.inherits["split_of"].to_pylist() == [old["id"][1].as_py()]


def test_containment_removes_only_what_is_contained() -> None:
    """Of two new texts the shorter goes, whichever source has the better rank."""
    rows = [
        {"text": sentence(0, 100), "source": "first"},
        {"text": sentence(0, 190), "source": "second"},
    ]
    table = table_of(rows)
    found = find([table], config=replace(CONFIG, bands=64, rows=1))
    assert found.removed.select(["id", "duplicate_of", "rule"]).to_pylist() == [
        {"id": table["id"][0].as_py(), "duplicate_of": table["id"][1].as_py(), "rule": "contained"}
    ]


def test_chains_do_not_pull_documents_together() -> None:
    """Windows sliding over a text are like their neighbours only: each that goes is like the very one that stays."""
    table = table_of([{"text": sentence(i, i + 100)} for i in range(0, 60, 5)])
    found = find([table])
    removed = set(found.removed["id"].to_pylist())
    texts = {row["id"]: row["text"] for row in table.to_pylist()}
    kept = [text for i, text in texts.items() if i not in removed]
    assert len(kept) >= 2
    for row in found.removed.to_pylist():
        assert similarity(texts[row["id"]], texts[row["duplicate_of"]])[0] >= CONFIG.threshold


def test_equal_texts_of_two_domains_are_duplicates() -> None:
    """Code is shingled by characters and prose by words, so the content hash finds what no band can."""
    text = sentence(0, 50)
    rows = [{"text": text, "domain": domain} for domain in ("web", "code", "poetry")]
    rows += [{"text": "?!", "domain": domain} for domain in ("web", "code")]
    found = find([table_of(rows)])
    assert sorted(found.removed["rule"].to_pylist()) == ["exact"] * 3


def test_texts_without_words_are_like_nothing() -> None:
    """Empty and punctuation-only documents share the empty signature, and nothing else."""
    assert not len(find([table_of([{"text": "?"}, {"text": "!"}, {"text": ""}])]).removed)
    assert not len(find([]).removed)
    assert not len(find([table_of([])], publish([table_of([{"text": "?"}])])).removed)


def test_heavy_buckets_cost_linear_time() -> None:
    """Thousands of pages that differ a little, and thousands that a template makes alike but not equal."""
    frame = sentence(0, 60)
    copies = [{"text": f"{sentence(1000, 1200)} copy{i}"} for i in range(3000)]
    templates = [
        {"text": f"{frame} {sentence(10000 + 60 * i, 10060 + 60 * i)}"} for i in range(1000)
    ]
    found = find([table_of(copies + templates)])
    assert len(found.removed) == len(copies) - 1
    assert found.num_pairs <= MAX_CANDIDATES * (len(copies) + len(templates))


def test_a_million_near_copies_are_compared_with_one() -> None:
    """What goes is compared no more."""
    rows = [{"text": f"{sentence(0, 30)} number{i}", "id": f"{i:032x}"} for i in range(20_000)]
    found = find([table_of(rows)])
    assert len(found.removed) == len(rows) - 1
    assert found.num_pairs == len(rows) - 1


@given(corpora(), st.integers(0, 14))
@settings(max_examples=30, deadline=None)
def test_slices_workers_and_probes_do_not_matter(rows: list[dict], cut: int) -> None:
    """Clusters one at a time give what all at once give, and probes are compared without changing anything."""
    table, probes = table_of(rows[:cut]), table_of(rows[cut:])
    one = find([table])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nodes, "SLICE_BYTES", 1)
        other = find([table])
        probed = near_duplicates(new_of([table]), None, CONFIG, probes=new_of([probes]))
    assert one == other == replace(probed, probes=one.probes, num_pairs=one.num_pairs)
    # A probe goes exactly if it alone would go on top of what is kept.
    kept = without(table, one)
    old = publish([kept]) if len(kept) else None
    for number in range(len(probes)):
        probe = probes[number : number + 1]
        is_found = probe["id"][0] in probed.probes["id"]
        is_copy = probe["content_hash"][0] in kept["content_hash"]
        assert is_found == (is_copy or len(find([probe], old).removed) == 1)


def test_processes_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters settled in other processes, a few at a time, in whatever order they end."""
    rows = [{"text": sentence(1000 * (i % 50), 1000 * (i % 50) + 100 + i)} for i in range(150)]
    table = table_of(rows)
    one = find([table])
    assert len(one.removed) > 50
    monkeypatch.setattr(nodes, "SLICE_BYTES", 5000)
    assert one == near_duplicates(
        new_of([table]), None, CONFIG, folder=tmp_path, executor=Executor(workers=2)
    )
    assert not list(tmp_path.iterdir())


def snapshots(lake: Lake, versions: Sequence[pa.Table], config: DedupConfig) -> Snapshot:
    """A chain of snapshots in a lake, one for each table, with the shards that near-duplicates are found by."""
    snapshot = None
    for version, documents in enumerate(versions, 1):
        signatures = sign_documents(documents, config)
        runs, replaced = next_runs(snapshot, [signatures], [documents], config)
        before = snapshot.manifest.shards if snapshot is not None else ()
        shards = [shard for shard in before if shard.path not in replaced] + [
            write_shard(lake, f"corpora/c/data/{version:016x}/{kind}-00000.arrow", table, version=version)
            for kind, table in {"documents": documents, "signatures": signatures, **runs}.items()
        ]  # fmt: skip
        manifest = Manifest(
            name="c", version=version, build_id=f"{version:016x}", status="promoted",
            shards=tuple(shards), recipe={"dedup": {"bands": config.bands, "rows": config.rows}},
        )  # fmt: skip
        snapshot = Snapshot(lake, commit_snapshot(lake, manifest))
    assert snapshot is not None
    return snapshot


def test_runs_made_with_other_bands_are_made_anew(tmp_path: Path) -> None:
    """A recipe may change its bands: published documents are still found, through their signatures."""
    table = table_of([{"text": sentence(0, 100)}])
    old = snapshots(Lake.open(tmp_path), [table], replace(CONFIG, bands=16, rows=8))
    near = table_of([{"text": sentence(1, 100)}])
    for config in (CONFIG, replace(CONFIG, bands=16, rows=7), replace(CONFIG, bands=16, rows=8)):
        assert len(find([near], Published.of(old), config).removed) == 1
        runs, replaced = next_runs(old, [sign_documents(near, config)], [near], config)
        assert len(runs["band_keys"]) == 2 * config.bands
        assert [path for path in replaced if "band_keys" in path]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_merged_runs_hold_what_was_published(sizes: list[int], seed: int) -> None:
    """However the corpus grew, there are few runs, and they find what one table of everything finds."""
    generator = random.Random(seed)
    starts = [generator.randrange(10) * 1000 + generator.randrange(5) for _ in range(sum(sizes))]
    rows = [{"text": sentence(i, i + 60), "id": f"{n:032x}"} for n, i in enumerate(starts)]
    tables, first = [], 0
    for size in sizes:
        tables.append(table_of(rows[first : first + size]))
        first += size
    with TemporaryDirectory() as folder:
        snapshot = snapshots(Lake.open(folder), tables, CONFIG)
        assert len(snapshot.shards("band_keys")) <= 1 + sum(sizes).bit_length()
        new = table_of([{"text": sentence(i * 1000, i * 1000 + 61)} for i in range(10)])
        found = find([new], Published.of(snapshot))
        expected = find([new], publish([pa.concat_tables(tables)]))
        assert found == expected
        hashes = pa.chunked_array([[row["content_hash"] for row in new.to_pylist()]], pa.string())
        known = [table["content_hash"] for table in tables]
        everything = pa.chunked_array(
            [chunk for column in known for chunk in column.chunks], pa.string()
        )
        both = pa.chunked_array([*hashes.chunks, *everything.chunks])
        copies = published_copies(snapshot, both)
        assert sorted(copies["id"].to_pylist()) == sorted(row["id"] for row in rows)


def test_snapshots_in_a_lake_are_what_is_published(tmp_path: Path) -> None:
    """Documents of every snapshot of the chain are found through the shards that the lake holds."""
    tables = [
        table_of([{"text": sentence(start, start + 100)}, {"text": f"only {start}"}])
        for start in (0, 1000)
    ]
    snapshot = snapshots(Lake.open(tmp_path), tables, CONFIG)
    new = table_of([{"text": sentence(start, start + 99)} for start in (0, 1000, 2000)])
    found = find([new], Published.of(snapshot))
    assert sorted(found.removed["id"].to_pylist()) == sorted(new["id"].to_pylist()[:2])


def test_disabled_removes_nothing() -> None:
    """`enabled = false` leaves the stage out."""
    table = table_of([{"text": sentence(0, 50)}, {"text": sentence(0, 51)}])
    assert len(find([table]).removed) == 1
    assert not len(find([table], config=replace(CONFIG, enabled=False)).removed)


def test_a_document_without_signature_is_named() -> None:
    """Tables that do not belong together are a bug of the caller, said clearly."""
    table = table_of([{"text": "one"}, {"text": "two"}])
    new = NewDocuments(
        documents=[table], signatures=[sign_documents(table[:1], CONFIG)], sources=SOURCES
    )
    with pytest.raises(GristmillError, match=f"document {table['id'][1]} has no signature"):
        near_duplicates(new, None, CONFIG)


def keys_of(table: pa.Table) -> pa.Table:
    """What `exact_duplicates` reads."""
    ranks = [SOURCES.index(source) for source in table["source"].to_pylist()]
    keys = table.select(["id", "content_hash", "domain"])
    return keys.append_column("source_rank", pa.array(ranks, pa.int32()))


@given(
    st.lists(st.tuples(*(st.integers(0, 3) for _ in range(3)), st.booleans()), max_size=25),
    st.randoms(use_true_random=False),
)
@settings(max_examples=100, deadline=None)
def test_exact_duplicates_are_those_of_brute_force(rows: list, generator: random.Random) -> None:
    """Within a domain, or of a published text of any domain; for the first by (source rank, id); in any order."""
    everything = [
        {"id": f"{i:032x}", "content_hash": str(h), "domain": str(d), "source_rank": r, "old": old}
        for i, (h, d, r, old) in enumerate(rows)
    ]
    generator.shuffle(everything)
    new = [row for row in everything if not row["old"]]
    old = sorted((row for row in everything if row["old"]), key=lambda row: row["id"])
    expected = {}
    for row in new:
        same = [other for other in new if (other["content_hash"], other["domain"]) == (row["content_hash"], row["domain"])]  # fmt: skip
        first = min(same, key=lambda other: (other["source_rank"], other["id"]))
        before = [other for other in old if other["content_hash"] == row["content_hash"]]
        if before:
            expected[row["id"]] = before[0]["id"]
        elif first is not row:
            expected[row["id"]] = first["id"]
    generator.shuffle(old)
    schema = pa.schema([(name, pa.string()) for name in ("id", "content_hash", "domain")])
    published = pa.Table.from_pylist(old, schema).select(["id", "content_hash"])
    schema = schema.append(pa.field("source_rank", pa.int32()))
    found = exact_duplicates(pa.Table.from_pylist(new, schema), published if old else None)
    assert dict(sorted(expected.items())) == {
        row["id"]: row["duplicate_of"] for row in found.to_pylist()
    }
    assert found["id"].to_pylist() == sorted(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0}, r"dedup.threshold: expected a number in \(0, 1\], got 0"),
        ({"containment": 1.5}, "dedup.containment: expected a number"),
        ({"ngram": 0}, "dedup.ngram: expected 1 to 1000, got 0"),
        ({"ngram": 10**23}, "dedup.ngram: expected 1 to 1000"),
        ({"bands": 26}, "at most 128 .* got 26 x 5 = 130"),
        ({"template_share": 0}, r"dedup.template_share: expected a number in \(0, 1\), got 0"),
        ({"template_share": float("nan")}, r"expected a number in \(0, 1\), got nan"),
        (
            {"template_share": 0.1, "policy": "rebuild"},
            'none with dedup.policy = "rebuild", got 0.1',
        ),
        ({"template_share": 0.1, "enabled": False}, "none where dedup.enabled is false, got 0.1"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    """Each error names its key, what is expected and what came."""
    with pytest.raises(ConfigError, match=message):
        DedupConfig(**options)
