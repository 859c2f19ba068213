"""Forgetting: what is forgotten is seen by no reader and not taken in again, and the best duplicate comes back."""

import os
import random
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from model.loader import Loader, open_streams
from pipeline.build import BuildConfig, build
from pipeline.dedup import DedupConfig
from pipeline.figures import figures
from pipeline.forget import forget, make_plan, newest_promoted
from pipeline.language import LanguageConfig
from pipeline.normalize import content_hash
from pipeline.readers import SourceConfig
from pipeline.runs import Published, band_runs, find_keys, hidden_documents
from pipeline.selection import Request, select
from pipeline.shards import SplitConfig
from pipeline.tokenizer import TokenizerConfig
from pipeline.toxicity import ToxicityConfig
from storage import lake as lake_module
from storage.catalog import resolve, verify
from storage.errors import ConfigError, NotFoundError
from storage.lake import Lake
from storage.snapshot import Snapshot

WORDS = (Path(__file__).parents[2] / "LICENSE").read_text("utf8").lower().split()


def prose(seed: int, words: int = 120) -> str:
    """Words of the licence in an order of their own: no two seeds share many shingles."""
    generator = random.Random(seed)
    chosen = [generator.choice(WORDS) for _ in range(words)]
    return "\n".join(" ".join(chosen[start : start + 12]) + "." for start in range(0, words, 12))


def variant(seed: int, number: int) -> str:
    """The text of a seed, for a number above 0 with so many words more at its end: a shorter near-duplicate of longer ones."""
    return prose(seed) + "".join(f" more{number}word{i}" for i in range(number)) + "."


def config_of(**changes: object) -> BuildConfig:
    config = BuildConfig(
        name="tiny",
        sources=(SourceConfig(path="*.txt", name="texts", domain="books", license="CC0-1.0"),),
        language=LanguageConfig(detect=False),
        toxicity=ToxicityConfig(enabled=False),
        split=SplitConfig(validation=0.2),
        tokenizer=TokenizerConfig(vocab_size=400),
    )
    return replace(config, **changes)


def write(root: Path, texts: dict[str, str]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (root / f"{name}.txt").write_text(text, "utf8")


def forget_now(lake: Lake, request: Request) -> Snapshot:
    parent = newest_promoted(lake, "tiny")
    return Snapshot(lake, forget(make_plan(parent, select(parent, request))).manifest)


def fates_of(snapshot: Snapshot) -> dict[str, dict]:
    """Fates as they hold, by uri."""
    rows = [row for table in snapshot.fates() for row in table.to_pylist()]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["uri"]: row for row in rows}


def shown(snapshot: Snapshot) -> dict[str, set[str]]:
    """The ids that each way of reading gives."""
    kinds = {"documents", "tokens", "signatures", "duplicates", "rejects"}
    seen = {kind: set() for kind in kinds}
    for shard in snapshot.manifest.shards:
        if shard.kind in kinds:
            seen[shard.kind] |= set(snapshot.open(shard)["id"].to_pylist())
    for kind in ("documents", "tokens"):
        if snapshot.shards(kind):
            assert set(snapshot.as_hf(kind)["id"]) == seen[kind]
    return seen


