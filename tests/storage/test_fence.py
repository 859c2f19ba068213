"""No order of a commit and a collection, on machines that share nothing but the files, loses a file of a snapshot.

Every order is tried: machines are threads that stop before each operation on a store in memory, and one of them at a
time goes a step. Each state that can be reached is looked at once, also as one where all machines have just died.
"""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storage import fence
from storage.catalog import collect, gc, next_version, read_manifest, unreachable, verify, versions
from storage.disk import Entry
from storage.errors import GristmillError
from storage.lake import Lake
from storage.purge import _drop
from storage.shard import Shard, write_shard
from storage.snapshot import Manifest, commit_snapshot, manifest_path

from .conftest import document_table

OLD, NEW = 0.0, 4e9
Action = Callable[[Lake], object]


class Died(BaseException):
    """The machine goes no further."""


class Machine:
    """A thread that does one thing to the lake, a step at a time."""

    def __init__(self, number: int, files: dict[str, tuple[bytes, float]], action: Action) -> None:
        self.number, self.files = number, files
        self.seen: list[object] = []
        self.result: object = None
        self.is_done = self.must_die = False
        self.steps = 0
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(action,), daemon=True)
        self._thread.start()
        self._stopped.acquire()

    def _run(self, action: Action) -> None:
        RANDOM.machine, RANDOM.count = self.number, 0
        try:
            self.result = action(SharedLake.on(self))
        except (GristmillError, Died) as error:
            self.result = error
        self.is_done = True
        self._stopped.release()

    def turn(self) -> None:
        """Wait for the next step."""
        self._stopped.release()
        self._go.acquire()
        if self.must_die:
            raise Died

    def step(self) -> None:
        """Go on to the next operation."""
        self.steps += 1
        self._go.release()
        self._stopped.acquire()

    def end(self) -> None:
        """Die here."""
        if not self.is_done:
            self.must_die = True
            while not self.is_done:
                self.step()
        self._thread.join()


class Store:
    """The methods of a bucket, on a dictionary; a machine is asked before each, and what it is told is noted."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.files = machine, machine.files

    def _answer(self, what: object) -> Any:
        self.machine.seen.append(what)
        return what

    def read(self, path: str) -> bytes:
        self.machine.turn()
        if path not in self.files:
            self._answer(None)
            raise FileNotFoundError(path)
        return self._answer(self.files[path][0])

    def stream(self, path: str) -> Iterator[bytes]:
        yield self.read(path)

    def exists(self, path: str) -> bool:
        self.machine.turn()
        return self._answer(path in self.files)

    def list(self, folder: str, *, temporary: bool) -> list[Entry]:
        self.machine.turn()
        found = sorted(path for path in self.files if path.startswith(f"{folder}/"))
        self._answer(tuple(found))
        return [Entry(path, len(self.files[path][0]), self.files[path][1]) for path in found]

    def folders(self, folder: str) -> "list[str]":
        depth = folder.count("/") + 1
        return sorted({entry.path.split("/")[depth] for entry in self.list(folder, temporary=True)})

    def write(self, path: str, data: bytes) -> None:
        self.machine.turn()
        self.files[path] = (data, NEW)

    def create(self, path: str, data: bytes) -> bool:
        self.machine.turn()
        return self._answer(self.files.setdefault(path, (data, NEW)) == (data, NEW))

    def delete(self, paths: "list[str]") -> None:
        self.machine.turn()
        for path in paths:
            self.files.pop(path, None)

    def delete_folder(self, folder: str) -> None:
        self.delete([path for path in self.files if path.startswith(f"{folder}/")])

    def sync_names(self, paths: object) -> None:
        pass


class SharedLake(Lake):
    """A lake of one machine, with locks of its own, over files that all share."""

    @classmethod
    def on(cls, machine: Machine) -> "SharedLake":
        lake = cls(url="s3://shared", root=None, cache=CACHE / str(machine.number))
        object.__setattr__(lake, "store", Store(machine))
        return lake

    @property
    def _store(self) -> Any:
        return self.__dict__["store"]


CACHE = Path()
RANDOM = threading.local()


@pytest.fixture(autouse=True)
def repeatable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Names that machines draw are theirs, and the same each time."""
    monkeypatch.setattr(sys.modules[__name__], "CACHE", tmp_path)

    drawn = os.urandom

    def urandom(size: int) -> bytes:
        if not hasattr(RANDOM, "count"):
            return drawn(size)
        RANDOM.count += 1
        return bytes([RANDOM.machine, RANDOM.count]).rjust(size, b"\0")

    monkeypatch.setattr(os, "urandom", urandom)


