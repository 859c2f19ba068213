"""What the lake says is undone, and nobody is at, is started again; what Prefect shows as running, and is dead, is ended.

Prefect's database may lag, be restored or be lost; so a site asks the lake every few seconds, and whatever is repeated
here finds its work done there.
"""

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from flows import events
from flows.claims import is_finished, read_claim
from flows.config import Recipe
from flows.parameters import Corpus, Release, Training
from model.records import read_object
from storage.catalog import resolve
from storage.errors import NotFoundError
from storage.lake import Lake
from storage.snapshot import Snapshot

MAX_CRASHES = 3
"""Crashes in a row after which a job waits for its next schedule, event or a person."""

START_S = 60
"""A run that a worker took and that has no process after so long never gets one."""


def reconcile(
    client: SyncPrefectClient,
    lake: Lake,
    recipes: Mapping[str, Recipe],
    pool: str,
    *,
    began: datetime,
    is_new_server: bool = False,
) -> list[str]:
    """Bring Prefect's runs in line with the lake; returns a line for everything done.

    `began`: when the site started; a crash before that, with the site itself perhaps, is not held against a job.
    `is_new_server`: the server knew nothing of this lake, so events that an earlier one has taken are sent again.
    """
    # A bucket may have a site on another machine: its dead runs are found by their missing heartbeats alone.
    told = _end_dead_runs(client, pool) if lake.is_local else []
    for path, recipe in recipes.items():
        told += _go_on_building(client, lake, path, recipe, began)
        told += _go_on_training(client, lake, path, recipe, began, is_new_server)
        told += _go_on_evaluating(client, lake, path, recipe, began)
    return told


# --- runs without a process --------------------------------------------------------------------


def _end_dead_runs(client: SyncPrefectClient, pool: str) -> list[str]:
    """Runs of this machine that Prefect shows as running and that have no process become CRASHED."""
    active = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=active))
        ),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
    )
    told = []
    for run in runs:
        if why := _why_dead(run):
            message = f"{why}; finished work is kept, and the same job goes on from there"
            client.set_flow_run_state(run.id, Crashed(message=message), force=True)
            told.append(f"run '{run.name}': crashed, {why}")
    return told


def _why_dead(run: FlowRun) -> str:
    """In words why there is no process behind a run; empty if there may be one."""
    pid = run.infrastructure_pid or ""
    if pid.isdigit():
        return "" if _is_process_of(int(pid), run) else f"its process {pid} is gone"
    since = run.state.timestamp if run.state else datetime.now(UTC)
    if run.state_type == StateType.PENDING and _age(since) > timedelta(seconds=START_S):
        return f"no process was started within {START_S} s"
    return ""


def _is_process_of(pid: int, run: FlowRun) -> bool:
    try:
        return str(run.id).encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return False
    except OSError:  # somebody else's process, or one that is just ending
        return True
    try:  # no Linux: a process of that number is all there is to know
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _age(moment: datetime) -> timedelta:
    return datetime.now(UTC) - moment


# --- work that nobody is at --------------------------------------------------------------------


def _go_on_building(
    client: SyncPrefectClient, lake: Lake, path: str, recipe: Recipe, began: datetime
) -> list[str]:
    """An unfinished build goes on, if its last run crashed, or if no run of it is known."""
    name = recipe.build.name
    if not lake.list_folders(f"corpora/{name}/work"):
        return []
    what = f"the unfinished build of '{name}'"
    return _start_again(
        client, f"build-corpus/{name}", what, _corpus_parameters(lake, path), None, began
    )