def check(snapshot: Snapshot, forgotten: set[str]) -> None:
    """Everything that holds in any snapshot, whatever was forgotten before."""
    fates = fates_of(snapshot)
    ids = {fate: {row["id"] for row in fates.values() if row["fate"] == fate} for fate in FATES}
    assert ids["forgotten"] >= forgotten
    seen = shown(snapshot)
    assert not set().union(*seen.values()) & ids["forgotten"]
    documents = [row for table in snapshot.documents() for row in table.to_pylist()]
    assert len(documents) == len({row["id"] for row in documents})
    assert ids["kept"] == seen["documents"] == seen["tokens"] == seen["signatures"]
    duplicates = [r for s in snapshot.shards("duplicates") for r in snapshot.open(s).to_pylist()]
    near = {r["id"] for r in fates.values() if r["stage"] == "near_duplicates" and not r["copy_of"]}
    assert {row["id"] for row in duplicates} == near
    assert len(duplicates) == len(near)
    by_id = {row["id"]: row for row in fates.values()}
    for row in duplicates:
        assert row["duplicate_of"] == by_id[row["id"]]["duplicate_of"]
    for row in fates.values():
        assert (row["duplicate_of"] in ids["kept"]) == (row["fate"] == "duplicate")
    blocked = set(snapshot.forgotten()["content_hash"].to_pylist())
    assert not blocked & {row["content_hash"] for row in (*documents, *duplicates)}
    manifest = snapshot.manifest
    assert manifest.summary["documents"] == len(documents)
    assert manifest.summary["domains"] == figures_of(snapshot)
    for split in ("train", "validation"):
        read = sum(int(stream.starts[-1]) for stream in open_streams(snapshot, split))
        assert read == manifest.summary["tokens"][split]
    assert not verify(snapshot.lake, snapshot.ref)


FATES = ("kept", "dropped", "duplicate", "quarantined", "forgotten")


def figures_of(snapshot: Snapshot) -> dict:
    """The figures of all that is kept, counted anew."""
    tokens = {}
    for split in ("train", "validation"):
        tables = [snapshot.open(shard) for shard in snapshot.shards("tokens", split=split)]
        tables = [table for table in tables if len(table)]
        if tables:
            tokens[split] = pa.concat_tables(tables)
    return figures(pa.concat_tables(list(snapshot.documents())), tokens)


# No shrinking: an example takes builds, and shrinking one takes minutes.
@settings(
    max_examples=4,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    families=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=2, max_size=4),
    late=st.sets(st.integers(0, 20), max_size=5),
    chosen=st.lists(st.integers(0, 20), min_size=1, max_size=2),
)
def test_forgotten_documents_are_gone_and_stay_so(
    families: list[tuple[int, int]], late: set[int], chosen: list[int]
) -> None:
    """Any documents, forgotten one after another, leave a sound corpus; a build that meets them again takes none."""
    texts = {"other": prose(1000)}
    for family, (variants, copies) in enumerate(families):
        numbers = [*range(variants + 1), *[0] * copies]
        texts |= {f"f{family}-{i}": variant(family, n) for i, n in enumerate(numbers)}
    names = sorted(texts)
    later = {name for i, name in enumerate(names) if i in late and name != "other"}
    with TemporaryDirectory() as folder:
        root, lake = Path(folder) / "recipe", Lake.open(Path(folder) / "lake")
        write(root, {name: text for name, text in texts.items() if name not in later})
        config = config_of()
        build(config, lake, root=root)
        write(root, texts)
        build(config, lake, root=root)
        forgotten: set[str] = set()
        gone: set[str] = set()
        for number in chosen:
            uri = f"{names[number % len(names)]}.txt"
            snapshot = newest_promoted(lake, "tiny")
            if uri == "other.txt" or fates_of(snapshot)[uri]["fate"] == "forgotten":
                continue
            before = shown(snapshot)
            after = forget_now(lake, Request(uris=(uri,)))
            forgotten.add(fates_of(after)[uri]["id"])
            gone.add(texts[uri.removesuffix(".txt")])
            check(after, forgotten)
            assert shown(resolve(lake, snapshot.ref)) == before
        write(root, {f"again-{i}": " ".join(text.split()) for i, text in enumerate(sorted(gone))})
        write(root, {"new": prose(2000)})
        result = build(config, lake, root=root)
        assert result.status == "promoted"
        assert result.documents["forgotten"] == len(gone)
        assert result.documents["read"] == len(gone) + 1
        last = resolve(lake, "tiny")
        check(last, forgotten)
        for i in range(len(gone)):
            assert fates_of(last)[f"again-{i}.txt"]["fate"] == "forgotten"


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[BuildConfig, Path, Lake]:
    """A family of three near-duplicates with a copy of the second, and other texts; one snapshot."""
    texts = {f"other-{i}": prose(100 + i) for i in range(8)}
    texts |= {f"family-{i}": variant(0, 2 * i) for i in range(3)} | {"copy": variant(0, 2)}
    root, lake = tmp_path / "recipe", Lake.open(tmp_path / "lake")
    write(root, texts)
    config = config_of()
    build(config, lake, root=root)
    return config, root, lake


