"""The policy "rebuild": what is kept is what one build of everything keeps, whatever came when."""

import os
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import rebuild as rebuild_module
from pipeline.build import BuildConfig, build
from pipeline.dedup import DedupConfig, exact_duplicates
from pipeline.rebuild import rebuild
from pipeline.selection import Request
from storage import lake as lake_module
from storage.catalog import resolve, verify
from storage.errors import ConfigError
from storage.lake import Lake
from storage.schema import DOCUMENTS, DUPLICATES
from storage.snapshot import Snapshot

from .test_dedup import corpora, find, keys_of, new_of, publish, similarity, table_of
from .test_forget import check, copy_lake, die_at, fates_of, forget_now, prose, write
from .test_forget import config_of as append_config_of

CONFIG = DedupConfig(policy="rebuild")


class Corpus:
    """What a chain of builds keeps and what it removed, in memory."""

    def __init__(self) -> None:
        self.kept, self.removed = DOCUMENTS.empty_table(), DUPLICATES.empty_table()

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Take in one more batch, by the stages of a build."""
        new = table_of(rows)
        texts = keys_of(new).set_column(1, "content_hash", new["text"])
        copies = exact_duplicates(texts, None)["id"].combine_chunks()
        new = new.filter(pc.invert(pc.is_in(new["id"], copies)))
        if not len(self.kept):
            everything, removed = new, find([new], config=CONFIG).removed
        else:
            published = publish([self.kept])
            done = rebuild(new_of([new]), published, self.duplicates_of, CONFIG)
            again = [table.select(DOCUMENTS.names) for table in done.again]
            everything, removed = pa.concat_tables([new, *again]), done.found.removed
            self.inherits = done.found.inherits
            ids = pa.array([i for table in again for i in table["id"].to_pylist()], pa.string())
            self.kept, self.removed = (
                table.filter(pc.invert(pc.is_in(table["id"], ids)))
                for table in (self.kept, self.removed)
            )
        goes = pc.is_in(everything["id"], removed["id"].combine_chunks())
        self.kept = pa.concat_tables([self.kept, everything.filter(pc.invert(goes))])
        joined = everything.join(removed, "id", join_type="inner")
        self.removed = pa.concat_tables(
            [self.removed, joined.select(DUPLICATES.names).cast(DUPLICATES)]
        )

    def duplicates_of(self, ids: pa.Array) -> pa.Table:
        """Those removed in favour of some."""
        return self.removed.filter(pc.is_in(self.removed["duplicate_of"], ids)).sort_by("id")


@st.composite
def batches(draw: st.DrawFn) -> list[list[dict[str, Any]]]:
    """Documents like each other, some in another domain or with other white space, in two to four batches."""
    rows = draw(corpora(20))
    generator = random.Random(draw(st.integers(0, 2**32)))
    for row in rows:
        row["domain"] = generator.choice(["web", "web", "web", "code"])
        row["split"] = generator.choice(["train", "validation"])
        if generator.random() < 0.2:
            row["text"] = row["text"].replace(" ", "\n")
    rows = generator.sample(rows, len(rows))
    cuts = sorted(draw(st.lists(st.integers(0, len(rows)), min_size=1, max_size=3)))
    return [rows[a:b] for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True) if b > a]


@given(batches())
@settings(max_examples=100, deadline=None)
def test_any_batches_in_any_order_keep_what_one_build_keeps(parts: list[list[dict]]) -> None:
    """The same documents are kept, and each that is not names a kept one that it duplicates."""
    whole, split = Corpus(), Corpus()
    whole.add([row for part in parts for row in part])
    for part in parts:
        split.add(part)
    assert sorted(whole.kept["id"].to_pylist()) == sorted(split.kept["id"].to_pylist())
    texts = {row["id"]: row["text"] for part in parts for row in part}
    kept = set(split.kept["id"].to_pylist())
    for row in split.removed.to_pylist():
        assert row["duplicate_of"] in kept
        jaccard, contained = similarity(texts[row["duplicate_of"]], texts[row["id"]])
        if row["domain"] == "web" and row["rule"] != "exact":
            assert jaccard >= CONFIG.threshold or contained >= CONFIG.containment


def chain(length: int) -> list[dict[str, Any]]:
    """Documents by priority of which each is like the next one alone."""
    return [
        {"text": " ".join(f"word{i}" for i in range(10 * k, 10 * k + 100 - k)), "id": f"{k:032x}"}
        for k in range(length)
    ]


@pytest.mark.parametrize("first", [0, 3])
def test_one_document_can_turn_a_whole_chain_over(first: int) -> None:
    """Every second one of those behind it comes back, and each one that comes back displaces the next."""
    rows = chain(9)
    corpus = Corpus()
    corpus.add([row | {"split": "train"} for i, row in enumerate(rows) if i != first])
    before = [int(i, 16) for i in sorted(corpus.kept["id"].to_pylist())]
    assert before == {0: [1, 3, 5, 7], 3: [0, 2, 4, 6, 8]}[first]
    corpus.add([rows[first]])
    assert [int(i, 16) for i in sorted(corpus.kept["id"].to_pylist())] == [0, 2, 4, 6, 8]
    assert [int(i, 16) for i in sorted(corpus.removed["id"].to_pylist())] == [1, 3, 5, 7]


def test_parts_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents that compete again come in parts of a bounded size, each with its signatures."""
    rows, found = [row | {"num_bytes": len(row["text"])} for row in chain(9)], []
    corpus = Corpus()
    corpus.add([row | {"split": "train"} for row in rows[1:]])
    new, published = new_of([table_of(rows[:1])]), publish([corpus.kept])
    for part_bytes in (1, 1 << 20):
        monkeypatch.setattr(rebuild_module, "PART_BYTES", part_bytes)
        done = rebuild(new, published, corpus.duplicates_of, CONFIG)
        for part, signatures in zip(done.again, done.signatures, strict=True):
            assert part["id"].equals(signatures["id"])
        found.append((done.found, sorted(i for t in done.again for i in t["id"].to_pylist())))
        assert (max(map(len, done.again)) == 1) == (part_bytes == 1)
    assert found[0] == found[1]
    assert len(found[0][1]) == 8


