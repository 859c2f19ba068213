"""build, inspect, dump, hash, verify and gc on a tiny corpus: what they print, and how they refuse."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.lake import Lake
from storage.schema import FATES

from .conftest import write_corpus

Command = Callable[..., Any]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Where nothing is yet."""
    return tmp_path / "lake"


@pytest.fixture
def built(gristmill: Command, tiny_recipe: Path, lake: Path) -> dict[str, Any]:
    """The tiny corpus, built; what `build --json` said."""
    answer = gristmill("build", tiny_recipe, "--lake", lake, "--workers", 1, "--json")
    assert answer.code == 0, answer.err
    return answer.json


def test_build_says_what_it_did(built: dict[str, Any]) -> None:
    """The document has exactly the promised keys, and its fates add up."""
    keys = ["snapshot", "hash", "status", "documents", "skipped", "tokens", "seconds"]
    assert list(built) == keys
    assert built["skipped"] == {}
    assert built["snapshot"] == "tiny@1"
    assert built["status"] == "promoted"
    documents = built["documents"]
    assert list(documents) == ["read", "kept", "dropped", "duplicate", "quarantined", "forgotten"]
    assert documents["read"] == 49 == sum(documents.values()) - documents["read"]
    assert documents["quarantined"] == 1
    assert built["tokens"] > 1000


def test_progress_goes_to_stderr_and_quiet_silences_it(
    gristmill: Command, tiny_recipe: Path, tmp_path: Path
) -> None:
    """stdout holds the result alone."""
    loud = gristmill("build", tiny_recipe, "--lake", tmp_path / "a", "--workers", 1)
    quiet = gristmill("build", tiny_recipe, "--lake", tmp_path / "b", "--workers", 1, "-q")
    assert "read" in loud.err
    assert quiet.err == ""
    assert loud.out.splitlines()[0].startswith("tiny@1 promoted: 48 of 49 documents kept")
    assert loud.out.splitlines()[1] == quiet.out.splitlines()[1]


def test_second_build_has_nothing_to_do(
    built: dict[str, Any], gristmill_process: Command, tiny_recipe: Path, lake: Path
) -> None:
    """Nothing new: the same hash, no new snapshot."""
    again = gristmill_process("build", tiny_recipe, "--lake", lake, "--json")
    assert again.code == 0
    assert (again.json["status"], again.json["hash"]) == ("unchanged", built["hash"])
    assert "nothing new" in again.err
    plain = gristmill_process("build", tiny_recipe, GRISTMILL_LAKE=str(lake))
    assert plain.out.splitlines()[0] == "tiny@1: nothing new"
    assert sorted(path.name for path in (lake / "corpora/tiny/snapshots").iterdir()) == [
        "000001.json"
    ]


def test_new_input_makes_the_next_snapshot(
    built: dict[str, Any], gristmill: Command, tiny_recipe: Path, lake: Path
) -> None:
    """Only what is new is read."""
    write_corpus(tiny_recipe.parent / "more", seed=1, documents=5)
    for path in (tiny_recipe.parent / "more/prose").iterdir():
        path.rename(tiny_recipe.parent / "prose" / path.name)
    grown = gristmill("build", tiny_recipe, "--lake", lake, "--workers", 1, "--json").json
    assert (grown["snapshot"], grown["documents"]["read"]) == ("tiny@2", 5)
    listed = gristmill("inspect", "--lake", lake, "--json").json
    assert [line["snapshot"] for line in listed["corpora"]["tiny"]] == ["tiny@1", "tiny@2"]
    assert listed["corpora"]["tiny"][1]["documents"] == 53


def test_hash_does_not_depend_on_where_and_how(
    built: dict[str, Any], gristmill_process: Command, tiny_recipe: Path, lake: Path, tmp_path: Path
) -> None:
    """Another process, hash seed, time zone, locale, number of workers and lake: the same snapshot."""
    other = gristmill_process(
        "build", tiny_recipe, "--lake", tmp_path / "other", "--workers", 2, "--json",
        PYTHONHASHSEED="7", TZ="Asia/Tokyo", LC_ALL="C",
    )  # fmt: skip
    assert other.code == 0, other.err
    assert other.json["hash"] == built["hash"]


def test_inspect_shows_the_funnel(built: dict[str, Any], gristmill: Command, lake: Path) -> None:
    """Per domain, and adding up to what build said; the plain form has the same figures."""
    about = gristmill("inspect", "tiny", "--lake", lake, "--json").json
    assert about["hash"] == built["hash"]
    assert about["documents"] == built["documents"]
    assert about["funnel"]["conversation"]["quarantined"] == 1
    assert about["summary"]["domains"]["books"]["documents"] == 24
    plain = gristmill("inspect", "tiny@1", "--lake", lake).out
    assert "bad_json" in plain
    assert built["hash"] in plain


def test_dump_gives_every_kept_document(
    built: dict[str, Any], gristmill: Command, tiny_recipe: Path, lake: Path
) -> None:
    """A JSON line each, with the text as it was; as one array with --json; or what became of each."""
    rows = [json.loads(line) for line in gristmill("dump", "tiny", "--lake", lake).out.splitlines()]
    assert len(rows) == built["documents"]["kept"]
    assert all(list(row) == ["id", "text", "domain", "uri"] for row in rows)
    texts = {row["uri"]: row["text"] for row in rows}
    file = tiny_recipe.parent / "prose/0-000.txt"
    assert texts["prose/0-000.txt"].strip() == file.read_text().strip()
    assert gristmill("dump", "tiny", "--lake", lake, "--json").json == rows
    fates = gristmill("dump", "tiny@1", "--fates", "--lake", lake, "--json").json
    assert len(fates) == built["documents"]["read"]
    assert list(fates[0]) == FATES.names
    [bad] = [fate for fate in fates if fate["fate"] == "quarantined"]
    assert bad["uri"] == "talk.jsonl:25"