def test_the_best_duplicate_comes_back(corpus: tuple[BuildConfig, Path, Lake]) -> None:
    """It is kept with its tokens and the split of the one it duplicated, and the others point to it."""
    _, _, lake = corpus
    first = resolve(lake, "tiny")
    before = fates_of(first)
    assert before["family-2.txt"]["fate"] == "kept"
    after = forget_now(lake, Request(ids=(before["family-2.txt"]["id"],)))
    check(after, {before["family-2.txt"]["id"]})
    fates = fates_of(after)
    # "copy" and "family-1" have the same text; the first of them by id stands for both.
    best = next(u for u in ("copy.txt", "family-1.txt") if not before[u]["copy_of"])
    other = next(u for u in ("copy.txt", "family-1.txt") if u != best)
    assert fates[best]["fate"] == "kept"
    assert fates[other]["duplicate_of"] == fates[best]["id"]
    assert (fates[other]["rule"], fates[other]["copy_of"]) == ("exact", None)
    assert fates["family-0.txt"]["duplicate_of"] == fates[best]["id"]
    old = {row["id"]: row for table in first.documents() for row in table.to_pylist()}
    new = {row["id"]: row for table in after.documents() for row in table.to_pylist()}
    assert new[fates[best]["id"]]["split"] == old[before["family-2.txt"]["id"]]["split"]
    summary = after.manifest.summary["forget"]
    assert summary == {"forgotten": 1, "restored": 1, "moved": 1}
    assert after.manifest.funnel == {}
    again = forget_now(lake, Request(ids=(fates[best]["id"],)))
    assert fates_of(again)[other]["fate"] == "forgotten"
    assert fates_of(again)["family-0.txt"]["fate"] == "kept"
    check(again, {fates[best]["id"]})


def test_no_batch_holds_a_forgotten_token(corpus: tuple[BuildConfig, Path, Lake]) -> None:
    """An epoch of the loader is that of the documents that are left, and rows are still those of the files."""
    _, _, lake = corpus
    first = resolve(lake, "tiny")
    trained = [
        id_
        for s in first.shards("tokens", split="train")
        for id_ in first.open(s)["id"].to_pylist()
    ]
    after = forget_now(lake, Request(ids=(trained[1],)))
    loader = Loader(after, batch_size=1, seq_len=16, seed=0)
    seen: Counter[int] = Counter()
    rows: set[tuple[str, int]] = set()
    for k in range(loader.samples_per_epoch):
        batch = loader.batch(k)
        seen.update(batch.tokens_BT[batch.documents_BT >= 0].tolist())
        for origin in loader.provenance(k):
            rows |= {(origin.path, row) for begin, end in origin.rows for row in range(begin, end)}
    whole = {s.path: after.open_whole(s)["id"].to_pylist() for s in after.shards("tokens")}
    ids = {whole[path][row] for path, row in rows}
    expected: Counter[int] = Counter()
    visible = set()
    for shard in after.shards("tokens", split="train"):
        table = after.open(shard)
        visible |= set(table["id"].to_pylist())
        expected.update(np.concatenate(table["tokens"].to_pylist()).tolist())
    assert trained[1] not in ids
    assert ids == visible
    assert sum((expected - seen).values()) <= len(
        loader.streams
    )  # a stream's last token is only a target
    assert not seen - expected


