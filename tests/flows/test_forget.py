"""forget and gc --purge as commands: what they ask, say and refuse, and what a receipt says of a training run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.loader import Loader
from model.records import read_lines, read_object
from storage.catalog import resolve, verify
from storage.lake import Lake

from .conftest import TINY_MODEL

Command = Callable[..., Any]


@pytest.fixture
def built(gristmill: Command, tiny_recipe: Path, tmp_path: Path) -> Path:
    """The tiny corpus, built; its lake."""
    lake = tmp_path / "lake"
    assert gristmill("build", tiny_recipe, "--lake", lake, "--workers", 1, "-q").code == 0
    return lake


def saw_by_provenance(lake: Lake, run: str, id_: str) -> list[int]:
    """Steps of a run whose batches hold a document, found the slow way: by the rows of every sample."""
    about = read_object(lake, f"runs/{run}/run.json")
    snapshot = resolve(lake, about["snapshot"])
    loader = Loader(snapshot, batch_size=1, seq_len=about["model"]["seq_len"], seed=0)
    ids = {s.path: snapshot.open_whole(s)["id"].to_pylist() for s in snapshot.shards("tokens")}
    steps = []
    for line in read_lines(lake, f"runs/{run}/ledger.jsonl"):
        origins = [loader.origin(sample) for sample in line["samples"]]
        rows = [
            (o.path, row) for o in origins for begin, end in o.rows for row in range(begin, end)
        ]
        if any(ids[path][row] == id_ for path, row in rows):
            steps.append(line["step"])
    return steps


def test_the_receipt_knows_who_saw_what(built: Path, gristmill: Command, tiny_recipe: Path) -> None:
    """Steps and checkpoints are those that the ledger leads to; what no batch held, no checkpoint saw."""
    lake = Lake.open(built)
    options = ("--lake", built, "--workers", 1, "-q", *TINY_MODEL, "--set", "train.steps=4")
    assert gristmill("train", tiny_recipe, *options, "--run", "mine").code == 0
    first = resolve(lake, "tiny")
    ids = [
        i for s in first.shards("tokens", split="train") for i in first.open(s)["id"].to_pylist()
    ]
    steps = {id_: saw_by_provenance(lake, "mine", id_) for id_ in ids}
    seen = next(id_ for id_ in sorted(ids) if steps[id_] and min(steps[id_]) > 2)
    unseen = next(id_ for id_ in sorted(ids) if not steps[id_])
    text = next(r["text"] for t in first.documents() for r in t.to_pylist() if r["id"] == seen)
    for id_ in (unseen, seen):
        answer = gristmill(
            "forget", "--id", id_, "--lake", built, "--yes", "--json", "--reason", "a test"
        )
        assert answer.code == 0, answer.err
        receipt = answer.json
        assert receipt == json.loads(lake.read_bytes(receipt["receipt"])) | {
            "receipt": receipt["receipt"]
        }
        [run] = receipt["runs"]
        assert run["run"] == "mine"
        assert run["known_to_step"] == 4
        assert run["saw"] == ("yes" if steps[id_] else "no")
        assert run["first_step"] == min(steps[id_], default=None)
        assert run["steps"] == len(steps[id_])
        assert [c["step"] for c in run["checkpoints"]] == [2, 4]
        for checkpoint in run["checkpoints"]:
            is_seen = any(step <= checkpoint["step"] for step in steps[id_])
            assert checkpoint["saw"] == ("yes" if is_seen else "no")
    assert [row["id"] for row in receipt["documents"]] == [seen]
    assert receipt["documents"][0]["snapshots"] == ["tiny@1", "tiny@2"]
    assert (receipt["snapshot"], receipt["reason"]) == ("tiny@3", "a test")
    for entry in lake.list("corpora/tiny/receipts"):
        assert text[:40] not in lake.read_bytes(entry.path).decode()

    lake.write_bytes("runs/mine/ledger.jsonl", b"no JSON\n")
    other = next(id_ for id_ in ids if id_ not in (seen, unseen))
    answer = gristmill("forget", "--id", other, "--lake", built, "--yes")
    assert "run mine on tiny@1: may have seen them (" in answer.out

    lake.delete("runs/mine/ledger.jsonl")
    dry = gristmill("gc", "--purge", "--dry-run", "--lake", built)
    assert "run mine was trained on tiny@1: it can be sampled and evaluated" in dry.out
    would = gristmill("gc", "--purge", "--dry-run", "--json", "--lake", built).json
    purged = gristmill("gc", "--purge", "--yes", "--json", "--lake", built)
    assert purged.code == 0, purged.err
    assert len(purged.json["removed"]) > 5
    assert would["removed"] == purged.json["removed"]
    [row] = purged.json["purged"]
    assert row["dropped"] == ["tiny@1", "tiny@2", "tiny@3", "tiny@4"]
    assert row["in_their_place"] == "tiny@5"
    assert gristmill("sample", "mine", "the", "--lake", built, "--tokens", 3).code == 0
    assert gristmill("evaluate", "mine", "--lake", built).code == 0
    again = gristmill("train", tiny_recipe, *options, "--run", "mine", "--snapshot", "tiny@1")
    assert again.code == 2
    assert "dropped it on" in again.err
    assert gristmill("verify", "--lake", built).code == 0


def test_what_would_go_is_shown_and_asked(
    built: Path, gristmill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dry run changes nothing, nobody to ask means no, and so does a no."""
    pattern = ("--uri", "prose/*-00[12].txt", "--lake", built)
    dry = gristmill("forget", *pattern, "--dry-run")
    assert dry.code == 0
    assert "2 documents of tiny@1 would be forgotten; 2 are kept so far" in dry.out
    silent = gristmill("forget", *pattern)
    assert silent.code == 2
    assert "look at them with --dry-run and say --yes" in silent.err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, code in (("n", 75), ("", 75), ("y", 0)):
        monkeypatch.setattr("builtins.input", lambda answer=answer: answer)
        assert gristmill("forget", *pattern).code == code
    assert resolve(Lake.open(built), "tiny").ref == "tiny@2"
    again = gristmill("forget", *pattern, "--yes")
    assert (again.code, again.out) == (
        0,
        "tiny@2: nothing to forget; 2 documents were forgotten before\n",
    )
    assert not verify(Lake.open(built))
    # The same documents in the data card's tables: figures without them.
    summary = gristmill("inspect", "tiny", "--lake", built, "--json").json["summary"]
    assert summary["documents"] == 46
    lines = gristmill("dump", "tiny", "--lake", built).out.splitlines()
    assert len(lines) == 46
    fates = [
        json.loads(line)
        for line in gristmill("dump", "tiny", "--lake", built, "--fates").out.splitlines()
    ]
    assert len(fates) == 49
    assert [row["fate"] for row in fates].count("forgotten") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected at least one of --id, --uri, --content-hash and --like"),
        (["--uri", ""], "expected a pattern such as"),
        (["--uri", "*"], "this pattern means every document; say --yes"),
        (["--id", "xyz"], "--id: expected 32 lower-case hex digits, got 'xyz'"),
        (["--id", "0" * 32, "--yes"], "expected a document that tiny@1 or one before it has read"),
        (["--like", "/no/such/file"], "cannot be read: No such file"),
        (["--like", "/dev/null"], "expected a text, got nothing but white space"),
        (["tiny@1", "--uri", "a*"], "expected a corpus, not a snapshot"),
        (["tiney", "--uri", "a*"], "expected a corpus of .*, which holds tiny"),
    ],
)
def test_bad_requests_are_refused(
    built: Path, gristmill: Command, arguments: list[str], message: str
) -> None:
    """One message, exit code 2, and nothing is published."""
    import re

    answer = gristmill("forget", *arguments, "--lake", built)
    assert answer.code == 2
    assert re.search(message, answer.err), answer.err
    assert resolve(Lake.open(built), "tiny").ref == "tiny@1"


