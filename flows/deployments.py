"""Brings a Prefect server in line with recipes: work pool, deployments, automations and blocks, changing only what differs.

What the server holds is compared by a fingerprint of what we last asked for, not by value: a schedule that somebody
switched off in the UI, or a deployment paused there, stays so until the recipe itself changes. What gristmill did not
make, or made for another lake, is never touched.
"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any
from zoneinfo import ZoneInfo

import httpx
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.utilities.callables import parameter_schema

from flows.automations import reconcile_automations
from flows.config import Recipe, ScheduleConfig
from flows.corpus import build_corpus
from flows.maintenance import maintain_lake
from flows.recipe import load_recipe
from flows.releasing import evaluate_release
from flows.remote import DEPLOYMENT_TAG, call, fingerprint, read_all
from flows.training import train_on_snapshot
from storage.errors import ConfigError, GristmillError
from storage.lake import Lake

LAKE_LABEL = "gristmill.lake"
"""Label of our deployments: the lake's URL."""
RUN_COMMAND = (sys.executable, "-P", "-m", "flows.child", "run", "prefect.engine")
"""Starts a flow run as a process of the site, which is found whatever happens to its worker."""
HEARTBEAT_S = 30
"""Between a run's signs of life; Prefect sends none more often."""
WITHDRAWN = "no recipe"
"""Version of a deployment whose recipe is no longer given."""
SLUG_PREFIX = "recipe-"
"""Before the slugs of our schedules; others were made by somebody in the UI."""
WEEKLY = ScheduleConfig(job="maintain", cron="0 4 * * 0")
"""When a lake is looked after, unless a recipe says."""


@dataclass(frozen=True)
class _Job:
    """What a deployment runs, and what happens if it runs already."""

    name: str
    flow: Flow[..., Any]
    collision: str
    says: str


JOBS = (
    _Job(
        "build", build_corpus, "CANCEL_NEW", "Publishes the next snapshot of {} from what is new."
    ),
    _Job("train", train_on_snapshot, "ENQUEUE", "Trains a model on a snapshot of {}, or goes on."),
    _Job(
        "evaluate", evaluate_release, "ENQUEUE", "Compares a trained model with the release of {}."
    ),
)
MAINTAIN = _Job("maintain", maintain_lake, "CANCEL_NEW", "Verifies and cleans the lake {}.")


def deploy(lake: Lake, recipes: Mapping[str, Recipe], pool: str) -> list[str]:
    """Bring the server at PREFECT_API_URL in line; one line a change, none when all is as it should be.

    `recipes` by absolute path. Deployments of recipes that are no longer given are paused, their automations removed.
    Raises ConfigError, before anything is changed, if two recipes are of one corpus or a name is somebody else's;
    GristmillError if the server does not do it.
    """
    wanted = _wanted(lake, recipes, pool)
    try:
        with get_client(sync_client=True) as client:
            found = _ours(client, lake, wanted)
            changes = _ensure_pool(client, pool)
            ids = {}
            for name, body in wanted.items():
                ids[name], lines = _bring(client, name, body, found.get(name))
                changes += lines
            for name, deployment in found.items():
                if name not in wanted and deployment["version"] != WITHDRAWN:
                    _change(client, deployment, {"paused": True, "version": WITHDRAWN})
                    changes.append(f"{name}: paused, because its recipe is no longer given")
            return changes + reconcile_automations(client, lake, recipes, ids)
    except (httpx.HTTPError, OSError) as error:
        raise GristmillError(
            f"expected the Prefect server to take the deployments, got {type(error).__name__}: {error}; "
            "look at its log, and run the same command again"
        ) from error


def lake_name(lake: Lake) -> str:
    """The last part of its URL."""
    return PurePosixPath(lake.url).name or "root"


# --- what there should be ----------------------------------------------------------------------


