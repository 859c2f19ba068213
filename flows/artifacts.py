"""Cards, shown in Prefect and kept in the lake: the same markdown in both.

A key stands for one kind of card of one corpus, so that the UI shows the cards of its days as a history. Within a flow
run a card is one artifact, which a refresh changes in place: Prefect's own client would write an event with the whole
text at each refresh, and the database would grow by it all night.
"""

import re
import time
from collections.abc import Callable
from typing import Any, Literal

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import MissingContextError, PrefectException
from prefect.logging import get_logger, get_run_logger
from prefect.runtime import flow_run, task_run
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from storage.lake import Lake

CARD_S = 30.0
"""Least time between two refreshes of a training card."""
PROGRESS_S = 10.0
"""Least time between two refreshes of a progress card."""

_TIMEOUT_S = 10.0
_WAITS_S = (1, 2, 4, 8, 16, 30)
"""Between attempts to show a last card. The client's own retries are off: they hold up a build that has long gone on."""
_SHARE = 0.02
"""Of the time run so far, the least time between two refreshes: a night of eight hours costs about 200."""

Kind = Literal["corpus-card", "training-card", "evaluation-card", "progress"]


def card_key(kind: Kind, corpus: str) -> str:
    """The artifact's key: lowercase letters, digits and dashes, as Prefect wants it."""
    return f"{kind}-" + re.sub(r"[^a-z0-9]+", "-", corpus.lower()).strip("-")


def publish_card(
    lake: Lake,
    key: str,
    markdown: str,
    description: str,
    path: str | None = None,
    *,
    is_refresh: bool = False,
) -> None:
    """Write a card to `path` in the lake, and show it in Prefect under `key`, in place of this flow run's earlier one.

    Raises LakeError as every writing does. A server that does not take it is asked again for about a minute, after
    which that is logged: it ends no work. With `is_refresh` a later card will follow this one, so it is asked once.
    """
    if path is not None:
        lake.write_bytes(path, markdown.encode())
    waits_s = () if is_refresh else _WAITS_S
    for wait_s in (*waits_s, None):
        try:
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
                _show(key, markdown, description)
        except (httpx.HTTPError, OSError, PrefectException) as error:
            if wait_s is not None and not _is_refusal(error):
                time.sleep(wait_s)
                continue
            _logger().warning(
                f"{key}: the Prefect server did not take the card ({type(error).__name__}: {error}); "
                + (f"it is in the lake as {path}" if path else "the next one is tried again")
            )
        return


def _is_refusal(error: Exception) -> bool:
    """Whether the server answered that it never will, so that there is no use in asking again."""
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500


def _show(key: str, markdown: str, description: str) -> None:
    made_by = flow_run.get_id()
    with get_client(sync_client=True, httpx_settings={"timeout": _TIMEOUT_S}) as client:
        body: dict[str, Any] = {"data": markdown, "description": description}
        if (known := _artifact(client, key, made_by)) is not None:
            client.request("PATCH", "/artifacts/{id}", path_params={"id": known}, json=body)
        else:
            runs = {"flow_run_id": made_by, "task_run_id": task_run.get_id()}
            body |= {"type": "markdown", "key": key} | {k: v for k, v in runs.items() if v}
            client.request("POST", "/artifacts/", json=body)


def _artifact(client: Any, key: str, made_by: str | None) -> str | None:
    """Id of the artifact that this flow run has made under the key; asked, since it may have been another process."""
    if made_by is None:
        return None
    question = {
        "artifacts": {"key": {"any_": [key]}, "flow_run_id": {"any_": [made_by]}},
        "limit": 1,
    }
    found = client.request("POST", "/artifacts/filter", json=question).json()
    return found[0]["id"] if found else None


def _logger() -> Any:
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger(__name__)


class Throttle:
    """Says when a refresh is due: at once, then at least `least_s` seconds and 2 % of the time so far after the last."""

    def __init__(self, least_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._least_s, self._clock = least_s, clock
        self._began = clock()
        self._due = self._began

    def is_due(self) -> bool:
        """Whether to refresh now; if so, the next one is due later."""
        now = self._clock()
        if now < self._due:
            return False
        self._due = now + max(self._least_s, _SHARE * (now - self._began))
        return True
