"""`gristmill up`: a Prefect server, a worker and what they need, kept running until a signal, and nothing left after it.

The site watches three things: its two programs (started again when they die), its recipes (deployed again when they
change), and the lake (work that nobody is at is started again, `flows.reconcile`).
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.config import Recipe
from flows.output import Output
from flows.program_log import ProgramLog, how_it_ended
from flows.recipe import find_recipe, load_recipe
from flows.server import check_password, prefect_answers
from flows.site_port import close, keep_port
from flows.site_processes import PARENT_VARIABLE, SiteProcess, end_processes
from flows.site_secret import (
    auth_file,
    auth_string,
    entrance_file,
    keep_private,
    site_folder,
    write_entrance,
    write_private,
)
from flows.site_settings import (
    SiteOptions,
    check_address,
    check_database,
    database_files,
    environment,
    settings,
    ui_url,
    write_profile,
)
from pipeline.display import duration
from storage.errors import ConfigError, GristmillError
from storage.lake import Lake
from storage.times import now

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

START_S = 180
"""Time for the server's first answer; the tables of an empty database take half a minute on a busy machine."""

MAX_LOG_BYTES = 20 * 10**6
"""A log larger than this is put aside as `.1` when its program starts."""

RECONCILE_S, DEPLOY_S = 10.0, 60.0
"""Seconds between two looks at the lake, and between two comparisons of the deployments."""


def load_recipes(names: Sequence[str]) -> dict[str, Recipe]:
    """Absolute path -> recipe. Raises ConfigError if one is wrong, or if two build the same corpus."""
    recipes: dict[str, Recipe] = {}
    for name in names:
        recipes[str(find_recipe(name).absolute())] = load_recipe(name)
    corpora = [recipe.build.name for recipe in recipes.values()]
    for corpus in corpora:
        if corpora.count(corpus) > 1:
            raise ConfigError(f"two recipes build the corpus '{corpus}'; give one another name")
    return recipes


def pool_name(lake: Lake) -> str:
    """The work pool of a lake's site; another lake's worker must never take its runs."""
    folder = re.sub(r"[^a-z0-9]+", "-", lake.url.lower()).strip("-").rpartition("-")[2]
    return f"gristmill-{folder}-{blake2b(lake.url.encode(), digest_size=3).hexdigest()}"


