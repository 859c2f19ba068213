"""A lake keeps what is written, all of it or nothing, on a disk and in a bucket alike."""

import errno
import hashlib
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from storage.errors import BusyError, ConfigError, ConflictError, LakeError, NotFoundError
from storage.lake import Lake

SetHook = Callable[[Callable[[str, str], None]], None]


def paths(lake: Lake, prefix: str = "") -> list[str]:
    return [entry.path for entry in lake.list(prefix, temporary=True)]


def test_a_file_is_read_as_it_was_written_last(lake: Lake) -> None:
    """Reading, hashing, a local path and the listing agree on the content."""
    lake.write_bytes("runs/a/run.json", b"old")
    assert lake.local_path("runs/a/run.json").read_bytes() == b"old"
    lake.write_bytes("runs/a/run.json", b"newer")
    assert lake.read_bytes("runs/a/run.json") == b"newer"
    assert lake.digest("runs/a/run.json") == (hashlib.sha256(b"newer").hexdigest(), 5)
    assert lake.local_path("runs/a/run.json").read_bytes() == b"newer"
    assert [(entry.path, entry.num_bytes) for entry in lake.list()] == [("runs/a/run.json", 5)]
    assert (
        lake.exists("runs/a/run.json") and not lake.exists("runs/a") and not lake.exists("runs/b")
    )


@pytest.mark.parametrize("method", ["read_bytes", "digest", "local_path"])
def test_a_missing_file_is_named(lake: Lake, method: str) -> None:
    """NotFoundError says which file of which lake."""
    with pytest.raises(NotFoundError, match=r"corpora/x/1\.json: expected a file, found none"):
        getattr(lake, method)("corpora/x/1.json")


def test_a_writer_gives_the_name_at_the_end_or_not_at_all(lake: Lake) -> None:
    """A block that fails leaves the older file, and nothing else; large files go up in parts."""
    lake.write_bytes("a/b", b"old")

    def write_half() -> None:
        with lake.writer("a/b") as file:
            file.write_bytes(b"half")
            assert lake.read_bytes("a/b") == b"old"
            raise ValueError("of the caller")

    with pytest.raises(ValueError, match="of the caller"):
        write_half()
    assert lake.read_bytes("a/b") == b"old"
    data = os.urandom(11 << 20)
    with lake.writer("a/c") as file:
        file.write_bytes(data)
    assert lake.read_bytes("a/c") == data
    assert paths(lake) == ["a/b", "a/c"]


def test_create_writes_only_what_is_not_there(lake: Lake) -> None:
    """The second put changes nothing and leaves nothing."""
    assert lake.create_bytes("a/b/1.json", b"first")
    assert not lake.create_bytes("a/b/1.json", b"second")
    assert lake.read_bytes("a/b/1.json") == b"first"
    assert paths(lake) == ["a/b/1.json"]


def test_folders_are_folders_not_beginnings_of_names(lake: Lake) -> None:
    """`work/a` has nothing to do with `work/ab`, with or without a slash at its end."""
    for path in ("work/a/1", "work/a/deep/2", "work/ab/3", "other/4"):
        lake.write_bytes(path, b"")
    assert paths(lake, "work/a") == paths(lake, "work/a/") == ["work/a/1", "work/a/deep/2"]
    assert lake.list_folders("work") == ["a", "ab"] and lake.list_folders("") == ["other", "work"]
    assert paths(lake, "none") == paths(lake, "work/a/1") == lake.list_folders("none") == []
    lake.delete_prefix("work/a/")
    lake.delete_prefix("none")
    lake.delete("other/4")
    lake.delete("other/5")
    assert paths(lake) == ["work/ab/3"]


