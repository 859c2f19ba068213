"""Work on real clusters of two workers, started here or joined: the results of one process, and nothing left behind."""

import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from flows.recipe import load_recipe
from pipeline import nodes, row_scratch
from pipeline.build import build
from pipeline.clusters import pack_task, read_outcome, run_task
from pipeline.dedup import near_duplicates
from pipeline.dedup_files import FileDedup, dedup_files
from pipeline.executor import TASKS_PER_SLOT, Executor
from pipeline.row_files import find_files
from pipeline.stage import Workspace, no_progress, run_tasks
from storage.errors import ConfigError, GristmillError, SourceGoneError
from storage.lake import Lake
from tests.flows.conftest import write_corpus
from tests.pipeline.test_dedup import CONFIG, new_of, sentence, table_of
from tests.pipeline.test_executor import processes_of_session, wait_until

ROOT = Path(__file__).parents[2]

PACKAGES = {"dask": "distributed", "ray": "ray"}

KINDS = [
    pytest.param(
        kind,
        marks=pytest.mark.skipif(
            not find_spec(package),
            reason=f"{package} is not installed: pip install -e '.[{kind}]'",
        ),
    )
    for kind, package in PACKAGES.items()
]


# --- what workers do -----------------------------------------------------------------------------


def square(number: int) -> int:
    return number * number


def lose_source(name: str) -> None:
    raise SourceGoneError(f"{name} is gone", name)


class Picky(Exception):
    """Cannot be unpickled: its arguments are not what __init__ takes."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(one + other)


def be_picky(number: int) -> None:
    raise Picky("not ", f"{number}")


def crash_once(workspace: Workspace, name: str, folder: str) -> dict[str, Any]:
    """As the kernel does when memory runs out; the second time there is enough."""
    (Path(folder) / f"{name}-{time.monotonic_ns()}").touch()
    if name == "deadly" and len(list(Path(folder).glob("deadly-*"))) == 1:
        wait_until(lambda: workspace.done("try", "first") is not None)
        os.kill(os.getpid(), signal.SIGKILL)
    return {"name": name}


class Item:
    """Counts how often one was pickled here."""

    pickled = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        Item.pickled += 1
        return int, (self.number,)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def serial_hash(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the snapshot that one process makes of the recipe."""
    return hash_of_build(recipe, tmp_path_factory.mktemp("serial"), Executor(kind="serial"))


def hash_of_build(recipe: Path, lake: Path, executor: Executor) -> str:
    config = load_recipe(recipe, []).build
    return build(config, Lake.open(lake), root=recipe.parent, executor=executor).hash


# --- clusters that we start ----------------------------------------------------------------------