BUILDS = {letter: letter * 16 for letter in "abcd"}
CONTENT = b"a shard"


def shard_of(path: str, version: int) -> Shard:
    checksum = hashlib.sha256(CONTENT).hexdigest()
    return Shard(
        kind="edges",
        path=path,
        rows=1,
        num_bytes=len(CONTENT),
        checksum=checksum,
        content_hash="",
        version=version,
    )


def manifest_of(folder: str, version: int) -> Manifest:
    """A snapshot of two shards of its own, after one that is not looked into."""
    paths = [f"corpora/c/data/{folder}/edges-0000{number}.arrow" for number in range(2)]
    where = {"created_at": "", "host": "", "pid": 0}
    return Manifest(
        name="c",
        version=version,
        build_id=folder.split("-")[0],
        status="promoted",
        shards=tuple(shard_of(path, version) for path in paths),
        commit=where,
    )


def commit(letter: str, version: int) -> Action:
    """Publish what a build left lying for long: its shards are there and are used as they are."""
    return lambda lake: commit_snapshot(lake, manifest_of(BUILDS[letter], version))


def build(letter: str) -> Action:
    """Do the whole build: use what lies where it goes, make what is missing, publish."""

    def action(lake: Lake) -> Manifest:
        for number in versions(lake, "c"):
            if (found := read_manifest(lake, "c", number)).build_id == BUILDS[letter]:
                return found
        folder = fence.build_folder(lake, "c", BUILDS[letter])
        manifest = manifest_of(folder, next_version(lake, "c"))
        for path in manifest.paths():
            if not lake.exists(path):
                lake.write_bytes(path, CONTENT)
        return commit_snapshot(lake, manifest)

    return action


def publish_and_drop(lake: Lake) -> None:
    """What a purge comes to: two versions are published, the first is dropped, and all that nothing names goes."""
    first, second = (commit(letter, number)(lake) for letter, number in (("c", 2), ("d", 3)))
    assert isinstance(first, Manifest) and isinstance(second, Manifest)
    _drop(lake, first, second)
    collect(lake, "c", unreachable(lake, "c", float("inf")))


Files = dict[str, tuple[bytes, float]]


def alone(files: Files, action: Action) -> object:
    """What a machine comes to that is not disturbed."""
    machine = Machine(9, files, action)
    while not machine.is_done:
        machine.step()
    return machine.result


def start(letters: str) -> Files:
    """A published snapshot of build a, and old files of the builds `letters`, which did not come to their end."""
    files: Files = {}
    for letter in f"a{letters}":
        for path in manifest_of(BUILDS[letter], 1).paths():
            files[path] = (CONTENT, OLD)
    files[f"corpora/c/work/{BUILDS['b']}/read/0.json"] = (b"{}", OLD)
    assert isinstance(alone(files, commit("a", 1)), Manifest)
    return files


def check_readers(files: Files) -> None:
    """What every reader of the state finds: all files of all snapshots."""
    numbers = alone(files, lambda lake: versions(lake, "c"))
    assert isinstance(numbers, list) and 1 in numbers
    for number in numbers:
        manifest = Manifest.from_json(files[manifest_path("c", number)][0])
        assert all(path in files for path in manifest.paths()), f"{manifest.ref} without its files"


