"""Is there a Prefect server to run through? Asked without importing Prefect, which takes a second by itself."""

import os
import urllib.error
import urllib.request

from flows.output import Output
from flows.site_secret import CLIENT_AUTH, auth_for
from storage.errors import ConfigError
from storage.lake import Lake

DEFAULT_API_URL = "http://127.0.0.1:4200/api"
"""Where `prefect server start` listens."""

HEALTH_TIMEOUT_S = 0.2
"""A server on this machine answers in milliseconds; nobody should wait longer to start without one."""


def prefect_answers(api_url: str, timeout_s: float = HEALTH_TIMEOUT_S) -> bool:
    """Whether a Prefect API answers there: `/health` is open even where all else needs a password."""
    if not api_url.startswith(("http://", "https://")):
        return False
    try:
        with urllib.request.urlopen(f"{api_url.rstrip('/')}/health", timeout=timeout_s) as answer:
            return answer.status == 200
    except (OSError, ValueError, urllib.error.URLError):  # refused, too slow, or no address at all
        return False


def use_prefect(output: Output, flow: bool | None, lake: Lake | None = None) -> bool:
    """Whether to go through Prefect: `flow` as asked, or None to do so exactly if PREFECT_API_URL answers.

    The server of the running site of `lake` is sent the site's password. Raises ConfigError if a server does not take
    the password it gets, and with `flow` if there is no server: the one that Prefect would start by itself for one run
    takes half a minute, often fails on a busy machine, and shows nothing afterwards.
    """
    if flow is False:
        return False
    api_url = os.environ.get("PREFECT_API_URL", "")
    if flow is None and not api_url:
        return False
    # Asked for, the server may be slow once; unasked, nobody waits for it.
    timeout_s = HEALTH_TIMEOUT_S if flow is None else 10 * HEALTH_TIMEOUT_S
    if prefect_answers(api_url or DEFAULT_API_URL, timeout_s):
        os.environ["PREFECT_API_URL"] = api_url or DEFAULT_API_URL
        # Read when Prefect is imported. The packages' own log lines belong to a flow run; outside of one nobody asked.
        os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "storage,pipeline,model")
        os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
        if output.quiet:  # the server still gets every line
            os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "ERROR")
        given = os.environ.keys() & {CLIENT_AUTH, "PREFECT_API_KEY"}
        if lake and not given and (auth := auth_for(lake, os.environ["PREFECT_API_URL"])):
            os.environ[CLIENT_AUTH] = auth
        check_password(os.environ["PREFECT_API_URL"])
        return True
    if flow is None:
        output.note(f"no Prefect server answers at PREFECT_API_URL={api_url}; going on without it")
        return False
    raise ConfigError(
        f"--flow: no Prefect server answers at {api_url or DEFAULT_API_URL}; start one with 'prefect server start' "
        "(and name it in PREFECT_API_URL if it is elsewhere), or leave --flow out: the same work is done without one"
    )


def check_password(api_url: str) -> None:
    """Raise ConfigError if the server at PREFECT_API_URL asks for a password and does not take ours."""
    if not _asks_for_password(api_url):
        return
    import httpx  # late: Prefect takes a second; only it knows all places where a password may be set
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            client.api_version()
    except httpx.HTTPStatusError as error:
        if error.response.status_code in (401, 403):
            raise ConfigError(
                f"PREFECT_API_URL={api_url}: expected {CLIENT_AUTH}=user:password (or PREFECT_API_KEY) that the server "
                "there takes, got none or another one; that of a site stands in LAKE/site/auth-string"
            ) from None
        raise


def _asks_for_password(api_url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api_url.rstrip('/')}/admin/version", timeout=10):
            return False
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)
    except (OSError, ValueError):  # whoever needs the server next says what is wrong with it
        return False
