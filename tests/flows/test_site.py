"""`gristmill up`, `status`, `down`: from nothing to a working site, and one clear message for whatever cannot work."""

import json
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.site_settings import check_versions
from storage.errors import ConfigError
from storage.lake import Lake

from .conftest import write_corpus
from .prefect_api import wait_until
from .site_process import SiteProcess, free_port

Command = Callable[..., Any]

TRAIN = """
[train]
preset = "1m"
seq_len = 64
batch_tokens = 256
steps = 6
warmup_steps = 1
eval_every = 3
checkpoint_every = 2
sample_tokens = 12
precision = "fp32"
device = "cpu"
overrides = { n_layer = 1, n_embd = 64, ffn_dim = 64 }
"""
"""Training that takes a second."""


def site_recipe(folder: Path, more: str = "", train: str = TRAIN) -> Path:
    """A recipe whose build and training take seconds."""
    recipe = write_corpus(folder)
    recipe.write_text(recipe.read_text() + train + more)
    return recipe


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SiteProcess]:
    """A site of the small recipe, not yet started."""
    site = SiteProcess(tmp_path / "lake", site_recipe(tmp_path / "corpus"))
    yield site
    site.end()


# --- refused before anything starts ------------------------------------------------------------


def test_broken_recipe_is_refused(gristmill: Command, tmp_path: Path) -> None:
    """The message names file and key, and no lake is made."""
    recipe = site_recipe(tmp_path / "corpus", more="[dedupe]\nthreshold = 0.7\n")
    answer = gristmill("up", recipe, "--lake", tmp_path / "lake")
    assert answer.code == 2
    assert "dedupe" in answer.err and "did you mean" in answer.err
    assert not (tmp_path / "lake").exists()


def test_two_recipes_of_one_corpus_are_refused(gristmill: Command, tmp_path: Path) -> None:
    """They would publish over each other."""
    one, two = site_recipe(tmp_path / "a"), site_recipe(tmp_path / "b")
    answer = gristmill("up", one, two, "--lake", tmp_path / "lake")
    assert answer.code == 2
    assert "two recipes build the corpus 'tiny'" in answer.err


