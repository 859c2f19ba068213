"""The template guard against a slow one made of Python sets: who goes, what counts as a template, and what does not matter."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import nodes, similarity, templates
from pipeline.build import BuildConfig, build
from pipeline.dedup import DedupConfig, near_duplicates
from pipeline.executor import Executor
from pipeline.ingest import ShardConfig
from pipeline.minhash import read_signatures, shingle_texts, sign_documents
from pipeline.recall_view import guard_in_words
from pipeline.runs import Published
from pipeline.selection import Request, select
from pipeline.similarity import MAX_MEMBERS
from pipeline.templates import (
    LEAST_OWN,
    find_templates,
    own_shingles,
    shingles_of,
    stored_templates,
)
from storage.catalog import resolve, verify
from storage.lake import Lake
from storage.purge import plan_purge, purge
from storage.schema import TEMPLATES
from storage.snapshot import Snapshot
from tests.bench.templated_site import make_site
from tests.bench.text_pools import shipped_pools
from tests.pipeline.edits import Editor
from tests.pipeline.test_dedup import (
    SOURCES,
    as_dict,
    find,
    keys_of,
    new_of,
    publish,
    sentence,
    table_of,
    without,
)
from tests.pipeline.test_forget import config_of, fates_of, forget_now, prose, write

# One value a band: whoever shares a minimum is a candidate, and the reference needs no index.
OFF = DedupConfig(bands=128, rows=1)
CONFIG = replace(OFF, template_share=0.3)
ENOUGH = 6
"""Documents that a template needs here, so that corpora can be small."""


@pytest.fixture(autouse=True, scope="module")
def _few_are_enough() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(templates, "MIN_DOCUMENTS", ENOUGH)
        yield


# --- the same, slowly ----------------------------------------------------------------------------

Gram = tuple[str, ...]


@dataclass(frozen=True)
class Text:
    """A document as a list of words, or of characters."""

    units: list[str]
    by_character: bool

    @classmethod
    def of(cls, row: dict[str, Any]) -> "Text":
        text = row["text"].lower()
        by_character = row["domain"] == "code" or any(letter >= "\u4e00" for letter in text)
        return cls([*"".join(text.split())] if by_character else text.split(), by_character)

    def windows(self, ngram: int) -> list[Gram]:
        """All runs of so many words, or of 24 characters, in reading order; of fewer, one of all."""
        width = min(24 if self.by_character else ngram, len(self.units))
        return [
            tuple(self.units[i : i + width])
            for i in range(len(self.units) - width + 1 if self.units else 0)
        ]

    def grams(self, ngram: int) -> set[Gram]:
        return set(self.windows(ngram))

    def own(self, ngram: int, template: set[Gram]) -> set[Gram]:
        """Runs without any unit of a template."""
        is_covered = [False] * len(self.units)
        for begin, window in enumerate(self.windows(5)):
            if window in template:
                is_covered[begin : begin + len(window)] = [True] * len(window)
        return {
            window
            for begin, window in enumerate(self.windows(ngram))
            if not any(is_covered[begin : begin + len(window)])
        }

    @property
    def least_own(self) -> int:
        return LEAST_OWN[self.by_character]


def slow_templates(rows: Sequence[dict[str, Any]], share: float) -> set[Gram]:
    """What occurs in more than a share of the documents of any source."""
    found: set[Gram] = set()
    for source in {row["source"] for row in rows}:
        texts = [Text.of(row).grams(5) for row in rows if row["source"] == source]
        counts = Counter(gram for grams in texts for gram in grams)
        found |= {gram for gram, n in counts.items() if n >= ENOUGH and n > share * len(texts)}
    return found


def jaccard(a: set[Gram], b: set[Gram]) -> float:
    return len(a & b) / max(len(a | b), 1)


def slow(
    table: pa.Table, template: set[Gram], published: pa.Table | None = None
) -> dict[str, tuple[str, float, str]]:
    """What must be removed: id -> (kept, similarity, rule), one document after the other in order of priority."""
    everything = pa.concat_tables([published, table]) if published is not None else table
    rows = {row["id"]: row for row in everything.to_pylist()}
    texts = {name: Text.of(row) for name, row in rows.items()}
    signed = dict(zip(rows, read_signatures(sign_documents(everything, OFF)), strict=True))
    kept = published["id"].to_pylist() if published is not None else []

    def priority(row: dict[str, Any]) -> tuple[Any, ...]:
        size = len(texts[row["id"]].grams(5))
        return -size, SOURCES.index(row["source"]), row["content_hash"], row["id"]

    removed: dict[str, tuple[str, float, str]] = {}
    for row in sorted(table.to_pylist(), key=priority):
        b, reasons = texts[row["id"]], []
        for place, other in enumerate(kept):
            a = texts[other]
            if rows[other]["content_hash"] == row["content_hash"]:
                reasons.append((1.0, -place, other, "exact"))
                continue
            if not a.units or not b.units or not (signed[other] == signed[row["id"]]).any():
                continue
            similarity = jaccard(a.grams(5), b.grams(5))
            share = len(a.grams(3) & b.grams(3)) / len(b.grams(3))
            own, few = b.own(5, template), b.own(3, template)
            own_share = len(a.grams(3) & few) / max(len(few), 1)
            is_near = len(own) < b.least_own or jaccard(own, a.own(5, template)) >= OFF.threshold
            is_held = len(few) < b.least_own or own_share >= OFF.containment
            if similarity >= OFF.threshold and is_near:
                reasons.append((similarity, -place, other, "near_duplicate"))
            elif share >= OFF.containment and is_held and len(a.grams(5)) >= len(b.grams(5)):
                reasons.append((share, -place, other, "contained"))
        if reasons:
            best = max(reasons)
            removed[row["id"]] = (best[2], best[0], best[3])
        else:
            kept.append(row["id"])
    return removed


@st.composite
def sites(draw: st.DrawFn, max_size: int = 24) -> list[dict[str, Any]]:
    """Pages of two sites, in words, in a script without spaces or in code: the same around a text, copies with edits."""
    generator = random.Random(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["words", "words", "characters", "code"]))
    words = [f"w{i}" for i in range(400)]
    if kind == "characters":
        words = [chr(0x4E00 + i) for i in range(400)]
    editor = Editor(words, generator)
    frames = {source: (editor.some(0, 90), editor.some(0, 90)) for source in SOURCES}
    pages: list[list[str]] = [editor.some(0, 60)]
    rows: list[dict[str, Any]] = []
    for number in range(draw(st.integers(8, max_size))):
        edit = generator.choice(["replace", "cut", "extend", "new", "new", "passage", "same"])
        page = editor.edited(generator.choice(pages), edit)
        pages.append(page)
        source = generator.choice(SOURCES)
        # A page may have come to the other site with the frame of its own.
        head, tail = frames[source if generator.random() < 0.8 else generator.choice(SOURCES)]
        units = head + page + tail if generator.random() < 0.9 else page
        text = ("" if kind == "characters" else " ").join(units)
        domain = "code" if kind == "code" else "web"
        rows.append({"text": text, "id": f"{number:032x}", "source": source, "domain": domain})
    return rows


def template_of(*tables: pa.Table) -> set[Gram]:
    assert CONFIG.template_share is not None
    found = (slow_templates(table.to_pylist(), CONFIG.template_share) for table in tables)
    return set().union(*found)


# --- against it ----------------------------------------------------------------------------------


@given(sites())
@settings(max_examples=60, deadline=None)
def test_removed_documents_are_those_of_brute_force(rows: list[dict[str, Any]]) -> None:
    """The same documents go, for the same kept one, with the same similarity and rule."""
    table = table_of(rows)
    assert slow(table, template_of(table)) == as_dict(find([table], config=CONFIG))


@given(sites(), st.integers(0, 2**32), st.integers(0, 24))
@settings(max_examples=40, deadline=None)
def test_order_and_sharding_do_not_matter(rows: list[dict], seed: int, cut: int) -> None:
    """Any order of the documents in any batches gives the same tables, templates among them."""
    shuffled = random.Random(seed).sample(rows, len(rows))
    one = find([table_of(rows)], config=CONFIG)
    other = find([table_of(shuffled[:cut]), table_of(shuffled[cut:])], config=CONFIG)
    assert one == replace(other, num_pairs=one.num_pairs, num_templated=one.num_templated)


def with_templates(published: Published, found: pa.Table) -> Published:
    return replace(published, templates=lambda: found)


@given(sites(30), st.integers(8, 24), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_what_is_published_stays_and_keeps_its_templates(
    rows: list[dict], cut: int, seed: int
) -> None:
    """A few new documents are judged by the templates of all before them, in whatever order they come."""
    first = table_of(rows[:cut])
    before = find([first], config=CONFIG)
    old = without(first, before)
    new = table_of(random.Random(seed).sample(rows[cut:], len(rows[cut:])))
    exact = (
        keys_of(new)["id"]
        .filter(
            pa.array(
                [
                    value in old["content_hash"].to_pylist()
                    for value in new["content_hash"].to_pylist()
                ],
                pa.bool_(),
            )
        )
        .to_pylist()
    )
    new = new.filter(pa.array([i not in exact for i in new["id"].to_pylist()], pa.bool_()))
    found = find([new], with_templates(publish([old], CONFIG), before.templates), CONFIG)
    assert slow(new, template_of(first, new), old) == as_dict(found)
    assert set(shingles_of(before.templates)) <= set(shingles_of(found.templates))


@given(sites())
@settings(max_examples=40, deadline=None)
def test_the_guard_only_takes_edges_away(rows: list[dict]) -> None:
    """Whoever goes is alike with a kept document without the guard, too; what is kept besides may be another."""
    table = table_of(rows)
    found = find([table], config=CONFIG)
    texts = {row["id"]: Text.of(row) for row in table.to_pylist()}
    removed = set(found.removed["id"].to_pylist())
    for row in found.removed.to_pylist():
        a, b = texts[row["duplicate_of"]], texts[row["id"]]
        share = len(a.grams(3) & b.grams(3)) / max(len(b.grams(3)), 1)
        alike = jaccard(a.grams(5), b.grams(5)) >= OFF.threshold or share >= OFF.containment
        assert alike or row["rule"] == "exact"
        assert row["duplicate_of"] not in removed
    if not len(found.templates):
        off = find([table], config=OFF)
        assert off == replace(found, templates=off.templates)
        assert not found.num_templated


@given(sites(), st.data())
@settings(max_examples=40, deadline=None)
def test_two_texts_are_apart_whichever_comes_first(rows: list[dict], data: st.DataObject) -> None:
    """Unless one has next to nothing of its own, or lies in the other: those may go, and the other may not."""
    one, other = (data.draw(st.sampled_from(rows)) for _ in range(2))
    tables = [table_of([one]), table_of([other])]
    stored = find([table_of(rows)], config=CONFIG).templates
    template = template_of(table_of(rows))
    verdicts = [
        set(find([new], with_templates(publish([old], CONFIG), stored), CONFIG).removed["rule"].to_pylist())
        for old, new in (tables, tables[::-1])
    ]  # fmt: skip
    few = [
        len(text.own(5, template)) < text.least_own
        for text in (Text.of(row) for table in tables for row in table.to_pylist())
    ]
    near = [verdict & {"exact", "near_duplicate"} for verdict in verdicts]
    assert near[0] == near[1] or any(few)


@given(sites())
@settings(max_examples=40, deadline=None)
def test_slices_and_probes_do_not_matter(rows: list[dict]) -> None:
    """Clusters one at a time give what all at once give; probes change neither documents nor templates."""
    table, probes = table_of(rows[2:]), table_of(rows[:2])
    one = find([table], config=CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nodes, "SLICE_BYTES", 1)
        other = find([table], config=CONFIG)
    probed = near_duplicates(new_of([table], CONFIG), None, CONFIG, probes=new_of([probes], CONFIG))
    counts = {"num_pairs": one.num_pairs, "num_templated": one.num_templated}
    assert one == other == replace(probed, probes=one.probes, **counts)


# --- templates -----------------------------------------------------------------------------------


def hashes_of(grams: set[Gram], *, by_character: bool) -> set[int]:
    """By the kernels: a text of one shingle has its hash."""
    domain, gap = ("code", "") if by_character else ("web", " ")
    texts = pa.array([gap.join(gram) for gram in grams], pa.string())
    return set(shingle_texts(texts, pa.repeat(domain, len(texts)))[0].tolist())


@given(sites(), st.sampled_from([0.05, 0.3, 0.9]))
@settings(max_examples=40, deadline=None)
def test_templates_and_own_shingles_are_those_of_sets(rows: list[dict], share: float) -> None:
    """By source, and stored in order; with what was stored before."""
    table = table_of(rows)
    texts = [Text.of(row) for row in table.to_pylist()]
    stored = pa.table([["elsewhere"], np.array([7], np.uint64)], schema=TEMPLATES)
    found = find_templates([table], stored, share, 5)
    rows_of = {
        source: [r for r in table.to_pylist() if r["source"] == source] for source in SOURCES
    }
    modes = {text.by_character for text in texts if text.units}
    if len(modes) > 1:
        return
    by_character = modes == {True}
    grams = {source: slow_templates(rows_of[source], share) for source in SOURCES}
    expected = {
        (source, value) for source in SOURCES for value in hashes_of(grams[source], by_character=by_character)
    } | {("elsewhere", 7)}  # fmt: skip
    assert [tuple(row.values()) for row in found.to_pylist()] == sorted(expected)
    everything = set().union(*grams.values())
    for ngram in (3, 5):
        columns = (table[name].combine_chunks() for name in ("text", "domain"))
        own, ends, is_short = own_shingles(
            *columns, shingles_of(found), ngram=ngram, template_ngram=5
        )
        for i, text in enumerate(texts):
            mine = text.own(ngram, everything)
            assert is_short[i] == (len(mine) < text.least_own)
            if ngram == 5:
                values = hashes_of(mine, by_character=by_character)
                assert own[ends[i] : ends[i + 1]].tolist() == sorted(values)
            assert len(mine) == ends[i + 1] - ends[i]


def test_the_sample_is_a_function_of_the_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lowest content hashes of each source, whatever lies in which table; as many as the limits allow."""
    monkeypatch.setattr(templates, "SAMPLE_DOCUMENTS", 10)
    rows = table_of([{"text": sentence(0, 20) + f" tail{i}"} for i in range(40)]).to_pylist()
    rows.sort(key=lambda row: row["content_hash"])
    for row in rows[10:]:
        row["text"] = "nothing of that kind"
    tables = [table_of(rows[::2]), table_of(rows[1::2][::-1])]
    found = find_templates(tables, TEMPLATES.empty_table(), 0.9, 5)
    assert len(found) == 16
    monkeypatch.setattr(templates, "SAMPLE_BYTES", ENOUGH * len(rows[0]["text"]) - 1)
    assert not len(find_templates(tables, TEMPLATES.empty_table(), 0.1, 5))
    assert not len(find_templates([], TEMPLATES.empty_table(), 0.1, 5))
    monkeypatch.setattr(templates, "SAMPLE_BYTES", 1 << 20)
    monkeypatch.setattr(templates, "MAX_BYTES", len(rows[0]["text"]) - 3)
    assert not len(find_templates(tables[:1], TEMPLATES.empty_table(), 0.1, 5).slice(4))