@pytest.mark.parametrize(
    "path", ["../x", "a/../../x", "/etc/passwd", "a//b", "", "a/", ".", "a\\b", "a\0b"]
)
def test_a_path_out_of_the_lake_is_refused(local_lake: Lake, path: str) -> None:
    """Also one that a forged manifest brings."""
    for method in (
        local_lake.read_bytes,
        local_lake.delete,
        local_lake.local_path,
        local_lake.writer,
    ):
        with pytest.raises(LakeError, match="expected a path inside the lake"):
            method(path)
    with pytest.raises(LakeError, match="expected a path inside the lake"):
        local_lake.write_bytes(path, b"")


@pytest.mark.parametrize(
    "location", ["gs://bucket/x", "s3://", "s3:///x", "http://host/x", "s3://key:secret@host/x"]
)
def test_what_is_no_lake_is_refused(location: str) -> None:
    """Other schemes, and credentials in the location, which are not repeated."""
    with pytest.raises(
        ConfigError, match="expected a local folder or s3://bucket/prefix"
    ) as caught:
        Lake.open(location)
    assert "secret" not in str(caught.value)


def test_naming_a_lake_loads_little() -> None:
    """The command line does it before it knows whether it needs Arrow or a bucket."""
    code = "import sys, storage.lake; print({'pyarrow', 'numpy', 'obstore'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_file_is_no_lake(tmp_path: Path) -> None:
    """The mistake is named before anything is written."""
    (tmp_path / "lake").write_bytes(b"")
    with pytest.raises(ConfigError, match="expected a folder or s3://bucket/prefix, got a file"):
        Lake.open(tmp_path / "lake")
    with pytest.raises(ConfigError, match="got a file"):
        Lake.open(tmp_path / "lake" / "below")


@pytest.mark.parametrize("location", ["", " "])
def test_an_empty_name_is_no_lake(location: str) -> None:
    """A script's variable that was never set must not fill the folder that it runs in."""
    with pytest.raises(ConfigError, match=r"--lake: .*got an empty text"):
        Lake.open(location)


def test_a_lake_is_the_same_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative, as text or as a Path, with a slash at its end."""
    monkeypatch.chdir(tmp_path)
    assert Lake.open("lake") == Lake.open(tmp_path / "lake") == Lake.open(f"{tmp_path}/lake/")
    assert Lake.open(Path("s3://bucket/x")) == Lake.open("s3://bucket/x/")
    assert Lake.open("s3://bucket/x").url == "s3://bucket/x"


def test_opening_and_reading_write_nothing(tmp_path: Path) -> None:
    """Not even the folder of a lake that does not exist."""
    lake = Lake.open(tmp_path / "lake")
    assert lake.list() == lake.list_folders("corpora") == [] and not lake.exists("x")
    assert list(tmp_path.iterdir()) == []


def test_a_lake_crosses_process_boundaries(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child of a forkserver writes where the parent reads; what is pickled holds no credentials."""
    lake.write_bytes("parent", b"from the parent")
    assert pickle.loads(pickle.dumps(lake)) == lake
    assert b"AWS" not in pickle.dumps(lake) and b"127.0.0.1" not in pickle.dumps(lake)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        # A function that a child can import; this module has no name there.
        assert pool.submit(Lake.read_bytes, lake, "parent").result() == b"from the parent"
        pool.submit(Lake.write_bytes, lake, "child", b"from the child").result()
    assert lake.read_bytes("child") == b"from the child"


# Commits


def manifest(commit_id: str) -> bytes:
    commit = {"id": commit_id, "pid": 4711, "host": "mill", "created_at": "2026-01-02T03:04:05Z"}
    return json.dumps({"commit": commit}).encode()


def test_a_commit_names_who_came_first(lake: Lake) -> None:
    """The same id is our own file found again; another one is a conflict."""
    lake.commit_bytes("c/000001.json", manifest("ours"), "ours")
    lake.commit_bytes("c/000001.json", manifest("ours"), "ours")
    with pytest.raises(
        ConflictError, match=r"pid 4711 on mill did at 2026-01-02 .*; run the same command"
    ):
        lake.commit_bytes("c/000001.json", manifest("theirs"), "theirs")
    assert lake.read_bytes("c/000001.json") == manifest("ours")


