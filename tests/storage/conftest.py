"""Lakes to test on: a folder, and a bucket of a real S3 server (moto) on the loopback interface."""

import functools
import hashlib
import http.client
import http.server
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import storage.lake
from storage.lake import Lake
from storage.schema import DOCUMENTS, FATES, FATES_IN_ORDER, tokens_schema
from storage.shard import write_shard
from storage.snapshot import Input, Manifest, Snapshot, commit_snapshot


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """URL of an S3 server that knows conditional puts; it ends with the session."""
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
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{url}/moto-api/", timeout=5):
                    break
            except (urllib.error.URLError, ConnectionError):
                assert server.poll() is None, "moto_server ended"
                time.sleep(0.1)
        yield url
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def s3_bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """s3://bucket of its own, with the variables set that lead there."""
    bucket = f"lake-{uuid.uuid4().hex[:12]}"
    request = urllib.request.Request(f"{s3_server}/{bucket}", method="PUT")
    with urllib.request.urlopen(request, timeout=60):
        pass
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return f"s3://{bucket}"


@pytest.fixture(params=["local", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    """An empty lake, of both sorts."""
    if request.param == "local":
        return Lake.open(tmp_path / "lake")
    bucket = request.getfixturevalue("s3_bucket")
    return Lake.open(f"{bucket}/some/prefix", cache=tmp_path / "cache")


@pytest.fixture
def local_lake(tmp_path: Path) -> Lake:
    """An empty lake in a folder."""
    return Lake.open(tmp_path / "lake")


@pytest.fixture
def on_operation() -> Iterator[Callable[[Callable[[str, str], None]], None]]:
    """Set the hook for file operations, for one test."""

    def set_hook(hook: Callable[[str, str], None]) -> None:
        storage.lake.on_file_operation = hook

    yield set_hook
    storage.lake.on_file_operation = None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 kB; skips where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk takes root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def remount() -> Callable[[Path, str], None]:
    """Mounts a disk again with other options ("ro")."""

    def mount_again(folder: Path, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)

    return mount_again


class _LosingHandler(http.server.BaseHTTPRequestHandler):
    """Passes requests on, but loses one: the first conditional put, on its way there or its answer on the way back."""

    protocol_version = "HTTP/1.1"
    upstream: str
    put_arrives: bool
    has_lost: bool

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        lose = self.command == "PUT" and "If-None-Match" in self.headers and not type(self).has_lost
        if lose and not self.put_arrives:
            type(self).has_lost = self.close_connection = True
            return
        upstream = http.client.HTTPConnection(self.upstream, timeout=60)
        headers = {key: value for key, value in self.headers.items() if key.lower() != "connection"}
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        if lose:
            type(self).has_lost = self.close_connection = True
            return
        self.send_response_only(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(key, value)
        length = answer.getheader("Content-Length", "0") if self.command == "HEAD" else len(content)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass_on

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def losing_proxy() -> Iterator[Callable[[str, bool], str]]:
    """Starts a proxy before a server that loses one conditional put; gives the proxy's URL."""
    servers = []

    def start(url: str, put_arrives: bool) -> str:
        fields = {
            "upstream": url.removeprefix("http://"),
            "put_arrives": put_arrives,
            "has_lost": False,
        }
        handler = type("Handler", (_LosingHandler,), fields)
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        assert server.RequestHandlerClass.has_lost, (
            "the proxy lost nothing, so the test tested nothing"
        )
        server.shutdown()
        server.server_close()


@pytest.fixture
def documents() -> Callable[..., pa.Table]:
    """Makes a documents table of some texts."""
    return document_table


@pytest.fixture
def tokens() -> Callable[..., pa.Table]:
    """Makes a tokens table of some rows."""
    return token_table


@pytest.fixture
def publish() -> Callable[..., Snapshot]:
    """Writes shards and commits a snapshot of them."""
    return publish_corpus


def document_table(texts: list[str], *, domain: str = "poetry") -> pa.Table:
    """A documents table of these texts."""
    return pa.Table.from_pylist(
        [
            {
                "id": f"{number:032x}",
                "text": text,
                "source": "poems",
                "uri": f"poems.txt:{number + 1}",
                "domain": domain,
                "license": "public domain",
                "lang": "en",
                "lang_score": 0.5,
                "toxicity": 0.25,
                "content_hash": f"{number:032x}",
                "num_bytes": len(text.encode()),
                "split": "train",
            }
            for number, text in enumerate(texts)
        ],
        DOCUMENTS,
    )


def fate_table(count: int, *, domain: str = "poetry") -> pa.Table:
    """A fates table of that many kept documents."""
    row = {"source": "poems", "domain": domain, "fate": "kept"}
    return pa.Table.from_pylist(
        [row | {"id": f"{n:032x}", "uri": f"poems.txt:{n + 1}"} for n in range(count)], FATES
    )


def token_table(rows: list[list[int]], *, vocab_size: int = 4096) -> pa.Table:
    """A tokens table of these rows."""
    return pa.Table.from_pylist(
        [
            {"id": f"{number:032x}", "domain": "poetry", "tokens": row, "num_bytes": 3 * len(row)}
            for number, row in enumerate(rows)
        ],
        tokens_schema(vocab_size),
    )


def publish_corpus(
    lake: Lake,
    name: str = "poems",
    *,
    texts: tuple[str, ...] = ("To be", "or not"),
    parent: Snapshot | None = None,
    **changes: Any,
) -> Snapshot:
    """Write shards and a tokenizer and commit them, as version 1 or after `parent`; other fields may be given."""
    version = parent.manifest.version + 1 if parent else 1
    folder = f"corpora/{name}/data/{version:016x}"
    write = functools.partial(write_shard, lake, version=version)
    shards = (
        write(f"{folder}/documents-00000.arrow", document_table(list(texts))),
        write(f"{folder}/fates-00000.arrow", fate_table(len(texts))),
        write(
            f"{folder}/tokens-train-00000.arrow",
            token_table([[1, 2, 3]] * len(texts)),
            split="train",
        ),
    )
    model = b"a tokenizer"
    lake.write_bytes(f"{folder}/tokenizer.model", model)
    fields: dict[str, Any] = {
        "name": name,
        "version": version,
        "build_id": f"{version:016x}",
        "status": "promoted",
        "parent": parent.hash if parent else "",
        "recipe": {"name": name, "dedup": {"threshold": 0.7}},
        "shards": (parent.manifest.shards if parent else ()) + shards,
        "inputs": (
            Input(
                source="poems", uri="poems.txt", num_bytes=9, fingerprint="ab" * 16, version=version
            ),
        ),
        "tokenizer": {
            "path": f"{folder}/tokenizer.model",
            "checksum": hashlib.sha256(model).hexdigest(),
            "vocab_size": 4096,
        },
        "funnel": {
            "poetry": dict.fromkeys(FATES_IN_ORDER, 0) | {"read": len(texts), "kept": len(texts)}
        },
        "summary": {"text_bytes": 11},
    }
    return Snapshot(lake, commit_snapshot(lake, Manifest(**(fields | changes))))
