"""A site attacked: from a page of another origin, by a name that leads here, by another user of the machine, by anybody.

The attacks are tried on a Prefect server without a guard, too, where they work: a browser that stopped them by itself
would prove nothing.
"""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from .browser import NEEDS_BROWSER, open_browser
from .prefect_api import ask, wait_until
from .site_process import SiteProcess
from .test_site import site_recipe

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(900)]

HOOK = "https://hooks.example/services/s3cret-of-a-chat"
OTHER_USER = 65534

NOTIFY = """
[[notify]]
url_env = "OPS_URL"
on = ["gate failed"]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteProcess]:
    """A site that has built and trained, its lake where every user may look; its files were open before."""
    # pytest's own folders are closed to others, which would prove nothing.
    folder = Path(tempfile.mkdtemp(prefix="gristmill-attack-"))
    folder.chmod(0o755)
    recipe = site_recipe(folder / "corpus", more=NOTIFY)
    site = SiteProcess(folder / "lake", recipe, OPS_URL=HOOK)
    site.environment.pop("PREFECT_API_URL", None)
    (folder / "lake/site").mkdir(parents=True, mode=0o755)
    (folder / "lake/site/server.log").touch(0o644)
    try:
        site.start("--now")
        site.wait_for("evaluate-release", {"COMPLETED"}, 120)
        yield site
        assert site.stop() == 0
    finally:
        site.end()
        shutil.rmtree(folder)


@pytest.fixture
def address(site: SiteProcess) -> str:
    """Without a path."""
    return site.api["PREFECT_API_URL"].removesuffix("/api")


def status(method: str, url: str, **headers: str) -> int:
    """Of a request with an empty body."""
    body = None if method == "GET" else b"{}"
    sent = {"Content-Type": "application/json", **headers}
    try:
        request = urllib.request.Request(url, body, sent, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def basic(auth: str) -> str:
    return f"Basic {base64.b64encode(auth.encode()).decode()}"


# --- anybody who can reach the port ------------------------------------------------------------


def routes() -> tuple[list[tuple[str, str]], list[str]]:
    """Method and path of each route of Prefect's API; paths of its websockets."""
    from fastapi.routing import APIRoute, APIWebSocketRoute  # late: prefect is not for every test
    from prefect.server.api.server import API_ROUTERS

    def filled(path: str) -> str:
        parts = path.split("/")
        return "/".join(str(UUID(int=0)) if part.startswith("{") else part for part in parts)

    found = [route for router in API_ROUTERS for route in router.routes]
    asked = [(m, filled(r.path)) for r in found if isinstance(r, APIRoute) for m in r.methods]
    return asked, [filled(r.path) for r in found if isinstance(r, APIWebSocketRoute)]


def test_every_route_asks_for_the_password(site: SiteProcess, address: str) -> None:
    """And none is answered under another name or for another page, whoever knows the password."""
    asked, _ = routes()
    assert len(asked) > 100
    right = {"Authorization": basic(site.api["PREFECT_API_AUTH_STRING"])}
    extra = [("GET", "/version"), ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/static/x")]
    for method, path in [*asked, *extra]:
        url = f"{address}/api{path}"
        expected = 200 if path in ("/health", "/ready") else 401
        assert status(method, url) == expected, (method, path)
        assert status(method, url, Authorization=basic("gristmill:wrong")) == expected
        assert status(method, url, Host="evil.example", **right) == 403
        assert status(method, url, Origin="http://evil.example", **right) == 403


@pytest.mark.parametrize("path", ["/", "/v2/dashboard", "/ui-settings", "/api/health", "/docs"])
def test_pages_are_for_own_names_alone(address: str, path: str) -> None:
    """The UI itself needs no password, but a name of the site."""
    headers = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}
    port = urlsplit(address).port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", "[::1]"):
        assert status("GET", address + path, Host=host, **headers) == 200
    for host in (f"evil.example:{port}", "localhost.evil.example", "10.0.0.1"):
        assert status("GET", address + path, Host=host, **headers) == 403