@pytest.mark.parametrize("found", [b"", b"\xff", b"[]", b'{"commit": 1}', b'{"commit": {}}'])
def test_a_commit_takes_strange_files_for_somebody_elses(local_lake: Lake, found: bytes) -> None:
    """Whatever it is, it is not overwritten."""
    local_lake.write_bytes("c/000001.json", found)
    with pytest.raises(ConflictError, match="expected to be the first"):
        local_lake.commit_bytes("c/000001.json", manifest("ours"), "ours")
    assert local_lake.read_bytes("c/000001.json") == found


def test_a_link_whose_answer_was_lost_is_a_commit(local_lake: Lake, on_operation: SetHook) -> None:
    """As NFS does it: the link is made, the answer is lost, the client asks again and hears "exists"."""

    def link_before(operation: str, path: str) -> None:
        if operation == "link":
            (temporary,) = Path(path).parent.glob(".*.tmp")
            Path(path).hardlink_to(temporary)

    on_operation(link_before)
    local_lake.commit_bytes("c/000001.json", manifest("ours"), "ours")
    assert local_lake.read_bytes("c/000001.json") == manifest("ours")


@pytest.mark.parametrize("failures", [1, 2])
def test_a_commit_is_durable_or_an_error(
    local_lake: Lake, on_operation: SetHook, failures: int
) -> None:
    """The sync of its name failed: it is done again, and only then is the commit acknowledged."""
    operations: list[str] = []

    def fail_after_link(operation: str, path: str) -> None:
        operations.append(operation)
        if "link" in operations and operation == "fsync" and operations.count("failed") < failures:
            operations.append("failed")
            raise OSError(errno.EIO, "Input/output error")

    local_lake.write_bytes("c/other", b"")  # its folders are there, and synced
    on_operation(fail_after_link)
    if failures == 1:
        local_lake.commit_bytes("c/000001.json", manifest("ours"), "ours")
        assert "fsync" in operations[operations.index("failed") + 1 :]
    else:
        with pytest.raises(LakeError, match="input/output error"):
            local_lake.commit_bytes("c/000001.json", manifest("ours"), "ours")
    assert local_lake.read_bytes("c/000001.json") == manifest("ours")


