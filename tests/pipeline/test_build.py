"""The build as a whole: one fate each, the same bytes however it ran, and after any crash the same hash."""

import gzip
import json
import os
import pickle
import random
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.build import STAGES, BuildConfig, build, make_plan
from pipeline.decontaminate import DecontaminateConfig
from pipeline.executor import Executor
from pipeline.ingest import ShardConfig
from pipeline.readers import SourceConfig
from pipeline.shards import SplitConfig
from pipeline.tokenizer import TokenizerConfig
from storage import lake as lake_module
from storage.catalog import resolve, verify
from storage.errors import BusyError, ConfigError, InputError, SourceGoneError
from storage.lake import Lake
from storage.snapshot import commit_snapshot

WORDS = (Path(__file__).parents[2] / "LICENSE").read_text("utf8").lower().split()


def prose(seed: int, words: int = 120) -> str:
    """Words of the licence in an order of their own: no two seeds share many shingles."""
    generator = random.Random(seed)
    chosen = [generator.choice(WORDS) for _ in range(words)]
    lines = [" ".join(chosen[start : start + 12]) + "." for start in range(0, words, 12)]
    return "\n".join(lines)


def edited(text: str, seed: int) -> str:
    """The same text with one word in sixty changed."""
    generator = random.Random(seed)
    words = text.split(" ")
    for _ in range(max(1, len(words) // 60)):
        words[generator.randrange(len(words))] = "altered"
    return " ".join(words)


def write_corpus(root: Path) -> BuildConfig:
    """Three sources with exact copies, near-duplicates, short documents and broken records."""
    (root / "books").mkdir(parents=True)
    for number in range(12):
        (root / "books" / f"{number:02}.txt").write_text(prose(number), "utf8")
    (root / "books" / "copy.txt").write_text(prose(3), "utf8")
    (root / "books" / "near.txt").write_text(edited(prose(50, 240), 1), "utf8")
    (root / "books" / "original.txt").write_text(prose(50, 240), "utf8")
    rows = [json.dumps({"text": prose(100 + number), "id": number}) for number in range(15)]
    rows[4] = '{"text": "cut off'
    rows[7] = json.dumps({"body": "no text"})
    rows[9] = json.dumps({"text": prose(5)})
    with gzip.open(root / "chat.jsonl.gz", "wb") as file:
        file.write(("\n".join(rows) + "\n").encode())
    return BuildConfig(
        name="tiny",
        sources=(
            SourceConfig(path="books/*.txt", name="books", domain="books", license="Apache-2.0"),
            SourceConfig(path="chat.jsonl.gz", name="chat", domain="chat", license="Apache-2.0"),
        ),
        split=SplitConfig(validation=0.1),
        tokenizer=TokenizerConfig(vocab_size=400),
        shards=ShardConfig(input_bytes=4000),
    )


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[BuildConfig, Path]:
    root = tmp_path / "recipe"
    return write_corpus(root), root


def fates_of(lake: Lake, ref: str) -> list[dict]:
    snapshot = resolve(lake, ref)
    version = snapshot.manifest.version
    return [
        row
        for shard in snapshot.shards("fates", version=version)
        for row in snapshot.open(shard).to_pylist()
    ]


def test_every_document_has_one_fate(corpus: tuple[BuildConfig, Path], tmp_path: Path) -> None:
    """What was planted is found under its name, and the sum is exact."""
    config, root = corpus
    lake = Lake.open(tmp_path / "lake")
    result = build(config, lake, root=root)
    assert result.status == "promoted"
    fates = fates_of(lake, "tiny")
    assert len(fates) == result.documents["read"] == 30
    assert sum(count for fate, count in result.documents.items() if fate != "read") == 30
    by_uri = {row["uri"]: row for row in fates}
    assert by_uri["chat.jsonl.gz:5"]["fate"] == by_uri["chat.jsonl.gz:8"]["fate"] == "quarantined"
    copies = [row for row in fates if row["rule"] == "exact"]
    assert {row["uri"] for row in copies} <= {
        "books/03.txt",
        "books/copy.txt",
        "books/05.txt",
        "chat.jsonl.gz:10",
    }
    pair = sorted(
        (by_uri["books/near.txt"], by_uri["books/original.txt"]), key=lambda row: row["fate"]
    )
    assert [row["fate"] for row in pair] == ["duplicate", "kept"]
    assert pair[0]["duplicate_of"] == pair[1]["id"]
    assert pair[0]["similarity"] >= 0.7
    kept = {row["id"] for row in fates if row["fate"] == "kept"}
    assert all(row["duplicate_of"] in kept for row in fates if row["fate"] == "duplicate")
    snapshot = resolve(lake, "tiny")
    published = [id_ for table in snapshot.documents() for id_ in table["id"].to_pylist()]
    assert sorted(published) == sorted(kept)
    assert not verify(lake)


def test_token_shards_hold_exactly_the_kept_documents(
    corpus: tuple[BuildConfig, Path], tmp_path: Path
) -> None:
    """Train and validation shards part the kept documents, and each decodes to the published text."""
    import sentencepiece

    config, root = corpus
    lake = Lake.open(tmp_path / "lake")
    build(config, lake, root=root)
    snapshot = resolve(lake, "tiny")
    processor = sentencepiece.SentencePieceProcessor(model_proto=snapshot.tokenizer_bytes())
    documents = {row["id"]: row for table in snapshot.documents() for row in table.to_pylist()}
    seen: Counter[str] = Counter()
    for split in ("train", "validation"):
        for shard in snapshot.shards("tokens", split=split):
            for row in snapshot.open(shard).to_pylist():
                seen[row["id"]] += 1
                document = documents[row["id"]]
                assert document["split"] == split
                assert row["tokens"][0] == processor.bos_id()
                assert processor.decode(row["tokens"][1:]) == document["text"]
                assert row["num_bytes"] == document["num_bytes"] == len(document["text"].encode())
    assert seen == Counter(dict.fromkeys(documents, 1))
    assert {document["split"] for document in documents.values()} == {"train", "validation"}


def test_workers_and_places_do_not_change_the_snapshot(
    corpus: tuple[BuildConfig, Path], tmp_path: Path
) -> None:
    """One worker or two, one lake or another: the same hash and the same bytes of every shard."""
    config, root = corpus
    results = []
    for name, workers in (("a", 1), ("b", 2)):
        lake = Lake.open(tmp_path / name)
        results.append(build(config, lake, root=root, executor=Executor(workers=workers)))
    assert results[0].hash == results[1].hash
    assert [s.checksum for s in results[0].manifest.shards] == [
        s.checksum for s in results[1].manifest.shards
    ]


def test_a_second_build_has_nothing_to_do(corpus: tuple[BuildConfig, Path], tmp_path: Path) -> None:
    """The same inputs again publish nothing; a changed recipe alone does not either, and is said."""
    config, root = corpus
    lake = Lake.open(tmp_path / "lake")
    first = build(config, lake, root=root)
    second = build(config, lake, root=root)
    assert (second.status, second.snapshot, second.hash) == ("unchanged", "tiny@1", first.hash)
    assert second.documents["read"] == 0
    changed = build(replace(config, split=SplitConfig(validation=0.2)), lake, root=root)
    assert changed.status == "unchanged"
    assert any("recipe has changed" in note for note in changed.notes)


def test_new_inputs_are_added_and_old_shards_stay(
    corpus: tuple[BuildConfig, Path], tmp_path: Path
) -> None:
    """The next snapshot holds the former one's shards as they are, and drops what they already contain."""
    config, root = corpus
    lake = Lake.open(tmp_path / "lake")
    first = build(config, lake, root=root)
    (root / "books" / "new.txt").write_text(prose(500), "utf8")
    (root / "books" / "again.txt").write_text(prose(6), "utf8")
    (root / "books" / "similar.txt").write_text(edited(prose(7), 9), "utf8")
    second = build(config, lake, root=root)
    assert second.snapshot == "tiny@2"
    assert second.documents == {
        "read": 3, "kept": 1, "dropped": 0, "duplicate": 2, "quarantined": 0, "forgotten": 0,
    }  # fmt: skip
    assert second.manifest.shards[: len(first.manifest.shards)] == first.manifest.shards
    assert second.manifest.parent == first.hash
    old = {row["uri"]: row["id"] for row in fates_of(lake, "tiny@1")}
    new = {row["uri"]: row for row in fates_of(lake, "tiny@2")}
    assert new["books/again.txt"]["duplicate_of"] == old["books/06.txt"]
    assert new["books/similar.txt"]["duplicate_of"] == old["books/07.txt"]
    total = first.documents["kept"] + 1
    assert second.manifest.summary["documents"] == total
    assert resolve(lake, "tiny").tokenizer_bytes() == resolve(lake, "tiny@1").tokenizer_bytes()


def test_files_that_grow_or_are_renamed_are_promoted(
    corpus: tuple[BuildConfig, Path], tmp_path: Path
) -> None:
    """What was published before is found again and adds nothing; only what is new is kept, and counts at the gates."""
    config, root = corpus
    lake = Lake.open(tmp_path / "lake")
    build(config, lake, root=root)
    with gzip.open(root / "chat.jsonl.gz", "at") as file:
        file.write(json.dumps({"text": prose(999)}) + "\n")
    (root / "books" / "05.txt").rename(root / "books" / "renamed.txt")
    grown = build(config, lake, root=root)
    assert (grown.status, grown.documents["kept"]) == ("promoted", 1)
    assert grown.documents["duplicate"] == grown.documents["read"] - 3  # and two broken records
    (root / "books" / "renamed.txt").rename(root / "books" / "again.txt")
    renamed = build(config, lake, root=root)
    assert (renamed.status, renamed.documents["kept"]) == ("promoted", 0)
    assert build(config, lake, root=root).status == "unchanged"
    assert verify(lake) == []


def test_a_failed_gate_quarantines_the_snapshot(
    corpus: tuple[BuildConfig, Path], tmp_path: Path
) -> None:
    """A refused snapshot can be looked at, is never `latest`, and the same build again says so at once."""
    config, root = corpus
    lake = Lake.open(tmp_path / "lake")
    config = replace(config, gates=replace(config.gates, min_documents=1000))
    result = build(config, lake, root=root)
    assert result.status == "quarantined"
    assert any("gate 'documents'" in note for note in result.notes)
    again = build(config, lake, root=root)
    assert (again.status, again.snapshot) == ("quarantined", "tiny@1")
    fixed = build(replace(config, gates=replace(config.gates, min_documents=1)), lake, root=root)
    assert (fixed.status, fixed.snapshot) == ("promoted", "tiny@2")
    assert resolve(lake, "tiny").ref == "tiny@2"


def test_two_builders_of_one_corpus(corpus: tuple[BuildConfig, Path], tmp_path: Path) -> None:
    """The second one is told who builds; nothing is written twice."""
    config, root = corpus
    lake = Lake.open(tmp_path / "lake")
    with (
        lake.lock("build-tiny", doing="building 'tiny'"),
        pytest.raises(BusyError, match=rf"already building 'tiny' .*{os.getpid()}"),
    ):
        build(config, lake, root=root)


def run_until_killed(config: BuildConfig, root: Path, lake: Lake, operation: int) -> bool:
    """Build in a forked child that kills itself before its n-th file operation; True if it got that far."""
    child = os.fork()
    if child == 0:
        count = 0

        def kill(_operation: str, _path: str) -> None:
            nonlocal count
            count += 1
            if count == operation:
                os.kill(os.getpid(), signal.SIGKILL)

        lake_module.on_file_operation = kill
        try:
            build(config, lake, root=root)
        except BaseException:
            os._exit(3)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    return os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def crash_at(config: BuildConfig, root: Path, folder: Path, operation: int, expected: str) -> bool:
    lake = Lake.open(folder / f"lake-{operation}")
    killed = run_until_killed(config, root, lake, operation)
    before = verify(lake) if (folder / f"lake-{operation}").exists() else []
    assert not before, "a killed build may leave no broken snapshot"
    assert build(config, lake, root=root).hash == expected, f"killed at file operation {operation}"
    return killed


@pytest.mark.parametrize("part", range(4))
def test_killed_anywhere_the_same_hash(
    corpus: tuple[BuildConfig, Path], tmp_path: Path, part: int
) -> None:
    """kill -9 before a fsync, rename, link or unlink, then the same command again: the snapshot as if undisturbed."""
    config, root = corpus
    expected = build(config, Lake.open(tmp_path / "whole"), root=root).hash
    operations = range(1 + 7 * part, 10_000, 29)
    killed = 0
    for operation in operations:
        if not crash_at(config, root, tmp_path, operation, expected):
            break
        killed += 1
    assert killed >= 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_every_file_operation(corpus: tuple[BuildConfig, Path], tmp_path: Path) -> None:
    """As above, at each single one."""
    config, root = corpus
    expected = build(config, Lake.open(tmp_path / "whole"), root=root).hash
    operation = 1
    while crash_at(config, root, tmp_path, operation, expected):
        operation += 1
    assert operation > 100


def test_finished_stages_are_not_done_again(
    corpus: tuple[BuildConfig, Path], tmp_path: Path
) -> None:
    """A build that stopped after half of its stages goes on with the next one."""
    config, root = corpus
    lake = Lake.open(tmp_path / "lake")
    plan = make_plan(config, lake, root)
    for stage in STAGES[:5]:
        stage.run(plan, Executor(), lambda *_: None)
    finished = [
        entry for entry in lake.list(plan.workspace.work + "/") if entry.path.endswith(".json")
    ]
    written: list[str] = []
    for stage in STAGES:
        stage.run(
            plan, Executor(), lambda stage, done, total, unit: written.append(f"{stage} {done}")
        )
    assert [
        entry for entry in lake.list(plan.workspace.work + "/") if entry in finished
    ] == finished
    assert "read 0" not in written and "near 0" not in written and "tokenizer 0" in written


def test_a_source_without_files_is_refused(tmp_path: Path) -> None:
    """A pattern that matches nothing is the user's mistake, not an empty snapshot."""
    (tmp_path / "texts").mkdir()
    config = BuildConfig(name="none", sources=(SourceConfig(path="texts/*.txt", name="texts"),))
    with pytest.raises(InputError, match=r"texts/\*\.txt"):
        build(config, Lake.open(tmp_path / "lake"), root=tmp_path)
    assert not (tmp_path / "lake" / "corpora").exists()


def test_a_source_that_is_gone_is_another_error(
    corpus: tuple[BuildConfig, Path], tmp_path: Path
) -> None:
    """Snapshots were read from it: the message says from how many files, and the error which source it is."""
    config, root = corpus
    lake = Lake.open(tmp_path / "lake")
    build(config, lake, root=root)
    moved = replace(config.sources[0], path="moved/*")
    with pytest.raises(
        SourceGoneError, match=r"moved.*and those before it read \d+ files? of it"
    ) as caught:
        build(replace(config, sources=(moved, *config.sources[1:])), lake, root=root)
    assert caught.value.source == moved.name
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_inputs_of_which_nothing_is_kept(tmp_path: Path) -> None:
    """The message says what removed them, because there is no snapshot to look at; the next build starts afresh."""
    (tmp_path / "empty.txt").touch()
    (tmp_path / "short.txt").write_text("Too short.")
    config = BuildConfig(name="x", sources=(SourceConfig(path="*.txt", name="x"),))
    lake = Lake.open(tmp_path / "lake")
    with pytest.raises(
        InputError, match=r"removed: 1 by min_words \(short.txt.*; 1 record skipped"
    ):
        build(config, lake, root=tmp_path)
    assert lake.list("corpora/x/snapshots") == []


def test_names_that_are_paths_are_refused() -> None:
    """A corpus name becomes a folder, so it may not climb."""
    with pytest.raises(ConfigError, match=r"'\.\./\.\./etc'"):
        BuildConfig(name="../../etc", sources=(SourceConfig(path="x", name="x"),))
    with pytest.raises(ConfigError, match="two sources are called 'x'"):
        BuildConfig(
            name="a", sources=(SourceConfig(path="x", name="x"), SourceConfig(path="y", name="x"))
        )


def replaced(path: Path) -> None:
    other = path.with_name("other.tmp")
    other.write_text(prose(900), "utf8")
    other.rename(path)


def rewritten(path: Path) -> None:
    """In place, of the same size, with the old time."""
    times = path.stat()
    path.write_text(prose(901)[: times.st_size].ljust(times.st_size, "x"), "utf8")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def truncated(path: Path) -> None:
    os.truncate(path, 40)


def made_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside.txt").write_text(prose(902), "utf8")


def made_a_link(path: Path) -> None:
    moved = path.rename(path.with_name("elsewhere.md"))
    path.symlink_to(moved)


def appended(path: Path) -> None:
    with path.open("a", encoding="utf8") as file:
        file.write(prose(903))


def in_read_stage(change, path: Path):
    """A runner of stages that changes a file before the read stage."""

    def run_stage(stage, run):
        if stage.name == "read":
            change(path)
        return run()

    return run_stage


@pytest.mark.parametrize(
    "change", [replaced, rewritten, truncated, Path.unlink, made_a_folder, made_a_link]
)
def test_a_file_that_changes_before_it_is_read_is_left_out_and_taken_next_time(
    corpus: tuple[BuildConfig, Path], tmp_path: Path, change
) -> None:
    """Nothing of it enters, it is no input of the snapshot, it is told, and the next build reads what is there then."""
    config, root = corpus
    lake = Lake.open(tmp_path / "lake")
    path = root / "books/07.txt"
    was = path.read_text("utf8")
    result = build(config, lake, root=root, run_stage=in_read_stage(change, path))
    assert result.documents["read"] == 29
    assert "books/07.txt" not in {item.uri for item in result.manifest.inputs}
    assert [note for note in result.notes if note.startswith("1 input changed between")]
    assert not [row for row in fates_of(lake, "tiny") if row["uri"].startswith("books/07.txt")]
    if path.is_file() and not path.is_symlink():
        again = build(config, lake, root=root)
        (row,) = fates_of(lake, again.snapshot)
        assert row["uri"] == "books/07.txt"
        assert path.read_text("utf8") != was
    assert build(config, lake, root=root).status in ("unchanged", "promoted")


def test_a_file_that_grows_is_read_as_it_was_found(
    corpus: tuple[BuildConfig, Path], tmp_path: Path
) -> None:
    """The snapshot is that of the file before, and the next build takes the longer one."""
    config, root = corpus
    plain = build(config, Lake.open(tmp_path / "plain"), root=root)
    lake = Lake.open(tmp_path / "lake")
    grown = build(config, lake, root=root, run_stage=in_read_stage(appended, root / "books/07.txt"))
    assert grown.hash == plain.hash
    again = build(config, lake, root=root)
    assert [row["uri"] for row in fates_of(lake, again.snapshot)] == ["books/07.txt"]


def test_nothing_but_changed_files_is_an_error_that_leaves_no_trace(
    corpus: tuple[BuildConfig, Path], tmp_path: Path
) -> None:
    """The same command reads the file as it is then, also if that is what it was at first."""
    config, root = corpus
    config = replace(config, sources=(SourceConfig(path="books/00.txt", domain="books"),))
    lake, path = Lake.open(tmp_path / "lake"), root / "books/00.txt"
    was = path.read_bytes()
    with pytest.raises(InputError, match=r"1 input changed .* nothing was published"):
        build(config, lake, root=root, run_stage=in_read_stage(truncated, path))
    path.write_bytes(was)
    assert build(config, lake, root=root).documents["kept"] == 1


def test_documents_and_fates_do_not_depend_on_the_files_of_a_batch(tmp_path: Path) -> None:
    """A batch a document and one batch of all: the same rows in the same order."""
    (tmp_path / "t").mkdir()
    for number in range(90):
        text = prose(number, 4 if number % 3 == 0 else 60)
        (tmp_path / "t" / f"{number:03}.txt").write_text(text, "utf8")
    (tmp_path / "t" / "045.txt").write_bytes(b"\xff\xfe\xfd")
    config = BuildConfig(
        name="tiny",
        sources=(SourceConfig(path="t", domain="books"),),
        tokenizer=TokenizerConfig(vocab_size=400),
    )
    found = []
    for at_once in (1, 8192):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pipeline.raw.BATCH_ROWS", at_once)
            lake = Lake.open(tmp_path / f"{at_once}.lake")
            build(config, lake, root=tmp_path)
            documents = [t.to_pylist() for t in resolve(lake, "tiny").documents()]
            found.append((fates_of(lake, "tiny"), documents))
    assert found[0] == found[1]


def test_an_evaluation_set_that_changes_ends_the_build(
    corpus: tuple[BuildConfig, Path], tmp_path: Path
) -> None:
    """The recipe's fingerprint stands for the set that was used, or there is no snapshot."""
    config, root = corpus
    (root / "eval.txt").write_text(prose(700, 40), "utf8")
    config = replace(config, decontaminate=DecontaminateConfig(sets=("eval.txt",)))
    with pytest.raises(InputError, match=r"eval\.txt: expected a file that stays as it is"):
        build(
            config,
            Lake.open(tmp_path / "lake"),
            root=root,
            run_stage=in_read_stage(appended, root / "eval.txt"),
        )
    with pytest.raises(InputError, match=r"eval\.txt: expected a file that stays as it is"):
        build(
            config,
            Lake.open(tmp_path / "lake"),
            root=root,
            run_stage=in_read_stage(truncated, root / "eval.txt"),
        )


def test_a_lake_built_with_another_spelling_reads_nothing_again(
    corpus: tuple[BuildConfig, Path], tmp_path: Path
) -> None:
    """Inputs that an earlier version named by an absolute path are known under their path in the recipe's folder."""
    config, root = corpus
    lake = Lake.open(tmp_path / "lake")
    manifest = build(config, lake, root=root).manifest
    absolute = [replace(item, uri=f"{root}/{item.uri}") for item in manifest.inputs]
    old = replace(manifest, version=2, parent=manifest.hash(), inputs=tuple(absolute), shards=())
    commit_snapshot(lake, replace(old, shards=manifest.shards))
    assert build(config, lake, root=root).status == "unchanged"


def test_domains_that_the_data_names_are_told(tmp_path: Path) -> None:
    """Which profile each got, a name that is nearly one, and a profile that dropped a large share."""
    kinds = ["science"] * 20 + ["scienc"] * 5 + ["poems"] * 5
    rows = [
        json.dumps({"text": prose(n, 10 if n < 12 else 60), "kind": kind})
        for n, kind in enumerate(kinds)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(rows), "utf8")
    config = BuildConfig(
        name="tiny",
        sources=(SourceConfig(path="a.jsonl", domain="chat", domain_field="kind"),),
        tokenizer=TokenizerConfig(vocab_size=400),
    )
    notes = build(config, Lake.open(tmp_path / "lake"), root=tmp_path).notes
    (chosen,) = [note for note in notes if note.startswith("3 domains from the field 'kind'")]
    assert "science -> science" in chosen
    assert "scienc -> default (no profile has this name; is it science?)" in chosen
    assert "poems -> poetry (another name of it)" in chosen
    (lost,) = [note for note in notes if note.startswith("profiles chosen by the field 'kind'")]
    assert "science 60% of 20 by science (most by min_words)" in lost
