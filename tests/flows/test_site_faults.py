"""What a site survives: every part of it killed, its database locked or lost, work asked for twice, a full disk.

The lake decides what is right: one snapshot, one training of it, the same bytes as without any fault. The loss of power
and doubled work are in every run with the marker `prefect`; `-m "prefect and slow"` runs the others, ten minutes.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .prefect_api import ask, wait_until
from .site_process import SiteProcess, until_training_steps
from .test_site import TRAIN, site_recipe

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(900)]

GRISTMILL = (sys.executable, "-m", "flows.cli")

LONGER = TRAIN.replace("steps = 6", "steps = 1500").replace("eval_every = 3", "eval_every = 500")
LONGER = LONGER.replace("checkpoint_every = 2", "checkpoint_every = 50")
"""Training that takes ten to thirty seconds, with a checkpoint every half second."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SiteProcess]:
    """A site whose training takes long enough to be disturbed."""
    site = SiteProcess(tmp_path / "lake", site_recipe(tmp_path / "corpus", train=LONGER))
    yield site
    site.end()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Hashes of the same corpus and training, made by the command line."""
    folder = tmp_path_factory.mktemp("undisturbed")
    recipe = site_recipe(folder / "corpus", train=LONGER)
    command = [*GRISTMILL, "run", str(recipe), "--lake", str(folder / "lake"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    return {"snapshot": document["build"]["hash"], "run": document["train"]["hash"]}


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
"""As a site has it: runs are equal bit for bit with equal numbers of threads."""


def assert_as_undisturbed(site: SiteProcess, undisturbed: dict[str, Any]) -> None:
    """One snapshot, one run, both with the bytes that they should have."""
    manifests = list((site.lake / "corpora/tiny/snapshots").glob("*.json"))
    assert [path.name for path in manifests] == ["000001.json"]
    [result] = site.lake.glob("runs/*/result.json")
    assert json.loads(result.read_text())["hash"] == undisturbed["run"]
    for ref, expected in (
        ("tiny@1", undisturbed["snapshot"]),
        (result.parent.name, undisturbed["run"]),
    ):
        command = [*GRISTMILL, "hash", ref, "--lake", str(site.lake), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert json.loads(done.stdout)["hash"] == expected
    verified = subprocess.run(
        [*GRISTMILL, "verify", "--lake", str(site.lake)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert verified.returncode == 0, verified.stderr


def result_is_there(site: SiteProcess) -> bool:
    return bool(list(site.lake.glob("runs/*/result.json")))


@pytest.mark.slow
def test_killed_server_is_started_again_and_the_run_goes_on(
    site: SiteProcess, undisturbed: dict[str, Any]
) -> None:
    """The training does not notice, and is shown as what it is afterwards."""
    site.start("--now")
    until_training_steps(site.lake, 100, 120)
    os.kill(site.pid_of("server start"), signal.SIGKILL)
    runs = site.wait_for("train-on-snapshot", {"Trained"}, 180)
    assert len(runs) == 1
    assert_as_undisturbed(site, undisturbed)


@pytest.mark.slow
def test_killed_worker_leaves_no_run_behind(site: SiteProcess, undisturbed: dict[str, Any]) -> None:
    """Its run is shown as crashed within 90 s, and another goes on from the checkpoint."""
    site.start("--now")
    until_training_steps(site.lake, 100, 120)
    os.kill(site.pid_of("worker start"), signal.SIGKILL)
    site.wait_for("train-on-snapshot", {"Crashed"}, 90)
    runs = site.wait_for("train-on-snapshot", {"Trained"}, 180)
    assert [run["state_name"] for run in runs] == ["Crashed", "Trained"]
    assert_as_undisturbed(site, undisturbed)


@pytest.mark.slow
def test_killed_flow_run_goes_on(site: SiteProcess, undisturbed: dict[str, Any]) -> None:
    """The process of the run itself, with SIGKILL; its training dies with it."""
    site.start("--now")
    until_training_steps(site.lake, 100, 120)
    [run] = site.wait_for("train-on-snapshot", {"Running"}, 30)
    os.kill(int(run["infrastructure_pid"]), signal.SIGKILL)
    wait_until(lambda: not [c for c in site.processes().values() if "--die-with" in c], 10)
    site.wait_for("train-on-snapshot", {"Crashed"}, 90)
    site.wait_for("train-on-snapshot", {"Trained"}, 180)
    assert_as_undisturbed(site, undisturbed)


def test_killed_up_is_known_and_ended(site: SiteProcess, undisturbed: dict[str, Any]) -> None:
    """`status` names what it left, `down` ends all of it, and the next `up` finishes the training."""

    def command(name: str) -> subprocess.CompletedProcess[str]:
        call = [*GRISTMILL, name, "--lake", str(site.lake), "--json"]
        return subprocess.run(call, capture_output=True, text=True, timeout=300)

    site.start("--now")
    until_training_steps(site.lake, 100, 120)
    status = json.loads(command("status").stdout)
    roles = {row["role"] for row in status["processes"]}
    assert roles == {"up", "server", "worker", "run", "work"}
    assert status["since"] == site.ready["since"]
    assert {row["pid"] for row in status["processes"]} == set(site.processes())
    training = next(row["pid"] for row in status["processes"] if row["role"] == "work")
    os.kill(training, signal.SIGSTOP)  # so that it is there to be seen
    os.kill(status["pid"], signal.SIGKILL)
    assert site.process is not None
    site.process.wait(20)
    status = json.loads(command("status").stdout)
    assert (status["state"], status["pid"]) == ("left over", None)
    assert training in {row["pid"] for row in status["processes"]}
    down = command("down")
    assert down.returncode == 0, down.stderr
    assert not site.processes()
    assert command("status").returncode == 2

    site.start()
    runs = site.wait_for("train-on-snapshot", {"Trained"}, 180)
    assert len(runs) == 2
    assert_as_undisturbed(site, undisturbed)
    assert site.stop() == 0
    assert not site.processes()


@pytest.mark.slow
def test_up_ends_what_an_earlier_one_left(site: SiteProcess, undisturbed: dict[str, Any]) -> None:
    """At once after a kill -9, and again and again: the training is finished all the same."""
    site.start("--now")
    for steps in (50, 150, 250, 350):
        until_training_steps(site.lake, steps, 120)
        os.kill(site.process.pid, signal.SIGKILL)
        site.process.wait(20)
        site.start()
    assert "an earlier site was not stopped in order" in site.log()
    site.wait_for("train-on-snapshot", {"Trained"}, 180)
    assert_as_undisturbed(site, undisturbed)
    assert site.stop() == 0
    assert not site.processes()


def test_power_loss(site: SiteProcess, undisturbed: dict[str, Any]) -> None:
    """Everything ends at once, in the middle of the build and again of the training; `up` goes on both times."""
    site.start("--now")
    wait_until(lambda: list(site.lake.glob("corpora/tiny/work/*/*")), 60, "the build to begin")
    site.kill_all()
    assert not list(site.lake.glob("corpora/tiny/snapshots/*.json"))
    site.start()
    until_training_steps(site.lake, 100, 150)
    site.kill_all()
    site.start()
    site.wait_for("train-on-snapshot", {"Crashed"}, 90)
    site.wait_for("train-on-snapshot", {"Trained"}, 180)
    assert_as_undisturbed(site, undisturbed)
    assert site.stop() == 0
    assert not site.processes()


@pytest.mark.slow
def test_locked_database(site: SiteProcess, undisturbed: dict[str, Any]) -> None:
    """Somebody holds SQLite's lock for 60 s in mid-training: the run ends as if nothing had been."""
    site.start("--now")
    until_training_steps(site.lake, 50, 120)
    with sqlite3.connect(site.lake / "site/prefect.db", timeout=60) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        time.sleep(60)
        connection.rollback()
    wait_until(lambda: result_is_there(site), 180, "the training to end")
    site.wait_for("train-on-snapshot", {"Trained"}, 120)
    assert_as_undisturbed(site, undisturbed)


