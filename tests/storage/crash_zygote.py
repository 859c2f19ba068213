"""Build a snapshot, die at the n-th file operation, lose what was not synced, build again: for every n.

    python crash_zygote.py LAKES SCRATCH kill|lose_data|lose_names|lose_names_late

`test_crash.py` runs it and judges what it prints. LAKES is a folder or bucket for one lake a line, SCRATCH a folder. Each build runs in a fork of this process, which itself never starts a thread. It kills itself with SIGKILL in the hook,
just before the n-th operation. What a power cut could then do is done to the lake:

    kill             nothing: the system stays up, all writes arrive
    lose_data        a file whose content was not synced is empty
    lose_names       a name that appeared after the last sync of its folder is gone, and so is unsynced content
    lose_names_late  the same, but only once the last build is done: it must not trust what the ones before left

One line of JSON is printed for each n; the last one is the build that nobody killed.
"""

import hashlib
import json
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

import storage.lake
from storage.catalog import gc, resolve, verify
from storage.errors import NotFoundError
from storage.lake import Lake
from storage.schema import FATES, tokens_schema
from storage.shard import describe_shard, write_shard
from storage.snapshot import Manifest, commit_snapshot

FOLDER = "corpora/poems/data/00000000000000aa"
ROWS = 300
TABLES = {
    "fates-00000": pa.Table.from_pylist(
        [
            {"id": f"{n:032x}", "uri": "x", "source": "x", "domain": "poetry", "fate": "kept"}
            for n in range(ROWS)
        ],
        FATES,
    ),
    "tokens-train-00000": pa.Table.from_pylist(
        [
            {"id": f"{n:032x}", "domain": "poetry", "tokens": [n] * 9, "num_bytes": 9}
            for n in range(ROWS)
        ],
        tokens_schema(4096),
    ),
}
"""Made here, once: a fork that makes a table would load pandas each time."""


def build(lake: Lake) -> str:
    """What a build does with files: shards, each once; a tokenizer; a record of work; the commit. Gives the hash."""
    shards = []
    for name, table in TABLES.items():
        path = f"{FOLDER}/{name}.arrow"
        if lake.exists(path):  # a name stands for the whole file: it is not looked at again
            shards.append(describe_shard(lake, path, version=1))
        else:
            shards.append(write_shard(lake, path, table, version=1))
    model = b"model" * 1000
    if not lake.exists(f"{FOLDER}/tokenizer.model"):
        lake.write_bytes(f"{FOLDER}/tokenizer.model", model)
    lake.write_bytes("corpora/poems/work/00000000000000aa/record.json", b"{}")
    fates = {
        "read": ROWS,
        "kept": ROWS,
        "dropped": 0,
        "duplicate": 0,
        "quarantined": 0,
        "forgotten": 0,
    }
    manifest = commit_snapshot(
        lake,
        Manifest(
            name="poems",
            version=1,
            build_id="00000000000000aa",
            status="promoted",
            shards=tuple(shards),
            funnel={"poetry": fates},
            tokenizer={
                "path": f"{FOLDER}/tokenizer.model",
                "checksum": hashlib.sha256(model).hexdigest(),
            },
        ),
    )
    lake.delete_prefix("corpora/poems/work/00000000000000aa")
    return manifest.hash()


class Recorder:
    """The hook: kills before operation `last`, and notes before each one what the ones before have made durable."""

    def __init__(self, last: int, notes: int) -> None:
        self.last, self.notes, self.count = last, notes, 0
        self.pending: dict[str, object] = {}

    def note(self) -> None:
        """Note the operation before this one: as we are here again, it has been carried out."""
        if self.pending:
            os.write(self.notes, json.dumps(self.pending).encode() + b"\n")
            self.pending = {}

    def __call__(self, operation: str, path: str) -> None:
        self.note()
        self.count += 1
        if self.count == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        if operation == "fsync" and Path(path).is_dir():
            self.pending = {"folder": path, "names": [entry.name for entry in Path(path).iterdir()]}
        elif operation == "fsync":
            self.pending = {"inode": Path(path).stat().st_ino}