def test_taken_port_is_refused(gristmill: Command, tmp_path: Path) -> None:
    """Whatever listens there is not disturbed."""
    recipe = site_recipe(tmp_path / "corpus")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        answer = gristmill("up", recipe, "--lake", tmp_path / "lake", "--port", port)
    assert answer.code == 2
    assert f"127.0.0.1:{port}: cannot listen there" in answer.err
    assert "--port" in answer.err


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_unusable_password_is_refused(
    gristmill: Command, tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reaches the server can start work on this machine, so none is started without one."""
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "s3cret")
    recipe = site_recipe(tmp_path / "corpus")
    arguments = ("--lake", tmp_path / "lake", "--host", host, "--port", free_port())
    answer = gristmill("up", recipe, *arguments)
    assert answer.code == 2
    assert "PREFECT_SERVER_API_AUTH_STRING: expected user:password" in answer.err
    assert "s3cret" not in answer.err


def test_origin_that_is_none_is_refused(gristmill: Command, tmp_path: Path) -> None:
    """A path would never match."""
    recipe = site_recipe(tmp_path / "corpus")
    arguments = ("--lake", tmp_path / "lake", "--origin", "https://mill.example.org/ui")
    answer = gristmill("up", recipe, *arguments)
    assert answer.code == 2
    assert "--origin: expected http(s)://name" in answer.err and "/ui" in answer.err


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql+asyncpg://me:secret@127.0.0.1:9/x", "no answer from 127.0.0.1:9/x"),
        ("mysql://me:secret@127.0.0.1/x", "expected postgresql+asyncpg://"),
    ],
)
def test_unreachable_database_is_refused(
    gristmill: Command, tmp_path: Path, url: str, message: str
) -> None:
    """With what was tried, and never with the password."""
    recipe = site_recipe(tmp_path / "corpus")
    answer = gristmill(
        *("up", recipe, "--lake", tmp_path / "lake", "--port", free_port(), "--database", url)
    )
    assert answer.code == 2
    assert message in answer.err
    assert "secret" not in answer.err


def test_foreign_file_as_database_is_refused(gristmill: Command, tmp_path: Path) -> None:
    """Prefect would end in a page of traceback."""
    recipe = site_recipe(tmp_path / "corpus")
    (tmp_path / "lake/site").mkdir(parents=True)
    (tmp_path / "lake/site/prefect.db").write_bytes(b"not a database" * 400)
    answer = gristmill("up", recipe, "--lake", tmp_path / "lake", "--port", free_port())
    assert answer.code == 2
    assert "expected Prefect's database, got something else" in answer.err


def test_silent_prefect_is_refused(
    gristmill: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PREFECT_API_URL says which server is meant, so no other is started."""
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    recipe = site_recipe(tmp_path / "corpus")
    answer = gristmill("up", recipe, "--lake", tmp_path / "lake")
    assert answer.code == 2
    assert "http://127.0.0.1:9/api: expected a Prefect server there, got no answer" in answer.err


@pytest.mark.parametrize("package", ["prefect", "fastapi", "sqlalchemy"])
def test_versions_that_do_not_work_are_refused(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installed over ours by something else: the message says what to install."""
    info = tmp_path / f"{package}-99.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 99.0\n")
    check_versions()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=rf"{package} 99.0: expected .*pip install"):
        check_versions()


@pytest.mark.parametrize("command", ["down", "status"])
def test_no_site_is_said(gristmill: Command, tmp_path: Path, command: str) -> None:
    """And no lake is made by asking."""
    answer = gristmill(command, "--lake", tmp_path / "lake")
    assert answer.code == 2
    assert "expected a running site, found none" in answer.err
    assert not (tmp_path / "lake").exists()


# --- a site at work ----------------------------------------------------------------------------


@pytest.mark.prefect
@pytest.mark.timeout(900)
def test_site_from_nothing_to_a_release(
    site: SiteProcess, gristmill: Command, gristmill_process: Command, tmp_path: Path
) -> None:
    """One command builds, trains on the fresh snapshot, judges the model; a second start changes nothing."""
    site.start("--now")
    assert site.ready["ui"].endswith("/v2/dashboard")
    [build] = site.wait_for("build-corpus", {"Promoted"}, 90)
    [training] = site.wait_for("train-on-snapshot", {"Trained"}, 90)
    [judged] = site.wait_for("evaluate-release", {"COMPLETED"}, 90)
    assert "tiny@1" in build["state"]["message"]
    assert training["created_by"]["type"] == judged["created_by"]["type"] == "AUTOMATION"

    lake = Lake.open(site.lake)
    claim = json.loads(lake.read_bytes("corpora/tiny/training/000001.json"))
    assert claim["snapshot"] == "tiny@1"
    release = json.loads(lake.read_bytes("corpora/tiny/releases/000001.json"))
    assert release["run"] == claim["run"]
    direct = gristmill("build", site.arguments[0], "--lake", tmp_path / "direct", "--json").json
    assert gristmill("hash", "tiny@1", "--lake", site.lake, "--json").json["hash"] == direct["hash"]

    second = gristmill_process("up", site.arguments[0], "--lake", site.lake)
    assert second.code == 1 and "already running the site" in second.err
    status = gristmill_process("status", "--lake", site.lake, "--json").json
    assert (status["workers"], status["pid"]) == (1, site.process.pid)
    names = [row["name"] for row in status["deployments"]]
    assert names == [
        "build-corpus/tiny",
        "evaluate-release/tiny",
        "maintain-lake/lake",
        "train-on-snapshot/tiny",
    ]
    stopped = gristmill_process("down", "--lake", site.lake)
    assert stopped.code == 0, stopped.err
    assert site.process.wait(5) == 0
    assert not site.processes()

    before = site.log()
    site.start()
    said = site.log().removeprefix(before)
    assert "made" not in said and "changed" not in said
    assert site.stop(signal.SIGINT) == 0
    assert not site.processes()


@pytest.mark.prefect
@pytest.mark.timeout(900)
def test_running_prefect_is_used(prefect_environment: dict[str, str], tmp_path: Path) -> None:
    """With PREFECT_API_URL, no server is started and none is stopped."""
    site = SiteProcess(tmp_path / "lake", site_recipe(tmp_path / "corpus"), **prefect_environment)
    site.api = prefect_environment
    try:
        site.start("--now")
        assert site.ready["server_pid"] is None
        assert site.ready["api_url"] == prefect_environment["PREFECT_API_URL"]
        site.wait_for("build-corpus", {"Promoted"}, 90)
        assert site.stop() == 0
        assert not site.processes()
        assert site.runs("build-corpus")
    finally:
        site.end()


@pytest.mark.prefect
@pytest.mark.timeout(900)
def test_changed_recipe_counts_from_the_next_run(site: SiteProcess, tmp_path: Path) -> None:
    """It is deployed again; a broken one is not, and what runs stays."""
    recipe = Path(site.arguments[0])
    site.start()
    text = recipe.read_text()
    before = site.log()
    recipe.write_text(text + "\n[[schedules]]\nevery_s = 86_400\n[dedupe]\n")
    _wait_for_line(site, before, "is not used until it is right")
    recipe.write_text(text + "\n[[schedules]]\nevery_s = 86_400\n")
    _wait_for_line(site, before, "build-corpus/tiny: changed")
    assert site.stop() == 0


def _wait_for_line(site: SiteProcess, before: str, text: str) -> None:
    wait_until(lambda: text in site.log().removeprefix(before), 60, repr(text))


@pytest.mark.prefect
@pytest.mark.timeout(900)
def test_scheduled_runs_really_appear(tmp_path: Path) -> None:
    """A schedule of seconds starts runs by itself: a snapshot, then nothing new."""
    recipe = site_recipe(
        tmp_path / "corpus", more="\n[[schedules]]\nevery_s = 15\n[on_snapshot]\ntrain = false\n"
    )
    site = SiteProcess(tmp_path / "lake", recipe)
    try:
        site.start()
        runs = site.wait_for("build-corpus", {"Promoted", "Unchanged"}, 150, number=2)
        ended = [run["state_name"] for run in runs if run["state_type"] == "COMPLETED"]
        assert ended[:2] == ["Promoted", "Unchanged"]
        assert all(run["auto_scheduled"] for run in runs)
        assert site.stop() == 0
    finally:
        site.end()