def check_after_death(files: Files) -> None:
    """All have died here: the next gc and the next build come to their end, and to the same snapshot."""
    for actions in ((build("b"), gc), (gc, build("b")), (gc, gc, build("b"))):
        state = dict(files)
        results = [alone(state, action) for action in actions]
        assert not any(isinstance(result, BaseException) for result in results), results
        (built,) = (result for result in results if isinstance(result, Manifest))
        assert built.hash() == manifest_of(BUILDS["b"], built.version).hash()
        check_readers(state)


def explore(actions: list[Action], letters: str) -> tuple[int, set[str]]:
    """Try every order of the machines' steps; returns how many states there are, and what the machines came to."""
    todo: list[tuple[int, ...]] = [()]
    states, left, outcomes = set(), set(), set()
    begin = start(letters)
    while todo:
        order = todo.pop()
        files = dict(begin)
        machines = [Machine(number, files, action) for number, action in enumerate(actions)]
        for number in order:
            machines[number].step()
        state = (
            tuple(sorted((path, data) for path, (data, _) in files.items())),
            tuple((m.steps, tuple(m.seen), m.is_done) for m in machines),
        )
        if state not in states:
            states.add(state)
            todo += [(*order, m.number) for m in machines if not m.is_done]
            if state[0] not in left:
                left.add(state[0])
                check_readers(files)
                check_after_death(files)
            if all(machine.is_done for machine in machines):
                outcomes.add(" ".join(type(machine.result).__name__ for machine in machines))
        for machine in machines:
            machine.end()
    return len(states), outcomes


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("actions", "letters", "expected"),
    [
        pytest.param([commit("b", 2), gc], "b", {"Manifest list", "ConflictError list"}, id="gc"),
        pytest.param(
            [commit("b", 2), publish_and_drop],
            "bcd",
            {"Manifest ConflictError", "ConflictError NoneType"},
            id="purge",
            marks=slow,
        ),
        pytest.param(
            [commit("b", 2), gc, gc],
            "b",
            {"Manifest list list", "ConflictError list list"},
            id="two collections",
            marks=slow,
        ),
        pytest.param(
            [commit("b", 2), commit("c", 2), gc],
            "bc",
            {
                "Manifest ConflictError list",
                "ConflictError Manifest list",
                "ConflictError ConflictError list",
            },
            id="two commits",
            marks=slow,
        ),
    ],
)
def test_no_order_loses_a_file(actions: list[Action], letters: str, expected: set[str]) -> None:
    """Whoever comes first, and wherever all of them die."""
    num_states, outcomes = explore(actions, letters)
    print(f"{num_states} states")
    assert outcomes == expected


@pytest.mark.parametrize("step", ["check_not_condemned", "condemn", "announcements"])
def test_every_step_of_the_protocol_is_needed(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it there is an order that loses a file: the search above would have found it."""
    monkeypatch.setattr(fence, step, lambda *_: {})
    with pytest.raises(AssertionError, match="without its files"):
        explore([commit("b", 2), gc], "b")


def test_two_processes_and_a_bucket(s3_bucket: str, tmp_path: Path) -> None:
    """A process stops in its commit of an old build, before each of its operations; meanwhile another one collects."""
    script = Path(__file__).with_name("slow_commit.py")
    outcomes = []
    for stop in range(1, 5):
        lake = Lake.open(f"{s3_bucket}/{stop}", cache=tmp_path / "here")
        table = document_table(["To be"])
        paths = [f"corpora/c/data/{'b' * 16}/documents-0000{number}.arrow" for number in range(2)]
        for path in paths:
            write_shard(lake, path, table, version=1)
        command = [sys.executable, str(script), lake.url, str(tmp_path / "there"), str(stop)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() in ("stopped\n", "published\n")
        removed = [entry.path for entry in gc(lake, min_age_s=-60)]
        rest, _ = process.communicate("go on\n", timeout=60)
        assert process.returncode == 0
        outcomes.append(rest.splitlines()[-1] if rest else "published")
        is_there = [lake.exists(path) for path in paths]
        assert is_there == [outcomes[-1] == "published"] * 2, (stop, outcomes, removed)
        assert verify(lake) == []
    assert set(outcomes) == {"published", "ConflictError"}