def test_the_runs_lead_to_the_documents_that_are_left(
    corpus: tuple[BuildConfig, Path, Lake],
) -> None:
    """Every key of a signature that counts finds its document, by the document's number, and no hidden one."""
    _, _, lake = corpus
    uris = ("other-3.txt", "other-5.txt", "family-2.txt")
    after = forget_now(lake, Request(uris=uris))
    assert len(hidden_documents(after)) == 3
    found: set[str] = set()
    for run in band_runs(after, DedupConfig()):
        for band in range(DedupConfig().bands):
            rows, _ = find_keys(run, band, np.unique(run.keys[band]), 10)
            tables = list(Published.of(after).documents(np.unique(rows)))
            found |= {id_ for table in tables for id_ in table["id"].to_pylist()}
    assert found == {id_ for table in after.documents() for id_ in table["id"].to_pylist()}


def test_near_duplicates_of_what_came_back_are_found(
    corpus: tuple[BuildConfig, Path, Lake],
) -> None:
    """A later build removes what is like a restored document, not what is like a forgotten one alone."""
    config, root, lake = corpus
    forget_now(lake, Request(uris=("family-2.txt", "other-1.txt")))
    near = prose(101).replace("\n", " ", 1).split(" ")
    near[5] = "altered"
    write(root, {"like-forgotten": " ".join(near), "like-restored": variant(0, 1)})
    result = build(config, lake, root=root)
    assert (result.documents["kept"], result.documents["duplicate"]) == (1, 1)
    fates = fates_of(resolve(lake, "tiny"))
    assert fates["like-forgotten.txt"]["fate"] == "kept"
    assert fates[f"{'copy'}.txt"]["fate"] in ("kept", "duplicate")
    kept = {row["id"] for row in fates.values() if row["fate"] == "kept"}
    assert fates["like-restored.txt"]["duplicate_of"] in kept


def test_requests(corpus: tuple[BuildConfig, Path, Lake]) -> None:
    """By id, pattern, hash and likeness; the same text goes everywhere, in whatever file it lay."""
    _, _, lake = corpus
    snapshot = resolve(lake, "tiny")
    fates = fates_of(snapshot)

    def meant(**request: object) -> list[str]:
        return select(snapshot, Request(**request)).documents["uri"].to_pylist()  # pyright: ignore

    text = variant(0, 2)
    wanted = content_hash(pa.array([text]))[0].as_py()
    same = ["copy.txt", "family-1.txt"]
    assert meant(content_hashes=(wanted,)) == same
    assert meant(uris=("copy.*",)) == meant(uris=("family-1*",)) == same
    assert meant(ids=(fates["other-2.txt"]["id"],)) == ["other-2.txt"]
    assert meant(uris=("other-[24].txt",)) == ["other-2.txt", "other-4.txt"]
    family = ["copy.txt", "family-0.txt", "family-1.txt", "family-2.txt"]
    assert meant(like=f"  {text}\n\nand a few words more") == family
    assert meant(like=prose(777)) == []
    assert meant(like=prose(102)[:200]) == ["other-2.txt"]  # a document that holds the text
    for request, expected in [
        ({"ids": ("0" * 32,)}, "--id 0000"),
        ({"uris": ("nothing*",)}, "--uri 'nothing"),
        ({"content_hashes": ("f" * 32,)}, "--content-hash ffff"),
    ]:
        with pytest.raises(NotFoundError, match=expected):
            meant(**request)
    for request in ({}, {"ids": ("x",)}, {"uris": ("",)}, {"like": " \n"}):
        with pytest.raises(ConfigError):
            Request(**request)  # pyright: ignore


def test_a_second_forgetting_finds_nothing(corpus: tuple[BuildConfig, Path, Lake]) -> None:
    """What was forgotten is known as such, and there is nothing left to do."""
    _, _, lake = corpus
    request = Request(
        uris=("other-2.txt",), content_hashes=(content_hash(pa.array([prose(102)]))[0].as_py(),)
    )
    forget_now(lake, request)
    selection = select(newest_promoted(lake, "tiny"), request)
    assert (len(selection.documents), selection.num_known) == (0, 1)