def test_splits_are_inherited_and_validation_wins() -> None:
    """Who displaces a document or comes back for one has its split; of both splits, validation."""
    rows = chain(5)
    corpus = Corpus()
    corpus.add([rows[1] | {"split": "validation"}, rows[2], rows[3] | {"split": "train"}])
    corpus.add([rows[0], rows[4]])
    splits = {int(row["id"], 16): row["split"] for row in corpus.inherits.to_pylist()}
    # 2 comes back for 1, and displaces 3; 4 goes behind 3 and is like no other.
    assert splits == {0: "validation", 2: "validation", 4: "train"}


def test_the_longer_text_displaces_what_it_contains() -> None:
    """Under `append` both would be kept."""
    corpus, short = Corpus(), prose(1, 90)
    corpus.add([{"text": short, "id": "1" * 32, "split": "train"}])
    config = replace(CONFIG, bands=64, rows=1)
    new, old = table_of([{"text": prose(1, 180), "id": "2" * 32}]), corpus.kept
    assert prose(1, 180).startswith(short[:-1])
    done = rebuild(new_of([new], config), publish([old], config), corpus.duplicates_of, config)
    assert done.found.removed.select(["id", "rule"]).to_pylist() == [
        {"id": "1" * 32, "rule": "contained"}
    ]


def test_texts_without_words_are_compared_too() -> None:
    """They share no band with anything; the first by source and id stays, whichever came first."""
    rows = [{"text": "?!", "id": f"{i:032x}", "split": "train"} for i in range(3)]
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        corpus = Corpus()
        for i in order:
            corpus.add([rows[i] | {"text": "?!" + " " * i}])
        assert corpus.kept["id"].to_pylist() == [rows[0]["id"]]
        assert len(corpus.removed) == 2