def _wanted(lake: Lake, recipes: Mapping[str, Recipe], pool: str) -> dict[str, dict[str, Any]]:
    """`flow/deployment` -> what is sent to the server to make it, with its fingerprint as version."""
    paths: dict[str, str] = {}
    wanted = {}
    for path, recipe in recipes.items():
        corpus = recipe.build.name
        if corpus in paths:
            raise ConfigError(
                f"{path}: expected a corpus of its own, got '{corpus}', the one of {paths[corpus]} too; "
                "give it another name, or one of the recipes alone"
            )
        paths[corpus] = path
        for job in JOBS:
            parameters: dict[str, Any] = {"corpus": _corpus(path, lake)}
            if job.name == "train":
                parameters["training"] = {"approval": recipe.on_snapshot.approval}
            schedules = []
            for given in recipe.schedules:
                if given.job == job.name:
                    if given.overrides:  # a wrong one would fail at night
                        load_recipe(path, given.overrides)
                    schedules.append(
                        _schedule(given, {"corpus": _corpus(path, lake, given.overrides)})
                    )
            says = f"{job.says.format(corpus)}\n\nRecipe: `{path}`, read at every run. Lake: `{lake.url}`."
            wanted |= _deployment(job, corpus, lake, pool, says, parameters, schedules)
    given = [s for recipe in recipes.values() for s in recipe.schedules if s.job == "maintain"]
    # Two recipes may ask for the same time; the lake is looked after once.
    schedules = {s["slug"]: s for s in (_schedule(g, {}) for g in given or [WEEKLY])}
    name = lake_name(lake)
    says = f"{MAINTAIN.says.format(name)}\n\nLake: `{lake.url}`."
    return wanted | _deployment(
        MAINTAIN, name, lake, pool, says, {"lake": lake.url}, list(schedules.values())
    )