def test_dropped_and_quarantined_documents_lose_their_samples(tmp_path: Path) -> None:
    """A text that no rule let in may still lie among the samples."""
    root, lake = tmp_path / "recipe", Lake.open(tmp_path / "lake")
    write(root, {f"other-{i}": prose(100 + i) for i in range(4)} | {"short": "too short a text"})
    config = config_of()
    build(config, lake, root=root)
    first = resolve(lake, "tiny")
    assert fates_of(first)["short.txt"]["fate"] == "dropped"
    assert "too short a text" in {
        r["text"] for s in first.shards("rejects") for r in first.open(s).to_pylist()
    }
    after = forget_now(lake, Request(uris=("short.txt",)))
    check(after, {fates_of(first)["short.txt"]["id"]})
    assert not [r for s in after.shards("rejects") for r in after.open(s).to_pylist()]


def test_gates_compare_with_the_last_snapshot_that_read(tmp_path: Path) -> None:
    """A forgetting between two builds hides nothing from the gates of the second: they say what they said without."""
    details = []
    for forgets in (False, True):
        root, lake = tmp_path / f"recipe-{forgets}", Lake.open(tmp_path / f"lake-{forgets}")
        write(
            root,
            {f"a-{i}": prose(i) for i in range(20)} | {f"short-{i}": "too short" for i in range(5)},
        )
        build(config_of(), lake, root=root)
        if forgets:
            forget_now(lake, Request(uris=("short-1.txt",)))
        write(root, {f"late-{i}": prose(300 + i) for i in range(20)})
        build(config_of(), lake, root=root)
        gates = resolve(lake, "tiny").manifest.gates
        details.append({gate["name"]: (gate["value"], gate["detail"]) for gate in gates})
    assert details[0]["change of the removed share"][0] > 0
    assert details[0] == details[1]


def test_killed_anywhere_it_comes_to_the_same_snapshot(
    corpus: tuple[BuildConfig, Path, Lake], tmp_path: Path
) -> None:
    """SIGKILL at a file operation, then the same request: the same hash, and no document twice."""
    _, _, lake = corpus
    request = Request(uris=("family-2.txt", "other-1.txt"))
    operations = record_operations(lake, request, tmp_path / "whole")
    expected = resolve(Lake.open(tmp_path / "whole"), "tiny").hash
    points = [*random.Random(0).sample(range(1, operations + 1), 8), 1, operations]
    for point in points:
        place = tmp_path / f"killed-{point}"
        copy_lake(lake, place)
        child = os.fork()
        if not child:
            die_at(point)
            forget_now(Lake.open(place), request)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"operation {point}"
        killed = Lake.open(place)
        if not (found := select(newest_promoted(killed, "tiny"), request)).num_known:
            assert len(found.documents) == 2
            forget_now(killed, request)
        assert resolve(killed, "tiny").hash == expected
        assert resolve(killed, "tiny").ref == "tiny@2"
        assert not verify(killed)


def copy_lake(lake: Lake, to: Path) -> None:
    """A copy of a lake on disk."""
    import shutil

    assert lake.root is not None
    shutil.copytree(lake.root, to)


def record_operations(lake: Lake, request: Request, place: Path) -> int:
    """Forget in a copy; how many file operations that takes."""
    copy_lake(lake, place)
    count = [0]

    def counting(operation: str, path: str) -> None:
        count[0] += 1

    lake_module.on_file_operation = counting
    try:
        forget_now(Lake.open(place), request)
    finally:
        lake_module.on_file_operation = None
    return count[0]


def die_at(point: int) -> None:
    """Let this process be killed before its file operation number `point`."""
    count = [0]

    def kill(operation: str, path: str) -> None:
        count[0] += 1
        if count[0] == point:
            os.kill(os.getpid(), signal.SIGKILL)

    lake_module.on_file_operation = kill