@pytest.mark.parametrize("put_arrives", [True, False])
def test_a_put_whose_answer_was_lost_is_a_commit(
    s3_bucket: str,
    s3_server: str,
    tmp_path: Path,
    losing_proxy: Callable[[str, bool], str],
    monkeypatch: pytest.MonkeyPatch,
    put_arrives: bool,
) -> None:
    """The connection breaks after the server has carried out the put, or before: one commit, no conflict."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", losing_proxy(s3_server, put_arrives))
    lake = Lake.open(s3_bucket, cache=tmp_path)
    lake.commit_bytes("c/000001.json", manifest("ours"), "ours")
    assert lake.read_bytes("c/000001.json") == manifest("ours")
    with pytest.raises(ConflictError):
        lake.commit_bytes("c/000001.json", manifest("theirs"), "theirs")


# Trouble


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EDQUOT, "quota is used up"),
        (errno.EROFS, "mounted read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EPERM, "a lake needs a disk with hard links"),
        (errno.EIO, "input/output error; check it"),
        (errno.ESTALE, "Stale file handle"),
    ],
)
@pytest.mark.parametrize("operation", ["fsync", "rename", "link"])
def test_whatever_the_disk_refuses_is_one_plain_message(
    local_lake: Lake, on_operation: SetHook, operation: str, number: int, words: str
) -> None:
    """At any operation: the file is named, the older one is whole, and no temporary file stays."""
    local_lake.write_bytes("a/b", b"old")

    def refuse(what: str, path: str) -> None:
        if what == operation:
            raise OSError(number, os.strerror(number), path)

    on_operation(refuse)
    write = local_lake.create_bytes if operation == "link" else local_lake.write_bytes
    with pytest.raises(LakeError, match=rf"a/b: cannot write it: .*{words}"):
        write("a/b", b"new")
    assert paths(local_lake) == ["a/b"] and local_lake.read_bytes("a/b") == b"old"


def test_a_full_disk_is_one_plain_message(small_disk: Path) -> None:
    """Whether Python or Arrow meets it; what was there stays, and there is room again afterwards."""
    lake = Lake.open(small_disk / "lake")
    lake.write_bytes("a", b"old")
    batch = pa.record_batch({"x": pa.array(range(1 << 17))})
    for _ in range(2):
        with pytest.raises(
            LakeError, match=r"lake/a: cannot write it: the disk is full; free some space"
        ):
            lake.write_bytes("a", bytes(1 << 20))
        with pytest.raises(LakeError, match="the disk is full"):
            lake.create_bytes("b", bytes(1 << 20))
        with (
            pytest.raises(LakeError, match="the disk is full"),
            lake.writer("a") as temporary,
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_file(sink, batch.schema) as file,
        ):
            file.write_batch(batch)
        assert paths(lake) == ["a"] and lake.read_bytes("a") == b"old"


def test_a_read_only_disk_can_be_read(
    small_disk: Path, remount: Callable[[Path, str], None]
) -> None:
    """Reading works as ever; writing, locking and removing say what is wrong."""
    lake = Lake.open(small_disk / "lake")
    lake.write_bytes("a/b", b"text")
    remount(small_disk, "ro")
    assert lake.read_bytes("a/b") == lake.local_path("a/b").read_bytes() == b"text"
    assert paths(lake) == ["a/b"] and lake.list_folders("") == ["a"]
    for write in (lake.write_bytes, lake.create_bytes):
        with pytest.raises(
            LakeError, match="mounted read-only; mount it for writing or choose another --lake"
        ):
            write("a/c", b"")
    with pytest.raises(LakeError, match="cannot remove it: the disk is mounted read-only"):
        lake.delete("a/b")
    with (
        pytest.raises(LakeError, match="cannot lock it: the disk is mounted read-only"),
        lake.lock("x", "building"),
    ):
        pass


WITHOUT_RIGHTS = """
import os, sys
from storage.errors import LakeError
from storage.lake import Lake

lake = Lake.open(sys.argv[1])
if os.geteuid() == 0:  # root may touch everything
    os.setuid(65534)
for action in (
    lambda: lake.read_bytes("a/b"),
    lambda: lake.write_bytes("a/c", b""),
    lambda: lake.write_bytes("new/c", b""),
    lambda: lake.create_bytes("a/b", b""),
):
    try:
        print("no error", action())
    except LakeError as error:
        print(error)