def _corpus(path: str, lake: Lake, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The first section of the flows' parameters."""
    return {"recipe": path, "lake": lake.url, "overrides": list(overrides)}


def _deployment(
    job: _Job,
    name: str,
    lake: Lake,
    pool: str,
    says: str,
    parameters: dict[str, Any],
    schedules: list[dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    body = {
        "name": name,
        "description": says,
        "work_pool_name": pool,
        # A module's name, so that no code is fetched or copied before a run.
        "entrypoint": f"{job.flow.fn.__module__}.{job.flow.fn.__name__}",
        "parameters": parameters,
        "parameter_openapi_schema": parameter_schema(job.flow).model_dump_for_openapi(),
        "enforce_parameter_schema": True,
        "tags": [DEPLOYMENT_TAG, name],
        "labels": {LAKE_LABEL: lake.url},
        "concurrency_limit": 1,
        "concurrency_options": {"collision_strategy": job.collision},
        "job_variables": {
            "command": shlex.join(RUN_COMMAND),
            "env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S)},
        },
        "schedules": schedules,
    }
    return {f"{job.flow.name}/{name}": body | {"version": fingerprint(body)}}


def _schedule(given: ScheduleConfig, parameters: dict[str, Any]) -> dict[str, Any]:
    if given.cron:
        schedule: dict[str, Any] = {"cron": given.cron}
    elif given.rrule:
        schedule = {"rrule": given.rrule}
    else:
        # Without an anchor the server would count from the moment it is told.
        anchor = datetime(2024, 1, 1, tzinfo=ZoneInfo(given.timezone))
        schedule = {"interval": given.every_s, "anchor_date": anchor.isoformat()}
    schedule["timezone"] = given.timezone
    # Made from what it says, so that it stays the same schedule, with its switch as it is set in the UI, while others
    # come and go.
    slug = SLUG_PREFIX + fingerprint([schedule, parameters, given.active])
    return {"slug": slug, "schedule": schedule, "active": given.active, "parameters": parameters}


# --- what there is -----------------------------------------------------------------------------


def _ours(
    client: SyncPrefectClient, lake: Lake, wanted: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Deployments of this lake by name. Raises ConfigError if a wanted name is taken by another one."""
    flows = {flow["id"]: flow["name"] for flow in read_all(client, "/flows/filter", {})}
    found = {}
    for deployment in read_all(client, "/deployments/filter", {}):
        name = f"{flows.get(deployment['flow_id'], '?')}/{deployment['name']}"
        owner = deployment["labels"].get(LAKE_LABEL)
        if owner == lake.url:
            found[name] = deployment
        elif name in wanted:
            raise ConfigError(
                f"{name}: expected this deployment to be free or of the lake {lake.url}, got one of "
                f"{f'the lake {owner}' if owner else 'somebody else'}; use another name for the corpus (or the "
                "lake's folder), or another Prefect server"
            )
    return found


def _ensure_pool(client: SyncPrefectClient, pool: str) -> list[str]:
    found = read_all(client, "/work_pools/filter", {"work_pools": {"name": {"any_": [pool]}}})
    if not found:
        # The worker fills in what a job of it is made of.
        call(client, "POST", "/work_pools/", {"name": pool, "type": "process"})
        return [f"work pool {pool}: made"]
    if found[0]["type"] != "process":
        raise ConfigError(
            f"work pool {pool}: expected one of type process, got {found[0]['type']}; rename or remove it at the "
            "Prefect server"
        )
    return []


# --- changes -----------------------------------------------------------------------------------


def _bring(
    client: SyncPrefectClient, name: str, body: dict[str, Any], found: dict[str, Any] | None
) -> tuple[str, list[str]]:
    """Make or change a deployment; its id, and what was done."""
    if found is None:
        flow = call(client, "POST", "/flows/", {"name": name.partition("/")[0]})
        made = call(client, "POST", "/deployments/", body | {"flow_id": flow["id"]})
        return made["id"], [f"{name}: made"]
    if found["version"] == body["version"]:
        return found["id"], []
    fields = {key: value for key, value in body.items() if key != "schedules"}
    differing = {key: value for key, value in fields.items() if _as_sent(found, key) != value}
    if found["version"] == WITHDRAWN:
        differing["paused"] = False
    words = [word for key in differing if (word := _WORDS.get(key, key))]
    if _change_schedules(client, found, body["schedules"]):
        words.append("schedules")
    # Last, with the fingerprint: whoever is killed before does it again.
    _change(client, found, differing)
    return found["id"], [f"{name}: changed {', '.join(words)}"]


_WORDS = {
    "version": "",
    "paused": "paused to active",
    "parameter_openapi_schema": "form",
    "concurrency_options": "limit",
    "work_pool_name": "work pool",
    "job_variables": "command or environment",
}
"""Fields of a deployment as they are told to the user."""


def _as_sent(found: dict[str, Any], key: str) -> Any:
    """A field of a deployment as the server shows it, in the form in which it is sent."""
    if key == "concurrency_limit":
        return (found["global_concurrency_limit"] or {}).get("limit")
    if key == "concurrency_options":
        options = found[key] or {}
        return {"collision_strategy": options.get("collision_strategy")}
    if key == "labels":  # with Prefect's own among them
        return {LAKE_LABEL: found[key].get(LAKE_LABEL)}
    return found[key]


def _change(client: SyncPrefectClient, found: dict[str, Any], fields: dict[str, Any]) -> None:
    call(client, "PATCH", f"/deployments/{found['id']}", fields)


def _change_schedules(
    client: SyncPrefectClient, found: dict[str, Any], schedules: list[dict[str, Any]]
) -> bool:
    """One by one: a deployment's schedules sent together would replace those made in the UI. False: nothing to do."""
    there = {s["slug"]: s for s in found["schedules"] if str(s["slug"]).startswith(SLUG_PREFIX)}
    here = {schedule["slug"]: schedule for schedule in schedules}
    path = f"/deployments/{found['id']}/schedules"
    gone, new = there.keys() - here.keys(), here.keys() - there.keys()
    for slug in gone:
        call(client, "DELETE", f"{path}/{there[slug]['id']}")
    if new:
        call(client, "POST", path, [here[slug] for slug in sorted(new)])
    return bool(gone or new)
