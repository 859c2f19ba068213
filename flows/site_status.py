"""What the server of a site knows: deployments with their last and next runs, workers, automations."""

import os
from datetime import datetime
from pathlib import Path
from typing import Any

from flows.site_settings import environment
from storage.times import utc

BEGUN = {
    "flow_runs": {"start_time": {"is_null_": False}},
    "sort": "START_TIME_DESC",
    "limit": 1,
}
UPCOMING = {
    "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    "sort": "NEXT_SCHEDULED_START_TIME_ASC",
    "limit": 1,
}


def site_status(folder: Path, site: dict[str, Any]) -> dict[str, Any]:
    """Ask the server of a running site, with the site's own settings."""
    os.environ.update(environment(folder))
    os.environ["PREFECT_API_URL"] = site["api_url"]
    # late: they read the environment just set
    from prefect.client.orchestration import get_client

    from flows.remote import call

    def deployment_row(deployment: dict[str, Any]) -> dict[str, Any]:
        here = {"deployments": {"id": {"any_": [deployment["id"]]}}}
        last = call(client, "POST", "/flow_runs/filter", here | BEGUN)
        upcoming = call(client, "POST", "/flow_runs/filter", here | UPCOMING)
        return {
            "name": f"{flows[deployment['flow_id']]}/{deployment['name']}",
            "paused": deployment["paused"],
            "last": {
                "name": last[0]["name"],
                "state": last[0]["state"]["name"],
                "message": last[0]["state"]["message"],
            }
            if last
            else None,
            "next": _as_ours(upcoming[0]["next_scheduled_start_time"]) if upcoming else None,
        }

    with get_client(sync_client=True) as client:
        flows = {row["id"]: row["name"] for row in call(client, "POST", "/flows/filter", {})}
        question = {"work_pools": {"name": {"any_": [site["pool"]]}}}
        deployments = call(client, "POST", "/deployments/filter", question)
        workers = call(client, "POST", f"/work_pools/{site['pool']}/workers/filter", {})
        return {
            "workers": sum(row["status"] == "ONLINE" for row in workers),
            "automations": call(client, "POST", "/automations/count", {}),
            "deployments": sorted(map(deployment_row, deployments), key=lambda row: row["name"]),
        }


def _as_ours(when: str) -> str:
    return utc(datetime.fromisoformat(when))