def test_websockets_ask_for_the_password(site: SiteProcess, address: str) -> None:
    """Each of them, and they are for the site's own pages; with the password they are answered."""
    from websockets.exceptions import ConnectionClosed, InvalidStatus  # late: with prefect
    from websockets.sync.client import connect
    from websockets.typing import Origin, Subprotocol

    prefect = [Subprotocol("prefect")]
    url = address.replace("http", "ws") + "/api"
    right = json.dumps({"type": "auth", "token": site.api["PREFECT_API_AUTH_STRING"]})
    wrong = json.dumps({"type": "auth", "token": "gristmill:wrong"})
    _, paths = routes()
    assert len(paths) >= 4
    for path in paths:
        with pytest.raises(InvalidStatus, match="403"), connect(url + path):
            pass
        for first in (wrong, json.dumps({"type": "auth"}), "{}"):
            with connect(url + path, subprotocols=prefect) as stream:
                stream.send(first)
                with pytest.raises(ConnectionClosed):
                    stream.recv(timeout=60)
        for origin in ("http://evil.example", "null"):
            with (
                pytest.raises(InvalidStatus, match="403"),
                connect(url + path, subprotocols=prefect, origin=Origin(origin)),
            ):
                pass
        with connect(url + path, subprotocols=prefect, origin=Origin(address)) as stream:
            stream.send(right)
            assert json.loads(stream.recv(timeout=60)) == {"type": "auth_success"}


def test_own_commands_and_prefects_go_on(site: SiteProcess) -> None:
    """As the README says, by the profile or by the password; without either they are told."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    for environment in (
        {"PREFECT_HOME": str(site.lake / "site")},
        {**site.api, "PREFECT_HOME": str(site.lake.parent / "home")},
    ):
        done = subprocess.run(
            ["prefect", "work-pool", "inspect", site.ready["pool"]],
            capture_output=True, text=True, timeout=300, env={**clean, **environment},
        )  # fmt: skip
        assert done.returncode == 0 and site.ready["pool"] in done.stdout, done.stderr
    url = {"PREFECT_API_URL": site.api["PREFECT_API_URL"]}
    home = {"PREFECT_HOME": str(site.lake.parent / "home")}
    recipe = str(site.arguments[0])
    for lake, code, said in (
        (site.lake, 0, "nothing new"),  # its own site: the password is found
        (site.lake.parent / "other", 2, "expected PREFECT_API_AUTH_STRING=user:password"),
    ):
        done = subprocess.run(
            ["gristmill", "build", recipe, "--lake", str(lake)],
            capture_output=True, text=True, timeout=300, env={**clean, **url, **home},
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert said in done.stdout + done.stderr


# --- another user of this machine --------------------------------------------------------------


def test_files_are_private(site: SiteProcess) -> None:
    """Every folder and file of the site that the server, `up` and the worker made, or that was open before."""
    assert "renew the passwords" in site.log()
    folder = site.lake / "site"
    assert {"prefect.db", "auth-string", "profiles.toml", "server.log", "worker.log"} <= {
        path.name for path in folder.iterdir()
    }
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in folder.iterdir():
        if path.is_file():
            assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_other_user_reads_nothing(site: SiteProcess) -> None:
    """No file of the site, and no process's environment; what they can read of a process has no secret."""

    def as_other(*command: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command, capture_output=True, user=OTHER_USER, group=OTHER_USER, extra_groups=[]
        )

    assert as_other("ls", str(site.lake)).returncode == 0
    assert as_other("ls", str(site.lake / "site")).returncode != 0
    for path in (site.lake / "site").rglob("*"):
        if path.is_file():
            assert as_other("cat", str(path)).stderr.endswith(b"Permission denied\n"), path
    password = site.api["PREFECT_API_AUTH_STRING"].partition(":")[2]
    processes = site.processes()
    assert len(processes) >= 3
    for pid, command in processes.items():
        assert as_other("cat", f"/proc/{pid}/cmdline").returncode == 0
        assert password not in command and HOOK not in command
        assert as_other("cat", f"/proc/{pid}/environ").returncode != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_other_user_cannot_take_the_port(site: SiteProcess) -> None:
    """While the server is dead: whoever listens there is sent the worker's password, and may hand it work."""
    assert site.process is not None
    server = site.pid_of("site_server start")
    os.kill(site.process.pid, signal.SIGSTOP)  # so that it starts no other
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: server not in site.processes(), 20, "the server to end")
    child = os.fork()
    if child == 0:  # the interpreter may lie where another user cannot read: no new process
        try:
            os.setgroups([])
            os.setresgid(OTHER_USER, OTHER_USER, OTHER_USER)
            os.setresuid(OTHER_USER, OTHER_USER, OTHER_USER)
            os._exit(sum(can_listen(site.port, *options) for options in REUSE))
        finally:
            os._exit(100)
    _, ended = os.waitpid(child, 0)
    os.kill(site.process.pid, signal.SIGCONT)
    assert os.waitstatus_to_exitcode(ended) == 0
    wait_until(lambda: is_up(site), 120, "the server to be back")