@pytest.mark.slow
def test_deleted_database(site: SiteProcess, undisturbed: dict[str, Any]) -> None:
    """The history is gone; the training is finished once, and nothing trains on the snapshot again."""
    site.start("--now")
    until_training_steps(site.lake, 100, 120)
    for path in (site.lake / "site").glob("prefect.db*"):
        path.unlink()
    wait_until(lambda: "database is gone" in site.log(), 30)
    wait_until(lambda: result_is_there(site), 240, "the training to end")
    assert_as_undisturbed(site, undisturbed)
    # The new server may be told of the snapshot again: whatever it starts finds the work done.
    time.sleep(30)
    assert len(list(site.lake.glob("runs/*/run.json"))) == 1
    assert site.stop() == 0


def test_work_asked_for_twice_is_done_once(site: SiteProcess, undisturbed: dict[str, Any]) -> None:
    """Two builds at the same moment, and the event of the snapshot three times more."""
    site.start()
    deployments = {
        row["name"] + " " + row["entrypoint"]: row["id"]
        for row in ask(site.api, "deployments/filter", {})
    }
    build = deployments["tiny flows.corpus.build_corpus"]
    for _ in range(2):
        ask(site.api, f"deployments/{build}/create_flow_run", {})
    site.wait_for("build-corpus", {"Promoted"}, 120)
    [record] = [
        json.loads(path.read_text())
        for path in site.lake.glob("corpora/tiny/events/*.json")
        if json.loads(path.read_text())["event"] == "gristmill.snapshot.promoted"
    ]
    others = [record, record, record | {"id": "7d9a3c8e-8f53-4f0a-9d6b-0f7b4c7f1a11"}]
    for event in others:  # the same one again, and a copy under another id
        ask(site.api, "events", [event])
    site.wait_for("train-on-snapshot", {"Trained"}, 180)
    runs = site.wait_for("train-on-snapshot", {"Already trained"}, 90)
    assert sorted(run["state_name"] for run in runs) == ["Already trained", "Trained"]
    builds = [run["state_name"] for run in site.runs("build-corpus")]
    assert sorted(builds) in (["Cancelled", "Promoted"], ["Promoted", "Unchanged"])
    assert_as_undisturbed(site, undisturbed)


