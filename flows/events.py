"""What happened, told to Prefect once: the events that automations wait for.

An event has an id made from what it tells, and a record in the lake once the server has taken it. So an event whose
sender was killed is sent again by whoever looks next (`send` is safe to repeat), and the server knows a second copy.
"""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import httpx
from prefect.client.orchestration import get_client

from storage.errors import GristmillError
from storage.lake import Lake
from storage.published import after_publishing

SNAPSHOT_PROMOTED = "gristmill.snapshot.promoted"
"""A snapshot with new content passed its gates; subject: its hash. Training on fresh snapshots waits for it."""
SNAPSHOT_QUARANTINED = "gristmill.snapshot.quarantined"
"""A gate refused a snapshot; subject: its hash."""
SOURCE_GONE = "gristmill.source.gone"
"""A source that earlier snapshots read from matches nothing now; subject: the source and the newest snapshot's hash."""
RUN_FINISHED = "gristmill.run.finished"
"""A training run is done; subject: the run's name and hash."""
RELEASE_PROMOTED = "gristmill.release.promoted"
"""A trained model became the corpus's release; subject: the release's number and run."""
RELEASE_REFUSED = "gristmill.release.refused"
"""A trained model was worse than the release before it; subject: the run's name and hash."""

SENT_AGAIN = "'gristmill up' sends what is missing again"
"""What to do about an event that the server did not take."""


def resource_id(event: str, corpus: str) -> str:
    """The Prefect resource that an event is about: `gristmill.snapshot.<corpus>`, `gristmill.run.<corpus>`, ..."""
    return f"{event.rsplit('.', 1)[0]}.{corpus}"


def event_id(lake: Lake, event: str, corpus: str, subject: str) -> UUID:
    """The same for the same news about the same lake, whoever tells it and how often."""
    return uuid5(NAMESPACE_URL, " ".join(("gristmill", lake.url, event, corpus, subject)))


def was_sent(lake: Lake, event: str, corpus: str, subject: str) -> bool:
    """Whether a server has taken this event."""
    return lake.exists(_record(corpus, event_id(lake, event, corpus, subject)))


def send(
    lake: Lake,
    event: str,
    corpus: str,
    subject: str,
    payload: dict[str, Any],
    *,
    again: bool = False,
) -> bool:
    """Tell the Prefect server that answers at PREFECT_API_URL; False if it was told before and `again` is not asked.

    `payload` gets `corpus` and `lake` added; automations match them as labels of the resource, too. Returns once the
    server has taken the event. Raises GristmillError if it does not.
    """
    name = event_id(lake, event, corpus, subject)
    if not again and lake.exists(_record(corpus, name)):
        return False
    body = {
        "id": str(name),
        "occurred": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
        "event": event,
        "resource": {
            "prefect.resource.id": resource_id(event, corpus),
            "prefect.resource.name": payload.get("snapshot") or corpus,
            "gristmill.lake": lake.url,
        },
        "payload": payload | {"corpus": corpus, "lake": lake.url},
    }
    try:
        with get_client(sync_client=True) as client:
            client.request("POST", "/events", json=[body])
    except (httpx.HTTPError, OSError) as error:
        raise GristmillError(
            f"{event} of {corpus}: the Prefect server did not take it ({type(error).__name__}: {error}); "
            f"the lake is as it should be, and {SENT_AGAIN}"
        ) from error
    with after_publishing(
        "noting that the event was sent", "it is sent once more, with the same id"
    ):
        lake.write_bytes(_record(corpus, name), json.dumps(body, indent=1, sort_keys=True).encode())
    return True


def _record(corpus: str, name: UUID) -> str:
    return f"corpora/{corpus}/events/{name}.json"
