"""What deployments, automations and blocks on a Prefect server have in common: marks of ours, pages, fingerprints."""

import json
from hashlib import blake2b
from typing import Any, cast

from prefect.client.orchestration import SyncPrefectClient

DEPLOYMENT_TAG = "gristmill"
"""On every deployment and automation that is ours, and so on every flow run."""


def call(client: SyncPrefectClient, method: Any, path: str, body: Any = None) -> Any:
    """One request and its JSON answer, if it has one. Raises httpx.HTTPError."""
    # Any: the client's type lists routes before their ids are filled in.
    answer = client.request(method, cast(Any, path), json=body)
    return answer.json() if answer.content else None


def read_all(
    client: SyncPrefectClient, path: str, question: dict[str, Any]
) -> list[dict[str, Any]]:
    """Every page of a filter."""
    rows: list[dict[str, Any]] = []
    while True:
        found = call(client, "POST", path, {**question, "limit": 200, "offset": len(rows)})
        rows += found
        if len(found) < 200:
            return rows


def fingerprint(value: Any) -> str:
    """12 hex digits of what was asked for, so that it need not be compared with how the server shows it."""
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=6).hexdigest()
