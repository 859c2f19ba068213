"""What tests ask a Prefect server, without importing Prefect."""

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

PATIENCE = 5
"""How many times longer than usual anything may take before it counts as failed: the machine may be busy, and SQLite's
lock holds a server up for a minute. No test measures time; waiting only ends."""


def ask(
    environment: Mapping[str, str], path: str, question: Any = None, *, method: str | None = None
) -> Any:
    """One POST to the server's API, or without a question one GET; or another method."""
    headers = {"Content-Type": "application/json"}
    if auth := environment.get("PREFECT_API_AUTH_STRING"):
        headers["Authorization"] = f"Basic {base64.b64encode(auth.encode()).decode()}"
    request = urllib.request.Request(
        f"{environment['PREFECT_API_URL']}/{path}",
        None if question is None else json.dumps(question).encode(),
        headers,
        method=method,
    )
    for _ in range(120):
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            if error.code != 503:  # its database is busy
                raise
            time.sleep(0.5)
    raise AssertionError(f"{path}: the server was busy for 60 s")


def events(
    environment: Mapping[str, str], least: int, prefix: str = "gristmill."
) -> list[dict[str, Any]]:
    """Our events, waited for a while: the server stores them in the background."""
    question = {"filter": {"event": {"prefix": [prefix]}}, "limit": 50}
    found: list[dict[str, Any]] = []
    for _ in range(50 * PATIENCE):
        found = ask(environment, "events/filter", question)["events"]
        if len(found) >= least:
            break
        time.sleep(0.2)
    return found


def newest_runs(environment: Mapping[str, str], number: int) -> list[dict[str, Any]]:
    """The flow runs that began last, newest first; not those that are only scheduled, of whoever used the server."""
    begun = {"flow_runs": {"start_time": {"is_null_": False}}, "sort": "START_TIME_DESC"}
    return ask(environment, "flow_runs/filter", begun | {"limit": number})


def newest_run(environment: Mapping[str, str]) -> dict[str, Any]:
    """The flow run that began last."""
    return newest_runs(environment, 1)[0]


def wait_until(is_true: Callable[[], Any], seconds: float, what: str = "it") -> Any:
    """Wait until `is_true()` is, and return what it gave; `seconds` is about what it takes at most."""
    end = time.monotonic() + PATIENCE * seconds
    while not (found := is_true()):
        assert time.monotonic() < end, f"waited {PATIENCE * seconds} s for {what}, in vain"
        time.sleep(0.05)
    return found