@dataclass
class Program:
    """A program of the site; started again, ever later, when it ends by itself."""

    name: str
    arguments: list[str]
    """A Python module and its arguments."""
    folder: Path
    process: "subprocess.Popen[bytes] | None" = None
    starts: list[float] = field(default_factory=list)
    log: ProgramLog = field(init=False)

    def __post_init__(self) -> None:
        self.log = ProgramLog(self.folder / f"{self.name}.log")

    def start(self) -> None:
        """Start it, bound to this process."""
        path = self.log.path
        if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        self.log.begin()
        self.starts.append(time.monotonic())
        path.touch(mode=0o600)
        with path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "flows.child", self.name, *self.arguments],
                env={**os.environ, PARENT_VARIABLE: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal is for the site alone
            )

    @property
    def is_running(self) -> bool:
        """Whether it runs; asked every second or so, which is also how its log is followed."""
        self.log.look()
        return self.process is not None and self.process.poll() is None

    @property
    def is_due(self) -> bool:
        """Whether it may be started again: after 1, 2, 4 ... 30 s, and at once after an hour of work."""
        recent = [start for start in self.starts if time.monotonic() - start < 3600]
        return not recent or time.monotonic() - recent[-1] > min(2.0 ** (len(recent) - 1), 30.0)

    def how_it_ended(self) -> str:
        """Its exit code, and what its log says of it."""
        return how_it_ended(self.process.returncode if self.process else None, self.log)

    def stop(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL after the grace time."""
        if self.process is None:
            return
        if self.is_running:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(grace_s)
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


class Site:
    """What `gristmill up` keeps running."""

    def __init__(
        self, output: Output, lake: Lake, recipes: Mapping[str, Recipe], options: SiteOptions
    ) -> None:
        """Take what is to run; nothing starts yet."""
        self.output, self.lake, self.options = output, lake, options
        self.recipes = dict(recipes)
        self.texts = {path: _text(path) for path in recipes}
        self.folder, self.pool = site_folder(lake), pool_name(lake)
        self.locks = lake.locks
        self.since = now()
        self.foreign_url = os.environ.get("PREFECT_API_URL", "")
        self.api_url = self.foreign_url or options.api_url
        server = ["flows.site_server", "start", "--host", options.host, "--port", str(options.port)]
        origins = [word for origin in options.origins for word in ("--origin", origin)]
        self.server = Program("server", [*server, *origins], self.folder)
        # The same name each time: the UI shows one worker, not one for each start.
        pool = ["--pool", self.pool, "--type", "process", "--name", socket.gethostname()]
        self.worker = Program("worker", ["prefect", "worker", "start", *pool], self.folder)
        self.database: tuple[int, int] | None = None
        self.is_new_server = False
        self.told: list[str] = []
        self.silent_since: float | None = None
        self.held: list[socket.socket] = []

    def check(self) -> None:
        """Refuse what cannot work. Raises ConfigError."""
        if self.foreign_url:
            if not prefect_answers(self.foreign_url, 5.0):
                raise ConfigError(
                    f"PREFECT_API_URL={self.foreign_url}: expected a Prefect server there, got no answer; "
                    "start it, or unset the variable to have one started here"
                )
            return
        check_address(self.options)
        check_database(self.options.database, self.folder)

    def start(self) -> None:
        """Start what is missing, and deploy. Raises GristmillError if the server does not come up."""
        for line in keep_private(self.folder, database_files(self.options.database)):
            self.output.note(line)
        if self.foreign_url:
            write_profile(self.folder, settings(self.folder, None))
        else:
            auth = auth_string(self.folder)
            write_profile(self.folder, settings(self.folder, self.options, auth))
            self.held = keep_port(self.options.host, self.options.port)
            write_entrance(self.folder, self.api_url.removesuffix("/api"), auth)
        os.environ.update(environment(self.folder))
        if self.foreign_url:
            check_password(self.foreign_url)
        else:
            self._start_server()
        self._deploy()
        began = datetime.now(UTC)
        self.worker.start()
        self._wait(lambda: self._worker_is_online(began), self.worker, 60)

    def build_now(self) -> None:
        """Start a build of every recipe, over and above the schedules."""
        with _client() as client:
            for recipe in self.recipes.values():
                deployment = client.read_deployment_by_name(f"build-corpus/{recipe.build.name}")
                run = client.create_flow_run_from_deployment(deployment.id, tags=["now"])
                self.output.note(f"building '{recipe.build.name}': {self._run_url(str(run.id))}")

    def watch(self) -> None:
        """Keep everything running; returns never, except through KeyboardInterrupt."""
        next_look, next_deploy = 0.0, time.monotonic() + DEPLOY_S
        while True:
            self._keep_running()
            if self._recipes_changed() or time.monotonic() > next_deploy:
                self._through_outages(self._deploy)
                next_deploy = time.monotonic() + DEPLOY_S
            if time.monotonic() > next_look:
                self._through_outages(self._reconcile)
                next_look = time.monotonic() + RECONCILE_S
            time.sleep(1.0)

    def stop(self) -> list[SiteProcess]:
        """Stop running work in order, then the worker, then the server; returns what is left all the same.

        The worker lives on while runs end: it tells the server how they did.
        """
        with suppress(OSError):  # it only informs
            self.write_description("stopping")
        left = end_processes(self.locks, self.output.note)
        for program in (self.worker, self.server):
            program.stop(10.0)  # has ended already where processes can be found
        close(self.held)
        return left

    def describe(self, state: str = "running") -> dict[str, Any]:
        """What `gristmill status` reads from the site's file; `state`: starting, running or stopping."""
        return {
            "state": state,
            "api_url": self.api_url,
            "ui": ui_url(self.api_url),
            "open": None if self.foreign_url else entrance_file(self.folder).as_uri(),
            "auth_file": None if self.foreign_url else str(auth_file(self.folder)),
            "lake": self.lake.url,
            "pool": self.pool,
            "recipes": list(self.recipes),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": self.since,
            "server_pid": self.server.process.pid if self.server.process else None,
            "worker_pid": self.worker.process.pid if self.worker.process else None,
        }

    def write_description(self, state: str = "running") -> None:
        """Write the site's file."""
        write_private(
            self.folder / "site.json", json.dumps(self.describe(state), indent=1, sort_keys=True)
        )

    # --- programs ------------------------------------------------------------------------------

    def _start_server(self) -> None:
        self.server.start()
        import prefect.client.orchestration  # noqa: F401  late, and now: the second it takes is the server's, too

        self._wait(lambda: prefect_answers(self.api_url, 1.0), self.server, START_S)
        self.database = self._database_file()

    def _wait(self, is_there: Callable[[], bool], program: Program, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not is_there():
            if not program.is_running:
                raise GristmillError(f"the {program.name} did not start: {program.how_it_ended()}")
            if time.monotonic() > end:
                raise GristmillError(
                    f"the {program.name} did not answer within {seconds:.0f} s; see {program.log.path}"
                )
            time.sleep(0.1)

    def _worker_is_online(self, since: datetime) -> bool:
        from flows.remote import call  # late: prefect

        with _client() as client:
            workers = call(client, "POST", f"/work_pools/{self.pool}/workers/filter", {})
        seen = (
            row["last_heartbeat_time"] for row in workers if row["name"] == socket.gethostname()
        )
        return any(datetime.fromisoformat(moment) >= since for moment in seen)

    def _keep_running(self) -> None:
        programs = (self.worker,) if self.foreign_url else (self.server, self.worker)
        if self.server.is_running and self._database_file() != self.database:
            self.output.note(
                "Prefect's database is gone; starting the server with a new one "
                "(it held the history of runs; corpora and models are in the lake)"
            )
            self.server.stop(10.0)
            self.server.starts.clear()
        for program in programs:
            if program.is_running or not program.is_due:
                continue
            self.output.note(f"the {program.name} has ended ({program.how_it_ended()})")
            if program is self.server:
                self._through_outages(self._start_server)
                self._through_outages(self._deploy)
            else:
                program.start()
            self.write_description()

    def _database_file(self) -> tuple[int, int] | None:
        """Which file SQLite's database is, None if it is in no file of ours."""
        if self.options.database:
            return None
        with suppress(OSError):
            found = (self.folder / "prefect.db").stat()
            return found.st_dev, found.st_ino
        return (0, 0)

    # --- deployments and runs ------------------------------------------------------------------

    def _recipes_changed(self) -> bool:
        """Read recipes that were edited; a broken one leaves what is deployed as it is."""
        changed = False
        for path, text in self.texts.items():
            if (new := _text(path)) == text:
                continue
            self.texts[path] = new
            try:
                self.recipes |= load_recipes([path])
            except GristmillError as error:
                self.output.note(f"{path} was changed and is not used until it is right: {error}")
                continue
            self.output.note(f"{path} was changed; the next run uses it")
            changed = True
        return changed

    def _deploy(self) -> None:
        from flows.deployments import deploy  # late: prefect
        from flows.remote import call  # late: prefect

        with _client() as client:
            question = {"work_pools": {"name": {"any_": [self.pool]}}}
            self.is_new_server |= not call(client, "POST", "/work_pools/filter", question)
        lines = deploy(self.lake, self.recipes, self.pool)
        for line in lines:
            if line not in self.told:  # what is missing is told at every call
                self.output.note(line)
        self.told = lines

    def _reconcile(self) -> None:
        from flows.reconcile import reconcile  # late: prefect

        with _client() as client:
            for line in reconcile(
                client,
                self.lake,
                self.recipes,
                self.pool,
                began=datetime.fromisoformat(self.since),
                is_new_server=self.is_new_server,
            ):
                self.output.note(line)
        self.is_new_server = False

    def _through_outages(self, action: Callable[[], None]) -> None:
        """Do it, unless the server is away; said once an outage."""
        import httpx  # late, with prefect

        try:
            action()
        except (httpx.HTTPError, GristmillError, OSError) as error:
            if self.silent_since is None:
                self.silent_since = time.monotonic()
                self.output.note(f"the server is not at work: {type(error).__name__}: {error}")
            return
        if self.silent_since is not None:
            away = duration(time.monotonic() - self.silent_since)
            self.output.note(f"the server is at work again, after {away}")
            self.silent_since = None

    def _run_url(self, run: str) -> str:
        return f"{ui_url(self.api_url).removesuffix('dashboard')}runs/flow-run/{run}"


def _client() -> "SyncPrefectClient":
    from prefect.client.orchestration import get_client  # late: prefect takes more than a second

    return get_client(sync_client=True)


def _text(path: str) -> str | None:
    with suppress(OSError, UnicodeDecodeError):
        return Path(path).read_text("utf-8")
    return None