REUSE = [
    (),
    (socket.SO_REUSEADDR,),
    (socket.SO_REUSEPORT,),
    (socket.SO_REUSEADDR, socket.SO_REUSEPORT),
]


def can_listen(port: int, *options: int) -> bool:
    """On the port, at this address or at all of them."""
    for address in ("127.0.0.1", "0.0.0.0"):
        with socket.socket() as one:
            for option in options:
                one.setsockopt(socket.SOL_SOCKET, option, 1)
            try:
                one.bind((address, port))
                one.listen()
            except OSError:
                continue
            return True
    return False


def is_up(site: SiteProcess) -> bool:
    try:
        return bool(ask(site.api, "flows/filter", {}))
    except OSError:
        return False


def test_password_stands_in_its_files_alone(site: SiteProcess) -> None:
    """No log, database, artifact, parameter or manifest has it, nor its form in a header."""
    auth = site.api["PREFECT_API_AUTH_STRING"]
    needles = [auth.partition(":")[2].encode(), basic(auth).partition(" ")[2].encode()]
    found = [
        path.relative_to(site.lake).as_posix()
        for path in site.lake.rglob("*")
        if path.is_file() and any(needle in path.read_bytes() for needle in needles)
    ]
    assert sorted(found) == ["site/auth-string", "site/open.html", "site/profiles.toml"]
    assert not any(needle.decode() in site.log() for needle in needles)
    assert not any(needle.decode() in json.dumps(site.ready) for needle in needles)


def test_secret_of_notify_is_held_encrypted(site: SiteProcess) -> None:
    """The database has it in no readable form; the API tells it to whoever has the password, and says so on demand alone."""
    blocks = ask(site.api, "block_documents/filter", {})
    [block] = [block for block in blocks if block["name"].startswith("gristmill-ops-url")]
    assert HOOK not in json.dumps(blocks)
    shown = ask(site.api, f"block_documents/{block['id']}?include_secrets=true")
    assert shown["data"]["url"] == HOOK
    for path in (site.lake / "site").rglob("*"):
        assert not path.is_file() or HOOK.encode() not in path.read_bytes(), path


# --- a page in the user's browser --------------------------------------------------------------