@pytest.fixture(scope="module", params=KINDS)
def ours(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """An executor with a cluster of two workers."""
    with Executor(kind=request.param, workers=2).ready() as executor:
        yield executor


def test_clusters_give_what_one_process_gives(ours: Executor) -> None:
    """In whatever order they finish."""
    numbers = list(range(50))
    assert sorted(ours.map(square, numbers)) == [square(number) for number in numbers]


def test_the_same_snapshot_on_a_cluster_that_we_start(
    ours: Executor, recipe: Path, serial_hash: str, tmp_path: Path
) -> None:
    """Which is a short way to say: the same bytes in every file."""
    assert hash_of_build(recipe, tmp_path, ours) == serial_hash


def test_near_duplicates_are_the_same(
    ours: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clusters of documents, settled a few at a time, in whatever order they end."""
    rows = [{"text": sentence(1000 * (i % 50), 1000 * (i % 50) + 100 + i)} for i in range(150)]
    new = new_of([table_of(rows)])
    one = near_duplicates(new, None, CONFIG)
    assert len(one.removed) > 50
    monkeypatch.setattr(nodes, "SLICE_BYTES", 20000)
    assert one == near_duplicates(new, None, CONFIG, folder=tmp_path, executor=ours)


def test_files_lose_the_same_rows(
    ours: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`gristmill dedup` on a cluster: OUT and PAIRS are those of one process, byte for byte."""
    rows = [
        {"text": sentence(1000 * (i % 50), 1000 * (i % 50) + 100 + i), "id": i} for i in range(150)
    ]
    for number in range(3):
        lines = (json.dumps(row) + "\n" for row in rows[50 * number : 50 * number + 50])
        (tmp_path / f"{number}.jsonl").write_text("".join(lines))
    monkeypatch.setattr(row_scratch, "TABLE_BYTES", 20000)
    for module in ("row_scratch", "dedup_files"):
        monkeypatch.setattr(f"pipeline.{module}.PARALLEL_BYTES", 0)
    monkeypatch.setattr(nodes, "SLICE_BYTES", 20000)
    made = []
    for name, executor in (("serial", Executor(kind="serial")), ("cluster", ours)):
        folder = tmp_path / name
        folder.mkdir()
        work = FileDedup(
            files=find_files([str(tmp_path / "*.jsonl")], "jsonl"),
            out=folder / "out.jsonl",
            rejected=folder / "rejected.jsonl",
            pairs=folder / "pairs.csv",
        )
        assert dedup_files(work, executor).kept < 100
        made.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert made[0] == made[1]
    assert made[0].keys() == {"out.jsonl", "pairs.csv"}


def test_our_errors_arrive_as_they_are(ours: Executor) -> None:
    """Class, message and what else they hold; a note says where it was."""
    with pytest.raises(SourceGoneError, match="poems is gone") as caught:
        list(ours.map(lose_source, ["poems"] * 3))
    assert (str(caught.value), caught.value.source) == ("poems is gone", "poems")
    assert "lose_source" in caught.value.__notes__[0]


def test_errors_that_cannot_travel_are_told(ours: Executor) -> None:
    """By their own name or within another error, but told."""
    with pytest.raises((Picky, RuntimeError), match=r"not [123]"):
        list(ours.map(be_picky, [1, 2, 3]))


def test_few_items_are_in_flight(ours: Executor) -> None:
    """Thousands of shards are not pickled before the first is done."""
    Item.pickled = 0
    results = ours.map(abs, [Item(-number) for number in range(1000)])
    next(results)
    assert 1 <= Item.pickled <= TASKS_PER_SLOT * 2
    results.close()


def test_dead_worker_ends_the_work_and_the_next_call_goes_on(
    ours: Executor, tmp_path: Path
) -> None:
    """As with processes: one clear error, finished shards stay, and only the others are done again."""
    folder = tmp_path / "calls"
    folder.mkdir()
    workspace = Workspace(Lake.open(tmp_path / "lake"), "work", "data")
    tasks = [(name, str(folder)) for name in ("first", "deadly", *"abcdefgh")]
    with pytest.raises(GristmillError, match="finished shards are kept"):
        run_tasks(workspace, "try", tasks, crash_once, ours, no_progress)
    assert len(list(folder.glob("deadly-*"))) == 1  # not tried again and again
    records = run_tasks(workspace, "try", tasks, crash_once, ours, no_progress)
    assert [record["name"] for record in records] == [name for name, _ in tasks]
    assert len(list(folder.glob("first-*"))) == 1
    assert len(list(folder.glob("deadly-*"))) == 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_leaves_no_process_of_our_cluster(tmp_path: Path, kind: str) -> None:
    """Though it reaches all processes of a terminal at once."""
    with waiting(tmp_path, kind, "") as parent:
        os.killpg(parent.pid, signal.SIGINT)
        parent.wait(30)
        wait_until(lambda: not processes_of_session(parent.pid))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", KINDS)
def test_workers_do_not_outlive_who_started_them(tmp_path: Path, kind: str) -> None:
    """Killed with -9 in mid-work. (Two agents of Ray's, which do no work, need a minute to notice.)"""
    with waiting(tmp_path, kind, "") as parent:
        parent.send_signal(signal.SIGKILL)
        parent.wait(30)
        workers = {int(file.name) for file in tmp_path.iterdir()}
        wait_until(lambda: not workers & set(processes_of_session(parent.pid)))


@contextmanager
def waiting(folder: Path, kind: str, address: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose two workers are in the middle of their work."""
    script = (
        "from pipeline.executor import Executor\n"
        "from tests.pipeline.test_executor import tell_and_wait\n"
        f"executor = Executor(kind={kind!r}, workers=2, address={address!r})\n"
        f"list(executor.map(tell_and_wait, [{str(folder)!r}] * 3))\n"
    )
    with (folder.parent / "log").open("wb") as log:
        parent = subprocess.Popen(
            [sys.executable, "-c", script], cwd=ROOT, start_new_session=True, stdout=log, stderr=log
        )
    try:
        wait_until(lambda: len(list(folder.iterdir())) == 2)
        yield parent
    finally:
        parent.kill()
        parent.wait()


# --- clusters that run already -------------------------------------------------------------------


@pytest.fixture(scope="module", params=KINDS)
def given(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """Kind and address of a cluster of two workers, whose working directory is not ours."""
    folder = tmp_path_factory.mktemp("c")
    start = start_dask if request.param == "dask" else start_ray
    with start(folder) as address:
        yield request.param, address


@contextmanager
def start_dask(folder: Path) -> Iterator[str]:
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    local = ["--host", "127.0.0.1", "--no-dashboard"]
    programs = [
        ["scheduler", "--port", str(port), *local],
        ["worker", address, "--nworkers", "2", "--nthreads", "2", *local],
    ]
    running = []
    try:
        for program in programs:
            command = [sys.executable, "-m", f"distributed.cli.dask_{program[0]}", *program[1:]]
            with (folder / program[0]).open("wb") as log:
                running.append(
                    subprocess.Popen(
                        command, cwd=folder, stdout=log, stderr=log, start_new_session=True
                    )
                )
        yield address
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(30)


@contextmanager
def start_ray(folder: Path) -> Iterator[str]:
    port = free_port()
    program = [str(Path(sys.executable).parent / "ray")]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    options = ["--head", "--port", str(port), "--num-cpus", "2", "--include-dashboard", "false"]
    process = subprocess.Popen(
        [*program, "start", *options, "--temp-dir", f"/tmp/r{port}", "--block"],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: listens(port) or process.poll() is not None)
        assert process.poll() is None
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)
        wait_until(lambda: not processes_of_session(process.pid))


def test_the_same_snapshot_on_a_cluster_that_we_join(
    given: tuple[str, str], recipe: Path, serial_hash: str, tmp_path: Path
) -> None:
    """And the recipe does not know of it."""
    kind, address = given
    code, out, err = run_build(recipe, tmp_path, "--executor", kind, "--address", address, "--json")
    assert code == 0, err
    assert json.loads(out)["hash"] == serial_hash


@pytest.mark.skipif(
    sys.platform != "linux", reason="/proc/self/cwd is the same path for other folders"
)
def test_lake_that_the_machines_do_not_share_is_told_early(
    given: tuple[str, str], recipe: Path, tmp_path: Path
) -> None:
    """Before anything is read."""
    kind, address = given
    code, _, err = run_build(
        recipe, "/proc/self/cwd/lake", "--executor", kind, "--address", address, cwd=tmp_path
    )
    assert code == 2
    assert "cannot read what was just written to the lake" in err
    assert not (tmp_path / "lake/corpora").exists()
    assert not list((tmp_path / "lake/locks").glob("probe-*"))


@pytest.mark.slow
def test_ctrl_c_leaves_the_cluster_that_we_joined(given: tuple[str, str], tmp_path: Path) -> None:
    """It goes on to work for others."""
    kind, address = given
    folder = tmp_path / "told"
    folder.mkdir()
    with waiting(folder, kind, address) as parent:
        parent.send_signal(signal.SIGINT)
        parent.wait(30)
    script = (
        "import os, signal, sys\n"
        "from pipeline.executor import Executor\n"
        "from tests.pipeline.test_clusters import square\n"
        f"with Executor(kind={kind!r}, address={address!r}).ready() as executor:\n"
        "    for pid in sys.argv[1:]:\n"
        "        os.kill(int(pid), signal.SIGKILL)\n"
        "    print(sorted(executor.map(square, [1, 2, 3])))\n"
    )
    # Dask cannot stop a task, so its workers are still at it while the next one connects.
    busy = [file.name for file in folder.iterdir()] if kind == "dask" else []
    done = subprocess.run(
        [sys.executable, "-c", script, *busy], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.stdout == "[1, 4, 9]\n", done.stderr


def run_build(
    recipe: Path, lake: Path | str, *options: str, cwd: Path = ROOT
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `gristmill build`, in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "flows.cli",
        "build",
        str(recipe),
        "--lake",
        str(lake),
        *options,
    ]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")
    }
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=240
    )
    return done.returncode, done.stdout, done.stderr


# --- without any cluster -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PACKAGES)
def test_missing_package_names_its_extra(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the interpreter that lacks it; by names that an index has, or by the clone, never by our own name."""
    monkeypatch.setitem(sys.modules, PACKAGES[kind], None)
    with pytest.raises(
        ConfigError, match=rf"pip install .*'{PACKAGES[kind]}.*\.\[{kind}\]'"
    ) as told:
        list(Executor(kind=kind, workers=2).map(square, [1, 2]))
    assert "gristmill[" not in str(told.value)


def test_nothing_tells_to_install_us_from_an_index() -> None:
    """There is no such package there, and anybody could take the name."""
    root = Path(__file__).parents[2]
    texts = [
        file for file in root.glob("**/*") if file.suffix in (".py", ".md", ".toml", ".service")
    ]
    for file in texts:
        for line in file.read_text(errors="replace").splitlines():
            assert not re.search(r"install\b[^#;]*['\" ]gristmill(\[|['\"=<>~]|$)", line), (
                f"{file}: {line}"
            )


def test_other_versions_are_refused() -> None:
    """Before the task itself is unpickled: its classes may differ."""
    versions, call = pickle.loads(pack_task(square, 3))
    assert read_outcome(run_task(pickle.dumps((versions, call)))) == 9
    with pytest.raises(ConfigError, match=r"has gristmill .*, expected 0\.0\.1 as here"):
        read_outcome(run_task(pickle.dumps(({**versions, "gristmill": "0.0.1"}, b"none"))))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