def test_few_documents_have_no_template(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a source of 49, nothing is known: the guard does nothing."""
    monkeypatch.undo()
    monkeypatch.setattr(templates, "MIN_DOCUMENTS", 50)
    frame = sentence(0, 300)
    pages = [{"text": f"{frame} {sentence(1000 * i, 1000 * i + 40)}"} for i in range(1, 51)]
    off, on = (
        find([table_of(pages[:49])], config=c) for c in (OFF, replace(OFF, template_share=0.05))
    )
    assert on == off
    assert len(off.removed) == 48
    found = find([table_of(pages)], config=replace(OFF, template_share=0.05))
    assert not len(found.removed)
    assert len(found.templates) == 296
    assert found.num_templated == 50 * 49 // 2


@pytest.mark.parametrize(
    ("share", "members", "bands"), [(0.85, MAX_MEMBERS, 25), (0.95, MAX_MEMBERS // 16, 5)]
)
def test_pages_of_one_site_are_told_apart(
    share: float, members: int, bands: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 400 pages that are 85 % template most go without the guard; with it, of each copy and its original one.

    Also where the buckets that the template makes are full of other pages.
    """
    monkeypatch.setattr(templates, "MIN_DOCUMENTS", 50)
    monkeypatch.setattr(similarity, "MAX_MEMBERS", members)
    rows = list(make_site(shipped_pools(3_000_000), 400, 20, share, seed=0))
    table = table_of([{"text": row["text"]} for row in rows])
    config = DedupConfig(bands=bands)
    assert len(find([table], config=config).removed) > 200
    name_of = dict(zip(table["text"].to_pylist(), table["id"].to_pylist(), strict=True))
    pairs = {
        frozenset((name_of[row["text"]], name_of[row["copy_of"]])) for row in rows if row["copy_of"]
    }
    found = find([table], config=replace(config, template_share=0.05)).removed
    claims = zip(found["id"].to_pylist(), found["duplicate_of"].to_pylist(), strict=True)
    assert {frozenset(claim) for claim in claims} == pairs
    assert len(found) == len(pairs) == 20


def test_a_text_that_is_copied_widely_is_no_page() -> None:
    """Copies with a word changed here and there have nothing of their own, though most of a source are such copies."""
    words = sentence(0, 200).split()
    rows = [
        {"text": " ".join([*words[:i], f"other{i}", *words[i + 1 :]])} for i in range(0, 200, 3)
    ]
    rows += [
        {"text": " ".join([*words[:90], *sentence(1000, 1000 + n).split(), *words[90:]])}
        for n in (10, 60)
    ]
    table = table_of(rows)
    found = find([table], config=CONFIG)
    assert len(found.templates) > 100
    # The one with a passage of its own stands for all others, and none of them for it.
    assert len(found.removed) == len(rows) - 1
    assert as_dict(found) == as_dict(find([table], config=OFF))


@pytest.mark.parametrize("text", ["", "?!", "one", "one " * 2000, "\u4e00" * 500, sentence(0, 4)])
def test_texts_that_are_hardly_any(text: str) -> None:
    """A source of nothing but such texts: all but one go, or none if there is no word in them."""
    rows = [{"text": text, "id": f"{i:032x}", "content_hash": f"{i:032x}"} for i in range(12)]
    rows += [{"text": prose(i), "id": f"{i:032x}"} for i in range(20, 24)]
    for domain in ("web", "code"):
        table = table_of([row | {"domain": domain} for row in rows])
        on, off = (find([table], config=config) for config in (CONFIG, OFF))
        assert on.removed.equals(off.removed)
        assert not on.num_templated


def test_processes_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters settled in other processes, a few at a time: they are told the templates."""
    rows = list(make_site(shipped_pools(300_000), 60, 10, 0.85, seed=1))
    table = table_of([{"text": row["text"]} for row in rows])
    config = DedupConfig(template_share=0.5)
    one = find([table], config=config)
    assert one.num_templated
    monkeypatch.setattr(nodes, "SLICE_BYTES", 5000)
    options: dict[str, Any] = {"folder": tmp_path, "executor": Executor(workers=2)}
    assert one == near_duplicates(new_of([table]), None, config, **options)


# --- in a lake -----------------------------------------------------------------------------------


def page(frame: int, own: int, edit: str = "") -> str:
    """A page of a site, 85 % of it the same as on all others."""
    return f"{prose(frame, 480)}\n{prose(own, 84)}{edit}"


def site_config(share: float | None = 0.5, **changes: object) -> BuildConfig:
    return config_of(dedup=DedupConfig(template_share=share), **changes)


def grow(lake: Lake, root: Path, texts: dict[str, str], config: BuildConfig) -> Snapshot:
    write(root, texts)
    build(config, lake, root=root)
    snapshot = resolve(lake, "tiny")
    assert not verify(lake, snapshot.ref)
    return snapshot


def fate_by_uri(snapshot: Snapshot) -> dict[str, str]:
    return {uri.removesuffix(".txt"): row["fate"] for uri, row in fates_of(snapshot).items()}


def test_a_lake_keeps_its_templates(tmp_path: Path) -> None:
    """What a large build has seen holds for the small ones after it, for files beside it and for forgetting."""
    lake, root = Lake.open(tmp_path / "lake"), tmp_path / "texts"
    texts = {f"page{i:02}": page(1000, i) for i in range(12)}
    first = grow(lake, root, texts, site_config())
    assert set(fate_by_uri(first).values()) == {"kept"}
    told = first.manifest.summary["near_duplicates"]
    assert told["templates"] == {"texts": len(stored_templates(first))}
    assert told["kept_apart"] >= 12 * 11 // 2
    assert guard_in_words(told) == (
        f"Templates of sites, in shingles: texts {len(stored_templates(first)):,}; "
        f"{told['kept_apart']:,} pairs were alike by them alone and kept apart."
    )
    # Other input files a part give the same.
    shards = site_config(shards=ShardConfig(input_bytes=1 << 12))
    again = grow(Lake.open(tmp_path / "other"), root, {}, shards)
    assert stored_templates(again).equals(stored_templates(first))

    small = {"news": page(1000, 50), "near": page(1000, 3, " one more word")}
    second = grow(lake, root, small, site_config())
    fates = fate_by_uri(second)
    assert (fates["news"], fates["near"]) == ("kept", "duplicate")
    assert second.shards("templates") == first.shards("templates")

    new = table_of([{"text": page(1000, 60)}])
    assert not len(find([new], Published.of(second), DedupConfig(template_share=0.5)).removed)
    assert len(find([new], Published.of(second), DedupConfig()).removed) == 1

    # What is like a page is not all that stands in the same frame.
    like = select(second, Request(like=page(1000, 3))).documents["uri"].to_pylist()
    assert sorted(like) == ["near.txt", "page03.txt"]
    forgotten = forget_now(lake, Request(uris=("page03.txt",)))
    assert fate_by_uri(forgotten) == fates | {"page03": "forgotten", "near": "kept"}
    plan = plan_purge(lake, "tiny")
    assert plan is not None
    purged = Snapshot(lake, purge(plan)[0])
    assert stored_templates(purged).equals(stored_templates(first))
    assert not verify(lake, purged.ref)

    moved = {f"other{i:02}": page(2000, 100 + i) for i in range(12)}
    third = grow(lake, root, moved, site_config(0.6))
    assert {third_fate for uri, third_fate in fate_by_uri(third).items() if uri in moved} == {
        "kept"
    }
    assert len(third.shards("templates")) == 1
    assert set(shingles_of(stored_templates(third))) > set(shingles_of(stored_templates(first)))

    # Switched off, it does nothing, and what is known stays for the day when it is on again.
    fourth = grow(lake, root, {"off": page(2000, 70)}, site_config(None))
    assert fate_by_uri(fourth)["off"] == "duplicate"
    assert "templates" not in fourth.manifest.summary["near_duplicates"]
    assert fourth.shards("templates") == third.shards("templates")


def test_canaries_are_judged_by_the_same_rule(tmp_path: Path) -> None:
    """A copy that the guard keeps apart is not missed; those that it should not, are found."""
    lake, root = Lake.open(tmp_path / "lake"), tmp_path / "texts"
    texts = {f"page{i:02}": page(1000, i) for i in range(40)}
    recall = grow(lake, root, texts, site_config()).manifest.summary["recall"]
    assert recall["kept_apart"]["planted"]
    assert recall["kept_apart"]["found"] == 0
    assert recall["precision"] == 1
    assert recall["sure"]["found"] == recall["sure"]["planted"] >= 20
    assert recall["below_threshold"]["wrongly_found"] == 0
    assert recall["random_pairs"]["highest"] >= 0.7
    assert recall["random_pairs"]["missed"] == 0