ATTACK = """
<!doctype html><title>a page about cats</title>
<form id="form" method="post" enctype="text/plain" target="frame"><input name='{"name": "by-form", "x": "' value='"}'></form>
<iframe name="frame"></iframe><iframe id="framed"></iframe>
<script>
const json = {method: "POST", headers: {"Content-Type": "application/json"}};
async function post(target, path, body, options) {
  const answer = await fetch(`${target}/api${path}`, {...json, ...options, body: JSON.stringify(body)});
  if (!answer.ok) throw Error(answer.status);
  return answer.json();
}
async function attack(target, pool, command) {
  const done = [];
  const attempt = async (name, action) => {
    try { await action(); done.push(name); } catch (error) { }
  };
  await attempt("shell", async () => {
    const flow = await post(target, "/flows/", {name: "by-script"});
    const deployment = await post(target, "/deployments/", {
      name: "by-script", flow_id: flow.id, work_pool_name: pool, entrypoint: "x.py:f",
      pull_steps: [{"prefect.deployments.steps.run_shell_script": {script: command}}],
    });
    await post(target, `/deployments/${deployment.id}/create_flow_run`, {});
  });
  await attempt("read", async () => {
    const answer = await fetch(`${target}/api/flows/filter`, {...json, body: "{}"});
    if (!answer.ok) throw Error(answer.status);
    await answer.json();
  });
  await attempt("blind", () => fetch(`${target}/api/flows/`, {
    method: "POST", mode: "no-cors", body: new Blob([JSON.stringify({name: "by-blind"})]),
  }));
  await attempt("socket", () => new Promise((resolve, reject) => {
    const socket = new WebSocket(`${target.replace("http", "ws")}/api/events/in`);
    socket.onopen = resolve;
    socket.onerror = reject;
  }));
  const form = document.getElementById("form");
  form.action = `${target}/api/flows/`;
  form.submit();
  document.getElementById("framed").src = `${target}/v2/dashboard`;
  await new Promise(resolve => setTimeout(resolve, 3000));
  return done;
}
</script>
"""
"""What a page can send: what it may read or not, in forms that need no leave, by a websocket, and a frame to click in."""


class Foreign(BaseHTTPRequestHandler):
    """A web site of somebody else."""

    def do_GET(self) -> None:
        content = ATTACK.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def foreign() -> Iterator[str]:
    """The address of a page of another origin."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Foreign)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A browser for which rebound.example is this machine, as after DNS rebinding."""
    with open_browser("--host-resolver-rules=MAP rebound.example 127.0.0.1") as browser:
        yield browser