def in_child(
    action: Callable[[Callable[[str], object]], object], last: int, notes: int
) -> tuple[bool, list[str]]:
    """(killed, what `action` told) of a fork that dies before its operation number `last`; 0 lets it live."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            recorder = storage.lake.on_file_operation = Recorder(last, notes)
            action(lambda text: os.write(writer, f"{text}\n".encode()))
            recorder.note()
        except BaseException as error:  # a fork must not return into the parent's code
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        told = file.read().splitlines()
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status), told


def cut_power(root: Path, notes: Path, *, lose_names: bool) -> None:
    """Take away from the folder what no sync has made durable."""
    inodes: set[int] = set()
    names: dict[str, set[str]] = defaultdict(set)
    for line in notes.read_text().splitlines():
        note = json.loads(line)
        if "inode" in note:
            inodes.add(note["inode"])
        else:
            names[note["folder"]] = set(note["names"])
    for folder, _, files in os.walk(root, topdown=False):
        for file in (Path(folder, name) for name in files):
            if lose_names and file.name not in names[folder]:
                file.unlink()
            elif file.stat().st_ino not in inodes:
                file.write_bytes(b"")
        if lose_names and Path(folder).name not in names[str(Path(folder).parent)]:
            lost_everything_in(Path(folder))


def lost_everything_in(folder: Path) -> None:
    """A folder whose own name was not synced is gone with all that is in it."""
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in files:
            Path(parent, name).unlink()
        for name in folders:
            Path(parent, name).rmdir()
    folder.rmdir()


def look(lake: Lake) -> str:
    """What a reader sees: no snapshot, or a sound one; anything else is a finding."""
    try:
        snapshot = resolve(lake, "poems")
    except NotFoundError:
        return "none"
    problems = verify(lake)
    return "; ".join(problems) if problems else f"{snapshot.ref} {snapshot.hash}"


def clean(lake: Lake) -> str:
    """What is left over once all has been collected, beside the snapshot's files and the locks."""
    gc(lake, min_age_s=-60)
    return " ".join(
        entry.path
        for entry in lake.list(temporary=True)
        if not entry.path.startswith((f"{FOLDER}/", "corpora/poems/snapshots/0", "locks/"))
    )


def main() -> None:
    """See the module's text."""
    location, scratch, variant = sys.argv[1:]
    for last in range(1, 1000):
        lake = Lake.open(f"{location}/{last}", cache=Path(scratch, "cache", str(last)))
        notes_file = Path(scratch, f"{last}.notes")
        notes = os.open(notes_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def cut(lake: Lake = lake, notes_file: Path = notes_file, *, done: bool = False) -> None:
            if (
                lake.root is not None
                and variant != "kill"
                and (done or variant != "lose_names_late")
            ):
                cut_power(lake.root, notes_file, lose_names=variant != "lose_data")

        def resume(tell: Callable[[str], object], lake: Lake = lake) -> None:
            tell(look(lake))
            build(lake)

        def finish(tell: Callable[[str], object], lake: Lake = lake) -> None:
            tell(build(lake))

        def check(tell: Callable[[str], object], lake: Lake = lake) -> None:
            tell(look(lake))
            tell(clean(lake))
            tell(look(lake))

        killed, _ = in_child(lambda _, lake=lake: build(lake), last, notes)
        cut()
        # Killed again at the same number while it resumes.
        killed_again, after = in_child(resume, last, notes)
        cut()
        _, told = in_child(finish, 0, notes)
        cut(done=True)
        _, found = in_child(check, 0, notes)
        os.close(notes)
        line = {
            "n": last,
            "killed": [killed, killed_again],
            "after": after,
            "hash": told,
            "found": found,
        }
        print(json.dumps(line), flush=True)
        if not killed:
            return


if __name__ == "__main__":
    main()