@pytest.mark.slow
def test_newest_of_several_snapshots_is_trained_next(site: SiteProcess) -> None:
    """Two come while the training of the first is busy: the second of them is trained, the one between is not."""
    site.start("--now")
    until_training_steps(site.lake, 50, 120)
    prose = Path(site.arguments[0]).parent / "prose"
    for number in (2, 3):
        for path in sorted(prose.glob("0-*.txt"))[:8]:
            words = path.read_text().split()
            words.reverse()  # another text of the same words
            (prose / f"{number}-{path.name}").write_text(" ".join(words[number * 7 :]) + ".\n")
        command = [*GRISTMILL, "build", site.arguments[0], "--lake", str(site.lake), "--no-flow"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    wait_until(
        lambda: len(list(site.lake.glob("runs/*/result.json"))) == 2, 240, "two trainings to end"
    )
    trained = sorted(
        json.loads(p.read_text())["snapshot"] for p in site.lake.glob("runs/*/run.json")
    )
    assert trained == ["tiny@1", "tiny@3"]


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0, reason="a small file system of its own can only be mounted by root"
)
def test_full_disk(tmp_path: Path) -> None:
    """The build fails with what to do; with room made, the next one publishes the same snapshot."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a file system here")
    filler = small / "filler"
    recipe = site_recipe(tmp_path / "corpus", more="\n[on_snapshot]\ntrain = false\n")
    site = SiteProcess(small / "lake", recipe)
    try:
        site.start()
        with filler.open("wb") as file:
            free = shutil.disk_usage(small).free
            file.write(b"x" * max(free - 3_000_000, 0))
        [deployment] = [
            row["id"]
            for row in ask(site.api, "deployments/filter", {})
            if row["entrypoint"].endswith("build_corpus")
        ]
        hog = threading.Event()
        work = small / "lake/corpora"
        ask(site.api, f"deployments/{deployment}/create_flow_run", {})
        wait_until(work.exists, 60, "the build to begin")
        with (small / "filler2").open("wb") as file:  # the last bytes go while it works
            try:
                while not hog.is_set():
                    file.write(b"x" * 65536)
                    file.flush()
            except OSError:
                pass
        failed = site.wait_for("build-corpus", {"FAILED", "CRASHED"}, 120)
        assert not list(work.glob("tiny/snapshots/*.json"))
        filler.unlink()
        (small / "filler2").unlink()
        if failed[-1]["state_type"] == "FAILED":
            assert "space" in failed[-1]["state"]["message"].lower()
            ask(site.api, f"deployments/{deployment}/create_flow_run", {})
        site.wait_for("build-corpus", {"Promoted"}, 120)
        assert site.stop() == 0
    finally:
        site.end()
        subprocess.run(["umount", "-l", str(small)], check=False)