"""


def test_missing_rights_are_one_plain_message() -> None:
    """A folder and a file that this user may not touch."""
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is closed to others on its way
        lake = Lake.open(Path(folder, "lake"))
        lake.write_bytes("a/b", b"")
        assert lake.root is not None
        (lake.root / "a/b").chmod(0)
        for path, mode in {folder: 0o755, lake.root / "a": 0o555, lake.root: 0o555}.items():
            Path(path).chmod(mode)
        command = [sys.executable, "-c", WITHOUT_RIGHTS, str(lake)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        for path in (lake.root, lake.root / "a"):
            path.chmod(0o755)
    lines = done.stdout.splitlines()
    named = [line.split(": ")[0].removeprefix(f"{lake}/") for line in lines]
    assert named == ["a/b", "a/c", "new/c", "a/b"]
    words = "permission denied; give this user the rights or choose another --lake"
    assert all(words in line for line in lines)


def test_a_bucket_that_is_not_there_is_one_plain_message(s3_bucket: str, tmp_path: Path) -> None:
    """Listing and writing say that the bucket does not exist."""
    lake = Lake.open(f"{s3_bucket}-not", cache=tmp_path)
    for action in (
        lambda: lake.list("corpora"),
        lambda: lake.list_folders("x"),
        lambda: lake.write_bytes("x", b""),
    ):
        with pytest.raises(
            LakeError, match="the bucket does not exist; create it or choose another --lake"
        ):
            action()


def test_a_server_that_is_not_there_is_one_plain_message(
    s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing listens at port 9: reading and committing end soon, and say what to check."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    lake = Lake.open(s3_bucket, cache=tmp_path)
    with pytest.raises(LakeError, match="check the network, AWS_ENDPOINT_URL"):
        lake.read_bytes("x")
    with pytest.raises(LakeError, match="check the network, AWS_ENDPOINT_URL"):
        lake.commit_bytes("x", manifest("ours"), "ours")


# Locks


def test_a_lock_is_held_by_one_and_says_by_whom(lake: Lake) -> None:
    """A second one is told what, who, where and since when; afterwards the lock is free; others are independent."""
    assert lake.lock_holder("build-x") == ""
    with lake.lock("build-x", doing="building 'x'"):
        assert lake.lock_holder("build-x").startswith("building 'x' (pid ")
        with (
            pytest.raises(
                BusyError, match=rf"already building 'x' \(pid {os.getpid()} on .*, since \d{{4}}-"
            ),
            lake.lock("build-x", doing="collecting in 'x'"),
        ):
            pass
        with lake.lock("build-y", doing="building 'y'"):
            pass
    assert lake.lock_holder("build-x") == ""
    with lake.lock("build-x", doing="building 'x'"):
        pass


def test_a_lock_ends_with_its_holder(lake: Lake) -> None:
    """A process killed with -9 leaves no lock behind, though its file is still there."""
    code = (
        "import pickle, sys, time\n"
        "lake = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "with lake.lock('build-x', doing=\"building 'x'\"):\n"
        "    print('locked', flush=True)\n"
        "    time.sleep(100)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, pickle.dumps(lake).hex()], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"locked\n"
    with (
        pytest.raises(BusyError, match=f"pid {holder.pid} on"),
        lake.lock("build-x", doing="building 'x'"),
    ):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with lake.lock("build-x", doing="building 'x'"):
        pass


# Any order of operations


class LakeIsADictionary(RuleBasedStateMachine):
    """A local lake behaves like a dictionary from paths to bytes."""

    names = st.sampled_from(["a/1", "a/2", "a/b/1", "c/1", "c/d/e/1"])

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.lake = Lake.open(Path(self.folder.name, uuid.uuid4().hex))
        self.expected: dict[str, bytes] = {}

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(path=names, data=st.binary(max_size=4))
    def write(self, path: str, data: bytes) -> None:
        self.lake.write_bytes(path, data)
        self.expected[path] = data

    @rule(path=names, data=st.binary(max_size=4))
    def create(self, path: str, data: bytes) -> None:
        assert self.lake.create_bytes(path, data) == (path not in self.expected)
        self.expected.setdefault(path, data)

    @rule(path=names)
    def delete(self, path: str) -> None:
        self.lake.delete(path)
        self.expected.pop(path, None)

    @rule(folder=st.sampled_from(["a", "a/b", "c", "none"]))
    def delete_prefix(self, folder: str) -> None:
        self.lake.delete_prefix(folder)
        self.expected = {p: d for p, d in self.expected.items() if not p.startswith(f"{folder}/")}

    @invariant()
    def holds_what_was_written(self) -> None:
        assert paths(self.lake) == sorted(self.expected)
        assert {path: self.lake.read_bytes(path) for path in self.expected} == self.expected


TestLakeIsADictionary = LakeIsADictionary.TestCase
TestLakeIsADictionary.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
