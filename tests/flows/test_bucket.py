"""A lake in a bucket, of a real S3 server on the loopback interface, through the command line: as one on a disk."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import TINY_MODEL

Command = Callable[..., Any]


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """s3://lake/some/prefix, with the variables set that lead there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(
                    urllib.request.Request(f"{url}/lake", method="PUT"), timeout=5
                ):
                    break
            except (urllib.error.URLError, ConnectionError):
                assert server.poll() is None and time.monotonic() < end
                time.sleep(0.1)
        for name, value in (
            ("AWS_ENDPOINT_URL", url),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test-secret"),
            ("AWS_REGION", "us-east-1"),
            ("HOME", str(tmp_path / "home")),  # the cache of downloads
        ):
            monkeypatch.setenv(name, value)
        yield "s3://lake/some/prefix"
    finally:
        server.kill()
        server.wait()


def test_everything_in_a_bucket(
    bucket: str, gristmill: Command, tiny_recipe: Path, tmp_path: Path
) -> None:
    """Build, build again, train, sample, inspect, dump, verify, gc, forget: the same hashes as on a disk."""

    def both(*arguments: object, code: int = 0) -> list[Any]:
        answers = [gristmill(*arguments, "--lake", lake) for lake in (bucket, tmp_path / "lake")]
        for answer in answers:
            assert answer.code == code, answer.err
            assert os.environ["AWS_SECRET_ACCESS_KEY"] not in answer.out + answer.err
        return answers

    there, here = both("build", tiny_recipe, "--workers", 1, "--json")
    assert there.json["status"] == "promoted"
    assert there.json["hash"] == here.json["hash"]
    assert both("build", tiny_recipe, "--json")[0].json["status"] == "unchanged"
    there, here = both("train", tiny_recipe, "--workers", 1, *TINY_MODEL, "--json")
    assert there.json["hash"] == here.json["hash"]
    assert both("train", tiny_recipe, "--workers", 1, *TINY_MODEL, "--json")[0].json["was_finished"]
    for arguments in (
        ("sample", "tiny", "The man", "--tokens", 8),
        ("dump", "tiny"),
        ("dump", "tiny", "--fates"),
        ("hash", "tiny"),
        ("hash", there.json["run"]),
    ):
        answers = both(*arguments)
        assert answers[0].out == answers[1].out != ""
    assert both("inspect", "tiny", "--json")[0].json["documents"]["read"] == 49
    assert both("verify", "--json")[0].json["sound"]
    assert both("gc", "--min-age", 0, "--json")[0].json["removed"] == []
    assert both("verify", "--json")[0].json["sound"]
    both("inspect", "tiny@2", code=2)
    forgotten = both("forget", "--uri", "prose/0-00[12].txt", "--yes", "--json")
    assert forgotten[0].json["hash"] == forgotten[1].json["hash"]
    purged = both("gc", "--purge", "--yes", "--json")
    assert purged[0].json["purged"] == purged[1].json["purged"]
    assert not list(tmp_path.glob("home/.cache/gristmill/*/files/**/*.arrow"))
    there, here = both("dump", "tiny")
    assert there.out == here.out
    assert both("verify", "--json")[0].json["sound"]


def test_bucket_that_is_not_there(bucket: str, gristmill: Command, tiny_recipe: Path) -> None:
    """One message, exit code 1."""
    answer = gristmill("build", tiny_recipe, "--lake", "s3://other/prefix", "--workers", 1)
    assert answer.code == 1
    assert "the bucket does not exist; create it" in answer.err
    assert "Traceback" not in answer.err