def test_dump_into_a_closed_pipe_is_quiet(built: dict[str, Any], lake: Path) -> None:
    """`gristmill dump tiny | head -1`."""
    command = (
        f"set -o pipefail; '{sys.executable}' -m flows.cli dump tiny --lake '{lake}' | head -c 10"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_hash_of_a_snapshot(built: dict[str, Any], gristmill: Command, lake: Path) -> None:
    """By any reference; nothing but the hash on stdout."""
    for ref in ("tiny", "tiny@latest", "tiny@1"):
        assert gristmill("hash", ref, "--lake", lake).out == built["hash"] + "\n"
    assert gristmill("hash", "tiny", "--lake", lake, "--json").json == {
        "ref": "tiny",
        "hash": built["hash"],
    }
    missing = gristmill("hash", "tiny@2", "--lake", lake)
    assert missing.code == 2
    assert "tiny@1" in missing.err


def test_report_is_written_where_asked(
    built: dict[str, Any], gristmill: Command, lake: Path, tmp_path: Path
) -> None:
    """One HTML page, self-contained."""
    page = tmp_path / "report.html"
    assert gristmill("inspect", "tiny", "--lake", lake, "--report", page).code == 0
    assert "tiny@1" in page.read_text()
    refused = gristmill(
        "inspect", "tiny", "--lake", lake, "--report", tmp_path / "no/such/folder.html"
    )
    assert refused.code == 2
    assert "no/such" in refused.err


def test_verify_finds_a_flipped_bit(built: dict[str, Any], gristmill: Command, lake: Path) -> None:
    """A sound lake is exit code 0, a damaged shard 1 with its name."""
    assert gristmill("verify", "--lake", lake, "--json").json["sound"]
    shard = next((lake / "corpora/tiny/data").glob("*/documents-00000.arrow"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    answer = gristmill("verify", "tiny", "--lake", lake, "--json")
    assert answer.code == 1
    assert not answer.json["sound"]
    assert "documents-00000.arrow" in answer.err
    dumped = gristmill("dump", "tiny", "--lake", lake)
    assert (dumped.code, dumped.out) == (1, "")
    assert "documents-00000.arrow" in dumped.err


def test_verify_of_nothing_is_refused(gristmill: Command, tmp_path: Path) -> None:
    """A misspelt --lake must not pass for a sound one."""
    answer = gristmill("verify", "--lake", tmp_path / "misspelt", "--json")
    assert (answer.code, answer.json["kind"]) == (2, "NotFoundError")
    assert "misspelt: expected a lake" in answer.err


def test_gc_removes_only_what_nothing_needs(
    built: dict[str, Any], gristmill: Command, lake: Path
) -> None:
    """A stray file of an abandoned build goes, after a dry run that says so; the snapshot stays whole."""
    stray = lake / "corpora/tiny/data/0123456789abcdef/documents-00000.arrow"
    stray.parent.mkdir()
    stray.write_bytes(b"stray")
    os.utime(stray, (1, 1))
    dry = gristmill("gc", "--lake", lake, "--dry-run", "--json").json
    assert [entry["path"] for entry in dry["removed"]] == [str(stray.relative_to(lake))]
    assert stray.exists()
    assert gristmill("gc", "--lake", lake, "--json").json["removed"] == dry["removed"]
    assert not stray.exists()
    assert gristmill("verify", "--lake", lake).code == 0


def test_gate_is_exit_code_3(gristmill: Command, tiny_recipe: Path, lake: Path) -> None:
    """The snapshot is published as quarantined, its document printed, and nothing trains on it."""
    arguments = (tiny_recipe, "--lake", lake, "--workers", 1, "--set", "gates.min_documents=100")
    refused = gristmill("build", *arguments, "--json")
    assert refused.code == 3
    assert refused.json["status"] == "quarantined"
    assert "gate 'documents'" in refused.err
    assert gristmill("build", *arguments).code == 3
    assert gristmill("run", *arguments).code == 3
    assert gristmill("train", tiny_recipe, "--lake", lake, "--snapshot", "tiny@1").code == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sources.0.path=nothing/*.txt", "nothing/*.txt"),
        ("sources.1.path=/dev/zero", "/dev/zero"),
    ],
)
def test_source_that_cannot_be_used(
    override: str, message: str, gristmill: Command, tiny_recipe: Path, lake: Path
) -> None:
    """A pattern that matches nothing ends the build in words, before any work."""
    answer = gristmill("build", tiny_recipe, "--lake", lake, "--workers", 1, "--set", override)
    assert answer.code in (0, 2)
    assert message in answer.err + json.dumps(
        list(gristmill("dump", "tiny", "--fates", "--lake", lake).out.splitlines())
    )
    assert "Traceback" not in answer.err


def test_lake_that_cannot_be_written(gristmill: Command, tiny_recipe: Path) -> None:
    """One message, exit code 1."""
    answer = gristmill("build", tiny_recipe, "--lake", "/proc/lake", "--workers", 1)
    assert answer.code == 1
    assert "/proc/lake" in answer.err
    assert "Traceback" not in answer.err


def test_second_builder_is_told_who_builds(
    gristmill: Command, tiny_recipe: Path, lake: Path
) -> None:
    """Two builds of one corpus at once: the second one names the first."""
    with Lake.open(lake).lock("build-tiny", doing="building 'tiny'"):
        answer = gristmill("build", tiny_recipe, "--lake", lake, "--workers", 1)
    assert answer.code == 1
    assert f"already building 'tiny' (pid {os.getpid()}" in answer.err