def test_it_needs_near_duplicates() -> None:
    """A policy that has no effect is refused, and so is one that there is not."""
    with pytest.raises(ConfigError, match=r'expected "append" where dedup\.enabled is false'):
        DedupConfig(policy="rebuild", enabled=False)
    with pytest.raises(ConfigError, match="expected append or rebuild, got 'replace'"):
        DedupConfig(policy="replace")  # pyright: ignore[reportArgumentType]


# --- in a lake ---------------------------------------------------------------------------------


def config_of(**changes: object) -> BuildConfig:
    return append_config_of(dedup=CONFIG, **changes)


def links(length: int) -> dict[str, str]:
    """The texts of a chain long enough for every filter, with copies of the first and the second one."""
    words = prose(7, 2000).split()
    texts = {
        f"link-{k}": " ".join(words[20 * k : 20 * k + 220 - 2 * k]) + "." for k in range(length)
    }
    return texts | {"copy-0": texts["link-0"], "copy-1": texts["link-1"].replace(" ", "\n", 3)}


TEXTS = links(6) | {f"other-{i}": prose(100 + i) for i in range(6)} | {"short": "too short"}
TEXTS |= {"longer": prose(100) + " and some more words that only this one has."}
BATCHES = {
    "first": {"link-1", "link-2", "link-3", "other-0", "other-1", "other-2", "copy-1", "short"},
    "second": TEXTS.keys() - {"link-1", "link-2", "link-3", "other-0", "other-1", "other-2", "copy-1", "short"},
}  # fmt: skip


def built(folder: Path, *batches: set[str], config: BuildConfig | None = None) -> Snapshot:
    """The newest of builds of these batches, one after the other; every snapshot of them is sound."""
    root, lake = folder / "recipe", Lake.open(folder / "lake")
    for batch in batches:
        write(root, {name: TEXTS[name] for name in sorted(batch)})
        build(config or config_of(), lake, root=root)
        check(resolve(lake, "tiny"), set())
    return resolve(lake, "tiny")


def kept_in(snapshot: Snapshot) -> list[str]:
    """Uris of the kept documents."""
    return sorted(uri for uri, row in fates_of(snapshot).items() if row["fate"] == "kept")


def sums(snapshot: Snapshot) -> dict[str, int]:
    """Documents by fate."""
    fates = [row["fate"] for row in fates_of(snapshot).values()]
    return {fate: fates.count(fate) for fate in sorted(set(fates))}


def test_builds_in_any_order_keep_what_one_keeps(tmp_path: Path) -> None:
    """Kept ids and fates of A then B, B then A and A with B are the same; each document's fate is sound."""
    one, two = BATCHES["first"], BATCHES["second"]
    whole = built(tmp_path / "whole", one | two)
    assert {"link-2.txt", "link-4.txt"} <= set(kept_in(whole))
    tombstones = 0
    for name, order in {"ab": [one, two], "ba": [two, one]}.items():
        snapshot = built(tmp_path / name, *order)
        assert kept_in(snapshot) == kept_in(whole)
        assert sums(snapshot) == sums(whole)
        assert snapshot.manifest.status == "promoted"
        displaced = snapshot.tombstones.filter(pc.equal(snapshot.tombstones["reason"], "displaced"))
        tombstones += len(displaced)
        assert not len(snapshot.forgotten())
    assert tombstones >= 4


def test_what_a_build_says_of_it(tmp_path: Path) -> None:
    """Displaced documents name who displaced them, their copies follow, and the figures tell how many."""
    snapshot = built(tmp_path, BATCHES["first"], BATCHES["second"])
    fates = fates_of(snapshot)
    assert snapshot.manifest.summary["rebuild"]["displaced"] >= 2
    assert snapshot.manifest.summary["rebuild"]["restored"] >= 1
    stays = next(u for u in ("copy-0.txt", "link-0.txt") if fates[u]["fate"] == "kept")
    other = "copy-0.txt" if stays == "link-0.txt" else "link-0.txt"
    assert fates[other]["duplicate_of"] == fates[stays]["id"]
    for uri in ("link-1.txt", "copy-1.txt"):
        assert (fates[uri]["fate"], fates[uri]["duplicate_of"]) == ("duplicate", fates[stays]["id"])
    assert fates["other-0.txt"]["duplicate_of"] == fates["longer.txt"]["id"]
    before = resolve(snapshot.lake, "tiny@1")
    assert fates_of(before)["other-0.txt"]["fate"] == "kept"
    again = build(config_of(), snapshot.lake, root=tmp_path / "recipe")
    assert again.status == "unchanged"


