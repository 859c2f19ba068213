"""What the tests of the command line share: a tiny corpus, and the commands run here or in a process of their own."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.cli import app
from flows.server import prefect_answers

COMMON_WORDS = (
    "the of and to in that is was he for it with as his on be at by had not are but from or have an they which one "
    "you were all her she there would their we him been has when who will no more if out so up said what its about "
    "than into them can only other time new some could these two may first then do any like my now over such our "
    "man me even most made after also did many off before must well back through years much where your way down"
)

RECIPE = """
name = "tiny"

[[sources]]
path = "prose/*.txt"
domain = "books"
license = "CC0-1.0"

[[sources]]
path = "talk.jsonl"
domain = "conversation"
license = "CC0-1.0"

[language]
detect = false

[toxicity]
enabled = false

[tokenizer]
vocab_size = 400
"""

TINY_MODEL = [
    item
    for setting in (
        "preset=1m", "overrides.n_layer=1", "overrides.n_embd=64", "overrides.ffn_dim=64", "seq_len=64",
        "batch_tokens=256", "steps=6", "warmup_steps=1", "eval_every=3", "checkpoint_every=2", "sample_tokens=12",
        "precision=fp32", "device=cpu",
    )
    for item in ("--set", f"train.{setting}")
]  # fmt: skip
"""Options that make training a matter of a second."""


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def _no_prefect_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds a server by accident."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("GRISTMILL_LAKE", raising=False)


@pytest.fixture
def gristmill(capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run a command in this process."""

    def call(*arguments: object) -> Answer:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            app([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Answer(int(ended.value.code or 0), out, err)

    return call


@pytest.fixture
def gristmill_process() -> Callable[..., Answer]:
    """Run a command in a process of its own, as a user does."""

    def call(*arguments: object, **environment: str) -> Answer:
        command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=240
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    return call


def write_corpus(folder: Path, *, seed: int = 0, documents: int = 24) -> Path:
    """Write a recipe with two small sources; return the recipe's path."""
    rng, words = random.Random(seed), COMMON_WORDS.split()

    def sentence() -> str:
        return " ".join(rng.choices(words, k=rng.randint(6, 14))).capitalize() + "."

    (folder / "prose").mkdir(parents=True, exist_ok=True)
    for number in range(documents):
        lines = [" ".join(sentence() for _ in range(8)) for _ in range(4)]
        (folder / "prose" / f"{seed}-{number:03}.txt").write_text("\n\n".join(lines))
    with (folder / "talk.jsonl").open("w") as file:
        for _ in range(documents):
            file.write(json.dumps({"text": "\n".join(sentence() for _ in range(6))}) + "\n")
        file.write("this line is no JSON\n")
    recipe = folder / "tiny.toml"
    recipe.write_text(RECIPE)
    return recipe


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Path:
    """A recipe of 48 good records and a bad one."""
    return write_corpus(tmp_path / "corpus")


@pytest.fixture(scope="session")
def prefect_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A server of our own on a free port; yields the environment that leads to it."""
    with prefect_server(tmp_path_factory.mktemp("prefect")) as environment:
        yield environment


@contextmanager
def prefect_server(home: Path) -> Iterator[dict[str, str]]:
    """A Prefect server with its data in `home`; yields the environment that leads to it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    try:
        end = time.monotonic() + 180  # migrations of an empty database take 10 to 30 s
        while not prefect_answers(environment["PREFECT_API_URL"], 1.0):
            assert server.poll() is None and time.monotonic() < end, (
                home / "server.log"
            ).read_text()
            time.sleep(0.2)
        yield environment
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
