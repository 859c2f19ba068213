"""What deployments, automations and blocks on a Prefect server have in common: marks of ours, pages, fingerprints."""

import json
from hashlib import blake2b
from typing import Any

from prefect.client.orchestration import SyncPrefectClient

DEPLOYMENT_TAG = "gristmill"
"""On every deployment and automation that is ours, and so on every flow run."""


def read_all(
    client: SyncPrefectClient, path: str, question: dict[str, Any]
) -> list[dict[str, Any]]:
    """Every page of a filter."""
    rows: list[dict[str, Any]] = []
    while True:
        page = client.request("POST", path, json={**question, "limit": 200, "offset": len(rows)})
        found = page.json()
        rows += found
        if len(found) < 200:
            return rows


def fingerprint(value: Any) -> str:
    """12 hex digits of what was asked for, so that it need not be compared with how the server shows it."""
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=6).hexdigest()