def test_a_screen_is_not_flooded(built: Path, gristmill: Command) -> None:
    """Of many documents the first are named; the receipt in the lake names all."""
    answer = gristmill("forget", "--uri", "prose/*", "--lake", built, "--yes", "-q")
    assert answer.code == 0, answer.err
    assert "24 documents:" in answer.out and "  ... and 4 more" in answer.out
    [text] = [e.path for e in Lake.open(built).list("corpora/tiny/receipts") if ".txt" in e.path]
    whole = Lake.open(built).read_bytes(text).decode()
    assert [line for line in answer.out.splitlines() if "  was kept; in tiny@1" in line] == [
        line for line in whole.splitlines() if "  was kept; in tiny@1" in line
    ][:20]
    assert whole.count("  was kept; in tiny@1") == 24
    shown = gristmill("inspect", "tiny", "--lake", built).out
    assert "note: this snapshot read nothing: 24 documents were forgotten" in shown
    assert "Documents" not in shown


def test_why_knows_and_does_not_tell(built: Path, gristmill: Command) -> None:
    """The history of a forgotten document is there, its text is not, though older shards hold it."""
    lake = Lake.open(built)
    [row] = [
        row
        for table in resolve(lake, "tiny").documents()
        for row in table.to_pylist()
        if row["uri"] == "prose/0-003.txt"
    ]
    shown = gristmill("why", row["id"], "--lake", built).out
    assert row["text"].split("\n")[0][:40] in shown
    assert gristmill("forget", "--id", row["id"], "--lake", built, "--yes", "-q").code == 0
    answer = gristmill("why", "prose/0-003.txt", "--lake", built)
    assert answer.code == 0, answer.err
    assert "forgotten" in answer.out
    assert row["text"].split("\n")[0][:40] not in answer.out
    assert [
        entry["fate"]
        for entry in gristmill("why", row["id"], "--lake", built, "--json").json["history"]
    ] == [
        "kept",
        "forgotten",
    ]