@pytest.fixture
def page(browser: "Browser") -> "Iterator[Page]":
    """A page with nothing in its storage."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(120_000)
    yield page
    page.close()


def entered(page: "Page", site: SiteProcess) -> None:
    """Log in by the file that `up` names."""
    page.goto(site.ready["open"])
    page.wait_for_url("**/v2/dashboard**")
    page.get_by_text("Active Work Pools").wait_for()


def names(api: dict[str, str]) -> set[str]:
    return {flow["name"] for flow in ask(api, "flows/filter", {})}


def attacked(page: "Page", foreign: str, target: str, pool: str, mark: Path) -> list[str]:
    """Open the foreign page and let it do what it can; what it says that worked."""
    page.goto(foreign)
    return page.evaluate("a => attack(...a)", [target, pool, f"touch {mark}"])


class TestFromABrowser:
    """As the user's own browser sends it, which is logged in to the site."""

    pytestmark = NEEDS_BROWSER

    def test_foreign_page_does_it_to_a_server_without_a_guard(
        self, page: "Page", foreign: str, prefect_environment: dict[str, str], tmp_path: Path
    ) -> None:
        """The attack is one."""
        target = prefect_environment["PREFECT_API_URL"].removesuffix("/api")
        ask(prefect_environment, "work_pools/", {"name": "attacked", "type": "process"})

        def all_done() -> bool:
            done = attacked(page, foreign, target, "attacked", tmp_path / "mark")
            return {"shell", "read", "socket"} <= set(done)

        wait_until(all_done, 30, "every way of the attack")
        deployment = ask(prefect_environment, "deployments/name/by-script/by-script")
        assert "touch" in json.dumps(deployment["pull_steps"])

    def test_foreign_page_does_nothing_to_a_site(
        self, page: "Page", foreign: str, site: SiteProcess, address: str, tmp_path: Path
    ) -> None:
        """Not from another port of this machine, and not with the user logged in: no flow, no run, no frame."""
        before = names(site.api)
        entered(page, site)
        done = attacked(page, foreign, address, site.ready["pool"], tmp_path / "mark")
        # A request that may not read its answer "works" as far as the page can tell.
        assert set(done) <= {"blind"}
        assert names(site.api) == before
        assert not [frame for frame in page.frames if "/v2/" in frame.url]
        assert not (tmp_path / "mark").exists()

    @pytest.mark.parametrize("path", ["/v2/dashboard", "/api/health", "/docs"])
    def test_name_that_leads_here_is_refused(self, page: "Page", address: str, path: str) -> None:
        """DNS rebinding: to the browser it is the page's own origin."""
        rebound = address.replace("127.0.0.1", "rebound.example")
        answer = page.goto(rebound + path)
        assert answer is not None and answer.status == 403
        script = "() => fetch('/api/flows/', {method: 'POST', body: '{}'}).then(a => a.status)"
        assert page.evaluate(script) == 403

    def test_name_that_leads_here_works_without_a_guard(
        self, page: "Page", prefect_environment: dict[str, str]
    ) -> None:
        """The attack is one."""
        target = prefect_environment["PREFECT_API_URL"].replace("127.0.0.1", "rebound.example")
        page.goto(f"{target}/health")
        assert page.evaluate("() => fetch('/api/health').then(a => a.status)") == 200

    def test_password_is_asked_for_and_taken(
        self, page: "Page", site: SiteProcess, address: str
    ) -> None:
        """Typed, as from another machine; the page works by another name and port, as through `ssh -L`, too."""
        page.goto(f"{address.replace('127.0.0.1', 'localhost')}/v2/dashboard")
        page.wait_for_url("**/login**")
        field = page.locator("input[type=password]")
        field.fill("gristmill:wrong")
        page.get_by_role("button", name="Login").click()
        page.get_by_text("Invalid credentials").wait_for()
        field.fill(site.api["PREFECT_API_AUTH_STRING"])
        page.get_by_role("button", name="Login").click()
        page.get_by_text(site.ready["pool"]).wait_for()

    def test_pages_ask_no_other_host(self, page: "Page", site: SiteProcess, address: str) -> None:
        """Both UIs: analytics, fonts, pictures; their own scripts are stopped by nothing."""
        requests: list[str] = []
        stopped: list[Any] = []
        page.on("request", lambda request: requests.append(request.url))
        page.expose_function("stopped", lambda what: stopped.append(what))
        page.add_init_script(
            "document.addEventListener('securitypolicyviolation', "
            "event => stopped([event.effectiveDirective, event.blockedURI]))"
        )
        entered(page, site)
        build, *_ = site.runs("build-corpus")
        [card] = ask(
            site.api,
            "artifacts/latest/filter",
            {"artifacts": {"key": {"any_": ["corpus-card-tiny"]}}},
        )
        paths = {
            f"/runs/flow-run/{build['id']}": "tiny@1 promoted",
            f"/artifacts/artifact/{card['latest_id']}": "What became of what was read",
            "/automations": "tiny: train on a fresh snapshot",
            "/settings": "Settings",
        }
        for path, text in paths.items():
            for version in ("/v2", ""):
                page.goto(address + version + path)
                page.get_by_text(text).first.wait_for()
                page.wait_for_load_state("networkidle")
        hosts = {urlsplit(url).netloc for url in requests if url.startswith(("http", "ws"))}
        assert hosts == {urlsplit(address).netloc}
        wait_until(lambda: stopped, 60, "the analytics to be stopped")
        assert {what for what, _ in stopped} == {"connect-src"}