def _go_on_training(
    client: SyncPrefectClient,
    lake: Lake,
    path: str,
    recipe: Recipe,
    began: datetime,
    is_new_server: bool,
) -> list[str]:
    """The newest promoted snapshot is announced if nobody did, and its training goes on if it crashed."""
    if (snapshot := _newest(lake, recipe)) is None:
        return []
    manifest = snapshot.manifest
    if (claim := read_claim(snapshot)) is None:
        was_sent = events.was_sent(lake, events.SNAPSHOT_PROMOTED, manifest.name, snapshot.hash)
        if was_sent and not is_new_server:
            return []  # the automation has it
        events.send(
            lake,
            events.SNAPSHOT_PROMOTED,
            manifest.name,
            snapshot.hash,
            {"snapshot": snapshot.ref, "hash": snapshot.hash, "recipe": path},
            again=is_new_server,
        )
        return [f"{snapshot.ref}: announced"]
    if claim["run"] is None or is_finished(lake, claim["run"]):  # None: declined
        return []
    parameters = _corpus_parameters(lake, path)
    parameters["training"] = Training(snapshot=snapshot.ref).model_dump()
    since = datetime.fromisoformat(manifest.commit["created_at"])
    what = f"the training of {snapshot.ref}"
    return _start_again(
        client, f"train-on-snapshot/{manifest.name}", what, parameters, since, began
    )


def _go_on_evaluating(
    client: SyncPrefectClient, lake: Lake, path: str, recipe: Recipe, began: datetime
) -> list[str]:
    """The newest finished automatic training is judged, unless it was."""
    name = recipe.build.name
    if not recipe.release.evaluate:
        return []
    claims = [entry.path for entry in lake.list(f"corpora/{name}/training/")]
    if not claims or not (run := read_object(lake, claims[-1]).get("run")):
        return []
    files = {entry.path: entry for entry in lake.list(f"runs/{run}/")}
    result = files.get(f"runs/{run}/result.json")
    if result is None or f"runs/{run}/evaluation.json" in files:
        return []
    finished = datetime.fromtimestamp(result.modified, UTC)
    if _age(finished) < timedelta(seconds=START_S):
        return []  # the event that it has finished is on its way
    parameters = _corpus_parameters(lake, path) | {"release": Release(run=run).model_dump()}
    what = f"the evaluation of run '{run}'"
    return _start_again(client, f"evaluate-release/{name}", what, parameters, finished, began)


def _newest(lake: Lake, recipe: Recipe) -> Snapshot | None:
    if not recipe.on_snapshot.train:
        return None
    try:
        return resolve(lake, recipe.build.name)
    except NotFoundError:  # no corpus yet, or none promoted
        return None


def _corpus_parameters(lake: Lake, path: str) -> dict[str, Any]:
    return {"corpus": Corpus(recipe=path, lake=lake.url).model_dump()}


def _start_again(
    client: SyncPrefectClient,
    deployment_name: str,
    what: str,
    parameters: dict[str, Any],
    since: datetime | None,
    began: datetime,
) -> list[str]:
    """Start a deployment if nobody is at it and its last runs, of those `since` then, have crashed or are not known.

    It gets the parameters of the run that crashed, `parameters` if there is none.
    """
    try:
        deployment = client.read_deployment_by_name(deployment_name)
    except ObjectNotFound:
        return []
    runs = _runs(client, deployment, since)
    if deployment.paused or not _may_start(runs, began):
        return []
    run = client.create_flow_run_from_deployment(
        deployment.id,
        parameters=runs[0].parameters if runs else parameters,
        tags=["went-on"],
        # However often this is asked, and by whomever: one run.
        idempotency_key=f"{what} after {runs[0].id if runs else 'no run'}",
    )
    return [f"{what}: nobody is at it, goes on as run '{run.name}'"]


def _runs(
    client: SyncPrefectClient, deployment: DeploymentResponse, since: datetime | None
) -> list[FlowRun]:
    """The last runs of a deployment, newest first, without those that its schedule has put into the future."""
    runs = client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=200,
    )
    return [
        run
        for run in runs
        if not (run.state_type == StateType.SCHEDULED and run.auto_scheduled)
        and (since is None or run.created is None or run.created >= since)
    ]


def _may_start(runs: Sequence[FlowRun], began: datetime) -> bool:
    """Whether a job, by its runs (newest first), was never started or has crashed, but not time and again since then."""
    if any(run.state is None or not run.state.is_final() for run in runs):
        return False
    crashed = list(takewhile(lambda run: run.state_type == StateType.CRASHED, runs))
    in_vain = [run for run in crashed if run.created is None or run.created >= began]
    return not runs or (bool(crashed) and len(in_vain) < MAX_CRASHES)