def test_it_is_told_what_gave_way(tmp_path: Path) -> None:
    """The result of the build says how many published documents are hidden from then on."""
    root, lake = tmp_path / "recipe", Lake.open(tmp_path / "lake")
    for name, expected in {"other-0": [], "longer": ["1 published document gave way"]}.items():
        write(root, {name: TEXTS[name], f"with-{name}": prose(len(name))})
        notes = build(config_of(), lake, root=root).notes
        assert [note[:29] for note in notes if "gave way" in note] == expected


def test_append_keeps_all_that_was_kept(tmp_path: Path) -> None:
    """The other policy gives a superset, on top of snapshots of either."""
    config = append_config_of()
    snapshot = built(tmp_path / "a", BATCHES["first"], BATCHES["second"], config=config)
    assert set(kept_in(resolve(snapshot.lake, "tiny@1"))) <= set(kept_in(snapshot))
    assert not len(snapshot.tombstones)
    mixed = built(tmp_path / "b", BATCHES["first"])
    write(tmp_path / "b" / "recipe", TEXTS)
    build(config, mixed.lake, root=tmp_path / "b" / "recipe")
    after = resolve(mixed.lake, "tiny")
    check(after, set())
    assert set(kept_in(mixed)) <= set(kept_in(after))


def test_forgetting_and_building_take_turns(tmp_path: Path) -> None:
    """What is forgotten stays out, and what came back for it competes in the next build."""
    root, lake = tmp_path / "recipe", Lake.open(tmp_path / "lake")
    write(root, {name: TEXTS[name] for name in BATCHES["first"]})
    build(config_of(), lake, root=root)
    after = forget_now(lake, Request(uris=("link-1.txt",)))
    gone = {fates_of(after)[f"{name}.txt"]["id"] for name in ("link-1", "copy-1")}
    check(after, gone)
    write(root, TEXTS | {"again": TEXTS["link-1"]})
    build(config_of(), lake, root=root)
    last = resolve(lake, "tiny")
    check(last, gone)
    assert fates_of(last)["again.txt"]["fate"] == "forgotten"
    stays = next(u for u in kept_in(last) if u.endswith("-0.txt") and "other" not in u)
    final = forget_now(lake, Request(uris=(stays,)))
    check(final, gone | {fates_of(last)[stays]["id"]})


def test_killed_anywhere_it_comes_to_the_same_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL at a file operation of the build that displaces, then the same build: the same hash."""
    start = built(tmp_path / "start", BATCHES["first"])
    root = tmp_path / "recipe"
    write(root, TEXTS)
    copy_lake(start.lake, tmp_path / "whole")
    monkeypatch.setattr(rebuild_module, "PART_BYTES", 1000)  # several parts
    operations: list[str] = []
    monkeypatch.setattr(lake_module, "on_file_operation", lambda _, path: operations.append(path))
    build(config_of(), Lake.open(tmp_path / "whole"), root=root)
    monkeypatch.setattr(lake_module, "on_file_operation", None)
    expected = resolve(Lake.open(tmp_path / "whole"), "tiny").hash
    near = [i for i, path in enumerate(operations, 1) if "/near/" in path]
    assert len(near) > 10
    points = [*random.Random(0).sample(near, 5), near[-1] + 1, len(operations)]
    for point in points:
        place = tmp_path / f"killed-{point}"
        copy_lake(start.lake, place)
        child = os.fork()
        if not child:
            die_at(point)
            build(config_of(), Lake.open(place), root=root)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"operation {point}"
        killed = Lake.open(place)
        build(config_of(), killed, root=root)
        assert resolve(killed, "tiny").hash == expected
        assert not verify(killed)
