"""A site's place and its Prefect settings: a folder in the lake with a profile of its own, and what is refused at once.

`PREFECT_HOME=<folder> prefect ...` is all it takes to use the site with Prefect's own commands.
"""

import json
import socket
import sqlite3
import urllib.parse
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import requires, version
from pathlib import Path

from packaging.requirements import Requirement

from flows.server import prefect_answers
from flows.site_secret import CLIENT_AUTH, SERVER_AUTH, site_auth, write_private
from storage.errors import ConfigError

DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"

HEARTBEAT_S = 30
"""The shortest that Prefect allows; three missed ones are a dead run."""


@dataclass(frozen=True, kw_only=True)
class SiteOptions:
    """Where a site's server listens and keeps its state."""

    host: str = "127.0.0.1"
    port: int = 4200
    database: str = ""
    """A URL such as postgresql+asyncpg://user:password@host/name; empty: SQLite in the site's folder."""
    origins: tuple[str, ...] = ()
    """Where browsers may find the site, too, such as https://mill.example.org behind a proxy."""

    def __post_init__(self) -> None:
        for origin in self.origins:
            if not _is_origin(origin):
                raise ConfigError(
                    f"--origin: expected http(s)://name or http(s)://name:port, got {origin!r}"
                )

    @property
    def api_url(self) -> str:
        """Where clients on this machine reach the server."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "localhost") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/api"


def _is_origin(text: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(text)
        has_name = bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
    except ValueError:  # a port that is not a number, half an address
        return False
    return (
        has_name
        and text == f"{parts.scheme}://{parts.netloc}"
        and parts.scheme in ("http", "https")
    )


def own_origins(options: SiteOptions) -> tuple[str, ...]:
    """Where pages of the site may come from: the address it listens on, and what the user says."""
    return (
        options.api_url.removesuffix("/api"),
        f"http://localhost:{options.port}",
        *options.origins,
    )


def ui_url(api_url: str) -> str:
    """The first page for people; Prefect serves two UIs, and deep links without /v2/ open the older one."""
    return f"{api_url.removesuffix('/').removesuffix('/api')}/v2/dashboard"


def settings(folder: Path, options: SiteOptions | None, auth: str = "") -> dict[str, str]:
    """Prefect's settings for everything that the site starts; `options` None: a server that runs elsewhere.

    `auth` is the user:password of the site's own server and of its clients.
    """
    values = {
        "PREFECT_LOCAL_STORAGE_PATH": str(folder / "storage"),
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        # What the pure packages log shows in the UI.
        "PREFECT_LOGGING_EXTRA_LOGGERS": "pipeline,storage,model",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        # A server that restarts, or a database that is locked for a minute, must not end a build.
        "PREFECT_CLIENT_MAX_RETRIES": "12",
        "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500,502,504",
    }
    if options is None:
        return values
    return values | {
        "PREFECT_API_URL": options.api_url,
        "PREFECT_SERVER_API_HOST": options.host,
        "PREFECT_SERVER_API_PORT": str(options.port),
        SERVER_AUTH: auth,
        CLIENT_AUTH: auth,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(own_origins(options)),
        # A browser has to ask the address that it loaded the page from, whatever the site is called there.
        "PREFECT_SERVER_UI_API_URL": "/api",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        DATABASE: options.database or f"sqlite+aiosqlite:///{folder / 'prefect.db'}",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "90",
        "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "90",
        # In memory, a restart of the server would end every run that holds a concurrency slot.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_SCHEDULER_MAX_SCHEDULED_TIME": "P14D",
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "5",
    }


def write_profile(folder: Path, values: Mapping[str, str]) -> None:
    """Write the site's settings as a Prefect profile, readable by its owner alone: it holds passwords."""
    lines = ['active = "gristmill"', "", "[profiles.gristmill]"]
    # A JSON string is a TOML string, too.
    lines += [f"{key} = {json.dumps(value)}" for key, value in sorted(values.items())]
    write_private(folder / "profiles.toml", "\n".join(lines) + "\n")


def environment(folder: Path) -> dict[str, str]:
    """What a process needs in its environment to use the site's profile.

    An own PREFECT_... of the user still counts, except for the password of the site's own server.
    """
    return {
        "PREFECT_HOME": str(folder),
        "PREFECT_PROFILES_PATH": str(folder / "profiles.toml"),
        "PREFECT_PROFILE": "gristmill",
        "DO_NOT_TRACK": "1",
    } | site_auth(folder)


# --- what is refused before anything starts ----------------------------------------------------


def check_versions() -> None:
    """Raise ConfigError unless the packages that decide whether Prefect works have versions that do."""
    for text in requires("gristmill") or []:
        wanted = Requirement(text)
        if wanted.name not in ("prefect", "fastapi", "sqlalchemy") or wanted.marker:
            continue
        found = version(wanted.name)
        if not wanted.specifier.contains(found, prereleases=True):
            raise ConfigError(
                f"{wanted.name} {found}: expected {wanted.specifier}; with others Prefect's server crashes, or its "
                f"scheduler silently starts no runs: pip install '{wanted.name}{wanted.specifier}'"
            )


def check_address(options: SiteOptions) -> None:
    """Raise ConfigError if the server cannot listen there."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((options.host, options.port))
        except OSError as error:
            if prefect_answers(options.api_url, 1.0):
                raise ConfigError(
                    f"port {options.port}: a Prefect server listens there already; "
                    f"set PREFECT_API_URL={options.api_url} to use it, or choose another --port"
                ) from error
            raise ConfigError(
                f"{options.host}:{options.port}: cannot listen there: {error.strerror}; choose another --port"
            ) from error


def check_database(url: str, folder: Path) -> None:
    """Raise ConfigError if the database does not answer; its password never appears in a message."""
    scheme = url.partition("://")[0]
    if not url or scheme == "sqlite+aiosqlite":
        _check_sqlite(folder / "prefect.db" if not url else Path(url.partition(":///")[2]))
    elif scheme == "postgresql+asyncpg":
        _check_postgres(url)
    else:
        raise ConfigError(
            f"--database: expected postgresql+asyncpg://user:password@host/name or sqlite+aiosqlite:///path, got {scheme}://..."
        )


def database_files(url: str) -> list[Path]:
    """Files of a SQLite database that lies where the user wants it; it holds secrets wherever it lies."""
    if not url.startswith("sqlite+aiosqlite:///"):
        return []
    path = url.partition(":///")[2]
    return [Path(path + end) for end in ("", "-wal", "-shm", "-journal")]


def _check_sqlite(path: Path) -> None:
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(path, timeout=1)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:  # locked: Prefect waits for it
        return
    except sqlite3.DatabaseError as error:
        raise ConfigError(
            f"{path}: expected Prefect's database, got something else ({error}); it holds the history of runs and nothing "
            "about data: move it away, and a new one is made"
        ) from error


def _check_postgres(url: str) -> None:
    import asyncio  # late, like asyncpg: most sites use SQLite

    import asyncpg

    parts = urllib.parse.urlsplit(url)
    shown = f"{parts.hostname}:{parts.port or 5432}{parts.path}"

    async def connect() -> None:
        connection = await asyncpg.connect(url.replace("+asyncpg", "", 1), timeout=10)
        await connection.close()

    try:
        asyncio.run(connect())
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise ConfigError(
            f"--database: no answer from {shown}: {str(error) or type(error).__name__}; start it, or correct the URL"
        ) from error
